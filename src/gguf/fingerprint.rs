//! A quick identity of a model's contents, for session files and `--json`.
//!
//! SHA-256 over, for each part: its header (magic to the last tensor info), then of every tensor
//! in file order the first 4 KiB and the last 4 KiB (of shorter ones each byte once).

use sha2::{Digest, Sha256};

use super::reader::Gguf;

/// Bytes taken at each end of a tensor.
const END: usize = 4096;

pub(super) fn fingerprint(gguf: &Gguf) -> String {
    let mut hash = Sha256::new();
    for (index, part) in gguf.parts().iter().enumerate() {
        hash.update(&part.source[..part.header_end]);
        for tensor in gguf.tensors().iter().filter(|tensor| tensor.part() == index) {
            let (head, rest) = split_at_most(gguf.data(tensor), END);
            hash.update(head);
            hash.update(&rest[rest.len().saturating_sub(END)..]);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn split_at_most(bytes: &[u8], n: usize) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(n))
}
