//! A decoder that gives up on a broken file is an error of the file.
//!
//! `symphonia` has no unsafe code, but its arithmetic and its indices are not checked everywhere:
//! some broken files make it panic. Such a panic is caught here, and its message is not shown.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; none if it panics. What it borrowed must not be used any more then.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |facts| {
            if !GUARDED.get() {
                shown(facts);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_is_none() {
        assert_eq!(super::guarded(|| 1), Some(1));
        let empty: Vec<u8> = Vec::new();
        assert_eq!(super::guarded(|| empty[std::hint::black_box(1)]), None);
    }
}
