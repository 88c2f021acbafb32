//! The files that a command works on: those named, and those of directories by their endings.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::output::Hint;
use crate::gguf::io_message;

/// What is looked for in directories.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    /// What messages call several of them.
    pub what: &'static str,
    /// What a name ends in.
    pub endings: &'static [&'static str],
    /// Endings of those that can't be read: they are named, not passed over.
    pub unread: &'static [&'static str],
}

impl Sought {
    fn takes(&self, file: &Path) -> bool {
        file.extension().and_then(OsStr::to_str).is_some_and(|extension| {
            let endings = self.endings.iter().chain(self.unread);
            endings.into_iter().any(|ending| extension.eq_ignore_ascii_case(ending))
        })
    }
}

/// The files that were named, those of directories in the order of their names; what can't be
/// looked into stands in its place. `-` stays what it is.
pub fn gather(
    inputs: &[PathBuf],
    sought: &Sought,
    recursive: bool,
) -> Vec<anyhow::Result<PathBuf>> {
    let mut found = Vec::new();
    for input in inputs {
        if input.as_os_str() == "-" || !input.is_dir() {
            found.push(Ok(input.clone()));
            continue;
        }
        let before = found.len();
        look_into(input, sought, recursive, &mut found);
        if found.len() == before {
            let none = Err(anyhow!("{}: no {} in this directory", input.display(), sought.what));
            found.push(none.hint(|| {
                let deeper = if recursive { "" } else { "; --recursive looks deeper" };
                format!("their names end in .{}{deeper}", sought.endings.join(", ."))
            }));
        }
    }
    found
}

fn look_into(
    folder: &Path,
    sought: &Sought,
    recursive: bool,
    found: &mut Vec<anyhow::Result<PathBuf>>,
) {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<PathBuf> = match entries {
        Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
        Err(error) => {
            found.push(Err(anyhow!("{}: {}", folder.display(), io_message(&error))));
            return;
        }
    };
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            // A link may lead back to where it lies.
            if recursive && !path.is_symlink() {
                look_into(&path, sought, recursive, found);
            }
        } else if path.is_file() && sought.takes(&path) {
            found.push(Ok(path));
        }
    }
}
