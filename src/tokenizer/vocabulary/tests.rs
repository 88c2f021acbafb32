use super::TokenKind::{Byte, Control, Normal, Unknown, Unused, UserDefined};
use super::*;

type Piece = (&'static [u8], f32, TokenKind);

const PIECES: [Piece; 6] = [
    (b"<eos>", -1000.0, Control),
    (b"<bos>", -1000.0, Control),
    (b"<unk>", -1000.0, Unknown),
    (b"a", -3.0, Normal),
    ("\u{2581}a".as_bytes(), -2.0, Normal),
    (b"\n", -1000.0, UserDefined),
];

fn build(pieces: &[Piece], special: SpecialIds) -> Result<Vocabulary, Error> {
    let scores = pieces.iter().map(|piece| piece.1).collect();
    let kinds = pieces.iter().map(|piece| piece.2).collect();
    Vocabulary::new(pieces.iter().map(|piece| piece.0), scores, kinds, special)
}

/// The error for `PIECES` with one of them replaced.
fn fault(at: usize, piece: Piece) -> String {
    let mut pieces = PIECES;
    pieces[at] = piece;
    build(&pieces, SpecialIds::default()).unwrap_err().to_string()
}

#[test]
fn a_broken_piece_is_named() {
    assert_eq!(fault(3, (b"", 0.0, Normal)), "vocabulary: piece 3 is empty");
    assert_eq!(fault(4, (b"\xE2\x96", 0.0, Normal)), "vocabulary: piece 4 is not valid UTF-8");
    assert_eq!(fault(3, (b"a", f32::NAN, Normal)), "vocabulary: score of piece 3 is NaN");
    assert_eq!(
        fault(5, (b"\n", f32::NEG_INFINITY, UserDefined)),
        "vocabulary: score of piece 5 is -inf"
    );
    for wrong in ["<0x1>", "<0x123>", "<0x+1>", "<0xGG>", "0x41", "<0xé>"] {
        let expected = format!(
            "vocabulary: piece 3 has type byte, but its text is {wrong:?}, not <0x00> to <0xFF>"
        );
        assert_eq!(fault(3, (wrong.as_bytes(), 0.0, Byte)), expected);
    }
}

#[test]
fn a_lacking_token_is_named() {
    assert_eq!(fault(1, (b"b", 0.0, Normal)), "vocabulary: no bos token");
    assert_eq!(fault(0, (b"b", 0.0, Normal)), "vocabulary: no eos token");
    assert_eq!(
        fault(2, (b"b", 0.0, Normal)),
        "vocabulary: byte piece <0x00> is missing, and there is no unknown token"
    );
}

#[test]
fn ids_past_the_pieces_are_refused() {
    let id = Some(TokenId(6));
    let cases = [
        ("bos", SpecialIds { bos: id, ..SpecialIds::default() }),
        ("eos", SpecialIds { eos: vec![TokenId(0), TokenId(6)], ..SpecialIds::default() }),
        ("eot", SpecialIds { eot: id, ..SpecialIds::default() }),
        ("unknown", SpecialIds { unk: id, ..SpecialIds::default() }),
        ("padding", SpecialIds { pad: id, ..SpecialIds::default() }),
    ];
    for (what, special) in cases {
        assert_eq!(
            build(&PIECES, special).unwrap_err().to_string(),
            format!("vocabulary: {what} id 6 is out of range, there are 6 pieces")
        );
    }
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let new = |pieces: usize, scores: usize, kinds: usize| {
        let texts = PIECES.iter().map(|piece| piece.0).cycle().take(pieces);
        let special = SpecialIds::default();
        Vocabulary::new(texts, vec![0.0; scores], vec![Normal; kinds], special)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(new(0, 0, 0), "vocabulary: no pieces");
    assert_eq!(new(6, 5, 6), "vocabulary: 5 scores for 6 pieces");
    assert_eq!(new(6, 6, 7), "vocabulary: 7 token types for 6 pieces");
}

#[test]
fn token_types_are_one_to_six() {
    let kinds = [Normal, Unknown, Control, UserDefined, Unused, Byte];
    for (number, kind) in (1..).zip(kinds) {
        assert_eq!(TokenKind::try_from(number).unwrap(), kind);
    }
    for number in [0, 7, -1] {
        let error = TokenKind::try_from(number).unwrap_err();
        assert_eq!(error.to_string(), format!("vocabulary: unknown token type {number}"));
    }
}

#[test]
fn ends_are_what_the_file_names_and_what_the_texts_say() {
    let mut pieces = PIECES.to_vec();
    pieces.push((b"<end_of_turn>", -1000.0, Control));
    let special = SpecialIds {
        eos: vec![TokenId(3)],
        eot: Some(TokenId(5)),
        bos: Some(TokenId(4)),
        ..SpecialIds::default()
    };
    let vocabulary = build(&pieces, special).unwrap();
    let ends = (0..10).filter(|&id| vocabulary.is_end(TokenId(id)));
    assert_eq!(ends.collect::<Vec<_>>(), [0, 3, 5, 6]);
    assert_eq!(vocabulary.bos(), TokenId(4));
}

#[test]
fn of_equal_pieces_the_first_that_text_can_become_counts() {
    let mut pieces = PIECES.to_vec();
    pieces.extend([
        (b"x".as_slice(), 0.0, Unused),
        (b"x".as_slice(), 0.0, Normal),
        (b"x".as_slice(), 0.0, Normal),
    ]);
    let vocabulary = build(&pieces, SpecialIds::default()).unwrap();
    assert_eq!(vocabulary.mergeable("x"), Some(TokenId(7)));
    assert_eq!(vocabulary.piece(TokenId(8)), Some("x"));
}

#[test]
fn ranks_order_as_scores_do() {
    let scores = [-1e30, -2.0, -1.0, -0.0, 1.0, 1e30];
    let mut pieces = PIECES.to_vec();
    pieces.extend(scores.map(|score| (b"a".as_slice(), score, Normal)));
    pieces.push((b"a", 0.0, Normal));
    let vocabulary = build(&pieces, SpecialIds::default()).unwrap();
    let ranks: Vec<u32> = (6..12).map(|id| vocabulary.rank(TokenId(id))).collect();
    assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    assert_eq!(vocabulary.rank(TokenId(12)), vocabulary.rank(TokenId(9)));
    assert!(vocabulary.rank(TokenId(5)) > vocabulary.rank(TokenId(11)));
}
