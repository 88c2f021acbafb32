//! Carries a plan out: reads, converts and writes in chunks, so that memory stays small whatever
//! the model's size.
//!
//! A chunk is about 2 Mi elements in whole rows: 8 MiB as f32, and at most as much read and as
//! much written; only a transposed tensor is held as a whole. Weights that are not finite, or not
//! finite any more in F16, are errors, not infinities in the file.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;

use crate::ggml::{self, Type};
use crate::gguf::parts::{Parts, publish};
use crate::gguf::{Finished, Layout, TensorType, same_file};

use super::error::Error;
use super::plan::{Part, Plan, PlannedTensor, Segment, Stored};
use super::source::{Files, Place, Source};

const CHUNK: u64 = 2 << 20;
/// Elements that one task converts, at least.
const TASK: usize = 64 << 10;

/// Hears of the work's progress, and may end it.
pub trait Progress: Send {
    /// So many of the file's bytes are written. `Break` ends the work with
    /// [`Error::Interrupted`], leaving nothing behind.
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()>;
}

impl<F: FnMut(u64, u64) -> ControlFlow<()> + Send> Progress for F {
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self(done, total)
    }
}

/// Writes the planned file from a source's tensors.
///
/// # Errors
/// The plan doesn't fit the format; the target exists (without `overwrite`) or is one of the
/// inputs; reading or writing fails; a weight is not finite.
pub fn execute(
    plan: &Plan,
    source: &dyn Source,
    target: &Path,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let parts = vec![(target.to_owned(), plan.layout()?)];
    Ok(publish(write(plan, source, parts, overwrite, progress)?)?)
}

/// Writes the planned file in the parts that [`crate::gguf::parts::split`] has made of its layout.
/// They get their names when they are published.
///
/// # Errors
/// As [`execute`].
pub fn write(
    plan: &Plan,
    source: &dyn Source,
    parts: Vec<(PathBuf, Layout)>,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<Vec<Finished>, Error> {
    for (target, _) in &parts {
        if source.files().iter().any(|file| same_file(file, target)) {
            return Err(Error::OverInput { path: target.clone() });
        }
    }
    let writer = Parts::create(parts, overwrite)?;
    let total = writer.file_len();
    let files = Files::default();
    let mut job = Job { source, files, writer, progress, done: 0, total, chunk: Chunk::default() };
    for tensor in &plan.tensors {
        job.write_tensor(tensor)?;
    }
    Ok(job.writer.complete()?)
}

struct Job<'a> {
    source: &'a dyn Source,
    files: Files,
    writer: Parts,
    progress: &'a mut dyn Progress,
    done: u64,
    total: u64,
    chunk: Chunk,
}

/// The buffers of one chunk.
#[derive(Default)]
struct Chunk {
    stored: Vec<u8>,
    values: Vec<f32>,
    encoded: Vec<u8>,
}

