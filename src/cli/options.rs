//! Flags that commands share: what was typed, and what is meant by it.
//!
//! The clap structs hold the typed words; `resolve` finds the model, counts the threads and fills
//! the defaults. Precedence: flag, then environment variable, then default.

use std::ffi::OsString;
use std::fmt::Display;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

use super::machine;
use super::models;
use super::output::{Color, Output, Verbosity};
use super::towers;
use crate::session::{
    CacheType, DecoderOptions, Engine, EngineOptions, Kernels, ModelSource, Precision,
    SamplerOptions, TowerOptions,
};

/// Context that is used when none is asked for, in positions.
const DEFAULT_CONTEXT: usize = 8192;
/// ggml's own limit (`GGML_MAX_N_THREADS`).
const MOST_THREADS: usize = 512;

/// Flags of every command, about what is printed.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Explain on stderr what is chosen and why
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// Colour stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Output"
    )]
    pub color: Color,
}

impl OutputArgs {
    pub fn resolve(&self) -> Output {
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        Output::new(verbosity, self.color)
    }
}

/// How the keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheTypeArg {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

/// Which kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelsArg {
    /// The fastest that this machine has
    Auto,
    /// ggml's only, without our own
    Ggml,
}

/// Flags of every command that runs a model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A GGUF file, a directory with one model in it, ORG/REPO[:QUANT] as found in the caches of
    /// the Hugging Face hub and llama.cpp, or builtin [default: builtin, a small model inside the
    /// program]
    #[arg(short, long, value_name = "MODEL", env = "GEMMA3N_MODEL", hide_env_values = true)]
    pub model: Option<OsString>,
    /// The model's towers, for pictures and sounds [default: the one file beside the model whose name says
    /// mmproj and that fits]
    #[arg(long, value_name = "FILE", env = "GEMMA3N_MMPROJ", hide_env_values = true)]
    pub mmproj: Option<OsString>,
    /// How the towers compute: in 8 bits, or exactly and at half the speed
    #[arg(long, value_name = "HOW", default_value = "int8")]
    pub tower_precision: PrecisionArg,
    /// Threads, at most as many as processors [default: physical cores this process may use; for
    /// the built-in model 1]
    #[arg(short, long, value_name = "N", env = "GEMMA3N_THREADS", hide_env_values = true,
          value_parser = threads)]
    pub threads: Option<usize>,
    /// Positions of the context, 0 for all that the model was trained for [default: 8192, at most
    /// what the model was trained for]
    #[arg(short, long, value_name = "N")]
    pub ctx_size: Option<usize>,
    /// Tokens of a prompt that are read at a time
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    pub batch_size: usize,
    /// How keys and values are kept [default: f16; verify: f32]
    #[arg(long, value_name = "TYPE")]
    pub cache_type: Option<CacheTypeArg>,
    /// Run a smaller model inside the file's: its name (gemma3n slice --list), or a file with a
    /// row of the published list
    #[arg(long, value_name = "NAME|FILE")]
    pub slice: Option<String>,
    /// Read the whole file into memory instead of mapping it
    #[arg(long)]
    pub no_mmap: bool,
    /// Keep the weights in memory, so that they are never paged out
    #[arg(long)]
    pub mlock: bool,
    /// Which kernels compute
    #[arg(long, value_name = "KERNELS", default_value = "auto")]
    pub kernels: KernelsArg,
    /// Print on stderr how long things took
    #[arg(long)]
    pub timings: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    Int8,
    Exact,
}

/// What [`ModelArgs`] means on this machine.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    pub engine: EngineOptions,
    pub threads: usize,
    pub timings: bool,
    towers: towers::Found,
    context: Option<usize>,
    batch: usize,
    cache: CacheType,
    kernels: Kernels,
}

impl ModelArgs {
    /// Finds the model and fills the defaults; `cache` is the command's default type.
    ///
    /// # Errors
    /// The model that is named is not found.
    pub fn resolve(
        &self,
        template: Option<PathBuf>,
        cache: CacheType,
        output: &Output,
    ) -> anyhow::Result<ModelOptions> {
        let model = models::find(self.model.as_deref(), output)?;
        let threads = match self.threads {
            Some(threads) if threads > 0 => at_most_processors(threads),
            // So small a model gains little by more, and loses much where processors are busy.
            _ if matches!(model, ModelSource::Static { .. }) => 1,
            _ => machine::usable_cores().min(MOST_THREADS),
        };
        let towers = towers::find(self.mmproj.as_deref(), &model)?;
        let kernels = match self.kernels {
            KernelsArg::Auto => Kernels::Auto,
            KernelsArg::Ggml => Kernels::Ggml,
        };
        let precision = match self.tower_precision {
            PrecisionArg::Int8 => Precision::Int8,
            PrecisionArg::Exact => Precision::Exact,
        };
        Ok(ModelOptions {
            engine: EngineOptions {
                model,
                towers: towers.one().cloned(),
                tower_options: TowerOptions { threads, kernels, precision },
                template,
                slice: self.slice.as_deref().map(super::slice::named).transpose()?,
                mmap: !self.no_mmap,
                mlock: self.mlock,
            },
            threads,
            timings: self.timings,
            towers,
            context: self.ctx_size,
            batch: self.batch_size,
            cache: self.cache_type.map_or(cache, |cache| match cache {
                CacheTypeArg::F32 => CacheType::F32,
                CacheTypeArg::F16 => CacheType::F16,
                CacheTypeArg::Q8_0 => CacheType::Q8_0,
            }),
            kernels,
        })
    }
}

impl ModelOptions {
    /// Whether the model is the one inside the program.
    pub fn is_builtin(&self) -> bool {
        matches!(self.engine.model, ModelSource::Static { .. })
    }

