//! The conversation at the terminal, through a pseudo-terminal as a user's keys reach it.
#![cfg(unix)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/eyes.rs"]
mod eyes;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::time::Duration;

use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{Eof, Expect, Session};
use program::{Home, model};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";
/// What the editor prints before a prompt: bracketed paste on.
const PROMPT: &str = "\x1b[?2004h";
/// What it prints after a line was entered: bracketed paste off.
const ENTERED: &str = "\x1b[?2004l";

/// The program at a terminal that is wide enough for every line.
struct Terminal(OsSession);

impl Terminal {
    fn open(home: &Home, arguments: &[&str]) -> Self {
        let model = model();
        let model = model.to_str().expect("UTF-8");
        Self::start(home, &[&["--greedy", "-m", model], arguments].concat())
    }

    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut program = home.program();
        program.arg("chat").args(arguments).env("NO_COLOR", "1");
        let mut session = Session::spawn(program).expect("the program starts");
        session.get_process_mut().set_window_size(200, 50).expect("a window");
        session.set_expect_timeout(Some(Duration::from_secs(60)));
        let mut terminal = Self(session);
        terminal.sees("/help lists the commands");
        terminal
    }

    /// Short answers that do not end before their limit.
    fn brief(home: &Home) -> Self {
        Self::open(home, &["-n", "4", "--ignore-eos"])
    }

    fn types(&mut self, keys: &str) {
        self.0.send(keys).expect("the terminal takes it");
    }

    fn enters(&mut self, line: &str) {
        self.types(line);
        self.types("\r");
    }

    /// Waits until the words are printed; gives what was printed before them.
    fn sees(&mut self, words: &str) -> String {
        match self.0.expect(words) {
            Ok(found) => String::from_utf8_lossy(found.before()).into_owned(),
            Err(error) => panic!("{words:?} was not printed: {error}"),
        }
    }

    /// `/context` counts the messages once all that was typed before is answered.
    fn has(&mut self, messages: &str) {
        self.enters("/context");
        self.sees("positions are used");
        self.sees(messages);
    }

    /// The exit code, when nothing more is printed.
    fn ends(mut self) -> i32 {
        self.0.expect(Eof).expect("the program ends");
        match self.0.get_process().wait().expect("a status") {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_talk_ends_with_ctrl_d() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("hello");
    terminal.enters("");
    terminal.enters("and you?");
    terminal.has("4 messages");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn quit_ends_it_too() {
    let home = Home::new();
    for word in ["/quit", "/exit"] {
        let mut terminal = Terminal::brief(&home);
        terminal.enters(word);
        assert_eq!(terminal.ends(), 0);
    }
}

#[test]
fn an_unknown_command_names_the_nearest() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("/hepl");
    terminal.sees("no command /hepl; did you mean /help?");
    terminal.enters("/help");
    terminal.sees("/set NAME VALUE");
    terminal.enters("/save");
    terminal.sees("/save needs FILE");
    terminal.enters("//not a command");
    terminal.has("2 messages");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn lines_go_on_after_a_backslash_and_when_pasted() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("one\\");
    terminal.enters("two");
    terminal.has("2 messages");
    terminal.types("\x1b[200~three\nfour\n/quit\x1b[201~");
    terminal.enters("");
    terminal.has("4 messages");
    terminal.enters("/save talk");
    terminal.sees("talk: saved");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    let saved = fs::read(home.path().join("talk")).expect("a file");
    let saved = String::from_utf8_lossy(&saved);
    assert!(saved.contains(r"one\ntwo"), "the message is two lines");
    assert!(saved.contains(r"three\nfour\n/quit"), "the message is three lines");
}

#[test]
fn tab_completes_commands_parameters_and_files() {
    let home = Home::new();
    fs::write(home.path().join("some talk.session"), b"").expect("a file");
    let mut terminal = Terminal::brief(&home);
    terminal.types("/par\t\r");
    terminal.sees("repeat-last-n");
    terminal.types("/set tem\t0.5\r");
    terminal.sees("temp is 0.5 from now on");
    terminal.types("/load some\t\r");
    terminal.sees("error: some talk.session: ");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn parameters_are_checked_and_shown() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("/set top-k 7");
    terminal.sees("top-k is 7 from now on");
    terminal.enters("/set temp cold");
    terminal.sees("error: temp cold: must be a number of 0 or more");
    terminal.enters("/set colour red");
    terminal.sees("error: no parameter colour; there are temp, top-k");
    terminal.enters("/params");
    terminal.sees("top-k           7");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn turns_are_taken_back_and_asked_again() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("/retry");
    terminal.sees("there is no message to answer");
    terminal.enters("/undo");
    terminal.sees("there is nothing to take back");
    terminal.enters("first");
    terminal.enters("second");
    terminal.has("4 messages");
    terminal.enters("/retry");
    terminal.has("4 messages");
    terminal.enters("/undo");
    terminal.has("2 messages");
    terminal.enters("/edit");
    terminal.enters(" and more");
    terminal.has("2 messages");
    terminal.enters("/stats");
    terminal.sees("all: 4 answers, 16 tokens");
    terminal.enters("/save talk");
    terminal.sees("talk: saved");
    terminal.enters("/clear");
    terminal.has("the conversation is empty");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    let saved = fs::read(home.path().join("talk")).expect("a file");
    assert!(String::from_utf8_lossy(&saved).contains("first and more"));
}

#[test]
fn a_saved_talk_is_loaded_and_not_overwritten_unasked() {
    let home = Home::new();
    fs::write(home.path().join("mine.txt"), b"not yours").expect("a file");
    let mut terminal = Terminal::brief(&home);
    terminal.enters("/system Be brief.");
    terminal.enters("hello");
    terminal.has("2 messages");
    terminal.enters("/save mine.txt");
    terminal.sees("error: mine.txt: there is such a file");
    terminal.enters("/save talk");
    terminal.sees("talk: saved");
    terminal.enters("/save talk");
    terminal.sees("talk: saved");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    assert_eq!(fs::read(home.path().join("mine.txt")).expect("a file"), b"not yours");

    let mut terminal = Terminal::brief(&home);
    terminal.enters("/load mine.txt");
    terminal.sees("error: mine.txt: ");
    terminal.has("the conversation is empty");
    terminal.enters("/load talk");
    terminal.sees("talk: 2 messages");
    terminal.enters("/system");
    terminal.sees("Be brief.");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

/// Pictures wait for the next message, are listed, taken back one by one, and go with a message.
#[test]
fn files_wait_for_the_next_message() {
    let home = Home::new();
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures");
    for name in ["rgb.png", "grey.png"] {
        fs::copy(pictures.join(name), home.path().join(name)).expect("a picture");
    }
    eyes::write(&home.path().join("towers.gguf"), 96, None);
    let flags = ["-n", "4", "--ignore-eos", "--mmproj", "towers.gguf", "-i", "rgb.png"];
    let mut terminal = Terminal::open(&home, &flags);
    terminal.enters("/image grey.png");
    terminal.sees("grey.png: 20 × 14 pixels, shown with your next message");
    terminal.has("the conversation is empty");
    terminal.sees("with your next message: rgb.png, grey.png");
    terminal.enters("/undo");
    terminal.sees("grey.png is taken back");
    terminal.has("the conversation is empty");
    terminal.sees("with your next message: rgb.png");
    terminal.enters("what is it?");
    terminal.has("2 messages");
    terminal.enters("/edit");
    terminal.enters(" and why?");
    terminal.has("2 messages");
    terminal.enters("/audio meow.wav");
    terminal.sees("towers.gguf: there is no audio tower in it");
    terminal.enters("/save talk");
    terminal.sees("talk: saved");
    terminal.enters("/undo");
    terminal.sees("the conversation is empty");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    let saved = fs::read(home.path().join("talk")).expect("a file");
    let saved = String::from_utf8_lossy(&saved);
    assert!(saved.contains("what is it? and why?"), "the message was edited");
    assert!(saved.contains("rgb.png") && !saved.contains("grey.png"), "one picture is left");
}

#[test]
fn sounds_are_played_with_the_next_message() {
    let home = Home::new();
    ears::write(&home.path().join("towers.gguf"), 96, true);
    // Half a second of silence, 16 kHz and 16 bits.
    let mut wav = b"RIFF\xa4\x3e\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x80\x3e\0\0"
        .to_vec();
    wav.resize(44 + 16_000, 0);
    fs::write(home.path().join("my meow.wav"), wav).expect("a sound");
    let mut terminal =
        Terminal::open(&home, &["-n", "4", "--ignore-eos", "--mmproj", "towers.gguf"]);
    terminal.types("/aud\tmy\t\r");
    terminal.sees("my meow.wav: 0.5 s of sound, played with your next message");
    terminal.has("the conversation is empty");
    terminal.sees("with your next message: my meow.wav");
    terminal.enters("what is it?");
    terminal.has("2 messages");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn ctrl_c_stops_an_answer_keeps_it_and_then_leaves() {
    let home = Home::new();
    let mut terminal = Terminal::open(&home, &["-c", "0", "--ignore-eos"]);
    // The small model may be done before the key comes: then it is tried again.
    let mut stopped = false;
    for _ in 0..20 {
        terminal.enters("/clear");
        terminal.sees("the conversation is forgotten");
        terminal.sees(PROMPT);
        terminal.types("tell me\r");
        terminal.sees(ENTERED);
        std::thread::sleep(Duration::from_millis(100));
        terminal.types(CTRL_C);
        terminal.enters("/context");
        stopped = terminal.sees("positions are used").contains("(stopped)");
        terminal.sees("2 messages");
        if stopped {
            break;
        }
    }
    assert!(stopped, "every answer was complete before the key came");
    // A key that comes before the prompt does is a signal, not a key.
    terminal.sees(PROMPT);
    terminal.types(CTRL_C);
    terminal.sees("Ctrl-C once more or Ctrl-D leaves");
    terminal.sees(PROMPT);
    // On a line with words it takes them away and nothing else.
    terminal.types("half a line");
    terminal.types(CTRL_C);
    terminal.sees(PROMPT);
    terminal.enters("/params");
    terminal.sees("repeat-last-n");
    terminal.sees(PROMPT);
    terminal.types(CTRL_C);
    terminal.sees("Ctrl-C once more or Ctrl-D leaves");
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn the_history_is_there_the_next_time() {
    let home = Home::new();
    let mut terminal = Terminal::brief(&home);
    terminal.enters("/set top-k 9");
    terminal.sees("top-k is 9 from now on");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    assert!(home.path().join("state/gemma3n/history").is_file());

    let mut terminal = Terminal::brief(&home);
    terminal.types(UP);
    terminal.types("5\r");
    terminal.sees("top-k is 95 from now on");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

/// With the model inside the program, which knows what it sees and hears.
#[test]
fn a_picture_then_a_sound_then_a_question_about_both() {
    let home = Home::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/builtin");
    let mut terminal = Terminal::start(&home, &["-m", "builtin"]);
    terminal.enters(&format!("/image {}", samples.join("digit.png").display()));
    terminal.sees("shown with your next message");
    terminal.enters("Describe this image.");
    terminal.sees("The handwritten digit three.");
    terminal.enters(&format!("/audio {}", samples.join("digits.wav").display()));
    terminal.sees("played with your next message");
    terminal.enters("Transcribe this audio. Write only the text.");
    terminal.sees("four one five");
    terminal.enters("What do you see and hear?");
    terminal.sees("I see: The handwritten digit three. I hear: four one five.");
    terminal.enters("/quit");
    assert_eq!(terminal.ends(), 0);
}
