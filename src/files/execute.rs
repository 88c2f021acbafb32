//! Carries a plan out: reads, converts and writes in chunks, so that memory stays small whatever
//! the model's size.
//!
//! Three stages run side by side: one thread reads, the caller's pool decodes, checks and encodes,
//! one thread writes. A chunk is about 2 Mi elements in whole rows: 8 MiB as f32, and at most as
//! much read and as much written; a few are on the way at a time, and only a transposed tensor is
//! held as a whole. Weights that are not finite, or not finite any more in F16, are errors, not
//! infinities in the file.

mod encode;
mod read;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, Builder, ScopedJoinHandle};

use encode::Encoder;
pub use encode::{Loss, SAMPLED};
use read::Reader;

use crate::gguf::parts::{Parts, publish};
use crate::gguf::{Finished, Layout, same_file};

use super::error::Error;
use super::plan::Plan;
use super::source::Source;

const CHUNK: u64 = 2 << 20;
/// Chunks that wait between two stages, at most.
const WAITING: usize = 2;

/// Hears of the work's progress, and may end it.
pub trait Progress: Send {
    /// So many of the file's bytes are written. `Break` ends the work with
    /// [`Error::Interrupted`], leaving nothing behind.
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()>;
}

impl<F: FnMut(u64, u64) -> ControlFlow<()> + Send> Progress for F {
    fn advance(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self(done, total)
    }
}

/// A stretch of a segment, as the source has it.
struct Piece {
    /// Which of the plan's tensors, and which of its segments.
    tensor: usize,
    segment: usize,
    /// The first row read, of the stored tensor.
    first_row: u64,
    /// Nothing for a fill.
    stored: Vec<u8>,
}

/// A stretch of a tensor, as the file is to have it.
struct Encoded {
    tensor: usize,
    bytes: Vec<u8>,
}

/// Why a stage stops: an error of its own, or because a later stage has.
enum Stop {
    Failed(Box<Error>),
    NotWanted,
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// Writes the planned file from a source's tensors. Gives back what each tensor lost, as far as
/// its values changed.
///
/// # Errors
/// The plan doesn't fit the format; the target exists (without `overwrite`) or is one of the
/// inputs; reading or writing fails; a weight is not finite.
pub fn execute(
    plan: &Plan,
    source: &dyn Source,
    target: &Path,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<Vec<Loss>, Error> {
    let parts = vec![(target.to_owned(), plan.layout()?)];
    let (files, losses) = write(plan, source, parts, overwrite, progress)?;
    publish(files)?;
    Ok(losses)
}

/// Writes the planned file in the parts that [`crate::gguf::parts::split`] has made of its layout.
/// They get their names when they are published.
///
/// # Errors
/// As [`execute`].
pub fn write(
    plan: &Plan,
    source: &dyn Source,
    parts: Vec<(PathBuf, Layout)>,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<(Vec<Finished>, Vec<Loss>), Error> {
    for (target, _) in &parts {
        if source.files().iter().any(|file| same_file(file, target)) {
            return Err(Error::OverInput { path: target.clone() });
        }
    }
    let mut writer = Parts::create(parts, overwrite)?;
    let (to_encoder, pieces) = sync_channel(WAITING);
    let (to_writer, encoded) = sync_channel(WAITING);
    // Buffers go back to where they are filled again.
    let (read_again, empty_pieces) = channel();
    let (encode_again, empty_encoded) = channel();
    let losses = thread::scope(|scope| {
        let reader = Reader::new(plan, source, to_encoder, empty_pieces);
        let reading = Builder::new().spawn_scoped(scope, move || reader.run());
        let reading = reading.map_err(Error::Thread)?;
        let (writer, progress) = (&mut writer, &mut *progress);
        let append = move || append(plan, writer, progress, &encoded, &encode_again);
        let writing = Builder::new().spawn_scoped(scope, append).map_err(Error::Thread)?;
        let encoder = Encoder::new(plan, source, to_writer, empty_encoded);
        let encoding = encoder.run(&pieces, &read_again);
        // The reader may be waiting for room.
        drop(pieces);
        let (read, written) = (joined(reading), joined(writing));
        // A stage that is not wanted any more stops because of a later one.
        failure(written)?;
        let losses = match encoding {
            Ok(losses) => losses,
            Err(stop) => {
                failure(Err(stop))?;
                Vec::new()
            }
        };
        failure(read)?;
        Ok::<_, Error>(losses)
    })?;
    Ok((writer.complete()?, losses))
}

fn failure(ended: Result<(), Stop>) -> Result<(), Error> {
    match ended {
        Err(Stop::Failed(error)) => Err(*error),
        Ok(()) | Err(Stop::NotWanted) => Ok(()),
    }
}

fn joined<T>(stage: ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The last stage.
fn append(
    plan: &Plan,
    writer: &mut Parts,
    progress: &mut dyn Progress,
    encoded: &Receiver<Encoded>,
    empty: &Sender<Vec<u8>>,
) -> Result<(), Stop> {
    let total = writer.file_len();
    let mut done = 0;
    for Encoded { tensor, bytes } in encoded {
        writer.append(&plan.tensors[tensor].target.name, &bytes)?;
        done += bytes.len() as u64;
        // There is nobody to take it when the encoder is done.
        empty.send(bytes).ok();
        if progress.advance(done, total).is_break() {
            return Err(Error::Interrupted.into());
        }
    }
    Ok(())
}
