//! Every type, form and size against f64 products of what ggml reads in its own packed weights.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::sys;
use super::*;

// Called by the sparse kernels in C++.
unsafe extern "C" {
    /// Chosen rows of weights with one row of activations.
    fn g3n_gather_dots(
        ty: i32,
        w: *const c_void,
        w_stride: i64,
        k: i64,
        rows: *const i32,
        n_rows: i64,
        a: *const c_void,
        out: *mut f32,
    );
    /// One row of weights with chosen rows of activations.
    fn g3n_row_dots(
        ty: i32,
        w_row: *const c_void,
        k: i64,
        a: *const c_void,
        a_stride: i64,
        tokens: *const i32,
        n_tokens: i64,
        out: *mut f32,
    );
}

/// Name, ggml's number, length of a block.
const TYPES: [(&str, u32, usize); 12] = [
    ("Q4_0", sys::GGML_TYPE_Q4_0, 32),
    ("Q4_1", sys::GGML_TYPE_Q4_1, 32),
    ("Q5_0", sys::GGML_TYPE_Q5_0, 32),
    ("Q5_1", sys::GGML_TYPE_Q5_1, 32),
    ("Q8_0", sys::GGML_TYPE_Q8_0, 32),
    ("Q2_K", sys::GGML_TYPE_Q2_K, 256),
    ("Q3_K", sys::GGML_TYPE_Q3_K, 256),
    ("Q4_K", sys::GGML_TYPE_Q4_K, 256),
    ("Q5_K", sys::GGML_TYPE_Q5_K, 256),
    ("Q6_K", sys::GGML_TYPE_Q6_K, 256),
    ("IQ4_NL", sys::GGML_TYPE_IQ4_NL, 32),
    ("IQ4_XS", sys::GGML_TYPE_IQ4_XS, 256),
];

/// Approximately normal: the sum of four uniform numbers.
fn random(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| (0..4).map(|_| rng.random_range(-1.0f32..1.0)).sum()).collect()
}

/// Random weights of a type as ggml's own quantizer packs them, and what ggml reads in them.
struct Weights {
    ty: u32,
    k: usize,
    m: usize,
    row_bytes: usize,
    packed: Vec<u8>,
    values: Vec<f32>,
}

impl Weights {
    fn new(ty: u32, k: usize, m: usize, seed: u64) -> Self {
        super::super::init();
        let source = random(&mut ChaCha8Rng::seed_from_u64(seed), k * m);
        // SAFETY: the buffers hold m rows of k values; to_float reads what was just written.
        unsafe {
            let row_bytes = sys::ggml_row_size(ty, k as i64);
            let mut packed = vec![0u8; row_bytes * m];
            sys::ggml_quantize_chunk(
                ty,
                source.as_ptr(),
                packed.as_mut_ptr().cast(),
                0,
                m as i64,
                k as i64,
                std::ptr::null(),
            );
            let mut values = vec![0f32; k * m];
            let to_float = (*sys::ggml_get_type_traits(ty)).to_float.unwrap();
            for r in 0..m {
                to_float(
                    packed[r * row_bytes..].as_ptr().cast(),
                    values[r * k..].as_mut_ptr(),
                    k as i64,
                );
            }
            Self { ty, k, m, row_bytes, packed, values }
        }
    }

    /// `[n, m]` in f64, with the activations given in f32.
    fn expected(&self, x: &[f32]) -> Vec<f64> {
        let mut out = Vec::new();
        for token in x.chunks_exact(self.k) {
            for row in self.values.chunks_exact(self.k) {
                out.push(row.iter().zip(token).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum());
            }
        }
        out
    }
}

/// Memory in lines of 64 bytes, as rows of activations and scratch want it.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "only its size and alignment count")] [u8; 64]);

/// Rows of activations in 8 bits, `extra` lines apart more than needed.
struct Activations {
    n: usize,
    stride: usize,
    lines: Vec<Line>,
}

impl Activations {
    fn new(x: &[f32], k: usize, extra: usize) -> Self {
        let n = x.len() / k;
        // SAFETY: rows are as long as the function says.
        unsafe {
            let stride = g3n_q8_row_bytes(k as i64) + 64 * extra;
            let mut lines = vec![Line([0xff; 64]); n * stride / 64];
            for t in 0..n {
                let row = lines[t * stride / 64..].as_mut_ptr().cast();
                g3n_q8_quantize(x[t * k..].as_ptr(), k as i64, row);
            }
            Self { n, stride, lines }
        }
    }

    fn ptr(&self) -> *const c_void {
        self.lines.as_ptr().cast()
    }
}

