//! The towers' file: every tensor of the checkpoint, the keys, what is refused, two files at once.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use gemma3n::checkpoint::Checkpoint;
use gemma3n::files::{convert as planning, execute};
use gemma3n::gguf::{Gguf, TensorType};
use half::bf16;
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use super::tiny::{Tensor, Tiny};
use super::tower_names::source;
use super::{described, oracle, stored, widened};

/// Converts the towers of a directory; the error as the user sees it, without the directory.
fn convert(dir: &Path, ty: TensorType) -> Result<(TempDir, Gguf), String> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("mmproj.gguf");
    let shown = |error: &dyn std::fmt::Display| {
        let dir = dir.display().to_string();
        error.to_string().replace(&format!("{dir}/"), "").replace(&dir, "DIR")
    };
    let checkpoint = Checkpoint::open(dir).map_err(|error| shown(&error))?;
    let plan = planning::towers::plan(&checkpoint, ty).map_err(|error| shown(&error))?;
    let plan = plan.ok_or("no towers")?;
    let mut progress = |_done: u64, _total: u64| ControlFlow::Continue(());
    execute::execute(&plan, &checkpoint.weights, &path, false, &mut progress)
        .map_err(|error| shown(&error))?;
    Ok((out, Gguf::open(&path).unwrap()))
}

fn convert_tiny(tiny: &Tiny) -> Result<(TempDir, Gguf), String> {
    let dir = tempfile::tempdir().unwrap();
    tiny.write(dir.path());
    convert(dir.path(), TensorType::F16)
}

fn tiny() -> Tiny {
    Tiny::new(Dtype::BF16).with_towers()
}

fn towers_of(stored: BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let towers = ["vision_tower.", "audio_tower.", "embed_vision.", "embed_audio."];
    let of_tower = |name: &String| {
        let inner = name.strip_prefix(prefix).unwrap_or(name);
        towers.iter().any(|tower| inner.starts_with(tower))
    };
    stored.into_iter().filter(|(name, _)| of_tower(name)).collect()
}

/// The type that a tensor must have in a file of type `ty`, by gguf.md, sections 4.4 and 4.5.
fn expected_type(name: &str, shape: &[usize], ty: TensorType) -> TensorType {
    let f32 = shape.len() == 1
        || name.starts_with("v.conv_stem.")
        || name.starts_with("a.conv1d.")
        || name.contains(".conv_dw.");
    match (f32, ty) {
        (true, _) => TensorType::F32,
        (false, TensorType::Q8_0) if shape.len() > 2 || !shape[1].is_multiple_of(32) => {
            TensorType::F16
        }
        _ => ty,
    }
}

fn assert_same_weights(gguf: &Gguf, mut stored: BTreeMap<String, Tensor>, ty: TensorType) {
    for tensor in gguf.tensors() {
        let name = &tensor.name;
        let source = stored.remove(&source(name)).unwrap_or_else(|| panic!("{name}: no source"));
        assert_eq!(tensor.ty, expected_type(name, &source.shape, ty), "{name}");
        let mut ne: Vec<u64> = source.shape.iter().rev().map(|&n| n as u64).collect();
        if name.ends_with("layer_scale.gamma") || name == "v.conv_stem.conv.bias" {
            ne = vec![1, 1, ne[0], 1];
        }
        assert_eq!(&tensor.ne[..tensor.n_dims as usize], ne, "{name}");
        let values = source.values();
        match tensor.ty {
            // A block of 32 is a scale in F16 and 32 whole numbers up to 127: half a step off at
            // most, and what the scale's rounding adds.
            TensorType::Q8_0 => {
                for (block, values) in gguf.data(tensor).chunks(34).zip(values.chunks(32)) {
                    let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
                    for (&quant, value) in block[2..].iter().zip(values) {
                        let error = f32::from(quant as i8) * scale - value;
                        assert!(error.abs() <= 0.57 * scale + 1e-7, "{name}: {error}");
                    }
                }
            }
            stored => {
                let found = widened(gguf.data(tensor), stored);
                assert_eq!(found.len(), values.len(), "{name}");
                for (found, value) in found.iter().zip(values) {
                    let value = match stored {
                        TensorType::F16 => half::f16::from_f32(value).to_f32(),
                        TensorType::BF16 => bf16::from_f32(value).to_f32(),
                        _ => value,
                    };
                    assert_eq!(found.to_bits(), value.to_bits(), "{name}");
                }
            }
        }
    }
    assert!(stored.is_empty(), "{:?} were not converted", stored.keys());
}

