//! A sound tower with random weights, small enough to be made for each test: two conformer blocks of
//! 32 values, 8 mel bins. Alone, or beside the tower of `eyes.rs`.

use std::path::Path;

use gemma3n::gguf::Layout;

use super::eyes::{self, Tensor};

/// Soft tokens of a clip, whatever its length: 30 s have 188 frames after the reduction.
pub const SOFT_TOKENS: usize = 188;
/// Of the fixtures' vocabulary, the first id of sounds, and the one that clips are filled up with.
const VOCAB_OFFSET: u32 = 520;
const PAD_ID: u32 = 527;

const WIDTH: u64 = 32;
const BLOCKS: u32 = 2;
const HEADS: u64 = 2;
const MEL_BINS: u64 = 8;

fn tensors(embedding: u64) -> Vec<Tensor> {
    let d = WIDTH;
    // 8 bins are 4, then 2, of 4 channels.
    let mut tensors = vec![
        ("a.conv1d.0.weight".to_owned(), [3, 3, 1, 4]),
        ("a.conv1d.0.norm.weight".to_owned(), [4, 1, 1, 1]),
        ("a.conv1d.1.weight".to_owned(), [3, 3, 4, 4]),
        ("a.conv1d.1.norm.weight".to_owned(), [4, 1, 1, 1]),
        ("a.pre_encode.out.weight".to_owned(), [MEL_BINS / 4 * 4, d, 1, 1]),
        ("mm.a.embedding.weight".to_owned(), [d, u64::from(PAD_ID - VOCAB_OFFSET + 1), 1, 1]),
        ("mm.a.hard_emb_norm.weight".to_owned(), [d, 1, 1, 1]),
        ("mm.a.soft_emb_norm.weight".to_owned(), [d, 1, 1, 1]),
        ("mm.a.input_projection.weight".to_owned(), [d, embedding, 1, 1]),
    ];
    for block in 0..BLOCKS {
        let mut add =
            |name: &str, ne: [u64; 4]| tensors.push((format!("a.blk.{block}.{name}"), ne));
        for end in ["", "_1"] {
            add(&format!("ffn_norm{end}.weight"), [d, 1, 1, 1]);
            add(&format!("ffn_up{end}.weight"), [d, 4 * d, 1, 1]);
            add(&format!("ffn_down{end}.weight"), [4 * d, d, 1, 1]);
            add(&format!("ffn_post_norm{end}.weight"), [d, 1, 1, 1]);
        }
        for matrix in ["attn_q", "attn_k", "attn_v", "linear_pos", "attn_out", "conv_pw2"] {
            add(&format!("{matrix}.weight"), [d, d, 1, 1]);
        }
        add("conv_pw1.weight", [d, 2 * d, 1, 1]);
        add("conv_dw.weight", [5, 1, d, 1]);
        add("per_dim_scale", [d / HEADS, 1, 1, 1]);
        for norm in ["ln1", "ln2", "conv_norm", "norm_conv", "layer_pre_norm"] {
            add(&format!("{norm}.weight"), [d, 1, 1, 1]);
        }
    }
    tensors
}

fn describe(layout: &mut Layout, embedding: u64) {
    layout.set("clip.audio.projector_type", "gemma3na");
    layout.set("clip.audio.projection_dim", embedding as u32);
    layout.set("clip.audio.num_mel_bins", MEL_BINS as u32);
    layout.set("clip.audio.embedding_length", WIDTH as u32);
    layout.set("clip.audio.block_count", BLOCKS);
    layout.set("clip.audio.attention.head_count", HEADS as u32);
    layout.set("gemma3n.cli.audio.soft_tokens", SOFT_TOKENS as u32);
    layout.set("gemma3n.cli.audio.vocab_offset", VOCAB_OFFSET);
    layout.set("gemma3n.cli.audio.pad_id", PAD_ID);
}

/// Writes the towers' file for a text model of this width: this tower, and the other where asked.
pub fn write(target: &Path, embedding: u64, with_eyes: bool) {
    let mut layout = Layout::new();
    layout.set("general.architecture", "clip");
    describe(&mut layout, embedding);
    let mut all = tensors(embedding);
    if with_eyes {
        eyes::describe(&mut layout, embedding);
        all.extend(eyes::tensors(embedding));
    }
    eyes::write_tensors(target, layout, &all);
}
