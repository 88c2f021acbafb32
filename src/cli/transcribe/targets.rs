//! The files that a sound's words are written to.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::format::{Format, whole};
use super::transcript::Transcript;
use crate::cli::output::Hint;
use crate::cli::sidecar::write_whole;

/// What happens with files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Skip,
    Overwrite,
}

/// Where and how words are written.
#[derive(Clone, Debug)]
pub struct Place {
    /// In the order of the command line; empty for none.
    pub formats: Vec<Format>,
    /// Beside the input without.
    pub folder: Option<PathBuf>,
    pub existing: Existing,
}

impl Place {
    /// `talk.wav` gives `talk.srt`; the end of a transcript that is not whole is `.partial.srt`.
    fn path(&self, input: &Path, format: Format, partial: bool) -> PathBuf {
        let stdin = Path::new("stdin");
        let input = if input.as_os_str() == "-" { stdin } else { input };
        let ending = format!("{}{}", if partial { "partial." } else { "" }, format.ending());
        let path = input.with_extension(ending);
        match &self.folder {
            Some(folder) => folder.join(path.file_name().unwrap_or_default()),
            None => path,
        }
    }

    /// Refuses two inputs whose words would be one file, and words that would replace an input.
    ///
    /// # Errors
    /// As said, with the names.
    pub fn check<'a>(
        &self,
        inputs: impl Iterator<Item = &'a PathBuf> + Clone,
    ) -> anyhow::Result<()> {
        let named: HashSet<PathBuf> = inputs.clone().map(|input| one_name(input)).collect();
        let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
        for input in inputs {
            for &format in &self.formats {
                let path = self.path(input, format, false);
                let place = one_name(&path);
                if named.contains(&place) {
                    return Err(anyhow!(
                        "{}: is an input, and the words of {} would go there",
                        path.display(),
                        input.display()
                    ));
                }
                if let Some(other) = taken.insert(place, input)
                    && one_name(other) != one_name(input)
                {
                    return Err(anyhow!(
                        "{}: the words of both {} and {} would go there",
                        path.display(),
                        other.display(),
                        input.display()
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is to be written for an input; `None`: all of it is there, and the input is left out.
    ///
    /// # Errors
    /// A file is there, and may be neither overwritten nor skipped.
    pub fn wanted(&self, input: &Path) -> anyhow::Result<Option<Vec<Format>>> {
        if self.existing == Existing::Overwrite || self.formats.is_empty() {
            return Ok(Some(self.formats.clone()));
        }
        let there = |format: &Format| self.path(input, *format, false).exists();
        if self.existing == Existing::Refuse {
            return match self.formats.iter().find(|format| there(format)) {
                Some(format) => {
                    let path = self.path(input, *format, false);
                    Err(anyhow!("{}: exists already", path.display()))
                        .hint(|| "--force overwrites, --skip-existing leaves it".to_owned())
                }
                None => Ok(Some(self.formats.clone())),
            };
        }
        let missing: Vec<_> =
            self.formats.iter().copied().filter(|format| !there(format)).collect();
        Ok((!missing.is_empty()).then_some(missing))
    }

    /// Writes a transcript in these forms, and gives the files' names.
    ///
    /// # Errors
    /// A file can't be written, or came into being meanwhile.
    pub fn write(
        &self,
        input: &Path,
        formats: &[Format],
        transcript: &Transcript,
    ) -> anyhow::Result<Vec<PathBuf>> {
        // An earlier partial result is of no use beside a later one.
        let overwrite = self.existing == Existing::Overwrite || transcript.partial;
        let paths = formats.iter().map(|&format| {
            let path = self.path(input, format, transcript.partial);
            write_whole(&path, whole(format, transcript).as_bytes(), overwrite)?;
            Ok(path)
        });
        paths.collect()
    }
}

/// One name for each file, however its folder is spelled.
fn one_name(path: &Path) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().or_else(|_| std::path::absolute(folder));
    folder.unwrap_or_default().join(path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: Option<&str>) -> Place {
        let folder = folder.map(PathBuf::from);
        Place { formats: vec![Format::Srt, Format::Json], folder, existing: Existing::Refuse }
    }

    #[test]
    fn names_are_those_of_the_inputs() {
        let path = |folder, input: &str, partial| {
            place(folder).path(Path::new(input), Format::Srt, partial).display().to_string()
        };
        assert_eq!(path(None, "a/b.tar.wav", false), "a/b.tar.srt");
        assert_eq!(path(Some("out"), "a/b.wav", false), "out/b.srt");
        assert_eq!(path(Some("out"), "-", false), "out/stdin.srt");
        assert_eq!(path(None, "b.wav", true), "b.partial.srt");
    }

    #[test]
    fn clashes_are_refused() {
        let check = |place: Place, inputs: &[&str]| {
            let inputs: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
            place.check(inputs.iter()).map_err(|error| error.to_string())
        };
        assert_eq!(check(place(None), &["a.wav", "b/a.wav", "a.wav"]), Ok(()));
        let both = check(place(None), &["a.wav", "a.mp3"]).unwrap_err();
        assert_eq!(both, "a.srt: the words of both a.wav and a.mp3 would go there");
        assert!(check(place(None), &["a.wav", "./a.mp3"]).is_err());
        assert!(check(place(Some("out")), &["a.wav", "b/a.wav"]).is_err());
        let own = check(place(None), &["a.wav", "a.json"]).unwrap_err();
        assert_eq!(own, "a.json: is an input, and the words of a.wav would go there");
    }
}
