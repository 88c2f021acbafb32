//! Each kernel against the same formula in plain f64, at odd sizes, for every split over threads.

use std::ptr::{null, null_mut};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

mod altup;
mod attention;
mod sparse;

const EPS: f32 = 1e-6;
const SIZES: [(usize, usize); 6] = [(32, 1), (100, 2), (100, 7), (33, 33), (2048, 1), (2048, 3)];

fn values(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-scale..scale)).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Runs a kernel with 1 to 4 threads, one after the other and last first, on a copy of `start`.
/// All results must be the same to the bit.
fn every_split(start: &[f32], run: impl Fn(*mut f32, c_int, c_int)) -> Vec<f32> {
    let results: Vec<Vec<f32>> = (1..=4)
        .map(|nth| {
            let mut out = start.to_vec();
            for ith in (0..nth).rev() {
                run(out.as_mut_ptr(), ith, nth);
            }
            out
        })
        .collect();
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for (result, nth) in results.iter().zip(1..) {
        assert_eq!(bits(&results[0]), bits(result), "{nth} threads");
    }
    results.into_iter().next().unwrap()
}

fn unwritten(n: usize) -> Vec<f32> {
    vec![f32::NAN; n]
}

/// Within `tolerance` of the largest expected value of each row of `width`.
fn assert_close(what: &str, got: &[f32], want: &[f64], width: usize, tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (row, (got, want)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
        let size = want.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(g) - w).abs() / size;
            assert!(
                error <= tolerance,
                "{what}, row {row}, value {i}: {g} for {w}, error {error:e}"
            );
        }
    }
}

/// `RMS(x; w)`, with no weight for an empty `w`.
fn rms(x: &[f64], w: &[f64]) -> Vec<f64> {
    let factor =
        1.0 / (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + f64::from(EPS)).sqrt();
    x.iter().enumerate().map(|(i, v)| v * factor * w.get(i).unwrap_or(&1.0)).collect()
}

fn gelu(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    // 1 + tanh(u), written so that it doesn't cancel.
    x / (1.0 + (-2.0 * u).exp())
}

#[test]
fn rms_norm_equals_its_formula_with_strides_and_extremes() {
    for (width, rows) in SIZES {
        for scale in [0.0, 1e-20, 1.0, 1e15] {
            let stride = width + 5;
            let x: Vec<f32> = values(11, stride * rows, 1.0).iter().map(|v| v * scale).collect();
            for w in [Vec::new(), values(12, width, 2.0)] {
                let got = every_split(&unwritten(width * rows), |out, ith, nth| {
                    let w = if w.is_empty() { null() } else { w.as_ptr() };
                    let (stride, width) = (stride as i64, width as i64);
                    // SAFETY: `rows` rows of `width` at their strides lie in `x` and `out`.
                    unsafe {
                        let rows = rows as i64;
                        g3n_rms_norm(x.as_ptr(), stride, w, EPS, width, rows, out, width, ith, nth);
                    }
                });
                let want: Vec<f64> =
                    x.chunks(stride).flat_map(|r| rms(&wide(&r[..width]), &wide(&w))).collect();
                assert_close("rms", &got, &want, width, 1e-6);
            }
        }
    }
}

/// The reference squares in f32: what overflows there is divided away to 0, not to NaN.
#[test]
fn rms_norm_of_squares_beyond_f32_is_zero_as_in_the_reference() {
    let x = [1e20_f32; 40];
    let mut out = unwritten(40);
    // SAFETY: one row of 40 values.
    unsafe { g3n_rms_norm(x.as_ptr(), 40, null(), EPS, 40, 1, out.as_mut_ptr(), 40, 0, 1) };
    assert_eq!(out, vec![0.0; 40]);
}

