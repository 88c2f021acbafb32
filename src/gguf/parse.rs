//! The header: magic, version, counts, metadata, tensor infos. Every number is checked here,
//! once, against what the file can hold; later readers only slice.
//!
//! GGUF | version u32 | n_tensors u64 | n_kv u64 | n_kv pairs | n_tensors infos | padding | data
//! offset(i) = Σ_{j<i} pad(bytes(j), alignment), as llama.cpp demands it.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::error::{Fault, Shape};
use super::metadata::{Pair, ValueType};
use super::types::{TensorType, removed_type};

/// Alignment of tensor data where `general.alignment` says nothing, in bytes.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that changes it.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Longest tensor name that llama.cpp stores, in bytes.
pub(super) const MAX_NAME: usize = 63;
/// Longest key the specification allows, in bytes.
pub(super) const MAX_KEY: usize = 65535;

/// Least bytes of a pair: key length, one byte of key, type, one byte of value.
const MIN_PAIR: u64 = 8 + 1 + 4 + 1;
/// Least bytes of a tensor's info: name length, number of dimensions, type, offset.
const MIN_INFO: u64 = 8 + 4 + 4 + 8;

/// What a file's header says, with absolute positions.
pub(super) struct Header {
    pub pairs: Vec<Pair>,
    pub tensors: Vec<Info>,
    /// Where the tensor infos end.
    pub end: usize,
}

/// A tensor of one file. `start + nbytes` lies within the file.
pub(super) struct Info {
    pub name: String,
    pub ne: [u64; 4],
    pub n_dims: u32,
    pub ty: TensorType,
    pub start: usize,
    pub nbytes: usize,
}

/// Reads and checks a whole header.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Fault> {
    let mut parser = Parser { cursor: Cursor::new(bytes), len: bytes.len() as u64 };
    parser.magic(bytes)?;
    let n_tensors = parser.u64("the tensor count")?;
    let n_pairs = parser.u64("the metadata count")?;
    let left = parser.cursor.left();
    if n_tensors > left / MIN_INFO {
        return Err(Fault::Count { what: "tensors".into(), count: n_tensors, left });
    }
    if n_pairs > left / MIN_PAIR {
        return Err(Fault::Count { what: "metadata keys".into(), count: n_pairs, left });
    }
    let pairs = parser.pairs(n_pairs)?;
    let alignment = alignment(bytes, &pairs)?;
    let infos = parser.infos(n_tensors)?;
    let end = parser.cursor.position();
    let tensors = place(infos, end as u64, alignment, bytes.len() as u64)?;
    Ok(Header { pairs, tensors, end })
}

/// An info as it stands in the file, not yet placed.
struct RawInfo {
    name: String,
    ne: [u64; 4],
    n_dims: u32,
    ty: TensorType,
    nbytes: u64,
    offset: u64,
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    len: u64,
}

impl<'a> Parser<'a> {
    /// The fault of a file that ends before what is being read does.
    fn truncated(&self, inside: impl Into<String>) -> Fault {
        Fault::Truncated { inside: inside.into(), at: self.len, len: self.len }
    }

    fn u32(&mut self, inside: &str) -> Result<u32, Fault> {
        self.cursor.u32().ok_or_else(|| self.truncated(inside))
    }

    fn u64(&mut self, inside: &str) -> Result<u64, Fault> {
        self.cursor.u64().ok_or_else(|| self.truncated(inside))
    }

    fn magic(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        const MAGIC: &[u8] = b"GGUF";
        if bytes.is_empty() {
            return Err(Fault::Empty);
        }
        if !bytes.starts_with(MAGIC) {
            if MAGIC.starts_with(bytes) {
                return Err(self.truncated("the magic"));
            }
            return Err(Fault::NotGguf { start: start_of(bytes) });
        }
        self.cursor.take(MAGIC.len() as u64);
        match self.u32("the version")? {
            2 | 3 => Ok(()),
            1 => Err(Fault::Version1),
            version if version != 0 && version & 0xffff == 0 => Err(Fault::BigEndian),
            version => Err(Fault::Version(version)),
        }
    }

    fn pairs(&mut self, count: u64) -> Result<Vec<Pair>, Fault> {
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        for index in 0..count {
            let key = self.key(index)?;
            if !seen.insert(key) {
                return Err(Fault::DuplicateKey(key.to_string()));
            }
            pairs.push(self.value(key)?);
        }
        Ok(pairs)
    }

