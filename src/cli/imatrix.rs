//! `gemma3n imatrix`: a model's activations over a text → an importance matrix for `quantize`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::input::read_text;
use super::interrupt::Interrupt;
use super::options::ModelArgs;
use super::output::{Hint, Output};
use super::progress::{Progress, Unit};
use super::{Status, usage_error};
use crate::files::imatrix::collect::{Text, collect};
use crate::files::imatrix::{Error, ImportanceMatrix};
use crate::gguf::{Writer, same_file};
use crate::model::error::StepError;
use crate::model::text::Decoder;
use crate::session::{CacheType, Engine};
use crate::tokenizer::Specials;

const EXAMPLES: &str = "\
Examples:
  gemma3n imatrix -m e2b-F16.gguf -f calibration.txt -o e2b.imatrix.gguf
  gemma3n imatrix -m e2b-F16.gguf -f calibration.txt -o e2b.imatrix.gguf --chunks 100
  cat *.txt | gemma3n imatrix -m e2b-F16.gguf -f - -o e2b.imatrix.gguf

The text is like what the model will read and write; some hundred chunks are enough. The file is
llama.cpp's: llama-quantize reads it, and quantize reads llama-imatrix's. Ctrl-C writes nothing.";

/// Collect the statistics of a model's activations that help to quantize it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The text to read, - for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    text: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Read at most so many chunks [default: all of the text]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    chunks: Option<usize>,
    /// Tokens of a chunk; each is read by itself
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least::<16>)]
    chunk_size: usize,
    /// Control tokens written in the text are control tokens, not text
    #[arg(long)]
    parse_special: bool,
    /// Say what would be read, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Overwrite the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn at_least<const N: usize>(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|n| *n >= N).ok_or_else(|| format!("must be {N} or more"))
}

/// Runs the command.
///
/// # Errors
/// A model or text that cannot be used, or a file that cannot be written.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    if args.model.ctx_size.is_some() {
        return Err(usage_error("imatrix", "the context is a chunk: --chunk-size sets it"));
    }
    let options = args.model.resolve(None, CacheType::F16, output)?;
    let engine = Engine::open(&options.engine)?;
    let trained = engine.trained_context();
    if args.chunk_size > trained {
        return Err(anyhow!(
            "{}: chunks of {} tokens are more than the {trained} positions that the model was \
             trained for",
            engine.path().display(),
            args.chunk_size
        ));
    }
    let text = tokens(args, &engine)?;
    let what = format!("{} chunks of {} tokens", text.chunks(), args.chunk_size);
    if args.dry_run {
        output.answer(&format!(
            "{}: {what} would be read from {}\n",
            args.output.display(),
            text.name
        ))?;
        return Ok(Status::Done);
    }
    check_target(args, &engine)?;
    let mut decoder_options = options.decoder(&engine, output);
    decoder_options.context = args.chunk_size;
    decoder_options.batch = decoder_options.batch.min(args.chunk_size);
    let mut decoder = Decoder::new(engine.model().clone(), decoder_options)?;
    let Some(matrix) = read(&mut decoder, &text, output)? else { return Ok(Status::Interrupted) };
    matrix.write(&args.output, args.force)?;
    let entries = matrix.entries.len();
    output.notice(format_args!("{}: {entries} entries from {what}", args.output.display()));
    Ok(Status::Done)
}

/// The text's tokens, cut into chunks.
fn tokens(args: &Args, engine: &Engine) -> anyhow::Result<Text> {
    let (path, tokenizer) = (&args.text, engine.tokenizer());
    let text = read_text(path)?;
    let specials = if args.parse_special { Specials::Parse } else { Specials::AsText };
    let ids = tokenizer.encode(&text, specials);
    let bos = tokenizer.adds_bos().then(|| tokenizer.bos());
    let name =
        if path == Path::new("-") { "standard input".into() } else { path.to_string_lossy() };
    Text::new(name.into_owned(), ids, bos, args.chunk_size, args.chunks).hint(|| {
        "a longer text is needed (some 50 000 words are good), or a smaller --chunk-size".to_owned()
    })
}

/// Tells before the work what would stop it at the end.
fn check_target(args: &Args, engine: &Engine) -> anyhow::Result<()> {
    let target = &args.output;
    let inputs = engine.gguf().paths().chain([args.text.as_path()]);
    if let Some(input) = inputs.into_iter().find(|input| same_file(input, target)) {
        return Err(anyhow!("{}: is what is read ({})", target.display(), input.display()));
    }
    if !args.force && target.is_file() {
        return Err(anyhow!("{}: exists already", target.display()))
            .hint(|| "--force overwrites".to_owned());
    }
    Ok(Writer::check(target, args.force)?)
}

/// The statistics; `None` after Ctrl-C.
fn read(
    decoder: &mut Decoder,
    text: &Text,
    output: &Output,
) -> anyhow::Result<Option<ImportanceMatrix>> {
    let interrupt = Interrupt::install()?;
    interrupt.catch();
    decoder.set_interrupt(interrupt.flag());
    let what = format!("Reading {}", text.name);
    let bar = Progress::bar(output, &what, Unit::Tokens, text.tokens() as u64);
    let outcome = collect(decoder, text, &mut |tokens| bar.set(tokens as u64));
    match outcome {
        Ok(matrix) => {
            bar.finish(output);
            Ok(Some(matrix))
        }
        Err(Error::Step(StepError::Interrupted)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
