//! `gemma3n verify`: a model against recorded reference values.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use serde_json::json;

use super::Status;
use super::options::ModelArgs;
use super::output::{Output, hinted};
use crate::gguf::{Tensor, TensorType};
use crate::session::CacheType;
use crate::verify::{self, Options, Report, Subject};

const EXAMPLES: &str = "\
Examples:
  gemma3n verify -m model.gguf case.reference.gguf
  gemma3n verify -m model.gguf case.reference.gguf --kernels ggml    every value, without our kernels
  gemma3n verify -m model.gguf *.reference.gguf --json | jq .first_failure

The error of a value is max|ours - reference| / max|reference|. The cache is f32 unless
--cache-type says otherwise. Exit code 1 if any value is over its tolerance, or if the greedy
continuation differs. With --json one object a line: {\"file\", \"case\", \"tokens\", \"passes\", \"taps\":
[{\"name\", \"error\", \"tolerance\", \"passes\"}], \"first_failure\", \"unread\", \"greedy\": {\"expected\",
\"found\", \"agreeing\"}}.";

/// Compare every intermediate value with recorded reference values
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files of reference values (GGUF)
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<PathBuf>,
    /// Greatest permitted error [default: what the file says, else 0.0001]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    tolerance: Option<f32>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn tolerance(text: &str) -> Result<f32, String> {
    let value: f32 = text.trim().parse().map_err(|_| "must be a number".to_owned())?;
    if value >= 0.0 { Ok(value) } else { Err("must be 0 or more".to_owned()) }
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be used, or a value over its tolerance.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let options = args.model.resolve(None, CacheType::F32, output)?;
    let gguf = Arc::new(options.engine.model.open(options.engine.mmap)?);
    let towers = match &options.engine.towers {
        Some(source) => Some(Arc::new(source.open(options.engine.mmap)?)),
        None => None,
    };
    let decoder = options.decoder_for(usize::MAX, output);
    let run_options = Options {
        cache: decoder.cache,
        threads: decoder.threads,
        kernels: decoder.kernels,
        tolerance: args.tolerance,
    };
    let slice = options.engine.slice.as_ref();
    let subject = Subject { gguf: &gguf, slice, towers: towers.as_ref() };
    let several = args.references.len() > 1;
    let mut failures = 0;
    for file in &args.references {
        let report = match verify::run(subject, file, run_options) {
            Ok(report) => report,
            // One that cannot be used is named, and the others are done.
            Err(error) if several && !matches!(error, verify::Error::Open(_)) => {
                output.error(&error.into());
                failures += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures += usize::from(!report.passes());
        if args.json {
            writeln!(output.stdout(), "{}", object(file, &report))?;
        } else {
            write!(output.stdout(), "{}", table(file, &report))?;
        }
    }
    let failed = match failures {
        0 => return Ok(Status::Done),
        n if several => {
            anyhow!("{n} of {} files of reference values do not pass", args.references.len())
        }
        _ => anyhow!("{}: the model does not pass", args.references[0].display()),
    };
    if args.tolerance.is_none() && gguf.tensors().iter().any(rounds) {
        let hint = "this file's weights are not f32, so that values are rounded more than the \
                    reference's; --tolerance 0.02 allows for f16 and bf16";
        return Err(hinted(failed, hint.to_owned()));
    }
    Err(failed)
}

/// Are a tensor's weights, and the activations that meet them, rounded?
fn rounds(tensor: &Tensor) -> bool {
    tensor.n_dims > 1 && tensor.ty != TensorType::F32
}

fn object(file: &Path, report: &Report) -> serde_json::Value {
    let tap = |tap: &verify::TapReport| {
        json!({
            "name": tap.name,
            "error": tap.error,
            "tolerance": tap.tolerance,
            "passes": tap.passes(),
        })
    };
    json!({
        "file": file.display().to_string(),
        "case": report.case,
        "tokens": report.tokens,
        "passes": report.passes(),
        "taps": report.taps.iter().map(tap).collect::<Vec<_>>(),
        "first_failure": report.first_failure().map(|tap| &tap.name),
        "unread": report.unread,
        "greedy": {
            "expected": report.greedy.expected,
            "found": report.greedy.found,
            "agreeing": report.greedy.agreeing(),
        },
    })
}

/// The failures and the worst values; all of them are in the JSON form.
fn table(file: &Path, report: &Report) -> String {
    let mut lines = vec![format!("{}: {} ({} tokens)", file.display(), report.case, report.tokens)];
    let failures: Vec<_> = report.taps.iter().filter(|tap| !tap.passes()).collect();
    lines.push(match report.worst() {
        Some(worst) => format!(
            "  {} of {} values within tolerance; greatest error {:.1e} at {}",
            report.taps.len() - failures.len(),
            report.taps.len(),
            worst.error,
            worst.name
        ),
        None => "  no values to compare".to_owned(),
    });
    if let Some(first) = failures.first() {
        lines.push(format!("  first over its tolerance, in the graph's order: {}", first.name));
    }
    for tap in failures.iter().take(SHOWN) {
        lines.push(format!(
            "    {:<32} {:.1e} (tolerance {:.1e})",
            tap.name, tap.error, tap.tolerance
        ));
    }
    if failures.len() > SHOWN {
        lines.push(format!("    … and {} more (--json lists all)", failures.len() - SHOWN));
    }
    if !report.unread.is_empty() {
        lines.push(format!(
            "  {} values lie inside fused kernels (--kernels ggml reads them)",
            report.unread.len()
        ));
    }
    let greedy = &report.greedy;
    if !greedy.expected.is_empty() {
        lines.push(format!(
            "  greedy continuation: {} of {} tokens agree",
            greedy.agreeing(),
            greedy.expected.len()
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Failing values that are listed.
const SHOWN: usize = 12;
