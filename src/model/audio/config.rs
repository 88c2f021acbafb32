//! What a file of towers says about its sound tower. Keys: gguf.md §4.3; defaults are the real
//! model's constants.

use crate::ggml::Span;
use crate::gguf::Gguf;
use crate::model::error::OpenError;
use crate::model::tower::keys::{self, Keys};

/// Sizes and constants of the conformer and its embedder.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    /// Mel bins of a frame.
    pub mel_bins: usize,
    /// Values of a frame inside the conformer.
    pub width: usize,
    /// Conformer blocks.
    pub blocks: usize,
    pub heads: usize,
    /// Strides of the two subsampling convolutions, `[time, mel bins]` each.
    pub strides: [[usize; 2]; 2],
    /// Frames that a frame sees, itself included, and frames after it.
    pub context_left: usize,
    pub context_right: usize,
    /// Attention's logits are `cap · tanh(z / cap)`.
    pub logit_cap: f32,
    /// Of so many frames one becomes a soft token.
    pub reduction: usize,
    /// Of the feed-forward networks.
    pub residual_weight: f32,
    /// Activations are clamped to ± this.
    pub clipping: f32,
    /// eps of the light convolution's norms and of the embedder.
    pub eps: f32,
    /// eps of the cumulative group norms.
    pub group_norm_eps: f32,
    /// Soft tokens of a clip, whatever its length.
    pub soft_tokens: usize,
    /// The first id that the embedder's table holds.
    pub vocab_offset: usize,
    /// The id whose embedding fills up what a clip leaves of its soft tokens.
    pub pad_id: usize,
}

/// eps of every other norm inside the tower, whatever the config says.
pub const TOWER_EPS: f32 = 1e-6;

/// The published models clamp to 1e10, where f32 has long lost what matters.
const OUT_OF_REACH: f32 = 1e9;

const MOST: u32 = 1 << 16;
const MOST_SPAN: u32 = 4096;
const MOST_BLOCKS: u32 = 1024;

impl AudioConfig {
    /// Whether the file says that it has a sound tower.
    ///
    /// # Errors
    /// A key of another type.
    pub fn present(gguf: &Gguf) -> Result<bool, OpenError> {
        keys::present(gguf, "audio")
    }

    /// Reads and checks the keys.
    ///
    /// # Errors
    /// Another architecture, a file without this tower, or a key that is wrong.
    pub fn read(gguf: &Gguf) -> Result<Self, OpenError> {
        let r = Reader { gguf, keys: Keys::of(gguf, "audio", "gemma3na")? };
        let config = Self {
            mel_bins: r.clip("num_mel_bins", 1, 128, MOST_SPAN)?,
            width: r.clip("embedding_length", 1, 1536, MOST)?,
            blocks: r.clip("block_count", 1, 12, MOST_BLOCKS)?,
            heads: r.clip("attention.head_count", 1, 8, MOST_SPAN)?,
            strides: r.strides()?,
            context_left: r.own("context_left", 1, 13, MOST_SPAN)?,
            context_right: r.own("context_right", 0, 0, MOST_SPAN)?,
            logit_cap: r.real("logit_cap", 50.0)?,
            reduction: r.own("reduction_factor", 1, 4, MOST_SPAN)?,
            residual_weight: r.real("residual_weight", 0.5)?,
            clipping: r.real("gradient_clipping", 1e10)?,
            eps: r.real("rms_norm_eps", 1e-6)?,
            group_norm_eps: r.real("group_norm_eps", 1e-3)?,
            soft_tokens: r.own("soft_tokens", 1, 188, MOST)?,
            vocab_offset: r.own("vocab_offset", 1, 262_272, u32::MAX)?,
            pad_id: r.own("pad_id", 1, 262_399, u32::MAX)?,
        };
        // Half of the values of a position are sines, half cosines.
        if !config.width.is_multiple_of(config.heads) || !config.width.is_multiple_of(2) {
            let problem = format!("{} values are no {} heads", config.width, config.heads);
            return Err(r.keys.bad("clip.audio.attention.head_count", problem));
        }
        if config.pad_id < config.vocab_offset {
            let problem = format!("{} is not an id of sounds", config.pad_id);
            return Err(r.keys.bad("gemma3n.cli.audio.pad_id", problem));
        }
        Ok(config)
    }

    /// Values of a head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// The frames that a frame sees.
    pub fn span(&self) -> Span {
        Span { past: self.context_left - 1, future: self.context_right, cap: self.logit_cap }
    }

    /// What activations are clamped to, if that is within reach.
    pub fn bound(&self) -> Option<f32> {
        (self.clipping < OUT_OF_REACH).then_some(self.clipping)
    }
}

struct Reader<'a> {
    gguf: &'a Gguf,
    keys: Keys<'a>,
}

impl Reader<'_> {
    /// A key that llama.cpp's converter writes.
    fn clip(&self, key: &str, least: u32, default: u32, most: u32) -> Result<usize, OpenError> {
        self.keys.number(&format!("clip.audio.{key}"), least, default, most)
    }

    /// A key of ours.
    fn own(&self, key: &str, least: u32, default: u32, most: u32) -> Result<usize, OpenError> {
        self.keys.number(&format!("gemma3n.cli.audio.{key}"), least, default, most)
    }

    fn real(&self, key: &str, default: f32) -> Result<f32, OpenError> {
        self.keys.positive(&format!("gemma3n.cli.audio.{key}"), default)
    }

    fn strides(&self) -> Result<[[usize; 2]; 2], OpenError> {
        let key = "gemma3n.cli.audio.conv_strides";
        let Some(found) = self.gguf.metadata().i32_array(key)? else {
            return Ok([[2, 2], [2, 2]]);
        };
        let stride = |&stride: &i32| {
            usize::try_from(stride).ok().filter(|n| (1..=MOST_SPAN as usize).contains(n))
        };
        let sizes: Option<Vec<_>> = found.iter().map(stride).collect();
        match sizes.as_deref() {
            Some(&[t0, f0, t1, f1]) => Ok([[t0, f0], [t1, f1]]),
            _ => Err(self.keys.bad(key, format!("expected four strides, found {found:?}"))),
        }
    }
}
