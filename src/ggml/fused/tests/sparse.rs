//! The Gaussian top-k layers: cutoff, gate, and the product of the survivors alone.

use std::ffi::c_int;

use super::super::super::products;
use super::*;

/// Gates of which about one in twenty passes, and the z of 0.95.
struct Gates {
    n_ff: usize,
    n_tokens: usize,
    gate: Vec<f32>,
    cutoff: Vec<f32>,
}

const Z: f32 = 1.644_853_6;

impl Gates {
    fn new(n_ff: usize, n_tokens: usize, scale: f32) -> Self {
        let gate: Vec<f32> = (0..12)
            .map(|seed| values(40 + seed, n_ff * n_tokens, scale))
            .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect())
            .unwrap();
        let gate: Vec<f32> = gate.iter().map(|g| g + scale).collect();
        let cutoff = every_split(&unwritten(n_tokens), |out, ith, nth| {
            // SAFETY: `gate` is [n_ff, n_tokens], `out` has a value a token.
            unsafe {
                g3n_topk_cutoff(gate.as_ptr(), n_ff as i64, n_tokens as i64, Z, out, ith, nth);
            }
        });
        Self { n_ff, n_tokens, gate, cutoff }
    }

    /// The formula, from the kernel's own cutoffs (these are compared by themselves).
    fn gated(&self, up: &[f64]) -> Vec<f64> {
        (0..self.gate.len())
            .map(|i| {
                let shifted = f64::from(self.gate[i]) - f64::from(self.cutoff[i / self.n_ff]);
                gelu(shifted.max(0.0)) * up[i]
            })
            .collect()
    }
}

const FF_SIZES: [(usize, usize); 7] =
    [(64, 1), (100, 2), (1000, 7), (333, 33), (8192, 1), (8192, 9), (130, 300)];

#[test]
fn topk_cutoff_is_mean_and_biased_deviation() {
    for (n_ff, n_tokens) in FF_SIZES {
        for scale in [1e-20, 1.0, 1e15] {
            let gates = Gates::new(n_ff, n_tokens, scale);
            let want: Vec<f64> = gates
                .gate
                .chunks(n_ff)
                .map(|g| {
                    let (g, n) = (wide(g), n_ff as f64);
                    let mean = g.iter().sum::<f64>() / n;
                    let variance = g.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / n;
                    mean + f64::from(Z) * variance.sqrt()
                })
                .collect();
            // The squares of 1e-20 are below f32's range, in the reference too.
            let tolerance = if scale < 1e-19 { 2.0 } else { 1e-6 };
            assert_close("cutoff", &gates.cutoff, &want, 1, tolerance);
        }
    }
}

#[test]
fn topk_gelu_mul_equals_its_formula() {
    for (n_ff, n_tokens) in FF_SIZES {
        let gates = Gates::new(n_ff, n_tokens, 1.0);
        let up = values(60, n_ff * n_tokens, 2.0);
        let got = every_split(&unwritten(up.len()), |out, ith, nth| {
            let (gate, cutoff) = (gates.gate.as_ptr(), gates.cutoff.as_ptr());
            let (n_ff, n_tokens) = (n_ff as i64, n_tokens as i64);
            // SAFETY: three arrays of [n_ff, n_tokens] and a cutoff a token.
            unsafe {
                g3n_topk_gelu_mul(gate, up.as_ptr(), cutoff, n_ff, n_tokens, out, ith, nth);
            }
        });
        assert_close("gated", &got, &gates.gated(&wide(&up)), n_ff, 1e-6);
        let kept = got.iter().filter(|v| **v != 0.0).count() as f64 / got.len() as f64;
        assert!((0.01..0.12).contains(&kept), "{kept} survive");
    }
}

#[derive(Clone, Copy)]
enum Weights {
    F32,
    F16,
    Bf16,
}

fn sparse_gated_up<A>(gates: &Gates, w: &[u8], ty: c_int, k: usize, a: &[A]) -> Vec<f32> {
    let (n_ff, n_tokens) = (gates.n_ff as i64, gates.n_tokens as i64);
    let w_stride = (w.len() / gates.n_ff) as i64;
    every_split(&unwritten(gates.gate.len()), |out, ith, nth| {
        // SAFETY: only sizes are looked at.
        let bytes = unsafe { g3n_sparse_scratch_bytes(n_ff, n_tokens) };
        let mut scratch = vec![0u32; bytes as usize / 4];
        // SAFETY: `w` holds n_ff rows of k weights of type `ty`, `a` n_tokens rows for them.
        unsafe {
            g3n_sparse_gated_up(
                ty,
                w.as_ptr().cast(),
                w_stride,
                k as i64,
                n_ff,
                gates.gate.as_ptr(),
                gates.cutoff.as_ptr(),
                a.as_ptr().cast(),
                (size_of_val(a) / gates.n_tokens) as i64,
                n_tokens,
                out,
                scratch.as_mut_ptr().cast(),
                ith,
                nth,
            );
        }
    })
}

