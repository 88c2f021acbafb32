//! A conversation on a model: prompt, template, cache, sampling, session files.
//!
//! [`Engine`] is what several conversations share: the opened file, the model, its
//! tokenizer, chat template and defaults. [`Conversation`] is one of them: messages and
//! the cache that holds them. Nothing here prints; answers and notices come as [`Event`]s.

mod conversation;
mod engine;
mod error;
mod generate;
mod message;
mod pending;

pub use conversation::{ContextFull, ContextUsage, Conversation, ConversationOptions};
pub use engine::{Engine, EngineOptions, ModelSource, OpenTimings};
pub use error::Error;
pub use generate::{Event, Finish, Reply, ReplyTimings, TokenCounts};
pub use message::{Message, Part, Role};
pub use pending::{CacheType, DecoderOptions, Kernels, SamplerOptions, TokenId};
