//! A conversation on a model: prompt, template, cache, sampling, session files.
//!
//! [`Engine`] is what several conversations share: the opened file, the model, its
//! tokenizer, chat template and defaults. [`Conversation`] is one of them: messages and
//! the cache that holds them. Nothing here prints; answers and notices come as [`Event`]s.
//!
//! ```text
//! messages → prompt (template, sentinels) → ids → cache (what is new) → logits
//!   → sampler → generate (characters, stop strings) → listener
//! ```

pub mod builtin;
mod cache;
mod conversation;
mod decode;
mod engine;
mod error;
mod generate;
mod media;
mod message;
mod placeholder;
mod prompt;
mod python_json;
mod sampler;
#[cfg(test)]
mod script;
#[cfg(test)]
#[path = "../../tests/support/shared.rs"]
mod shared;
mod state;
mod stop;
mod template;
mod towers;
mod transcription;
mod vocabulary;

pub use conversation::{ContextFull, ContextUsage, Conversation, ConversationOptions};
pub use engine::{Engine, EngineOptions, Heard, ModelSource, OpenTimings, Seen};
pub use error::Error;
pub use generate::{Event, Finish, Reply, ReplyTimings, TokenCounts};
pub use media::SoftTokens;
pub use message::{Message, Part, Role};
pub use prompt::LanguageError;
pub use sampler::{SamplerError, SamplerOptions};
pub use state::{SessionFault, SessionFileError};
pub use template::TemplateError;
pub use towers::{TowerOptions, Towers};
pub use transcription::{Hearing, Passage, PassageTimings, Request, Transcriber};
pub use vocabulary::{VocabularyError, vocabulary};

pub use crate::model::text::{CacheType, DecoderOptions, Kernels};
pub use crate::model::tower::Precision;
pub use crate::tokenizer::TokenId;
