//! What the towers' tests share: a checkpoint's towers as a file, values of archives, errors.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::npz::{Array, Values};
use gemma3n::checkpoint::Checkpoint;
use gemma3n::files::{convert, execute};
use gemma3n::gguf::{Gguf, TensorType};

pub const TOLERANCE: f32 = 1e-4;
/// The oracle's width of the text model.
pub const EMBEDDING: usize = 128;

/// The towers of a checkpoint, in F32.
pub fn converted_towers(checkpoint: &Path, folder: &Path) -> Arc<Gguf> {
    let target = folder.join("mmproj.gguf");
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let plan = convert::towers::plan(&checkpoint, TensorType::F32).unwrap().unwrap();
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    execute::execute(&plan, &checkpoint.weights, &target, true, &mut go_on).unwrap();
    Arc::new(Gguf::open(&target).unwrap())
}

pub fn floats(array: &Array) -> &[f32] {
    match &array.values {
        Values::F32(values) => values,
        other => panic!("{}: {other:?}", array.name),
    }
}

/// `max|a − b| / max|b|`
pub fn relative(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let greatest = theirs.iter().fold(0f32, |m, b| m.max(b.abs()));
    let difference = ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(ours.iter().all(|value| value.is_finite()));
    difference / greatest
}
