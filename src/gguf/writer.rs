//! Writing a file as a stream: whole under its name, or not there at all.
//!
//! The bytes go to a temporary file beside the target, which is synced and renamed at the end. A
//! writer that is dropped before leaves nothing behind.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::error::{Error, Fault};
use super::layout::{Encoded, Layout};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A file being written.
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    overwrite: bool,
    file: BufWriter<NamedTempFile>,
    names: Vec<String>,
    encoded: Encoded,
    /// The tensor being written, and how many of its bytes are.
    current: usize,
    written: u64,
}

impl Writer {
    /// Tells, before long work, what would keep `create` from starting: as it does with a target,
    /// and in a folder that takes no files.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn check(target: &Path, overwrite: bool) -> Result<(), Error> {
        check_target(target, overwrite)?;
        temporary(target).map(drop).map_err(|e| Error::new(target, e))
    }

    /// Starts a file with this layout: checks the plan and writes the header.
    ///
    /// # Errors
    /// The layout is not allowed by the format; the target exists and `overwrite` is false, or is
    /// no regular file; its folder cannot be written.
    pub fn create(target: &Path, layout: &Layout, overwrite: bool) -> Result<Self, Error> {
        let mut encoded = layout.encode().map_err(|fault| fault.of(target))?;
        check_target(target, overwrite)?;
        let temporary = temporary(target).map_err(|e| Error::new(target, e))?;
        let mut file = BufWriter::with_capacity(BUFFER, temporary);
        file.write_all(&std::mem::take(&mut encoded.header)).map_err(|e| Error::new(target, e))?;
        let names = layout.tensors.iter().map(|plan| plan.name.clone()).collect();
        let target = target.to_path_buf();
        Ok(Self { target, overwrite, file, names, encoded, current: 0, written: 0 })
    }

    /// Bytes the whole file will have.
    pub fn file_len(&self) -> u64 {
        self.encoded.len
    }

    /// Appends bytes of a tensor. Tensors come in the layout's order, each in as many pieces as
    /// the caller likes; the next may start when the last is whole.
    ///
    /// # Errors
    /// Another tensor is to be written first, the tensor has fewer bytes, or writing fails.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let problem = match self.names.get(self.current) {
            Some(expected) if expected == name => self.check_room(bytes.len() as u64),
            Some(expected) if self.written > 0 => Some(format!(
                "cannot start before {expected} is whole ({} of {} bytes)",
                self.written, self.encoded.sizes[self.current]
            )),
            Some(expected) => Some(format!("cannot be written now: {expected} comes next")),
            None => Some("cannot be written: the file is whole".to_string()),
        };
        if let Some(problem) = problem {
            return Err(Fault::Write { name: name.to_string(), problem }.of(&self.target));
        }
        self.put(bytes).map_err(|e| Error::new(&self.target, e))
    }

    fn check_room(&self, len: u64) -> Option<String> {
        let size = self.encoded.sizes[self.current];
        (len > size - self.written).then(|| {
            format!("expected {size} bytes, given at least {}", self.written.saturating_add(len))
        })
    }

    /// Writes bytes of the current tensor, and its padding when it is whole.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let size = self.encoded.sizes[self.current];
        if self.written == size {
            let next = self.encoded.offsets.get(self.current + 1).unwrap_or(&self.encoded.len);
            let padding = next - self.encoded.offsets[self.current] - size;
            io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.file)?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Whether all tensors are written.
    pub(super) fn is_whole(&self) -> bool {
        self.current == self.names.len()
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// A tensor is not whole, the disk is full, or the target has come into being meanwhile and
    /// is not to be overwritten.
    pub fn finish(self) -> Result<(), Error> {
        self.complete()?.publish()
    }

    /// Syncs the file, which has no name yet.
    pub(super) fn complete(self) -> Result<Finished, Error> {
        let (target, overwrite) = (self.target, self.overwrite);
        if let Some(name) = self.names.get(self.current) {
            let size = self.encoded.sizes[self.current];
            let problem = format!("expected {size} bytes, given {}", self.written);
            return Err(Fault::Write { name: name.clone(), problem }.of(&target));
        }
        let temporary = self.file.into_inner().map_err(|e| Error::new(&target, e.into_error()))?;
        temporary.as_file().sync_all().map_err(|e| Error::new(&target, e))?;
        Ok(Finished { target, overwrite, temporary: temporary.into_temp_path() })
    }
}

/// A whole file that waits for its name. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Finished {
    target: PathBuf,
    overwrite: bool,
    temporary: TempPath,
}

impl Finished {
    /// The name it is to have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives it its name.
    pub(super) fn publish(self) -> Result<(), Error> {
        let target = self.target;
        let renamed = if self.overwrite {
            self.temporary.persist(&target)
        } else {
            self.temporary.persist_noclobber(&target)
        };
        renamed.map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => Fault::Exists.of(&target),
            _ => Error::new(&target, e.error),
        })?;
        sync_folder(&target);
        Ok(())
    }
}

/// A new file beside the target.
fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".part")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(target))
}

/// Refuses a target that exists (unless it may be overwritten), that a rename would replace by
/// something else, such as `/dev/null`, or whose folder isn't there.
pub(super) fn check_target(target: &Path, overwrite: bool) -> Result<(), Error> {
    let fault = match std::fs::symlink_metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let folder = folder_of(target);
            if folder.is_dir() {
                return Ok(());
            }
            Fault::NoFolder { folder: folder.to_owned() }
        }
        Err(e) => e.into(),
        Ok(found) if found.is_dir() => Fault::Directory,
        Ok(_) if !overwrite => Fault::Exists,
        Ok(found) if !found.is_file() => Fault::NotRegular,
        Ok(_) => return Ok(()),
    };
    Err(fault.of(target))
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the new name durable. Some file systems cannot, and the file itself is safe: no error.
fn sync_folder(target: &Path) {
    if let Ok(folder) = std::fs::File::open(folder_of(target)) {
        let _ = folder.sync_all();
    }
}

/// Whether two paths name the same existing file, through links too. A command asks this before
/// it writes over one of its inputs.
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}
