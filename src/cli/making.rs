//! What the commands that make files share: a plan is shown, or carried out under a bar.

use std::collections::HashSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use indicatif::BinaryBytes;

use super::Status;
use super::interrupt::Interrupt;
use super::options::{at_most_processors, threads};
use super::output::{Hint, Output};
use super::progress::{Progress, Unit};
use crate::files::Error;
use crate::files::execute::{self, Loss, SAMPLED};
use crate::files::plan::{Plan, PlannedTensor};
use crate::files::quantize::{Share, shares};
use crate::files::source::Source;
use crate::gguf::{Fault, Finished, Layout, Writer, parts, same_file};

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

/// A file to make.
pub struct Making<'a> {
    pub plan: &'a Plan,
    pub source: &'a dyn Source,
    pub target: &'a Path,
    /// Files that are read beside the source, and must not be written over either.
    pub inputs: Vec<PathBuf>,
    /// Most bytes of tensors in a part, where the file may be split.
    pub split: Option<u64>,
}

impl Making<'_> {
    /// The paths that are written, and what goes there.
    fn parts(&self) -> anyhow::Result<Vec<(PathBuf, Layout)>> {
        Ok(parts::split(self.target, &self.plan.layout()?, self.split)?)
    }
}

impl MakingOptions {
    /// Shows or writes what was planned: all of the files, or none.
    ///
    /// # Errors
    /// A plan doesn't hold together, a file can't be written, or two of them have one name.
    pub fn make_all(&self, makings: &[Making], output: &Output) -> anyhow::Result<Status> {
        let parts: Vec<_> = makings.iter().map(Making::parts).collect::<anyhow::Result<_>>()?;
        // Told before a bar begins, not after; the writer checks once more.
        self.check_targets(makings, &parts)?;
        for notice in makings.iter().flat_map(|making| &making.plan.notices) {
            output.notice(notice);
        }
        if self.dry_run {
            for (making, parts) in makings.iter().zip(&parts) {
                show(making, parts, makings.len() > 1, output)?;
            }
            return Ok(Status::Done);
        }
        self.write_all(makings, parts, output)
    }

    fn check_targets(
        &self,
        makings: &[Making],
        parts: &[Vec<(PathBuf, Layout)>],
    ) -> anyhow::Result<()> {
        let mut targets = HashSet::new();
        for (making, parts) in makings.iter().zip(parts) {
            for (target, _) in parts {
                if !targets.insert(place(target)) {
                    return Err(anyhow!("{}: two files would have this name", target.display()));
                }
                let source = making.source.files();
                let mut inputs = source.into_iter().chain(making.inputs.iter().map(|it| &**it));
                if inputs.any(|file| same_file(file, target)) {
                    return Err(Error::OverInput { path: target.clone() }.into());
                }
                Writer::check(target, self.force).or_else(|error| hinted(error.into()))?;
            }
        }
        Ok(())
    }

    fn write_all(
        &self,
        makings: &[Making],
        parts: Vec<Vec<(PathBuf, Layout)>>,
        output: &Output,
    ) -> anyhow::Result<Status> {
        // From here on temporary files stand beside the targets, which Ctrl-C must not leave.
        let interrupt = Interrupt::install()?;
        interrupt.catch();
        interrupt.catch_endings()?;
        let (mut finished, mut lost) = (Vec::new(), Vec::new());
        for (making, parts) in makings.iter().zip(parts) {
            match self.write(making, parts, &interrupt, output) {
                Ok((files, losses)) => {
                    finished.extend(files);
                    lost.push(shares(making.plan, &losses));
                }
                Err(Error::Interrupted) => return Ok(Status::Interrupted),
                Err(error) => return hinted(error),
            }
        }
        let written: Vec<PathBuf> =
            finished.iter().map(|file: &Finished| file.target().to_owned()).collect();
        parts::publish(finished).or_else(|error| hinted(error.into()))?;
        tell(&written, output);
        for (making, shares) in makings.iter().zip(&lost) {
            report(making.target, shares, output);
        }
        Ok(Status::Done)
    }

    fn write(
        &self,
        making: &Making,
        parts: Vec<(PathBuf, Layout)>,
        interrupt: &Interrupt,
        output: &Output,
    ) -> Result<(Vec<Finished>, Vec<Loss>), Error> {
        let encoded = parts.iter().map(|(_, layout)| layout.encode().map_or(0, |it| it.len));
        let asked = interrupt.flag();
        let what = format!("Writing {}", making.target.display());
        let bar = Progress::bar(output, &what, Unit::Bytes, encoded.sum());
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
        let Making { plan, source, .. } = *making;
        let write = || execute::write(plan, source, parts, self.force, &mut advance);
        let written = match pool.build() {
            Ok(pool) => pool.install(write),
            // The threads of the whole program serve as well.
            Err(_) => write(),
        }?;
        bar.clear();
        Ok(written)
    }
}

