//! A Hugging Face checkpoint → plans for the GGUF file of its text model and, in [`towers`], for
//! that of its towers.
//!
//! Types: one-dimensional tensors and AltUp's coefficient matrices are F32, all others what was
//! asked for. Rows of the per-layer table up to the vocabulary's size are zeros, and so are K and V
//! of sharing layers where the checkpoint has none; llama.cpp wants both.

pub(super) mod metadata;
mod sparsity;
pub mod towers;

use std::collections::BTreeMap;

use crate::checkpoint::names::{self, Expected, Owner, Presence};
use crate::checkpoint::{self, Checkpoint, Float};
use crate::gguf::TensorPlan;

use super::error::Error;
use super::plan::{LeftOut, Part, Plan, PlannedTensor, Segment, Stored};
use super::quantize::{self, Preset, Wanted, retype};
use super::source::tensor_type;

/// Plans the conversion; `ty` defaults to [`main_type`].
///
/// # Errors
/// A tensor that is missing, misshapen or of a type that isn't read; a tensor that is no part of
/// the model.
pub fn plan(checkpoint: &Checkpoint, ty: Option<Float>) -> Result<Plan, Error> {
    let ty = ty.unwrap_or_else(|| main_type(checkpoint));
    let mut text = Text { checkpoint, tensors: names::text_tensors(&checkpoint.weights)? };
    let expected = checkpoint.config.expected_tensors();
    let tensors: Vec<_> =
        expected.iter().map(|tensor| text.planned(tensor, ty)).collect::<Result<_, _>>()?;
    let left_out = left_out(checkpoint, text)?;
    let metadata = metadata::metadata(checkpoint, ty, &tensors);
    let notices = notices(checkpoint);
    Ok(Plan { metadata, tensors, left_out, notices })
}

/// Plans the conversion to a mixture of quantized types, in one pass: what takes no part in it
/// keeps the [`main_type`]. Where the checkpoint's types are mixed that is more exact than two
/// passes, of which the first rounds everything to the main type.
///
/// # Errors
/// As [`plan`]; a type that ggml can't write, or not without an importance matrix.
pub fn plan_quantized(checkpoint: &Checkpoint, preset: Preset) -> Result<Plan, Error> {
    let mut plan = plan(checkpoint, None)?;
    let config = &checkpoint.config;
    let model = quantize::Model {
        layers: config.n_layers as usize,
        heads_per_kv: (config.n_heads / config.n_kv_heads) as usize,
        owners: config.n_owners(),
        sparse: config.sparsity.iter().map(|&share| share > 0.0).collect(),
        importance: false,
    };
    retype(&mut plan, &model, &Wanted::new(preset))?;
    Ok(plan)
}

/// The type that most bytes of the text model have: nothing is lost and nothing blown up.
pub fn main_type(checkpoint: &Checkpoint) -> Float {
    let mut bytes = BTreeMap::<Float, u64>::new();
    for (name, stored) in checkpoint.weights.iter() {
        if let (Owner::Text(_), Ok(float)) =
            (names::owner(name), checkpoint.weights.float(name, stored))
        {
            *bytes.entry(float).or_default() += stored.nbytes();
        }
    }
    bytes.into_iter().max_by_key(|&(_, n)| n).map_or(Float::BF16, |(float, _)| float)
}

/// The checkpoint's text tensors that no planned tensor has taken yet.
struct Text<'a> {
    checkpoint: &'a Checkpoint,
    /// Name without prefix → full name.
    tensors: BTreeMap<&'a str, &'a str>,
}

