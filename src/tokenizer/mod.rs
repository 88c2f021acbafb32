//! Text to token ids and back, exactly as Gemma's reference tokenizer does it.
//!
//! ```text
//! text ── added pieces (control, user-defined), leftmost-longest on the raw text ──┐
//!   stretches between them: " " = U+2581 → BPE by score → byte pieces or <unk>  ───┴→ ids
//! ```
//!
//! - [`vocabulary`]: the pieces of a model and the checks on them.
//! - [`added`]: pieces cut out of the text before anything else.
//! - [`bpe`]: one stretch of text into ids.
//! - [`decode`]: ids into text, whole or as a stream.
//!
//! It is our own because a GGUF file has scores instead of the merge list that `tokenizers` needs,
//! and because 262 144 pieces must be ready in milliseconds.
//!
//! Nothing here knows where a vocabulary comes from. Reference: `tokenizers` with Gemma's
//! `tokenizer.json` (normalizer Replace, model BPE with byte fallback and fused unknowns,
//! decoder Replace, ByteFallback, Fuse).

mod added;
mod bpe;
mod decode;
mod error;
mod vocabulary;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use added::{AddedPieces, Part};
use bpe::Merger;

pub use decode::DecodeStream;
pub use error::Error;
pub use vocabulary::{SpecialIds, TokenKind, Vocabulary};

/// The number of a piece in a vocabulary, the row of the embedding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u32);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the text of a control token means where it occurs in the text to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// It is the control token: a rendered template, a raw prompt.
    Parse,
    /// It is text like any other: what a user typed.
    AsText,
}

/// A vocabulary made ready for encoding and decoding.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    added: AddedPieces,
    merger: Merger,
}

impl Tokenizer {
    /// Builds what encoding needs on top of the vocabulary.
    ///
    /// # Errors
    /// [`Error::Added`] when the control and user-defined pieces are too many or too long
    /// for a matcher.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, Error> {
        let added = AddedPieces::new(&vocabulary)?;
        let merger = Merger::new(&vocabulary);
        Ok(Self { vocabulary, added, merger })
    }

    /// The ids of `text`. Neither bos nor eos is added.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut work = bpe::Work::default();
        let mut at_start = self.vocabulary.adds_space_prefix();
        for part in self.added.split(text, specials) {
            match part {
                Part::Piece(id) => ids.push(id),
                Part::Text(stretch) => {
                    let spaced = spaced(stretch, at_start);
                    self.merger.encode(&self.vocabulary, &spaced, &mut work, &mut ids);
                }
            }
            at_start = false;
        }
        ids
    }

    /// The text of `ids`. Ids that the vocabulary does not have give nothing; so do control
    /// tokens and the unknown token with `skip_special`.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        decode::decode(&self.vocabulary, ids, skip_special)
    }

    /// Decoding of ids that arrive one by one, without control tokens.
    pub fn stream(&self) -> DecodeStream {
        DecodeStream::default()
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> TokenId {
        self.vocabulary.bos()
    }

    /// Whether a prompt that does not bring its own begins with [`Self::bos`].
    pub fn adds_bos(&self) -> bool {
        self.vocabulary.adds_bos()
    }

    /// Whether generation ends at `id`: eos, eot, or a token whose text is `<eos>` or
    /// `<end_of_turn>`.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.vocabulary.is_end(id)
    }

    /// The token whose text is `text`; a space may be written as U+2581.
    pub fn id_of(&self, text: &str) -> Option<TokenId> {
        self.vocabulary.id_of(text)
    }

    /// Number of pieces, virtual control tokens not counted.
    pub fn n_tokens(&self) -> usize {
        self.vocabulary.len()
    }

    /// The text of a token, with real spaces; `<0x0A>` for a byte piece. Empty for an id
    /// that the vocabulary does not have.
    pub fn piece(&self, id: TokenId) -> &[u8] {
        self.vocabulary.piece(id).unwrap_or_default().as_bytes()
    }

    /// What a token is; `None` for an id that the vocabulary does not have.
    pub fn kind(&self, id: TokenId) -> Option<TokenKind> {
        self.vocabulary.kind(id)
    }

    /// The vocabulary.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

/// The normalizer: U+2581 and a space are the same character. Inside this module it is the
/// space, which is shorter and needs no change in most texts.
fn spaced(text: &str, prefix: bool) -> Cow<'_, str> {
    match (prefix, text.contains(vocabulary::SPACE_MARK)) {
        (false, false) => Cow::Borrowed(text),
        (false, true) => Cow::Owned(text.replace(vocabulary::SPACE_MARK, " ")),
        (true, _) => Cow::Owned(format!(" {}", text.replace(vocabulary::SPACE_MARK, " "))),
    }
}
