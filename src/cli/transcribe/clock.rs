//! Times: as they are typed, and as they are written into files.

/// Longer than any recording, in seconds: a year.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// Seconds: `90`, `1.5`, `1:30`, `01:02:03.5`.
///
/// # Errors
/// A message that says how times are written.
pub fn seconds(text: &str) -> Result<f64, String> {
    parse(text.trim())
        .ok_or_else(|| "must be seconds (90, 2.5) or a time (1:30, 1:02:03.5)".to_owned())
}

fn parse(text: &str) -> Option<f64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.split(':').collect();
    let (last, before) = parts.split_last()?;
    let (whole, fraction) = last.split_once('.').unwrap_or((last, "0"));
    if before.len() > 2 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let last: f64 = last.parse().ok()?;
    if !before.is_empty() && last >= 60.0 {
        return None;
    }
    let mut larger = 0.0;
    for (i, part) in before.iter().enumerate() {
        let number: f64 = if digits(part) { part.parse().ok()? } else { return None };
        if i > 0 && number >= 60.0 {
            return None;
        }
        larger = 60.0 * larger + number;
    }
    let seconds = 60.0 * larger + last;
    (seconds <= LONGEST).then_some(seconds)
}

/// A segment's most seconds.
///
/// # Errors
/// Out of range.
pub fn segment(text: &str) -> Result<f64, String> {
    seconds(text)
        .ok()
        .filter(|seconds| (0.5..=30.0).contains(seconds))
        .ok_or_else(|| "must be from 0.5 to 30 seconds".to_owned())
}

/// Whole milliseconds.
pub fn milliseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

/// `00:01:02.345`, with `mark` before the milliseconds.
pub fn stamp(milliseconds: u64, mark: char) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{mark}{rest:03}")
}

/// For people: `0:07`, `12:34`, `1:02:03`.
pub fn short(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// The same to a tenth: `0:07.2`, `1:02:03.5`.
pub fn tenths(seconds: f64) -> String {
    let count = milliseconds(seconds) / 100;
    format!("{}.{}", short((count / 10) as f64), count % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_type_them() {
        for (text, expected) in [
            ("90", 90.0),
            ("0", 0.0),
            ("2.5", 2.5),
            ("1:30", 90.0),
            ("01:02:03.5", 3723.5),
            ("100:00", 6000.0),
            (" 5 ", 5.0),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "-1",
            "1:60",
            "1:61:00",
            "1:2:3:4",
            "1.5:00",
            "90s",
            "nan",
            "inf",
            "1e3",
            ":30",
            "1:",
            "1.",
            ".5",
            "99999999999",
            "+5",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_segment_has_its_limits() {
        assert_eq!(segment("30"), Ok(30.0));
        assert_eq!(segment("0.5"), Ok(0.5));
        assert!(segment("30.1").is_err() && segment("0.4").is_err());
    }

    #[test]
    fn times_as_files_have_them() {
        assert_eq!(stamp(3_723_045, ','), "01:02:03,045");
        assert_eq!(stamp(360_000_000, '.'), "100:00:00.000");
        assert_eq!(
            (short(7.9), short(754.0), short(3723.0)),
            ("0:07".into(), "12:34".into(), "1:02:03".into())
        );
        assert_eq!((tenths(59.96), tenths(7.25)), ("0:59.9".into(), "0:07.2".into()));
        assert_eq!((milliseconds(1.2345), milliseconds(-1.0)), (1235, 0));
    }
}
