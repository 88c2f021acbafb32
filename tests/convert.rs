//! `convert`: what a checkpoint holds is what the file holds, and a bad checkpoint says why.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gemma3n::checkpoint::{Checkpoint, Float};
use gemma3n::files::{convert, execute};
use gemma3n::gguf::{Gguf, TensorType, Value, ValueType};
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use tempfile::TempDir;

#[path = "support/shared.rs"]
mod shared;
#[path = "convert/tiny.rs"]
mod tiny;

use tiny::{Tensor, Tiny};

/// Converts a directory; the error as the user sees it.
fn convert(dir: &Path, ty: Option<Float>) -> Result<(TempDir, Gguf), String> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("out.gguf");
    let checkpoint = Checkpoint::open(dir).map_err(|error| error.to_string())?;
    let plan = convert::plan(&checkpoint, ty).map_err(|error| error.to_string())?;
    let mut progress = |_done: u64, _total: u64| ControlFlow::Continue(());
    execute::execute(&plan, &checkpoint.weights, &path, false, &mut progress)
        .map_err(|error| error.to_string())?;
    let gguf = Gguf::open(&path).map_err(|error| error.to_string())?;
    Ok((out, gguf))
}

fn convert_tiny(tiny: &Tiny, ty: Option<Float>) -> Result<(TempDir, Gguf), String> {
    let dir = tempfile::tempdir().unwrap();
    tiny.write(dir.path());
    convert(dir.path(), ty)
}

/// A folder of the oracle; `None` (and a message) where it isn't there.
fn oracle(name: &str) -> Option<PathBuf> {
    Some(shared::shared()?.join("oracle").join(name))
}

/// All tensors of a checkpoint directory, by the names of the text model without prefix.
fn stored(dir: &Path) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let text = name.strip_prefix("model.language_model.").or(name.strip_prefix("model."));
            let (dtype, shape) = (view.dtype(), view.shape().to_vec());
            let tensor = Tensor { dtype, shape, bytes: view.data().to_vec() };
            tensors.insert(text.unwrap().to_owned(), tensor);
        }
    }
    tensors
}

/// The names of gguf.md, section 3, from a name in the file to those in the checkpoint.
fn sources(name: &str) -> Vec<String> {
    const LAYER: [(&str, &str); 24] = [
        ("attn_norm", "input_layernorm.weight"),
        ("attn_q", "self_attn.q_proj.weight"),
        ("attn_k", "self_attn.k_proj.weight"),
        ("attn_v", "self_attn.v_proj.weight"),
        ("attn_q_norm", "self_attn.q_norm.weight"),
        ("attn_k_norm", "self_attn.k_norm.weight"),
        ("attn_output", "self_attn.o_proj.weight"),
        ("post_attention_norm", "post_attention_layernorm.weight"),
        ("ffn_norm", "pre_feedforward_layernorm.weight"),
        ("ffn_gate", "mlp.gate_proj.weight"),
        ("ffn_up", "mlp.up_proj.weight"),
        ("ffn_down", "mlp.down_proj.weight"),
        ("post_ffw_norm", "post_feedforward_layernorm.weight"),
        ("inp_gate", "per_layer_input_gate.weight"),
        ("proj", "per_layer_projection.weight"),
        ("post_norm", "post_per_layer_input_norm.weight"),
        ("altup_correct_coef", "altup.correction_coefs.weight"),
        ("altup_correct_scale", "altup.correct_output_scale"),
        ("altup_predict_coef", "altup.prediction_coefs.weight"),
        ("altup_router", "altup.modality_router.weight"),
        ("altup_router_norm", "altup.router_norm.weight"),
        ("laurel_l", "laurel.linear_left.weight"),
        ("laurel_r", "laurel.linear_right.weight"),
        ("laurel_post_norm", "laurel.post_laurel_norm.weight"),
    ];
    let stack = |name: &str| (0..3).map(|i| format!("{name}.{i}.weight")).collect();
    let name = name.strip_suffix(".weight").unwrap();
    if let Some(rest) = name.strip_prefix("blk.") {
        let (layer, suffix) = rest.split_once('.').unwrap();
        let source = LAYER.iter().find(|(ours, _)| *ours == suffix).unwrap().1;
        return vec![format!("layers.{layer}.{source}")];
    }
    match name {
        "altup_proj" => stack("altup_projections"),
        "altup_unembd_proj" => stack("altup_unembed_projections"),
        "token_embd" => vec!["embed_tokens.weight".into()],
        "per_layer_token_embd" => vec!["embed_tokens_per_layer.weight".into()],
        "per_layer_model_proj" => vec!["per_layer_model_projection.weight".into()],
        "per_layer_proj_norm" => vec!["per_layer_projection_norm.weight".into()],
        "output_norm" => vec!["norm.weight".into()],
        other => panic!("{other} is no tensor of the format"),
    }
}

