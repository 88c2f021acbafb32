//! Gemma 3n on the CPU: the parts of the `gemma3n` program.
//!
//! Doors open downwards only:
//! [`cli`] → [`session`], [`files`], [`verify`], [`bench`] → [`model`], [`media`], [`tokenizer`],
//! [`checkpoint`] → [`gguf`], [`ggml`].
//!
//! - [`gguf`]: the file format. Knows no model.
//! - [`ggml`]: the only unsafe room: tensors, graphs, threads and kernels behind safe types.
//! - [`checkpoint`]: Hugging Face directories.
//! - [`tokenizer`]: text to ids and back.
//! - [`media`]: pictures to pixels. Knows no graph.
//! - [`model`]: Gemma 3n itself, one file a mechanism.
//! - [`session`]: a conversation on a model.
//! - [`files`]: one file to another.
//! - [`verify`], [`bench`]: reference values; timings and floors.

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod files;
pub mod ggml;
pub mod gguf;
pub mod media;
pub mod model;
pub mod session;
pub mod tokenizer;
pub mod verify;
