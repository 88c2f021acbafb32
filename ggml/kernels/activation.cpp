// The gated activation of the feed-forward net and of the per-layer input, the cap of the logits,
// and the softmax of a picture's attention.
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

extern "C" void g3n_soft_max(const float *x, float scale, int64_t width, int64_t rows, float *out,
                             int ith, int nth) {
    const Share mine = share_rows(rows, width, ith, nth);
    for (int64_t r = mine.t0; r < mine.t1; r++) {
        const float *from = x + r * width;
        float *to = out + r * width;
        Vec high = splat(from[0]);
        over(0, width / WIDTH * WIDTH, [&](int64_t e, auto p) { high = max(high, load(from + e, p)); });
        float lanes[WIDTH], top;
        store(lanes, high, Full{});
        top = lanes[0];
        for (int i = 1; i < WIDTH; i++) top = lanes[i] > top ? lanes[i] : top;
        for (int64_t e = width / WIDTH * WIDTH; e < width; e++) top = from[e] > top ? from[e] : top;
        const Vec factor = splat(scale), least_power = splat(-87.0f), shift = splat(-scale * top);
        const float sum = sum_over(width / WIDTH * WIDTH, [&](int64_t e, auto p) {
            Vec power = fma(load(from + e, p), factor, shift);
            Vec y = exponential(max(least_power, power));
            y = pick_less(power, least_power, splat(0), y);
            store(to + e, y, p);
            return y;
        });
        float rest = 0;
        for (int64_t e = width / WIDTH * WIDTH; e < width; e++) {
            to[e] = expf(scale * (from[e] - top));
            rest += to[e];
        }
        const Vec inverse = splat(1.0f / (sum + rest));
        over(0, width, [&](int64_t e, auto p) { store(to + e, mul(load(to + e, p), inverse), p); });
    }
}
