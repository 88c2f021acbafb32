//! Gemma 3n: the graph written by hand, one file a mechanism.
//!
//! - [`config`]: sizes and constants from a file's metadata.
//! - [`scope`]: what each mechanism sees while a graph is written.
//! - [`slice`]: a smaller model inside a bigger one; [`matformer`]: the published ones.
//! - [`text`]: the language model. [`vision`], [`audio`]: the towers for pictures and sounds;
//!   [`tower`]: what they have in common.

pub mod audio;
pub mod config;
pub mod error;
mod gelu;
pub mod matformer;
pub mod scope;
pub mod slice;
pub mod text;
pub mod tower;
pub mod vision;

pub use error::{Fault, OpenError, StepError};
