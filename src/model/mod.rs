//! Gemma 3n: the graph written by hand, one file a mechanism.
//!
//! - [`config`]: sizes and constants from a file's metadata.
//! - [`slice`]: a smaller model inside a bigger one; [`matformer`]: the published ones.
//! - [`text`]: the language model.

pub mod config;
pub mod error;
pub mod matformer;
pub mod slice;
pub mod text;

pub use error::{OpenError, StepError};
