//! Each kernel against the same formula in plain f64, at odd sizes, for every split over threads.

use std::ptr::{null, null_mut};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

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

struct AltUp {
    n_embd: usize,
    n_tokens: usize,
    n_streams: usize,
    active: usize,
    router_norm: Vec<f32>,
    router: Vec<f32>,
    predict: Vec<f32>,
    correct: Vec<f32>,
}

impl AltUp {
    fn all() -> impl Iterator<Item = Self> {
        SIZES.into_iter().zip([4, 2, 3, 4, 4, 5]).flat_map(|((n_embd, n_tokens), n)| {
            [0, 1].map(|active| Self {
                n_embd,
                n_tokens,
                n_streams: n,
                active,
                router_norm: values(1, n_embd, 2.0),
                router: values(2, n * n_embd, 3.0),
                predict: values(3, n * n * n, 0.5),
                correct: values(4, n * n, 0.5),
            })
        })
    }

    fn len(&self) -> usize {
        self.n_embd * self.n_tokens * self.n_streams
    }

    fn row<'a>(&self, s: &'a [f32], stream: usize, token: usize) -> &'a [f32] {
        &s[(stream * self.n_tokens + token) * self.n_embd..][..self.n_embd]
    }

    fn route(&self, x: &[f32]) -> Vec<f64> {
        let normed = rms(&wide(x), &wide(&self.router_norm));
        let row = |w: &[f32]| {
            let dot: f64 = normed.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum();
            (dot / self.n_embd as f64).tanh()
        };
        self.router.chunks(self.n_embd).map(row).collect()
    }

    fn coefs(&self, table: &[f32], x: &[f32]) -> Vec<f64> {
        let r = self.route(x);
        let row = |c: &[f32]| c.iter().zip(&r).map(|(c, r)| f64::from(*c) * r).sum();
        table.chunks(self.n_streams).map(row).collect()
    }

    fn predicted(&self, s: &[f32]) -> Vec<f64> {
        let mut want = vec![0.0; self.len()];
        for t in 0..self.n_tokens {
            let c = self.coefs(&self.predict, self.row(s, self.active, t));
            for i in 0..self.n_streams {
                for e in 0..self.n_embd {
                    let at = |stream: usize| f64::from(self.row(s, stream, t)[e]);
                    let sum: f64 =
                        (0..self.n_streams).map(|j| c[i * self.n_streams + j] * at(j)).sum();
                    want[(i * self.n_tokens + t) * self.n_embd + e] = at(i) + sum;
                }
            }
        }
        want
    }

    fn run_predict(&self, s: *const f32, pred: *mut f32, ith: c_int, nth: c_int) {
        // SAFETY: `s` and `pred` hold `self.len()` floats, the weights have the sizes of `all`.
        unsafe {
            g3n_altup_predict(
                s,
                self.n_tokens as i64,
                self.n_embd as i64,
                self.n_streams as c_int,
                self.active as c_int,
                self.router_norm.as_ptr(),
                self.router.as_ptr(),
                self.predict.as_ptr(),
                EPS,
                pred,
                ith,
                nth,
            );
        }
    }
}

#[test]
fn altup_predict_equals_its_formula() {
    for case in AltUp::all() {
        for scale in [1.0, 1e-20, 1e15] {
            let s = values(5, case.len(), scale);
            let got = every_split(&unwritten(case.len()), |out, ith, nth| {
                case.run_predict(s.as_ptr(), out, ith, nth);
            });
            assert_close("predict", &got, &case.predicted(&s), case.n_embd, 1e-6);
        }
    }
}

#[test]
fn altup_predict_may_write_over_its_streams_with_one_thread_a_token() {
    for case in AltUp::all() {
        let s = values(5, case.len(), 1.0);
        let mut got = s.clone();
        let out = got.as_mut_ptr();
        case.run_predict(out, out, 0, 1);
        assert_close("predict in place", &got, &case.predicted(&s), case.n_embd, 1e-6);
    }
}

