// The norm of a query's or key's heads and the rotation of its position, in one pass.
//
//   v = RMS(x; w) over a head's d values
//   out_i       = v_i cos_i - v_{i + d/2} sin_i          i < d/2
//   out_{i+d/2} = v_{i + d/2} cos_i + v_i sin_i
//
// cos, sin are [d/2, T], made by the caller for the token's position and the layer's base.
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

extern "C" void g3n_qk_norm_rope(const float *x, const float *w, float eps, const float *cosines,
                                 const float *sines, int64_t d, int64_t H, int64_t T, float *out,
                                 int ith, int nth) {
    const Share mine = share_rows(H * T, d, ith, nth);
    const int64_t half = d / 2;
    for (int64_t row = mine.t0; row < mine.t1; row++) {
        const float *from = x + row * d;
        float *to = out + row * d;
        const float *c = cosines + row / H * half, *s = sines + row / H * half;
        Vec factor = splat(rms_factor(from, d, eps));
        over(0, half, [&](int64_t i, auto p) {
            Vec low = mul(load(from + i, p), factor), high = mul(load(from + half + i, p), factor);
            if (w) {
                low = mul(low, load(w + i, p));
                high = mul(high, load(w + half + i, p));
            }
            Vec cv = load(c + i, p), sv = load(s + i, p);
            store(to + i, sub(mul(low, cv), mul(high, sv)), p);
            store(to + half + i, add(mul(high, cv), mul(low, sv)), p);
        });
    }
}
