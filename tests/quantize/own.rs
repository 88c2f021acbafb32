//! Our own presets: what they change beside the standard mixture, and that nothing else differs.

use std::sync::Arc;

use gemma3n::files::Plan;
use gemma3n::files::plan::{PlannedTensor, Segment};
use gemma3n::files::quantize::{Candidate, Model, Standard, choose};
use gemma3n::gguf::{Layout, TensorPlan};
use gemma3n::model::text::TextModel;

use super::*;

/// The widest micro model, from its checkpoint, in F16.
pub fn wide(home: &Home) -> PathBuf {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wide");
    let path = home.path().join("wide-F16.gguf");
    let mut command = home.program();
    let (from, to) = (checkpoint.to_str().unwrap(), path.to_str().unwrap());
    assert!(
        command
            .args(["convert", from, "-o", to, "--type", "f16", "-q"])
            .status()
            .unwrap()
            .success()
    );
    path
}

#[test]
fn small8_makes_small_matrices_and_the_per_layer_table_q8_0() {
    let home = Home::new();
    let input = wide(&home);
    let standard = quantized(&home, &input, &["Q4_0"]);
    let expected: BTreeMap<_, _> = standard
        .tensors()
        .iter()
        .map(|t| (t.name.clone(), (t.ty, standard.data(t).to_vec())))
        .collect();
    let from = Gguf::open(&input).unwrap();
    let small8 = quantized(&home, &input, &["Q4_0-small8"]);
    assert_eq!(small8.tensors().len(), expected.len());
    let mut changed = 0;
    for tensor in small8.tensors() {
        let small = ["altup_proj", "altup_unembd", "altup_router.", "laurel_l", "laurel_r"];
        let small = small.iter().any(|part| tensor.name.contains(part))
            || ["per_layer_model_proj.weight", "per_layer_token_embd.weight"]
                .contains(&&*tensor.name);
        if small && tensor.ne[0].is_multiple_of(32) {
            assert_eq!(tensor.ty, TensorType::Q8_0, "{}", tensor.name);
            let error =
                relative_error(&values(&from, &tensor.name), &values(&small8, &tensor.name));
            assert!(error < 0.01, "{}: {error}", tensor.name);
            changed += 1;
        } else {
            let (ty, bytes) = &expected[&tensor.name];
            assert_eq!(tensor.ty, *ty, "{}", tensor.name);
            assert_eq!(small8.data(tensor), bytes, "{}", tensor.name);
        }
    }
    assert!(changed >= 5, "{changed}");
    assert!(small8.metadata().get("gemma3n.cli.layout").is_none());
}

/// `ffn_down` of a sparse layer: the transposed values, quantized in rows of E.
#[test]
fn nm_turns_ffn_down_of_sparse_layers() {
    let home = Home::new();
    let input = wide(&home);
    let from = Gguf::open(&input).unwrap();
    let sparsity = from.metadata().f32_array("gemma3n.activation_sparsity_scale").unwrap().unwrap();
    let made = quantized(&home, &input, &["Q4_0-nm"]);
    assert_eq!(made.metadata().u32("gemma3n.cli.layout").unwrap(), Some(1));
    for (il, cut) in sparsity.iter().enumerate() {
        let name = format!("blk.{il}.ffn_down.weight");
        let turned = made.tensor(&format!("blk.{il}.ffn_down_t.weight"));
        if *cut <= 0.0 {
            assert!(turned.is_none() && made.tensor(&name).is_some());
            continue;
        }
        assert!(made.tensor(&name).is_none(), "{name}");
        let (turned, was) = (turned.unwrap(), from.tensor(&name).unwrap());
        let (f, e) = (was.ne[0] as usize, was.ne[1] as usize);
        assert_eq!(turned.ne, [e as u64, f as u64, 1, 1]);
        let values = values(&from, &name);
        let transposed: Vec<f32> = (0..f * e).map(|at| values[(at % e) * f + at / e]).collect();
        let ty = Type::weight_from_id(turned.ty.id()).unwrap();
        assert_eq!(made.data(turned), gemma3n::ggml::quantize(ty, &transposed, e).unwrap());
    }
    assert!(sparsity.iter().any(|cut| *cut > 0.0));
    TextModel::open(&Arc::new(made)).expect("a model that loads here");
}

