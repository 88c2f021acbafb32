//! What is asked about a sound, word for word.
//!
//! The sentences are those of Google's page "Audio processing with Gemma" as it was for Gemma 3n: the
//! sound first, then `Transcribe this audio`. For translations it advises to ask for the
//! transcription first (`Transcribe this audio into English, and then translate it into French.`),
//! so both are asked for, with a mark between them that the answer is split at.

/// What is wanted of a sound. Languages are named in English.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The language that is spoken, if it is known.
    pub language: Option<String>,
    /// The language that the text is to be in, if not the spoken one.
    pub translate: Option<String>,
    /// Names and words that may occur.
    pub words: Option<String>,
}

impl Request {
    /// What stands after the sound.
    pub fn text(&self) -> String {
        let mut text = match (&self.language, &self.translate) {
            (None, None) => "Transcribe this audio.".to_owned(),
            (Some(spoken), None) => format!("Transcribe this audio in {spoken}."),
            (None, Some(wanted)) => {
                format!("Transcribe this audio, and then translate it into {wanted}.")
            }
            (Some(spoken), Some(wanted)) => {
                format!("Transcribe this audio into {spoken}, and then translate it into {wanted}.")
            }
        };
        text.push_str(&match &self.translate {
            None => " Write only the text.".to_owned(),
            Some(wanted) => format!(
                " Write first the transcription, then one newline, then \"{wanted}: \" and the \
                 translation."
            ),
        });
        if let Some(words) = &self.words {
            text.push_str(" These names and words may occur: ");
            text.push_str(words.trim());
        }
        text
    }

    /// An answer's text, and of a translation what it was made from. Where the mark is missing, all
    /// of the answer is the text.
    pub fn split<'a>(&self, answer: &'a str) -> (&'a str, Option<&'a str>) {
        let Some(wanted) = &self.translate else { return (answer.trim(), None) };
        let mark = format!("{wanted}:");
        let starts_line = |at: &usize| answer[..*at].trim_end_matches([' ', '*']).ends_with('\n');
        let places = || answer.match_indices(&mark).map(|(at, _)| at);
        match places().find(|at| *at == 0 || starts_line(at)).or_else(|| places().last()) {
            Some(at) => {
                let text = answer[at + mark.len()..].trim_start_matches('*');
                (text.trim(), Some(answer[..at].trim_end_matches('*').trim()))
            }
            None => (answer.trim(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(language: &str, translate: &str, words: &str) -> Request {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Request { language: some(language), translate: some(translate), words: some(words) }
    }

    #[test]
    fn the_words_are_these() {
        for (language, translate, words, text) in [
            ("", "", "", "Transcribe this audio. Write only the text."),
            ("English", "", "", "Transcribe this audio in English. Write only the text."),
            (
                "",
                "",
                "Ada, Łódź",
                "Transcribe this audio. Write only the text. These names and words may occur: Ada, Łódź",
            ),
            (
                "",
                "French",
                "",
                "Transcribe this audio, and then translate it into French. Write first the \
                 transcription, then one newline, then \"French: \" and the translation.",
            ),
            (
                "English",
                "French",
                "Ada",
                "Transcribe this audio into English, and then translate it into French. Write first \
                 the transcription, then one newline, then \"French: \" and the translation. These \
                 names and words may occur: Ada",
            ),
        ] {
            assert_eq!(request(language, translate, words).text(), text);
        }
    }

    #[test]
    fn an_answer_is_split_at_the_mark() {
        let request = request("English", "French", "");
        for (answer, text, heard) in [
            ("Roses are red.\nFrench: Les roses", "Les roses", Some("Roses are red.")),
            ("A French: word\n\n**French:** Un mot \n", "Un mot", Some("A French: word")),
            ("Roses. French: Les roses", "Les roses", Some("Roses.")),
            ("French: Les roses", "Les roses", Some("")),
            (" Les roses ", "Les roses", None),
            ("", "", None),
        ] {
            assert_eq!(request.split(answer), (text, heard), "{answer}");
        }
        assert_eq!(Request::default().split(" a\nFrench: b\n"), ("a\nFrench: b", None));
    }
}
