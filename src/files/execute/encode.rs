//! The middle stage: stored bytes → values → the bytes of the target's type, on all cores.
//!
//! What has its type already passes as it is, after a look at its values. Of what changes, a
//! sample is decoded again and compared:
//!
//! relative RMS error = √(Σ (decoded − value)² / Σ value²)

use std::sync::mpsc::{Receiver, Sender, SyncSender};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::super::error::Error;
use super::super::plan::{Part, Plan, PlannedTensor, Segment, Stored};
use super::super::source::{Place, Source};
use super::{CHUNK, Encoded, Piece, Stop};
use crate::ggml::{self, QuantizeError, Type};
use crate::gguf::TensorType;

/// Elements that one task converts, at least.
const TASK: usize = 64 << 10;
/// One in so many tasks is compared with what was encoded.
pub const SAMPLED: usize = 8;

/// From here on values round to infinity.
const F16_END: f32 = 65520.0;
const BF16_END: f32 = f32::from_bits(0x7f7f_8000);

/// What a tensor lost on the way to its type: sums over the sampled values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Σ (decoded − value)²
    pub squared_error: f64,
    /// Σ value²
    pub squared: f64,
}

impl Loss {
    /// The relative RMS error; none where no value was compared.
    pub fn relative(self) -> Option<f64> {
        (self.squared > 0.0).then(|| (self.squared_error / self.squared).sqrt())
    }
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.squared_error += other.squared_error;
        self.squared += other.squared;
    }
}

pub struct Encoder<'a> {
    plan: &'a Plan,
    source: &'a dyn Source,
    to_writer: SyncSender<Encoded>,
    empty: Receiver<Vec<u8>>,
    values: Vec<f32>,
    losses: Vec<Loss>,
}

impl<'a> Encoder<'a> {
    pub fn new(
        plan: &'a Plan,
        source: &'a dyn Source,
        to_writer: SyncSender<Encoded>,
        empty: Receiver<Vec<u8>>,
    ) -> Self {
        let losses = vec![Loss::default(); plan.tensors.len()];
        Self { plan, source, to_writer, empty, values: Vec::new(), losses }
    }

    /// Until there are no more pieces. Buffers that were read go back through `read_again`.
    pub fn run(
        mut self,
        pieces: &Receiver<Piece>,
        read_again: &Sender<Vec<u8>>,
    ) -> Result<Vec<Loss>, Stop> {
        let plan = self.plan;
        for piece in pieces {
            let tensor = &plan.tensors[piece.tensor];
            match &tensor.segments[piece.segment] {
                Segment::Fill { value, elements } => {
                    self.fill(piece.tensor, tensor, *value, *elements)?;
                }
                Segment::Stored(stored) => {
                    let bytes = self.stored(tensor, stored, piece)?;
                    // There is nobody to take it when the reader is done.
                    read_again.send(bytes).ok();
                }
            }
        }
        Ok(self.losses)
    }

    /// Gives back a buffer to be read into again.
    fn stored(
        &mut self,
        tensor: &PlannedTensor,
        stored: &Stored,
        piece: Piece,
    ) -> Result<Vec<u8>, Stop> {
        let place = self.source.find(&stored.name)?;
        let copied = place.ty == tensor.target.ty && stored.part != Part::Transposed;
        match Type::weight_from_id(place.ty.id()) {
            Some(ty) => self.decode(ty, &piece.stored),
            None if copied => return self.copy(piece),
            None => {
                let (path, tensor) = (place.path.to_owned(), stored.name.clone());
                return Err(Error::NotReadable { path, tensor, ty: place.ty }.into());
            }
        }
        self.check_finite(tensor.target.ty, stored, &place, piece.first_row)?;
        if copied {
            return self.copy(piece);
        }
        if stored.part == Part::Transposed {
            self.transposed(piece.tensor, tensor, &place)?;
        } else {
            self.put(piece.tensor, tensor)?;
        }
        Ok(piece.stored)
    }

    fn copy(&mut self, piece: Piece) -> Result<Vec<u8>, Stop> {
        let empty = self.empty.try_recv().unwrap_or_default();
        self.send(piece.tensor, piece.stored)?;
        Ok(empty)
    }

    fn fill(
        &mut self,
        index: usize,
        tensor: &PlannedTensor,
        value: f32,
        elements: u64,
    ) -> Result<(), Stop> {
        let row_len = tensor.target.ne[0].max(1);
        let step = (CHUNK / row_len).max(1) * row_len;
        let mut left = elements;
        while left > 0 {
            let len = left.min(step) as usize;
            self.values.clear();
            self.values.resize(len, value);
            self.put(index, tensor)?;
            left -= len as u64;
        }
        Ok(())
    }

    /// The whole tensor's values, columns as rows.
    fn transposed(
        &mut self,
        index: usize,
        tensor: &PlannedTensor,
        place: &Place,
    ) -> Result<(), Stop> {
        let values = std::mem::take(&mut self.values);
        let (rows, row_len) = (place.rows as usize, place.row_len as usize);
        let step = (CHUNK as usize / rows.max(1)).max(1);
        for first in (0..row_len).step_by(step) {
            let columns = first..row_len.min(first + step);
            self.values.clear();
            self.values.resize(rows * columns.len(), 0.0);
            let transposed = self.values.par_chunks_mut(rows);
            transposed.zip(columns.into_par_iter()).for_each(|(out, column)| {
                for (row, value) in out.iter_mut().enumerate() {
                    *value = values[row * row_len + column];
                }
            });
            self.put(index, tensor)?;
        }
        Ok(())
    }

