//! Which type each tensor of a real-named model gets.

use std::collections::{BTreeMap, BTreeSet};

use gemma3n::files::quantize::{Candidate, Model, Preset, Standard, Wanted, choose};
use gemma3n::gguf::TensorType;

use super::{fixture, fs};

struct Named {
    name: String,
    ne: [u64; 4],
    ty: TensorType,
}

/// The tensors of a text model as scripts/fixtures_quantize.py makes it.
fn text(layers: usize, untied: bool) -> Vec<Named> {
    let (e, f, p) = (256, 512, 256 * layers as u64);
    let mut named = Vec::new();
    let mut add = |name: String, a: u64, b: u64, c: u64| {
        let small = b * c == 1 || name.contains("coef");
        let ty = if small { TensorType::F32 } else { TensorType::F16 };
        named.push(Named { name: format!("{name}.weight"), ne: [a, b, c, 1], ty });
    };
    let globals = [
        ("token_embd", e, 8, 1),
        ("per_layer_token_embd", p, 8, 1),
        ("per_layer_model_proj", e, p, 1),
        ("altup_proj", e, e, 3),
        ("altup_unembd_proj", e, e, 3),
        ("output_norm", e, 1, 1),
    ];
    for (name, a, b, c) in globals {
        add(name.to_owned(), a, b, c);
    }
    if untied {
        add("output".to_owned(), e, 8, 1);
    }
    let layer = [
        ("attn_norm", e, 1),
        ("attn_q", e, e),
        ("attn_k", e, 64),
        ("attn_v", e, 64),
        ("attn_output", e, e),
        ("ffn_gate", e, f),
        ("ffn_up", e, f),
        ("ffn_down", f, e),
        ("inp_gate", e, 256),
        ("proj", 256, e),
        ("altup_correct_coef", 4, 4),
        ("altup_predict_coef", 4, 16),
        ("altup_router", e, 4),
        ("laurel_l", e, 64),
        ("laurel_r", 64, e),
    ];
    for il in 0..layers {
        for (name, a, b) in layer {
            add(format!("blk.{il}.{name}"), a, b, 1);
        }
    }
    named
}

/// The towers of scripts/fixtures_quantize.py: all names of its list have this many columns.
fn towers(names: &[&str]) -> Vec<Named> {
    let shape = |name: &str| match name.rsplit('.').next().unwrap() {
        _ if name.contains("conv_stem") || name.contains("conv_exp") => [3, 3, 3, 4],
        _ if name.contains("dw_start") => [3, 3, 1, 4],
        _ if name.starts_with("v.") => [1, 1, 4, 4],
        "0" | "1" => [3, 3, 4, 4],
        "conv_dw" => [5, 1, 8, 1],
        "ffn_down" | "ffn_down_1" => [6144, 4, 1, 1],
        "out" => [1024, 4, 1, 1],
        _ if name.starts_with("a.") || name.starts_with("mm.a") => [1536, 4, 1, 1],
        _ => [2048, 4, 1, 1],
    };
    let named = |name: &&str| {
        let plain = ["stem", "conv1d", "_dw"].iter().any(|part| name.contains(part));
        let ty = if plain { TensorType::F32 } else { TensorType::F16 };
        Named { name: format!("{name}.weight"), ne: shape(name), ty }
    };
    names.iter().map(named).collect()
}

fn choose_for(model: &Model, preset: Preset, tensors: &[Named]) -> Vec<TensorType> {
    let candidates: Vec<_> =
        tensors.iter().map(|t| Candidate { name: &t.name, ne: t.ne, ty: t.ty }).collect();
    choose(&Wanted::new(preset), model, &candidates).iter().map(|choice| choice.ty).collect()
}

/// `Q4_K*2,Q6_K` → Q4_K, Q4_K, Q6_K
fn runs(text: &str) -> Vec<&str> {
    text.split(',')
        .flat_map(|run| {
            let (ty, count) = run.split_once('*').unwrap_or((run, "1"));
            std::iter::repeat_n(ty, count.parse().unwrap())
        })
        .collect()
}

