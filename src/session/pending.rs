//! Stand-ins for types of the rooms below, until those land.

pub use crate::model::text::{CacheType, DecoderOptions, Kernels};
pub use crate::tokenizer::TokenId;

#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub repeat_last_n: usize,
    pub seed: u64,
}
