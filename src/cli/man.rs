//! `gemma3n man`: manual pages, one for the program and one for each subcommand.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use tempfile::Builder;

use super::output::{Hint, Output};
use super::{Cli, Status, usage_error};

const EXAMPLES: &str = "\
Examples:
  gemma3n man | man -l -                         read the page of the program
  gemma3n man chat > gemma3n-chat.1              the page of a subcommand
  gemma3n man --dir share/man/man1               write all pages, for a package";

/// Print a manual page, or write them all
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A subcommand [default: the program itself]
    #[arg(value_name = "COMMAND")]
    subcommand: Option<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    dir: Option<PathBuf>,
    /// Overwrite pages that are there
    #[arg(long, requires = "dir")]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// No such subcommand, or a page that cannot be written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let page = match (&args.dir, &args.subcommand) {
        (Some(dir), _) => {
            for command in std::iter::once(&program).chain(program.get_subcommands()) {
                write(dir, command, args.force, output)?;
            }
            return Ok(Status::Done);
        }
        (None, None) => page(&program)?,
        (None, Some(wanted)) => match program.find_subcommand(wanted) {
            Some(command) => page(command)?,
            None => {
                let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
                let message = format!("no subcommand '{wanted}' [there are: {}]", names.join(", "));
                return Err(usage_error("man", message));
            }
        },
    };
    let mut stdout = output.stdout();
    stdout.write_all(&page)?;
    stdout.flush()?;
    Ok(Status::Done)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let command = command.clone().version(env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    Man::new(command).manual("gemma3n").render(&mut page)?;
    Ok(page)
}

/// Writes a command's page as `gemma3n-COMMAND.1`, beside its target first.
fn write(dir: &Path, command: &Command, force: bool, output: &Output) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    let context = || path.display().to_string();
    let mut file = Builder::new();
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = file.tempfile_in(dir).with_context(context)?;
    file.write_all(&page(command)?).with_context(context)?;
    let kept = if force { file.persist(&path) } else { file.persist_noclobber(&path) };
    match kept.map(drop).map_err(|error| error.error) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(error).with_context(context).hint(|| "--force overwrites".to_owned())
        }
        other => other.with_context(context),
    }?;
    output.notice(path.display());
    Ok(())
}
