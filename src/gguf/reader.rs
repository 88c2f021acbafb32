//! An open GGUF file, or all parts of a split one.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::{Error, Fault, Shape};
use super::mapping;
use super::metadata::Metadata;
use super::parse::{Info, parse};
use super::source::Source;
use super::split::Split;
use super::types::TensorType;

/// A tensor's description; [`Gguf::data`] gives its bytes.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// At most 63 bytes, unique over all parts.
    pub name: String,
    /// Elements along each dimension, fastest first; 1 where there is none.
    pub ne: [u64; 4],
    /// How many dimensions the file names.
    pub n_dims: u32,
    /// Element type.
    pub ty: TensorType,
    /// Bytes of data.
    pub nbytes: u64,
    part: usize,
    start: usize,
}

impl Tensor {
    /// Number of elements.
    pub fn n_elements(&self) -> u64 {
        self.ne.iter().product()
    }

    /// The shape, for messages.
    pub fn shape(&self) -> Shape {
        Shape { ne: self.ne, n_dims: self.n_dims }
    }

    /// Which part of a split file holds it, from 0.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Where its data start in that part, in bytes.
    pub fn offset(&self) -> u64 {
        self.start as u64
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.nbytes as usize
    }
}

/// One file of a (split) GGUF.
#[derive(Debug)]
pub(super) struct Part {
    pub path: Arc<Path>,
    pub source: Arc<Source>,
    /// Where the header ends.
    pub header_end: usize,
}

/// An open GGUF file. Every bound was checked when it was opened.
#[derive(Debug)]
pub struct Gguf {
    parts: Vec<Part>,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
}

