//! The command line: one file a subcommand, and what they share.
//!
//! `options.rs` turns what was typed into what is meant; `output.rs` and `progress.rs` alone
//! print. A command gives back how it ended, this file makes the exit code of it.

mod bench;
mod chat;
mod completions;
mod convert;
mod describe_image;
mod gather;
mod imatrix;
mod input;
mod inspect;
mod interrupt;
mod machine;
mod making;
mod man;
mod models;
mod options;
mod output;
mod progress;
mod quantize;
mod repl;
mod shown;
mod sidecar;
mod slice;
mod towers;
mod transcribe;
mod verify;

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::options::OutputArgs;
use self::output::{Color, Output, Verbosity};

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nggml ",
    env!("GEMMA3N_GGML_VERSION"),
    ", compiled with ",
    env!("GEMMA3N_MARCH_FLAG")
);

const EXAMPLES: &str = "\
Examples:
  gemma3n chat                                  talk with the small model inside
  gemma3n chat -m model.gguf \"Why is the sky blue?\"
  gemma3n transcribe -m model.gguf talk.mp3     speech to text
  gemma3n describe-image -m model.gguf photo.jpg
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf
  gemma3n quantize e2b.gguf e2b-Q4_K_M.gguf Q4_K_M
  gemma3n inspect model.gguf                    what a file is
  gemma3n COMMAND --help                        flags and examples of a command

GEMMA3N_MODEL names the model where -m does not; else it is the built-in one.";

/// Runs Google's Gemma 3n from quantized GGUF files on the CPU
#[derive(Parser, Debug)]
#[command(name = "gemma3n", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_override_self = true)]
struct Cli {
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Bench(bench::Args),
    Chat(Box<chat::Args>),
    Completions(completions::Args),
    Convert(convert::Args),
    DescribeImage(Box<describe_image::Args>),
    Imatrix(Box<imatrix::Args>),
    /// Show what a GGUF file is
    Inspect(inspect::Args),
    Man(man::Args),
    Quantize(quantize::Args),
    Slice(slice::Args),
    Transcribe(Box<transcribe::Args>),
    Verify(verify::Args),
}

impl Command {
    fn run(&self, output: &Output) -> anyhow::Result<Status> {
        match self {
            Self::Bench(args) => bench::run(args, output),
            Self::Chat(args) => chat::run(args, output),
            Self::Completions(args) => completions::run(args, output),
            Self::Convert(args) => convert::run(args, output),
            Self::DescribeImage(args) => describe_image::run(args, output),
            Self::Imatrix(args) => imatrix::run(args, output),
            Self::Inspect(args) => {
                output.answer(&format!("{}\n", inspect::run(args)?))?;
                Ok(Status::Done)
            }
            Self::Man(args) => man::run(args, output),
            Self::Quantize(args) => quantize::run(args, output),
            Self::Slice(args) => slice::run(args, output),
            Self::Transcribe(args) => transcribe::run(args, output),
            Self::Verify(args) => verify::run(args, output),
        }
    }
}

/// How a command ended that met no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Done,
    /// By Ctrl-C; what was done until then is written.
    Interrupted,
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage, 130 after Ctrl-C.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let color = if error.use_stderr() { color_typed(&arguments) } else { Color::Auto };
            Output::new(Verbosity::Normal, color).usage(&error);
            return exit_code(error.exit_code());
        }
    };
    let output = cli.output.resolve();
    let result = guarded(&output, || {
        crate::ggml::check_machine().map_err(anyhow::Error::msg)?;
        cli.command.run(&output)
    });
    match result {
        Some(Ok(Status::Done)) => ExitCode::SUCCESS,
        Some(Ok(Status::Interrupted)) => ExitCode::from(interrupt::EXIT_CODE),
        Some(Err(error)) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => {
                output.usage(usage);
                exit_code(usage.exit_code())
            }
            None if output::reader_is_gone(&error) => ExitCode::SUCCESS,
            None => {
                output.error(&error);
                ExitCode::FAILURE
            }
        },
        None => ExitCode::FAILURE,
    }
}

/// Runs the command; a fault of our own becomes one line instead of a panic's message.
fn guarded<T>(output: &Output, work: impl FnOnce() -> T) -> Option<T> {
    let screen = output.clone();
    panic::set_hook(Box::new(move |fault| screen.fault(fault)));
    panic::catch_unwind(panic::AssertUnwindSafe(work)).ok()
}

/// A usage error (exit 2) that clap cannot see by itself.
fn usage_error(subcommand: &str, message: impl std::fmt::Display) -> anyhow::Error {
    let mut command = Cli::command();
    command.build();
    let kind = clap::error::ErrorKind::MissingRequiredArgument;
    match command.find_subcommand_mut(subcommand) {
        Some(command) => command.error(kind, message).into(),
        None => command.error(kind, message).into(),
    }
}

/// The word after `--color`, for errors of the command line itself.
fn color_typed(arguments: &[OsString]) -> Color {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let typed = words.iter().find_map(|word| word.strip_prefix("--color="));
    let apart = words.iter().position(|word| *word == "--color").and_then(|at| words.get(at + 1));
    match typed.or(apart.copied()) {
        Some("always") => Color::Always,
        Some("never") => Color::Never,
        _ => Color::Auto,
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(help.contains(&format!("  gemma3n {name}")), "{name} has no examples");
        }
    }
}
