//! `slice`: a smaller model is the bigger one's weights, byte for byte; its answers are those of
//! the reference's own smaller model; a file of it and a view of it are the same.

#[path = "support/models.rs"]
mod models;
#[path = "slice/nested.rs"]
mod nested;
#[path = "support/program.rs"]
mod program;
#[path = "support/shared.rs"]
mod shared;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use gemma3n::checkpoint::Float;
use gemma3n::files::{self, execute};
use gemma3n::ggml::Type;
use gemma3n::gguf::{Gguf, OwnedValue, TensorType, Value};
use gemma3n::model::matformer::CONFIGURATIONS;
use gemma3n::model::slice::{Slice, Widths};
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, TextModel};
use gemma3n::tokenizer::TokenId;
use gemma3n::verify::{self, Options, Subject};

use nested::Nested;

/// Cuts a slice into a file of `folder`.
fn cut(gguf: &Arc<Gguf>, slice: &Slice, folder: &Path) -> Arc<Gguf> {
    let target = folder.join("slice.gguf");
    let plan = files::slice::plan(gguf, slice).expect("a plan");
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    execute::execute(&plan, &**gguf, &target, true, &mut go_on).expect("written");
    Arc::new(Gguf::open(&target).expect("a sound file"))
}

fn subject<'a>(gguf: &'a Arc<Gguf>, slice: Option<&'a Slice>) -> Subject<'a> {
    Subject { gguf, slice, towers: None }
}

/// What llama.cpp takes for granted is told where this model differs, and only there.
#[test]
fn notices_are_about_what_differs() {
    let gguf = Arc::new(Gguf::open(&program::model()).unwrap());
    let notices = |widths: &[usize], left_out: &[usize]| {
        files::slice::plan(&gguf, &own(widths, left_out)).expect("a plan").notices
    };
    // Layers 0, 1, 2 and 4 of the seven are sparse, the first five own their keys and values.
    assert_eq!(notices(&[32; 3], &[3, 4, 5, 6]), [""; 0]);
    let wrongly = "it computes this file wrongly";
    let sparse = |which: &str| format!("{which}, llama.cpp takes all to be: {wrongly}");
    assert_eq!(notices(&[32; 4], &[4, 5, 6]), [sparse("only the first 3 layers are sparse")]);
    let mixed = "3 of 4 layers are sparse, not only the first ones";
    assert_eq!(notices(&[32; 4], &[2, 5, 6]), [sparse(mixed)]);
    let owners = format!("4 layers own keys and values, llama.cpp takes 20 for granted: {wrongly}");
    let two = [owners, sparse("3 of 5 layers are sparse, not only the first ones")];
    assert_eq!(notices(&[32; 5], &[1, 5]), two);
}

/// A value that can't stay is named by its place in the source, not by that among what is kept.
#[test]
fn a_bad_value_in_a_cut_is_named_by_its_place() {
    use gemma3n::files::Plan;
    use gemma3n::files::plan::{Part, PlannedTensor, Segment, Stored};
    use gemma3n::gguf::{Layout, TensorPlan, TensorType, Writer};
    let folder = tempfile::tempdir().unwrap();
    let mut layout = Layout::new();
    layout.add_tensor("t", [8, 5, 1, 1], 2, TensorType::F32);
    let from = folder.path().join("from.gguf");
    let mut writer = Writer::create(&from, &layout, false).unwrap();
    // Row 3, column 6; and row 1, column 3, which is not kept.
    let value = |at: u32| if [30, 11].contains(&at) { f32::NAN } else { at as f32 };
    let bytes: Vec<u8> = (0..40).flat_map(|at| value(at).to_le_bytes()).collect();
    writer.append("t", &bytes).unwrap();
    writer.finish().unwrap();
    let part = Part::Cut { rows: 1..5, columns: vec![0..2, 5..8] };
    let stored = Stored { name: "t".into(), ty: TensorType::F32, row_len: 8, rows: 5, part };
    for ty in [TensorType::F32, TensorType::F16] {
        let target = TensorPlan { name: "t".into(), ne: [5, 4, 1, 1], n_dims: 2, ty };
        let tensor = PlannedTensor::new(target, vec![Segment::Stored(stored.clone())]);
        let plan = Plan { tensors: vec![tensor], ..Plan::default() };
        let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
        let target = folder.path().join("to.gguf");
        let gguf = Gguf::open(&from).unwrap();
        let error = execute::execute(&plan, &gguf, &target, false, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("tensor t: element 30 is NaN"), "{error}");
        assert!(!target.exists());
    }
}

