//! The sound tower, a conformer of the Universal Speech Model.
//!
//! ```text
//! conv1d.0    [kw, kh, 1, C0]    convolutions over mel bins (kw) and time (kh), group norms
//! conv1d.1    [kw, kh, C0, C1]
//! pre_encode.out    [C1 · bins left, d]
//! blk.N       feed-forward, attention with relative positions, light convolution, feed-forward
//! ```
//!
//! The names are those of llama.cpp's converter, crossings included: `conv_norm` is the norm before
//! the light convolution, `norm_conv` the one inside, `layer_pre_norm` the block's last one.
//! Reference: `Gemma3nAudioEncoder`.

use super::{Expected, embedder};

/// Feed-forward width over `d`; not configurable in the reference.
const FEED_FORWARD: u64 = 4;

/// The sizes of a tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioTower {
    /// Blocks.
    pub layers: u64,
    /// d, a multiple of `heads`.
    pub width: u64,
    pub heads: u64,
    /// Mel bins of a frame.
    pub mel_bins: u64,
    /// The two subsampling convolutions.
    pub subsampling: [Subsampling; 2],
    /// Frames that the light convolution sees.
    pub conv_kernel: u64,
    /// Width of the text model.
    pub text: u64,
    /// Rows of the embedding of ids that belong to sound.
    pub vocab: u64,
}

/// A convolution before the conformer; `[time, mel bins]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsampling {
    pub channels: u64,
    pub kernel: [u64; 2],
    pub stride: [u64; 2],
}

impl Subsampling {
    /// Mel bins after it: one bin of padding on either side. `None` where the kernel is wider.
    fn bins(&self, bins: u64) -> Option<u64> {
        Some((bins + 2).checked_sub(self.kernel[1])? / self.stride[1] + 1)
    }
}

impl AudioTower {
    /// Width of the feed-forward networks.
    pub fn feed_forward(&self) -> u64 {
        FEED_FORWARD * self.width
    }

    /// Mel bins left after subsampling; `None` where the kernels are too wide for them.
    pub fn bins_left(&self) -> Option<u64> {
        self.subsampling.iter().try_fold(self.mel_bins, |bins, conv| conv.bins(bins))
    }

    /// All tensors, in the order of their names in a checkpoint; the embedder's last.
    pub fn expected(&self) -> Vec<Expected> {
        let mut table = Vec::new();
        for layer in 0..self.layers {
            self.expect_block(&format!("a.blk.{layer}"), &mut table);
        }
        let mut channels = 1;
        for (index, conv) in self.subsampling.iter().enumerate() {
            let [time, bins] = conv.kernel;
            let name = format!("a.conv1d.{index}");
            let ne = [bins, time, channels, conv.channels];
            table.push(Expected::new(format!("{name}.weight"), &ne).f32());
            table.push(Expected::new(format!("{name}.norm.weight"), &[conv.channels]));
            channels = conv.channels;
        }
        let flat = channels * self.bins_left().unwrap_or(0);
        table.push(Expected::new("a.pre_encode.out.weight".into(), &[flat, self.width]));
        table.extend(embedder("mm.a", self.width, self.text, self.vocab));
        table
    }

    fn expect_block(&self, block: &str, table: &mut Vec<Expected>) {
        let (d, f) = (self.width, self.feed_forward());
        let mut add = |name: &str, ne: &[u64]| {
            table.push(Expected::new(format!("{block}.{name}"), ne));
        };
        for name in ["attn_k", "attn_q", "attn_v", "linear_pos", "attn_out", "conv_pw2"] {
            add(&format!("{name}.weight"), &[d, d]);
        }
        add("per_dim_scale", &[d / self.heads]);
        for name in ["ln1", "ln2", "conv_norm", "norm_conv", "layer_pre_norm"] {
            add(&format!("{name}.weight"), &[d]);
        }
        for end in ["", "_1"] {
            add(&format!("ffn_up{end}.weight"), &[d, f]);
            add(&format!("ffn_down{end}.weight"), &[f, d]);
            add(&format!("ffn_norm{end}.weight"), &[d]);
            add(&format!("ffn_post_norm{end}.weight"), &[d]);
        }
        add("conv_pw1.weight", &[d, 2 * d]);
        let depthwise = [self.conv_kernel, 1, d];
        table.push(Expected::new(format!("{block}.conv_dw.weight"), &depthwise).f32());
    }
}
