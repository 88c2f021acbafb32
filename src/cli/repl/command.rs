//! What a line at the prompt means: words for the model, or one of the `/` commands.

use std::path::PathBuf;

use rustyline::completion::unescape;

use crate::cli::shown::Kind;

/// A command's name, what it takes, and what it does; `/help` and Tab read this table too.
pub struct Entry {
    pub name: &'static str,
    pub takes: &'static str,
    pub does: &'static str,
}

pub const COMMANDS: [Entry; 16] = [
    entry("help", "", "this list"),
    entry("image", "FILE", "show a picture with the next message"),
    entry("audio", "FILE", "play a sound with the next message"),
    entry("system", "[TEXT]", "show or set what the model is told first; - takes it away"),
    entry("clear", "", "forget the conversation; the system text stays"),
    entry("undo", "", "take back a waiting file, or the last message and answer"),
    entry("retry", "", "have the last message answered once more"),
    entry("edit", "", "change your last message and send it again"),
    entry("save", "FILE", "write the conversation with its state to a file"),
    entry("load", "FILE", "go on from such a file"),
    entry("set", "NAME VALUE", "change a parameter of the answers"),
    entry("params", "", "show the parameters"),
    entry("stats", "", "figures of the last answer and of all"),
    entry("context", "", "show how full the context is, and which files wait"),
    entry("quit", "", "leave, like Ctrl-D"),
    // What hands from elsewhere type.
    entry("exit", "", ""),
];

const fn entry(name: &'static str, takes: &'static str, does: &'static str) -> Entry {
    Entry { name, takes, does }
}

/// A line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Empty,
    /// Words for the model.
    Text(String),
    Command(Command),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Show(Kind, PathBuf),
    /// Without a text: show it. An empty one takes it away.
    System(Option<String>),
    Clear,
    Undo,
    Retry,
    Edit,
    Save {
        file: PathBuf,
        force: bool,
    },
    Load(PathBuf),
    Set {
        name: String,
        value: String,
    },
    Params,
    Stats,
    Context,
    Quit,
}

