//! `gemma3n convert`: a Hugging Face checkpoint directory → GGUF files, of the text model and of
//! its towers.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;

use super::Status;
use super::making::{Making, MakingOptions};
use super::output::{Hint, Output};
use crate::checkpoint::names::{self, Owner};
use crate::checkpoint::{Checkpoint, Float};
use crate::files::quantize::{Preset, Standard};
use crate::files::{Error, Plan, convert};
use crate::gguf::TensorType;

const EXAMPLES: &str = "\
Examples:
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf            in the checkpoint's own type
  gemma3n convert ./gemma-3n-E2B-it -o e2b-Q4_K_M.gguf --type Q4_K_M
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf --mmproj none   the text model alone
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf --split-max-size 2G
  gemma3n convert ./gemma-3n-E2B-it -o e2b.gguf --dry-run  only list what would be written

DIR is as transformers 4.53 or newer saves it: config.json, *.safetensors,
tokenizer.json or tokenizer.model, and the small files beside them. The towers
for pictures and sound, where the checkpoint has them, go into a file of their
own, mmproj-NAME-F16.gguf beside NAME.gguf.";

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
    /// F32, F16, BF16, or a quantized type or mixture as `quantize` has them, Q4_K_M for one
    /// [default: what most of the checkpoint's text model has]
    #[arg(long = "type", value_name = "TYPE", value_parser = preset)]
    ty: Option<Preset>,
    /// Where the towers go: a file, `auto` (beside the output, if there are towers), or `none`
    #[arg(long, value_name = "FILE", default_value = "auto")]
    mmproj: PathBuf,
    /// Element type of the towers' matrices and kernels
    #[arg(long, value_enum, ignore_case = true, value_name = "TYPE", default_value = "f16")]
    mmproj_type: TowerType,
    /// Split the text model into files with at most so many bytes of tensors: 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    split_max_size: Option<u64>,
    #[command(flatten)]
    making: MakingOptions,
}

