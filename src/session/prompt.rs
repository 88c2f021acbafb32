//! Messages → token ids, so that nobody's words become a control token.
//!
//! 1. In the messages, strings of control tokens are replaced by private characters (one for
//!    each string, none that occurs anywhere in the messages or the template).
//! 2. The template is rendered and the result split at control tokens: these are the
//!    template's own.
//! 3. In each stretch between them the private characters become plain text again, and the
//!    stretch is encoded whole, so that newlines fuse across the template's own.
//!
//! A picture or sound is where the template writes its placeholder; that becomes the run of soft
//! tokens between its marks and blank lines, before the text is encoded, so that those newlines
//! fuse too.
//!
//! `<bos>` stands once at the start, whether the template writes it, the tokenizer or both.
//! Reference: Gemma3nProcessor (`apply_chat_template`, then no automatic special tokens).

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::media::PromptToken;
use super::message::{Message, Part};
use super::placeholder::{Kind, Media, Misplaced};
use super::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Specials, TokenId, TokenKind, Tokenizer};

/// First character of the private planes 15 and 16.
const PRIVATE: u32 = 0xF_0000;

/// Why tokenizer and template do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// A token that turns are marked with.
    #[error("{origin}: the chat template writes {token}, which is not in the vocabulary")]
    Missing {
        /// Where the template comes from.
        origin: String,
        /// The token.
        token: &'static str,
    },
    /// Control tokens for which no matcher can be built.
    #[error("vocabulary: control tokens: {0}")]
    Controls(#[from] aho_corasick::BuildError),
}

/// The text side of a model: tokenizer, control tokens, chat template.
pub struct Language {
    tokenizer: Tokenizer,
    controls: Controls,
    template: ChatTemplate,
}

impl Language {
    /// Brings the parts together.
    ///
    /// # Errors
    /// The template writes Gemma's control tokens and the vocabulary has none of them, or
    /// there are more control tokens than a matcher can hold.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self, LanguageError> {
        let controls = Controls::new(&tokenizer)?;
        for token in ["<start_of_turn>", "<end_of_turn>"] {
            if template.writes(token) && tokenizer.id_of(token).is_none() {
                return Err(LanguageError::Missing { origin: template.origin().to_owned(), token });
            }
        }
        Ok(Self { tokenizer, controls, template })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The id of the soft tokens of a picture or sound.
    pub fn placeholder(&self, kind: Kind) -> Option<TokenId> {
        self.tokenizer.id_of(kind.placeholder())
    }

    /// The tokens of a conversation, up to and with the opening of the model's turn.
    ///
    /// # Errors
    /// The template refuses the messages, or leaves pictures or sounds out.
    pub fn conversation(&self, messages: &[Message]) -> Result<Vec<PromptToken>, TemplateError> {
        let shield = Shield::new(&self.controls, &self.template, messages);
        let shielded: Vec<Message> = messages.iter().map(|message| shield.cover(message)).collect();
        let rendered = self.template.render(&shielded, true)?;
        let media = Media::of(messages.iter().flat_map(Message::media));
        self.tokens(&rendered, media, |text| shield.uncover(text)).map_err(
            |Misplaced { kind, placeholders, given }| {
                self.template.refuses(format!(
                    "the template writes {placeholders} placeholders for {given} {}",
                    kind.plural()
                ))
            },
        )
    }

    /// The tokens of a text as it stands: control tokens in it count as such, and each placeholder
    /// is the next of these pictures or sounds.
    ///
    /// # Errors
    /// They are not as many.
    pub fn raw(&self, text: &str, shown: &[Part]) -> Result<Vec<PromptToken>, Misplaced> {
        self.tokens(text, Media::of(shown), str::to_owned)
    }

    /// Splits a text at control tokens; each placeholder is the soft tokens of the next picture or
    /// sound.
    fn tokens(
        &self,
        text: &str,
        mut media: Media<'_>,
        plain: impl Fn(&str) -> String,
    ) -> Result<Vec<PromptToken>, Misplaced> {
        let text = media.expand(text)?;
        let mut tokens = Vec::new();
        let mut from = 0;
        for found in self.controls.matcher.find_iter(&text) {
            self.encode_text(&plain(&text[from..found.start()]), &mut tokens);
            let id = self.controls.ids[found.pattern().as_usize()];
            let kind =
                Kind::ALL.into_iter().find(|kind| kind.placeholder() == &text[found.range()]);
            match kind.and_then(|kind| media.next(kind)) {
                Some(media) => tokens.extend(
                    (0..media.len())
                        .map(|row| PromptToken { id, soft: Some((media.clone(), row)) }),
                ),
                None => tokens.push(id.into()),
            }
            from = found.end();
        }
        self.encode_text(&plain(&text[from..]), &mut tokens);
        self.settle_bos(&mut tokens);
        Ok(tokens)
    }

    fn encode_text(&self, text: &str, tokens: &mut Vec<PromptToken>) {
        if !text.is_empty() {
            let ids = self.tokenizer.encode(text, Specials::AsText);
            tokens.extend(ids.into_iter().map(PromptToken::from));
        }
    }