fn own(widths: &[usize], left_out: &[usize]) -> Slice {
    Slice::new(Widths::Each(widths.to_vec()), left_out.to_vec())
}

fn values(gguf: &Gguf, name: &str) -> ([u64; 4], Vec<f32>) {
    let tensor = gguf.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
    let ty = Type::weight_from_id(tensor.ty.id()).unwrap();
    let mut values = vec![0.0; tensor.ne.iter().product::<u64>() as usize];
    ty.to_f32(gguf.data(tensor), &mut values);
    (tensor.ne, values)
}

/// What a tensor of the slice must be, by its own reckoning on f32: rows and columns picked.
fn expected(
    big: &Gguf,
    name: &str,
    kept: &[usize],
    widths: &[usize],
    p: usize,
) -> ([u64; 4], Vec<f32>) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let (source, new) = match layer {
        Some((new, suffix)) => {
            let new: usize = new.parse().unwrap();
            (format!("blk.{}.{suffix}", kept[new]), Some(new))
        }
        None => (name.to_owned(), None),
    };
    let (mut ne, values) = values(big, &source);
    let row_len = ne[0] as usize;
    let groups: Vec<usize> = kept.iter().flat_map(|&il| il * p..(il + 1) * p).collect();
    let (mut rows, mut columns) = ((0..values.len() / row_len).collect(), (0..row_len).collect());
    let leaf = name.rsplit('.').nth(1).unwrap();
    match (leaf, new) {
        ("ffn_gate" | "ffn_up" | "ffn_down_t", Some(new)) => {
            rows = (0..widths[new]).collect::<Vec<_>>()
        }
        ("ffn_down", Some(new)) => columns = (0..widths[new]).collect::<Vec<_>>(),
        ("per_layer_token_embd", _) => columns = groups,
        ("per_layer_model_proj", _) => rows = groups,
        _ => return (ne, values),
    }
    (ne[0], ne[1]) = (columns.len() as u64, rows.len() as u64);
    let mut picked = Vec::new();
    for row in &rows {
        picked.extend(columns.iter().map(|column| values[row * row_len + column]));
    }
    (ne, picked)
}

fn assert_same_weights(big: &Gguf, small: &Gguf, kept: &[usize], widths: &[usize], p: usize) {
    for tensor in small.tensors() {
        let found = values(small, &tensor.name);
        let expected = expected(big, &tensor.name, kept, widths, p);
        assert!(found == expected, "{} ({})", tensor.name, tensor.ty);
    }
    let layers = |gguf: &Gguf| gguf.tensors().iter().filter(|t| t.name.starts_with("blk.")).count();
    let a_layer = layers(big) / Nested::layers_of(big);
    assert_eq!(layers(small), a_layer * kept.len());
    assert_eq!(small.tensors().len() - layers(small), big.tensors().len() - layers(big));
}

const TINY_KEPT: [usize; 5] = [0, 2, 3, 4, 6];
const TINY_WIDTHS: [usize; 5] = [96, 96, 64, 96, 96];

/// The fixture in F32, as cut by scripts/fixtures.py for the case `sliced`.
fn tiny(folder: &Path) -> (Arc<Gguf>, Slice) {
    let gguf = models::converted(&models::fixtures().join("tiny"), Float::F32, folder);
    (gguf, own(&TINY_WIDTHS, &[1, 5]))
}

#[test]
fn a_slice_has_the_weights_and_sizes_of_the_layers_that_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (big, slice) = tiny(folder.path());
    let small = cut(&big, &slice, folder.path());
    assert_same_weights(&big, &small, &TINY_KEPT, &TINY_WIDTHS, 16);
    let keys = small.metadata();
    assert_eq!(keys.u32("gemma3n.block_count").unwrap(), Some(5));
    assert_eq!(keys.u32("gemma3n.attention.shared_kv_layers").unwrap(), Some(1));
    let widths = keys.i32_array("gemma3n.feed_forward_length").unwrap().unwrap();
    assert_eq!(widths, TINY_WIDTHS.map(|width| width as i32));
    let pattern = keys.bool_array("gemma3n.attention.sliding_window_pattern").unwrap().unwrap();
    assert_eq!(pattern, [true, false, true, false, false]);
    let all = big.metadata().f32_array("gemma3n.activation_sparsity_scale").unwrap().unwrap();
    let kept = keys.f32_array("gemma3n.activation_sparsity_scale").unwrap().unwrap();
    assert_eq!(kept, TINY_KEPT.map(|il| all[il]));
    let note = keys.str("gemma3n.cli.slice").unwrap();
    assert_eq!(note, Some("ffn 96 x 2, 64, 96 x 2 without layers 1, 5"));
    for (key, value) in big.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        assert!(keys.get(key).map(OwnedValue::from) == Some(value.into()), "{key}");
    }
}

