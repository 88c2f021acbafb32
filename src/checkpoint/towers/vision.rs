//! The picture tower, MobileNetV5: stem, four stages of blocks, a fusion of the last two stages.
//!
//! ```text
//! stem        3×3 convolution with bias, stride 2                 3 → C
//! edge residual        conv_exp k×k, C → M; conv_pwl 1×1, M → C'
//! inverted residual    [dw_start]; pw_exp C → M; [dw_mid]; pw_proj M → C'; gamma
//! multi-query attention    query C → h·d; key and value [down_conv] C → d; output h·d → C; gamma
//! msfa        pw_exp on the concatenation of stages 2 and 3; pw_proj → width
//! ```
//!
//! No key of a file lists the blocks: kinds, kernels and channels are read from the tensors, and
//! then every tensor of that kind is required, with channels that chain from block to block.
//! Kernels are `[k, k, Cin / groups, Cout]` in ggml's order. Reference: timm's `MobileNetV5Encoder`.

use super::{Expected, Fault, Ne, Tensors, embedder};

const STAGES: usize = 4;

/// The sizes of a tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionTower {
    /// Side of the stem's kernel.
    pub stem_kernel: u64,
    /// Channels after the stem.
    pub stem: u64,
    /// The blocks of each stage. The first of a stage halves the picture's sides.
    pub stages: [Vec<Block>; STAGES],
    /// Channels inside the fusion.
    pub fusion: u64,
    /// Channels of a soft token.
    pub width: u64,
    /// Width of the text model.
    pub text: u64,
    /// Rows of the embedding of ids that belong to pictures.
    pub vocab: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Channels that it takes and gives.
    pub input: u64,
    pub output: u64,
    pub kind: Kind,
}

/// Kinds of blocks; kernels by their sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EdgeResidual {
        kernel: u64,
        inner: u64,
    },
    InvertedResidual {
        start: Option<u64>,
        inner: u64,
        mid: Option<u64>,
    },
    Attention {
        /// Width of all queries, a multiple of `head`.
        queries: u64,
        /// Width of a query, and of the one key and value.
        head: u64,
        /// Kernel of the convolution that halves the sides of keys and values.
        down: Option<u64>,
    },
}

impl VisionTower {
    /// Reads the sizes from a file's tensors. [`Self::expected`] is still to be held against them.
    ///
    /// # Errors
    /// A tensor that a size is taken from is missing, or sizes are impossible.
    pub fn read(tensors: &Tensors) -> Result<Self, Fault> {
        const STEM: &str = "v.conv_stem.conv.weight";
        no_empty(tensors)?;
        let stem = tensors.size(STEM, 3)?;
        let mut channels = stem;
        let mut stages = [const { Vec::new() }; STAGES];
        for (stage, blocks) in stages.iter_mut().enumerate() {
            for index in 0..blocks_in(tensors, stage) {
                let block = read_block(tensors, &format!("v.blk.{stage}.{index}"), channels)?;
                channels = block.output;
                blocks.push(block);
            }
        }
        Ok(Self {
            stem_kernel: tensors.size(STEM, 0)?,
            stem,
            stages,
            fusion: tensors.size("v.msfa.ffn.pw_exp.conv.weight", 3)?,
            width: tensors.size("v.msfa.ffn.pw_proj.conv.weight", 3)?,
            text: tensors.size("mm.input_projection.weight", 1)?,
            vocab: tensors.size("mm.embedding.weight", 1)?,
        })
    }

    /// All tensors, the embedder's first.
    pub fn expected(&self) -> Vec<Expected> {
        let mut table = Vec::from(embedder("mm", self.width, self.text, self.vocab));
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                block.expect(&format!("v.blk.{stage}.{index}"), &mut table);
            }
        }
        let mut add = |name: &str, ne: &[u64]| table.push(Expected::new(format!("v.{name}"), ne));
        let (k, stem) = (self.stem_kernel, self.stem);
        add("conv_stem.bn.weight", &[stem]);
        add("conv_stem.conv.bias", &[1, 1, stem, 1]);
        add("conv_stem.conv.weight", &[k, k, 3, stem]);
        add("msfa.ffn.pw_exp.bn.weight", &[self.fusion]);
        add("msfa.ffn.pw_exp.conv.weight", &[1, 1, self.fusion_input(), self.fusion]);
        add("msfa.ffn.pw_proj.bn.weight", &[self.width]);
        add("msfa.ffn.pw_proj.conv.weight", &[1, 1, self.fusion, self.width]);
        add("msfa.norm.weight", &[self.width]);
        for tensor in &mut table {
            tensor.always_f32 |= tensor.name.starts_with("v.conv_stem.");
            // The first release of timm's model had no bias.
            tensor.optional = tensor.name == "v.conv_stem.conv.bias";
        }
        table
    }

    /// Channels of the last two stages together.
    fn fusion_input(&self) -> u64 {
        let output = |stage: usize| {
            let block = self.stages[..=stage].iter().flatten().next_back();
            block.map_or(self.stem, |block| block.output)
        };
        output(STAGES - 2).saturating_add(output(STAGES - 1))
    }
}

