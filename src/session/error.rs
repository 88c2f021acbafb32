//! What can go wrong in a conversation, each naming what it is about.

use std::io;
use std::path::PathBuf;

use super::placeholder::Misplaced;
use super::prompt::LanguageError;
use super::sampler::SamplerError;
use super::state::SessionFileError;
use super::template::TemplateError;
use super::vocabulary::VocabularyError;
use crate::model::{OpenError, StepError};
use crate::{gguf, media};

/// An error of this room. One line, without `error:`; [`Error::hint`] gives the second line
/// where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is no sound GGUF.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// It is no sound Gemma 3n text model.
    #[error(transparent)]
    Model(Box<OpenError>),
    /// Its vocabulary cannot be used.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// Vocabulary and template do not fit together.
    #[error(transparent)]
    Language(#[from] LanguageError),
    /// The file of `--template` cannot be read.
    #[error("{}: {error}", file.display())]
    TemplateFile {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The chat template is wrong, or refuses the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file's sampling defaults are out of range.
    #[error("{}: metadata keys general.sampling.*: {error}", file.display())]
    SamplingDefaults {
        /// The file.
        file: PathBuf,
        /// Which, and why.
        error: SamplerError,
    },
    /// A sampling option is out of range, or logits cannot be sampled.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The model fails.
    #[error("{}: {error}", model.display())]
    Step {
        /// The model's file.
        model: PathBuf,
        /// What fails.
        error: StepError,
    },
    /// A picture or sound for a model whose towers are not open.
    #[error("the model has no towers for pictures and sounds")]
    NoTowers,
    /// A sound of less than a frame.
    #[error("{name}: {seconds:.3} s of sound; the model needs at least 0.033 s")]
    TooShort {
        /// Its file, or what it is called.
        name: String,
        /// How long it is.
        seconds: f64,
    },
    /// A picture or sound that can't be read.
    #[error(transparent)]
    Media(#[from] media::Error),
    /// A session file cannot be written or used.
    #[error(transparent)]
    SessionFile(Box<SessionFileError>),
    /// There is no user message without an answer.
    #[error("there is no message to answer")]
    NothingToAnswer,
    /// A raw prompt whose placeholders are not as many as the pictures or sounds.
    #[error("the prompt does not have one {placeholder} for each of the {what} ({given})")]
    Placeholders {
        /// `<image_soft_token>` or `<audio_soft_token>`.
        placeholder: &'static str,
        /// `pictures` or `sounds`.
        what: &'static str,
        /// How many were given.
        given: usize,
    },
    /// A raw prompt without a token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt alone (system text and the newest message) does not fit.
    #[error("the prompt has {tokens} tokens, the context holds {capacity}")]
    PromptTooLong {
        /// Tokens of system text, newest message and template.
        tokens: usize,
        /// Positions of the context.
        capacity: usize,
        /// Positions the model was trained for, the most a context can have.
        trained: usize,
    },
    /// The conversation does not fit, and no turn may be dropped.
    #[error("the conversation has {tokens} tokens, the context holds {capacity}")]
    ContextFull {
        /// Tokens of the conversation.
        tokens: usize,
        /// Positions of the context.
        capacity: usize,
        /// Positions the model was trained for, the most a context can have.
        trained: usize,
    },
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<Misplaced> for Error {
    fn from(Misplaced { kind, given, .. }: Misplaced) -> Self {
        Self::Placeholders { placeholder: kind.placeholder(), what: kind.plural(), given }
    }
}

impl From<SessionFileError> for Error {
    fn from(error: SessionFileError) -> Self {
        Self::SessionFile(Box::new(error))
    }
}

impl Error {
    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::PromptTooLong { tokens, trained, .. } if tokens < trained => {
                Some(format!("--ctx-size {} or more would hold it", tokens + 1))
            }
            Error::PromptTooLong { trained, .. } => Some(format!(
                "shorten it: the model was trained for {trained} positions, no context is larger"
            )),
            Error::ContextFull { tokens, trained, .. } => Some(format!(
                "take turns back or clear, or drop old turns with --context-full drop{}",
                if tokens < trained {
                    format!(", or hold it with --ctx-size {} or more", tokens + 1)
                } else {
                    String::new()
                }
            )),
            Error::Media(error) => error.hint().map(str::to_owned),
            Error::Template(_) | Error::Language(LanguageError::Missing { .. }) => {
                Some("another template can be given with --template FILE".to_owned())
            }
            _ => None,
        }
    }
}
