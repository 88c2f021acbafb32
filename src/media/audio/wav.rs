//! WAV files of integer and floating-point samples, with whatever their headers say of sizes.
//!
//! `hound` judges the format and reads the samples. The size of the data is only an upper bound: a
//! program that writes into a pipe cannot know it, and leaves 0, 0x7FFF…… or 0xFFFFFFFF there.

use std::io::{Read, Seek};

use hound::{Sample, SampleFormat, WavSpec};

use super::input::Input;
use crate::media::Fault;

/// Bytes that are read at a time, about.
const PIECE: usize = 1 << 16;

/// Sizes from here on stand for "unknown" in a stream: `sox` writes 0x7FFFF000, `arecord`
/// 0x7FFFFFFF, `ffmpeg` 0xFFFFFFFF.
const UNKNOWN: u32 = 0x7FFF_F000;

/// The longest description of a format that is read.
const LONGEST_FORMAT: u32 = 4096;

/// A WAV file behind its header.
pub(super) struct Wav {
    input: Input,
    pub(super) spec: WavSpec,
    /// Bytes of a sample of one channel.
    sample: u16,
    /// Bytes of data not yet read; none if only the end of the file ends them.
    left: Option<u64>,
    bytes: Vec<u8>,
}

impl Wav {
    /// Reads the header. Gives the input back, rewound, where `hound` does not know the kind.
    ///
    /// # Errors
    /// If the input cannot be read, or cannot be rewound.
    pub(super) fn open(mut input: Input) -> Result<Result<Self, Input>, Fault> {
        match header(&mut input) {
            Some((spec, sample, left)) => {
                input.forget();
                Ok(Ok(Self { input, spec, sample, left, bytes: Vec::new() }))
            }
            None if input.rewind()? => Ok(Err(input)),
            None => Err(Fault::SoundBroken {
                format: "WAV",
                cause: "no data within the first mebibyte".to_owned(),
            }),
        }
    }

    /// Samples of all channels together.
    fn frame(&self) -> usize {
        usize::from(self.sample) * usize::from(self.spec.channels)
    }

    /// Frames of the file, if it says so; no more than the file can hold.
    pub(super) fn frames(&mut self) -> Option<u64> {
        let at = self.input.stream_position().ok();
        let held = self.input.len().zip(at).map(|(len, at)| len.saturating_sub(at));
        let bytes = match (self.left, held) {
            (Some(left), Some(held)) => left.min(held),
            (left, held) => left.or(held)?,
        };
        Some(bytes / self.frame() as u64)
    }

    /// Leaves out `frames`.
    pub(super) fn skip(&mut self, frames: u64) -> Result<(), Fault> {
        let mut bytes = frames.saturating_mul(self.frame() as u64);
        if let Some(left) = &mut self.left {
            bytes = bytes.min(*left);
            *left -= bytes;
        }
        Ok(self.input.skip(bytes)?)
    }

    /// Adds the next samples, channels interleaved; false at the end.
    pub(super) fn next(&mut self, samples: &mut Vec<f32>) -> Result<bool, Fault> {
        let frame = self.frame();
        let mut wanted = (PIECE / frame).max(1) * frame;
        if self.input.is_stream() {
            // what is there now is more welcome than much
            wanted = wanted.min((self.spec.sample_rate as usize / 20).max(1) * frame);
        }
        if let Some(left) = self.left {
            wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.bytes.resize(wanted, 0);
        let filled = self.input.fill(&mut self.bytes)?;
        if let Some(left) = &mut self.left {
            *left -= filled as u64;
        }
        // a frame that was cut off is no frame
        let whole = filled / frame * frame;
        self.decode(whole, samples)?;
        Ok(whole > 0)
    }

    fn decode(&self, length: usize, samples: &mut Vec<f32>) -> Result<(), Fault> {
        let mut bytes = &self.bytes[..length];
        let (format, bits) = (self.spec.sample_format, self.spec.bits_per_sample);
        samples.reserve(length / usize::from(self.sample));
        // a power of two: exact
        let scale = 1.0 / 2f32.powi(i32::from(bits) - 1);
        while !bytes.is_empty() {
            samples.push(match format {
                SampleFormat::Int => {
                    i32::read(&mut bytes, format, self.sample, bits).map_err(fault)? as f32 * scale
                }
                SampleFormat::Float => {
                    f32::read(&mut bytes, format, self.sample, bits).map_err(fault)?
                }
            });
        }
        Ok(())
    }
}

fn fault(error: hound::Error) -> Fault {
    Fault::SoundBroken { format: "WAV", cause: error.to_string() }
}

/// Kind of samples, bytes of a sample, and bytes of data if known.
fn header(input: &mut Input) -> Option<(WavSpec, u16, Option<u64>)> {
    let mut start = [0; 12];
    input.read_exact(&mut start).ok()?;
    let (mut format, mut long) = (None, None);
    let length = loop {
        let mut chunk = [0; 8];
        input.read_exact(&mut chunk).ok()?;
        let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
        // chunks begin at even places
        let padded = u64::from(length) + u64::from(length % 2);
        match &chunk[..4] {
            b"data" => break length,
            b"fmt " if length <= LONGEST_FORMAT => format = Some(bytes(input, padded)?),
            // the sizes of an RF64 or BW64 file (EBU Tech 3306)
            b"ds64" if (16..=LONGEST_FORMAT).contains(&length) => {
                long = Some(u64::from_le_bytes(bytes(input, padded)?.get(8..16)?.try_into().ok()?));
            }
            _ => input.skip(padded).ok()?,
        }
    };
    let (spec, sample) = kind(&format?)?;
    let unknown = length == 0 && !ends_here(input, &start)
        || length == u32::MAX
        || length >= UNKNOWN && input.is_stream();
    let left = match long {
        Some(long) => Some(long).filter(|long| (1..u64::MAX).contains(long)),
        None => (!unknown).then_some(u64::from(length)),
    };
    Some((spec, sample, left))
}

fn bytes(input: &mut Input, length: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    input.by_ref().take(length).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == length).then_some(bytes)
}

/// Kind of samples and bytes of one, if `hound` knows the `format` chunk.
fn kind(format: &[u8]) -> Option<(WavSpec, u16)> {
    // a whole file without samples: hound refuses the sizes that pipes leave
    let length = u32::try_from(format.len()).ok()?;
    let mut file = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(format);
    file.extend_from_slice(b"data\0\0\0\0");
    let spec = hound::WavReader::new(file.as_slice()).ok()?.spec();
    let align = u16::from_le_bytes([*format.get(12)?, *format.get(13)?]);
    let sample = align / spec.channels;
    let known = matches!(
        (spec.sample_format, sample, spec.bits_per_sample),
        (SampleFormat::Int, 1, 8)
            | (SampleFormat::Int, 2, 16)
            | (SampleFormat::Int, 3 | 4, 24)
            | (SampleFormat::Int | SampleFormat::Float, 4, 32)
    );
    (known && align % spec.channels == 0).then_some((spec, sample))
}

/// Whether a file without data is honestly so: its outer size is right.
fn ends_here(input: &Input, start: &[u8; 12]) -> bool {
    let outer = u64::from(u32::from_le_bytes([start[4], start[5], start[6], start[7]]));
    input.len() == Some(outer + 8)
}