/// What the kernel's own quantization of activations stands for, by its documented rule:
/// d = max / 127 rounded up to a mantissa of 16 bits, q = x / d rounded to nearest.
fn rounded(x: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for block in x.chunks_exact(32) {
        let max = block.iter().fold(0f32, |max, x| max.max(x.abs()));
        let d = f32::from_bits(((max / 127.0).to_bits() + 0xff) & !0xff);
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        out.extend(block.iter().map(|x| (x * inverse).round_ties_even() * d));
    }
    out
}

/// All threads' shares, one after the other: `[n, m]` with rows `m + gap` apart.
fn product(
    w: &Weights,
    bytes: *const u8,
    w_stride: usize,
    a: &Activations,
    nth: usize,
) -> Vec<f32> {
    const GAP: usize = 3;
    let out_stride = w.m + GAP;
    let mut out = vec![f32::NAN; a.n * out_stride];
    // SAFETY: all sizes are those of the buffers.
    unsafe {
        let scratch = g3n_product_scratch_bytes(w.ty as i32, w.k as i64, a.n as i64);
        // Anything may lie in scratch memory.
        let mut scratch = vec![Line([0xff; 64]); nth * scratch.div_ceil(64)];
        for ith in 0..nth {
            g3n_product(
                w.ty as i32,
                bytes.cast(),
                w_stride as i64,
                w.k as i64,
                w.m as i64,
                a.ptr(),
                a.stride as i64,
                a.n as i64,
                out.as_mut_ptr(),
                out_stride as i64,
                scratch.as_mut_ptr().cast(),
                ith as i32,
                nth as i32,
            );
        }
    }
    for row in out.chunks_exact(out_stride) {
        assert!(row[w.m..].iter().all(|v| v.is_nan()), "written past the end of a row");
    }
    out.chunks_exact(out_stride).flat_map(|row| row[..w.m].to_vec()).collect()
}

fn relative_rms(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let error: f64 = got.iter().zip(expected).map(|(&g, e)| (f64::from(g) - e).powi(2)).sum();
    (error / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn relative_max(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let error = got.iter().zip(expected).map(|(&g, e)| (f64::from(g) - e).abs());
    // `max` would swallow a NaN.
    let error = error.fold(0f64, |max, e| if e <= max { max } else { e });
    error / expected.iter().fold(0f64, |max, e| max.max(e.abs()))
}

#[test]
fn eight_bit_activations_keep_the_product_within_half_a_percent() {
    for (name, ty, _) in TYPES {
        let w = Weights::new(ty, 2048, 37, 1);
        let x = random(&mut ChaCha8Rng::seed_from_u64(2), 17 * w.k);
        let a = Activations::new(&x, w.k, 0);
        let got = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 2);
        let error = relative_rms(&got, &w.expected(&x));
        assert!(error < 5e-3, "{name}: {error:e}");
    }
}

/// Beyond the rounding of the activations a product is exact up to the order of f32 sums,
/// whatever form computes it.
#[test]
fn every_size_agrees_with_f64() {
    let mut seed = 10;
    for (name, ty, block) in TYPES {
        for k in [32, 64, 256, 512, 736, 1280, 2048] {
            // SAFETY: takes numbers.
            let supported = unsafe { g3n_product_supports(ty as i32, k as i64) };
            assert_eq!(supported != 0, k % block == 0, "{name} k {k}");
            if supported == 0 {
                continue;
            }
            for (m, n) in [(1, 1), (5, 2), (33, 1), (70, 3), (16, 7), (33, 8), (31, 9), (32, 33)] {
                seed += 1;
                let w = Weights::new(ty, k, m, seed);
                let x = random(&mut ChaCha8Rng::seed_from_u64(seed), n * k);
                let a = Activations::new(&x, k, seed as usize % 3);
                let got = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1);
                let error = relative_max(&got, &w.expected(&rounded(&x)));
                assert!(error < 2e-6, "{name} k {k} m {m} n {n}: {error:e}");
            }
        }
    }
}

#[test]
fn a_token_does_not_depend_on_its_batch() {
    for (name, ty, _) in TYPES {
        let w = Weights::new(ty, 768, 40, 3);
        let x = random(&mut ChaCha8Rng::seed_from_u64(4), 100 * w.k);
        let all = product(&w, w.packed.as_ptr(), w.row_bytes, &Activations::new(&x, w.k, 0), 1);
        for n in [1, 2, 3, 7, 16, 17, 64] {
            let a = Activations::new(&x[..n * w.k], w.k, 0);
            let some = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1);
            let expected: Vec<f64> = all[..n * w.m].iter().map(|&v| f64::from(v)).collect();
            let error = relative_max(&some, &expected);
            assert!(error < 2e-6, "{name} n {n}: {error:e}");
        }
    }
}

