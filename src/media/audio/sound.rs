//! Samples of a file or a stream, read a piece at a time.
//!
//! bytes → format by content → decoded → the selection → one channel → [`RATE`](super::RATE) samples a
//! second. Integers become fractions of their range exactly; samples of 16 kHz pass unchanged.
//! Floating-point samples beyond ±1 stay what they are, as in the reference.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::coded::Coded;
use super::input::Input;
use super::kind::{Kind, recognise};
use super::resample::Resampler;
use super::wav::Wav;
use super::{MAX_CHANNELS, MAX_RATE, MIN_RATE};
use crate::media::{Error, Fault};

/// Enough of a file's start to tell what it is.
const START: usize = 4096;

/// The largest sample: floats that were never scaled reach 2³¹; their squares must have room.
const LOUDEST: f32 = (1u64 << 40) as f32;

/// Which channel is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// The mean of all.
    #[default]
    Mix,
    /// The first.
    Left,
    /// The second.
    Right,
    /// Any, counted from 1.
    Number(usize),
}

/// What of a sound is read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoundOptions {
    pub channel: Channel,
    /// Seconds to leave out at the start.
    pub offset: f64,
    /// Seconds to read; to the end without.
    pub duration: Option<f64>,
}

/// Samples of a file or a stream, read a piece at a time.
pub struct Sound {
    name: PathBuf,
    decoder: Decoder,
    /// Index of the one that is heard; the mean of all without.
    channel: Option<usize>,
    rate: u32,
    channels: usize,
    resampler: Option<Resampler>,
    /// Frames of the source before the selection.
    before: u64,
    /// Frames of the selection still to be read.
    left: Option<u64>,
    /// Frames of the selection that the file promises.
    promised: Option<u64>,
    /// Frames of the selection that were read.
    read: u64,
    /// What is told once the samples before it were given out.
    fault: Option<Fault>,
    ended: bool,
    stream: bool,
}

enum Decoder {
    Wav(Wav),
    Coded(Coded),
}

impl Sound {
    /// Opens a file and reads its header. A pipe with a name is read as a stream.
    ///
    /// # Errors
    /// If the file cannot be read, is no sound that can be decoded, or has no such channel.
    pub fn open(file: &Path, options: &SoundOptions) -> Result<Self, Error> {
        let input = File::open(file).and_then(|opened| {
            let directory = opened.metadata()?.is_dir();
            if directory { Err(io::ErrorKind::IsADirectory.into()) } else { Input::file(opened) }
        });
        let input = input.map_err(|error| match error.kind() {
            io::ErrorKind::IsADirectory => Fault::Directory.of(file),
            _ => Fault::from(error).of(file),
        })?;
        Self::of(file, input, options).map_err(|fault| fault.of(file))
    }

