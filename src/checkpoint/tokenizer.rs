//! The tokenizer of a checkpoint, in the form GGUF has it: one piece, score and kind an id.
//!
//! `tokenizer.json` decides where there is one: special added tokens are control pieces (text that
//! a user types never becomes one), other added tokens are user-defined (matched before BPE, kept
//! with real spaces), the rest is normal or a byte. Scores come from `tokenizer.model` if it has
//! all normal pieces, else they are −(rank of the first merge that makes the piece); both put the
//! same merge first. Without `tokenizer.json` the pieces are those of `tokenizer.model`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::config::TextConfig;
use super::error::Error;
use super::generation::Generation;
use super::json::{CONFIG_LIMIT, Document, Section, TOKENIZER_LIMIT, read_bytes};
use super::sentencepiece;
use super::template::{self, Template};

/// SentencePiece's mark for a space.
const SPACE_MARK: char = '\u{2581}';
/// Scores that llama.cpp's converter gives to added tokens and to ids without a piece.
const ADDED_SCORE: f32 = -1000.0;
const HOLE_SCORE: f32 = -10000.0;

/// Kinds of pieces, numbered as in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal = 1,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// What an id stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: Kind,
}

/// Vocabulary, special ids, templates.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// `vocab_size` pieces; the index is the id.
    pub pieces: Vec<Piece>,
    pub bos: u32,
    pub eos: u32,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    pub mask: Option<u32>,
    /// Ids other than `eos` that end generation (`<end_of_turn>`).
    pub other_ends: Vec<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub templates: Vec<Template>,
    /// Pieces with ids from `vocab_size` on, which are left out.
    pub beyond_vocab: usize,
}

impl Tokenizer {
    /// # Errors
    /// No tokenizer, or one that is no Gemma tokenizer; ids twice or out of range; no bos or eos.
    pub fn read(dir: &Path, config: &TextConfig, generation: &Generation) -> Result<Self, Error> {
        let settings_path = dir.join("tokenizer_config.json");
        let settings = Document::read_if_present(&settings_path, CONFIG_LIMIT)?;
        let settings = settings.as_ref().map(Document::root);
        let json_path = dir.join("tokenizer.json");
        let model_path = dir.join("tokenizer.model");
        let model = if model_path.is_file() { Some(read_model(&model_path)?) } else { None };
        let (source, vocabulary) = if json_path.is_file() {
            let json = read_json(&json_path)?;
            let vocabulary = Vocabulary::from_json(&json_path, json, model.as_deref())?;
            (json_path, vocabulary)
        } else if let Some(model) = model {
            let vocabulary = Vocabulary::from_model(&model_path, model, settings.as_ref())?;
            (model_path, vocabulary)
        } else {
            return Err(Error::NoTokenizer { dir: dir.to_owned() });
        };
        vocabulary.finish(source, config, generation, settings.as_ref(), dir)
    }
}

/// Pieces by id, before they are laid out.
#[derive(Default)]
struct Vocabulary {
    pieces: HashMap<u32, Piece>,
    /// What the post-processor of `tokenizer.json` puts before the text, if it says.
    leading: Option<String>,
}

/// `tokenizer.json`, as far as it matters here.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    post_processor: Option<Value>,
    model: BpeModel,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct BpeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
}

/// Older files have "left right", newer ones ["left", "right"].
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn result(&self) -> Option<String> {
        match self {
            Self::Pair(left, right) => Some(format!("{left}{right}")),
            Self::Line(line) => line.split_once(' ').map(|(left, right)| format!("{left}{right}")),
        }
    }
}

fn read_json(path: &Path) -> Result<TokenizerJson, Error> {
    let bytes = read_bytes(path, TOKENIZER_LIMIT)?;
    let json: TokenizerJson = serde_json::from_slice(&bytes)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let bad = |what: &str| Error::Tokenizer { path: path.to_owned(), what: what.to_owned() };
    if json.model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        return Err(bad("key model.type: expected BPE"));
    }
    if !json.model.byte_fallback {
        return Err(bad("key model.byte_fallback: expected true"));
    }
    if !json.normalizer.as_ref().is_some_and(marks_spaces) {
        return Err(bad("key normalizer: expected one that replaces spaces by U+2581"));
    }
    Ok(json)
}

/// Whether the normalizer is Gemma's: " " → "▁" and nothing else.
fn marks_spaces(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Replace") => {
            normalizer["pattern"]["String"] == " "
                && normalizer["content"] == SPACE_MARK.to_string()
        }
        Some("Sequence") => match normalizer["normalizers"].as_array().map(Vec::as_slice) {
            Some([only]) => only["type"] == "Replace" && marks_spaces(only),
            _ => false,
        },
        _ => false,
    }
}

