//! Texts that come from outside: prompt files and standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::output::Hint;

/// Far more than any context holds; a guard against endless devices.
const MOST_BYTES: u64 = 64 << 20;

/// Why a text could not be had.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{place}: {source}")]
    Unreadable { place: String, source: io::Error },
    #[error("{place}: more than {} MiB", MOST_BYTES >> 20)]
    TooLong { place: String },
    #[error("{place}: not UTF-8 text, byte {byte:#04x} at offset {at}")]
    NotText { place: String, byte: u8, at: usize },
}

/// The text of a file, or of standard input for `-`; a byte-order mark is taken off.
///
/// # Errors
/// It cannot be read, is not UTF-8, or never ends.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        return read_stdin();
    }
    let place = path.display().to_string();
    let unreadable = |source| Error::Unreadable { place: place.clone(), source };
    let file = File::open(path).map_err(unreadable)?;
    read(file, &place)
}

/// All of standard input.
///
/// # Errors
/// As [`read_text`].
pub fn read_stdin() -> anyhow::Result<String> {
    read(io::stdin().lock(), "standard input")
}

fn read(source: impl Read, place: &str) -> anyhow::Result<String> {
    let place = place.to_owned();
    let mut bytes = Vec::new();
    if let Err(source) = source.take(MOST_BYTES + 1).read_to_end(&mut bytes) {
        return Err(Error::Unreadable { place, source }.into());
    }
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::TooLong { place }.into());
    }
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::NotText { place, byte: error.as_bytes()[at], at }
    });
    let text = if utf16 {
        text.hint(|| {
            "it looks like UTF-16: `iconv -f UTF-16 -t UTF-8` makes text of it".to_owned()
        })?
    } else {
        text?
    };
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let error = read(&b"abc\xffd"[..], "f.txt").expect_err("not text");
        assert_eq!(error.to_string(), "f.txt: not UTF-8 text, byte 0xff at offset 3");
        let cut = read(&b"ab\xe2\x82"[..], "f.txt").expect_err("half a character");
        assert_eq!(cut.to_string(), "f.txt: not UTF-8 text, byte 0xe2 at offset 2");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(read(&b"\xef\xbb\xbfhi\n"[..], "f").expect("text"), "hi\n");
    }

    #[test]
    fn a_device_without_end_is_refused() {
        let error = read(io::repeat(b'a'), "/dev/zero").expect_err("endless");
        assert_eq!(error.to_string(), "/dev/zero: more than 64 MiB");
    }
}
