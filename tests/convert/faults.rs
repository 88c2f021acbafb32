//! Bad checkpoints: an error that names file and cause, nothing written, never a panic.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use gemma3n::checkpoint::{Checkpoint, Float};
use gemma3n::files::{convert as planning, execute};
use gemma3n::gguf::TensorType;
use half::bf16;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::tiny::{Tiny, serialize, shard_name};
use super::{convert, convert_tiny};

fn tiny() -> Tiny {
    Tiny::new(Dtype::BF16)
}

/// The error of a checkpoint directory, without the directory's own path.
fn error_of(write: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let error = convert(dir.path(), None).expect_err("it should be refused");
    let dir = dir.path().display().to_string();
    error.replace(&format!("{dir}/"), "").replace(&dir, "DIR")
}

#[test]
fn a_bad_configuration_names_the_key() {
    let cases: &[(&str, Value, &str)] = &[
        ("hidden_size", Value::Null, "config.json: key hidden_size: missing"),
        (
            "hidden_size",
            json!("32"),
            "config.json: key hidden_size: expected a whole number from 1 to 16777216, found \"32\"",
        ),
        (
            "num_hidden_layers",
            json!(0),
            "config.json: key num_hidden_layers: expected a whole number from 1 to 512, found 0",
        ),
        (
            "num_hidden_layers",
            json!(1u64 << 60),
            "config.json: key num_hidden_layers: expected a whole number from 1 to 512, \
             found 1152921504606846976",
        ),
        (
            "intermediate_size",
            json!([32, 32]),
            "config.json: key intermediate_size: expected a width from 1 to 16777216, or a list \
             of 4, found a list of 2",
        ),
        (
            "layer_types",
            json!(["full_attention", "full_attention", "full_attention"]),
            "config.json: key layer_types: expected a list of 4, found a list of 3",
        ),
        (
            "activation_sparsity_pattern",
            json!([0.95, 0.3, 0.0, 0.0]),
            "config.json: key activation_sparsity_pattern: expected 4 shares, each 0 or above 0.5 \
             and below 1, found 0.3",
        ),
        (
            "num_kv_shared_layers",
            json!(3),
            "config.json: key num_kv_shared_layers: expected so few that a layer of each kind of \
             attention owns its K and V, found 3",
        ),
        (
            "hidden_activation",
            json!("relu"),
            "config.json: key hidden_activation: expected gelu_pytorch_tanh, found relu",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0}),
            "config.json: key rope_scaling.rope_type: expected no scaling of RoPE (type default), \
             found yarn",
        ),
        (
            "quantization_config",
            json!({"bits": 4}),
            "config.json: key quantization_config: expected an unquantized checkpoint, found a \
             quantized one",
        ),
        (
            "model_type",
            json!("gemma3_text"),
            "config.json: key model_type: expected gemma3n or gemma3n_text, found gemma3_text",
        ),
        (
            "architectures",
            json!(["LlamaForCausalLM"]),
            "config.json: key architectures: expected Gemma3nForConditionalGeneration or \
             Gemma3nForCausalLM, found \"LlamaForCausalLM\"",
        ),
        (
            "vocab_size_per_layer_input",
            json!(21),
            "config.json: key vocab_size_per_layer_input: expected at most vocab_size, 20, found 21",
        ),
        (
            "rms_norm_eps",
            json!(-1.0),
            "config.json: key rms_norm_eps: expected a finite number above 0, found -1",
        ),
    ];
    for (key, value, expected) in cases {
        let mut tiny = tiny();
        tiny.config[key] = value.clone();
        assert_eq!(error_of(|dir| tiny.write(dir)), *expected);
    }
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let mut missing = tiny();
    missing.tensors.remove("model.layers.1.self_attn.k_proj.weight");
    assert_eq!(
        error_of(|dir| missing.write(dir)),
        "DIR: tensor layers.1.self_attn.k_proj.weight: missing"
    );
    let mut misshapen = tiny();
    misshapen.config["hidden_size_per_layer_input"] = json!(8);
    assert_eq!(
        error_of(|dir| misshapen.write(dir)),
        "model.safetensors: tensor model.embed_tokens_per_layer.weight: expected [16, 32], found \
         [16, 16]"
    );
    let mut transposed = tiny();
    let tensor = transposed.tensors.get_mut("model.layers.0.self_attn.k_proj.weight").unwrap();
    tensor.shape.reverse();
    assert_eq!(
        error_of(|dir| transposed.write(dir)),
        "model.safetensors: tensor model.layers.0.self_attn.k_proj.weight: expected [8, 32], found \
         [32, 8]"
    );
}

