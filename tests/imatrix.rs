//! Importance matrices: the reference's own activations, squared and summed; llama.cpp's files;
//! what a user sees of the command.

#[path = "support/models.rs"]
mod models;
#[path = "support/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gemma3n::checkpoint::Float;
use gemma3n::files::ImportanceMatrix;
use gemma3n::files::imatrix::collect::{Text, collect};
use gemma3n::files::imatrix::{Entry, Error};
use gemma3n::ggml::Type;
use gemma3n::gguf::{Gguf, Layout, Writer};
use gemma3n::model::StepError;
use gemma3n::model::config::TextConfig;
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, TextModel};
use gemma3n::tokenizer::TokenId;
use gemma3n::verify::Reference;
use program::Home;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KERNELS: [Kernels; 2] = [Kernels::Ggml, Kernels::Auto];

fn decoder(model: &Arc<TextModel>, context: usize, batch: usize, kernels: Kernels) -> Decoder {
    let cache = CacheType::F32;
    let options = DecoderOptions { context, batch, cache, threads: 1, kernels };
    Decoder::new(model.clone(), options).unwrap()
}

fn ids(tokens: &[i32]) -> Vec<TokenId> {
    tokens.iter().map(|&id| TokenId(id as u32)).collect()
}

/// `max|a − b| / max|b|`.
fn error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference = a.iter().zip(b).fold(0f64, |d, (a, b)| d.max((a - b).abs()));
    difference / b.iter().fold(0f64, |m, b| m.max(b.abs()))
}

/// What the reference multiplied a layer's weights with, from its recorded values.
struct Recorded<'a> {
    reference: &'a Reference,
    gguf: &'a Gguf,
    config: &'a TextConfig,
}

impl Recorded<'_> {
    fn tap(&self, name: &str) -> Option<Vec<f64>> {
        let tap = self.reference.tap(name)?;
        assert_eq!(tap.rows, None, "{name}: all tokens are recorded");
        Some(tap.data.iter().copied().map(f64::from).collect())
    }

    fn weight(&self, name: &str) -> Vec<f64> {
        let bytes = self.gguf.data(self.gguf.tensor(name).unwrap());
        let mut values = vec![0.0; bytes.len() / 4];
        Type::F32.to_f32(bytes, &mut values);
        values.into_iter().map(f64::from).collect()
    }

    /// The active stream of streams `[E, T, A]`.
    fn active(&self, name: &str) -> Option<Vec<f64>> {
        let streams = self.tap(name)?;
        let len = self.config.embedding * self.reference.tokens.len();
        Some(streams[self.config.active * len..][..len].to_vec())
    }

    /// `RMS(x; w)/E` of each row: what the router multiplies with.
    fn router_input(&self, il: usize, x: &[f64]) -> Vec<f64> {
        let e = self.config.embedding;
        let norm = self.weight(&format!("blk.{il}.altup_router_norm.weight"));
        let mut out = Vec::new();
        for row in x.chunks_exact(e) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / e as f64;
            let scale = (mean + f64::from(self.config.eps)).sqrt().recip() / e as f64;
            out.extend(row.iter().zip(&norm).map(|(x, w)| x * w * scale));
        }
        out
    }

    /// `W_l·h` of each row.
    fn laurel_low(&self, il: usize, h: &[f64]) -> Vec<f64> {
        let e = self.config.embedding;
        let weight = self.weight(&format!("blk.{il}.laurel_l.weight"));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        h.chunks_exact(e).flat_map(|row| weight.chunks_exact(e).map(move |w| dot(w, row))).collect()
    }

    /// Weight → rows it was multiplied with, for a layer whose values are recorded.
    fn inputs(&self, il: usize) -> Option<BTreeMap<&'static str, Vec<f64>>> {
        let tap = |name: &str| self.tap(&format!("layer{il:02}.{name}"));
        let h = tap("attn_in")?;
        let before = match il {
            0 => self.active("altup_init")?,
            _ => self.active(&format!("layer{:02}.out", il - 1))?,
        };
        let mut router = self.router_input(il, &before);
        router.extend(self.router_input(il, &tap("activated")?));
        let n = tap("ffn_in")?;
        let mut inputs = BTreeMap::from([
            ("altup_router", router),
            ("altup_predict_coef", tap("modalities_predict")?),
            ("altup_correct_coef", tap("modalities_correct")?),
            ("laurel_l", h.clone()),
            ("laurel_r", self.laurel_low(il, &h)),
            ("attn_q", h.clone()),
            ("attn_output", tap("attn_context")?),
            ("ffn_gate", n.clone()),
            ("ffn_up", n),
            ("ffn_down", tap("gated_up")?),
            ("inp_gate", tap("corrected_scaled")?),
            ("proj", tap("ple_gated")?),
        ]);
        if il < self.config.owners() {
            inputs.insert("attn_k", h.clone());
            inputs.insert("attn_v", h);
        }
        Some(inputs)
    }
}

