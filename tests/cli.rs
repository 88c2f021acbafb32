//! What a user sees of the command line: streams, exit codes, error lines.

#[path = "support/program.rs"]
mod program;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use program::{Home, model};
use serde_json::Value;

/// Runs to the end with these bytes on standard input.
fn run(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A program that ends early leaves the pipe broken, which is its right.
    child.stdin.take().expect("a pipe").write_all(input).ok();
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Exit code 1, nothing on stdout, `error: …` on the first line; gives stderr's lines.
fn failed(output: &Output) -> Vec<String> {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert!(stderr.starts_with("error: "), "{stderr}");
    stderr.lines().map(str::to_owned).collect()
}

/// Exit code 0; gives stdout.
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// One greedy answer to these arguments and this input, as JSON.
fn answer(home: &Home, arguments: &[&str], input: &str) -> Value {
    let mut program = home.program();
    program.args(["chat", "--greedy", "--json", "-n", "8", "-m"]).arg(model()).args(arguments);
    let output = run(&mut program, input.as_bytes());
    serde_json::from_str(&done(&output)).expect("one JSON object")
}

#[test]
fn help_goes_to_stdout_and_names_every_command() {
    let home = Home::new();
    let help = done(&run(home.program().arg("--help"), b""));
    for command in ["chat", "convert", "imatrix", "completions", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let help = done(&run(home.program().args([command, "--help"]), b""));
        assert!(help.contains("Examples:"), "{help}");
    }
    let version = done(&run(home.program().arg("--version"), b""));
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("ggml "), "{version}");
}

#[test]
fn wrong_usage_exits_with_2_and_a_suggestion() {
    let home = Home::new();
    for (arguments, said) in [
        (&["chatt"][..], "similar subcommand exists: 'chat'"),
        (&["chat", "--tempp", "1"], "similar argument exists: '--temp'"),
        (&["chat", "--temp", "-1", "hi"], "must be a number of 0 or more"),
        (&["chat", "--greedy", "--temp", "1", "hi"], "cannot be used with"),
        (&["chat", "-t", "1000", "hi"], "must be a number up to 512"),
        (&["man", "chatt"], "no subcommand 'chatt'"),
        (&[], "Usage: gemma3n"),
    ] {
        let output = run(home.program().args(arguments), b"");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let home = Home::new();
    let chat = |model: &str| failed(&run(home.program().args(["chat", "hi", "-m", model]), b""));
    assert_eq!(chat("no.gguf")[0], "error: no.gguf: no such file or directory");
    let lines = chat("ggml-org/gemma-3n-E2B-it-GGUF:Q8_0");
    assert!(lines[0].contains("not in the model caches of this machine"), "{lines:?}");
    assert!(lines[1].contains("hf download ggml-org/gemma-3n-E2B-it-GGUF"), "{lines:?}");
}

#[test]
fn a_directory_needs_one_model_in_it() {
    let home = Home::new();
    let dir = home.path().join("models");
    fs::create_dir(&dir).expect("a directory");
    let chat = || failed(&run(home.program().args(["chat", "hi", "-m", "models"]), b""));
    assert_eq!(chat()[0], "error: models: no GGUF text model in this directory");
    fs::write(dir.join("mmproj.gguf"), b"").expect("a file");
    assert_eq!(chat()[0], "error: models: no GGUF text model in this directory");
    fs::write(dir.join("a.gguf"), b"").expect("a file");
    fs::write(dir.join("b.gguf"), b"").expect("a file");
    assert_eq!(chat()[0], "error: models: 2 text models: a.gguf, b.gguf");
    fs::remove_file(dir.join("a.gguf")).expect("it was there");
    fs::remove_file(dir.join("b.gguf")).expect("it was there");
    fs::write(dir.join("config.json"), b"{}").expect("a file");
    assert!(chat()[1].contains("gemma3n convert models"));
    // Reference values lie beside the model in this one.
    let fixture = model();
    let mut program = home.program();
    program.args(["chat", "hi", "-n", "1", "-m"]).arg(fixture.parent().expect("a folder"));
    done(&run(&mut program, b""));
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let home = Home::new();
    for (name, bytes) in [
        ("empty.gguf", &b""[..]),
        ("text.gguf", b"once upon a time"),
        ("cut.gguf", b"GGUF\x03\0\0\0"),
    ] {
        fs::write(home.path().join(name), bytes).expect("a file");
        let lines = failed(&run(home.program().args(["chat", "hi", "-m", name]), b""));
        assert!(lines[0].starts_with(&format!("error: {name}: ")), "{lines:?}");
    }
}

#[cfg(unix)]
#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn a_file_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let file = home.path().join("mine.gguf");
    fs::write(&file, b"GGUF").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("ours to change");
    if File::open(&file).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    let lines = failed(&run(home.program().args(["chat", "hi", "-m", "mine.gguf"]), b""));
    assert!(lines[0].starts_with("error: mine.gguf: "), "{lines:?}");
    assert!(lines[0].to_lowercase().contains("permission denied"), "{lines:?}");
}

