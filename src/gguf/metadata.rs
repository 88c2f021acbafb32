//! Keys and values. Keys are copied at open; values stay in the file's bytes and are decoded
//! when they are asked for. The typed readers take every numeric type whose value fits, since
//! writers differ (`shared_kv_layers` was written as f32).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Cursor;
use super::error::{Error, Fault};
use super::source::Source;

/// The type of a value, or of an array's elements. The discriminant is the id in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    pub(super) fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        const BY_ID: [ValueType; 13] =
            [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        BY_ID.get(id as usize).copied()
    }

    /// Bytes of a value; `None` for strings and arrays, whose size varies.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// The name used in messages and by `inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// A value, in place.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Any bytes; only token pieces may be something else than UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The number as an integer, if it is one: any integer type, or a float without fraction.
    pub fn as_integer(&self) -> Option<i128> {
        let float = |x: f64| (x.fract() == 0.0 && x.abs() < 2f64.powi(64)).then_some(x as i128);
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::I8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::I16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::I32(x) => Some(x.into()),
            Self::U64(x) => Some(x.into()),
            Self::I64(x) => Some(x.into()),
            Self::F32(x) => float(x.into()),
            Self::F64(x) => float(x),
            Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// The number as a float: any numeric type.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => self.as_integer().map(|x| x as f64),
        }
    }

    /// The truth value: a bool, or the integers 0 and 1.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(x) => Some(x),
            _ => match self.as_integer() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        }
    }

    /// The value for a message: short, with its type where that matters.
    fn describe(&self) -> String {
        let ty = self.value_type().name();
        match self {
            Self::Array(a) => format!("an array of {} {}", a.len(), a.element_type().name()),
            Self::String(s) if s.len() <= 40 => {
                format!("string {:?}", String::from_utf8_lossy(s))
            }
            Self::String(s) => format!("a string of {} bytes", s.len()),
            Self::Bool(x) => format!("{x} ({ty})"),
            Self::F32(x) => format!("{x} ({ty})"),
            Self::F64(x) => format!("{x} ({ty})"),
            _ => format!("{} ({ty})", self.as_integer().unwrap_or_default()),
        }
    }

    /// Decodes the scalar or string at the cursor.
    fn decode(ty: ValueType, cursor: &mut Cursor<'a>) -> Option<Self> {
        if ty == ValueType::String {
            return cursor.string().map(Self::String);
        }
        let bytes = cursor.take(ty.size()?)?;
        Some(match ty {
            ValueType::U8 => Self::U8(bytes[0]),
            ValueType::I8 => Self::I8(bytes[0] as i8),
            ValueType::Bool => Self::Bool(bytes[0] != 0),
            ValueType::U16 => Self::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::String | ValueType::Array => return None,
        })
    }
}

/// An array in place: elements of one scalar type, or strings.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The elements' type; never [`ValueType::Array`].
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order, decoded one at a time, without allocation.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let element = self.element;
        let mut cursor = Cursor::new(self.bytes);
        (0..self.len).map_while(move |_| Value::decode(element, &mut cursor))
    }

    /// Element `i`. Takes time proportional to `i` in arrays of strings.
    pub fn get(&self, i: usize) -> Option<Value<'a>> {
        match self.element.size() {
            Some(size) if i < self.len => {
                let start = i.checked_mul(size as usize)?;
                Value::decode(self.element, &mut Cursor::new(self.bytes.get(start..)?))
            }
            Some(_) => None,
            None => self.iter().nth(i),
        }
    }

    /// The strings of an array of strings, without allocation; nothing for other arrays.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().map_while(|value| match value {
            Value::String(s) => Some(s),
            _ => None,
        })
    }

    /// All elements as f32, if they are numbers.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        self.iter().map(|v| v.as_float().map(|x| x as f32)).collect()
    }

    /// All elements as i32, if they are integers in its range.
    pub fn i32s(&self) -> Option<Vec<i32>> {
        self.integers()
    }

    /// All elements as u32, if they are integers in its range.
    pub fn u32s(&self) -> Option<Vec<u32>> {
        self.integers()
    }

    /// All elements as truth values, if they are bools or the integers 0 and 1.
    pub fn bools(&self) -> Option<Vec<bool>> {
        self.iter().map(|v| v.as_bool()).collect()
    }

    fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        self.iter().map(|v| v.as_integer().and_then(|x| T::try_from(x).ok())).collect()
    }
}

