//! `gemma3n convert`: a Hugging Face checkpoint directory → a GGUF file.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use clap::ValueEnum;
use indicatif::BinaryBytes;

use super::Status;
use super::interrupt::Interrupt;
use super::output::{Hint, Output};
use super::progress::{Progress, Unit};
use crate::checkpoint::{Checkpoint, Float};
use crate::files::plan::{Plan, PlannedTensor};
use crate::files::{Error, convert, execute};
use crate::gguf::Fault;

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
    /// List what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Overwrite the file if it is there
    #[arg(long)]
    force: bool,
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
    for notice in &plan.notices {
        output.notice(notice);
    }
    if args.dry_run {
        show(&plan, output)?;
        return Ok(Status::Done);
    }
    write(args, &checkpoint, &plan, output)
}

fn write(
    args: &Args,
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Output,
) -> anyhow::Result<Status> {
    // Told before a bar begins, not after; the writer checks once more.
    if !args.force && args.output.is_file() {
        return Err(anyhow!("{}: exists already", args.output.display()))
            .hint(|| "--force overwrites".to_owned());
    }
    let total = plan.layout()?.encode().map_or(0, |encoded| encoded.len);
    // From here on a temporary file stands beside the target, which Ctrl-C must not leave behind.
    let interrupt = Interrupt::install()?;
    interrupt.catch();
    let asked = interrupt.flag();
    let what = format!("Writing {}", args.output.display());
    let bar = Progress::bar(output, &what, Unit::Bytes, total);
    let mut advance = |done: u64, _total: u64| {
        bar.set(done);
        if asked.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let target = &args.output;
    match execute::execute(plan, &checkpoint.weights, target, args.force, &mut advance) {
        Ok(()) => {
            bar.finish(output);
            Ok(Status::Done)
        }
        Err(Error::Interrupted) => Ok(Status::Interrupted),
        Err(error @ Error::BeyondF16 { .. }) => {
            Err(error).hint(|| "--type bf16 holds it".to_owned())
        }
        Err(Error::Gguf(error)) if matches!(*error.fault, Fault::Exists) => {
            Err(error).hint(|| "--force overwrites".to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

/// The plan as a table on stdout: what is written, from what, how large.
fn show(plan: &Plan, output: &Output) -> anyhow::Result<()> {
    let encoded = plan.layout()?.encode().map_err(anyhow::Error::msg)?;
    let mut stdout = output.stdout();
    for (tensor, size) in plan.tensors.iter().zip(&encoded.sizes) {
        let PlannedTensor { target, .. } = tensor;
        let sizes: Vec<_> =
            target.ne[..target.n_dims as usize].iter().map(u64::to_string).collect();
        writeln!(
            stdout,
            "{:<36} {:<5} {:>20} {:>12}  {}",
            target.name,
            target.ty,
            sizes.join(" × "),
            BinaryBytes(*size).to_string(),
            tensor.transformation()
        )?;
    }
    for left in &plan.left_out {
        writeln!(stdout, "left out: {} ({})", left.name, left.reason)?;
    }
    writeln!(
        stdout,
        "{} tensors, {} keys, {}; {} tensors left out",
        plan.tensors.len(),
        plan.metadata.len(),
        BinaryBytes(encoded.len),
        plan.left_out.len()
    )?;
    stdout.flush()?;
    Ok(())
}
