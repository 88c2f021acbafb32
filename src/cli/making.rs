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
use crate::files::plan::{Plan, PlannedTensor};
use crate::files::source::Source;
use crate::files::{Error, execute};
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
            Ok(()) => {
                bar.finish(output);
                Ok(Status::Done)
            }
            Err(Error::Interrupted) => Ok(Status::Interrupted),
            Err(error @ Error::BeyondF16 { .. }) => {
                Err(error).hint(|| "--type bf16 holds it".to_owned())
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