/// Why a line was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no command /{typed}; did you mean /{nearest}? (// begins a text with one /)")]
    Nearest { typed: String, nearest: &'static str },
    #[error("no command /{typed}; /help lists them (// begins a text with one /)")]
    Unknown { typed: String },
    #[error("/{name} needs {takes}")]
    Missing { name: &'static str, takes: &'static str },
    #[error("/{name} takes nothing after it")]
    Superfluous { name: &'static str },
}

/// Reads what was typed; a `\` at the end of a line has joined it to the next.
///
/// # Errors
/// An unknown command, or one without what it needs.
pub fn parse(typed: &str) -> Result<Line, Error> {
    let text = typed.replace("\\\n", "\n");
    if text.trim().is_empty() {
        return Ok(Line::Empty);
    }
    let Some(command) = text.strip_prefix('/') else { return Ok(Line::Text(text)) };
    if command.starts_with('/') {
        return Ok(Line::Text(command.to_owned()));
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let Some(entry) = COMMANDS.iter().find(|entry| entry.name == word) else {
        return Err(unknown(word));
    };
    let name = entry.name;
    let missing = Err(Error::Missing { name, takes: entry.takes });
    if entry.takes.is_empty() && !rest.is_empty() {
        return Err(Error::Superfluous { name });
    }
    Ok(Line::Command(match name {
        "help" => Command::Help,
        "image" | "audio" => match file(rest) {
            Some(file) if name == "image" => Command::Show(Kind::Picture, file),
            Some(file) => Command::Show(Kind::Sound, file),
            None => return missing,
        },
        "system" if rest.is_empty() => Command::System(None),
        "system" if rest == "-" => Command::System(Some(String::new())),
        "system" => Command::System(Some(rest.to_owned())),
        "clear" => Command::Clear,
        "undo" => Command::Undo,
        "retry" => Command::Retry,
        "edit" => Command::Edit,
        "save" => {
            let (force, name) = match rest.strip_prefix("--force") {
                Some(name) if name.is_empty() || name.starts_with(' ') => (true, name.trim()),
                _ => (false, rest),
            };
            match file(name) {
                Some(file) => Command::Save { file, force },
                None => return missing,
            }
        }
        "load" => match file(rest) {
            Some(file) => Command::Load(file),
            None => return missing,
        },
        "set" => match rest.split_once(char::is_whitespace) {
            Some((name, value)) => {
                Command::Set { name: name.to_owned(), value: value.trim().to_owned() }
            }
            None => return missing,
        },
        "params" => Command::Params,
        "stats" => Command::Stats,
        "context" => Command::Context,
        _ => Command::Quit,
    }))
}

fn unknown(typed: &str) -> Error {
    let nearest = COMMANDS
        .iter()
        .map(|entry| (strsim::damerau_levenshtein(typed, entry.name), entry.name))
        .min_by_key(|(distance, _)| *distance);
    let typed = typed.to_owned();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + typed.chars().count() / 3 => {
            Error::Nearest { typed, nearest }
        }
        _ => Error::Unknown { typed },
    }
}

/// A file name as it is typed or completed: in quotes, with `\ `, with `~/`.
fn file(typed: &str) -> Option<PathBuf> {
    if typed.is_empty() {
        return None;
    }
    let quoted = |mark: char| typed.strip_prefix(mark).and_then(|name| name.strip_suffix(mark));
    let name = match quoted('"').or_else(|| quoted('\'')) {
        Some(name) => name.to_owned(),
        None => unescape(typed, Some('\\')).into_owned(),
    };
    match (name.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(inside), Ok(home)) => Some(home.join(inside)),
        _ => Some(PathBuf::from(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(typed: &str) -> Command {
        match parse(typed) {
            Ok(Line::Command(command)) => command,
            other => panic!("{typed}: {other:?}"),
        }
    }

    #[test]
    fn a_second_slash_makes_a_text_of_it() {
        assert_eq!(parse("//help me"), Ok(Line::Text("/help me".to_owned())));
        assert_eq!(parse("not /help"), Ok(Line::Text("not /help".to_owned())));
        assert_eq!(parse("  \n"), Ok(Line::Empty));
    }

    #[test]
    fn a_backslash_at_the_end_joins_lines() {
        assert_eq!(parse("one\\\ntwo"), Ok(Line::Text("one\ntwo".to_owned())));
        assert_eq!(parse("C:\\dir"), Ok(Line::Text("C:\\dir".to_owned())));
    }

    #[test]
    fn commands_take_what_follows() {
        assert_eq!(command("/system Be  brief. "), Command::System(Some("Be  brief.".to_owned())));
        assert_eq!(command("/system"), Command::System(None));
        assert_eq!(command("/system -"), Command::System(Some(String::new())));
        assert_eq!(
            command("/set top-k  5"),
            Command::Set { name: "top-k".to_owned(), value: "5".to_owned() }
        );
        assert_eq!(command("/exit"), Command::Quit);
        assert_eq!(parse("/save"), Err(Error::Missing { name: "save", takes: "FILE" }));
        assert_eq!(parse("/clear all"), Err(Error::Superfluous { name: "clear" }));
    }

    #[test]
    fn file_names_may_hold_spaces() {
        let save = |file: &str, force| Command::Save { file: PathBuf::from(file), force };
        assert_eq!(command("/save my talk"), save("my talk", false));
        assert_eq!(command(r"/save my\ talk"), save("my talk", false));
        assert_eq!(command("/save --force \"my talk\""), save("my talk", true));
        assert_eq!(command("/load --forced"), Command::Load(PathBuf::from("--forced")));
        let show = |kind, file: &str| Command::Show(kind, PathBuf::from(file));
        assert_eq!(command("/audio my cat.wav"), show(Kind::Sound, "my cat.wav"));
        assert_eq!(command("/image 'cat.png'"), show(Kind::Picture, "cat.png"));
        assert_eq!(parse("/audio"), Err(Error::Missing { name: "audio", takes: "FILE" }));
    }

    #[test]
    fn an_unknown_command_names_the_nearest() {
        let error = parse("/hepl").expect_err("unknown");
        assert_eq!(error, Error::Nearest { typed: "hepl".to_owned(), nearest: "help" });
        let error = parse("/usr/bin/env what is it").expect_err("unknown");
        assert_eq!(error, Error::Unknown { typed: "usr/bin/env".to_owned() });
    }
}
