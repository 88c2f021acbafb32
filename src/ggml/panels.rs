//! Weights packed in panels, and their products with batches: 8 bits with one scale for up to 256
//! columns of a row, so that the machine's integer units (AMX tiles, or AVX-512 VNNI) are what such
//! a product is bound by.
//!
//! Interfaces: `ggml/kernels/kernels.h`. The plain twin is a product with [`Panels::unpacked`].

use std::ffi::{c_int, c_void};

use rayon::prelude::*;

use super::builder::Tensor;
use super::product_nodes::{LINE, aligned};
use super::store::Stored;
use super::types::Type;

/// Rows of a panel.
const ROWS: usize = 32;

unsafe extern "C" {
    fn g3n_panels_supports(k: i64) -> c_int;
    fn g3n_panel_bytes(k: i64) -> usize;
    fn g3n_panel_pack(rows: *const f32, n: i64, k: i64, panel: *mut c_void);
    fn g3n_panel_unpack(panel: *const c_void, n: i64, k: i64, rows: *mut f32);
    fn g3n_wide_row_bytes(k: i64) -> usize;
    fn g3n_wide_quantize(x: *const f32, k: i64, out: *mut c_void);
    fn g3n_panels_scratch_bytes() -> usize;
    fn g3n_panels_product(
        panels: *const c_void,
        k: i64,
        m: i64,
        a: *const c_void,
        n: i64,
        out: *mut f32,
        out_stride: i64,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
}

/// A matrix `[k, m]` in panels.
#[derive(Clone)]
pub struct Panels {
    bytes: Stored,
    k: usize,
    m: usize,
}

/// Rows of activations for [`Panels`].
#[derive(Clone, Copy)]
pub struct Wide<'b> {
    bytes: Tensor<'b>,
    k: usize,
    rows: usize,
}

impl Panels {
    /// Can rows of k weights be packed on this machine?
    pub fn supports(k: usize) -> bool {
        // SAFETY: looks at its argument only.
        unsafe { g3n_panels_supports(k as i64) != 0 }
    }

    /// Packs a matrix; `rows` gives the values, all of them finite, of so many rows from one on.
    /// `None`: no memory for it.
    ///
    /// # Panics
    /// Such rows are not supported.
    pub fn pack(
        [k, m]: [usize; 2],
        rows: impl Fn(usize, usize) -> Vec<f32> + Sync,
    ) -> Option<Self> {
        assert!(Self::supports(k), "rows of {k}");
        // SAFETY: looks at its argument only.
        let panel = unsafe { g3n_panel_bytes(k as i64) };
        let length = panel.checked_mul(m.div_ceil(ROWS))?;
        let mut bytes = Stored::zeroed(Type::I8, [length, 1, 1, 1])?;
        bytes.bytes_mut().par_chunks_mut(panel).enumerate().for_each(|(i, panel)| {
            let first = i * ROWS;
            let n = ROWS.min(m - first);
            let values = rows(first, n);
            assert_eq!(values.len(), n * k);
            // SAFETY: n rows of k values; the panel has its length, and panels begin at multiples
            // of 64 bytes.
            unsafe {
                g3n_panel_pack(values.as_ptr(), n as i64, k as i64, panel.as_mut_ptr().cast());
            }
        });
        Some(Self { bytes, k, m })
    }

    /// The values that the packed ones stand for, a matrix `[k, m]`.
    pub fn unpacked(&self) -> Vec<f32> {
        // SAFETY: looks at its argument only.
        let panel = unsafe { g3n_panel_bytes(self.k as i64) };
        let mut values = vec![0.0; self.k * self.m];
        let panels = self.bytes.bytes().chunks_exact(panel);
        for (panel, rows) in panels.zip(values.chunks_mut(ROWS * self.k)) {
            let n = (rows.len() / self.k) as i64;
            // SAFETY: a panel with n rows of k values, and memory for so many.
            unsafe {
                g3n_panel_unpack(panel.as_ptr().cast(), n, self.k as i64, rows.as_mut_ptr());
            }
        }
        values
    }

    /// The shape in ggml's order.
    pub fn ne(&self) -> [usize; 2] {
        [self.k, self.m]
    }
}

