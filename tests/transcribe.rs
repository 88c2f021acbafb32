//! `transcribe`: what a user sees. The weights are random, so the words are noise; what is tested is
//! around them: times, forms, files, ends.

#[path = "support/ears.rs"]
mod ears;
#[path = "support/eyes.rs"]
mod eyes;
#[path = "support/outcome.rs"]
mod outcome;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use expectrl::{Eof, Expect, Session};
use outcome::{run, text};
use program::{Home, model};
use serde_json::Value;

/// The text model's width.
const EMBEDDING: u64 = 96;
/// Tokens of a segment: random weights never end a text.
const TOKENS: usize = 12;

/// A home with a model, its tower for sounds, and sounds.
fn home() -> Home {
    let home = Home::new();
    fs::copy(model(), home.path().join("tiny.gguf")).unwrap();
    ears::write(&home.path().join("mmproj-tiny.gguf"), EMBEDDING, false);
    fs::write(home.path().join("a.wav"), wav(5 * 16_000 / 2, 440.0)).unwrap();
    fs::write(home.path().join("b.wav"), wav(16_000, 110.0)).unwrap();
    home
}

/// So many samples of a tone, as a WAV file of 16 kHz and 16 bits.
fn wav(samples: u32, hertz: f32) -> Vec<u8> {
    let size = 2 * samples;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + size).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000_u32.to_le_bytes());
    file.extend(32_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(size.to_le_bytes());
    for i in 0..samples {
        // Not the same in every second.
        let hertz = hertz * (1.0 + (i / 16_000) as f32);
        let level = (std::f32::consts::TAU * hertz * i as f32 / 16_000.0).sin();
        file.extend(((level * 8_000.0) as i16).to_le_bytes());
    }
    file
}

fn sound(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sounds").join(name)
}

/// Tones are no speech: cuts are made by time alone.
fn transcribe(home: &Home, arguments: &[&str]) -> Command {
    let mut program = home.program();
    program.args(["transcribe", "-m", "tiny.gguf", "--no-vad", "-n", &TOKENS.to_string()]);
    program.args(arguments);
    program
}