    /// One `<bos>` at the start, where the vocabulary wants it or the text has it.
    fn settle_bos(&self, tokens: &mut Vec<PromptToken>) {
        let bos = self.tokenizer.bos();
        let written = tokens.iter().take_while(|token| token.id == bos).count();
        match written {
            0 if self.tokenizer.adds_bos() => tokens.insert(0, bos.into()),
            0 | 1 => {}
            more => drop(tokens.drain(1..more)),
        }
    }
}

/// The control tokens of a vocabulary and what finds them in a text, longest first.
struct Controls {
    texts: Vec<String>,
    ids: Vec<TokenId>,
    matcher: AhoCorasick,
}

impl Controls {
    fn new(tokenizer: &Tokenizer) -> Result<Self, aho_corasick::BuildError> {
        let own = (0..u32::try_from(tokenizer.n_tokens()).unwrap_or(u32::MAX)).map(TokenId);
        let late = super::vocabulary::MEDIA_TOKENS.iter().map(|&(id, _)| id);
        let mut seen = HashSet::new();
        let (mut texts, mut ids) = (Vec::new(), Vec::new());
        for id in own.chain(late) {
            let kind = tokenizer.kind(id);
            if !matches!(kind, Some(TokenKind::Control | TokenKind::Unknown)) || !seen.insert(id) {
                continue;
            }
            match std::str::from_utf8(tokenizer.piece(id)) {
                Ok(text) if !text.is_empty() => {
                    texts.push(text.to_owned());
                    ids.push(id);
                }
                _ => {}
            }
        }
        let matcher =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts)?;
        Ok(Self { texts, ids, matcher })
    }

    /// Where a control token's beginning stands at the end of a text, which what follows
    /// might complete: `<end_of_` before a template's own `turn>`.
    fn unfinished(&self, text: &str) -> Option<usize> {
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let first = text.len().saturating_sub(longest);
        (first..text.len()).filter(|&at| text.is_char_boundary(at)).find(|&at| {
            let tail = &text[at..];
            self.texts.iter().any(|control| control.len() > tail.len() && control.starts_with(tail))
        })
    }
}

/// Private characters in place of the control tokens' strings in one conversation.
struct Shield<'a> {
    controls: &'a Controls,
    /// `(stand-in, what it stands for)`, ascending.
    stand_ins: Vec<(char, String)>,
}

impl<'a> Shield<'a> {
    fn new(controls: &'a Controls, template: &ChatTemplate, messages: &[Message]) -> Self {
        let mut taken: HashSet<char> = HashSet::new();
        let mut found: Vec<&str> = Vec::new();
        for text in messages.iter().flat_map(texts) {
            taken.extend(text.chars().filter(|&c| c as u32 >= PRIVATE));
            found.extend(controls.matcher.find_iter(text).map(|m| &text[m.range()]));
            let end = text.trim_end();
            found.extend(controls.unfinished(end).map(|at| &end[at..]));
        }
        found.sort_unstable();
        found.dedup();
        let free = (PRIVATE..)
            .map_while(char::from_u32)
            .filter(|&c| !taken.contains(&c) && !template.writes(c.encode_utf8(&mut [0; 4])));
        Self { controls, stand_ins: free.zip(found.into_iter().map(str::to_owned)).collect() }
    }

    fn stand_in(&self, text: &str) -> Option<char> {
        self.stand_ins.iter().find(|(_, stands_for)| stands_for == text).map(|&(c, _)| c)
    }

    fn cover(&self, message: &Message) -> Message {
        let cover = |part: &Part| match part {
            Part::Text { text } => Part::Text { text: self.cover_text(text) },
            Part::Image { .. } | Part::Audio { .. } => part.clone(),
        };
        Message { role: message.role, content: message.content.iter().map(cover).collect() }
    }

    fn cover_text(&self, text: &str) -> String {
        let end = text.trim_end();
        let unfinished = self.controls.unfinished(end).unwrap_or(end.len());
        let mut covered = String::with_capacity(text.len());
        let mut from = 0;
        for found in self.controls.matcher.find_iter(text) {
            covered.push_str(&text[from..found.start()]);
            covered.extend(self.stand_in(&text[found.range()]));
            from = found.end();
        }
        if from <= unfinished {
            covered.push_str(&text[from..unfinished]);
            covered.extend(self.stand_in(&end[unfinished..]));
            from = end.len();
        }
        covered.push_str(&text[from..]);
        covered
    }

    fn uncover(&self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        for c in text.chars() {
            match self.stand_ins.binary_search_by_key(&c, |&(stand_in, _)| stand_in) {
                Ok(at) => plain.push_str(&self.stand_ins[at].1),
                Err(_) => plain.push(c),
            }
        }
        plain
    }
}

/// The texts of a message's parts.
fn texts(message: &Message) -> impl Iterator<Item = &str> {
    message.content.iter().filter_map(Part::as_text)
}

#[cfg(test)]
mod tests;