#[test]
fn residuals_equal_their_formulas() {
    for (width, tokens) in SIZES {
        let n = width * tokens;
        let [x, attn, h, laurel] = [20, 21, 22, 23].map(|seed| values(seed, n, seed as f32));
        let [wa, wl, wf] = [24, 25, 26].map(|seed| values(seed, width, 2.0));
        let got = every_split(&unwritten(2 * n), |out, ith, nth| {
            // SAFETY: all rows hold `n` values, `out` twice as many.
            unsafe {
                g3n_residual(
                    x.as_ptr(),
                    attn.as_ptr(),
                    wa.as_ptr(),
                    h.as_ptr(),
                    laurel.as_ptr(),
                    wl.as_ptr(),
                    wf.as_ptr(),
                    EPS,
                    tokens as i64,
                    width as i64,
                    out,
                    out.add(n),
                    ith,
                    nth,
                );
            }
        });
        let act = every_split(&unwritten(n), |out, ith, nth| {
            let (y, tokens, width) = (got.as_ptr(), tokens as i64, width as i64);
            // SAFETY: `got` starts with `n` values of y; the others hold `n`.
            unsafe {
                g3n_ffn_residual(
                    y,
                    laurel.as_ptr(),
                    wl.as_ptr(),
                    EPS,
                    tokens,
                    width,
                    out,
                    ith,
                    nth,
                );
            }
        });
        let (mut want_y, mut want_n, mut want_act) = (Vec::new(), Vec::new(), Vec::new());
        for t in 0..tokens {
            let row = |v: &[f32]| wide(&v[t * width..][..width]);
            let (a, l) = (rms(&row(&attn), &wide(&wa)), rms(&row(&laurel), &wide(&wl)));
            let y: Vec<f64> = (0..width)
                .map(|e| ((row(&x)[e] + a[e]) + (row(&h)[e] + l[e])) / 2f64.sqrt())
                .collect();
            want_n.extend(rms(&y, &wide(&wf)));
            want_act.extend(y.iter().zip(&l).map(|(y, l)| y + l));
            want_y.extend(y);
        }
        assert_close("y", &got[..n], &want_y, width, 1e-6);
        assert_close("n", &got[n..], &want_n, width, 1e-6);
        assert_close("act", &act, &want_act, width, 1e-6);
    }
}

/// Many magnitudes of both signs, dense around 0.
fn many_inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.005).collect();
    for e in -140..128 {
        x.extend([2f64.powi(e) as f32, -1.3 * 2f64.powi(e) as f32]);
    }
    x.extend([0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 8.999, -8.999, 9.001, -9.001]);
    x
}

fn gelu_mul(g: &[f32], u: &[f32], u_stride: usize, width: usize) -> Vec<f32> {
    let rows = (g.len() / width) as i64;
    every_split(&unwritten(g.len()), |out, ith, nth| {
        // SAFETY: `rows` rows of `width` values at their strides.
        unsafe {
            let (stride, width) = (u_stride as i64, width as i64);
            g3n_gelu_mul(g.as_ptr(), u.as_ptr(), stride, width, rows, out, ith, nth);
        }
    })
}

#[test]
fn gelu_is_exact_for_all_inputs() {
    let x = many_inputs();
    let got = gelu_mul(&x, &vec![1.0; x.len()], x.len(), x.len());
    for (&x, &y) in x.iter().zip(&got) {
        let want = gelu(f64::from(x));
        let error = (f64::from(y) - want).abs();
        // Relative, but where 1 + tanh vanishes the rounding of a large exponent counts.
        let floor = if x < -3.0 { 2e-9 } else { 3e-45 };
        assert!(error <= 1e-6 * want.abs() + floor, "gelu({x}): {y} for {want:e}");
    }
}

#[test]
fn gelu_of_what_is_not_finite() {
    let x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
    let y = gelu_mul(&x, &[1.0; 4], 4, 4);
    assert_eq!(y[0], f32::INFINITY);
    assert_eq!(y[1], 0.0);
    assert!(y[2].is_nan());
    assert!((y[3] - 0.841192).abs() < 1e-6);
}