#[test]
fn the_oracles_towers_arrive_whole() {
    let Some(dir) = oracle("full") else { return };
    for ty in [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0] {
        let (_out, gguf) = convert(&dir, ty).unwrap();
        assert_eq!(gguf.tensors().len(), 200);
        assert_same_weights(&gguf, towers_of(stored(&dir), ""), ty);
    }
}

#[test]
fn the_fixtures_towers_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    tiny().write(dir.path());
    let (_out, gguf) = convert(dir.path(), TensorType::F16).unwrap();
    assert_same_weights(&gguf, towers_of(stored(dir.path()), ""), TensorType::F16);
}

/// Expected: gguf.md, section 4.3, with the values of the oracle's configuration.
#[test]
fn the_oracles_keys_are_those_of_the_format() {
    let Some(dir) = oracle("full") else { return };
    let (_out, gguf) = convert(&dir, TensorType::F16).unwrap();
    let expected = [
        ("general.architecture", "string clip"),
        ("general.type", "string mmproj"),
        ("general.name", "string full"),
        ("general.size_label", "string 808K"),
        ("general.file_type", "u32 1"),
        ("general.quantization_version", "u32 2"),
        ("clip.has_vision_encoder", "bool true"),
        ("clip.has_audio_encoder", "bool true"),
        ("clip.vision.projector_type", "string gemma3nv"),
        ("clip.audio.projector_type", "string gemma3na"),
        ("clip.vision.projection_dim", "u32 128"),
        ("clip.audio.projection_dim", "u32 128"),
        ("clip.vision.image_size", "u32 192"),
        ("clip.vision.patch_size", "u32 3"),
        ("clip.vision.embedding_length", "u32 128"),
        ("clip.vision.feed_forward_length", "u32 512"),
        ("clip.vision.block_count", "u32 128"),
        ("clip.vision.attention.head_count", "u32 8"),
        ("clip.vision.attention.layer_norm_epsilon", "f32 0.0000009999999974752427"),
        ("clip.vision.image_mean", "f32 [0.0, 0.0, 0.0]"),
        ("clip.vision.image_std", "f32 [1.0, 1.0, 1.0]"),
        ("clip.audio.embedding_length", "u32 64"),
        ("clip.audio.feed_forward_length", "u32 256"),
        ("clip.audio.block_count", "u32 3"),
        ("clip.audio.attention.head_count", "u32 4"),
        ("clip.audio.num_mel_bins", "u32 128"),
        ("clip.audio.attention.layer_norm_epsilon", "f32 0.0000009999999974752427"),
        ("gemma3n.cli.vision.vocab_offset", "u32 1024"),
        ("gemma3n.cli.vision.soft_tokens", "u32 16"),
        ("gemma3n.cli.vision.rms_norm_eps", "f32 0.0000009999999974752427"),
        ("gemma3n.cli.audio.vocab_offset", "u32 1056"),
        ("gemma3n.cli.audio.soft_tokens", "u32 188"),
        ("gemma3n.cli.audio.pad_id", "u32 1087"),
        ("gemma3n.cli.audio.chunk_size", "u32 12"),
        ("gemma3n.cli.audio.context_left", "u32 13"),
        ("gemma3n.cli.audio.context_right", "u32 0"),
        ("gemma3n.cli.audio.logit_cap", "f32 10"),
        ("gemma3n.cli.audio.reduction_factor", "u32 4"),
        ("gemma3n.cli.audio.residual_weight", "f32 0.5"),
        ("gemma3n.cli.audio.gradient_clipping", "f32 4"),
        ("gemma3n.cli.audio.group_norm_eps", "f32 0.0010000000474974513"),
        ("gemma3n.cli.audio.rms_norm_eps", "f32 0.0000009999999974752427"),
        ("gemma3n.cli.audio.conv_strides", "i32 [2, 2, 2, 2]"),
    ];
    for (key, value) in expected {
        assert_eq!(described(&gguf, key), value, "{key}");
    }
    assert_eq!(gguf.metadata().iter().count(), expected.len());
}

