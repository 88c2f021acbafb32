//! A file's `tokenizer.ggml.*` keys → the tokenizer's vocabulary.
//!
//! Needed: `tokens`, `scores`, `token_type`. Ends of generation: `eos_token_id` (or
//! `eos_token_ids`), `eot_token_id`, and every piece whose text is `<eos>` or `<end_of_turn>`.
//! Files whose vocabulary ends at 262144 lack four media tokens of Gemma 3n: they are added as
//! virtual control tokens under their constant ids. Keys and variants: gguf.md §2.3.

use std::path::PathBuf;

use crate::gguf::{self, Gguf, Metadata, Value};
use crate::tokenizer::{self, SpecialIds, TokenId, TokenKind, Vocabulary};

/// Media tokens past the vocabulary of 2025's files.
pub(super) const MEDIA_TOKENS: [(TokenId, &str); 4] = [
    (TokenId(262_144), "<end_of_image>"),
    (TokenId(262_145), "<image_soft_token>"),
    (TokenId(262_272), "<end_of_audio>"),
    (TokenId(262_273), "<audio_soft_token>"),
];

/// Where those files' vocabularies end.
const SHORT_VOCABULARY: usize = 262_144;

/// Pieces that are control tokens whatever their file says: text must never become one.
const CONTROL: [&str; 11] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<start_of_audio>",
    "<end_of_audio>",
    "<audio_soft_token>",
];

/// Why a file's vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A key that does not hold what it must.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// A key that must be there.
    #[error("{}: metadata key {key} is missing", file.display())]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A kind of tokenizer that Gemma's is not.
    #[error(
        "{}: metadata key tokenizer.ggml.model: expected llama (SentencePiece), found {found}",
        file.display()
    )]
    Model {
        /// The file.
        file: PathBuf,
        /// What the key says.
        found: String,
    },
    /// Pieces that make no vocabulary.
    #[error("{}: {fault}", file.display())]
    Pieces {
        /// The file.
        file: PathBuf,
        /// What is wrong with them.
        fault: tokenizer::Error,
    },
}

/// Reads a file's vocabulary.
///
/// # Errors
/// [`VocabularyError`], with file and key.
pub fn vocabulary(gguf: &Gguf) -> Result<Vocabulary, VocabularyError> {
    let metadata = gguf.metadata();
    let file = || gguf.path().to_path_buf();
    let missing = |key| VocabularyError::MissingKey { file: file(), key };
    let pieces = |fault| VocabularyError::Pieces { file: file(), fault };

    match metadata.str("tokenizer.ggml.model")? {
        None | Some("llama") => {}
        Some(found) => {
            return Err(VocabularyError::Model { file: file(), found: found.to_owned() });
        }
    }
    let key = "tokenizer.ggml.tokens";
    let tokens = metadata.string_array(key)?.ok_or_else(|| missing(key))?;
    let key = "tokenizer.ggml.scores";
    let scores = metadata.f32_array(key)?.ok_or_else(|| missing(key))?;
    let key = "tokenizer.ggml.token_type";
    let kinds = metadata.i32_array(key)?.ok_or_else(|| missing(key))?;
    let mut kinds = kinds
        .into_iter()
        .map(TokenKind::try_from)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pieces)?;
    for (piece, kind) in tokens.strings().zip(&mut kinds) {
        if piece.first() == Some(&b'<') && CONTROL.iter().any(|text| text.as_bytes() == piece) {
            *kind = TokenKind::Control;
        }
    }
    let special = special_ids(metadata)?;
    let mut vocabulary =
        Vocabulary::new(tokens.strings(), scores, kinds, special).map_err(pieces)?;
    let len = vocabulary.len();
    for (id, text) in MEDIA_TOKENS {
        if len >= SHORT_VOCABULARY && id.0 as usize >= len {
            vocabulary.add_virtual(id, text).map_err(pieces)?;
        }
    }
    Ok(vocabulary)
}

