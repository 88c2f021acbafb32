//! A file as a plan: metadata and tensors, encoded to a header that gives each tensor its place.
//!
//! Laid out as llama.cpp does: version 3, alignment 32 without a `general.alignment` key, header
//! and every tensor padded with zeros.

use std::collections::HashSet;

use super::error::Fault;
use super::metadata::{Metadata, Value, ValueType};
use super::parse::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_KEY, tensor_bytes, tensor_name};
use super::split::SPLIT_KEYS;
use super::types::TensorType;

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Vec<u8>),
    Array(OwnedArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array to write.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<Vec<u8>>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

macro_rules! from_values {
    ($($from:ty => $variant:ident;)*) => { $(
        impl From<$from> for OwnedValue {
            fn from(value: $from) -> Self {
                Self::$variant(value)
            }
        }
        impl From<Vec<$from>> for OwnedValue {
            fn from(values: Vec<$from>) -> Self {
                Self::Array(OwnedArray::$variant(values))
            }
        }
    )* };
}

from_values! {
    i8 => I8; u16 => U16; i16 => I16; u32 => U32; i32 => I32; f32 => F32; bool => Bool;
    u64 => U64; i64 => I64; f64 => F64;
}

impl From<u8> for OwnedValue {
    fn from(value: u8) -> Self {
        Self::U8(value)
    }
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> Self {
        Self::String(text.as_bytes().to_vec())
    }
}

impl From<String> for OwnedValue {
    fn from(text: String) -> Self {
        Self::String(text.into_bytes())
    }
}

impl From<Vec<String>> for OwnedValue {
    fn from(texts: Vec<String>) -> Self {
        Self::Array(OwnedArray::String(texts.into_iter().map(String::into_bytes).collect()))
    }
}

impl From<Vec<Vec<u8>>> for OwnedValue {
    fn from(texts: Vec<Vec<u8>>) -> Self {
        Self::Array(OwnedArray::String(texts))
    }
}

impl From<OwnedArray> for OwnedValue {
    fn from(array: OwnedArray) -> Self {
        Self::Array(array)
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::U8(x) => Self::U8(x),
            Value::I8(x) => Self::I8(x),
            Value::U16(x) => Self::U16(x),
            Value::I16(x) => Self::I16(x),
            Value::U32(x) => Self::U32(x),
            Value::I32(x) => Self::I32(x),
            Value::F32(x) => Self::F32(x),
            Value::Bool(x) => Self::Bool(x),
            Value::String(x) => Self::String(x.to_vec()),
            Value::Array(array) => Self::Array(array.into()),
            Value::U64(x) => Self::U64(x),
            Value::I64(x) => Self::I64(x),
            Value::F64(x) => Self::F64(x),
        }
    }
}

impl From<super::Array<'_>> for OwnedArray {
    fn from(array: super::Array<'_>) -> Self {
        macro_rules! collect {
            ($variant:ident) => {
                Self::$variant(
                    array
                        .iter()
                        .filter_map(|value| match value {
                            Value::$variant(x) => Some(x.to_owned()),
                            _ => None,
                        })
                        .collect(),
                )
            };
        }
        match array.element_type() {
            ValueType::U8 => collect!(U8),
            ValueType::I8 => collect!(I8),
            ValueType::U16 => collect!(U16),
            ValueType::I16 => collect!(I16),
            ValueType::U32 => collect!(U32),
            ValueType::I32 => collect!(I32),
            ValueType::F32 => collect!(F32),
            ValueType::Bool => collect!(Bool),
            // The reader refuses arrays of arrays.
            ValueType::String | ValueType::Array => collect!(String),
            ValueType::U64 => collect!(U64),
            ValueType::I64 => collect!(I64),
            ValueType::F64 => collect!(F64),
        }
    }
}

/// A tensor to write.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    pub name: String,
    /// Elements along each dimension, fastest first; 1 where there is none.
    pub ne: [u64; 4],
    /// How many dimensions the file names: 1 to 4.
    pub n_dims: u32,
    pub ty: TensorType,
}

impl TensorPlan {
    /// Bytes of its data.
    ///
    /// # Errors
    /// The shape does not fit the type or 64 bits.
    pub fn nbytes(&self) -> Result<u64, Fault> {
        tensor_bytes(&self.name, self.ne, self.n_dims, self.ty)
    }
}

/// What a file is to contain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// Keys and values, in the order they are written.
    pub metadata: Vec<(String, OwnedValue)>,
    /// Tensors, in the order they are written.
    pub tensors: Vec<TensorPlan>,
}

/// A header, and where the data go.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Everything before the tensors' data, padded.
    pub header: Vec<u8>,
    /// Where each tensor's data start, from the start of the file.
    pub offsets: Vec<u64>,
    /// Bytes of each tensor's data.
    pub sizes: Vec<u64>,
    /// Bytes of the whole file.
    pub len: u64,
}

