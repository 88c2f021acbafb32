//! Sounds in `chat`: what a user sees. The weights are random, so the words are noise; what is tested
//! is around them.

#[path = "support/ears.rs"]
mod ears;
#[path = "support/eyes.rs"]
mod eyes;
#[path = "support/outcome.rs"]
mod outcome;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::Command;

use outcome::{run, text};
use program::{Home, model};
use serde_json::Value;

/// The text model's width.
const EMBEDDING: u64 = 96;
const TOWERS: &str = "mmproj-tiny.gguf";

/// A home with a model, both its towers, a picture and sounds.
fn home() -> Home {
    let home = Home::new();
    fs::copy(model(), home.path().join("tiny.gguf")).unwrap();
    ears::write(&home.path().join(TOWERS), EMBEDDING, true);
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures/rgb.png");
    fs::copy(picture, home.path().join("cat.png")).unwrap();
    fs::write(home.path().join("meow.wav"), wav(16_000, 440.0)).unwrap();
    fs::write(home.path().join("bark.wav"), wav(24_000, 110.0)).unwrap();
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
        let level = (std::f32::consts::TAU * hertz * i as f32 / 16_000.0).sin();
        file.extend(((level * 8_000.0) as i16).to_le_bytes());
    }
    file
}

fn chat(home: &Home, arguments: &[&str]) -> Command {
    let mut program = home.program();
    program.args(["chat", "-m", "tiny.gguf", "--greedy", "-n", "8"]).args(arguments);
    program
}

/// What stderr says after a failure with this exit code.
fn failed(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = run(chat(home, arguments), b"");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

/// One greedy answer as JSON, and stderr.
fn answer(home: &Home, arguments: &[&str], input: &[u8]) -> (Value, String) {
    let output = run(chat(home, &[&["--json"], arguments].concat()), input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), text(&output.stderr).to_owned())
}

fn prompt(answer: &Value) -> usize {
    answer["tokens"]["prompt"].as_u64().unwrap() as usize
}

#[test]
fn sounds_go_with_a_prompt() {
    let home = home();
    let (none, _) = answer(&home, &["What is it?"], b"");
    let (one, said) = answer(&home, &["-a", "meow.wav", "What is it?"], b"");
    assert!(!said.contains("the model hears"), "{said}");
    let (two, _) = answer(&home, &["-a", "meow.wav", "--audio", "bark.wav", "What is it?"], b"");
    // Marks and newlines come with each sound.
    let around = ears::SOFT_TOKENS + 2..ears::SOFT_TOKENS + 5;
    assert!(around.contains(&(prompt(&one) - prompt(&none))), "{one}");
    assert!(around.contains(&(prompt(&two) - prompt(&one))), "{two}");
    let whole = fs::read(home.path().join("meow.wav")).unwrap();
    let (piped, _) = answer(&home, &["-a", "-", "What is it?"], &whole);
    assert_eq!(piped["ids"], one["ids"]);
}

/// The rows of the only sound in a session file, `[E, n]`.
fn rows(session: &[u8]) -> Vec<Vec<u8>> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let length = u64::from_le_bytes(session[20..28].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&session[28..28 + length]).unwrap();
    let part = &header["messages"][0]["content"][0];
    assert_eq!(part["type"], "audio");
    let rows = BASE64_STANDARD.decode(part["media"]["rows"].as_str().unwrap()).unwrap();
    rows.chunks_exact(4 * EMBEDDING as usize).map(<[u8]>::to_vec).collect()
}

/// By reference.md §8 and §9: 1 s are 97 frames, 25 after the subsampling, 7 soft tokens; 1.5 s are 147,
/// 37 and 10. The padding id's embedding fills up the rest.
#[test]
fn sounds_are_heard_as_long_as_they_are() {
    let home = home();
    let heard = |name: &str| {
        answer(&home, &["--session", "s", "-a", name, "What is it?"], b"");
        let saved = home.path().join("s");
        let rows = rows(&fs::read(&saved).unwrap());
        fs::remove_file(saved).unwrap();
        rows
    };
    let (meow, bark) = (heard("meow.wav"), heard("bark.wav"));
    let own = |rows: &[Vec<u8>]| {
        assert_eq!(rows.len(), ears::SOFT_TOKENS);
        let padding = &rows[ears::SOFT_TOKENS - 1];
        rows.iter().rposition(|row| row != padding).unwrap() + 1
    };
    assert_eq!((own(&meow), own(&bark)), (7, 10));
    assert!((0..7).all(|row| meow[row] != bark[row]), "two tones, one sound");
}

#[test]
fn raw_prompts_have_a_placeholder_for_each() {
    let home = home();
    let text = "<start_of_turn>user\n<audio_soft_token>so<image_soft_token>";
    let shown = ["--raw", "-i", "cat.png", "-a", "meow.wav"];
    let (raw, _) = answer(&home, &[&shown[..], &[text]].concat(), b"");
    assert!(prompt(&raw) > ears::SOFT_TOKENS + eyes::SOFT_TOKENS);
    let said = failed(&home, &[&shown[..], &["<image_soft_token>"]].concat(), 1);
    let expected =
        "error: the prompt does not have one <audio_soft_token> for each of the sounds (1)";
    assert!(said.contains(expected), "{said}");
}