#[test]
fn prefixes_and_shards_make_no_difference() {
    let bytes = |tiny: &Tiny, shards: bool| {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        fs::create_dir(&dir).unwrap();
        if shards {
            tiny.write_shards(&dir)
        } else {
            tiny.write(&dir)
        }
        let (out, _gguf) = convert(&dir, TensorType::F16).unwrap();
        fs::read(out.path().join("mmproj.gguf")).unwrap()
    };
    let expected = bytes(&tiny(), false);
    assert_eq!(bytes(&tiny(), true), expected);
    let older = tiny().rename(|name| match name.strip_prefix("model.") {
        Some(inner) if inner.contains("_tower.") || inner.starts_with("embed_") => inner.to_owned(),
        _ => name.replacen("model.", "language_model.model.", 1),
    });
    assert!(!older.tensors.keys().any(|name| name.starts_with("model.")));
    assert_eq!(bytes(&older, false), expected);
}

/// Either tower alone; and defaults of the classes where the configuration says nothing.
#[test]
fn one_tower_is_enough() {
    for (gone, key) in [("audio", "clip.has_audio_encoder"), ("vision", "clip.has_vision_encoder")]
    {
        let mut tiny = tiny();
        tiny.tensors.retain(|name, _| !name.contains(gone));
        let (_out, gguf) = convert_tiny(&tiny).unwrap();
        assert_eq!(described(&gguf, key), "bool false");
        assert_eq!(described(&gguf, &format!("clip.{gone}.projector_type")), "absent");
        assert!(gguf.metadata().iter().all(|(key, _)| !key.contains(&format!(".{gone}."))));
    }
    assert_eq!(convert_tiny(&Tiny::new(Dtype::BF16)).map(drop), Err("no towers".to_owned()));
}

/// The first release of timm's model had none.
#[test]
fn a_stem_without_bias_gets_one_of_zeros() {
    let mut tiny = tiny();
    tiny.tensors.remove("model.vision_tower.timm_model.conv_stem.conv.bias").unwrap();
    let (_out, gguf) = convert_tiny(&tiny).unwrap();
    let bias = gguf.tensor("v.conv_stem.conv.bias").unwrap();
    assert_eq!((bias.ty, &bias.ne[..]), (TensorType::F32, &[1, 1, 4, 1][..]));
    assert_eq!(gguf.data(bias), [0; 16]);
}

#[test]
fn each_missing_tensor_is_named() {
    let whole = tiny();
    for name in towers_of(whole.tensors.clone(), "model.").keys() {
        let mut tiny = whole.clone();
        tiny.tensors.remove(name);
        // Only the stem's bias is optional.
        let missing = name.replacen("model.", "", 1);
        match convert_tiny(&tiny).map(drop) {
            Err(error) => assert_eq!(error, format!("DIR: tensor {missing}: missing")),
            Ok(()) => assert!(name.ends_with("conv_stem.conv.bias"), "{name}"),
        }
    }
}

