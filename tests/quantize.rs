//! `quantize`: types and bytes are llama-quantize's, and what can't be done says why.
//!
//! Expected: tests/fixtures/quantize, made with llama-quantize by scripts/fixtures_quantize.py.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Output;

use gemma3n::files::quantize::{self, Importance, Options, Preset, Wanted};
use gemma3n::files::{ImportanceMatrix, execute};
use gemma3n::ggml::Type;
use gemma3n::gguf::{Gguf, OwnedValue, TensorType};
use regex::Regex;
use sha2::{Digest, Sha256};

#[path = "quantize/choices.rs"]
mod choices;
#[path = "quantize/faults.rs"]
mod faults;
#[path = "quantize/own.rs"]
mod own;
#[path = "support/program.rs"]
mod program;

use program::Home;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quantize").join(name)
}

fn source() -> PathBuf {
    fixture("source.gguf")
}

/// Runs `gemma3n quantize` with these arguments, in this home.
fn run(home: &Home, arguments: &[&str]) -> Output {
    home.program().arg("quantize").args(arguments).output().unwrap()
}

/// Runs it from one file to `out.gguf`, which is opened.
fn quantized(home: &Home, input: &Path, arguments: &[&str]) -> Gguf {
    let out = home.path().join("out.gguf");
    let mut all = vec![input.to_str().unwrap(), out.to_str().unwrap()];
    all.extend(arguments);
    all.push("--force");
    let output = run(home, &all);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    Gguf::open(&out).unwrap()
}

/// Runs it in vain; what it said.
fn refused(home: &Home, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
    stderr(&output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The values of a tensor.
fn values(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap();
    let mut values = vec![0.0; tensor.n_elements() as usize];
    Type::weight_from_id(tensor.ty.id()).unwrap().to_f32(gguf.data(tensor), &mut values);
    values
}

/// √(Σ (b − a)² / Σ a²)
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(b) - f64::from(a))).sum();
    (error / a.iter().map(|&a| square(f64::from(a))).sum::<f64>()).sqrt()
}

/// All of `ffn` as this type, made without the program around it: the tables of some types take
/// long to set up.
fn with_ffn_as(ty: &str, importance: Option<&Path>, out: &Path) -> Gguf {
    let from = Gguf::open(&source()).unwrap();
    let mut wanted = Wanted::new(Preset::from_name("Q8_0").unwrap());
    wanted.patterns.push((Regex::new("ffn").unwrap(), TensorType::from_name(ty).unwrap()));
    let importance = importance.map(|path| {
        let matrix = ImportanceMatrix::open(path).unwrap();
        Importance { path: path.to_owned(), matrix }
    });
    let plan = quantize::plan(&from, &Options { wanted, requantize: false, importance }).unwrap();
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    execute::execute(&plan, &from, out, true, &mut go_on).unwrap();
    Gguf::open(out).unwrap()
}

