//! The report: everything `inspect` says, as data.

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::{GEMMA3N, Keys, Model};
use super::oddities::oddities;
use super::values;
use crate::gguf::{Gguf, Metadata, Tensor, TensorType, Value};
use crate::model::matformer::relation;

/// Longest array that JSON shows whole.
const LONGEST: usize = 64;

/// What a file is. The fields are the JSON keys.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub file: String,
    pub bytes: u64,
    pub parts: usize,
    pub sha: String,
    pub architecture: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub licence: Option<String>,
    pub parameters: u64,
    pub bits_per_weight: f64,
    pub types: Vec<TypeShare>,
    pub model: Option<Model>,
    pub slices: Vec<&'static str>,
    pub towers: Vec<Tower>,
    pub tokenizer: Option<Tokenizer>,
    pub odd: Vec<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorLine>>,
}

/// The tensors of one type.
#[derive(Debug, Serialize)]
pub(super) struct TypeShare {
    #[serde(rename = "type")]
    pub ty: &'static str,
    pub tensors: u64,
    pub elements: u64,
    pub bytes: u64,
    /// Of the bytes of all tensors, from 0 to 1.
    pub share: f64,
}

/// An encoder of pictures or sound.
#[derive(Debug, Serialize)]
pub(super) struct Tower {
    pub kind: &'static str,
    pub projector: Option<String>,
    pub tensors: u64,
    pub bytes: u64,
}

/// What the file says of its tokenizer.
#[derive(Debug, Serialize)]
pub(super) struct Tokenizer {
    pub model: Option<String>,
    pub tokens: u64,
    pub bos: Option<u64>,
    pub eos: Option<u64>,
    pub adds_bos: Option<bool>,
    /// Bytes of the chat template, if there is one.
    pub chat_template: Option<u64>,
}

/// A line of the list of tensors.
#[derive(Debug, Serialize)]
pub(super) struct TensorLine {
    pub name: String,
    pub shape: Vec<u64>,
    #[serde(rename = "type")]
    pub ty: &'static str,
    pub bytes: u64,
    pub part: usize,
    pub offset: u64,
}

impl Report {
    pub fn of(gguf: &Gguf, with_tensors: bool) -> Self {
        let metadata = gguf.metadata();
        let architecture = text(metadata, "general.architecture");
        let keys = Keys::new(metadata, architecture.as_deref().unwrap_or_default());
        let mut model = Model::of(gguf, &keys);
        let mut inside = Vec::new();
        let mut odd = Vec::new();
        if let (Some(model), Some(GEMMA3N)) = (&mut model, architecture.as_deref()) {
            let found = relation(&model.ffn);
            model.size = found.is.map(size_name);
            inside = found.inside;
        }
        oddities(gguf, architecture.as_deref(), model.as_ref(), &keys, &mut odd);
        odd.extend(keys.into_remarks());
        let parameters = gguf.tensors().iter().map(Tensor::n_elements).fold(0, u64::saturating_add);
        let tensor_bytes: u64 = gguf.tensors().iter().map(|tensor| tensor.nbytes).sum();
        Self {
            file: gguf.path().display().to_string(),
            bytes: gguf.file_len(),
            parts: gguf.n_parts(),
            sha: gguf.fingerprint(),
            architecture,
            kind: text(metadata, "general.type"),
            name: text(metadata, "general.name").or_else(|| text(metadata, "general.basename")),
            licence: text(metadata, "general.license"),
            parameters,
            bits_per_weight: ratio(tensor_bytes * 8, parameters),
            types: types(gguf.tensors(), tensor_bytes),
            model,
            slices: inside,
            towers: towers(gguf),
            tokenizer: Tokenizer::of(metadata),
            odd,
            metadata: metadata
                .iter()
                .map(|(key, value)| (key.to_string(), values::json(&value, LONGEST)))
                .collect(),
            tensors: with_tensors.then(|| gguf.tensors().iter().map(TensorLine::of).collect()),
        }
    }
}

/// `E2B` for `e2b`; slices keep their names.
fn size_name(name: &str) -> String {
    match name {
        "e2b" | "e4b" => name.to_uppercase(),
        _ => name.to_string(),
    }
}

/// A string of the metadata on one line; nothing where it is absent or no string.
fn text(metadata: &Metadata, key: &str) -> Option<String> {
    match metadata.get(key)? {
        Value::String(bytes) => Some(values::one_line(bytes)),
        _ => None,
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// The types, those with the most bytes first.
fn types(tensors: &[Tensor], all: u64) -> Vec<TypeShare> {
    let mut by_type: BTreeMap<TensorType, TypeShare> = BTreeMap::new();
    for tensor in tensors {
        let ty = tensor.ty.name();
        let share = by_type.entry(tensor.ty).or_insert(TypeShare {
            ty,
            tensors: 0,
            elements: 0,
            bytes: 0,
            share: 0.0,
        });
        share.tensors += 1;
        share.elements = share.elements.saturating_add(tensor.n_elements());
        share.bytes += tensor.nbytes;
        share.share = ratio(share.bytes, all);
    }
    let mut types: Vec<TypeShare> = by_type.into_values().collect();
    types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    types
}

/// The encoders in a file of towers: vision under `v.`, audio under `a.`, each with its part of
/// the projector.
fn towers(gguf: &Gguf) -> Vec<Tower> {
    let kinds = [
        ("vision", "clip.vision.projector_type", ["v.", "mm."]),
        ("audio", "clip.audio.projector_type", ["a.", "mm.a."]),
    ];
    let is_audio = |name: &str| name.starts_with("a.") || name.starts_with("mm.a.");
    let mut towers = Vec::new();
    for (kind, projector, prefixes) in kinds {
        let own: Vec<&Tensor> = gguf
            .tensors()
            .iter()
            .filter(|tensor| prefixes.iter().any(|prefix| tensor.name.starts_with(prefix)))
            .filter(|tensor| is_audio(&tensor.name) == (kind == "audio"))
            .collect();
        if own.is_empty() {
            continue;
        }
        let either = || text(gguf.metadata(), "clip.projector_type");
        towers.push(Tower {
            kind,
            projector: text(gguf.metadata(), projector).or_else(either),
            tensors: own.len() as u64,
            bytes: own.iter().map(|tensor| tensor.nbytes).sum(),
        });
    }
    towers
}

impl Tokenizer {
    fn of(metadata: &Metadata) -> Option<Self> {
        let number = |key| metadata.u64(key).ok().flatten();
        let tokens = match metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(array)) => array.len() as u64,
            _ => 0,
        };
        let model = text(metadata, "tokenizer.ggml.model");
        if model.is_none() && tokens == 0 {
            return None;
        }
        let chat_template = match metadata.get("tokenizer.chat_template") {
            Some(Value::String(bytes)) => Some(bytes.len() as u64),
            _ => None,
        };
        Some(Self {
            model,
            tokens,
            bos: number("tokenizer.ggml.bos_token_id"),
            eos: number("tokenizer.ggml.eos_token_id"),
            adds_bos: metadata.bool("tokenizer.ggml.add_bos_token").ok().flatten(),
            chat_template,
        })
    }
}

impl TensorLine {
    fn of(tensor: &Tensor) -> Self {
        Self {
            name: values::one_line(tensor.name.as_bytes()),
            shape: tensor.ne[..(tensor.n_dims as usize).clamp(1, 4)].to_vec(),
            ty: tensor.ty.name(),
            bytes: tensor.nbytes,
            part: tensor.part() + 1,
            offset: tensor.offset(),
        }
    }
}
