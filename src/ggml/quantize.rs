//! Rows of F32 to any type, by ggml's own quantizers.

use std::ffi::c_void;

use super::{Type, sys};

/// Why rows can't be quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// ggml has no quantizer for the type.
    #[error("{0} has no quantizer")]
    NoQuantizer(Type),
    /// ggml aborts without one.
    #[error("{0} can't be made without an importance matrix")]
    NoImportance(Type),
    /// Not a finite number, at least 0, for each column.
    #[error("the importance matrix has {found} usable values for {expected} columns")]
    Importance { expected: usize, found: usize },
    /// The values are not whole rows of whole blocks.
    #[error("{values} values are not rows of {row_len}, or these not whole blocks of {ty}")]
    Shape { ty: Type, values: usize, row_len: usize },
    /// A value that no block can hold.
    #[error("value {index} is {value}")]
    NotFinite { index: usize, value: f32 },
}

/// From here on F16 has infinity, and scales are F16; up to here the searches of IQ types can
/// square and sum in f32.
const END: f32 = 65520.0;
const MOST_IMPORTANT: f32 = 1e15;

/// Quantizes rows of `row_len` values, one after the other, without an importance matrix.
///
/// # Errors
/// As [`quantize_into`].
pub fn quantize(ty: Type, values: &[f32], row_len: usize) -> Result<Vec<u8>, QuantizeError> {
    let whole = row_len > 0 && row_len.is_multiple_of(ty.block_len());
    let rows = if whole { values.len() / row_len * ty.row_bytes(row_len) } else { 0 };
    let mut packed = vec![0u8; rows];
    quantize_into(ty, values, row_len, None, &mut packed)?;
    Ok(packed)
}

/// Quantizes rows of `row_len` values, one after the other, into bytes of as many rows.
/// `importance` says how much each column matters; types that have no use for it ignore it.
///
/// # Errors
/// The type has no quantizer, or one that needs an importance matrix; the values or bytes are not
/// whole rows; a value is not finite, or too large for the type.
pub fn quantize_into(
    ty: Type,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    packed: &mut [u8],
) -> Result<(), QuantizeError> {
    if !has_quantizer(ty) {
        return Err(QuantizeError::NoQuantizer(ty));
    }
    if importance.is_none() && requires_importance(ty) {
        return Err(QuantizeError::NoImportance(ty));
    }
    if let Some(importance) = importance {
        let usable = |weight: &&f32| (0.0..=MOST_IMPORTANT).contains(*weight);
        let found = importance.iter().filter(usable).count();
        if found != row_len || importance.len() != row_len {
            return Err(QuantizeError::Importance { expected: row_len, found });
        }
    }
    let whole_rows = row_len > 0 && values.len().is_multiple_of(row_len);
    if !whole_rows
        || !row_len.is_multiple_of(ty.block_len())
        || packed.len() != values.len() / row_len * ty.row_bytes(row_len)
    {
        return Err(QuantizeError::Shape { ty, values: values.len(), row_len });
    }
    let end = if ty.is_quantized() { END } else { f32::INFINITY };
    let fits = |value: &f32| value.abs() < end;
    // Without a branch for each value, several are compared at a time.
    if !values.iter().fold(true, |all, value| all & fits(value)) {
        let index = values.iter().position(|value| !fits(value)).unwrap_or(0);
        return Err(QuantizeError::NotFinite { index, value: values[index] });
    }
    if values.is_empty() {
        return Ok(());
    }
    super::init();
    // SAFETY: `values` holds whole rows of `row_len` floats, whole blocks of the type; `packed`
    // holds as many rows of the type, and `importance`, if it is there, `row_len` floats, which it
    // is if the type needs it. The tables that some quantizers make are guarded by a lock inside
    // ggml.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            ty.raw(),
            values.as_ptr(),
            packed.as_mut_ptr().cast::<c_void>(),
            0,
            (values.len() / row_len) as i64,
            row_len as i64,
            importance.map_or(std::ptr::null(), <[f32]>::as_ptr),
        )
    };
    debug_assert_eq!(written, packed.len());
    Ok(())
}

/// Rows in 8 bits by the quantizer that ggml uses for activations, which is vectorized: for
/// weights that are turned while a model is opened. Rounds half-way cases to even, unlike
/// [`quantize`].
///
/// # Errors
/// As [`quantize_into`].
pub fn quantize_q8_0(
    values: &[f32],
    row_len: usize,
    packed: &mut [u8],
) -> Result<(), QuantizeError> {
    let ty = Type::Q8_0;
    let whole = row_len > 0 && row_len.is_multiple_of(ty.block_len());
    if !whole
        || !values.len().is_multiple_of(row_len)
        || packed.len() != values.len() / row_len * ty.row_bytes(row_len)
    {
        return Err(QuantizeError::Shape { ty, values: values.len(), row_len });
    }
    if !values.iter().fold(true, |all, value| all & (value.abs() < END)) {
        let index = values.iter().position(|value| value.abs() >= END || value.is_nan());
        let index = index.unwrap_or(0);
        return Err(QuantizeError::NotFinite { index, value: values[index] });
    }
    super::init();
    // SAFETY: the id is valid; the table is static.
    let traits = unsafe { &*sys::ggml_get_type_traits_cpu(ty.raw()) };
    let from_float = traits.from_float.expect("activations are quantized to Q8_0");
    // SAFETY: `values` are whole blocks, `packed` as many of the type.
    unsafe { from_float(values.as_ptr(), packed.as_mut_ptr().cast(), values.len() as i64) };
    Ok(())
}

