//! The small model inside the program: its two files, used where they lie in the binary.
//!
//! It is a Gemma 3n with every mechanism of the published ones and a thousandth of their weights;
//! `scripts/builtin` trains it, docs/builtin.md says what it can do.

use super::engine::ModelSource;

/// What `--model` and messages call it.
pub const NAME: &str = "builtin";

/// Bytes at an address that every kernel takes.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static TEXT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/gemma3n-builtin.gguf"));
static TOWERS: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../assets/mmproj-gemma3n-builtin.gguf"));

/// The text model.
pub fn text() -> ModelSource {
    ModelSource::Static { name: NAME, bytes: &TEXT.0 }
}

/// Its towers, for pictures and sounds.
pub fn towers() -> ModelSource {
    ModelSource::Static { name: "builtin (towers)", bytes: &TOWERS.0 }
}
