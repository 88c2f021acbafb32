//! The model inside the program, as a newcomer meets it: real answers, real words, real pictures. The
//! voices, scenes and writers here were never in its training.

#[path = "support/outcome.rs"]
mod outcome;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use outcome::{run, text};
use program::{Home, model};
use serde_json::Value;

const RATE: usize = 16_000;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/builtin").join(name)
}

/// stdout and stderr of a run with no model named.
fn answer(arguments: &[&str]) -> (String, String) {
    let home = Home::new();
    let mut program = home.program();
    program.args(arguments);
    let output = run(program, b"");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

fn path(name: &str) -> String {
    sample(name).to_str().expect("UTF-8").to_owned()
}

/// 16-bit samples of one of our WAV files.
fn samples(name: &str) -> Vec<i16> {
    let reader = hound::WavReader::open(sample(name)).expect("a WAV file");
    assert_eq!(reader.spec().sample_rate as usize, RATE);
    reader.into_samples().collect::<Result<_, _>>().expect("whole")
}

#[test]
fn one_line_says_that_it_answers_and_where_a_real_model_is() {
    let (stdout, stderr) = answer(&["chat", "How do I transcribe a recording?"]);
    assert_eq!(stdout, "gemma3n transcribe talk.mp3\n");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("built-in") && stderr.contains("hf download"), "{stderr}");
    // Named, nothing needs to be said.
    for named in [&["-m", "builtin"][..], &["--quiet"]] {
        let line = [&["chat", "How do I transcribe a recording?"], named].concat();
        assert_eq!(answer(&line), (stdout.clone(), String::new()));
    }
    let other = model();
    let other = other.to_str().expect("UTF-8");
    assert_eq!(answer(&["chat", "Hello", "-n", "4", "-m", other]).1, "");
}

#[test]
fn the_variable_names_it_too_and_a_file_of_that_name_is_a_path_away() {
    let home = Home::new();
    let mut program = home.program();
    program.args(["chat", "Hello"]).env("GEMMA3N_MODEL", "builtin");
    let output = run(program, b"");
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("Hello! Ask me about gemma3n.\n", "")
    );
    fs::write(home.path().join("builtin"), b"no model").unwrap();
    let mut program = home.program();
    program.args(["chat", "Hello", "-m", "./builtin"]);
    let output = run(program, b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("./builtin"), "{}", text(&output.stderr));
}

#[test]
fn it_answers_questions_about_the_program() {
    for (question, expected) in [
        ("How can I make subtitles for a film?", "gemma3n transcribe -o srt talk.mp3"),
        ("I want to describe a photo.", "gemma3n describe-image photo.jpg"),
        ("What do I type to quantize a model?", "gemma3n quantize in.gguf out.gguf Q4_K_M"),
        ("How do I save this chat?", "/save FILE"),
        ("What is 7 plus 5?", "12"),
        ("Say: green house", "green house"),
    ] {
        let (stdout, _) = answer(&["chat", question]);
        assert_eq!(stdout.trim_end(), expected, "{question}");
    }
}

#[test]
fn it_writes_down_words() {
    for (name, expected) in [
        ("words.wav", "open seven two stop"),
        ("digits.wav", "four one five"),
        ("commands.wav", "save next cancel"),
    ] {
        let (stdout, _) = answer(&["transcribe", &path(name)]);
        assert_eq!(stdout.trim(), expected, "{name}");
    }
}

#[test]
fn it_describes_a_folder_of_pictures() {
    let folder = sample("");
    let (stdout, _) = answer(&["describe-image", folder.to_str().unwrap()]);
    let mut lines: Vec<(&str, &str)> = stdout
        .lines()
        .map(|line| line.rsplit_once('/').expect("a path").1.split_once(": ").expect("an answer"))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            ("circles.png", "Four red circles."),
            ("digit.png", "The handwritten digit three."),
            ("squares.png", "Two green squares."),
            ("star.png", "One yellow star at the top left."),
        ]
    );
}

#[test]
fn it_sees_and_hears_in_one_question() {
    let (picture, sound) = (path("circles.png"), path("three.wav"));
    let (stdout, _) = answer(&["chat", "-i", &picture, "-a", &sound, "What do you see and hear?"]);
    assert_eq!(stdout.trim_end(), "I see: Four red circles. I hear: three.");
    let same = "Is the number in the picture the number that was said?";
    let (picture, sound) = (path("digit.png"), path("three.wav"));
    assert_eq!(answer(&["chat", "-i", &picture, "-a", &sound, same]).0, "Yes.\n");
}

