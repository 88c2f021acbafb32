//! Collects the statistics from a model that reads a text, as llama-imatrix does.
//!
//! The text's tokens are cut into chunks; each is read with an empty cache, its first token
//! replaced by the beginning-of-sequence token, and every position counts. A weight used twice in a
//! layer (AltUp's router) counts twice. What isn't a layer's has no entry.

use std::collections::btree_map::Entry as Slot;

use super::error::Error;
use super::{Entry, ImportanceMatrix};
use crate::model::text::Decoder;
use crate::tokenizer::TokenId;

/// A text, cut.
#[derive(Clone, Debug)]
pub struct Text {
    /// What the file calls it.
    pub name: String,
    ids: Vec<TokenId>,
    bos: Option<TokenId>,
    chunk_size: usize,
}

impl Text {
    /// Cuts a text's tokens (`bos` not among them) into whole chunks, at most `limit`; what is left
    /// is not read.
    ///
    /// # Errors
    /// There is less than one chunk.
    pub fn new(
        name: String,
        ids: Vec<TokenId>,
        bos: Option<TokenId>,
        chunk_size: usize,
        limit: Option<usize>,
    ) -> Result<Self, Error> {
        let mut ids: Vec<TokenId> = bos.into_iter().chain(ids).collect();
        let chunks = ids.len().checked_div(chunk_size).unwrap_or(0);
        if chunks == 0 {
            return Err(Error::TooShort { name, tokens: ids.len(), chunk_size });
        }
        ids.truncate(chunks.min(limit.unwrap_or(chunks)) * chunk_size);
        Ok(Self { name, ids, bos, chunk_size })
    }

    /// Tokens that are read.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    pub fn chunks(&self) -> usize {
        self.ids.len() / self.chunk_size
    }
}

/// Lets the decoder, whose context holds a chunk, read the text. `progress` hears the number of
/// tokens read so far after each chunk.
///
/// # Errors
/// Those of the decoder, interruption among them; activations that are not finite.
pub fn collect(
    decoder: &mut Decoder,
    text: &Text,
    progress: &mut dyn FnMut(usize),
) -> Result<ImportanceMatrix, Error> {
    let mut matrix = ImportanceMatrix {
        datasets: vec![text.name.clone()],
        chunk_count: u32::try_from(text.chunks()).unwrap_or(u32::MAX),
        chunk_size: u32::try_from(text.chunk_size).unwrap_or(u32::MAX),
        ..ImportanceMatrix::default()
    };
    for (i, chunk) in text.ids.chunks_exact(text.chunk_size).enumerate() {
        let mut ids = chunk.to_vec();
        if let Some(bos) = text.bos {
            ids[0] = bos;
        }
        decoder.clear();
        let mut fault = None;
        decoder.observe(&ids, &mut |weight, sums, rows| {
            if fault.is_none() {
                fault = matrix.add(weight, sums, rows).err();
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        progress((i + 1) * text.chunk_size);
    }
    Ok(matrix)
}

impl ImportanceMatrix {
    /// Adds what a batch brought for one weight.
    fn add(&mut self, weight: &str, sums: &[f32], rows: usize) -> Result<(), Error> {
        if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(Error::NotFinite { tensor: weight.to_owned(), column: at });
        }
        let entry = match self.entries.entry(weight.to_owned()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                slot.insert(Entry { in_sum2: vec![0.0; sums.len()], counts: vec![0] })
            }
        };
        entry.counts[0] += rows as u64;
        for (total, &sum) in entry.in_sum2.iter_mut().zip(sums) {
            *total += f64::from(sum);
        }
        Ok(())
    }
}