#[test]
fn a_misshapen_or_unknown_tensor_is_named() {
    const V: &str = "model.vision_tower.timm_model.";
    const A: &str = "model.audio_tower.";
    let cases = [
        (format!("{V}blocks.1.0.pw_exp.conv.weight"), vec![12, 8, 1, 1], "[12, 6, 1, 1]"),
        (format!("{V}blocks.2.1.layer_scale.gamma"), vec![9], "[12]"),
        (format!("{V}blocks.2.1.attn.value.proj.weight"), vec![5, 12, 1, 1], "[4, 12, 1, 1]"),
        (format!("{V}msfa.ffn.pw_exp.conv.weight"), vec![20, 27, 1, 1], "[20, 28, 1, 1]"),
        (format!("{A}conformer.0.attention.attn.per_dim_scale"), vec![8], "[4]"),
        (format!("{A}conformer.0.lconv1d.depthwise_conv1d.weight"), vec![8, 1, 3], "[8, 1, 5]"),
        (format!("{A}subsample_conv_projection.input_proj_linear.weight"), vec![8, 9], "[8, 8]"),
        ("model.embed_audio.embedding_projection.weight".into(), vec![8, 8], "[32, 8]"),
    ];
    for (name, shape, expected) in cases {
        let mut tiny = tiny();
        let found = format!("{shape:?}");
        let bytes = vec![0; 2 * shape.iter().product::<usize>()];
        assert!(tiny.tensors.contains_key(&name), "{name}");
        tiny.tensors.insert(name.clone(), Tensor { dtype: Dtype::BF16, shape, bytes });
        assert_eq!(
            convert_tiny(&tiny).map(drop),
            Err(format!("model.safetensors: tensor {name}: expected {expected}, found {found}"))
        );
    }
    for (name, model) in [
        (format!("{V}blocks.0.0.layer_scale.gamma"), "picture tower"),
        (format!("{V}head.weight"), "picture tower"),
        ("model.vision_tower.other".to_owned(), "picture tower"),
        (format!("{A}conformer.0.norm.bias"), "sound tower"),
        (format!("{A}conformer.1.norm.weight"), "sound tower"),
    ] {
        let mut tiny = tiny();
        let some = tiny.tensors["model.norm.weight"].clone();
        tiny.tensors.insert(name.clone(), some);
        assert_eq!(
            convert_tiny(&tiny).map(drop),
            Err(format!("model.safetensors: tensor {name}: no part of Gemma 3n's {model}"))
        );
    }
}

#[test]
fn a_weight_of_a_tower_that_cannot_be_kept_is_named() {
    const NAME: &str = "model.vision_tower.timm_model.blocks.0.0.conv_exp.weight";
    for (value, shown) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (131072.0, "1.31072e5, beyond what F16 holds (65504)"),
    ] {
        let mut tiny = tiny();
        let bytes = &mut tiny.tensors.get_mut(NAME).unwrap().bytes;
        bytes[10..12].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
        assert_eq!(
            convert_tiny(&tiny).map(drop),
            Err(format!("model.safetensors: tensor {NAME}: element 5 is {shown}"))
        );
    }
    let mut tiny = tiny();
    let tensor = tiny.tensors.get_mut(NAME).unwrap();
    (tensor.dtype, tensor.bytes) = (Dtype::I16, tensor.bytes.clone());
    assert_eq!(
        convert_tiny(&tiny).map(drop),
        Err(format!(
            "model.safetensors: tensor {NAME}: type I16 is not read (only F32, F16 and BF16 are)"
        ))
    );
}

