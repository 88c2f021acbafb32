//! What can be wrong with a picture's file: the file, and the fault in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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
