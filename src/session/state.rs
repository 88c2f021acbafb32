//! Session files: a conversation with its cache, so that going on costs no prefill.
//!
//! ```text
//! magic     16 bytes   "gemma3n session\n"
//! version   u32        little-endian, as all numbers
//! length    u64        of the header
//! header    JSON       model, slice, cache type, messages, ids, sampler
//! state                keys and values in the order of positions (the decoder's form)
//! checksum  32 bytes   SHA-256 over everything before it
//! ```
//!
//! Everything is compared with the file's length and the checksum before it is used.
//! Design §8.1.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::message::{Message, Role};
use super::sampler::SamplerState;
use crate::gguf::io_message;
use crate::model::text::CacheType;
use crate::tokenizer::TokenId;

const MAGIC: &[u8; 16] = b"gemma3n session\n";
const VERSION: u32 = 1;
const CHECKSUM: u64 = 32;
/// Bytes before the header.
const PREFIX: u64 = 16 + 4 + 8;
/// Messages of a whole context are far below this.
const HEADER_LIMIT: u64 = 256 << 20;

/// Why a session file cannot be written or used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct SessionFileError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub fault: SessionFault,
}

/// What is wrong with a session file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionFault {
    /// The system refuses.
    #[error("{}", io_message(.0))]
    Io(#[from] io::Error),
    /// Something else.
    #[error("not a gemma3n session file")]
    NotASession,
    /// Another version of this program wrote it.
    #[error("session file of version {found}; this program reads version {VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// It is shorter than it says, or its checksum is wrong.
    #[error("the session file is damaged: {0}")]
    Damaged(String),
    /// It belongs to another model.
    #[error("the session is of another model, {found}; this one is {expected}")]
    Model {
        /// The session's model.
        found: String,
        /// The open model.
        expected: String,
    },
    /// It belongs to a slice of the model.
    #[error("the session is of {}; in use is {}", slice_words(.found), slice_words(.expected))]
    Slice {
        /// The session's slice.
        found: Option<String>,
        /// The one in use.
        expected: Option<String>,
    },
    /// Its cache is of another type.
    #[error("the session's cache is {found}; this one is {expected}")]
    CacheType {
        /// The session's cache type.
        found: String,
        /// The one in use.
        expected: String,
    },
    /// Its cache is longer than this context.
    #[error("the session holds {positions} positions, the context {capacity}")]
    TooLong {
        /// Positions in the file.
        positions: usize,
        /// Positions of the context.
        capacity: usize,
    },
}

fn slice_words(slice: &Option<String>) -> String {
    slice.as_ref().map_or("the whole model".to_owned(), |slice| format!("the slice {slice}"))
}

/// What a session file says beside keys and values.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// `general.name` or the file's name, for messages.
    pub model: String,
    /// SHA-256 as [`crate::gguf::Gguf::fingerprint`] has it.
    pub fingerprint: String,
    /// A part of the model that was used in place of the whole.
    pub slice: Option<String>,
    /// `f32`, `f16` or `q8_0`.
    pub cache_type: String,
    /// System text.
    pub system: Option<String>,
    /// What was said.
    pub messages: Vec<Message>,
    /// Ids at the cache's positions.
    pub ids: Vec<TokenId>,
    /// Where the sampler stands.
    pub sampler: SamplerState,
}

/// What a session must agree with.
pub(super) struct Expected<'a> {
    pub model: &'a str,
    pub fingerprint: &'a str,
    pub slice: Option<&'a str>,
    pub cache_type: &'a str,
    pub capacity: usize,
}

/// A cache type's name on the command line and in session files.
pub(super) fn cache_type_name(cache: CacheType) -> &'static str {
    match cache {
        CacheType::F32 => "f32",
        CacheType::F16 => "f16",
        CacheType::Q8_0 => "q8_0",
    }
}

/// Writes a session beside its target and renames it.
///
/// # Errors
/// The file cannot be written, or `state` fails.
pub(super) fn write(
    path: &Path,
    header: &Header,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), SessionFileError> {
    write_beside(path, header, state)
        .map_err(|fault| SessionFileError { file: path.to_path_buf(), fault })
}

