//! The tower's tensors: which blocks there are is read off their names, their shapes must chain.
//! Names and shapes: gguf.md §4.4 (kernels `[kw, kh, Cin, Cout]`, pointwise ones two 1s first).
//!
//! Pointwise kernels are matrices. The few with a window are copied with the channels first, as maps have them.

use std::sync::Arc;

use super::config::VisionConfig;
use crate::ggml::Stored;
use crate::gguf::{Gguf, Tensor};
use crate::model::error::{Fault, OpenError};
use crate::model::tower::Precision;
use crate::model::tower::embedder::Embedder;
use crate::model::tower::loader::Loader;

/// A convolution with a full window.
pub struct Convolution {
    /// `[k²·Cin, Cout]`, the channels of a tap together.
    pub weight: Stored,
    pub kernel: usize,
    pub stride: usize,
}

/// A convolution of each channel by itself.
pub struct Depthwise {
    /// f32 `[C, k²]`
    pub weight: Stored,
    pub kernel: usize,
    pub stride: usize,
}

pub struct EdgeResidual {
    pub conv_exp: Convolution,
    pub bn1: Stored,
    pub conv_pwl: Stored,
    pub bn2: Stored,
    pub skips: bool,
}

pub struct InvertedResidual {
    pub dw_start: Option<(Depthwise, Stored)>,
    pub pw_exp: (Stored, Stored),
    pub dw_mid: Option<(Depthwise, Stored)>,
    pub pw_proj: (Stored, Stored),
    pub layer_scale: Option<Stored>,
    pub skips: bool,
}

/// Keys or values of an attention: an optional reduction, then the projection.
pub struct Reduced {
    pub down: Option<(Depthwise, Stored)>,
    pub proj: Stored,
}

pub struct Attention {
    pub norm: Stored,
    pub query: Stored,
    pub key: Reduced,
    pub value: Reduced,
    pub output: Stored,
    pub layer_scale: Stored,
}

pub enum Block {
    EdgeResidual(EdgeResidual),
    InvertedResidual(InvertedResidual),
    Attention(Attention),
}

/// The multi-scale fusion adapter.
pub struct Fusion {
    pub ffn: InvertedResidual,
    pub norm: Stored,
}

/// All weights of the tower and its embedder.
pub struct VisionWeights {
    pub stem: Convolution,
    /// f32 `[C]`, zero in files of the first release.
    pub stem_bias: Option<Stored>,
    pub stem_norm: Stored,
    pub stages: Vec<Vec<Block>>,
    pub fusion: Fusion,
    pub embedder: Embedder,
}

impl VisionWeights {
    /// Finds and checks every tensor.
    ///
    /// # Errors
    /// A tensor that is missing, that does not chain with its neighbours, or of a wrong type.
    pub fn open(
        gguf: &Arc<Gguf>,
        config: &VisionConfig,
        embedding: usize,
        precision: Precision,
    ) -> Result<Self, OpenError> {
        let l = Loader { gguf, precision };
        let (stem, mut channels) = l.convolution("v.conv_stem.conv.weight", 3, 2)?;
        let stem_bias = l.optional("v.conv_stem.conv.bias", |name| l.vector(name, channels))?;
        let stem_norm = l.vector("v.conv_stem.bn.weight", channels)?;
        let mut stages = Vec::new();
        let mut outputs = Vec::new();
        loop {
            let mut blocks = Vec::new();
            while let Some(kind) = l.kind(stages.len(), blocks.len()) {
                let block = l.block(kind, stages.len(), blocks.len(), &mut channels)?;
                blocks.push(block);
            }
            if blocks.is_empty() {
                break;
            }
            stages.push(blocks);
            outputs.push(channels);
        }
        l.check_strays(&stages)?;
        let [.., fine, coarse] = outputs[..] else {
            return Err(l.missing("v.blk.1.0.pw_exp.conv.weight"));
        };
        let (ffn, width) = l.inverted_residual("v.msfa.ffn.", fine + coarse, 1)?;
        let fusion = Fusion { ffn, norm: l.vector("v.msfa.norm.weight", width)? };
        l.check_grid(config, stages.len())?;
        let embedder = l.embedder("mm", width, embedding)?;
        Ok(Self { stem, stem_bias, stem_norm, stages, fusion, embedder })
    }
}

/// Kinds of blocks, told apart by a tensor that only they have.
#[derive(Clone, Copy)]
enum Kind {
    EdgeResidual,
    InvertedResidual,
    Attention,
}

const KINDS: [(&str, Kind); 3] = [
    ("conv_exp.weight", Kind::EdgeResidual),
    ("pw_exp.conv.weight", Kind::InvertedResidual),
    ("attn.query.proj.weight", Kind::Attention),
];

