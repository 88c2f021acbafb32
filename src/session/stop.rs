//! Stop strings in streamed text.
//!
//! Text ends before the stop string that is complete first; of several complete at the same
//! character, the longest. What may yet become a stop string is held back: the longest end of the
//! text that is the beginning of one. How the text was cut into pieces makes no difference.

/// Looks for stop strings in text that arrives in pieces.
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not given out: the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Empty strings stop nothing.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes more text and gives out what certainly belongs to no stop string.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            self.stopped = true;
            let mut before = std::mem::take(&mut self.held);
            before.truncate(start);
            return before;
        }
        let rest = self.held.split_off(self.held.len() - self.longest_beginning());
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Gives out what was held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length in bytes of the longest end of the text that is the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let longest = (stop.len() - 1).min(self.held.len());
            let ends = (1..=longest).rev().filter(|&len| stop.is_char_boundary(len));
            ends.into_iter().find(|&len| self.held.ends_with(&stop[..len])).unwrap_or(0)
        };
        self.stops.iter().map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// All text given out for `pieces`, and whether a stop string ended it.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopStrings::new(stops.iter().map(ToString::to_string).collect());
        let mut text: String = pieces.iter().map(|piece| filter.push(piece)).collect();
        text.push_str(&filter.finish());
        (text, filter.stopped())
    }

    #[test]
    fn text_ends_before_a_stop_string() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), ("one ".into(), true));
        assert_eq!(run(&["END"], &["one E", "N", "E", "ND"]), ("one EN".into(), true));
        assert_eq!(run(&["END"], &["one E", "N", "E", "N"]), ("one ENEN".into(), false));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["\n\n", "User:"], &["x\n", "Us", "er: y"]), ("x\n".into(), true));
        assert_eq!(run(&[""], &["a", "b"]), ("ab".into(), false));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn the_first_to_be_complete_counts() {
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]), ("xa".into(), true));
        assert_eq!(run(&["abcd", "bc"], &["xab", "cd"]), ("xa".into(), true));
        assert_eq!(run(&["abc", "c"], &["xabc"]), ("x".into(), true));
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut filter = StopStrings::new(vec!["<end>".into(), "é!".into()]);
        assert_eq!(filter.push("a<"), "a");
        assert_eq!(filter.push("en"), "");
        assert_eq!(filter.push("<"), "<en");
        assert_eq!(filter.push("é"), "<");
        assert_eq!(filter.push("é"), "é");
        assert_eq!(filter.finish(), "é");
        assert!(!filter.stopped());
        assert_eq!(filter.push("<end>x"), "");
        assert!(filter.stopped());
        assert_eq!(filter.push("more"), "");
        assert_eq!(filter.finish(), "");
    }

    /// Over small alphabets, so that overlaps and near misses are common: the answer for any cutting
    /// into pieces is the one that looking at every prefix of the text gives, and at no time is
    /// more held back than one stop string's beginning.
    #[test]
    fn cutting_makes_no_difference() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut some = |longest| -> String {
            let n = rng.random_range(0..=longest);
            (0..n).map(|_| *['a', 'b', 'é', '→'].choose(&mut rng).unwrap()).collect()
        };
        let mut cutter = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..4000 {
            let stops: Vec<String> = (0..3).map(|_| some(4)).collect();
            let text = some(24);
            let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
            let expected = ends.map(|end| &text[..end]).find_map(|seen| {
                let hits = stops.iter().filter(|stop| !stop.is_empty() && seen.ends_with(*stop));
                hits.map(|stop| &seen[..seen.len() - stop.len()]).min_by_key(|text| text.len())
            });

            let mut filter = StopStrings::new(stops.clone());
            let mut given = String::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let n = cutter.random_range(1..=rest.chars().count().min(5));
                let at = rest.char_indices().nth(n).map_or(rest.len(), |(at, _)| at);
                given.push_str(&filter.push(&rest[..at]));
                rest = &rest[at..];
                let held = text.len() - rest.len() - given.len();
                let longest = stops.iter().map(String::len).max().unwrap_or(0);
                assert!(filter.stopped() || held < longest.max(1), "{stops:?} {text:?}: {given:?}");
            }
            given.push_str(&filter.finish());
            assert_eq!(given, expected.unwrap_or(&text), "{stops:?} {text:?}");
            assert_eq!(filter.stopped(), expected.is_some(), "{stops:?} {text:?}");
        }
    }
}
