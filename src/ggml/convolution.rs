//! Nodes over maps of pixels, channels last: `[C, width·height]`, pixels row by row.
//!
//! A convolution is a product with the pixels under each window ([`Tensor::patches`]), a depthwise
//! one has a kernel of its own. Interfaces: `ggml/kernels/kernels.h`; the plain twins are in
//! `model/tower/`.

use std::ffi::{c_int, c_void};

use super::builder::Tensor;
use super::product_nodes::{LINE, Quantized, aligned};
use super::products::g3n_q8_row_bytes;
use super::types::Type;

/// A window over a map; lengths across, then down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels of the map.
    pub map: [usize; 2],
    /// Taps.
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Zeros before the map's first pixels.
    pub before: [usize; 2],
    /// Zeros after its last.
    pub after: [usize; 2],
}

#[repr(C)]
struct RawWindow {
    channels: i64,
    width: i64,
    height: i64,
    k_x: i64,
    k_y: i64,
    step_x: i64,
    step_y: i64,
    pad_left: i64,
    pad_top: i64,
    out_width: i64,
    out_height: i64,
}

unsafe extern "C" {
    fn g3n_patches(x: *const f32, window: *const RawWindow, out: *mut f32, ith: c_int, nth: c_int);
    fn g3n_patches_q8(
        x: *const f32,
        window: *const RawWindow,
        out: *mut c_void,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_depthwise(
        x: *const f32,
        weights: *const f32,
        window: *const RawWindow,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_rms_norm_gelu(
        x: *const f32,
        w: *const f32,
        eps: f32,
        width: i64,
        rows: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_norm_scale_add(
        x: *const f32,
        y: *const f32,
        norm: *const f32,
        gamma: *const f32,
        eps: f32,
        width: i64,
        rows: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
}

impl Window {
    /// A square one with "same" padding: `out = ⌈n / stride⌉`, the padding
    /// `max((out − 1)·stride + k − n, 0)`, the smaller half of it before.
    pub fn same(map: [usize; 2], kernel: usize, stride: usize) -> Self {
        let padding = map.map(|n| {
            let out = n.div_ceil(stride).max(1);
            ((out - 1) * stride + kernel).saturating_sub(n)
        });
        let (before, after) = (padding.map(|n| n / 2), padding.map(|n| n - n / 2));
        Self { map, kernel: [kernel; 2], stride: [stride; 2], before, after }
    }

    /// Columns and rows of the result.
    pub fn out(&self) -> (usize, usize) {
        let out = |axis: usize| {
            let padded = self.map[axis] + self.before[axis] + self.after[axis];
            padded.checked_sub(self.kernel[axis]).map_or(0, |rest| rest / self.stride[axis] + 1)
        };
        (out(0), out(1))
    }

    /// Taps in all.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The input pixel under a tap of the window at an output pixel; `None`: in the padding.
    pub fn pixel(&self, (x, y): (usize, usize), (kx, ky): (usize, usize)) -> Option<usize> {
        let inside = |axis: usize, at: usize, tap: usize| {
            let pixel = (at * self.stride[axis] + tap).checked_sub(self.before[axis]);
            pixel.filter(|&pixel| pixel < self.map[axis])
        };
        Some(inside(1, y, ky)? * self.map[0] + inside(0, x, kx)?)
    }

    fn raw(&self, channels: usize) -> RawWindow {
        let long = |n: usize| n as i64;
        let (out_width, out_height) = self.out();
        RawWindow {
            channels: long(channels),
            width: long(self.map[0]),
            height: long(self.map[1]),
            k_x: long(self.kernel[0]),
            k_y: long(self.kernel[1]),
            step_x: long(self.stride[0]),
            step_y: long(self.stride[1]),
            pad_left: long(self.before[0]),
            pad_top: long(self.before[1]),
            out_width: long(out_width),
            out_height: long(out_height),
        }
    }
}

impl<'b> Tensor<'b> {
    fn assert_map(self, window: &Window) -> usize {
        let [channels, pixels, n2, n3] = self.ne();
        assert!(pixels == window.map[0] * window.map[1] && n2 * n3 == 1, "{:?}", self.ne());
        assert!(self.ty() == Type::F32 && self.is_contiguous(), "kernels read contiguous f32");
        channels
    }

    /// The pixels under each window, tap by tap: `[taps·C, pixels of the result]`.
    pub fn patches(self, window: Window) -> Self {
        let channels = self.assert_map(&window);
        let (width, height) = window.out();
        let raw = window.raw(channels);
        let ne = [window.taps() * channels, width * height, 1, 1];
        self.b.custom(Type::F32, ne, &[self], 0, move |run| {
            // SAFETY: the map was checked above, the node has a row of patches a pixel.
            unsafe { g3n_patches(run.source(0), &raw, run.out(), run.ith, run.nth) }
        })
    }

    /// The same in 8 bits; `taps·C` is a multiple of 32.
    pub fn patches_q8(self, window: Window) -> Quantized<'b> {
        let channels = self.assert_map(&window);
        let k = window.taps() * channels;
        assert!(k.is_multiple_of(32), "rows of {k} in blocks of 32");
        let (width, height) = window.out();
        let rows = width * height;
        let raw = window.raw(channels);
        // SAFETY: looks at its argument only.
        let row = unsafe { g3n_q8_row_bytes(k as i64) };
        let ne = [row * rows + LINE, 1, 1, 1];
        let scratch = k * size_of::<f32>();
        let bytes = self.b.custom(Type::I8, ne, &[self], scratch, move |run| {
            let (out, scratch) = (aligned(run.out()).cast(), run.own_scratch());
            // SAFETY: the map was checked above; the node has a row a pixel and a spare line, the
            // scratch memory holds a row of floats.
            unsafe { g3n_patches_q8(run.source(0), &raw, out, scratch, run.ith, run.nth) }
        });
        Quantized { bytes, k, rows }
    }

    /// Each channel under a window of its own, weights f32 `[C, taps]`: `[C, pixels of the result]`.
    pub fn depthwise(self, weights: Self, window: Window) -> Self {
        let channels = self.assert_map(&window);
        assert_eq!(weights.ne(), [channels, window.taps(), 1, 1]);
        assert!(weights.ty() == Type::F32 && weights.is_contiguous());
        let (width, height) = window.out();
        let raw = window.raw(channels);
        let ne = [channels, width * height, 1, 1];
        self.b.custom(Type::F32, ne, &[self, weights], 0, move |run| {
            let (x, w) = (run.source(0), run.source(1));
            // SAFETY: map and weights were checked above, the node has a pixel a window.
            unsafe { g3n_depthwise(x, w, &raw, run.out(), run.ith, run.nth) }
        })
    }

    /// `gelu_t(RMS(x; weight))` over each row.
    pub fn rms_norm_gelu(self, weight: Self, eps: f32) -> Self {
        let [width, rows, ..] = self.assert_rows(&[weight]);
        self.b.custom(Type::F32, [width, rows, 1, 1], &[self, weight], 0, move |run| {
            let (x, w, out) = (run.source(0), run.source(1), run.out());
            let (width, rows) = (width as i64, rows as i64);
            // SAFETY: rows and weight were checked above, the node has the same shape.
            unsafe { g3n_rms_norm_gelu(x, w, eps, width, rows, out, run.ith, run.nth) }
        })
    }

    /// `skip + gamma·RMS(x; norm)` over each row; what is not given is left out.
    pub fn norm_scale_add(
        self,
        skip: Option<Self>,
        norm: Option<Self>,
        gamma: Option<Self>,
        eps: f32,
    ) -> Self {
        let vectors: Vec<_> = norm.into_iter().chain(gamma).collect();
        let [width, rows, ..] = self.assert_rows(&vectors);
        if let Some(skip) = skip {
            skip.assert_rows(&[]);
            assert_eq!(skip.ne(), self.ne());
        }
        let mut args = vec![self];
        let mut place = |given: Option<Self>| {
            given.map(|tensor| {
                args.push(tensor);
                args.len() - 1
            })
        };
        let (skip, norm, gamma) = (place(skip), place(norm), place(gamma));
        self.b.custom(Type::F32, [width, rows, 1, 1], &args, 0, move |run| {
            let at = |place: Option<usize>| place.map_or(std::ptr::null(), |i| run.source(i));
            // SAFETY: the shapes of all that is there were checked above; null is allowed.
            unsafe {
                g3n_norm_scale_add(
                    at(skip),
                    run.source(0),
                    at(norm),
                    at(gamma),
                    eps,
                    width as i64,
                    rows as i64,
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// Rows `[n, rows]` and vectors of their length.
    fn assert_rows(self, vectors: &[Self]) -> [usize; 4] {
        let ne = self.ne();
        for tensor in vectors.iter().chain([&self]) {
            assert!(tensor.ty() == Type::F32 && tensor.is_contiguous(), "contiguous f32");
        }
        assert!(ne[2] * ne[3] == 1 && vectors.iter().all(|v| v.ne() == [ne[0], 1, 1, 1]));
        ne
    }
}
