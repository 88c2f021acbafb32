//! Stand-ins for types of the rooms below, until those land.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    F32,
    F16,
    Q8_0,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    Auto,
    Ggml,
}

#[derive(Clone, Debug)]
pub struct DecoderOptions {
    pub context: usize,
    pub batch: usize,
    pub cache: CacheType,
    pub threads: usize,
    pub kernels: Kernels,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId(pub u32);
