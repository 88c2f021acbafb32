//! The bytes of a sound: a file, or a stream whose start can be read again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// The longest header that is kept for a second reading of a stream: 1 MiB.
const KEPT: usize = 1 << 20;

/// Bytes of a sound.
pub(super) struct Input {
    source: Source,
    /// The start of a stream, as far as it was read and is kept.
    start: Vec<u8>,
    /// The next byte of `start` that is to be given out.
    at: usize,
    /// Whether what is read is kept.
    keeps: bool,
}

enum Source {
    File { file: File, len: u64 },
    Stream(Box<dyn Read + Send + Sync>),
}

impl Input {
    /// A file. Pipes that have a name are streams.
    pub(super) fn file(file: File) -> io::Result<Self> {
        let facts = file.metadata()?;
        if facts.is_file() {
            Ok(Self::of(Source::File { file, len: facts.len() }))
        } else {
            Ok(Self::stream(file))
        }
    }

    pub(super) fn stream(stream: impl Read + Send + Sync + 'static) -> Self {
        Self::of(Source::Stream(Box::new(stream)))
    }

    fn of(source: Source) -> Self {
        Self { source, start: Vec::new(), at: 0, keeps: true }
    }

    /// Whether more may come later than now.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.source, Source::Stream(_))
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> Option<u64> {
        match self.source {
            Source::File { len, .. } => Some(len),
            Source::Stream(_) => None,
        }
    }

    /// Goes back to the first byte. False if what was read is no longer kept.
    pub(super) fn rewind(&mut self) -> io::Result<bool> {
        match &mut self.source {
            Source::File { file, .. } => {
                file.rewind()?;
                Ok(true)
            }
            Source::Stream(_) if self.keeps => {
                self.at = 0;
                Ok(true)
            }
            Source::Stream(_) => Ok(false),
        }
    }

    /// Keeps nothing of a stream from here on: there is no going back.
    pub(super) fn forget(&mut self) {
        self.keeps = false;
    }

    /// Goes forward by `bytes`: with a jump in a file, by reading in a stream.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if let (Source::File { file, .. }, Ok(bytes)) = (&mut self.source, i64::try_from(bytes)) {
            file.seek(SeekFrom::Current(bytes))?;
            return Ok(());
        }
        io::copy(&mut self.by_ref().take(bytes), &mut io::sink())?;
        Ok(())
    }

    /// Reads until `bytes` is full or the source ends; the count is what was read.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let stream = match &mut self.source {
            Source::File { file, .. } => return file.read(bytes),
            Source::Stream(stream) => stream,
        };
        if self.at < self.start.len() {
            let count = bytes.len().min(self.start.len() - self.at);
            bytes[..count].copy_from_slice(&self.start[self.at..self.at + count]);
            self.at += count;
            return Ok(count);
        }
        let count = stream.read(bytes)?;
        self.keeps &= self.start.len() + count <= KEPT;
        if self.keeps {
            self.start.extend_from_slice(&bytes[..count]);
            self.at += count;
        } else {
            self.start = Vec::new();
            self.at = 0;
        }
        Ok(count)
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.source {
            Source::File { file, .. } => file.seek(to),
            Source::Stream(_) => Err(io::ErrorKind::NotSeekable.into()),
        }
    }
}

impl MediaSource for Input {
    fn is_seekable(&self) -> bool {
        !self.is_stream()
    }

    fn byte_len(&self) -> Option<u64> {
        self.len()
    }
}
