//! How fast this machine reads memory: what decoding can reach at best, since it reads every
//! weight once a token.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// More than any cache holds.
const BYTES: usize = 512 << 20;
const RUNS: usize = 5;

/// Bytes a second that `threads` threads read together: the best of several passes.
pub fn read_bandwidth(threads: usize) -> f64 {
    let memory = vec![1u64; BYTES / size_of::<u64>()];
    let share = memory.len().div_ceil(threads.max(1));
    let pass = || {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in memory.chunks(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| pass()).fold(0.0, f64::max)
}

/// Several sums side by side, so that loads and not the adder's latency set the pace.
fn sum(values: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in values.chunks_exact(32) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