#[test]
fn an_impossible_configuration_of_a_tower_names_the_key() {
    for (section, key, value, expected) in [
        ("audio_config", "conf_num_attention_heads", json!(3), "a divisor of hidden_size, 8"),
        ("audio_config", "sscp_conv_kernel_size", json!([3, 3]), "two sizes (or pairs of them)"),
        ("audio_config", "hidden_size", json!(0), "a whole number from 1 to 16777216"),
        ("vision_config", "vocab_offset", json!("x"), "a whole number from 1 to 4294967295"),
    ] {
        let mut tiny = tiny();
        tiny.config[section][key] = value;
        let error = convert_tiny(&tiny).map(drop).unwrap_err();
        let start = format!("config.json: key {section}.{key}: expected {expected}");
        assert!(error.starts_with(&start), "{error}");
    }
    let mut tokens = tiny();
    tokens.config["vision_soft_tokens_per_image"] = json!(17);
    assert_eq!(
        convert_tiny(&tokens).map(drop),
        Err("config.json: key vision_soft_tokens_per_image: expected a square number, found 17"
            .to_owned())
    );
    // 768 pixels, which is the default, have maps of 48 × 48.
    for soft_tokens in [25u32, 49 * 49] {
        let mut tokens = tiny();
        tokens.config["vision_soft_tokens_per_image"] = json!(soft_tokens);
        let expected = format!(
            "config.json: key vision_soft_tokens_per_image: expected a square number whose root \
             divides 48, found {soft_tokens}"
        );
        assert_eq!(convert_tiny(&tokens).map(drop), Err(expected));
    }
}

/// transformers 5 writes one file for all processors.
#[test]
fn the_pictures_size_and_normalization_come_from_the_processor() {
    let dir = tempfile::tempdir().unwrap();
    tiny().write(dir.path());
    let keys = |name: &str, value: serde_json::Value| {
        fs::write(dir.path().join(name), value.to_string()).unwrap();
        let (_out, gguf) = convert(dir.path(), TensorType::F16)?;
        Ok::<_, String>(
            ["image_size", "patch_size", "image_mean"]
                .map(|key| described(&gguf, &format!("clip.vision.{key}"))),
        )
    };
    let size = |side: u32| {
        json!({"size": {"height": side, "width": side},
        "do_normalize": true, "image_mean": [0.5, 0.25, 0.5]})
    };
    assert_eq!(
        keys("processor_config.json", json!({"image_processor": size(128)})).unwrap(),
        ["u32 128", "u32 2", "f32 [0.5, 0.25, 0.5]"]
    );
    assert_eq!(
        keys("preprocessor_config.json", json!({"size": {"height": 192, "width": 192}})).unwrap(),
        ["u32 192", "u32 3", "f32 [0.0, 0.0, 0.0]"]
    );
    assert_eq!(
        keys("preprocessor_config.json", size(96)).unwrap_err(),
        "preprocessor_config.json: key size.height: expected a multiple of 32 and of 64, found 96"
    );
}

fn gemma3n(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemma3n"))
        .args(args)
        .env("GEMMA3N_THREADS", "1")
        .output()
        .unwrap()
}

/// The names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn first_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find(|line| line.starts_with("error: ")).unwrap_or(&text).to_owned()
}

