//! Reference values: running a model on a recorded prompt and comparing every intermediate value.
//!
//! The parity tests are this code on committed fixtures; so is what a user runs on a converted
//! fine-tune or an odd machine. The form of the files: [`reference`].

mod compare;
pub mod reference;
mod senses;

use std::path::Path;
use std::sync::Arc;

pub use reference::Reference;
pub use senses::{Rows, Senses};

use crate::gguf::{self, Gguf};
use crate::model::slice::Slice;
use crate::model::text::{
    CacheType, Decoder, DecoderOptions, Kernels, Logits, TapValue, TextModel, Tokens,
};
use crate::model::{OpenError, StepError};
use crate::tokenizer::TokenId;

/// The greatest error a tap may have unless the file says otherwise: f32 against f32
/// (design §7).
pub const TOLERANCE: f32 = 1e-4;

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Reference(#[from] reference::Error),
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Media(#[from] crate::media::Error),
    #[error("{file}: {source}")]
    Step { file: String, source: StepError },
    #[error("{file}: made for another model (its fingerprint is {expected}, the model's {found})")]
    Fingerprint { file: String, expected: String, found: String },
    #[error("{file}: has pictures or sounds, which need a file with their towers")]
    NoTowers { file: String },
    #[error("{file}: tap {tap}: its shape is {found:?}, the model's {expected:?}")]
    Shape { file: String, tap: String, found: Vec<usize>, expected: Vec<usize> },
}

/// How to run the model.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub cache: CacheType,
    pub threads: usize,
    pub kernels: Kernels,
    /// Overrides every tolerance.
    pub tolerance: Option<f32>,
}

/// The outcome for one tap.
#[derive(Clone, Debug, PartialEq)]
pub struct TapReport {
    pub name: String,
    /// `max|a − b| / max|b|`, b the reference; infinite where ours is not finite.
    pub error: f32,
    pub tolerance: f32,
}

impl TapReport {
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// The outcome for the greedy continuation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GreedyReport {
    pub expected: Vec<i32>,
    pub found: Vec<i32>,
}

impl GreedyReport {
    /// Tokens that agree, from the first.
    pub fn agreeing(&self) -> usize {
        self.expected.iter().zip(&self.found).take_while(|(a, b)| a == b).count()
    }

    pub fn passes(&self) -> bool {
        self.expected == self.found
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub case: String,
    pub tokens: usize,
    /// In the order in which the graph computes them.
    pub taps: Vec<TapReport>,
    /// Reference taps that this graph has no value for (they lie inside a fused kernel).
    pub unread: Vec<String>,
    pub greedy: GreedyReport,
}

impl Report {
    /// The first tap over its tolerance, in graph order.
    pub fn first_failure(&self) -> Option<&TapReport> {
        self.taps.iter().find(|tap| !tap.passes())
    }

    pub fn passes(&self) -> bool {
        self.first_failure().is_none() && self.greedy.passes()
    }

    /// The greatest error of all taps.
    pub fn worst(&self) -> Option<&TapReport> {
        self.taps.iter().max_by(|a, b| a.error.total_cmp(&b.error))
    }
}

/// What is compared with the reference.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub gguf: &'a Arc<Gguf>,
    /// A smaller model inside it.
    pub slice: Option<&'a Slice>,
    /// They show it a reference's pictures and sounds.
    pub towers: Option<&'a Arc<Gguf>>,
}

/// Runs a model on the prompt of a reference file.
///
/// # Errors
/// A file that cannot be used, or a model that cannot run; a difference is not an error but part
/// of the report.
pub fn run(subject: Subject<'_>, path: &Path, options: Options) -> Result<Report, Error> {
    let Subject { gguf, slice, towers } = subject;
    let reference = Reference::open(path)?;
    let file = path.display().to_string();
    let expected = &reference.model_fingerprint;
    if !expected.is_empty() {
        let found = gguf.fingerprint();
        if found != *expected {
            return Err(Error::Fingerprint { file, expected: expected.clone(), found });
        }
    }
    let model = TextModel::open_slice(gguf, slice)?;
    let rows = match towers {
        Some(towers) if Senses::concerns(towers, &reference)? => {
            let mut senses = Senses::open(towers, model.config().embedding, options)?;
            senses.rows(&reference, path.parent().unwrap_or(Path::new(".")), &file)?
        }
        None if !reference.media.is_empty() => return Err(Error::NoTowers { file }),
        Some(_) | None => Rows::new(),
    };
    compare_model(model, &reference, &rows, &file, options)
}

