//! A checkpoint of a few kilobytes, made in place, so that each test can spoil its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

pub const LAYERS: usize = 4;
pub const VOCAB: usize = 20;
const WIDTHS: [usize; LAYERS] = [32, 48, 32, 32];

/// A tensor as it is stored.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The files of a checkpoint, before they are written.
#[derive(Clone)]
pub struct Tiny {
    pub config: Value,
    pub tokenizer: Value,
    pub settings: Value,
    pub generation: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Tensor {
    /// Values in −1 … 1 that depend on the name.
    fn new(name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        let mut state = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31) ^ byte as u32);
        let mut bytes = Vec::new();
        for _ in 0..shape.iter().product() {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            match dtype {
                Dtype::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                Dtype::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        Self { dtype, shape: shape.to_vec(), bytes }
    }

    /// The elements, widened.
    pub fn values(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F16 => {
                self.bytes.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            Dtype::BF16 => {
                self.bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            _ => {
                self.bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        }
    }
}

impl Tiny {
    /// As transformers 5 saves `Gemma3nForCausalLM`: no K and V in sharing layers.
    pub fn new(dtype: Dtype) -> Self {
        let mut tensors = BTreeMap::new();
        for (name, shape) in shapes() {
            let name = format!("model.{name}");
            tensors.insert(name.clone(), Tensor::new(&name, dtype, &shape));
        }
        Self {
            config: config(),
            tokenizer: tokenizer(),
            settings: json!({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                "unk_token": {"content": "<unk>"}, "add_bos_token": true, "add_eos_token": false,
                "chat_template": "{{ bos_token }}{{ messages }}"}),
            generation: json!({"eos_token_id": [1, 5], "top_k": 64, "top_p": 0.95,
                "temperature": 1.0}),
            tensors,
        }
    }

    /// Adds the K and V that checkpoints of transformers 4 have in sharing layers.
    pub fn with_unused_kv(mut self) -> Self {
        for layer in 2..LAYERS {
            for (part, shape) in
                [("k_norm", vec![8]), ("k_proj", vec![8, 32]), ("v_proj", vec![8, 32])]
            {
                let name = format!("model.layers.{layer}.self_attn.{part}.weight");
                self.tensors.insert(name.clone(), Tensor::new(&name, Dtype::BF16, &shape));
            }
        }
        self
    }

    /// Adds towers of the smallest sizes that have every kind of block.
    pub fn with_towers(mut self) -> Self {
        for (name, shape) in tower_shapes() {
            let name = format!("model.{name}");
            self.tensors.insert(name.clone(), Tensor::new(&name, Dtype::BF16, &shape));
        }
        self.config["vision_soft_tokens_per_image"] = json!(16);
        self.config["vision_config"] = json!({"hidden_size": 16, "vocab_size": 4});
        self.config["audio_config"] = json!({"hidden_size": 8, "vocab_size": 4,
            "input_feat_size": 16, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1,
            "sscp_conv_channel_size": [4, 2]});
        self
    }

    pub fn rename(mut self, rename: impl Fn(&str) -> String) -> Self {
        self.tensors =
            self.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        self
    }

    pub fn write(&self, dir: &Path) {
        self.write_small_files(dir);
        fs::write(dir.join("model.safetensors"), serialize(&self.tensors)).unwrap();
    }

    /// In two shards, by turns.
    pub fn write_shards(&self, dir: &Path) {
        self.write_small_files(dir);
        let mut shards = [BTreeMap::new(), BTreeMap::new()];
        let mut map = Map::new();
        for (index, (name, tensor)) in self.tensors.iter().enumerate() {
            shards[index % 2].insert(name.clone(), tensor.clone());
            map.insert(name.clone(), shard_name(index % 2).into());
        }
        for (index, shard) in shards.iter().enumerate() {
            fs::write(dir.join(shard_name(index)), serialize(shard)).unwrap();
        }
        let index = json!({"metadata": {}, "weight_map": map});
        fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    fn write_small_files(&self, dir: &Path) {
        for (name, value) in [
            ("config.json", &self.config),
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.settings),
            ("generation_config.json", &self.generation),
        ] {
            fs::write(dir.join(name), value.to_string()).unwrap();
        }
    }
}

pub fn shard_name(index: usize) -> String {
    format!("model-{:05}-of-00002.safetensors", index + 1)
}

pub fn serialize(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn config() -> Value {
    json!({
        "architectures": ["Gemma3nForCausalLM"], "model_type": "gemma3n_text",
        "vocab_size": VOCAB, "vocab_size_per_layer_input": 16, "hidden_size": 32,
        "intermediate_size": WIDTHS, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention",
            "full_attention"],
        "final_logit_softcapping": 30.0, "hidden_size_per_layer_input": 4,
        "altup_num_inputs": 4, "altup_active_idx": 0, "altup_correct_scale": true,
        "num_kv_shared_layers": 2, "laurel_rank": 4,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0}},
        "dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0
    })
}

/// Id 19 is a hole. Merges: "ab" first, then "abc".
fn tokenizer() -> Value {
    let vocab = json!({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 4,
        "<end_of_turn>": 5, "\n\n": 6, "▁▁": 7, "<0x00>": 8, "<0x0A>": 9, "<0xFF>": 10, "a": 11,
        "b": 12, "c": 13, "ab": 14, "abc": 15, "▁": 16, "▁a": 17, "bc": 18});
    let added: Vec<Value> = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
        "\n\n",
        "▁▁",
    ]
    .iter()
    .enumerate()
    .map(|(id, text)| json!({"id": id, "content": text, "special": id < 6, "normalized": false}))
    .collect();
    json!({
        "version": "1.0", "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}},
        "model": {"type": "BPE", "byte_fallback": true, "vocab": vocab,
            "merges": [["a", "b"], ["ab", "c"], ["b", "c"], ["a", "bc"], ["▁", "a"]]}
    })
}

