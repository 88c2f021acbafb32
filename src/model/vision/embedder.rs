//! From the tower's output, or from ids of the vision vocabulary, to the text model's embeddings.
//!
//! ```text
//! soft: u = RMS(√Dm·s; soft_norm)      hard: u = RMS(E[id − offset]; hard_norm)
//! out = RMS(W·u)
//! ```
//! The last norm has no weight. Reference: `Gemma3nMultimodalEmbedder`, `get_image_features`;
//! reference.md §5.

use super::Scope;
use super::weights::Embedder;
use crate::ggml::{Stored, Tensor};
use crate::model::scope::Activations;

/// The tower's output `[Dm, N]` → soft tokens `[E, N]`.
pub fn soft_tokens<'b>(s: &Scope<'b>, w: &Embedder, features: Tensor<'b>) -> Tensor<'b> {
    let [width, ..] = features.ne();
    embed(s, w, features.scale((width as f32).sqrt()), &w.soft_norm)
}

/// Every id of the vision vocabulary: `[E, ids]`.
pub fn hard_tokens<'b>(s: &Scope<'b>, w: &Embedder) -> Tensor<'b> {
    let table = s.weight(&w.table);
    embed(s, w, table, &w.hard_norm)
}

fn embed<'b>(s: &Scope<'b>, w: &Embedder, x: Tensor<'b>, norm: &Stored) -> Tensor<'b> {
    let normed = Activations::new(s.norm(x, norm));
    s.linear(&w.projection, &normed).rms_norm(s.eps)
}
