//! Broken pictures: every truncation and thousands of seeded mutations end in a picture or an
//! error. Pictures are held to 16 MiB here, so that a mutated size costs no time.

use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const LIMIT: u64 = 16 << 20;

/// One or more files of each format, as different inside as they come.
const SEEDS: [&str; 16] = [
    "rgb.png",
    "interlaced.png",
    "palette-transparent.png",
    "turned6.png",
    "420.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "turned6.jpg",
    "animated.gif",
    "lossless-alpha.webp",
    "lossy-alpha.webp",
    "animated.webp",
    "palette.bmp",
    "rgb.bmp",
    "tiff_lzw.tif",
    "bilevel.tif",
];

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures");
    fs::read(folder.join(name)).unwrap()
}

/// The same bytes with every chunk's checksum made right, so that mutations get past it.
fn with_right_checksums(mut png: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(head) = png.get(at..at + 8) {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let end = at + 8 + length;
        if end + 4 > png.len() {
            break;
        }
        let sum = !png[at + 4..end].iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 * (sum & 1)))
        });
        png[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
    png
}

#[test]
fn checksums_are_those_of_png() {
    let mut png = file("rgb.png");
    let whole = png.clone();
    png[29] ^= 1; // IHDR's checksum
    assert!(decoded(&png, LIMIT).is_err());
    assert_eq!(with_right_checksums(png), whole);
}

/// A part of a file is an error, or enough (a first frame, say): never half a picture.
#[test]
fn every_truncation_is_an_error_or_the_whole_picture() {
    for name in SEEDS {
        let bytes = file(name);
        let whole = decoded(&bytes, LIMIT).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        for length in 0..bytes.len() {
            if let Ok(part) = decoded(&bytes[..length], LIMIT) {
                assert!(part == whole, "{name}: {length} of {} bytes", bytes.len());
            }
        }
        assert!(decoded(&bytes[..bytes.len() / 2], LIMIT).is_err() || name.starts_with("anim"));
    }
}

#[test]
fn ten_thousand_mutations_of_each_format_end_in_a_picture_or_an_error() {
    SEEDS.par_iter().enumerate().for_each(|(i, name)| {
        let mut rng = ChaCha8Rng::seed_from_u64(i as u64);
        let whole = file(name);
        let (mut sound, mut refused) = (0, 0);
        let kin = SEEDS.iter().filter(|other| other[other.len() - 3..] == name[name.len() - 3..]);
        for _ in 0..10_000 / kin.count() {
            let mut bytes = whole.clone();
            // half of them near the start, where sizes and kinds are
            let reach = if rng.random_bool(0.5) { bytes.len().min(64) } else { bytes.len() };
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..reach);
                bytes[at] = match rng.random_range(0..4) {
                    0 => 0,
                    1 => 0xFF,
                    2 => bytes[at] ^ (1 << rng.random_range(0..8)),
                    _ => rng.random(),
                };
            }
            if name.ends_with("png") {
                bytes = with_right_checksums(bytes);
            }
            match decoded(&bytes, LIMIT) {
                Ok(picture) => {
                    assert_eq!(
                        picture.rgb.len() as u64,
                        3 * u64::from(picture.width) * u64::from(picture.height)
                    );
                    sound += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(sound > 20 && refused > 20, "{name}: {sound} sound, {refused} refused");
    });
}
