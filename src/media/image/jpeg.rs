//! Whether a JPEG file is whole: the decoder fills with grey what a cut file lacks.
//!
//! A file is FF D8, then segments (FF marker, two bytes of length, data) and entropy-coded data,
//! in which FF 00 is a byte and FF D0 … D7 are restarts, until FF D9 (ITU T.81, annex B).

const END: u8 = 0xD9;

/// Whether the end marker is there, outside of segments (a thumbnail has one of its own).
pub(super) fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END => return true,
            // without a length: stuffed byte, TEM, restarts, a second start
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// The byte after the next FF (or run of FF) from `at` on, and `at` behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let rest = bytes.get(*at..)?;
    let mut next = *at + rest.iter().position(|byte| *byte == 0xFF)?;
    while *bytes.get(next)? == 0xFF {
        next += 1;
    }
    *at = next + 1;
    Some(bytes[next])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_outside_of_segments_only() {
        let segment = [0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0, 0];
        let scan = [0xFF, 0xDA, 0, 2, 1, 0xFF, 0x00, 0xFF, 0xD3, 7, 0xFF, 0xFF, 0xD9];
        let whole = [&segment[..], &scan[..]].concat();
        assert!(ends(&whole));
        for length in 0..whole.len() {
            assert!(!ends(&whole[..length]), "{length} bytes");
        }
        assert!(!ends(&[0xFF, 0xD8, 0xFF, 0xE1, 0xFF, 0xFF, 0xFF, 0xD9]));
    }
}
