//! What the commands that make files share: a plan is shown, or carried out under a bar.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use indicatif::BinaryBytes;

use super::Status;
use super::interrupt::Interrupt;
use super::options::{at_most_processors, threads};
use super::output::{Hint, Output};
use super::progress::{Progress, Unit};
use crate::files::Error;
use crate::files::execute::{self, SAMPLED};
use crate::files::plan::{Plan, PlannedTensor};
use crate::files::quantize::{Share, shares};
use crate::files::source::Source;
use crate::gguf::Fault;

/// Flags of every command that makes files.
#[derive(clap::Args, Clone, Debug)]
pub struct MakingOptions {
    /// List what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrite the file if it is there
    #[arg(long)]
    pub force: bool,
    /// Threads to use [default: all that this process may]
    #[arg(short, long, value_name = "N", env = "GEMMA3N_THREADS", hide_env_values = true,
          value_parser = threads)]
    pub threads: Option<usize>,
}

impl MakingOptions {
    /// Shows or writes what was planned.
    ///
    /// # Errors
    /// The plan doesn't hold together, or the file can't be written.
    pub fn make(
        &self,
        plan: &Plan,
        source: &dyn Source,
        target: &Path,
        output: &Output,
    ) -> anyhow::Result<Status> {
        for notice in &plan.notices {
            output.notice(notice);
        }
        if self.dry_run {
            show(plan, output)?;
            return Ok(Status::Done);
        }
        // Told before a bar begins, not after; the writer checks once more.
        if !self.force && target.is_file() {
            return Err(anyhow!("{}: exists already", target.display())).hint(overwrites);
        }
        self.write(plan, source, target, output)
    }

    fn write(
        &self,
        plan: &Plan,
        source: &dyn Source,
        target: &Path,
        output: &Output,
    ) -> anyhow::Result<Status> {
        let total = plan.layout()?.encode().map_or(0, |encoded| encoded.len);
        // From here on a temporary file stands beside the target, which Ctrl-C must not leave.
        let interrupt = Interrupt::install()?;
        interrupt.catch();
        let asked = interrupt.flag();
        let what = format!("Writing {}", target.display());
        let bar = Progress::bar(output, &what, Unit::Bytes, total);
        let mut advance = |done: u64, _total: u64| {
            bar.set(done);
            if asked.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut pool = rayon::ThreadPoolBuilder::new();
        if let Some(threads) = self.threads.filter(|&threads| threads > 0) {
            pool = pool.num_threads(at_most_processors(threads));
        }
        let execute = || execute::execute(plan, source, target, self.force, &mut advance);
        let written = pool.build()?.install(execute);
        match written {
            Ok(losses) => {
                bar.finish(output);
                report(&shares(plan, &losses), output);
                Ok(Status::Done)
            }
            Err(Error::Interrupted) => Ok(Status::Interrupted),
            Err(error @ Error::BeyondF16 { .. }) => {
                Err(error).hint(|| "the type BF16 holds it".to_owned())
            }
            Err(Error::Gguf(error)) if matches!(*error.fault, Fault::Exists) => {
                Err(error).hint(overwrites)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn overwrites() -> String {
    "--force overwrites".to_owned()
}

/// Where the bits went, and what it cost, on stderr; nothing where no value lost anything.
fn report(shares: &[Share], output: &Output) {
    if shares.iter().all(|share| share.loss.relative().is_none()) {
        return;
    }
    let total: u64 = shares.iter().map(|share| share.bytes).sum();
    output.notice(format_args!(
        "{:<16} {:<20} {:>10} {:>7} {:>8}",
        "part", "types", "bits/value", "share", "error"
    ));
    for share in shares {
        let types: Vec<_> = share.types.iter().map(|ty| ty.name()).collect();
        let error = share.loss.relative().map_or("-".to_owned(), |error| format!("{error:.5}"));
        output.notice(format_args!(
            "{:<16} {:<20} {:>10.2} {:>5.1} % {error:>8}",
            share.class,
            types.join(", "),
            share.bits_per_weight(),
            share.bytes as f64 * 100.0 / total.max(1) as f64,
        ));
    }
    output.notice(format_args!(
        "error: RMS of the change, relative to the values, over one stretch in {SAMPLED}; - where \
         none changed"
    ));
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
