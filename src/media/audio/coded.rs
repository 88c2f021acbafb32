//! Everything that `hound` does not read, by `symphonia`: containers, their first track of
//! sound, its packets.

use std::io;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_OPUS, CODEC_ID_SPEEX,
    CODEC_ID_WMA,
};
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::{Error, SeekErrorKind};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_OGG};
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::units::{Duration, Timestamp};

use super::guard::guarded;
use super::input::Input;
use crate::media::Fault;

/// What every AAC encoder puts before the sound, at least, in frames; MP4 files tell the exact
/// number in an edit list, which is not read here.
const AAC_PRIMING: u64 = 1024;

/// The most packets of the track in a row that hold nothing.
const EMPTY_PACKETS: usize = 10_000;

/// The most frames of a packet, by what a file says: decoders take memory for them at once.
const PACKET_FRAMES: u64 = 1 << 20;

/// A track of sound in a container.
pub(super) struct Coded {
    /// The container, for people.
    pub(super) name: &'static str,
    /// The codec, for people.
    pub(super) codec: &'static str,
    pub(super) rate: u32,
    pub(super) channels: usize,
    /// Frames of the track, if it says so.
    pub(super) frames: Option<u64>,
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    /// What was decoded to learn the rate, and is to be given out first; interleaved.
    first: Option<Vec<f32>>,
    /// Frames decoded, those left out included.
    done: u64,
    /// Frames still to be left out.
    leave: u64,
    seeks: bool,
}

impl Coded {
    /// Finds the track and decodes its first packet, which tells rate and channels reliably.
    pub(super) fn open(input: Input, name: &'static str) -> Result<Self, Fault> {
        guarded(|| Self::found(input, name)).unwrap_or_else(|| Err(gave_up(name)))
    }

    fn found(mut input: Input, name: &'static str) -> Result<Self, Fault> {
        let seeks = !input.is_stream();
        input.forget();
        let stream = MediaSourceStream::new(Box::new(input), MediaSourceStreamOptions::default());
        let reader = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|error| opening_fault(name, seeks, error))?;
        let name = container_name(name, reader.as_ref());
        let track = reader.default_track(TrackType::Audio);
        let track = track.or_else(|| reader.first_track(TrackType::Audio)).ok_or(Fault::NoSound)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else {
            return Err(Fault::NoSound);
        };
        let decoder = decoder(name, params)?;
        let primed =
            params.codec == CODEC_ID_AAC && reader.format_info().format == FORMAT_ID_ISOMP4;
        let mut coded = Self {
            name,
            codec: decoder.codec_info().short_name,
            rate: 0,
            channels: 0,
            frames: None,
            track: track.id,
            first: None,
            done: 0,
            leave: 0,
            seeks: seeks && reader.format_info().format == FORMAT_ID_FLAC,
            reader,
            decoder,
        };
        let mut first = Vec::new();
        coded.decode(&mut first)?;
        coded.first = Some(first);
        coded.frames = coded.track().and_then(|track| frames(track, coded.rate));
        if primed {
            coded.leave = AAC_PRIMING;
            coded.frames = coded.frames.map(|frames| frames.saturating_sub(AAC_PRIMING));
        }
        Ok(coded)
    }

    fn track(&self) -> Option<&Track> {
        self.reader.tracks().iter().find(|track| track.id == self.track)
    }

    /// Leaves out `frames` from the start, before anything was read: with a jump where the
    /// container gives exact places, else by decoding them.
    pub(super) fn skip(&mut self, frames: u64) -> Result<(), Fault> {
        let name = self.name;
        guarded(|| self.jump(frames)).unwrap_or_else(|| Err(gave_up(name)))
    }

    fn jump(&mut self, frames: u64) -> Result<(), Fault> {
        self.leave = self.leave.saturating_add(frames);
        let place = i64::try_from(frames).ok().filter(|_| self.seeks && frames > 0);
        let Some(place) = place else {
            return Ok(());
        };
        let to = SeekTo::Timestamp { ts: Timestamp::new(place), track_id: self.track };
        match self.reader.seek(SeekMode::Accurate, to) {
            Ok(seeked) => {
                self.decoder.reset();
                self.first = None;
                self.done = u64::try_from(seeked.actual_ts.get()).unwrap_or(0);
                self.leave = frames.saturating_sub(self.done);
                Ok(())
            }
            Err(Error::SeekError(SeekErrorKind::OutOfRange)) => {
                self.first = None;
                self.leave = u64::MAX;
                Ok(())
            }
            Err(error) => Err(self.reading_fault(error)),
        }
    }

    /// Adds the next samples, channels interleaved; false at the end.
    pub(super) fn next(&mut self, samples: &mut Vec<f32>) -> Result<bool, Fault> {
        let from = samples.len();
        let more = match self.first.take() {
            Some(mut first) if !first.is_empty() => {
                samples.append(&mut first);
                true
            }
            _ => {
                let name = self.name;
                guarded(|| self.decode(samples)).unwrap_or_else(|| Err(gave_up(name)))?
            }
        };
        let got = ((samples.len() - from) / self.channels.max(1)) as u64;
        let out = self.leave.min(got);
        self.leave -= out;
        samples.drain(from..from + out as usize * self.channels);
        Ok(more)
    }

    /// Decodes a packet that holds something; false at the end.
    fn decode(&mut self, samples: &mut Vec<f32>) -> Result<bool, Fault> {
        let mut empty = 0;
        while empty < EMPTY_PACKETS {
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => packet,
                // A video goes on for long without a sound.
                Ok(Some(_)) => continue,
                Ok(None) => return self.end(),
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.cut();
                }
                Err(Error::ResetRequired) => {
                    empty += 1;
                    self.renew()?;
                    continue;
                }
                Err(error) => return Err(self.reading_fault(error)),
            };
            empty += 1;
            let mut piece = Vec::new();
            let spec = match self.decoder.decode(&packet) {
                Ok(decoded) => {
                    decoded.copy_to_vec_interleaved::<f32>(&mut piece);
                    decoded.spec().clone()
                }
                // the frame needs bits of one that was cut off
                Err(Error::DecodeError(_)) if self.done == 0 && self.name == "MP3" => continue,
                Err(error) => return Err(self.reading_fault(error)),
            };
            let (rate, channels) = (spec.rate(), spec.channels().count());
            if self.rate == 0 {
                (self.rate, self.channels) = (rate, channels);
            }
            if (self.rate, self.channels) != (rate, channels) {
                let cause = "its rate or its channels change on the way".to_owned();
                return Err(Fault::SoundBroken { format: self.name, cause });
            }
            if !piece.is_empty() {
                self.done += (piece.len() / channels.max(1)) as u64;
                samples.append(&mut piece);
                return Ok(true);
            }
        }
        Err(Fault::SoundBroken { format: self.name, cause: "packets without sound".to_owned() })
    }

    /// The end of the packets: too early where the file promised more.
    fn end(&self) -> Result<bool, Fault> {
        let promised = self.frames.filter(|_| self.name == "FLAC");
        match promised {
            Some(frames) if self.done < frames && self.leave < u64::MAX => {
                Err(Fault::SoundTruncated(self.name))
            }
            _ if self.rate == 0 => Err(Fault::SoundTruncated(self.name)),
            _ => Ok(false),
        }
    }

    /// The end in the middle of a packet. Where sizes are only a wish, what is there counts; a
    /// Matroska file from a pipe has none at all.
    fn cut(&self) -> Result<bool, Fault> {
        match self.name {
            "WAV" | "AIFF" | "CAF" | "MP3" | "MP2" | "MP1" | "AAC" | "Matroska"
                if self.rate > 0 =>
            {
                Ok(false)
            }
            name => Err(Fault::SoundTruncated(name)),
        }
    }

    /// Goes on with the next stream of a chained file.
    fn renew(&mut self) -> Result<(), Fault> {
        let track = self.reader.default_track(TrackType::Audio).ok_or(Fault::NoSound)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else {
            return Err(Fault::NoSound);
        };
        self.decoder = decoder(self.name, params)?;
        self.track = track.id;
        Ok(())
    }

    fn reading_fault(&self, error: Error) -> Fault {
        match error {
            Error::IoError(error) if error.raw_os_error().is_some() => Fault::Io(error),
            error => Fault::SoundBroken { format: self.name, cause: cause(&error) },
        }
    }
}

