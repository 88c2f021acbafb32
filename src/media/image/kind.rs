//! What a file is, by its first bytes; names never count.

use image::ImageFormat;

use crate::media::Fault;
use crate::media::content::{first_bytes, is_html, text};

/// What picture formats without a decoder begin with.
const UNREADABLE: [(&[u8], &str); 14] = [
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\xFF\x0A", "JPEG XL"),
    (b"\0\0\0\x0CJXL ", "JPEG XL"),
    (b"\0\0\0\x0CjP  ", "JPEG 2000"),
    (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "ICO"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\x76\x2F\x31\x01", "OpenEXR"),
    (b"farbfeld", "farbfeld"),
    (b"gimp xcf", "GIMP"),
];

/// What people pass by mistake begins with.
const OTHERS: [(&[u8], &str); 10] = [
    (b"GGUF", "a GGUF model"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1F\x8B", "gzip-compressed data"),
    (b"fLaC", "a FLAC sound"),
    (b"OggS", "an Ogg sound or video"),
    (b"ID3", "an MP3 sound"),
    (b"\xFF\xFB", "an MP3 sound"),
    (b"RIFF", "a RIFF file, but not a WebP picture"),
    (b"\x1A\x45\xDF\xA3", "a Matroska or WebM video"),
    (b"\x7FELF", "a program"),
];

/// The format of a picture that can be decoded, from up to a few kilobytes of its start.
pub(super) fn recognise(start: &[u8]) -> Result<ImageFormat, Fault> {
    if start.is_empty() {
        return Err(Fault::Empty);
    }
    // the image crate's guess does not know BigTIFF, which its decoder reads
    if start.starts_with(b"II+\0") || start.starts_with(b"MM\0+") {
        return Ok(ImageFormat::Tiff);
    }
    match image::guess_format(start) {
        Ok(format) if !name(format).is_empty() => return Ok(format),
        _ => {}
    }
    let begins = |(magic, name): &(&[u8], &'static str)| start.starts_with(magic).then_some(*name);
    if let Some(name) = UNREADABLE.iter().find_map(begins).or_else(|| media_container(start)) {
        return Err(Fault::Format(name));
    }
    // a comment or the width follows the magic: P6 opens text files, too
    if matches!(start, [b'P', b'1'..=b'6', b' ' | b'\n' | b'\r' | b'\t', b'#' | b'0'..=b'9', ..]) {
        return Err(Fault::Format("PNM"));
    }
    if let Some(what) = OTHERS.iter().find_map(begins) {
        return Err(Fault::NotAPicture(what.to_owned()));
    }
    if let Some(text) = text(start) {
        return Err(text_fault(text));
    }
    Err(Fault::NotAPicture(first_bytes(start)))
}

/// The name of a format that is decoded; empty for the others.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Bmp => "BMP",
        _ => "",
    }
}

/// HEIC, AVIF and the like: ISO media files, told apart by their brands (ISO 14496-12, 4.3).
fn media_container(start: &[u8]) -> Option<&'static str> {
    if start.get(4..8)? != b"ftyp" {
        return None;
    }
    let length = u32::from_be_bytes(start[..4].try_into().ok()?) as usize;
    let brands = start.get(8..length.clamp(8, start.len()))?;
    let has = |wanted: &[&[u8]]| brands.chunks_exact(4).any(|brand| wanted.contains(&brand));
    if has(&[b"avif", b"avis"]) {
        Some("AVIF")
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        Some("HEIC")
    } else if has(&[b"crx "]) {
        Some("Canon CR3")
    } else {
        None
    }
}

fn text_fault(text: &str) -> Fault {
    let lower = text.trim_start_matches('\u{feff}').trim_start().to_lowercase();
    if lower.starts_with("<svg") || lower.starts_with("<?xml") && lower.contains("<svg") {
        Fault::Format("SVG")
    } else if is_html(text) {
        Fault::NotAPicture("an HTML page".to_owned())
    } else {
        Fault::NotAPicture("a text file".to_owned())
    }
}