fn widened(bytes: &[u8], ty: TensorType) -> Vec<f32> {
    let dtype = match ty {
        TensorType::F32 => Dtype::F32,
        TensorType::F16 => Dtype::F16,
        TensorType::BF16 => Dtype::BF16,
        other => panic!("{other}"),
    };
    Tensor { dtype, shape: Vec::new(), bytes: bytes.to_vec() }.values()
}

/// Every tensor of the file against the checkpoint's values, rounded to the tensor's type; what
/// the checkpoint doesn't have must be zeros. Each tensor of the checkpoint is used once.
fn assert_same_weights(gguf: &Gguf, mut stored: BTreeMap<String, Tensor>, ty: TensorType) {
    for tensor in gguf.tensors() {
        let small = tensor.n_dims == 1 || tensor.name.contains("_coef.");
        assert_eq!(tensor.ty, if small { TensorType::F32 } else { ty }, "{}", tensor.name);
        let found = widened(gguf.data(tensor), tensor.ty);
        let mut expected = Vec::new();
        for source in sources(&tensor.name) {
            let Some(source) = stored.remove(&source) else { continue };
            let ne: Vec<u64> = source.shape.iter().rev().map(|&n| n as u64).collect();
            assert_eq!(tensor.ne[0], ne[0], "{}", tensor.name);
            expected.extend(source.values());
        }
        let kv = ["attn_k.", "attn_v.", "attn_k_norm."].iter().any(|k| tensor.name.contains(k));
        assert!(kv || !expected.is_empty(), "{} has no source", tensor.name);
        let padded = kv || tensor.name == "per_layer_token_embd.weight";
        assert!(padded || expected.len() == found.len(), "{}", tensor.name);
        expected.resize(found.len(), 0.0);
        for (found, expected) in found.iter().zip(&expected) {
            let expected = match tensor.ty {
                TensorType::F16 => f16::from_f32(*expected).to_f32(),
                TensorType::BF16 => bf16::from_f32(*expected).to_f32(),
                _ => *expected,
            };
            assert_eq!(found.to_bits(), expected.to_bits(), "{}", tensor.name);
        }
    }
    stored.retain(|name, _| !name.contains("_tower.") && !name.starts_with("embed_"));
    assert!(stored.is_empty(), "{:?} were not converted", stored.keys());
}

#[test]
fn the_oracles_weights_arrive_bit_for_bit() {
    for name in ["text", "full"] {
        let Some(dir) = oracle(name) else { return };
        for (float, ty) in [
            (Float::F32, TensorType::F32),
            (Float::F16, TensorType::F16),
            (Float::BF16, TensorType::BF16),
        ] {
            let (_out, gguf) = convert(&dir, Some(float)).unwrap();
            assert_eq!(gguf.tensors().len(), 7 + 24 * 10);
            assert_same_weights(&gguf, stored(&dir), ty);
        }
    }
}

#[test]
fn the_type_is_the_checkpoints_own_unless_asked_for() {
    for (dtype, ty) in [
        (Dtype::F32, TensorType::F32),
        (Dtype::F16, TensorType::F16),
        (Dtype::BF16, TensorType::BF16),
    ] {
        let tiny = Tiny::new(dtype);
        let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
        let stored = tiny
            .tensors
            .iter()
            .map(|(name, tensor)| (name["model.".len()..].to_owned(), tensor.clone()))
            .collect();
        assert_same_weights(&gguf, stored, ty);
    }
}

