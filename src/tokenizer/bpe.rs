//! One stretch of text into ids: byte-pair merges in the order of the pieces' scores.
//!
//! Each character that has a piece is a symbol. Of all neighbours whose joined text is a piece,
//! the pair with the best rank becomes one symbol, until there is none:
//!
//! rank = (score of the joined piece, length of the left part, length of the right part), greatest
//! first; equal pairs from left to right. User-defined pieces (runs of spaces) go before all others.
//!
//! That is the order of Gemma's merge list, which holds every split of a piece into two pieces,
//! sorted by that rank; so no list is needed. Reference: `tokenizers` BPE (`Word::merge_all`) on
//! the merges that the Gemma converter generates.
//!
//! A heap over a linked list makes it n log n. No piece spans two neighbouring bytes that stand side
//! by side in no piece, so the text is cut there without changing the result: nearly always
//! before a space, which keeps the lists as short as words.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{TokenId, Vocabulary};

/// Symbols merged as one list at most. Gemma's text is cut at every word; a longer run without a
/// cut bounds the memory here rather than end the program.
const MAX_SYMBOLS: usize = 1 << 24;

/// Merging with one vocabulary.
#[derive(Debug)]
pub(super) struct Merger {
    /// Which pairs of bytes stand side by side in a piece, by `left << 8 | right`.
    adjacent: Box<[u64; 1024]>,
    /// Pieces of the ASCII characters.
    ascii: [Option<TokenId>; 128],
}

/// Memory that stretches share.
#[derive(Debug, Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Pair>,
}

/// A piece of the text, linked to its neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: TokenId,
    /// Byte offset in the list's text.
    start: u32,
    /// Length in bytes; 0 once merged into the left neighbour.
    len: u32,
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Two neighbours that make a piece. The greatest is merged first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    left_len: u32,
    right_len: u32,
    left: Reverse<u32>,
    id: TokenId,
}

impl Merger {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut adjacent = Box::new([0; 1024]);
        for (_, piece, _) in vocabulary.iter() {
            for pair in piece.as_bytes().windows(2) {
                let (word, bit) = place(pair[0], pair[1]);
                adjacent[word] |= bit;
            }
        }
        let ascii = std::array::from_fn(|i| {
            let character = char::from(i as u8);
            vocabulary.mergeable(character.encode_utf8(&mut [0; 4]))
        });
        Self { adjacent, ascii }
    }

    /// Appends the ids of `text`, in which spaces stand for U+2581.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        work: &mut Work,
        ids: &mut Vec<TokenId>,
    ) {
        let mut list_start = 0;
        let mut before = 0;
        let mut after_unknown = false;
        for (at, character) in text.char_indices() {
            let bytes = &text.as_bytes()[at..at + character.len_utf8()];
            let id = match self.ascii.get(character as usize) {
                Some(&id) => id,
                None => vocabulary.mergeable(&text[at..at + bytes.len()]),
            };
            let cut = !self.may_join(before, bytes[0]) || work.symbols.len() == MAX_SYMBOLS;
            if cut || id.is_none() {
                work.merge(vocabulary, &text[list_start..at], ids);
                list_start = at;
            }
            match id {
                Some(id) => work.push(id, at - list_start, bytes.len()),
                None => list_start = at + bytes.len(),
            }
            // One unknown token stands for any number of unknown characters in a row.
            let known = id.is_some() || byte_pieces(vocabulary, bytes, ids);
            if !known && !after_unknown {
                ids.extend(vocabulary.unk());
            }
            after_unknown = !known;
            before = bytes[bytes.len() - 1];
        }
        work.merge(vocabulary, &text[list_start..], ids);
    }

    fn may_join(&self, left: u8, right: u8) -> bool {
        let (word, bit) = place(left, right);
        self.adjacent[word] & bit != 0
    }
}

/// Word and bit of a pair of bytes.
fn place(left: u8, right: u8) -> (usize, u64) {
    let index = usize::from(left) << 8 | usize::from(right);
    (index / 64, 1 << (index % 64))
}

/// The pieces of a character's bytes, if all are there.
fn byte_pieces(vocabulary: &Vocabulary, bytes: &[u8], ids: &mut Vec<TokenId>) -> bool {
    let all = bytes.iter().all(|&byte| vocabulary.byte_piece(byte).is_some());
    if all {
        ids.extend(bytes.iter().filter_map(|&byte| vocabulary.byte_piece(byte)));
    }
    all
}

impl Work {
    /// Appends a symbol to the list.
    fn push(&mut self, id: TokenId, start: usize, len: usize) {
        let here = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = here;
        }
        let prev = here.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start: start as u32, len: len as u32, prev, next: NONE });
    }

    /// Merges the list, whose text is `text`, appends its ids and empties it.
    fn merge(&mut self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<TokenId>) {
        if self.symbols.len() > 1 {
            self.merge_pairs(vocabulary, text);
        }
        ids.extend(self.symbols.iter().filter(|symbol| symbol.len > 0).map(|symbol| symbol.id));
        self.symbols.clear();
    }

    fn merge_pairs(&mut self, vocabulary: &Vocabulary, text: &str) {
        for left in 0..self.symbols.len() as u32 - 1 {
            self.look_at(vocabulary, text, left);
        }
        while let Some(pair) = self.heap.pop() {
            let left = self.symbols[pair.left.0 as usize];
            if left.len != pair.left_len || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            if right.len != pair.right_len {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = pair.left.0;
            }
            let joined = &mut self.symbols[pair.left.0 as usize];
            (joined.id, joined.len, joined.next) = (pair.id, left.len + right.len, right.next);
            self.look_at(vocabulary, text, pair.left.0);
            if left.prev != NONE {
                self.look_at(vocabulary, text, left.prev);
            }
        }
    }

    /// Queues the symbol `left` and its right neighbour if they make a piece.
    fn look_at(&mut self, vocabulary: &Vocabulary, text: &str, left: u32) {
        let a = self.symbols[left as usize];
        let Some(b) = self.symbols.get(a.next as usize) else { return };
        let joined = &text[a.start as usize..(b.start + b.len) as usize];
        let Some(id) = vocabulary.mergeable(joined) else { return };
        self.heap.push(Pair {
            rank: vocabulary.rank(id),
            left_len: a.len,
            right_len: b.len,
            left: Reverse(left),
            id,
        });
    }
}
