//! Broken model files: every truncation and thousands of seeded mutations of a model, through
//! to one decoded token, end in a result or an error; and each usual damage says what it is.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gemma3n::gguf::{Gguf, Layout, OwnedValue, TensorType, Writer};
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, TextModel};
use gemma3n::session;
use gemma3n::tokenizer::{TokenId, Tokenizer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/tiny-f16.gguf")
}

/// Opens a model and decodes one token, as far as the file allows; the first error's text.
fn decode_one(path: &Path) -> Result<(), String> {
    let gguf = Arc::new(Gguf::open(path).map_err(|e| e.to_string())?);
    let vocabulary = session::vocabulary(&gguf).map_err(|e| e.to_string())?;
    let tokenizer = Tokenizer::new(vocabulary).map_err(|e| e.to_string())?;
    let model = TextModel::open(&gguf).map_err(|e| e.to_string())?;
    let options = DecoderOptions {
        context: 8,
        batch: 8,
        cache: CacheType::F16,
        threads: 1,
        kernels: Kernels::Auto,
    };
    let mut decoder = Decoder::new(model, options).map_err(|e| e.to_string())?;
    let prompt = [tokenizer.bos(), TokenId(5), TokenId(9)];
    decoder.prefill_logits(&prompt).map_err(|e| e.to_string())?;
    Ok(())
}

#[test]
fn a_sound_model_decodes() {
    assert_eq!(decode_one(&model()), Ok(()));
}

/// Every truncation: all of the header's bytes, then steps through the data.
#[test]
fn every_truncation_is_an_error() {
    let bytes = fs::read(model()).unwrap();
    let gguf = Gguf::open(&model()).unwrap();
    let data = gguf.tensors().iter().map(|t| t.offset()).min().unwrap() as usize;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    fs::write(&path, &bytes).unwrap();
    let last = gguf.tensors().iter().map(|t| t.offset() + t.nbytes).max().unwrap() as usize;
    let header = (0..data).rev().step_by(7);
    let ends: Vec<usize> = (data..last).rev().step_by(1 + (last - data) / 500).collect();
    // from the longest to the shortest, so that one file can be cut again and again
    for len in ends.into_iter().chain(header) {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
        let error = decode_one(&path).expect_err("a part of a model is no model");
        assert!(error.contains("cut.gguf"), "{error}");
    }
}

/// 10 000 mutations of a byte or a few, most of them in the header, where they bite.
#[test]
fn ten_thousand_mutations_end_in_a_result_or_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(0x6765_6d6d_6133_6e00);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutated.gguf");
    fs::copy(model(), &path).unwrap();
    let bytes = fs::read(model()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let data = gguf.tensors().iter().map(|t| t.offset()).min().unwrap() as usize;
    drop(gguf);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let (mut sound, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let end = if rng.random_bool(0.8) { data } else { bytes.len() };
        let at = rng.random_range(0..end);
        let len = rng.random_range(1..=8usize).min(bytes.len() - at);
        let patch: Vec<u8> = match rng.random_range(0..4) {
            0 => vec![0; len],
            1 => vec![0xff; len],
            2 => bytes[at..at + len].iter().map(|b| b ^ (1 << rng.random_range(0..8))).collect(),
            _ => (0..len).map(|_| rng.random()).collect(),
        };
        file.write_all_at(&patch, at as u64).unwrap();
        match decode_one(&path) {
            Ok(()) => sound += 1,
            Err(error) => {
                assert!(
                    error.contains("mutated.gguf") || error.contains("not finite"),
                    "{error:?}"
                );
                refused += 1;
            }
        }
        file.write_all_at(&bytes[at..at + len], at as u64).unwrap();
    }
    // both happen, or the mutations test nothing
    assert!(sound > 500 && refused > 500, "{sound} sound, {refused} refused");
}

