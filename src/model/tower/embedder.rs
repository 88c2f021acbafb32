//! From a tower's output, or from ids of its vocabulary, to the text model's embeddings.
//!
//! ```text
//! soft: u = RMS(s; soft_norm)      hard: u = RMS(E[id − offset]; hard_norm)
//! out = RMS(W·u)
//! ```
//! The last norm has no weight. Reference: `Gemma3nMultimodalEmbedder`; reference.md §5.

use crate::ggml::{Stored, Tensor};
use crate::model::scope::{Activations, Scope};

/// A tower's embedder of soft and hard tokens.
pub struct Embedder {
    /// `[Dm, ids]`, f32
    pub table: Stored,
    pub hard_norm: Stored,
    pub soft_norm: Stored,
    /// `[Dm, E]`, f32
    pub projection: Stored,
}

/// The tower's output `[Dm, N]` → soft tokens `[E, N]`.
pub fn soft_tokens<'b, C>(s: &Scope<'b, C>, w: &Embedder, features: Tensor<'b>) -> Tensor<'b> {
    embed(s, w, features, &w.soft_norm)
}

/// Every id of the tower's vocabulary: `[E, ids]`.
pub fn hard_tokens<'b, C>(s: &Scope<'b, C>, w: &Embedder) -> Tensor<'b> {
    let table = s.weight(&w.table);
    embed(s, w, table, &w.hard_norm)
}

fn embed<'b, C>(s: &Scope<'b, C>, w: &Embedder, x: Tensor<'b>, norm: &Stored) -> Tensor<'b> {
    let normed = Activations::new(s.norm(x, norm));
    s.linear(&w.projection, &normed).rms_norm(s.eps)
}
