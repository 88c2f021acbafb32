//! The program as a user starts it, away from the machine's own models, caches and history.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A small model with random weights, made by scripts/fixtures.py.
pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/tiny-f16.gguf")
}

/// An empty home directory.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The program at work in this directory, with nothing of the environment that it looks at.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemma3n"));
        for name in [
            "GEMMA3N_MODEL",
            "GEMMA3N_MMPROJ",
            "HF_HOME",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "LLAMA_CACHE",
            "NO_COLOR",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
        ] {
            command.env_remove(name);
        }
        // Tests run side by side: one thread each.
        command.env("GEMMA3N_THREADS", "1");
        command.current_dir(self.path()).env("HOME", self.path());
        command.env("XDG_STATE_HOME", self.path().join("state")).env("TERM", "xterm-256color");
        command
    }
}
