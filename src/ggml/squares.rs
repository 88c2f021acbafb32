//! Sums of squares over the rows of a batch, for importance matrices.
//!
//! `s[c] = Σ_t x[t][c]²`. Each thread has columns of its own and adds in the order of rows, in f64,
//! so that the result depends on neither threads nor batch size beyond its one rounding.

use std::ops::Range;

use super::builder::Tensor;
use super::types::Type;

/// Columns that are summed at a time: their sums stay in the first-level cache, and a row's part
/// is long enough to be read ahead.
const COLUMNS: usize = 512;

impl Tensor<'_> {
    /// `Σ x²` over rows: `[n, T] → [n]`.
    pub fn column_squares(self) -> Self {
        let [n, t, ..] = self.ne();
        assert_eq!(self.elements(), n * t, "rows of {:?}", self.ne());
        assert!(self.ty() == Type::F32 && self.is_contiguous(), "kernels read contiguous f32");
        self.b.custom(Type::F32, [n, 1, 1, 1], &[self], 0, move |run| {
            let columns = share(n, run.ith as usize, run.nth as usize);
            // SAFETY: the source has n·t values, the node n; threads have disjoint columns.
            let (x, out) = unsafe {
                (
                    std::slice::from_raw_parts(run.source(0), n * t),
                    std::slice::from_raw_parts_mut(run.out().add(columns.start), columns.len()),
                )
            };
            sum(x, n, columns.start, out);
        })
    }
}

/// The columns of one thread of `nth`.
fn share(n: usize, ith: usize, nth: usize) -> Range<usize> {
    n * ith / nth..n * (ith + 1) / nth
}

/// Sums the columns from `first` on of rows of `n`.
fn sum(x: &[f32], n: usize, first: usize, out: &mut [f32]) {
    for (i, out) in out.chunks_mut(COLUMNS).enumerate() {
        let start = first + i * COLUMNS;
        let mut sums = [0.0; COLUMNS];
        for row in x.chunks_exact(n) {
            for (sum, &x) in sums.iter_mut().zip(&row[start..start + out.len()]) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ggml::{Builder, Threads, Type};

    /// Small integers: every sum is exact.
    #[test]
    fn every_column_is_summed_over_all_rows() {
        for (n, t, threads) in [(1, 1, 1), (7, 3, 2), (1030, 5, 3), (513, 2, 4), (2, 9, 4)] {
            let mut threads = Threads::new(threads);
            let b = Builder::new(8, &threads);
            let (x, input) = b.input(Type::F32, [n, t, 1, 1]);
            let output = b.output(x.column_squares());
            let mut graph = b.finish().unwrap();
            let value = |row: usize, column: usize| ((row * 31 + column * 7) % 13) as f32 - 6.0;
            let values: Vec<f32> =
                (0..t).flat_map(|row| (0..n).map(move |column| value(row, column))).collect();
            graph.write(input, &values);
            graph.run(&mut threads).unwrap();
            let expected: Vec<f32> =
                (0..n).map(|column| (0..t).map(|row| value(row, column).powi(2)).sum()).collect();
            assert_eq!(graph.read(output), expected, "[{n}, {t}]");
        }
    }
}