fn dense(w: &[f32], a: &[f32], k: usize) -> Vec<f64> {
    let dot = |w: &[f32], a: &[f32]| {
        w.iter().zip(a).map(|(w, a)| f64::from(*w) * f64::from(*a)).sum::<f64>()
    };
    a.chunks(k).flat_map(|a| w.chunks(k).map(move |w| dot(w, a))).collect()
}

#[test]
fn sparse_gated_up_equals_the_dense_product_for_float_weights() {
    for (n_ff, n_tokens) in FF_SIZES {
        for (kind, ty) in [(Weights::F32, 0), (Weights::F16, 1), (Weights::Bf16, 30)] {
            let (k, gates) = (37, Gates::new(n_ff, n_tokens, 1.0));
            let (w, a) = (values(70, k * n_ff, 1.0), values(71, k * n_tokens, 2.0));
            let f16 = |v: &f32| half::f16::from_f32(*v);
            let bf16 = |v: &f32| half::bf16::from_f32(*v);
            let (bytes, w): (Vec<u8>, Vec<f32>) = match kind {
                Weights::F32 => (w.iter().flat_map(|v| v.to_le_bytes()).collect(), w),
                Weights::F16 => (
                    w.iter().flat_map(|v| f16(v).to_le_bytes()).collect(),
                    w.iter().map(|v| f16(v).to_f32()).collect(),
                ),
                Weights::Bf16 => (
                    w.iter().flat_map(|v| bf16(v).to_le_bytes()).collect(),
                    w.iter().map(|v| bf16(v).to_f32()).collect(),
                ),
            };
            let got = sparse_gated_up(&gates, &bytes, ty, k, &a);
            assert_close("sparse", &got, &gates.gated(&dense(&w, &a, k)), n_ff, 2e-6);
        }
    }
}

/// Activations are whole numbers up to 127, one of each block: then 8 bits lose nothing.
#[test]
fn sparse_gated_up_equals_the_dense_product_for_quantized_weights() {
    const Q4_0: c_int = 2;
    let k = 64;
    for (n_ff, n_tokens) in FF_SIZES {
        let gates = Gates::new(n_ff, n_tokens, 1.0);
        let mut a: Vec<f32> = values(74, k * n_tokens, 127.0).iter().map(|v| v.round()).collect();
        a.iter_mut().step_by(32).for_each(|v| *v = 127.0);
        // SAFETY: looks at its argument only.
        let row_bytes = unsafe { products::g3n_q8_row_bytes(k as i64) };
        let mut rows = vec![0u8; row_bytes * n_tokens + 64];
        let aligned = rows.as_ptr().align_offset(64);
        let rows = &mut rows[aligned..][..row_bytes * n_tokens];
        for (row, a) in rows.chunks_mut(row_bytes).zip(a.chunks(k)) {
            // SAFETY: a row of k values and room for its bytes.
            unsafe { products::g3n_q8_quantize(a.as_ptr(), k as i64, row.as_mut_ptr().cast()) };
        }
        let quants: Vec<u8> =
            values(75, k * n_ff, 8.0).iter().map(|v| (v.floor() + 8.0) as u8).collect();
        let mut bytes = Vec::new();
        let mut w = vec![0.0; k * n_ff];
        for (block, (w, q)) in w.chunks_mut(32).zip(quants.chunks(32)).enumerate() {
            let scale = half::f16::from_f32(0.01 * (block % 7 + 1) as f32);
            bytes.extend(scale.to_le_bytes());
            bytes.extend((0..16).map(|i| q[i] | q[i + 16] << 4));
            w.iter_mut().zip(q).for_each(|(w, &q)| *w = scale.to_f32() * (f32::from(q) - 8.0));
        }
        let got = sparse_gated_up(&gates, &bytes, Q4_0, k, rows);
        assert_close("sparse", &got, &gates.gated(&dense(&w, &a, k)), n_ff, 2e-6);
    }
}

#[test]
fn sparse_gated_up_shows_nan_and_copes_with_all_or_none_surviving() {
    for n_tokens in [1, 20] {
        let (n_ff, k) = (70, 8);
        let (w, a) = (values(72, k * n_ff, 1.0), values(73, k * n_tokens, 1.0));
        let bytes: Vec<u8> = w.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut gates = Gates::new(n_ff, n_tokens, 1.0);
        for (cutoff, kept) in [(1e30, 0), (-1e30, n_ff * n_tokens), (-3.0, n_ff * n_tokens)] {
            gates.cutoff.fill(cutoff);
            let got = sparse_gated_up(&gates, &bytes, 0, k, &a);
            if cutoff == -1e30 {
                assert_eq!(got.iter().filter(|v| v.abs() > 1e20).count(), kept);
            } else {
                assert_close("sparse", &got, &gates.gated(&dense(&w, &a, k)), n_ff, 2e-6);
            }
        }
        gates.cutoff.fill(f32::NAN);
        assert!(sparse_gated_up(&gates, &bytes, 0, k, &a).iter().all(|v| v.is_nan()));
    }
}