#[test]
fn a_slice_answers_as_the_references_own_smaller_model() {
    let folder = tempfile::tempdir().unwrap();
    let (big, _) = tiny(folder.path());
    let cases: [(&str, Slice); 2] = [
        ("sliced", own(&TINY_WIDTHS, &[1, 5])),
        ("sliced-first", own(&[64, 96, 32, 96, 96], &[0, 5])),
    ];
    for (case, slice) in cases {
        let file = models::fixtures().join(format!("tiny/slices/{case}.reference.gguf"));
        let small = cut(&big, &slice, folder.path());
        for kernels in [Kernels::Ggml, Kernels::Auto] {
            let options = Options { cache: CacheType::F32, threads: 1, kernels, tolerance: None };
            let of_file = verify::run(subject(&small, None), &file, options).unwrap();
            let of_view = verify::run(subject(&big, Some(&slice)), &file, options).unwrap();
            for report in [of_file, of_view] {
                assert!(report.taps.len() > 8, "{case}: {} values", report.taps.len());
                assert_eq!(report.first_failure(), None, "{case} ({kernels:?})");
                assert_eq!(report.greedy.found, report.greedy.expected, "{case} ({kernels:?})");
            }
        }
        // the whole model is another one
        let options =
            Options { cache: CacheType::F32, threads: 1, kernels: Kernels::Auto, tolerance: None };
        assert!(
            !verify::run(subject(&big, None), &file, options).is_ok_and(|report| report.passes())
        );
    }
}

/// Logits after a prompt, and after steps of one token.
fn logits(model: &Arc<TextModel>, kernels: Kernels, threads: usize) -> Vec<f32> {
    let options =
        DecoderOptions { context: 48, batch: 16, cache: CacheType::F32, threads, kernels };
    let mut decoder = Decoder::new(model.clone(), options).unwrap();
    let vocabulary = model.config().vocabulary as u32;
    let id = |i: u32| TokenId((i * 37 + 11) % vocabulary);
    let ids: Vec<TokenId> = (0..24).map(id).collect();
    let mut all = decoder.prefill_logits(&ids).unwrap();
    for i in 24..26 {
        all.extend(decoder.prefill_logits(&[id(i)]).unwrap());
    }
    all
}

fn assert_view_equals_file(
    big: &Arc<Gguf>,
    slice: &Slice,
    small: &Arc<Gguf>,
    threads: usize,
    what: &str,
) {
    let view = TextModel::open_slice(big, Some(slice)).unwrap();
    let file = TextModel::open(small).unwrap();
    assert_eq!(view.config(), file.config(), "{what}");
    assert_eq!(view.bytes_per_token(), file.bytes_per_token(), "{what}");
    for kernels in [Kernels::Auto, Kernels::Ggml] {
        let (a, b) = (logits(&view, kernels, threads), logits(&file, kernels, threads));
        let same = a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{what}, {kernels:?}, {threads} threads");
        assert!(a.windows(2).any(|pair| pair[0] != pair[1]), "{what}: logits are all the same");
    }
}

#[test]
fn packed_types_are_cut_and_viewed_without_unpacking() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, widths) = ([0, 2, 3, 5], [512, 256, 768, 256]);
    let slice = own(&widths, &[1, 4]);
    let mut tried = 0;
    for ty in TensorType::ALL {
        let nested = Nested { ty: *ty, ..Nested::blocks() };
        let Some(big) = nested.write(&folder.path().join("big.gguf")) else { continue };
        let small = cut(&big, &slice, folder.path());
        assert_same_weights(&big, &small, &kept, &widths, 256);
        for tensor in small.tensors().iter().filter(|tensor| tensor.name.contains("ffn_down")) {
            assert_eq!(tensor.ty, *ty);
        }
        assert_view_equals_file(&big, &slice, &small, 1, ty.name());
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} types");
}