impl Block {
    fn expect(&self, block: &str, table: &mut Vec<Expected>) {
        let mut add = |name: &str, ne: &[u64]| {
            table.push(Expected::new(format!("{block}.{name}"), ne));
        };
        let (c, out) = (self.input, self.output);
        match self.kind {
            Kind::EdgeResidual { kernel, inner } => {
                add("bn1.weight", &[inner]);
                add("bn2.weight", &[out]);
                add("conv_exp.weight", &[kernel, kernel, c, inner]);
                add("conv_pwl.weight", &[1, 1, inner, out]);
                return;
            }
            Kind::InvertedResidual { start, inner, mid } => {
                for (name, kernel, channels) in [("dw_mid", mid, inner), ("dw_start", start, c)] {
                    if let Some(k) = kernel {
                        add(&format!("{name}.bn.weight"), &[channels]);
                        add(&format!("{name}.conv.weight"), &[k, k, 1, channels]);
                    }
                }
                add("pw_exp.bn.weight", &[inner]);
                add("pw_exp.conv.weight", &[1, 1, c, inner]);
                add("pw_proj.bn.weight", &[out]);
                add("pw_proj.conv.weight", &[1, 1, inner, out]);
            }
            Kind::Attention { queries, head, down } => {
                for part in ["key", "value"] {
                    if let Some(k) = down {
                        add(&format!("attn.{part}.down_conv.weight"), &[k, k, 1, c]);
                        add(&format!("attn.{part}.norm.weight"), &[c]);
                    }
                    add(&format!("attn.{part}.proj.weight"), &[1, 1, c, head]);
                }
                add("attn.query.proj.weight", &[1, 1, c, queries]);
                add("attn.output.proj.weight", &[1, 1, queries, c]);
                add("norm.weight", &[c]);
            }
        }
        table.push(Expected::new(format!("{block}.layer_scale.gamma"), &[1, 1, out, 1]).f32());
    }
}

/// One more than the highest number among a stage's blocks, at least 1: a gap shows as a missing
/// tensor.
fn blocks_in(tensors: &Tensors, stage: usize) -> usize {
    let prefix = format!("v.blk.{stage}.");
    let number = |name: &str| name.strip_prefix(&prefix)?.split('.').next()?.parse().ok();
    tensors.names().filter_map(number).max().map_or(1, |last: usize| last.saturating_add(1))
}

fn read_block(tensors: &Tensors, block: &str, input: u64) -> Result<Block, Fault> {
    let any = |names: &[&str]| names.iter().any(|name| tensors.any(&format!("{block}.{name}")));
    let size = |name: &str, dimension| tensors.size(&format!("{block}.{name}"), dimension);
    // The side of a convolution's kernel, if there is anything of that convolution.
    let kernel = |parts: &[&str], name: &str| {
        if any(parts) { size(name, 0).map(Some) } else { Ok(None) }
    };
    let (kind, output) = if any(&["conv_exp.", "conv_pwl.", "bn1.", "bn2."]) {
        let (kernel, inner) = (size("conv_exp.weight", 0)?, size("conv_exp.weight", 3)?);
        (Kind::EdgeResidual { kernel, inner }, size("conv_pwl.weight", 3)?)
    } else if any(&["attn.", "norm."]) {
        let name = "attn.query.proj.weight";
        let (queries, head) = (size(name, 3)?, size("attn.key.proj.weight", 3)?);
        if queries % head != 0 {
            let name = format!("{block}.{name}");
            return Err(Fault::Multiple { name, size: queries, of: head });
        }
        let parts =
            ["attn.key.down_conv.", "attn.key.norm.", "attn.value.down_conv.", "attn.value.norm."];
        let down = kernel(&parts, "attn.key.down_conv.weight")?;
        (Kind::Attention { queries, head, down }, input)
    } else {
        let start = kernel(&["dw_start."], "dw_start.conv.weight")?;
        let mid = kernel(&["dw_mid."], "dw_mid.conv.weight")?;
        let inner = size("pw_exp.conv.weight", 3)?;
        (Kind::InvertedResidual { start, inner, mid }, size("pw_proj.conv.weight", 3)?)
    };
    Ok(Block { input, output, kind })
}

/// Refuses tensors without elements, so that sizes taken from tensors are no larger than the file.
fn no_empty(tensors: &Tensors) -> Result<(), Fault> {
    match tensors.0.iter().find(|(_, ne)| ne.contains(&0)) {
        None => Ok(()),
        Some((name, ne)) => Err(Fault::Shape {
            name: name.clone(),
            expected: Ne(ne.iter().map(|&n| n.max(1)).collect()),
            found: Ne(ne.clone()),
        }),
    }
}