/// What a path names, however it is written: its folder without links and dots, and its name.
fn place(target: &Path) -> PathBuf {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.join(target.file_name().unwrap_or_default())
}

/// The error, with what helps against it.
fn hinted<T>(error: Error) -> anyhow::Result<T> {
    match error {
        Error::BeyondF16 { .. } => Err(error).hint(|| "the type BF16 holds it".to_owned()),
        Error::Gguf(error) if matches!(*error.fault, Fault::Exists) => Err(error).hint(overwrites),
        error => Err(error.into()),
    }
}

fn overwrites() -> String {
    "--force overwrites".to_owned()
}

/// Names what was written; of many parts the first and the last.
fn tell(written: &[PathBuf], output: &Output) {
    let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |facts| facts.len());
    match written {
        [first, .., last] if written.len() > 2 => output.notice(format_args!(
            "written: {} to {}, {} files, {}",
            first.display(),
            last.display(),
            written.len(),
            BinaryBytes(written.iter().map(size).sum())
        )),
        files => files.iter().for_each(|file| {
            output.notice(format_args!("written: {}, {}", file.display(), BinaryBytes(size(file))));
        }),
    }
}

/// Where a file's bits went, and what it cost, on stderr; nothing where no value lost anything.
fn report(target: &Path, shares: &[Share], output: &Output) {
    if shares.iter().all(|share| share.loss.relative().is_none_or(|loss| loss == 0.0)) {
        return;
    }
    let total: u64 = shares.iter().map(|share| share.bytes).sum();
    let types =
        |share: &Share| share.types.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(", ");
    let width = shares.iter().map(|share| types(share).len()).max().unwrap_or(0).max(5);
    output.notice(format_args!("What {} lost:", target.display()));
    output.notice(format_args!(
        "{:<16} {:<width$} {:>10} {:>7} {:>9}",
        "part", "types", "bits/value", "share", "change"
    ));
    for share in shares {
        let change = match share.loss.relative() {
            None => "-".to_owned(),
            Some(change) if change < 1e-5 => "< 0.00001".to_owned(),
            Some(change) => format!("{change:.5}"),
        };
        output.notice(format_args!(
            "{:<16} {:<width$} {:>10.2} {:>5.1} % {change:>9}",
            share.class,
            types(share),
            share.bits_per_weight(),
            share.bytes as f64 * 100.0 / total.max(1) as f64,
        ));
    }
    output.notice(format_args!(
        "(RMS of the change relative to the values, over one stretch in {SAMPLED})"
    ));
}

/// The plan as a table on stdout: what is written, from what, how large.
fn show(
    making: &Making,
    parts: &[(PathBuf, Layout)],
    named: bool,
    output: &Output,
) -> anyhow::Result<()> {
    let plan = making.plan;
    let mut stdout = output.stdout();
    if named {
        writeln!(stdout, "{}:", making.target.display())?;
    }
    for tensor in &plan.tensors {
        let PlannedTensor { target, .. } = tensor;
        let sizes: Vec<_> =
            target.ne[..target.n_dims as usize].iter().map(u64::to_string).collect();
        writeln!(
            stdout,
            "{:<36} {:<5} {:>20} {:>12}  {}",
            target.name,
            target.ty,
            sizes.join(" × "),
            BinaryBytes(target.nbytes().map_err(anyhow::Error::msg)?).to_string(),
            tensor.transformation()
        )?;
    }
    for left in &plan.left_out {
        writeln!(stdout, "left out: {} ({})", left.name, left.reason)?;
    }
    let mut total = 0;
    for (path, layout) in parts {
        let len = layout.encode().map_err(anyhow::Error::msg)?.len;
        total += len;
        if parts.len() > 1 {
            let tensors = layout.tensors.len();
            writeln!(stdout, "{}: {tensors} tensors, {}", path.display(), BinaryBytes(len))?;
        }
    }
    writeln!(
        stdout,
        "{} tensors, {} keys, {}; {} tensors left out",
        plan.tensors.len(),
        plan.metadata.len(),
        BinaryBytes(total),
        plan.left_out.len()
    )?;
    stdout.flush()?;
    Ok(())
}
