//! Matrices that are read row by row where they lie in the file: embeddings and the per-layer
//! table, of which a token needs a row each (design §5.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ggml::Type;
use crate::gguf::{Gguf, Tensor};

/// A matrix that is read row by row from the file.
pub struct Table {
    gguf: Arc<Gguf>,
    tensor: Tensor,
    ty: Type,
    /// For a table of which little is read: rows read since its pages were given back.
    scattered: Option<AtomicUsize>,
}

/// After so many rows a scattered table's pages are given back: the system maps many pages around
/// each one that is read, where it has them cached, and all of them would count as ours.
const ROWS_KEPT: usize = 32;

impl Table {
    /// A matrix of the file, whose type was checked.
    pub fn new(gguf: &Arc<Gguf>, tensor: &Tensor, ty: Type) -> Self {
        Self { gguf: gguf.clone(), tensor: tensor.clone(), ty, scattered: None }
    }

    /// From now on, little of it is read: see [`ROWS_KEPT`].
    pub fn read_here_and_there(&mut self) {
        self.gguf.advise_random(&self.tensor);
        self.scattered = Some(AtomicUsize::new(0));
    }

    pub fn rows(&self) -> usize {
        self.tensor.ne[1] as usize
    }

    /// Elements `start..start + out.len()` of a row as f32.
    pub fn read(&self, row: usize, start: usize, out: &mut [f32]) {
        let block = self.ty.block_len();
        let end = start + out.len();
        if start.is_multiple_of(block) && end.is_multiple_of(block) {
            return self.read_blocks(row, start, out);
        }
        let first = start / block * block;
        let mut whole = vec![0.0; end.next_multiple_of(block) - first];
        self.read_blocks(row, first, &mut whole);
        out.copy_from_slice(&whole[start - first..end - first]);
    }

    fn read_blocks(&self, row: usize, start: usize, out: &mut [f32]) {
        let from = row * self.row_bytes() + self.ty.row_bytes(start);
        let bytes = &self.gguf.data(&self.tensor)[from..from + self.ty.row_bytes(out.len())];
        self.ty.to_f32(bytes, out);
        let Some(read) = &self.scattered else { return };
        if read.fetch_add(1, Ordering::Relaxed) + 1 >= ROWS_KEPT {
            read.store(0, Ordering::Relaxed);
            self.gguf.advise_unneeded(&self.tensor);
        }
    }

    /// Tells the system which rows are read next, so that they come in together and not fault by
    /// fault (design §5.5). `rows` is sorted.
    pub fn will_need(&self, rows: &[usize]) {
        let bytes = self.row_bytes() as u64;
        let ranges: Vec<_> =
            rows.iter().map(|&row| row as u64 * bytes..(row as u64 + 1) * bytes).collect();
        self.gguf.advise_will_need(&self.tensor, &ranges);
    }

    /// Bytes one row takes in the file.
    pub fn row_bytes(&self) -> usize {
        self.bytes_of(self.tensor.ne[0] as usize)
    }

    /// Bytes that so many elements of a row take, whole blocks.
    pub fn bytes_of(&self, elements: usize) -> usize {
        self.ty.row_bytes(elements)
    }
}