impl Job<'_> {
    fn write_tensor(&mut self, tensor: &PlannedTensor) -> Result<(), Error> {
        for segment in &tensor.segments {
            match segment {
                Segment::Stored(stored) => self.write_stored(tensor, stored)?,
                Segment::Fill { value, elements } => self.write_fill(tensor, *value, *elements)?,
            }
        }
        Ok(())
    }

    fn write_stored(&mut self, tensor: &PlannedTensor, stored: &Stored) -> Result<(), Error> {
        let place = self.source.find(&stored.name)?;
        let (rows, columns) = match &stored.part {
            Part::All => (0..place.rows, None),
            Part::Cut { rows, columns } => (rows.clone(), Some(&columns[..])),
            Part::Transposed => return self.write_transposed(tensor, stored, &place),
        };
        let step = (CHUNK / place.row_len.max(1)).max(1);
        let mut first = rows.start;
        while first < rows.end {
            let end = rows.end.min(first + step);
            self.read(stored, &place, first..end)?;
            if let Some(columns) = columns {
                self.keep_columns(stored, &place, columns)?;
            }
            if place.ty == tensor.target.ty && place.ty.is_quantized() {
                std::mem::swap(&mut self.chunk.stored, &mut self.chunk.encoded);
                self.write(tensor)?;
            } else {
                self.decode(stored, &place)?;
                self.check_finite(tensor.target.ty, stored, &place, first)?;
                self.put(tensor)?;
            }
            first = end;
        }
        Ok(())
    }

    fn write_transposed(
        &mut self,
        tensor: &PlannedTensor,
        stored: &Stored,
        place: &Place,
    ) -> Result<(), Error> {
        self.read(stored, place, 0..place.rows)?;
        self.decode(stored, place)?;
        self.check_finite(tensor.target.ty, stored, place, 0)?;
        let values = std::mem::take(&mut self.chunk.values);
        let (rows, row_len) = (place.rows as usize, place.row_len as usize);
        let step = (CHUNK as usize / rows.max(1)).max(1);
        for first in (0..row_len).step_by(step) {
            let columns = first..row_len.min(first + step);
            self.chunk.values.clear();
            self.chunk.values.resize(rows * columns.len(), 0.0);
            let transposed = self.chunk.values.par_chunks_mut(rows);
            transposed.zip(columns.into_par_iter()).for_each(|(out, column)| {
                for (row, value) in out.iter_mut().enumerate() {
                    *value = values[row * row_len + column];
                }
            });
            self.put(tensor)?;
        }
        Ok(())
    }

    /// The source's bytes of these rows.
    fn read(&mut self, stored: &Stored, place: &Place, rows: Range<u64>) -> Result<(), Error> {
        let row_bytes = place.row_bytes();
        let bytes = &mut self.chunk.stored;
        bytes.resize(((rows.end - rows.start) * row_bytes) as usize, 0);
        let offset = place.offset + rows.start * row_bytes;
        self.files.read(place.path, offset, bytes).map_err(|source| {
            let (path, tensor) = (place.path.to_owned(), stored.name.clone());
            Error::Read { path, tensor, source }
        })
    }

    /// Of each row read, only these columns: they move to the front, where what was there before
    /// is no longer needed.
    fn keep_columns(
        &mut self,
        stored: &Stored,
        place: &Place,
        columns: &[Range<u64>],
    ) -> Result<(), Error> {
        let at = |column| place.ty.row_bytes(column).map(|bytes| bytes as usize);
        let ranges: Option<Vec<_>> =
            columns.iter().map(|range| Some(at(range.start)?..at(range.end)?)).collect();
        let ranges = ranges.ok_or_else(|| Error::NotWholeBlocks {
            path: place.path.to_owned(),
            tensor: stored.name.clone(),
            ty: place.ty,
        })?;
        let bytes = &mut self.chunk.stored;
        let row_bytes = place.row_bytes() as usize;
        let mut end = 0;
        for start in (0..bytes.len()).step_by(row_bytes.max(1)) {
            for range in &ranges {
                bytes.copy_within(start + range.start..start + range.end, end);
                end += range.len();
            }
        }
        bytes.truncate(end);
        Ok(())
    }

    fn write_fill(
        &mut self,
        tensor: &PlannedTensor,
        value: f32,
        elements: u64,
    ) -> Result<(), Error> {
        let row_len = tensor.target.ne[0].max(1);
        let step = (CHUNK / row_len).max(1) * row_len;
        let mut left = elements;
        while left > 0 {
            let len = left.min(step) as usize;
            self.chunk.values.clear();
            self.chunk.values.resize(len, value);
            self.put(tensor)?;
            left -= len as u64;
        }
        Ok(())
    }

    /// stored bytes → values
    fn decode(&mut self, stored: &Stored, place: &Place) -> Result<(), Error> {
        let Some(ty) = Type::weight_from_id(place.ty.id()) else {
            return Err(Error::NotReadable {
                path: place.path.to_owned(),
                tensor: stored.name.clone(),
                ty: place.ty,
            });
        };
        let Chunk { stored: bytes, values, .. } = &mut self.chunk;
        values.resize(bytes.len() / ty.row_bytes(ty.block_len()) * ty.block_len(), 0.0);
        let task = TASK.next_multiple_of(ty.block_len());
        bytes
            .par_chunks(ty.row_bytes(task))
            .zip(values.par_chunks_mut(task))
            .for_each(|(bytes, values)| ty.to_f32(bytes, values));
        Ok(())
    }

    fn check_finite(
        &self,
        ty: TensorType,
        stored: &Stored,
        place: &Place,
        first_row: u64,
    ) -> Result<(), Error> {
        let fits = |value: f32| match ty {
            TensorType::F16 => f16::from_f32(value).is_finite(),
            TensorType::BF16 => bf16::from_f32(value).is_finite(),
            _ => value.is_finite(),
        };
        let Some(at) = self.chunk.values.par_iter().position_first(|&value| !fits(value)) else {
            return Ok(());
        };
        let value = self.chunk.values[at];
        let (path, tensor) = (place.path.to_owned(), stored.name.clone());
        let index = first_row * place.row_len + at as u64;
        Err(match value.is_finite() {
            true if ty == TensorType::F16 => Error::BeyondF16 { path, tensor, index, value },
            _ => Error::NotFinite { path, tensor, index, value },
        })
    }

    /// Encodes and writes the chunk's values.
    fn put(&mut self, tensor: &PlannedTensor) -> Result<(), Error> {
        self.chunk.encode(tensor)?;
        self.write(tensor)
    }

    /// Writes the chunk's encoded bytes.
    fn write(&mut self, tensor: &PlannedTensor) -> Result<(), Error> {
        self.writer.append(&tensor.target.name, &self.chunk.encoded)?;
        self.done += self.chunk.encoded.len() as u64;
        match self.progress.advance(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

impl Chunk {
    /// values → encoded bytes
    fn encode(&mut self, tensor: &PlannedTensor) -> Result<(), Error> {
        let ty = tensor.target.ty;
        let (values, encoded) = (&self.values, &mut self.encoded);
        encoded.resize(values.len() / ty.block_len() as usize * ty.block_bytes() as usize, 0);
        match ty {
            TensorType::F32 => unmap(values, encoded, f32::to_le_bytes),
            TensorType::F16 => unmap(values, encoded, |x| f16::from_f32(x).to_le_bytes()),
            TensorType::BF16 => unmap(values, encoded, |x| bf16::from_f32(x).to_le_bytes()),
            _ => return quantize(tensor, values, encoded),
        }
        Ok(())
    }
}

fn quantize(tensor: &PlannedTensor, values: &[f32], encoded: &mut [u8]) -> Result<(), Error> {
    let name = || tensor.target.name.clone();
    let ty = Type::weight_from_id(tensor.target.ty.id())
        .ok_or_else(|| Error::NotWritable { tensor: name(), ty: tensor.target.ty })?;
    let row_len = tensor.target.ne[0] as usize;
    let task = TASK.div_ceil(row_len) * row_len;
    values
        .par_chunks(task)
        .zip(encoded.par_chunks_mut(ty.row_bytes(task)))
        .try_for_each(|(values, encoded)| {
            encoded.copy_from_slice(&ggml::quantize(ty, values, row_len)?);
            Ok(())
        })
        .map_err(|source| Error::Quantize { tensor: name(), source })
}

fn unmap<const N: usize>(values: &[f32], bytes: &mut [u8], write: impl Fn(f32) -> [u8; N] + Sync) {
    values.par_chunks(TASK).zip(bytes.par_chunks_mut(TASK * N)).for_each(|(values, bytes)| {
        for (value, bytes) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
            *bytes = write(*value);
        }
    });
}