/// Whether `ggml_quantize_chunk` aborts for the type without an importance matrix.
pub fn requires_importance(ty: Type) -> bool {
    // SAFETY: compares the id with constants.
    unsafe { sys::ggml_quantize_requires_imatrix(ty.raw()) }
}

/// Whether ggml can write the type.
pub fn has_quantizer(ty: Type) -> bool {
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
            | sys::GGML_TYPE_IQ1_S
            | sys::GGML_TYPE_IQ1_M
            | sys::GGML_TYPE_IQ2_XXS
            | sys::GGML_TYPE_IQ2_XS
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
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

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
        let free = |ty: &Type| has_quantizer(*ty) && !requires_importance(*ty);
        let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let square = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>();
        for ty in types.filter(free) {
            let mut back = vec![0.0; values.len()];
            ty.to_f32(&quantize(ty, &values, 256).unwrap(), &mut back);
            let difference: Vec<_> = values.iter().zip(back).map(|(a, b)| a - b).collect();
            // Zeros have 1, signs alone 0.5.
            let error = (square(&difference) / square(&values)).sqrt();
            assert!(error < 0.7, "{ty}: {error}");
        }
    }

    #[test]
    fn the_quick_quantizer_loses_no_more_than_the_other() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mut packed = vec![0; Type::Q8_0.row_bytes(512)];
        quantize_q8_0(&values, 256, &mut packed).unwrap();
        let mut back = vec![0.0; 512];
        Type::Q8_0.to_f32(&packed, &mut back);
        let error = values.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!((1e-3..0.005).contains(&error), "{error}");
        assert!(quantize_q8_0(&values[..100], 100, &mut packed).is_err());
        assert!(quantize_q8_0(&[f32::NAN; 32], 32, &mut packed[..34]).is_err());
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
        assert!(refused(sys::GGML_TYPE_IQ2_S, &[1e20; 256], 256).contains("value 0"));
        assert!(refused(sys::GGML_TYPE_IQ1_S, &[0.0; 256], 256).contains("importance matrix"));
    }

    #[test]
    fn an_importance_matrix_has_a_usable_number_for_each_column() {
        let refused = |importance: &[f32]| {
            let ty = ty(sys::GGML_TYPE_IQ2_XXS);
            let mut packed = vec![0; ty.row_bytes(256)];
            quantize_into(ty, &[0.5; 256], 256, Some(importance), &mut packed).is_err()
        };
        assert!(refused(&[1.0; 255]));
        assert!(refused(&[1.0; 257]));
        assert!(refused(&[f32::NAN; 256]));
        assert!(refused(&[-1.0; 256]));
        assert!(!refused(&[1.0; 256]));
    }

    /// ggml's searches assert on what they find; no values and weights that are let through may
    /// bring one about.
    #[test]
    fn extremes_do_not_end_the_process() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let sizes = [0.0, 1e-45, 1e-30, 1e-12, 1e-4, 1.0, 1e4, 65519.0];
        let weights = [0.0, 1e-45, 1e-30, 1e-6, 1.0, 1e6, MOST_IMPORTANT];
        let types = (0..sys::GGML_TYPE_COUNT).filter_map(Type::weight_from_id);
        for ty in types.filter(|ty| has_quantizer(*ty)) {
            let mut packed = vec![0; ty.row_bytes(256)];
            let check = |packed: &[u8]| {
                let mut back = [0.0; 256];
                ty.to_f32(packed, &mut back);
                assert!(back.iter().all(|value| value.is_finite()), "{ty}");
            };
            for _ in 0..16 {
                let mixed = rng.random_bool(0.5);
                let (size, weight) = (rng.random_range(0..8), rng.random_range(0..7));
                let mut draw = |all: &[f32], chosen: usize| {
                    let at = if mixed { rng.random_range(0..all.len()) } else { chosen };
                    all[at] * rng.random_range(-1.0f32..=1.0)
                };
                let values: Vec<f32> = (0..256).map(|_| draw(&sizes, size)).collect();
                let importance: Vec<f32> = (0..256).map(|_| draw(&weights, weight).abs()).collect();
                quantize_into(ty, &values, 256, Some(&importance), &mut packed).unwrap();
                check(&packed);
                if !requires_importance(ty) {
                    quantize_into(ty, &values, 256, None, &mut packed).unwrap();
                    check(&packed);
                }
            }
        }
    }
}
