//! The conversation at the terminal: prompt, answer, commands.

mod command;
mod editor;
mod params;

use std::path::{Path, PathBuf};

use anyhow::Context;

use self::command::{COMMANDS, Command, Line};
pub use self::editor::LineEditor;
use self::editor::Typed;
use super::Status;
use super::chat::{Stream, figures, told};
use super::interrupt::Interrupt;
use super::options::ModelOptions;
use super::output::{Hint, Output, Verbosity, dumb_terminal, reader_is_gone};
use super::shown::{self, Kind};
use crate::session::{Conversation, Finish, Part, Reply};

/// Talks until the user leaves.
///
/// # Errors
/// The terminal or stdout fails; what goes wrong with one message is said and the talk goes on.
pub fn run(
    chat: &mut Conversation,
    editor: LineEditor,
    waiting: Vec<Part>,
    options: &ModelOptions,
    interrupt: &Interrupt,
    output: &Output,
) -> anyhow::Result<Status> {
    output.notice(format_args!(
        "{}, context {}; /help lists the commands, Ctrl-D leaves",
        chat.engine().name(),
        chat.context_usage().capacity
    ));
    let timings = options.timings || output.verbosity() == Verbosity::Verbose;
    Repl {
        chat,
        interrupt,
        output,
        editor,
        options,
        timings,
        own_file: None,
        waiting,
        last: None,
        answers: 0,
        generated: 0,
    }
    .talk()
}

struct Repl<'a> {
    chat: &'a mut Conversation,
    interrupt: &'a Interrupt,
    output: &'a Output,
    editor: LineEditor,
    options: &'a ModelOptions,
    timings: bool,
    /// The file last saved to or loaded from: `/save` may overwrite it.
    own_file: Option<PathBuf>,
    /// Pictures and sounds that go with the next message.
    waiting: Vec<Part>,
    last: Option<Reply>,
    answers: usize,
    generated: usize,
}

/// What comes after a command.
enum Next {
    Prompt,
    /// Ask again with this text on the line.
    Edit(String),
    Leave,
}

