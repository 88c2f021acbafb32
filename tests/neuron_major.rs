//! Files whose sparse layers hold `ffn_down` neuron-major (`gemma3n.cli.layout` = 1): the same
//! answers as the usual layout gives with the same values, and refused where key and tensors do not
//! fit together.

#[path = "support/models.rs"]
mod models;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gemma3n::checkpoint::Float;
use gemma3n::ggml::{self, Type};
use gemma3n::gguf::{Gguf, Layout, TensorType, Writer};
use gemma3n::model::config::TextConfig;
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, Logits, TextModel};
use gemma3n::tokenizer::TokenId;

const KEY: &str = "gemma3n.cli.layout";

/// A file in memory, to be changed and written.
struct File {
    layout: Layout,
    data: Vec<Vec<u8>>,
}

impl File {
    fn read(gguf: &Gguf) -> Self {
        let mut layout = Layout::new();
        layout.copy_metadata(gguf.metadata());
        let mut data = Vec::new();
        for tensor in gguf.tensors() {
            layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
            data.push(gguf.data(tensor).to_vec());
        }
        Self { layout, data }
    }

    fn index(&self, name: &str) -> usize {
        self.layout.tensors.iter().position(|tensor| tensor.name == name).expect("a tensor")
    }

    /// Turns F32 `ffn_down` of a layer around and packs it; the usual form of `twin` gets the values
    /// that were packed, so that both files stand for the same model.
    fn turn(&mut self, twin: &mut Self, layer: usize, ty: TensorType) {
        let i = self.index(&format!("blk.{layer}.ffn_down.weight"));
        let plan = &mut self.layout.tensors[i];
        let (f, e) = (plan.ne[0] as usize, plan.ne[1] as usize);
        let mut values = vec![0.0; f * e];
        Type::F32.to_f32(&self.data[i], &mut values);
        let packed_type = Type::weight_from_id(ty.id()).unwrap();
        let packed = ggml::quantize(packed_type, &transposed(&values, f), e).unwrap();
        let mut read = vec![0.0; f * e];
        packed_type.to_f32(&packed, &mut read);
        *plan = gemma3n::gguf::TensorPlan {
            name: format!("blk.{layer}.ffn_down_t.weight"),
            ne: [e as u64, f as u64, 1, 1],
            n_dims: 2,
            ty,
        };
        self.data[i] = packed;
        twin.data[i] = transposed(&read, e).iter().flat_map(|x| x.to_le_bytes()).collect();
    }

    fn write(&self, path: &Path) -> Arc<Gguf> {
        let mut writer = Writer::create(path, &self.layout, true).unwrap();
        for (tensor, bytes) in self.layout.tensors.iter().zip(&self.data) {
            writer.append(&tensor.name, bytes).unwrap();
        }
        writer.finish().unwrap();
        Arc::new(Gguf::open(path).unwrap())
    }
}

/// Rows of `width` values as columns.
fn transposed(values: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|i| values.iter().skip(i).step_by(width).copied()).collect()
}

/// A fixture in F32, and which of its layers are sparse.
fn fixture(name: &str, folder: &Path) -> (Arc<Gguf>, Vec<usize>) {
    let gguf = models::converted(&models::fixtures().join(name), Float::F32, folder);
    let sparsity = TextConfig::read(&gguf).unwrap().sparsity;
    let sparse = (0..sparsity.len()).filter(|&il| sparsity[il].is_some()).collect();
    (gguf, sparse)
}

/// The neuron-major file, and the usual one with the same values.
fn pair(gguf: &Gguf, sparse: &[usize], ty: TensorType) -> (File, File) {
    let (mut turned, mut usual) = (File::read(gguf), File::read(gguf));
    turned.layout.set(KEY, 1u32);
    for &layer in sparse {
        turned.turn(&mut usual, layer, ty);
    }
    (turned, usual)
}

/// Logits after a prompt in batches, and after one more token.
fn answers(model: &Arc<TextModel>, batch: usize, threads: usize, kernels: Kernels) -> Vec<f32> {
    let options = DecoderOptions { context: 64, batch, cache: CacheType::F32, threads, kernels };
    let mut decoder = Decoder::new(model.clone(), options).unwrap();
    let vocabulary = model.config().vocabulary as u32;
    let ids: Vec<TokenId> = (0..45).map(|i| TokenId((i * 37 + 11) % vocabulary)).collect();
    let mut logits = decoder.prefill_logits(&ids[..44]).unwrap();
    logits.extend(decoder.run(&ids[44..], Logits::Last).unwrap());
    logits
}

/// `max|a − b| / max|b|`.
fn error(a: &[f32], b: &[f32]) -> f32 {
    let difference = a.iter().zip(b).fold(0f32, |d, (a, b)| d.max((a - b).abs()));
    difference / b.iter().fold(0f32, |m, b| m.max(b.abs()))
}

fn assert_same(turned: &Arc<TextModel>, usual: &Arc<TextModel>, what: &str) {
    for kernels in [Kernels::Auto, Kernels::Ggml] {
        let want = answers(usual, 44, 1, kernels);
        for (batch, threads) in [(1, 1), (7, 1), (44, 1), (44, 2)] {
            let error = error(&answers(turned, batch, threads, kernels), &want);
            let how = format!("{what}, {batch} a batch, {threads} threads, {kernels:?}");
            assert!(error <= 1e-5, "{how}: {error:.2e}");
        }
    }
}