impl Loader<'_> {
    /// A 1 × 1 convolution from so many channels, as a matrix, and to how many.
    fn pointwise(&self, name: &str, cin: usize) -> Result<(Stored, usize), OpenError> {
        let (tensor, ty) = self.find(name)?;
        let [kw, kh, found, cout] = tensor.ne;
        if [kw, kh, found] != [1, 1, cin as u64] || cout == 0 {
            return Err(self.misshapen(tensor, &[1, 1, cin, cout as usize]));
        }
        let cout = cout as usize;
        Ok((self.matrix(tensor, ty, cin, cout)?, cout))
    }

    fn pointwise_to(&self, name: &str, cin: usize, cout: usize) -> Result<Stored, OpenError> {
        let (weight, found) = self.pointwise(name, cin)?;
        if found != cout {
            let (tensor, _) = self.find(name)?;
            return Err(self.misshapen(tensor, &[1, 1, cin, cout]));
        }
        Ok(weight)
    }

    /// A square window's side; windows have an odd side of at most 15.
    fn window(&self, tensor: &Tensor, expected: [usize; 2]) -> Result<usize, OpenError> {
        let [kw, kh, cin, cout] = tensor.ne.map(|n| n as usize);
        let odd = kw % 2 == 1 && kw <= 15 && kw == kh;
        if !odd || cin != expected[0] || (expected[1] != 0 && cout != expected[1]) || cout == 0 {
            return Err(self.misshapen(tensor, &[3, 3, expected[0], expected[1].max(1)]));
        }
        Ok(kw)
    }

    /// A convolution with a full window, and its channels.
    fn convolution(
        &self,
        name: &str,
        cin: usize,
        stride: usize,
    ) -> Result<(Convolution, usize), OpenError> {
        let (tensor, ty) = self.find(name)?;
        let kernel = self.window(tensor, [cin, 0])?;
        let cout = tensor.ne[3] as usize;
        let (length, channels_first) =
            (kernel * kernel * cin, self.channels_first(tensor, ty, kernel * kernel, cin));
        let ne = [length, cout, 1, 1];
        let int8 = self.precision == Precision::Int8 && length.is_multiple_of(32);
        let weight = if int8 {
            self.quantized(tensor, &channels_first, ne)?
        } else {
            Stored::from_f32(ne, &channels_first)
                .ok_or_else(|| self.no_memory(tensor, channels_first.len() * 4))?
        };
        Ok((Convolution { weight, kernel, stride }, cout))
    }

    fn depthwise(
        &self,
        name: &str,
        channels: usize,
        stride: usize,
    ) -> Result<Depthwise, OpenError> {
        let (tensor, ty) = self.find(name)?;
        let kernel = self.window(tensor, [1, channels])?;
        let taps = kernel * kernel;
        let channels_first = self.taps_outside(tensor, ty, channels, taps);
        let weight = Stored::from_f32([channels, taps, 1, 1], &channels_first)
            .ok_or_else(|| self.no_memory(tensor, channels_first.len() * 4))?;
        Ok(Depthwise { weight, kernel, stride })
    }

    fn kind(&self, stage: usize, block: usize) -> Option<Kind> {
        let has = |suffix| self.gguf.tensor(&format!("v.blk.{stage}.{block}.{suffix}")).is_some();
        KINDS.iter().find(|(suffix, _)| has(suffix)).map(|&(_, kind)| kind)
    }

    /// A tensor of a block that is of no kind, or beyond a gap, would be left out in silence.
    fn check_strays(&self, stages: &[Vec<Block>]) -> Result<(), OpenError> {
        let known = |name: &str| {
            let mut numbers = name.strip_prefix("v.blk.")?.splitn(3, '.');
            let stage: usize = numbers.next()?.parse().ok()?;
            let block: usize = numbers.next()?.parse().ok()?;
            Some(stages.get(stage).is_some_and(|blocks| block < blocks.len()))
        };
        let stray = self.gguf.tensors().iter().find(|tensor| known(&tensor.name) == Some(false));
        match stray {
            Some(tensor) => Err(self.fault(Fault::Stray(tensor.name.clone()))),
            None => Ok(()),
        }
    }

    /// The fused map, two halvings before the last, must be pooled evenly.
    fn check_grid(&self, config: &VisionConfig, stages: usize) -> Result<(), OpenError> {
        let stride = 1usize.checked_shl(stages as u32).unwrap_or(0);
        let whole = stride > 0 && config.image_size.is_multiple_of(stride * 2);
        if whole && (config.image_size / stride).is_multiple_of(config.grid) {
            return Ok(());
        }
        let problem = format!(
            "{} pixels do not give {} × {} soft tokens after {stages} stages",
            config.image_size, config.grid, config.grid
        );
        Err(self.fault(Fault::Key { key: "clip.vision.image_size".into(), problem }))
    }

    fn block(
        &self,
        kind: Kind,
        stage: usize,
        block: usize,
        channels: &mut usize,
    ) -> Result<Block, OpenError> {
        let prefix = format!("v.blk.{stage}.{block}.");
        let stride = if block == 0 { 2 } else { 1 };
        Ok(match kind {
            Kind::EdgeResidual => {
                let (found, cout) = self.edge_residual(&prefix, *channels, stride)?;
                *channels = cout;
                Block::EdgeResidual(found)
            }
            Kind::InvertedResidual => {
                let (found, cout) = self.inverted_residual(&prefix, *channels, stride)?;
                *channels = cout;
                Block::InvertedResidual(found)
            }
            Kind::Attention => Block::Attention(self.attention(&prefix, *channels)?),
        })
    }

    fn edge_residual(
        &self,
        prefix: &str,
        cin: usize,
        stride: usize,
    ) -> Result<(EdgeResidual, usize), OpenError> {
        let name = |suffix: &str| format!("{prefix}{suffix}.weight");
        let (conv_exp, middle) = self.convolution(&name("conv_exp"), cin, stride)?;
        let bn1 = self.vector(&name("bn1"), middle)?;
        let (conv_pwl, cout) = self.pointwise(&name("conv_pwl"), middle)?;
        let bn2 = self.vector(&name("bn2"), cout)?;
        let skips = stride == 1 && cin == cout;
        Ok((EdgeResidual { conv_exp, bn1, conv_pwl, bn2, skips }, cout))
    }

    /// Blocks of the adapter have neither a skip nor a scale.
    fn inverted_residual(
        &self,
        prefix: &str,
        cin: usize,
        stride: usize,
    ) -> Result<(InvertedResidual, usize), OpenError> {
        let name = |suffix: &str| format!("{prefix}{suffix}.weight");
        let reduces_in_the_middle = self.gguf.tensor(&name("dw_mid.conv")).is_some();
        let start_stride = if reduces_in_the_middle { 1 } else { stride };
        let normed = |part: &str, channels: usize, stride: usize| {
            self.optional(&name(&format!("{part}.conv")), |kernel| {
                let depthwise = self.depthwise(kernel, channels, stride)?;
                Ok((depthwise, self.vector(&name(&format!("{part}.bn")), channels)?))
            })
        };
        let dw_start = normed("dw_start", cin, start_stride)?;
        let (expand, middle) = self.pointwise(&name("pw_exp.conv"), cin)?;
        let pw_exp = (expand, self.vector(&name("pw_exp.bn"), middle)?);
        let dw_mid = normed("dw_mid", middle, stride)?;
        let (project, cout) = self.pointwise(&name("pw_proj.conv"), middle)?;
        let pw_proj = (project, self.vector(&name("pw_proj.bn"), cout)?);
        let in_tower = prefix.starts_with("v.blk.");
        let scale = format!("{prefix}layer_scale.gamma");
        let layer_scale = in_tower.then(|| self.vector(&scale, cout)).transpose()?;
        let skips = in_tower && stride == 1 && cin == cout;
        if in_tower && stride != 1 && dw_start.is_none() && dw_mid.is_none() {
            return Err(self.missing(&name("dw_mid.conv")));
        }
        Ok((InvertedResidual { dw_start, pw_exp, dw_mid, pw_proj, layer_scale, skips }, cout))
    }

    fn attention(&self, prefix: &str, channels: usize) -> Result<Attention, OpenError> {
        let name = |suffix: &str| format!("{prefix}{suffix}.weight");
        let (query, width) = self.pointwise(&name("attn.query.proj"), channels)?;
        let reduced = |part: &str| -> Result<(Reduced, usize), OpenError> {
            let down = self.optional(&name(&format!("attn.{part}.down_conv")), |kernel| {
                let depthwise = self.depthwise(kernel, channels, 2)?;
                Ok((depthwise, self.vector(&name(&format!("attn.{part}.norm")), channels)?))
            })?;
            let (proj, head) = self.pointwise(&name(&format!("attn.{part}.proj")), channels)?;
            Ok((Reduced { down, proj }, head))
        };
        let (key, head) = reduced("key")?;
        let (value, value_head) = reduced("value")?;
        let matching = key.down.is_some() == value.down.is_some();
        if !width.is_multiple_of(head) || head != value_head || !matching {
            let (tensor, _) = self.find(&name("attn.value.proj"))?;
            return Err(self.misshapen(tensor, &[1, 1, channels, head]));
        }
        Ok(Attention {
            norm: self.vector(&name("norm"), channels)?,
            query,
            key,
            value,
            output: self.pointwise_to(&name("attn.output.proj"), width, channels)?,
            layer_scale: self.vector(&format!("{prefix}layer_scale.gamma"), channels)?,
        })
    }
}
