//! What must not change an answer: how a prompt is split, how many threads compute, whether
//! prefill stops early, which kernels run, whether a state was saved and loaded.

#[path = "support/models.rs"]
mod models;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gemma3n::checkpoint::Float;
use gemma3n::ggml::{self, Type};
use gemma3n::gguf::{Gguf, Layout, TensorType, Writer};
use gemma3n::model::StepError;
use gemma3n::model::text::{CacheType, Decoder, DecoderOptions, Kernels, Logits, TextModel};
use gemma3n::tokenizer::TokenId;
use tempfile::TempDir;

struct Fixture {
    model: Arc<TextModel>,
    gguf: Arc<Gguf>,
    folder: TempDir,
}

fn fixture(name: &str) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let gguf = models::converted(&models::fixtures().join(name), Float::F32, folder.path());
    Fixture { model: TextModel::open(&gguf).unwrap(), gguf, folder }
}

fn options() -> DecoderOptions {
    DecoderOptions {
        context: 96,
        batch: 96,
        cache: CacheType::F32,
        threads: 1,
        kernels: Kernels::Auto,
    }
}

fn decoder(model: &Arc<TextModel>, options: DecoderOptions) -> Decoder {
    Decoder::new(model.clone(), options).unwrap()
}

/// Ids that are beyond the window of every fixture.
fn prompt(model: &TextModel) -> Vec<TokenId> {
    let vocabulary = model.config().vocabulary as u32;
    (0..45u32).map(|i| TokenId((i * 37 + 11) % vocabulary)).collect()
}

/// `max|a − b| / max|b|`.
fn error(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = a.iter().zip(b).fold(0f32, |d, (a, b)| d.max((a - b).abs()));
    difference / b.iter().fold(0f32, |m, b| m.max(b.abs()))
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    let error = error(a, b);
    assert!(error <= tolerance, "{what}: {error:.2e}");
}

/// Rounding of sums in another order.
const ROUNDING: f32 = 2e-5;

#[test]
fn any_split_of_a_prompt_gives_its_logits() {
    for name in ["tiny", "wide"] {
        let Fixture { model, .. } = fixture(name);
        let ids = prompt(&model);
        let whole = decoder(&model, options()).prefill_logits(&ids).unwrap();
        for batch in [1, 2, 7, 16, 44] {
            for kernels in [Kernels::Auto, Kernels::Ggml] {
                let mut split = decoder(&model, DecoderOptions { batch, kernels, ..options() });
                let logits = split.prefill_logits(&ids).unwrap();
                assert_close(&logits, &whole, ROUNDING, &format!("{name}, {batch}, {kernels:?}"));
                assert_eq!(split.len(), ids.len());
            }
        }
    }
}

#[test]
fn prefill_that_stops_early_leaves_the_same_logits() {
    // `wide` shares no K/V: there the last owner is the last layer
    let names = [("tiny", Kernels::Auto), ("tiny", Kernels::Ggml), ("active1", Kernels::Auto)];
    for (name, kernels) in names.into_iter().chain([("wide", Kernels::Auto)]) {
        let Fixture { model, .. } = fixture(name);
        assert_eq!(model.config().shared == 0, name == "wide");
        let ids = prompt(&model);
        let vocabulary = model.config().vocabulary;
        let options = DecoderOptions { kernels, ..options() };
        let all = decoder(&model, options.clone()).run(&ids, Logits::All).unwrap();
        let mut early = decoder(&model, options.clone());
        let last = early.prefill_logits(&ids).unwrap();
        assert_close(&last, &all[all.len() - vocabulary..], ROUNDING, name);
        // what the stopped positions left in the cache serves the next ones
        let mut rest = decoder(&model, options);
        rest.prefill(&ids[..30]).unwrap();
        let tail = rest.run(&ids[30..], Logits::All).unwrap();
        assert_close(&tail, &all[30 * vocabulary..], ROUNDING, name);
    }
}

