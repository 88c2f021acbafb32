//! The line editor: history, lines that go on, Tab for commands and files.
//!
//! The editor's own SIGINT handler notes a signal in a pipe that it reads at the next occasion,
//! which may be a window's change of size long after the answer that Ctrl-C stopped. So the key
//! is bound, and an interruption without the key is none: the line is put back.

use std::cell::RefCell;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use etcetera::BaseStrategy;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Behavior, Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, Helper, Highlighter, KeyEvent, RepeatCount,
};

use super::command::COMMANDS;
use super::params;
use crate::cli::output::Output;

const PROMPT: &str = "> ";
const KEPT_LINES: usize = 10_000;

/// What the user did at the prompt.
pub enum Typed {
    Line(String),
    /// Ctrl-C on an empty line.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
}

/// The prompt, with the history of earlier runs.
pub struct LineEditor {
    editor: Editor<Keys, FileHistory>,
    history: Option<PathBuf>,
    pressed: Arc<Mutex<Option<Pressed>>>,
}

/// What stood on the line when Ctrl-C was pressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pressed {
    OnText,
    OnNothing,
}

struct CtrlC {
    pressed: Arc<Mutex<Option<Pressed>>>,
}

impl ConditionalEventHandler for CtrlC {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, at: &EventContext<'_>) -> Option<Cmd> {
        let what = if at.line().is_empty() { Pressed::OnNothing } else { Pressed::OnText };
        *self.pressed.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        Some(Cmd::Interrupt)
    }
}

impl LineEditor {
    /// Opens the editor and reads the history; a history that cannot be used is a warning.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn new(output: &Output) -> rustyline::Result<Self> {
        // With stdout in a file the prompt goes to the terminal itself.
        let to_terminal = !io::stdout().is_terminal();
        let config = Config::builder()
            .max_history_size(KEPT_LINES)?
            .history_ignore_space(true)
            .completion_type(rustyline::CompletionType::List)
            .behavior(if to_terminal { Behavior::PreferTerm } else { Behavior::Stdio })
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Keys::default()));
        let pressed = Arc::new(Mutex::new(None));
        let key = EventHandler::Conditional(Box::new(CtrlC { pressed: pressed.clone() }));
        editor.bind_sequence(KeyEvent::ctrl('C'), key);
        let history = match history_file() {
            Ok(file) => Some(file),
            Err(error) => {
                output.warn(format_args!("no history is kept: {error}"));
                None
            }
        };
        if let Some(file) = history.as_ref().filter(|file| file.exists())
            && let Err(error) = editor.load_history(file)
        {
            output.warn(format_args!("{}: the history cannot be read: {error}", file.display()));
        }
        Ok(Self { editor, history, pressed })
    }

    /// Asks for a message or command; `initial` stands on the line already.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn read(&mut self, initial: &str) -> rustyline::Result<Typed> {
        let mut initial = initial.to_owned();
        let line = loop {
            match self.editor.readline_with_initial(PROMPT, (&initial, "")) {
                Ok(line) => break line,
                Err(ReadlineError::Eof) => return Ok(Typed::End),
                Err(ReadlineError::Interrupted) => {
                    let pressed =
                        self.pressed.lock().unwrap_or_else(PoisonError::into_inner).take();
                    match pressed {
                        Some(Pressed::OnNothing) => return Ok(Typed::Interrupt),
                        Some(Pressed::OnText) => initial.clear(),
                        None => initial = self.line_so_far(),
                    }
                }
                Err(error) => return Err(error),
            }
        };
        if !line.trim().is_empty() {
            // A full disk is no reason to end a conversation.
            self.editor.add_history_entry(line.as_str()).ok();
            if let Some(file) = &self.history {
                self.editor.append_history(file).ok();
            }
        }
        Ok(Typed::Line(line))
    }

    fn line_so_far(&self) -> String {
        self.editor.helper().map(|keys| keys.line.borrow().clone()).unwrap_or_default()
    }
}

/// `gemma3n/history` in the XDG state folder, which is made.
fn history_file() -> io::Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy().map_err(io::Error::other)?;
    let dir = strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("gemma3n");
    fs::create_dir_all(&dir)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
    Ok(dir.join("history"))
}

#[derive(Default, Helper, Highlighter)]
struct Keys {
    files: FilenameCompleter,
    line: RefCell<String>,
}

/// Gives no hints: it is told of every change of the line.
impl Hinter for Keys {
    type Hint = String;

    fn hint(&self, line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        line.clone_into(&mut self.line.borrow_mut());
        None
    }
}

impl Validator for Keys {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Completer for Keys {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Some(command) = line[..at].strip_prefix('/') else { return Ok((at, Vec::new())) };
        match command.split_once(' ') {
            None => Ok((1, words(COMMANDS.iter().map(|entry| entry.name), command))),
            Some(("save" | "load" | "image" | "audio", _)) => self.files.complete_path(line, at),
            Some(("set", name)) if !name.contains(' ') => {
                Ok((at - name.len(), words(params::NAMES.iter().copied(), name)))
            }
            Some(_) => Ok((at, Vec::new())),
        }
    }
}

/// Those that begin with what was typed, and a space after the word.
fn words<'a>(all: impl Iterator<Item = &'a str>, typed: &str) -> Vec<Pair> {
    all.filter(|word| word.starts_with(typed))
        .map(|word| Pair { display: word.to_owned(), replacement: format!("{word} ") })
        .collect()
}
