//! Writing a file in one or several parts: all of them under their names, or none.
//!
//! Tensors go into parts in order, a new one beginning where the next tensor would exceed the
//! limit, as llama.cpp's converter does it. Part 0 holds the metadata. Each part is written beside
//! its target; [`publish`] gives them their names when all are whole.

use std::path::{Path, PathBuf};

use super::error::{Error, Fault};
use super::layout::Layout;
use super::split::{PartName, SPLIT_KEYS};
use super::writer::{Finished, Writer, check_target};

/// Most parts that `split.count` can say.
const MAX_PARTS: usize = u16::MAX as usize;

/// A file being written in parts.
#[derive(Debug)]
pub struct Parts {
    /// Those not begun yet, last one first.
    waiting: Vec<(PathBuf, Layout)>,
    current: Writer,
    /// Whole, but without their names.
    finished: Vec<Finished>,
    overwrite: bool,
    len: u64,
}

/// The parts' paths and layouts: one, under the target's own name, where nothing is to be split.
///
/// # Errors
/// More parts than the format can count, or a tensor that doesn't fit it.
pub fn split(
    target: &Path,
    layout: &Layout,
    limit: Option<u64>,
) -> Result<Vec<(PathBuf, Layout)>, Error> {
    let mut parts = vec![Layout::new()];
    let mut size = 0u64;
    for tensor in &layout.tensors {
        let bytes = tensor.nbytes().map_err(|fault| fault.of(target))?;
        let full = limit.is_some_and(|limit| size.saturating_add(bytes) > limit);
        if full && parts.last().is_some_and(|part| !part.tensors.is_empty()) {
            parts.push(Layout::new());
            size = 0;
        }
        size = size.saturating_add(bytes);
        parts.last_mut().into_iter().for_each(|part| part.tensors.push(tensor.clone()));
    }
    parts[0].metadata = layout.metadata.clone();
    let count = parts.len();
    if count == 1 {
        return Ok(vec![(target.to_owned(), parts.remove(0))]);
    }
    if count > MAX_PARTS {
        let fault = Fault::Split(format!("{count} parts; at most {MAX_PARTS} are possible"));
        return Err(fault.of(target));
    }
    let stem = target.file_name().unwrap_or_default().to_string_lossy();
    let prefix = stem.strip_suffix(".gguf").unwrap_or(&stem);
    let parent = target.parent().unwrap_or(Path::new(""));
    let name = PartName { parent, prefix, no: 0, count: count as u64 };
    let [no, of, tensors] = SPLIT_KEYS;
    let total = layout.tensors.len() as i32;
    Ok((0u16..)
        .zip(parts)
        .map(|(index, mut part)| {
            part.set(no, index);
            part.set(of, count as u16);
            part.set(tensors, total);
            (name.path(index.into()), part)
        })
        .collect())
}

impl Parts {
    /// Starts the first part, after checking all of them and their targets.
    ///
    /// # Errors
    /// As [`Writer::create`], of any part.
    pub fn create(mut parts: Vec<(PathBuf, Layout)>, overwrite: bool) -> Result<Self, Error> {
        let mut len = 0;
        for (target, layout) in &parts {
            len += layout.encode().map_err(|fault| fault.of(target))?.len;
            check_target(target, overwrite)?;
        }
        parts.reverse();
        let first = parts.pop();
        let (target, layout) = first.ok_or_else(|| Fault::Empty.of(Path::new("")))?;
        let current = Writer::create(&target, &layout, overwrite)?;
        Ok(Self { waiting: parts, current, finished: Vec::new(), overwrite, len })
    }

    /// Bytes of all parts.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Appends bytes of a tensor, as [`Writer::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.current.is_whole()
            && let Some((target, layout)) = self.waiting.pop()
        {
            let next = Writer::create(&target, &layout, self.overwrite)?;
            self.finished.push(std::mem::replace(&mut self.current, next).complete()?);
        }
        self.current.append(name, bytes)
    }

    /// Syncs what is left. The parts have no names yet.
    ///
    /// # Errors
    /// A tensor is not whole, or the disk is full.
    pub fn complete(mut self) -> Result<Vec<Finished>, Error> {
        self.finished.push(self.current.complete()?);
        Ok(self.finished)
    }
}

/// Gives finished files their names, the last one first: the first part of several, which is what
/// is opened, comes when all others are there.
///
/// # Errors
/// One can't be named: those named before it are removed again where they took nobody's place.
pub fn publish(files: Vec<Finished>) -> Result<(), Error> {
    let mut new = Vec::new();
    for file in files.into_iter().rev() {
        let target = file.target().to_owned();
        let is_new = std::fs::symlink_metadata(&target).is_err();
        if let Err(error) = file.publish() {
            for target in &new {
                std::fs::remove_file(target).ok();
            }
            return Err(error);
        }
        if is_new {
            new.push(target);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;

    /// Three parts, each a tensor, that wait for their names.
    fn finished(folder: &Path, overwrite: bool) -> (Vec<PathBuf>, Vec<Finished>) {
        let mut layout = Layout::new();
        for name in ["a", "b", "c"] {
            layout.add_tensor(name, [8, 1, 1, 1], 1, TensorType::F32);
        }
        let parts = split(&folder.join("m.gguf"), &layout, Some(32)).unwrap();
        let paths: Vec<_> = parts.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(paths.len(), 3);
        let mut writer = Parts::create(parts, overwrite).unwrap();
        for name in ["a", "b", "c"] {
            writer.append(name, &[0; 32]).unwrap();
        }
        (paths, writer.complete().unwrap())
    }

    #[test]
    fn a_part_that_cannot_be_named_takes_the_others_along() {
        for overwrite in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (paths, files) = finished(folder.path(), overwrite);
            std::fs::create_dir(&paths[1]).unwrap();
            let error = publish(files).unwrap_err().to_string();
            assert!(error.contains("m-00002-of-00003.gguf: "), "{error}");
            let left: Vec<_> =
                std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
            assert!(left.len() == 1 && left[0].path() == paths[1], "{left:?}");
        }
    }

    #[test]
    fn what_was_there_before_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, _) = finished(folder.path(), true);
        for path in [&paths[0], &paths[2]] {
            std::fs::write(path, "old").unwrap();
        }
        let (_, files) = finished(folder.path(), true);
        std::fs::create_dir(&paths[1]).unwrap();
        publish(files).unwrap_err();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), b"old", "the first comes last");
        assert!(paths[2].is_file());
    }
}