    /// Reads the header of a stream of unknown length; `name` stands in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(
        name: &Path,
        input: impl io::Read + Send + Sync + 'static,
        options: &SoundOptions,
    ) -> Result<Self, Error> {
        Self::of(name, Input::stream(input), options).map_err(|fault| fault.of(name))
    }

    fn of(name: &Path, mut input: Input, options: &SoundOptions) -> Result<Self, Fault> {
        let mut start = vec![0; START];
        let filled = input.fill(&mut start)?;
        let kind = recognise(&start[..filled])?;
        input.rewind()?;
        let stream = input.is_stream();
        let mut decoder = match kind {
            Kind::Wav => match Wav::open(input)? {
                Ok(wav) => Decoder::Wav(wav),
                Err(input) => Decoder::Coded(Coded::open(input, "WAV")?),
            },
            Kind::Coded(name) => Decoder::Coded(Coded::open(input, name)?),
        };
        let (rate, channels, frames) = decoder.layout();
        if !(MIN_RATE..=MAX_RATE).contains(&rate) {
            return Err(Fault::Rate(rate));
        }
        let channel = heard(options.channel, channels)?;
        // exact to a sample; no number, or one below 0, is 0
        let frames_in = |seconds: f64| (seconds * f64::from(rate)).round() as u64;
        let before = frames_in(options.offset);
        let wanted = options.duration.map(frames_in);
        decoder.skip(before)?;
        let there = frames.map(|frames| frames.saturating_sub(before));
        Ok(Self {
            name: name.to_path_buf(),
            decoder,
            channel,
            rate,
            channels,
            resampler: Resampler::new(rate),
            before,
            left: wanted,
            promised: there.map(|there| there.min(wanted.unwrap_or(u64::MAX))),
            read: 0,
            fault: None,
            ended: false,
            stream,
        })
    }

    /// Seconds of the selection, where the file says so. An upper bound: headers may promise
    /// more than there is.
    pub fn duration(&self) -> Option<f64> {
        self.promised.map(|frames| frames as f64 / f64::from(self.rate))
    }

    /// Where the selection begins, in seconds of the source's own clock.
    pub fn start(&self) -> f64 {
        self.before as f64 / f64::from(self.rate)
    }

    /// Whether the sound comes from a pipe, where more may come later than now.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// The next samples at [`RATE`](super::RATE), one channel, nominally in [-1, 1]; none at the end.
    ///
    /// # Errors
    /// If the file is broken or ends too early from here on; all that was before it has been
    /// given out. The next call gives none.
    pub fn next_piece(&mut self) -> Result<Option<Vec<f32>>, Error> {
        let mut piece = Vec::new();
        while piece.is_empty() && !self.ended {
            let mut samples = Vec::new();
            let more = match self.next_samples(&mut samples) {
                Ok(more) => more,
                Err(fault) => {
                    self.fault = Some(fault);
                    false
                }
            };
            match &mut self.resampler {
                Some(resampler) => resampler.push(&samples, &mut piece),
                None => piece = samples,
            }
            if !more {
                self.ended = true;
                if let Some(resampler) = &mut self.resampler {
                    resampler.finish(&mut piece);
                }
            }
        }
        if !piece.is_empty() {
            return Ok(Some(piece));
        }
        self.fault.take().map_or(Ok(None), |fault| Err(fault.of(&self.name)))
    }

    /// What it is, for people: `WAV, 44100 Hz, 2 channels, 16 bits`.
    pub fn format(&self) -> String {
        let channels = if self.channels == 1 { "channel" } else { "channels" };
        let layout = format!("{} Hz, {} {channels}", self.rate, self.channels);
        match &self.decoder {
            Decoder::Wav(wav) => {
                let float = wav.spec.sample_format == hound::SampleFormat::Float;
                let float = if float { ", floating point" } else { "" };
                format!("WAV, {layout}, {} bits{float}", wav.spec.bits_per_sample)
            }
            Decoder::Coded(coded) if coded.codec.eq_ignore_ascii_case(coded.name) => {
                format!("{}, {layout}", coded.name)
            }
            Decoder::Coded(coded) => format!("{} ({}), {layout}", coded.name, coded.codec),
        }
    }

    /// Adds samples of the heard channel at the source's rate; false at the end. With an error,
    /// the samples before it are there.
    fn next_samples(&mut self, samples: &mut Vec<f32>) -> Result<bool, Fault> {
        if self.left == Some(0) {
            return Ok(false);
        }
        let mut all = Vec::new();
        let more = self.decoder.next(&mut all);
        let mut frames = all.len() / self.channels;
        if let Some(left) = &mut self.left {
            frames = frames.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= frames as u64;
        }
        let all = &all[..frames * self.channels];
        // NaN is not within the bounds either
        let bad = all.iter().position(|sample| !(-LOUDEST..=LOUDEST).contains(sample));
        let good = bad.map_or(frames, |at| at / self.channels);
        let frames_of = all[..good * self.channels].chunks_exact(self.channels);
        match self.channel {
            Some(index) => samples.extend(frames_of.map(|frame| frame[index])),
            None if self.channels == 1 => samples.extend_from_slice(&all[..good]),
            None => samples.extend(frames_of.map(mean)),
        }
        let at = self.before + self.read + good as u64;
        self.read += good as u64;
        match bad.map(|bad| all[bad]) {
            Some(sample) if sample.is_finite() => Err(Fault::BeyondReach(at)),
            Some(_) => Err(Fault::NotANumber(at)),
            None => more,
        }
    }
}

impl Decoder {
    /// Rate, channels, frames if they are told.
    fn layout(&mut self) -> (u32, usize, Option<u64>) {
        match self {
            Self::Wav(wav) => {
                let frames = wav.frames();
                (wav.spec.sample_rate, usize::from(wav.spec.channels), frames)
            }
            Self::Coded(coded) => (coded.rate, coded.channels, coded.frames),
        }
    }

    fn skip(&mut self, frames: u64) -> Result<(), Fault> {
        match self {
            Self::Wav(wav) => wav.skip(frames),
            Self::Coded(coded) => coded.skip(frames),
        }
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<bool, Fault> {
        match self {
            Self::Wav(wav) => wav.next(samples),
            Self::Coded(coded) => coded.next(samples),
        }
    }
}

/// Index of the wanted channel; none for the mean.
fn heard(channel: Channel, channels: usize) -> Result<Option<usize>, Fault> {
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(Fault::Channels(channels));
    }
    let number = match channel {
        Channel::Mix => return Ok(None),
        Channel::Left => 1,
        Channel::Right => 2,
        Channel::Number(number) => number,
    };
    if !(1..=channels).contains(&number) {
        return Err(Fault::Channel { wanted: number, channels });
    }
    Ok(Some(number - 1))
}

fn mean(frame: &[f32]) -> f32 {
    frame.iter().sum::<f32>() / frame.len() as f32
}
