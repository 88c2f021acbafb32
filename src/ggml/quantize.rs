//! Rows of F32 to any tensor type, by ggml's own quantizers.

use std::ffi::c_void;

use super::sys;
use crate::gguf::TensorType;

/// Why rows can't be quantized.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ggml has no quantizer for the type, or one that needs an importance matrix.
    #[error("{type_name} has no quantizer that works without an importance matrix")]
    NoQuantizer { type_name: &'static str },
    /// The values are not whole rows of whole blocks.
    #[error("{values} values are not rows of {row_len}, or {row_len} is not a multiple of {type_name}'s block of {block}")]
    Shape { type_name: &'static str, values: usize, row_len: usize, block: u64 },
    /// A value that no block can hold.
    #[error("value {index} is {value}")]
    NotFinite { index: usize, value: f32 },
}

/// Quantizes rows of `row_len` values, one after the other, without an importance matrix.
///
/// # Errors
/// The type has no such quantizer, the values are not whole rows, or one is not finite.
pub fn quantize(ty: TensorType, values: &[f32], row_len: usize) -> Result<Vec<u8>, Error> {
    let type_name = ty.name();
    let block = ty.block_len();
    let shape = Error::Shape { type_name, values: values.len(), row_len, block };
    if row_len == 0 || !values.len().is_multiple_of(row_len) || !(row_len as u64).is_multiple_of(block) {
        return Err(shape);
    }
    let Some(row_bytes) = ty.row_bytes(row_len as u64).and_then(|bytes| usize::try_from(bytes).ok()) else {
        return Err(shape);
    };
    if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(Error::NotFinite { index, value: *value });
    }
    let id = ty.id() as sys::ggml_type;
    // SAFETY: reads a constant table by a type that the pinned ggml has (ids of `TensorType` that
    // it lacks have no entry in `has_quantizer`).
    if !has_quantizer(ty) || unsafe { sys::ggml_quantize_requires_imatrix(id) } {
        return Err(Error::NoQuantizer { type_name });
    }
    let rows = values.len() / row_len;
    let mut packed = vec![0u8; rows * row_bytes];
    if rows == 0 {
        return Ok(packed);
    }
    // SAFETY: `values` holds `rows` rows of `row_len` floats, which is a multiple of the type's
    // block; `packed` holds `rows` rows of that type; no importance matrix is needed (checked
    // above). Initialising the type's tables is guarded by a lock inside ggml.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            id,
            values.as_ptr(),
            packed.as_mut_ptr().cast::<c_void>(),
            0,
            rows as i64,
            row_len as i64,
            std::ptr::null(),
        )
    };
    debug_assert_eq!(written, packed.len());
    Ok(packed)
}
