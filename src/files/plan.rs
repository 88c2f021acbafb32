//! A plan is data: which tensors and keys a file is to have, and what each is made of.
//!
//! tensor = concatenation of segments along the slowest dimension, each element converted to the
//! tensor's type. So a stack is several stored segments, padding a fill after a stored one, an
//! absent weight a fill alone.

use std::fmt::Write;

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
}

/// A stretch of a tensor's elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// A whole tensor of the source.
    Stored { name: String, ty: TensorType, elements: u64 },
    /// One value throughout.
    Fill { value: f32, elements: u64 },
}

/// A tensor of the source that isn't used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub name: String,
    pub reason: &'static str,
}

impl Segment {
    pub fn elements(&self) -> u64 {
        match self {
            Self::Stored { elements, .. } | Self::Fill { elements, .. } => *elements,
        }
    }
}

impl PlannedTensor {
    /// Where the elements come from and what happens to them, in a few words.
    pub fn transformation(&self) -> String {
        let mut text = String::new();
        let stored: Vec<_> = self
            .segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Stored { name, ty, .. } => Some((name.as_str(), *ty)),
                Segment::Fill { .. } => None,
            })
            .collect();
        match stored[..] {
            [] => {}
            [(name, _)] => text.push_str(name),
            [(first, _), .., (last, _)] => {
                write!(text, "{} stacked: {first} … {last}", stored.len()).ok();
            }
        }
        let changed = stored.iter().find(|(_, ty)| *ty != self.target.ty);
        if let Some((_, from)) = changed {
            write!(text, ", {from} to {}", self.target.ty).ok();
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
    /// segments of each tensor are as many elements as it has.
    ///
    /// # Errors
    /// The first tensor that doesn't fit the format or its sources.
    pub fn layout(&self) -> Result<Layout, Error> {
        for PlannedTensor { target, segments } in &self.tensors {
            target.nbytes().map_err(|fault| Error::Plan { tensor: target.name.clone(), fault })?;
            // The sizes in bytes fit, so the products of `ne` do.
            let expected: u64 = target.ne.iter().product();
            let found = segments.iter().map(Segment::elements).fold(0, u64::saturating_add);
            if expected != found {
                return Err(Error::Elements { tensor: target.name.clone(), expected, found });
            }
        }
        Ok(Layout {
            metadata: self.metadata.clone(),
            tensors: self.tensors.iter().map(|tensor| tensor.target.clone()).collect(),
        })
    }
}