/// Two chunks of the recorded prompt; in the second its first token is replaced by another, which
/// bos replaces in turn. A third is begun and not read.
fn twice(reference: &Reference) -> Text {
    let prompt = ids(&reference.tokens);
    let mut all = prompt[1..].to_vec();
    all.push(TokenId(7));
    all.extend(&prompt[1..]);
    all.push(TokenId(7));
    Text::new("twice".into(), all, Some(prompt[0]), prompt.len(), None).unwrap()
}

fn check(folder: &Path, name: &str, kernels: Kernels) -> usize {
    let checkpoint = models::fixtures().join(name);
    let gguf = models::converted(&checkpoint, Float::F32, folder);
    let model = TextModel::open(&gguf).unwrap();
    let reference = Reference::open(&checkpoint.join("short.reference.gguf")).unwrap();
    let tokens = reference.tokens.len();
    let text = twice(&reference);
    assert_eq!((text.chunks(), text.tokens()), (2, 2 * tokens));
    let mut heard = Vec::new();
    let mut decoder = decoder(&model, tokens, tokens, kernels);
    let matrix = collect(&mut decoder, &text, &mut |tokens| heard.push(tokens)).unwrap();
    assert_eq!(heard, [tokens, 2 * tokens]);
    assert_eq!((matrix.chunk_count, matrix.chunk_size), (2, tokens as u32));
    assert_eq!(matrix.datasets, ["twice"]);

    let config = model.config();
    let recorded = Recorded { reference: &reference, gguf: &gguf, config };
    let mut compared = 0;
    for (il, inputs) in (0..config.layers).filter_map(|il| Some((il, recorded.inputs(il)?))) {
        let layer = format!("blk.{il}.");
        let found = matrix.entries.keys().filter(|name| name.starts_with(&layer)).count();
        assert_eq!(found, inputs.len(), "{name}, layer {il}");
        for (weight, rows) in inputs {
            let name = format!("{layer}{weight}.weight");
            let entry = matrix.entries.get(&name).unwrap_or_else(|| panic!("{name} is missing"));
            let columns = gguf.tensor(&name).unwrap().ne[0] as usize;
            let count = rows.len() / columns;
            assert_eq!(entry.counts, [2 * count as u64], "{name}");
            let mut sums = vec![0.0; columns];
            for row in rows.chunks_exact(columns) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += 2.0 * x * x);
            }
            let error = error(&entry.in_sum2, &sums);
            assert!(error < 1e-5, "{name} ({kernels:?}): {error:.1e}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn sums_are_those_of_the_reference_s_activations() {
    let folder = tempfile::tempdir().unwrap();
    for kernels in KERNELS {
        for (name, at_least) in [("tiny", 3 * 12), ("active1", 2 * 12), ("wide", 14)] {
            let compared = check(folder.path(), name, kernels);
            assert!(compared >= at_least, "{name}: only {compared} weights");
        }
    }
}

/// llama-imatrix's list: every matrix of a layer that is multiplied with, K and V where the layer
/// owns them; nothing that stands outside of the layers.
#[test]
fn entries_are_those_of_llama_imatrix() {
    let model = TextModel::open(&Arc::new(Gguf::open(&program::model()).unwrap())).unwrap();
    let config = model.config();
    assert!(config.owners() < config.layers && config.sparsity.iter().any(Option::is_some));
    let every = [
        "altup_correct_coef",
        "altup_predict_coef",
        "altup_router",
        "attn_output",
        "attn_q",
        "ffn_down",
        "ffn_gate",
        "ffn_up",
        "inp_gate",
        "laurel_l",
        "laurel_r",
        "proj",
    ];
    let mut expected = Vec::new();
    for il in 0..config.layers {
        let own = if il < config.owners() { &["attn_k", "attn_v"][..] } else { &[] };
        expected.extend(every.iter().chain(own).map(|name| format!("blk.{il}.{name}.weight")));
    }
    expected.sort();
    for kernels in KERNELS {
        let matrix = read_by(&model, 8, kernels);
        assert_eq!(matrix.entries.into_keys().collect::<Vec<_>>(), expected, "{kernels:?}");
    }
}

/// Two chunks of 24 tokens, read in batches of so many.
fn read_by(model: &Arc<TextModel>, batch: usize, kernels: Kernels) -> ImportanceMatrix {
    let vocabulary = model.config().vocabulary as u32;
    let all = (0..50).map(|i| TokenId((i * 37 + 11) % vocabulary)).collect();
    let text = Text::new("text".into(), all, Some(TokenId(2)), 24, None).unwrap();
    collect(&mut decoder(model, 24, batch, kernels), &text, &mut |_| ()).unwrap()
}

#[test]
fn batches_and_kernels_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = models::converted(&models::fixtures().join("tiny"), Float::F32, folder.path());
    let model = TextModel::open(&gguf).unwrap();
    let whole = read_by(&model, 24, Kernels::Ggml);
    for (batch, kernels) in [(24, Kernels::Auto), (7, Kernels::Auto), (1, Kernels::Ggml)] {
        let matrix = read_by(&model, batch, kernels);
        assert_eq!(matrix.entries.len(), whole.entries.len());
        for (name, entry) in &matrix.entries {
            assert_eq!(entry.counts, whole.entries[name].counts, "{name}");
            let error = error(&entry.in_sum2, &whole.entries[name].in_sum2);
            assert!(error < 4e-5, "{name} ({batch}, {kernels:?}): {error:.1e}");
        }
    }
}

