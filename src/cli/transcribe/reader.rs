//! A thread that reads a sound and cuts it into segments, ahead of the model.
//!
//! So a live stream goes on while the model works. How far ahead it may be is bounded: a stream's writer
//! waits only when the model is a quarter of an hour behind.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::media::Error;
use crate::media::audio::{Segment, SegmentOptions, Segments, Sound, SoundOptions};

/// Segments that may wait: 2 MB each at most.
const WAITING_OF_FILE: usize = 2;
const WAITING_OF_STREAM: usize = 30;
/// How often it is looked whether the work is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What happens to a sound.
pub enum News {
    /// It is one, of so many seconds as far as that is known.
    Opened(Option<f64>),
    Segment(Segment, Read),
    Ended(Read),
    Failed(Error),
}

/// How far the reading is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// Seconds of sound.
    pub position: f64,
    /// Seconds that it took, waiting for a stream's writer included.
    pub time: f64,
}

/// A sound that is being read.
pub struct Reader(Receiver<News>);

impl Reader {
    /// Begins to read a file, or `-` for standard input.
    pub fn start(input: &Path, sound: SoundOptions, segments: SegmentOptions) -> Self {
        let input = input.to_path_buf();
        let stream = input.as_os_str() == "-";
        let (sender, receiver) =
            sync_channel(if stream { WAITING_OF_STREAM } else { WAITING_OF_FILE });
        // Ends with the sound, with the receiver, or with the program.
        thread::spawn(move || {
            // The receiver went away: nobody wants to know.
            let _ = read(input, &sound, segments, &sender);
        });
        Self(receiver)
    }

    /// What happens next; `None`: the work is to end.
    pub fn next(&self, ends: impl Fn() -> bool) -> Option<News> {
        loop {
            match self.0.recv_timeout(LOOK) {
                Ok(news) => return Some(news),
                Err(RecvTimeoutError::Timeout) if !ends() => {}
                Err(_) => return None,
            }
        }
    }
}

/// # Errors
/// The receiver is gone.
fn read(
    input: PathBuf,
    options: &SoundOptions,
    segments: SegmentOptions,
    news: &SyncSender<News>,
) -> Result<(), Box<std::sync::mpsc::SendError<News>>> {
    let send = |event| news.send(event).map_err(Box::new);
    let mut time = 0.0;
    let sound = timed(&mut time, || match input.as_os_str() == "-" {
        true => Sound::read(Path::new("standard input"), std::io::stdin(), options),
        false => Sound::open(&input, options),
    });
    let sound = match sound {
        Ok(sound) => sound,
        Err(error) => return send(News::Failed(error)),
    };
    send(News::Opened(sound.duration()))?;
    let mut segments = Segments::new(sound, segments);
    loop {
        let next = timed(&mut time, || segments.next_segment());
        let read = Read { position: segments.position(), time };
        match next {
            Ok(Some(segment)) => send(News::Segment(segment, read))?,
            Ok(None) => return send(News::Ended(read)),
            Err(error) => return send(News::Failed(error)),
        }
    }
}

fn timed<T>(time: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *time += started.elapsed().as_secs_f64();
    result
}