impl<'b> Tensor<'b> {
    /// Rows `[k, T]` for products with panels.
    pub fn quantize_wide(self) -> Wide<'b> {
        let [k, rows, n2, n3] = self.ne();
        assert!(n2 * n3 == 1 && self.ty() == Type::F32 && Panels::supports(k));
        assert_eq!(self.header().nb[0], size_of::<f32>(), "rows are contiguous");
        let stride = self.header().nb[1] / size_of::<f32>();
        // SAFETY: looks at its argument only.
        let row = unsafe { g3n_wide_row_bytes(k as i64) };
        let bytes = self.b.custom(Type::I8, [row * rows + LINE, 1, 1, 1], &[self], 0, move |run| {
            let out = aligned(run.out());
            for t in (run.ith as usize..rows).step_by(run.nth as usize) {
                // SAFETY: row t of source and node; the node has `rows` rows and a spare line.
                unsafe {
                    let x = run.source(0).add(t * stride);
                    g3n_wide_quantize(x, k as i64, out.add(t * row).cast());
                }
            }
        });
        Wide { bytes, k, rows }
    }

    /// `weightsᵀ · self`: `[m, T]`.
    pub fn product_panels(x: Wide<'b>, weights: &Panels) -> Self {
        assert_eq!(x.k, weights.k, "product of {:?}", weights.ne());
        let b = x.bytes.b;
        let ([k, m], n) = (weights.ne(), x.rows);
        // SAFETY: takes nothing.
        let scratch = unsafe { g3n_panels_scratch_bytes() };
        let panels = b.stored(&weights.bytes);
        b.custom(Type::F32, [m, n, 1, 1], &[panels, x.bytes], scratch, move |run| {
            // SAFETY: m rows of k weights in panels, aligned as all that is stored; n rows of
            // activations, m·n results; the scratch memory is as large as asked for.
            unsafe {
                g3n_panels_product(
                    run.source(0).cast(),
                    k as i64,
                    m as i64,
                    aligned(run.source(1)).cast(),
                    n as i64,
                    run.out(),
                    m as i64,
                    run.own_scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::{Builder, Threads};

    fn value(i: usize) -> f32 {
        let mixed = (i as u32).wrapping_mul(2_654_435_761) ^ 0x9e37;
        (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Against products of the unpacked values, at the edges of panels,
    /// groups of columns and tiles.
    #[test]
    fn products_are_those_of_the_unpacked_values() {
        if !Panels::supports(64) {
            return;
        }
        for (k, m) in [(64, 1), (256, 31), (320, 33), (1536, 96), (576, 80)] {
            let weights: Vec<f32> = (0..k * m).map(value).collect();
            let panels =
                Panels::pack([k, m], |first, n| weights[first * k..(first + n) * k].to_vec());
            let panels = panels.unwrap();
            let unpacked = panels.unpacked();
            let step = 1.0 / 127.0 + 1e-6;
            assert!(unpacked.iter().zip(&weights).all(|(a, b)| (a - b).abs() <= step / 2.0));
            for (n, threads) in [(1, 1), (5, 2), (7, 1), (32, 2), (33, 1), (70, 2), (750, 2)] {
                let mut pool = Threads::new(threads);
                let b = Builder::new(16, &pool);
                let (x, input) = b.input(Type::F32, [k, n, 1, 1]);
                let output = b.output(Tensor::product_panels(x.quantize_wide(), &panels));
                let mut graph = b.finish().unwrap();
                // Whole numbers up to 127 in each group of columns: they are not rounded.
                let whole =
                    |i: usize| if i % k % 64 == 5 { 127.0 } else { (100.0 * value(i)).round() };
                let values: Vec<f32> = (0..k * n).map(whole).collect();
                graph.write(input, &values);
                graph.run(&mut pool).unwrap();
                let found = graph.read(output);
                let dot = |x: &[f32], w: &[f32]| {
                    x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
                };
                let rows = values
                    .chunks_exact(k)
                    .flat_map(|x| unpacked.chunks_exact(k).map(move |w| dot(x, w)));
                let expected: Vec<f32> = rows.collect();
                // Beside what products of such rows are like: one by itself may come out near 0.
                let squares = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>();
                let wrong: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
                let usual = squares(&values) * squares(&unpacked) / k as f64;
                let error = (squares(&wrong) / usual).sqrt();
                assert!(error < 1e-6, "{k} x {m}, {n} rows: {error}");
            }
        }
    }
}
