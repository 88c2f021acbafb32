//! The GGUF file format, versions 2 and 3: reading in place, writing as a stream.
//!
//! A file is metadata (keys and values), tensor descriptions, and the tensors' bytes. Everything
//! is checked when a file is opened; afterwards metadata and tensors are slices of the mapped
//! file. Knows no model: names and keys mean nothing here.
//!
//! - `parse`, `cursor`: the header and its checks. `split`: files in parts.
//! - `reader`: [`Gguf`], [`Tensor`]. `metadata`: [`Metadata`], [`Value`], [`Array`].
//! - `source`, `mapping`: where the bytes are; faults under a mapping.
//! - `layout`, `writer`: a header from a plan; a file, whole or not at all. [`parts`]: several.
//! - `fingerprint`: a quick identity.

mod cursor;
mod error;
mod fingerprint;
mod layout;
mod mapping;
mod metadata;
mod parse;
pub mod parts;
mod reader;
mod source;
mod split;
mod types;
mod writer;

pub use error::{Error, Fault, Shape, io_message};
pub use layout::{Encoded, Layout, OwnedArray, OwnedValue, TensorPlan};
pub use metadata::{Array, Metadata, Value, ValueType};
pub use reader::{Gguf, Tensor};
pub use types::TensorType;
pub use writer::{Finished, Writer, same_file};
