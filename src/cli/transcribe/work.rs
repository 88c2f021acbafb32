//! One file: read ahead, heard, transcribed, shown and written.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;

use super::clock::{milliseconds, short, tenths};
use super::format::Format;
use super::language::Spoken;
use super::page::Page;
use super::reader::{News, Read, Reader};
use super::targets::Place;
use super::transcript::{Segment, Transcript};
use crate::cli::Status;
use crate::cli::chat::told;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Output, StdoutFailed, hinted, reader_is_gone, stdout_failed};
use crate::cli::progress::{Progress, Unit};
use crate::media::audio::{self, RATE, SegmentOptions, SoundOptions};
use crate::session::{Error, Passage, PassageTimings, SoftTokens, Transcriber};

/// What all files have in common.
pub struct Work<'a> {
    pub sound: SoundOptions,
    /// Most seconds of a segment, and whether speech is looked for.
    pub longest: f64,
    pub detect: bool,
    pub language: Option<Spoken>,
    pub translate: Option<Spoken>,
    /// For stdout.
    pub format: Option<Format>,
    pub place: Place,
    /// Whether figures are told.
    pub timings: bool,
    /// How many inputs there are.
    pub total: usize,
    pub interrupt: &'a Interrupt,
    pub output: &'a Output,
}

/// What was done so far.
pub struct Tally {
    started: Instant,
    /// Inputs that were begun, and those of them that are whole.
    begun: usize,
    done: usize,
    /// Whether stdout has words of one already.
    printed: bool,
    /// Seconds of sound.
    sound: f64,
}

impl Tally {
    pub fn new() -> Self {
        Self { started: Instant::now(), begun: 0, done: 0, printed: false, sound: 0.0 }
    }

    /// Counts an input, whatever becomes of it.
    pub fn begin(&mut self) {
        self.begun += 1;
    }

    /// Says what all files together took.
    pub fn tell(&self, output: &Output) {
        let time = self.started.elapsed().as_secs_f64();
        let (done, sound) = (self.done, short(self.sound));
        output.notice(format_args!(
            "{done} {}, {sound} in {}, {:.1}× real time",
            if done == 1 { "sound" } else { "sounds" },
            short(time),
            self.sound / time.max(1e-3)
        ));
    }
}

/// A file in the making.
struct File<'a> {
    /// What messages call it.
    name: String,
    transcript: Transcript,
    page: Page<'a>,
    progress: Option<Progress>,
    started: Instant,
    /// What ended it too early.
    failure: Option<anyhow::Error>,
}