/// Names without prefix, shapes as PyTorch has them.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("embed_tokens.weight".to_owned(), vec![VOCAB, 32]),
        ("embed_tokens_per_layer.weight".to_owned(), vec![16, 4 * LAYERS]),
        ("per_layer_model_projection.weight".to_owned(), vec![4 * LAYERS, 32]),
        ("per_layer_projection_norm.weight".to_owned(), vec![4]),
        ("norm.weight".to_owned(), vec![32]),
    ];
    for index in 0..3 {
        shapes.push((format!("altup_projections.{index}.weight"), vec![32, 32]));
        shapes.push((format!("altup_unembed_projections.{index}.weight"), vec![32, 32]));
    }
    for (layer, &width) in WIDTHS.iter().enumerate() {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("layers.{layer}.{name}"), shape.to_vec()));
        };
        for norm in [
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            "post_per_layer_input_norm",
            "altup.router_norm",
            "laurel.post_laurel_norm",
        ] {
            add(&format!("{norm}.weight"), &[32]);
        }
        add("altup.correct_output_scale", &[32]);
        add("altup.correction_coefs.weight", &[4, 4]);
        add("altup.prediction_coefs.weight", &[16, 4]);
        add("altup.modality_router.weight", &[4, 32]);
        add("laurel.linear_left.weight", &[4, 32]);
        add("laurel.linear_right.weight", &[32, 4]);
        add("mlp.gate_proj.weight", &[width, 32]);
        add("mlp.up_proj.weight", &[width, 32]);
        add("mlp.down_proj.weight", &[32, width]);
        add("per_layer_input_gate.weight", &[4, 32]);
        add("per_layer_projection.weight", &[32, 4]);
        add("self_attn.q_proj.weight", &[16, 32]);
        add("self_attn.o_proj.weight", &[32, 16]);
        add("self_attn.q_norm.weight", &[8]);
        if layer < 2 {
            add("self_attn.k_proj.weight", &[8, 32]);
            add("self_attn.v_proj.weight", &[8, 32]);
            add("self_attn.k_norm.weight", &[8]);
        }
    }
    shapes
}

