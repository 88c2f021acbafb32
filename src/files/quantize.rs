//! A GGUF file → a plan for one with other types.
//!
//! Metadata stay, but for what describes the old file: `general.file_type`,
//! `general.quantization_version`, `split.*`. Facts: gguf.md 5; reference: llama-quant.cpp.

pub mod choice;
mod notices;
mod preset;
mod retype;
mod rules;
mod shares;

use std::path::PathBuf;

pub use choice::{Candidate, Choice, Model, Reason, Wanted, choose};
pub use preset::{Family, Preset, Standard};
pub use retype::retype;
pub use shares::{Share, shares};

use choice::{needs_importance, transposed_name};

use super::error::Error;
use super::imatrix::ImportanceMatrix;
use super::plan::{Part, Plan, PlannedTensor, Segment, Stored};
use crate::ggml::{self, Type};
use crate::gguf::{Gguf, Layout, Tensor, TensorPlan, TensorType};
use crate::model::config::{LAYOUT, NEURON_MAJOR, TextConfig};

/// The version of the quantized types, the same since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// How a file is to be quantized.
#[derive(Debug)]
pub struct Options {
    pub wanted: Wanted,
    /// May tensors that are quantized already be quantized again?
    pub requantize: bool,
    pub importance: Option<Importance>,
}

/// An importance matrix and where it was read.
#[derive(Debug)]
pub struct Importance {
    pub path: PathBuf,
    pub matrix: ImportanceMatrix,
}

/// Whether ggml can write the type.
pub fn is_writable(ty: TensorType) -> bool {
    Type::weight_from_id(ty.id()).is_some_and(ggml::has_quantizer)
}

/// Whether a tensor can be made as it was chosen.
///
/// # Errors
/// ggml can't write the type, or not without the importance matrix that is not there.
fn check(
    standard: Standard,
    name: &str,
    choice: &Choice,
    has_importance: bool,
) -> Result<(), Error> {
    let (tensor, ty) = (name.to_owned(), choice.ty);
    if !has_importance && needs_importance(standard, name, choice) {
        return Err(Error::NeedsImportance { tensor, ty });
    }
    if !is_writable(ty) {
        return Err(Error::NotWritable { tensor, ty });
    }
    Ok(())
}

/// Whether a tensor that is to be transposed is one matrix.
///
/// # Errors
/// It is a stack of them.
fn check_matrix(name: &str, ne: [u64; 4]) -> Result<(), Error> {
    if ne[2..] == [1, 1] {
        return Ok(());
    }
    let [a, b, c, d] = ne;
    let found = format!("{a} x {b} x {c} x {d}");
    Err(Error::NotAMatrix { tensor: name.to_owned(), found })
}

/// Plans the quantization of a text model or of towers.
///
/// # Errors
/// The file is neither; a tensor is quantized already; an importance matrix is needed and not
/// there, or doesn't fit.
pub fn plan(source: &Gguf, options: &Options) -> Result<Plan, Error> {
    let model = model(source, options)?;
    let planner = Planner { source, options, model };
    let candidates: Vec<_> = source
        .tensors()
        .iter()
        .map(|tensor| Candidate { name: &tensor.name, ne: tensor.ne, ty: tensor.ty })
        .collect();
    let choices = choose(&options.wanted, &planner.model, &candidates);
    let tensors: Vec<_> = source
        .tensors()
        .iter()
        .zip(&choices)
        .map(|(tensor, choice)| planner.planned(tensor, choice))
        .collect::<Result<_, _>>()?;
    let metadata = planner.metadata(&choices);
    let mut notices = notices::of(&options.wanted, &candidates, &choices);
    let unused = tensors.iter().all(|tensor: &PlannedTensor| tensor.importance.is_none());
    if options.importance.is_some() && unused {
        notices.push("the importance matrix is for none of the tensors".to_owned());
    }
    Ok(Plan { metadata, tensors, left_out: Vec::new(), notices })
}

fn model(source: &Gguf, options: &Options) -> Result<Model, Error> {
    let preset = options.wanted.preset;
    let mut model = match source.metadata().str("general.architecture")? {
        Some("gemma3n") => Model::of_text(&TextConfig::read(source)?),
        Some("clip") if preset.family == Family::Standard => Model::default(),
        Some("clip") => return Err(Error::TextOnly { preset: preset.to_string() }),
        found => {
            let found = found.unwrap_or("missing").to_owned();
            return Err(Error::Architecture { path: source.path().to_owned(), found });
        }
    };
    model.importance = options.importance.is_some();
    Ok(model)
}