/// Without an importance matrix for its rows, a turned matrix has a type that needs none.
#[test]
fn nm_has_types_of_the_kernel() {
    let candidate = |name| Candidate { name, ne: [512, 256, 1, 1], ty: TensorType::F16 };
    let candidates = [candidate("blk.0.ffn_down.weight"), candidate("blk.1.ffn_down.weight")];
    let model = Model { layers: 2, sparse: vec![true, false], ..Model::default() };
    let expected =
        [("IQ2_XXS", TensorType::Q2_K), ("IQ3_S", TensorType::Q3_K), ("Q5_1", TensorType::Q5_1)];
    for (name, turned) in expected {
        let preset = Preset::from_name(&format!("{name}-nm")).unwrap();
        let chosen = choose(&Wanted::new(preset), &model, &candidates);
        assert_eq!((chosen[0].ty, chosen[0].transposed), (turned, true), "{name}");
        assert_eq!((chosen[1].ty.name(), chosen[1].transposed), (name, false));
    }
}

/// What the kernel for neuron-major matrices computes with (src/ggml/neurons.rs).
const NEURON_TYPES: [TensorType; 15] = {
    use TensorType::*;
    [IQ4_NL, IQ4_XS, F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, Q3_K, Q2_K]
};

/// A matrix with an entry for each of the file's matrices, under the usual names.
fn full_matrix(home: &Home, gguf: &Gguf) -> PathBuf {
    let path = home.path().join("full.gguf");
    let matrices = gguf.tensors().iter().filter(|t| t.ne[1] > 1 && t.ne[2] == 1);
    let weights: Vec<_> = matrices.map(|t| (t.name.clone(), t.ne[0])).collect();
    faults::matrix(&path, &weights);
    path
}

fn planned(gguf: &Gguf, preset: &str, importance: Option<&Path>) -> Plan {
    let importance = importance.map(|path| {
        let matrix = ImportanceMatrix::open(path).unwrap();
        Importance { path: path.to_owned(), matrix }
    });
    let wanted = Wanted::new(Preset::from_name(preset).expect(preset));
    let options = Options { wanted, requantize: false, importance };
    quantize::plan(gguf, &options).unwrap_or_else(|error| panic!("{preset}: {error}"))
}

#[test]
fn nm_goes_with_every_quantized_mixture() {
    let home = Home::new();
    let from = Gguf::open(&wide(&home)).unwrap();
    let matrix = full_matrix(&home, &from);
    let mut tried = 0;
    for standard in Standard::ALL.iter().filter(|standard| standard.base().is_quantized()) {
        let plan = planned(&from, &format!("{}-nm", standard.name()), Some(&matrix));
        let turned = plan.tensors.iter().filter(|t| t.target.name.contains("ffn_down_t"));
        for tensor in turned {
            let ty = tensor.target.ty;
            assert!(NEURON_TYPES.contains(&ty), "{}: {ty}", standard.name());
            assert!(tensor.importance.is_none());
            tried += 1;
        }
    }
    assert!(tried >= 32, "{tried}");
}

