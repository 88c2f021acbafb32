//! The tower's tensors. Names and shapes: gguf.md §4.5, where `conv_norm` and `norm_conv` are
//! crossed and `layer_pre_norm` is a block's last norm.

use std::sync::Arc;

use super::attention::positions;
use super::config::AudioConfig;
use crate::ggml::Stored;
use crate::gguf::Gguf;
use crate::model::error::{Fault, OpenError};
use crate::model::tower::Precision;
use crate::model::tower::embedder::Embedder;
use crate::model::tower::loader::Loader;
use crate::model::tower::matrix::Matrix;

/// A convolution over time and mel bins, and its group norm.
pub struct Subsampling {
    /// f32 `[taps·Cin, Cout]`, the channels of a tap together.
    pub weight: Stored,
    /// Across mel bins, then down the frames.
    pub kernel: [usize; 2],
    pub norm: Stored,
}

pub struct FeedForward {
    pub pre_norm: Stored,
    pub up: Matrix,
    pub down: Matrix,
    /// With the residual's weight in it.
    pub post_norm: Stored,
}

pub struct Attention {
    pub pre_norm: Stored,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    /// f32 `[d/heads]`: what queries are multiplied with, value by value.
    pub scale: Stored,
    /// f32 `[d, span]`: what nearness adds to a key, from the farthest past on.
    pub positions: Stored,
    pub output: Matrix,
    pub post_norm: Stored,
}

pub struct LightConvolution {
    pub pre_norm: Stored,
    pub start: Matrix,
    /// f32 `[d, taps]`
    pub depthwise: Stored,
    pub norm: Stored,
    pub end: Matrix,
}

pub struct Block {
    pub start: FeedForward,
    pub attention: Attention,
    pub convolution: LightConvolution,
    pub end: FeedForward,
    pub norm: Stored,
}

/// All weights of the tower and its embedder.
pub struct AudioWeights {
    pub subsampling: [Subsampling; 2],
    pub input_projection: Matrix,
    pub blocks: Vec<Block>,
    pub embedder: Embedder,
}

/// Taps of a subsampling kernel along an axis, and of a light convolution.
const MOST_TAPS: usize = 64;

impl AudioWeights {
    /// Finds and checks every tensor.
    ///
    /// # Errors
    /// A tensor that is missing, misshapen, or of a wrong type.
    pub fn open(
        gguf: &Arc<Gguf>,
        config: &AudioConfig,
        embedding: usize,
        precision: Precision,
    ) -> Result<Self, OpenError> {
        let l = Loader { gguf, precision };
        let (first, channels) = l.subsampling(0, 1)?;
        let (second, channels) = l.subsampling(1, channels)?;
        let bins = [&first, &second]
            .into_iter()
            .zip(config.strides)
            .try_fold(config.mel_bins, |bins, (conv, [_, stride])| {
                Some((bins + 2).checked_sub(conv.kernel[0])? / stride + 1)
            });
        let Some(bins) = bins else {
            let problem = format!("the kernels are wider than {} bins", config.mel_bins);
            let key = "clip.audio.num_mel_bins".to_owned();
            return Err(l.fault(Fault::Key { key, problem }));
        };
        let projection = ["a.pre_encode.out.weight", "a.input_projection.weight"];
        let name = projection.into_iter().find(|name| gguf.tensor(name).is_some());
        let input_projection =
            l.linear(name.unwrap_or(projection[0]), channels * bins, config.width)?;
        let blocks = (0..config.blocks).map(|block| l.conformer_block(config, block));
        let blocks = blocks.collect::<Result<_, _>>()?;
        l.check_blocks(config.blocks)?;
        let embedder = l.embedder("mm.a", config.width, embedding)?;
        let [_, ids, ..] = embedder.table.ne();
        if config.pad_id - config.vocab_offset >= ids {
            let problem = format!("{} is beyond the {ids} ids of sounds", config.pad_id);
            let key = "gemma3n.cli.audio.pad_id".to_owned();
            return Err(l.fault(Fault::Key { key, problem }));
        }
        Ok(Self { subsampling: [first, second], input_projection, blocks, embedder })
    }
}