/// The same, for an opened model and reference, and the rows that take the place of embeddings;
/// `file` is what errors name.
///
/// # Errors
/// As [`run`].
pub fn compare_model(
    model: Arc<TextModel>,
    reference: &Reference,
    rows: &Rows,
    file: &str,
    options: Options,
) -> Result<Report, Error> {
    let step = |source| Error::Step { file: file.to_owned(), source };
    let ids: Vec<TokenId> = reference.tokens.iter().map(|&id| TokenId(id as u32)).collect();
    let context = ids.len() + reference.greedy_ids.len();
    let mut decoder = Decoder::new(
        model,
        DecoderOptions {
            context,
            batch: ids.len(),
            cache: options.cache,
            threads: options.threads,
            kernels: options.kernels,
        },
    )
    .map_err(step)?;
    let embeddings: Vec<_> = rows.iter().map(|(token, row)| (*token, &row[..])).collect();
    let tokens = Tokens { ids: &ids, embeddings: &embeddings };
    let mut values = decoder.trace(tokens).map_err(step)?;
    let greedy = greedy(&mut decoder, reference, &mut values).map_err(step)?;
    compare::derive(&mut values);

    let mut taps = Vec::new();
    for value in &values {
        let Some(tap) = reference.taps.iter().find(|tap| tap.name == value.name) else { continue };
        let error = compare::error(value, tap).map_err(|(found, mut expected)| {
            // Shapes of ours have four axes; only as many as are used, or as theirs has, are told.
            let axes = expected.iter().rposition(|&n| n != 1).map_or(1, |last| last + 1);
            expected.truncate(axes.max(found.len()));
            Error::Shape { file: file.to_owned(), tap: tap.name.clone(), found, expected }
        })?;
        let tolerance = options.tolerance.or_else(|| reference.tolerance(&tap.name));
        let tolerance = tolerance.unwrap_or(TOLERANCE);
        taps.push(TapReport { name: tap.name.clone(), error, tolerance });
    }
    let unread = reference.taps.iter().map(|tap| tap.name.clone());
    let unread = unread
        .filter(|name| !taps.iter().any(|tap| tap.name == *name) && !is_record(name))
        .collect();
    Ok(Report { case: reference.case.clone(), tokens: ids.len(), taps, unread, greedy })
}

/// Facts about the reference's own run, which no run of ours has to repeat.
fn is_record(name: &str) -> bool {
    name == "greedy_margin"
}

/// Continues greedily with the cache, and records the logits of the steps that the reference
/// kept as the tap `greedy_logits`.
fn greedy(
    decoder: &mut Decoder,
    reference: &Reference,
    values: &mut Vec<TapValue>,
) -> Result<GreedyReport, StepError> {
    let expected = reference.greedy_ids.clone();
    let logits = values.iter().find(|value| value.name == "logits");
    let logits = logits.expect("a trace has logits");
    let vocabulary = logits.ne[0];
    let mut next = logits.values[logits.values.len() - vocabulary..].to_vec();
    let (mut found, mut kept) = (Vec::new(), Vec::new());
    for step in 0..expected.len() {
        if reference.greedy_steps.contains(&step) {
            kept.extend_from_slice(&next);
        }
        let id = compare::argmax(&next);
        found.push(id as i32);
        if step + 1 < expected.len() {
            next = decoder.run(&[TokenId(id as u32)], Logits::Last)?;
        }
    }
    let ne = [vocabulary, reference.greedy_steps.len(), 1, 1];
    values.push(TapValue { name: "greedy_logits".into(), ne, values: kept });
    Ok(GreedyReport { expected, found })
}
