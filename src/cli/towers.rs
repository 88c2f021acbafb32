//! Which file of towers goes with a model: the one named, else the one beside it that fits.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::output::Hint;
use crate::gguf::Gguf;
use crate::session::{ModelSource, builtin};

/// The files of towers that were found for a model.
#[derive(Clone, Debug)]
pub enum Found {
    One(ModelSource),
    None,
    /// Files whose names say mmproj, of models of another width than this.
    Misfits(Vec<PathBuf>, u32),
    /// More than one fits, and none was named.
    Several(Vec<PathBuf>),
}

impl Found {
    /// The file, if it is clear which.
    pub fn one(&self) -> Option<&ModelSource> {
        match self {
            Self::One(source) => Some(source),
            Self::None | Self::Misfits(..) | Self::Several(_) => None,
        }
    }

    /// The error of a picture or sound that comes without a tower for it.
    ///
    /// # Errors
    /// Always, unless there is one file.
    pub fn required(&self, model: &Path, what: &str) -> anyhow::Result<()> {
        match self {
            Self::One(_) => Ok(()),
            Self::None => Err(anyhow!(
                "{}: {what} need the model's towers, and no file named mmproj lies beside it",
                model.display()
            ))
            .hint(|| {
                "--mmproj FILE names one; `gemma3n convert` writes it beside the model".to_owned()
            }),
            Self::Misfits(files, width) => Err(anyhow!(
                "{}: {what} need the model's towers; {} lies beside it, but is not of a model {width} \
                 wide",
                model.display(),
                files.first().map_or(Path::new("a file"), |file| file).display()
            ))
            .hint(|| "--mmproj FILE names the one that belongs to it".to_owned()),
            Self::Several(files) => {
                let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                Err(anyhow!("{} files of towers fit: {}", files.len(), names.join(", ")))
                    .hint(|| "--mmproj FILE names one of them".to_owned())
            }
        }
    }
}

/// Finds the file: what `--mmproj` names, else the built-in model's own, or one beside the model whose
/// name says mmproj and whose width is the model's.
///
/// # Errors
/// The file that is named is not there.
pub fn find(named: Option<&OsStr>, model: &ModelSource) -> anyhow::Result<Found> {
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        let file = PathBuf::from(named);
        return match fs::metadata(&file) {
            Ok(_) => Ok(Found::One(ModelSource::File(file))),
            Err(error) => Err(anyhow!("{}: {}", file.display(), crate::gguf::io_message(&error))),
        };
    }
    let ModelSource::File(model) = model else { return Ok(Found::One(builtin::towers())) };
    let folder = match model.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let candidates: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| says_mmproj(path)).collect();
    if candidates.is_empty() {
        return Ok(Found::None);
    }
    let Some(width) = number(model, &["gemma3n.embedding_length"]) else { return Ok(Found::None) };
    let fits = |path: &PathBuf| {
        let keys = ["clip.vision.projection_dim", "clip.audio.projection_dim"];
        number(path, &keys) == Some(width)
    };
    let (mut files, mut misfits): (Vec<_>, Vec<_>) = candidates.into_iter().partition(fits);
    files.sort();
    misfits.sort();
    Ok(match files.len() {
        0 if !misfits.is_empty() => Found::Misfits(misfits, width),
        0 => Found::None,
        1 => Found::One(ModelSource::File(files.remove(0))),
        _ => Found::Several(files),
    })
}

fn says_mmproj(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| name.ends_with(".gguf") && name.contains("mmproj"))
}

/// The first of these keys that a sound file has.
fn number(file: &Path, keys: &[&str]) -> Option<u32> {
    let gguf = Gguf::open(file).ok()?;
    keys.iter().find_map(|key| gguf.metadata().u32(key).ok().flatten())
}