fn read_model(path: &Path) -> Result<Vec<sentencepiece::Piece>, Error> {
    sentencepiece::pieces(&read_bytes(path, TOKENIZER_LIMIT)?)
        .map_err(|what| Error::Tokenizer { path: path.to_owned(), what })
}

impl Vocabulary {
    fn from_json(
        path: &Path,
        json: TokenizerJson,
        model: Option<&[sentencepiece::Piece]>,
    ) -> Result<Self, Error> {
        let scores = json_scores(path, &json, model)?;
        let mut vocabulary = Self { leading: leading_token(&json), ..Self::default() };
        for (text, id) in json.model.vocab {
            let (kind, score) = if is_byte_piece(&text) {
                (Kind::Byte, 0.0)
            } else {
                (Kind::Normal, scores.get(&text).copied().unwrap_or(0.0))
            };
            let piece = Piece { text, score, kind };
            if let Some(other) = vocabulary.pieces.insert(id, piece) {
                let this = &vocabulary.pieces[&id].text;
                let what = format!("id {id} is both {:?} and {this:?}", other.text);
                return Err(Error::Tokenizer { path: path.to_owned(), what });
            }
        }
        for token in json.added_tokens {
            vocabulary.add(token.id, &token.content, token.special);
        }
        Ok(vocabulary)
    }

    /// Kinds are the model's, corrected by `tokenizer_config.json`, which knows the special ones.
    fn from_model(
        path: &Path,
        model: Vec<sentencepiece::Piece>,
        settings: Option<&Section>,
    ) -> Result<Self, Error> {
        let mut vocabulary = Self::default();
        for (id, piece) in (0..).zip(model) {
            let kind = match piece.kind {
                sentencepiece::NORMAL => Kind::Normal,
                sentencepiece::USER_DEFINED => {
                    vocabulary.add(id, &piece.text, looks_special(&piece.text));
                    continue;
                }
                sentencepiece::UNUSED => Kind::Unused,
                sentencepiece::BYTE => Kind::Byte,
                _ => Kind::Control,
            };
            vocabulary.pieces.insert(id, Piece { text: piece.text, score: piece.score, kind });
        }
        let decoder = settings.map(|settings| settings.section("added_tokens_decoder"));
        let Some(decoder) = decoder.transpose()?.flatten() else { return Ok(vocabulary) };
        for (id, token) in decoder.entries() {
            let content = token["content"].as_str();
            let (Ok(id), Some(content)) = (id.parse(), content) else {
                return Err(decoder.unexpected(id, "an id with its content", token));
            };
            vocabulary.add(id, content, token["special"].as_bool().unwrap_or(false));
        }
        if vocabulary.pieces.is_empty() {
            let what = "no pieces".to_owned();
            return Err(Error::Tokenizer { path: path.to_owned(), what });
        }
        Ok(vocabulary)
    }

    fn add(&mut self, id: u32, content: &str, special: bool) {
        let (kind, text) = if special {
            (Kind::Control, content.to_owned())
        } else {
            (Kind::UserDefined, content.replace(SPACE_MARK, " "))
        };
        self.pieces.insert(id, Piece { text, score: ADDED_SCORE, kind });
    }

    /// Lays the pieces out by id and finds the special ids.
    fn finish(
        mut self,
        source: PathBuf,
        config: &TextConfig,
        generation: &Generation,
        settings: Option<&Section>,
        dir: &Path,
    ) -> Result<Tokenizer, Error> {
        let hole = |id| Piece { text: format!("[PAD{id}]"), score: HOLE_SCORE, kind: Kind::Unused };
        let pieces: Vec<_> = (0..config.vocab_size)
            .map(|id| self.pieces.remove(&id).unwrap_or_else(|| hole(id)))
            .collect();
        let ids = SpecialIds { pieces: &pieces, settings, source: &source };
        let first_eos = config.eos.first().copied();
        let bos = ids.required("bos", config.bos)?;
        let eos = ids.required("eos", first_eos)?;
        let (unk, pad, mask) =
            (ids.find("unk", None)?, ids.find("pad", config.pad)?, ids.find("mask", None)?);
        let mut other_ends = Vec::new();
        for &id in generation.eos.iter().chain(&config.eos) {
            if id != eos && id < config.vocab_size && !other_ends.contains(&id) {
                other_ends.push(id);
            }
        }
        let flag = |key: &str| -> Result<Option<bool>, Error> {
            settings.map_or(Ok(None), |settings| settings.bool(key))
        };
        let add_bos = match &self.leading {
            Some(token) => *token == pieces[bos as usize].text,
            None => flag("add_bos_token")?.unwrap_or(true),
        };
        let add_eos = flag("add_eos_token")?.unwrap_or(false);
        let templates = template::read(dir, settings)?;
        let beyond_vocab = self.pieces.len();
        Ok(Tokenizer {
            pieces,
            bos,
            eos,
            unk,
            pad,
            mask,
            other_ends,
            add_bos,
            add_eos,
            templates,
            beyond_vocab,
        })
    }
}