#[test]
fn a_width_alone_and_layers_alone_are_slices_too() {
    let folder = tempfile::tempdir().unwrap();
    let big = Nested { ty: TensorType::Q8_0, ..Nested::blocks() };
    let big = big.write(&folder.path().join("big.gguf")).unwrap();
    for slice in [
        Slice::new(Widths::All(288), Vec::new()),
        Slice::new(Widths::Kept, vec![5]),
        Slice::new(Widths::Kept, vec![4, 0]),
        own(&[768, 768, 768, 32, 768, 768], &[]),
    ] {
        let small = cut(&big, &slice, folder.path());
        assert_view_equals_file(&big, &slice, &small, 1, &format!("{slice:?}"));
    }
}

#[test]
fn neuron_major_layers_are_cut_by_rows() {
    let folder = tempfile::tempdir().unwrap();
    // no block lies across neurons here: any width will do in layer 0
    let nested = Nested { ty: TensorType::Q8_0, neuron_major: true, ..Nested::blocks() };
    let big = nested.write(&folder.path().join("big.gguf")).unwrap();
    let widths = [500, 32, 64, 768, 96];
    let slice = own(&widths, &[1]);
    let small = cut(&big, &slice, folder.path());
    assert_same_weights(&big, &small, &[0, 2, 3, 4, 5], &widths, 256);
    assert_eq!(small.metadata().u32("gemma3n.cli.layout").unwrap(), Some(1));
    assert_view_equals_file(&big, &slice, &small, 1, "neuron-major");
    // without a sparse layer nothing is neuron-major any more
    let slice = Slice::new(Widths::Kept, vec![0, 1]);
    let small = cut(&big, &slice, folder.path());
    assert_eq!(small.metadata().u32("gemma3n.cli.layout").unwrap(), None);
    assert_view_equals_file(&big, &slice, &small, 1, "no sparse layer");
}

#[test]
fn two_threads_see_the_same_slice() {
    let folder = tempfile::tempdir().unwrap();
    for ty in [TensorType::Q4_K, TensorType::F16] {
        let big = Nested { ty, ..Nested::blocks() };
        let big = big.write(&folder.path().join("big.gguf")).unwrap();
        let slice = own(&[256, 512, 256, 512, 256], &[1]);
        let small = cut(&big, &slice, folder.path());
        assert_view_equals_file(&big, &slice, &small, 2, ty.name());
    }
}

#[test]
fn every_published_configuration_loads_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let big = Nested::e4b().write(&folder.path().join("big.gguf")).unwrap();
    let run = |gguf: &Arc<Gguf>, slice: Option<&Slice>| {
        let model = TextModel::open_slice(gguf, slice).unwrap();
        let options = DecoderOptions {
            context: 8,
            batch: 8,
            cache: CacheType::F16,
            threads: 1,
            kernels: Kernels::Auto,
        };
        let mut decoder = Decoder::new(model.clone(), options).unwrap();
        let mut logits = decoder.prefill_logits(&[2, 7, 5].map(TokenId)).unwrap();
        logits.extend(decoder.prefill_logits(&[TokenId(9)]).unwrap());
        (model, logits)
    };
    let whole = run(&big, None).1;
    for configuration in CONFIGURATIONS.iter().filter(|c| c.name != "e4b") {
        let name = configuration.name;
        let slice = Slice::parse(configuration.published).unwrap();
        let small = cut(&big, &slice, folder.path());
        let (file, of_file) = run(&small, None);
        let (view, of_view) = run(&big, Some(&slice));
        assert_eq!(file.config().layers, configuration.layers(), "{name}");
        assert_eq!(file.config().owners(), 20, "{name}");
        assert_eq!(view.slice().as_deref(), Some(name));
        assert_eq!(small.metadata().str("gemma3n.cli.slice").unwrap(), Some(name));
        assert!(of_file == of_view, "{name}");
        assert!(of_file != whole, "{name} is the whole model");
    }
}