/// Three minutes: phrases with pauses of 1.5 to 7 seconds between them. The words and times are the
/// recording's own.
#[test]
fn three_minutes_with_pauses_have_the_right_words_at_the_right_times() {
    let names = [
        ("words.wav", "open seven two stop"),
        ("digits.wav", "four one five"),
        ("commands.wav", "save next cancel"),
        ("mixed.wav", "play nine zero"),
        ("three.wav", "three"),
    ];
    let mut recording: Vec<i16> = Vec::new();
    let mut phrases: Vec<(f64, f64, &str)> = Vec::new();
    for i in 0.. {
        let (name, words) = names[i * 7 % 5];
        let pause = RATE * 3 / 2 + i * 5407 % (11 * RATE / 2);
        let clip = samples(name);
        if recording.len() + pause + clip.len() > 180 * RATE {
            break;
        }
        recording.resize(recording.len() + pause, 0);
        // Each has 0.25 s of silence around it.
        let start = recording.len() as f64 / RATE as f64 + 0.25;
        phrases.push((start, start + clip.len() as f64 / RATE as f64 - 0.5, words));
        recording.extend(clip);
    }
    recording.resize(180 * RATE, 0);
    assert!(phrases.len() >= 25, "{}", phrases.len());

    let home = Home::new();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE as u32,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(home.path().join("long.wav"), spec).unwrap();
    for sample in recording {
        writer.write_sample(sample).unwrap();
    }
    writer.finalize().unwrap();
    let mut program = home.program();
    program.args(["transcribe", "-f", "json", "long.wav"]);
    let output = run(program, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();

    let expected: Vec<&str> = phrases.iter().map(|phrase| phrase.2).collect();
    let said: Vec<&str> = found["text"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(said.join(" "), expected.join(" "));
    let mut speech = Vec::new();
    for segment in found["segments"].as_array().unwrap() {
        for span in segment["speech"].as_array().unwrap() {
            speech.push((span[0].as_f64().unwrap(), span[1].as_f64().unwrap()));
        }
    }
    // A phrase may be told in several stretches: its first begins and its last ends with it.
    for (start, end, words) in phrases {
        let inside: Vec<_> =
            speech.iter().filter(|span| span.0 < end && span.1 > start).copied().collect();
        let (first, last) = (inside.first().expect(words), inside.last().expect(words));
        assert!((first.0 - start).abs() < 0.15, "{words} at {start}: {first:?}");
        assert!((last.1 - end).abs() < 0.15, "{words} to {end}: {last:?}");
    }
}

/// A sound of more than the model hears at once is cut in `chat`, with a notice, and in pieces that fit
/// in `transcribe`, whatever --max-segment permits.
#[test]
fn what_it_hears_at_once_is_known() {
    let home = Home::new();
    let spec = hound::WavReader::open(sample("words.wav")).unwrap().spec();
    let mut writer = hound::WavWriter::create(home.path().join("long.wav"), spec).unwrap();
    for _ in 0..8 {
        samples("digits.wav").into_iter().for_each(|sample| writer.write_sample(sample).unwrap());
    }
    writer.finalize().unwrap();
    let mut program = home.program();
    program.args(["chat", "-m", "builtin", "-a", "long.wav", "Transcribe this audio."]);
    let output = run(program, b"");
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(said.contains("the model hears the first 8 s of a clip"), "{said}");
    // More than it can hear is no more than it can hear.
    for (asked, least, most) in [(&[][..], 1.5, 4.0), (&["--max-segment", "30"], 4.0, 8.0)] {
        let mut program = home.program();
        program.args(["transcribe", "-m", "builtin", "-f", "json", "long.wav"]).args(asked);
        let output = run(program, b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let time = |segment: &Value, key: &str| segment[key].as_f64().unwrap();
        let segments = found["segments"].as_array().unwrap().iter();
        let longest = segments.map(|s| time(s, "end") - time(s, "start")).fold(0.0, f64::max);
        assert!(longest > least && longest <= most, "{asked:?}: {longest}");
    }
}

/// The smaller model inside it (MatFormer) answers, too: a view of the same bytes.
#[test]
fn its_slice_answers() {
    let home = Home::new();
    fs::write(home.path().join("half.csv"), HALF).unwrap();
    let mut program = home.program();
    program.args([
        "chat",
        "-m",
        "builtin",
        "--slice",
        "half.csv",
        "How do I transcribe a recording?",
    ]);
    let output = run(program, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "gemma3n transcribe talk.mp3\n");
}

/// Half the feed-forward width, without layers 5 and 6.
const HALF: &str = "half,6,,,\"[256, 256, 256, 256, 256, 256]\",\"[5, 6]\"\n";

#[test]
fn inspect_looks_into_it() {
    let (stdout, stderr) = answer(&["inspect", "builtin"]);
    assert!(stdout.contains("8, 256 wide") && stdout.contains("Gemma 3n text"), "{stdout}");
    assert_eq!(stderr, "");
}
