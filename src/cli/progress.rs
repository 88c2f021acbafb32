//! How far a long work is: a bar for a person, one plain line at start and end for a log.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::output::{Output, Verbosity};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Tokens,
    /// Milliseconds of sound.
    Sound,
}

/// A running work, shown on stderr.
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    plain: bool,
    started: Instant,
}

impl Progress {
    /// A bar over a known amount; `what` names the work ("Converting model").
    pub fn bar(output: &Output, what: &str, unit: Unit, total: u64) -> Self {
        let template = match unit {
            Unit::Bytes => {
                "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left"
            }
            Unit::Tokens => "{msg} {wide_bar} {pos}/{len} tokens {rate} {eta} left",
            Unit::Sound => "{msg} {wide_bar} {percent}% {speed} {eta} left",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                write!(out, "{:.0}/s", state.per_sec()).ok();
            })
            .with_key("speed", speed)
            .progress_chars("━╸ ");
        Self::start(output, what, style, ProgressBar::new(total), true)
    }

    /// A sign of life for a work whose end is not known; nothing at all off a terminal.
    pub fn spinner(output: &Output, what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self::start(output, what, style, ProgressBar::no_length(), false)
    }

    /// The same for a sound of unknown length, with how much of it was heard.
    pub fn stream(output: &Output, what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} {heard} heard {speed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("speed", speed)
            .with_key("heard", |state: &ProgressState, out: &mut dyn fmt::Write| {
                let seconds = state.pos() / 1000;
                write!(out, "{}:{:02}", seconds / 60, seconds % 60).ok();
            });
        Self::start(output, what, style, ProgressBar::no_length(), true)
    }

    fn start(
        output: &Output,
        what: &str,
        style: ProgressStyle,
        bar: ProgressBar,
        plain: bool,
    ) -> Self {
        let draws = output.draws();
        let plain = plain && !draws && output.verbosity() > Verbosity::Quiet;
        if plain {
            output.notice(format_args!("{what} …"));
        }
        let bar = draws.then(|| {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_style(style);
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { what: what.to_owned(), bar, plain, started: Instant::now() }
    }

    /// So much of the whole is done.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Does something that prints on the same terminal: the bar is away meanwhile.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Takes the bar away; off a terminal this line says what was done.
    pub fn finish_with(self, output: &Output, line: impl fmt::Display) {
        self.clear();
        if self.plain {
            output.notice(line);
        }
    }

    /// Takes the bar away; off a terminal one line says that the work is done.
    pub fn finish(self, output: &Output) {
        self.clear();
        if self.plain {
            let seconds = self.started.elapsed().as_secs_f64();
            output.notice(format_args!("{}: done in {seconds:.1} s", self.what));
        }
    }

    /// Takes the bar away before something else is printed there.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            std::io::stderr().flush().ok();
        }
    }
}

/// Seconds of sound in a second of work.
fn speed(state: &ProgressState, out: &mut dyn fmt::Write) {
    write!(out, "{:.1}× real time", state.per_sec() / 1000.0).ok();
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