#[test]
fn the_table_is_the_published_list() {
    let Some(shared) = shared::shared() else { return };
    let list = std::fs::read_to_string(shared.join("matformer.csv")).unwrap();
    let rows: Vec<&str> = list.lines().filter(|line| line.contains('[')).collect();
    assert_eq!(rows.len(), CONFIGURATIONS.len());
    for (row, configuration) in rows.into_iter().zip(&CONFIGURATIONS) {
        let fields: Vec<&str> = row.splitn(5, ',').collect();
        assert_eq!(fields[0], configuration.published);
        assert_eq!(fields[1], configuration.layers().to_string(), "{row}");
        assert_eq!(fields[2], configuration.parameters, "{row}");
        assert_eq!(fields[3], format!("{}%", configuration.mmlu), "{row}");
        let (parsed, ours) = (Slice::parse(row).unwrap(), Slice::from(configuration));
        assert_eq!((parsed.widths, parsed.left_out), (ours.widths, ours.left_out), "{row}");
        // ours carries the published size in its name
        let size = configuration.published.strip_prefix("Config for E");
        let size = size
            .and_then(|rest| rest.strip_suffix("-level)"))
            .map(|rest| format!("e{}", rest.replace(" (", "-").to_lowercase()));
        assert!(size.is_none_or(|size| size == configuration.name), "{row}");
    }
}

/// The program on a small model, with these words after `slice`.
fn slice(home: &program::Home, words: &[&str]) -> std::process::Output {
    home.program().arg("slice").args(words).output().unwrap()
}

