//! Why an importance matrix can't be read or made.

use std::io;
use std::path::{Path, PathBuf};

use crate::gguf;
use crate::model::error::StepError;

/// Names the file and, inside it, the entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Gguf(#[from] gguf::Error),

    #[error(transparent)]
    Step(#[from] StepError),

    #[error("{}: {fault}", path.display())]
    File { path: PathBuf, fault: Fault },

    #[error("tensor {tensor}: what column {column} is multiplied with is not finite")]
    NotFinite { tensor: String, column: usize },

    #[error("{name}: {tokens} tokens, not even one chunk of {chunk_size}")]
    TooShort { name: String, tokens: usize, chunk_size: usize },
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{}", gguf::io_message(.0))]
    Io(#[from] io::Error),
    #[error("not an importance matrix: {0}")]
    Other(String),
    #[error("file ends inside {inside} ({needed} bytes needed, {left} left)")]
    Truncated { inside: String, needed: u64, left: u64 },
    #[error("{0} bytes after the end of the importance matrix")]
    Trailing(u64),
    #[error("entry {entry}: {problem}")]
    Entry { entry: String, problem: String },
    #[error("entry {0} occurs twice")]
    Duplicate(String),
}

impl Fault {
    pub(super) fn of(self, path: &Path) -> Error {
        Error::File { path: path.to_owned(), fault: self }
    }

    pub(super) fn entry(entry: &str, problem: impl Into<String>) -> Self {
        Self::Entry { entry: entry.to_owned(), problem: problem.into() }
    }
}
