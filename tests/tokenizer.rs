//! Encoding and decoding against the reference tokenizer: the oracle's vocabulary, and a small one
//! in here that has what theirs lacks.
//!
//! The ids and texts of the small vocabulary were made with Python `tokenizers` 0.23.3 from a
//! `tokenizer.json` put together as Gemma's is: model BPE with `byte_fallback` and `fuse_unk`; merges
//! are all splits of a piece into two pieces, those of user-defined pieces first, then in the order
//! of ids, longest left part first; normalizer Replace " " → U+2581; decoder Replace, ByteFallback,
//! Fuse; control, unknown and user-defined pieces are added tokens, user-defined ones not special.
//! `encode_special_tokens` gives the ids of a text in which control tokens are text.

#[path = "support/shared.rs"]
mod shared;

use std::collections::HashMap;
use std::path::Path;

use gemma3n::tokenizer::{SpecialIds, Specials, TokenId, TokenKind, Tokenizer, Vocabulary};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use TokenKind::{Byte, Control, Normal, Unknown, UserDefined};

/// Text, ids with control tokens parsed, ids with control tokens as text.
type Case = (&'static str, &'static [u32], &'static [u32]);

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|id| id.0).collect()
}

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[TokenId]) -> String {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(tokenizer, id)).collect();
    text.push_str(&stream.finish());
    text
}

fn small_pieces(with_bytes: bool) -> Vec<(String, TokenKind)> {
    let control = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
    let user =
        ["\n", "\n\n", "\n\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁", "<b>", "</b>", "<br>", "<unused0>"];
    let merged = [
        "th", "the", "▁t", "▁the", "an", "and", "▁an", "▁and", "ab", "abc", "bc", "aa", "aaa",
        "aaaa", ">▁<", "▁a", "én", "日本", "bca",
    ];
    let characters = "▁abcdehnot<>/=,.é日本😀";

    let kind = |piece: &str| if piece == "<unk>" { Unknown } else { Control };
    let mut pieces: Vec<_> = control.map(|piece| (piece.to_owned(), kind(piece))).into();
    pieces.extend(user.map(|piece| (piece.to_owned(), UserDefined)));
    if with_bytes {
        pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), Byte)));
    }
    pieces.extend(merged.map(|piece| (piece.to_owned(), Normal)));
    pieces.extend(characters.chars().map(|piece| (piece.to_string(), Normal)));
    pieces
}

/// The small vocabulary, with scores as GGUF files have them.
fn small(with_bytes: bool) -> Tokenizer {
    Tokenizer::new(small_vocabulary(with_bytes)).unwrap()
}

fn small_vocabulary(with_bytes: bool) -> Vocabulary {
    vocabulary(with_bytes, SpecialIds::default())
}

fn vocabulary(with_bytes: bool, special: SpecialIds) -> Vocabulary {
    let pieces = small_pieces(with_bytes);
    let score = |(i, (_, kind)): (usize, &(String, TokenKind))| match kind {
        Normal => -(i as f32),
        Byte => 0.0,
        _ => -1000.0,
    };
    let scores = pieces.iter().enumerate().map(score).collect();
    let kinds = pieces.iter().map(|(_, kind)| *kind).collect();
    let texts = pieces.iter().map(|(piece, _)| piece.as_bytes());
    Vocabulary::new(texts, scores, kinds, special).unwrap()
}

