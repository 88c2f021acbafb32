//! Configurations at the edge of what a file may say: one layer, one neuron, one token in the
//! vocabulary, a window of one position, two or sixteen streams, heads without sharing, widths
//! that no block or vector divides. Each decodes, and however a prompt is split and whichever
//! kernels compute, the logits are the same.

use std::path::Path;
use std::sync::Arc;

use gemma3n::ggml::{self, Type};
use gemma3n::gguf::{Gguf, Layout, OwnedArray, OwnedValue, TensorType, Writer};
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, Logits, TextModel};
use gemma3n::tokenizer::TokenId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone)]
struct Config {
    embedding: usize,
    layers: usize,
    shared: usize,
    /// Which layers are sliding.
    sliding: Vec<bool>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    per_layer: usize,
    streams: usize,
    active: usize,
    window: usize,
    ffn: usize,
    laurel: usize,
    vocabulary: usize,
    eps: f32,
    sparse: bool,
    /// Of matrices whose rows are whole blocks of it; the others are F32.
    ty: TensorType,
}

fn config() -> Config {
    Config {
        embedding: 24,
        layers: 3,
        shared: 1,
        sliding: vec![true, false, true],
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        per_layer: 5,
        streams: 3,
        active: 1,
        window: 3,
        ffn: 20,
        laurel: 3,
        vocabulary: 11,
        eps: 1e-6,
        sparse: true,
        ty: TensorType::F32,
    }
}

impl Config {
    /// Every tensor's name and shape.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (e, a, p, d) = (self.embedding, self.streams, self.per_layer, self.head_dim);
        let mut all = vec![
            ("token_embd".into(), vec![e, self.vocabulary]),
            ("per_layer_token_embd".into(), vec![p * self.layers, self.vocabulary]),
            ("per_layer_model_proj".into(), vec![e, p * self.layers]),
            ("per_layer_proj_norm".into(), vec![p]),
            ("altup_proj".into(), vec![e, e, a - 1]),
            ("altup_unembd_proj".into(), vec![e, e, a - 1]),
            ("output_norm".into(), vec![e]),
        ];
        for il in 0..self.layers {
            let layer = [
                ("altup_router", vec![e, a]),
                ("altup_router_norm", vec![e]),
                ("altup_predict_coef", vec![a, a * a]),
                ("altup_correct_coef", vec![a, a]),
                ("altup_correct_scale", vec![e]),
                ("attn_norm", vec![e]),
                ("laurel_l", vec![e, self.laurel]),
                ("laurel_r", vec![self.laurel, e]),
                ("laurel_post_norm", vec![e]),
                ("attn_q", vec![e, self.heads * d]),
                ("attn_q_norm", vec![d]),
                ("attn_k", vec![e, self.kv_heads * d]),
                ("attn_k_norm", vec![d]),
                ("attn_v", vec![e, self.kv_heads * d]),
                ("attn_output", vec![self.heads * d, e]),
                ("post_attention_norm", vec![e]),
                ("ffn_norm", vec![e]),
                ("ffn_gate", vec![e, self.ffn]),
                ("ffn_up", vec![e, self.ffn]),
                ("ffn_down", vec![self.ffn, e]),
                ("post_ffw_norm", vec![e]),
                ("inp_gate", vec![e, p]),
                ("proj", vec![p, e]),
                ("post_norm", vec![e]),
            ];
            all.extend(layer.map(|(name, ne)| (format!("blk.{il}.{name}"), ne)));
        }
        all
    }

    fn metadata(&self, layout: &mut Layout) {
        let key = |name: &str| format!("gemma3n.{name}");
        layout.set("general.architecture", OwnedValue::String(b"gemma3n".to_vec()));
        let numbers = [
            ("block_count", self.layers),
            ("embedding_length", self.embedding),
            ("context_length", 64),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.sliding_window", self.window),
            ("attention.shared_kv_layers", self.shared),
            ("altup.num_inputs", self.streams),
            ("altup.active_idx", self.active),
            ("feed_forward_length", self.ffn),
        ];
        for (name, value) in numbers {
            layout.set(&key(name), OwnedValue::U32(value as u32));
        }
        layout.set(&key("attention.layer_norm_rms_epsilon"), OwnedValue::F32(self.eps));
        let sliding = OwnedValue::Array(OwnedArray::Bool(self.sliding.clone()));
        layout.set(&key("attention.sliding_window_pattern"), sliding);
        let scale = if self.sparse { 0.5 } else { f32::NEG_INFINITY };
        let scales = OwnedValue::Array(OwnedArray::F32(vec![scale; self.layers]));
        layout.set(&key("activation_sparsity_scale"), scales);
    }

    /// The model with random weights.
    fn model(&self, folder: &Path) -> Arc<TextModel> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut layout = Layout::new();
        self.metadata(&mut layout);
        let mut data = Vec::new();
        for (name, ne) in self.tensors() {
            let (name, row) = (format!("{name}.weight"), ne[0]);
            let block = self.ty.block_len() as usize;
            let whole = ne.len() > 1 && row.is_multiple_of(block) && !name.contains("altup");
            let ty = if whole { self.ty } else { TensorType::F32 };
            let mut full = [1; 4];
            full.iter_mut().zip(&ne).for_each(|(to, &n)| *to = n as u64);
            layout.add_tensor(&name, full, ne.len() as u32, ty);
            let scale = if ne.len() > 1 { (row as f32).powf(-0.5) } else { 1.0 };
            let count = ne.iter().product::<usize>();
            let values: Vec<f32> =
                (0..count).map(|_| scale * rng.random_range(-1.0f32..1.0)).collect();
            let ty = Type::weight_from_id(ty.id()).unwrap();
            data.push((name, ggml::quantize(ty, &values, row).unwrap()));
        }
        let path = folder.join("corner.gguf");
        let mut writer = Writer::create(&path, &layout, true).unwrap();
        for (name, bytes) in data {
            writer.append(&name, &bytes).unwrap();
        }
        writer.finish().unwrap();
        TextModel::open(&Arc::new(Gguf::open(&path).unwrap())).unwrap()
    }
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let difference = a.iter().zip(b).fold(0f32, |d, (a, b)| d.max((a - b).abs()));
    let error = difference / b.iter().fold(0f32, |m, b| m.max(b.abs()));
    assert!(error <= tolerance, "{what}: {error:.2e}");
}

