//! Does an answer repeat itself without end?
//!
//! For each period p the length of the run of ids that equal those p before is kept: `ids[i] ==
//! ids[i − p]`. A run of r ids is r / p + 1 times the same p ids. Said four times and over at least
//! 64 tokens it is a run-away: that is "no" 64 times, or a sentence of 20 tokens four times. What people do
//! repeat (a chorus, "no, no, no", a count) stays below, or does not repeat as tokens.

use crate::tokenizer::TokenId;

/// The longest period that is looked for, in tokens.
const LONGEST: usize = 64;
/// How often and over how many tokens a run-away is said.
const TIMES: usize = 4;
const TOKENS: usize = 64;
/// How often and over how many tokens it is suspected.
const SUSPECT_TIMES: usize = 3;
const SUSPECT_TOKENS: usize = 24;

/// What the end of an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// As text does.
    Plain,
    /// It may be the beginning of a run-away.
    Suspect,
    /// It repeats itself.
    RunAway {
        /// Ids up to the end of the first time.
        first: usize,
    },
}

/// Looks at ids as they come.
#[derive(Debug)]
pub struct Repetition {
    ids: Vec<TokenId>,
    /// At p − 1: how many of the last ids equal those p before.
    runs: [usize; LONGEST],
}

impl Repetition {
    pub fn new() -> Self {
        Self { ids: Vec::new(), runs: [0; LONGEST] }
    }

    /// Takes the next id.
    pub fn push(&mut self, id: TokenId) -> Tail {
        let n = self.ids.len();
        let mut tail = Tail::Plain;
        for (run, period) in self.runs.iter_mut().zip(1..) {
            let same = n.checked_sub(period).is_some_and(|before| self.ids[before] == id);
            *run = if same { *run + 1 } else { 0 };
            let (times, tokens) = (*run / period + 1, *run + period);
            if times >= TIMES && tokens >= TOKENS {
                // The shortest period is the true one; longer ones are its multiples.
                tail = Tail::RunAway { first: n + 1 - *run };
                break;
            }
            if times >= SUSPECT_TIMES && tokens >= SUSPECT_TOKENS {
                tail = Tail::Suspect;
            }
        }
        self.ids.push(id);
        tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ids: impl IntoIterator<Item = u32>) -> Vec<Tail> {
        let mut repetition = Repetition::new();
        ids.into_iter().map(|id| repetition.push(TokenId(id))).collect()
    }

    fn first_run_away(tails: &[Tail]) -> Option<(usize, usize)> {
        tails.iter().enumerate().find_map(|(at, tail)| match tail {
            Tail::RunAway { first } => Some((at + 1, *first)),
            _ => None,
        })
    }

    #[test]
    fn one_token_without_end() {
        let tails = look([7, 8].into_iter().chain(std::iter::repeat_n(9, 80)));
        assert_eq!(first_run_away(&tails), Some((2 + 64, 3)));
        assert_eq!(tails.iter().position(|tail| *tail == Tail::Suspect), Some(2 + 24 - 1));
    }

    #[test]
    fn a_sentence_four_times() {
        let tails = look((100..110).chain((0..20).cycle().take(100)));
        assert_eq!(first_run_away(&tails), Some((10 + 80, 30)));
        let longest = look((0..64).cycle().take(300));
        assert_eq!(first_run_away(&longest), Some((256, 64)));
        let longer = look((0..65).cycle().take(600));
        assert_eq!(first_run_away(&longer), None);
    }

    #[test]
    fn what_people_say_goes_on() {
        // "no, no, …" thirty times, then something else.
        let no = look([5, 6].into_iter().cycle().take(60).chain(10..80));
        assert_eq!(first_run_away(&no), None);
        assert!(no.contains(&Tail::Suspect) && no.last() == Some(&Tail::Plain));
        // A count: number, comma.
        let count = look((0..100).flat_map(|number| [1000 + number, 7]));
        assert_eq!(first_run_away(&count), None);
        assert!(count.iter().all(|tail| *tail == Tail::Plain));
        // A chorus of twelve tokens, three times.
        let chorus = look((0..12).cycle().take(36).chain(100..120));
        assert_eq!(first_run_away(&chorus), None);
    }
}
