//! What can't be done says why, and leaves nothing behind.

use std::process::{Command, Stdio};
use std::time::Duration;

use gemma3n::gguf::{Layout, Writer};

use super::*;

/// The source with a tensor's bytes changed.
fn damaged(home: &Home, name: &str, damage: impl Fn(&mut [u8])) -> PathBuf {
    let gguf = Gguf::open(&source()).unwrap();
    let tensor = gguf.tensor(name).unwrap();
    let mut bytes = fs::read(source()).unwrap();
    let at = tensor.offset() as usize;
    damage(&mut bytes[at..at + tensor.nbytes as usize]);
    let path = home.path().join("damaged.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

/// No file of this home but those named.
fn only(home: &Home, names: &[&str]) {
    for entry in fs::read_dir(home.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(names.contains(&name.to_str().unwrap()), "{name:?} was left behind");
    }
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let home = Home::new();
    let name = "blk.0.ffn_up.weight";
    let input = damaged(&home, name, |bytes| {
        bytes[4 * 700..4 * 701].copy_from_slice(&f32::NAN.to_le_bytes())
    });
    let error = refused(&home, &[input.to_str().unwrap(), "out.gguf", "Q4_K_M"]);
    assert!(error.contains(&format!("damaged.gguf: tensor {name}: element 700 is NaN")), "{error}");
    let large = damaged(&home, name, |bytes| bytes[..4].copy_from_slice(&1e9f32.to_le_bytes()));
    let error = refused(&home, &[large.to_str().unwrap(), "out.gguf", "Q8_0"]);
    assert!(error.contains("element 0 is 1e9, beyond what F16 holds"), "{error}");
    only(&home, &["damaged.gguf"]);
}

/// A block's scale of a tensor that is only copied.
#[test]
fn a_broken_scale_in_a_copied_tensor_is_named() {
    let home = Home::new();
    let path = home.path().join("q8.gguf");
    let name = path.to_str().unwrap();
    assert!(run(&home, &[source().to_str().unwrap(), name, "Q8_0", "-q"]).status.success());
    let (offset, tensor) = {
        let gguf = Gguf::open(&path).unwrap();
        let tensor = gguf.tensor("blk.0.ffn_gate.weight").unwrap();
        (tensor.offset() as usize, tensor.name.clone())
    };
    let mut bytes = fs::read(&path).unwrap();
    // The scale of the fourth block: an F16 infinity.
    bytes[offset + 3 * 34..offset + 3 * 34 + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = refused(&home, &[name, "out.gguf", "Q8_0"]);
    assert!(error.contains(&format!("q8.gguf: tensor {tensor}: element ")), "{error}");
    only(&home, &["q8.gguf"]);
}

#[test]
fn every_truncation_is_an_error() {
    let home = Home::new();
    let bytes = fs::read(source()).unwrap();
    let last = {
        let gguf = Gguf::open(&source()).unwrap();
        gguf.tensors().iter().map(|t| t.offset() + t.nbytes).max().unwrap() as usize
    };
    for cut in (0..last).rev().step_by(last / 12) {
        fs::write(home.path().join("cut.gguf"), &bytes[..cut]).unwrap();
        let error = refused(&home, &["cut.gguf", "out.gguf", "Q4_0"]);
        assert!(error.starts_with("error: cut.gguf: "), "{error}");
    }
    only(&home, &["cut.gguf"]);
}

#[test]
fn what_needs_an_importance_matrix_says_so() {
    let home = Home::new();
    let input = source();
    let input = input.to_str().unwrap();
    let error = refused(&home, &[input, "out.gguf", "IQ2_XS"]);
    assert!(error.contains("needs an importance matrix"), "{error}");
    assert!(error.contains("hint: gemma3n imatrix -m "), "{error}");
    let matrix = fixture("imatrix.gguf");
    let matrix = matrix.to_str().unwrap();
    let made = run(&home, &[input, "out.gguf", "IQ2_XS", "--imatrix", matrix, "-q"]);
    assert!(made.status.success(), "{}", stderr(&made));
    // Tables have no entries, so what can't be made without one is refused for them.
    let table = ["--token-embedding-type", "IQ2_XXS"];
    let all = [&[input, "o.gguf", "Q4_0", "--imatrix", matrix], &table[..]].concat();
    let error = refused(&home, &all);
    assert!(error.contains("token_embd.weight: IQ2_XXS needs an importance matrix"), "{error}");
}

/// An importance matrix with entries for these tensors, all columns alike.
pub fn matrix(path: &Path, weights: &[(String, u64)]) {
    let mut layout = Layout::new();
    layout.set("general.type", "imatrix");
    for (name, columns) in weights {
        layout.add_tensor(&format!("{name}.in_sum2"), [*columns, 1, 1, 1], 2, TensorType::F32);
        layout.add_tensor(&format!("{name}.counts"), [1, 1, 1, 1], 2, TensorType::F32);
    }
    let mut writer = Writer::create(path, &layout, true).unwrap();
    for (name, columns) in weights {
        let sums: Vec<u8> = (0..*columns).flat_map(|_| 2f32.to_le_bytes()).collect();
        writer.append(&format!("{name}.in_sum2"), &sums).unwrap();
        writer.append(&format!("{name}.counts"), &1f32.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

/// As in a real model, whose last layers use the keys and values of others: no text drives theirs.
#[test]
fn unused_keys_and_values_need_no_entry() {
    let home = Home::new();
    let wide = own::wide(&home);
    let from = Gguf::open(&wide).unwrap();
    let input = home.path().join("shared.gguf");
    let mut layout = Layout::new();
    layout.copy_metadata(from.metadata());
    layout.set("gemma3n.attention.sliding_window_pattern", vec![true, true]);
    layout.set("gemma3n.attention.shared_kv_layers", 1u32);
    for tensor in from.tensors() {
        layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
    }
    let mut writer = Writer::create(&input, &layout, false).unwrap();
    for tensor in from.tensors() {
        writer.append(&tensor.name, from.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    let path = home.path().join("matrix.gguf");
    let mut weights: Vec<_> = from
        .tensors()
        .iter()
        .filter(|tensor| tensor.ne[1] > 1 && tensor.ne[2] == 1)
        .filter(|tensor| !["blk.1.attn_k.weight", "blk.1.attn_v.weight"].contains(&&*tensor.name))
        .map(|tensor| (tensor.name.clone(), tensor.ne[0]))
        .collect();
    matrix(&path, &weights);
    let arguments = ["IQ3_XXS", "--imatrix", path.to_str().unwrap(), "-q"];
    let made = quantized(&home, &input, &arguments);
    assert_eq!(made.tensor("blk.1.attn_k.weight").unwrap().ty, TensorType::IQ2_S);
    weights.retain(|(name, _)| name != "blk.1.attn_q.weight");
    matrix(&path, &weights);
    let input = input.to_str().unwrap();
    let error = refused(&home, &[&[input, "o.gguf"], &arguments[..]].concat());
    assert!(error.contains("tensor blk.1.attn_q.weight: IQ2_S needs an importance"), "{error}");
    assert!(error.contains("hint: --tensor 'blk.1.attn_q.weight=Q4_K'"), "{error}");
}

#[test]
fn a_matrix_of_another_model_is_refused() {
    let home = Home::new();
    let other = home.path().join("other.gguf");
    let name = "blk.0.ffn_up.weight";
    matrix(&other, &[(name.to_owned(), 96)]);
    let input = source();
    let other = other.to_str().unwrap();
    let error = refused(&home, &[input.to_str().unwrap(), "o.gguf", "Q4_0", "--imatrix", other]);
    let expected = format!("other.gguf: entry {name}: expected values for 512 columns, found 96");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn wrong_words_are_answered() {
    let home = Home::new();
    let input = source();
    let input = input.to_str().unwrap();
    let error = refused(&home, &[input, "Q4_K_M", "out.gguf"]);
    assert!(error.contains("out.gguf is not a type"), "{error}");
    assert!(
        error.contains("hint: the type comes last: ") && error.contains("out.gguf Q4_K_M"),
        "{error}"
    );
    let error = refused(&home, &[input, "out.gguf", "Q4_K_X"]);
    assert!(error.contains("Q4_K_X is not a type") && error.contains("IQ4_XS"), "{error}");
    for bad in ["ffn=Q9", "ffn", "=Q4_0", "(=Q4_0", "ffn=Q8_1", "ffn=I32"] {
        let output = run(&home, &[input, "out.gguf", "Q4_0", "--tensor", bad]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
    only(&home, &[]);
}

#[test]
fn files_are_not_overwritten_by_chance() {
    let home = Home::new();
    fs::copy(source(), home.path().join("in.gguf")).unwrap();
    fs::write(home.path().join("there.gguf"), "mine").unwrap();
    let error = refused(&home, &["in.gguf", "there.gguf", "Q4_0"]);
    assert!(error.contains("there.gguf: exists already") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(home.path().join("there.gguf")).unwrap(), b"mine");
    std::os::unix::fs::symlink("in.gguf", home.path().join("link.gguf")).unwrap();
    for target in ["in.gguf", "./in.gguf", "link.gguf"] {
        let error = refused(&home, &["in.gguf", target, "Q4_0", "--force"]);
        assert!(error.contains("one of the files that it would be made from"), "{error}");
    }
    assert_eq!(fs::read(home.path().join("in.gguf")).unwrap(), fs::read(source()).unwrap());
}

/// Rows of 96 are no blocks of 256: the next type whose blocks they are is taken, and told.
#[test]
fn what_does_not_fit_gets_another_type() {
    let home = Home::new();
    let out = home.path().join("tiny.gguf");
    let input = program::model();
    let output = run(&home, &[input.to_str().unwrap(), out.to_str().unwrap(), "Q4_K_S"]);
    assert!(stderr(&output).contains("do not fit the type meant for them"), "{}", stderr(&output));
    let made = Gguf::open(&out).unwrap();
    assert_eq!(made.tensor("blk.3.attn_q.weight").unwrap().ty, TensorType::Q5_0);
    assert_eq!(made.tensor("token_embd.weight").unwrap().ty, TensorType::Q8_0);
    // 16 columns fit no quantized type.
    assert_eq!(made.tensor("blk.3.proj.weight").unwrap().ty, TensorType::F16);
}

#[test]
fn other_models_are_refused() {
    let home = Home::new();
    let mut layout = Layout::new();
    layout.set("general.architecture", "llama");
    let path = home.path().join("llama.gguf");
    Writer::create(&path, &layout, false).unwrap().finish().unwrap();
    let error = refused(&home, &["llama.gguf", "o.gguf", "Q4_0"]);
    assert!(error.contains("llama.gguf: expected a Gemma 3n text model"), "{error}");
}

/// A model of 4 KiB for each of so many rows (a multiple of 8), for what ends the work in its
/// middle.
fn larger(home: &Home, rows: u64) -> PathBuf {
    let path = home.path().join("larger.gguf");
    let from = Gguf::open(&source()).unwrap();
    let mut layout = Layout::new();
    layout.copy_metadata(from.metadata());
    for tensor in from.tensors() {
        let mut ne = tensor.ne;
        if tensor.name.contains("ffn") {
            ne[1] = rows;
        }
        layout.add_tensor(&tensor.name, ne, tensor.n_dims, tensor.ty);
    }
    let mut writer = Writer::create(&path, &layout, true).unwrap();
    for tensor in from.tensors() {
        let times = if tensor.name.contains("ffn") { rows / 8 } else { 1 };
        for _ in 0..times {
            writer.append(&tensor.name, from.data(tensor)).unwrap();
        }
    }
    writer.finish().unwrap();
    path
}

/// `ulimit -f` in place of a full disk: writing fails in the middle.
#[test]
fn a_full_disk_is_one_clear_error() {
    let home = Home::new();
    larger(&home, 1024);
    let program = home.program();
    let mut shell = Command::new("sh");
    let line = "trap '' XFSZ; ulimit -f 512; exec \"$0\" quantize larger.gguf out.gguf Q8_0";
    shell.args(["-c", line]).arg(program.get_program()).current_dir(home.path());
    shell.env("GEMMA3N_THREADS", "1");
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("out.gguf: "), "{text}");
    only(&home, &["larger.gguf"]);
}

/// Whenever it ends: no file, or a whole one.
#[test]
fn killed_in_the_middle_no_file_has_the_final_name() {
    let home = Home::new();
    larger(&home, 4096);
    let whole = run(&home, &["larger.gguf", "whole.gguf", "Q4_K_S", "-q"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let read = |name: &str| fs::read(home.path().join(name)).map(|bytes| sha256(&bytes));
    let sums = ["larger.gguf", "whole.gguf"].map(|name| read(name).unwrap());
    let again = ["quantize", "larger.gguf", "out.gguf", "Q4_K_S"];
    let mut child = home.program().args(again).stderr(Stdio::null()).spawn().unwrap();
    let begun = || {
        let entries = fs::read_dir(home.path()).unwrap().map(Result::unwrap);
        let mut parts = entries.filter(|e| e.file_name().to_string_lossy().ends_with(".part"));
        // One that has its name meanwhile is no part any more.
        parts.any(|part| part.metadata().is_ok_and(|found| found.len() > 0))
    };
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It may be done by now.
    child.kill().unwrap();
    child.wait().unwrap();
    if let Ok(out) = read("out.gguf") {
        assert_eq!(out, sums[1], "a part of a file has the final name");
    }
    assert_eq!(["larger.gguf", "whole.gguf"].map(|name| read(name).unwrap()), sums);
}

#[test]
fn interrupted_in_the_middle_nothing_is_left() {
    let home = Home::new();
    let from = Gguf::open(&larger(&home, 1024)).unwrap();
    let wanted = Wanted::new(Preset::from_name("Q8_0").unwrap());
    let plan =
        quantize::plan(&from, &Options { wanted, requantize: false, importance: None }).unwrap();
    let mut calls = 0;
    let mut stop_at_the_third = |done: u64, total: u64| {
        calls += 1;
        assert!(done < total);
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let out = home.path().join("out.gguf");
    let ended = execute::execute(&plan, &from, &out, false, &mut stop_at_the_third);
    assert!(matches!(ended, Err(gemma3n::files::Error::Interrupted)));
    assert_eq!(calls, 3);
    only(&home, &["larger.gguf"]);
}
