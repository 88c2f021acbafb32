//! The towers for pictures and sound: the tensors they consist of, by their names in GGUF.
//!
//! - [`vision`]: MobileNetV5, whose blocks are told by their tensors.
//! - [`audio`]: the conformer, whose sizes the configuration gives.
//! - [`names`]: names in a checkpoint ↔ names in GGUF.
//! - [`config`]: `config.json` and the processor's file → sizes and constants.
//!
//! A tower's table of [`Expected`] tensors is held against what a file has by [`check`], whether
//! the file is a checkpoint or a GGUF: every tensor is there, has its shape, and is known.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;

pub mod audio;
pub mod config;
pub mod names;
pub mod vision;

pub use audio::AudioTower;
pub use config::{AudioConfig, VisionConfig};
pub use vision::VisionTower;

/// A tensor that a tower consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Name in GGUF.
    pub name: String,
    /// Shape in ggml's order, as it is written: gammas are `[1, 1, C, 1]`.
    pub ne: Vec<u64>,
    /// Kept in F32 whatever the file's type.
    pub always_f32: bool,
    /// Absent in some checkpoints; stands for zeros then.
    pub optional: bool,
}

impl Expected {
    fn new(name: String, ne: &[u64]) -> Self {
        let always_f32 = ne.len() == 1;
        Self { name, ne: ne.to_vec(), always_f32, optional: false }
    }

    fn f32(self) -> Self {
        Self { always_f32: true, ..self }
    }

    /// Whether a stored shape is this one. Ones at the end don't count; for a vector no ones do
    /// (`[C]` is `[1, 1, C, 1]`), nor for a depthwise kernel over time (`[5, d]` is `[5, 1, d]`).
    fn fits(&self, ne: &[u64]) -> bool {
        let long = |ne: &[u64]| ne.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
        let expected = long(&self.ne);
        if expected.len() <= 1 || self.ne.len() == 3 {
            return expected == long(ne);
        }
        let trimmed = |ne: &[u64]| ne.iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
        self.ne[..trimmed(&self.ne)] == ne[..trimmed(ne)]
    }

    /// The shape as an error shows it: in one dimension where that is how the vector was found.
    fn shown_for(&self, found: &[u64]) -> Ne {
        let vector = self.ne.iter().filter(|&&n| n != 1).count() <= 1;
        if vector && found.len() == 1 {
            return Ne(vec![self.ne.iter().copied().max().unwrap_or(1)]);
        }
        Ne(self.ne.clone())
    }
}

/// What ties a tower of this width to a text model of width `text`, by one prefix of names.
fn embedder(prefix: &str, width: u64, text: u64, vocab: u64) -> [Expected; 4] {
    let tensor = |name: &str, ne: &[u64]| Expected::new(format!("{prefix}.{name}.weight"), ne);
    [
        tensor("embedding", &[width, vocab]),
        tensor("input_projection", &[width, text]),
        tensor("hard_emb_norm", &[width]),
        tensor("soft_emb_norm", &[width]),
    ]
}

/// The tensors that a file has of a tower: GGUF name → shape in ggml's order.
#[derive(Clone, Debug, Default)]
pub struct Tensors(BTreeMap<String, Vec<u64>>);

impl FromIterator<(String, Vec<u64>)> for Tensors {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u64>)>>(tensors: T) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl Tensors {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a tensor's name begins so.
    fn any(&self, prefix: &str) -> bool {
        let mut from = self.0.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// A size of a tensor, which the tower takes over; 1 in dimensions that the tensor hasn't.
    fn size(&self, name: &str, dimension: usize) -> Result<u64, Fault> {
        match self.0.get(name) {
            None => Err(Fault::Missing { name: name.to_owned() }),
            Some(ne) => Ok(ne.get(dimension).copied().unwrap_or(1)),
        }
    }
}

/// A shape in messages: `3 x 3 x 64 x 256`, fastest dimension first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ne(pub Vec<u64>);

impl fmt::Display for Ne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&sizes.join(" x "))
    }
}

/// What is wrong with a tower's tensors, by names in GGUF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("tensor {name}: missing")]
    Missing { name: String },
    #[error("tensor {name}: expected {expected}, found {found}")]
    Shape { name: String, expected: Ne, found: Ne },
    #[error("tensor {name}: its size {size} is no multiple of {of}")]
    Multiple { name: String, size: u64, of: u64 },
    #[error("tensor {name}: no part of the tower")]
    Unknown { name: String, others: usize },
}

/// Holds a tower's table against what the file has.
///
/// # Errors
/// The first tensor of the table that is missing or misshapen; else the first one that the table
/// doesn't have.
pub fn check(expected: &[Expected], found: &Tensors) -> Result<(), Fault> {
    let mut table = HashMap::new();
    for tensor in expected {
        table.insert(tensor.name.as_str(), tensor);
        match found.0.get(&tensor.name) {
            None if tensor.optional => {}
            None => return Err(Fault::Missing { name: tensor.name.clone() }),
            Some(ne) if tensor.fits(ne) => {}
            Some(ne) => {
                return Err(Fault::Shape {
                    name: tensor.name.clone(),
                    expected: tensor.shown_for(ne),
                    found: Ne(ne.clone()),
                });
            }
        }
    }
    let mut unknown = found.names().filter(|name| !table.contains_key(name));
    match unknown.next() {
        None => Ok(()),
        Some(name) => Err(Fault::Unknown { name: name.to_owned(), others: unknown.count() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fit_whatever_ones_they_are_written_with() {
        let gamma = Expected::new("gamma".into(), &[1, 1, 640, 1]);
        for ne in [&[640][..], &[1, 1, 640], &[1, 1, 640, 1]] {
            assert!(gamma.fits(ne), "{ne:?}");
        }
        assert!(!gamma.fits(&[641]) && !gamma.fits(&[640, 2]));
        let depthwise = Expected::new("conv_dw".into(), &[5, 1, 1536]);
        assert!(depthwise.fits(&[5, 1536]) && !depthwise.fits(&[1536, 5]));
        let kernel = Expected::new("conv".into(), &[3, 3, 1, 16]);
        assert!(kernel.fits(&[3, 3, 1, 16]) && !kernel.fits(&[3, 3, 16]));
    }
}