#[test]
fn the_layout_gives_the_logits_of_the_usual_one() {
    let cases = [
        ("tiny", TensorType::F32),
        ("active1", TensorType::F32),
        ("tiny", TensorType::Q8_0),
        ("wide", TensorType::Q4_0),
        ("wide", TensorType::Q4_K),
        ("wide", TensorType::BF16),
        // Without a kernel: the plain twin either way.
        ("wide", TensorType::IQ3_S),
    ];
    for (name, ty) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (gguf, sparse) = fixture(name, folder.path());
        assert!(!sparse.is_empty(), "{name} has no sparse layer");
        let (turned, usual) = pair(&gguf, &sparse, ty);
        let open = |file: &File, name| TextModel::open(&file.write(&folder.path().join(name)));
        let turned = open(&turned, "turned.gguf").unwrap();
        let usual = open(&usual, "usual.gguf").unwrap();
        assert!(turned.bytes_per_token() < usual.bytes_per_token());
        assert_same(&turned, &usual, &format!("{name} in {}", ty.name()));
    }
}

/// The plain twin reads every type that a weight may have.
#[test]
fn every_type_is_turned_by_the_plain_twin() {
    let folder = tempfile::tempdir().unwrap();
    let (gguf, sparse) = fixture("wide", folder.path());
    let mut tried = 0;
    for ty in TensorType::ALL {
        let Some(weight) = Type::weight_from_id(ty.id()) else { continue };
        if ggml::quantize(weight, &[0.5; 256], 256).is_err() {
            continue;
        }
        let (turned, usual) = pair(&gguf, &sparse, *ty);
        let run = |file: &File, kernels| {
            let gguf = file.write(&folder.path().join("one.gguf"));
            answers(&TextModel::open(&gguf).unwrap(), 44, 1, kernels)
        };
        let want = run(&usual, Kernels::Ggml);
        for kernels in [Kernels::Auto, Kernels::Ggml] {
            let error = error(&run(&turned, kernels), &want);
            assert!(error <= 2e-5, "{ty}, {kernels:?}: {error:.2e}");
        }
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} types");
}

/// What `chat` says of a file that it cannot open.
fn refusal(file: &File, folder: &Path) -> String {
    let path = folder.join("changed.gguf");
    file.write(&path);
    let output = Command::new(env!("CARGO_BIN_EXE_gemma3n"))
        .args(["chat", "-n", "1", "-t", "1", "-m"])
        .arg(&path)
        .arg("hello")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().find(|line| line.starts_with("error: ")).expect("an error line");
    assert!(line.contains("changed.gguf: "), "{line}");
    line.split_once("changed.gguf: ").unwrap().1.to_owned()
}

#[test]
fn key_and_tensors_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (gguf, sparse) = fixture("tiny", folder.path());
    let dense = (0..).find(|il| !sparse.contains(il)).unwrap();
    let (first, last) = (sparse[0], *sparse.last().unwrap());
    let changed = |change: &dyn Fn(&mut File)| {
        let mut file = pair(&gguf, &sparse, TensorType::F32).0;
        change(&mut file);
        refusal(&file, folder.path())
    };

    let unknown = changed(&|file| file.layout.set(KEY, 2u32));
    assert_eq!(unknown, format!("metadata key {KEY}: layout 2 is not known here, only 1"));
    let text = changed(&|file| file.layout.set(KEY, "neurons"));
    assert!(text.contains(KEY) && text.contains("neurons"), "{text}");

    let silent = changed(&|file| file.layout.metadata.retain(|(key, _)| key != KEY));
    let name = format!("tensor blk.{first}.ffn_down_t.weight");
    assert_eq!(silent, format!("{name}: neuron-major, but {KEY} does not say so"));

    let mut usual = File::read(&gguf);
    usual.layout.set(KEY, 1u32);
    let missing = format!("{name} is missing, which {KEY} = 1 (neuron-major) calls for");
    assert_eq!(refusal(&usual, folder.path()), missing);
    let one_missing = changed(&|file| {
        let i = file.index(&format!("blk.{last}.ffn_down_t.weight"));
        file.layout.tensors.remove(i);
        file.data.remove(i);
    });
    let name = format!("tensor blk.{last}.ffn_down_t.weight");
    assert_eq!(one_missing, format!("{name} is missing, which {KEY} = 1 (neuron-major) calls for"));

    let c = TextConfig::read(&gguf).unwrap();
    let oblong = *sparse.iter().find(|&&il| c.ffn[il] != c.embedding).unwrap();
    let misshapen = changed(&|file| {
        let i = file.index(&format!("blk.{oblong}.ffn_down_t.weight"));
        file.layout.tensors[i].ne.swap(0, 1);
    });
    let (e, f) = (c.embedding, c.ffn[oblong]);
    let name = format!("tensor blk.{oblong}.ffn_down_t.weight");
    assert_eq!(misshapen, format!("{name}: expected {e} x {f}, found {f} x {e}"));

    let turned_dense = changed(&|file| {
        let mut twin = File::read(&gguf);
        file.turn(&mut twin, dense, TensorType::F32);
    });
    let name = format!("tensor blk.{dense}.ffn_down_t.weight");
    assert_eq!(turned_dense, format!("{name}: neuron-major, but the layer is not sparse"));

    let mut none = File::read(&gguf);
    none.layout.set(KEY, 1u32);
    let scales = vec![f32::NEG_INFINITY; c.layers];
    none.layout.set("gemma3n.activation_sparsity_scale", scales);
    assert!(refusal(&none, folder.path()).ends_with("but no layer is sparse"));
}
