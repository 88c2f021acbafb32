//! The GGUF form: for each weight NAME the F32 tensors `NAME.in_sum2` `[columns, matrices]` and
//! `NAME.counts` `[1, matrices]`; others (`NAME.in_sum`) are passed over.

use std::collections::BTreeMap;

use super::error::{Error, Fault};
use super::{Entry, ImportanceMatrix};
use crate::gguf::{Gguf, Tensor, TensorType};

pub const TYPE_KEY: &str = "general.type";
pub const TYPE: &str = "imatrix";
pub const DATASETS_KEY: &str = "imatrix.datasets";
pub const CHUNK_COUNT_KEY: &str = "imatrix.chunk_count";
pub const CHUNK_SIZE_KEY: &str = "imatrix.chunk_size";
pub const SUMS: &str = ".in_sum2";
pub const COUNTS: &str = ".counts";

pub fn read(gguf: &Gguf) -> Result<ImportanceMatrix, Error> {
    let metadata = gguf.metadata();
    let found = metadata.str(TYPE_KEY)?;
    if let Some(other) = found.filter(|&found| found != TYPE) {
        let text = format!("{TYPE_KEY} is {other:?}");
        return Err(Fault::Other(text).of(gguf.path()));
    }
    let datasets = metadata.string_array(DATASETS_KEY)?.map(|array| {
        array.strings().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    });
    let entries = entries(gguf).map_err(|fault| fault.of(gguf.path()))?;
    Ok(ImportanceMatrix {
        datasets: datasets.unwrap_or_default(),
        chunk_count: metadata.u32(CHUNK_COUNT_KEY)?.unwrap_or(0),
        chunk_size: metadata.u32(CHUNK_SIZE_KEY)?.unwrap_or(0),
        entries,
    })
}

fn entries(gguf: &Gguf) -> Result<BTreeMap<String, Entry>, Fault> {
    let mut entries = BTreeMap::new();
    for tensor in gguf.tensors() {
        if let Some(name) = tensor.name.strip_suffix(SUMS) {
            let counts = gguf
                .tensor(&format!("{name}{COUNTS}"))
                .ok_or_else(|| Fault::entry(name, format!("has {SUMS}, but no {COUNTS}")))?;
            entries.insert(name.to_owned(), entry(gguf, name, tensor, counts)?);
        } else if let Some(name) = tensor.name.strip_suffix(COUNTS)
            && gguf.tensor(&format!("{name}{SUMS}")).is_none()
        {
            return Err(Fault::entry(name, format!("has {COUNTS}, but no {SUMS}")));
        }
    }
    if entries.is_empty() {
        return Err(Fault::Other(format!("no tensor is named …{SUMS}")));
    }
    Ok(entries)
}

fn entry(gguf: &Gguf, name: &str, sums: &Tensor, counts: &Tensor) -> Result<Entry, Fault> {
    let (columns, matrices) = (sums.ne[0], sums.n_elements() / sums.ne[0]);
    if counts.n_elements() != matrices {
        let text = format!("{columns} x {matrices} sums, but {} counts", counts.n_elements());
        return Err(Fault::entry(name, text));
    }
    let in_sum2 = values(gguf, name, sums)?.map(|sum| sum.map(f64::from)).collect::<Result<_, _>>();
    let counts = values(gguf, name, counts)?
        .map(|count| count.map(|count| count.round() as u64))
        .collect::<Result<_, _>>();
    Ok(Entry { in_sum2: in_sum2?, counts: counts? })
}

/// A tensor's values: F32, finite and not negative.
fn values<'a>(
    gguf: &'a Gguf,
    name: &'a str,
    tensor: &'a Tensor,
) -> Result<impl Iterator<Item = Result<f32, Fault>> + use<'a>, Fault> {
    if tensor.ty != TensorType::F32 {
        let suffix = &tensor.name[name.len()..];
        return Err(Fault::entry(name, format!("{suffix} is {}, expected F32", tensor.ty)));
    }
    let values = gguf.data(tensor).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    Ok(values
        .enumerate()
        .map(move |(at, value)| checked(name, &tensor.name[name.len()..], at, value)))
}

/// A sum or count that can be one.
pub fn checked(name: &str, what: &str, at: usize, value: f32) -> Result<f32, Fault> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Fault::entry(name, format!("{what}[{at}] is {value}")))
}
