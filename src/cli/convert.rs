//! `gemma3n convert`: a Hugging Face checkpoint directory → a GGUF file.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Status;
use super::making::MakingOptions;
use super::output::Output;
use crate::checkpoint::{Checkpoint, Float};
use crate::files::convert;

const EXAMPLES: &str = "\
Examples:
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf            in the checkpoint's own type
  gemma3n convert ./gemma-3n-E2B-it -o e2b-F16.gguf --type f16
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf --dry-run  only list what would be written

DIR is as transformers 4.53 or newer saves it: config.json, *.safetensors,
tokenizer.json or tokenizer.model, and the small files beside them.";

/// Convert a Hugging Face checkpoint to GGUF
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The checkpoint's directory
    #[arg(value_name = "DIR")]
    checkpoint: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Element type of the matrices [default: what most of the checkpoint's text model has]
    #[arg(long = "type", value_enum, ignore_case = true, value_name = "TYPE")]
    ty: Option<TypeArg>,
    #[command(flatten)]
    making: MakingOptions,
}

/// Types that need no quantizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TypeArg {
    F32,
    F16,
    BF16,
}

impl From<TypeArg> for Float {
    fn from(ty: TypeArg) -> Self {
        match ty {
            TypeArg::F32 => Self::F32,
            TypeArg::F16 => Self::F16,
            TypeArg::BF16 => Self::BF16,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A checkpoint that is incomplete or contradicts itself, or a file that can't be written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let plan = convert::plan(&checkpoint, args.ty.map(Float::from))?;
    args.making.make(&plan, &checkpoint.weights, &args.output, output)
}