/// Names after `model.`. Channels: stem 4, then 6, 8, 12 and 16 after the stages.
fn tower_shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));
    for (tower, width) in [("embed_vision", 16), ("embed_audio", 8)] {
        add(&format!("{tower}.embedding.weight"), &[4, width]);
        add(&format!("{tower}.embedding_projection.weight"), &[32, width]);
        add(&format!("{tower}.hard_embedding_norm.weight"), &[width]);
        add(&format!("{tower}.soft_embedding_norm.weight"), &[width]);
    }
    let mut vision = |name: &str, shape: &[usize]| {
        add(&format!("vision_tower.timm_model.{name}"), shape);
    };
    vision("conv_stem.conv.weight", &[4, 3, 3, 3]);
    vision("conv_stem.conv.bias", &[4]);
    vision("conv_stem.bn.weight", &[4]);
    vision("blocks.0.0.conv_exp.weight", &[16, 4, 3, 3]);
    vision("blocks.0.0.bn1.weight", &[16]);
    vision("blocks.0.0.conv_pwl.weight", &[6, 16, 1, 1]);
    vision("blocks.0.0.bn2.weight", &[6]);
    for (stage, input, output) in [(1, 6, 8), (2, 8, 12), (3, 12, 16)] {
        let inner = 2 * input;
        let mut block = |name: &str, shape: &[usize]| {
            vision(&format!("blocks.{stage}.0.{name}"), shape);
        };
        for (conv, shape) in [
            ("dw_start", [input, 1, 3, 3]),
            ("pw_exp", [inner, input, 1, 1]),
            ("dw_mid", [inner, 1, 5, 5]),
            ("pw_proj", [output, inner, 1, 1]),
        ] {
            block(&format!("{conv}.conv.weight"), &shape);
            block(&format!("{conv}.bn.weight"), &[shape[0]]);
        }
        block("layer_scale.gamma", &[output]);
    }
    for (stage, channels, down) in [(2, 12, true), (3, 16, false)] {
        let mut block = |name: &str, shape: &[usize]| {
            vision(&format!("blocks.{stage}.1.{name}"), shape);
        };
        for part in ["key", "value"] {
            block(&format!("attn.{part}.proj.weight"), &[4, channels, 1, 1]);
            if down {
                block(&format!("attn.{part}.down_conv.weight"), &[channels, 1, 3, 3]);
                block(&format!("attn.{part}.norm.weight"), &[channels]);
            }
        }
        block("attn.query.proj.weight", &[8, channels, 1, 1]);
        block("attn.output.proj.weight", &[channels, 8, 1, 1]);
        block("norm.weight", &[channels]);
        block("layer_scale.gamma", &[channels]);
    }
    vision("msfa.ffn.pw_exp.conv.weight", &[20, 28, 1, 1]);
    vision("msfa.ffn.pw_exp.bn.weight", &[20]);
    vision("msfa.ffn.pw_proj.conv.weight", &[16, 20, 1, 1]);
    vision("msfa.ffn.pw_proj.bn.weight", &[16]);
    vision("msfa.norm.weight", &[16]);
    let mut audio = |name: &str, shape: &[usize]| add(&format!("audio_tower.{name}"), shape);
    for (index, shape) in [[4, 1, 3, 3], [2, 4, 3, 3]].iter().enumerate() {
        audio(&format!("subsample_conv_projection.conv_{index}.conv.weight"), shape);
        audio(&format!("subsample_conv_projection.conv_{index}.norm.weight"), &shape[..1]);
    }
    audio("subsample_conv_projection.input_proj_linear.weight", &[8, 8]);
    let mut block = |name: &str, shape: &[usize]| audio(&format!("conformer.0.{name}"), shape);
    for end in ["start", "end"] {
        block(&format!("ffw_layer_{end}.ffw_layer_1.weight"), &[32, 8]);
        block(&format!("ffw_layer_{end}.ffw_layer_2.weight"), &[8, 32]);
        block(&format!("ffw_layer_{end}.pre_layer_norm.weight"), &[8]);
        block(&format!("ffw_layer_{end}.post_layer_norm.weight"), &[8]);
    }
    for name in ["q_proj", "k_proj", "v_proj", "relative_position_embedding.pos_proj"] {
        block(&format!("attention.attn.{name}.weight"), &[8, 8]);
    }
    block("attention.attn.per_dim_scale", &[4]);
    block("attention.post.weight", &[8, 8]);
    for name in ["attention.pre_attn_norm", "attention.post_norm", "lconv1d.pre_layer_norm"] {
        block(&format!("{name}.weight"), &[8]);
    }
    block("lconv1d.conv_norm.weight", &[8]);
    block("lconv1d.linear_start.weight", &[16, 8]);
    block("lconv1d.depthwise_conv1d.weight", &[8, 1, 5]);
    block("lconv1d.linear_end.weight", &[8, 8]);
    block("norm.weight", &[8]);
    shapes
}
