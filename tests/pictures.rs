//! Pictures as the reference sees them: fixtures of every kind (scripts/fixtures_pictures.py),
//! the oracle's pictures, the resize's published values, and files that are no pictures.

use std::fs;
use std::path::{Path, PathBuf};

use gemma3n::media::image::{self, Picture};
use gemma3n::media::resize::{Size, resize};
use gemma3n::media::{Error, Fault};
use gemma3n::verify::reference::Reference;

#[path = "support/npz.rs"]
mod npz;
#[path = "support/shared.rs"]
mod shared;

use npz::Npz;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures")
}

fn open(name: &str) -> Picture {
    image::open(&fixtures().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn recorded(archive: &Path) -> Reference {
    Npz::open(archive).unwrap().references("pictures").unwrap().remove(0)
}

/// A recorded array, if it is there: shape with the fastest dimension first, and values.
fn array<'a>(recorded: &'a Reference, name: &str) -> Option<(&'a [usize], &'a [f32])> {
    let tap = recorded.taps.iter().find(|tap| tap.name == name)?;
    Some((&tap.ne, &tap.data))
}

/// Greatest and mean difference of levels.
fn difference(ours: &[u8], theirs: &[f32]) -> (f32, f32) {
    assert_eq!(ours.len(), theirs.len());
    let all = ours.iter().zip(theirs).map(|(a, b)| (f32::from(*a) - b).abs());
    (all.clone().fold(0.0, f32::max), all.sum::<f32>() / ours.len() as f32)
}

/// How far a decoder may be from libjpeg's, in levels of the decoded picture (greatest, mean):
/// the inverse transform rounds otherwise, and so does the smoothing of shared colours (4:2:0,
/// 4:2:2) at edges. Everything else is exact but CMYK in TIFF, which is rounded otherwise.
fn tolerance(name: &str) -> (f32, f32) {
    match name {
        "420.jpg" | "422.jpg" | "progressive.jpg" | "restarts.jpg" => (9.0, 0.5),
        "cmyk.tif" => (1.0, 0.6),
        _ if name.ends_with(".jpg") => (2.0, 0.05),
        _ => (0.0, 0.0),
    }
}

#[test]
fn files_of_every_kind_are_what_the_reference_sees() {
    let expected = recorded(&fixtures().join("expected.npz"));
    let mut seen = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".npz") {
            continue;
        }
        let picture = open(&name);
        let (most, mean) = tolerance(&name);
        if let Some((shape, rgb)) = array(&expected, &format!("{name}.rgb")) {
            assert_eq!([3, picture.width as usize, picture.height as usize], *shape, "{name}");
            let seen = difference(&picture.rgb, rgb);
            assert!(seen.0 <= most && seen.1 <= mean, "{name}: decoded differs by {seen:?}");
        }
        let (_, squashed) = array(&expected, &format!("{name}.squashed")).expect("every file");
        let seen_squashed = difference(&picture.squashed(24).rgb, squashed);
        assert!(seen_squashed.0 <= most && seen_squashed.1 <= mean, "{name}: {seen_squashed:?}");
        seen += 1;
    }
    assert_eq!(seen, expected.taps.iter().filter(|a| a.name.ends_with(".squashed")).count());
}

/// The oracle's `pixel_values` are [3, 192, 192]: exact from PNG, within rounding from JPEG.
#[test]
fn the_oracles_pictures() {
    let Some(shared) = shared::shared() else { return };
    let cases = [("rgb", "rgb.png", 0.0), ("alpha", "alpha.png", 0.0), ("grey", "grey.jpg", 1.0)];
    for (case, file, levels) in cases {
        let expected = recorded(&shared.join(format!("oracle/ref/vision_{case}.npz")));
        let (_, theirs) = array(&expected, "pixel_values").unwrap();
        let picture = image::open(&shared.join("oracle/assets").join(file)).unwrap();
        let ours = picture.squashed(192).values();
        assert_eq!(ours.len(), theirs.len());
        let tolerance = levels * (1.0 / 255.0) + if levels > 0.0 { 1e-6 } else { 0.0 };
        for (i, theirs) in theirs.iter().enumerate() {
            let (channel, place) = (i / (192 * 192), i % (192 * 192));
            let ours = ours[place * 3 + channel];
            assert!((ours - theirs).abs() <= tolerance, "{case} at {i}: {ours} for {theirs}");
        }
    }
}