/// q, k and v as one matrix meet their input once.
#[test]
fn a_joined_matrix_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = models::converted(&models::fixtures().join("tiny"), Float::F32, folder.path());
    let mut layout = Layout::default();
    layout.copy_metadata(gguf.metadata());
    let mut data = Vec::new();
    for tensor in gguf.tensors().iter().filter(|t| !t.name.ends_with("attn_k.weight")) {
        let Some(layer) = tensor.name.strip_suffix("attn_q.weight") else {
            if !tensor.name.ends_with("attn_v.weight") {
                layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
                data.push((tensor.name.clone(), gguf.data(tensor).to_vec()));
            }
            continue;
        };
        let parts = ["attn_q", "attn_k", "attn_v"];
        let parts = parts.map(|part| gguf.tensor(&format!("{layer}{part}.weight")).unwrap());
        let rows = parts.iter().map(|part| part.ne[1]).sum();
        let name = format!("{layer}attn_qkv.weight");
        layout.add_tensor(&name, [tensor.ne[0], rows, 1, 1], 2, tensor.ty);
        data.push((name, parts.map(|part| gguf.data(part)).concat()));
    }
    let path = folder.path().join("joined.gguf");
    let mut writer = Writer::create(&path, &layout, false).unwrap();
    for (name, bytes) in &data {
        writer.append(name, bytes).unwrap();
    }
    writer.finish().unwrap();
    let [apart, joined] = [gguf, Arc::new(Gguf::open(&path).unwrap())]
        .map(|gguf| read_by(&TextModel::open(&gguf).unwrap(), 24, Kernels::Auto));
    assert!(!joined.entries.contains_key("blk.0.attn_q.weight"));
    assert_eq!(joined.entries["blk.0.attn_qkv.weight"], apart.entries["blk.0.attn_q.weight"]);
}

