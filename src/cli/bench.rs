//! `gemma3n bench`: how fast a model runs here, beside what this machine can do at best.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use indicatif::{BinaryBytes, DecimalBytes};
use serde_json::json;

use super::options::{ModelArgs, ModelOptions};
use super::output::Output;
use super::progress::Progress;
use super::{Status, usage_error};
use crate::bench::{self, Kind, Measurement, Options, PictureTimes, SoundTimes, floor};
use crate::gguf::Gguf;
use crate::model::OpenError;
use crate::model::audio::{self, AudioConfig, AudioModel};
use crate::model::text::{Decoder, TextModel};
use crate::model::tower::{EncoderOptions, Precision};
use crate::model::vision::{self, VisionConfig, VisionModel};
use crate::session::{CacheType, TowerOptions};
use crate::tokenizer::TokenId;

const EXAMPLES: &str = "\
Examples:
  gemma3n bench -m model.gguf
  gemma3n bench -m model.gguf -p 512,2048 -n 64 -d 0,4096
  gemma3n bench -m model.gguf --image --audio -p 0 -n 0
  gemma3n bench -m model.gguf -t 4 --json > four-threads.json

Prefill reads a prompt of so many tokens, decode makes so many one by one, both
on a cache that holds as many positions as the depth says. The floor of decoding
is the time that reading the weights takes at the memory bandwidth measured in
the same run. `first token` is the time from opening the file to the logits
after a prompt of 16 tokens. A clip's multiply-adds are those of the tower's
blocks, every frame counted in every block.";

/// Measure how fast a model runs on this machine
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Lengths of prompts, in tokens, 0 for none
    #[arg(short = 'p', long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    prefill: Vec<usize>,
    /// Tokens to decode, 0 for none
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    decode: usize,
    /// Positions in the cache before each measurement
    #[arg(short = 'd', long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Measure a picture too, through the tower and its soft tokens through the model
    #[arg(long)]
    image: bool,
    /// Measure a clip of 30 s too: its features, the tower, and its soft tokens through the model
    #[arg(long)]
    audio: bool,
    /// How often each is measured
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = positive)]
    repetitions: usize,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["csv", "md"])]
    json: bool,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "md")]
    csv: bool,
    /// Print a Markdown table
    #[arg(long)]
    md: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn positive(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be 1 or more".to_owned())
}

/// What is known beside the measurements.
struct Facts {
    file: String,
    slice: Option<String>,
    threads: usize,
    kernels: &'static str,
    /// Bytes a second.
    bandwidth: f64,
    bytes_per_token: usize,
    first_token: f64,
    picture: Option<PictureTimes>,
    sound: Option<SoundTimes>,
    peak_memory: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// A model that cannot be opened, lengths beyond what it was trained for.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let prefill: Vec<usize> = args.prefill.iter().copied().filter(|&tokens| tokens > 0).collect();
    if prefill.is_empty() && args.decode == 0 && !args.image && !args.audio {
        return Err(usage_error("bench", "there is nothing to measure with -p 0 and -n 0"));
    }
    let options = args.model.resolve(None, CacheType::F16, output)?;
    for (wanted, what) in [(args.image, "pictures"), (args.audio, "sounds")] {
        if wanted {
            options.require_towers(what)?;
        }
    }
    let start = Instant::now();
    let gguf = Arc::new(options.engine.model.open(options.engine.mmap)?);
    let model = TextModel::open_slice(&gguf, options.engine.slice.as_ref())?;
    let trained = model.config().context_length;
    let mut decoder_options = options.decoder_for(trained, output);
    let towers = match &options.engine.towers {
        Some(source) if args.image || args.audio => {
            let gguf = Arc::new(source.open(options.engine.mmap)?);
            Some(Towers::new(args, gguf, model.config().embedding, &options)?)
        }
        _ => None,
    };
    let soft_tokens = towers.as_ref().map_or(0, Towers::soft_tokens);
    let lengths = prefill.iter().copied().chain([args.decode, soft_tokens]);
    let longest = lengths.max().unwrap_or(0);
    let deepest = args.depth.iter().copied().max().unwrap_or(0);
    decoder_options.context = match longest.checked_add(deepest) {
        Some(context) if context <= trained => context,
        _ => bail!(
            "{}: {longest} tokens at depth {deepest} are more than the {trained} positions that \
             the model was trained for",
            gguf.path().display()
        ),
    };
    let mut decoder = Decoder::new(model, decoder_options)?;
    let prompt: Vec<TokenId> = (0..16.min(longest)).map(|id| TokenId(id as u32)).collect();
    decoder.prefill_logits(&prompt)?;
    let first_token = start.elapsed().as_secs_f64();

