//! What stands for pictures and sounds in a prompt's text, and which of them each stands for.
//!
//! Reference: Gemma3nProcessor (`full_image_sequence`, `full_audio_sequence`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::media::SoftTokens;
use super::message::Part;

/// What a part without words is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Image,
    Audio,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Image, Self::Audio];

    /// What a part is, if it is not made of words.
    fn of(part: &Part) -> Option<Self> {
        match part {
            Part::Text { .. } => None,
            Part::Image { .. } => Some(Self::Image),
            Part::Audio { .. } => Some(Self::Audio),
        }
    }

    /// What a template writes for one, and the token that each soft token has in its place.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Image => "<image_soft_token>",
            Self::Audio => "<audio_soft_token>",
        }
    }

    /// The placeholder with what the reference's processor puts around it.
    fn expanded(self) -> &'static str {
        match self {
            Self::Image => "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
            Self::Audio => "\n\n<start_of_audio><audio_soft_token><end_of_audio>\n\n",
        }
    }

    /// What messages call several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Image => "pictures",
            Self::Audio => "sounds",
        }
    }
}

/// A text that has other numbers of placeholders than there is media for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    pub kind: Kind,
    pub placeholders: usize,
    /// How many pictures or sounds there are.
    pub given: usize,
}

/// The pictures and sounds of a prompt, those of a kind in the order of their placeholders.
pub struct Media<'a> {
    images: VecDeque<&'a Arc<SoftTokens>>,
    sounds: VecDeque<&'a Arc<SoftTokens>>,
}

impl<'a> Media<'a> {
    /// Those of these parts, in order; parts of words are passed over.
    pub fn of(parts: impl IntoIterator<Item = &'a Part>) -> Self {
        let mut media = Self { images: VecDeque::new(), sounds: VecDeque::new() };
        for part in parts {
            if let (Some(kind), Some(soft_tokens)) = (Kind::of(part), part.media()) {
                media.queue(kind).push_back(soft_tokens);
            }
        }
        media
    }

    fn queue(&mut self, kind: Kind) -> &mut VecDeque<&'a Arc<SoftTokens>> {
        match kind {
            Kind::Image => &mut self.images,
            Kind::Audio => &mut self.sounds,
        }
    }

    /// The next one of a kind.
    pub fn next(&mut self, kind: Kind) -> Option<Arc<SoftTokens>> {
        self.queue(kind).pop_front().cloned()
    }

    /// All rows of a kind, one picture or sound after the other.
    pub fn rows(&self, kind: Kind) -> impl Iterator<Item = (Arc<SoftTokens>, usize)> + use<'a> {
        let media = match kind {
            Kind::Image => self.images.clone(),
            Kind::Audio => self.sounds.clone(),
        };
        media.into_iter().flat_map(|media| (0..media.len()).map(|row| (media.clone(), row)))
    }

    /// The text with what belongs around its placeholders.
    ///
    /// # Errors
    /// It does not have one for each of the media.
    pub fn expand(&self, text: &str) -> Result<String, Misplaced> {
        let mut expanded = text.to_owned();
        for kind in Kind::ALL {
            let placeholders = text.matches(kind.placeholder()).count();
            let given = match kind {
                Kind::Image => self.images.len(),
                Kind::Audio => self.sounds.len(),
            };
            if placeholders != given {
                return Err(Misplaced { kind, placeholders, given });
            }
            expanded = expanded.replace(kind.placeholder(), kind.expanded());
        }
        Ok(expanded)
    }
}