impl Repl<'_> {
    fn talk(&mut self) -> anyhow::Result<Status> {
        let mut initial = String::new();
        let mut interrupted = false;
        loop {
            match self.read(&std::mem::take(&mut initial))? {
                Typed::End => return Ok(Status::Done),
                Typed::Interrupt if interrupted => return Ok(Status::Interrupted),
                Typed::Interrupt => {
                    interrupted = true;
                    self.output.say("Ctrl-C once more or Ctrl-D leaves");
                }
                Typed::Line(line) => {
                    interrupted = false;
                    match self.line(&line) {
                        Ok(Next::Prompt) => {}
                        Ok(Next::Edit(text)) => initial = text,
                        Ok(Next::Leave) => return Ok(Status::Done),
                        Err(error) if reader_is_gone(&error) => return Err(error),
                        Err(error) => self.output.error(&error),
                    }
                    interrupted |= self.stopped();
                }
            }
        }
    }

    /// Asks for a line. Where the terminal cannot be edited Ctrl-C is a signal, and leaves.
    fn read(&mut self, initial: &str) -> anyhow::Result<Typed> {
        if dumb_terminal() {
            self.interrupt.release();
        }
        let typed = self.editor.read(initial).context("terminal");
        self.interrupt.catch();
        self.interrupt.take();
        typed
    }

    /// Whether the last answer was stopped by Ctrl-C; a second one then leaves.
    fn stopped(&self) -> bool {
        self.interrupt.take()
    }

    fn line(&mut self, line: &str) -> anyhow::Result<Next> {
        match command::parse(line)? {
            Line::Empty => Ok(Next::Prompt),
            Line::Text(text) => {
                let shown = std::mem::take(&mut self.waiting);
                self.chat.push_user_with(shown.clone(), &text);
                let answered = self.answer();
                // A message that fails is taken out; what went with it waits for another.
                if answered.is_err() {
                    self.waiting = shown;
                }
                answered
            }
            Line::Command(command) => self.command(command),
        }
    }

    fn answer(&mut self) -> anyhow::Result<Next> {
        let mut stream = Stream::new(self.output, true);
        let reply = self.chat.reply(&mut |event| stream.hear(event));
        stream.end()?;
        let reply = reply.map_err(told)?;
        match reply.finish {
            Finish::Stop => {}
            Finish::Length => self.output.notice("(stopped at the limit of tokens)"),
            Finish::Context => self.output.warn("the context is full; /clear makes room"),
            Finish::Interrupted => self.output.notice("(stopped)"),
        }
        if self.timings {
            for line in figures(&reply) {
                self.output.say(line);
            }
        }
        self.answers += 1;
        self.generated += reply.tokens.generated;
        self.last = Some(reply);
        Ok(Next::Prompt)
    }

    fn command(&mut self, command: Command) -> anyhow::Result<Next> {
        match command {
            Command::Help => self.output.say(help()),
            Command::Show(kind, file) => self.show(kind, &file)?,
            Command::System(text) => self.system(text),
            Command::Clear => {
                self.chat.clear();
                self.waiting.clear();
                self.output.notice("the conversation is forgotten");
            }
            Command::Undo => self.undo(),
            Command::Retry if self.chat.retry() => return self.answer(),
            Command::Retry => self.output.say("there is no message to answer"),
            Command::Edit => return Ok(self.edit()),
            Command::Save { file, force } => self.save(file, force)?,
            Command::Load(file) => {
                self.chat.load(&file).map_err(told)?;
                self.output.notice(format_args!("{}: {}", file.display(), self.length()));
                self.own_file = Some(file);
            }
            Command::Set { name, value } => {
                params::set(self.chat, &name, &value)?;
                self.output.notice(format_args!("{name} is {value} from now on"));
            }
            Command::Params => self.output.say(params::shown(self.chat)),
            Command::Stats => self.stats(),
            Command::Context => self.context(),
            Command::Quit => return Ok(Next::Leave),
        }
        Ok(Next::Prompt)
    }

    /// Takes a picture or sound in now, so that a broken one is told of before the question is typed.
    fn show(&mut self, kind: Kind, file: &Path) -> anyhow::Result<()> {
        self.options.require_towers(kind.plural())?;
        // Standard input is where the talk comes from.
        let file = if file == Path::new("-") { Path::new("./-") } else { file };
        let engine = self.chat.engine().clone();
        let taken = shown::take(kind, file, &engine, self.output);
        shown::rest(&engine);
        let taken = match taken {
            Err(_) if self.interrupt.take() => {
                self.output.notice("(stopped)");
                return Ok(());
            }
            taken => taken?,
        };
        self.waiting.push(taken.part);
        self.output.notice(format_args!(
            "{}: {} with your next message",
            file.display(),
            taken.facts
        ));
        Ok(())
    }

    /// Takes back what was done last: a file that waits for the next message, else a turn.
    fn undo(&mut self) {
        if let Some(part) = self.waiting.pop() {
            let name = part.media().map_or("", |media| media.name());
            self.output.notice(format_args!("{name} is taken back"));
            return;
        }
        match self.chat.undo() {
            Some(_) => self.output.notice(self.length()),
            None => self.output.say("there is nothing to take back"),
        }
    }

    /// Takes the last message back onto the line; what was shown with it waits for the next one.
    fn edit(&mut self) -> Next {
        let Some(message) = self.chat.undo() else {
            self.output.say("there is no message to change");
            return Next::Prompt;
        };
        self.waiting.splice(..0, message.media().cloned());
        let text = message.words();
        // A text of one / is typed with two.
        Next::Edit(if text.starts_with('/') { format!("/{text}") } else { text })
    }

    fn system(&mut self, text: Option<String>) {
        match text {
            None => self.output.say(self.chat.system().unwrap_or("there is no system text")),
            Some(text) => self.chat.set_system(Some(text).filter(|text| !text.is_empty())),
        }
    }

    fn save(&mut self, file: PathBuf, force: bool) -> anyhow::Result<()> {
        let own = self.own_file.as_deref() == Some(Path::new(&file));
        if file.exists() && !own && !force {
            let error = anyhow::anyhow!("{}: there is such a file", file.display());
            return Err(error).hint(|| "/save --force FILE overwrites it".to_owned());
        }
        self.chat.save(&file).map_err(told)?;
        self.output.notice(format_args!("{}: saved", file.display()));
        self.own_file = Some(file);
        Ok(())
    }

    /// How long the conversation is, in words.
    fn length(&self) -> String {
        match self.chat.messages().len() {
            0 => "the conversation is empty".to_owned(),
            1 => "1 message".to_owned(),
            n => format!("{n} messages"),
        }
    }

    fn stats(&self) {
        let Some(last) = &self.last else { return self.output.say("nothing was answered yet") };
        let mut lines = figures(last);
        let answers = if self.answers == 1 { "answer" } else { "answers" };
        lines.push(format!("all: {} {answers}, {} tokens", self.answers, self.generated));
        self.output.say(lines.join("\n"));
    }

    /// What goes with the next message, if there is something, in words.
    fn waits(&self) -> Option<String> {
        let names = self.waiting.iter().filter_map(Part::media).map(|media| media.name());
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| format!("with your next message: {}", names.join(", ")))
    }

    fn context(&self) {
        let usage = self.chat.context_usage();
        let percent = 100.0 * usage.used as f64 / usage.capacity.max(1) as f64;
        self.output.say(format_args!(
            "{} of {} positions are used ({percent:.0} %), {}; the model was trained for {}",
            usage.used,
            usage.capacity,
            self.length(),
            usage.trained
        ));
        if let Some(waits) = self.waits() {
            self.output.say(waits);
        }
    }
}

fn help() -> String {
    let mut lines: Vec<String> = COMMANDS
        .iter()
        .filter(|entry| !entry.does.is_empty())
        .map(|entry| {
            let typed = format!("/{} {}", entry.name, entry.takes);
            format!("  {typed:<18} {}", entry.does)
        })
        .collect();
    lines.push(
        "A line that ends in \\ goes on; pasted lines stay together. // begins a text\n\
         with one /. Ctrl-C stops an answer and keeps what was said; at the prompt it\n\
         leaves when pressed twice."
            .to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_help_fits_a_narrow_terminal() {
        for line in super::help().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
