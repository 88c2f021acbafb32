//! A file beside another that says something about it: written whole, or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;

use crate::gguf::io_message;

/// What a sidecar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SidecarFormat {
    /// The words alone
    Txt,
    /// What --jsonl prints
    Json,
}

/// The sidecar of one input.
pub struct Sidecar {
    path: PathBuf,
    format: SidecarFormat,
}

impl Sidecar {
    /// `photo.jpg` has `photo.txt` or `photo.json`.
    pub fn new(input: &Path, format: SidecarFormat) -> Self {
        let ending = match format {
            SidecarFormat::Txt => "txt",
            SidecarFormat::Json => "json",
        };
        Self { path: input.with_extension(ending), format }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Writes it as a whole.
    ///
    /// # Errors
    /// It can't be written, or came into being meanwhile.
    pub fn write(
        &self,
        text: &str,
        entry: &serde_json::Value,
        overwrite: bool,
    ) -> anyhow::Result<()> {
        let content = match self.format {
            SidecarFormat::Txt => format!("{}\n", text.trim_end()),
            SidecarFormat::Json => format!("{entry:#}\n"),
        };
        write_whole(&self.path, content.as_bytes(), overwrite)
    }
}

/// Writes a file beside its place and renames it.
///
/// # Errors
/// It can't be written, or is there and may not be overwritten.
pub fn write_whole(path: &Path, content: &[u8], overwrite: bool) -> anyhow::Result<()> {
    // Errors of temporary files name those, which nobody knows.
    let failed = |error: &io::Error| {
        let text = io_message(error);
        let text = text.split(" at path ").next().unwrap_or_default();
        anyhow!("{}: {text}", path.display())
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new();
    // Others may read it, as far as the user's mask lets them.
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = file.tempfile_in(folder).map_err(|error| failed(&error))?;
    let written = file.write_all(content).and_then(|()| file.as_file().sync_all());
    written.map_err(|error| failed(&error))?;
    let named = match overwrite {
        true => file.persist(path),
        false => file.persist_noclobber(path),
    };
    named.map_err(|error| failed(&error.error))?;
    Ok(())
}
