//! Every type, number of tokens and split over threads against f64 sums over what ggml reads in the
//! packed weights.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::ggml::quantize;

/// Types of the kernel, by ggml's numbers.
const TYPES: [u32; 15] = [0, 1, 30, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23];

/// Weights `[E, F]` as a file holds them, and the values that they stand for.
struct Weights {
    ty: Type,
    n_embd: usize,
    packed: Vec<u8>,
    values: Vec<f32>,
}

impl Weights {
    fn new(id: u32, n_embd: usize, n_ff: usize) -> Self {
        let ty = Type::weight_from_id(id).unwrap();
        let mut values = random(u64::from(id), n_embd * n_ff);
        let packed = quantize(ty, &values, n_embd).unwrap();
        ty.to_f32(&packed, &mut values);
        Self { ty, n_embd, packed, values }
    }

    fn expected(&self, act: &[f32], n_ff: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for act in act.chunks(n_ff) {
            let mut sums = vec![0.0; self.n_embd];
            for (&a, row) in act.iter().zip(self.values.chunks(self.n_embd)) {
                for (sum, &w) in sums.iter_mut().zip(row) {
                    *sum += f64::from(a) * f64::from(w);
                }
            }
            out.extend(sums);
        }
        out
    }
}

fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Activations of which so many of a thousand are not zero.
fn sparse(seed: u64, n: usize, per_mille: u32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xff);
    let keep = |x: f32| if rng.random_range(0..1000) < per_mille { x } else { 0.0 };
    random(seed, n).into_iter().map(keep).collect()
}

/// The product with 1 to 4 threads one after the other, last first; all the same to the bit.
fn product(w: &Weights, act: &[f32], n_ff: usize) -> Vec<f32> {
    let tokens = act.len() / n_ff;
    let (n_embd, f, t) = (w.n_embd as i64, n_ff as i64, tokens as i64);
    let results: Vec<Vec<f32>> = (1..=4)
        .map(|nth| {
            // SAFETY: look at their arguments only.
            let (list, scratch) =
                unsafe { (g3n_survivors_len(f), g3n_neurons_scratch_bytes(n_embd, t)) };
            let mut lists = vec![-1i32; list as usize * tokens];
            let mut scratch = vec![f32::NAN; scratch as usize / 4 + 1];
            let mut out = vec![f32::NAN; w.n_embd * tokens];
            for ith in (0..nth).rev() {
                // SAFETY: T rows of F activations and as many lists.
                unsafe { g3n_survivors(act.as_ptr(), f, t, lists.as_mut_ptr(), ith, nth) };
            }
            for ith in (0..nth).rev() {
                // SAFETY: F rows of E weights of the type, T lists, E·T results.
                unsafe {
                    g3n_neurons_product(
                        w.ty.raw() as i32,
                        w.packed.as_ptr().cast(),
                        (w.packed.len() / n_ff) as i64,
                        n_embd,
                        f,
                        lists.as_ptr(),
                        t,
                        out.as_mut_ptr(),
                        scratch.as_mut_ptr().cast(),
                        ith,
                        nth,
                    );
                }
            }
            out
        })
        .collect();
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for result in &results {
        assert_eq!(bits(&results[0]), bits(result), "{} differs between threads", w.ty);
    }
    results.into_iter().next().unwrap()
}

/// Within f32's rounding of the sums, relative to the largest of each token's.
fn assert_close(what: &str, got: &[f32], want: &[f64], n_embd: usize) {
    assert_eq!(got.len(), want.len());
    for (t, (got, want)) in got.chunks(n_embd).zip(want.chunks(n_embd)).enumerate() {
        let size = want.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
        for (e, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(g) - w).abs() / size;
            assert!(error <= 3e-6, "{what}, token {t}, column {e}: {g} for {w}");
        }
    }
}

#[test]
fn every_type_equals_the_sum_over_its_own_values() {
    for id in TYPES {
        for (n_embd, n_ff) in [(256, 64), (768, 700), (2048, 33)] {
            let w = Weights::new(id, n_embd, n_ff);
            for tokens in [1, 2, 3, 7, 65] {
                let act = sparse(tokens as u64, n_ff * tokens, 60);
                let got = product(&w, &act, n_ff);
                let what = format!("{}, {n_embd} x {n_ff}, {tokens} tokens", w.ty);
                assert_close(&what, &got, &w.expected(&act, n_ff), n_embd);
            }
        }
    }
}

#[test]
fn odd_widths_of_floats_and_of_short_blocks() {
    for id in [0, 1, 30] {
        for n_embd in [1, 7, 24, 33, 130] {
            let w = Weights::new(id, n_embd, 37);
            for tokens in [1, 5] {
                let act = sparse(9, 37 * tokens, 300);
                let what = format!("{}, {n_embd}, {tokens} tokens", w.ty);
                assert_close(&what, &product(&w, &act, 37), &w.expected(&act, 37), n_embd);
            }
        }
    }
    let w = Weights::new(2, 96, 40);
    let act = sparse(10, 40 * 6, 300);
    assert_close("q4_0 of 96", &product(&w, &act, 40), &w.expected(&act, 40), 96);
}

/// A batch's results are its tokens' own, to the bit.
#[test]
fn tokens_together_are_as_tokens_alone() {
    for id in TYPES {
        let (n_embd, n_ff) = (512, 600);
        let w = Weights::new(id, n_embd, n_ff);
        let act = sparse(20, n_ff * 70, 50);
        let together = product(&w, &act, n_ff);
        let alone: Vec<f32> = act.chunks(n_ff).flat_map(|act| product(&w, act, n_ff)).collect();
        assert_eq!(together, alone, "{}", w.ty);
    }
}

#[test]
fn none_and_all_survive_and_what_is_not_a_number_shows() {
    let w = Weights::new(2, 64, 100);
    for tokens in [1, 9] {
        assert!(product(&w, &vec![0.0; 100 * tokens], 100).iter().all(|&x| x == 0.0));
        let act = sparse(30, 100 * tokens, 1000);
        assert_close("all", &product(&w, &act, 100), &w.expected(&act, 100), 64);
        let mut act = vec![0.0; 100 * tokens];
        act[99] = f32::NAN;
        let got = product(&w, &act, 100);
        assert!(got[..64].iter().all(|x| x.is_nan()) && got[64..].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn what_has_no_kernel_is_known() {
    let supports = |id: u32, n_embd| {
        // SAFETY: looks at its arguments only.
        unsafe { g3n_neurons_supports(id as i32, n_embd) != 0 }
    };
    assert!(TYPES.iter().all(|&id| supports(id, 256)));
    assert!(supports(0, 1) && !supports(2, 48) && !supports(12, 128) && !supports(0, 0));
    // IQ2_XXS and I32
    assert!(!supports(16, 256) && !supports(26, 256));
}