/// `wide` with other names and shapes of its sparse layers' `ffn_down`, whatever their values.
fn changed(home: &Home, change: impl Fn(&mut TensorPlan)) -> Gguf {
    let from = Gguf::open(&wide(home)).unwrap();
    let sparsity = from.metadata().f32_array("gemma3n.activation_sparsity_scale").unwrap().unwrap();
    let mut layout = Layout::new();
    layout.copy_metadata(from.metadata());
    for tensor in from.tensors() {
        layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
    }
    for il in (0..sparsity.len()).filter(|&il| sparsity[il] > 0.0) {
        let name = format!("blk.{il}.ffn_down.weight");
        change(layout.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap());
    }
    let turned = |tensor: &TensorPlan| tensor.name.contains("ffn_down_t");
    if layout.tensors.iter().any(turned) {
        layout.set("gemma3n.cli.layout", 1u32);
    }
    let path = home.path().join("changed.gguf");
    let mut writer = gemma3n::gguf::Writer::create(&path, &layout, false).unwrap();
    for (planned, tensor) in layout.tensors.iter().zip(from.tensors()) {
        writer.append(&planned.name, from.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    Gguf::open(&path).unwrap()
}

/// What is no single matrix can't be turned, and is not passed over.
#[test]
fn only_whole_matrices_are_turned() {
    let home = Home::new();
    let stacked = changed(&home, |tensor| {
        let [a, b, ..] = tensor.ne;
        (tensor.ne, tensor.n_dims) = ([a, b / 2, 2, 1], 3);
    });
    let preset = Preset::from_name("Q4_0-nm").unwrap();
    let (wanted, name) = (Wanted::new(preset), "blk.0.ffn_down.weight");
    let options = Options { wanted, requantize: false, importance: None };
    let error = quantize::plan(&stacked, &options).unwrap_err().to_string();
    assert!(error.contains("ffn_down.weight: expected one whole matrix to transpose"), "{error}");
    let model = Model { layers: 1, sparse: vec![true], ..Model::default() };
    let elements = 256 * 256;
    for (ne, segments) in [
        ([256, 256, 1, 1], vec![Segment::Fill { value: 0.0, elements }]),
        ([256, 128, 2, 1], vec![Segment::Fill { value: 0.0, elements }]),
    ] {
        let target = TensorPlan { name: name.into(), ne, n_dims: 2, ty: TensorType::F16 };
        let tensors = vec![PlannedTensor::new(target, segments)];
        let mut plan = Plan { tensors, ..Plan::default() };
        let error = quantize::retype(&mut plan, &model, &options.wanted).unwrap_err().to_string();
        let start = format!("tensor {name}: expected one whole matrix to transpose, found ");
        assert!(error.starts_with(&start), "{error}");
    }
}

/// A file that is neuron-major already keeps its layout, in types that the kernel has and that need
/// no importance matrix.
#[test]
fn a_neuron_major_file_stays_one() {
    let home = Home::new();
    let from = changed(&home, |tensor| {
        tensor.name = tensor.name.replace("ffn_down", "ffn_down_t");
        tensor.ne.swap(0, 1);
    });
    let usual = Gguf::open(&home.path().join("wide-F16.gguf")).unwrap();
    let matrix = full_matrix(&home, &usual);
    for (preset, importance, ty) in [
        ("IQ3_S", None, TensorType::Q3_K),
        ("IQ2_XXS", Some(matrix.as_path()), TensorType::Q2_K),
        ("Q2_K_S", Some(matrix.as_path()), TensorType::Q2_K),
        ("Q5_0-nm", None, TensorType::Q5_0),
    ] {
        let plan = planned(&from, preset, importance);
        let turned: Vec<_> =
            plan.tensors.iter().filter(|t| t.target.name.contains("ffn_down_t")).collect();
        assert!(!turned.is_empty());
        for tensor in turned {
            assert_eq!(tensor.target.ty, ty, "{preset}");
            assert_eq!(tensor.target.ne, from.tensor(&tensor.target.name).unwrap().ne);
            assert!(tensor.importance.is_none());
        }
        let key = plan.metadata.iter().find(|(key, _)| key == "gemma3n.cli.layout");
        assert_eq!(key.map(|(_, value)| value), Some(&OwnedValue::U32(1)));
        let notices = plan.notices.join("\n");
        assert!(notices.contains("only gemma3n loads it"), "{preset}: {notices}");
        assert!(!notices.contains("no layer is sparse"), "{preset}: {notices}");
    }
}

#[test]
fn own_presets_are_for_text_and_for_quantized_types() {
    let home = Home::new();
    let towers = home.path().join("towers.gguf");
    let mut layout = Layout::new();
    layout.set("general.architecture", "clip");
    gemma3n::gguf::Writer::create(&towers, &layout, false).unwrap().finish().unwrap();
    let error = refused(&home, &[towers.to_str().unwrap(), "o.gguf", "Q8_0-small8"]);
    assert!(error.contains("Q8_0-small8 is for text models"), "{error}");
    let error = refused(&home, &[source().to_str().unwrap(), "o.gguf", "F16-nm"]);
    assert!(error.contains("F16-nm is not a type") && error.contains("Q4_K_M"), "{error}");
}
