//! Which model `-m` means: the built-in one, a path, a directory, or a name in the caches other tools
//! fill.
//!
//! Hugging Face hub: `<hub>/models--ORG--REPO/snapshots/<commit>/[dir/]file.gguf`, the newest
//! commit named by `refs/main`. llama.cpp used that layout lately, and `ORG_REPO_file.gguf` before.
//! Nothing is fetched here, ever.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::output::{Hint, Output};
use crate::gguf::Gguf;
use crate::session::{ModelSource, builtin};

/// Quantizations that are taken without being asked for, as llama.cpp does.
const PREFERRED: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// A repository to name in advice; it is public and has the files that this program reads.
const EXAMPLE: &str = "ggml-org/gemma-3n-E2B-it-GGUF";
/// File names shown in an error.
const SHOWN: usize = 8;

/// Why no model was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: no such file or directory", .0.display())]
    NoSuchFile(PathBuf),
    #[error("{}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: no GGUF text model in this directory", .0.display())]
    NoneInDirectory(PathBuf),
    #[error("{}: {} text models: {}", .place, .files.len(), listed(.files))]
    Several { place: String, files: Vec<PathBuf> },
    #[error("{name}: not in the model caches of this machine ({})", listed(.looked))]
    NotCached { name: Name, looked: Vec<PathBuf> },
    #[error("{name}: not among the cached files of {}: {}", .name.repository(), listed(.files))]
    OtherQuantization { name: Name, files: Vec<PathBuf> },
}

impl Error {
    fn hint(&self) -> String {
        match self {
            Self::NoSuchFile(_) => {
                format!(
                    "-m takes a GGUF file, a directory, a name such as {EXAMPLE}:Q8_0, or builtin"
                )
            }
            Self::Unreadable { .. } => "is it yours to read?".to_owned(),
            Self::NoneInDirectory(dir) if is_checkpoint(dir) => {
                format!(
                    "`gemma3n convert {} -o FILE.gguf` makes one from this checkpoint",
                    dir.display()
                )
            }
            Self::NoneInDirectory(_) => {
                "a model is a file whose name ends in .gguf, without mmproj in it".to_owned()
            }
            Self::Several { .. } => "name one of the files with -m".to_owned(),
            Self::NotCached { name, .. } | Self::OtherQuantization { name, .. } => {
                format!("{} fetches it", fetch_command(&name.repository(), name.quant.as_deref()))
            }
        }
    }
}

fn fetch_command(repository: &str, quant: Option<&str>) -> String {
    let pattern = quant.unwrap_or("Q8_0");
    format!("`hf download {repository} --include '*{pattern}*.gguf'`")
}

fn listed(paths: &[PathBuf]) -> String {
    let mut names: Vec<String> =
        paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    if paths.len() > SHOWN {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// A repository of models, and which of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    owner: String,
    repo: String,
    quant: Option<String>,
}

impl Name {
    /// Reads `ORG/REPO[:QUANT]`, also as it is copied from a browser; a path is none.
    fn parse(text: &str) -> Option<Self> {
        let text = ["https://", "hf.co/", "huggingface.co/"]
            .iter()
            .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
        let (repository, quant) = match text.split_once(':') {
            Some((repository, quant)) => (repository, Some(quant)),
            None => (text, None),
        };
        let (owner, repo) = repository.split_once('/')?;
        let sound = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !sound(owner) || !sound(repo) || repo.to_ascii_lowercase().ends_with(".gguf") {
            return None;
        }
        let quant = match quant {
            Some(quant) if !sound(quant) => return None,
            Some(quant) if quant.eq_ignore_ascii_case("latest") => None,
            other => other.map(str::to_owned),
        };
        Some(Self { owner: owner.to_owned(), repo: repo.to_owned(), quant })
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.quant {
            Some(quant) => write!(f, "{}:{quant}", self.repository()),
            None => write!(f, "{}", self.repository()),
        }
    }
}

/// Finds the model that was named by flag or variable: a file (the first part of a split one), or the
/// built-in one. Where none was named it is the built-in one, and `output` says so.
///
/// # Errors
/// Nothing found, or several where one is needed, with a hint what to do.
pub fn find(named: Option<&OsStr>, output: &Output) -> anyhow::Result<ModelSource> {
    let Some(named) = named.filter(|name| !name.is_empty()) else {
        output.notice(format_args!(
            "built-in model: it knows this program, 40 spoken words, simple shapes; a real one: hf download \
             {EXAMPLE}"
        ));
        return Ok(builtin::text());
    };
    if named == builtin::NAME {
        return Ok(builtin::text());
    }
    let found = find_named(named, &cache_roots(|name| env::var_os(name).map(PathBuf::from)));
    let hint = found.as_ref().err().map(Error::hint);
    Ok(ModelSource::File(found.hint(|| hint.unwrap_or_default())?))
}

fn find_named(named: &OsStr, roots: &[PathBuf]) -> Result<PathBuf, Error> {
    let path = Path::new(named);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => in_directory(path),
        Ok(_) => Ok(path.to_owned()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            match named.to_str().and_then(Name::parse) {
                Some(name) => in_caches(name, roots),
                None => Err(Error::NoSuchFile(path.to_owned())),
            }
        }
        Err(source) => Err(Error::Unreadable { path: path.to_owned(), source }),
    }
}