struct Planner<'a> {
    source: &'a Gguf,
    options: &'a Options,
    model: Model,
}

impl Planner<'_> {
    fn planned(&self, tensor: &Tensor, choice: &Choice) -> Result<PlannedTensor, Error> {
        let changes = choice.transposed || choice.ty != tensor.ty;
        if changes && tensor.ty.is_quantized() && !self.options.requantize {
            return Err(Error::Requantize {
                path: self.source.path().to_owned(),
                tensor: tensor.name.clone(),
                from: tensor.ty,
                to: choice.ty,
            });
        }
        let mut target = TensorPlan {
            name: tensor.name.clone(),
            ne: tensor.ne,
            n_dims: tensor.n_dims,
            ty: choice.ty,
        };
        if choice.transposed {
            check_matrix(&tensor.name, tensor.ne)?;
            target.name = transposed_name(&tensor.name);
            target.ne.swap(0, 1);
        }
        let row_len = tensor.ne[0];
        let stored = Stored {
            name: tensor.name.clone(),
            ty: tensor.ty,
            row_len,
            rows: tensor.n_elements().checked_div(row_len).unwrap_or(0),
            part: if choice.transposed { Part::Transposed } else { Part::All },
        };
        let mut planned = PlannedTensor::new(target, vec![Segment::Stored(stored)]);
        if changes {
            let weights =
                if choice.ty.is_quantized() { self.weights(tensor, choice)? } else { None };
            let standard = self.options.wanted.preset.standard;
            check(standard, &tensor.name, choice, weights.is_some())?;
            planned.importance = weights.map(Into::into);
        }
        Ok(planned)
    }

    /// How much each column matters, where that is known and of use: columns of a neuron-major
    /// matrix are not its inputs, and stacks are never made in types that would use it.
    fn weights(&self, tensor: &Tensor, choice: &Choice) -> Result<Option<Vec<f32>>, Error> {
        let name = &tensor.name;
        let is_table = name.ends_with("token_embd.weight");
        let (expected, matrices) = (tensor.ne[0], tensor.ne[2].saturating_mul(tensor.ne[3]));
        let mut weights = None;
        if let Some(Importance { path, matrix }) = &self.options.importance
            && !choice.is_neuron_major(name)
        {
            weights = matrix.weights(name);
            let found = weights.as_ref().map_or(0, |weights| weights.len() as u64);
            let fits = expected.checked_mul(matrices) == Some(found);
            if weights.is_some() && !fits && !is_table {
                let (path, tensor) = (path.clone(), name.clone());
                return Err(Error::ImportanceLength { path, tensor, expected, found });
            }
            weights = weights.filter(|_| fits && matrices == 1);
        }
        if weights.is_none()
            && self.options.importance.is_some()
            && self.model.is_unused(name)
            && needs_importance(self.options.wanted.preset.standard, name, choice)
        {
            weights = Some(vec![1.0; expected as usize]);
        }
        Ok(weights)
    }

    fn metadata(&self, choices: &[Choice]) -> Vec<(String, crate::gguf::OwnedValue)> {
        let preset = self.options.wanted.preset;
        let mut layout = Layout::new();
        layout.copy_metadata(self.source.metadata());
        layout.set("general.file_type", preset.standard.file_type());
        layout.set("general.quantization_version", QUANTIZATION_VERSION);
        if choices.iter().any(|choice| choice.transposed) {
            layout.set(LAYOUT, NEURON_MAJOR);
        }
        if let Some(Importance { path, matrix }) = &self.options.importance {
            let prefix = "quantize.imatrix";
            layout.set(&format!("{prefix}.file"), path.to_string_lossy().into_owned());
            if let Some(dataset) = matrix.datasets.first() {
                layout.set(&format!("{prefix}.dataset"), dataset.as_str());
            }
            layout.set(&format!("{prefix}.entries_count"), matrix.entries.len() as u32);
            if matrix.chunk_count > 0 {
                layout.set(&format!("{prefix}.chunks_count"), matrix.chunk_count);
            }
        }
        layout.metadata
    }
}