#[test]
fn a_prompt_of_nothing_or_of_bytes_is_refused() {
    let home = Home::new();
    let chat = |arguments: &[&str], input: &[u8]| {
        failed(&run(home.program().args(["chat", "-m"]).arg(model()).args(arguments), input))
    };
    assert_eq!(chat(&[], b" \n\t\n")[0], "error: the prompt is empty");
    assert_eq!(chat(&[" "], b"")[0], "error: the prompt is empty");
    assert_eq!(
        chat(&[], b"a\xffb")[0],
        "error: standard input: not UTF-8 text, byte 0xff at offset 1"
    );
    assert!(chat(&["-f", "no.txt"], b"")[0].starts_with("error: no.txt: No such file"));
    assert!(chat(&["hi", "-s", "@no.txt"], b"")[0].starts_with("error: no.txt: No such file"));
    fs::write(home.path().join("wide.txt"), b"\xff\xfeh\0i\0").expect("a file");
    let lines = chat(&["-f", "wide.txt"], b"");
    assert!(lines[1].contains("UTF-16"), "{lines:?}");
}

#[test]
fn errors_are_coloured_only_when_asked_for_or_on_a_terminal() {
    let home = Home::new();
    let stderr = |arguments: &[&str]| {
        let output = run(home.program().args(["chat", "-m", "no.gguf"]).args(arguments), b"hi");
        text(&output.stderr).to_owned()
    };
    assert!(!stderr(&[]).contains('\x1b'));
    assert!(stderr(&["--color", "always"]).starts_with("\x1b[1;31merror: \x1b[0m"));
    assert!(!stderr(&["--color", "never"]).contains('\x1b'));
    assert!(stderr(&["--color=always", "--nonsense"]).contains('\x1b'));
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(&run(home.program().args(["completions", shell]), b""));
        assert!(script.contains("chat") && script.contains("top-k"), "{shell}");
    }
    assert!(done(&run(home.program().arg("man"), b"")).contains("gemma3n\\-chat(1)"));
    let page = done(&run(home.program().args(["man", "chat"]), b""));
    assert!(page.contains(".TH gemma3n-chat 1") && page.contains("git diff"), "{page}");
    let all = |more: &[&str]| run(home.program().args(["man", "--dir", "man1"]).args(more), b"");
    assert_eq!(done(&all(&[])), "");
    for page in ["gemma3n.1", "gemma3n-chat.1", "gemma3n-convert.1", "gemma3n-man.1"] {
        assert!(home.path().join("man1").join(page).is_file(), "{page}");
    }
    assert!(failed(&all(&[]))[1].contains("--force"));
    done(&all(&["--force"]));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let home = Home::new();
    let model = model();
    let chat =
        ["chat", "Tell me", "-n", "200", "--ignore-eos", "-m", model.to_str().expect("UTF-8")];
    for arguments in [&["completions", "bash"][..], &["man", "chat"], &["chat", "--help"], &chat] {
        let mut child = home
            .program()
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut first = [0];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut first).expect("a byte");
        drop(stdout);
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let home = Home::new();
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = home
        .program()
        .args(["chat", "hi", "-n", "4", "--ignore-eos", "-m"])
        .arg(model())
        .stdin(Stdio::null())
        .stdout(full)
        .output()
        .expect("the program ends");
    assert_eq!(failed(&output)[0], "error: standard output: No space left on device");
}