#[test]
fn a_vocabulary_that_does_not_fit_is_an_error() {
    let mut larger = tiny();
    larger.config["vocab_size"] = json!(21);
    assert_eq!(
        error_of(|dir| larger.write(dir)),
        "model.safetensors: tensor model.embed_tokens.weight: expected [21, 32], found [20, 32]"
    );
    let mut without_bos = tiny();
    without_bos.config["vocab_size"] = json!(2);
    without_bos.config["vocab_size_per_layer_input"] = json!(2);
    let error = error_of(|dir| without_bos.write(dir));
    assert!(error.contains("key bos_token: expected a token of the vocabulary"), "{error}");
}

#[test]
fn an_unknown_tensor_is_named_not_dropped() {
    let mut tiny = tiny();
    let some = tiny.tensors["model.norm.weight"].clone();
    for name in ["model.layers.0.mlp.up_proj.weight_scale", "model.layers.4.altup.x"] {
        tiny.tensors.insert(name.into(), some.clone());
    }
    assert_eq!(
        error_of(|dir| tiny.write(dir)),
        "model.safetensors: tensor model.layers.0.mlp.up_proj.weight_scale: no part of Gemma 3n's \
         text model (1 more are none)"
    );
    let mut twice = super::faults::tiny();
    twice.tensors.insert("norm.weight".into(), some);
    assert_eq!(
        error_of(|dir| twice.write(dir)),
        "model.safetensors: tensor norm.weight: the same weight as model.norm.weight"
    );
}

#[test]
fn an_element_type_that_is_not_read_is_named() {
    let mut tiny = tiny();
    let tensor = tiny.tensors.get_mut("model.norm.weight").unwrap();
    (tensor.dtype, tensor.bytes) = (Dtype::I8, vec![0; 32]);
    assert_eq!(
        error_of(|dir| tiny.write(dir)),
        "model.safetensors: tensor model.norm.weight: type I8 is not read (only F32, F16 and BF16 \
         are)"
    );
}

#[test]
fn a_weight_that_is_no_number_is_an_error() {
    const NAME: &str = "model.layers.1.mlp.up_proj.weight";
    let with = |value: f32| {
        let mut tiny = tiny();
        let bytes = &mut tiny.tensors.get_mut(NAME).unwrap().bytes;
        bytes[10..12].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
        tiny
    };
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = error_of(|dir| with(value).write(dir));
        assert_eq!(error, format!("model.safetensors: tensor {NAME}: element 5 is {shown}"));
    }
    let large = with(131072.0);
    let error = convert_tiny(&large, Some(Float::F16)).unwrap_err();
    assert!(error.ends_with("element 5 is 1.31072e5, beyond what F16 holds (65504)"), "{error}");
    convert_tiny(&large, Some(Float::BF16)).unwrap();
}