/// All logits at once are what the others are compared with: single steps, batches that stop
/// early, a full context, and ggml's own kernels.
fn check(name: &str, config: &Config, bound: f32) {
    const TOKENS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let model = config.model(folder.path());
    let ids: Vec<TokenId> =
        (0..TOKENS).map(|i| TokenId((i * 7 % config.vocabulary) as u32)).collect();
    let decoder = |batch, threads, kernels| {
        let options =
            DecoderOptions { context: TOKENS, batch, cache: CacheType::F32, threads, kernels };
        Decoder::new(model.clone(), options).unwrap()
    };
    let all = decoder(2 * TOKENS, 1, Kernels::Auto).run(&ids, Logits::All).unwrap();
    let last = &all[(TOKENS - 1) * config.vocabulary..];
    for (batch, threads) in [(1, 1), (4, 2), (TOKENS - 1, 1)] {
        let mut decoder = decoder(batch, threads, Kernels::Auto);
        let logits = decoder.prefill_logits(&ids).unwrap();
        assert_close(&logits, last, bound, &format!("{name}: {batch} a batch, {threads} threads"));
        assert!(decoder.prefill(&ids[..1]).is_err(), "{name}: the context is full");
        let reached = decoder.truncate(TOKENS - 1);
        let logits = decoder.prefill_logits(&ids[reached..]).unwrap();
        assert_close(&logits, last, bound, &format!("{name}: rolled back to {reached}"));
    }
    for batch in [3, TOKENS] {
        let plain = decoder(batch, 1, Kernels::Ggml).run(&ids, Logits::All).unwrap();
        assert_close(&plain, &all, bound, &format!("{name}: ggml's kernels, {batch} a batch"));
    }
}

const ROUNDING: f32 = 1e-4;

#[test]
fn odd_layers_and_streams() {
    let one = Config { layers: 1, shared: 0, sliding: vec![true], ..config() };
    check("one layer", &one, ROUNDING);
    check("one full layer", &Config { sliding: vec![false], ..one }, ROUNDING);
    let first = Config { shared: 2, sliding: vec![false; 3], ..config() };
    check("only the first layer owns K/V", &first, ROUNDING);
    check("nothing shared", &Config { shared: 0, ..config() }, ROUNDING);
    for streams in [2, 4, 7, 16] {
        let active = streams - 1;
        check(&format!("{streams} streams"), &Config { streams, active, ..config() }, ROUNDING);
    }
}

#[test]
fn odd_widths() {
    let c = config;
    check("window 1", &Config { window: 1, ..c() }, ROUNDING);
    check("window beyond the context", &Config { window: 1 << 24, ..c() }, ROUNDING);
    check("one head each", &Config { heads: 1, kv_heads: 1, head_dim: 2, ..c() }, ROUNDING);
    check("no grouping", &Config { kv_heads: 4, head_dim: 34, ..c() }, ROUNDING);
    check("groups of five", &Config { heads: 5, kv_heads: 1, head_dim: 70, ..c() }, ROUNDING);
    check("one neuron", &Config { ffn: 1, ..c() }, ROUNDING);
    check("one token", &Config { vocabulary: 1, ..c() }, ROUNDING);
    check("widths of one", &Config { per_layer: 1, laurel: 1, embedding: 1, ..c() }, ROUNDING);
    check("tiny eps", &Config { eps: f32::from_bits(1), ..c() }, ROUNDING);
    check("dense", &Config { sparse: false, ..c() }, ROUNDING);
}

/// Other types of weights, whose rows here are whole blocks in some places only. ggml rounds
/// activations to the weights' kind (ours do so for a few tokens too, with F16 and BF16; Q8_0 has
/// its own 8 bits): hence the wide bounds, wider where a gate near the cut-off can fall on either
/// side.
#[test]
fn odd_widths_of_other_types() {
    let c = Config { embedding: 64, ffn: 33, layers: 3, sparse: false, ..config() };
    for (ty, kernels) in [(TensorType::F16, 1e-2), (TensorType::BF16, 5e-2)] {
        check(ty.name(), &Config { ty, ..c.clone() }, kernels);
        let sparse = Config { ty, sparse: true, ..c.clone() };
        check(&format!("{} sparse", ty.name()), &sparse, 0.2);
    }
    let c = Config { ty: TensorType::Q8_0, per_layer: 32, laurel: 32, ..c };
    check("Q8_0", &c, 5e-2);
    check("Q8_0 of 160", &Config { embedding: 160, ..c }, 5e-2);
}
