//! Element types as the pinned ggml knows them, and their rows as f32.

use std::ffi::CStr;
use std::fmt;

use super::sys;

/// The type of a tensor's elements: a checked `ggml_type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Type(u32);

impl Type {
    pub const F32: Self = Self(sys::GGML_TYPE_F32);
    pub const F16: Self = Self(sys::GGML_TYPE_F16);
    pub const BF16: Self = Self(sys::GGML_TYPE_BF16);
    pub const Q8_0: Self = Self(sys::GGML_TYPE_Q8_0);
    pub const I8: Self = Self(sys::GGML_TYPE_I8);
    pub const I32: Self = Self(sys::GGML_TYPE_I32);
    pub const I64: Self = Self(sys::GGML_TYPE_I64);

    /// The type with a file's id, if the pinned ggml has it and can turn it into f32 and use it
    /// as a weight of a product.
    pub fn weight_from_id(id: u32) -> Option<Self> {
        if id >= sys::GGML_TYPE_COUNT {
            return None;
        }
        if matches!(id, sys::GGML_TYPE_Q8_1 | sys::GGML_TYPE_Q8_K) {
            return None;
        }
        // SAFETY: both tables have GGML_TYPE_COUNT entries and id is below it; the pointers are
        // to static data.
        let (traits, cpu) =
            unsafe { (&*sys::ggml_get_type_traits(id), &*sys::ggml_get_type_traits_cpu(id)) };
        let readable = id == sys::GGML_TYPE_F32 || traits.to_float.is_some();
        (traits.blck_size > 0 && readable && cpu.vec_dot.is_some()).then_some(Self(id))
    }

    pub(super) fn raw(self) -> u32 {
        self.0
    }

    pub(super) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The id, the same in ggml and in a GGUF file.
    pub fn id(self) -> u32 {
        self.0
    }

    pub fn name(self) -> &'static str {
        // SAFETY: a valid type id gives a static C string of ASCII.
        let name = unsafe { CStr::from_ptr(sys::ggml_type_name(self.0)) };
        name.to_str().unwrap_or("?")
    }

    /// Elements a block holds; rows are whole blocks.
    pub fn block_len(self) -> usize {
        // SAFETY: reads a static table at a valid id.
        (unsafe { sys::ggml_blck_size(self.0) }) as usize
    }

    /// Bytes of a row of `len` elements; `len` is a multiple of the block length.
    pub fn row_bytes(self, len: usize) -> usize {
        assert!(len.is_multiple_of(self.block_len()), "a row of {} is whole blocks", self.name());
        // SAFETY: reads a static table at a valid id.
        unsafe { sys::ggml_row_size(self.0, len as i64) }
    }

    pub fn is_quantized(self) -> bool {
        // SAFETY: reads a static table at a valid id.
        unsafe { sys::ggml_is_quantized(self.0) }
    }

    /// Turns packed elements into f32: `out.len()` of them, whole blocks.
    pub fn to_f32(self, packed: &[u8], out: &mut [f32]) {
        assert_eq!(packed.len(), self.row_bytes(out.len()), "bytes of {}", self.name());
        if self == Self::F32 {
            for (value, bytes) in out.iter_mut().zip(packed.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            return;
        }
        // SAFETY: the id is valid; the table is static.
        let traits = unsafe { &*sys::ggml_get_type_traits(self.0) };
        let to_float = traits.to_float.expect("a weight type can be read");
        // SAFETY: the lengths were compared above, and ggml's readers take unaligned blocks
        // (their structs have an alignment of at most 2, which GGUF's layout keeps).
        unsafe { to_float(packed.as_ptr().cast(), out.as_mut_ptr(), out.len() as i64) };
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
