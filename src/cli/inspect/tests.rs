//! Reports of files that are made here: models with tensors of the real names and tiny sizes.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Args, run};
use crate::cli::output::{hint_of, hinted};
use crate::gguf::{Layout, OwnedValue, TensorType, Writer};

/// Suffixes of a layer's 24 tensors in llama.cpp's files.
const LAYER: [&str; 24] = [
    "altup_correct_coef",
    "altup_correct_scale",
    "altup_predict_coef",
    "altup_router",
    "altup_router_norm",
    "attn_k",
    "attn_k_norm",
    "attn_norm",
    "attn_output",
    "attn_q",
    "attn_q_norm",
    "attn_v",
    "ffn_down",
    "ffn_gate",
    "ffn_norm",
    "ffn_up",
    "inp_gate",
    "laurel_l",
    "laurel_post_norm",
    "laurel_r",
    "post_attention_norm",
    "post_ffw_norm",
    "post_norm",
    "proj",
];

/// The layout of an E4B file as llama.cpp's converter writes it now, but for the tensors' sizes.
fn e4b() -> Layout {
    let mut layout = Layout::new();
    layout.set("general.architecture", "gemma3n");
    layout.set("general.type", "model");
    layout.set("general.name", "Gemma 3n E4B It");
    layout.set("general.license", "gemma");
    layout.set("gemma3n.context_length", 32768u32);
    layout.set("gemma3n.embedding_length", 2048u32);
    layout.set("gemma3n.block_count", 35u32);
    layout.set("gemma3n.feed_forward_length", vec![16384i32; 35]);
    layout.set("gemma3n.attention.head_count", 8u32);
    layout.set("gemma3n.attention.head_count_kv", 2u32);
    layout.set("gemma3n.attention.sliding_window", 512u32);
    let sliding: Vec<bool> = (0..35).map(|layer| layer % 5 < 4).collect();
    layout.set("gemma3n.attention.sliding_window_pattern", sliding);
    layout.set("gemma3n.attention.shared_kv_layers", 15u32);
    layout.set("gemma3n.final_logit_softcapping", 30f32);
    layout.set("gemma3n.altup.num_inputs", 4u32);
    layout.set("gemma3n.embedding_length_per_layer_input", 256u32);
    let mut sparsity = vec![1.6448534f32; 10];
    sparsity.resize(35, f32::NEG_INFINITY);
    layout.set("gemma3n.activation_sparsity_scale", sparsity);
    layout.set("tokenizer.ggml.model", "llama");
    let tokens: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
    layout.set("tokenizer.ggml.tokens", tokens);
    layout.set("tokenizer.ggml.scores", vec![0f32; 100]);
    layout.set("tokenizer.ggml.bos_token_id", 2u32);
    layout.set("tokenizer.ggml.eos_token_id", 106u32);
    layout.set("tokenizer.chat_template", "{{ bos_token }}\u{1b}[2J");
    layout.add_tensor("token_embd.weight", [256, 100, 1, 1], 2, TensorType::Q6_K);
    for name in [
        "per_layer_token_embd",
        "per_layer_model_proj",
        "per_layer_proj_norm",
        "altup_proj",
        "altup_unembd_proj",
        "output_norm",
    ] {
        layout.add_tensor(&format!("{name}.weight"), [32, 2, 1, 1], 2, TensorType::F32);
    }
    for layer in 0..35 {
        for name in LAYER {
            let name = format!("blk.{layer}.{name}.weight");
            layout.add_tensor(&name, [32, 1, 1, 1], 1, TensorType::Q8_0);
        }
    }
    layout
}

/// Writes the layout with zeros for data.
fn file(folder: &Path, layout: &Layout) -> PathBuf {
    let path = folder.join("model.gguf");
    let mut writer = Writer::create(&path, layout, true).unwrap();
    for plan in &layout.tensors {
        writer.append(&plan.name, &vec![0; plan.nbytes().unwrap() as usize]).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn inspect(layout: &Layout, change: impl FnOnce(&mut Args)) -> anyhow::Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), layout);
    let mut args = Args { file, tensors: false, metadata: None, json: false };
    change(&mut args);
    let shown = run(&args);
    let folder = format!("{}/", folder.path().display());
    shown.map(|text| text.replace(&folder, "")).map_err(|error| {
        let text = anyhow::anyhow!(error.to_string().replace(&folder, ""));
        match hint_of(&error) {
            Some(hint) => hinted(text, hint.to_owned()),
            None => text,
        }
    })
}

fn json(layout: &Layout) -> Json {
    serde_json::from_str(&inspect(layout, |args| args.json = true).unwrap()).unwrap()
}

/// The remarks under `odd`.
fn odd(layout: &Layout) -> Vec<String> {
    let json = json(layout);
    json["odd"].as_array().unwrap().iter().map(|x| x.as_str().unwrap().to_string()).collect()
}