#[test]
fn stdout_holds_the_answer_and_nothing_else() {
    let home = Home::new();
    let chat = ["chat", "--greedy", "-n", "8", "-m"];
    let plain = run(home.program().args(chat).arg(model()), b"hi\n");
    let stdout = done(&plain);
    assert!(stdout.ends_with('\n'));
    assert_eq!(text(&plain.stderr), "");
    let told = run(home.program().args(chat).arg(model()).args(["--timings", "-v"]), b"hi\n");
    assert_eq!(done(&told), stdout);
    assert!(text(&told.stderr).contains("tokens/s"), "{}", text(&told.stderr));
    let json = answer(&home, &[], "hi\n");
    assert_eq!(
        json["text"].as_str().expect("text").trim_end_matches('\n'),
        stdout.trim_end_matches('\n')
    );
}

#[test]
fn json_has_the_documented_keys() {
    let home = Home::new();
    let json = answer(&home, &["--ignore-eos"], "hi");
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&json), ["text", "ids", "tokens", "finish", "timings", "model"]);
    assert_eq!(keys(&json["tokens"]), ["prompt", "cached", "generated"]);
    assert_eq!(keys(&json["model"]), ["name", "file", "sha", "slice"]);
    assert_eq!(json["finish"], "length");
    assert_eq!(json["tokens"]["generated"], 8);
    assert_eq!(json["ids"].as_array().map(Vec::len), Some(8));
    assert_eq!(json["model"]["file"].as_str().map(Path::new), Some(model().as_path()));
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    let home = Home::new();
    let json = answer(&home, &["hi", "--ignore-eos", "-n", "3"], "");
    assert_eq!(json["tokens"]["generated"], 3);
}

#[test]
fn argument_and_input_are_joined_by_a_blank_line() {
    let home = Home::new();
    fs::write(home.path().join("both.txt"), "one\n\ntwo\nthree\n").expect("a file");
    let wanted = answer(&home, &["-f", "both.txt"], "");
    let of = |json: &Value| (json["ids"].clone(), json["tokens"]["prompt"].clone());
    for (arguments, input) in [
        (&["one"][..], "two\nthree\n"),
        (&["-p", "one"], "two\nthree\n"),
        (&["-f", "-"], "one\n\ntwo\nthree\n"),
        (&["one", "-f", "-"], "two\nthree\n"),
    ] {
        assert_eq!(of(&answer(&home, arguments, input)), of(&wanted), "{arguments:?}");
    }
    let other = answer(&home, &["one"], "");
    assert_ne!(other["tokens"]["prompt"], wanted["tokens"]["prompt"]);
}

