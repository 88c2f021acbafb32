//! The bytes of a file: mapped, read into memory, or part of the program itself.

use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;

use super::error::{Error, Fault};
use super::mapping::Mapping;

/// Alignment of files read into memory, in bytes: enough for every kernel.
const MEMORY_ALIGNMENT: usize = 64;

/// A whole file as bytes.
#[derive(Debug)]
pub(super) enum Source {
    Mapped(Mapping),
    Memory(AlignedBytes),
    Static(&'static [u8]),
}

impl Source {
    /// Maps a file.
    pub fn map(path: &Path) -> Result<Self, Error> {
        let (file, _) = open_regular(path)?;
        Mapping::new(&file, path).map(Self::Mapped).map_err(|e| Error::new(path, e))
    }

    /// Reads a file into memory.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (file, len) = open_regular(path)?;
        AlignedBytes::read(file, len).map(Self::Memory).map_err(|fault| fault.of(path))
    }

    /// Tells the system that this range will be read in scattered small pieces.
    pub fn advise_random(&self, range: Range<usize>) {
        if let Self::Mapped(mapping) = self {
            mapping.advise_random(range);
        }
    }

    /// Asks the system to bring this range into memory, without waiting for it.
    pub fn advise_will_need(&self, range: Range<usize>) {
        if let Self::Mapped(mapping) = self {
            mapping.advise_will_need(range);
        }
    }

    /// Takes this range out of the process's memory, where it belongs to a file.
    pub fn advise_unneeded(&self, range: Range<usize>) {
        if let Self::Mapped(mapping) = self {
            mapping.advise_unneeded(range);
        }
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.bytes(),
            Self::Memory(memory) => memory.bytes(),
            Self::Static(bytes) => bytes,
        }
    }
}

/// Opens a file that can be mapped, and gives its length. Looks before it opens: opening a named
/// pipe would wait for its writer.
fn open_regular(path: &Path) -> Result<(File, u64), Error> {
    let found = std::fs::metadata(path).map_err(|e| Error::new(path, e))?;
    let fault = match (found.is_dir(), found.is_file(), found.len()) {
        (true, _, _) => Fault::Directory,
        (_, false, _) => Fault::NotRegular,
        (_, _, 0) => Fault::Empty,
        (_, _, len) => {
            return Ok((File::open(path).map_err(|e| Error::new(path, e))?, len));
        }
    };
    Err(fault.of(path))
}

/// A file in memory, its first byte at a multiple of [`MEMORY_ALIGNMENT`].
#[derive(Debug)]
pub(super) struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn read(file: File, len: u64) -> Result<Self, Fault> {
        let out_of_memory = || Fault::Memory(len);
        let len = usize::try_from(len).map_err(|_| out_of_memory())?;
        let room = len.checked_add(MEMORY_ALIGNMENT).ok_or_else(out_of_memory)?;
        let mut memory: Vec<u8> = Vec::new();
        memory.try_reserve_exact(room).map_err(|_| out_of_memory())?;
        let start = memory.as_ptr().align_offset(MEMORY_ALIGNMENT);
        memory.resize(start, 0);
        // Never grows the vector, which would move it: at most `len` bytes are taken.
        let read = file.take(len as u64).read_to_end(&mut memory)?;
        if read < len {
            let inside = "the file: it was truncated while it was read".to_string();
            return Err(Fault::Truncated { inside, at: read as u64, len: len as u64 });
        }
        Ok(Self { memory, start, len })
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}
