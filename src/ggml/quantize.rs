//! Rows of F32 to any type, by ggml's own quantizers.

use std::ffi::c_void;

use super::{Type, sys};

/// Why rows can't be quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// ggml has no quantizer for the type, or one that needs an importance matrix.
    #[error("{0} has no quantizer that works without an importance matrix")]
    NoQuantizer(Type),
    /// The values are not whole rows of whole blocks.
    #[error("{values} values are not rows of {row_len}, or these not whole blocks of {ty}")]
    Shape { ty: Type, values: usize, row_len: usize },
    /// A value that no block can hold.
    #[error("value {index} is {value}")]
    NotFinite { index: usize, value: f32 },
}

/// Quantizes rows of `row_len` values, one after the other, without an importance matrix.
///
/// # Errors
/// The type has no such quantizer, the values are not whole rows, or one is not finite.
pub fn quantize(ty: Type, values: &[f32], row_len: usize) -> Result<Vec<u8>, QuantizeError> {
    if !has_quantizer(ty) {
        return Err(QuantizeError::NoQuantizer(ty));
    }
    let whole_rows = row_len > 0 && values.len().is_multiple_of(row_len);
    if !whole_rows || !row_len.is_multiple_of(ty.block_len()) {
        return Err(QuantizeError::Shape { ty, values: values.len(), row_len });
    }
    if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(QuantizeError::NotFinite { index, value: *value });
    }
    let rows = values.len() / row_len;
    let mut packed = vec![0u8; rows * ty.row_bytes(row_len)];
    if rows == 0 {
        return Ok(packed);
    }
    super::init();
    // SAFETY: `values` holds `rows` rows of `row_len` floats, whole blocks of the type; `packed`
    // holds as many rows of the type; it has a quantizer that takes no importance matrix. The
    // tables that some quantizers make are guarded by a lock inside ggml.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            ty.raw(),
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

/// Whether `ggml_quantize_chunk` makes the type without an importance matrix.
fn has_quantizer(ty: Type) -> bool {
    matches!(
        ty.raw(),
        sys::GGML_TYPE_F32
            | sys::GGML_TYPE_F16
            | sys::GGML_TYPE_BF16
            | sys::GGML_TYPE_Q1_0
            | sys::GGML_TYPE_Q2_0
            | sys::GGML_TYPE_Q4_0
            | sys::GGML_TYPE_Q4_1
            | sys::GGML_TYPE_Q5_0
            | sys::GGML_TYPE_Q5_1
            | sys::GGML_TYPE_Q8_0
            | sys::GGML_TYPE_Q2_K
            | sys::GGML_TYPE_Q3_K
            | sys::GGML_TYPE_Q4_K
            | sys::GGML_TYPE_Q5_K
            | sys::GGML_TYPE_Q6_K
            | sys::GGML_TYPE_IQ2_S
            | sys::GGML_TYPE_IQ3_XXS
            | sys::GGML_TYPE_IQ3_S
            | sys::GGML_TYPE_IQ4_NL
            | sys::GGML_TYPE_IQ4_XS
            | sys::GGML_TYPE_TQ1_0
            | sys::GGML_TYPE_TQ2_0
            | sys::GGML_TYPE_MXFP4
            | sys::GGML_TYPE_NVFP4
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(id: u32) -> Type {
        Type::weight_from_id(id).unwrap()
    }

    /// Largest |value − read back| of two rows of 256 values in [-1, 1], relative to 1.
    fn error(ty: Type) -> f32 {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mut back = vec![0.0; values.len()];
        ty.to_f32(&quantize(ty, &values, 256).unwrap(), &mut back);
        values.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Half a step of a uniform grid over [-1, 1] with 2^bits values bounds what a type may lose;
    /// the lower bound shows that it is this type and no better one.
    #[test]
    fn values_come_back_within_the_steps_of_their_type() {
        assert_eq!(error(Type::F32), 0.0);
        let within = |id, low: f32, high: f32| {
            let error = error(ty(id));
            assert!((low..high).contains(&error), "{}: {error}", ty(id));
        };
        within(sys::GGML_TYPE_F16, 1e-5, 1.0 / 2048.0);
        within(sys::GGML_TYPE_BF16, 1e-4, 1.0 / 256.0);
        within(sys::GGML_TYPE_Q8_0, 1e-3, 0.005);
        within(sys::GGML_TYPE_Q6_K, 0.01, 0.04);
        within(sys::GGML_TYPE_Q4_0, 0.03, 0.13);
        within(sys::GGML_TYPE_Q4_K, 0.03, 0.1);
    }

    #[test]
    fn every_quantizer_fills_the_rows_of_its_type() {
        let types = (0..sys::GGML_TYPE_COUNT).filter_map(Type::weight_from_id);
        for ty in types.filter(|ty| has_quantizer(*ty)) {
            let error = error(ty);
            assert!(error < 1.01, "{ty}: {error}");
        }
    }

    #[test]
    fn what_ggml_would_abort_on_is_refused() {
        let refused = |id, values: &[f32], row_len| {
            quantize(ty(id), values, row_len).unwrap_err().to_string()
        };
        assert!(refused(sys::GGML_TYPE_Q4_K, &[0.0; 64], 32).contains("blocks of q4_K"));
        assert!(refused(sys::GGML_TYPE_F32, &[0.0; 5], 2).contains("5 values"));
        assert!(refused(sys::GGML_TYPE_F32, &[0.0; 5], 0).contains("rows of 0"));
        assert!(refused(sys::GGML_TYPE_Q8_0, &[f32::NAN; 32], 32).contains("value 0"));
        assert!(refused(sys::GGML_TYPE_IQ1_S, &[0.0; 256], 256).contains("importance matrix"));
    }
}