/// Scores of the normal pieces: the model's if it has them all, else by the merges' ranks.
fn json_scores(
    path: &Path,
    json: &TokenizerJson,
    model: Option<&[sentencepiece::Piece]>,
) -> Result<HashMap<String, f32>, Error> {
    let mut ranks = HashMap::with_capacity(json.model.merges.len());
    for (rank, merge) in json.model.merges.iter().enumerate() {
        let result = merge.result().filter(|result| json.model.vocab.contains_key(result));
        let Some(result) = result else {
            let what = format!("merge {rank} makes no piece of the vocabulary");
            return Err(Error::Tokenizer { path: path.to_owned(), what });
        };
        ranks.entry(result).or_insert(-(rank as f32));
    }
    if let Some(model) = model {
        let scores: HashMap<_, _> =
            model.iter().map(|piece| (piece.text.clone(), piece.score)).collect();
        let added: std::collections::HashSet<_> =
            json.added_tokens.iter().map(|token| token.content.as_str()).collect();
        let complete = json.model.vocab.keys().all(|text| {
            scores.contains_key(text) || added.contains(text.as_str()) || is_byte_piece(text)
        });
        if complete {
            return Ok(scores);
        }
    }
    let unmerged = -(json.model.merges.len() as f32);
    for text in json.model.vocab.keys() {
        if !ranks.contains_key(text) {
            ranks.insert(text.clone(), unmerged);
        }
    }
    Ok(ranks)
}

/// The token before the text in a `TemplateProcessing`, which may stand in a `Sequence`.
fn leading_token(json: &TokenizerJson) -> Option<String> {
    let processor = json.post_processor.as_ref()?;
    let template = match processor["type"].as_str()? {
        "TemplateProcessing" => processor,
        "Sequence" => processor["processors"]
            .as_array()?
            .iter()
            .find(|processor| processor["type"] == "TemplateProcessing")?,
        _ => return None,
    };
    let first = template["single"].as_array()?.first()?;
    Some(first["SpecialToken"]["id"].as_str().unwrap_or("").to_owned())
}

/// `<0x00>` to `<0xFF>`.
fn is_byte_piece(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
    digits.is_some_and(|digits| {
        digits.len() == 2
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    })
}

/// Gemma's special tokens among the user-defined pieces of a `tokenizer.model`, which doesn't say.
fn looks_special(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    matches!(text, "[multimodal]" | "[@BOS@]" | "<2mass>" | "<mask>")
        || inner.is_some_and(|inner| {
            inner.starts_with("unused")
                || inner.starts_with("start_of_")
                || inner.starts_with("end_of_")
                || inner.ends_with("_soft_token")
        })
}

/// Ids by the names that `tokenizer_config.json` gives them, else by `config.json`, else by text.
struct SpecialIds<'a> {
    pieces: &'a [Piece],
    settings: Option<&'a Section<'a>>,
    source: &'a Path,
}

impl SpecialIds<'_> {
    fn find(&self, role: &str, configured: Option<u32>) -> Result<Option<u32>, Error> {
        let key = format!("{role}_token");
        if let Some((settings, value)) =
            self.settings.and_then(|settings| Some((settings, settings.get(&key)?)))
        {
            let text = value.as_str().or_else(|| value["content"].as_str());
            let expected = "a token of the vocabulary";
            let found = || super::json::shown(value);
            let text = text.ok_or_else(|| settings.unexpected(&key, expected, found()))?;
            let id = self.by_text(text);
            return id.map(Some).ok_or_else(|| settings.unexpected(&key, expected, found()));
        }
        let in_range = configured.filter(|&id| (id as usize) < self.pieces.len());
        Ok(in_range.or_else(|| self.by_text(&format!("<{role}>"))))
    }

    fn required(&self, role: &str, configured: Option<u32>) -> Result<u32, Error> {
        self.find(role, configured)?.ok_or_else(|| Error::Tokenizer {
            path: self.source.to_owned(),
            what: format!("no {role} token"),
        })
    }

    fn by_text(&self, text: &str) -> Option<u32> {
        let id = self.pieces.iter().position(|piece| piece.text == text)?;
        u32::try_from(id).ok()
    }
}