#[test]
fn threads_change_nothing_but_rounding() {
    let Fixture { model, .. } = fixture("wide");
    let ids = prompt(&model);
    let one = decoder(&model, options()).prefill_logits(&ids).unwrap();
    for threads in [2, 3] {
        let many = decoder(&model, DecoderOptions { threads, ..options() });
        let many = { many }.prefill_logits(&ids).unwrap();
        assert_close(&many, &one, ROUNDING, &format!("{threads} threads"));
    }
}

#[test]
fn a_loaded_state_goes_on_as_if_never_stopped() {
    let Fixture { model, .. } = fixture("tiny");
    let ids = prompt(&model);
    for cache in [CacheType::F32, CacheType::F16] {
        let mut first = decoder(&model, DecoderOptions { cache, batch: 7, ..options() });
        first.prefill(&ids[..40]).unwrap();
        let mut state = Vec::new();
        first.save_state(&mut state).unwrap();
        // another context and batch: another ring
        let other = DecoderOptions { cache, batch: 3, context: 64, ..options() };
        let mut second = decoder(&model, other);
        second.load_state(&mut state.as_slice()).unwrap();
        assert_eq!(second.len(), 40);
        for id in &ids[40..] {
            let a = first.run(&[*id], Logits::Last).unwrap();
            let b = second.run(&[*id], Logits::Last).unwrap();
            assert_close(&b, &a, ROUNDING, &format!("{cache:?}"));
        }
    }
}

#[test]
fn rolling_back_and_again_gives_the_same() {
    let Fixture { model, .. } = fixture("tiny");
    let ids = prompt(&model);
    let mut d = decoder(&model, DecoderOptions { batch: 5, ..options() });
    d.prefill(&ids[..20]).unwrap();
    d.snapshot();
    let first = d.prefill_logits(&ids[20..]).unwrap();
    let reached = d.truncate(22);
    assert_eq!(reached, 20, "the window of 22 is gone, the snapshot is not");
    let again = d.prefill_logits(&ids[reached..]).unwrap();
    assert_close(&again, &first, ROUNDING, "after a roll-back");
}

#[test]
fn an_interrupted_step_can_be_repeated() {
    let Fixture { model, .. } = fixture("tiny");
    let ids = prompt(&model);
    let mut d = decoder(&model, options());
    d.prefill(&ids[..20]).unwrap();
    let flag = Arc::new(AtomicBool::new(true));
    d.set_interrupt(flag.clone());
    assert!(matches!(d.prefill(&ids[20..]), Err(StepError::Interrupted)));
    assert_eq!(d.len(), 20);
    flag.store(false, Ordering::Relaxed);
    let logits = d.prefill_logits(&ids[20..]).unwrap();
    let whole = decoder(&model, options()).prefill_logits(&ids).unwrap();
    assert_close(&logits, &whole, ROUNDING, "after an interruption");
}

