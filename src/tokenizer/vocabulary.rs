//! The pieces of a model: text, score, kind; special ids; virtual control tokens.
//!
//! All text lies in one string with one offset per piece (a String each would be 262 144
//! allocations at start-up), and text → id is a hash table of ids. U+2581 is stored as the
//! space it stands for. Format: GGUF `tokenizer.ggml.*`.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Error, TokenId};

/// U+2581, which pieces have in place of a space.
pub(super) const SPACE_MARK: char = '\u{2581}';

/// What a piece is, numbered as in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Learned; comes out of merges.
    Normal = 1,
    /// Stands for what has no piece.
    Unknown,
    /// Never comes out of a user's text.
    Control,
    /// Cut out of the text before anything is merged: newline runs, tags.
    UserDefined,
    /// A hole in the numbering.
    Unused,
    /// One byte of a character that has no piece.
    Byte,
}

impl TryFrom<i32> for TokenKind {
    type Error = Error;

    fn try_from(number: i32) -> Result<Self, Error> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            other => return Err(Error::Kind(other)),
        })
    }
}

/// Special tokens and switches, as the file has them.
#[derive(Clone, Debug, Default)]
pub struct SpecialIds {
    /// Beginning of sequence; without it the piece `<bos>`.
    pub bos: Option<TokenId>,
    /// Ends of sequence, one or several; without any the piece `<eos>`.
    pub eos: Vec<TokenId>,
    /// End of turn.
    pub eot: Option<TokenId>,
    /// Unknown; without it the first piece of that kind.
    pub unk: Option<TokenId>,
    /// Padding.
    pub pad: Option<TokenId>,
    /// Whether prompts begin with bos.
    pub add_bos: bool,
    /// Whether texts end with eos. Kept for whoever asks; prompts of this model never do.
    pub add_eos: bool,
    /// Whether a space is put before a text. False for Gemma.
    pub add_space_prefix: bool,
}

/// The pieces of a model, checked.
#[derive(Debug)]
pub struct Vocabulary {
    /// All pieces, one after the other; virtual ones last.
    text: String,
    /// End of each piece in `text`.
    ends: Vec<u32>,
    scores: Vec<f32>,
    kinds: Vec<TokenKind>,
    /// Ids by text.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Id of each byte's piece.
    bytes: [Option<TokenId>; 256],
    special: SpecialIds,
    bos: TokenId,
    /// All ids that end generation, ascending.
    ends_generation: Vec<TokenId>,
    virtuals: Vec<VirtualToken>,
}

/// A control token that the file's tables do not hold.
#[derive(Clone, Debug)]
struct VirtualToken {
    id: TokenId,
    text: String,
}