fn write_beside(
    path: &Path,
    header: &Header,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), SessionFault> {
    let header = serde_json::to_vec(header).map_err(io::Error::from)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut output = Hashing { inner: BufWriter::new(file), hash: Sha256::new() };
    output.write_all(MAGIC)?;
    output.write_all(&VERSION.to_le_bytes())?;
    output.write_all(&(header.len() as u64).to_le_bytes())?;
    output.write_all(&header)?;
    state(&mut output)?;
    let Hashing { mut inner, hash } = output;
    inner.write_all(&hash.finalize())?;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Reads a session: checks it, then hands its keys and values to `state`.
///
/// # Errors
/// What is wrong with the file, or what does not agree with `expected`.
pub(super) fn read(
    path: &Path,
    expected: &Expected<'_>,
    state: impl FnOnce(&mut Header, &mut dyn Read) -> io::Result<()>,
) -> Result<Header, SessionFileError> {
    open(path, expected, state)
        .map_err(|fault| SessionFileError { file: path.to_path_buf(), fault })
}

fn open(
    path: &Path,
    expected: &Expected<'_>,
    state: impl FnOnce(&mut Header, &mut dyn Read) -> io::Result<()>,
) -> Result<Header, SessionFault> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(SessionFault::NotASession);
    }
    parse(BufReader::new(file), facts.len(), expected, state)
}

fn parse(
    mut input: impl Read + Seek,
    file_length: u64,
    expected: &Expected<'_>,
    state: impl FnOnce(&mut Header, &mut dyn Read) -> io::Result<()>,
) -> Result<Header, SessionFault> {
    let body = body_length(&mut input, file_length)?;
    verify(&mut input, file_length)?;
    input.seek(SeekFrom::Start(PREFIX))?;
    let mut header = Vec::new();
    (&mut input).take(body.header).read_to_end(&mut header)?;
    let mut header: Header = serde_json::from_slice(&header)
        .map_err(|error| SessionFault::Damaged(format!("header: {error}")))?;
    agree(&header, expected)?;
    let mut rest = input.take(body.state);
    state(&mut header, &mut rest).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            SessionFault::Damaged(format!("keys and values: {error}"))
        }
        _ => error.into(),
    })?;
    match rest.limit() {
        0 => Ok(header),
        left => Err(SessionFault::Damaged(format!("{left} bytes too many"))),
    }
}

/// Lengths of a session file's parts.
struct Body {
    header: u64,
    state: u64,
}

/// Reads the fixed beginning and compares its lengths with the file's.
fn body_length(input: &mut impl Read, file_length: u64) -> Result<Body, SessionFault> {
    let mut magic = [0; 16];
    let mut version = [0; 4];
    let mut length = [0; 8];
    read_or(input, &mut magic, || SessionFault::NotASession)?;
    if &magic != MAGIC {
        return Err(SessionFault::NotASession);
    }
    let short = || SessionFault::Damaged(format!("it ends after {file_length} bytes"));
    read_or(input, &mut version, short)?;
    match u32::from_le_bytes(version) {
        VERSION => {}
        found => return Err(SessionFault::Version { found }),
    }
    read_or(input, &mut length, short)?;
    let header = u64::from_le_bytes(length);
    let room = file_length.checked_sub(PREFIX + CHECKSUM).ok_or_else(short)?;
    match room.checked_sub(header) {
        Some(state) if header <= HEADER_LIMIT => Ok(Body { header, state }),
        _ => {
            Err(SessionFault::Damaged(format!("its header claims {header} bytes of {file_length}")))
        }
    }
}

fn read_or(
    input: &mut impl Read,
    bytes: &mut [u8],
    short: impl FnOnce() -> SessionFault,
) -> Result<(), SessionFault> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short(),
        _ => error.into(),
    })
}

/// Compares the checksum.
fn verify(input: &mut (impl Read + Seek), file_length: u64) -> Result<(), SessionFault> {
    input.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    io::copy(&mut input.take(file_length - CHECKSUM), &mut hash)?;
    let mut checksum = [0; CHECKSUM as usize];
    read_or(input, &mut checksum, || SessionFault::Damaged("it became shorter".into()))?;
    if hash.finalize()[..] == checksum {
        Ok(())
    } else {
        Err(SessionFault::Damaged("its checksum is wrong".into()))
    }
}

