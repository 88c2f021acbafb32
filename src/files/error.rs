//! Why a file can't be made.

use std::io;
use std::path::PathBuf;

use crate::ggml::QuantizeError;
use crate::gguf::TensorType;
use crate::model::OpenError;
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

    #[error("{}: there is no tensor {tensor}", path.display())]
    Missing { path: PathBuf, tensor: String },

    #[error("{}: tensor {tensor}: {ty} can't be read here", path.display())]
    NotReadable { path: PathBuf, tensor: String, ty: TensorType },

    #[error("tensor {tensor}: {ty} can't be written")]
    NotWritable { tensor: String, ty: TensorType },

    #[error("{}: tensor {tensor}: the cut is not at whole blocks of {ty}", path.display())]
    NotWholeBlocks { path: PathBuf, tensor: String, ty: TensorType },

    #[error("tensor {tensor}: expected one whole matrix to transpose, found {found}")]
    NotAMatrix { tensor: String, found: String },

    #[error("tensor {tensor}: {source}")]
    Quantize { tensor: String, source: QuantizeError },

    #[error("{}: is one of the files that it would be made from", path.display())]
    OverInput { path: PathBuf },

    #[error("{}: expected a Gemma 3n text model or its towers, found general.architecture {found}", path.display())]
    Architecture { path: PathBuf, found: String },

    #[error("{preset} is for text models, not for towers")]
    TextOnly { preset: String },

    #[error(
        "{}: tensor {tensor}: is {from} already, and quantizing it again to {to} loses more",
        path.display()
    )]
    Requantize { path: PathBuf, tensor: String, from: TensorType, to: TensorType },

    #[error("tensor {tensor}: {ty} needs an importance matrix, and there is none for it")]
    NeedsImportance { tensor: String, ty: TensorType },

    #[error(
        "{}: entry {tensor}: expected values for {expected} columns, found {found}",
        path.display()
    )]
    ImportanceLength { path: PathBuf, tensor: String, expected: u64, found: u64 },

    #[error(transparent)]
    Model(#[from] OpenError),

    #[error("a thread can't be started: {0}")]
    Thread(io::Error),

    #[error("interrupted")]
    Interrupted,
}
