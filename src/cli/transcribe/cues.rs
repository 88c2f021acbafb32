//! A segment's text as subtitles: lines of 42 characters, two a cue, each cue with its time.
//!
//! Lines break where Unicode lets them (UAX #14) and are about equally long: the width is the
//! smallest that needs no more cues. A cue's share of the time is its share of the characters, and
//! that time is counted in speech: pauses inside a segment take none.

use textwrap::{Options, WordSplitter, wrap};
use unicode_width::UnicodeWidthStr;

use super::clock::milliseconds;
use super::transcript::Segment;

/// Columns of a line, and lines of a cue.
pub const COLUMNS: usize = 42;
pub const LINES: usize = 2;

/// What is shown at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// Milliseconds, and the end is past the start.
    pub start: u64,
    pub end: u64,
    pub lines: Vec<String>,
}

/// Makes cues of segments, one after the other; times never go back.
#[derive(Debug, Default)]
pub struct Cues {
    last: u64,
}

impl Cues {
    /// The cues of a segment; none for one without words.
    pub fn of(&mut self, segment: &Segment) -> Vec<Cue> {
        let blocks = blocks(&segment.shown());
        let size = |block: &[String]| block.iter().map(|line| line.width()).sum::<usize>().max(1);
        let total: usize = blocks.iter().map(|block| size(block)).sum();
        let mut before = 0;
        let cues = blocks.into_iter().map(|lines| {
            let after = before + size(&lines);
            let share = |n: usize| n as f64 / total as f64;
            let start = milliseconds(segment.at(share(before), true)).max(self.last);
            let end = milliseconds(segment.at(share(after), false)).max(start + 1);
            (self.last, before) = (end, after);
            Cue { start, end, lines }
        });
        cues.collect()
    }
}

/// The text in lines, those of a cue together.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let lines = |width: usize| {
        let options = Options::new(width).word_splitter(WordSplitter::NoHyphenation);
        let lines = wrap(text, options).into_iter().map(|line| line.trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    let widest = lines(COLUMNS);
    if widest.len() <= 1 {
        return if widest.is_empty() { Vec::new() } else { vec![widest] };
    }
    let most = widest.len().div_ceil(LINES) * LINES;
    let fits = |width: &usize| lines(*width).len() <= most;
    // Widths from the mean length on: shorter lines would be more.
    let mean = (text.width() / most).clamp(1, COLUMNS);
    let balanced = (mean..COLUMNS).find(fits).map_or(widest, lines);
    balanced.chunks(LINES).map(<[String]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: f64, end: f64, speech: &[(f64, f64)], text: &str) -> Segment {
        let speech = if speech.is_empty() { vec![(start, end)] } else { speech.to_vec() };
        Segment { start, end, speech, text: text.to_owned(), ..Segment::default() }
    }

    const LONG: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, \
                        it was the age of foolishness, it was the epoch of belief.";

    #[test]
    fn a_short_text_is_one_line() {
        let text = "Forty-two columns are quite a lot, indeed.";
        assert_eq!(text.width(), COLUMNS);
        let cues = Cues::default().of(&segment(1.0, 2.5, &[], text));
        assert_eq!(cues, [Cue { start: 1000, end: 2500, lines: vec![text.to_owned()] }]);
        assert_eq!(Cues::default().of(&segment(1.0, 2.5, &[], " ")), []);
    }

    #[test]
    fn lines_are_balanced_and_nothing_is_lost() {
        let cues = Cues::default().of(&segment(0.0, 10.0, &[], LONG));
        assert_eq!(cues.len(), 2);
        let lines: Vec<&String> = cues.iter().flat_map(|cue| &cue.lines).collect();
        assert_eq!(lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join(" "), LONG);
        assert!(cues.iter().all(|cue| cue.lines.len() == LINES), "{lines:?}");
        assert!(lines.iter().all(|line| (25..=COLUMNS).contains(&line.width())), "{lines:?}");
    }

    #[test]
    fn times_are_in_proportion_to_the_characters_and_to_speech() {
        // Two stretches of 2 s with 6 s of silence between them.
        let cues = Cues::default().of(&segment(0.0, 10.0, &[(0.0, 2.0), (8.0, 10.0)], LONG));
        assert_eq!((cues[0].start, cues[1].end), (0, 10_000));
        let share = |cue: &Cue| {
            let count: usize = cue.lines.iter().map(|line| line.len()).sum();
            count as f64 / (LONG.len() - 3) as f64
        };
        // 4 s of speech: the first cue's share may end in the first stretch or in the second.
        let spoken = 4.0 * share(&cues[0]);
        let at = if spoken <= 2.0 { spoken } else { spoken + 6.0 };
        assert!((cues[0].end as f64 / 1000.0 - at).abs() < 0.002, "{cues:?}");
        let half = "a".repeat(40);
        let text = format!("{half} {half} {half} {half}");
        let cues = Cues::default().of(&segment(0.0, 10.0, &[(0.0, 2.0), (8.0, 10.0)], &text));
        // A border at a pause: the first ends before it, the second begins after it.
        assert_eq!((cues[0].end, cues[1].start), (2000, 8000));
    }

    #[test]
    fn long_words_and_wide_characters_are_broken() {
        let cues = Cues::default().of(&segment(0.0, 4.0, &[], &"x".repeat(100)));
        assert!(cues.iter().flat_map(|cue| &cue.lines).all(|line| line.width() <= COLUMNS));
        let text = "日本語の文章は空白なしで書かれるので、行はどの文字の後でも折り返すことができます。ただし句読点の前は別です。";
        let cues = Cues::default().of(&segment(0.0, 4.0, &[], text));
        let lines: Vec<&String> = cues.iter().flat_map(|cue| &cue.lines).collect();
        assert!(lines.iter().all(|line| line.width() <= COLUMNS), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with(['。', '、'])), "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.as_str()).collect::<String>(), text);
    }

    #[test]
    fn times_never_overlap() {
        let mut cues = Cues::default();
        let mut all = cues.of(&segment(1.0, 1.001, &[], LONG));
        all.extend(cues.of(&segment(0.9, 1.2, &[], "Earlier.")));
        all.extend(cues.of(&segment(1.2, 1.2, &[], "Nothing.")));
        let mut last = 0;
        for cue in &all {
            assert!(cue.start >= last && cue.end > cue.start, "{all:?}");
            last = cue.end;
        }
    }
}