    /// Tells before the work that `what` (pictures, sounds) cannot be shown to this model.
    ///
    /// # Errors
    /// There is no file of towers, or it is not clear which.
    pub fn require_towers(&self, what: &str) -> anyhow::Result<()> {
        self.towers.required(self.engine.model.path(), what)
    }

    /// What the decoder needs, now that the model is open and says what it was trained for.
    pub fn decoder(&self, engine: &Engine, output: &Output) -> DecoderOptions {
        self.decoder_for(engine.trained_context(), output)
    }

    /// The same, for a model that was trained for so many positions.
    pub fn decoder_for(&self, trained: usize, output: &Output) -> DecoderOptions {
        let context = match self.context {
            None => DEFAULT_CONTEXT.min(trained),
            Some(0) => trained,
            Some(asked) => {
                if asked > trained {
                    output.warn(format_args!(
                        "--ctx-size {asked}: the model was trained for {trained} positions, so many are used"
                    ));
                }
                asked.min(trained)
            }
        };
        DecoderOptions {
            context,
            batch: self.batch.min(context),
            cache: self.cache,
            threads: self.threads,
            kernels: self.kernels,
        }
    }
}

/// So many threads, but no more than processors: threads wait for each other at every node, and
/// one that gets no processor holds up all.
pub fn at_most_processors(threads: usize) -> usize {
    threads.min(std::thread::available_parallelism().map_or(MOST_THREADS, NonZero::get))
}

/// Flags about how an answer is drawn. What is not typed is the model's own default.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Answer")]
pub struct SamplingArgs {
    /// Most tokens of an answer, -1 for no limit
    #[arg(short = 'n', long, value_name = "N", default_value = "-1", allow_negative_numbers = true,
          value_parser = predict)]
    pub predict: Limit,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", value_parser = temperature, allow_negative_numbers = true)]
    pub temp: Option<f32>,
    /// Draw from the K likeliest tokens, 0 for all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", value_parser = top_p, allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Leave out tokens that are less likely than this share of the likeliest
    #[arg(long, value_name = "P", value_parser = min_p, allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Divide the logits of tokens that came lately, 1 for not at all
    #[arg(long, value_name = "X", value_parser = repeat_penalty, allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,
    /// How many tokens count as lately
    #[arg(long, value_name = "N")]
    pub repeat_last_n: Option<usize>,
    /// Seed: the same file, prompt, seed and threads give the same answer [default: random]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Text that ends the answer and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Always take the likeliest token, as --temp 0
    #[arg(long, conflicts_with = "temp")]
    pub greedy: bool,
}

impl SamplingArgs {
    /// What was typed over the model's defaults; a random seed where none was typed.
    pub fn resolve(&self, defaults: SamplerOptions) -> SamplerOptions {
        let temperature = if self.greedy { Some(0.0) } else { self.temp };
        SamplerOptions {
            temperature: temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(defaults.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(defaults.repeat_last_n),
            seed: Some(self.seed.unwrap_or_else(random_seed)),
        }
    }
}

/// A seed that is short enough to be read off the screen and typed again.
pub fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

/// A count that may be without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<usize>);

/// # Errors
/// Like all readers of values below: a message that says what is allowed.
pub fn predict(text: &str) -> Result<Limit, String> {
    if text.trim() == "-1" {
        return Ok(Limit(None));
    }
    number(text).map(|count| Limit(Some(count))).map_err(|_| "a count of tokens, or -1".to_owned())
}

pub fn temperature(text: &str) -> Result<f32, String> {
    within(text, "a number of 0 or more", |value| value >= 0.0)
}

pub fn top_p(text: &str) -> Result<f32, String> {
    within(text, "a number above 0 and at most 1", |value| value > 0.0 && value <= 1.0)
}

pub fn min_p(text: &str) -> Result<f32, String> {
    within(text, "a number from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

pub fn repeat_penalty(text: &str) -> Result<f32, String> {
    within(text, "a number above 0", |value| value > 0.0)
}

/// A number in plain decimal digits.
pub fn number<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

fn within(text: &str, allowed: &str, holds: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value: f32 = number(text).map_err(|_| format!("must be {allowed}"))?;
    if value.is_finite() && holds(value) { Ok(value) } else { Err(format!("must be {allowed}")) }
}

/// An empty value (of the variable) and 0 mean: count them.
pub fn threads(text: &str) -> Result<usize, String> {
    if text.trim().is_empty() {
        return Ok(0);
    }
    number(text)
        .ok()
        .filter(|threads| *threads <= MOST_THREADS)
        .ok_or_else(|| format!("must be a number up to {MOST_THREADS}"))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    number(text).ok().filter(|n| *n > 0).ok_or_else(|| "must be a number of 1 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_say_what_is_allowed() {
        assert_eq!(temperature("0"), Ok(0.0));
        for wrong in ["-0.1", "nan", "inf", "warm", ""] {
            assert_eq!(temperature(wrong), Err("must be a number of 0 or more".to_owned()));
        }
        assert_eq!(top_p("1"), Ok(1.0));
        assert!(top_p("0").is_err() && top_p("1.01").is_err());
        assert!(min_p("0").is_ok() && min_p("-0.01").is_err());
        assert!(repeat_penalty("0").is_err() && repeat_penalty("1.1").is_ok());
    }

    #[test]
    fn minus_one_is_no_limit() {
        assert_eq!(predict("-1"), Ok(Limit(None)));
        assert_eq!(predict("0"), Ok(Limit(Some(0))));
        assert!(predict("-2").is_err());
    }

    #[test]
    fn an_empty_variable_counts_the_threads() {
        assert_eq!(threads(""), Ok(0));
        assert_eq!(threads("3"), Ok(3));
        assert!(threads("513").is_err() && threads("-1").is_err());
    }
}