#[test]
fn a_model_is_told_in_one_screen() {
    let text = inspect(&e4b(), |_| {}).unwrap();
    let expected = "\
model       Gemma 3n text, E4B, \"Gemma 3n E4B It\"
licence     gemma
layers      35, 2048 wide, FFN 16384 (10 sparse)
attention   8 heads of 256, 2 for K and V; 28 layers see 512 back, the last 15 share K and V
per layer   256 wide a layer; 4 AltUp streams
context     32768 tokens";
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("file        model.gguf, "), "{text}");
    assert_eq!(lines[1..7].join("\n"), expected);
    assert_eq!(lines[7], "parameters  52864, 7.73 bits a weight");
    assert_eq!(lines[8], "types       Q8_0      55.9 %   27.89 KiB  840 tensors");
    assert!(lines.len() <= 24, "{text}");
    assert!(lines.iter().any(|line| line.starts_with("slices      e2b e1.96b-layer ")), "{text}");
    let tokenizer = "tokenizer   llama, 100 tokens, bos 2, eos 106, chat template of 19 bytes";
    assert!(lines.contains(&tokenizer), "{text}");
    assert!(!text.contains("odd"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn json_has_the_documented_keys() {
    let json = json(&e4b());
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    let expected = [
        "file",
        "bytes",
        "parts",
        "sha",
        "architecture",
        "kind",
        "name",
        "licence",
        "parameters",
        "bits_per_weight",
        "types",
        "model",
        "slices",
        "towers",
        "tokenizer",
        "odd",
        "metadata",
    ];
    assert_eq!(keys, expected);
    // 840 blocks of 32 at 34 bytes; 25600 at 210/256; 6 x 64 at 4.
    let types: Vec<(&str, u64)> = json["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ty| (ty["type"].as_str().unwrap(), ty["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(types, [("Q8_0", 28560), ("Q6_K", 21000), ("F32", 1536)]);
    assert_eq!(json["parameters"], 840 * 32 + 25600 + 6 * 64);
    assert_eq!(json["model"]["size"], "E4B");
    assert_eq!(json["model"]["sparse_layers"], 10);
    assert_eq!(json["slices"].as_array().unwrap().len(), 15);
    assert_eq!(json["metadata"]["gemma3n.activation_sparsity_scale"][34], "-inf");
    let tokens = &json["metadata"]["tokenizer.ggml.tokens"];
    assert_eq!((tokens["len"].as_u64(), tokens["first"][7].as_str()), (Some(100), Some("t7")));
}

#[test]
fn tensors_are_listed_when_asked_for() {
    let text = inspect(&e4b(), |args| args.tensors = true).unwrap();
    let line = text.lines().find(|line| line.starts_with("token_embd.weight ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["token_embd.weight", "Q6_K", "256", "x", "100", "20.51", "KiB"]);
    assert!(text.lines().last().unwrap().starts_with("blk.34.proj.weight "));
    let json = inspect(&e4b(), |args| (args.tensors, args.json) = (true, true)).unwrap();
    let json: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tensors"].as_array().unwrap().len(), 7 + 24 * 35);
    assert_eq!(json["tensors"][0]["shape"], serde_json::json!([256, 100]));
}

#[test]
fn one_key_is_shown_and_a_wrong_one_suggests() {
    let show = |key: &str, json: bool| {
        inspect(&e4b(), |args| (args.metadata, args.json) = (Some(key.into()), json))
    };
    assert_eq!(show("gemma3n.block_count", false).unwrap(), "35");
    assert_eq!(show("tokenizer.chat_template", false).unwrap(), "{{ bos_token }}\\u{1b}[2J");
    let tokens = show("tokenizer.ggml.tokens", false).unwrap();
    assert!(tokens.starts_with("[\"t0\", ") && tokens.ends_with("\"t15\", … 100 in all]"));
    let whole: Json = serde_json::from_str(&show("tokenizer.ggml.tokens", true).unwrap()).unwrap();
    assert_eq!(whole["type"], "array of string");
    assert_eq!(whole["value"].as_array().unwrap().len(), 100);
    let hint = |key| {
        let error = show(key, false).unwrap_err();
        assert_eq!(error.to_string(), format!("model.gguf: no metadata key {key}"));
        hint_of(&error).map(str::to_owned)
    };
    let nearest = |key| hint(key).unwrap();
    assert!(nearest("gemma3n.blok_count").starts_with("nearest: gemma3n.block_count"));
    assert!(nearest("chat_template").starts_with("nearest: tokenizer.chat_template"));
    assert_eq!(hint("zzz"), None);
}

#[test]
fn what_is_odd_is_said() {
    assert_eq!(odd(&e4b()), [""; 0]);
    let with = |change: fn(&mut Layout)| {
        let mut layout = e4b();
        change(&mut layout);
        odd(&layout).join("\n")
    };
    let without = |key: &'static str| {
        let mut layout = e4b();
        layout.metadata.retain(|(name, _)| name != key);
        odd(&layout).join("\n")
    };
    let shared = "gemma3n.attention.shared_kv_layers";
    let float = with(|l| l.set("gemma3n.attention.shared_kv_layers", 15f32));
    assert_eq!(float, format!("{shared} is 15 as f32, as the first files had it"));
    let wrong = with(|l| l.set("gemma3n.attention.shared_kv_layers", "many"));
    assert!(wrong.contains("expected a number of 64 bits without sign, found string \"many\""));
    assert!(without("gemma3n.final_logit_softcapping").ends_with("is missing: 30 is taken"));
    assert!(without("tokenizer.chat_template").ends_with("no chat template in the file"));
    let extra = with(|l| l.add_tensor("a.x.weight", [4, 1, 1, 1], 1, TensorType::F32));
    assert_eq!(extra, "unknown tensors (llama.cpp refuses the file): a.x.weight");
    let missing = with(|l| l.tensors.retain(|t| !t.name.starts_with("blk.3.ffn_up")));
    assert_eq!(missing, "missing tensors: blk.3.ffn_up.weight");
    let unused = with(|l| l.tensors.retain(|t| !t.name.starts_with("blk.34.attn_k")));
    assert_eq!(unused, "K and V of sharing layers are left out: llama.cpp wants them");
    let scores = with(|l| l.set("tokenizer.ggml.scores", vec![0f32; 99]));
    assert_eq!(scores, "tokenizer.ggml.scores has 99 entries for 100 tokens");
    let slice = with(|l| {
        let mut widths = vec![16384i32; 35];
        widths[0] = 8192;
        l.set("gemma3n.feed_forward_length", widths);
    });
    assert_eq!(slice, "FFN widths differ between layers: llama.cpp does not load that");
    let huge = with(|l| l.set("gemma3n.block_count", u32::MAX));
    assert!(huge.contains("missing tensors: blk.35."));
}

#[test]
fn a_layout_of_our_own_is_named() {
    let turned = |layout: &mut Layout| {
        for tensor in &mut layout.tensors {
            let sparse = (0..10).any(|layer| tensor.name == format!("blk.{layer}.ffn_down.weight"));
            if sparse {
                tensor.name = tensor.name.replace("ffn_down", "ffn_down_t");
            }
        }
    };
    let mut both = e4b();
    turned(&mut both);
    both.set("gemma3n.cli.layout", 1u32);
    let text = inspect(&both, |_| {}).unwrap();
    let line = "layout      1, ffn_down of sparse layers neuron-major; loads in gemma3n only";
    assert!(text.lines().any(|l| l == line), "{text}");
    assert_eq!(odd(&both), [""; 0]);
    assert_eq!(json(&both)["model"]["layout"], 1);
    assert_eq!(json(&e4b())["model"]["layout"], Json::Null);

    let mut silent = e4b();
    turned(&mut silent);
    let says = "10 neuron-major tensors, but no gemma3n.cli.layout: not loadable";
    assert_eq!(odd(&silent), [says]);
    let mut alone = e4b();
    alone.set("gemma3n.cli.layout", 1u32);
    assert_eq!(odd(&alone), ["gemma3n.cli.layout is 1, but no ffn_down is neuron-major"]);
    alone.set("gemma3n.cli.layout", 7u32);
    assert_eq!(odd(&alone), ["gemma3n.cli.layout 7 is not known: not loadable"]);
    let text = inspect(&alone, |_| {}).unwrap();
    assert!(text.contains("\nlayout      7, not known to this version\n"), "{text}");
}

#[test]
fn towers_and_strangers_are_named() {
    let mut layout = Layout::new();
    layout.set("general.architecture", "clip");
    layout.set("general.type", "mmproj");
    layout.set("clip.vision.projector_type", "gemma3nv");
    layout.set("clip.audio.projector_type", "gemma3na");
    layout.add_tensor("v.conv_stem.conv.weight", [3, 3, 3, 64], 4, TensorType::BF16);
    layout.add_tensor("v.blk.0.0.layer_scale.gamma", [64, 1, 1, 1], 1, TensorType::F32);
    layout.add_tensor("mm.input_projection.weight", [4, 4, 1, 1], 2, TensorType::F16);
    layout.add_tensor("a.blk.0.x.weight", [4, 1, 1, 1], 1, TensorType::F32);
    layout.add_tensor("mm.a.input_projection.weight", [4, 4, 1, 1], 2, TensorType::F16);
    let text = inspect(&layout, |_| {}).unwrap();
    assert!(text.contains("model       towers (mmproj)\n"), "{text}");
    assert!(text.contains("vision      gemma3nv, 3 tensors, 3.66 KiB\n"), "{text}");
    assert!(text.contains("audio       gemma3na, 2 tensors, 48 B\n"), "{text}");
    assert!(text.contains("1 BF16 convolution kernels: llama.cpp aborts"), "{text}");
    assert!(text.contains("1 layer scales with one dimension: llama.cpp aborts"), "{text}");

    let mut layout = Layout::new();
    layout.set("general.architecture", "llama");
    layout.set("llama.block_count", 4u32);
    let text = inspect(&layout, |_| {}).unwrap();
    assert!(text.contains("model       llama, not a Gemma 3n model\n"), "{text}");
    layout.set("general.architecture", OwnedValue::U8(1));
    let text = inspect(&layout, |_| {}).unwrap();
    assert!(text.contains("odd         general.architecture is missing"), "{text}");
}