#[test]
fn what_cannot_be_cut_says_why() {
    let home = program::Home::new();
    let model = program::model();
    let model = model.to_str().unwrap();
    let blocks = home.path().join("blocks.gguf");
    Nested { ty: TensorType::Q4_K, ..Nested::blocks() }.write(&blocks).unwrap();
    let blocks = blocks.to_str().unwrap();
    let narrow = home.path().join("narrow.gguf");
    let narrow_groups = Nested { ty: TensorType::Q8_0, per_layer: 16, ..Nested::blocks() };
    narrow_groups.write(&narrow).unwrap();
    let narrow = narrow.to_str().unwrap();
    std::fs::write(home.path().join("two.csv"), "a,1,,,\"[8]\",\nb,1,,,\"[8]\",\n").unwrap();
    let cases: [(&[&str], &str); 16] = [
        (
            &[model, "--to", "e2.45b-block"],
            "no slice \"e2.45b-block\"; the nearest is e2.49b-block",
        ),
        (&[model, "--to", "e2.98b"], "could be e2.98b-layer or e2.98b-block"),
        (
            &[model, "--to", "e2b"],
            "slice e2b: it is cut out of 35 layers (or the 30 that stay); the model has 7",
        ),
        (&[model, "--to", "two.csv"], "two.csv: expected one row of the published list, found 2"),
        (&[model, "--ffn", "64,64"], "2 FFN widths are given for the 7 layers that stay"),
        (&[model, "--ffn", "128"], "layer 0: an FFN width of 128 is asked for, the model's is 96"),
        (&[model, "--ffn", "0"], "layer 0 can't have an FFN width of 0"),
        (&[model, "--ffn", "wide"], "\"wide\" is no list of widths"),
        (
            &[model, "--skip-layers", "3"],
            "layer 3 can't be left out: layer 5 reads its keys and values",
        ),
        (&[model, "--skip-layers", "4,5"], "layer 4 can't be left out: layer 6 reads"),
        (
            &[model, "--skip-layers", "1,7"],
            "layer 7 is to be left out, but the model has layers 0 to 6",
        ),
        (&[model, "--skip-layers", "1,2,1"], "layer 1 is to be left out twice"),
        (&[model, "--skip-layers", "0,1,2,3,4,5,6"], "no layer would stay"),
        (&[model, "--ffn", "96,64,128,64,96,64,128"], "there is nothing to cut"),
        (
            &[blocks, "--ffn", "300"],
            "blk.0.ffn_down.weight: q4_K comes in blocks of 256: a width of 300 is not whole blocks; 256 or 512 would be",
        ),
        (
            &[narrow, "--skip-layers", "1"],
            "per_layer_token_embd.weight: q8_0 comes in blocks of 32: a layer's 16 values are not whole blocks",
        ),
    ];
    for (words, expected) in cases {
        let output = slice(&home, &[words, &["-o", "out.gguf"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(stderr.contains(&expected.to_lowercase()), "{words:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(!home.path().join("out.gguf").exists(), "{words:?}");
    }
}

#[test]
fn the_input_is_not_written_over() {
    let home = program::Home::new();
    let model = home.path().join("model.gguf");
    std::fs::copy(program::model(), &model).unwrap();
    let output = slice(&home, &["model.gguf", "--ffn", "32", "-o", "model.gguf", "--force"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("one of the files that it would be made from"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(program::model()).unwrap());
}

#[test]
fn the_command_line_cuts_lists_and_shows() {
    let home = program::Home::new();
    let model = program::model();
    let model = model.to_str().unwrap();
    let words = [model, "--ffn", "32", "--skip-layers", "1,5", "-o", "small.gguf"];
    let shown = slice(&home, &[&words[..], &["--dry-run"]].concat());
    let stdout = String::from_utf8_lossy(&shown.stdout);
    assert!(stdout.contains("left out: blk.1.ffn_up.weight (of a layer left out)"), "{stdout}");
    assert!(!home.path().join("small.gguf").exists());
    let made = slice(&home, &words);
    let stderr = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{stderr}");
    assert!(stderr.contains("4 layers own keys and values, llama.cpp takes 20 for granted"));
    let small = Gguf::open(&home.path().join("small.gguf")).unwrap();
    assert!(matches!(small.metadata().get("gemma3n.block_count"), Some(Value::U32(5))));
    let label = small.metadata().str("general.size_label").unwrap().unwrap();
    assert!(label.ends_with('K') && !label.starts_with('0'), "{label}");
    let again = slice(&home, &words);
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
    let list = slice(&home, &["--list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for configuration in &CONFIGURATIONS {
        let of_it = |line: &&str| line.split(' ').next() == Some(configuration.name);
        let line = list.lines().find(of_it).unwrap_or_else(|| panic!("{list}"));
        assert!(line.contains(configuration.parameters), "{line}");
    }
}

#[test]
fn statistics_of_a_slice_are_those_of_its_file() {
    let home = program::Home::new();
    let model = program::model();
    let model = model.to_str().unwrap();
    std::fs::write(home.path().join("own.csv"), "own,,,,\"[64, 64, 32, 64, 64]\",\"[1, 5]\"\n")
        .unwrap();
    std::fs::write(home.path().join("text"), "Who reads the lighthouse keeper's books? ".repeat(9))
        .unwrap();
    assert!(slice(&home, &[model, "--to", "own.csv", "-o", "small.gguf"]).status.success());
    let statistics = |words: &[&str]| {
        let mut program = home.program();
        program.args(["imatrix", "-f", "text", "--chunk-size", "16", "-o", "out", "--force"]);
        let output = program.args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(home.path().join("out")).unwrap()
    };
    let view = statistics(&["-m", model, "--slice", "own.csv"]);
    assert!(view == statistics(&["-m", "small.gguf"]));
    assert!(view != statistics(&["-m", model]));
}

#[test]
fn chat_runs_a_slice_and_its_session_stays_with_it() {
    let home = program::Home::new();
    let row = "own,5,,,\"[64, 2 * 32, 32, 64, 64]\",\"[1, 5]\"\n";
    std::fs::write(home.path().join("row.csv"), format!("# of one's own\nname,x\n{row}")).unwrap();
    let chat = |words: &[&str]| {
        let mut program = home.program();
        program.arg("chat").arg("-m").arg(program::model());
        program.args(["--greedy", "-n", "4", "--json"]).args(words).output().unwrap()
    };
    let answer = chat(&["--slice", "row.csv", "--session", "s", "Who reads"]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(json["model"]["slice"], "ffn 64 x 2, 32, 64 x 2 without layers 1, 5");
    // the same from a file
    let model = program::model();
    let words = [model.to_str().unwrap(), "--to", "row.csv", "-o", "small.gguf"];
    assert!(slice(&home, &words).status.success());
    let small = chat(&["-m", "small.gguf", "Who reads"]);
    let small: serde_json::Value = serde_json::from_slice(&small.stdout).unwrap();
    assert_eq!((&small["ids"], &small["model"]["slice"]), (&json["ids"], &serde_json::Value::Null));
    // the session is refused by the whole model, and goes on with its slice
    let whole = chat(&["--session", "s", "And who writes"]);
    let stderr = String::from_utf8_lossy(&whole.stderr);
    assert!(
        stderr.contains("the session is of the slice ffn 64 x 2, 32, 64 x 2 without layers 1, 5; in use is the whole model"),
        "{stderr}"
    );
    assert!(!whole.status.success());
    assert!(chat(&["--slice", "row.csv", "--session", "s", "And who writes"]).status.success());
    let unfit = chat(&["--slice", "e2b", "Who reads"]);
    let stderr = String::from_utf8_lossy(&unfit.stderr);
    assert!(stderr.contains("slice e2b: it is cut out of 35 layers"), "{stderr}");
}