#[test]
fn the_command_writes_both_files_or_none() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let from = dir.path().to_str().unwrap();
    let to = |name: &str| out.path().join(name).to_str().unwrap().to_owned();

    let dry = gemma3n(&["convert", from, "-o", &to("a.gguf"), "--dry-run"]);
    let table = String::from_utf8(dry.stdout).unwrap();
    for part in [&to("a.gguf"), &to("mmproj-a-F16.gguf"), "v.blk.2.1.norm.weight", "103 tensors"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    assert!(!table.contains("left out: "), "{table}");
    assert_eq!(names(out.path()), [""; 0]);

    assert!(gemma3n(&["convert", from, "-o", &to("a-BF16.gguf")]).status.success());
    assert_eq!(names(out.path()), ["a-BF16.gguf", "mmproj-a-F16.gguf"]);
    // The towers' file that would be made by itself is there already: another type of the text
    // model leaves it. One that is named is not written over.
    let towers = fs::read(to("mmproj-a-F16.gguf")).unwrap();
    let second = gemma3n(&["convert", from, "-o", &to("a.gguf")]);
    assert!(second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("mmproj-a-F16.gguf: is there and stays as it is"), "{said}");
    assert_eq!(names(out.path()), ["a-BF16.gguf", "a.gguf", "mmproj-a-F16.gguf"]);
    assert!(fs::read(to("mmproj-a-F16.gguf")).unwrap() == towers);
    fs::remove_file(to("a.gguf")).unwrap();
    let named = ["convert", from, "-o", &to("a.gguf"), "--mmproj", &to("mmproj-a-F16.gguf")];
    assert_eq!(
        first_error(&gemma3n(&named)),
        format!("error: {}: exists already", to("mmproj-a-F16.gguf"))
    );
    assert_eq!(names(out.path()), ["a-BF16.gguf", "mmproj-a-F16.gguf"]);

    let none = gemma3n(&["convert", from, "-o", &to("b.gguf"), "--mmproj", "none"]);
    assert!(none.status.success());
    assert!(String::from_utf8(none.stderr).unwrap().contains("(--mmproj none)"));
    let named = ["--mmproj", &to("t.gguf"), "--mmproj-type", "f32"];
    assert!(
        gemma3n(&[&["convert", from, "-o", &to("c.gguf")], &named[..]].concat()).status.success()
    );
    assert_eq!(
        names(out.path()),
        ["a-BF16.gguf", "b.gguf", "c.gguf", "mmproj-a-F16.gguf", "t.gguf"]
    );
    assert_eq!(
        described(&Gguf::open(Path::new(&to("t.gguf"))).unwrap(), "general.file_type"),
        "u32 0"
    );
    let twice = gemma3n(&["convert", from, "-o", &to("d.gguf"), "--mmproj", &to("d.gguf")]);
    assert!(first_error(&twice).ends_with("d.gguf: two files would have this name"));
    let dotted = out.path().join(".").join("d.gguf");
    let dotted = ["--mmproj", dotted.to_str().unwrap()];
    let twice =
        gemma3n(&[&["convert", from, "-o", &to("d.gguf"), "--force"], &dotted[..]].concat());
    assert!(first_error(&twice).ends_with("d.gguf: two files would have this name"));
    let config = dir.path().join("config.json");
    let over = gemma3n(&["convert", from, "-o", config.to_str().unwrap(), "--force"]);
    assert!(first_error(&over).contains("one of the files that it would be made from"));

    let mut broken = tiny();
    let name = "model.audio_tower.conformer.0.lconv1d.linear_end.weight";
    let tensor = broken.tensors.get_mut(name).unwrap();
    tensor.bytes[4..6].copy_from_slice(&bf16::NAN.to_le_bytes());
    broken.write(dir.path());
    let before = names(out.path());
    let failed = gemma3n(&["convert", from, "-o", &to("e.gguf")]);
    assert!(first_error(&failed).ends_with(&format!("tensor {name}: element 2 is NaN")));
    assert_eq!(names(out.path()), before);
}

/// `-m DIR` takes the text model, whatever lies beside it.
#[test]
fn the_text_model_is_found_beside_its_towers() {
    let Some(oracle) = oracle("full") else { return };
    let out = tempfile::tempdir().unwrap();
    let (from, dir) = (oracle.to_str().unwrap(), out.path().to_str().unwrap());
    let to = out.path().join("full.gguf");
    assert!(gemma3n(&["convert", from, "-o", to.to_str().unwrap()]).status.success());
    let chat = gemma3n(&["chat", "-m", dir, "--raw", "-n", "1", "--greedy", "a"]);
    assert!(chat.status.success(), "{chat:?}");
}

