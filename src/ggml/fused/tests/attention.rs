//! Attention over a cache of each type, with holes in the mask.

use std::ffi::c_int;

use half::f16;

use super::*;

struct Case {
    d: usize,
    heads: usize,
    kv_heads: usize,
    tokens: usize,
    slots: usize,
}

const CASES: [Case; 6] = [
    Case { d: 256, heads: 8, kv_heads: 2, tokens: 1, slots: 300 },
    Case { d: 32, heads: 4, kv_heads: 2, tokens: 7, slots: 70 },
    Case { d: 96, heads: 6, kv_heads: 2, tokens: 3, slots: 130 },
    Case { d: 64, heads: 5, kv_heads: 1, tokens: 33, slots: 200 },
    Case { d: 32, heads: 3, kv_heads: 3, tokens: 2, slots: 1 },
    Case { d: 32, heads: 12, kv_heads: 2, tokens: 19, slots: 64 },
];

/// K or V as it lies in the cache, and the floats that it stands for.
struct Stored {
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

const F32: c_int = 0;
const F16: c_int = 1;
const Q8_0: c_int = 8;

fn stored(ty: c_int, x: &[f32]) -> Stored {
    let mut bytes = Vec::new();
    let mut floats = Vec::new();
    for block in x.chunks(32) {
        // A scale that 127 quants span; quants are rounded, as in the format.
        let scale = f16::from_f32(block.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0);
        if ty == Q8_0 {
            bytes.extend(scale.to_le_bytes());
        }
        for &v in block {
            match ty {
                F32 => {
                    bytes.extend(v.to_le_bytes());
                    floats.push(v);
                }
                F16 => {
                    bytes.extend(f16::from_f32(v).to_le_bytes());
                    floats.push(f16::from_f32(v).to_f32());
                }
                _ => {
                    let quant = (v / scale.to_f32()).round() as i8;
                    bytes.extend(quant.to_le_bytes());
                    floats.push(f32::from(quant) * scale.to_f32());
                }
            }
        }
    }
    Stored { bytes, floats }
}

impl Case {
    fn run(&self, ty: c_int, q: &[f32], k: &Stored, v: &Stored, mask: &[f16]) -> Vec<f32> {
        every_split(&unwritten(q.len()), |out, ith, nth| {
            // SAFETY: only the size is looked at.
            let bytes = unsafe { g3n_attention_scratch_bytes(self.d as i64) };
            let mut scratch = vec![0u32; bytes as usize / 4];
            // SAFETY: all arrays have the sizes of the case; a row of the cache follows another.
            unsafe {
                g3n_attention(
                    q.as_ptr(),
                    ty,
                    k.bytes.as_ptr().cast(),
                    v.bytes.as_ptr().cast(),
                    (k.bytes.len() / self.slots) as i64,
                    mask.as_ptr().cast(),
                    self.slots as i64,
                    self.slots as i64,
                    self.d as i64,
                    self.heads as i64,
                    self.kv_heads as i64,
                    self.tokens as i64,
                    out,
                    scratch.as_mut_ptr().cast(),
                    ith,
                    nth,
                );
            }
        })
    }

    fn want(&self, q: &[f32], k: &Stored, v: &Stored, mask: &[f16]) -> Vec<f64> {
        let mut want = Vec::new();
        for (row, q) in q.chunks(self.d).enumerate() {
            let (token, head) = (row / self.heads, row % self.heads);
            let at = head / (self.heads / self.kv_heads) * self.d;
            let slot =
                |x: &Stored, s: usize| wide(&x.floats[s * self.kv_heads * self.d + at..][..self.d]);
            let scores: Vec<(usize, f64)> = (0..self.slots)
                .map(|s| (s, mask[token * self.slots + s].to_f64()))
                .filter(|(_, m)| m.is_finite())
                .map(|(s, m)| {
                    (s, slot(k, s).iter().zip(wide(q)).map(|(k, q)| k * q).sum::<f64>() + m)
                })
                .collect();
            let top = scores.iter().fold(f64::NEG_INFINITY, |m, (_, s)| m.max(*s));
            let total: f64 = scores.iter().map(|(_, s)| (s - top).exp()).sum();
            let mut out = vec![0.0; self.d];
            for (s, score) in scores {
                let p = (score - top).exp() / total;
                out.iter_mut().zip(slot(v, s)).for_each(|(o, v)| *o += p * v);
            }
            want.extend(out);
        }
        want
    }
}

#[test]
fn attention_equals_its_formula_for_every_cache_type() {
    for case in CASES {
        let width = case.kv_heads * case.d;
        let q = values(90, case.d * case.heads * case.tokens, 1.0);
        // One slot in three is hidden, one in nine is weighed by its mask.
        let mut mask: Vec<f16> = values(91, case.slots * case.tokens, 1.0)
            .iter()
            .map(|v| match *v {
                v if v < -0.33 => f16::NEG_INFINITY,
                v if v > 0.78 => f16::from_f32(v - 1.0),
                _ => f16::ZERO,
            })
            .collect();
        mask[0] = f16::ZERO;
        if case.tokens > 2 {
            // A token that sees nothing, and one for which the first chunks are hidden.
            mask[case.slots..2 * case.slots].fill(f16::NEG_INFINITY);
            mask[2 * case.slots..3 * case.slots - 1].fill(f16::NEG_INFINITY);
        }
        for ty in [F32, F16, Q8_0] {
            let k = stored(ty, &values(92, width * case.slots, 1.5));
            let v = stored(ty, &values(93, width * case.slots, 2.0));
            let got = case.run(ty, &q, &k, &v, &mask);
            let want = case.want(&q, &k, &v, &mask);
            // A score of 20 is rounded to 1e-6, and so is the weight e^20 it becomes.
            assert_close("attention", &got, &want, case.d, 5e-6);
        }
    }
}

#[test]
fn attention_never_reads_hidden_slots_and_shows_nan_in_others() {
    let case = Case { d: 32, heads: 4, kv_heads: 2, tokens: 2, slots: 80 };
    let q = values(94, 256, 1.0);
    let mut x = values(95, 64 * 80, 1.0);
    let clean = stored(F16, &x);
    x[64 * 70..64 * 71].fill(f32::NAN);
    let poisoned = stored(F16, &x);
    let mut mask = vec![f16::ZERO; 160];
    mask[70] = f16::NEG_INFINITY;
    mask[150] = f16::NEG_INFINITY;
    let got = case.run(F16, &q, &poisoned, &poisoned, &mask);
    assert_close("hidden", &got, &case.want(&q, &clean, &clean, &mask), 32, 2e-6);
    mask[150] = f16::ZERO;
    let got = case.run(F16, &q, &poisoned, &poisoned, &mask);
    assert!(got[..128].iter().all(|v| v.is_finite()));
    assert!(got[128..].iter().all(|v| v.is_nan()));
}

#[test]
fn attention_of_scores_far_apart_is_the_largest_one() {
    let case = Case { d: 32, heads: 1, kv_heads: 1, tokens: 1, slots: 200 };
    let q = vec![1.0; 32];
    for top in [0, 65, 199] {
        let mut keys = vec![-1000.0; 32 * 200];
        keys[32 * top..32 * (top + 1)].fill(1000.0);
        let (k, v) = (stored(F32, &keys), stored(F32, &values(96, 32 * 200, 1.0)));
        let got = case.run(F32, &q, &k, &v, &vec![f16::ZERO; 200]);
        assert_eq!(got, v.floats[32 * top..][..32]);
    }
}
