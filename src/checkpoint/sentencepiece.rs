//! The pieces of a SentencePiece `tokenizer.model`.
//!
//! A protocol buffer `ModelProto`: field 1, repeated, is a `SentencePiece` { 1: text, 2: score
//! (f32), 3: type }; the fields about training and normalisation are skipped.

/// Kinds of pieces, by their numbers in the file (and in GGUF).
pub const NORMAL: u32 = 1;
pub const USER_DEFINED: u32 = 4;
pub const UNUSED: u32 = 5;
pub const BYTE: u32 = 6;

/// A piece; its index is its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub text: String,
    pub score: f32,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub kind: u32,
}

/// Reads all pieces.
///
/// # Errors
/// A sentence about what is broken.
pub fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut message = Message { rest: bytes };
    while let Some((number, field)) = message.next().map_err(|what| what.to_owned())? {
        if let (1, Field::Bytes(body)) = (number, field) {
            let piece = piece(body).map_err(|what| format!("piece {}: {what}", pieces.len()))?;
            pieces.push(piece);
        }
    }
    if pieces.is_empty() {
        Err("no SentencePiece model: it has no pieces".into())
    } else {
        Ok(pieces)
    }
}

fn piece(body: &[u8]) -> Result<Piece, &'static str> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: NORMAL };
    let mut message = Message { rest: body };
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(text)) => {
                piece.text = str::from_utf8(text).map_err(|_| "not UTF-8")?.to_owned();
            }
            (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Varint(kind @ 1..=6)) => piece.kind = kind as u32,
            (3, _) => return Err("unknown type"),
            _ => {}
        }
    }
    if !piece.score.is_finite() { Err("its score is not finite") } else { Ok(piece) }
}

enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// The next field and its number.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).map_err(|_| CUT)?)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err("no SentencePiece model: unknown wire type"),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("no SentencePiece model: endless number")
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }
}

const CUT: &str = "cut off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncations_and_garbage_are_errors_or_fewer_pieces() {
        // {1: "ab", 2: -1.5, 3: 4}, then a skipped field 2 with bytes, then {1: "c"}.
        let file = b"\x0a\x0b\x0a\x02ab\x15\x00\x00\xc0\xbf\x18\x04\x12\x01x\x0a\x03\x0a\x01c";
        let all = pieces(file).unwrap();
        assert_eq!(all[0], Piece { text: "ab".into(), score: -1.5, kind: 4 });
        assert_eq!(all[1], Piece { text: "c".into(), score: 0.0, kind: 1 });
        for len in 0..file.len() {
            if let Ok(fewer) = pieces(&file[..len]) {
                assert_eq!(fewer, all[..1], "cut at {len}");
            }
        }
        assert!(pieces(b"{\"version\": 1}").is_err());
    }
}
