//! Ids to text, whole or as a stream.
//!
//! Bytes of consecutive byte pieces are text if together they are valid UTF-8; if not, each
//! becomes one U+FFFD. So a stream holds back a run of byte pieces until another piece
//! follows: what it has given out is then always what decoding all ids at once gives.
//! Reference: `tokenizers` decoders ByteFallback and Fuse.

use super::{TokenId, TokenKind, Tokenizer, Vocabulary};

/// Text of ids that arrive one by one. Control tokens and the unknown token give nothing.
#[derive(Debug, Default)]
pub struct DecodeStream {
    run: ByteRun,
}

impl DecodeStream {
    /// The text that is certain with `id`: whole characters only, often none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> String {
        let mut text = String::new();
        push(tokenizer.vocabulary(), id, true, &mut self.run, &mut text);
        text
    }

    /// The text still held back, at the end of the ids. The stream can be used again.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.run.flush(&mut text);
        text
    }
}

/// The text of `ids`.
pub(super) fn decode(vocabulary: &Vocabulary, ids: &[TokenId], skip_special: bool) -> String {
    let (mut run, mut text) = (ByteRun::default(), String::new());
    for &id in ids {
        push(vocabulary, id, skip_special, &mut run, &mut text);
    }
    run.flush(&mut text);
    text
}

/// A skipped token does not end a run of bytes: the reference drops it before it decodes.
fn push(
    vocabulary: &Vocabulary,
    id: TokenId,
    skip_special: bool,
    run: &mut ByteRun,
    text: &mut String,
) {
    let (Some(piece), Some(kind)) = (vocabulary.piece(id), vocabulary.kind(id)) else { return };
    if skip_special && matches!(kind, TokenKind::Control | TokenKind::Unknown) {
        return;
    }
    match vocabulary.byte_of(id) {
        Some(byte) => run.bytes.push(byte),
        None => {
            run.flush(text);
            text.push_str(piece);
        }
    }
}

/// The bytes of consecutive byte pieces.
#[derive(Debug, Default)]
struct ByteRun {
    bytes: Vec<u8>,
}

impl ByteRun {
    fn flush(&mut self, text: &mut String) {
        match std::str::from_utf8(&self.bytes) {
            Ok(whole) => text.push_str(whole),
            Err(_) => text.extend(self.bytes.iter().map(|_| char::REPLACEMENT_CHARACTER)),
        }
        self.bytes.clear();
    }
}