/// A decoder for a track.
fn decoder(
    format: &'static str,
    params: &AudioCodecParameters,
) -> Result<Box<dyn AudioDecoder>, Fault> {
    if params.max_frames_per_packet.is_some_and(|frames| frames > PACKET_FRAMES) {
        let cause = "a packet of it is said to be longer than a packet can be".to_owned();
        return Err(Fault::SoundBroken { format, cause });
    }
    symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|error| decoder_fault(format, params.codec, error))
}

fn gave_up(format: &'static str) -> Fault {
    Fault::SoundBroken { format, cause: "the decoder gives up".to_owned() }
}

/// Frames of a track, if it tells.
fn frames(track: &Track, rate: u32) -> Option<u64> {
    let by_time = |duration: Duration| {
        let seconds = track.time_base?.calc_duration(duration)?.as_secs_f64();
        Some((seconds * f64::from(rate)).round() as u64)
    };
    let frames = track.num_frames.or_else(|| track.duration.and_then(by_time));
    // a file in fragments says 0
    frames.filter(|frames| *frames > 0)
}

/// The container by what was found in it; `sniffed` tells the kinds of MPEG audio apart.
fn container_name(sniffed: &'static str, reader: &dyn FormatReader) -> &'static str {
    match reader.format_info().format {
        FORMAT_ID_FLAC => "FLAC",
        FORMAT_ID_OGG => "Ogg",
        FORMAT_ID_ISOMP4 => "MP4",
        _ => sniffed,
    }
}

fn opening_fault(name: &'static str, seeks: bool, error: Error) -> Fault {
    match error {
        // The atom that is the index.
        Error::Unsupported(what) | Error::DecodeError(what) if !seeks && what.contains("moov") => {
            Fault::IndexAtEnd
        }
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::SoundTruncated(name)
        }
        Error::IoError(error) if error.raw_os_error().is_some() => Fault::Io(error),
        error => Fault::SoundBroken { format: name, cause: cause(&error) },
    }
}

fn decoder_fault(container: &'static str, codec: AudioCodecId, error: Error) -> Fault {
    let codec = match codec {
        CODEC_ID_OPUS => "Opus",
        CODEC_ID_SPEEX => "Speex",
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_DCA => "DTS",
        CODEC_ID_WMA => "WMA",
        _ => match error {
            Error::Unsupported(what) => {
                return Fault::SoundFormat(format!("{container} ({what})"));
            }
            error => return Fault::SoundBroken { format: container, cause: cause(&error) },
        },
    };
    Fault::SoundFormat(codec.to_owned())
}

/// A library's message without its own preface.
fn cause(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("malformed stream: ").unwrap_or(&text);
    text.strip_prefix("unsupported feature: ").unwrap_or(text).to_owned()
}
