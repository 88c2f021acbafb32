//! Writes the GGUF form as llama-imatrix lays it out: keys first, then for each weight in the
//! order of names its sums and its counts; trailing dimensions of 1 are left out.

use std::path::Path;

use super::error::{Error, Fault};
use super::read::{
    CHUNK_COUNT_KEY, CHUNK_SIZE_KEY, COUNTS, DATASETS_KEY, SUMS, TYPE, TYPE_KEY, checked,
};
use super::{Entry, ImportanceMatrix};
use crate::gguf::{Layout, TensorPlan, TensorType, Writer};

impl ImportanceMatrix {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The target exists and `overwrite` is false; writing fails; a sum is not finite as f32; a
    /// name is longer than GGUF allows.
    pub fn write(&self, path: &Path, overwrite: bool) -> Result<(), Error> {
        let layout = Layout {
            metadata: vec![
                (TYPE_KEY.to_owned(), TYPE.into()),
                (DATASETS_KEY.to_owned(), self.datasets.clone().into()),
                (CHUNK_COUNT_KEY.to_owned(), self.chunk_count.into()),
                (CHUNK_SIZE_KEY.to_owned(), self.chunk_size.into()),
            ],
            tensors: self.entries.iter().flat_map(|(name, entry)| plans(name, entry)).collect(),
        };
        let mut writer = Writer::create(path, &layout, overwrite)?;
        for (name, entry) in &self.entries {
            let sums = encode(name, SUMS, entry.in_sum2.iter().map(|&sum| sum as f32));
            let counts = encode(name, COUNTS, entry.counts.iter().map(|&count| count as f32));
            for (suffix, bytes) in [(SUMS, sums), (COUNTS, counts)] {
                let bytes = bytes.map_err(|fault| fault.of(path))?;
                writer.append(&format!("{name}{suffix}"), &bytes)?;
            }
        }
        Ok(writer.finish()?)
    }
}

fn plans(name: &str, entry: &Entry) -> [TensorPlan; 2] {
    let matrices = entry.counts.len();
    let plan = |suffix: &str, columns: usize| TensorPlan {
        name: format!("{name}{suffix}"),
        ne: [columns as u64, matrices as u64, 1, 1],
        n_dims: if matrices > 1 { 2 } else { 1 },
        ty: TensorType::F32,
    };
    [plan(SUMS, entry.in_sum2.len() / matrices), plan(COUNTS, 1)]
}

fn encode(name: &str, suffix: &str, values: impl Iterator<Item = f32>) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    for (at, value) in values.enumerate() {
        bytes.extend(checked(name, suffix, at, value)?.to_le_bytes());
    }
    Ok(bytes)
}
