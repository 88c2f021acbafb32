//! Carries a plan out: reads, converts and writes in chunks, so that memory stays small whatever
//! the model's size.
//!
//! A chunk is 2 Mi elements: 8 MiB as f32, and at most as much read and as much written. Weights
//! that are not finite, or not finite any more in F16, are errors, not infinities in the file.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::checkpoint::{Float, Stored, Weights};
use crate::gguf::{TensorType, Writer, same_file};

use super::error::Error;
use super::plan::{Plan, PlannedTensor, Segment};

const CHUNK: usize = 2 << 20;
/// Elements that one task converts.
const TASK: usize = 64 << 10;

/// Hears of the work's progress, and may end it.
pub trait Progress {
    /// So many of the file's bytes are written. `Break` ends the work with
    /// [`Error::Interrupted`], leaving nothing behind.
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()>;
}

impl<F: FnMut(u64, u64) -> ControlFlow<()>> Progress for F {
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self(done, total)
    }
}

/// Writes the planned file from a checkpoint's weights.
///
/// # Errors
/// The plan doesn't fit the format; the target exists (without `overwrite`) or is one of the
/// inputs; reading or writing fails; a weight is not finite.
pub fn execute(
    plan: &Plan,
    weights: &Weights,
    target: &Path,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    if weights.iter().any(|(_, stored)| same_file(weights.path(stored), target)) {
        return Err(Error::OverInput { path: target.to_owned() });
    }
    let layout = plan.layout()?;
    let writer = Writer::create(target, &layout, overwrite)?;
    let total = writer.file_len();
    let mut job = Job { weights, writer, progress, done: 0, total, chunk: Chunk::default() };
    for tensor in &plan.tensors {
        job.write_tensor(tensor)?;
    }
    job.writer.finish()?;
    Ok(())
}

struct Job<'a> {
    weights: &'a Weights,
    writer: Writer,
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
                Segment::Stored { name, .. } => self.write_stored(tensor, name)?,
                Segment::Fill { value, elements } => self.write_fill(tensor, *value, *elements)?,
            }
        }
        Ok(())
    }

    fn write_stored(&mut self, tensor: &PlannedTensor, name: &str) -> Result<(), Error> {
        let stored = self.weights.find(name)?;
        let float = self.weights.float(name, stored)?;
        let path = self.weights.path(stored);
        let failed =
            |source| Error::Read { path: path.to_owned(), tensor: name.to_owned(), source };
        let mut reader = self.weights.reader(stored).map_err(failed)?;
        let elements = stored.elements();
        let mut first = 0;
        while first < elements {
            let len = (elements - first).min(CHUNK as u64) as usize;
            self.chunk.stored.resize(len * float.size() as usize, 0);
            reader.read_exact(&mut self.chunk.stored).map_err(failed)?;
            self.chunk.decode(float, len);
            self.check_finite(tensor.target.ty, name, stored, first)?;
            self.put(tensor)?;
            first += len as u64;
        }
        Ok(())
    }

    fn write_fill(
        &mut self,
        tensor: &PlannedTensor,
        value: f32,
        elements: u64,
    ) -> Result<(), Error> {
        let mut left = elements;
        while left > 0 {
            let len = left.min(CHUNK as u64) as usize;
            self.chunk.values.clear();
            self.chunk.values.resize(len, value);
            self.put(tensor)?;
            left -= len as u64;
        }
        Ok(())
    }

    fn check_finite(
        &self,
        ty: TensorType,
        name: &str,
        stored: &Stored,
        first: u64,
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
        let (path, tensor) = (self.weights.path(stored).to_owned(), name.to_owned());
        let index = first + at as u64;
        Err(match value.is_finite() {
            true if ty == TensorType::F16 => Error::BeyondF16 { path, tensor, index, value },
            _ => Error::NotFinite { path, tensor, index, value },
        })
    }

    /// Encodes and writes the chunk's values.
    fn put(&mut self, tensor: &PlannedTensor) -> Result<(), Error> {
        self.chunk.encode(tensor.target.ty);
        self.writer.append(&tensor.target.name, &self.chunk.encoded)?;
        self.done += self.chunk.encoded.len() as u64;
        match self.progress.advance(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

impl Chunk {
    /// stored bytes → values
    fn decode(&mut self, float: Float, len: usize) {
        self.values.resize(len, 0.0);
        let stored = &self.stored;
        match float {
            Float::F32 => map(stored, &mut self.values, f32::from_le_bytes),
            Float::F16 => map(stored, &mut self.values, |b| f16::from_le_bytes(b).to_f32()),
            Float::BF16 => map(stored, &mut self.values, |b| bf16::from_le_bytes(b).to_f32()),
        }
    }

    /// values → encoded bytes; plans have no other types yet than these three.
    fn encode(&mut self, ty: TensorType) {
        let size = ty.block_bytes() as usize;
        self.encoded.resize(self.values.len() * size, 0);
        let (values, encoded) = (&self.values, &mut self.encoded);
        match ty {
            TensorType::F16 => unmap(values, encoded, |x| f16::from_f32(x).to_le_bytes()),
            TensorType::BF16 => unmap(values, encoded, |x| bf16::from_f32(x).to_le_bytes()),
            _ => unmap(values, encoded, f32::to_le_bytes),
        }
    }
}

fn map<const N: usize>(bytes: &[u8], values: &mut [f32], read: impl Fn([u8; N]) -> f32 + Sync) {
    bytes.par_chunks(TASK * N).zip(values.par_chunks_mut(TASK)).for_each(|(bytes, values)| {
        for (bytes, value) in bytes.as_chunks::<N>().0.iter().zip(values) {
            *value = read(*bytes);
        }
    });
}

fn unmap<const N: usize>(values: &[f32], bytes: &mut [u8], write: impl Fn(f32) -> [u8; N] + Sync) {
    values.par_chunks(TASK).zip(bytes.par_chunks_mut(TASK * N)).for_each(|(values, bytes)| {
        for (value, bytes) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
            *bytes = write(*value);
        }
    });
}