impl Work<'_> {
    /// Does one file.
    ///
    /// # Errors
    /// It can't be read, or its words can't be written. What was heard before is written.
    pub fn transcribe(
        &self,
        ears: &mut Transcriber,
        input: &Path,
        tally: &mut Tally,
    ) -> anyhow::Result<Status> {
        let Some(formats) = self.place.wanted(input)? else {
            self.output.explain(format_args!("{}: is done already", input.display()));
            return Ok(Status::Done);
        };
        let segments = SegmentOptions { longest: self.longest, detect: self.detect };
        let reader = Reader::start(input, self.sound, segments);
        let mut file = self.begin(input, tally);
        let what = match self.total {
            1 => file.name.clone(),
            total => format!("[{}/{total}] {}", tally.begun, file.name),
        };
        let interrupted = self.listen(ears, &reader, &mut file, &what)?;
        file.transcript.partial = interrupted || file.failure.is_some();
        file.transcript.timings.total = file.started.elapsed().as_secs_f64();
        self.end(input, &formats, file, tally, &what)?;
        Ok(if interrupted { Status::Interrupted } else { Status::Done })
    }

    fn begin(&self, input: &Path, tally: &Tally) -> File<'_> {
        let name = input.display();
        let heading = (self.total > 1 && self.format == Some(Format::Txt)).then(|| {
            let gap = if tally.printed { "\n" } else { "" };
            format!("{gap}==> {name} <==\n")
        });
        File {
            name: match input.as_os_str() == "-" {
                true => "standard input".to_owned(),
                false => name.to_string(),
            },
            transcript: Transcript {
                file: name.to_string(),
                language: self.language,
                translate: self.translate,
                ..Transcript::default()
            },
            page: Page::new(self.output, self.format, self.translate.is_some(), heading),
            progress: None,
            started: Instant::now(),
            failure: None,
        }
    }

    /// Takes the segments as they come; true when Ctrl-C ended it.
    fn listen(
        &self,
        ears: &mut Transcriber,
        reader: &Reader,
        file: &mut File<'_>,
        what: &str,
    ) -> anyhow::Result<bool> {
        let interrupted = || self.interrupt.is_asked();
        while let Some(news) = reader.next(interrupted) {
            match news {
                News::Opened(duration) => {
                    file.progress = Some(match duration {
                        Some(seconds) if seconds > 0.0 => {
                            let length = milliseconds(seconds);
                            Progress::bar(self.output, what, Unit::Sound, length)
                        }
                        _ => Progress::stream(self.output, what),
                    });
                }
                News::Segment(segment, read) => {
                    file.note(read);
                    match self.hear(ears, file, &segment) {
                        Ok(Some(heard)) => file.take(heard)?,
                        Ok(None) => break,
                        Err(error) if is_of_stdout(&error) => return Err(error),
                        Err(error) => {
                            file.failure = Some(error);
                            return Ok(false);
                        }
                    }
                    file.advance(segment.end - self.sound.offset);
                }
                News::Ended(read) => {
                    file.note(read);
                    return Ok(false);
                }
                News::Failed(error) => {
                    let hint = error.hint();
                    file.failure = Some(match hint {
                        Some(hint) => hinted(error, hint.to_owned()),
                        None => error.into(),
                    });
                    return Ok(false);
                }
            }
            if interrupted() {
                break;
            }
        }
        if interrupted() {
            // A second Ctrl-C does not wait for what is written.
            self.interrupt.release();
            return Ok(true);
        }
        file.failure = Some(anyhow!("{what}: its reader ended too early"));
        Ok(false)
    }

    /// A segment's words; `None` when Ctrl-C came before their end.
    fn hear(
        &self,
        ears: &mut Transcriber,
        file: &mut File<'_>,
        clip: &audio::Segment,
    ) -> anyhow::Result<Option<Segment>> {
        let started = Instant::now();
        let name = file.name.clone();
        let sound = ears.engine().hear_samples(&name, &clip.samples);
        file.transcript.timings.encode += started.elapsed().as_secs_f64();
        let sound = match sound {
            Ok(sound) => sound,
            // Too short for a word.
            Err(Error::TooShort { .. }) => return Ok(Some(silent(clip))),
            Err(_) if self.interrupt.is_asked() => return Ok(None),
            Err(error) => return Err(told(error)),
        };
        let live = file.page.is_live();
        let page = &mut file.page;
        let decode = || decode(ears, page, &name, clip, sound);
        // The bar stays away from a line that is begun.
        let decoded = match &file.progress {
            Some(progress) if live => progress.aside(decode),
            _ => decode(),
        };
        let (timings, segment) = decoded?;
        file.count(&timings);
        let Some(segment) = segment else { return Ok(None) };
        if segment.truncated {
            self.aside(file, || {
                self.output.warn(format_args!(
                    "{name}: {} to {}: the text does not end, it is cut off",
                    tenths(segment.start),
                    tenths(segment.end)
                ));
            });
        }
        Ok(Some(segment))
    }

    fn aside(&self, file: &File<'_>, work: impl FnOnce()) {
        match &file.progress {
            Some(progress) => progress.aside(work),
            None => work(),
        }
    }

    /// Writes what a file's end brings.
    fn end(
        &self,
        input: &Path,
        formats: &[Format],
        mut file: File<'_>,
        tally: &mut Tally,
        what: &str,
    ) -> anyhow::Result<()> {
        let transcript = &file.transcript;
        let nothing = transcript.partial && transcript.segments.is_empty();
        let (speed, heard) = (transcript.speed(), short(transcript.duration));
        let took = short(transcript.timings.total);
        if let Some(progress) = file.progress.take() {
            let line = format!("{what}: {heard} in {took}, {speed:.1}× real time");
            if transcript.partial {
                progress.clear()
            } else {
                progress.finish_with(self.output, line)
            }
        }
        tally.sound += transcript.duration;
        tally.done += usize::from(!transcript.partial);
        if !nothing {
            tally.printed = true;
            file.page.end(transcript).map_err(stdout_failed)?;
            let paths = match self.place.write(input, formats, transcript) {
                Ok(paths) => paths,
                Err(error) => {
                    // That the sound is broken is to be known too.
                    if let Some(failure) = &file.failure {
                        self.output.error(failure);
                    }
                    return Err(error);
                }
            };
            if transcript.partial {
                self.tell_partial(&file.name, transcript, &paths);
            }
        }
        if self.timings {
            self.tell_timings(&file.name, transcript);
        }
        file.failure.map_or(Ok(()), Err)
    }

    fn tell_partial(&self, name: &str, transcript: &Transcript, paths: &[std::path::PathBuf]) {
        let until = transcript.segments.last().map_or(0.0, |segment| segment.end);
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let into = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        self.output
            .warn(format_args!("{name}: only the words up to {} are written{into}", tenths(until)));
    }

    fn tell_timings(&self, name: &str, transcript: &Transcript) {
        let timings = &transcript.timings;
        let rate = |tokens: usize, time: f64| tokens as f64 / time.max(1e-6);
        self.output.say(format_args!(
            "{name}: {:.1} s of sound in {:.2} s, {:.2}× real time; reading {:.2} s (beside the rest), \
             encoder {:.2} s",
            transcript.duration,
            timings.total,
            transcript.speed(),
            timings.read,
            timings.encode
        ));
        self.output.say(format_args!(
            "prompts: {} tokens read in {:.2} s, {:.1} tokens/s, {} from the cache; text: {} tokens in \
             {:.2} s, {:.1} tokens/s",
            timings.prefilled,
            timings.prompt,
            rate(timings.prefilled, timings.prompt),
            timings.cached,
            timings.generated,
            timings.decode,
            rate(timings.generated, timings.decode)
        ));
    }
}