/// `ffn_down` of sparse layers neuron-major: its input is the same, and so is its entry's name.
#[test]
fn a_neuron_major_file_gives_the_usual_entries() {
    let folder = tempfile::tempdir().unwrap();
    let usual = models::converted(&models::fixtures().join("tiny"), Float::F32, folder.path());
    let sparsity = TextConfig::read(&usual).unwrap().sparsity;
    let mut layout = Layout::default();
    layout.copy_metadata(usual.metadata());
    layout.set("gemma3n.cli.layout", 1u32);
    let mut data = Vec::new();
    for tensor in usual.tensors() {
        let mut bytes = usual.data(tensor).to_vec();
        let of_layer = |il: usize| tensor.name == format!("blk.{il}.ffn_down.weight");
        if (0..sparsity.len()).any(|il| sparsity[il].is_some() && of_layer(il)) {
            let [f, e, ..] = tensor.ne;
            let name = tensor.name.replace("ffn_down", "ffn_down_t");
            layout.add_tensor(&name, [e, f, 1, 1], 2, tensor.ty);
            let at = |i: u64| 4 * ((i % e) * f + i / e) as usize;
            bytes = (0..e * f).flat_map(|i| bytes[at(i)..at(i) + 4].to_vec()).collect();
        } else {
            layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
        }
        data.push(bytes);
    }
    let path = folder.path().join("turned.gguf");
    let mut writer = Writer::create(&path, &layout, false).unwrap();
    for (tensor, bytes) in layout.tensors.iter().zip(&data) {
        writer.append(&tensor.name, bytes).unwrap();
    }
    writer.finish().unwrap();
    let turned = TextModel::open(&Arc::new(Gguf::open(&path).unwrap())).unwrap();
    assert!(turned.config().neuron_major);
    let usual = TextModel::open(&usual).unwrap();
    for kernels in KERNELS {
        let (found, expected) = (read_by(&turned, 7, kernels), read_by(&usual, 7, kernels));
        let names = |matrix: &ImportanceMatrix| matrix.entries.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{kernels:?}");
        for (name, entry) in &found.entries {
            assert_eq!(entry.counts, expected.entries[name].counts, "{name}");
            let error = error(&entry.in_sum2, &expected.entries[name].in_sum2);
            assert!(error < 4e-5, "{name} ({kernels:?}): {error:.1e}");
        }
    }
}

#[test]
fn an_interrupted_collection_is_an_error() {
    let model = TextModel::open(&Arc::new(Gguf::open(&program::model()).unwrap())).unwrap();
    let mut decoder = decoder(&model, 8, 8, Kernels::Auto);
    decoder.set_interrupt(Arc::new(AtomicBool::new(true)));
    let text = Text::new("text".into(), vec![TokenId(5); 16], None, 8, Some(1)).unwrap();
    assert_eq!(text.chunks(), 1);
    let outcome = collect(&mut decoder, &text, &mut |_| panic!("no chunk is done"));
    assert!(matches!(outcome, Err(Error::Step(StepError::Interrupted))), "{outcome:?}");
}

fn file(name: &str) -> PathBuf {
    models::fixtures().join("imatrix").join(name)
}

/// Weights and numbers as scripts/fixtures_imatrix.py states them: sums / counts.
#[test]
fn both_forms_give_the_same_weights() {
    let gguf = ImportanceMatrix::open(&file("small.imatrix.gguf")).unwrap();
    let dat = ImportanceMatrix::open(&file("small.imatrix.dat")).unwrap();
    assert_eq!(gguf.datasets, ["first.txt", "second.txt"]);
    assert_eq!((gguf.chunk_count, gguf.chunk_size), (3, 16));
    assert_eq!(dat.datasets, ["second.txt"]);
    assert_eq!((dat.chunk_count, dat.chunk_size), (6, 0));
    for matrix in [&gguf, &dat] {
        assert_eq!(matrix.entries.len(), 3);
        let weights = |name: &str| matrix.weights(name);
        assert_eq!(weights("blk.0.attn_q.weight"), Some(vec![1.0, 0.25, 0.0, 0.0625]));
        assert_eq!(weights("blk.0.ffn_down.weight"), Some(vec![1.0, 0.0078125]));
        let stack = Some(vec![0.25, 0.5, 1.0, 1.0, 0.125, 0.25]);
        assert_eq!(weights("blk.1.ffn_down_exps.weight"), stack);
        assert_eq!(weights("blk.1.attn_q.weight"), None);
    }
    let stack = Entry { in_sum2: vec![8.0, 16.0, 0.0, 0.0, 5.0, 10.0], counts: vec![32, 0, 40] };
    assert_eq!(gguf.entries["blk.1.ffn_down_exps.weight"], stack);
}