#[test]
fn gelu_mul_takes_rows_of_a_wider_table() {
    for (width, rows) in SIZES {
        let (g, u) = (values(30, width * rows, 4.0), values(31, (width + 3) * rows, 2.0));
        let got = gelu_mul(&g, &u, width + 3, width);
        let want: Vec<f64> = (0..width * rows)
            .map(|i| gelu(f64::from(g[i])) * f64::from(u[i / width * (width + 3) + i % width]))
            .collect();
        assert_close("gelu * u", &got, &want, width, 1e-6);
    }
}

#[test]
fn softcap_is_exact_for_all_inputs() {
    let x = many_inputs();
    for cap in [30.0_f32, 1.0, 0.3] {
        let got = every_split(&unwritten(x.len()), |out, ith, nth| {
            // SAFETY: both hold as many values as `x`.
            unsafe { g3n_softcap(x.as_ptr(), cap, x.len() as i64, out, ith, nth) };
        });
        for (&x, &y) in x.iter().zip(&got) {
            let want = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
            // Below 1e-38 an f32 has whole steps of 1.4e-45, and x / cap is rounded to one.
            let error = (f64::from(y) - want).abs();
            assert!(error <= 5e-7 * want.abs() + 1e-43, "softcap({x}, {cap}): {y} for {want:e}");
        }
    }
    let mut edge = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let x = edge.as_mut_ptr();
    // SAFETY: three values, in place.
    unsafe { g3n_softcap(x, 30.0, 3, x, 0, 1) };
    assert_eq!(edge[..2], [30.0, -30.0]);
    assert!(edge[2].is_nan());
}

#[test]
fn qk_norm_rope_equals_its_formula() {
    for (d, n_heads, n_tokens) in [(256, 8, 1), (32, 3, 7), (10, 1, 2), (64, 2, 33)] {
        let len = d * n_heads * n_tokens;
        let x = values(80, len, 5.0);
        let angles = values(81, d / 2 * n_tokens, 3.0);
        let cosines: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        let sines: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        for w in [Vec::new(), values(82, d, 2.0)] {
            let got = every_split(&x, |out, ith, nth| {
                let w = if w.is_empty() { null() } else { w.as_ptr() };
                let (c, s) = (cosines.as_ptr(), sines.as_ptr());
                let (d, n_heads, n_tokens) = (d as i64, n_heads as i64, n_tokens as i64);
                // SAFETY: `out` is [d, n_heads, n_tokens], in place; tables [d/2, n_tokens].
                unsafe {
                    g3n_qk_norm_rope(out, w, EPS, c, s, d, n_heads, n_tokens, out, ith, nth);
                }
            });
            let mut want = Vec::new();
            for (row, head) in x.chunks(d).enumerate() {
                let v = rms(&wide(head), &wide(&w));
                let at = |i: usize| row / n_heads * (d / 2) + i;
                let (c, s) = (|i| f64::from(cosines[at(i)]), |i| f64::from(sines[at(i)]));
                want.extend((0..d / 2).map(|i| v[i] * c(i) - v[i + d / 2] * s(i)));
                want.extend((0..d / 2).map(|i| v[i + d / 2] * c(i) + v[i] * s(i)));
            }
            assert_close("rope", &got, &want, d, 1e-6);
        }
    }
}

#[test]
fn nothing_happens_for_no_tokens() {
    // SAFETY: with no tokens nothing is read or written.
    unsafe {
        let (p, q) = (null(), null_mut());
        g3n_altup_predict(p, 0, 32, 4, 0, p, p, p, EPS, q, 0, 2);
        g3n_rms_norm(p, 32, p, EPS, 32, 0, q, 32, 1, 2);
        g3n_topk_cutoff(p, 32, 0, 1.6, q, 0, 1);
        g3n_softcap(p, 30.0, 0, q, 1, 2);
    }
}
