//! What each mechanism sees while a graph is written: the builder, the sizes, the choice between
//! our kernels and their plain twins, and what is read beside logits: the taps of `verify`, the
//! squares of importance matrices.

use std::cell::{OnceCell, RefCell};

use crate::ggml::{Builder, Output, Quantized, Stored, Tensor, Wide};

/// Which implementation computes what has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernels {
    /// Our kernels wherever they serve.
    #[default]
    Auto,
    /// Only ggml's own operations: the plain twin of every kernel.
    Ggml,
}

/// What is read from a graph after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    Logits,
    /// Every intermediate value, and the logits.
    Taps,
    /// Of the inputs of the layers' products the sums of squares; no logits.
    Squares,
}

/// An intermediate value that can be read after a run, under the name the reference values use.
#[derive(Clone, Debug)]
pub struct Tap {
    pub name: String,
    /// ggml's order.
    pub ne: [usize; 4],
    pub output: Output,
}

/// An intermediate value that was read, with its shape in ggml's order.
#[derive(Clone, Debug, PartialEq)]
pub struct TapValue {
    pub name: String,
    pub ne: [usize; 4],
    pub values: Vec<f32>,
}

/// Sums of squares of a product's input, by column, under the name of its weight.
#[derive(Clone, Debug)]
pub struct Squares {
    pub weight: String,
    pub output: Output,
}

/// The surroundings of a mechanism, in the text model or in a tower, each with its own config.
pub struct Scope<'b, C> {
    pub b: &'b Builder,
    pub config: &'b C,
    pub kernels: Kernels,
    /// What RMS norms add to the mean square.
    pub eps: f32,
    prefix: RefCell<String>,
    taps: Option<RefCell<Vec<Tap>>>,
    squares: Option<RefCell<Vec<Squares>>>,
}

/// A value that several products read; what is made of it is made at most once.
pub struct Activations<'b> {
    pub f32: Tensor<'b>,
    q8: OnceCell<Quantized<'b>>,
    wide: OnceCell<Wide<'b>>,
    squares: OnceCell<Output>,
}

impl<'b> Activations<'b> {
    pub fn new(f32: Tensor<'b>) -> Self {
        Self { f32, q8: OnceCell::new(), wide: OnceCell::new(), squares: OnceCell::new() }
    }

    /// The rows in 8 bits, for our kernels.
    pub fn q8(&self) -> Quantized<'b> {
        *self.q8.get_or_init(|| self.f32.quantize_q8())
    }

    /// The rows in 8 bits, for weights in panels.
    pub fn wide(&self) -> Wide<'b> {
        *self.wide.get_or_init(|| self.f32.quantize_wide())
    }
}

impl<'b, C> Scope<'b, C> {
    pub fn new(b: &'b Builder, config: &'b C, eps: f32, kernels: Kernels, reads: Reading) -> Self {
        let taps = (reads == Reading::Taps).then(RefCell::default);
        let squares = (reads == Reading::Squares).then(RefCell::default);
        Self { b, config, kernels, eps, prefix: RefCell::default(), taps, squares }
    }

    /// Do our kernels compute? Taps inside a fused kernel cannot be read, so tests of every tap
    /// take the twins.
    pub fn fused(&self) -> bool {
        self.kernels == Kernels::Auto
    }

    /// Names the taps that follow: `layer03.` or nothing.
    pub fn enter(&self, prefix: String) {
        *self.prefix.borrow_mut() = prefix;
    }

    /// Makes a value readable, if this graph has taps. `ne` is the shape that is reported.
    pub fn tap(&self, name: &str, tensor: Tensor<'b>) {
        if let Some(taps) = &self.taps {
            // A copy where kernels work in place: the value is to be read as it is here.
            let kept = tensor.is_contiguous() && !self.fused();
            let readable = if kept { tensor } else { tensor.cont() };
            taps.borrow_mut().push(Tap {
                name: format!("{}{name}", self.prefix.borrow()),
                ne: readable.ne(),
                output: self.b.output(readable),
            });
        }
    }

    /// Are there taps in this graph? For values that exist only to be read.
    pub fn has_taps(&self) -> bool {
        self.taps.is_some()
    }

    /// Makes the sums of squares of a product's input readable, if this graph has them. What
    /// doesn't go through [`Scope::linear`] calls this.
    pub fn observe(&self, weight: &Stored, x: &Activations<'b>) {
        self.observe_as(weight.name(), x);
    }

    /// As [`Scope::observe`], for a weight that importance matrices know by another name.
    pub fn observe_as(&self, weight: &str, x: &Activations<'b>) {
        if let Some(squares) = &self.squares {
            let output = *x.squares.get_or_init(|| self.b.output(x.f32.column_squares()));
            let mut squares = squares.borrow_mut();
            // Parts of one matrix (`attn_qkv`) meet one input, which counts once.
            if !squares.iter().any(|s| s.output == output && s.weight == weight) {
                squares.push(Squares { weight: weight.to_owned(), output });
            }
        }
    }

    /// Does this graph sum squares? For values that exist only to be observed.
    pub fn observes(&self) -> bool {
        self.squares.is_some()
    }

    /// What can be read beside logits.
    pub fn into_readings(self) -> (Vec<Tap>, Vec<Squares>) {
        let taps = self.taps.map(RefCell::into_inner).unwrap_or_default();
        (taps, self.squares.map(RefCell::into_inner).unwrap_or_default())
    }

    /// A weight's values in this graph.
    pub fn weight(&self, stored: &Stored) -> Tensor<'b> {
        self.b.stored(stored)
    }

    /// `lin(W, x) = W·x` for each row: `[n, T] → [m, T]`.
    pub fn linear(&self, weight: &Stored, x: &Activations<'b>) -> Tensor<'b> {
        self.observe(weight, x);
        self.linear_with(self.weight(weight), x)
    }

    /// As [`Scope::linear`], for a slice of a weight, and unobserved.
    pub fn linear_with(&self, weight: Tensor<'b>, x: &Activations<'b>) -> Tensor<'b> {
        if self.fused() && weight.has_product_kernel() {
            return weight.product_q8(x.q8());
        }
        if self.fused() && weight.has_float_kernel(x.f32.ne()[1]) {
            return weight.product_float(x.f32);
        }
        x.f32.mul_mat(weight)
    }

    /// `RMS(x; w)` over each row.
    pub fn norm(&self, x: Tensor<'b>, weight: &Stored) -> Tensor<'b> {
        let weight = self.weight(weight);
        if self.fused() {
            return x.rms_norm_weighted(weight, self.eps);
        }
        x.rms_norm(self.eps) * weight
    }
}