#[test]
fn altup_correct_equals_its_formula() {
    for case in AltUp::all() {
        let (n, len) = (case.n_embd * case.n_tokens, case.len());
        let (pred, act) = (values(6, len, 1.0), values(7, n, 2.0));
        for scale in [Vec::new(), values(8, case.n_embd, 2.0)] {
            // Streams and the scaled row in one buffer; the streams start as the prediction.
            let start = [pred.clone(), unwritten(n)].concat();
            let got = every_split(&start, |out, ith, nth| {
                let scale = if scale.is_empty() { null() } else { scale.as_ptr() };
                // SAFETY: `out` holds the streams (also read: out may be pred) and then the row.
                unsafe {
                    g3n_altup_correct(
                        out,
                        act.as_ptr(),
                        case.n_tokens as i64,
                        case.n_embd as i64,
                        case.n_streams as c_int,
                        case.active as c_int,
                        case.router_norm.as_ptr(),
                        case.router.as_ptr(),
                        case.correct.as_ptr(),
                        scale,
                        EPS,
                        out,
                        out.add(len),
                        ith,
                        nth,
                    );
                }
            });
            let mut want = vec![0.0; len + n];
            for t in 0..case.n_tokens {
                let b = case.coefs(&case.correct, &act[t * case.n_embd..][..case.n_embd]);
                for e in 0..case.n_embd {
                    let old = f64::from(case.row(&pred, case.active, t)[e]);
                    let innovation = f64::from(act[t * case.n_embd + e]) - old;
                    for i in 0..case.n_streams {
                        want[(i * case.n_tokens + t) * case.n_embd + e] =
                            f64::from(case.row(&pred, i, t)[e]) + (b[i] + 1.0) * innovation;
                    }
                    let factor = scale.get(e).map_or(1.0, |&s| f64::from(s));
                    want[len + t * case.n_embd + e] =
                        (old + (b[case.active] + 1.0) * innovation) * factor;
                }
            }
            assert_close("correct", &got, &want, case.n_embd, 1e-6);
        }
    }
}

#[test]
fn add_to_streams_leaves_stream_0_alone() {
    for case in AltUp::all() {
        let s = values(9, case.len(), 1.0);
        let row = values(10, case.n_embd * case.n_tokens, 3.0);
        let got = every_split(&s, |out, ith, nth| {
            // SAFETY: `out` holds the streams, `row` a value a token and element.
            unsafe {
                g3n_add_to_streams(
                    out,
                    row.as_ptr(),
                    case.router_norm.as_ptr(),
                    EPS,
                    case.n_tokens as i64,
                    case.n_embd as i64,
                    case.n_streams as c_int,
                    ith,
                    nth,
                );
            }
        });
        let normed: Vec<f64> =
            row.chunks(case.n_embd).flat_map(|r| rms(&wide(r), &wide(&case.router_norm))).collect();
        let n = normed.len();
        let want: Vec<f64> = (0..case.len())
            .map(|at| f64::from(s[at]) + if at < n { 0.0 } else { normed[at % n] })
            .collect();
        assert_close("add", &got, &want, case.n_embd, 1e-6);
    }
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

const FF_SIZES: [(usize, usize); 6] =
    [(64, 1), (100, 2), (1000, 7), (333, 33), (8192, 1), (130, 300)];

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

fn sparse_gated_up(gates: &Gates, w: &[u8], ty: c_int, k: usize, a: &[f32]) -> Vec<f32> {
    let (n_ff, n_tokens) = (gates.n_ff as i64, gates.n_tokens as i64);
    let w_stride = (w.len() / gates.n_ff) as i64;
    every_split(&unwritten(gates.gate.len()), |out, ith, nth| {
        // SAFETY: only sizes are looked at.
        let bytes = unsafe { g3n_sparse_scratch_bytes(n_ff, n_tokens) };
        let mut scratch = vec![0u32; bytes as usize / 4];
        // SAFETY: `w` holds n_ff rows of k weights of type `ty`, `a` n_tokens rows of k floats.
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
                4 * k as i64,
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
        g3n_topk_cutoff(p, 32, 0, Z, q, 0, 1);
        g3n_softcap(p, 30.0, 0, q, 1, 2);
    }
}

/// The products' own kernels stand here until they are linked.
#[unsafe(no_mangle)]
extern "C" fn g3n_gather_dots() {
    unreachable!("float weights only");
}

#[unsafe(no_mangle)]
extern "C" fn g3n_row_dots() {
    unreachable!("float weights only");
}