impl Gguf {
    /// Maps a file and reads its header. For a split file, the first part's path is enough.
    ///
    /// # Errors
    /// The file cannot be read, or breaks a rule of the format: [`Fault`] says which.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::load(path, Source::map)
    }

    /// As [`Gguf::open`], but reads the whole file into memory (aligned to 64 bytes).
    ///
    /// # Errors
    /// As [`Gguf::open`]; or the file does not fit into memory.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::load(path, Source::read)
    }

    /// A file that is part of the program. `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Gguf::open`]; a split file is refused.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        Self::load(Path::new(name), |path| {
            if path == Path::new(name) {
                Ok(Source::Static(bytes))
            } else {
                Err(Fault::Split("has other parts, which are not here".into()).of(path))
            }
        })
    }

    fn load(path: &Path, source: impl Fn(&Path) -> Result<Source, Error>) -> Result<Self, Error> {
        let (part, metadata, infos) = load_part(path, source(path)?)?;
        let split = Split::of(&metadata)?;
        let paths = split.paths(path).map_err(|fault| fault.of(path))?;
        let mut gguf =
            Self { parts: Vec::new(), metadata, tensors: Vec::new(), index: HashMap::new() };
        gguf.add_part(part, infos)?;
        for (index, path) in paths.iter().enumerate().skip(1) {
            let (part, metadata, infos) = load_part(path, source(path)?)?;
            let place = Split::of(&metadata)?;
            place.check_part(index as u64).map_err(|fault| fault.of(path))?;
            gguf.add_part(part, infos)?;
        }
        match split.tensors {
            Some(count) if paths.len() > 1 && count != gguf.tensors.len() as u64 => {
                let found = gguf.tensors.len();
                let fault = Fault::Split(format!("expected {count} tensors in all, found {found}"));
                Err(fault.of(path))
            }
            _ => Ok(gguf),
        }
    }

    fn add_part(&mut self, part: Part, infos: Vec<Info>) -> Result<(), Error> {
        for Info { name, ne, n_dims, ty, start, nbytes } in infos {
            if self.index.insert(name.clone(), self.tensors.len()).is_some() {
                return Err(Fault::DuplicateTensor(name).of(&part.path));
            }
            let (part, nbytes) = (self.parts.len(), nbytes as u64);
            self.tensors.push(Tensor { name, ne, n_dims, ty, nbytes, part, start });
        }
        self.parts.push(part);
        Ok(())
    }

    /// The path it was opened by (of the first part).
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// The paths of all parts.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| &*part.path)
    }

    /// Number of parts; 1 for a file that is not split.
    pub fn n_parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of all parts together.
    pub fn file_len(&self) -> u64 {
        self.parts.iter().map(|part| part.source.len() as u64).sum()
    }

    /// The model's metadata (of the first part).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// A tensor's bytes, in place.
    ///
    /// # Panics
    /// If the tensor is not one of this file's.
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        &self.parts[tensor.part].source[tensor.range()]
    }

    /// Whether a tensor's data start at a multiple of `bytes` in memory (ggml wants 32).
    pub fn is_aligned(&self, tensor: &Tensor, bytes: usize) -> bool {
        self.data(tensor).as_ptr().addr().is_multiple_of(bytes)
    }

    /// Tells the system that a tensor is read row by row, here and there, so that it reads
    /// nothing ahead.
    pub fn advise_random(&self, tensor: &Tensor) {
        self.parts[tensor.part].source.advise_random(tensor.range());
    }

    /// Asks for ranges of a tensor (bytes from its start) to be brought into memory, without
    /// waiting. Sorts them by offset and joins what shares pages; what lies outside is ignored.
    pub fn advise_will_need(&self, tensor: &Tensor, ranges: &[Range<u64>]) {
        let source = &self.parts[tensor.part].source;
        for range in join(ranges, tensor.nbytes) {
            source.advise_will_need(tensor.start + range.start..tensor.start + range.end);
        }
    }

    /// Takes a tensor's pages out of this process's memory. A page that is read again comes back
    /// from the system's cache, or from the file.
    pub fn advise_unneeded(&self, tensor: &Tensor) {
        self.parts[tensor.part].source.advise_unneeded(tensor.range());
    }

    /// Locks the file in memory, but for the tensors named in `skip` (the pages that are wholly
    /// theirs). Gives the number of bytes locked.
    ///
    /// # Errors
    /// The system refuses, usually by its limit on locked memory.
    pub fn lock(&self, skip: &[&str]) -> Result<u64, Error> {
        let mut locked = 0;
        for (index, part) in self.parts.iter().enumerate() {
            let mut skipped: Vec<Range<usize>> = self
                .tensors
                .iter()
                .filter(|tensor| tensor.part == index && skip.contains(&tensor.name.as_str()))
                .map(Tensor::range)
                .collect();
            skipped.sort_by_key(|range| range.start);
            skipped.push(part.source.len()..part.source.len());
            let mut start = 0;
            for gap in skipped {
                let bytes = &part.source[start..gap.start];
                mapping::lock(bytes).map_err(|source| {
                    Fault::Lock { bytes: bytes.len() as u64, source }.of(&part.path)
                })?;
                locked += bytes.len() as u64;
                start = gap.end;
            }
        }
        Ok(locked)
    }

    /// Identifies the model's contents quickly: SHA-256 (hex) over each part's header and 4 KiB
    /// at both ends of every tensor.
    pub fn fingerprint(&self) -> String {
        super::fingerprint::fingerprint(self)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Parses one file.
fn load_part(path: &Path, source: Source) -> Result<(Part, Metadata, Vec<Info>), Error> {
    let header = parse(&source).map_err(|fault| fault.of(path))?;
    let path: Arc<Path> = path.into();
    let source = Arc::new(source);
    let metadata = Metadata::new(path.clone(), source.clone(), header.pairs);
    Ok((Part { path, source, header_end: header.end }, metadata, header.tensors))
}

/// Sorts ranges, cuts them at `len` and joins those that touch the same or neighbouring pages.
fn join(ranges: &[Range<u64>], len: u64) -> Vec<Range<usize>> {
    const PAGE: usize = 4096;
    let mut sorted: Vec<Range<usize>> = ranges
        .iter()
        .map(|range| range.start.min(len) as usize..range.end.min(len) as usize)
        .filter(|range| range.start < range.end)
        .collect();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + PAGE => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_cut_and_joined() {
        let ranges = [20_000..20_010, 0..10, 100..200, 9_000..9_100, 50..60, 29_000..u64::MAX];
        assert_eq!(join(&ranges, 30_000), [0..200, 9_000..9_100, 20_000..20_010, 29_000..30_000]);
        let backwards = Range { start: 5, end: 2 };
        let near = join(&[4000..8000, 9000..9001, backwards], 30_000);
        assert_eq!(near, vec![Range { start: 4000, end: 9001 }]);
        assert!(join(&[70..90, u64::MAX - 1..u64::MAX], 70).is_empty());
    }
}