/// A value as a comparable text with its type, as the table of gguf.md, section 2, has it.
fn described(gguf: &Gguf, key: &str) -> String {
    match gguf.metadata().get(key) {
        None => "absent".into(),
        Some(Value::String(text)) => format!("string {}", String::from_utf8_lossy(text)),
        Some(Value::Bool(value)) => format!("bool {value}"),
        Some(Value::Array(array)) => match array.element_type() {
            ValueType::I32 => format!("i32 {:?}", array.i32s().unwrap()),
            ValueType::F32 => format!("f32 {:?}", array.f32s().unwrap()),
            ValueType::Bool => format!("bool {:?}", array.bools().unwrap()),
            other => format!("{} × {}", other.name(), array.len()),
        },
        Some(value) => {
            format!("{} {}", value.value_type().name(), value.as_float().unwrap())
        }
    }
}

/// Expected: the output of llama.cpp's converter on the same checkpoints, but for the multiplier
/// (1.6448536 there on MKL; published files have this one), the end of turn and our own key.
#[test]
fn the_oracles_keys_are_those_of_the_format() {
    for name in ["text", "full"] {
        let Some(dir) = oracle(name) else { return };
        let (_out, gguf) = convert(&dir, Some(Float::F32)).unwrap();
        let multipliers = [1.6448533535003662_f64 as f32; 5];
        let scales: Vec<f32> = multipliers.into_iter().chain([f32::NEG_INFINITY; 5]).collect();
        let scales = format!("f32 {scales:?}");
        let expected = [
            ("general.architecture", "string gemma3n"),
            ("general.type", "string model"),
            ("general.name", &format!("string {name}")),
            ("general.size_label", "string 2.1M"),
            ("general.sampling.top_k", "i32 64"),
            ("general.sampling.top_p", "f32 0.949999988079071"),
            ("general.sampling.temp", "f32 1"),
            ("general.file_type", "u32 0"),
            ("general.quantization_version", "u32 2"),
            ("gemma3n.block_count", "u32 10"),
            ("gemma3n.context_length", "u32 2048"),
            ("gemma3n.embedding_length", "u32 128"),
            (
                "gemma3n.feed_forward_length",
                "i32 [256, 192, 256, 128, 224, 256, 160, 192, 256, 128]",
            ),
            ("gemma3n.attention.head_count", "u32 4"),
            ("gemma3n.attention.head_count_kv", "u32 2"),
            ("gemma3n.attention.key_length", "u32 32"),
            ("gemma3n.attention.value_length", "u32 32"),
            ("gemma3n.attention.layer_norm_rms_epsilon", "f32 0.0000009999999974752427"),
            ("gemma3n.attention.sliding_window", "u32 16"),
            (
                "gemma3n.attention.sliding_window_pattern",
                "bool [true, true, true, true, false, true, true, true, true, false]",
            ),
            ("gemma3n.attention.shared_kv_layers", "u32 5"),
            ("gemma3n.rope.freq_base", "f32 1000000"),
            ("gemma3n.rope.freq_base_swa", "f32 10000"),
            ("gemma3n.final_logit_softcapping", "f32 30"),
            ("gemma3n.altup.active_idx", "u32 0"),
            ("gemma3n.altup.num_inputs", "u32 4"),
            ("gemma3n.embedding_length_per_layer_input", "u32 32"),
            ("gemma3n.activation_sparsity_scale", &scales),
            ("gemma3n.cli.vocab_size_per_layer_input", "u32 1024"),
            ("tokenizer.ggml.model", "string llama"),
            ("tokenizer.ggml.pre", "string default"),
            ("tokenizer.ggml.bos_token_id", "u32 2"),
            ("tokenizer.ggml.eos_token_id", "u32 1"),
            ("tokenizer.ggml.eot_token_id", "u32 15"),
            ("tokenizer.ggml.unknown_token_id", "u32 3"),
            ("tokenizer.ggml.padding_token_id", "u32 0"),
            ("tokenizer.ggml.mask_token_id", "u32 4"),
            ("tokenizer.ggml.add_bos_token", "bool true"),
            ("tokenizer.ggml.add_eos_token", "bool false"),
            ("tokenizer.ggml.add_sep_token", "bool false"),
            ("tokenizer.ggml.add_space_prefix", "bool false"),
        ];
        for (key, expected) in expected {
            assert_eq!(described(&gguf, key), expected, "{key}");
        }
        let template = fs::read_to_string(dir.join("chat_template.jinja")).unwrap();
        assert_eq!(described(&gguf, "tokenizer.chat_template"), format!("string {template}"));
        // Those above, the template, and tokens, scores and types.
        assert_eq!(gguf.metadata().iter().count(), expected.len() + 4);
    }
}

