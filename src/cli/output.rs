//! What reaches the user's screen: the answer on stdout, everything else on stderr.
//!
//! Together with `progress.rs` the only file that prints. Three habits live here: a reader of our
//! stdout who goes away ends the program quietly; stderr that cannot be written to is nobody's
//! error; whatever a file says about itself is shown without its control characters.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use clap::ValueEnum;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[1;36m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// When stderr is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether a stream is to be coloured that is a terminal or is not.
    fn applies(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !refused && !dumb_terminal()
            }
        }
    }
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    #[default]
    Normal,
    /// Explains what was chosen and why.
    Verbose,
}

/// Whether the terminal is one that can neither colour nor move its cursor.
pub fn dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The two streams of the program, and how they are to be used.
#[derive(Clone, Debug)]
pub struct Output {
    verbosity: Verbosity,
    color: Color,
}

impl Output {
    pub fn new(verbosity: Verbosity, color: Color) -> Self {
        Self { verbosity, color }
    }

    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether bars and spinners make sense: stderr is a terminal that can redraw a line.
    pub fn draws(&self) -> bool {
        self.verbosity > Verbosity::Quiet && io::stderr().is_terminal() && !dumb_terminal()
    }

    /// Writes a piece of the answer to stdout and flushes it. A terminal gets no control
    /// characters of it: they come from a model or a file, not from the user.
    ///
    /// # Errors
    /// `io::ErrorKind::BrokenPipe` when the reader is gone ([`reader_is_gone`]), or a full disk.
    pub fn answer(&self, text: &str) -> io::Result<()> {
        let terminal = io::stdout().is_terminal();
        let text = if terminal { Cow::Owned(printable(text)) } else { Cow::Borrowed(text) };
        let mut stdout = self.stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Stdout, for results that are written at one go; its errors name the stream.
    pub fn stdout(&self) -> Stdout {
        Stdout(io::stdout().lock())
    }

    /// Says on stderr what the user asked for (a REPL command's reply), even when quiet.
    pub fn say(&self, text: impl Display) {
        self.stderr("", "", &text);
    }

    /// Says on stderr what the user may want to know.
    pub fn notice(&self, text: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.stderr("", DIM, &text);
        }
    }

    /// Explains on stderr, with `--verbose`.
    pub fn explain(&self, text: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.stderr("", DIM, &text);
        }
    }

    /// Warns on stderr of what may surprise.
    pub fn warn(&self, text: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.stderr("warning: ", YELLOW, &text);
        }
    }

    /// One line `error: …` with its causes, and `hint: …` where there is one.
    pub fn error(&self, error: &anyhow::Error) {
        self.stderr("error: ", RED, &one_line(error.as_ref()));
        if let Some(hint) = hint_of(error) {
            self.stderr("hint: ", CYAN, &hint);
        }
    }

    /// One line for a fault of our own, which no input should bring about.
    pub fn fault(&self, fault: &PanicHookInfo<'_>) {
        let payload = fault.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let words = payload.downcast_ref::<&str>().copied().or(owned).unwrap_or("unknown cause");
        let place = fault.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
        let place = place.unwrap_or_default();
        self.stderr("error: ", RED, &format_args!("a fault of the program itself: {words}{place}"));
        self.stderr("hint: ", CYAN, &"please report it with the command that led to it");
    }

    /// Help, version or a usage error, as clap lays them out.
    pub fn usage(&self, error: &clap::Error) {
        let text = error.render();
        if error.use_stderr() {
            let colored = self.color.applies(io::stderr().is_terminal());
            let text = if colored { text.ansi().to_string() } else { text.to_string() };
            io::stderr().write_all(text.as_bytes()).ok();
        } else {
            let colored = self.color.applies(io::stdout().is_terminal());
            let text = if colored { text.ansi().to_string() } else { text.to_string() };
            io::stdout().write_all(text.as_bytes()).ok();
        }
    }

    /// `label` or, without one, the whole text is coloured. A lost stderr is not an error.
    fn stderr(&self, label: &str, style: &str, text: &dyn Display) {
        let mut stderr = io::stderr().lock();
        let colored = !style.is_empty() && self.color.applies(stderr.is_terminal());
        let text = printable(&text.to_string());
        let line = match (colored, label.is_empty()) {
            (false, _) => format!("{label}{text}\n"),
            (true, true) => format!("{style}{text}{RESET}\n"),
            (true, false) => format!("{style}{label}{RESET}{text}\n"),
        };
        stderr.write_all(line.as_bytes()).ok();
    }
}

/// Stdout; an error of it says so.
pub struct Stdout(io::StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(name_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(name_stdout)
    }
}

fn name_stdout(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, StdoutError(error)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
struct StdoutError(io::Error);

/// Whether the cause is that nobody reads our stdout any more, as with `… | head -c 1`.
pub fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        cause.kind() == io::ErrorKind::BrokenPipe
            && cause.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
    })
}

/// Answers that can't be written: no further input is worth the work.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
pub struct StdoutFailed(String);

/// An error of stdout, but for a reader that is gone, which ends the program quietly.
pub fn stdout_failed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => error.into(),
        _ => StdoutFailed(crate::gguf::io_message(&error)).into(),
    }
}

/// An error with advice on what to do about it.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Hinted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// An error with a `hint: …` line under it.
pub fn hinted(error: impl Into<anyhow::Error>, hint: String) -> anyhow::Error {
    Hinted { error: error.into(), hint }.into()
}

/// The advice that an error carries.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()).map(|error| error.hint.as_str())
}

/// Puts a `hint: …` line under an error.
pub trait Hint<T> {
    /// # Errors
    /// The same as before, with the hint.
    fn hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, hint: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| hinted(error, hint()))
    }
}

/// The error and its causes on one line; a cause that the line already ends with is not repeated.
fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    without_os_numbers(&line).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line without the ` (os error N)` that Rust puts after the system's own words.
fn without_os_numbers(line: &str) -> String {
    let mut parts = line.split(" (os error ");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(')').map_or("", |(_, after)| after));
    }
    kept
}

/// The text without what could drive a terminal: control characters are written out.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_stand_on_one_line_and_once() {
        let inner = io::Error::other("No such\nfile");
        let error = Err::<(), _>(inner).context("a.gguf: No such\nfile").unwrap_err();
        assert_eq!(one_line(error.as_ref()), "a.gguf: No such file");
        let error = Err::<(), _>(anyhow!("no such file")).context("a.gguf").unwrap_err();
        assert_eq!(one_line(error.as_ref()), "a.gguf: no such file");
    }

    #[test]
    fn the_systems_error_numbers_are_left_out() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let error = Err::<(), _>(missing).context("a.txt").unwrap_err();
        assert_eq!(one_line(error.as_ref()), "a.txt: No such file or directory");
        assert_eq!(without_os_numbers("a (os error 2) at b"), "a at b");
    }

    #[test]
    fn a_hint_survives_further_context() {
        let error = Err::<(), _>(anyhow!("nothing here"))
            .hint(|| "look there".to_owned())
            .context("models")
            .unwrap_err();
        assert_eq!(hint_of(&error), Some("look there"));
        assert_eq!(one_line(error.as_ref()), "models: nothing here");
    }

    #[test]
    fn only_a_broken_stdout_counts_as_a_reader_gone() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(reader_is_gone(&anyhow::Error::new(name_stdout(broken())).context("chat")));
        assert!(!reader_is_gone(&anyhow::Error::new(broken())));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(!reader_is_gone(&anyhow::Error::new(name_stdout(full))));
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}\tc"), "a\\u{1b}[2Jb\\u{9b}\tc");
    }
}
