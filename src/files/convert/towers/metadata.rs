//! The keys of the towers' file: those that llama.cpp reads, then ours.
//!
//! llama.cpp wants sizes of a transformer for the picture tower too, and uses none of them:
//! `block_count` and `head_count` are the constants that its converter writes. By
//! `image_size / patch_size` it finds the number of soft tokens.

use super::super::metadata::{Pairs, put, put_some, size_label};
use super::Towers;
use crate::checkpoint::{AudioConfig, Checkpoint, VisionConfig};
use crate::files::plan::PlannedTensor;
use crate::gguf::{OwnedValue, TensorType};

/// All keys and values.
pub fn metadata(
    checkpoint: &Checkpoint,
    towers: &Towers,
    ty: TensorType,
    tensors: &[PlannedTensor],
) -> Pairs {
    let mut pairs = Pairs::new();
    let parameters = tensors.iter().map(|tensor| tensor.target.ne.iter().product::<u64>()).sum();
    put(&mut pairs, "general.architecture", "clip");
    put(&mut pairs, "general.type", "mmproj");
    put(&mut pairs, "general.name", checkpoint.name());
    put(&mut pairs, "general.size_label", size_label(parameters));
    put_some(&mut pairs, "general.license", checkpoint.license.clone());
    put_some(&mut pairs, "general.file_type", file_type(ty));
    put(&mut pairs, "general.quantization_version", 2u32);
    put(&mut pairs, "clip.has_vision_encoder", towers.vision.is_some());
    put(&mut pairs, "clip.has_audio_encoder", towers.audio.is_some());
    let text = checkpoint.config.embedding_length;
    if let Some(config) = &towers.vision {
        vision(config, text, &mut pairs);
    }
    if let Some(config) = &towers.audio {
        audio(config, text, &mut pairs);
    }
    pairs
}

/// llama.cpp's label of the file's main type, where it has one.
fn file_type(ty: TensorType) -> Option<u32> {
    match ty {
        TensorType::F32 => Some(0),
        TensorType::F16 => Some(1),
        TensorType::BF16 => Some(32),
        TensorType::Q8_0 => Some(7),
        _ => None,
    }
}

fn vision(config: &VisionConfig, text: u32, pairs: &mut Pairs) {
    let mut own = |key: &str, value: OwnedValue| put(pairs, &format!("clip.vision.{key}"), value);
    own("projector_type", "gemma3nv".into());
    own("projection_dim", text.into());
    own("image_size", config.image_size.into());
    own("patch_size", config.patch_size().into());
    own("embedding_length", config.width.into());
    own("feed_forward_length", (4 * config.width).into());
    own("block_count", 128u32.into());
    own("attention.head_count", 8u32.into());
    own("attention.layer_norm_epsilon", config.rms_eps.into());
    own("image_mean", config.mean.to_vec().into());
    own("image_std", config.std.to_vec().into());
    let mut own = |key: &str, value: OwnedValue| {
        put(pairs, &format!("gemma3n.cli.vision.{key}"), value);
    };
    own("vocab_offset", config.vocab_offset.into());
    own("soft_tokens", config.soft_tokens.into());
    own("rms_norm_eps", config.rms_eps.into());
}

fn audio(config: &AudioConfig, text: u32, pairs: &mut Pairs) {
    let tower = &config.tower;
    let mut own = |key: &str, value: OwnedValue| put(pairs, &format!("clip.audio.{key}"), value);
    own("projector_type", "gemma3na".into());
    own("projection_dim", text.into());
    own("embedding_length", (tower.width as u32).into());
    own("feed_forward_length", (tower.feed_forward() as u32).into());
    own("block_count", (tower.layers as u32).into());
    own("attention.head_count", (tower.heads as u32).into());
    own("num_mel_bins", (tower.mel_bins as u32).into());
    own("attention.layer_norm_epsilon", config.rms_eps.into());
    let mut own = |key: &str, value: OwnedValue| {
        put(pairs, &format!("gemma3n.cli.audio.{key}"), value);
    };
    let strides = tower.subsampling.iter().flat_map(|conv| conv.stride);
    own("vocab_offset", config.vocab_offset.into());
    own("soft_tokens", config.soft_tokens.into());
    own("pad_id", config.pad_id.into());
    own("chunk_size", config.chunk_size.into());
    own("context_left", config.context_left.into());
    own("context_right", config.context_right.into());
    own("logit_cap", config.logit_cap.into());
    own("reduction_factor", config.reduction_factor.into());
    own("residual_weight", config.residual_weight.into());
    own("gradient_clipping", config.gradient_clipping.into());
    own("group_norm_eps", config.group_norm_eps.into());
    own("rms_norm_eps", config.rms_eps.into());
    own("conv_strides", strides.map(|side| side as i32).collect::<Vec<_>>().into());
}
