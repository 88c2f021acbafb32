//! `gemma3n transcribe`: sounds → words, many in one run.

mod clock;
mod cues;
mod format;
mod language;
mod page;
mod reader;
mod targets;
mod transcript;
mod work;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use self::format::Format;
use self::language::{Spoken, language, language_or_auto};
use self::targets::{Existing, Place};
use self::work::{Tally, Work};
use super::Status;
use super::chat::{explain_opening, told};
use super::gather::{Sought, gather};
use super::interrupt::Interrupt;
use super::options::{ModelArgs, ModelOptions, SamplingArgs, number};
use super::output::{Output, StdoutFailed, Verbosity, reader_is_gone};
use super::usage_error;
use crate::gguf::io_message;
use crate::media::audio::{Channel, SoundOptions};
use crate::session::{
    CacheType, ContextFull, ConversationOptions, Engine, Request, SamplerOptions, Transcriber,
};

const EXAMPLES: &str = "\
Examples:
  gemma3n transcribe talk.mp3                       text on stdout, as it is heard
  gemma3n transcribe -o srt,json interview.wav      interview.srt and interview.json beside it
  gemma3n transcribe -f srt film.mkv > film.srt
  arecord -f cd | gemma3n transcribe -              a stream
  gemma3n transcribe --language fr --translate en *.ogg
  gemma3n transcribe -r -o txt --output-dir texts --skip-existing recordings/

A sound that cannot be read is named on stderr, the others are transcribed, and the exit code is 1.
Ctrl-C writes what is done: to stdout, and to NAME.partial.FORMAT. Where a text ends in [...], it
repeated itself without end or had no end, also when it was tried once more.

JSON: {\"file\", \"duration\", \"language\", \"segments\": [{\"start\", \"end\", \"speech\":
[[start, end], …], \"text\", \"tokens\", \"avg_logprob\", \"no_speech\", \"truncated\"}], \"text\",
\"partial\", \"timings\"}; with --translate also \"translate\", and \"transcription\" in segments.
JSONL: a segment's object a line, with \"file\" before it, and at the end {\"file\",
\"partial\": true} where it is not whole. Times are in seconds.";

const SOUNDS: Sought = Sought {
    what: "sounds",
    endings: &[
        "wav", "mp3", "flac", "ogg", "oga", "m4a", "m4b", "mp4", "m4v", "mov", "aac", "aif",
        "aiff", "caf", "mka", "mkv", "webm", "mp2", "mp1",
    ],
    unread: &["opus", "wma", "amr", "wv", "ape", "spx", "au", "avi"],
};

/// Speech to text
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Sounds, directories of such, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    inputs: Vec<PathBuf>,
    /// What is printed [default: txt, nothing with --write]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write files beside each sound, or in --output-dir: talk.wav gives talk.srt
    #[arg(short = 'o', long, value_name = "FORMAT,…", value_delimiter = ',')]
    write: Vec<Format>,
    /// Where --write writes; made if it is not there
    #[arg(long, value_name = "DIR", requires = "write")]
    output_dir: Option<PathBuf>,
    /// Leave out sounds whose files are there already
    #[arg(long, requires = "write")]
    skip_existing: bool,
    /// Overwrite files
    #[arg(long, requires = "write", conflicts_with = "skip_existing")]
    force: bool,
    /// Look into directories inside directories
    #[arg(short, long)]
    recursive: bool,
    /// What is spoken: an English name or ISO 639 code (French, fr), or auto
    #[arg(long, value_name = "LANGUAGE", value_parser = SpokenArg::parse)]
    language: Option<SpokenArg>,
    /// Translate into this language
    #[arg(long, value_name = "LANGUAGE", value_parser = language)]
    translate: Option<Spoken>,
    /// Names and words that may occur, as they are spelled
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Most seconds that the model hears at once, 0.5 to 30 [default: 30, the built-in model 4]
    #[arg(long, value_name = "SECONDS", value_parser = clock::segment)]
    max_segment: Option<f64>,
    /// Begin at this time: seconds, or 1:30, or 1:02:03.5
    #[arg(long, value_name = "TIME", value_parser = clock::seconds)]
    offset: Option<f64>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = clock::seconds)]
    duration: Option<f64>,
    /// Do not look for speech: cut every --max-segment seconds
    #[arg(long)]
    no_vad: bool,
    /// Which channel is heard: mix, left, right, or its number
    #[arg(long, value_name = "CHANNEL", default_value = "mix", value_parser = channel)]
    channel: Channel,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// What `--language` names; none for `auto`.
#[derive(Clone, Copy, Debug)]
struct SpokenArg(Option<Spoken>);

impl SpokenArg {
    fn parse(text: &str) -> Result<Self, String> {
        language_or_auto(text).map(Self)
    }
}

fn channel(text: &str) -> Result<Channel, String> {
    match text.to_ascii_lowercase().as_str() {
        "mix" => Ok(Channel::Mix),
        "left" => Ok(Channel::Left),
        "right" => Ok(Channel::Right),
        text => match number(text) {
            Ok(channel) if channel > 0 => Ok(Channel::Number(channel)),
            _ => Err("must be mix, left, right, or a number from 1 on".to_owned()),
        },
    }
}

/// Seconds that the built-in model hears at once unless told otherwise. It takes more, but loses its
/// place where several phrases with pauses are in one clip.
const BUILTIN_SEGMENT: f64 = 4.0;

