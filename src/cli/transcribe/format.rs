//! The forms in which a file's words are written, a piece at a time as they become known.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::json;

use super::clock::{milliseconds, stamp};
use super::cues::{Cue, Cues};
use super::transcript::{Segment, Transcript};

/// How words are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The words, a segment a line
    Txt,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
    /// Everything, one object
    Json,
    /// Everything, an object a segment
    Jsonl,
    /// Start and end in milliseconds, and the words
    Tsv,
    /// Lyrics: a time before each line
    Lrc,
}

impl Format {
    /// What a file's name ends in.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Tsv => "tsv",
            Self::Lrc => "lrc",
        }
    }

    /// Whether the words of several files can follow each other.
    pub fn holds_several(self) -> bool {
        matches!(self, Self::Txt | Self::Jsonl)
    }
}

/// Writes one file's words in one form.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    cues: Cues,
    count: usize,
}

impl Writer {
    pub fn new(format: Format) -> Self {
        Self { format, cues: Cues::default(), count: 0 }
    }

    /// What stands before the first segment.
    pub fn begin(&self) -> &'static str {
        match self.format {
            Format::Vtt => "WEBVTT\n\n",
            Format::Tsv => "start\tend\ttext\n",
            _ => "",
        }
    }

    /// A segment of a file; nothing for one without words, but in JSON.
    pub fn segment(&mut self, file: &str, segment: &Segment) -> String {
        let shown = segment.shown();
        match self.format {
            Format::Json => String::new(),
            Format::Jsonl => {
                let mut entry = json!({ "file": file });
                if let (Some(entry), Some(more)) =
                    (entry.as_object_mut(), segment.json().as_object())
                {
                    entry.extend(more.clone());
                }
                format!("{entry}\n")
            }
            _ if shown.is_empty() => String::new(),
            Format::Txt => format!("{shown}\n"),
            Format::Tsv => {
                let (start, end) = (milliseconds(segment.start), milliseconds(segment.end));
                format!("{start}\t{end}\t{shown}\n")
            }
            Format::Lrc => {
                let hundredths = (milliseconds(segment.start) + 5) / 10;
                let (minutes, rest) = (hundredths / 6000, hundredths % 6000);
                format!("[{minutes:02}:{:02}.{:02}]{shown}\n", rest / 100, rest % 100)
            }
            Format::Srt | Format::Vtt => {
                let cues = self.cues.of(segment);
                cues.iter().map(|cue| self.cue(cue)).collect()
            }
        }
    }

    fn cue(&mut self, cue: &Cue) -> String {
        self.count += 1;
        let mut text = String::new();
        let mark = if self.format == Format::Srt {
            writeln!(text, "{}", self.count).ok();
            ','
        } else {
            '.'
        };
        writeln!(text, "{} --> {}", stamp(cue.start, mark), stamp(cue.end, mark)).ok();
        for line in &cue.lines {
            // An arrow would be taken for that of the times.
            let line = line.replace("-->", "->");
            let line = match self.format {
                Format::Vtt => line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
                _ => line,
            };
            writeln!(text, "{line}").ok();
        }
        text.push('\n');
        text
    }

    /// What stands after the last segment.
    pub fn end(&self, transcript: &Transcript) -> String {
        match self.format {
            Format::Json => format!("{:#}\n", transcript.json()),
            Format::Jsonl if transcript.partial => {
                format!("{}\n", json!({ "file": transcript.file, "partial": true }))
            }
            _ => String::new(),
        }
    }
}

/// All of a file's words in one form.
pub fn whole(format: Format, transcript: &Transcript) -> String {
    let mut writer = Writer::new(format);
    let mut text = writer.begin().to_owned();
    for segment in &transcript.segments {
        text.push_str(&writer.segment(&transcript.file, segment));
    }
    text.push_str(&writer.end(transcript));
    text
}

#[cfg(test)]
mod tests;
