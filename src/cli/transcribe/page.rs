//! Standard output: a file's words as they become known.
//!
//! To a terminal text goes word by word; anything else gets whole segments. What is said again after
//! a run-away can't be taken back from a terminal: the first attempt ends with ` [...]`, and the
//! second stands on a line of its own.

use std::io::{self, IsTerminal};

use super::format::{Format, Writer};
use super::transcript::{Segment, Transcript};
use crate::cli::output::Output;
use crate::session::Hearing;

/// What is shown of one file.
pub struct Page<'a> {
    output: &'a Output,
    writer: Option<Writer>,
    /// Words are shown one by one.
    live: bool,
    /// What is printed before the first words.
    heading: Option<String>,
    /// A line is begun; what white space was seen since then.
    line: Option<bool>,
    /// The clip is being heard again, and what was shown of it ended.
    again: bool,
}

impl<'a> Page<'a> {
    /// Nothing is shown without a format. A translation's words are known only when it is whole.
    pub fn new(
        output: &'a Output,
        format: Option<Format>,
        translates: bool,
        heading: Option<String>,
    ) -> Self {
        let live = format == Some(Format::Txt) && !translates && io::stdout().is_terminal();
        let writer = format.map(Writer::new);
        let begin = writer.as_ref().map_or("", Writer::begin);
        let heading = heading.unwrap_or_default() + begin;
        let heading = (!heading.is_empty()).then_some(heading);
        Self { output, writer, live, heading, line: None, again: false }
    }

    /// Whether words are shown while they come.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Takes words as they come.
    ///
    /// # Errors
    /// Stdout's.
    pub fn hear(&mut self, heard: Hearing<'_>) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        match heard {
            Hearing::Words(words) => {
                let words = self.flow(words);
                self.print(&words)
            }
            Hearing::Again => {
                self.again = self.line.is_some();
                self.end_line(" [...]\n")
            }
        }
    }

    /// Words of a line: white space is one space, and none at its ends.
    fn flow(&mut self, words: &str) -> String {
        let mut text = String::new();
        for c in words.chars() {
            match (&mut self.line, c.is_whitespace()) {
                (Some(space), true) => *space = true,
                (None, true) => {}
                (line, false) => {
                    if line.replace(false) == Some(true) {
                        text.push(' ');
                    }
                    text.push(c);
                }
            }
        }
        text
    }

    fn end_line(&mut self, end: &str) -> io::Result<()> {
        match self.line.take() {
            Some(_) => self.print(end),
            None => Ok(()),
        }
    }

    /// Ends a line whose segment does not come to its end.
    ///
    /// # Errors
    /// Stdout's.
    pub fn break_line(&mut self) -> io::Result<()> {
        self.end_line("\n")
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(heading) = self.heading.take() {
            self.output.answer(&heading)?;
        }
        self.output.answer(text)
    }

    /// Shows a segment, or ends the line on which it was shown.
    ///
    /// # Errors
    /// Stdout's.
    pub fn segment(&mut self, file: &str, segment: &Segment) -> io::Result<()> {
        let again = std::mem::take(&mut self.again);
        if self.line.is_some() {
            return self.end_line(if segment.truncated { " [...]\n" } else { "\n" });
        }
        if again && segment.truncated {
            return Ok(());
        }
        let text = self.writer.as_mut().map(|writer| writer.segment(file, segment));
        self.print(&text.unwrap_or_default())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Stdout's.
    pub fn end(&mut self, transcript: &Transcript) -> io::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let text = self.heading.take().unwrap_or_default() + &writer.end(transcript);
        self.print(&text)
    }
}
