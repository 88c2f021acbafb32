//! Pictures and sounds that go with a message: those that flags name, and how each is taken in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::chat::told;
use super::options::ModelOptions;
use super::output::Output;
use super::progress::Progress;
use crate::session::{Engine, Heard, Part};

/// What is shown or played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Picture,
    Sound,
}

impl Kind {
    /// What messages call several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Picture => "pictures",
            Self::Sound => "sounds",
        }
    }
}

const IMAGE: &str = "image";
const AUDIO: &str = "audio";

/// `-i` and `-a`: what they name, in the order of the command line across both.
#[derive(Clone, Debug)]
pub struct ShownArgs(Vec<(Kind, PathBuf)>);

impl ShownArgs {
    /// How often standard input is named.
    pub fn stdin_count(&self) -> usize {
        self.0.iter().filter(|(_, file)| file.as_os_str() == "-").count()
    }

    /// Tells before the work that the model has no towers.
    ///
    /// # Errors
    /// A picture or sound is named, and there is no file of towers, or it is not clear which.
    pub fn require_towers(&self, options: &ModelOptions) -> anyhow::Result<()> {
        match self.0.first() {
            Some((kind, _)) => options.require_towers(kind.plural()),
            None => Ok(()),
        }
    }
}

impl clap::Args for ShownArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, short: char, help: &'static str| {
            let files = clap::value_parser!(PathBuf);
            let arg = Arg::new(name).short(short).long(name).value_name("FILE").help(help);
            arg.value_parser(files).action(ArgAction::Append)
        };
        command
            .arg(flag(
                IMAGE,
                'i',
                "A picture to show with the prompt, or with the first message; may be given several \
                 times",
            ))
            .arg(flag(
                AUDIO,
                'a',
                "A sound to play with it, likewise; of each clip as much is heard as the model can: 30 s, \
                 the built-in one 8 s",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ShownArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut named = Vec::new();
        for (name, kind) in [(IMAGE, Kind::Picture), (AUDIO, Kind::Sound)] {
            let files = matches.get_many::<PathBuf>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            named.extend(places.zip(files).map(|(place, file)| (place, kind, file.clone())));
        }
        named.sort_by_key(|(place, ..)| *place);
        Ok(Self(named.into_iter().map(|(_, kind, file)| (kind, file)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What goes with a message, taken in.
pub struct Shown {
    pub parts: Vec<Part>,
    /// How long the looking took.
    pub looking: Duration,
    /// How long the listening took.
    pub listening: Duration,
}

impl Shown {
    /// Takes in what was named, with one tower open at a time and none in the end.
    ///
    /// # Errors
    /// As [`take`].
    pub fn take(named: &ShownArgs, engine: &Arc<Engine>, output: &Output) -> anyhow::Result<Self> {
        let mut shown = Self {
            parts: Vec::new(),
            looking: Duration::default(),
            listening: Duration::default(),
        };
        let mut before = None;
        for (kind, file) in &named.0 {
            if before.replace(kind).is_some_and(|before| before != kind) {
                rest(engine);
            }
            let started = Instant::now();
            shown.parts.push(take(*kind, file, engine, output)?.part);
            match kind {
                Kind::Picture => shown.looking += started.elapsed(),
                Kind::Sound => shown.listening += started.elapsed(),
            }
        }
        rest(engine);
        Ok(shown)
    }

    /// What `--timings` prints of it.
    pub fn figures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.looking.is_zero() {
            lines.push(format!("pictures: seen in {:.2} s", self.looking.as_secs_f64()));
        }
        if !self.listening.is_zero() {
            lines.push(format!("sounds: heard in {:.2} s", self.listening.as_secs_f64()));
        }
        lines
    }
}

/// Gives the towers' memory back until the next picture or sound.
pub fn rest(engine: &Engine) {
    if let Some(towers) = engine.towers() {
        towers.rest();
    }
}

/// A picture or sound that was taken in.
pub struct Taken {
    pub part: Part,
    /// What it is, in words: `20 × 14 pixels, shown`.
    pub facts: String,
}

/// Looks at a picture, or listens to a sound; says so if not all of that is heard.
///
/// # Errors
/// It can't be read, the model has no tower for it, or that fails.
pub fn take(
    kind: Kind,
    file: &Path,
    engine: &Arc<Engine>,
    output: &Output,
) -> anyhow::Result<Taken> {
    match kind {
        Kind::Picture => {
            let spinner = Progress::spinner(output, &format!("looking at {}", file.display()));
            let seen = engine.see(file, None).map_err(told)?;
            drop(spinner);
            let facts = format!("{} × {} pixels, shown", seen.width, seen.height);
            Ok(Taken { part: Part::Image { media: seen.media }, facts })
        }
        Kind::Sound => {
            let spinner = Progress::spinner(output, &format!("listening to {}", file.display()));
            let heard = engine.hear(file).map_err(told)?;
            drop(spinner);
            if let Some(cut) = cut(&heard) {
                output.notice(format_args!("{}: {cut}", heard.media.name()));
            }
            let facts = format!("{:.1} s of sound, played", heard.heard);
            Ok(Taken { part: Part::Audio { media: heard.media }, facts })
        }
    }
}

/// What is to be said of a sound that is not heard to its end; a blink more than the model hears is
/// not worth it.
fn cut(heard: &Heard) -> Option<String> {
    const BLINK: f64 = 0.1;
    let hears = heard.heard.round();
    let long = match heard.seconds {
        Some(seconds) if seconds <= heard.heard + BLINK => return None,
        Some(seconds) => format!("{seconds:.0} s long"),
        None => format!("more than {hears} s long"),
    };
    Some(format!(
        "{long}; the model hears the first {hears} s of a clip (`gemma3n transcribe` takes \
         long recordings)"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::session::SoftTokens;

    #[test]
    fn flags_are_taken_in_their_order() {
        let typed = ["chat", "-a", "1.wav", "-i", "2.png", "--audio=3.wav", "-i4.png"];
        let matches = ShownArgs::augment_args(Command::new("chat")).get_matches_from(typed);
        let shown = ShownArgs::from_arg_matches(&matches).expect("they are sound");
        let expected = [
            (Kind::Sound, "1.wav"),
            (Kind::Picture, "2.png"),
            (Kind::Sound, "3.wav"),
            (Kind::Picture, "4.png"),
        ];
        assert_eq!(shown.0, expected.map(|(kind, file)| (kind, PathBuf::from(file))));
    }

    #[test]
    fn a_sound_that_is_cut_is_told_of() {
        let said = |seconds, heard| {
            let media = Arc::new(SoftTokens::new("a.wav", 1, vec![0.0]));
            cut(&Heard { media, seconds, heard })
        };
        assert_eq!(said(Some(12.0), 12.0), None);
        assert_eq!(said(Some(30.02), 30.0), None);
        let rest = "s long; the model hears the first 30 s of a clip (`gemma3n transcribe` takes \
                    long recordings)";
        assert_eq!(said(Some(62.4), 30.0), Some(format!("62 {rest}")));
        assert_eq!(said(None, 30.0), Some(format!("more than 30 {rest}")));
    }
}
