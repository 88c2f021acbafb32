//! Gemma 3n: the graph written by hand, one file a mechanism.
//!
//! - [`config`]: sizes and constants from a file's metadata.
//! - [`text`]: the language model.

pub mod config;
pub mod error;
pub mod text;

pub use error::{OpenError, StepError};
