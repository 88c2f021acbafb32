//! `describe-image`, and pictures in `chat`: what a user sees. The weights are random, so the words
//! are noise; what is tested is around them.

#[path = "support/eyes.rs"]
mod eyes;
#[path = "support/outcome.rs"]
mod outcome;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use outcome::{run, text};
use program::{Home, model};
use serde_json::Value;

/// The text model's width.
const EMBEDDING: u64 = 96;

/// A home with a model and its towers beside each other.
fn home() -> Home {
    let home = Home::new();
    fs::copy(model(), home.path().join("tiny.gguf")).unwrap();
    eyes::write(&home.path().join("mmproj-tiny.gguf"), EMBEDDING, None);
    home
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures").join(name)
}

fn describe(home: &Home, arguments: &[&str]) -> Command {
    let mut program = home.program();
    program.args(["describe-image", "-m", "tiny.gguf", "-n", "24"]).args(arguments);
    program
}

fn done(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Exit code 1; gives stderr.
fn failed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_picture_gives_its_words_and_nothing_else() {
    let home = home();
    let file = picture("rgb.png");
    let output = run(describe(&home, &[file.to_str().unwrap()]), b"");
    let words = done(&output);
    assert!(!words.trim().is_empty() && !words.contains("rgb.png"), "{words}");
    let again = run(describe(&home, &[file.to_str().unwrap()]), b"");
    assert_eq!(done(&again), words, "the likeliest words are always the same");
    let from_stdin = run(describe(&home, &["-"]), &fs::read(&file).unwrap());
    assert_eq!(done(&from_stdin), words);
}

#[test]
fn pictures_are_seen() {
    let home = home();
    let names = ["rgb.png", "grey.png", "turned3.jpg"].map(picture);
    let mut arguments = vec!["--jsonl"];
    arguments.extend(names.iter().map(|name| name.to_str().unwrap()));
    let output = run(describe(&home, &arguments), b"");
    let seen = lines(done(&output));
    assert_eq!(seen.len(), 3);
    assert_ne!(seen[0]["text"], seen[2]["text"], "two pictures, one text");
    for (entry, name) in seen.iter().zip(&names) {
        assert_eq!(entry["file"], name.to_str().unwrap());
        assert!(entry["width"].as_u64().unwrap() > 0 && entry["height"].as_u64().unwrap() > 0);
        for time in ["encode", "prompt", "decode", "total"] {
            assert!(entry["timings"][time].as_f64().unwrap() >= 0.0, "{time}");
        }
    }
    let plain =
        run(describe(&home, &[names[0].to_str().unwrap(), names[1].to_str().unwrap()]), b"");
    let plain = done(&plain);
    let first = format!("{}: {}", names[0].display(), seen[0]["text"].as_str().unwrap().trim_end());
    assert!(plain.starts_with(&first), "{plain}");
}

#[test]
fn of_twenty_pictures_two_are_broken() {
    let home = home();
    let folder = home.path().join("photos");
    fs::create_dir(&folder).unwrap();
    let names = [
        "420.jpg",
        "444.jpg",
        "cmyk.jpg",
        "grey.jpg",
        "progressive.jpg",
        "turned5.jpg",
        "turned8.jpg",
        "rgb.png",
        "rgba.png",
        "grey16.png",
        "palette-transparent.png",
        "1x1.png",
        "lossy.webp",
        "lossless-alpha.webp",
        "animated.gif",
        "transparent.gif",
        "rgb.bmp",
        "raw.tif",
    ];
    for name in names {
        fs::copy(picture(name), folder.join(name)).unwrap();
    }
    let whole = fs::read(picture("444.jpg")).unwrap();
    fs::write(folder.join("half.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("words.png"), "these are words").unwrap();
    fs::write(folder.join("notes.txt"), "no picture by its name").unwrap();
    fs::write(folder.join(".hidden.png"), "").unwrap();
    std::os::unix::fs::symlink(".", folder.join("again")).unwrap();
    let output = run(describe(&home, &["--jsonl", "-r", "photos"]), b"");
    let stderr = failed(&output);
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 3, "{stderr}");
    assert!(errors[0].contains("half.jpg") && errors[1].contains("words.png"), "{stderr}");
    assert_eq!(errors[2], "error: 2 of 20 pictures could not be described");
    let described = lines(text(&output.stdout));
    let mut files: Vec<_> = described
        .iter()
        .map(|entry| Path::new(entry["file"].as_str().unwrap()).file_name().unwrap())
        .map(|name| name.to_str().unwrap().to_owned())
        .collect();
    assert!(files.is_sorted(), "{files:?}");
    files.sort_unstable();
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort_unstable();
    assert_eq!(files, expected);
}

#[test]
fn sidecars_lie_beside_their_pictures() {
    let home = home();
    for name in ["rgb.png", "grey.jpg"] {
        fs::copy(picture(name), home.path().join(name)).unwrap();
    }
    let output = run(describe(&home, &["--sidecar", "txt", "rgb.png", "grey.jpg"]), b"");
    assert_eq!(done(&output), "");
    let words = fs::read_to_string(home.path().join("rgb.txt")).unwrap();
    assert!(!words.trim().is_empty());
    fs::write(home.path().join("rgb.txt"), "mine").unwrap();
    let refused = run(describe(&home, &["--sidecar", "txt", "rgb.png"]), b"");
    assert!(failed(&refused).contains("rgb.txt: exists already"), "{}", text(&refused.stderr));
    let skipped =
        run(describe(&home, &["--sidecar", "txt", "--skip-existing", "rgb.png", "grey.jpg"]), b"");
    assert_eq!(done(&skipped), "");
    assert_eq!(fs::read_to_string(home.path().join("rgb.txt")).unwrap(), "mine");
    fs::copy(picture("rgb.png"), home.path().join("grey.png")).unwrap();
    let both = run(describe(&home, &["--sidecar", "txt", "--force", "grey.png", "grey.jpg"]), b"");
    assert!(failed(&both).contains("would be the sidecar of both grey.png and grey.jpg"));
    let forced = run(describe(&home, &["--sidecar", "txt", "--force", "rgb.png"]), b"");
    assert_eq!(done(&forced), "");
    assert_eq!(fs::read_to_string(home.path().join("rgb.txt")).unwrap(), words);
    done(&run(describe(&home, &["--sidecar", "json", "rgb.png"]), b""));
    let entry = fs::read_to_string(home.path().join("rgb.json")).unwrap();
    let entry: Value = serde_json::from_str(&entry).unwrap();
    assert_eq!(entry["text"].as_str().unwrap().trim_end(), words.trim_end());
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let home = home();
    let file = picture("rgb.png");
    let file = file.to_str().unwrap();
    let towers = home.path().join("mmproj-tiny.gguf");
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = run(describe(&home, arguments), b"");
        let stderr = failed(&output);
        assert_eq!(text(&output.stdout), "");
        for word in words {
            assert!(stderr.contains(word), "{stderr}");
        }
    };
    refused(&["nowhere.png"], &["error: nowhere.png: "]);
    refused(&["--image-size", "33", file], &["pictures of 16, 32 pixels, not of 33"]);
    refused(&["--image-size", "0", file], &["not of 0"]);
    refused(&["--image-size", "2048", file], &["not of 2048"]);
    refused(&["--mmproj", "nowhere.gguf", file], &["error: nowhere.gguf: "]);
    refused(&["--mmproj", "tiny.gguf", file], &["tiny.gguf: not a file of towers"]);
    fs::create_dir(home.path().join("empty")).unwrap();
    refused(&["empty"], &["empty: no pictures in this directory"]);

    let gamma = "v.blk.1.1.layer_scale.gamma";
    eyes::write(&towers, EMBEDDING, Some(gamma));
    refused(&[file], &["mmproj-tiny.gguf", gamma, "is missing"]);
    eyes::write(&towers, EMBEDDING, Some("v.blk.1.0.pw_exp.conv.weight"));
    refused(&[file], &["mmproj-tiny.gguf", "v.blk."]);
    // A text model of another width is not meant by a file beside it, and can't use it.
    eyes::write(&towers, 2 * EMBEDDING, None);
    refused(
        &[file],
        &["tiny.gguf: pictures need the model's towers; ./mmproj-tiny.gguf lies beside it"],
    );
    refused(&["--mmproj", "mmproj-tiny.gguf", file], &["mm.input_projection.weight", "32 x 96"]);
    fs::remove_file(&towers).unwrap();
    refused(&[file], &["no file named mmproj lies beside it", "hint: --mmproj FILE"]);
    for name in ["mmproj-a.gguf", "mmproj-b.gguf"] {
        eyes::write(&home.path().join(name), EMBEDDING, None);
    }
    refused(&[file], &["2 files of towers fit", "mmproj-b.gguf"]);
}

/// One greedy answer as JSON.
fn answer(home: &Home, arguments: &[&str]) -> Value {
    let mut program = home.program();
    program.args(["chat", "-m", "tiny.gguf", "--greedy", "--json", "-n", "24"]).args(arguments);
    serde_json::from_str(done(&run(program, b""))).unwrap()
}

#[test]
fn pictures_go_with_a_prompt() {
    let home = home();
    let (a, b) = (picture("rgb.png"), picture("turned3.jpg"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let prompt = |answer: &Value| answer["tokens"]["prompt"].as_u64().unwrap() as usize;
    let none = answer(&home, &["What is it?"]);
    let one = answer(&home, &["-i", a, "What is it?"]);
    let two = answer(&home, &["-i", a, "-i", b, "What is it?"]);
    // Marks and newlines come with each picture.
    let around = eyes::SOFT_TOKENS + 2..eyes::SOFT_TOKENS + 5;
    assert!(around.contains(&(prompt(&one) - prompt(&none))), "{one}");
    assert!(around.contains(&(prompt(&two) - prompt(&one))), "{two}");
    let raw = answer(&home, &["--raw", "-i", a, "<start_of_turn>user\n<image_soft_token>so"]);
    assert!(prompt(&raw) > eyes::SOFT_TOKENS);
    let mut program = home.program();
    program.args(["chat", "-m", "tiny.gguf", "--raw", "-i", a, "no placeholder"]);
    assert!(failed(&run(program, b"")).contains("<image_soft_token>"));
}

/// What a user types never stands for a picture.
#[test]
fn a_placeholder_in_a_message_is_text() {
    let home = home();
    let typed = answer(&home, &["<image_soft_token>"]);
    assert!(typed["tokens"]["prompt"].as_u64().unwrap() > 8);
    let file = picture("rgb.png");
    let with = answer(&home, &["-i", file.to_str().unwrap(), "<image_soft_token>"]);
    let more =
        with["tokens"]["prompt"].as_u64().unwrap() - typed["tokens"]["prompt"].as_u64().unwrap();
    assert!((eyes::SOFT_TOKENS as u64..2 * eyes::SOFT_TOKENS as u64).contains(&more), "{more}");
}

#[test]
fn a_saved_talk_keeps_its_picture() {
    let home = home();
    let file = picture("rgb.png");
    let first = answer(&home, &["--session", "s", "-i", file.to_str().unwrap(), "What is it?"]);
    let second = answer(&home, &["--session", "s", "And now?"]);
    let cached = second["tokens"]["cached"].as_u64().unwrap();
    assert!(cached >= first["tokens"]["prompt"].as_u64().unwrap(), "{second}");
}

#[test]
fn an_output_that_fails_ends_the_work() {
    let home = home();
    let file = picture("rgb.png");
    let mut program = describe(&home, &[file.to_str().unwrap(), file.to_str().unwrap()]);
    program.stdin(Stdio::null()).stderr(Stdio::piped());
    program.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = program.output().unwrap();
    let said = failed(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: standard output: "), "{said}");
}