#[test]
fn shares_of_threads_make_up_the_same_whole() {
    for (name, ty, _) in TYPES {
        for (m, n) in [(100, 1), (100, 20), (7, 5)] {
            let w = Weights::new(ty, 256, m, 5);
            let x = random(&mut ChaCha8Rng::seed_from_u64(6), n * w.k);
            let a = Activations::new(&x, w.k, 0);
            let one = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1);
            for nth in [2, 3, 8] {
                let many = product(&w, w.packed.as_ptr(), w.row_bytes, &a, nth);
                assert_eq!(one, many, "{name} m {m} n {n} threads {nth}");
            }
        }
    }
}

#[test]
fn rows_may_lie_apart() {
    for (name, ty, _) in TYPES {
        let w = Weights::new(ty, 512, 35, 7);
        let stride = w.row_bytes + 50;
        let mut spread = vec![0xff; stride * w.m];
        for r in 0..w.m {
            spread[r * stride..][..w.row_bytes]
                .copy_from_slice(&w.packed[r * w.row_bytes..][..w.row_bytes]);
        }
        for n in [1, 9] {
            let x = random(&mut ChaCha8Rng::seed_from_u64(8), n * w.k);
            let a = Activations::new(&x, w.k, 0);
            assert_eq!(
                product(&w, spread.as_ptr(), stride, &a, 1),
                product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1),
                "{name} n {n}"
            );
        }
    }
}

#[test]
fn chosen_rows_and_tokens_are_those_of_the_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for (name, ty, _) in TYPES {
        let w = Weights::new(ty, 1280, 90, 10);
        let x = random(&mut rng, 30 * w.k);
        let a = Activations::new(&x, w.k, 1);
        let expected = w.expected(&rounded(&x));
        let rows: Vec<i32> = (0..77).map(|_| rng.random_range(0..w.m as i32)).collect();
        let tokens: Vec<i32> = (0..23).map(|_| rng.random_range(0..a.n as i32)).collect();
        let mut by_rows = vec![0f32; rows.len()];
        let mut by_tokens = vec![0f32; tokens.len()];
        // SAFETY: all sizes are those of the buffers, indices are below m and n.
        unsafe {
            g3n_gather_dots(
                ty as i32,
                w.packed.as_ptr().cast(),
                w.row_bytes as i64,
                w.k as i64,
                rows.as_ptr(),
                rows.len() as i64,
                a.ptr(),
                by_rows.as_mut_ptr(),
            );
            g3n_row_dots(
                ty as i32,
                w.packed[11 * w.row_bytes..].as_ptr().cast(),
                w.k as i64,
                a.ptr(),
                a.stride as i64,
                tokens.as_ptr(),
                tokens.len() as i64,
                by_tokens.as_mut_ptr(),
            );
        }
        let of_rows: Vec<f64> = rows.iter().map(|&r| expected[r as usize]).collect();
        let of_tokens: Vec<f64> = tokens.iter().map(|&t| expected[t as usize * w.m + 11]).collect();
        let error = relative_max(&by_rows, &of_rows).max(relative_max(&by_tokens, &of_tokens));
        assert!(error < 2e-6, "{name}: {error:e}");
    }
}

#[test]
fn float_weights_lose_nothing() {
    let types = [sys::GGML_TYPE_F32, sys::GGML_TYPE_F16, sys::GGML_TYPE_BF16];
    for (seed, ty) in types.into_iter().enumerate() {
        for (k, m, n) in [(8, 3, 1), (64, 33, 2), (264, 70, 17), (1024, 40, 9), (520, 16, 100)] {
            let mut rng = ChaCha8Rng::seed_from_u64(20 + seed as u64);
            let source = random(&mut rng, k * m);
            let x_stride = k + 5;
            let x = random(&mut rng, n * x_stride);
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            let values: Vec<f32> = source
                .iter()
                .map(|&v| match ty {
                    sys::GGML_TYPE_F16 => {
                        let v = half::f16::from_f32(v);
                        bytes.extend(v.to_le_bytes());
                        v.to_f32()
                    }
                    sys::GGML_TYPE_BF16 => {
                        let v = half::bf16::from_f32(v);
                        bytes.extend(v.to_le_bytes());
                        v.to_f32()
                    }
                    _ => {
                        bytes.extend(v.to_le_bytes());
                        v
                    }
                })
                .collect();
            for token in x.chunks_exact(x_stride) {
                for row in values.chunks_exact(k) {
                    let products =
                        row.iter().zip(token).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    expected.push(products.sum::<f64>());
                }
            }
            let fenced = Fenced::new(&bytes);
            for nth in [1, 2, 3] {
                let mut out = vec![f32::NAN; n * m];
                // SAFETY: all sizes are those of the buffers.
                unsafe {
                    assert_ne!(g3n_product_float_supports(ty as i32, k as i64), 0);
                    let lines = g3n_product_float_scratch_bytes().div_ceil(64);
                    let mut scratch = vec![Line([0xff; 64]); nth * lines];
                    for ith in 0..nth {
                        g3n_product_float(
                            ty as i32,
                            fenced.bytes().cast(),
                            (bytes.len() / m) as i64,
                            k as i64,
                            m as i64,
                            x.as_ptr(),
                            4 * x_stride as i64,
                            n as i64,
                            out.as_mut_ptr(),
                            m as i64,
                            scratch.as_mut_ptr().cast(),
                            ith as i32,
                            nth as i32,
                        );
                    }
                }
                let error = relative_max(&out, &expected);
                assert!(error < 3e-6, "type {ty} k {k} m {m} n {n}: {error:e}");
            }
        }
    }
}

