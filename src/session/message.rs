//! Messages: who said what, and what was shown with it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::media::SoftTokens;

/// Whose words a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions before the first turn.
    System,
    /// The person.
    User,
    /// The model. Templates and session files call it `assistant`.
    #[serde(rename = "assistant")]
    Model,
}

impl Role {
    /// The name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Model => "assistant",
        }
    }
}

/// A piece of a message, in the order in which it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Part {
    /// Words.
    Text {
        /// As they were typed; never read as control tokens.
        text: String,
    },
    /// A picture.
    Image {
        /// What the model sees of it.
        media: Arc<SoftTokens>,
    },
    /// A sound.
    Audio {
        /// What the model hears of it.
        media: Arc<SoftTokens>,
    },
}

impl Part {
    /// Its words, if it is made of such.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Part::Text { text } => Some(text),
            Part::Image { .. } | Part::Audio { .. } => None,
        }
    }

    /// What the model sees or hears, if it is not made of words.
    pub fn media(&self) -> Option<&Arc<SoftTokens>> {
        match self {
            Part::Text { .. } => None,
            Part::Image { media } | Part::Audio { media } => Some(media),
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// A message of words only.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text { text: text.into() }] }
    }

    /// Bytes of all its words.
    pub fn len(&self) -> usize {
        self.content.iter().filter_map(Part::as_text).map(str::len).sum()
    }

    /// Whether nothing is said or shown.
    pub fn is_empty(&self) -> bool {
        self.content.iter().all(|part| part.as_text().is_some_and(str::is_empty))
    }

    /// All words of the message, one part after the other.
    pub fn words(&self) -> String {
        self.content.iter().filter_map(Part::as_text).collect()
    }

    /// What is shown and played with the words, in order.
    pub fn media(&self) -> impl Iterator<Item = &Part> {
        self.content.iter().filter(|part| part.media().is_some())
    }
}
