//! `gemma3n describe-image`: pictures → words, many in one run.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde_json::json;

use super::Status;
use super::chat::{Stream, explain_opening, figures, told};
use super::gather::{Sought, gather};
use super::interrupt::Interrupt;
use super::options::{ModelArgs, ModelOptions, SamplingArgs};
use super::output::{Hint, Output, StdoutFailed, Verbosity, stdout_failed};
use super::progress::Progress;
use super::sidecar::{Sidecar, SidecarFormat};
use super::usage_error;
use crate::session::{
    CacheType, ContextFull, Conversation, ConversationOptions, Engine, Finish, Part, Reply,
    SamplerOptions, Seen,
};

const EXAMPLES: &str = "\
Examples:
  gemma3n describe-image photo.jpg
  gemma3n describe-image --jsonl photos/ > captions.jsonl
  gemma3n describe-image --sidecar txt --preset alt *.png
  gemma3n describe-image --prompt \"What does the sign say?\" street.jpg
  curl -s $URL | gemma3n describe-image -

What the presets ask:
  caption  Write a one-sentence caption for this image.
  alt      Write alt text for this image in one sentence.
  ocr      Transcribe all text in this image. Write only the text.
  tags     List tags for this image, separated by commas.
  detail   Describe this image.

A picture that cannot be read is named on stderr, the others are described, and the exit code is 1.
With --jsonl: {\"file\", \"width\", \"height\", \"text\", \"timings\"}, one object a line; times are
in seconds.";

/// Describe pictures
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pictures, directories of such, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    inputs: Vec<PathBuf>,
    /// What is asked about each picture
    #[arg(long, value_name = "TEXT", conflicts_with = "preset")]
    prompt: Option<String>,
    /// A question that is asked often
    #[arg(long, value_name = "WHAT", default_value = "detail")]
    preset: Preset,
    /// Pixels of a side that the model sees: smaller is faster and shows less [default: 768]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Look into directories inside directories
    #[arg(short, long)]
    recursive: bool,
    /// Write each answer beside its picture: photo.jpg gives photo.txt or photo.json
    #[arg(long, value_name = "FORMAT")]
    sidecar: Option<SidecarFormat>,
    /// Leave out pictures whose sidecar is there already
    #[arg(long, requires = "sidecar")]
    skip_existing: bool,
    /// Overwrite sidecars
    #[arg(long, requires = "sidecar", conflicts_with = "skip_existing")]
    force: bool,
    /// Print one JSON object a picture, as soon as it is described
    #[arg(long)]
    jsonl: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    Caption,
    Alt,
    Ocr,
    Tags,
    Detail,
}

impl Preset {
    fn text(self) -> &'static str {
        match self {
            Self::Caption => "Write a one-sentence caption for this image.",
            Self::Alt => "Write alt text for this image in one sentence.",
            Self::Ocr => "Transcribe all text in this image. Write only the text.",
            Self::Tags => "List tags for this image, separated by commas.",
            Self::Detail => "Describe this image.",
        }
    }
}

const PICTURES: Sought = Sought {
    what: "pictures",
    endings: &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"],
    unread: &["heic", "heif", "avif", "jxl", "jp2", "svg"],
};

/// Runs the command.
///
/// # Errors
/// No model, no towers, nothing to describe, or pictures that could not be described.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let options = args.model.resolve(None, CacheType::F16, output)?;
    options.require_towers("pictures")?;
    if args.sidecar.is_some() && args.inputs.iter().any(|input| input.as_os_str() == "-") {
        return Err(usage_error("describe-image", "--sidecar has no place beside -"));
    }
    let inputs = gather(&args.inputs, &PICTURES, args.recursive);
    if let Some(format) = args.sidecar {
        check_sidecars(&inputs, format)?;
    }
    let interrupt = Interrupt::install().context("Ctrl-C cannot be caught")?;
    let engine = Engine::open(&options.engine).map_err(told)?;
    if output.verbosity() == Verbosity::Verbose {
        explain_opening(&engine, output);
    }
    if let Some(towers) = engine.towers() {
        towers.image_size().map_err(told)?;
    }
    let mut chat = conversation(args, &options, engine, output)?;
    chat.set_interrupt(interrupt.flag());
    interrupt.catch();
    let (total, mut failed) = (inputs.len(), 0);
    let work = Work { args, options: &options, interrupt: &interrupt, output, several: total > 1 };
    for input in inputs {
        match input.and_then(|input| work.describe(&mut chat, &input)) {
            Ok(Status::Done) => {}
            Ok(Status::Interrupted) => return Ok(Status::Interrupted),
            Err(error) if super::output::reader_is_gone(&error) => return Err(error),
            Err(error) if total == 1 || error.is::<StdoutFailed>() => return Err(error),
            Err(error) => {
                output.error(&error);
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(Status::Done),
        _ => Err(anyhow!("{failed} of {total} pictures could not be described")),
    }
}

fn conversation(
    args: &Args,
    options: &ModelOptions,
    engine: Arc<Engine>,
    output: &Output,
) -> anyhow::Result<Conversation> {
    let decoder = options.decoder(&engine, output);
    // The likeliest words, unless told otherwise.
    let greedy = SamplerOptions { temperature: 0.0, ..engine.sampling_defaults() };
    let sampler = args.sampling.resolve(greedy);
    let options = ConversationOptions {
        decoder,
        sampler,
        system: None,
        context_full: ContextFull::Stop,
        stops: args.sampling.stop.clone(),
        max_tokens: args.sampling.predict.0,
        ignore_eos: false,
    };
    Conversation::new(engine, options).map_err(told)
}

/// Two pictures whose answers would be one file.
fn check_sidecars(inputs: &[anyhow::Result<PathBuf>], format: SidecarFormat) -> anyhow::Result<()> {
    let mut taken = HashMap::new();
    for input in inputs.iter().flatten() {
        let path = Sidecar::new(input, format).path().to_owned();
        if let Some(other) = taken.insert(path.clone(), input)
            && other != input
        {
            return Err(anyhow!(
                "{}: would be the sidecar of both {} and {}",
                path.display(),
                other.display(),
                input.display()
            ));
        }
    }
    Ok(())
}

struct Work<'a> {
    args: &'a Args,
    options: &'a ModelOptions,
    interrupt: &'a Interrupt,
    output: &'a Output,
    several: bool,
}