    let spinner = Progress::spinner(output, "Measuring");
    let wanted = Options {
        prefill,
        decode: args.decode,
        depths: args.depth.clone(),
        repetitions: args.repetitions,
    };
    let measurements = bench::run(&mut decoder, &wanted)?;
    let (picture, sound) = match towers {
        Some(towers) => (
            towers.picture(&mut decoder, args.repetitions)?,
            towers.sound(&mut decoder, args.repetitions)?,
        ),
        None => (None, None),
    };
    // In this order: the bandwidth's own memory is not the model's.
    let peak_memory = bench::peak_resident();
    let bandwidth = floor::read_bandwidth(options.threads);
    spinner.clear();
    let kernels = match decoder.options().kernels {
        crate::session::Kernels::Auto => "auto",
        crate::session::Kernels::Ggml => "ggml",
    };
    let facts = Facts {
        file: gguf.path().display().to_string(),
        slice: decoder.model().slice(),
        threads: options.threads,
        kernels,
        bandwidth,
        bytes_per_token: decoder.model().bytes_per_token(),
        first_token,
        picture,
        sound,
        peak_memory,
    };
    let text = if args.json {
        object(&facts, &measurements)
    } else if args.csv {
        csv(&facts, &measurements)
    } else if args.md {
        markdown(&facts, &measurements)
    } else {
        table(&facts, &measurements)
    };
    writeln!(output.stdout(), "{}", text.trim_end())?;
    Ok(Status::Done)
}

/// The towers that are measured, one after the other: neither is open beside the other.
struct Towers {
    gguf: Arc<Gguf>,
    embedding: usize,
    precision: Precision,
    encoder: EncoderOptions,
    vision: Option<VisionConfig>,
    audio: Option<AudioConfig>,
}

impl Towers {
    fn new(
        args: &Args,
        gguf: Arc<Gguf>,
        embedding: usize,
        options: &ModelOptions,
    ) -> Result<Self, OpenError> {
        let TowerOptions { threads, kernels, precision } = options.engine.tower_options;
        let vision = args.image.then(|| VisionConfig::read(&gguf)).transpose()?;
        let audio = args.audio.then(|| AudioConfig::read(&gguf)).transpose()?;
        let encoder = EncoderOptions { threads, kernels };
        Ok(Self { gguf, embedding, precision, encoder, vision, audio })
    }

    /// Most soft tokens of a picture or clip.
    fn soft_tokens(&self) -> usize {
        let picture = self.vision.as_ref().map_or(0, |config| config.soft_tokens);
        picture.max(self.audio.as_ref().map_or(0, |config| config.soft_tokens))
    }

    fn picture(
        &self,
        decoder: &mut Decoder,
        repetitions: usize,
    ) -> anyhow::Result<Option<PictureTimes>> {
        let Some(config) = &self.vision else { return Ok(None) };
        let model = VisionModel::open(&self.gguf, self.embedding, self.precision)?;
        let mut encoder = vision::Encoder::new(model, self.encoder);
        Ok(Some(bench::picture(&mut encoder, decoder, config.image_size, repetitions)?))
    }

    fn sound(
        &self,
        decoder: &mut Decoder,
        repetitions: usize,
    ) -> anyhow::Result<Option<SoundTimes>> {
        let Some(config) = &self.audio else { return Ok(None) };
        let model = AudioModel::open(&self.gguf, self.embedding, self.precision)?;
        let mut encoder = audio::Encoder::new(model, self.encoder);
        Ok(Some(bench::sound(&self.gguf, config, &mut encoder, decoder, repetitions)?))
    }
}

impl Facts {
    /// The rate at which reading the weights alone would go, where that is the limit.
    fn floor(&self, m: &Measurement) -> Option<f64> {
        (m.kind == Kind::Decode).then(|| self.bandwidth / self.bytes_per_token as f64)
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Prefill => "prefill",
        Kind::Decode => "decode",
    }
}

