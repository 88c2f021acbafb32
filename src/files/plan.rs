//! A plan is data: which tensors and keys a file is to have, and what each is made of.
//!
//! tensor = concatenation of segments along the slowest dimension, each converted to the tensor's
//! type, or copied byte for byte where it has that type already. So a stack is several stored
//! segments, padding a fill after a stored one, an absent weight a fill alone, and what a slice
//! keeps of a matrix is a stored segment of some rows or columns.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use crate::gguf::{Layout, OwnedValue, TensorPlan, TensorType};

use super::error::Error;

/// What a new file is to contain.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Keys and values, in order.
    pub metadata: Vec<(String, OwnedValue)>,
    /// Tensors, in order.
    pub tensors: Vec<PlannedTensor>,
    /// Tensors of the source that the file will not have.
    pub left_out: Vec<LeftOut>,
    /// What the user should know before it is carried out, a sentence each.
    pub notices: Vec<String>,
}

/// A tensor to write and what it is made of.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    pub target: TensorPlan,
    /// In order of the output.
    pub segments: Vec<Segment>,
    /// For quantizing: how much each column of a row matters, `ne[0]` values.
    pub importance: Option<Arc<[f32]>>,
}

/// A stretch of a tensor's elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// A tensor of the source, or a part of it.
    Stored(Stored),
    /// One value throughout.
    Fill { value: f32, elements: u64 },
}

/// A tensor of the source, seen as rows of its fastest dimension, and what is taken of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub name: String,
    pub ty: TensorType,
    /// Elements of a row.
    pub row_len: u64,
    /// All rows there are.
    pub rows: u64,
    pub part: Part,
}

/// What is taken of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    All,
    /// Some rows, and of each the elements in these ranges, one range after the other. Where bytes
    /// are copied the ranges are whole blocks.
    Cut {
        rows: Range<u64>,
        columns: Vec<Range<u64>>,
    },
    /// Columns as rows. The executor holds the whole tensor in memory for it.
    Transposed,
}

/// A tensor of the source that isn't used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub name: String,
    pub reason: &'static str,
}

impl Stored {
    /// The elements taken.
    pub fn elements(&self) -> u64 {
        match &self.part {
            Part::All | Part::Transposed => self.row_len.saturating_mul(self.rows),
            Part::Cut { rows, columns } => {
                let width = columns.iter().fold(0u64, |sum, range| sum + (range.end - range.start));
                (rows.end - rows.start).saturating_mul(width)
            }
        }
    }

    /// Where in the whole tensor an element is, by its place among those that are taken from this
    /// row on.
    pub fn index(&self, first_row: u64, at: u64) -> u64 {
        let whole = 0..self.row_len;
        let columns = match &self.part {
            Part::All | Part::Transposed => std::slice::from_ref(&whole),
            Part::Cut { columns, .. } => columns,
        };
        let width = columns.iter().map(|range| range.end - range.start).sum::<u64>().max(1);
        let (row, mut column) = (at / width, at % width);
        for range in columns {
            let len = range.end - range.start;
            if column < len {
                column += range.start;
                break;
            }
            column -= len;
        }
        (first_row + row) * self.row_len + column
    }

    /// Whether what is taken lies inside the tensor.
    fn is_inside(&self) -> bool {
        let within = |range: &Range<u64>, end| range.start <= range.end && range.end <= end;
        match &self.part {
            Part::All | Part::Transposed => true,
            Part::Cut { rows, columns } => {
                within(rows, self.rows) && columns.iter().all(|range| within(range, self.row_len))
            }
        }
    }
}

impl Segment {
    pub fn elements(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.elements(),
            Self::Fill { elements, .. } => *elements,
        }
    }
}

impl PlannedTensor {
    /// A tensor made of these segments, quantized (if at all) without an importance matrix.
    pub fn new(target: TensorPlan, segments: Vec<Segment>) -> Self {
        Self { target, segments, importance: None }
    }

    /// Where the elements come from and what happens to them, in a few words.
    pub fn transformation(&self) -> String {
        let mut text = String::new();
        let stored: Vec<_> = self
            .segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Stored(stored) => Some(stored),
                Segment::Fill { .. } => None,
            })
            .collect();
        match stored[..] {
            [] => {}
            [one] => text.push_str(&one.name),
            [first, .., last] if first.name == last.name => {
                write!(text, "{}, {} parts joined", first.name, stored.len()).ok();
            }
            [first, .., last] => {
                write!(text, "{} stacked: {} … {}", stored.len(), first.name, last.name).ok();
            }
        }
        match stored.first().map(|one| &one.part) {
            Some(Part::Cut { .. }) if stored.len() == 1 => text.push_str(", a part"),
            Some(Part::Transposed) => text.push_str(", transposed"),
            Some(Part::All | Part::Cut { .. }) | None => {}
        }
        let changed = stored.iter().find(|stored| stored.ty != self.target.ty);
        if let Some(Stored { ty, .. }) = changed {
            write!(text, ", {ty} to {}", self.target.ty).ok();
        }
        for segment in &self.segments {
            if let Segment::Fill { value, elements } = segment {
                let rows = elements / self.target.ne[0].max(1);
                let separator = if text.is_empty() { "" } else { ", then " };
                let row = if rows == 1 { "row" } else { "rows" };
                write!(text, "{separator}{rows} {row} of {value}").ok();
            }
        }
        text
    }
}

impl Plan {
    /// The file's layout, after checking the plan as a whole: names, shapes, sizes, and that the
    /// segments of each tensor lie in their sources and are as many elements as it has.
    ///
    /// # Errors
    /// The first tensor that doesn't fit the format or its sources.
    pub fn layout(&self) -> Result<Layout, Error> {
        for PlannedTensor { target, segments, .. } in &self.tensors {
            target.nbytes().map_err(|fault| Error::Plan { tensor: target.name.clone(), fault })?;
            // The sizes in bytes fit, so the products of `ne` do.
            let expected: u64 = target.ne.iter().product();
            let found = segments.iter().map(Segment::elements).fold(0, u64::saturating_add);
            let outside = |segment: &Segment| match segment {
                Segment::Stored(stored) => !stored.is_inside(),
                Segment::Fill { .. } => false,
            };
            if expected != found || segments.iter().any(outside) {
                return Err(Error::Elements { tensor: target.name.clone(), expected, found });
            }
        }
        Ok(Layout {
            metadata: self.metadata.clone(),
            tensors: self.tensors.iter().map(|tensor| tensor.target.clone()).collect(),
        })
    }
}