/// What llama-imatrix wrote is written again byte for byte.
#[test]
fn files_are_laid_out_as_llama_imatrix_does() {
    let theirs = file("llama-imatrix.gguf");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.gguf");
    let matrix = ImportanceMatrix::open(&theirs).unwrap();
    matrix.write(&path, false).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&theirs).unwrap());
    let again = matrix.write(&path, false).expect_err("it exists");
    assert!(again.to_string().ends_with("ours.gguf: exists already"), "{again}");
    matrix.write(&path, true).unwrap();
}

/// The error of a file with these bytes, without its folder.
fn error_of(folder: &Path, bytes: &[u8]) -> Option<String> {
    let path = folder.join("f");
    // Away first: some file systems sync a file that is truncated and written anew.
    fs::remove_file(&path).ok();
    fs::write(&path, bytes).unwrap();
    let error = ImportanceMatrix::open(&path).err()?.to_string();
    Some(error.replace(&format!("{}/", folder.display()), ""))
}

#[test]
fn truncations_and_mutations_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for name in ["small.imatrix.gguf", "small.imatrix.dat"] {
        let whole = fs::read(file(name)).unwrap();
        for len in 0..whole.len() {
            let error = error_of(folder.path(), &whole[..len]);
            // Absent at the end may be: the last tensor's padding; the older form's chunks and text.
            let may_pass = match name {
                "small.imatrix.dat" => [whole.len() - 18, whole.len() - 14].contains(&len),
                _ => len >= whole.len() - 20,
            };
            assert!(error.is_some() || may_pass, "{name}: {len} bytes");
            assert!(error.is_none_or(|error| error.starts_with("f: ")));
        }
        let (mut sound, mut broken) = (0, 0);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..=3) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            match error_of(folder.path(), &bytes) {
                None => sound += 1,
                Some(error) => {
                    assert!(error.starts_with("f: "), "{error}");
                    broken += 1;
                }
            }
        }
        assert!(sound > 100 && broken > 100, "{name}: {sound} sound, {broken} broken");
    }
}

#[test]
fn a_bad_file_is_named_with_its_entry() {
    let folder = tempfile::tempdir().unwrap();
    let error = |bytes: &[u8]| error_of(folder.path(), bytes).expect("it should be refused");
    let replaced = |name: &str, from: &[u8], to: &[u8]| {
        let mut bytes = fs::read(file(name)).unwrap();
        let at = bytes.windows(from.len()).position(|found| found == from).expect("it is there");
        bytes[at..at + to.len()].copy_from_slice(to);
        error(&bytes)
    };
    let (gguf, dat) = ("small.imatrix.gguf", "small.imatrix.dat");
    let (twelve, nan) = (12f32.to_le_bytes(), f32::NAN.to_le_bytes());
    assert_eq!(replaced(gguf, &twelve, &nan), "f: entry blk.0.attn_q.weight: .in_sum2[1] is NaN");
    assert_eq!(
        replaced(gguf, &twelve, &(-1f32).to_le_bytes()),
        "f: entry blk.0.attn_q.weight: .in_sum2[1] is -1"
    );
    assert_eq!(
        replaced(gguf, b"blk.0.attn_q.weight.counts", b"blk.0.attn_q.weight.kounts"),
        "f: entry blk.0.attn_q.weight: has .in_sum2, but no .counts"
    );
    assert_eq!(
        replaced(gguf, b"blk.0.attn_q.weight.in_sum2", b"blk.0.attn_q.weight.in_sum3"),
        "f: entry blk.0.attn_q.weight: has .counts, but no .in_sum2"
    );
    assert_eq!(
        replaced(gguf, b"imatrix\x10", b"modelxx"),
        "f: not an importance matrix: general.type is \"modelxx\""
    );
    assert_eq!(
        error(&fs::read(program::model()).unwrap()),
        "f: not an importance matrix: general.type is \"model\""
    );
    assert_eq!(
        replaced(dat, &0.75f32.to_le_bytes(), &nan),
        "f: entry blk.0.attn_q.weight: value[1] is NaN"
    );
    assert_eq!(replaced(dat, b"blk.0.attn_q", b"\xff"), "f: entry 1: its name is not UTF-8");
    assert_eq!(
        error(b"Not a matrix at all"),
        "f: not an importance matrix: no GGUF file, and no room for 544501582 entries in 15 bytes"
    );
    let whole = fs::read(file(dat)).unwrap();
    assert_eq!(
        error(&[&whole[..], b"x"].concat()),
        "f: 1 bytes after the end of the importance matrix"
    );
    assert_eq!(error(&whole[..60]), "f: file ends inside entry 2 (21 bytes needed, 5 left)");
    assert_eq!(error(b""), "f: empty file");
    let missing = ImportanceMatrix::open(&folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.ends_with("none: No such file or directory"), "{missing}");
}

