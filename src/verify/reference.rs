//! A file of reference values: what the reference implementation computed for one prompt.
//!
//! It is a GGUF with `general.type` = `reference`. Each tap is an F32 tensor with the shape that
//! ggml gives it (the reference's, reversed):
//!
//! | tap | ne |
//! |---|---|
//! | `altup_init`, `layerNN.{out, predictions, corrected}` | [D, T, A] |
//! | `per_layer_token_embeds`, `per_layer_inputs` | [P, L, T] |
//! | `layerNN.{q, k, v}` / `layerNN.attn_probs` | [head_dim, heads, T] / [keys, heads, T] |
//! | `argmax`, `logits_lse`, `logits_l2` | [T] |
//! | `logits_last` | [V, rows] |
//! | `greedy_margin` / `greedy_logits` | [steps] / [V, chosen steps] |
//! | all others | [width, T] |
//!
//! The token axis of a tap holds all T tokens, or those that `reference.rows.<tap>` lists.

use std::{collections::BTreeMap, path::Path};

use crate::gguf::{self, Gguf, TensorType, Value, ValueType};

/// Why a file of reference values can't be used. `file` is its path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a readable GGUF, or a key has a wrong type.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// A GGUF of another kind.
    #[error("{file}: not a file of reference values: general.type is {found}, not \"reference\"")]
    NotReference { file: String, found: String },
    /// A key that every such file has is missing.
    #[error("{file}: key {key} is missing")]
    MissingKey { file: String, key: String },
    /// A key says something that the other keys or the tensors contradict.
    #[error("{file}: key {key}: {reason}")]
    Key { file: String, key: String, reason: String },
    /// A tap has a type, shape or value that it cannot have.
    #[error("{file}: tap {tap}: {reason}")]
    Tap { file: String, tap: String, reason: String },
}

/// One recorded value.
#[derive(Debug, Clone, PartialEq)]
pub struct Tap {
    /// The oracle's key without `.at`, such as `layer04.attn_out`.
    pub name: String,
    /// Shape in ggml's order: the fastest dimension first; one to four dimensions.
    pub ne: Vec<usize>,
    /// Which tokens (0-based, ascending) the token axis holds; `None`: all of them, in order.
    pub rows: Option<Vec<usize>>,
    /// The values, in the order of `ne`.
    pub data: Vec<f32>,
}

impl Tap {
    /// The dimension of `ne` that runs over tokens; `None` for greedy values, which run over
    /// generated steps instead.
    pub fn token_axis(&self) -> Option<usize> {
        if self.name.starts_with("greedy_") {
            return None;
        }
        let leaf = self.name.rsplit('.').next().unwrap_or_default();
        let streams = self.name == "altup_init"
            || self.name.starts_with("layer")
                && ["out", "predictions", "corrected"].contains(&leaf);
        self.ne.len().checked_sub(if streams { 2 } else { 1 })
    }
}

/// The reference values of one prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reference {
    /// Name of the case, such as `text_short`.
    pub case: String,
    /// [`Gguf::fingerprint`] of the model that the values belong to; empty: not stated.
    pub model_fingerprint: String,
    /// Prefix of a tap's name → largest permitted max|a−b| / max|b|.
    pub tolerances: BTreeMap<String, f32>,
    /// The prompt; empty only for cases that don't reach the language model.
    pub tokens: Vec<i32>,
    /// Pictures and sounds of the prompt, relative to the file.
    pub media: Vec<String>,
    /// In the order of the file.
    pub taps: Vec<Tap>,
    /// Greedy continuation of the prompt with the KV cache, never stopped at an end token.
    pub greedy_ids: Vec<i32>,
    /// Which steps of that continuation `greedy_logits` holds.
    pub greedy_steps: Vec<usize>,
}