/// A copy of the model with its header changed.
fn rewritten(
    folder: &TempDir,
    change: impl Fn(&mut Layout, &mut Vec<(String, Vec<u8>)>),
) -> PathBuf {
    let gguf = Gguf::open(&model()).unwrap();
    let mut layout = Layout::new();
    layout.copy_metadata(gguf.metadata());
    let mut data = Vec::new();
    for tensor in gguf.tensors() {
        layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
        data.push((tensor.name.clone(), gguf.data(tensor).to_vec()));
    }
    change(&mut layout, &mut data);
    let path = folder.path().join("changed.gguf");
    let mut writer = Writer::create(&path, &layout, true).unwrap();
    for (name, bytes) in data {
        writer.append(&name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Runs `chat` on a model as a user would: the error line, after checking that it exits with 1.
fn chat(path: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gemma3n"))
        .args(["chat", "-m"])
        .arg(path)
        .args(["-n", "1", "-t", "1", "hello"])
        .env_remove("GEMMA3N_MODEL")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().find(|line| line.starts_with("error: ")).expect("an error line");
    assert!(!text.contains("panicked"), "{text}");
    line.to_owned()
}

#[track_caller]
fn assert_error(path: &Path, says: &str) {
    let error = chat(path);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&name), "names the file: {error}");
    assert!(error.contains(says), "expected {says:?}: {error}");
}

#[test]
fn damaged_containers_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let bytes = fs::read(model()).unwrap();
    assert_error(&write("empty.gguf", b""), "empty file");
    assert_error(&write("text.gguf", b"Once upon a time\n"), "not a GGUF file");
    assert_error(&write("short.gguf", &bytes[..bytes.len() / 2]), "beyond the end of the file");
    let mut counted = bytes.clone();
    counted[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert_error(&write("counted.gguf", &counted), "1152921504606846976");
}

#[test]
fn models_that_lack_something_say_what() {
    let folder = tempfile::tempdir().unwrap();
    let other = rewritten(&folder, |layout, _| layout.set("general.architecture", "llama"));
    assert_error(&other, "general.architecture is llama");

    let missing = rewritten(&folder, |layout, data| {
        layout.tensors.retain(|tensor| tensor.name != "blk.1.ffn_up.weight");
        data.retain(|(name, _)| name != "blk.1.ffn_up.weight");
    });
    assert_error(&missing, "tensor blk.1.ffn_up.weight is missing");

    let misshapen = rewritten(&folder, |layout, data| {
        let tensor =
            layout.tensors.iter_mut().find(|t| t.name == "blk.0.attn_norm.weight").unwrap();
        tensor.ne[0] -= 1;
        let bytes = data.iter_mut().find(|(name, _)| name == "blk.0.attn_norm.weight").unwrap();
        bytes.1.truncate(bytes.1.len() - 4);
    });
    assert_error(&misshapen, "tensor blk.0.attn_norm.weight: expected ");

    let integers = rewritten(&folder, |layout, data| {
        let tensor = layout.tensors.iter_mut().find(|t| t.name == "output_norm.weight").unwrap();
        tensor.ty = TensorType::I32;
        assert!(data.iter().any(|(name, _)| name == "output_norm.weight"));
    });
    assert_error(&integers, "tensor output_norm.weight: type I32 cannot be used");

    let layers = rewritten(&folder, |layout, _| {
        layout.set("gemma3n.block_count", OwnedValue::U32(3));
    });
    assert_error(&layers, "expected 3 entries");

    let bos = rewritten(&folder, |layout, _| {
        layout.set("tokenizer.ggml.bos_token_id", OwnedValue::U32(1 << 20));
    });
    assert_error(&bos, "bos");
}

/// Weights that are not numbers give an error, never text.
#[test]
fn weights_that_are_not_finite_give_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = rewritten(&folder, |_, data| {
        let norm = data.iter_mut().find(|(name, _)| name == "output_norm.weight").unwrap();
        norm.1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_error(&path, "not finite");
}
