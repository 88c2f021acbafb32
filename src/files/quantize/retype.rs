//! A plan whose tensors are floats → the same with the types of a preset: a checkpoint is
//! converted and quantized in one pass, with the bytes that two passes give.

use super::choice::{Candidate, Model, Wanted, choose, transposed_name};
use super::{QUANTIZATION_VERSION, check};
use crate::files::error::Error;
use crate::files::plan::{Part, Plan, Segment, Stored};
use crate::gguf::OwnedValue;
use crate::model::config::{LAYOUT, NEURON_MAJOR};

/// Gives each tensor the type that [`choose`] gives it.
///
/// # Errors
/// A type that ggml can't write, or not without an importance matrix.
pub fn retype(plan: &mut Plan, model: &Model, wanted: &Wanted) -> Result<(), Error> {
    let candidates: Vec<_> = plan
        .tensors
        .iter()
        .map(|tensor| Candidate {
            name: &tensor.target.name,
            ne: tensor.target.ne,
            ty: tensor.target.ty,
        })
        .collect();
    let choices = choose(wanted, model, &candidates);
    for (tensor, choice) in plan.tensors.iter_mut().zip(&choices) {
        let target = &mut tensor.target;
        if choice.ty != target.ty {
            check(wanted.preset.standard, &target.name, choice, false)?;
        }
        target.ty = choice.ty;
        if let (true, [Segment::Stored(Stored { part, .. })]) =
            (choice.transposed, &mut tensor.segments[..])
        {
            *part = Part::Transposed;
            target.name = transposed_name(&target.name);
            target.ne.swap(0, 1);
        }
    }
    set(plan, "general.file_type", wanted.preset.standard.file_type());
    set(plan, "general.quantization_version", QUANTIZATION_VERSION);
    if choices.iter().any(|choice| choice.transposed) {
        set(plan, LAYOUT, NEURON_MAJOR);
    }
    Ok(())
}

/// Sets a key in its place, or after all others.
fn set(plan: &mut Plan, key: &str, value: u32) {
    match plan.metadata.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = OwnedValue::U32(value),
        None => plan.metadata.push((key.to_owned(), OwnedValue::U32(value))),
    }
}
