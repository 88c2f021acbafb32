//! `gemma3n slice`: a smaller model out of a bigger one's file; and how slices are named on the
//! command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;

use super::Status;
use super::making::{Making, MakingOptions};
use super::output::{Hint, Output};
use crate::files;
use crate::gguf::Gguf;
use crate::model::matformer::CONFIGURATIONS;
use crate::model::slice::{self, ParseError, Slice, Widths};

const EXAMPLES: &str = "\
Examples:
  gemma3n slice --list                                         the published slices
  gemma3n slice e4b-Q4_K_M.gguf --to e2b -o e2b-from-e4b.gguf
  gemma3n slice e4b-Q4_K_M.gguf --to e2.98b-block -o e3b.gguf --dry-run
  gemma3n slice e4b-Q4_K_M.gguf --ffn 8192 --skip-layers 20,21,22,23,24 -o own.gguf
  gemma3n chat -m e4b-Q4_K_M.gguf --slice e2b                  without a new file

Packed weights are copied as they are: nothing is dequantized. A width is whole blocks of the
type of ffn_down (256 for K-quants, 32 for Q8_0 and Q4_0). Layers whose keys and values others
read (18 and 19 in E4B) can't be left out. --to takes a name, a row of the published list
(configs.csv) as it stands there, or a file that holds one such row.";

/// Cut a smaller model out of a bigger one
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").multiple(true).required(true)
          .args(["to", "ffn", "skip_layers", "list"]))]
pub struct Args {
    /// The bigger model's file
    #[arg(value_name = "IN", required_unless_present = "list")]
    input: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    output: Option<PathBuf>,
    /// A published slice
    #[arg(long, value_name = "NAME|ROW|FILE", conflicts_with_all = ["ffn", "skip_layers"])]
    to: Option<String>,
    /// FFN widths of the layers that stay, or one for all [default: as they are]
    #[arg(long, value_name = "W,…")]
    ffn: Option<String>,
    /// Layers to leave out, from 0
    #[arg(long, value_name = "L,…")]
    skip_layers: Option<String>,
    /// List the published slices
    #[arg(long, conflicts_with_all = ["input", "output", "to", "ffn", "skip_layers"])]
    list: bool,
    #[command(flatten)]
    making: MakingOptions,
}

impl Args {
    fn slice(&self) -> anyhow::Result<Slice> {
        if let Some(to) = &self.to {
            return named(to);
        }
        let widths = match &self.ffn {
            None => Widths::Kept,
            Some(ffn) => match slice::parse_widths(ffn)?[..] {
                [width] => Widths::All(width),
                ref widths => Widths::Each(widths.to_vec()),
            },
        };
        let left_out = self.skip_layers.as_deref().map(slice::parse_layers).transpose()?;
        Ok(Slice::new(widths, left_out.unwrap_or_default()))
    }
}

/// The slice that a name, a row of the published list, or a file with one such row means.
///
/// # Errors
/// None is meant.
pub fn named(text: &str) -> anyhow::Result<Slice> {
    match Slice::parse(text) {
        Err(ParseError::Name(_)) if Path::new(text).is_file() => {
            let list = super::input::read_text(text.as_ref())?;
            Slice::parse_file(&list).map_err(|error| anyhow!("{text}: {error}"))
        }
        Err(error @ ParseError::Name(_)) => Err(error).hint(|| {
            let names: Vec<_> = CONFIGURATIONS.iter().map(|c| c.name).collect();
            format!("slices are {}; or a file with a row of the published list", names.join(", "))
        }),
        result => Ok(result?),
    }
}

/// Runs the command.
///
/// # Errors
/// A slice that does not fit the model, or a file that can't be written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let (Some(input), Some(target)) = (&args.input, &args.output) else {
        list(output)?;
        return Ok(Status::Done);
    };
    let slice = args.slice()?;
    let gguf = Arc::new(Gguf::open(input)?);
    let plan = files::slice::plan(&gguf, &slice)?;
    let inputs = args.to.iter().map(PathBuf::from).collect();
    let making = Making { plan: &plan, source: &*gguf, target, inputs, split: None };
    args.making.make_all(&[making], output)
}

/// The published slices as a table.
fn list(output: &Output) -> anyhow::Result<()> {
    let mut stdout = output.stdout();
    writeln!(
        stdout,
        "{:<14} {:>6} {:>12} {:>7}  FFN widths",
        "name", "layers", "parameters", "MMLU"
    )?;
    for configuration in &CONFIGURATIONS {
        let widths = configuration.widths();
        let runs = widths.chunk_by(|a, b| a == b).map(|same| match same[0] {
            Some(width) => format!("{width} x {}", same.len()),
            None => format!("{} left out", same.len()),
        });
        writeln!(
            stdout,
            "{:<14} {:>6} {:>10} B {:>5.1} %  {}",
            configuration.name,
            configuration.layers(),
            configuration.parameters,
            configuration.mmlu.parse::<f32>().unwrap_or_default(),
            runs.collect::<Vec<_>>().join(", ")
        )?;
    }
    writeln!(
        stdout,
        "\nParameters (effective, per-layer table not counted) and MMLU as published."
    )?;
    stdout.flush()?;
    Ok(())
}
