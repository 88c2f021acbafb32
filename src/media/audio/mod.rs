//! Sound: files and streams to samples, samples to segments, segments to log-mel features.
//!
//! - [`sound`]: bytes → format by content → decoded a piece at a time → one channel →
//!   [`RATE`] samples a second.
//! - [`segments`]: samples → stretches of speech → clips of a given length at most.
//! - [`mel`]: a clip → its features.
//!
//! `docs/sounds.md` lists what can be read, and where it is cut.

mod coded;
mod edges;
mod guard;
mod input;
mod kind;
pub mod mel;
mod resample;
pub mod segments;
pub mod sound;
mod speech;
mod wav;

pub use segments::{Segment, SegmentOptions, Segments};
pub use sound::{Channel, Sound, SoundOptions};

/// Samples a second that the model hears.
pub const RATE: u32 = 16_000;

/// The least samples a second of a sound that is read.
pub const MIN_RATE: u32 = 1_000;

/// The most samples a second of a sound that is read.
pub const MAX_RATE: u32 = 768_000;

/// The most channels of a sound that is read.
pub const MAX_CHANNELS: usize = 256;