impl Vocabulary {
    /// Takes the pieces in the order of their ids, with one score and one kind each.
    ///
    /// # Errors
    /// Whatever makes the vocabulary unusable; see [`Error`].
    pub fn new<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        scores: Vec<f32>,
        kinds: Vec<TokenKind>,
        special: SpecialIds,
    ) -> Result<Self, Error> {
        let (text, ends) = gather(pieces)?;
        let n = ends.len();
        if n == 0 {
            return Err(Error::NoPieces);
        }
        for (what, found) in [("scores", scores.len()), ("token types", kinds.len())] {
            if found != n {
                return Err(Error::Length { what, found, pieces: n });
            }
        }
        if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::Score { id: TokenId(i as u32), score: scores[i] });
        }
        let mut vocabulary = Self {
            text,
            ends,
            scores,
            kinds,
            index: HashTable::with_capacity(n),
            hasher: DefaultHashBuilder::default(),
            bytes: [None; 256],
            special,
            bos: TokenId(0),
            ends_generation: Vec::new(),
            virtuals: Vec::new(),
        };
        vocabulary.fill_index();
        vocabulary.find_bytes()?;
        vocabulary.find_specials()?;
        Ok(vocabulary)
    }

    /// Adds a control token that the file does not hold, such as `<image_soft_token>` where
    /// the tables end before its id. A text that already has a token is left as it is.
    ///
    /// # Errors
    /// [`Error::IdTaken`] when the id belongs to another text.
    pub fn add_virtual(&mut self, id: TokenId, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Err(Error::EmptyPiece { id });
        }
        if self.id_of(text).is_some() {
            return Ok(());
        }
        if let Some(piece) = self.piece(id) {
            return Err(Error::IdTaken { id, text: text.into(), piece: piece.into() });
        }
        self.virtuals.push(VirtualToken { id, text: text.into() });
        if is_end_text(text) {
            self.ends_generation.push(id);
            self.ends_generation.sort_unstable();
        }
        Ok(())
    }

    /// Number of pieces, virtual ones not counted.
    #[expect(clippy::len_without_is_empty, reason = "there is no vocabulary without pieces")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a token.
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        match self.ends.get(id.0 as usize) {
            Some(_) => Some(self.text_of(id.0)),
            None => self.virtuals.iter().find(|v| v.id == id).map(|v| v.text.as_str()),
        }
    }

    /// What a token is.
    pub fn kind(&self, id: TokenId) -> Option<TokenKind> {
        let own = self.kinds.get(id.0 as usize).copied();
        own.or_else(|| self.virtuals.iter().any(|v| v.id == id).then_some(TokenKind::Control))
    }

    /// The token whose text is `text`; U+2581 equals a space.
    pub fn id_of(&self, text: &str) -> Option<TokenId> {
        let text = super::spaced(text, false);
        let own = self.find(&text).map(TokenId);
        own.or_else(|| self.virtuals.iter().find(|v| v.text == text).map(|v| v.id))
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> TokenId {
        self.bos
    }

    /// Unknown.
    pub fn unk(&self) -> Option<TokenId> {
        self.special.unk
    }

    /// Padding.
    pub fn pad(&self) -> Option<TokenId> {
        self.special.pad
    }

    /// Whether prompts begin with bos.
    pub fn adds_bos(&self) -> bool {
        self.special.add_bos
    }

    /// Whether the file asks for eos at the end of a text.
    pub fn adds_eos(&self) -> bool {
        self.special.add_eos
    }

    /// Whether a space is put before a text.
    pub fn adds_space_prefix(&self) -> bool {
        self.special.add_space_prefix
    }

    /// Whether generation ends at `id`.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.ends_generation.contains(&id)
    }

    /// All tokens with their text and kind, virtual ones last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, &str, TokenKind)> {
        let own =
            self.kinds.iter().zip(0u32..).map(|(&kind, i)| (TokenId(i), self.text_of(i), kind));
        own.chain(self.virtuals.iter().map(|v| (v.id, v.text.as_str(), TokenKind::Control)))
    }

    /// The order of merges that make `id`, as an integer: greater is earlier. User-defined pieces
    /// are made before all others, whatever their score.
    #[inline]
    pub(super) fn rank(&self, id: TokenId) -> u32 {
        let i = id.0 as usize;
        if self.kinds[i] == TokenKind::UserDefined {
            return u32::MAX;
        }
        // Adding zero makes one of the two zeros. The bits of floats order like integers of sign
        // and magnitude.
        let bits = (self.scores[i] + 0.0).to_bits();
        if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
    }

    /// The piece that `text` can become by merging: a normal or user-defined one.
    #[inline]
    pub(super) fn mergeable(&self, text: &str) -> Option<TokenId> {
        let id = self.find(text)?;
        matches!(self.kinds[id as usize], TokenKind::Normal | TokenKind::UserDefined)
            .then_some(TokenId(id))
    }

    /// The piece of one byte.
    pub(super) fn byte_piece(&self, byte: u8) -> Option<TokenId> {
        self.bytes[usize::from(byte)]
    }

    /// The byte that a byte piece stands for.
    pub(super) fn byte_of(&self, id: TokenId) -> Option<u8> {
        match self.kinds.get(id.0 as usize)? {
            TokenKind::Byte => parse_byte(self.text_of(id.0)),
            _ => None,
        }
    }

    #[inline]
    fn text_of(&self, id: u32) -> &str {
        text_of(&self.text, &self.ends, id)
    }

    #[inline]
    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text.as_bytes());
        self.index.find(hash, |&id| self.text_of(id) == text).copied()
    }

    /// Of pieces with the same text the first counts, but one that text can become goes
    /// before one that it cannot.
    fn fill_index(&mut self) {
        let (text, ends, hasher) = (&self.text, &self.ends, &self.hasher);
        let hash_of = |id: u32| hasher.hash_one(text_of(text, ends, id).as_bytes());
        let reachable = |kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined);
        for id in 0..ends.len() as u32 {
            let piece = text_of(text, ends, id);
            let same = |&other: &u32| text_of(text, ends, other) == piece;
            let hash = hash_of(id);
            match self.index.find_mut(hash, same) {
                Some(first) => {
                    if !reachable(self.kinds[*first as usize]) && reachable(self.kinds[id as usize])
                    {
                        *first = id;
                    }
                }
                None => {
                    self.index.insert_unique(hash, id, |&id| hash_of(id));
                }
            }
        }
    }

    fn find_bytes(&mut self) -> Result<(), Error> {
        for (i, _) in self.kinds.iter().enumerate().filter(|(_, k)| **k == TokenKind::Byte) {
            let id = TokenId(i as u32);
            let piece = text_of(&self.text, &self.ends, id.0);
            let byte =
                parse_byte(piece).ok_or_else(|| Error::BytePiece { id, piece: piece.into() })?;
            self.bytes[usize::from(byte)].get_or_insert(id);
        }
        Ok(())
    }

    /// Checks the special ids and finds by text those that the file does not name.
    fn find_specials(&mut self) -> Result<(), Error> {
        let named = [
            ("bos", self.special.bos),
            ("eot", self.special.eot),
            ("unknown", self.special.unk),
            ("padding", self.special.pad),
        ];
        let named = named.into_iter().filter_map(|(what, id)| Some((what, id?)));
        for (what, id) in named.chain(self.special.eos.iter().map(|&id| ("eos", id))) {
            if id.0 as usize >= self.len() {
                return Err(Error::IdOutOfRange { what, id, pieces: self.len() });
            }
        }
        let bos = self.special.bos.or_else(|| self.id_of("<bos>"));
        self.bos = bos.ok_or(Error::Missing { what: "bos" })?;
        let mut ends = self.special.eos.clone();
        ends.extend(self.id_of("<eos>"));
        if ends.is_empty() {
            return Err(Error::Missing { what: "eos" });
        }
        ends.extend(self.special.eot);
        ends.extend(self.id_of("<end_of_turn>"));
        ends.sort_unstable();
        ends.dedup();
        self.ends_generation = ends;
        if self.special.unk.is_none() {
            let first = self.kinds.iter().position(|kind| *kind == TokenKind::Unknown);
            self.special.unk = first.map(|i| TokenId(i as u32));
        }
        let lacking = (0..=u8::MAX).find(|&byte| self.byte_piece(byte).is_none());
        match (lacking, self.special.unk) {
            (Some(byte), None) => Err(Error::NoFallback { byte }),
            _ => Ok(()),
        }
    }
}