/// Pieces, scores and types of a file.
fn vocabulary(gguf: &Gguf) -> Vec<(String, f32, i32)> {
    let array = |key: &str| match gguf.metadata().get(key) {
        Some(Value::Array(array)) => array,
        other => panic!("{key}: {other:?}"),
    };
    let tokens = array("tokenizer.ggml.tokens");
    let scores = array("tokenizer.ggml.scores").f32s().unwrap();
    let types = array("tokenizer.ggml.token_type").i32s().unwrap();
    assert_eq!((tokens.len(), tokens.len()), (scores.len(), types.len()));
    let texts = tokens.strings().map(|text| String::from_utf8(text.to_vec()).unwrap());
    texts.zip(scores).zip(types).map(|((text, score), kind)| (text, score, kind)).collect()
}

/// Added tokens as `tokenizer.json` has them; the others as the script that made the oracle's
/// `tokenizer.model` did: bytes 51..=306, then pieces whose scores fall from 0 by 1.
#[test]
fn the_oracles_vocabulary_keeps_ids_kinds_and_scores() {
    let Some(dir) = oracle("text") else { return };
    let (_out, gguf) = convert(&dir, None).unwrap();
    let vocabulary = vocabulary(&gguf);
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(vocabulary.len(), 1088);
    for (text, id) in json["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        let added = json["added_tokens"].as_array().unwrap();
        let expected = match added.iter().find(|token| token["id"] == id) {
            Some(token) if token["special"] == true => (text.clone(), -1000.0, 3),
            Some(_) => (text.replace('▁', " "), -1000.0, 4),
            None if (51..=306).contains(&id) => (text.clone(), 0.0, 6),
            None => (text.clone(), 307.0 - id as f32, 1),
        };
        assert_eq!(vocabulary[id], expected, "id {id}");
    }
}

#[test]
fn without_tokenizer_model_scores_are_ranks_of_merges() {
    let (_out, gguf) = convert_tiny(&Tiny::new(Dtype::BF16), None).unwrap();
    let vocabulary = vocabulary(&gguf);
    let at = |id: usize| (vocabulary[id].0.as_str(), vocabulary[id].1, vocabulary[id].2);
    assert_eq!(at(2), ("<bos>", -1000.0, 3));
    assert_eq!(at(3), ("<unk>", -1000.0, 3));
    assert_eq!(at(6), ("\n\n", -1000.0, 4));
    assert_eq!(at(7), ("  ", -1000.0, 4));
    assert_eq!(at(9), ("<0x0A>", 0.0, 6));
    assert_eq!(at(14), ("ab", -0.0, 1));
    assert_eq!(at(15), ("abc", -1.0, 1));
    assert_eq!(at(18), ("bc", -2.0, 1));
    assert_eq!(at(17), ("▁a", -4.0, 1));
    assert_eq!(at(11), ("a", -5.0, 1));
    assert_eq!(at(19), ("[PAD19]", -10000.0, 5));
}

/// The oracle's two forms of its tokenizer say the same about everything but what is special.
#[test]
fn tokenizer_model_alone_is_enough() {
    let Some(oracle) = oracle("text") else { return };
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&oracle).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "tokenizer.json" {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let (_both, both) = convert(&oracle, None).unwrap();
    let (_alone, alone) = convert(dir.path(), None).unwrap();
    let (both, alone) = (vocabulary(&both), vocabulary(&alone));
    for (id, (both, alone)) in both.iter().zip(&alone).enumerate() {
        assert_eq!((&both.0, both.2), (&alone.0, alone.2), "id {id}");
        assert!(both.2 != 1 || both.1 == alone.1, "id {id}");
    }
}

#[path = "convert/variants.rs"]
mod variants;

#[path = "convert/tower_names.rs"]
mod tower_names;

#[path = "convert/towers.rs"]
mod towers;

#[path = "convert/faults.rs"]
mod faults;