const WITH_BYTES: &[Case] = &[
    ("", &[], &[]),
    ("the", &[274], &[274]),
    (" the and the", &[276, 280, 276], &[276, 280, 276]),
    ("then and", &[274, 299, 280], &[274, 299, 280]),
    (" ", &[292], &[292]),
    ("  ", &[10], &[10]),
    ("     ", &[12, 292], &[12, 292]),
    ("a  b", &[293, 10, 294], &[293, 10, 294]),
    ("a   the", &[293, 11, 274], &[293, 11, 274]),
    ("\u{2581}", &[292], &[292]),
    ("\u{2581} ", &[10], &[10]),
    (" \u{2581}", &[10], &[10]),
    ("a\u{2581}\u{2581} b", &[293, 10, 292, 294], &[293, 10, 292, 294]),
    ("  \u{2581}the", &[11, 274], &[11, 274]),
    ("\n", &[6], &[6]),
    ("\n\n\n\n", &[8, 6], &[8, 6]),
    ("a\nb\n\n c", &[293, 6, 294, 7, 292, 295], &[293, 6, 294, 7, 292, 295]),
    ("\t\t", &[9, 9], &[9, 9]),
    ("aaa", &[285], &[285]),
    ("aaaaa", &[284, 285], &[284, 285]),
    ("aaaaaaa", &[286, 285], &[286, 285]),
    ("abca", &[282, 293], &[282, 293]),
    ("abcabca", &[282, 282, 293], &[282, 282, 293]),
    ("bcabc", &[283, 282], &[283, 282]),
    ("aabcaa", &[293, 282, 284], &[293, 282, 284]),
    ("<b>the</b>", &[13, 274, 14], &[13, 274, 14]),
    ("<br>", &[15], &[15]),
    (" <b > </b>", &[292, 302, 294, 292, 303, 292, 14], &[292, 302, 294, 292, 303, 292, 14]),
    ("> <b>", &[303, 292, 13], &[303, 292, 13]),
    (" > </", &[292, 303, 292, 302, 304], &[292, 303, 292, 302, 304]),
    ("<bos>", &[2], &[302, 294, 300, 132, 303]),
    ("a<bos>b", &[293, 2, 294], &[293, 302, 294, 300, 132, 303, 294]),
    (
        "<start_of_turn>the\nand<end_of_turn>\n",
        &[4, 274, 6, 278, 5, 6],
        &[
            302, 132, 301, 293, 131, 301, 112, 300, 119, 112, 301, 134, 131, 299, 303, 274, 6, 278,
            302, 297, 299, 296, 112, 300, 119, 112, 301, 134, 131, 299, 303, 6,
        ],
    ),
    ("<unused0> <unk>a", &[16, 292, 3, 293], &[16, 292, 302, 134, 299, 124, 303, 293]),
    ("<<bos>>", &[302, 2, 303], &[302, 302, 294, 300, 132, 303, 303]),
    ("<bos", &[302, 294, 300, 132], &[302, 294, 300, 132]),
    ("<unk>Q", &[3, 98], &[302, 134, 299, 124, 303, 98]),
    ("é", &[308], &[308]),
    ("én", &[289], &[289]),
    ("日本", &[290], &[290]),
    ("日", &[309], &[309]),
    ("本日", &[310, 309], &[310, 309]),
    ("😀", &[311], &[311]),
    ("€", &[243, 147, 189], &[243, 147, 189]),
    ("zé", &[139, 308], &[139, 308]),
    ("Zz日Q", &[107, 139, 309, 98], &[107, 139, 309, 98]),
    ("\0", &[17], &[17]),
    ("a\r\nb", &[293, 30, 6, 294], &[293, 30, 6, 294]),
    ("<0x41>", &[302, 65, 137, 69, 66, 303], &[302, 65, 137, 69, 66, 303]),
    ("</b", &[302, 304, 294], &[302, 304, 294]),
    ("👍", &[257, 176, 162, 158], &[257, 176, 162, 158]),
    ("e\u{301}", &[297, 221, 146], &[297, 221, 146]),
    (
        "the aaaaaaaaaaaa ab",
        &[274, 292, 286, 286, 286, 292, 281],
        &[274, 292, 286, 286, 286, 292, 281],
    ),
];

