//! Models for tests: checkpoints converted by our own tool, once a test program.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gemma3n::checkpoint::{Checkpoint, Float};
use gemma3n::files::convert;
use gemma3n::files::execute;
use gemma3n::gguf::Gguf;

/// Folder of the committed fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A checkpoint directory converted into `folder`, opened.
pub fn converted(checkpoint: &Path, float: Float, folder: &Path) -> Arc<Gguf> {
    let name = checkpoint.file_name().expect("a folder").to_string_lossy();
    let target = folder.join(format!("{name}.gguf"));
    let checkpoint = Checkpoint::open(checkpoint).expect("a sound checkpoint");
    let plan = convert::plan(&checkpoint, Some(float)).expect("a plan");
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    execute::execute(&plan, &checkpoint.weights, &target, true, &mut go_on).expect("written");
    Arc::new(Gguf::open(&target).expect("a sound file"))
}
