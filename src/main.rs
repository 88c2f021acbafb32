//! The `gemma3n` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    gemma3n::cli::run(std::env::args_os())
}
