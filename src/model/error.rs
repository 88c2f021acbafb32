//! What can be wrong with a model, or go wrong while it runs.

use std::path::PathBuf;

use super::slice::SliceFault;
use crate::ggml::RunError;
use crate::gguf;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    #[error("{}: {fault}", .file.display())]
    Model { file: PathBuf, fault: Fault },
    #[error("{}: {slice}: {fault}", .file.display())]
    Slice { file: PathBuf, slice: String, fault: Box<SliceFault> },
}

/// What is wrong with a model's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("not a Gemma 3n text model: general.architecture is {found}{}", hint(.found))]
    Architecture { found: String },
    #[error("not a file of towers: general.architecture is {found}, expected clip")]
    Towers { found: String },
    #[error("there is no {0} tower in it")]
    NoTower(&'static str),
    #[error("tensor {0} belongs to no block that is known")]
    Stray(String),
    #[error("tensor {name}: {problem}")]
    Weights { name: String, problem: String },
    #[error("metadata key {0} is missing")]
    MissingKey(String),
    #[error("metadata key {key}: {problem}")]
    Key { key: String, problem: String },
    #[error("tensor {0} is missing")]
    MissingTensor(String),
    #[error("tensor {0} is missing, which gemma3n.cli.layout = 1 (neuron-major) calls for")]
    MissingNeuronMajor(String),
    #[error("tensor {name}: {problem}")]
    Layout { name: String, problem: &'static str },
    #[error("tensor {name}: expected {}, found {}", shape(.expected), shape(.found))]
    Shape { name: String, expected: Vec<u64>, found: Vec<u64> },
    #[error("tensor {name}: type {found} cannot be used as {role}")]
    Type { name: String, found: String, role: &'static str },
    #[error("tensor {name}: not enough memory for a copy of {bytes} bytes")]
    Memory { name: String, bytes: usize },
}

fn hint(found: &str) -> &'static str {
    match found {
        "clip" => " (a file of towers, to be used beside a text model)",
        _ => "",
    }
}

fn shape(ne: &[u64]) -> String {
    ne.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

/// Why a step of the model gave no result. The cache is as it was before the step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    #[error("interrupted")]
    Interrupted,
    #[error("{needed} positions are needed, but the context holds {capacity}")]
    ContextFull { needed: usize, capacity: usize },
    #[error("the model's output at position {position} is not finite: the weights are broken")]
    NotFinite { position: usize },
    #[error("the {0} tower's output is not finite: its weights are broken")]
    NotFiniteTower(&'static str),
    #[error("token id {id} is beyond the vocabulary of {vocabulary}")]
    Token { id: u32, vocabulary: usize },
    #[error("not enough memory for the graph's work buffers (a smaller batch needs less)")]
    OutOfMemory,
    #[error("not enough memory for a context of {context} positions")]
    ContextMemory { context: usize },
    #[error("{0}")]
    Options(String),
}

impl From<RunError> for StepError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Interrupted => Self::Interrupted,
            RunError::OutOfMemory => Self::OutOfMemory,
        }
    }
}