    fn key(&mut self, index: u64) -> Result<&'a str, Fault> {
        let bad = |problem: String| Fault::BadKey { index, problem };
        let key =
            self.cursor.string().ok_or_else(|| self.truncated(format!("metadata key {index}")))?;
        if key.is_empty() {
            return Err(bad("its name is empty".into()));
        }
        if key.len() > MAX_KEY {
            return Err(bad(format!("its name has {} bytes; {MAX_KEY} are allowed", key.len())));
        }
        std::str::from_utf8(key).map_err(|_| bad("its name is not UTF-8".into()))
    }

    fn value(&mut self, key: &str) -> Result<Pair, Fault> {
        let inside = format!("the value of {key}");
        let ty = self.value_type(key, &inside)?;
        let array = match ty {
            ValueType::Array => {
                let element = self.value_type(key, &inside)?;
                if element == ValueType::Array {
                    return Err(Fault::NestedArray(key.to_string()));
                }
                Some((element, self.u64(&inside)?))
            }
            _ => None,
        };
        let (element, count) = array.unwrap_or((ty, 1));
        let start = self.cursor.position();
        self.skip(element, count, key, &inside)?;
        let array = match array {
            Some((element, count)) => {
                Some((element, usize::try_from(count).map_err(|_| self.truncated(inside))?))
            }
            None => None,
        };
        Ok(Pair { key: key.into(), ty, array, start, end: self.cursor.position() })
    }

    fn value_type(&mut self, key: &str, inside: &str) -> Result<ValueType, Fault> {
        let id = self.u32(inside)?;
        ValueType::from_id(id).ok_or_else(|| Fault::ValueType { key: key.to_string(), id })
    }

    /// Steps over `count` values of a type, so that all of them are known to be there.
    fn skip(
        &mut self,
        element: ValueType,
        count: u64,
        key: &str,
        inside: &str,
    ) -> Result<(), Fault> {
        let left = self.cursor.left();
        let least = element.size().unwrap_or(8);
        let Some(bytes) = count.checked_mul(least).filter(|&bytes| bytes <= left) else {
            if count <= 1 {
                return Err(self.truncated(inside));
            }
            return Err(Fault::Count { what: format!("elements of {key}"), count, left });
        };
        if element != ValueType::String {
            self.cursor.take(bytes);
            return Ok(());
        }
        for index in 0..count {
            if self.cursor.string().is_none() {
                let inside = if count == 1 { inside.into() } else { format!("{inside}[{index}]") };
                return Err(self.truncated(inside));
            }
        }
        Ok(())
    }

    fn infos(&mut self, count: u64) -> Result<Vec<RawInfo>, Fault> {
        let mut infos = Vec::new();
        let mut seen = HashSet::new();
        for index in 0..count {
            let info = self.info(index)?;
            if !seen.insert(info.name.clone()) {
                return Err(Fault::DuplicateTensor(info.name));
            }
            infos.push(info);
        }
        Ok(infos)
    }

    fn info(&mut self, index: u64) -> Result<RawInfo, Fault> {
        let name = self
            .cursor
            .string()
            .ok_or_else(|| self.truncated(format!("the name of tensor {index}")))?;
        let name = tensor_name(name).map_err(|problem| Fault::BadName { index, problem })?;
        let inside = format!("the description of tensor {name}");
        let n_dims = self.u32(&inside)?;
        let mut ne = [1; 4];
        let dims = ne
            .get_mut(..n_dims as usize)
            .ok_or_else(|| Fault::Dimensions { name: name.clone(), n_dims })?;
        for n in dims {
            *n = self.u64(&inside)?;
        }
        let id = self.u32(&inside)?;
        let offset = self.u64(&inside)?;
        let ty = TensorType::from_id(id).ok_or_else(|| match removed_type(id) {
            Some(was) => Fault::RemovedType { name: name.clone(), id, was },
            None => Fault::TensorType { name: name.clone(), id },
        })?;
        let nbytes = tensor_bytes(&name, ne, n_dims, ty)?;
        Ok(RawInfo { name, ne, n_dims, ty, nbytes, offset })
    }
}

