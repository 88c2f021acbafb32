//! The ways in which checkpoints of one model differ: they give one file.

use std::fs;

use gemma3n::checkpoint::Float;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::tiny::{LAYERS, Tiny};
use super::{convert, convert_tiny, described};

/// The bytes of the file that a checkpoint gives; the name, which is the directory's, apart.
fn bytes(write: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    fs::create_dir(&dir).unwrap();
    write(&dir);
    let (out, _gguf) = convert(&dir, Some(Float::BF16)).unwrap();
    fs::read(out.path().join("out.gguf")).unwrap()
}

#[test]
fn shards_and_prefixes_make_no_difference() {
    let tiny = Tiny::new(Dtype::BF16);
    let expected = bytes(|dir| tiny.write(dir));
    assert_eq!(bytes(|dir| tiny.write_shards(dir)), expected);
    for prefix in ["model.language_model.", "language_model.model.", "language_model.", ""] {
        let renamed = tiny.clone().rename(|name| name.replacen("model.", prefix, 1));
        assert_eq!(bytes(|dir| renamed.write(dir)), expected, "{prefix}");
    }
}

/// `text_config`, `torch_dtype`, `rope_theta`, `rope_local_base_freq`, `rope_scaling`.
#[test]
fn the_configuration_of_transformers_4_means_the_same() {
    let tiny = Tiny::new(Dtype::BF16);
    let expected = bytes(|dir| tiny.write(dir));
    let mut older = tiny.clone();
    let mut text = tiny.config.clone();
    let keys = text.as_object_mut().unwrap();
    keys.remove("rope_parameters");
    keys.remove("dtype");
    keys.insert("rope_theta".into(), json!(500000.0));
    keys.insert("rope_local_base_freq".into(), json!(10000.0));
    keys.insert("rope_scaling".into(), Value::Null);
    keys.insert("torch_dtype".into(), json!("bfloat16"));
    older.config = json!({"architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n", "eos_token_id": [1, 5], "text_config": text});
    assert_eq!(bytes(|dir| older.write(dir)), expected);
}

#[test]
fn towers_and_a_tied_head_are_left_out() {
    let tiny = Tiny::new(Dtype::BF16);
    let expected = bytes(|dir| tiny.write(dir));
    let mut whole = tiny.clone();
    let some = tiny.tensors["model.norm.weight"].clone();
    for name in [
        "model.audio_tower.a.weight",
        "model.vision_tower.b.gamma",
        "model.embed_vision.embedding.weight",
        "model.embed_audio.embedding.weight",
    ] {
        whole.tensors.insert(name.into(), some.clone());
    }
    whole
        .tensors
        .insert("lm_head.weight".into(), tiny.tensors["model.embed_tokens.weight"].clone());
    assert_eq!(bytes(|dir| whole.write(dir)), expected);
}

#[test]
fn an_untied_head_becomes_the_output() {
    let mut tiny = Tiny::new(Dtype::BF16);
    tiny.config["tie_word_embeddings"] = json!(false);
    let head = tiny.tensors["model.embed_tokens.weight"].clone();
    tiny.tensors.insert("lm_head.weight".into(), head.clone());
    let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
    assert_eq!(gguf.data(gguf.tensor("output.weight").unwrap()), head.bytes);
}

/// Absent K and V of sharing layers are zeros, present ones are kept.
#[test]
fn unused_keys_and_values_are_there_either_way() {
    for (tiny, present) in
        [(Tiny::new(Dtype::BF16), false), (Tiny::new(Dtype::BF16).with_unused_kv(), true)]
    {
        let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
        for layer in 2..LAYERS {
            for part in ["attn_k", "attn_v", "attn_k_norm"] {
                let name = format!("blk.{layer}.{part}.weight");
                let tensor = gguf.tensor(&name).unwrap();
                assert_eq!(gguf.data(tensor).iter().any(|&byte| byte != 0), present, "{name}");
            }
        }
    }
}

/// A model that doesn't apply the scale is one whose scale is 1.
#[test]
fn a_scale_that_is_not_applied_is_written_as_ones() {
    let mut tiny = Tiny::new(Dtype::BF16);
    tiny.config["altup_correct_scale"] = json!(false);
    let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
    let tensor = gguf.tensor("blk.1.altup_correct_scale.weight").unwrap();
    assert_eq!(gguf.data(tensor), 1f32.to_le_bytes().repeat(32));
}