/// Parts as llama.cpp's converter makes them: each as full as it may be, the keys of gguf.md,
/// section 1.6, the model's metadata in the first.
#[test]
fn a_split_model_is_the_same_model() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let from = dir.path().to_str().unwrap();
    let to = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let whole = ["convert", from, "-o", &to("whole.gguf"), "--mmproj", "none"];
    assert!(gemma3n(&whole).status.success());
    let split =
        ["convert", from, "-o", &to("m.gguf"), "--mmproj", "none", "--split-max-size", "20K"];
    let dry = gemma3n(&[&split[..], &["--dry-run"]].concat());
    assert!(dry.status.success());
    assert!(gemma3n(&split).status.success());

    let whole = Gguf::open(Path::new(&to("whole.gguf"))).unwrap();
    let mut names = names(out.path());
    names.retain(|name| name.starts_with("m-"));
    let count = names.len();
    assert!(count > 2);
    for (index, name) in names.iter().enumerate() {
        assert_eq!(*name, format!("m-{:05}-of-{count:05}.gguf", index + 1));
        assert!(String::from_utf8_lossy(&dry.stdout).contains(name.as_str()));
    }
    let parts = Gguf::open(Path::new(&to(&names[0]))).unwrap();
    for (key, value) in [
        ("split.no", "u16 0".to_owned()),
        ("split.count", format!("u16 {count}")),
        ("split.tensors.count", "i32 103".to_owned()),
    ] {
        assert_eq!(described(&parts, key), value);
    }
    assert_eq!(parts.metadata().iter().count(), whole.metadata().iter().count() + 3);
    assert_eq!(parts.tensors().len(), whole.tensors().len());
    let mut sizes = vec![0; count];
    for (whole_tensor, tensor) in whole.tensors().iter().zip(parts.tensors()) {
        assert_eq!(whole_tensor.name, tensor.name);
        assert_eq!(whole.data(whole_tensor), parts.data(tensor));
        let part = tensor.part();
        // Greedy: the tensor didn't fit into the part before.
        if sizes[part] == 0 && part > 0 {
            assert!(sizes[part - 1] + tensor.nbytes > 20_000);
        }
        sizes[part] += tensor.nbytes;
    }
    assert!(sizes.iter().all(|&size| size <= 20_000), "{sizes:?}");
    // None of the parts may be there.
    fs::remove_file(to(&names[0])).unwrap();
    let again = gemma3n(&split);
    assert_eq!(first_error(&again), format!("error: {}: exists already", to(&names[1])));
    let single =
        ["convert", from, "-o", &to("s.gguf"), "--mmproj", "none", "--split-max-size", "1G"];
    assert!(gemma3n(&single).status.success());
    assert_eq!(fs::read(to("s.gguf")).unwrap(), fs::read(to("whole.gguf")).unwrap());
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let from = dir.path().to_str().unwrap();
    let nowhere = out.path().join("nowhere");
    let to = nowhere.join("a.gguf");
    let missing = gemma3n(&["convert", from, "-o", to.to_str().unwrap()]);
    assert_eq!(
        first_error(&missing),
        format!(
            "error: {}: cannot be written: the folder {} is not there",
            to.display(),
            nowhere.display()
        )
    );
    fs::create_dir(&nowhere).unwrap();
    let mut permissions = fs::metadata(&nowhere).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&nowhere, permissions).unwrap();
    if fs::write(nowhere.join("probe"), b"").is_ok() {
        return; // root may write everywhere
    }
    let refused = gemma3n(&["convert", from, "-o", to.to_str().unwrap()]);
    assert_eq!(first_error(&refused), format!("error: {}: Permission denied", to.display()));
}

/// A file that may not grow stands for a disk that is full.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny().write(dir.path());
    let to = out.path().join("a.gguf");
    // ulimit counts 512 bytes in some shells, 1024 in others: 10 or 20 KB of some 60.
    let script = "trap '' XFSZ; ulimit -f 20; exec \"$@\"";
    let failed = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_gemma3n"), "convert"])
        .args([dir.path(), Path::new("-o"), &to])
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert_eq!(first_error(&failed), format!("error: {}: File too large", to.display()));
    assert_eq!(names(out.path()), [""; 0]);
}