/// Copies the pieces into one string, spaces in place of U+2581.
fn gather<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(String, Vec<u32>), Error> {
    let pieces = pieces.into_iter();
    let mut text = String::new();
    let mut ends = Vec::with_capacity(pieces.size_hint().0.min(1 << 20));
    for piece in pieces {
        let id = TokenId(u32::try_from(ends.len()).unwrap_or(u32::MAX));
        if piece.is_empty() {
            return Err(Error::EmptyPiece { id });
        }
        let piece = std::str::from_utf8(piece).map_err(|_| Error::NotUtf8 { id })?;
        let mut parts = piece.split(SPACE_MARK);
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            text.push(' ');
            text.push_str(part);
        }
        match u32::try_from(text.len()) {
            Ok(end) if id.0 < u32::MAX => ends.push(end),
            _ => return Err(Error::TooLarge { pieces: ends.len(), bytes: text.len() }),
        }
    }
    Ok((text, ends))
}

#[inline]
fn text_of<'a>(text: &'a str, ends: &[u32], id: u32) -> &'a str {
    let start = if id == 0 { 0 } else { ends[id as usize - 1] };
    &text[start as usize..ends[id as usize] as usize]
}

/// `<0x41>` → 0x41.
fn parse_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn is_end_text(text: &str) -> bool {
    matches!(text, "<eos>" | "<end_of_turn>")
}

#[cfg(test)]
mod tests;
