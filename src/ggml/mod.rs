//! ggml behind safe types: the only unsafe room of the program (beside the file mapping).
//!
//! - [`Threads`]: the pool that computes. One graph at a time.
//! - [`Stored`]: tensors that outlive a graph: weights over the mapping, caches.
//! - [`Builder`], [`Tensor`]: writing a graph. Shapes, types and strides are checked before a
//!   node is made, since ggml's own checks end the process.
//! - [`Graph`]: run many times, with new inputs.
//! - [`quantize`]: rows of F32 to any type.
//!
//! The C side is compiled by build.rs from a pinned Cargo package: ggml/README.md.

mod builder;
mod conformer;
mod convolution;
mod fused;
mod graph;
mod kernels;
mod machine;
mod neurons;
mod nodes;
mod panels;
mod product_nodes;
mod products;
mod quantize;
mod squares;
mod store;
mod sys;
mod threads;
mod types;

pub use builder::{Builder, Tensor};
pub use conformer::Span;
pub use convolution::Window;
pub use graph::{Element, Graph, Input, Output, RunError};
pub use machine::check_machine;
pub use neurons::Survivors;
pub use panels::{Panels, Wide};
pub use product_nodes::Quantized;
pub use quantize::{
    QuantizeError, has_quantizer, quantize, quantize_into, quantize_q8_0, requires_importance,
};
pub use store::Stored;
pub use threads::Threads;
pub use types::Type;

use std::ffi::{c_char, c_void};
use std::sync::Once;

/// The version of ggml inside.
pub const VERSION: &str = env!("GEMMA3N_GGML_VERSION");

/// Sets up ggml's tables (f16 conversion and the like) once, and silences its log.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: called once, before any other use; the callback is a plain function.
        unsafe {
            sys::ggml_log_set(Some(no_log), std::ptr::null_mut());
            sys::ggml_cpu_init();
        }
    });
}

unsafe extern "C" fn no_log(_level: sys::ggml_log_level, _text: *const c_char, _data: *mut c_void) {
}
