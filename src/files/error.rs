//! Why a file can't be made.

use std::io;
use std::path::PathBuf;

use crate::{checkpoint, gguf};

/// Names the file and, inside it, the tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),

    #[error(transparent)]
    Gguf(#[from] gguf::Error),

    #[error("tensor {tensor}: {fault}")]
    Plan { tensor: String, fault: gguf::Fault },

    #[error("tensor {tensor}: {expected} elements planned, its sources have {found}")]
    Elements { tensor: String, expected: u64, found: u64 },

    #[error("{}: tensor {tensor}: {source}", path.display())]
    Read { path: PathBuf, tensor: String, source: io::Error },

    #[error("{}: tensor {tensor}: element {index} is {value}", path.display())]
    NotFinite { path: PathBuf, tensor: String, index: u64, value: f32 },

    #[error(
        "{}: tensor {tensor}: element {index} is {value:e}, beyond what F16 holds (65504)",
        path.display()
    )]
    BeyondF16 { path: PathBuf, tensor: String, index: u64, value: f32 },

    #[error("{}: is a part of the checkpoint that it would be made from", path.display())]
    OverInput { path: PathBuf },

    #[error("interrupted")]
    Interrupted,
}
