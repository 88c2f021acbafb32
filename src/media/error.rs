//! What can be wrong with a picture's or a sound's file: the file, and the fault in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::audio::{MAX_CHANNELS, MAX_RATE, MIN_RATE};
use super::image::{DECODED_LIMIT, FILE_LIMIT};

/// A fault in (or on the way to) a file. Displays as `FILE: fault`, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct Error {
    /// The file, or the name that was given for a stream.
    pub file: PathBuf,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("{}", io_message(.0))]
    Io(#[from] io::Error),
    #[error("is a directory")]
    Directory,
    #[error("empty file")]
    Empty,
    /// The file is something else: `a text file`, `a FLAC sound`.
    #[error("not a picture that can be read: {0}")]
    NotAPicture(String),
    /// A picture in a format that no decoder is compiled in for.
    #[error("{0} pictures cannot be read")]
    Format(&'static str),
    #[error("not a whole picture: the {0} file ends too early")]
    Truncated(&'static str),
    #[error("not a picture that can be read: {format}: {cause}")]
    Broken { format: &'static str, cause: String },
    #[error("{format} pictures of this kind cannot be read: {cause}")]
    Unsupported { format: &'static str, cause: String },
    #[error(
        "{width} × {height} pixels need {} decoded, more than the {} allowed",
        Mebibytes(*.bytes),
        Mebibytes(DECODED_LIMIT)
    )]
    TooLarge { width: u32, height: u32, bytes: u64 },
    #[error("longer than the {} allowed for a picture's file", Mebibytes(FILE_LIMIT))]
    FileTooLong,
    /// The file is something else: `a text file`, `a PNG picture`.
    #[error("not a sound that can be read: {0}")]
    NotASound(String),
    /// A sound in a format that no decoder is compiled in for.
    #[error("{0} sounds cannot be read")]
    SoundFormat(String),
    /// A video, or a container of something else.
    #[error("has no sound")]
    NoSound,
    #[error("not a whole sound: the {0} file ends too early")]
    SoundTruncated(&'static str),
    #[error("not a sound that can be read: {format}: {cause}")]
    SoundBroken { format: &'static str, cause: String },
    #[error("{0} Hz: sounds of {MIN_RATE} to {MAX_RATE} Hz can be read")]
    Rate(u32),
    #[error("{0} channels: sounds of 1 to {MAX_CHANNELS} can be read")]
    Channels(usize),
    #[error("has no channel {wanted}: there {} {channels}", if *.channels == 1 { "is" } else { "are" })]
    Channel { wanted: usize, channels: usize },
    /// In a file of floating-point samples; counted from 0 at the start of the file.
    #[error("sample {0} is not a number")]
    NotANumber(u64),
    /// Likewise; beyond 2⁴⁰.
    #[error("sample {0} is too large for a sound")]
    BeyondReach(u64),
    /// An MP4 in a pipe; its index is needed first.
    #[error("not a sound that can be read from a pipe: its index is at its end")]
    IndexAtEnd,
}

impl Fault {
    /// Gives the fault its file.
    pub(super) fn of(self, file: &Path) -> Error {
        Error { file: file.to_path_buf(), fault: self }
    }
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Format("SVG" | "PDF" | "PostScript") => {
                Some("render it to PNG first, for instance with ImageMagick: magick IN OUT.png")
            }
            Fault::Format(_) | Fault::Unsupported { .. } => Some(
                "convert it to PNG or JPEG first, for instance with ImageMagick: magick IN OUT.png",
            ),
            Fault::TooLarge { .. } => {
                Some("make it smaller first; the model sees 768 × 768 pixels at most")
            }
            Fault::SoundFormat(_) => Some(
                "convert it to WAV first, for instance with ffmpeg: \
                 ffmpeg -i IN -ac 1 -ar 16000 OUT.wav",
            ),
            Fault::IndexAtEnd => Some(
                "name the file itself instead of a pipe, or move its index to the front: \
                 ffmpeg -i IN -c copy -movflags +faststart OUT.mp4",
            ),
            _ => None,
        }
    }
}

/// The message of an I/O error without Rust's ` (os error N)`.
fn io_message(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

/// Bytes shown in whole mebibytes, rounded up.
struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}
