//! The same answers as the reference implementation: every recorded value within 1e-4 (relative
//! to the greatest), greedy continuations token for token. F32 weights, F32 cache.

#[path = "parity/audio.rs"]
mod audio;
#[path = "support/models.rs"]
mod models;
#[path = "support/npz.rs"]
mod npz;
#[path = "support/shared.rs"]
mod shared;
#[path = "parity/towers.rs"]
mod towers;
#[path = "parity/vision.rs"]
mod vision;

use std::path::Path;
use std::sync::Arc;

use gemma3n::checkpoint::Float;
use gemma3n::gguf::Gguf;
use gemma3n::model::text::{CacheType, Kernels, TextModel};
use gemma3n::verify::{self, Options, Reference, Report, Subject};

const KERNELS: [Kernels; 2] = [Kernels::Ggml, Kernels::Auto];

fn options(kernels: Kernels) -> Options {
    Options { cache: CacheType::F32, threads: 1, kernels, tolerance: None }
}

fn assert_parity(report: &Report, kernels: Kernels) {
    let name = format!("{} ({kernels:?})", report.case);
    assert!(!report.taps.is_empty(), "{name}: nothing was compared");
    assert_eq!(report.first_failure(), None, "{name}: greatest error {:?}", report.worst());
    assert_eq!(report.greedy.found, report.greedy.expected, "{name}: greedy continuation");
    if kernels == Kernels::Ggml {
        assert_eq!(report.unread, Vec::<String>::new(), "{name}: values that were not compared");
    }
}

/// Runs the oracle's cases on one of its checkpoints; returns how many values were compared.
fn oracle(checkpoint: &str, cases: &[&str]) -> usize {
    let Some(folder_of_oracle) = shared::shared() else { return 0 };
    let folder = tempfile::tempdir().unwrap();
    let gguf = models::converted(
        &folder_of_oracle.join("oracle").join(checkpoint),
        Float::F32,
        folder.path(),
    );
    let model = TextModel::open(&gguf).unwrap();
    let mut compared = 0;
    for case in cases {
        let file = folder_of_oracle.join(format!("oracle/ref/{case}.npz"));
        let references = npz::Npz::open(&file).unwrap().references(case).unwrap();
        assert!(!references.is_empty());
        for (reference, kernels) in references.iter().flat_map(|r| KERNELS.map(|k| (r, k))) {
            let report = compare(&model, reference, case, kernels);
            assert_parity(&report, kernels);
            compared += report.taps.len();
        }
    }
    compared
}

fn compare(model: &Arc<TextModel>, reference: &Reference, case: &str, kernels: Kernels) -> Report {
    verify::compare_model(model.clone(), reference, &verify::Rows::new(), case, options(kernels))
        .unwrap()
}

#[test]
fn oracle_short_prompt_at_every_tap() {
    let compared = oracle("text", &["text_short"]);
    assert!(shared::shared().is_none() || compared > 150, "only {compared} values");
}

#[test]
fn oracle_window_edge_and_beyond() {
    oracle("text", &["text_edge", "text_edge_plus", "text_long"]);
}

#[test]
fn oracle_chat_and_batches() {
    oracle("text", &["text_chat", "text_batch"]);
}

#[test]
fn oracle_text_of_the_multimodal_checkpoint() {
    oracle("full", &["full_text"]);
}

/// Our own fixtures, with other sizes than the oracle's.
#[test]
fn fixtures_at_every_tap() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for entry in std::fs::read_dir(models::fixtures()).unwrap() {
        let checkpoint = entry.unwrap().path();
        if !checkpoint.join("config.json").exists() {
            continue;
        }
        let gguf = models::converted(&checkpoint, Float::F32, folder.path());
        for file in reference_files(&checkpoint) {
            for kernels in KERNELS {
                let report = verify::run(
                    Subject { gguf: &gguf, slice: None, towers: None },
                    &file,
                    options(kernels),
                );
                assert_parity(&report.unwrap_or_else(|e| panic!("{e}")), kernels);
            }
            cases += 1;
        }
    }
    assert!(cases >= 6, "only {cases} files of reference values");
}

fn reference_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_string_lossy().ends_with(".reference.gguf")).collect();
    files.sort();
    files
}

/// The instrument itself: a wrong weight is seen, and named at the first tap it reaches.
#[test]
fn a_wrong_weight_is_found_at_its_tap() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = models::fixtures().join("tiny");
    let gguf = models::converted(&checkpoint, Float::F32, folder.path());
    let tensor = gguf.tensor("blk.0.attn_output.weight").unwrap();
    let at = tensor.offset() as usize;
    let path = gguf.path().to_owned();
    drop(gguf);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at..at + 4].copy_from_slice(&3.0f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let gguf = Arc::new(Gguf::open(&path).unwrap());
    let file = checkpoint.join("short.reference.gguf");
    let mut reference = Reference::open(&file).unwrap();
    reference.model_fingerprint.clear();
    let model = TextModel::open(&gguf).unwrap();
    let report = compare(&model, &reference, "broken", Kernels::Ggml);
    let first = report.first_failure().expect("the error is seen");
    assert_eq!(first.name, "layer00.attn_out");
    assert!(!report.passes());
}
