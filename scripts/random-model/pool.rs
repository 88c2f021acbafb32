//! Gaussian rows of any type, fast: a pool of blocks is quantized once and rows are laid from it.

use std::collections::HashMap;

use anyhow::{Context, Result};
use gemma3n::{
    ggml::{Type, quantize},
    gguf::TensorType,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Pieces in a pool. A row of 2048 is eight picks: of 10 million rows hardly two share three.
const PICKS: usize = 8192;

/// One pool for each type, deviation and length of the pieces.
pub struct Pools {
    seed: u64,
    pools: HashMap<(TensorType, u32, usize), Pool>,
}

struct Pool {
    packed: Vec<u8>,
    piece_bytes: usize,
}

impl Pools {
    pub fn new(seed: u64) -> Self {
        Self { seed, pools: HashMap::new() }
    }

    /// Appends `rows` rows of `row_len` values with the standard deviation `deviation` to `bytes`.
    pub fn lay_rows(
        &mut self,
        (ty, deviation): (TensorType, f32),
        (row_len, rows): (usize, usize),
        rng: &mut ChaCha8Rng,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let piece = piece_len(ty, row_len);
        let pool = match self.pools.entry((ty, deviation.to_bits(), piece)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Pool::new(ty, deviation, piece, self.seed)?)
            }
        };
        for _ in 0..rows * (row_len / piece) {
            let at = rng.random_range(0..PICKS) * pool.piece_bytes;
            bytes.extend_from_slice(&pool.packed[at..at + pool.piece_bytes]);
        }
        Ok(())
    }
}

/// The longest piece of at most 256 values that rows are made of: a multiple of the block.
fn piece_len(ty: TensorType, row_len: usize) -> usize {
    let block = ty.block_len() as usize;
    let fits = |len: &usize| row_len.is_multiple_of(*len) && len.is_multiple_of(block);
    (1..=256.min(row_len)).rev().find(fits).unwrap_or(row_len)
}

impl Pool {
    fn new(ty: TensorType, deviation: f32, piece: usize, seed: u64) -> Result<Self> {
        let element = Type::weight_from_id(ty.id())
            .with_context(|| format!("{ty} is not a type of weights"))?;
        let chunks = (0..PICKS as u64 / 64).into_par_iter().map(|chunk| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(
                (chunk << 40) | (u64::from(ty.id()) << 32) | u64::from(deviation.to_bits()),
            );
            let values: Vec<f32> = StandardNormal
                .sample_iter(rng)
                .take(64 * piece)
                .map(|x: f32| x * deviation)
                .collect();
            quantize(element, &values, piece)
        });
        let packed =
            chunks.collect::<Result<Vec<_>, _>>().with_context(|| ty.to_string())?.concat();
        Ok(Self { piece_bytes: packed.len() / PICKS, packed })
    }
}
