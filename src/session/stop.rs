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