/// The one text model of a directory.
fn in_directory(dir: &Path) -> Result<PathBuf, Error> {
    let unreadable = |source| Error::Unreadable { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    // Adapters, reference values and other architectures may lie beside it: the headers tell. A
    // file without a sound header stays, for its fault to be named.
    let mut files: Vec<(PathBuf, Option<Gguf>)> = models_among(files)
        .into_iter()
        .map(|file| (file.clone(), Gguf::open(&file).ok()))
        .filter(|(_, gguf)| says(gguf, "general.type").is_none_or(|kind| kind == "model"))
        .collect();
    let ours = |gguf: &Option<Gguf>| says(gguf, "general.architecture") == Some("gemma3n");
    if files.iter().any(|(_, gguf)| ours(gguf)) {
        files.retain(|(_, gguf)| ours(gguf));
    }
    let files: Vec<PathBuf> = files.into_iter().map(|(file, _)| file).collect();
    match files.as_slice() {
        [] => Err(Error::NoneInDirectory(dir.to_owned())),
        [one] => Ok(one.clone()),
        _ => {
            let files =
                files.iter().filter_map(|file| file.file_name()).map(PathBuf::from).collect();
            Err(Error::Several { place: dir.display().to_string(), files })
        }
    }
}

/// Files that may be a text model, by name, sorted; of a split one the first part.
fn models_among(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| {
            let name = file.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
            name.is_some_and(|name| {
                let stem = name.strip_suffix(".gguf");
                stem.is_some_and(|stem| {
                    !stem.contains("mmproj") && !stem.contains("imatrix") && !is_later_part(stem)
                })
            })
        })
        .filter(|file| file.is_file())
        .collect();
    models.sort();
    models
}

fn says<'a>(gguf: &'a Option<Gguf>, key: &str) -> Option<&'a str> {
    gguf.as_ref()?.metadata().str(key).ok().flatten()
}

/// Whether a file's stem ends in `-0000N-of-0000M` with N above 1.
fn is_later_part(stem: &str) -> bool {
    let Some((rest, of)) = stem.rsplit_once("-of-") else { return false };
    let Some((_, part)) = rest.rsplit_once('-') else { return false };
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(of) && digits(part) && part != "00001"
}

fn is_checkpoint(dir: &Path) -> bool {
    dir.join("config.json").is_file()
}

/// Every folder that may hold cached models, in the order in which they are searched.
fn cache_roots(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let home_cache =
        || variable("HOME").or_else(|| etcetera::home_dir().ok()).map(|home| home.join(".cache"));
    let cache = variable("XDG_CACHE_HOME").or_else(home_cache);
    let hub = variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| cache.as_ref().map(|cache| cache.join("huggingface").join("hub")));
    let llama = variable("LLAMA_CACHE").or_else(|| {
        if cfg!(target_os = "macos") {
            Some(variable("HOME")?.join("Library").join("Caches").join("llama.cpp"))
        } else {
            cache.as_ref().map(|cache| cache.join("llama.cpp"))
        }
    });
    let mut roots: Vec<PathBuf> = [hub, llama].into_iter().flatten().collect();
    roots.dedup();
    roots
}