fn object(facts: &Facts, measurements: &[Measurement]) -> String {
    json!({
        "file": facts.file,
        "slice": facts.slice,
        "threads": facts.threads,
        "kernels": facts.kernels,
        "bandwidth": facts.bandwidth,
        "bytes_per_token": facts.bytes_per_token,
        "decode_floor": facts.bandwidth / facts.bytes_per_token as f64,
        "first_token": facts.first_token,
        "picture": facts.picture,
        "sound": facts.sound,
        "peak_memory": facts.peak_memory,
        "measurements": measurements,
    })
    .to_string()
}

fn csv(facts: &Facts, measurements: &[Measurement]) -> String {
    let mut lines = vec!["kind,tokens,depth,tokens_per_second,spread,floor".to_owned()];
    for m in measurements {
        let floor = facts.floor(m).map(|floor| format!("{floor:.3}")).unwrap_or_default();
        lines.push(format!(
            "{},{},{},{:.3},{:.3},{floor}",
            name(m.kind),
            m.tokens,
            m.depth,
            m.mean(),
            m.spread()
        ));
    }
    lines.join("\n")
}

/// The cells of a row: what, depth, rate, share of the floor.
fn row(facts: &Facts, m: &Measurement) -> [String; 4] {
    let share = facts.floor(m).map(|floor| {
        format!("{:.0} % of the floor, {floor:.1} tokens/s", 100.0 * m.mean() / floor)
    });
    [
        format!("{} {}", name(m.kind), m.tokens),
        m.depth.to_string(),
        format!("{:.2} ± {:.2}", m.mean(), m.spread()),
        share.unwrap_or_default(),
    ]
}

fn summary(facts: &Facts) -> Vec<String> {
    let file = match &facts.slice {
        Some(slice) => format!("{}, slice {slice}", facts.file),
        None => facts.file.clone(),
    };
    let mut lines = vec![
        format!("{file}, {} threads, kernels {}", facts.threads, facts.kernels),
        format!(
            "memory reads at {:.1} GB/s; a decoded token reads {}",
            facts.bandwidth / 1e9,
            DecimalBytes(facts.bytes_per_token as u64)
        ),
        format!("first token of 16 after {:.2} s", facts.first_token),
    ];
    let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len().max(1) as f64;
    if let Some(picture) = &facts.picture {
        let (encode, prefill) = (mean(&picture.encode), mean(&picture.prefill));
        lines.push(format!(
            "a picture of {} pixels is seen in {encode:.2} s; its {} soft tokens are read in \
             {prefill:.2} s",
            picture.side, picture.soft_tokens
        ));
    }
    if let Some(sound) = &facts.sound {
        let (features, encode) = (mean(&sound.features), mean(&sound.encode));
        lines.push(format!(
            "{:.0} s of sound are heard in {:.2} s, {:.1} times as fast as they last: features \
             {features:.2} s, tower {encode:.2} s ({:.0} G multiply-adds/s); their {} soft tokens are \
             read in {:.2} s",
            sound.seconds,
            features + encode,
            sound.seconds / (features + encode),
            sound.multiply_adds / encode / 1e9,
            sound.soft_tokens,
            mean(&sound.prefill)
        ));
    }
    if let Some(peak) = facts.peak_memory {
        lines.push(format!("peak resident memory {}", BinaryBytes(peak)));
    }
    lines
}

fn table(facts: &Facts, measurements: &[Measurement]) -> String {
    let mut lines = vec![format!("{:<14} {:>7}  {:>18}", "", "depth", "tokens/s")];
    for m in measurements {
        let [what, depth, rate, share] = row(facts, m);
        lines.push(format!("{what:<14} {depth:>7}  {rate:>18}  {share}").trim_end().to_owned());
    }
    lines.push(String::new());
    lines.extend(summary(facts));
    lines.join("\n")
}

fn markdown(facts: &Facts, measurements: &[Measurement]) -> String {
    let mut lines = vec!["| | depth | tokens/s | |".to_owned(), "|---|---|---|---|".to_owned()];
    lines.extend(measurements.iter().map(|m| format!("| {} |", row(facts, m).join(" | "))));
    lines.push(String::new());
    lines.extend(summary(facts).into_iter().map(|line| format!("- {line}")));
    lines.join("\n")
}
