//! Files of reference values: what is written from the oracle's arrays is what is read, and a
//! file that contradicts itself is refused by name.

#[path = "support/npz.rs"]
mod npz;
#[path = "support/reference_file.rs"]
mod reference_file;
#[path = "support/shared.rs"]
mod shared;

use std::path::PathBuf;

use gemma3n::verify::reference::{Reference, Tap};
use npz::Npz;

/// The oracle's arrays of a case; `None`, with a message, on a machine without the oracle.
fn oracle(case: &str) -> Option<Npz> {
    let path = shared::shared()?.join(format!("oracle/ref/{case}.npz"));
    Some(Npz::open(&path).unwrap())
}

/// Writes and reads again.
fn through_a_file(reference: &Reference) -> anyhow::Result<Reference> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("case.gguf");
    reference_file::write(reference, &path)?;
    Ok(Reference::open(&path)?)
}

/// The value at an index given in the reference's order, slowest dimension first.
fn at(tap: &Tap, index: &[usize]) -> f32 {
    assert_eq!(index.len(), tap.ne.len(), "{}", tap.name);
    let flat = index.iter().zip(tap.ne.iter().rev()).fold(0, |flat, (i, n)| flat * n + i);
    tap.data[flat]
}

/// Expected values are numpy's, of the same archive.
#[test]
fn arrays_keep_their_values_shapes_and_rows() {
    let Some(arrays) = oracle("text_long") else { return };
    let references = arrays.references("text_long").unwrap();
    assert_eq!(references.len(), 1);
    let reference = through_a_file(&references[0]).unwrap();
    assert_eq!(reference, references[0]);
    assert_eq!(reference.case, "text_long");
    assert_eq!(reference.tokens.len(), 56);
    assert_eq!(reference.tokens[..4], [2, 349, 420, 365]);
    assert_eq!(reference.greedy_ids[..3], [598, 505, 956]);
    assert_eq!(reference.greedy_steps, [0, 1, 12, 23]);
    let tap = |name: &str| reference.tap(name).unwrap();
    let rows = Some(vec![1, 16, 55]);
    let streams = tap("layer04.out");
    assert_eq!((&streams.ne[..], &streams.rows), (&[128, 3, 4][..], &rows));
    assert_eq!(at(streams, &[3, 2, 127]), 1.3892272);
    let probabilities = tap("layer04.attn_probs");
    assert_eq!((&probabilities.ne[..], &probabilities.rows), (&[56, 4, 3][..], &rows));
    assert_eq!(at(probabilities, &[1, 3, 16]), 0.09597653);
    assert_eq!(at(tap("per_layer_inputs"), &[2, 9, 31]), -0.46510476);
    assert_eq!((&tap("layer06.k").ne[..], &tap("layer06.k").rows), (&[32, 2, 56][..], &None));
    assert_eq!(at(tap("layer06.k"), &[55, 1, 31]), 0.6386268);
    assert_eq!(at(tap("greedy_logits"), &[3, 1087]), 1.3582101);
    assert_eq!(at(tap("logits_lse"), &[55]), 24.037544);
    assert_eq!(tap("logits_last").rows, Some(vec![54, 55]));
}

#[test]
fn a_batch_is_split_and_loses_its_padding() {
    let Some(arrays) = oracle("text_batch") else { return };
    let references = arrays.references("text_batch").unwrap();
    let lengths: Vec<usize> = references.iter().map(|reference| reference.tokens.len()).collect();
    assert_eq!(lengths, [3, 20, 19]);
    let last = through_a_file(&references[2]).unwrap();
    assert_eq!(last.case, "text_batch_row2");
    assert_eq!(last.tokens[..3], [2, 753, 388]);
    assert_eq!(last.greedy_ids[13..], [8, 411, 483]);
    let logits = last.tap("logits_last").unwrap();
    assert_eq!((&logits.ne[..], &logits.rows), (&[1088, 1][..], &Some(vec![18])));
    assert_eq!(at(logits, &[0, 5]), -1.3205243);
    assert_eq!(at(last.tap("greedy_margin").unwrap(), &[15]), 0.5041313);
}