fn in_caches(name: Name, roots: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut others = Vec::new();
    for root in roots {
        let files = models_among(cached_files(root, &name));
        match choose(&files, name.quant.as_deref()).as_slice() {
            [] => others.extend(files),
            [one] => return Ok(one.clone()),
            several => {
                let place = name.to_string();
                return Err(Error::Several { place, files: several.to_vec() });
            }
        }
    }
    if others.is_empty() {
        Err(Error::NotCached { name, looked: roots.to_vec() })
    } else {
        Err(Error::OtherQuantization { name, files: others })
    }
}

/// The files of the wanted quantization; without one the only file, or the preferred one.
fn choose(files: &[PathBuf], quant: Option<&str>) -> Vec<PathBuf> {
    let of = |quant: &str| -> Vec<PathBuf> {
        files.iter().filter(|file| has_quantization(file, quant)).cloned().collect()
    };
    match quant {
        Some(quant) => of(quant),
        None if files.len() <= 1 => files.to_vec(),
        None => PREFERRED
            .iter()
            .map(|quant| of(quant))
            .find(|found| !found.is_empty())
            .unwrap_or_else(|| files.to_vec()),
    }
}

/// Whether the quantization's name stands in the file's name, or in its folder's, as a whole word.
fn has_quantization(file: &Path, quant: &str) -> bool {
    let quant = quant.to_ascii_uppercase();
    let folder = file.parent().and_then(Path::file_name);
    [file.file_stem(), folder].into_iter().flatten().any(|name| {
        let name = name.to_string_lossy().to_ascii_uppercase();
        name.match_indices(&quant).any(|(at, _)| {
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            // llama.cpp's older cache joins owner, repository and file by underscores.
            let before = name[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
            let after = name[at + quant.len()..].chars().next().is_some_and(inside);
            !before && !after
        })
    })
}

/// What a cache folder holds of a repository, in either layout.
fn cached_files(root: &Path, name: &Name) -> Vec<PathBuf> {
    let hub = format!("models--{}--{}", name.owner, name.repo);
    let flat = format!("{}_{}_", name.owner, name.repo).to_ascii_lowercase();
    let mut files = Vec::new();
    for path in entries(root) {
        let Some(entry) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if entry.eq_ignore_ascii_case(&hub) {
            if let Some(snapshot) = snapshot(&path) {
                files.extend(entries(&snapshot));
                // One folder deep: where a repository has a folder for each quantization.
                files.extend(entries(&snapshot).iter().flat_map(|inner| entries(inner)));
            }
        } else if entry.to_ascii_lowercase().starts_with(&flat) {
            files.push(path);
        }
    }
    files
}

/// The snapshot that `refs/main` names, else the newest.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = fs::read_to_string(repository.join("refs").join("main")).unwrap_or_default();
    let main = snapshots.join(main.trim());
    if main != snapshots.join("") && main.is_dir() {
        return Some(main);
    }
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    entries(&snapshots).into_iter().filter(|path| path.is_dir()).max_by_key(modified)
}