#[test]
fn one_width_for_all_layers_and_defaults_of_the_class() {
    let mut tiny = Tiny::new(Dtype::BF16);
    let keys = tiny.config.as_object_mut().unwrap();
    keys.insert("intermediate_size".into(), json!(32));
    for key in [
        "layer_types",
        "activation_sparsity_pattern",
        "rope_parameters",
        "final_logit_softcapping",
        "max_position_embeddings",
        "rms_norm_eps",
    ] {
        keys.remove(key);
    }
    keys.insert("num_kv_shared_layers".into(), json!(0));
    let mut tiny = tiny.with_unused_kv();
    for (part, shape) in
        [("gate_proj", vec![32, 32]), ("up_proj", vec![32, 32]), ("down_proj", vec![32, 32])]
    {
        let tensor = tiny.tensors.get_mut(&format!("model.layers.1.mlp.{part}.weight")).unwrap();
        tensor.shape = shape;
        tensor.bytes.truncate(32 * 32 * 2);
    }
    let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
    for (key, expected) in [
        ("gemma3n.feed_forward_length", "u32 32"),
        ("gemma3n.attention.sliding_window_pattern", "bool [true, true, true, true]"),
        ("gemma3n.activation_sparsity_scale", "f32 [-inf, -inf, -inf, -inf]"),
        ("gemma3n.rope.freq_base", "f32 1000000"),
        ("gemma3n.rope.freq_base_swa", "f32 10000"),
        ("gemma3n.final_logit_softcapping", "f32 30"),
        ("gemma3n.context_length", "u32 32768"),
    ] {
        assert_eq!(described(&gguf, key), expected, "{key}");
    }
}

/// Published chat models name `<end_of_turn>` in one place or another.
#[test]
fn the_end_of_turn_is_eos_where_the_tokenizer_says_so() {
    let mut tiny = Tiny::new(Dtype::BF16);
    tiny.settings["eos_token"] = json!("<end_of_turn>");
    let (_out, gguf) = convert_tiny(&tiny, None).unwrap();
    assert_eq!(described(&gguf, "tokenizer.ggml.eos_token_id"), "u32 5");
    assert_eq!(described(&gguf, "tokenizer.ggml.eot_token_id"), "u32 1");
}

#[test]
fn templates_come_from_the_file_that_transformers_prefers() {
    let tiny = Tiny::new(Dtype::BF16);
    let dir = tempfile::tempdir().unwrap();
    tiny.write(dir.path());
    let default = || {
        let (_out, gguf) = convert(dir.path(), None).unwrap();
        described(&gguf, "tokenizer.chat_template")
    };
    assert_eq!(default(), "string {{ bos_token }}{{ messages }}");
    fs::write(dir.path().join("chat_template.json"), r#"{"chat_template": "json"}"#).unwrap();
    assert_eq!(default(), "string json");
    fs::write(dir.path().join("chat_template.jinja"), "jinja").unwrap();
    assert_eq!(default(), "string jinja");
    let extra = dir.path().join("additional_chat_templates");
    fs::create_dir(&extra).unwrap();
    fs::write(extra.join("tools.jinja"), "with tools").unwrap();
    let (_out, gguf) = convert(dir.path(), None).unwrap();
    assert_eq!(described(&gguf, "tokenizer.chat_template"), "string jinja");
    assert_eq!(described(&gguf, "tokenizer.chat_template.tools"), "string with tools");
    assert_eq!(described(&gguf, "tokenizer.chat_templates"), "string × 1");
}

#[test]
fn the_licence_of_the_model_card_is_kept() {
    let tiny = Tiny::new(Dtype::BF16);
    let dir = tempfile::tempdir().unwrap();
    tiny.write(dir.path());
    fs::write(dir.path().join("README.md"), "---\nlicense: gemma\ntags: [a]\n---\n# Gemma")
        .unwrap();
    let (_out, gguf) = convert(dir.path(), None).unwrap();
    assert_eq!(described(&gguf, "general.license"), "string gemma");
}
