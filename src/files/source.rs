//! Where the tensors of a new file come from: a checkpoint's weights, or another GGUF file.
//!
//! Data are read, not mapped: a file that shrinks meanwhile is an error, and what was read doesn't
//! count as the program's memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Float, Weights};
use crate::gguf::{Gguf, TensorType};

use super::error::Error;

/// Tensors by name, each as rows somewhere in a file.
pub trait Source: Sync {
    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none, or it has a type that weights don't have.
    fn find(&self, name: &str) -> Result<Place<'_>, Error>;

    /// The files that the data lie in.
    fn files(&self) -> Vec<&Path>;
}

/// A tensor in a file: `rows` rows of `row_len` elements, one after the other.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub path: &'a Path,
    /// Where the first row begins, in bytes.
    pub offset: u64,
    pub ty: TensorType,
    pub row_len: u64,
    pub rows: u64,
}

impl Place<'_> {
    /// Bytes a row takes; what the source promises was checked when it was opened.
    pub fn row_bytes(&self) -> u64 {
        self.ty.row_bytes(self.row_len).unwrap_or(0)
    }
}

impl Source for Weights {
    fn find(&self, name: &str) -> Result<Place<'_>, Error> {
        let stored = Weights::find(self, name)?;
        let row_len = stored.shape.last().copied().unwrap_or(1);
        Ok(Place {
            path: self.path(stored),
            offset: stored.offset(),
            ty: tensor_type(self.float(name, stored)?),
            row_len,
            rows: stored.elements().checked_div(row_len).unwrap_or(0),
        })
    }

    fn files(&self) -> Vec<&Path> {
        Weights::files(self).collect()
    }
}

impl Source for Gguf {
    fn find(&self, name: &str) -> Result<Place<'_>, Error> {
        let missing = || Error::Missing { path: self.path().to_owned(), tensor: name.to_owned() };
        let tensor = self.tensor(name).ok_or_else(missing)?;
        let row_len = tensor.ne[0];
        Ok(Place {
            path: self.paths().nth(tensor.part()).ok_or_else(missing)?,
            offset: tensor.offset(),
            ty: tensor.ty,
            row_len,
            rows: tensor.n_elements().checked_div(row_len).unwrap_or(0),
        })
    }

    fn files(&self) -> Vec<&Path> {
        self.paths().collect()
    }
}

/// A file's type for an element type.
pub fn tensor_type(float: Float) -> TensorType {
    match float {
        Float::F32 => TensorType::F32,
        Float::F16 => TensorType::F16,
        Float::BF16 => TensorType::BF16,
    }
}

/// Open files, each opened once.
#[derive(Debug, Default)]
pub struct Files(HashMap<PathBuf, File>);

impl Files {
    /// Fills `out` with a file's bytes from `offset` on.
    ///
    /// # Errors
    /// The file can't be opened, or ends before.
    pub fn read(&mut self, path: &Path, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), File::open(path)?);
        }
        self.0[path].read_exact_at(out, offset)
    }
}
