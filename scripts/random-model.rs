//! Writes a Gemma 3n GGUF of full size with random weights, quantized while it is written.
//!
//! ```sh
//! cargo run --release --example random-model -- --size e2b --type Q4_K_M -o FILE
//! ```
//!
//! For benchmarks: shapes, types, keys and the vocabulary's layout are those of real files, the
//! weights are Gaussian and scaled so that activations stay finite and about 5 % of the neurons of
//! sparse layers survive. llama.cpp loads it.

#[path = "random-model/pool.rs"]
mod pool;
#[path = "random-model/preset.rs"]
mod preset;
#[path = "random-model/vocabulary.rs"]
mod vocabulary;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use gemma3n::gguf::{Layout, TensorType, Writer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use pool::Pools;
use preset::Preset;
use vocabulary::{ALL_PIECES, TEXT_PIECES, Vocabulary};

const CHAT_TEMPLATE: &str = include_str!("../tests/fixtures/tiny/chat_template.jinja");
/// Layers from the first on in which 95 % of the neurons are cut off.
const SPARSE_LAYERS: u64 = 10;
/// Bytes of a tensor made at a time.
const CHUNK_BYTES: u64 = 4 << 20;

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    E2b,
    E4b,
}

#[derive(Parser)]
#[command(about = "Writes a full-size Gemma 3n GGUF with random weights")]
struct Options {
    /// The published model whose sizes to take.
    #[arg(long, value_enum, default_value = "e2b")]
    size: Size,
    /// The mixture of types, such as Q4_0, Q4_K_M, Q8_0, BF16.
    #[arg(long = "type", default_value = "Q4_K_M")]
    preset: Preset,
    /// The file to write, over an existing one.
    #[arg(short, long)]
    output: PathBuf,
    /// Layers, instead of 30 (E2B) or 35 (E4B); at least 5.
    #[arg(long)]
    layers: Option<u64>,
    /// Width of the hidden state, instead of 2048.
    #[arg(long, default_value_t = 2048)]
    hidden: u64,
    /// Width of the feed-forward layers, instead of 8192 (E2B) or 16384 (E4B).
    #[arg(long)]
    ffn: Option<u64>,
    /// Pieces in the vocabulary: 262400 has the ids of pictures and sound as well.
    #[arg(long, default_value = "262144", value_parser = ["262144", "262400"])]
    vocab: String,
    /// Neuron-major `ffn_down` in sparse layers (`gemma3n.cli.layout` = 1): llama.cpp does not load it.
    #[arg(long)]
    neuron_major: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Sizes, named as in the files' documentation.
struct Sizes {
    layers: u64,
    shared: u64,
    hidden: u64,
    ffn: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    per_layer: u64,
    streams: u64,
    laurel: u64,
    vocab: u64,
}

impl Sizes {
    fn new(options: &Options) -> Result<Self> {
        let (layers, shared, ffn) = match options.size {
            Size::E2b => (30, 10, 8192),
            Size::E4b => (35, 15, 16384),
        };
        let chosen = options.layers.unwrap_or(layers);
        ensure!(
            chosen >= 5,
            "--layers {chosen}: at least 5, so that both kinds of attention own a KV cache"
        );
        ensure!(options.hidden > 0, "--hidden 0");
        Ok(Self {
            layers: chosen,
            shared: if chosen == layers { shared } else { (chosen / 3).min(chosen - 5) },
            hidden: options.hidden,
            ffn: options.ffn.unwrap_or(ffn),
            heads: 8,
            kv_heads: 2,
            head_dim: 256,
            per_layer: 256,
            streams: 4,
            laurel: 64,
            vocab: options.vocab.parse()?,
        })
    }
}

/// What a tensor is filled with.
#[derive(Clone, Copy)]
enum Fill {
    /// Gaussian with this standard deviation.
    Normal(f32),
    /// The same, in rows up to this one; then zeros.
    NormalRows(f32, u64),
    /// Uniform: centre, half width.
    Around(f32, f32),
}

struct Plan {
    name: String,
    ne: Vec<u64>,
    ty: TensorType,
    fill: Fill,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let sizes = Sizes::new(&options)?;
    let plans = plan(&sizes, &options);
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut layout = Layout::default();
    set_metadata(&mut layout, &sizes, &options);
    set_vocabulary(&mut layout, &Vocabulary::generate(sizes.vocab as usize, &mut rng));
    for plan in &plans {
        let mut ne = [1; 4];
        ne[..plan.ne.len()].copy_from_slice(&plan.ne);
        layout.add_tensor(&plan.name, ne, plan.ne.len() as u32, plan.ty);
    }
    let mut writer = Writer::create(&options.output, &layout, true)?;
    let mut pools = Pools::new(options.seed);
    for plan in &plans {
        write_tensor(&mut writer, plan, &mut pools, &mut rng).with_context(|| plan.name.clone())?;
    }
    writer.finish()?;
    Ok(())
}

fn write_tensor(
    writer: &mut Writer,
    plan: &Plan,
    pools: &mut Pools,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    let (deviation, full_rows) = match plan.fill {
        Fill::Around(centre, half) => {
            let count = plan.ne.iter().product::<u64>();
            let values = (0..count).map(|_| centre + half * rng.random_range(-1.0f32..1.0));
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            return Ok(writer.append(&plan.name, &bytes)?);
        }
        Fill::Normal(deviation) => (deviation, u64::MAX),
        Fill::NormalRows(deviation, rows) => (deviation, rows),
    };
    let rows = plan.ne[1..].iter().product::<u64>();
    let row_bytes =
        plan.ty.row_bytes(plan.ne[0]).context("the type does not fit the row length")?;
    let (row_len, at_once) = (plan.ne[0] as usize, CHUNK_BYTES.div_ceil(row_bytes));
    let mut bytes = Vec::new();
    let mut done = 0;
    while done < rows.min(full_rows) {
        let count = at_once.min(rows.min(full_rows) - done);
        bytes.clear();
        pools.lay_rows((plan.ty, deviation), (row_len, count as usize), rng, &mut bytes)?;
        writer.append(&plan.name, &bytes)?;
        done += count;
    }
    // Zeros are zero bytes in every type: scales are 0.
    let zeros = vec![0; row_bytes as usize];
    for _ in done..rows {
        writer.append(&plan.name, &zeros)?;
    }
    Ok(())
}

/// All tensors in the order of the file: globals, then layer by layer.
fn plan(sizes: &Sizes, options: &Options) -> Vec<Plan> {
    let preset = &options.preset;
    let (e, p, a, l) = (sizes.hidden, sizes.per_layer, sizes.streams, sizes.layers);
    let mut plans = Vec::new();
    let mut add = |layer: u64, name: String, ne: &[u64], fill: Fill| {
        let ty = if ne.len() == 1 { TensorType::F32 } else { preset.type_of(&name, layer, l) };
        plans.push(Plan { name, ne: ne.to_vec(), ty, fill });
    };
    let scaled = |fan_in: u64| Fill::Normal((fan_in as f32).powf(-0.5));
    let table = |width: u64| Fill::NormalRows((width as f32).powf(-0.5), TEXT_PIECES as u64);
    let globals: [(&str, &[u64], Fill); 7] = [
        ("token_embd", &[e, sizes.vocab], scaled(e)),
        ("per_layer_token_embd", &[p * l, sizes.vocab], table(p)),
        ("per_layer_model_proj", &[e, p * l], Fill::Normal(1.0)),
        ("per_layer_proj_norm", &[p], Fill::Around(1.0, 0.2)),
        ("altup_proj", &[e, e, a - 1], scaled(e)),
        ("altup_unembd_proj", &[e, e, a - 1], scaled(e)),
        ("output_norm", &[e], Fill::Around(1.0, 0.2)),
    ];
    for (name, ne, fill) in globals {
        add(0, format!("{name}.weight"), ne, fill);
    }
    let (queries, keys, d) =
        (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim, sizes.head_dim);
    let (f, r) = (sizes.ffn, sizes.laurel);
    // The router sees its input divided by the width.
    let router = Fill::Normal(0.8 * (e as f32).sqrt());
    let layer: [(&str, &[u64], Fill); 24] = [
        ("attn_norm", &[e], Fill::Around(1.0, 0.2)),
        ("attn_q", &[e, queries], scaled(e)),
        ("attn_k", &[e, keys], scaled(e)),
        ("attn_v", &[e, keys], scaled(e)),
        // Query times key is not scaled down: 16 · 0.45² keeps the softmax from one-hot.
        ("attn_q_norm", &[d], Fill::Around(0.45, 0.1)),
        ("attn_k_norm", &[d], Fill::Around(0.45, 0.1)),
        ("attn_output", &[queries, e], scaled(queries)),
        ("post_attention_norm", &[e], Fill::Around(0.5, 0.1)),
        ("ffn_norm", &[e], Fill::Around(1.0, 0.2)),
        ("ffn_gate", &[e, f], scaled(e)),
        ("ffn_up", &[e, f], scaled(e)),
        ("ffn_down", &[f, e], scaled(f)),
        ("post_ffw_norm", &[e], Fill::Around(0.5, 0.1)),
        ("inp_gate", &[e, p], scaled(e)),
        ("proj", &[p, e], scaled(p)),
        ("post_norm", &[e], Fill::Around(0.5, 0.1)),
        ("altup_correct_coef", &[a, a], Fill::Normal(0.2)),
        ("altup_correct_scale", &[e], Fill::Around(1.0, 0.2)),
        ("altup_predict_coef", &[a, a * a], Fill::Normal(0.06)),
        ("altup_router", &[e, a], router),
        ("altup_router_norm", &[e], Fill::Around(1.0, 0.2)),
        ("laurel_l", &[e, r], scaled(e)),
        ("laurel_r", &[r, e], scaled(r)),
        ("laurel_post_norm", &[e], Fill::Around(0.5, 0.1)),
    ];
    for i in 0..l {
        for (name, ne, fill) in layer {
            let turned = options.neuron_major && i < SPARSE_LAYERS && name == "ffn_down";
            let (name, ne) = if turned { ("ffn_down_t", &[e, f][..]) } else { (name, ne) };
            add(i, format!("blk.{i}.{name}.weight"), ne, fill);
        }
    }
    plans
}

fn set_metadata(layout: &mut Layout, sizes: &Sizes, options: &Options) {
    let layers = sizes.layers as usize;
    let name = match options.size {
        Size::E2b => "Gemma 3n E2B with random weights",
        Size::E4b => "Gemma 3n E4B with random weights",
    };
    layout.set("general.architecture", "gemma3n");
    layout.set("general.type", "model");
    layout.set("general.name", name);
    layout.set("general.file_type", options.preset.file_type);
    layout.set("general.quantization_version", 2u32);
    for (key, value) in [
        ("context_length", 32_768),
        ("embedding_length", sizes.hidden),
        ("block_count", sizes.layers),
        ("attention.head_count", sizes.heads),
        ("attention.head_count_kv", sizes.kv_heads),
        ("attention.key_length", sizes.head_dim),
        ("attention.value_length", sizes.head_dim),
        ("attention.sliding_window", 512),
        ("attention.shared_kv_layers", sizes.shared),
        ("altup.active_idx", 0),
        ("altup.num_inputs", sizes.streams),
        ("embedding_length_per_layer_input", sizes.per_layer),
    ] {
        layout.set(&format!("gemma3n.{key}"), value as u32);
    }
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("rope.freq_base", 1e6),
        ("rope.freq_base_swa", 1e4),
        ("final_logit_softcapping", 30.0f32),
    ] {
        layout.set(&format!("gemma3n.{key}"), value);
    }
    let sliding: Vec<bool> = (0..layers).map(|i| i % 5 != 4).collect();
    // 0.95 quantile of the normal distribution; no cut where it is -inf.
    let sparsity: Vec<f32> = (0..layers as u64)
        .map(|i| if i < SPARSE_LAYERS { 1.644_853_5 } else { f32::NEG_INFINITY })
        .collect();
    layout.set("gemma3n.feed_forward_length", vec![sizes.ffn as i32; layers]);
    layout.set("gemma3n.attention.sliding_window_pattern", sliding);
    layout.set("gemma3n.activation_sparsity_scale", sparsity);
    if options.neuron_major {
        layout.set("gemma3n.cli.layout", 1u32);
    }
}

fn set_vocabulary(layout: &mut Layout, vocabulary: &Vocabulary) {
    layout.set("tokenizer.ggml.model", "llama");
    layout.set("tokenizer.ggml.pre", "default");
    layout.set("tokenizer.ggml.tokens", vocabulary.pieces.clone());
    layout.set("tokenizer.ggml.scores", vocabulary.scores.clone());
    layout.set("tokenizer.ggml.token_type", vocabulary.kinds.clone());
    for (key, id) in [("bos", 2u32), ("eos", 1), ("unknown", 3), ("padding", 0)] {
        layout.set(&format!("tokenizer.ggml.{key}_token_id"), id);
    }
    for (key, on) in
        [("add_bos_token", true), ("add_eos_token", false), ("add_space_prefix", false)]
    {
        layout.set(&format!("tokenizer.ggml.{key}"), on);
    }
    layout.set("tokenizer.chat_template", CHAT_TEMPLATE);
    debug_assert!([TEXT_PIECES, ALL_PIECES].contains(&vocabulary.pieces.len()));
}