/// Every type from F32, F16 and BF16, with and without an importance matrix.
#[test]
fn bytes_of_every_type_are_those_of_llama_quantize() {
    let mut expected = BTreeMap::<(&str, bool), Vec<(&str, &str)>>::new();
    let text = fs::read_to_string(fixture("bytes.txt")).unwrap();
    for line in text.lines() {
        let [ty, from, case, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let name = match from {
            "F32" => "blk.0.ffn_up.weight",
            "F16" => "blk.0.ffn_gate.weight",
            _ => "blk.0.ffn_down.weight",
        };
        expected.entry((ty, case == "imatrix")).or_default().push((name, hash));
    }
    // 28 types with a matrix, 22 without: all that can be written.
    assert_eq!(expected.len(), 50);
    let writable = TensorType::ALL.iter().filter(|ty| quantize::is_writable(**ty));
    assert_eq!(writable.count(), 28);
    let (home, imatrix, from) =
        (Home::new(), fixture("imatrix.gguf"), Gguf::open(&source()).unwrap());
    for ((ty, with_matrix), tensors) in expected {
        let importance = with_matrix.then_some(imatrix.as_path());
        let gguf = with_ffn_as(ty, importance, &home.path().join("out.gguf"));
        for (name, hash) in tensors {
            let tensor = gguf.tensor(name).unwrap();
            assert_eq!(tensor.ty.name(), ty, "{name}");
            assert_eq!(sha256(gguf.data(tensor)), hash, "{name} as {ty}, matrix {with_matrix}");
            let error = relative_error(&values(&from, name), &values(&gguf, name));
            assert!(error <= bound(tensor.ty), "{name} as {ty}: {error}");
        }
    }
}

/// What a type may lose at most: half with each bit more.
fn bound(ty: TensorType) -> f64 {
    let bits = ty.block_bytes() as f64 * 8.0 / ty.block_len() as f64;
    // Of plain types' bits some are the exponent.
    let bits = if ty == TensorType::BF16 { 8.0 } else { bits.min(11.0) };
    2f64.powf(2.0 - bits)
}

#[test]
fn metadata_are_kept_and_say_what_was_done() {
    let home = Home::new();
    let imatrix = fixture("imatrix.gguf");
    let arguments = ["q4_k_m", "--imatrix", imatrix.to_str().unwrap()];
    let (from, to) = (Gguf::open(&source()).unwrap(), quantized(&home, &source(), &arguments));
    for (key, value) in from.metadata().iter() {
        let kept = to.metadata().get(key).map(OwnedValue::from);
        assert_eq!(kept, Some(OwnedValue::from(value)), "{key}");
    }
    assert_eq!(to.metadata().u32("general.file_type").unwrap(), Some(15));
    assert_eq!(to.metadata().u32("general.quantization_version").unwrap(), Some(2));
    let of_matrix = |key: &str| to.metadata().str(&format!("quantize.imatrix.{key}")).unwrap();
    assert_eq!(of_matrix("file"), imatrix.to_str());
    assert_eq!(of_matrix("dataset"), Some("words.txt"));
    assert_eq!(to.metadata().u32("quantize.imatrix.entries_count").unwrap(), Some(3));
    assert_eq!(to.metadata().u32("quantize.imatrix.chunks_count").unwrap(), Some(7));
}

/// Quantizing again goes through F32, as from the unquantized values that the file stands for.
#[test]
fn a_quantized_file_is_quantized_again_only_when_asked() {
    let home = Home::new();
    let first = home.path().join("q8.gguf");
    let first_name = first.to_str().unwrap();
    let made = run(&home, &[source().to_str().unwrap(), first_name, "Q8_0", "-q"]);
    assert!(made.status.success());
    let error = refused(&home, &[first_name, "again.gguf", "Q4_0"]);
    assert!(error.contains("q8.gguf: tensor ") && error.contains("is Q8_0 already"), "{error}");
    assert!(error.contains("hint: ") && error.contains("--allow-requantize"), "{error}");
    let again = quantized(&home, &first, &["Q4_0", "--allow-requantize"]);
    let name = "blk.0.ffn_up.weight";
    let expected = {
        let from = values(&Gguf::open(&first).unwrap(), name);
        gemma3n::ggml::quantize(Type::weight_from_id(2).unwrap(), &from, 512).unwrap()
    };
    assert_eq!(again.data(again.tensor(name).unwrap()), expected);
    // What has its type already is the same, bit for bit, and needs no leave.
    let (same, was) = (quantized(&home, &first, &["Q8_0"]), Gguf::open(&first).unwrap());
    for tensor in was.tensors() {
        assert_eq!(same.data(same.tensor(&tensor.name).unwrap()), was.data(tensor));
    }
}

#[test]
fn overrides_go_before_the_preset() {
    let home = Home::new();
    let ty = |gguf: &Gguf, name: &str| gguf.tensor(name).unwrap().ty;
    let made = quantized(
        &home,
        &source(),
        &["Q4_0", "--tensor", "ffn_(up|gate)=q5_1", "--tensor", "ffn_up=Q8_0", "-q"],
    );
    assert_eq!(ty(&made, "blk.0.ffn_up.weight"), TensorType::Q5_1, "the first that fits");
    assert_eq!(ty(&made, "blk.0.ffn_down.weight"), TensorType::Q4_0);
    assert_eq!(ty(&made, "token_embd.weight"), TensorType::Q6_K);
    let made = quantized(&home, &source(), &["Q4_K_M", "--pure"]);
    assert_eq!(ty(&made, "token_embd.weight"), TensorType::Q4_K);
    assert_eq!(ty(&made, "blk.0.laurel_l.weight"), TensorType::F16, "small ones stay");
    let made = quantized(&home, &source(), &["Q4_K_M", "--output-tensor-type", "Q8_0"]);
    assert_eq!(ty(&made, "token_embd.weight"), TensorType::Q8_0, "tied");
    let made = quantized(&home, &source(), &["Q4_K_M", "--token-embedding-type", "Q5_0"]);
    assert_eq!(ty(&made, "per_layer_token_embd.weight"), TensorType::Q5_0);
    let twice = ["Q4_K_M", "--token-embedding-type", "Q5_0", "--tensor", "token_embd=Q4_1"];
    let made = quantized(&home, &source(), &twice);
    assert_eq!(ty(&made, "token_embd.weight"), TensorType::Q5_0);
    assert_eq!(ty(&made, "per_layer_token_embd.weight"), TensorType::Q4_1, "named by a pattern");
    let nothing = ["Q4_K_M", "--tensor", "ffn_upp=Q4_1"];
    let output = run(&home, &[&[source().to_str().unwrap(), "n.gguf"], &nothing[..]].concat());
    assert!(stderr(&output).contains("ffn_upp=Q4_1 is for no tensor"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_lists_types_and_sizes_and_writes_nothing() {
    let home = Home::new();
    let output = run(&home, &[source().to_str().unwrap(), "out.gguf", "Q6_K", "--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("blk.0.ffn_up.weight")).unwrap();
    assert!(
        line.contains("Q6_K") && line.contains("512 × 8") && line.contains("3.28 KiB"),
        "{line}"
    );
    assert!(!home.path().join("out.gguf").exists());
}

/// The parts of a split file make one file without a word of the split.
#[test]
fn a_split_file_becomes_one() {
    let home = Home::new();
    let from = Gguf::open(&source()).unwrap();
    let half = from.tensors().len() / 2;
    for (no, tensors) in [&from.tensors()[..half], &from.tensors()[half..]].iter().enumerate() {
        let mut layout = gemma3n::gguf::Layout::new();
        if no == 0 {
            layout.copy_metadata(from.metadata());
        }
        layout.set("split.no", no as u16);
        layout.set("split.count", 2u16);
        layout.set("split.tensors.count", from.tensors().len() as i32);
        for tensor in *tensors {
            layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
        }
        let path = home.path().join(format!("m-0000{}-of-00002.gguf", no + 1));
        let mut writer = gemma3n::gguf::Writer::create(&path, &layout, false).unwrap();
        for tensor in *tensors {
            writer.append(&tensor.name, from.data(tensor)).unwrap();
        }
        writer.finish().unwrap();
    }
    let whole = quantized(&home, &source(), &["Q5_0"]);
    let expected: Vec<_> = whole.tensors().iter().map(|t| whole.data(t).to_vec()).collect();
    let joined = quantized(&home, &home.path().join("m-00001-of-00002.gguf"), &["Q5_0"]);
    assert!(joined.metadata().iter().all(|(key, _)| !key.starts_with("split.")));
    for (tensor, expected) in joined.tensors().iter().zip(expected) {
        assert_eq!(joined.data(tensor), expected, "{}", tensor.name);
    }
}

/// Stderr tells each part's bits and error; the error is that of the file.
#[test]
fn what_was_lost_is_told() {
    let home = Home::new();
    let out = home.path().join("told.gguf");
    let input = source();
    let arguments = [input.to_str().unwrap(), out.to_str().unwrap(), "Q4_0"];
    let text = stderr(&run(&home, &arguments));
    let line = text.lines().find(|line| line.starts_with("token table")).expect(&text);
    let (from, to) = (Gguf::open(&source()).unwrap(), Gguf::open(&out).unwrap());
    let name = "token_embd.weight";
    let error = relative_error(&values(&from, name), &values(&to, name));
    assert!(line.contains("Q6_K") && line.contains(" 6.56 "), "{line}");
    assert!(line.ends_with(&format!("{error:.5}")), "{line}: {error}");
    let quiet = run(&home, &[&arguments[..], &["--force", "-q"]].concat());
    assert_eq!(stderr(&quiet), "");
}

#[test]
fn converting_and_quantizing_in_one_pass_is_the_same() {
    let home = Home::new();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wide");
    let told = |name: &str, more: &[&str]| {
        let out = home.path().join(name);
        let mut program = home.program();
        program.arg("convert").arg(&checkpoint).arg("-o").arg(&out).args(more);
        let output = program.output().unwrap();
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
        (out, stderr(&output))
    };
    let convert = |name: &str, more: &[&str]| told(name, more).0;
    let floats = convert("floats.gguf", &[]);
    for preset in ["Q4_K_M", "Q8_0", "q4_0-nm", "IQ4_XS-small8"] {
        let two = quantized(&home, &floats, &[preset]);
        let one = convert("one.gguf", &["--type", preset, "--force"]);
        assert!(fs::read(one).unwrap() == fs::read(two.path()).unwrap(), "{preset}");
    }
    let notice = "only gemma3n loads it";
    assert!(told("nm.gguf", &["--type", "Q4_0-nm"]).1.contains(notice));
    let mixed = told("mixed.gguf", &["--type", "Q4_0"]).1;
    assert!(!mixed.contains(notice) && !mixed.contains("neuron-major"), "{mixed}");
    let mut program = home.program();
    let out = home.path().join("none.gguf");
    program.arg("convert").arg(&checkpoint).arg("-o").arg(&out).args(["--type", "IQ1_S"]);
    let refused = program.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("needs an importance matrix"), "{}", stderr(&refused));
    assert!(!out.exists());
}

#[test]
fn the_importance_matrix_is_not_written_over() {
    let home = Home::new();
    let matrix = home.path().join("m.imatrix.gguf");
    fs::copy(fixture("imatrix.gguf"), &matrix).unwrap();
    let before = fs::read(&matrix).unwrap();
    let (source, name) = (source(), matrix.to_str().unwrap());
    let said =
        refused(&home, &[source.to_str().unwrap(), name, "Q4_K_M", "--imatrix", name, "--force"]);
    assert!(said.contains("is one of the files that it would be made from"), "{said}");
    assert!(fs::read(&matrix).unwrap() == before);
}
