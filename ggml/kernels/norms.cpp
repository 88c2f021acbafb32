// RMS norm, and the two residual sums of a layer with the norms they take in.
//
//   RMS(x; w)_e = w_e x_e / sqrt(mean(x^2) + eps)
//   y   = ((x + RMS(attn)) + (h + RMS(laurel))) / sqrt(2),   n = RMS(y)
//   act = y + RMS(ffn)
//
// and those of a picture's blocks: gelu(RMS(x)), x + gamma RMS(y).
//
// A row's sum needs the whole row and the outputs may lie on the inputs: threads take whole rows.
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

extern "C" void g3n_rms_norm(const float *x, int64_t x_stride, const float *w, float eps, int64_t E,
                             int64_t rows, float *out, int64_t out_stride, int ith, int nth) {
    const Share mine = share_rows(rows, E, ith, nth);
    for (int64_t r = mine.t0; r < mine.t1; r++) {
        const float *from = x + r * x_stride;
        float *to = out + r * out_stride;
        Vec factor = splat(rms_factor(from, E, eps));
        over(0, E, [&](int64_t e, auto p) {
            Vec y = mul(load(from + e, p), factor);
            store(to + e, w ? mul(y, load(w + e, p)) : y, p);
        });
    }
}

extern "C" void g3n_residual(const float *x, const float *attn, const float *attn_norm,
                             const float *h, const float *laurel, const float *laurel_norm,
                             const float *ffn_norm, float eps, int64_t T, int64_t E, float *y,
                             float *n, int ith, int nth) {
    const Share mine = share_rows(T, E, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const int64_t at = t * E;
        Vec fa = splat(rms_factor(attn + at, E, eps)), fl = splat(rms_factor(laurel + at, E, eps));
        Vec half_root = splat(0.70710678f);
        float squares = sum_over(E, [&](int64_t e, auto p) {
            Vec a = mul(mul(load(attn + at + e, p), fa), load(attn_norm + e, p));
            Vec l = mul(mul(load(laurel + at + e, p), fl), load(laurel_norm + e, p));
            Vec sum = add(add(load(x + at + e, p), a), add(load(h + at + e, p), l));
            sum = mul(sum, half_root);
            store(y + at + e, sum, p);
            return mul(sum, sum);
        });
        Vec fy = splat(1.0f / sqrtf(squares / static_cast<float>(E) + eps));
        over(0, E, [&](int64_t e, auto p) {
            store(n + at + e, mul(mul(load(y + at + e, p), fy), load(ffn_norm + e, p)), p);
        });
    }
}

extern "C" void g3n_ffn_residual(const float *y, const float *ffn, const float *norm, float eps,
                                 int64_t T, int64_t E, float *act, int ith, int nth) {
    const Share mine = share_rows(T, E, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const int64_t at = t * E;
        Vec factor = splat(rms_factor(ffn + at, E, eps));
        over(0, E, [&](int64_t e, auto p) {
            Vec f = mul(mul(load(ffn + at + e, p), factor), load(norm + e, p));
            store(act + at + e, add(load(y + at + e, p), f), p);
        });
    }
}

extern "C" void g3n_rms_norm_gelu(const float *x, const float *w, float eps, int64_t E,
                                  int64_t rows, float *out, int ith, int nth) {
    const Share mine = share_rows(rows, E, ith, nth);
    for (int64_t at = mine.t0 * E; at < mine.t1 * E; at += E) {
        Vec factor = splat(rms_factor(x + at, E, eps));
        over(0, E, [&](int64_t e, auto p) {
            Vec y = mul(mul(load(x + at + e, p), factor), load(w + e, p));
            store(out + at + e, gelu(y), p);
        });
    }
}

extern "C" void g3n_norm_scale_add(const float *x, const float *y, const float *norm,
                                   const float *gamma, float eps, int64_t E, int64_t rows,
                                   float *out, int ith, int nth) {
    const Share mine = share_rows(rows, E, ith, nth);
    for (int64_t at = mine.t0 * E; at < mine.t1 * E; at += E) {
        Vec factor = splat(norm ? rms_factor(y + at, E, eps) : 1.0f);
        over(0, E, [&](int64_t e, auto p) {
            Vec v = load(y + at + e, p);
            if (norm) v = mul(mul(v, factor), load(norm + e, p));
            if (gamma) v = mul(v, load(gamma + e, p));
            if (x) v = add(load(x + at + e, p), v);
            store(out + at + e, v, p);
        });
    }
}
