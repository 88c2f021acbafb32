//! What can be wrong with a GGUF file: the file, and the fault in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A fault in (or on the way to) a file. Displays as `FILE: fault`, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct Error {
    /// The file, or the part of a split file, it is about.
    pub file: PathBuf,
    /// What is wrong.
    pub fault: Box<Fault>,
}

impl Error {
    pub(super) fn new(file: &Path, fault: impl Into<Fault>) -> Self {
        Self { file: file.to_path_buf(), fault: Box::new(fault.into()) }
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("{}", io_message(.0))]
    Io(#[from] io::Error),
    #[error("is a directory")]
    Directory,
    #[error("not a regular file")]
    NotRegular,
    #[error("empty file")]
    Empty,
    #[error("not a GGUF file: starts with {start}")]
    NotGguf { start: String },
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    Version(u32),
    #[error("GGUF version 1 is no longer read by any program: convert the model anew")]
    Version1,
    #[error("big-endian GGUF file: convert the model for little-endian machines")]
    BigEndian,
    #[error("file ends inside {inside} (at byte {at} of {len})")]
    Truncated { inside: String, at: u64, len: u64 },
    #[error("claims {count} {what}, but only {left} bytes follow")]
    Count { what: String, count: u64, left: u64 },
    #[error("metadata key {index}: {problem}")]
    BadKey { index: u64, problem: String },
    #[error("metadata key {0} occurs twice")]
    DuplicateKey(String),
    #[error("metadata key {key}: unknown value type {id}")]
    ValueType { key: String, id: u32 },
    #[error("metadata key {0}: arrays of arrays are not supported")]
    NestedArray(String),
    #[error("metadata key {key}: expected {expected}, found {found}")]
    Value { key: String, expected: String, found: String },
    #[error("general.alignment: expected a power of two (u32), found {0}")]
    Alignment(String),
    #[error("tensor {index}: {problem}")]
    BadName { index: u64, problem: String },
    #[error("tensor {0} occurs twice")]
    DuplicateTensor(String),
    #[error("tensor {name}: {n_dims} dimensions; at most 4 are allowed")]
    Dimensions { name: String, n_dims: u32 },
    #[error("tensor {name}: shape {shape} {problem}")]
    Shape { name: String, shape: Shape, problem: &'static str },
    #[error("tensor {name}: unknown type id {id}")]
    TensorType { name: String, id: u32 },
    #[error(
        "tensor {name}: type {was} (id {id}) was removed from the format; quantize the model anew"
    )]
    RemovedType { name: String, id: u32, was: &'static str },
    #[error("tensor {name}: rows of {ne0} elements are not a multiple of {ty}'s block of {block}")]
    Block { name: String, ne0: u64, ty: super::TensorType, block: u64 },
    #[error("tensor {name}: overlaps the tensor before it (offset {found}, expected {expected})")]
    Overlap { name: String, found: u64, expected: u64 },
    #[error(
        "tensor {name}: gap between it and the tensor before (offset {found}, expected {expected})"
    )]
    Gap { name: String, found: u64, expected: u64 },
    #[error("tensor {name}: ends at byte {end}, beyond the end of the file ({len} bytes)")]
    OutOfFile { name: String, end: u128, len: u64 },
    #[error("part {found} of a split file; open the first part{}", first_part(.first))]
    NotFirstPart { found: u64, first: Option<PathBuf> },
    #[error("split file: {0}")]
    Split(String),
    #[error("does not fit into memory ({0} bytes)")]
    Memory(u64),
    #[error("cannot lock {bytes} bytes in memory: {source}")]
    Lock { bytes: u64, source: io::Error },
    #[error("exists already")]
    Exists,
    #[error("cannot be written: the folder {} is not there", folder.display())]
    NoFolder { folder: PathBuf },
    #[error("tensor {name}: {problem}")]
    Write { name: String, problem: String },
}

impl Fault {
    /// Gives the fault its file.
    pub(super) fn of(self, file: &Path) -> Error {
        Error::new(file, self)
    }
}

/// The message of an I/O error without Rust's ` (os error N)` and what libraries add after
/// it, such as the path of a temporary file.
pub fn io_message(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

fn first_part(first: &Option<PathBuf>) -> String {
    first.as_ref().map(|path| format!(", {}", path.display())).unwrap_or_default()
}

/// A shape for messages: `2048 x 8192`, fastest dimension first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub ne: [u64; 4],
    pub n_dims: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (self.n_dims as usize).clamp(1, 4);
        for (i, n) in self.ne[..shown].iter().enumerate() {
            if i > 0 {
                f.write_str(" x ")?;
            }
            write!(f, "{n}")?;
        }
        Ok(())
    }
}