/// Types that towers are used in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TowerType {
    F32,
    F16,
    BF16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<TowerType> for TensorType {
    fn from(ty: TowerType) -> Self {
        match ty {
            TowerType::F32 => Self::F32,
            TowerType::F16 => Self::F16,
            TowerType::BF16 => Self::BF16,
            TowerType::Q8_0 => Self::Q8_0,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A checkpoint that is incomplete or contradicts itself, or a file that can't be written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let mut text = text(args, &checkpoint)?;
    let towers = towers(args, &checkpoint, &mut text)?;
    let source = &checkpoint.weights;
    let making = |plan, target, split| {
        let inputs = checkpoint.small_files().collect();
        Making { plan, source, target, inputs, split }
    };
    let mut makings = vec![making(&text, &args.output, args.split_max_size)];
    if let Some((plan, target)) = &towers {
        // The towers are the same for every type of the text model.
        if args.mmproj.to_str() == Some("auto") && target.is_file() && !args.making.force {
            output.notice(format_args!("{}: is there and stays as it is", target.display()));
        } else {
            makings.push(making(plan, target, None));
        }
    }
    args.making.make_all(&makings, output)
}

/// The text model's plan, in floats or quantized at once.
fn text(args: &Args, checkpoint: &Checkpoint) -> anyhow::Result<Plan> {
    let plan = match args.ty.map(|preset| (preset, float(preset))) {
        None => convert::plan(checkpoint, None),
        Some((_, Some(float))) => convert::plan(checkpoint, Some(float)),
        Some((preset, None)) => convert::plan_quantized(checkpoint, preset),
    };
    match plan {
        Err(error @ Error::NeedsImportance { .. }) => Err(error).hint(|| {
            "convert to BF16, make a matrix with `gemma3n imatrix`, then `gemma3n quantize \
             --imatrix`"
                .to_owned()
        }),
        plan => Ok(plan?),
    }
}

/// The element type of a preset that quantizes nothing.
fn float(preset: Preset) -> Option<Float> {
    match preset.standard {
        Standard::F32 => Some(Float::F32),
        Standard::F16 => Some(Float::F16),
        Standard::BF16 => Some(Float::BF16),
        _ => None,
    }
}

fn preset(name: &str) -> Result<Preset, String> {
    Preset::from_name(name).ok_or_else(|| format!("known are {}", Preset::names()))
}

/// The plan for the towers and its target, where they are wanted and there are any. What goes
/// there is no longer left out of the text model's plan, nor the other way round.
fn towers(
    args: &Args,
    checkpoint: &Checkpoint,
    text: &mut Plan,
) -> anyhow::Result<Option<(Plan, PathBuf)>> {
    let of_towers = |name: &str| names::owner(name) == Owner::Tower;
    let wanted = args.mmproj.to_str();
    if wanted == Some("none") {
        let count = text.left_out.iter().filter(|left| of_towers(&left.name)).count();
        if count > 0 {
            text.notices.push(format!(
                "{count} tensors of the towers for pictures and sound are left out (--mmproj none)"
            ));
        }
        return Ok(None);
    }
    let ty = TensorType::from(args.mmproj_type);
    let Some(plan) = convert::towers::plan(checkpoint, ty)? else {
        return match wanted {
            Some("auto") => Ok(None),
            _ => Err(anyhow!("{}: has no towers", args.checkpoint.display()))
                .hint(|| "without --mmproj the text model is converted".to_owned()),
        };
    };
    text.left_out.retain(|left| !of_towers(&left.name));
    let target = match wanted {
        Some("auto") => beside(&args.output, ty),
        _ => args.mmproj.clone(),
    };
    Ok(Some((plan, target)))
}

/// `DIR/mmproj-NAME-F16.gguf` for `DIR/NAME.gguf`, and for `DIR/NAME-TYPE.gguf` where that is the
/// name of a type: it's the text model's.
fn beside(output: &Path, ty: TensorType) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Families of our own have a dash in their names.
    let dashes = stem.match_indices('-').map(|(at, _)| at);
    let name = dashes.filter(|&at| at > 0 && is_type(&stem[at + 1..])).map(|at| &stem[..at]).next();
    let name = name.unwrap_or(&stem);
    output.with_file_name(format!("mmproj-{name}-{ty}.gguf"))
}

/// Whether a word is a type or preset as they stand in file names: F16, BF16, Q4_K_M, IQ2_XXS.
fn is_type(word: &str) -> bool {
    Preset::from_name(word).is_some()
}

/// A number of bytes, with `K`, `M` or `G` for powers of 1000, as in llama.cpp's tools.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let (digits, unit) = match upper.char_indices().next_back() {
        Some((at, 'K')) => (&upper[..at], 1000),
        Some((at, 'M')) => (&upper[..at], 1_000_000),
        Some((at, 'G')) => (&upper[..at], 1_000_000_000),
        _ => (&upper[..], 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "expected a size such as 500M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_towers_file_is_called_after_the_model() {
        for (output, expected) in [
            ("a/e2b.gguf", "a/mmproj-e2b-F16.gguf"),
            ("e2b-Q4_K_M.gguf", "mmproj-e2b-F16.gguf"),
            ("gemma-3n-E2B-it-bf16.gguf", "mmproj-gemma-3n-E2B-it-F16.gguf"),
            ("e2b-Q4_0-small8.gguf", "mmproj-e2b-F16.gguf"),
            ("gemma-3n-E2B-it.gguf", "mmproj-gemma-3n-E2B-it-F16.gguf"),
            ("q8_0.gguf", "mmproj-q8_0-F16.gguf"),
        ] {
            assert_eq!(beside(Path::new(output), TensorType::F16), Path::new(expected));
        }
    }

    #[test]
    fn sizes_are_read_as_llama_cpp_reads_them() {
        assert_eq!(size("300"), Ok(300));
        assert_eq!(size("500M"), Ok(500_000_000));
        assert_eq!(size("2g"), Ok(2_000_000_000));
        for bad in ["", "0", "G", "-1", "2T", "1.5G", "99999999999999999999", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