fn run(home: &Home, arguments: &[&str]) -> Output {
    let mut program = home.program();
    program.args(["imatrix", "-m"]).arg(program::model()).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_text_becomes_a_file() {
    let home = Home::new();
    let text = "All work and no play makes Jack a dull boy.\n".repeat(20);
    fs::write(home.path().join("text.txt"), text).unwrap();
    let arguments = ["-f", "text.txt", "-o", "out.gguf", "--chunk-size", "32", "--chunks", "3"];
    let dry = run(&home, &[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(
        std::str::from_utf8(&dry.stdout).unwrap(),
        "out.gguf: 3 chunks of 32 tokens would be read from text.txt\n"
    );
    assert!(!home.path().join("out.gguf").exists());
    let output = run(&home, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    let matrix = ImportanceMatrix::open(&home.path().join("out.gguf")).unwrap();
    assert_eq!((matrix.chunk_count, matrix.chunk_size), (3, 32));
    assert_eq!(matrix.datasets, ["text.txt"]);
    assert_eq!(matrix.entries["blk.0.ffn_up.weight"].counts, [96]);
    let again = run(&home, &arguments);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(stderr(&again), "error: out.gguf: exists already\nhint: --force overwrites\n");
}

#[test]
fn what_cannot_be_done_is_said_before_the_work() {
    let home = Home::new();
    fs::write(home.path().join("text.txt"), "A few words.").unwrap();
    let said = |arguments: &[&str], code: i32| {
        let output = run(&home, arguments);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    let short = said(&["-f", "text.txt", "-o", "out.gguf"], 1);
    assert!(short.starts_with("error: text.txt: ") && short.contains("not even one chunk of 512"));
    assert!(short.contains("\nhint: "), "{short}");
    let small = ["--chunk-size", "16"];
    fs::write(home.path().join("text.txt"), "A few words. ".repeat(20)).unwrap();
    let over = said(&[&["-f", "text.txt", "-o", "text.txt", "--force"], &small[..]].concat(), 1);
    assert_eq!(over, "error: text.txt: is what is read (text.txt)\n");
    let nowhere = said(&[&["-f", "text.txt", "-o", "no/out.gguf"], &small[..]].concat(), 1);
    assert_eq!(nowhere, "error: no/out.gguf: cannot be written: the folder no is not there\n");
    let context = said(&["-f", "text.txt", "-o", "out.gguf", "-c", "64"], 2);
    assert!(context.contains("--chunk-size sets it"), "{context}");
    let tiny = said(&["-f", "text.txt", "-o", "out.gguf", "--chunk-size", "8"], 2);
    assert!(tiny.contains("must be 16 or more"), "{tiny}");
    assert!(!home.path().join("out.gguf").exists());
}
