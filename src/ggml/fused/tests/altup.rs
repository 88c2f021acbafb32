//! AltUp's predict and correct, and what is added to its streams.

use std::ffi::c_int;
use std::ptr::null;

use super::*;

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
