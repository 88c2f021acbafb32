//! A picture's file to 8-bit RGB, as the reference sees it.
//!
//! bytes → format by content → refused if it would need too much memory → decoded → turned as
//! its EXIF orientation says → 8 bits → laid over white → `rgb` [height, width, 3].
//!
//! Reference: `load_image` (orientation) and `convert_to_rgb` (transparency) of transformers
//! 5.x on pictures that PIL decodes. `docs/pictures.md` lists where this differs, and why.

mod colour;
mod jpeg;
mod kind;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use ::image::error::ImageError;
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::resize::{Size, resize};
use super::{Error, Fault};

/// The most bytes that a decoded picture may take: 512 MiB.
///
/// As 8-bit RGB these are 178 956 970 pixels, which is where the reference's decoder (PIL)
/// refuses, too. 16-bit and transparent pictures take more bytes a pixel and so hold fewer.
pub const DECODED_LIMIT: u64 = 512 << 20;

/// The longest file that is read: 1 GiB, more than any picture within [`DECODED_LIMIT`] needs.
pub const FILE_LIMIT: u64 = 1 << 30;

/// Enough of a file's start to tell what it is.
const START: u64 = 4096;

/// A decoded picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right, after the orientation was applied.
    pub width: u32,
    /// Pixels from top to bottom, after the orientation was applied.
    pub height: u32,
    /// [height, width, 3]: red, green, blue of the first row's first pixel first.
    pub rgb: Vec<u8>,
}

/// A picture squashed to the model's square.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row, and rows.
    pub side: usize,
    /// [side, side, 3], channels last.
    pub rgb: Vec<u8>,
}

/// Reads and decodes a file.
pub fn open(path: &Path) -> Result<Picture, Error> {
    let file = File::open(path).map_err(|error| Fault::from(error).of(path))?;
    if file.metadata().is_ok_and(|facts| facts.is_dir()) {
        return Err(Fault::Directory.of(path));
    }
    read(path, file)
}

/// Reads a stream to its end and decodes it; `name` stands in errors. What is not a picture
/// is refused after its first bytes.
pub fn read(name: &Path, source: impl Read) -> Result<Picture, Error> {
    read_bytes(source)
        .and_then(|bytes| decoded(&bytes, DECODED_LIMIT))
        .map_err(|fault| fault.of(name))
}

/// Decodes the bytes of a file; `name` stands in errors.
pub fn decode(name: &Path, bytes: &[u8]) -> Result<Picture, Error> {
    decoded(bytes, DECODED_LIMIT).map_err(|fault| fault.of(name))
}

impl Picture {
    /// The picture at `side` × `side` pixels, whatever its aspect ratio was.
    ///
    /// # Panics
    /// If `side` is 0.
    pub fn squashed(&self, side: usize) -> Pixels {
        let from = Size { width: self.width as usize, height: self.height as usize };
        let rgb = resize(&self.rgb, from, Size { width: side, height: side });
        Pixels { side, rgb: rgb.into_owned() }
    }
}

impl Pixels {
    /// What the tower sees: `f32(level) · f32(1/255)`, in [0, 1], [3, side, side] in ggml's
    /// order, channels fastest. The reference multiplies, too: dividing differs in the last bit.
    pub fn values(&self) -> Vec<f32> {
        self.rgb.par_iter().map(|level| f32::from(*level) * (1.0 / 255.0)).collect()
    }
}

fn read_bytes(mut source: impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    source.by_ref().take(START).read_to_end(&mut bytes)?;
    kind::recognise(&bytes)?;
    source.take(FILE_LIMIT + 1 - bytes.len() as u64).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Fault::FileTooLong);
    }
    Ok(bytes)
}

/// Decodes a picture of at most `limit` bytes.
fn decoded(bytes: &[u8], limit: u64) -> Result<Picture, Fault> {
    let format = kind::recognise(&bytes[..bytes.len().min(START as usize)])?;
    if format == ImageFormat::Jpeg && !jpeg::ends(bytes) {
        return Err(Fault::Truncated("JPEG"));
    }
    let picture = decode_oriented(format, bytes, limit)?;
    let (width, height) = (picture.width(), picture.height());
    let rgb = colour::over_white(picture).ok_or_else(|| Fault::Unsupported {
        format: kind::name(format),
        cause: "floating-point samples have no fixed range".to_owned(),
    })?;
    Ok(Picture { width, height, rgb })
}

/// Decodes and turns. Nothing of the picture's size is taken before the size was checked.
fn decode_oriented(format: ImageFormat, bytes: &[u8], limit: u64) -> Result<DynamicImage, Fault> {
    let fault = |error| fault_of(format, error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // decoders count their scratch memory, too
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * limit);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    // grey becomes RGB in the end
    let sample = u64::from(decoder.color_type().bytes_per_pixel()).max(3);
    let bytes = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(sample);
    if bytes > limit {
        return Err(Fault::TooLarge { width, height, bytes });
    }
    // broken metadata does not make a picture unreadable
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(fault)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// A decoder's error in our words.
fn fault_of(format: ImageFormat, error: ImageError) -> Fault {
    let format = kind::name(format);
    match error {
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::Truncated(format)
        }
        ImageError::IoError(error) => Fault::Broken { format, cause: error.to_string() },
        ImageError::Unsupported(error) => Fault::Unsupported { format, cause: error.to_string() },
        error => Fault::Broken { format, cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
