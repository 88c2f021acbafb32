//! Turns the oracle's `.npz` files of reference values into the GGUF form that `verify` reads.
//!
//! ```sh
//! cargo run --example npz-to-reference -- CASE.npz --manifest manifest.json -o OUT.gguf
//! ```
//!
//! A batch case makes one file for each of its rows: `OUT_row0.gguf`, `OUT_row1.gguf`, ….

#[path = "../tests/support/npz.rs"]
mod npz;
#[path = "../tests/support/reference_file.rs"]
mod reference_file;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use gemma3n::gguf::Gguf;
use serde::Deserialize;

use npz::Npz;

#[derive(Parser)]
#[command(about = "Turns a .npz of reference values into the GGUF form that verify reads")]
struct Options {
    /// The case's arrays; the file's name without `.npz` becomes the case's name.
    case: PathBuf,
    /// Check the arrays against the dtypes and shapes that the oracle's manifest.json lists.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// The model that the values belong to; its fingerprint is noted.
    #[arg(long)]
    model: Option<PathBuf>,
    /// A picture or sound of the prompt, relative to the output file; may be repeated.
    #[arg(long)]
    media: Vec<String>,
    /// Tolerance of taps whose name starts with PREFIX; may be repeated.
    #[arg(long, value_name = "PREFIX=NUMBER", value_parser = tolerance)]
    tolerance: Vec<(String, f32)>,
}

fn tolerance(text: &str) -> Result<(String, f32)> {
    let (prefix, number) = text.rsplit_once('=').context("expected PREFIX=NUMBER")?;
    Ok((prefix.to_owned(), number.parse()?))
}

#[derive(Deserialize)]
struct Manifest {
    cases: BTreeMap<String, ManifestCase>,
}

#[derive(Deserialize)]
struct ManifestCase {
    /// Name → (dtype, shape).
    arrays: BTreeMap<String, (String, Vec<usize>)>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let case =
        options.case.file_stem().and_then(|stem| stem.to_str()).context("the case has no name")?;
    let arrays = Npz::open(&options.case)?;
    if let Some(manifest) = &options.manifest {
        check(&arrays, case, manifest)?;
    }
    let fingerprint = match &options.model {
        Some(model) => Gguf::open(model)?.fingerprint(),
        None => String::new(),
    };
    let references = arrays.references(case)?;
    let alone = references.len() == 1;
    for (row, mut reference) in references.into_iter().enumerate() {
        reference.model_fingerprint = fingerprint.clone();
        reference.media = options.media.clone();
        reference.tolerances = options.tolerance.iter().cloned().collect();
        let output = if alone { options.output.clone() } else { row_path(&options.output, row)? };
        reference_file::write(&reference, &output).with_context(|| output.display().to_string())?;
    }
    Ok(())
}

/// `dir/case.reference.gguf` → `dir/case_row1.reference.gguf`.
fn row_path(output: &Path, row: usize) -> Result<PathBuf> {
    let name =
        output.file_name().and_then(|name| name.to_str()).context("the output has no name")?;
    let (stem, endings) = name.split_once('.').unwrap_or((name, "gguf"));
    Ok(output.with_file_name(format!("{stem}_row{row}.{endings}")))
}

/// The archive's arrays against the manifest's.
fn check(arrays: &Npz, case: &str, manifest: &Path) -> Result<()> {
    let text = std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let manifest: Manifest =
        serde_json::from_str(&text).with_context(|| manifest.display().to_string())?;
    let listed =
        manifest.cases.get(case).with_context(|| format!("the manifest has no case {case}"))?;
    ensure!(
        listed.arrays.len() == arrays.0.len(),
        "the manifest lists {} arrays, found {}",
        listed.arrays.len(),
        arrays.0.len()
    );
    for array in &arrays.0 {
        match listed.arrays.get(&array.name) {
            Some((dtype, shape)) if dtype == array.dtype && *shape == array.shape => {}
            listed => {
                bail!("{}: found {} {:?}, listed {listed:?}", array.name, array.dtype, array.shape)
            }
        }
    }
    Ok(())
}
