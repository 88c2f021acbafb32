//! Ctrl-C: ends the program at once, or, while an answer is made, only asks it to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// The exit code of a program that Ctrl-C ended.
pub const EXIT_CODE: u8 = 130;

/// What Ctrl-C does. Until [`Interrupt::catch`] it ends the program with 130.
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    at_once: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT for the rest of the program's life.
    ///
    /// # Errors
    /// The system refuses the handler.
    pub fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let at_once = Arc::new(AtomicBool::new(true));
        // Handlers run in this order.
        flag::register_conditional_shutdown(SIGINT, EXIT_CODE.into(), at_once.clone())?;
        flag::register(SIGINT, asked.clone())?;
        Ok(Self { asked, at_once })
    }

    /// From now on Ctrl-C sets the flag and nothing else.
    pub fn catch(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }

    /// From now on a terminal that goes away and a plain `kill` set the flag too, and a limit of
    /// file sizes is an error of the write; for work that must not leave half a file behind.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn catch_endings(&self) -> io::Result<()> {
        for signal in [SIGTERM, SIGHUP] {
            flag::register(signal, self.asked.clone())?;
        }
        // With a handler the signal ends nobody, and the write fails.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(())
    }

    /// From now on Ctrl-C ends the program at once.
    pub fn release(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// The flag, for the work that is to stop.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Whether Ctrl-C came and was not taken.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether Ctrl-C came since the last call.
    pub fn take(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }
}