impl Reference {
    /// Reads and checks a file of reference values.
    ///
    /// # Errors
    /// The file is not of this kind, a key is missing, or sizes contradict each other.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_gguf(&Gguf::open(path)?)
    }

    /// The same of an open file.
    ///
    /// # Errors
    /// As [`Reference::open`].
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let file = gguf.path().display().to_string();
        let meta = gguf.metadata();
        let found = meta.str("general.type")?;
        if found != Some("reference") {
            let found = found.map_or("absent".to_owned(), |found| format!("{found:?}"));
            return Err(Error::NotReference { file, found });
        }
        let missing = |key: &str| Error::MissingKey { file: file.clone(), key: key.to_owned() };
        let text = |key| Ok::<_, Error>(meta.str(key)?.ok_or_else(|| missing(key))?.to_owned());
        let ids =
            |key| -> Result<Vec<i32>, Error> { meta.i32_array(key)?.ok_or_else(|| missing(key)) };
        let mut reference = Self {
            case: text("reference.case")?,
            model_fingerprint: text("reference.model_fingerprint")?,
            tolerances: tolerances(&file, &text("reference.tolerances")?)?,
            tokens: ids("reference.tokens")?,
            media: media(&file, meta.get("reference.media"))?,
            taps: Vec::with_capacity(gguf.tensors().len()),
            greedy_ids: ids("reference.greedy_ids")?,
            greedy_steps: positions(gguf, &file, "reference.greedy_steps")?.unwrap_or_default(),
        };
        for tensor in gguf.tensors() {
            reference.taps.push(read_tap(gguf, &file, tensor)?);
        }
        reference.check(&file)?;
        Ok(reference)
    }

    /// The tap of this name.
    pub fn tap(&self, name: &str) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.name == name)
    }

    /// The tolerance that the file states for a tap: that of the longest prefix of its name.
    pub fn tolerance(&self, tap: &str) -> Option<f32> {
        let fitting = self.tolerances.iter().filter(|(prefix, _)| tap.starts_with(prefix.as_str()));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, tolerance)| *tolerance)
    }

    /// Whether tokens, rows, shapes and steps agree with each other. `file` names the file in
    /// the error.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self, file: &str) -> Result<(), Error> {
        let bad_key = |key: &str, reason: String| {
            Err(Error::Key { file: file.to_owned(), key: key.to_owned(), reason })
        };
        for (key, ids) in
            [("reference.tokens", &self.tokens), ("reference.greedy_ids", &self.greedy_ids)]
        {
            if let Some(id) = ids.iter().find(|id| **id < 0) {
                return bad_key(key, format!("{id} is not a token id"));
            }
        }
        if self.tokens.is_empty() && !self.greedy_ids.is_empty() {
            return bad_key(
                "reference.greedy_ids",
                "there is no prompt in reference.tokens".to_owned(),
            );
        }
        let steps = self.greedy_ids.len();
        if let Some(step) = self.greedy_steps.iter().find(|step| **step >= steps) {
            return bad_key("reference.greedy_steps", format!("step {step} of {steps} greedy ids"));
        }
        for (i, tap) in self.taps.iter().enumerate() {
            let checked = match self.taps[..i].iter().any(|other| other.name == tap.name) {
                true => Err("is there twice".to_owned()),
                false => self.check_tap(tap),
            };
            if let Err(reason) = checked {
                return Err(Error::Tap { file: file.to_owned(), tap: tap.name.clone(), reason });
            }
        }
        Ok(())
    }

    /// One tap's shape against its data, its rows and the number of tokens or steps.
    fn check_tap(&self, tap: &Tap) -> Result<(), String> {
        let count = tap.ne.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
        if tap.ne.is_empty() || tap.ne.len() > 4 || count != Some(tap.data.len()) {
            return Err(format!("{} values for the shape {:?}", tap.data.len(), tap.ne));
        }
        if let Some(value) = tap.data.iter().find(|value| !value.is_finite()) {
            return Err(format!("holds {value}"));
        }
        let slowest = tap.ne[tap.ne.len() - 1];
        let wanted = match tap.name.as_str() {
            "greedy_logits" => Some(self.greedy_steps.len()),
            "greedy_margin" => Some(self.greedy_ids.len()),
            _ => None,
        };
        if wanted.is_some_and(|wanted| wanted != slowest) {
            return Err(format!("shape {:?} for {} steps", tap.ne, wanted.unwrap_or_default()));
        }
        let Some(axis) = tap.token_axis() else { return Ok(()) };
        let (held, tokens) = (tap.ne[axis], self.tokens.len());
        let Some(rows) = &tap.rows else {
            return match tokens == 0 || held == tokens {
                true => Ok(()),
                false => Err(format!("shape {:?} has {held} rows for {tokens} tokens", tap.ne)),
            };
        };
        if rows.len() != held {
            return Err(format!("shape {:?} has {held} rows, {} are listed", tap.ne, rows.len()));
        }
        if !rows.is_sorted_by(|a, b| a < b) {
            return Err("the listed rows do not ascend".to_owned());
        }
        match rows.last() {
            Some(last) if tokens > 0 && *last >= tokens => {
                Err(format!("row {last} of {tokens} tokens"))
            }
            _ => Ok(()),
        }
    }
}

