// Elementwise: the gated activation of the feed-forward net and of the per-layer input, and the
// cap of the logits.
//
//   gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))          softcap(x) = c tanh(x / c)
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

extern "C" void g3n_gelu_mul(const float *g, const float *u, int64_t u_stride, int64_t width,
                             int64_t rows, float *out, int ith, int nth) {
    const Share mine = share(rows, width, ith, nth);
    for (int64_t r = mine.t0; r < mine.t1; r++) {
        over(mine.e0, mine.e1, [&](int64_t e, auto p) {
            Vec v = gelu(load(g + r * width + e, p));
            store(out + r * width + e, mul(v, load(u + r * u_stride + e, p)), p);
        });
    }
}

extern "C" void g3n_softcap(const float *x, float cap, int64_t n, float *out, int ith, int nth) {
    Vec c = splat(cap), inverse = splat(1.0f / cap);
    over(border(n, 16, ith, nth), border(n, 16, ith + 1, nth), [&](int64_t e, auto p) {
        store(out + e, mul(c, tanh_of(mul(load(x + e, p), inverse))), p);
    });
}