/// The entries of a folder; none if it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, name: &str) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folder");
        fs::write(&path, b"").expect("file");
        path
    }

    fn find_in(named: &str, root: &Path) -> Result<PathBuf, Error> {
        find_named(OsStr::new(named), &[root.to_owned()])
    }

    #[test]
    fn names_are_read_as_people_type_them() {
        let name = Name::parse("ggml-org/gemma-3n-E2B-it-GGUF:Q8_0").expect("a name");
        assert_eq!(name.to_string(), "ggml-org/gemma-3n-E2B-it-GGUF:Q8_0");
        assert_eq!(
            Name::parse("https://huggingface.co/a/b").map(|n| n.repository()).as_deref(),
            Some("a/b")
        );
        assert_eq!(Name::parse("hf.co/a/b:latest").and_then(|n| n.quant), None);
        for path in
            ["model.gguf", "models/a.gguf", "./a/b", "/a/b", "a/b/c", "../a/b", "a/", "a/b:"]
        {
            assert_eq!(Name::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_directory_gives_its_one_text_model() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().to_str().expect("UTF-8");
        assert!(matches!(find_in(at, dir.path()), Err(Error::NoneInDirectory(_))));
        touch(dir.path(), "mmproj-model-f16.gguf");
        touch(dir.path(), "e2b.imatrix.gguf");
        touch(dir.path(), "m-00002-of-00002.gguf");
        let first = touch(dir.path(), "m-00001-of-00002.gguf");
        assert_eq!(find_in(at, dir.path()).expect("one"), first);
        touch(dir.path(), "n.gguf");
        let error = find_in(at, dir.path()).expect_err("two");
        assert!(error.to_string().ends_with("2 text models: m-00001-of-00002.gguf, n.gguf"));
    }

    #[test]
    fn a_checkpoint_directory_is_told_how_to_become_a_model() {
        let dir = tempfile::tempdir().expect("a folder");
        touch(dir.path(), "config.json");
        let error = find_in(dir.path().to_str().expect("UTF-8"), dir.path()).expect_err("none");
        assert!(error.hint().contains("gemma3n convert"));
    }

    #[test]
    fn the_hub_cache_is_searched_by_commit_and_quantization() {
        let root = tempfile::tempdir().expect("a folder");
        let repository = root.path().join("models--org--repo-GGUF");
        touch(&repository, "snapshots/aaaa/m-Q8_0.gguf");
        touch(&repository, "snapshots/bbbb/m-IQ4_NL.gguf");
        touch(&repository, "snapshots/bbbb/m-Q4_K_M.gguf");
        touch(&repository, "snapshots/bbbb/mmproj-m-Q8_0.gguf");
        touch(&repository, "snapshots/bbbb/BF16/m-00001-of-00002.gguf");
        fs::create_dir_all(repository.join("refs")).expect("folder");
        fs::write(repository.join("refs/main"), "bbbb\n").expect("file");
        let found = |name: &str| {
            let path = find_in(name, root.path()).expect(name);
            path.strip_prefix(&repository).expect("inside").to_str().expect("UTF-8").to_owned()
        };
        assert_eq!(found("org/repo-GGUF"), "snapshots/bbbb/m-Q4_K_M.gguf");
        assert_eq!(found("Org/Repo-gguf:iq4_nl"), "snapshots/bbbb/m-IQ4_NL.gguf");
        assert_eq!(found("org/repo-GGUF:BF16"), "snapshots/bbbb/BF16/m-00001-of-00002.gguf");
        for absent in ["Q8_0", "Q4_NL", "Q4_K", "F16"] {
            let error = find_in(&format!("org/repo-GGUF:{absent}"), root.path()).expect_err(absent);
            assert!(matches!(error, Error::OtherQuantization { .. }), "{absent}");
        }
    }

    #[test]
    fn the_older_cache_of_llama_cpp_is_searched_too() {
        let root = tempfile::tempdir().expect("a folder");
        touch(root.path(), "org_repo_m-Q4_0.gguf.json");
        let file = touch(root.path(), "org_repo_m-Q4_0.gguf");
        assert_eq!(find_in("org/repo:q4_0", root.path()).expect("one"), file);
        assert!(matches!(find_in("org/rep", root.path()), Err(Error::NotCached { .. })));
    }

    #[test]
    fn what_is_not_cached_says_how_to_fetch_it() {
        let root = tempfile::tempdir().expect("a folder");
        let error = find_in("org/repo:Q4_0", root.path()).expect_err("nothing");
        assert_eq!(error.hint(), "`hf download org/repo --include '*Q4_0*.gguf'` fetches it");
        assert!(error.to_string().starts_with("org/repo:Q4_0: not in the model caches"));
    }

    #[test]
    fn cache_folders_follow_the_variables() {
        let roots = |set: &[(&str, &str)]| {
            let set: Vec<(String, PathBuf)> =
                set.iter().map(|(name, value)| (name.to_string(), PathBuf::from(value))).collect();
            let found = cache_roots(|wanted| {
                set.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
            });
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(roots(&[("HF_HUB_CACHE", "/h"), ("LLAMA_CACHE", "/l")]), ["/h", "/l"]);
        assert_eq!(roots(&[("HF_HOME", "/h"), ("LLAMA_CACHE", "/l")]), ["/h/hub", "/l"]);
        assert_eq!(
            roots(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/u"), ("LLAMA_CACHE", "")])[0],
            "/c/huggingface/hub"
        );
        assert_eq!(
            roots(&[("HOME", "/u"), ("LLAMA_CACHE", "/l")]),
            ["/u/.cache/huggingface/hub", "/l"]
        );
    }
}
