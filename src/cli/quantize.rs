//! `gemma3n quantize`: a GGUF file → one with other types.

use std::path::PathBuf;

use anyhow::anyhow;
use regex::Regex;

use super::Status;
use super::making::{Making, MakingOptions};
use super::output::{Hint, Output, hinted};
use crate::files::quantize::{self, Importance, Options, Preset, Wanted};
use crate::files::{Error, ImportanceMatrix};
use crate::gguf::{Gguf, TensorType};

const EXAMPLES: &str = "\
Examples:
  gemma3n quantize e2b-F16.gguf e2b-Q4_K_M.gguf Q4_K_M
  gemma3n quantize e2b-F16.gguf e2b.gguf Q4_0-nm              the fastest here
  gemma3n quantize e2b-F16.gguf e2b.gguf IQ2_M --imatrix e2b.imatrix.gguf
  gemma3n quantize e2b-F16.gguf e2b.gguf Q4_K_M --tensor 'blk\\.0\\.=Q8_0' --tensor per_layer_token=Q8_0
  gemma3n quantize mmproj-F16.gguf mmproj-Q8_0.gguf Q8_0

Standard types choose for each tensor as llama-quantize does, with the same bytes:
  F32 F16 BF16
  Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0
  Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS MXFP4_MOE
  Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S
  Q2_K Q2_0 TQ2_0 TQ1_0 Q1_0
  with --imatrix only: IQ3_XS IQ3_XXS Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S
Our own, made of each quantized one:
  …-small8  the small matrices (AltUp, LAuReL, per-layer projection) at Q8_0 instead of F16, so
            that fewer bytes are read for each token; the per-layer table at Q8_0, which costs
            disk but neither memory nor time. Loads everywhere.
  …-nm      in addition ffn_down of the sparse layers with a row a neuron, so that the neurons
            that are off are not read. Loads here only. From F32, F16 or BF16.

Quantizing what is quantized already loses more than its type does, so it is refused without
--allow-requantize. OUT appears when it is complete. Ctrl-C, an error or a full disk leave nothing; after kill -9 a
hidden .OUT.….part may be left.";

/// Quantize a GGUF file: fewer bits for each weight
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file to read, of a text model or of towers; of a split file, the first part
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT")]
    target: PathBuf,
    /// The type, such as Q4_K_M; all are listed below
    #[arg(value_name = "TYPE")]
    ty: String,
    /// Statistics of activations, as `imatrix` makes them: precision goes where it matters
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// A type for tensors whose names the pattern is found in; the first that fits wins
    #[arg(long = "tensor", visible_alias = "tensor-type", value_name = "REGEX=TYPE",
          value_parser = tensor_override)]
    tensors: Vec<(Regex, TensorType)>,
    /// A type for the head: output.weight, or the token tables where they serve as the head
    #[arg(long, value_name = "TYPE", value_parser = tensor_type)]
    output_tensor_type: Option<TensorType>,
    /// A type for the token table and the per-layer table
    #[arg(long, value_name = "TYPE", value_parser = tensor_type)]
    token_embedding_type: Option<TensorType>,
    /// One type for all tensors that may change, no mixture
    #[arg(long)]
    pure: bool,
    /// Quantize again what is quantized already, although that loses more
    #[arg(long)]
    allow_requantize: bool,
    #[command(flatten)]
    making: MakingOptions,
}

/// Runs the command.
///
/// # Errors
/// An input that is no Gemma 3n file or can't be quantized as asked, or a file that can't be
/// written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let preset = args.preset()?;
    let source = Gguf::open(&args.input)?;
    let importance = args.imatrix.as_ref().map(|path| {
        let matrix = ImportanceMatrix::open(path)?;
        anyhow::Ok(Importance { path: path.clone(), matrix })
    });
    let options = Options {
        wanted: Wanted {
            patterns: args.tensors.clone(),
            output: args.output_tensor_type,
            embedding: args.token_embedding_type,
            pure: args.pure,
            ..Wanted::new(preset)
        },
        requantize: args.allow_requantize,
        importance: importance.transpose()?,
    };
    let plan = quantize::plan(&source, &options).map_err(|error| with_hint(error, args))?;
    let inputs = args.imatrix.iter().cloned().collect();
    let (target, split) = (&args.target, None);
    let making = Making { plan: &plan, source: &source, target, inputs, split };
    args.making.make_all(&[making], output)
}

impl Args {
    fn preset(&self) -> anyhow::Result<Preset> {
        let unknown = || anyhow!("{} is not a type", self.ty);
        let typed_before = self.target.to_str().filter(|name| Preset::from_name(name).is_some());
        match (Preset::from_name(&self.ty), typed_before) {
            (Some(preset), _) => Ok(preset),
            (None, Some(ty)) => Err(unknown())
                .hint(|| format!("the type comes last: {} {} {ty}", self.input.display(), self.ty)),
            (None, None) => Err(unknown()).hint(|| format!("known are {}", Preset::names())),
        }
    }
}

fn with_hint(error: Error, args: &Args) -> anyhow::Error {
    match &error {
        Error::Requantize { .. } => {
            let hint = "quantize from the F16 or BF16 file, or --allow-requantize";
            hinted(error, hint.to_owned())
        }
        Error::NeedsImportance { .. } if args.imatrix.is_none() => {
            let input = args.input.display();
            hinted(
                error,
                format!("gemma3n imatrix -m {input} -f TEXT -o FILE makes one, for --imatrix FILE"),
            )
        }
        Error::NeedsImportance { tensor, .. } => {
            let hint = format!("--tensor '{tensor}=Q4_K' gives it a type that needs none");
            hinted(error, hint)
        }
        _ => error.into(),
    }
}

fn tensor_type(name: &str) -> Result<TensorType, String> {
    match TensorType::from_name(name) {
        Some(ty) if quantize::is_writable(ty) => Ok(ty),
        _ => {
            let known = TensorType::ALL.iter().filter(|ty| quantize::is_writable(**ty));
            let names: Vec<_> = known.map(|ty| ty.name()).collect();
            Err(format!("known are {}", names.join(", ")))
        }
    }
}

fn tensor_override(text: &str) -> Result<(Regex, TensorType), String> {
    let (pattern, ty) = text.rsplit_once('=').ok_or("expected REGEX=TYPE")?;
    if pattern.is_empty() {
        return Err("expected REGEX=TYPE".to_owned());
    }
    // The crate's messages have several lines.
    let pattern = Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim().to_owned()
    })?;
    Ok((pattern, tensor_type(ty)?))
}
