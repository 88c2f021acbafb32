//! Pieces that are cut out of a text before anything is merged.
//!
//! Control, unknown and user-defined pieces match leftmost-longest on the raw text, before
//! U+2581 and the space become one; a run of spaces is therefore left to the merges, where
//! it comes to the same piece, and only a typed run of U+2581 is cut out here. A control
//! token found where it counts as text stays text, the whole of it.
//! Reference: `tokenizers` AddedVocabulary (`encode_special_tokens` for the latter).

use aho_corasick::{AhoCorasick, AhoCorasickKind, FindIter, MatchKind};

use super::vocabulary::SPACE_MARK;
use super::{Error, Specials, TokenId, TokenKind, Vocabulary};

/// A matcher of all added pieces.
#[derive(Debug)]
pub(super) struct AddedPieces {
    matcher: AhoCorasick,
    /// By number of the pattern.
    pieces: Vec<Added>,
}

#[derive(Clone, Copy, Debug)]
struct Added {
    id: TokenId,
    special: bool,
}

/// A part of a text, never empty.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    /// An added piece.
    Piece(TokenId),
    /// What lies between two of them.
    Text(&'a str),
}

impl AddedPieces {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let mut pieces = Vec::new();
        let mut patterns = Vec::new();
        for (id, text, kind) in vocabulary.iter() {
            let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
            if special || kind == TokenKind::UserDefined {
                pieces.push(Added { id, special });
                patterns.push(raw(text));
            }
        }
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA));
        let matcher = builder.build(patterns).map_err(|error| Error::Added(Box::new(error)))?;
        Ok(Self { matcher, pieces })
    }

    /// The parts of `text` in order.
    pub(super) fn split<'a>(&'a self, text: &'a str, specials: Specials) -> Split<'a> {
        let matches = self.matcher.find_iter(text);
        Split { pieces: &self.pieces, specials, text, matches, done: 0, next: None }
    }
}

/// The text that a piece matches: a run of spaces stands in the reference as one of U+2581.
fn raw(text: &str) -> String {
    if text.bytes().all(|byte| byte == b' ') {
        text.replace(' ', SPACE_MARK.encode_utf8(&mut [0; 4]))
    } else {
        text.to_owned()
    }
}

/// Iterator over the parts of a text.
pub(super) struct Split<'a> {
    pieces: &'a [Added],
    specials: Specials,
    text: &'a str,
    matches: FindIter<'a, 'a>,
    /// Length of the text already given out.
    done: usize,
    /// A piece found behind the stretch given out last: id and end.
    next: Option<(TokenId, usize)>,
}

impl<'a> Iterator for Split<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if let Some((id, end)) = self.next.take() {
            self.done = end;
            return Some(Part::Piece(id));
        }
        for found in self.matches.by_ref() {
            let piece = self.pieces[found.pattern().as_usize()];
            if piece.special && self.specials == Specials::AsText {
                continue;
            }
            if found.start() > self.done {
                self.next = Some((piece.id, found.end()));
                return Some(Part::Text(&self.text[self.done..found.start()]));
            }
            self.done = found.end();
            return Some(Part::Piece(piece.id));
        }
        let rest = &self.text[self.done..];
        self.done = self.text.len();
        (!rest.is_empty()).then_some(Part::Text(rest))
    }
}