impl Loader<'_> {
    /// The kernel of a subsampling convolution, and how many channels it gives.
    fn subsampling(&self, index: usize, cin: usize) -> Result<(Subsampling, usize), OpenError> {
        let (tensor, ty) = self.find(&format!("a.conv1d.{index}.weight"))?;
        let [kx, ky, found, cout] = tensor.ne.map(|n| n as usize);
        let taps = 1..=MOST_TAPS;
        if found != cin || cout == 0 || !taps.contains(&kx) || !taps.contains(&ky) {
            return Err(self.misshapen(tensor, &[3, 3, cin, cout.max(1)]));
        }
        let values = self.channels_first(tensor, ty, kx * ky, cin);
        let weight = Stored::from_f32([kx * ky * cin, cout, 1, 1], &values)
            .ok_or_else(|| self.no_memory(tensor, 4 * values.len()))?;
        let norm = self.vector(&format!("a.conv1d.{index}.norm.weight"), cout)?;
        Ok((Subsampling { weight, kernel: [kx, ky], norm }, cout))
    }

    fn conformer_block(&self, config: &AudioConfig, block: usize) -> Result<Block, OpenError> {
        let d = config.width;
        let name = |suffix: &str| format!("a.blk.{block}.{suffix}.weight");
        let square = |suffix: &str| self.linear(&name(suffix), d, d);
        let norm = |suffix: &str| self.vector(&name(suffix), d);
        let attention = Attention {
            pre_norm: norm("ln1")?,
            q: square("attn_q")?,
            k: square("attn_k")?,
            v: square("attn_v")?,
            scale: self.query_scale(config, &format!("a.blk.{block}.per_dim_scale"))?,
            positions: self.positions(config, &name("linear_pos"))?,
            output: square("attn_out")?,
            post_norm: norm("ln2")?,
        };
        let convolution = LightConvolution {
            pre_norm: norm("conv_norm")?,
            start: self.linear(&name("conv_pw1"), d, 2 * d)?,
            depthwise: self.causal_kernel(&name("conv_dw"), d)?,
            norm: norm("norm_conv")?,
            end: square("conv_pw2")?,
        };
        Ok(Block {
            start: self.feed_forward(config, block, "")?,
            attention,
            convolution,
            end: self.feed_forward(config, block, "_1")?,
            norm: norm("layer_pre_norm")?,
        })
    }

    fn feed_forward(
        &self,
        config: &AudioConfig,
        block: usize,
        which: &str,
    ) -> Result<FeedForward, OpenError> {
        let d = config.width;
        let name = |suffix: &str| format!("a.blk.{block}.{suffix}{which}.weight");
        let up = name("ffn_up");
        let [_, width, ..] = self.find(&up)?.0.ne;
        Ok(FeedForward {
            pre_norm: self.vector(&name("ffn_norm"), d)?,
            up: self.linear(&up, d, width as usize)?,
            down: self.linear(&name("ffn_down"), width as usize, d)?,
            post_norm: self.adapted(&name("ffn_post_norm"), d, |w| w * config.residual_weight)?,
        })
    }

    /// `d^-½ / ln 2 · softplus(per_dim_scale)`, d of a head.
    fn query_scale(&self, config: &AudioConfig, name: &str) -> Result<Stored, OpenError> {
        let d = config.head_width();
        let plain = (d as f64).powf(-0.5) / std::f64::consts::LN_2;
        self.adapted(name, d, |w| (plain * f64::from(w).exp().ln_1p()) as f32)
    }

    fn positions(&self, config: &AudioConfig, name: &str) -> Result<Stored, OpenError> {
        let projection = self.linear_f32(name, config.width, config.width)?;
        let values = positions(config, &projection);
        let ne = [config.width, config.span().rows(), 1, 1];
        Stored::from_f32(ne, &values).ok_or_else(|| {
            self.fault(Fault::Memory { name: name.to_owned(), bytes: 4 * values.len() })
        })
    }

    /// `[taps, 1, d]` or `[taps, d]` in the file.
    fn causal_kernel(&self, name: &str, d: usize) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.find(name)?;
        let taps = tensor.ne[0] as usize;
        if !(1..=MOST_TAPS).contains(&taps) || tensor.n_elements() != (taps * d) as u64 {
            return Err(self.misshapen(tensor, &[5, 1, d]));
        }
        let values = self.taps_outside(tensor, ty, d, taps);
        Stored::from_f32([d, taps, 1, 1], &values)
            .ok_or_else(|| self.no_memory(tensor, 4 * values.len()))
    }

    /// More blocks than the metadata say would be left out in silence.
    fn check_blocks(&self, blocks: usize) -> Result<(), OpenError> {
        let number = |name: &str| name.strip_prefix("a.blk.")?.split('.').next()?.parse().ok();
        let mut tensors = self.gguf.tensors().iter();
        match tensors.find(|tensor| number(&tensor.name).is_some_and(|n: usize| n >= blocks)) {
            Some(tensor) => Err(self.fault(Fault::Stray(tensor.name.clone()))),
            None => Ok(()),
        }
    }
}
