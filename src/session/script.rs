//! For this room's tests: a small language, and a decoder that answers from a script.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::decode::Decode;
use super::engine::Engine;
use super::error::Error;
use super::media::PromptToken;
use super::prompt::Language;
use super::template::{ChatTemplate, GEMMA, SpecialTexts};
use crate::model::StepError;
use crate::tokenizer::{SpecialIds, TokenId, TokenKind, Tokenizer, Vocabulary};

pub const BOS: TokenId = TokenId(2);
pub const START: TokenId = TokenId(4);
pub const END: TokenId = TokenId(5);
pub const IMAGE: TokenId = TokenId(6);
/// Runs of one to three newlines.
pub const NEWLINES: TokenId = TokenId(7);

/// One piece a printable character, newline runs, bytes, and Gemma's control tokens.
pub fn tokenizer() -> Tokenizer {
    use TokenKind::{Byte, Control, Normal, Unknown, UserDefined};
    let mut pieces: Vec<(String, TokenKind)> = [
        ("<pad>", Control),
        ("<eos>", Control),
        ("<bos>", Control),
        ("<unk>", Unknown),
        ("<start_of_turn>", Control),
        ("<end_of_turn>", Control),
        ("<start_of_image>", Control),
        ("\n", UserDefined),
        ("\n\n", UserDefined),
        ("\n\n\n", UserDefined),
        ("\u{2581}", Normal),
    ]
    .map(|(text, kind)| (text.to_owned(), kind))
    .to_vec();
    pieces.extend(('!'..='~').map(|c| (c.to_string(), Normal)));
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), Byte)));
    let media = ["<image_soft_token>", "<end_of_image>"];
    let media =
        [&media[..], &["<start_of_audio>", "<audio_soft_token>", "<end_of_audio>"]].concat();
    pieces.extend(media.iter().map(|text| (text.to_string(), Control)));
    let special = SpecialIds { add_bos: true, ..SpecialIds::default() };
    let scores = vec![-1.0; pieces.len()];
    let kinds = pieces.iter().map(|(_, kind)| *kind).collect();
    let pieces = pieces.iter().map(|(text, _)| text.as_bytes());
    Tokenizer::new(Vocabulary::new(pieces, scores, kinds, special).unwrap()).unwrap()
}

pub fn language(template: &str) -> Language {
    let specials = SpecialTexts { bos: "<bos>".into(), ..SpecialTexts::default() };
    let template = ChatTemplate::new("test", template.as_bytes(), specials).unwrap();
    Language::new(tokenizer(), template).unwrap()
}

pub fn gemma() -> Language {
    language(GEMMA)
}

/// What happened to a scripted decoder.
#[derive(Default)]
pub struct Log {
    /// Ids at its positions.
    pub held: Vec<TokenId>,
    /// Tokens of each step.
    pub steps: Vec<usize>,
    /// Ids that come next; then the end of turn.
    pub answers: VecDeque<TokenId>,
    /// Steps that are left before logits are not finite.
    pub finite_steps: Option<usize>,
}

/// A decoder without a model.
pub struct Scripted {
    pub log: Arc<Mutex<Log>>,
    pub capacity: usize,
    /// Lengths it can roll back to are its multiples.
    pub reach: usize,
    pub fingerprint: &'static str,
    pub interrupt: Arc<AtomicBool>,
}

impl Scripted {
    pub fn new(capacity: usize) -> Self {
        let (log, interrupt) = Default::default();
        Self { log, capacity, reach: 1, fingerprint: "abc", interrupt }
    }
}

impl Decode for Scripted {
    fn engine(&self) -> &Arc<Engine> {
        unreachable!("a script has no model")
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.to_owned()
    }

    fn slice(&self) -> Option<String> {
        None
    }

    fn trained_context(&self) -> usize {
        32768
    }

    fn len(&self) -> usize {
        self.log.lock().unwrap().held.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn clear(&mut self) {
        self.log.lock().unwrap().held.clear();
    }

    fn snapshot(&mut self) {}

    fn truncate(&mut self, len: usize) -> usize {
        let held = &mut self.log.lock().unwrap().held;
        if len < held.len() {
            held.truncate(len / self.reach * self.reach);
        }
        held.len()
    }

    fn prepare(&self, _: &[PromptToken]) -> Result<(), Error> {
        Ok(())
    }

    fn prefill(&mut self, tokens: &[PromptToken]) -> Result<(), StepError> {
        let ids: Vec<TokenId> = tokens.iter().map(|token| token.id).collect();
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(StepError::Interrupted);
        }
        let mut log = self.log.lock().unwrap();
        assert!(!ids.is_empty());
        let (needed, capacity) = (log.held.len() + ids.len(), self.capacity);
        if needed > capacity {
            return Err(StepError::ContextFull { needed, capacity });
        }
        log.held.extend_from_slice(&ids);
        log.steps.push(ids.len());
        Ok(())
    }

    fn prefill_logits(&mut self, tokens: &[PromptToken]) -> Result<Vec<f32>, StepError> {
        self.prefill(tokens)?;
        let mut log = self.log.lock().unwrap();
        if let Some(left) = &mut log.finite_steps {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(StepError::NotFinite { position: log.held.len() }),
            }
        }
        let next = log.answers.pop_front().unwrap_or(END);
        Ok((0..512).map(|id| if id == next.0 { 9.0 } else { 0.0 }).collect())
    }

    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = flag;
    }

    fn save_state(&self, output: &mut dyn Write) -> io::Result<()> {
        self.log
            .lock()
            .unwrap()
            .held
            .iter()
            .try_for_each(|id| output.write_all(&id.0.to_le_bytes()))
    }

    fn load_state(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let ids = bytes.chunks_exact(4).map(|b| TokenId(u32::from_le_bytes(b.try_into().unwrap())));
        self.log.lock().unwrap().held = ids.collect();
        Ok(())
    }
}