/// What a user types never stands for a sound.
#[test]
fn a_placeholder_in_a_message_is_text() {
    let home = home();
    let (typed, _) = answer(&home, &["<audio_soft_token>"], b"");
    let (with, _) = answer(&home, &["-a", "meow.wav", "<audio_soft_token>"], b"");
    let more = prompt(&with) - prompt(&typed);
    assert!((ears::SOFT_TOKENS..ears::SOFT_TOKENS + 5).contains(&more), "{more}");
}

/// The session file says in which order the message has them.
#[test]
fn pictures_and_sounds_keep_the_order_of_their_flags() {
    let home = home();
    let order = |name: &str, flags: &[&str]| {
        let arguments = [&["--session", name], flags, &["What is it?"]].concat();
        answer(&home, &arguments, b"");
        let saved = fs::read(home.path().join(name)).unwrap();
        let saved = String::from_utf8_lossy(&saved);
        let at = |name: &str| saved.find(&format!("\"name\":\"{name}\"")).unwrap();
        let mut names = ["cat.png", "meow.wav", "bark.wav"];
        names.sort_by_key(|name| at(name));
        names
    };
    let mixed = ["-a", "meow.wav", "-i", "cat.png", "-a", "bark.wav"];
    assert_eq!(order("mixed", &mixed), ["meow.wav", "cat.png", "bark.wav"]);
    let first = ["--image=cat.png", "-abark.wav", "--audio", "meow.wav"];
    assert_eq!(order("first", &first), ["cat.png", "bark.wav", "meow.wav"]);
}

#[test]
fn a_saved_talk_keeps_its_sound() {
    let home = home();
    let (first, _) = answer(&home, &["--session", "s", "-a", "meow.wav", "What is it?"], b"");
    let (second, _) = answer(&home, &["--session", "s", "And now?"], b"");
    let cached = second["tokens"]["cached"].as_u64().unwrap() as usize;
    assert!(cached >= prompt(&first), "{second}");
}

#[test]
fn a_clip_that_is_too_long_is_cut_and_told_of() {
    let home = home();
    fs::write(home.path().join("talk.wav"), wav(62 * 16_000, 220.0)).unwrap();
    let (_, said) = answer(&home, &["-a", "talk.wav", "What is said?"], b"");
    let notice = "talk.wav: 62 s long; the model hears the first 30 s of a clip (`gemma3n transcribe` \
                  takes long recordings)";
    assert!(said.lines().any(|line| line == notice), "{said}");
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let home = home();
    let towers = home.path().join(TOWERS);
    let refused = |flags: &[&str], expected: &str| {
        let said = failed(&home, &[flags, &["What is it?"]].concat(), 1);
        assert!(said.lines().any(|line| line == expected), "{said}");
    };
    fs::write(home.path().join("blip.wav"), wav(512, 440.0)).unwrap();
    let short = "error: blip.wav: 0.032 s of sound; the model needs at least 0.033 s";
    refused(&["-a", "blip.wav"], short);
    let said = failed(&home, &["-a", "cat.png", "What is it?"], 1);
    assert!(said.starts_with("error: cat.png: "), "{said}");
    let said = failed(&home, &["-a", "-", "-i", "-", "What is it?"], 2);
    assert!(said.contains("standard input (-) can be read only once"), "{said}");
    let said = failed(&home, &["-a", "-"], 2);
    assert!(said.contains("from standard input needs a prompt"), "{said}");

    ears::write(&towers, EMBEDDING, false);
    refused(&["-i", "cat.png"], "error: ./mmproj-tiny.gguf: there is no vision tower in it");
    eyes::write(&towers, EMBEDDING, None);
    refused(&["-a", "meow.wav"], "error: ./mmproj-tiny.gguf: there is no audio tower in it");
    fs::remove_file(&towers).unwrap();
    refused(
        &["-a", "meow.wav"],
        "error: tiny.gguf: sounds need the model's towers, and no file named mmproj lies beside it",
    );
}

/// Each tower works without the other, and ids of the other's vocabulary are plain.
#[test]
fn one_tower_is_enough() {
    let home = home();
    ears::write(&home.path().join(TOWERS), EMBEDDING, false);
    let ids = ["--raw", "x<end_of_image><end_of_audio>"];
    answer(&home, &ids, b"");
    answer(&home, &["-a", "meow.wav", "What is it?"], b"");
    eyes::write(&home.path().join(TOWERS), EMBEDDING, None);
    answer(&home, &ids, b"");
    answer(&home, &["-i", "cat.png", "What is it?"], b"");
}

#[test]
fn a_clip_is_measured() {
    let home = home();
    let mut bench = home.program();
    bench.args(["bench", "-m", "tiny.gguf", "--audio", "-p", "0", "-n", "0", "-r", "1", "--json"]);
    let output = run(bench, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sound = &measured["sound"];
    assert_eq!((&sound["seconds"], &sound["soft_tokens"]), (&30.0.into(), &188.into()));
    // 750 frames through 2 blocks of 23 · 32² weights.
    assert_eq!(sound["multiply_adds"], 750.0 * 2.0 * 23.0 * 1024.0);
    for time in ["features", "encode", "prefill"] {
        assert!(sound[time][0].as_f64().unwrap() > 0.0, "{time}");
    }
    assert!(measured["picture"].is_null());
}