/// Where a value lies in the file.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub key: Box<str>,
    pub ty: ValueType,
    /// Element type and count, for arrays.
    pub array: Option<(ValueType, usize)>,
    /// The value's bytes (the elements' for arrays).
    pub start: usize,
    pub end: usize,
}

/// The metadata of a file: keys in file order, and their values.
#[derive(Debug)]
pub struct Metadata {
    file: Arc<Path>,
    source: Arc<Source>,
    pairs: Vec<Pair>,
    index: HashMap<Box<str>, usize>,
}

impl Metadata {
    /// `pairs` have unique keys and lie within `source`.
    pub(super) fn new(file: Arc<Path>, source: Arc<Source>, pairs: Vec<Pair>) -> Self {
        let index = pairs.iter().enumerate().map(|(i, pair)| (pair.key.clone(), i)).collect();
        Self { file, source, pairs, index }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.value(&self.pairs[*self.index.get(key)?])
    }

    /// All keys and values, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.pairs.iter().filter_map(|pair| Some((&*pair.key, self.value(pair)?)))
    }

    fn value(&self, pair: &Pair) -> Option<Value<'_>> {
        let bytes = self.source.get(pair.start..pair.end)?;
        match pair.array {
            Some((element, len)) => Some(Value::Array(Array { element, len, bytes })),
            None => Value::decode(pair.ty, &mut Cursor::new(bytes)),
        }
    }

    /// An unsigned number: any integer type, or a float without fraction.
    ///
    /// # Errors
    /// The key holds something else, or a number outside of u32.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.typed(key, "a number of 32 bits without sign", |value| {
            value.as_integer().and_then(|x| u32::try_from(x).ok())
        })
    }

    /// As [`Metadata::u32`], for 64 bits.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a number of 64 bits without sign", |value| {
            value.as_integer().and_then(|x| u64::try_from(x).ok())
        })
    }

    /// A float: any numeric type. Infinities and NaN pass as they are.
    ///
    /// # Errors
    /// The key holds something that is not a number.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a number", |value| value.as_float().map(|x| x as f32))
    }

    /// A truth value: a bool, or the integers 0 and 1.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "a bool", |value| value.as_bool())
    }

    /// A string.
    ///
    /// # Errors
    /// The key holds something else, or bytes that are not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string in UTF-8", |value| match value {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// An array, in place.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>, Error> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings, in place.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn string_array(&self, key: &str) -> Result<Option<Array<'_>>, Error> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(array) if array.element_type() == ValueType::String => Some(array),
            _ => None,
        })
    }

    /// An array of unsigned numbers: integers of any type, or floats without fraction.
    ///
    /// # Errors
    /// The key holds something else, or a number outside of u32.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        self.typed_array(key, "an array of unsigned numbers", |array| array.u32s())
    }

    /// An array of signed numbers: integers of any type, or floats without fraction.
    ///
    /// # Errors
    /// The key holds something else, or a number outside of i32.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        self.typed_array(key, "an array of integers", |array| array.i32s())
    }

    /// An array of numbers as f32.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.typed_array(key, "an array of numbers", |array| array.f32s())
    }

    /// An array of bools, or of the integers 0 and 1.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn bool_array(&self, key: &str) -> Result<Option<Vec<bool>>, Error> {
        self.typed_array(key, "an array of bools", |array| array.bools())
    }

    fn typed_array<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Array<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.typed(key, expected, |value| match value {
            Value::Array(array) => read(array),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(found) => Ok(Some(found)),
            None => Err(Fault::Value {
                key: key.to_string(),
                expected: expected.to_string(),
                found: value.describe(),
            }
            .of(&self.file)),
        }
    }
}