/// Two tokens, one tap of two values each, one step.
fn small() -> Reference {
    let tap = |name: &str, ne: &[usize], rows: Option<Vec<usize>>| Tap {
        name: name.to_owned(),
        ne: ne.to_vec(),
        rows,
        data: vec![0.5; ne.iter().product()],
    };
    Reference {
        case: "small".to_owned(),
        tokens: vec![2, 7],
        media: vec!["picture.png".to_owned()],
        tolerances: [("layer".to_owned(), 1e-4), ("layer01".to_owned(), 1e-3)].into(),
        taps: vec![
            tap("embeds", &[3, 2], None),
            tap("layer00.out", &[3, 1, 4], Some(vec![1])),
            tap("greedy_logits", &[5, 1], None),
        ],
        greedy_ids: vec![4],
        greedy_steps: vec![0],
        ..Reference::default()
    }
}

#[test]
fn keys_survive() {
    let read = through_a_file(&small()).unwrap();
    assert_eq!(read, small());
    assert_eq!(read.tolerance("layer00.out"), Some(1e-4));
    assert_eq!(read.tolerance("layer01.out"), Some(1e-3));
    assert_eq!(read.tolerance("embeds"), None);
}

#[test]
fn contradictions_are_named() {
    let refused = |change: &dyn Fn(&mut Reference)| {
        let mut reference = small();
        change(&mut reference);
        through_a_file(&reference).unwrap_err().to_string()
    };
    let expect = |change: &dyn Fn(&mut Reference), parts: &[&str]| {
        let message = refused(change);
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} not in: {message}");
    };
    expect(&|r| r.tokens.push(3), &["case.gguf", "tap embeds", "2 rows for 3 tokens"]);
    expect(&|r| r.tokens[1] = -1, &["reference.tokens", "-1"]);
    expect(&|r| r.taps[1].rows = Some(vec![2]), &["tap layer00.out", "row 2 of 2 tokens"]);
    expect(&|r| r.taps[1].rows = Some(vec![0, 1]), &["tap layer00.out", "1 rows, 2 are listed"]);
    expect(&|r| r.taps[0].rows = Some(vec![1, 0]), &["tap embeds", "ascend"]);
    expect(&|r| r.taps[0].data[3] = f32::NAN, &["tap embeds", "NaN"]);
    expect(&|r| r.greedy_steps = vec![1], &["reference.greedy_steps", "step 1 of 1"]);
    expect(&|r| r.greedy_steps.clear(), &["tap greedy_logits", "0 steps"]);
    expect(&|r| r.tokens.clear(), &["reference.greedy_ids", "no prompt"]);
    expect(&|r| r.tolerances = [("x".to_owned(), -1.0)].into(), &["reference.tolerances", "-1"]);
}

/// The committed files: each can be read, and its greedy ids hold against rounding.
#[test]
fn fixtures_are_read_and_stable() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for case in [
        "tiny_short",
        "tiny_long",
        "tiny_beyond",
        "active1_short",
        "active1_long",
        "wide_short",
        "wide_long",
    ] {
        let (fixture, name) = case.split_once('_').unwrap();
        let path = fixtures.join(format!("{fixture}/{name}.reference.gguf"));
        let reference = Reference::open(&path).unwrap();
        assert_eq!(reference.case, case);
        assert_eq!(reference.greedy_ids.len(), 16);
        let margin = &reference.tap("greedy_margin").unwrap().data;
        assert!(margin.iter().all(|margin| *margin > 0.02), "{case}: {margin:?}");
    }
    let beyond = Reference::open(&fixtures.join("tiny/beyond.reference.gguf")).unwrap();
    assert!(beyond.tokens.iter().any(|id| *id >= 512), "{:?}", beyond.tokens);
}