    /// stored bytes → values
    fn decode(&mut self, ty: Type, bytes: &[u8]) {
        let values = &mut self.values;
        values.resize(bytes.len() / ty.row_bytes(ty.block_len()) * ty.block_len(), 0.0);
        let task = TASK.next_multiple_of(ty.block_len());
        bytes
            .par_chunks(ty.row_bytes(task))
            .zip(values.par_chunks_mut(task))
            .for_each(|(bytes, values)| ty.to_f32(bytes, values));
    }

    /// Block scales are F16 or narrower, so what F16 can't hold no quantized type can.
    fn check_finite(
        &self,
        ty: TensorType,
        stored: &Stored,
        place: &Place,
        first_row: u64,
    ) -> Result<(), Error> {
        let through_f16 = ty == TensorType::F16 || ty.is_quantized() && place.ty != ty;
        let limit = match ty {
            _ if through_f16 => F16_END,
            TensorType::BF16 => BF16_END,
            _ => f32::INFINITY,
        };
        let fits = |value: &f32| value.abs() < limit;
        // Without a branch for each value, several are compared at a time.
        let whole = |values: &[f32]| values.iter().fold(true, |all, value| all & fits(value));
        let bad = self.values.par_chunks(TASK).enumerate().find_map_first(|(task, values)| {
            let at = if whole(values) { None } else { values.iter().position(|v| !fits(v)) };
            at.map(|at| task * TASK + at)
        });
        let Some(at) = bad else {
            return Ok(());
        };
        let value = self.values[at];
        let (path, tensor) = (place.path.to_owned(), stored.name.clone());
        let index = stored.index(first_row, at as u64);
        Err(match value.is_finite() {
            true if through_f16 => Error::BeyondF16 { path, tensor, index, value },
            _ => Error::NotFinite { path, tensor, index, value },
        })
    }

    /// Encodes the values and passes them on.
    fn put(&mut self, index: usize, tensor: &PlannedTensor) -> Result<(), Stop> {
        let mut bytes = self.empty.try_recv().unwrap_or_default();
        self.losses[index] += encode(tensor, &self.values, &mut bytes)?;
        self.send(index, bytes)
    }

    fn send(&self, tensor: usize, bytes: Vec<u8>) -> Result<(), Stop> {
        self.to_writer.send(Encoded { tensor, bytes }).map_err(|_| Stop::NotWanted)
    }
}

/// values → bytes of the tensor's type, and what that lost
fn encode(tensor: &PlannedTensor, values: &[f32], bytes: &mut Vec<u8>) -> Result<Loss, Error> {
    let name = || tensor.target.name.clone();
    let ty = Type::weight_from_id(tensor.target.ty.id())
        .ok_or_else(|| Error::NotWritable { tensor: name(), ty: tensor.target.ty })?;
    let row_len = tensor.target.ne[0] as usize;
    let task = TASK.div_ceil(row_len) * row_len;
    bytes.resize(ty.row_bytes(row_len) * (values.len() / row_len), 0);
    let importance = tensor.importance.as_deref();
    let losses: Vec<Loss> = values
        .par_chunks(task)
        .zip(bytes.par_chunks_mut(ty.row_bytes(task)))
        .enumerate()
        .map(|(index, (values, bytes))| {
            match tensor.target.ty {
                TensorType::F32 => unmap(values, bytes, f32::to_le_bytes),
                TensorType::F16 => unmap_f16(values, bytes),
                TensorType::BF16 => unmap(values, bytes, |x| bf16::from_f32(x).to_le_bytes()),
                _ => ggml::quantize_into(ty, values, row_len, importance, bytes)?,
            }
            let sampled = ty != Type::F32 && index % SAMPLED == 0;
            Ok(if sampled { loss(ty, values, bytes) } else { Loss::default() })
        })
        .collect::<Result<_, QuantizeError>>()
        .map_err(|source| Error::Quantize { tensor: name(), source })?;
    // Summed in order, so that the result does not depend on the threads.
    Ok(losses.into_iter().fold(Loss::default(), |mut sum, loss| {
        sum += loss;
        sum
    }))
}

fn unmap<const N: usize>(values: &[f32], bytes: &mut [u8], write: impl Fn(f32) -> [u8; N]) {
    for (value, bytes) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
        *bytes = write(*value);
    }
}

/// As the others, but many at a time: half asks at each call what the processor can do.
fn unmap_f16(values: &[f32], bytes: &mut [u8]) {
    let mut packed = [f16::ZERO; 256];
    for (values, bytes) in values.chunks(packed.len()).zip(bytes.chunks_mut(2 * packed.len())) {
        let packed = &mut packed[..values.len()];
        packed.convert_from_f32_slice(values);
        for (value, bytes) in packed.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *bytes = value.to_le_bytes();
        }
    }
}

fn loss(ty: Type, values: &[f32], bytes: &[u8]) -> Loss {
    let mut decoded = vec![0.0; values.len()];
    ty.to_f32(bytes, &mut decoded);
    let mut sum = Loss::default();
    for (decoded, value) in decoded.into_iter().zip(values) {
        let (error, value) = (f64::from(decoded) - f64::from(*value), f64::from(*value));
        sum += Loss { squared_error: error * error, squared: value * value };
    }
    sum
}