impl Work<'_> {
    fn describe(&self, chat: &mut Conversation, input: &Path) -> anyhow::Result<Status> {
        let sidecar = self.args.sidecar.map(|format| Sidecar::new(input, format));
        if let Some(sidecar) = &sidecar
            && sidecar.exists()
        {
            if self.args.skip_existing {
                return Ok(Status::Done);
            }
            if !self.args.force {
                return Err(anyhow!("{}: exists already", sidecar.path().display()))
                    .hint(|| "--force overwrites, --skip-existing leaves it".to_owned());
            }
        }
        let started = Instant::now();
        let spinner = Progress::spinner(self.output, &format!("looking at {}", input.display()));
        // Waiting for an input that does not come is ended at once.
        let waits = input.as_os_str() == "-";
        if waits {
            self.interrupt.release();
        }
        let seen = chat.engine().clone().see(input, self.args.image_size).map_err(told);
        if waits {
            self.interrupt.catch();
        }
        drop(spinner);
        let seen = match seen {
            Ok(seen) => seen,
            Err(_) if chat.is_interrupted() => return Ok(Status::Interrupted),
            Err(error) => return Err(error),
        };
        let encoded = started.elapsed().as_secs_f64();
        chat.clear();
        let prompt = self.args.prompt.as_deref().unwrap_or(self.args.preset.text());
        chat.push_user_with(vec![Part::Image { media: seen.media.clone() }], prompt);
        let reply = self.answer(chat, input, &seen, encoded)?;
        if self.options.timings || self.output.verbosity() == Verbosity::Verbose {
            self.output.say(format_args!("{}: seen in {encoded:.2} s", input.display()));
            for line in figures(&reply) {
                self.output.say(line);
            }
        }
        if reply.finish == Finish::Interrupted {
            return Ok(Status::Interrupted);
        }
        if let Some(sidecar) = sidecar {
            let entry = entry(input, &seen, encoded, &reply);
            sidecar.write(&reply.text, &entry, self.args.force)?;
        }
        Ok(Status::Done)
    }

    /// One picture's words are shown as they come, several pictures' each when it is whole.
    fn answer(
        &self,
        chat: &mut Conversation,
        input: &Path,
        seen: &Seen,
        encoded: f64,
    ) -> anyhow::Result<Reply> {
        let streams = !self.several && !self.args.jsonl && self.args.sidecar.is_none();
        let mut stream = Stream::new(self.output, streams);
        let reply = chat.reply(&mut |event| stream.hear(event));
        stream.end().map_err(stdout_failed)?;
        let reply = reply.map_err(told)?;
        let partial = reply.finish == Finish::Interrupted;
        if self.args.jsonl && !partial {
            let mut stdout = self.output.stdout();
            let entry = entry(input, seen, encoded, &reply);
            writeln!(stdout, "{entry}").and_then(|()| stdout.flush()).map_err(stdout_failed)?;
        } else if !streams && self.args.sidecar.is_none() && !partial {
            let line = format!("{}: {}\n", input.display(), reply.text.trim_end());
            self.output.answer(&line).map_err(stdout_failed)?;
        }
        Ok(reply)
    }
}

fn entry(input: &Path, seen: &Seen, encoded: f64, reply: &Reply) -> serde_json::Value {
    json!({
        "file": input.display().to_string(),
        "width": seen.width,
        "height": seen.height,
        "text": reply.text,
        "timings": {
            "encode": encoded,
            "prompt": reply.timings.prompt.as_secs_f64(),
            "decode": reply.timings.decode.as_secs_f64(),
            "total": encoded + reply.timings.total.as_secs_f64(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_the_presets_words() {
        for preset in Preset::value_variants() {
            let name = preset.to_possible_value().unwrap();
            let line = format!("  {:<8} {}\n", name.get_name(), preset.text());
            assert!(EXAMPLES.contains(&line), "{line}");
        }
    }
}
