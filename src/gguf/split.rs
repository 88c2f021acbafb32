//! Files in several parts: `PREFIX-00001-of-00003.gguf`.
//!
//! Part 0 holds the model's metadata; each part has its own tensors, at offsets of its own.
//! Keys: `split.no` (from 0), `split.count`, `split.tensors.count` (over all parts).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::error::{Error, Fault};
use super::metadata::Metadata;

/// Keys of a split file; they describe the file, not the model.
pub(super) const SPLIT_KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

/// Most parts the name can count.
const MAX_PARTS: u64 = 99_999;

/// What a part says about itself.
pub(super) struct Split {
    pub no: u64,
    pub count: u64,
    /// Tensors over all parts, where it is said.
    pub tensors: Option<u64>,
}

impl Split {
    /// Reads the split keys; a file without them is a split of one part.
    pub fn of(metadata: &Metadata) -> Result<Self, Error> {
        let [no, count, tensors] = SPLIT_KEYS.map(|key| metadata.u64(key));
        Ok(Self { no: no?.unwrap_or(0), count: count?.unwrap_or(1), tensors: tensors? })
    }

    /// The paths of all parts, given the first one's.
    pub fn paths(&self, first: &Path) -> Result<Vec<PathBuf>, Fault> {
        if self.no != 0 {
            let named = PartName::of(first).map(|name| name.path(0));
            return Err(Fault::NotFirstPart { found: self.no + 1, first: named });
        }
        if self.count <= 1 {
            return Ok(vec![first.to_path_buf()]);
        }
        if self.count > MAX_PARTS {
            return Err(Fault::Split(format!("claims {} parts", self.count)));
        }
        match PartName::of(first) {
            Some(name) if name.no == 0 && name.count == self.count => {
                Ok((0..self.count).map(|no| name.path(no)).collect())
            }
            _ => Err(Fault::Split(format!(
                "has {} parts, so its name must end in -00001-of-{:05}.gguf",
                self.count, self.count
            ))),
        }
    }

    /// Checks that another part is the one its place says.
    pub fn check_part(&self, index: u64) -> Result<(), Fault> {
        if self.no != index {
            return Err(Fault::Split(format!(
                "expected split.no {index} (part {}), found {}",
                index + 1,
                self.no
            )));
        }
        Ok(())
    }
}

/// The pieces of `DIR/PREFIX-%05d-of-%05d.gguf`.
pub(super) struct PartName<'a> {
    pub parent: &'a Path,
    pub prefix: &'a str,
    /// From 0.
    pub no: u64,
    pub count: u64,
}

impl<'a> PartName<'a> {
    fn of(path: &'a Path) -> Option<Self> {
        let stem = path.file_name().and_then(OsStr::to_str)?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, no) = rest.rsplit_once('-')?;
        let number = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
        let no: u64 = number(no)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Some(Self { parent, prefix, no: no.checked_sub(1)?, count: number(count)? })
    }

    /// The path of a part, from 0.
    pub fn path(&self, no: u64) -> PathBuf {
        self.parent.join(format!("{}-{:05}-of-{:05}.gguf", self.prefix, no + 1, self.count))
    }
}