/// `blk.3.ffn_up.weight` → `blk.ffn_up`; other names without their end.
fn class(name: &str) -> String {
    let name = name.strip_suffix(".weight").unwrap();
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => format!("blk.{rest}"),
        None => name.to_owned(),
    }
}

#[test]
fn every_preset_chooses_as_llama_quantize_does() {
    let text_of = fs::read_to_string(fixture("choices.txt")).unwrap();
    let mut compared = 0;
    // A tower's tensor changes in one of these, whatever type it has.
    let changing = ["towers 0 tied plain F32 ", "towers 0 tied plain Q8_0 "];
    let lines = text_of.lines().filter(|line| changing.iter().any(|head| line.starts_with(head)));
    let words = lines.flat_map(|line| line.split(' ').skip(5));
    let names: BTreeSet<_> = words.map(|word| word.split_once('=').unwrap().0).collect();
    let tower_names: Vec<_> = names.into_iter().collect();
    assert!(tower_names.len() > 30);
    for line in text_of.lines() {
        let [kind, layers, tied, case, preset, ref rest @ ..] =
            line.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let (layers, towers_file) = (layers.parse().unwrap(), kind == "towers");
        let preset = Preset::from_name(preset).unwrap();
        // llama-quantize ends without a reason on some mixtures of towers; and its BF16 towers
        // end llama.cpp, so ours have convolutions in F16 (docs/quantization.md).
        if rest == ["refused"] || towers_file && preset.standard == Standard::BF16 {
            assert!(towers_file, "{line}");
            continue;
        }
        let mut model = Model::default();
        if !towers_file {
            model = Model { layers, heads_per_kv: 4, owners: 20, ..model };
            model.importance = case == "imatrix";
        }
        let tensors =
            if towers_file { towers(&tower_names) } else { text(layers, tied == "untied") };
        let mut expected = BTreeMap::new();
        for word in rest {
            let (class, types) = word.split_once('=').unwrap();
            expected.insert(class.to_owned(), runs(types).into_iter());
        }
        let chosen = choose_for(&model, preset, &tensors);
        for (tensor, ty) in tensors.iter().zip(chosen) {
            let class = if towers_file {
                tensor.name.strip_suffix(".weight").unwrap().to_owned()
            } else {
                class(&tensor.name)
            };
            // What is not listed keeps its type.
            let expected = match expected.get_mut(&class) {
                Some(types) => types.next().unwrap(),
                None => tensor.ty.name(),
            };
            assert_eq!(ty.name(), expected, "{line}: {}", tensor.name);
            compared += 1;
        }
        assert!(expected.values_mut().all(|types| types.next().is_none()), "{line}");
    }
    // 35 presets: 5 text cases of 450 to 530 tensors, and towers.
    assert!(compared > 5 * 35 * 450, "{compared}");
}

/// Every standard name is one that was asked of llama-quantize.
#[test]
fn the_fixture_has_every_preset() {
    let text = fs::read_to_string(fixture("choices.txt")).unwrap();
    let named = |preset: &Standard| {
        let head = format!("text 35 tied plain {}", preset.name());
        text.lines().any(|line| line == head || line.starts_with(&format!("{head} ")))
    };
    assert!(Standard::ALL.iter().all(named));
}

/// An override changes what it names and no more; llama-quantize counts on without it.
#[test]
fn an_override_leaves_the_others_as_they_were() {
    let tensors = text(30, false);
    let candidates: Vec<_> =
        tensors.iter().map(|t| Candidate { name: &t.name, ne: t.ne, ty: t.ty }).collect();
    let model = Model { layers: 30, heads_per_kv: 4, owners: 20, ..Model::default() };
    let mut wanted = Wanted::new(Preset::from_name("Q4_K_M").unwrap());
    let plain = choose(&wanted, &model, &candidates);
    let pattern = regex::Regex::new(r"blk\.0\.ffn_down").unwrap();
    wanted.patterns.push((pattern, TensorType::Q8_0));
    let overridden = choose(&wanted, &model, &candidates);
    let differ = plain.iter().zip(&overridden).zip(&tensors).filter(|((a, b), _)| a != b);
    let names: Vec<_> = differ.map(|(_, tensor)| tensor.name.as_str()).collect();
    assert_eq!(names, ["blk.0.ffn_down.weight"]);
}