/// Refuses what another model, slice or cache type made, and what no conversation can be.
fn agree(header: &Header, expected: &Expected<'_>) -> Result<(), SessionFault> {
    if header.fingerprint != expected.fingerprint {
        let named = |name: &str, sha: &str| {
            format!("{name} ({})", sha.chars().take(12).collect::<String>())
        };
        return Err(SessionFault::Model {
            found: named(&header.model, &header.fingerprint),
            expected: named(expected.model, expected.fingerprint),
        });
    }
    if header.slice.as_deref() != expected.slice {
        return Err(SessionFault::Slice {
            found: header.slice.clone(),
            expected: expected.slice.map(str::to_owned),
        });
    }
    if header.cache_type != expected.cache_type {
        return Err(SessionFault::CacheType {
            found: header.cache_type.clone(),
            expected: expected.cache_type.to_owned(),
        });
    }
    if header.ids.len() > expected.capacity {
        return Err(SessionFault::TooLong {
            positions: header.ids.len(),
            capacity: expected.capacity,
        });
    }
    let roles = [Role::User, Role::Model].into_iter().cycle();
    match header.messages.iter().zip(roles).position(|(message, role)| message.role != role) {
        None => Ok(()),
        Some(at) => Err(SessionFault::Damaged(format!("message {at} is out of turn"))),
    }
}

/// A writer that hashes what goes through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::session::sampler::{Sampler, SamplerOptions};

    const EXPECTED: Expected<'static> =
        Expected { model: "M", fingerprint: "abc", slice: None, cache_type: "f16", capacity: 10 };

    fn header() -> Header {
        Header {
            model: "M".into(),
            fingerprint: "abc".into(),
            slice: None,
            cache_type: "f16".into(),
            system: None,
            messages: vec![Message::text(Role::User, "q"), Message::text(Role::Model, "a")],
            ids: vec![TokenId(1), TokenId(2)],
            sampler: Sampler::new(SamplerOptions::default()).unwrap().state(),
        }
    }

    fn session(header: &Header) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(&path, header, |output| output.write_all(b"keys and values")).unwrap();
        std::fs::read(path).unwrap()
    }

    /// Takes all of the state, whatever it is.
    fn load(bytes: &[u8]) -> Result<Header, SessionFault> {
        parse(Cursor::new(bytes), bytes.len() as u64, &EXPECTED, |_, input| {
            io::copy(input, &mut io::sink()).map(|_| ())
        })
    }

    /// A file whose checksum is right.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - CHECKSUM as usize;
        let checksum = Sha256::digest(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let bytes = session(&header());
        assert_eq!(&bytes[..16], b"gemma3n session\n");
        let mut found = Vec::new();
        let read = parse(Cursor::new(&bytes), bytes.len() as u64, &EXPECTED, |_, input| {
            input.read_to_end(&mut found).map(|_| ())
        });
        let read = read.unwrap();
        assert_eq!(found, b"keys and values");
        assert_eq!((read.ids, read.messages), (header().ids, header().messages));
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_an_error() {
        let whole = session(&header());
        for length in 0..whole.len() {
            assert!(load(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(load(&bytes).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn lengths_are_compared_before_they_are_used() {
        for length in [u64::MAX, u64::MAX - 59, 1 << 60, 4096] {
            let mut bytes = session(&header());
            bytes[20..28].copy_from_slice(&length.to_le_bytes());
            let fault = load(&sealed(bytes)).unwrap_err();
            assert!(matches!(fault, SessionFault::Damaged(_)), "{length}: {fault}");
        }
        let mut bytes = session(&header());
        bytes[20..28].copy_from_slice(&5u64.to_le_bytes());
        assert!(matches!(load(&sealed(bytes)), Err(SessionFault::Damaged(_))));
    }

    #[test]
    fn what_is_left_over_or_out_of_turn_is_an_error() {
        let bytes = session(&header());
        let partly = parse(Cursor::new(&bytes), bytes.len() as u64, &EXPECTED, |_, input| {
            input.read_exact(&mut [0; 4])
        });
        assert!(matches!(partly, Err(SessionFault::Damaged(_))));
        let beyond = parse(Cursor::new(&bytes), bytes.len() as u64, &EXPECTED, |_, input| {
            input.read_exact(&mut [0; 400])
        });
        assert!(matches!(beyond, Err(SessionFault::Damaged(_))));
        let messages = vec![Message::text(Role::Model, "a")];
        let fault = load(&session(&Header { messages, ..header() })).unwrap_err();
        assert!(fault.to_string().contains("message 0"), "{fault}");
        let fault = load(&session(&Header { slice: Some("e2b".into()), ..header() })).unwrap_err();
        assert!(fault.to_string().contains("slice e2b"), "{fault}");
    }
}
