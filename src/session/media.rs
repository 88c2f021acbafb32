//! What the model sees of a picture or hears of a sound: rows that take the place of embeddings.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tokenizer::TokenId;

/// The soft tokens of one picture or sound, `[E, n]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SoftTokens {
    name: String,
    width: usize,
    rows: Vec<f32>,
    key: [u8; 32],
}

impl SoftTokens {
    /// Rows of `width` values; `name` is what messages call the picture or sound.
    ///
    /// # Panics
    /// The values are not whole rows.
    pub fn new(name: impl Into<String>, width: usize, rows: Vec<f32>) -> Self {
        assert!(width > 0 && rows.len().is_multiple_of(width), "whole rows");
        let mut hash = Sha256::new();
        for value in &rows {
            hash.update(value.to_le_bytes());
        }
        Self { name: name.into(), width, rows, key: hash.finalize().into() }
    }

    /// What messages call it: its file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many soft tokens there are.
    pub fn len(&self) -> usize {
        self.rows.len() / self.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Values of a row: the text model's width.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A soft token's embedding.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.width..(index + 1) * self.width]
    }
}

impl PartialEq for SoftTokens {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for SoftTokens {}

impl std::fmt::Debug for SoftTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftTokens({}, {} × {})", self.name, self.len(), self.width)
    }
}

/// The form in session files: the rows' bytes in base64, exact.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    width: usize,
    rows: String,
}

impl From<SoftTokens> for Stored {
    fn from(media: SoftTokens) -> Self {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let bytes: Vec<u8> = media.rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: media.name, width: media.width, rows: BASE64_STANDARD.encode(bytes) }
    }
}

impl TryFrom<Stored> for SoftTokens {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let bytes = BASE64_STANDARD.decode(&stored.rows).map_err(|error| error.to_string())?;
        let (values, rest) = bytes.as_chunks::<4>();
        if stored.width == 0 || !rest.is_empty() || !values.len().is_multiple_of(stored.width) {
            return Err(format!("{} bytes are no rows of {}", bytes.len(), stored.width));
        }
        let rows: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        match rows.iter().all(|value| value.is_finite()) {
            true => Ok(Self::new(stored.name, stored.width, rows)),
            false => Err("a soft token is not finite".to_owned()),
        }
    }
}

/// A token of a prompt: an id, and for a placeholder the row that takes its embedding's place.
/// Two placeholders are the same when they stand for the same row of the same picture or sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptToken {
    /// Its id; the placeholder's where there is a row.
    pub id: TokenId,
    /// The picture or sound, and which of its rows.
    pub soft: Option<(Arc<SoftTokens>, usize)>,
}

impl From<TokenId> for PromptToken {
    fn from(id: TokenId) -> Self {
        Self { id, soft: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_tokens_come_back_exactly() {
        let media = SoftTokens::new("a.png", 2, vec![1.5, -0.1, f32::MIN_POSITIVE, 3e30]);
        let text = serde_json::to_string(&media).unwrap();
        let back: SoftTokens = serde_json::from_str(&text).unwrap();
        assert_eq!((back.name(), back.len(), back.row(1)), ("a.png", 2, media.row(1)));
        assert_eq!(back, media);
        assert_ne!(SoftTokens::new("a.png", 2, vec![1.5, -0.1]), media);
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        for stored in [
            r#"{"name":"a","width":0,"rows":""}"#,
            r#"{"name":"a","width":2,"rows":"AACAPw=="}"#,
            r#"{"name":"a","width":1,"rows":"AAA="}"#,
            r#"{"name":"a","width":1,"rows":"*"}"#,
            r#"{"name":"a","width":1,"rows":"AADAfw=="}"#,
        ] {
            assert!(serde_json::from_str::<SoftTokens>(stored).is_err(), "{stored}");
        }
    }
}