#[test]
fn raw_text_gets_no_template() {
    let home = Home::new();
    let raw = answer(&home, &["--raw"], "a");
    let templated = answer(&home, &[], "a");
    let count = |json: &Value| json["tokens"]["prompt"].as_u64().expect("a count");
    assert!(count(&raw) < count(&templated), "{raw} {templated}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let home = Home::new();
    let ids = |seed: &str| {
        let mut program = home.program();
        program.args(["chat", "hi", "--json", "--ignore-eos", "-n", "16", "--seed", seed, "-m"]);
        let json: Value =
            serde_json::from_str(&done(&run(program.arg(model()), b""))).expect("JSON");
        json["ids"].clone()
    };
    assert_eq!(ids("1"), ids("1"));
    assert_ne!(ids("1"), ids("2"));
}

#[test]
fn variables_stand_in_for_flags() {
    let home = Home::new();
    let mut program = home.program();
    program.args(["chat", "hi", "-n", "1", "-v"]);
    program.env("GEMMA3N_MODEL", model()).env("GEMMA3N_THREADS", "2");
    let output = run(&mut program, b"");
    done(&output);
    assert!(text(&output.stderr).contains("threads 2, "), "{}", text(&output.stderr));
    program.env("GEMMA3N_MODEL", "no.gguf");
    assert_eq!(failed(&run(&mut program, b""))[0], "error: no.gguf: no such file or directory");
    let flag = run(program.arg("-m").arg(model()), b"");
    done(&flag);
}

#[test]
fn a_session_goes_on_where_it_ended() {
    let home = Home::new();
    let session = ["--session", "talk.session"];
    let first = answer(&home, &session, "hi");
    assert_eq!(first["tokens"]["cached"], 0);
    assert!(home.path().join("talk.session").is_file());
    let second = answer(&home, &session, "and then?");
    let count = |json: &Value, name: &str| json["tokens"][name].as_u64().expect("a count");
    assert!(count(&second, "cached") >= count(&first, "prompt"), "{second}");
    fs::write(home.path().join("talk.session"), b"no session").expect("a file");
    let mut program = home.program();
    program.args(["chat", "hi", "-m"]).arg(model()).args(session);
    let lines = failed(&run(&mut program, b""));
    assert!(lines[0].starts_with("error: talk.session: "), "{lines:?}");
    // What could not be read is not overwritten, and a folder that is not there is told first.
    assert_eq!(fs::read(home.path().join("talk.session")).expect("a file"), b"no session");
    let mut program = home.program();
    program.args(["chat", "hi", "--session", "no/where", "-m"]).arg(model());
    assert_eq!(failed(&run(&mut program, b""))[0], "error: no/where: no directory no");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_an_answer_with_130_after_what_was_said() {
    let home = Home::new();
    // The small model may be done before the signal comes: then it is tried again.
    for _ in 0..20 {
        let mut child = home
            .program()
            .args(["chat", "Tell me", "-c", "0", "--ignore-eos", "-m"])
            .arg(model())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut [0]).expect("a byte");
        let id = child.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().expect("there is a kill command");
        let mut said = Vec::new();
        stdout.read_to_end(&mut said).expect("the rest");
        let output = child.wait_with_output().expect("the program ends");
        match output.status.code() {
            Some(130) => {
                assert_eq!(said.last(), Some(&b'\n'));
                return;
            }
            other => assert_eq!(other, Some(0), "{}", text(&output.stderr)),
        }
    }
    panic!("every answer was complete before the signal came");
}

#[test]
fn a_benchmark_stays_within_what_the_model_was_trained_for() {
    let home = Home::new();
    let bench = |arguments: &[&str]| {
        run(home.program().args(["bench", "-m"]).arg(model()).args(arguments), b"")
    };
    for beyond in [["-p", "16", "-d", "100000"], ["-p", "18446744073709551615", "-d", "9"]] {
        let lines = failed(&bench(&beyond));
        assert!(lines[0].contains("more than the 512 positions"), "{lines:?}");
    }
    let nothing = bench(&["-p", "0", "-n", "0"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("-p 0 and -n 0"), "{}", text(&nothing.stderr));
}

#[test]
fn verify_names_what_cannot_be_used_and_does_the_rest() {
    let home = Home::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let reference = fixtures.join("tiny/short.reference.gguf");
    let verify = |references: &[&Path]| {
        let mut program = home.program();
        run(program.args(["verify", "--tolerance", "0.1", "-m"]).arg(model()).args(references), b"")
    };
    assert!(done(&verify(&[&reference])).contains("within tolerance"));
    let lines = failed(&verify(&[&model()]));
    assert!(lines[0].contains("not a file of reference values"), "{lines:?}");
    let other = fixtures.join("wide/short.reference.gguf");
    assert!(failed(&verify(&[&other]))[0].contains("the model's [96, 5]"));
    let mixed = verify(&[&model(), &reference]);
    assert_eq!(mixed.status.code(), Some(1));
    assert!(text(&mixed.stdout).contains("tiny_short"));
    assert!(text(&mixed.stderr).ends_with("1 of 2 files of reference values do not pass\n"));
}

#[test]
fn a_session_that_cannot_be_written_is_named_by_its_own_name() {
    let home = Home::new();
    let mut program = home.program();
    program.args(["chat", "-n", "1", "--session", "/proc/here", "-m"]).arg(model()).arg("hi");
    let output = run(&mut program, b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: /proc/here: No such file or directory\n");
}
