//! A plan whose tensors are floats → the same with the types of a preset: a checkpoint is
//! converted and quantized in one pass.
//!
//! The bytes are those of two passes where the checkpoint's matrices have one type. Of mixed types
//! the first of two passes would round some to the main type; one pass takes them as they are.

use super::choice::{Candidate, Model, Wanted, choose, transposed_name};
use super::{QUANTIZATION_VERSION, check, check_matrix, notices};
use crate::files::error::Error;
use crate::files::plan::{Part, Plan, Segment, Stored};
use crate::gguf::OwnedValue;
use crate::model::config::{LAYOUT, NEURON_MAJOR};

/// Gives each tensor the type that [`choose`] gives it, and the plan the notices.
///
/// # Errors
/// A type that ggml can't write, or not without an importance matrix; a tensor to be transposed
/// that is not one whole matrix.
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
    let notices = notices::of(wanted, &candidates, &choices);
    plan.notices.extend(notices);
    for (tensor, choice) in plan.tensors.iter_mut().zip(&choices) {
        let target = &mut tensor.target;
        if choice.ty != target.ty {
            check(wanted.preset.standard, &target.name, choice, false)?;
        }
        target.ty = choice.ty;
        if choice.transposed {
            check_matrix(&target.name, target.ne)?;
            match &mut tensor.segments[..] {
                [Segment::Stored(Stored { part: part @ Part::All, .. })] => {
                    *part = Part::Transposed;
                }
                _ => {
                    let (tensor, found) = (target.name.clone(), "parts of one".to_owned());
                    return Err(Error::NotAMatrix { tensor, found });
                }
            }
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