/// A safetensors file with this header before `data` bytes.
fn lying(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_lying_safetensors_header_is_refused() {
    let tensor = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
        format!(
            r#""{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{start}, {end}]}}"#
        )
    };
    let header = |tensors: &[String]| format!("{{{}}}", tensors.join(", "));
    let cases = [
        (vec![], "0 bytes are no safetensors file"),
        (vec![1, 2, 3], "3 bytes are no safetensors file"),
        (
            (1u64 << 60).to_le_bytes().to_vec(),
            "the header's length, 1152921504606846976, is beyond",
        ),
        (lying("no JSON", 8), "header: expected"),
        (lying("{}", 8), "its tensors take 0 bytes, the file has 8"),
        (lying(&header(&[tensor("a", "F32", "[4]", 0, 16)]), 8), "take 16 bytes, the file has 8"),
        (lying(&header(&[tensor("a", "F32", "[3]", 0, 16)]), 16), "header: invalid shape"),
        (lying(&header(&[tensor("a", "F99", "[4]", 0, 16)]), 16), "header: unknown variant `F99`"),
        (lying(&header(&[tensor("a", "F32", "[4]", 16, 0)]), 16), "header: invalid offset"),
        (lying(&header(&[tensor("a", "F32", "[-4]", 0, 16)]), 16), "header: invalid value"),
        (
            lying(&header(&[tensor("a", "F32", "[4294967296, 4294967296]", 0, 16)]), 16),
            "header: overflow",
        ),
        (
            lying(
                &header(&[tensor("a", "F32", "[4]", 0, 16), tensor("b", "F32", "[4]", 8, 24)]),
                24,
            ),
            "header: invalid offset for tensor `b`",
        ),
    ];
    for (bytes, expected) in cases {
        let error = error_of(|dir| {
            tiny().write(dir);
            fs::write(dir.join("model.safetensors"), &bytes).unwrap();
        });
        assert!(error.starts_with("model.safetensors: "), "{error}");
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let (first, second) = (shard_name(0), shard_name(1));
    let missing = error_of(|dir| {
        tiny().write_shards(dir);
        fs::remove_file(dir.join(&second)).unwrap();
    });
    assert_eq!(
        missing,
        format!("model.safetensors.index.json: names the file {second}, which is not there")
    );
    let absent = error_of(|dir| {
        tiny().write_shards(dir);
        let index = dir.join("model.safetensors.index.json");
        let text = fs::read_to_string(&index).unwrap();
        let more = format!("\"weight_map\":{{\"model.more.weight\":\"{first}\",");
        fs::write(&index, text.replace("\"weight_map\":{", &more)).unwrap();
    });
    assert_eq!(
        absent,
        format!(
            "{first}: tensor model.more.weight: listed in model.safetensors.index.json, but not in \
             the file"
        )
    );
    let twice = error_of(|dir| {
        tiny().write_shards(dir);
        fs::write(dir.join(&second), serialize(&tiny().tensors)).unwrap();
    });
    assert!(twice.starts_with(&format!("{second}: tensor model.")), "{twice}");
    assert!(twice.ends_with(&format!("is also in {first}")), "{twice}");
    for outside in ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "", ".."] {
        let error = error_of(|dir| {
            tiny().write_shards(dir);
            let index = json!({"weight_map": {"model.norm.weight": outside}});
            fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        });
        assert!(error.contains("expected a file name in this directory"), "{error}");
    }
}

#[test]
fn directories_without_a_model_say_what_is_missing() {
    assert!(error_of(|_| ()).starts_with("config.json: "));
    let without = |name: &'static str| {
        move |dir: &Path| {
            tiny().write(dir);
            fs::remove_file(dir.join(name)).unwrap();
        }
    };
    assert_eq!(
        error_of(without("model.safetensors")),
        "DIR: no weights: neither model.safetensors nor model.safetensors.index.json"
    );
    assert_eq!(
        error_of(without("tokenizer.json")),
        "DIR: neither tokenizer.json nor tokenizer.model"
    );
    let error = convert(Path::new("/nowhere/at/all"), None).unwrap_err();
    assert_eq!(error, "/nowhere/at/all: no such directory");
}

