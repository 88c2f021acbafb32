//! The first stage: a plan's stored segments, read in whole rows.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};

use super::super::error::Error;
use super::super::plan::{Part, Plan, Segment, Stored};
use super::super::source::{Files, Place, Source};
use super::{CHUNK, Piece, Stop};
use crate::gguf::TensorType;

pub struct Reader<'a> {
    plan: &'a Plan,
    source: &'a dyn Source,
    files: Files,
    to_encoder: SyncSender<Piece>,
    empty: Receiver<Vec<u8>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        plan: &'a Plan,
        source: &'a dyn Source,
        to_encoder: SyncSender<Piece>,
        empty: Receiver<Vec<u8>>,
    ) -> Self {
        Self { plan, source, files: Files::default(), to_encoder, empty }
    }

    pub fn run(mut self) -> Result<(), Stop> {
        for (tensor, planned) in self.plan.tensors.iter().enumerate() {
            for (segment, what) in planned.segments.iter().enumerate() {
                match what {
                    Segment::Stored(stored) => self.read_stored(tensor, segment, stored)?,
                    Segment::Fill { .. } => {
                        self.send(Piece { tensor, segment, first_row: 0, stored: Vec::new() })?;
                    }
                }
            }
        }
        Ok(())
    }

    fn send(&self, piece: Piece) -> Result<(), Stop> {
        self.to_encoder.send(piece).map_err(|_| Stop::NotWanted)
    }

    fn read_stored(&mut self, tensor: usize, segment: usize, stored: &Stored) -> Result<(), Stop> {
        let place = self.source.find(&stored.name)?;
        let (rows, columns) = match &stored.part {
            Part::All | Part::Transposed => (0..place.rows, None),
            Part::Cut { rows, columns } => (rows.clone(), Some(&columns[..])),
        };
        let step = match stored.part {
            Part::Transposed => place.rows.max(1),
            _ => (chunk(self.plan.tensors[tensor].target.ty) / place.row_len.max(1)).max(1),
        };
        let mut first_row = rows.start;
        while first_row < rows.end {
            let end = rows.end.min(first_row + step);
            let mut bytes = self.empty.try_recv().unwrap_or_default();
            self.read(stored, &place, first_row..end, &mut bytes)?;
            if let Some(columns) = columns {
                keep_columns(stored, &place, columns, &mut bytes)?;
            }
            self.send(Piece { tensor, segment, first_row, stored: bytes })?;
            first_row = end;
        }
        Ok(())
    }

    /// The source's bytes of these rows.
    fn read(
        &mut self,
        stored: &Stored,
        place: &Place,
        rows: Range<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let row_bytes = place.row_bytes();
        bytes.resize(((rows.end - rows.start) * row_bytes) as usize, 0);
        let offset = place.offset + rows.start * row_bytes;
        self.files.read(place.path, offset, bytes).map_err(|source| {
            let (path, tensor) = (place.path.to_owned(), stored.name.clone());
            Error::Read { path, tensor, source }
        })
    }
}

/// Elements of a chunk. Types whose quantizers search take seconds for a whole one, and the work
/// can be ended between two only.
fn chunk(ty: TensorType) -> u64 {
    let name = ty.name();
    let searches = ["IQ1", "IQ2", "IQ3"].iter().any(|kind| name.starts_with(kind));
    if searches { CHUNK / 8 } else { CHUNK }
}

/// Of each row read, only these columns: they move to the front, where what was there before is
/// no longer needed.
fn keep_columns(
    stored: &Stored,
    place: &Place,
    columns: &[Range<u64>],
    bytes: &mut Vec<u8>,
) -> Result<(), Error> {
    let at = |column| place.ty.row_bytes(column).map(|bytes| bytes as usize);
    let ranges: Option<Vec<_>> =
        columns.iter().map(|range| Some(at(range.start)?..at(range.end)?)).collect();
    let ranges = ranges.ok_or_else(|| Error::NotWholeBlocks {
        path: place.path.to_owned(),
        tensor: stored.name.clone(),
        ty: place.ty,
    })?;
    let row_bytes = place.row_bytes() as usize;
    let mut end = 0;
    for start in (0..bytes.len()).step_by(row_bytes.max(1)) {
        for range in &ranges {
            bytes.copy_within(start + range.start..start + range.end, end);
            end += range.len();
        }
    }
    bytes.truncate(end);
    Ok(())
}