#[test]
fn smaller_caches_state_their_error() {
    let Fixture { model, .. } = fixture("wide");
    let ids = prompt(&model);
    let exact = decoder(&model, options()).prefill_logits(&ids).unwrap();
    for (cache, tolerance) in [(CacheType::F16, 2e-3), (CacheType::Q8_0, 3e-2)] {
        for kernels in [Kernels::Auto, Kernels::Ggml] {
            let mut small = decoder(&model, DecoderOptions { cache, kernels, ..options() });
            let logits = small.prefill_logits(&ids).unwrap();
            assert_close(&logits, &exact, tolerance, &format!("{cache:?}, {kernels:?}"));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let Fixture { model, .. } = fixture("tiny");
    let vocabulary = model.config().vocabulary as u32;
    let mut d = decoder(&model, DecoderOptions { context: 8, batch: 4, ..options() });
    let nine = vec![TokenId(5); 9];
    let full = d.prefill(&nine);
    assert!(matches!(full, Err(StepError::ContextFull { needed: 9, capacity: 8 })), "{full:?}");
    assert!(matches!(d.prefill(&[TokenId(vocabulary)]), Err(StepError::Token { .. })));
    assert_eq!(d.len(), 0);
    let none = DecoderOptions { context: 0, ..options() };
    assert!(Decoder::new(model, none).is_err());
}

/// Every type that weights may have: the packed model against the same values widened to F32.
/// Activations are rounded too, hence the tolerance; logits pass 7 layers.
#[test]
fn every_weight_type_is_read_and_multiplied() {
    let fixture = fixture("wide");
    let ids = prompt(&fixture.model);
    let mut tried = 0;
    for ty in TensorType::ALL {
        let Some(weight) = Type::weight_from_id(ty.id()) else { continue };
        let Some((packed, widened)) = requantized(&fixture, *ty, weight) else { continue };
        let exact = decoder(&widened, options()).prefill_logits(&ids[..24]).unwrap();
        let exact_squares = squares(&mut decoder(&widened, options()), &ids);
        for kernels in [Kernels::Auto, Kernels::Ggml] {
            let mut d = decoder(&packed, DecoderOptions { kernels, ..options() });
            let logits = d.prefill_logits(&ids[..24]).unwrap();
            assert_close(&logits, &exact, 6e-2, &format!("{ty:?}, {kernels:?}"));
            let what = format!("{ty:?}, {kernels:?}, squares of");
            let found =
                squares(&mut decoder(&packed, DecoderOptions { kernels, ..options() }), &ids);
            assert_eq!(found.len(), exact_squares.len());
            for ((name, found), (exact_name, exact)) in found.iter().zip(&exact_squares) {
                assert_eq!(name, exact_name);
                assert_close(found, exact, 0.1, &format!("{what} {name}"));
            }
            let step = d.run(&ids[24..25], Logits::Last).unwrap();
            assert!(step.iter().all(|x| x.is_finite()));
        }
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} types");
}

/// What importance matrices are made of, in the order of the products' names.
fn squares(decoder: &mut Decoder, ids: &[TokenId]) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    decoder
        .observe(&ids[..24], &mut |name, sums, rows| {
            assert_eq!(rows, 24);
            all.push((name.to_owned(), sums.to_vec()));
        })
        .unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The fixture with its matrices in `ty`, and a twin with the same values in F32. `None` for types
/// whose quantizer needs an importance matrix.
fn requantized(
    fixture: &Fixture,
    ty: TensorType,
    weight: Type,
) -> Option<(Arc<TextModel>, Arc<TextModel>)> {
    let mut layouts = [Layout::default(), Layout::default()];
    for layout in &mut layouts {
        layout.copy_metadata(fixture.gguf.metadata());
    }
    let mut data: [Vec<(String, Vec<u8>)>; 2] = Default::default();
    for tensor in fixture.gguf.tensors() {
        let bytes = fixture.gguf.data(tensor);
        let packs = tensor.n_dims >= 2
            && !tensor.name.contains("coef")
            && tensor.ne[0].is_multiple_of(ty.block_len());
        if !packs {
            for (layout, data) in layouts.iter_mut().zip(&mut data) {
                layout.add_tensor(&tensor.name, tensor.ne, tensor.n_dims, tensor.ty);
                data.push((tensor.name.clone(), bytes.to_vec()));
            }
            continue;
        }
        let mut values = vec![0.0; bytes.len() / 4];
        Type::F32.to_f32(bytes, &mut values);
        let packed = ggml::quantize(weight, &values, tensor.ne[0] as usize).ok()?;
        weight.to_f32(&packed, &mut values);
        let widened = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        layouts[0].add_tensor(&tensor.name, tensor.ne, tensor.n_dims, ty);
        layouts[1].add_tensor(&tensor.name, tensor.ne, tensor.n_dims, TensorType::F32);
        data[0].push((tensor.name.clone(), packed));
        data[1].push((tensor.name.clone(), widened));
    }
    let open = |i: usize| {
        let path = fixture.folder.path().join(format!("{}-{i}.gguf", ty.name()));
        let mut writer = Writer::create(&path, &layouts[i], true).unwrap();
        for (name, bytes) in &data[i] {
            writer.append(name, bytes).unwrap();
        }
        writer.finish().unwrap();
        TextModel::open(&Arc::new(Gguf::open(&path).unwrap())).unwrap()
    };
    Some((open(0), open(1)))
}
