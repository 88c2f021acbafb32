//! The conformer with two small blocks; the expected values were computed by transformers 5.23.0 in
//! F64 (reference.md §11.4).

use std::sync::Arc;

use crate::formula::{self, Made, stream};
use gemma3n::gguf::{Gguf, Layout};
use gemma3n::model::audio::{AudioModel, Encoder};
use gemma3n::model::scope::Kernels;
use gemma3n::model::tower::{EncoderOptions, Precision};

const WIDTH: usize = 16;
const BINS: usize = 12;
const CHANNELS: [usize; 2] = [6, 4];

/// Our names, the checkpoint's, and shapes in PyTorch's order.
fn tensors() -> Vec<Made> {
    let mut tensors = Vec::new();
    let mut add = |own: String, name: String, shape: &[usize]| {
        tensors.push(Made::by_formula(own, &name, shape));
    };
    let mut cin = 1;
    for (i, channels) in CHANNELS.into_iter().enumerate() {
        let name = format!("subsample_conv_projection.conv_{i}");
        let own = format!("a.conv1d.{i}");
        add(format!("{own}.weight"), format!("{name}.conv.weight"), &[channels, cin, 3, 3]);
        add(format!("{own}.norm.weight"), format!("{name}.norm.weight"), &[channels]);
        cin = channels;
    }
    let projection = "subsample_conv_projection.input_proj_linear.weight";
    add("a.pre_encode.out.weight".into(), projection.into(), &[WIDTH, cin * BINS / 4]);
    let d = WIDTH;
    for block in 0..2 {
        for (own, name, shape) in [
            ("attn_q.weight", "attention.attn.q_proj.weight", &[d, d][..]),
            ("attn_k.weight", "attention.attn.k_proj.weight", &[d, d]),
            ("attn_v.weight", "attention.attn.v_proj.weight", &[d, d]),
            ("per_dim_scale", "attention.attn.per_dim_scale", &[d / 2]),
            (
                "linear_pos.weight",
                "attention.attn.relative_position_embedding.pos_proj.weight",
                &[d, d],
            ),
            ("attn_out.weight", "attention.post.weight", &[d, d]),
            ("ln1.weight", "attention.pre_attn_norm.weight", &[d]),
            ("ln2.weight", "attention.post_norm.weight", &[d]),
            ("conv_norm.weight", "lconv1d.pre_layer_norm.weight", &[d]),
            ("conv_pw1.weight", "lconv1d.linear_start.weight", &[2 * d, d]),
            ("conv_dw.weight", "lconv1d.depthwise_conv1d.weight", &[d, 1, 5]),
            ("norm_conv.weight", "lconv1d.conv_norm.weight", &[d]),
            ("conv_pw2.weight", "lconv1d.linear_end.weight", &[d, d]),
            ("layer_pre_norm.weight", "norm.weight", &[d]),
            ("ffn_norm.weight", "ffw_layer_start.pre_layer_norm.weight", &[d]),
            ("ffn_up.weight", "ffw_layer_start.ffw_layer_1.weight", &[4 * d, d]),
            ("ffn_down.weight", "ffw_layer_start.ffw_layer_2.weight", &[d, 4 * d]),
            ("ffn_post_norm.weight", "ffw_layer_start.post_layer_norm.weight", &[d]),
            ("ffn_norm_1.weight", "ffw_layer_end.pre_layer_norm.weight", &[d]),
            ("ffn_up_1.weight", "ffw_layer_end.ffw_layer_1.weight", &[4 * d, d]),
            ("ffn_down_1.weight", "ffw_layer_end.ffw_layer_2.weight", &[d, 4 * d]),
            ("ffn_post_norm_1.weight", "ffw_layer_end.post_layer_norm.weight", &[d]),
        ] {
            add(format!("a.blk.{block}.{own}"), format!("conformer.{block}.{name}"), shape);
        }
    }
    tensors.push(Made::ones("mm.a.input_projection.weight", &[8, d]));
    tensors.push(Made::ones("mm.a.embedding.weight", &[128, d]));
    tensors.push(Made::ones("mm.a.soft_emb_norm.weight", &[d]));
    tensors.push(Made::ones("mm.a.hard_emb_norm.weight", &[d]));
    tensors
}

fn layout() -> Layout {
    let mut layout = Layout::new();
    layout.set("general.architecture", "clip");
    layout.set("clip.audio.projector_type", "gemma3na");
    layout.set("clip.audio.num_mel_bins", BINS as u32);
    layout.set("clip.audio.embedding_length", WIDTH as u32);
    layout.set("clip.audio.block_count", 2u32);
    layout.set("clip.audio.attention.head_count", 2u32);
    layout
}

#[test]
fn the_conformer_gives_the_references_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tower.gguf");
    formula::write(&file, layout(), &tensors());
    let gguf = Arc::new(Gguf::open(&file).unwrap());
    let features: Vec<f32> =
        stream("mel").map(|u| (6.0 * u - 8.0) as f32).take(150 * BINS).collect();
    let valid: Vec<bool> = (0..150).map(|t| t < 110).collect();
    for kernels in [Kernels::Auto, Kernels::Ggml] {
        let model = AudioModel::open(&gguf, 8, Precision::Exact).unwrap();
        let mut encoder = Encoder::new(model, EncoderOptions { threads: 1, kernels });
        let taps = encoder.trace(&features, &valid).unwrap();
        let output = taps.iter().find(|tap| tap.name == "encoder_out").unwrap();
        assert_eq!(output.ne[..2], [WIDTH, 7]);
        for (row, expected) in [
            (0, [1.080_185_4f32, 0.292_614_4, 1.326_803, -2.076_704_2]),
            (3, [1.422_576_1, -1.630_577_5, 0.417_000_7, -2.834_841_4]),
            (6, [0.544_615_4, 1.164_916_5, 0.379_406_6, -0.537_173_2]),
        ] {
            for (column, expected) in expected.into_iter().enumerate() {
                let found = output.values[row * WIDTH + column];
                assert!((found - expected).abs() < 2e-5, "{kernels:?} {row} {column}: {found}");
            }
        }
    }
}

/// Packing would make numbers of it.
#[test]
fn a_weight_that_is_no_number_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tower.gguf");
    let mut tensors = tensors();
    let broken = tensors.iter_mut().find(|made| made.name == "a.blk.1.ffn_down.weight").unwrap();
    broken.values[77] = f32::NAN;
    formula::write(&file, layout(), &tensors);
    let gguf = Arc::new(Gguf::open(&file).unwrap());
    let opened = AudioModel::open(&gguf, 8, Precision::Int8);
    let error = opened.err().expect("a broken weight").to_string();
    assert!(error.contains("a.blk.1.ffn_down.weight: "), "{error}");
}
