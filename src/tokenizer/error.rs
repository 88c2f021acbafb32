//! What can be wrong with a vocabulary.

use super::TokenId;

/// A vocabulary that cannot be used, naming the piece or the key that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The per-piece lists differ in length.
    #[error("vocabulary: {found} {what} for {pieces} pieces")]
    Length { what: &'static str, found: usize, pieces: usize },
    /// No pieces at all.
    #[error("vocabulary: no pieces")]
    NoPieces,
    /// More pieces, or more bytes of pieces, than ids and offsets of 32 bits can name.
    #[error("vocabulary: too large ({pieces} pieces, {bytes} bytes)")]
    TooLarge { pieces: usize, bytes: usize },
    /// A piece without text.
    #[error("vocabulary: piece {id} is empty")]
    EmptyPiece { id: TokenId },
    /// A piece whose bytes are not text.
    #[error("vocabulary: piece {id} is not valid UTF-8")]
    NotUtf8 { id: TokenId },
    /// A score that cannot be ordered.
    #[error("vocabulary: score of piece {id} is {score}")]
    Score { id: TokenId, score: f32 },
    /// A token type that the format does not have.
    #[error("vocabulary: unknown token type {0}")]
    Kind(i32),
    /// A byte piece that names no byte.
    #[error(
        "vocabulary: piece {id} has type byte, but its text is {piece:?}, not <0x00> to <0xFF>"
    )]
    BytePiece { id: TokenId, piece: String },
    /// A special id without a piece.
    #[error("vocabulary: {what} id {id} is out of range, there are {pieces} pieces")]
    IdOutOfRange { what: &'static str, id: TokenId, pieces: usize },
    /// A special token that must exist.
    #[error("vocabulary: no {what} token")]
    Missing { what: &'static str },
    /// Text that could not be encoded at all.
    #[error("vocabulary: byte piece <0x{byte:02X}> is missing, and there is no unknown token")]
    NoFallback { byte: u8 },
    /// A virtual token under the id of an existing one.
    #[error("vocabulary: id {id} for {text} is taken by {piece:?}")]
    IdTaken { id: TokenId, text: String, piece: String },
    /// Control and user-defined pieces for which no matcher can be built.
    #[error("vocabulary: control and user-defined pieces: {0}")]
    Added(#[source] Box<aho_corasick::BuildError>),
}
