//! Finding a tower's tensors in its file: each is checked, and taken in the precision asked for.
//!
//! Matrices are used where they lie in the mapping, or turned to 8 bits once, at the opening.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::Precision;
use super::embedder::Embedder;
use super::matrix::Matrix;
use crate::ggml::{self, Panels, Stored, Type};
use crate::gguf::{Gguf, Tensor};
use crate::model::error::{Fault, OpenError};

/// What one task turns while the tower is opened.
const ROWS: usize = 64;
const VALUES: usize = 1 << 16;

/// A tower's file being read.
pub struct Loader<'a> {
    pub gguf: &'a Arc<Gguf>,
    pub precision: Precision,
}

impl Loader<'_> {
    pub fn fault(&self, fault: Fault) -> OpenError {
        OpenError::Model { file: self.gguf.path().to_path_buf(), fault }
    }

    pub fn missing(&self, name: &str) -> OpenError {
        self.fault(Fault::MissingTensor(name.to_owned()))
    }

    pub fn no_memory(&self, tensor: &Tensor, bytes: usize) -> OpenError {
        self.fault(Fault::Memory { name: tensor.name.clone(), bytes })
    }

    pub fn misshapen(&self, tensor: &Tensor, expected: &[usize]) -> OpenError {
        let shown = (tensor.n_dims as usize).clamp(1, 4);
        self.fault(Fault::Shape {
            name: tensor.name.clone(),
            expected: expected.iter().map(|&n| n as u64).collect(),
            found: tensor.ne[..shown].to_vec(),
        })
    }

    pub fn find(&self, name: &str) -> Result<(&Tensor, Type), OpenError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| self.missing(name))?;
        match Type::weight_from_id(tensor.ty.id()) {
            Some(ty) => Ok((tensor, ty)),
            None => Err(self.fault(Fault::Type {
                name: name.to_owned(),
                found: tensor.ty.name().to_owned(),
                role: "a weight",
            })),
        }
    }

    pub fn optional<T>(
        &self,
        name: &str,
        load: impl FnOnce(&str) -> Result<T, OpenError>,
    ) -> Result<Option<T>, OpenError> {
        self.gguf.tensor(name).map(|_| load(name)).transpose()
    }

    pub fn values(&self, tensor: &Tensor, ty: Type) -> Vec<f32> {
        let mut values = vec![0.0; tensor.n_elements() as usize];
        let task = VALUES.next_multiple_of(ty.block_len());
        values
            .par_chunks_mut(task)
            .zip(self.gguf.data(tensor).par_chunks(ty.row_bytes(task)))
            .for_each(|(values, packed)| ty.to_f32(packed, values));
        values
    }

    /// A kernel with a window, `[taps, Cin, Cout]` in the file, as `[taps·Cin, Cout]`, the channels
    /// of a tap together.
    pub fn channels_first(&self, tensor: &Tensor, ty: Type, taps: usize, cin: usize) -> Vec<f32> {
        let (values, length) = (self.values(tensor, ty), taps * cin);
        let mut channels_first = vec![0.0; values.len()];
        for (to, from) in channels_first.chunks_exact_mut(length).zip(values.chunks_exact(length)) {
            for (i, value) in to.iter_mut().enumerate() {
                *value = from[i % cin * taps + i / cin];
            }
        }
        channels_first
    }

    /// A kernel of each channel by itself, `[taps, C]` in the file, as `[C, taps]`.
    pub fn taps_outside(
        &self,
        tensor: &Tensor,
        ty: Type,
        channels: usize,
        taps: usize,
    ) -> Vec<f32> {
        let values = self.values(tensor, ty);
        (0..values.len()).map(|i| values[i % channels * taps + i / channels]).collect()
    }

    /// So many values in whatever shape: gammas and biases are written as `[C]` and `[1, 1, C]`.
    pub fn vector(&self, name: &str, len: usize) -> Result<Stored, OpenError> {
        self.adapted(name, len, |value| value)
    }

    /// A vector whose values are made of the file's.
    pub fn adapted(
        &self,
        name: &str,
        len: usize,
        adapt: impl Fn(f32) -> f32,
    ) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.find(name)?;
        if tensor.n_elements() != len as u64 {
            return Err(self.misshapen(tensor, &[len]));
        }
        let values: Vec<f32> = self.values(tensor, ty).into_iter().map(adapt).collect();
        Stored::from_f32([len, 1, 1, 1], &values).ok_or_else(|| self.no_memory(tensor, len * 4))
    }

    /// A matrix `[k, m]`, in the precision asked for.
    pub fn matrix(
        &self,
        tensor: &Tensor,
        ty: Type,
        k: usize,
        m: usize,
    ) -> Result<Stored, OpenError> {
        let ne = [k, m, 1, 1];
        let bytes = self.gguf.data(tensor);
        let int8 = self.precision == Precision::Int8 && !ty.is_quantized();
        if int8 && k.is_multiple_of(Type::Q8_0.block_len()) {
            return self.quantized(tensor, &self.values(tensor, ty), ne);
        }
        Stored::over(self.gguf, ty, ne, |gguf| gguf.data(tensor))
            .or_else(|| Stored::copied(ty, ne, bytes))
            .ok_or_else(|| self.no_memory(tensor, bytes.len()))
    }

    pub fn quantized(
        &self,
        tensor: &Tensor,
        values: &[f32],
        ne: [usize; 4],
    ) -> Result<Stored, OpenError> {
        let row_bytes = Type::Q8_0.row_bytes(ne[0]);
        let mut packed = vec![0; row_bytes * ne[1]];
        let rows = ROWS.min(ne[1]);
        values
            .par_chunks(rows * ne[0])
            .zip(packed.par_chunks_mut(rows * row_bytes))
            .try_for_each(|(values, packed)| ggml::quantize_q8_0(values, ne[0], packed))
            .map_err(|error| {
                let (name, problem) = (tensor.name.clone(), error.to_string());
                self.fault(Fault::Weights { name, problem })
            })?;
        // The file's own bytes are not read again.
        self.gguf.advise_unneeded(tensor);
        Stored::copied(Type::Q8_0, ne, &packed).ok_or_else(|| self.no_memory(tensor, packed.len()))
    }

    /// A matrix `[k, m]` of this name. In 8 bits it is packed, unless the file has it in fewer.
    pub fn linear(&self, name: &str, k: usize, m: usize) -> Result<Matrix, OpenError> {
        let (tensor, ty) = self.find(name)?;
        if tensor.ne != [k as u64, m as u64, 1, 1] {
            return Err(self.misshapen(tensor, &[k, m]));
        }
        let fine = !ty.is_quantized() || ty == Type::Q8_0;
        if self.precision == Precision::Exact || !fine || !Panels::supports(k) {
            return Ok(Matrix::Stored(self.matrix(tensor, ty, k, m)?));
        }
        let (row, broken) = (ty.row_bytes(k), AtomicBool::new(false));
        let panels = Panels::pack([k, m], |first, n| {
            let mut values = vec![0.0; n * k];
            ty.to_f32(&self.gguf.data(tensor)[first * row..(first + n) * row], &mut values);
            if values.iter().any(|value| !value.is_finite()) {
                broken.store(true, Ordering::Relaxed);
                values.fill(0.0);
            }
            values
        });
        if broken.into_inner() {
            let problem = "a value is not finite".to_owned();
            return Err(self.fault(Fault::Weights { name: name.to_owned(), problem }));
        }
        // The file's own bytes are not read again.
        self.gguf.advise_unneeded(tensor);
        panels.map(Matrix::Panels).ok_or_else(|| self.no_memory(tensor, k * m))
    }

    /// A matrix `[k, m]` of this name, in f32.
    pub fn linear_f32(&self, name: &str, k: usize, m: usize) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.find(name)?;
        if tensor.ne != [k as u64, m as u64, 1, 1] {
            return Err(self.misshapen(tensor, &[k, m]));
        }
        Stored::from_f32([k, m, 1, 1], &self.values(tensor, ty))
            .ok_or_else(|| self.no_memory(tensor, k * m * 4))
    }

    /// The embedder whose names begin so, from the tower's `width` to the text model's.
    pub fn embedder(
        &self,
        prefix: &str,
        width: usize,
        embedding: usize,
    ) -> Result<Embedder, OpenError> {
        let name = |suffix: &str| format!("{prefix}.{suffix}.weight");
        let (rows, ty) = self.find(&name("embedding"))?;
        let [found, ids, ..] = rows.ne.map(|n| n as usize);
        if found != width || ids == 0 || rows.n_elements() != (found * ids) as u64 {
            return Err(self.misshapen(rows, &[width, ids.max(1)]));
        }
        let table = Stored::from_f32([width, ids, 1, 1], &self.values(rows, ty))
            .ok_or_else(|| self.no_memory(rows, width * ids * 4))?;
        Ok(Embedder {
            table,
            hard_norm: self.vector(&name("hard_emb_norm"), width)?,
            soft_norm: self.vector(&name("soft_emb_norm"), width)?,
            // The few rows that meet it are worth more than its speed.
            projection: self.linear_f32(&name("input_projection"), width, embedding)?,
        })
    }
}
