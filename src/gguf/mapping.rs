//! Mapping files, and what happens when a mapped file shrinks. The only unsafe code of the room.
//!
//! Reading a page that the file no longer has raises SIGBUS. A handler, installed with the first
//! mapping, finds the mapping by the fault's address in a fixed table that is read without locks,
//! writes one line that names the file and ends the process with exit code 1. Faults elsewhere go
//! to the handler that was there before.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// A whole file, mapped for reading and shared with other processes.
#[derive(Debug)]
pub(super) struct Mapping {
    // Dropped first: the table must not name an unmapped range.
    _entry: Option<Entry>,
    map: Mmap,
}

impl Mapping {
    /// Maps `file`. `path` is what the line on a fault names.
    pub fn new(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the mapping is read-only and private to this value. Another process may change
        // or truncate the file under it: header positions are checked on every access (safe
        // slicing of the mapping, whose length is fixed here), tensor bytes have no invalid
        // values, and pages that are gone end the process in `on_fault`.
        let map = unsafe { Mmap::map(file)? };
        install();
        let entry = Entry::register(&map, path);
        Ok(Self { _entry: entry, map })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Advice is only advice: a refusal changes nothing.
    pub fn advise_random(&self, range: Range<usize>) {
        let _ = self.map.advise_range(Advice::Random, range.start, range.len());
    }

    pub fn advise_will_need(&self, range: Range<usize>) {
        let _ = self.map.advise_range(Advice::WillNeed, range.start, range.len());
    }

    /// Takes pages out of this process; they stay in the system's cache while it has room.
    pub fn advise_unneeded(&self, range: Range<usize>) {
        // SAFETY: the mapping is of a file and never written, so that a page which is taken out
        // is read from the file again, with the same bytes.
        let _ = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
        };
    }
}

/// Locks the pages of `bytes` that hold nothing else.
pub(super) fn lock(bytes: &[u8]) -> io::Result<()> {
    let page = page_size();
    let start = bytes.as_ptr().addr();
    let skipped = start.next_multiple_of(page) - start;
    let Some(inner) = bytes.get(skipped..).filter(|inner| !inner.is_empty()) else {
        return Ok(());
    };
    // SAFETY: `inner` is memory that this process has mapped; locking it changes no byte.
    match unsafe { libc::mlock(inner.as_ptr().cast(), inner.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

/// Mappings the table has room for; more work as well, but their faults are not named.
const SLOTS: usize = 128;

/// A line of the table. `version` is odd while the line changes and 0 while it was never used; a
/// reader that sees it change, or odd, ignores the line: a mapping that is faulting is not being
/// made or dropped.
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    message: AtomicPtr<u8>,
    message_len: AtomicUsize,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        message: AtomicPtr::new(std::ptr::null_mut()),
        message_len: AtomicUsize::new(0),
    }
}; SLOTS];

impl Slot {
    /// Changes the line, if it is (`free`) or is not free and nobody else changes it.
    fn change(&self, free: bool, start: usize, end: usize, message: &[u8]) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let is_free = self.end.load(Ordering::Relaxed) == 0;
        if version % 2 == 1 || is_free != free {
            return false;
        }
        let claimed = self.version.compare_exchange(
            version,
            version + 1,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            return false;
        }
        // Whoever reads one of the values below sees the odd version too.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.message.store(message.as_ptr().cast_mut(), Ordering::Relaxed);
        self.message_len.store(message.len(), Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
        true
    }

    /// The message for a fault at `address`, if it is in this line's mapping.
    fn find(&self, address: usize) -> Option<(*const u8, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let message = self.message.load(Ordering::Relaxed).cast_const();
        let len = self.message_len.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let settled = version.is_multiple_of(2) && version == self.version.load(Ordering::Relaxed);
        (settled && (start..end).contains(&address)).then_some((message, len))
    }
}

/// A line of the table that is in use; freed when dropped.
#[derive(Debug)]
struct Entry {
    slot: usize,
    /// What the handler writes. On the heap, so that it stays where it is.
    _message: Box<[u8]>,
}

impl Entry {
    fn register(bytes: &[u8], path: &Path) -> Option<Self> {
        let line = format!("error: {}: changed or truncated while in use\n", path.display());
        let message = line.into_bytes().into_boxed_slice();
        let start = bytes.as_ptr().addr();
        // The last page may be only partly covered by the file.
        let end = (start + bytes.len()).next_multiple_of(page_size());
        let slot = TABLE.iter().position(|slot| slot.change(true, start, end, &message))?;
        Some(Self { slot, _message: message })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        TABLE[self.slot].change(false, 0, 0, &[]);
    }
}

/// The SIGBUS handler that was there before ours.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once for the process.
fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: zeroed bytes are a valid sigaction (default handler, no flags, empty mask);
        // both pointers are valid for the calls. The handler only does what a signal handler may
        // do. `previous` is read first, and stored when this closure returns; a fault in between
        // finds nothing and falls back to the default action.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                on_fault;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
            previous
        }
    });
}

/// Runs on a SIGBUS: reads atomics, writes a line, ends the process; or passes the signal on.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() }.addr();
    if let Some((message, len)) = TABLE.iter().find_map(|slot| slot.find(address)) {
        // SAFETY: the message belongs to the mapping that is being read by the faulting thread,
        // so it is alive; write and _exit are async-signal-safe.
        unsafe {
            libc::write(libc::STDERR_FILENO, message.cast(), len);
            libc::_exit(1);
        }
    }
    pass_on(signal, info, context);
}

/// Gives a fault that is not ours to the previous handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    // SAFETY: `handler` is what sigaction reported: a disposition, or a function of the kind that
    // its flags say, called with the arguments this handler got. The default action is put back
    // and takes effect when the faulting instruction runs again, or for a sent signal through the
    // raised one, which stays pending until this handler returns.
    unsafe {
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            let mut default: libc::sigaction = std::mem::zeroed();
            default.sa_sigaction = handler;
            libc::sigaction(signal, &default, std::ptr::null_mut());
            if handler == libc::SIG_DFL {
                libc::raise(signal);
            }
        } else if previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0) {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            handler(signal);
        }
    }
}
