//! Importance matrices: how strongly a text drives each input column of each weight.
//!
//! ```text
//! in_sum2[c] = Σ x[c]²  over the rows x that W was multiplied with      count = rows
//! weight[c]  = in_sum2[c] / count                                       1 where count is 0
//! ```
//! Quantizers spend their precision where the weight is high. Files are llama.cpp's, in both of
//! its forms: GGUF (gguf.md 5.6), read and written, and the older `.dat`, read only.

pub mod collect;
mod error;
mod legacy;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::{Error, Fault};

use crate::gguf::Gguf;

/// The statistics of a model's activations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceMatrix {
    /// Names of the texts, as the file has them.
    pub datasets: Vec<String>,
    /// Chunks of text that were read.
    pub chunk_count: u32,
    /// Tokens of a chunk; 0 where the file does not say (the older form).
    pub chunk_size: u32,
    /// By name of the weight (`blk.3.ffn_up.weight`).
    pub entries: BTreeMap<String, Entry>,
}

/// The statistics of one weight's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Sums of squares, of each matrix of the weight in turn: columns × matrices. Finite, not
    /// negative.
    pub in_sum2: Vec<f64>,
    /// Rows that were summed, by matrix; one for a weight that is not a stack. Never empty, and
    /// `in_sum2` has a multiple of its length. In the older form: chunks.
    pub counts: Vec<u64>,
}

impl ImportanceMatrix {
    /// Reads a file of either form, told apart by its first bytes.
    ///
    /// # Errors
    /// The file cannot be read, is no importance matrix, or contradicts itself: with its name and
    /// the entry.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if is_legacy(path) {
            return legacy::read(path);
        }
        read::read(&Gguf::open(path)?)
    }

    /// The weight of each input column of a tensor (of each matrix in turn, for a stack), or
    /// nothing if the tensor has no entry. The caller compares the length with the tensor's
    /// `ne0·ne2·ne3`. Divides in f32, as llama-quantize does.
    pub fn weights(&self, tensor: &str) -> Option<Vec<f32>> {
        let entry = self.entries.get(tensor)?;
        let columns = entry.in_sum2.len() / entry.counts.len();
        let matrices = entry.in_sum2.chunks_exact(columns.max(1)).zip(&entry.counts);
        let weight = |sum: f64, count: u64| match count {
            0 => 1.0,
            _ => sum as f32 / count as f32,
        };
        Some(
            matrices
                .flat_map(|(sums, &count)| sums.iter().map(move |&sum| weight(sum, count)))
                .collect(),
        )
    }
}

/// Is this a regular file that does not begin as GGUF files do?
fn is_legacy(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
        && File::open(path)
            .is_ok_and(|mut file| file.read_exact(&mut magic).is_err() || magic != *b"GGUF")
}