/// Runs the command.
///
/// # Errors
/// No model, no towers, nothing to transcribe, or sounds that could not be transcribed.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    args.check()?;
    let options = args.model.resolve(None, CacheType::F16, output)?;
    options.require_towers("sounds")?;
    let inputs = gather(&args.inputs, &SOUNDS, args.recursive);
    let place = args.place();
    place.check(inputs.iter().flatten())?;
    let format = args.shown(inputs.len())?;
    if let Some(folder) = &place.folder {
        fs::create_dir_all(folder)
            .map_err(|error| anyhow!("{}: {}", folder.display(), io_message(&error)))?;
    }
    let interrupt = Interrupt::install().context("Ctrl-C cannot be caught")?;
    let engine = Engine::open(&options.engine).map_err(told)?;
    if output.verbosity() == Verbosity::Verbose {
        explain_opening(&engine, output);
    }
    let clip = engine.clip_seconds().map_err(told)?;
    let mut ears = transcriber(args, &options, engine, output)?;
    ears.set_interrupt(interrupt.flag());
    interrupt.catch();
    let work = Work {
        sound: SoundOptions {
            channel: args.channel,
            offset: args.offset.unwrap_or(0.0),
            duration: args.duration,
        },
        longest: args
            .max_segment
            .unwrap_or(match options.is_builtin() {
                true => BUILTIN_SEGMENT,
                false => clip,
            })
            .min(clip),
        detect: !args.no_vad,
        language: args.language.and_then(|language| language.0),
        translate: args.translate,
        format,
        place,
        timings: options.timings || output.verbosity() == Verbosity::Verbose,
        total: inputs.len(),
        interrupt: &interrupt,
        output,
    };
    all(&work, &mut ears, inputs)
}

/// One file after the other.
fn all(
    work: &Work<'_>,
    ears: &mut Transcriber,
    inputs: Vec<anyhow::Result<PathBuf>>,
) -> anyhow::Result<Status> {
    let (total, mut failed) = (inputs.len(), 0);
    let mut tally = Tally::new();
    for input in inputs {
        tally.begin();
        match input.and_then(|input| work.transcribe(ears, &input, &mut tally)) {
            Ok(Status::Done) => {}
            Ok(Status::Interrupted) => return Ok(Status::Interrupted),
            Err(error) if reader_is_gone(&error) => return Err(error),
            Err(error) if total == 1 || error.is::<StdoutFailed>() => return Err(error),
            Err(error) => {
                work.output.error(&error);
                failed += 1;
            }
        }
    }
    if total > 1 {
        tally.tell(work.output);
    }
    match failed {
        0 => Ok(Status::Done),
        _ => Err(anyhow!("{failed} of {total} sounds could not be transcribed")),
    }
}

fn transcriber(
    args: &Args,
    options: &ModelOptions,
    engine: Arc<Engine>,
    output: &Output,
) -> anyhow::Result<Transcriber> {
    let decoder = options.decoder(&engine, output);
    // The likeliest words, unless told otherwise.
    let greedy = SamplerOptions { temperature: 0.0, ..engine.sampling_defaults() };
    let request = args.request();
    output.explain(format_args!("request: {}", request.text()));
    let options = ConversationOptions {
        decoder,
        sampler: args.sampling.resolve(greedy),
        system: None,
        context_full: ContextFull::Stop,
        stops: args.sampling.stop.clone(),
        max_tokens: args.sampling.predict.0,
        ignore_eos: false,
    };
    Transcriber::new(engine, options, request).map_err(told)
}

impl Args {
    /// What clap can't see.
    fn check(&self) -> anyhow::Result<()> {
        let stdin = self.inputs.iter().filter(|input| input.as_os_str() == "-").count();
        let wrong = |message: &str| Err(usage_error("transcribe", message));
        if stdin > 1 {
            return wrong("standard input (-) can be named once");
        }
        if stdin > 0 && !self.write.is_empty() && self.output_dir.is_none() {
            return wrong("--write has no place beside -: name one with --output-dir");
        }
        if self.duration.is_some_and(|duration| duration <= 0.0) {
            return wrong("--duration must be more than 0");
        }
        Ok(())
    }

    /// What stdout gets for so many inputs.
    fn shown(&self, inputs: usize) -> anyhow::Result<Option<Format>> {
        let format = match self.format {
            None if self.write.is_empty() => Some(Format::Txt),
            format => format,
        };
        match format {
            Some(format) if inputs > 1 && !format.holds_several() => {
                let name = format.ending();
                Err(usage_error(
                    "transcribe",
                    format_args!(
                        "--format {name} is for one sound; --write {name} writes a file for each"
                    ),
                ))
            }
            _ => Ok(format),
        }
    }

    fn place(&self) -> Place {
        let mut formats = Vec::new();
        for &format in &self.write {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        let existing = match (self.force, self.skip_existing) {
            (true, _) => Existing::Overwrite,
            (_, true) => Existing::Skip,
            _ => Existing::Refuse,
        };
        Place { formats, folder: self.output_dir.clone(), existing }
    }

    fn request(&self) -> Request {
        let name = |language: Spoken| language.name.to_owned();
        Request {
            language: self.language.and_then(|language| language.0).map(name),
            translate: self.translate.map(name),
            words: self.prompt.clone().filter(|words| !words.trim().is_empty()),
        }
    }
}
