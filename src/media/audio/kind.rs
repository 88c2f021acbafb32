//! What a file is, by its first bytes; names never count.

use crate::media::Fault;
use crate::media::content::{first_bytes, is_html, text};

/// How a sound's file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A WAV file, which `hound` may know.
    Wav,
    /// A container or a stream of frames; its name.
    Coded(&'static str),
}

/// Formats that are read, by what they begin with.
const CODED: [(&[u8], &str); 5] = [
    (b"fLaC", "FLAC"),
    (b"caff", "CAF"),
    // tags of any length stand before the sound, mostly an MP3
    (b"ID3", "MP3"),
    (b"APETAGEX", "MP3"),
    (b"\x1A\x45\xDF\xA3", "Matroska"),
];

/// Sounds without a decoder.
const UNREADABLE: [(&[u8], &str); 14] = [
    (b"#!AMR", "AMR"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media"),
    (b".snd", "Sun AU"),
    (b"riff\x2E\x91\xCF\x11", "Wave64"),
    (b"MThd", "MIDI"),
    (b"FLV\x01", "Flash video"),
    (b"TTA1", "True Audio"),
    (b"MPCK", "Musepack"),
    (b"MP+", "Musepack"),
    (b".RMF", "RealMedia"),
    (b"DSD ", "DSD"),
    (b"\0\0\x01\xBA", "MPEG program stream"),
];

/// What people pass by mistake begins with.
const OTHERS: [(&[u8], &str); 14] = [
    (b"\x89PNG", "a PNG picture"),
    (b"\xFF\xD8\xFF", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF-", "a PDF document"),
    (b"GGUF", "a GGUF model"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1F\x8B", "gzip-compressed data"),
    (b"\xFD7zXZ", "xz-compressed data"),
    (b"7z\xBC\xAF", "a 7z archive"),
    (b"\x7FELF", "a program"),
    (b"MZ", "a program"),
];

/// The format of a sound that can be read, from up to a few kilobytes of its start.
pub(super) fn recognise(start: &[u8]) -> Result<Kind, Fault> {
    if start.is_empty() {
        return Err(Fault::Empty);
    }
    let begins = |(magic, name): &(&[u8], &'static str)| start.starts_with(magic).then_some(*name);
    if let Some(kind) = riff(start)? {
        return Ok(kind);
    }
    if start.starts_with(b"OggS") {
        return ogg(start);
    }
    if let Some(name) = CODED.iter().find_map(begins) {
        return Ok(Kind::Coded(name));
    }
    if let Some(kind) = iso_media(start)? {
        return Ok(kind);
    }
    if let Some(name) = UNREADABLE.iter().find_map(begins) {
        return Err(Fault::SoundFormat(name.to_owned()));
    }
    if start.first() == Some(&0x47) && start.get(188) == Some(&0x47) {
        return Err(Fault::SoundFormat("MPEG transport stream".to_owned()));
    }
    // encoders' padding before the first frame
    let zeros = start.iter().take_while(|byte| **byte == 0).count();
    if let Some(name) = mpeg(&start[zeros..]) {
        return Ok(Kind::Coded(name));
    }
    let other = OTHERS.iter().find_map(begins).map(str::to_owned);
    let other = other.or_else(|| {
        let text = text(start)?;
        Some(if is_html(text) { "an HTML page" } else { "a text file" }.to_owned())
    });
    Err(Fault::NotASound(other.unwrap_or_else(|| first_bytes(start))))
}

/// Chunked files: WAV and its relatives, AIFF; other forms are something else.
fn riff(start: &[u8]) -> Result<Option<Kind>, Fault> {
    let form = start.get(8..12);
    match (start.get(..4), form) {
        (Some(b"RIFF" | b"RF64" | b"BW64"), Some(b"WAVE")) => Ok(Some(Kind::Wav)),
        (Some(b"RIFF"), Some(b"AVI ")) => Err(Fault::SoundFormat("AVI".to_owned())),
        (Some(b"RIFF"), Some(b"WEBP")) => Err(Fault::NotASound("a WebP picture".to_owned())),
        (Some(b"RIFF"), Some(_)) => Err(Fault::NotASound("a RIFF file, but not WAV".to_owned())),
        (Some(b"RIFF" | b"RF64" | b"BW64"), None) => Err(Fault::SoundTruncated("WAV")),
        (Some(b"FORM"), Some(b"AIFF" | b"AIFC")) => Ok(Some(Kind::Coded("AIFF"))),
        _ => Ok(None),
    }
}

/// The first page tells what the stream is.
fn ogg(start: &[u8]) -> Result<Kind, Fault> {
    let segments = usize::from(start.get(26).copied().unwrap_or(0));
    let packet = start.get(27 + segments..).unwrap_or(&[]);
    let begins = |magic: &[u8]| packet.starts_with(magic);
    if begins(b"OpusHead") {
        Err(Fault::SoundFormat("Opus".to_owned()))
    } else if begins(b"Speex ") {
        Err(Fault::SoundFormat("Speex".to_owned()))
    } else {
        Ok(Kind::Coded("Ogg"))
    }
}

/// MP4, M4A, MOV: ISO media files (ISO 14496-12), which pictures are made of, too.
fn iso_media(start: &[u8]) -> Result<Option<Kind>, Fault> {
    match start.get(4..8) {
        Some(b"ftyp") => {}
        Some(b"moov" | b"mdat" | b"wide" | b"pnot") => return Ok(Some(Kind::Coded("MP4"))),
        _ => return Ok(None),
    }
    match start.get(8..12) {
        Some(b"avif" | b"avis") => Err(Fault::NotASound("an AVIF picture".to_owned())),
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"mif1") => {
            Err(Fault::NotASound("a HEIC picture".to_owned()))
        }
        _ => Ok(Some(Kind::Coded("MP4"))),
    }
}

/// The header of an MPEG audio frame (ISO 11172-3, 2.4.1.3) or of an ADTS frame (ISO 13818-7).
fn mpeg(start: &[u8]) -> Option<&'static str> {
    let [0xFF, second, third, ..] = *start else {
        return None;
    };
    if second & 0xF6 == 0xF0 {
        return (third >> 2 & 0xF < 13).then_some("AAC");
    }
    let known = second & 0xE0 == 0xE0 && second & 0x18 != 0x08;
    if !known || third & 0xF0 == 0xF0 || third & 0x0C == 0x0C {
        return None;
    }
    match second >> 1 & 3 {
        1 => Some("MP3"),
        2 => Some("MP2"),
        3 => Some("MP1"),
        _ => None,
    }
}