fn done(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What stderr says after a failure with this exit code.
fn failed(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    text(&output.stderr)
}

/// A file as `--format json` tells it.
fn json(home: &Home, arguments: &[&str]) -> Value {
    let output = run(transcribe(home, &[&["-f", "json"], arguments].concat()), b"");
    serde_json::from_str(done(&output)).unwrap()
}

/// Start and end of each segment.
fn times(entry: &Value) -> Vec<(f64, f64)> {
    let segments = entry["segments"].as_array().unwrap().iter();
    segments.map(|s| (s["start"].as_f64().unwrap(), s["end"].as_f64().unwrap())).collect()
}

#[test]
fn one_sound_gives_its_words_and_nothing_else() {
    let home = home();
    let output = run(transcribe(&home, &["-q", "a.wav"]), b"");
    let words = done(&output).to_owned();
    assert!(!words.trim().is_empty() && words.ends_with('\n'), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(!words.contains("a.wav") && !words.contains("<end_of_turn>"), "{words}");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(done(&run(transcribe(&home, &["a.wav"]), b"")), words);
    let stream = run(transcribe(&home, &["-"]), &fs::read(home.path().join("a.wav")).unwrap());
    assert_eq!(done(&stream), words);
}

/// Random words hardly depend on the sound, their probabilities do.
#[test]
fn sounds_are_heard() {
    let home = home();
    // Random weights may say the same of both, but not be as sure of it.
    let sure = |file: &str| json(&home, &[file])["segments"][0]["avg_logprob"].as_f64().unwrap();
    let difference = sure("a.wav") - sure("b.wav");
    assert!(difference.abs() > 1e-6, "two sounds, one text: {difference}");
}

#[test]
fn json_tells_all() {
    let home = home();
    let entry = json(&home, &["--max-segment", "1", "--language", "FRENCH", "a.wav"]);
    assert_eq!((entry["file"].as_str(), entry["language"].as_str()), (Some("a.wav"), Some("fr")));
    assert_eq!((entry["duration"].as_f64(), entry["partial"].as_bool()), (Some(2.5), Some(false)));
    assert_eq!(times(&entry), [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]);
    for segment in entry["segments"].as_array().unwrap() {
        assert_eq!(segment["tokens"], TOKENS);
        // -n ends it.
        assert_eq!(segment["truncated"], true);
        assert!(segment["avg_logprob"].as_f64().unwrap() < 0.0, "{segment}");
        let no_speech = segment["no_speech"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&no_speech), "{segment}");
        assert_eq!(segment["speech"][0][0], segment["start"]);
    }
    let timings = &entry["timings"];
    for time in ["read", "encode", "prompt", "decode", "total", "speed"] {
        assert!(timings[time].as_f64().unwrap() >= 0.0, "{time}");
    }
    assert_eq!(timings["generated"], 3 * TOKENS);
    assert!(json(&home, &["b.wav"])["language"].is_null());
}

/// What stands before the sound is read for the first segment only.
#[test]
fn the_beginning_of_the_prompt_is_kept() {
    let home = home();
    let figures = |seconds: &str| {
        let entry = json(&home, &["--max-segment", seconds, "a.wav"]);
        let count = |key: &str| entry["timings"][key].as_u64().unwrap();
        (count("prefilled"), count("cached"))
    };
    let (one, none) = figures("30");
    assert_eq!(none, 0);
    assert!(one > ears::SOFT_TOKENS as u64);
    let (three, kept) = figures("1");
    assert_eq!(three + kept, 3 * one);
    assert!(kept >= 2 * 4 && kept.is_multiple_of(2), "{kept}");
}

#[test]
fn every_form_says_the_same() {
    let home = home();
    let all = ["txt", "srt", "vtt", "json", "jsonl", "tsv", "lrc"];
    let output =
        run(transcribe(&home, &["--max-segment", "1", "-o", &all.join(","), "a.wav"]), b"");
    assert_eq!(done(&output), "");
    let file = |ending: &str| fs::read_to_string(home.path().join(format!("a.{ending}"))).unwrap();
    let entry: Value = serde_json::from_str(&file("json")).unwrap();
    let words: Vec<&str> = entry["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| segment["text"].as_str().unwrap())
        .collect();
    let shown: Vec<String> = words.iter().map(|words| format!("{words} [...]")).collect();
    assert_eq!(file("txt"), shown.join("\n") + "\n");
    assert_eq!(entry["text"].as_str().unwrap(), shown.join("\n"));
    let lines: Vec<Value> =
        file("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| &line["text"]).collect::<Vec<_>>(), words);
    assert!(lines.iter().all(|line| line["file"] == "a.wav"));
    let table = format!(
        "start\tend\ttext\n0\t1000\t{}\n1000\t2000\t{}\n2000\t2500\t{}\n",
        shown[0], shown[1], shown[2]
    );
    assert_eq!(file("tsv"), table);
    let song = format!("[00:00.00]{}\n[00:01.00]{}\n[00:02.00]{}\n", shown[0], shown[1], shown[2]);
    assert_eq!(file("lrc"), song);
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let srt = srtlib::Subtitles::parse_from_str(file("srt")).unwrap().to_vec();
    let said: String = srt.iter().map(|cue| squeezed(&cue.text)).collect();
    assert_eq!(said.replace("->", "-->"), squeezed(&shown.concat()).replace("->", "-->"));
    assert_eq!(srt[0].start_time.get(), (0, 0, 0, 0));
    assert_eq!(srt.last().unwrap().end_time.get(), (0, 0, 2, 500));
    let vtt = file("vtt");
    let vtt = webvtt_parser::Vtt::parse(&vtt).unwrap();
    assert_eq!(vtt.cues.len(), srt.len());
    // stdout has the same bytes.
    for form in ["srt", "vtt", "tsv", "lrc", "jsonl"] {
        let output = run(transcribe(&home, &["--max-segment", "1", "-f", form, "a.wav"]), b"");
        assert_eq!(done(&output), file(form), "{form}");
    }
}

#[test]
fn a_part_is_heard_in_the_clock_of_the_whole() {
    let home = home();
    let entry = json(&home, &["--offset", "0:01", "--duration", "1.25", "a.wav"]);
    assert_eq!(times(&entry), [(1.0, 2.25)]);
    assert_eq!(entry["duration"], 1.25);
    let beyond = json(&home, &["--offset", "1:00:00", "a.wav"]);
    assert_eq!((times(&beyond), beyond["text"].as_str()), (vec![], Some("")));
}

#[test]
fn of_several_sounds_one_is_broken() {
    let home = home();
    fs::write(home.path().join("broken.wav"), "no sound at all").unwrap();
    let output = run(transcribe(&home, &["a.wav", "broken.wav", "nowhere.wav", "b.wav"]), b"");
    let stderr = failed(&output, 1);
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 3, "{stderr}");
    assert!(errors[0].contains("broken.wav") && errors[1].contains("nowhere.wav"), "{stderr}");
    assert_eq!(errors[2], "error: 2 of 4 sounds could not be transcribed");
    let single = |name: &str| done(&run(transcribe(&home, &[name]), b"")).to_owned();
    let (a, b) = (single("a.wav"), single("b.wav"));
    assert_eq!(text(&output.stdout), format!("==> a.wav <==\n{a}\n==> b.wav <==\n{b}"));

    let lines = run(transcribe(&home, &["-f", "jsonl", "a.wav", "b.wav"]), b"");
    let files: Vec<Value> =
        done(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(files.iter().map(|line| &line["file"]).collect::<Vec<_>>(), ["a.wav", "b.wav"]);
}

#[test]
fn a_directory_is_its_sounds() {
    let home = home();
    let folder = home.path().join("talks/more");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("b.WAV"), wav(8_000, 200.0)).unwrap();
    fs::write(folder.parent().unwrap().join("a.wav"), wav(8_000, 300.0)).unwrap();
    fs::write(folder.join("notes.txt"), "no sound").unwrap();
    let files = |arguments: &[&str]| {
        let output = run(transcribe(&home, &[&["-f", "jsonl"], arguments].concat()), b"");
        let lines = done(&output).lines().map(|line| serde_json::from_str(line).unwrap());
        lines.map(|line: Value| line["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(files(&["talks"]), ["talks/a.wav"]);
    assert_eq!(files(&["-r", "talks"]), ["talks/a.wav", "talks/more/b.WAV"]);
    fs::create_dir(home.path().join("empty")).unwrap();
    let output = run(transcribe(&home, &["empty"]), b"");
    assert!(failed(&output, 1).contains("empty: no sounds in this directory"));
}

#[test]
fn files_are_neither_lost_nor_made_twice() {
    let home = home();
    let path = |name: &str| home.path().join(name);
    done(&run(transcribe(&home, &["-o", "txt", "--output-dir", "out/deep", "a.wav"]), b""));
    let words = fs::read_to_string(path("out/deep/a.txt")).unwrap();
    fs::write(path("a.txt"), "mine").unwrap();
    let refused = run(transcribe(&home, &["-o", "txt,srt", "a.wav"]), b"");
    let said = failed(&refused, 1);
    assert!(said.contains("a.txt: exists already\nhint: --force"), "{said}");
    assert!(!path("a.srt").exists());
    // What is missing is made, what is there stays.
    done(&run(transcribe(&home, &["-o", "txt,srt", "--skip-existing", "a.wav", "b.wav"]), b""));
    assert_eq!(fs::read_to_string(path("a.txt")).unwrap(), "mine");
    assert!(path("a.srt").exists() && path("b.txt").exists() && path("b.srt").exists());
    done(&run(transcribe(&home, &["-o", "txt", "--force", "a.wav"]), b""));
    assert_eq!(fs::read_to_string(path("a.txt")).unwrap(), words);
    fs::copy(path("b.wav"), path("a.mp3")).unwrap();
    let both = run(transcribe(&home, &["-o", "vtt", "a.mp3", "a.wav"]), b"");
    let said = failed(&both, 1);
    assert!(said.contains("a.vtt: the words of both a.mp3 and a.wav would go there"), "{said}");
    let left: Vec<_> =
        fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn what_is_wrong_is_said() {
    let home = home();
    let usage = |arguments: &[&str], words: &str| {
        let output = run(transcribe(&home, arguments), b"");
        let stderr = failed(&output, 2);
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(text(&output.stdout), "");
    };
    usage(&["--language", "Portugese", "a.wav"], "is Portuguese (pt) meant?");
    usage(&["--translate", "auto", "a.wav"], "no language is called so");
    usage(&["--max-segment", "31", "a.wav"], "from 0.5 to 30 seconds");
    usage(&["--offset", "1:99", "a.wav"], "1:02:03.5");
    usage(&["--duration", "0", "a.wav"], "--duration must be more than 0");
    usage(&["--channel", "0", "a.wav"], "mix, left, right");
    usage(&["-f", "srt", "a.wav", "b.wav"], "--format srt is for one sound; --write srt");
    usage(&["-f", "json", "a.wav", "b.wav"], "--format json is for one sound");
    usage(&["-", "-"], "can be named once");
    usage(&["-o", "txt", "-"], "--write has no place beside -");
    usage(&["--skip-existing", "a.wav"], "--write");
    usage(&[], "FILE");

    let refused = |arguments: &[&str], words: &[&str]| {
        let output = run(transcribe(&home, arguments), b"");
        let stderr = failed(&output, 1);
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
        assert_eq!(text(&output.stdout), "");
    };
    refused(&["nowhere.wav"], &["error: nowhere.wav: "]);
    refused(&["--channel", "2", "a.wav"], &["error: a.wav: "]);
    refused(&["-c", "64", "a.wav"], &["the context holds 64", "hint: --ctx-size"]);
    refused(&["--mmproj", "nowhere.gguf", "a.wav"], &["error: nowhere.gguf: "]);
    fs::remove_file(home.path().join("mmproj-tiny.gguf")).unwrap();
    refused(&["a.wav"], &["sounds need the model's towers", "hint: --mmproj FILE"]);
    eyes::write(&home.path().join("mmproj-tiny.gguf"), EMBEDDING, None);
    refused(&["a.wav"], &["mmproj-tiny.gguf"]);
}

#[test]
fn the_request_is_the_documented_one() {
    let home = home();
    let output = run(
        transcribe(
            &home,
            &["-v", "--language", "en", "--translate", "de", "--prompt", "Ada", "b.wav"],
        ),
        b"",
    );
    done(&output);
    let request = "request: Transcribe this audio into English, and then translate it into German. \
                   Write first the transcription, then one newline, then \"German: \" and the \
                   translation. These names and words may occur: Ada";
    assert!(text(&output.stderr).contains(request), "{}", text(&output.stderr));
    // Random words have no mark: all of them are the text.
    let entry = json(&home, &["--translate", "de", "b.wav"]);
    assert_eq!(entry["translate"], "de");
    assert!(entry["segments"][0].get("transcription").is_none());
}

#[test]
fn a_stop_string_ends_a_segment() {
    let home = home();
    let words = json(&home, &["a.wav"])["text"].as_str().unwrap().to_owned();
    let stop: String = words.chars().filter(|c| c.is_alphanumeric()).take(1).collect();
    let entry = json(&home, &["--stop", &stop, "a.wav"]);
    assert!(!entry["text"].as_str().unwrap().contains(&stop), "{entry}");
    assert_eq!(entry["segments"][0]["truncated"], false);
}

/// Random weights never end: without -n a segment has its bounds, and is tried twice.
#[test]
fn a_text_without_end_is_tried_again_and_cut() {
    let home = home();
    let mut program = home.program();
    program.args(["transcribe", "-m", "tiny.gguf", "--no-vad", "-f", "json", "b.wav"]);
    let output = run(program, b"");
    let entry: Value = serde_json::from_str(done(&output)).unwrap();
    let segment = &entry["segments"][0];
    let generated = entry["timings"]["generated"].as_u64().unwrap();
    // 20 a second and 32.
    assert!(segment["tokens"].as_u64().unwrap() <= 52 && generated <= 2 * 52, "{entry}");
    if segment["truncated"] == true {
        assert!(generated > segment["tokens"].as_u64().unwrap(), "{entry}");
        let said = text(&output.stderr);
        assert!(said.contains("warning: b.wav: 0:00.0 to 0:01.0: the text does not end"), "{said}");
        assert!(entry["text"].as_str().unwrap().ends_with(" [...]"));
    }
}

#[test]
fn timings_are_told() {
    let home = home();
    let output = run(transcribe(&home, &["--timings", "a.wav"]), b"");
    done(&output);
    let said = text(&output.stderr);
    for words in
        ["a.wav: 2.5 s of sound in", "real time", "encoder", "tokens read", "from the cache"]
    {
        assert!(said.contains(words), "{said}");
    }
}

/// A file that breaks in its midst gives what was before, marked, and not under the name of a whole
/// one.
#[test]
fn a_broken_end_leaves_a_partial_text() {
    let home = home();
    let whole = fs::read(sound("stereo.flac")).unwrap();
    fs::write(home.path().join("cut.flac"), &whole[..whole.len() * 3 / 4]).unwrap();
    let arguments = ["--max-segment", "0.5", "-o", "json", "-f", "jsonl", "cut.flac"];
    let output = run(transcribe(&home, &arguments), b"");
    let said = failed(&output, 1);
    assert!(said.contains("error: cut.flac: "), "{said}");
    assert!(said.contains(": cut.partial.json"), "{said}");
    let last = text(&output.stdout).lines().last().unwrap();
    assert_eq!(last, r#"{"file":"cut.flac","partial":true}"#);
    assert!(!home.path().join("cut.json").exists());
    let entry = fs::read_to_string(home.path().join("cut.partial.json")).unwrap();
    let entry: Value = serde_json::from_str(&entry).unwrap();
    assert_eq!(entry["partial"], true);
    assert_eq!(times(&entry)[0], (0.0, 0.5));
    assert_eq!(text(&output.stdout).lines().count(), times(&entry).len() + 1);
}

/// Speech is found: segments lie in it, and a quiet sound has no text.
#[test]
fn silence_has_no_words() {
    let home = home();
    fs::write(home.path().join("quiet.wav"), wav(32_000, 0.0)).unwrap();
    let with_detector = |arguments: &[&str]| {
        let mut program = home.program();
        program.args(["transcribe", "-m", "tiny.gguf", "-n", "4"]).args(arguments);
        run(program, b"")
    };
    assert_eq!(done(&with_detector(&["quiet.wav"])), "");
    assert_eq!(done(&with_detector(&["-f", "vtt", "quiet.wav"])), "WEBVTT\n\n");
    let speech = with_detector(&["-f", "json", sound("16k.wav").to_str().unwrap()]);
    let entry: Value = serde_json::from_str(done(&speech)).unwrap();
    let duration = entry["duration"].as_f64().unwrap();
    let found = times(&entry);
    assert!(!found.is_empty(), "{entry}");
    assert!(found.iter().all(|(start, end)| 0.0 <= *start && start < end && *end <= duration));
    // Where it is: tests/fixtures/sounds/speech.json.
    assert!((found[0].0 - 0.5).abs() < 0.1, "{entry}");
    assert!((found.last().unwrap().1 - 5.47).abs() < 0.1, "{entry}");
    let no_speech = entry["segments"][0]["no_speech"].as_f64().unwrap();
    assert!(no_speech < 0.5, "{entry}");
}

/// At a terminal the bar never takes a word away.
#[test]
fn words_stay_on_a_terminal() {
    let home = home();
    let plain = run(transcribe(&home, &["--max-segment", "1", "a.wav"]), b"");
    let words: Vec<&str> = done(&plain).lines().collect();
    let mut session = Session::spawn(transcribe(&home, &["--max-segment", "1", "a.wav"])).unwrap();
    session.get_process_mut().set_window_size(200, 50).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(120)));
    let shown = session.expect(Eof).unwrap();
    let shown = String::from_utf8_lossy(shown.as_bytes()).into_owned();
    let lines: Vec<&str> = shown
        .split('\n')
        .map(|line| line.rsplit("\x1b[2K").next().unwrap_or(line).trim_end_matches('\r'))
        .collect();
    let left: Vec<&str> = lines.iter().copied().filter(|line| words.contains(line)).collect();
    assert_eq!(left, words, "{lines:?}");
}

/// A live stream: the first segment is out while the second has not been said; Ctrl-C ends the
/// waiting, and what was heard is written.
#[test]
fn ctrl_c_writes_what_is_done() {
    let home = home();
    let mut program = transcribe(
        &home,
        &["--max-segment", "1", "-f", "jsonl", "-o", "json", "--output-dir", "out", "-"],
    );
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&wav(160_000, 300.0)[..44 + 2 * 20_000]).unwrap();
    stdin.flush().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    let first: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((first["start"].as_f64(), first["end"].as_f64()), (Some(0.0), Some(1.0)));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let said = failed(&output, 130);
    assert!(
        said.contains("only the words up to 0:01.0 are written: out/stdin.partial.json"),
        "{said}"
    );
    assert_eq!(rest, "{\"file\":\"-\",\"partial\":true}\n");
    let entry = fs::read_to_string(home.path().join("out/stdin.partial.json")).unwrap();
    let entry: Value = serde_json::from_str(&entry).unwrap();
    assert_eq!(entry["partial"], true);
    assert_eq!(times(&entry), [(0.0, 1.0)]);
    assert!(!home.path().join("out/stdin.json").exists());
}

#[test]
fn an_output_that_fails_ends_the_work() {
    let home = home();
    let mut program = transcribe(&home, &["-q", "a.wav", "b.wav"]);
    program.stdin(Stdio::null()).stderr(Stdio::piped());
    program.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = program.output().unwrap();
    let said = failed(&output, 1);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: standard output: "), "{said}");
}
