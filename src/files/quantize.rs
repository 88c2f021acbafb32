//! A GGUF file → a plan for one with other types.

pub mod choice;
mod preset;
mod rules;

pub use choice::{Candidate, Choice, Model, Reason, Wanted, choose};
pub use preset::{Family, Preset, Standard};