#[test]
fn a_tokenizer_that_is_not_gemmas_is_refused() {
    type Spoil = fn(&mut Tiny);
    let cases: [(Spoil, &str); 8] = [
        (|tiny| tiny.tokenizer["model"]["type"] = json!("Unigram"), "key model.type: expected BPE"),
        (
            |tiny| tiny.tokenizer["model"]["byte_fallback"] = json!(false),
            "key model.byte_fallback: expected true",
        ),
        (|tiny| tiny.tokenizer["normalizer"] = json!({"type": "NFC"}), "key normalizer: expected"),
        (|tiny| tiny.tokenizer["model"]["vocab"]["x"] = json!(11), "id 11 is both"),
        (
            |tiny| tiny.tokenizer["model"]["merges"][1] = json!(["c", "c"]),
            "merge 1 makes no piece of the vocabulary",
        ),
        (|tiny| drop(tiny.tokenizer["model"].take()), "invalid type: null"),
        (
            |tiny| tiny.settings["bos_token"] = json!("<none>"),
            "tokenizer_config.json: key bos_token: expected a token of the vocabulary",
        ),
        (
            |tiny| tiny.generation["top_p"] = json!(2),
            "generation_config.json: key top_p: expected a number from 0 to 1, found 2",
        ),
    ];
    for (spoil, expected) in cases {
        let mut tiny = tiny();
        spoil(&mut tiny);
        let error = error_of(|dir| tiny.write(dir));
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

/// Every length of the small files, many of the weights, and seeded mutations of each byte kind.
#[test]
fn truncations_and_mutations_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    tiny().with_towers().write(dir.path());
    let files = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let try_it = || {
        if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
            planning::plan(&checkpoint, None).ok();
            planning::towers::plan(&checkpoint, TensorType::F16).ok();
        }
    };
    for file in files {
        let path = dir.path().join(file);
        let whole = fs::read(&path).unwrap();
        let header = match file {
            "model.safetensors" => u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8,
            _ => whole.len(),
        };
        for len in (0..header).step_by(header / 100 + 1) {
            fs::write(&path, &whole[..len]).unwrap();
            try_it();
            assert!(convert(dir.path(), None).is_err(), "{file} cut at {len}");
        }
        let mutations = if header > 8000 || file == "config.json" { 5000 } else { 100 };
        for _ in 0..mutations {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(header);
                bytes[at] = match random(4) {
                    0 => random(256) as u8,
                    1 => b"0123456789-.eE"[random(14)],
                    2 => b"\"{}[],: "[random(8)],
                    _ => bytes[random(header)],
                };
            }
            fs::write(&path, &bytes).unwrap();
            try_it();
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn an_interrupted_conversion_leaves_nothing_behind() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let plan = planning::plan(&checkpoint, None).unwrap();
    let mut calls = 0;
    let mut progress = |_done: u64, _total: u64| {
        calls += 1;
        if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let target = out.path().join("out.gguf");
    let result = execute::execute(&plan, &checkpoint.weights, &target, false, &mut progress);
    assert_eq!(result.unwrap_err().to_string(), "interrupted");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

fn gemma3n(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemma3n")).args(args).output().unwrap()
}

#[test]
fn the_command_refuses_to_overwrite_and_shows_its_plan() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let from = dir.path().to_str().unwrap();
    let target = out.path().join("out.gguf");
    let to = target.to_str().unwrap();

    let dry = gemma3n(&["convert", from, "-o", to, "--dry-run", "--type", "F16"]);
    assert!(dry.status.success());
    assert!(!target.exists());
    let table = String::from_utf8(dry.stdout).unwrap();
    for part in [
        "per_layer_token_embd.weight",
        "model.embed_tokens_per_layer.weight, BF16 to F16, then 4 rows of 0",
        "3 stacked: model.altup_projections.0.weight … model.altup_projections.2.weight",
        "103 tensors",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }

    let first = gemma3n(&["convert", from, "-o", to]);
    assert!(first.status.success(), "{first:?}");
    assert!(first.stdout.is_empty());
    let written = fs::read(&target).unwrap();
    let again = gemma3n(&["convert", from, "-o", to, "--type", "f32"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(again.stderr).unwrap().lines().next_back(),
        Some("hint: --force overwrites")
    );
    assert_eq!(fs::read(&target).unwrap(), written);
    assert!(gemma3n(&["convert", from, "-o", to, "--type", "f32", "--force"]).status.success());
    assert_ne!(fs::read(&target).unwrap(), written);
    let over = dir.path().join("model.safetensors");
    let over = gemma3n(&["convert", from, "-o", over.to_str().unwrap(), "--force"]);
    assert_eq!(over.status.code(), Some(1));
    assert_eq!(gemma3n(&["convert", from, "-o", to, "--type", "Q9"]).status.code(), Some(2));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}