impl File<'_> {
    /// How far the reading is.
    fn note(&mut self, read: Read) {
        self.transcript.duration = read.position;
        self.transcript.timings.read = read.time;
    }

    fn advance(&self, seconds: f64) {
        if let Some(progress) = &self.progress {
            progress.set(milliseconds(seconds));
        }
    }

    fn count(&mut self, more: &PassageTimings) {
        let timings = &mut self.transcript.timings;
        timings.prompt += more.prompt.as_secs_f64();
        timings.decode += more.decode.as_secs_f64();
        timings.prefilled += more.prefilled;
        timings.cached += more.cached;
        timings.generated += more.generated;
    }

    /// Shows a segment, if its words were not shown one by one, and keeps it.
    fn take(&mut self, segment: Segment) -> anyhow::Result<()> {
        let (page, name) = (&mut self.page, &self.transcript.file);
        if !page.is_live() {
            let mut show = || page.segment(name, &segment);
            let shown = match &self.progress {
                Some(progress) => progress.aside(show),
                None => show(),
            };
            shown.map_err(stdout_failed)?;
        }
        self.transcript.segments.push(segment);
        Ok(())
    }
}

/// Whether an answer can't be shown, which ends all.
fn is_of_stdout(error: &anyhow::Error) -> bool {
    error.is::<StdoutFailed>() || reader_is_gone(error)
}

/// A segment's words, shown while they come where that is possible; none when the work was ended.
fn decode(
    ears: &mut Transcriber,
    page: &mut Page<'_>,
    name: &str,
    clip: &audio::Segment,
    sound: Arc<SoftTokens>,
) -> anyhow::Result<(PassageTimings, Option<Segment>)> {
    let seconds = clip.samples.len() as f64 / f64::from(RATE);
    let mut shown = Ok(());
    let passage = ears.transcribe(sound, seconds, &mut |heard| match page.hear(heard) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            shown = Err(error);
            ControlFlow::Break(())
        }
    });
    shown.map_err(stdout_failed)?;
    let passage = passage.map_err(told);
    let heard = passage.map(|passage| {
        let timings = passage.timings;
        (timings, (!passage.interrupted).then(|| segment(clip, passage)))
    });
    if page.is_live() {
        let ended = match &heard {
            Ok((_, Some(segment))) => page.segment(name, segment),
            _ => page.break_line(),
        };
        ended.map_err(stdout_failed)?;
    }
    heard
}

fn silent(clip: &audio::Segment) -> Segment {
    let (first, last) = (clip.speech.first(), clip.speech.last());
    Segment {
        start: first.map_or(clip.start, |speech| speech.0),
        end: last.map_or(clip.end, |speech| speech.1),
        speech: if clip.speech.is_empty() {
            vec![(clip.start, clip.end)]
        } else {
            clip.speech.clone()
        },
        no_speech: (1.0 - f64::from(clip.score)).clamp(0.0, 1.0),
        ..Segment::default()
    }
}

fn segment(clip: &audio::Segment, passage: Passage) -> Segment {
    Segment {
        text: passage.text,
        transcription: passage.transcription,
        tokens: passage.tokens.generated,
        avg_logprob: passage.avg_logprob,
        truncated: passage.truncated,
        ..silent(clip)
    }
}
