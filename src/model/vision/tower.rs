//! The whole tower, from pixels to the fused map: reading this is reading reference.md §7.

use super::attention::attention;
use super::convolution::convolution;
use super::edge_residual::edge_residual;
use super::fusion::fuse;
use super::inverted_residual::inverted_residual;
use super::norm::norm_gelu;
use super::weights::{Block, VisionWeights};
use super::{Map, Scope};
use crate::ggml::Tensor;
use crate::model::tower::convolution::Constants;

/// Pixels `[3, side²]` in [0, 1] → features `[Dm, grid²]`.
pub fn tower<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &VisionWeights,
    pixels: Map<'b>,
) -> Tensor<'b> {
    let mut map = stem(s, constants, w, pixels);
    let mut fine = map;
    for (stage, blocks) in w.stages.iter().enumerate() {
        fine = map;
        for (i, block) in blocks.iter().enumerate() {
            s.enter(format!("block{stage}.{i}."));
            map = match block {
                Block::EdgeResidual(block) => edge_residual(s, constants, block, map),
                Block::InvertedResidual(block) => inverted_residual(s, constants, block, map),
                Block::Attention(block) => attention(s, constants, block, map),
            };
            s.enter(String::new());
            s.tap(&format!("block{stage}.{i}"), map.x);
        }
    }
    s.enter("msfa.".to_owned());
    let features = fuse(s, constants, &w.fusion, fine, map);
    s.enter(String::new());
    s.tap("msfa", features);
    features
}

/// A 3 × 3 convolution of stride 2 with a bias, norm, gelu.
fn stem<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &VisionWeights,
    pixels: Map<'b>,
) -> Map<'b> {
    let mut map = convolution(s, constants, &w.stem, pixels);
    if let Some(bias) = &w.stem_bias {
        map.x = map.x + s.weight(bias);
    }
    map.x = norm_gelu(s, map.x, &w.stem_norm);
    s.tap("stem", map.x);
    map
}