/// The JSON object of `reference.tolerances`: prefix → positive number.
fn tolerances(file: &str, json: &str) -> Result<BTreeMap<String, f32>, Error> {
    let bad = |reason| Error::Key {
        file: file.to_owned(),
        key: "reference.tolerances".to_owned(),
        reason,
    };
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    let map: BTreeMap<String, f32> =
        serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
    match map.iter().find(|(_, tolerance)| !(tolerance.is_finite() && **tolerance > 0.0)) {
        Some((prefix, tolerance)) => {
            Err(bad(format!("{prefix:?}: {tolerance} is not a tolerance")))
        }
        None => Ok(map),
    }
}

/// The strings of `reference.media`; absent means none.
fn media(file: &str, value: Option<Value<'_>>) -> Result<Vec<String>, Error> {
    let key = "reference.media";
    let bad = |reason: &str| Error::Key {
        file: file.to_owned(),
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let strings = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(array))
            if array.is_empty() || array.element_type() == ValueType::String =>
        {
            array.strings()
        }
        Some(_) => return Err(bad("not an array of strings")),
    };
    strings
        .map(|name| String::from_utf8(name.to_vec()).map_err(|_| bad("a name is not UTF-8")))
        .collect()
}

/// An i32 array of row or step numbers.
fn positions(gguf: &Gguf, file: &str, key: &str) -> Result<Option<Vec<usize>>, Error> {
    let Some(numbers) = gguf.metadata().i32_array(key)? else { return Ok(None) };
    let position = |n: i32| {
        usize::try_from(n).map_err(|_| Error::Key {
            file: file.to_owned(),
            key: key.to_owned(),
            reason: format!("{n} is not a position"),
        })
    };
    numbers.into_iter().map(position).collect::<Result<_, _>>().map(Some)
}

fn read_tap(gguf: &Gguf, file: &str, tensor: &gguf::Tensor) -> Result<Tap, Error> {
    let name = tensor.name.clone();
    let bad = |reason| Error::Tap { file: file.to_owned(), tap: name.clone(), reason };
    if tensor.ty != TensorType::F32 {
        return Err(bad(format!("expected F32, found {}", tensor.ty.name())));
    }
    let dims = usize::try_from(tensor.n_dims).unwrap_or(usize::MAX).clamp(1, 4);
    let ne = tensor.ne[..dims].iter().map(|n| usize::try_from(*n)).collect::<Result<Vec<_>, _>>();
    let ne = ne.map_err(|_| bad(format!("shape {:?} does not fit this machine", tensor.ne)))?;
    let (values, _) = gguf.data(tensor).as_chunks::<4>();
    let data = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let rows = positions(gguf, file, &format!("reference.rows.{name}"))?;
    Ok(Tap { name, ne, rows, data })
}
