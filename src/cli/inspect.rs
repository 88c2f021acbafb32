//! `inspect`: what a GGUF file is, in one screen or as JSON.
//!
//! Looks at the header only, and judges nothing by the file's name. JSON keys (stable):
//! `file`, `bytes`, `parts`, `sha` (the fingerprint of session files), `architecture`, `kind`,
//! `name`, `licence`, `parameters`, `bits_per_weight`, `types` [{`type`, `tensors`, `elements`,
//! `bytes`, `share`}], `model` {`size`, `layers`, `width`, `ffn`, …} or null, `slices`, `towers`
//! [{`kind`, `projector`, `tensors`, `bytes`}], `tokenizer` or null, `odd` [text], `metadata`
//! {key: value; arrays of more than 64 are {`type`, `len`, `first`}}, and with `--tensors`
//! `tensors` [{`name`, `shape`, `type`, `bytes`, `part`, `offset`}].
//! Numbers that JSON lacks are the strings `inf`, `-inf` and `nan`.

mod facts;
mod model;
mod oddities;
mod screen;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;

use anyhow::anyhow;

use super::output::hinted;
use crate::gguf::{Gguf, Metadata, Value};
use crate::session::builtin;

/// What was typed after `inspect`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  gemma3n inspect e2b-Q4_K_M.gguf
  gemma3n inspect e2b-Q4_K_M.gguf --tensors
  gemma3n inspect e2b-Q4_K_M.gguf --metadata tokenizer.chat_template
  gemma3n inspect e2b-Q4_K_M.gguf --json | jq .types")]
pub struct Args {
    /// GGUF file (of a split one, the first part), or builtin for the model inside the program
    pub file: PathBuf,
    /// List every tensor with its type, shape and size
    #[arg(long)]
    pub tensors: bool,
    /// Show the value of one metadata key
    #[arg(long, value_name = "KEY", conflicts_with = "tensors")]
    pub metadata: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The answer, to be printed as it stands (no newline at its end).
///
/// # Errors
/// The file is no sound GGUF file, or lacks the metadata key that is asked for.
pub fn run(args: &Args) -> anyhow::Result<String> {
    let gguf = match args.file.as_os_str() == builtin::NAME {
        true => builtin::text().open(true)?,
        false => Gguf::open(&args.file)?,
    };
    if let Some(key) = &args.metadata {
        let Some(value) = gguf.metadata().get(key) else {
            let error = anyhow!("{}: no metadata key {key}", args.file.display());
            return Err(match nearest(gguf.metadata(), key) {
                Some(names) => hinted(error, format!("nearest: {names}")),
                None => error,
            });
        };
        return Ok(one_value(key, &value, args.json)?);
    }
    let report = facts::Report::of(&gguf, args.tensors);
    if args.json { Ok(serde_json::to_string_pretty(&report)?) } else { Ok(screen::render(&report)) }
}

/// One key's value: whole as JSON; for people strings whole, long arrays cut.
fn one_value(key: &str, value: &Value<'_>, json: bool) -> serde_json::Result<String> {
    if !json {
        return Ok(values::text(value));
    }
    let ty = values::type_name(value);
    let value = values::json(value, usize::MAX);
    serde_json::to_string_pretty(&serde_json::json!({ "key": key, "type": ty, "value": value }))
}

/// The keys most like the one that is missing, if any are.
fn nearest(metadata: &Metadata, key: &str) -> Option<String> {
    /// Less alike than this is not worth showing.
    const ALIKE: f64 = 0.5;
    /// A key that ends as typed is what was meant: people leave out the prefix.
    fn likeness(key: &str, found: &str) -> f64 {
        let ending = found.len() > key.len() && found.ends_with(key);
        strsim::normalized_damerau_levenshtein(key, found) + f64::from(u8::from(ending))
    }
    let mut alike: Vec<(f64, &str)> = metadata
        .iter()
        .map(|(found, _)| (likeness(key, found), found))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<&str> = alike.iter().take(3).map(|&(_, name)| name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