/// Checks a tensor's name: UTF-8, 1 to 63 bytes.
pub(super) fn tensor_name(name: &[u8]) -> Result<String, String> {
    if name.is_empty() {
        return Err("its name is empty".into());
    }
    if name.len() > MAX_NAME {
        return Err(format!("its name has {} bytes; {MAX_NAME} are allowed", name.len()));
    }
    match std::str::from_utf8(name) {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err("its name is not UTF-8".into()),
    }
}

/// Bytes of a tensor: ne1·ne2·ne3 rows. Refuses empty dimensions, products past i64 and rows
/// that do not fill whole blocks.
pub(super) fn tensor_bytes(
    name: &str,
    ne: [u64; 4],
    n_dims: u32,
    ty: TensorType,
) -> Result<u64, Fault> {
    let bad = |problem| {
        let shape = Shape { ne, n_dims };
        Fault::Shape { name: name.to_string(), shape, problem }
    };
    if ne.contains(&0) {
        return Err(bad("has an empty dimension"));
    }
    ne.iter()
        .try_fold(1i64, |product, &n| product.checked_mul(i64::try_from(n).ok()?))
        .ok_or_else(|| bad("is too large"))?;
    if !ne[0].is_multiple_of(ty.block_len()) {
        let block = ty.block_len();
        return Err(Fault::Block { name: name.to_string(), ne0: ne[0], ty, block });
    }
    ty.row_bytes(ne[0])
        .and_then(|row| row.checked_mul(ne[1] * ne[2] * ne[3]))
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| bad("is too large"))
}

/// The file's alignment: 32, or what `general.alignment` (u32, a power of two) says.
fn alignment(bytes: &[u8], pairs: &[Pair]) -> Result<u64, Fault> {
    let Some(pair) = pairs.iter().find(|pair| &*pair.key == ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    if pair.ty != ValueType::U32 {
        return Err(Fault::Alignment(format!("a value of type {}", pair.ty.name())));
    }
    let value = Cursor::new(&bytes[pair.start..pair.end]).u32().unwrap_or_default();
    if !value.is_power_of_two() {
        return Err(Fault::Alignment(value.to_string()));
    }
    Ok(value.into())
}

/// Checks that the tensors follow each other as llama.cpp demands and end within the file, and
/// makes their positions absolute. Padding after the last tensor may be absent.
fn place(infos: Vec<RawInfo>, end: u64, alignment: u64, len: u64) -> Result<Vec<Info>, Fault> {
    let data = u128::from(end.next_multiple_of(alignment));
    let mut expected = 0u64;
    let mut tensors = Vec::with_capacity(infos.len());
    for info in infos {
        let RawInfo { name, ne, n_dims, ty, nbytes, offset } = info;
        if offset < expected {
            return Err(Fault::Overlap { name, found: offset, expected });
        }
        if offset > expected {
            return Err(Fault::Gap { name, found: offset, expected });
        }
        let start = data + u128::from(offset);
        let past = start + u128::from(nbytes);
        let (Ok(start), Ok(nbytes)) = (usize::try_from(start), usize::try_from(nbytes)) else {
            return Err(Fault::OutOfFile { name, end: past, len });
        };
        if past > u128::from(len) {
            return Err(Fault::OutOfFile { name, end: past, len });
        }
        // Within the file, so neither the sum nor the padding can overflow.
        expected = offset + (nbytes as u64).next_multiple_of(alignment);
        tensors.push(Info { name, ne, n_dims, ty, start, nbytes });
    }
    Ok(tensors)
}

/// The first bytes of a file for a message, and what they are where that is known.
fn start_of(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    let known = [
        (&b"version https://git-lfs"[..], "a Git LFS pointer: the file itself was not fetched"),
        (b"PK\x03\x04", "a zip archive, or a PyTorch checkpoint"),
        (b"\x1f\x8b", "gzip"),
        (b"lmgg", "the oldest ggml format"),
        (b"tjgg", "an old ggml format"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
    ];
    let shown = match std::str::from_utf8(start) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("{text:?}")
        }
        _ => {
            let hex: Vec<String> =
                start[..start.len().min(8)].iter().map(|b| format!("{b:02x}")).collect();
            hex.join(" ")
        }
    };
    if let Some((_, what)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return format!("{shown} ({what})");
    }
    if bytes.len() > 9 && bytes[8] == b'{' {
        return format!("{shown} (a safetensors file?)");
    }
    shown
}