const WITHOUT_BYTES: &[Case] = &[
    (
        "<start_of_turn>the\nand<end_of_turn>\n",
        &[4, 18, 6, 22, 5, 6],
        &[
            46, 3, 45, 37, 3, 45, 3, 44, 3, 45, 3, 43, 47, 18, 6, 22, 46, 41, 43, 40, 3, 44, 3, 45,
            3, 43, 47, 6,
        ],
    ),
    ("<unused0> <unk>a", &[16, 36, 3, 37], &[16, 36, 46, 3, 43, 3, 47, 37]),
    ("<unk>Q", &[3, 3], &[46, 3, 43, 3, 47, 3]),
    ("€", &[3], &[3]),
    ("zé", &[3, 52], &[3, 52]),
    ("Zz日Q", &[3, 53, 3], &[3, 53, 3]),
    ("\0", &[3], &[3]),
    ("a\r\nb", &[37, 3, 6, 38], &[37, 3, 6, 38]),
    ("<0x41>", &[46, 3, 47], &[46, 3, 47]),
    ("👍", &[3], &[3]),
    ("e\u{301}", &[41, 3], &[41, 3]),
];

/// Ids, their text, their text without control tokens.
const DECODED: &[(&[u32], &str, &str)] = &[
    (&[], "", ""),
    (&[2, 243, 147, 189], "<bos>€", "€"),
    (&[243, 147], "\u{FFFD}\u{FFFD}", "\u{FFFD}\u{FFFD}"),
    (&[243, 147, 189, 272], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
    (&[243, 0, 147, 189], "\u{FFFD}<pad>\u{FFFD}\u{FFFD}", "€"),
    (
        &[257, 176, 169, 273, 145],
        "\u{FFFD}\u{FFFD}\u{FFFD}th\u{FFFD}",
        "\u{FFFD}\u{FFFD}\u{FFFD}th\u{FFFD}",
    ),
    (&[82, 7, 27, 12, 276], "A\n\n\n     the", "A\n\n\n     the"),
    (&[3, 276, 1], "<unk> the<eos>", " the"),
    (&[212, 186, 212, 186, 274], "ééthe", "ééthe"),
    (&[9999, 276], " the", " the"),
    (&[16, 273, 145], "<unused0>th\u{FFFD}", "<unused0>th\u{FFFD}"),
];

#[test]
fn small_vocabulary_encodes_as_the_reference() {
    for (with_bytes, cases) in [(true, WITH_BYTES), (false, WITHOUT_BYTES)] {
        let tokenizer = small(with_bytes);
        for (text, parsed, as_text) in cases {
            assert_eq!(ids(&tokenizer.encode(text, Specials::Parse)), *parsed, "{text:?}");
            assert_eq!(ids(&tokenizer.encode(text, Specials::AsText)), *as_text, "{text:?}");
        }
    }
}

#[test]
fn small_vocabulary_decodes_as_the_reference() {
    let tokenizer = small(true);
    for (ids, all, skipped) in DECODED {
        let ids = tokens(ids);
        assert_eq!(tokenizer.decode(&ids, false), *all, "{ids:?}");
        assert_eq!(tokenizer.decode(&ids, true), *skipped, "{ids:?}");
        assert_eq!(streamed(&tokenizer, &ids), *skipped, "{ids:?}");
    }
}

#[test]
fn a_stream_gives_whole_characters_as_soon_as_they_are_certain() {
    let tokenizer = small(true);
    let euro = tokenizer.encode("€", Specials::AsText);
    let the = tokenizer.id_of(" the").unwrap();
    let mut stream = tokenizer.stream();
    for &id in &euro {
        assert_eq!(stream.push(&tokenizer, id), "");
    }
    assert_eq!(stream.push(&tokenizer, the), "€ the");
    assert_eq!(stream.push(&tokenizer, the), " the");
    assert_eq!(stream.push(&tokenizer, euro[0]), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
    assert_eq!(stream.finish(), "");
}

/// Strings of pieces and broken pieces: text comes back, no control token comes out of text, and a
/// stream gives what decoding at once gives, for ids of texts and for any ids.
#[test]
fn any_text_comes_back_without_control_tokens() {
    let tokenizer = small(true);
    let pieces: Vec<String> = small_pieces(true).into_iter().map(|(piece, _)| piece).collect();
    let strange = ["\0", "€", "👍🏽", "e\u{301}", "\u{10FFFF}", "\r\n", "<", "bos>", "<end_of"];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..3000 {
        let n = rng.random_range(0..30);
        let text: String = (0..n)
            .map(|_| match rng.random_range(0..4) {
                0 => *strange.choose(&mut rng).unwrap(),
                1 => " ",
                _ => pieces.choose(&mut rng).unwrap(),
            })
            .collect();
        let ids = tokenizer.encode(&text, Specials::AsText);
        assert!(ids.iter().all(|&id| tokenizer.kind(id) != Some(Control)), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false), text.replace('▁', " "));
        assert_eq!(streamed(&tokenizer, &ids), text.replace('▁', " "));

        let any: Vec<_> =
            (0..n).map(|_| TokenId(rng.random_range(0..tokenizer.n_tokens() as u32))).collect();
        assert_eq!(streamed(&tokenizer, &any), tokenizer.decode(&any, true), "{any:?}");
    }
}

/// Nothing here may take time that grows with the square of the length.
#[test]
fn a_long_run_is_encoded_whole() {
    let tokenizer = small(true);
    let n = 60_000;
    for (unit, piece) in
        [("a", "aaaa"), (" ", "▁▁▁▁"), ("\n", "\n\n\n"), ("<", "<"), ("abc", "abc")]
    {
        let ids = tokenizer.encode(&unit.repeat(3 * n), Specials::Parse);
        let length = piece.chars().count() / unit.len();
        assert_eq!(ids.len(), 3 * n / length.max(1));
        let expected = tokenizer.id_of(piece);
        assert!(ids.iter().all(|&id| Some(id) == expected), "{unit:?}");
    }
}

#[test]
fn virtual_control_tokens_are_parsed_but_never_typed() {
    let mut vocabulary = small_vocabulary(true);
    let n = vocabulary.len();
    let image = TokenId(n as u32 + 5);
    vocabulary.add_virtual(image, "<image_soft_token>").unwrap();
    // A text that has a piece keeps it.
    vocabulary.add_virtual(TokenId(90_000), "<bos>").unwrap();
    let taken = vocabulary.add_virtual(image, "<end_of_image>").unwrap_err();
    assert_eq!(
        taken.to_string(),
        format!("vocabulary: id {image} for <end_of_image> is taken by \"<image_soft_token>\"")
    );

    let tokenizer = Tokenizer::new(vocabulary).unwrap();
    assert_eq!(tokenizer.n_tokens(), n);
    assert_eq!(tokenizer.id_of("<image_soft_token>"), Some(image));
    assert_eq!(tokenizer.id_of("<bos>"), Some(TokenId(2)));
    assert_eq!(tokenizer.kind(image), Some(Control));
    assert_eq!(tokenizer.piece(image), b"<image_soft_token>");
    let text = "a<image_soft_token>b";
    let letter = |text| tokenizer.id_of(text).unwrap();
    let parsed = tokenizer.encode(text, Specials::Parse);
    assert_eq!(parsed, [letter("a"), image, letter("b")]);
    assert_eq!(tokenizer.decode(&parsed, false), text);
    assert_eq!(tokenizer.decode(&parsed, true), "ab");
    let typed = tokenizer.encode(text, Specials::AsText);
    assert!(!typed.contains(&image));
    assert_eq!(tokenizer.decode(&typed, true), text);
}

#[test]
fn specials_are_found_by_text_where_the_file_names_none() {
    let tokenizer = small(true);
    let id = |text| tokenizer.id_of(text).unwrap();
    assert_eq!(tokenizer.bos(), id("<bos>"));
    let ends = (0..tokenizer.n_tokens() as u32).map(TokenId).filter(|&id| tokenizer.is_end(id));
    assert_eq!(ends.collect::<Vec<_>>(), [id("<eos>"), id("<end_of_turn>")]);
    assert_eq!(tokenizer.id_of("▁the"), tokenizer.id_of(" the"));
    assert_eq!(tokenizer.id_of("nothing"), None);
    assert_eq!(tokenizer.piece(TokenId(4_000_000)), b"");
}

/// Not Gemma's way, but a file can ask for it.
#[test]
fn a_space_is_put_before_a_text_where_the_file_says_so() {
    let special = SpecialIds { add_space_prefix: true, ..SpecialIds::default() };
    let tokenizer = Tokenizer::new(vocabulary(true, special)).unwrap();
    let plain = small(true);
    for (text, prefixed) in [("the", " the"), (" a", "  a"), ("the<b>the", " the<b>the")] {
        let expected = plain.encode(prefixed, Specials::Parse);
        assert_eq!(tokenizer.encode(text, Specials::Parse), expected, "{text:?}");
    }
    for text in ["", "<bos>the"] {
        let expected = plain.encode(text, Specials::Parse);
        assert_eq!(tokenizer.encode(text, Specials::Parse), expected, "{text:?}");
    }
}

/// A vocabulary as a converter makes it from `tokenizer.json`.
fn from_json(path: &Path) -> Tokenizer {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut pieces = vec![""; vocab.len()];
    for (piece, id) in vocab {
        pieces[id.as_u64().unwrap() as usize] = piece;
    }
    let mut ranks = HashMap::new();
    for (rank, merge) in json["model"]["merges"].as_array().unwrap().iter().enumerate() {
        let part = |i: usize| merge[i].as_str().unwrap();
        ranks.entry(format!("{}{}", part(0), part(1))).or_insert(rank);
    }
    let mut scores: Vec<f32> =
        pieces.iter().map(|piece| ranks.get(*piece).map_or(-1e6, |rank| -(*rank as f32))).collect();
    let is_byte = |piece: &str| piece.len() == 6 && piece.starts_with("<0x");
    let mut kinds: Vec<_> =
        pieces.iter().map(|piece| if is_byte(piece) { Byte } else { Normal }).collect();
    for token in json["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        scores[id] = -1000.0;
        kinds[id] = match (token["content"].as_str(), token["special"].as_bool()) {
            (Some("<unk>"), _) => Unknown,
            (_, Some(true)) => Control,
            _ => UserDefined,
        };
    }
    let special = SpecialIds { add_bos: true, ..SpecialIds::default() };
    let pieces = pieces.iter().map(|piece| piece.as_bytes());
    Tokenizer::new(Vocabulary::new(pieces, scores, kinds, special).unwrap()).unwrap()
}

fn id_list(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect()
}

#[test]
fn oracle_cases_are_met() {
    let Some(shared) = shared::shared() else { return };
    let cases = std::fs::read(shared.join("oracle/tokenizer_cases.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    for model in ["text", "full"] {
        let tokenizer = from_json(&shared.join(format!("oracle/{model}/tokenizer.json")));
        for case in cases["encode"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let mut found = tokenizer.encode(text, Specials::Parse);
            assert_eq!(found, id_list(&case["ids_no_bos"]), "{text:?}");
            found.insert(0, tokenizer.bos());
            assert_eq!(found, id_list(&case["ids"]), "{text:?}");
            decodes_to(&tokenizer, &found, case);
        }
        for case in cases["decode"].as_array().unwrap() {
            decodes_to(&tokenizer, &id_list(&case["ids"]), case);
        }
    }
}

fn decodes_to(tokenizer: &Tokenizer, ids: &[TokenId], case: &Value) {
    assert_eq!(tokenizer.decode(ids, false), case["decoded"].as_str().unwrap(), "{ids:?}");
    let skipped = case["decoded_skip_special"].as_str().unwrap();
    assert_eq!(tokenizer.decode(ids, true), skipped, "{ids:?}");
    assert_eq!(streamed(tokenizer, ids), skipped, "{ids:?}");
}
