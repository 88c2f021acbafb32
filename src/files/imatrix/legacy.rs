//! The older form of llama.cpp, `.dat`: little-endian and without magic.
//!
//! ```text
//! i32 entries, then for each: i32 length, name, i32 chunks, i32 values, f32 × values
//! optional: i32 chunks, then optional: i32 length, name of the text
//! ```
//! Values are means times the entry's chunks. Zero chunks count as one, as llama-quantize has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::{Error, Fault};
use super::read::checked;
use super::{Entry, ImportanceMatrix};

/// Bytes of an entry at least: three numbers, a name of one byte, one value.
const SMALLEST_ENTRY: u64 = 3 * 4 + 1 + 4;

pub fn read(path: &Path) -> Result<ImportanceMatrix, Error> {
    Reader::open(path).and_then(|mut reader| reader.matrix()).map_err(|fault| fault.of(path))
}

struct Reader<R> {
    input: R,
    /// Bytes of the file that are not read yet.
    left: u64,
}

impl Reader<BufReader<File>> {
    fn open(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { input: BufReader::new(file), left })
    }
}

impl<R: Read> Reader<R> {
    fn matrix(&mut self) -> Result<ImportanceMatrix, Fault> {
        let n = self.i32("the number of entries")?;
        let n_entries = u64::try_from(n).ok().filter(|&n| n > 0 && n <= self.left / SMALLEST_ENTRY);
        let Some(n_entries) = n_entries else {
            let text = format!("no GGUF file, and no room for {n} entries in {} bytes", self.left);
            return Err(Fault::Other(text));
        };
        let mut entries = BTreeMap::new();
        for index in 0..n_entries {
            let (name, entry) = self.entry(index)?;
            if entries.contains_key(&name) {
                return Err(Fault::Duplicate(name));
            }
            entries.insert(name, entry);
        }
        let chunks = if self.left > 0 { self.i32("the number of chunks")? } else { 0 };
        let chunk_count = u32::try_from(chunks)
            .map_err(|_| Fault::Other(format!("the number of chunks is {chunks}")))?;
        let mut datasets = Vec::new();
        if self.left > 0 {
            let inside = "the name of the text";
            let len = self.length(inside, inside)?;
            let name = self.bytes(len, inside)?;
            datasets.extend((len > 0).then(|| String::from_utf8_lossy(&name).into_owned()));
        }
        match self.left {
            0 => Ok(ImportanceMatrix { datasets, chunk_count, chunk_size: 0, entries }),
            left => Err(Fault::Trailing(left)),
        }
    }

    fn entry(&mut self, index: u64) -> Result<(String, Entry), Fault> {
        let entry = (index + 1).to_string();
        let inside = format!("entry {entry}");
        let len = self.length(&entry, &inside)?;
        let name = String::from_utf8(self.bytes(len, &inside)?)
            .map_err(|_| Fault::entry(&entry, "its name is not UTF-8"))?;
        let inside = format!("entry {name}");
        let chunks = self.i32(&inside)?;
        let count = u64::try_from(chunks)
            .map_err(|_| Fault::entry(&name, format!("its number of chunks is {chunks}")))?;
        let len = self.length(&name, &inside)?;
        if len == 0 {
            return Err(Fault::entry(&name, "has no values"));
        }
        let bytes = self.bytes(4 * len, &inside)?;
        let values = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let in_sum2 = values
            .enumerate()
            .map(|(at, value)| checked(&name, "value", at, value).map(f64::from))
            .collect::<Result<_, _>>()?;
        Ok((name, Entry { in_sum2, counts: vec![count.max(1)] }))
    }

    fn i32(&mut self, inside: &str) -> Result<i32, Fault> {
        let mut bytes = [0; 4];
        self.take(4, inside)?;
        self.input.read_exact(&mut bytes)?;
        Ok(i32::from_le_bytes(bytes))
    }

    fn length(&mut self, entry: &str, inside: &str) -> Result<u64, Fault> {
        let len = self.i32(inside)?;
        u64::try_from(len).map_err(|_| Fault::entry(entry, format!("a length of {len}")))
    }

    /// So many bytes, if the file has them.
    fn bytes(&mut self, len: u64, inside: &str) -> Result<Vec<u8>, Fault> {
        self.take(len, inside)?;
        let mut bytes = vec![0; len as usize];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, needed: u64, inside: &str) -> Result<(), Fault> {
        let left = self.left;
        self.left = left.checked_sub(needed).ok_or_else(|| Fault::Truncated {
            inside: inside.to_owned(),
            needed,
            left,
        })?;
        Ok(())
    }
}
