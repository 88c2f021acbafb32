//! A made-up vocabulary with Gemma's size and layout.
//!
//! | ids | pieces |
//! |---|---|
//! | 0 to 5 | `<pad>` `<eos>` `<bos>` `<unk>` `<mask>` `[multimodal]` |
//! | 6 to 104 | `<unused0>` … |
//! | 105, 106 | `<start_of_turn>`, `<end_of_turn>` |
//! | 107 to 137, 138 to 167 | runs of 1 to 31 newlines, of 2 to 31 spaces |
//! | 168 to 237 | markup tags |
//! | 238 to 493 | bytes |
//! | 494 to 255967 | learned pieces, the likeliest merge first, then single characters |
//! | 255968 to 255998 | runs of 1 to 31 tabs |
//! | 255999, 256000 | `<start_of_image>`, `<start_of_audio>` |
//! | 256001 to 262143 | `<unused99>` … |
//! | 262144 to 262399 | vision and audio markers, only with 262400 pieces |
//!
//! Every learned piece is two earlier ones joined, as in a trained vocabulary, so that merging by
//! score reaches it: all pairs of letters, then words of two to four syllables, with and without
//! the mark of a space in front.

use std::collections::HashSet;

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// The mark that stands for a space inside learned pieces.
const SPACE: char = '\u{2581}';
/// Ids with rows in the per-layer table.
pub const TEXT_PIECES: usize = 262_144;
/// With the ids of the vision and audio vocabularies.
pub const ALL_PIECES: usize = 262_400;
const FIRST_LEARNED: usize = 494;
const FIRST_TABS: usize = 255_968;

/// The kinds of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy)]
pub enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Byte = 6,
}

/// Pieces, scores and kinds by id.
#[derive(Default)]
pub struct Vocabulary {
    pub pieces: Vec<String>,
    pub scores: Vec<f32>,
    pub kinds: Vec<i32>,
}

impl Vocabulary {
    /// `size` is [`TEXT_PIECES`] or [`ALL_PIECES`].
    pub fn generate(size: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut vocabulary = Self::default();
        let mut unused = (0..).map(|i| format!("<unused{i}>"));
        for (piece, kind) in [
            ("<pad>", Kind::Control),
            ("<eos>", Kind::Control),
            ("<bos>", Kind::Control),
            ("<unk>", Kind::Unknown),
            ("<mask>", Kind::Control),
            ("[multimodal]", Kind::UserDefined),
        ] {
            vocabulary.push(piece.to_owned(), kind);
        }
        vocabulary.fill(105, &mut unused);
        vocabulary.push("<start_of_turn>".to_owned(), Kind::Control);
        vocabulary.push("<end_of_turn>".to_owned(), Kind::Control);
        vocabulary.fill(138, (1..).map(|n| "\n".repeat(n)));
        vocabulary.fill(168, (2..).map(|n| " ".repeat(n)));
        vocabulary.fill(
            238,
            (0..).map(|i| format!("<{}tag{}>", if i % 2 == 0 { "" } else { "/" }, i / 2)),
        );
        for byte in 0..=255 {
            vocabulary.push(format!("<0x{byte:02X}>"), Kind::Byte);
        }
        for piece in learned(FIRST_TABS - FIRST_LEARNED, rng) {
            vocabulary.push(piece, Kind::Normal);
        }
        vocabulary.fill(FIRST_TABS + 31, (1..).map(|n| "\t".repeat(n)));
        vocabulary.push("<start_of_image>".to_owned(), Kind::Control);
        vocabulary.push("<start_of_audio>".to_owned(), Kind::Control);
        vocabulary.fill(TEXT_PIECES, &mut unused);
        if size == ALL_PIECES {
            for name in ["image", "audio"] {
                let end = vocabulary.pieces.len() + 128;
                vocabulary.push(format!("<end_of_{name}>"), Kind::Control);
                vocabulary.push(format!("<{name}_soft_token>"), Kind::Control);
                vocabulary.fill(end, &mut unused);
            }
        }
        vocabulary
    }

    fn push(&mut self, piece: String, kind: Kind) {
        let score = match kind {
            Kind::Normal => -((self.pieces.len() - FIRST_LEARNED) as f32),
            Kind::UserDefined => -1000.0,
            Kind::Unknown | Kind::Control | Kind::Byte => 0.0,
        };
        self.pieces.push(piece);
        self.scores.push(score);
        self.kinds.push(kind as i32);
    }

    /// User-defined pieces up to the id `end`.
    fn fill(&mut self, end: usize, pieces: impl Iterator<Item = String>) {
        let count = end - self.pieces.len();
        pieces.take(count).for_each(|piece| self.push(piece, Kind::UserDefined));
    }
}

/// `count` learned pieces, merges before single characters.
fn learned(count: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let characters = characters();
    let merged = count - characters.len();
    let mut pieces = Pieces::default();
    let letters = || 'a'..='z';
    letters().for_each(|letter| pieces.push(format!("{SPACE}{letter}")));
    for first in letters() {
        letters().for_each(|second| pieces.push(format!("{first}{second}")));
    }
    let syllables: Vec<String> = letters()
        .filter(|consonant| !"aeiou".contains(*consonant))
        .flat_map(|consonant| "aeiou".chars().map(move |vowel| format!("{consonant}{vowel}")))
        .collect();
    let mut stems = syllables.clone();
    stems.extend(syllables.iter().map(|syllable| format!("{SPACE}{syllable}")));
    syllables.iter().for_each(|syllable| pieces.push(format!("{SPACE}{syllable}")));
    // Of the 22 050 words of two syllables most, then longer ones.
    for share in [0.08, 0.62, 1.0] {
        let end = pieces.list.len() + ((merged - pieces.list.len()) as f64 * share) as usize;
        let start = pieces.list.len();
        while pieces.list.len() < end {
            let stem = &stems[rng.random_range(0..stems.len())];
            let syllable = syllables.choose(rng).map_or("", String::as_str);
            pieces.push(format!("{stem}{syllable}"));
        }
        stems = pieces.list[start..].to_vec();
    }
    pieces.list.extend(characters);
    pieces.list
}

/// A list without repetitions.
#[derive(Default)]
struct Pieces {
    list: Vec<String>,
    known: HashSet<String>,
}

impl Pieces {
    fn push(&mut self, piece: String) {
        if self.known.insert(piece.clone()) {
            self.list.push(piece);
        }
    }
}

/// Characters with a piece of their own, in several scripts; the rest falls back to bytes.
fn characters() -> Vec<String> {
    let ranges = [
        '!'..='~',
        '\u{a1}'..='\u{17f}',    // Latin
        '\u{391}'..='\u{4ff}',   // Greek, Cyrillic
        '\u{5d0}'..='\u{5ea}',   // Hebrew
        '\u{621}'..='\u{64a}',   // Arabic
        '\u{905}'..='\u{97f}',   // Devanagari
        '\u{2010}'..='\u{2027}', // punctuation
        '\u{3001}'..='\u{30fe}', // kana
        '\u{4e00}'..='\u{7fff}', // Han
        '\u{ac00}'..='\u{bfff}', // Hangul
    ];
    let characters = ranges.into_iter().flatten().filter(|c| !c.is_control());
    std::iter::once(SPACE).chain(characters).map(String::from).collect()
}