fn special_ids(metadata: &Metadata) -> Result<SpecialIds, gguf::Error> {
    let id = |key: &str| Ok(metadata.u32(key)?.map(TokenId));
    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eos_token_ids"] {
        match metadata.get(key) {
            Some(Value::Array(_)) => eos.extend(metadata.u32_array(key)?.unwrap_or_default()),
            _ => eos.extend(metadata.u32(key)?),
        }
    }
    let eos = eos.into_iter().map(TokenId).collect();
    Ok(SpecialIds {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos,
        eot: id("tokenizer.ggml.eot_token_id")?,
        unk: id("tokenizer.ggml.unknown_token_id")?,
        pad: id("tokenizer.ggml.padding_token_id")?,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true),
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Layout, OwnedArray};

    const PIECES: [(&str, i32); 9] = [
        ("<pad>", 3),
        ("<eos>", 3),
        ("<bos>", 3),
        ("<unk>", 2),
        ("a", 1),
        ("<start_of_turn>", 4),
        ("<end_of_turn>", 4),
        ("<turn>", 4),
        ("<start_of_image>", 1),
    ];

    fn layout(pieces: &[(String, i32)]) -> Layout {
        let mut layout = Layout::new();
        let texts = pieces.iter().map(|(text, _)| text.clone().into_bytes()).collect();
        layout.set("tokenizer.ggml.model", "llama");
        layout.set("tokenizer.ggml.tokens", OwnedArray::String(texts));
        layout.set("tokenizer.ggml.scores", OwnedArray::F32(vec![0.0; pieces.len()]));
        let kinds = pieces.iter().map(|(_, kind)| *kind).collect();
        layout.set("tokenizer.ggml.token_type", OwnedArray::I32(kinds));
        layout.set("tokenizer.ggml.eos_token_id", 1u32);
        layout
    }

    fn small() -> Layout {
        layout(&PIECES.map(|(text, kind)| (text.to_owned(), kind)))
    }

    fn read(layout: &Layout) -> Result<Vocabulary, VocabularyError> {
        let bytes = layout.encode().unwrap().header.leak();
        vocabulary(&Gguf::from_static("m.gguf", bytes).unwrap())
    }

    fn message(layout: &Layout) -> String {
        read(layout).unwrap_err().to_string()
    }

    #[test]
    fn generation_ends_at_every_end_the_file_or_the_texts_name() {
        let ends = |layout: &Layout| {
            let vocabulary = read(layout).unwrap();
            (0..9).filter(|&id| vocabulary.is_end(TokenId(id))).collect::<Vec<u32>>()
        };
        let mut file = small();
        assert_eq!(ends(&file), [1, 6]);
        file.set("tokenizer.ggml.eos_token_id", 6u32);
        file.set("tokenizer.ggml.eot_token_id", 7u32);
        assert_eq!(ends(&file), [1, 6, 7]);
        file.set("tokenizer.ggml.eos_token_ids", OwnedArray::I32(vec![4, 6]));
        assert_eq!(ends(&file), [1, 4, 6, 7]);
        file.set("tokenizer.ggml.eos_token_id", OwnedArray::U32(vec![0, 1]));
        assert_eq!(ends(&file), [0, 1, 4, 6, 7]);
    }

    #[test]
    fn gemmas_control_tokens_are_that_whatever_the_file_says() {
        let vocabulary = read(&small()).unwrap();
        let kind = |text| vocabulary.kind(vocabulary.id_of(text).unwrap());
        assert_eq!(kind("<start_of_turn>"), Some(TokenKind::Control));
        assert_eq!(kind("<start_of_image>"), Some(TokenKind::Control));
        assert_eq!(kind("<turn>"), Some(TokenKind::UserDefined));
        assert_eq!(vocabulary.id_of("<image_soft_token>"), None);
    }

    #[test]
    fn a_vocabulary_of_2025_gets_the_media_tokens_it_lacks() {
        let mut pieces = PIECES.map(|(text, kind)| (text.to_owned(), kind)).to_vec();
        pieces.extend((pieces.len()..SHORT_VOCABULARY).map(|id| (format!("p{id}"), 1)));
        let vocabulary = read(&layout(&pieces)).unwrap();
        for (id, text) in MEDIA_TOKENS {
            assert_eq!(vocabulary.id_of(text), Some(id));
            assert_eq!(vocabulary.kind(id), Some(TokenKind::Control));
        }
        assert_eq!(vocabulary.len(), SHORT_VOCABULARY);
    }

    #[test]
    fn errors_name_the_key() {
        for key in ["tokens", "scores", "token_type"].map(|name| format!("tokenizer.ggml.{name}")) {
            let mut file = small();
            file.metadata.retain(|(found, _)| *found != key);
            assert_eq!(message(&file), format!("m.gguf: metadata key {key} is missing"));
            file.set(&key, 7u32);
            assert!(message(&file).contains(&key), "{}", message(&file));
        }
        let mut file = small();
        file.set("tokenizer.ggml.model", "gpt2");
        assert!(message(&file).contains("tokenizer.ggml.model: expected llama"));
        let mut file = small();
        file.set("tokenizer.ggml.scores", OwnedArray::F32(vec![0.0; 3]));
        assert!(message(&file).starts_with("m.gguf: "), "{}", message(&file));
        let mut file = small();
        file.set("tokenizer.ggml.eos_token_id", "one");
        assert!(message(&file).contains("tokenizer.ggml.eos_token_id"));
        let mut file = small();
        file.set("tokenizer.ggml.bos_token_id", 99u32);
        assert!(message(&file).starts_with("m.gguf: "));
    }
}