impl Layout {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key: in its place if it is there, else at the end.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) {
        let value = value.into();
        match self.metadata.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_string(), value)),
        }
    }

    /// Sets all keys of another file but those that describe its layout: `general.alignment` and
    /// `split.*`.
    pub fn copy_metadata(&mut self, from: &Metadata) {
        for (key, value) in from.iter() {
            if key != ALIGNMENT_KEY && !SPLIT_KEYS.contains(&key) {
                self.set(key, value);
            }
        }
    }

    /// Adds a tensor at the end. It is checked by [`Layout::encode`].
    pub fn add_tensor(&mut self, name: &str, ne: [u64; 4], n_dims: u32, ty: TensorType) {
        self.tensors.push(TensorPlan { name: name.to_string(), ne, n_dims, ty });
    }

    /// The header and every tensor's place.
    ///
    /// # Errors
    /// A key or a tensor that the format does not allow, or one that occurs twice.
    pub fn encode(&self) -> Result<Encoded, Fault> {
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        self.encode_metadata(&mut header)?;
        let sizes = self.encode_tensors(&mut header)?;
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        let mut len = header.len() as u64;
        let mut offsets = Vec::with_capacity(sizes.len());
        for size in &sizes {
            offsets.push(len);
            // encode_tensors has shown that the sum fits.
            len += size.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        Ok(Encoded { header, offsets, sizes, len })
    }

    fn encode_metadata(&self, header: &mut Vec<u8>) -> Result<(), Fault> {
        let mut seen = HashSet::new();
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            if key.is_empty() || key.len() > MAX_KEY {
                let problem = format!("its name has {} bytes", key.len());
                return Err(Fault::BadKey { index: index as u64, problem });
            }
            if key == ALIGNMENT_KEY {
                return Err(Fault::Alignment(
                    "a plan that sets it; files are written at 32".into(),
                ));
            }
            if !seen.insert(key) {
                return Err(Fault::DuplicateKey(key.clone()));
            }
            put_string(header, key.as_bytes());
            put_value(header, value);
        }
        Ok(())
    }

    /// Writes the infos and gives the tensors' sizes.
    fn encode_tensors(&self, header: &mut Vec<u8>) -> Result<Vec<u64>, Fault> {
        let mut seen = HashSet::new();
        let mut offset = 0u64;
        let mut sizes = Vec::with_capacity(self.tensors.len());
        for (index, plan) in self.tensors.iter().enumerate() {
            tensor_name(plan.name.as_bytes())
                .map_err(|problem| Fault::BadName { index: index as u64, problem })?;
            if !seen.insert(&plan.name) {
                return Err(Fault::DuplicateTensor(plan.name.clone()));
            }
            let n_dims = plan.n_dims as usize;
            if !(1..=4).contains(&n_dims) || plan.ne[n_dims..].iter().any(|&n| n != 1) {
                return Err(Fault::Dimensions { name: plan.name.clone(), n_dims: plan.n_dims });
            }
            let size = plan.nbytes()?;
            put_string(header, plan.name.as_bytes());
            header.extend(plan.n_dims.to_le_bytes());
            for n in &plan.ne[..n_dims] {
                header.extend(n.to_le_bytes());
            }
            header.extend(plan.ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = size
                .checked_next_multiple_of(DEFAULT_ALIGNMENT)
                .and_then(|padded| offset.checked_add(padded))
                .filter(|&end| end < i64::MAX as u64 / 2)
                .ok_or(Fault::Memory(u64::MAX))?;
            sizes.push(size);
        }
        Ok(sizes)
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_value(out: &mut Vec<u8>, value: &OwnedValue) {
    macro_rules! put {
        ($ty:ident, $bytes:expr) => {{
            out.extend((ValueType::$ty as u32).to_le_bytes());
            out.extend($bytes);
        }};
    }
    match value {
        OwnedValue::U8(x) => put!(U8, x.to_le_bytes()),
        OwnedValue::I8(x) => put!(I8, x.to_le_bytes()),
        OwnedValue::U16(x) => put!(U16, x.to_le_bytes()),
        OwnedValue::I16(x) => put!(I16, x.to_le_bytes()),
        OwnedValue::U32(x) => put!(U32, x.to_le_bytes()),
        OwnedValue::I32(x) => put!(I32, x.to_le_bytes()),
        OwnedValue::F32(x) => put!(F32, x.to_le_bytes()),
        OwnedValue::Bool(x) => put!(Bool, [u8::from(*x)]),
        OwnedValue::U64(x) => put!(U64, x.to_le_bytes()),
        OwnedValue::I64(x) => put!(I64, x.to_le_bytes()),
        OwnedValue::F64(x) => put!(F64, x.to_le_bytes()),
        OwnedValue::String(x) => {
            out.extend((ValueType::String as u32).to_le_bytes());
            put_string(out, x);
        }
        OwnedValue::Array(array) => {
            out.extend((ValueType::Array as u32).to_le_bytes());
            put_array(out, array);
        }
    }
}

fn put_array(out: &mut Vec<u8>, array: &OwnedArray) {
    macro_rules! put {
        ($ty:ident, $values:expr) => {{
            put_array_head(out, ValueType::$ty, $values.len());
            for x in $values {
                out.extend(x.to_le_bytes());
            }
        }};
    }
    match array {
        OwnedArray::U8(values) => put!(U8, values),
        OwnedArray::I8(values) => put!(I8, values),
        OwnedArray::U16(values) => put!(U16, values),
        OwnedArray::I16(values) => put!(I16, values),
        OwnedArray::U32(values) => put!(U32, values),
        OwnedArray::I32(values) => put!(I32, values),
        OwnedArray::F32(values) => put!(F32, values),
        OwnedArray::U64(values) => put!(U64, values),
        OwnedArray::I64(values) => put!(I64, values),
        OwnedArray::F64(values) => put!(F64, values),
        OwnedArray::Bool(values) => {
            put_array_head(out, ValueType::Bool, values.len());
            out.extend(values.iter().map(|&x| u8::from(x)));
        }
        OwnedArray::String(values) => {
            put_array_head(out, ValueType::String, values.len());
            for text in values {
                put_string(out, text);
            }
        }
    }
}

fn put_array_head(out: &mut Vec<u8>, element: ValueType, len: usize) {
    out.extend((element as u32).to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
