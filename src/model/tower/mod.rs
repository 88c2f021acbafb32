//! What the two towers have in common: how they run, how their keys and tensors are found, convolutions, the
//! embedder behind them.

pub(super) mod convolution;
pub(super) mod embedder;
pub(super) mod keys;
pub(super) mod loader;
pub(super) mod matrix;

use super::scope::Kernels;

/// In which precision products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Weights as they are, activations in f32.
    Exact,
    /// Weights and activations in 8 bits with a scale for each 32; sums are exact.
    #[default]
    Int8,
}

/// How an encoder runs.
#[derive(Clone, Copy, Debug)]
pub struct EncoderOptions {
    pub threads: usize,
    pub kernels: Kernels,
}
