//! What can go wrong in a conversation, each naming what it is about.

/// An error of this room. One line, without `error:`; [`Error::hint`] gives the second line
/// where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The prompt alone (system text and the newest message) does not fit.
    #[error("the prompt has {tokens} tokens, the context holds {capacity}")]
    PromptTooLong {
        /// Tokens of system text, newest message and template.
        tokens: usize,
        /// Positions of the context.
        capacity: usize,
    },
}

impl Error {
    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::PromptTooLong { tokens, .. } => {
                Some(format!("--ctx-size {} or more would hold it", tokens + 1))
            }
        }
    }
}