impl Text<'_> {
    fn planned(&mut self, expected: &Expected, ty: Float) -> Result<PlannedTensor, Error> {
        let mut ne = [1; 4];
        ne[..expected.ne.len()].copy_from_slice(&expected.ne);
        let small = expected.ne.len() == 1 || expected.always_f32;
        let target = TensorPlan {
            name: expected.name.clone(),
            ne,
            n_dims: expected.ne.len() as u32,
            ty: tensor_type(if small { Float::F32 } else { ty }),
        };
        Ok(PlannedTensor::new(target, self.segments(expected)?))
    }

    fn segments(&mut self, expected: &Expected) -> Result<Vec<Segment>, Error> {
        let elements: u64 = expected.ne.iter().product();
        let mut shape: Vec<u64> = expected.ne.iter().rev().copied().collect();
        if let Presence::PaddedRows(rows) = expected.presence {
            shape[0] = rows;
        } else if shape.len() > 2 {
            // A stack of matrices, of one only when there are two streams.
            shape.remove(0);
        }
        let mut segments = Vec::new();
        for part in &expected.parts {
            match self.tensors.remove(part.as_str()) {
                Some(name) => segments.push(self.stored(name, &shape)?),
                None if expected.presence == Presence::Unused => {}
                None => return Err(self.checkpoint.weights.missing(part).into()),
            }
        }
        if expected.presence == Presence::Ones {
            return Ok(vec![Segment::Fill { value: 1.0, elements }]);
        }
        let missing = elements - segments.iter().map(Segment::elements).sum::<u64>();
        if missing > 0 {
            segments.push(Segment::Fill { value: 0.0, elements: missing });
        }
        Ok(segments)
    }

    /// A tensor of the checkpoint that must have this shape.
    fn stored(&self, name: &str, shape: &[u64]) -> Result<Segment, Error> {
        let weights = &self.checkpoint.weights;
        let stored = weights.find(name)?;
        if stored.shape != shape {
            return Err(checkpoint::Error::Shape {
                path: weights.path(stored).to_owned(),
                tensor: name.to_owned(),
                expected: shown(shape),
                found: shown(&stored.shape),
            }
            .into());
        }
        let row_len = stored.shape.last().copied().unwrap_or(1);
        Ok(Segment::Stored(Stored {
            name: name.to_owned(),
            ty: tensor_type(weights.float(name, stored)?),
            row_len,
            rows: stored.elements().checked_div(row_len).unwrap_or(0),
            part: Part::All,
        }))
    }
}

/// What stays behind: towers, derived values, a tied head. Anything else is an error.
fn left_out(checkpoint: &Checkpoint, mut text: Text) -> Result<Vec<LeftOut>, Error> {
    let mut left_out = Vec::new();
    let mut leave = |name: &str, reason| left_out.push(LeftOut { name: name.to_owned(), reason });
    if checkpoint.config.tied_embeddings
        && let Some(name) = text.tensors.remove("lm_head.weight")
    {
        leave(name, "the head is tied to the embeddings");
    }
    if let Some((_, name)) = text.tensors.first_key_value() {
        let path = checkpoint.weights.path(checkpoint.weights.find(name)?).to_owned();
        let others = text.tensors.len() - 1;
        let tensor = (*name).to_owned();
        return Err(
            checkpoint::Error::UnknownTensor { path, tensor, model: "text model", others }.into()
        );
    }
    for (name, _) in checkpoint.weights.iter() {
        match names::owner(name) {
            Owner::Text(_) => {}
            Owner::Tower => leave(name, towers::LEFT_OUT),
            Owner::Derived => leave(name, "computed from the configuration"),
        }
    }
    Ok(left_out)
}

fn notices(checkpoint: &Checkpoint) -> Vec<String> {
    let mut notices = Vec::new();
    let tokenizer = &checkpoint.tokenizer;
    if tokenizer.beyond_vocab > 0 {
        notices.push(format!(
            "{} tokens have ids beyond the model's vocabulary of {} and are left out",
            tokenizer.beyond_vocab, checkpoint.config.vocab_size
        ));
    }
    if tokenizer.templates.is_empty() {
        notices.push("the checkpoint has no chat template".to_owned());
    }
    notices
}

fn shown(shape: &[u64]) -> String {
    let sizes: Vec<_> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
