//! One file to another. Every command makes a [`plan`], which is data; [`execute`] carries it out.
//!
//! - [`plan`]: output tensors (name, shape, type, source, transformation) and metadata.
//! - [`execute`]: the one streaming executor.
//! - [`source`]: where tensors are read from.
//! - [`convert`]: a Hugging Face checkpoint → a plan.
//! - [`quantize`]: a GGUF file → one with other types; which tensor gets which.
//! - [`imatrix`]: statistics of activations, and their files.
//! - [`slice`]: a smaller model inside a bigger one → a plan.

pub mod convert;
mod error;
pub mod execute;
pub mod imatrix;
pub mod plan;
pub mod quantize;
pub mod slice;
pub mod source;

pub use error::Error;
pub use imatrix::ImportanceMatrix;
pub use plan::Plan;