/// The two pictures of the reference document's self-check, resized by torch to 768 × 768.
#[test]
fn the_resize_is_torchs() {
    // (height, width), values at (channel, row, column), sums of the channels
    type Places = [((usize, usize, usize), u8); 6];
    let places = |levels: [u8; 6]| -> Places {
        let at = [(0, 0, 0), (1, 0, 0), (2, 10, 20), (0, 383, 384), (1, 767, 767), (2, 500, 3)];
        std::array::from_fn(|i| (at[i], levels[i]))
    };
    let cases = [
        (1000, 900, places([4, 54, 209, 137, 75, 121]), [75_194_159, 75_196_129, 75_212_890]),
        (100, 60, places([0, 50, 120, 233, 34, 41]), [75_168_177, 75_491_979, 75_236_805]),
    ];
    for (height, width, places, sums) in cases {
        let level = |i: usize| {
            let (r, c, k) = (i / 3 / width, i / 3 % width, i % 3);
            ((7 * r + 13 * c + 50 * k + r * c / 97) % 256) as u8
        };
        let rgb: Vec<u8> = (0..height * width * 3).map(level).collect();
        let squashed = Picture { width: width as u32, height: height as u32, rgb }.squashed(768);
        for ((channel, row, column), level) in places {
            assert_eq!(squashed.rgb[(row * 768 + column) * 3 + channel], level, "{height}");
        }
        let sum = |k| squashed.rgb.iter().skip(k).step_by(3).map(|v| u64::from(*v)).sum::<u64>();
        assert_eq!([sum(0), sum(1), sum(2)], sums, "{height} × {width}");
    }
}

#[test]
fn a_picture_of_the_right_size_is_left_alone() {
    let picture = open("rgb.png");
    let size = Size { width: 20, height: 14 };
    assert_eq!(*resize(&picture.rgb, size, size), picture.rgb);
}

/// Multiplied by f32(1/255), not divided: 3 · (1/255) is not 3/255 in f32 (computed in numpy).
#[test]
fn values_are_multiplied() {
    let picture = Picture { width: 1, height: 1, rgb: vec![0, 255, 3] };
    let values = picture.squashed(1).values();
    assert_eq!(values[..2], [0.0, 1.0]);
    assert_eq!(values[2].to_bits(), 0x3C40_C0C2);
}

fn refused(bytes: &[u8]) -> Error {
    match image::read(Path::new("picture.png"), bytes) {
        Ok(_) => panic!("a picture"),
        Err(error) => error,
    }
}

#[test]
fn what_is_no_picture_is_called_by_its_name() {
    let heic = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic....";
    let avif = b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avifmiaf....";
    let svg = "\u{feff}<?xml version=\"1.0\"?>\n<!-- made by hand -->\n<svg xmlns='…'/>".as_bytes();
    let cases: [(&[u8], &str); 13] = [
        (b"", "empty file"),
        (b"Just words.\n", "not a picture that can be read: a text file"),
        (
            "Grüße, 灯".as_bytes().split_last().unwrap().1,
            "not a picture that can be read: a text file",
        ),
        (b"<!DOCTYPE html><html>404</html>", "not a picture that can be read: an HTML page"),
        (
            b"RIFF\x24\0\0\0WAVEfmt ",
            "not a picture that can be read: a RIFF file, but not a WebP picture",
        ),
        (
            b"\x01\x02\x03\x04\x05",
            "not a picture that can be read: starts with the bytes 01 02 03 04",
        ),
        (b"P6\n1 1\n255\n\xFE\xFF\x00", "PNM pictures cannot be read"),
        (heic, "HEIC pictures cannot be read"),
        (avif, "AVIF pictures cannot be read"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL pictures cannot be read"),
        (b"%PDF-1.7\n", "PDF pictures cannot be read"),
        (svg, "SVG pictures cannot be read"),
        (b"\xFF\xD8\xFF\xE0\0\x10JFIF", "not a whole picture: the JPEG file ends too early"),
    ];
    for (bytes, message) in cases {
        let error = refused(bytes);
        assert_eq!(error.to_string(), format!("picture.png: {message}"));
        assert_eq!(error.hint().is_some(), message.contains("pictures cannot"), "{message}");
    }
    // A stream without end that is no picture is not read to its end.
    let error = image::read(Path::new("-"), std::io::repeat(b'a')).err().unwrap();
    assert!(matches!(error.fault, Fault::NotAPicture(_)), "{error}");
}

#[test]
fn paths_that_are_no_files() {
    let message = |path: &Path| image::open(path).err().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(message(folder.path()), format!("{}: is a directory", folder.path().display()));
    let absent = folder.path().join("absent.png");
    let expected = format!("{}: No such file or directory", absent.display());
    assert_eq!(message(&absent), expected);
}

/// Refused by the size in the header: what follows it is not even there.
#[test]
fn a_bomb_is_refused_before_it_is_decoded() {
    let big = |mut bytes: Vec<u8>, at: usize, side: [u8; 4]| {
        bytes[at..at + 4].copy_from_slice(&side);
        bytes[at + 4..at + 8].copy_from_slice(&side);
        bytes
    };
    let side = 50_000_u32;
    let mut png = big(fs::read(fixtures().join("rgb.png")).unwrap(), 16, side.to_be_bytes());
    // the checksum of this header, from Python's zlib
    png[29..33].copy_from_slice(&0xC4CD_AA9D_u32.to_be_bytes());
    let bmp = big(fs::read(fixtures().join("rgb.bmp")).unwrap(), 18, side.to_le_bytes());
    for bytes in [png, bmp] {
        let error = refused(&bytes);
        assert_eq!(
            error.to_string(),
            "picture.png: 50000 × 50000 pixels need 7153 MiB decoded, more than the 512 MiB allowed"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("smaller")));
    }
}
