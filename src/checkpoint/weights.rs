//! `*.safetensors`: where each tensor's bytes are, checked against the files; reading in pieces.
//!
//! A file is u64 header length, JSON header, data. The `safetensors` crate checks that tensors
//! cover the data without gap or overlap and that shapes and types give their sizes; here the end
//! is compared with the file's, and shards with their index.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::error::Error;
use super::json::{Document, INDEX_LIMIT};

/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// The crate's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// Element types that weights may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Float {
    F32,
    F16,
    BF16,
}

impl Float {
    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        })
    }
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    dtype: Dtype,
    /// Slowest dimension first, as PyTorch has it.
    pub shape: Vec<u64>,
    file: usize,
    offset: u64,
    nbytes: u64,
}

impl Stored {
    /// How many there are; the header's check has shown that the product fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Where its bytes begin in the file: little-endian, in the order of the shape.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes in the file.
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }
}

/// All tensors of a checkpoint, by name.
#[derive(Debug)]
pub struct Weights {
    dir: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Stored>,
}

impl Weights {
    /// Reads the headers of `model.safetensors` or else of the shards in its index.
    ///
    /// # Errors
    /// No weights; a header that contradicts itself, its file or the index; a missing shard.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        let mut weights = Self { dir: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        if single.is_file() {
            weights.add_file(single)?;
        } else if index.is_file() {
            weights.add_shards(dir, &index)?;
        } else {
            let has_pickle = dir.join("pytorch_model.bin").exists()
                || dir.join("pytorch_model.bin.index.json").exists();
            return Err(Error::NoWeights { dir: dir.to_owned(), has_pickle });
        }
        Ok(weights)
    }

    /// Names and tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<&Stored, Error> {
        self.tensors.get(name).ok_or_else(|| self.missing(name))
    }

    /// The error of a tensor that isn't there.
    pub fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { dir: self.dir.clone(), tensor: name.to_owned() }
    }

    /// The files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The file that holds a tensor.
    pub fn path(&self, stored: &Stored) -> &Path {
        &self.files[stored.file]
    }

    /// The element type.
    ///
    /// # Errors
    /// A type that weights don't have here, with the tensor's name.
    pub fn float(&self, name: &str, stored: &Stored) -> Result<Float, Error> {
        match stored.dtype {
            Dtype::F32 => Ok(Float::F32),
            Dtype::F16 => Ok(Float::F16),
            Dtype::BF16 => Ok(Float::BF16),
            other => Err(Error::ElementType {
                path: self.path(stored).to_owned(),
                tensor: name.to_owned(),
                found: format!("{other:?}"),
            }),
        }
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), Error> {
        let (header, data_start) = read_header(&path)?;
        let file = self.files.len();
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            let stored = Stored {
                dtype: info.dtype,
                shape: info.shape.iter().map(|&n| n as u64).collect(),
                file,
                offset: data_start + start as u64,
                nbytes: (end - start) as u64,
            };
            if let Some(other) = self.tensors.get(&name) {
                let other = self.path(other).to_owned();
                return Err(Error::DuplicateTensor { path, tensor: name, other });
            }
            self.tensors.insert(name, stored);
        }
        self.files.push(path);
        Ok(())
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), Error> {
        let document = Document::read(index, INDEX_LIMIT)?;
        let root = document.root();
        let map = root.section("weight_map")?.ok_or_else(|| root.missing("weight_map"))?;
        let mut of_file = BTreeMap::<&str, Vec<&str>>::new();
        for (tensor, file) in map.entries() {
            let file = file.as_str().filter(|file| is_plain_name(file)).ok_or_else(|| {
                map.unexpected(tensor, "a file name in this directory", super::json::shown(file))
            })?;
            of_file.entry(file).or_default().push(tensor);
        }
        let mut numbers = HashMap::new();
        for &file in of_file.keys() {
            let path = dir.join(file);
            if !path.is_file() {
                return Err(Error::MissingShard { path: index.to_owned(), file: file.to_owned() });
            }
            numbers.insert(file, self.files.len());
            self.add_file(path)?;
        }
        for (file, tensors) in of_file {
            for tensor in tensors {
                if self.tensors.get(tensor).is_none_or(|stored| stored.file != numbers[file]) {
                    return Err(Error::NotInShard {
                        path: dir.join(file),
                        index: index.to_owned(),
                        tensor: tensor.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// A name that stays in its directory.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
}

/// The header of one file, and where its data begin.
fn read_header(path: &Path) -> Result<(Metadata, u64), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let bad = |what: String| Error::Safetensors { path: path.to_owned(), what };
    let mut file = File::open(path).map_err(io)?;
    let file_len = file.metadata().map_err(io)?.len();
    if file_len < LENGTH_BYTES {
        return Err(bad(format!("{file_len} bytes are no safetensors file")));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(io)?;
    let header_len = u64::from_le_bytes(length);
    let left = file_len - LENGTH_BYTES;
    if header_len > left {
        return Err(bad(format!("the header's length, {header_len}, is beyond the file's end")));
    }
    if header_len > HEADER_LIMIT {
        return Err(bad(format!("the header's length, {header_len}, is above {HEADER_LIMIT}")));
    }
    let mut header = Vec::with_capacity(header_len as usize);
    file.take(header_len).read_to_end(&mut header).map_err(io)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| bad(format!("header: {error}")))?;
    let data_len = left - header_len;
    let expected = header.data_len() as u64;
    if data_len != expected {
        return Err(bad(format!("its tensors take {expected} bytes, the file has {data_len}")));
    }
    Ok((header, LENGTH_BYTES + header_len))
}
