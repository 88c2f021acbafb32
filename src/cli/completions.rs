//! `gemma3n completions SHELL`: what a shell needs to complete our command lines.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::Output;
use super::{Cli, Status};

const EXAMPLES: &str = "\
Examples:
  gemma3n completions bash > ~/.local/share/bash-completion/completions/gemma3n
  gemma3n completions zsh > ~/.zfunc/_gemma3n
  gemma3n completions fish > ~/.config/fish/completions/gemma3n.fish";

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Stdout failed.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gemma3n", &mut script);
    let mut stdout = output.stdout();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(Status::Done)
}