/// Activations after a GELU are mostly of one sign: what is added to make bytes unsigned
/// must not cost precision. (Types with mins subtract large sums in f32 by their nature.)
#[test]
fn activations_of_one_sign_lose_nothing() {
    for (name, ty, _) in TYPES {
        let w = Weights::new(ty, 2048, 33, 11);
        let x: Vec<f32> = random(&mut ChaCha8Rng::seed_from_u64(12), 9 * w.k)
            .iter()
            .map(|v| 3.0 + 0.1 * v)
            .collect();
        let expected = w.expected(&rounded(&x));
        for n in [1, 9] {
            let a = Activations::new(&x[..n * w.k], w.k, 0);
            let got = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1);
            let error = relative_max(&got, &expected[..n * w.m]);
            assert!(error < 1e-5, "{name} n {n}: {error:e}");
        }
    }
}

#[test]
fn zeros_give_zeros_and_a_nan_stays_visible() {
    let w = Weights::new(sys::GGML_TYPE_Q4_0, 64, 3, 13);
    let mut x = vec![0f32; 3 * 64];
    x[64] = f32::NAN;
    x[128 + 33] = f32::INFINITY;
    let a = Activations::new(&x, 64, 0);
    let got = product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1);
    assert_eq!(got[..3], [0.0; 3]);
    assert!(got[3..].iter().all(|v| !v.is_finite()), "{got:?}");
}

/// The last tensor of a mapped file may end at the end of the mapping.
#[test]
fn nothing_is_read_past_the_end_of_the_weights() {
    for (name, ty, block) in TYPES {
        for k in [block, 2 * block, 512, 768] {
            let w = Weights::new(ty, k, 34, 14);
            let x = random(&mut ChaCha8Rng::seed_from_u64(15), 7 * k);
            let fenced = Fenced::new(&w.packed);
            for n in [1, 2, 7] {
                let a = Activations::new(&x[..n * k], k, 0);
                assert_eq!(
                    product(&w, fenced.bytes(), w.row_bytes, &a, 1),
                    product(&w, w.packed.as_ptr(), w.row_bytes, &a, 1),
                    "{name} k {k} n {n}"
                );
            }
            let a = Activations::new(&x, k, 0);
            let mut out = [0f32; 1];
            // SAFETY: the last row, the first token.
            unsafe {
                let last = fenced.bytes().add((w.m - 1) * w.row_bytes).cast();
                let (ty, k) = (ty as i32, k as i64);
                g3n_row_dots(ty, last, k, a.ptr(), 0, [0].as_ptr(), 1, out.as_mut_ptr());
                g3n_gather_dots(ty, last, 0, k, [0].as_ptr(), 1, a.ptr(), out.as_mut_ptr());
            }
            assert!(out[0].is_finite());
        }
    }
}

/// A copy that ends where unreadable memory begins.
struct Fenced {
    map: *mut c_void,
    whole: usize,
    len: usize,
}

impl Fenced {
    fn new(bytes: &[u8]) -> Self {
        // SAFETY: a fresh mapping, whose last page is then closed.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let whole = bytes.len().next_multiple_of(page) + page;
            let map = libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED);
            let fenced = Self { map, whole, len: bytes.len() };
            let start = map.cast::<u8>().add(whole - page - bytes.len());
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            let fence = map.cast::<u8>().add(whole - page).cast();
            assert_eq!(libc::mprotect(fence, page, libc::PROT_NONE), 0);
            fenced
        }
    }

    fn bytes(&self) -> *const u8 {
        // SAFETY: inside the mapping, as in `new`.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            self.map.cast::<u8>().add(self.whole - page - self.len)
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped.
        unsafe { libc::munmap(self.map, self.whole) };
    }
}
