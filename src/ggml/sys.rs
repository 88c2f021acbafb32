//! The C interface, as bindgen wrote it (ggml/README.md says how).
#![allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unsafe_op_in_unsafe_fn
)]

include!("../../ggml/bindings.rs");

unsafe extern "C" {
    /// Bits of kernels.h: what the C++ files were compiled for.
    pub(super) fn g3n_compiled_features() -> u32;
}
