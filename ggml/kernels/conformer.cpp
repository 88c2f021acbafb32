// What the sound tower has beside products and RMS norms.
//
//   cumulative group norm: (x - m_t) / sqrt(v_t + eps) w,  m_t the mean of all values up to frame t,
//                          v_t the mean up to t of (x_s - m_s)^2, each frame's deviations from its
//                          own m_s
//   gated linear unit:     a sigmoid(b)
//   light convolution:     silu(RMS(clip(sum over i < K of w_i x_(t - K + 1 + i))))
//   local attention:       row t sees rows t - past .. t + future, nearness counts by r
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

namespace {

Vec sigmoid(Vec x) {
    Vec t = min(splat(87.0f), max(splat(-87.0f), x));
    return reciprocal(add(exponential(sub(splat(0), t)), splat(1.0f)));
}

// Running means over frames of values that were summed frame by frame.
struct Mean {
    const float *sums;
    int64_t width, t;
    double sum;

    // Ready for frame t.
    Mean(const float *sums, int64_t width, int64_t t) : sums(sums), width(width), t(0), sum(0) {
        while (this->t < t) sum += static_cast<double>(sums[this->t++]);
    }

    float next() {
        sum += static_cast<double>(sums[t++]);
        return static_cast<float>(sum / (static_cast<double>(width) * static_cast<double>(t)));
    }
};

// Sums of a row's values, or of the squares of how far they are from the mean. Stretches are added
// up in double: a frame may have many values.
double row_sum(const float *x, int64_t width, float mean, bool squares) {
    constexpr int64_t STRETCH = 1024;
    const int64_t whole = width / WIDTH * WIDTH;
    double sum = 0;
    for (int64_t from = 0; from < whole; from += STRETCH) {
        sum += static_cast<double>(sum_over(least(STRETCH, whole - from), [&](int64_t e, auto p) {
            Vec v = sub(load(x + from + e, p), splat(mean));
            return squares ? mul(v, v) : v;
        }));
    }
    for (int64_t e = whole; e < width; e++) {
        const float v = x[e] - mean;
        sum += static_cast<double>(squares ? v * v : v);
    }
    return sum;
}

float dot(const float *a, const float *b, int64_t n) {
    return sum_over(n, [&](int64_t e, auto p) { return mul(load(a + e, p), load(b + e, p)); });
}

// scores[0 .. n) -> softmax of cap tanh(scores / cap); whole vectors of memory behind them.
void capped_soft_max(float *scores, int64_t n, float cap) {
    const Vec c = splat(cap), inverse = splat(1.0f / cap);
    // Capped scores lie within +-cap: e^(s - cap) may vanish, so the greatest is taken off.
    over(0, n, [&](int64_t e, auto p) {
        store(scores + e, mul(c, tanh_of(mul(load(scores + e, p), inverse))), p);
    });
    float top = scores[0];
    for (int64_t j = 1; j < n; j++) top = scores[j] > top ? scores[j] : top;
    const int64_t whole = (n + WIDTH - 1) / WIDTH * WIDTH;
    for (int64_t j = n; j < whole; j++) scores[j] = -INFINITY;
    const Vec least_power = splat(-87.0f);
    const float sum = sum_over(whole, [&](int64_t e, auto p) {
        Vec power = sub(load(scores + e, p), splat(top));
        Vec y = exponential(max(least_power, power));
        y = pick_less(power, least_power, splat(0), y);
        store(scores + e, y, p);
        return y;
    });
    const Vec factor = splat(1.0f / sum);
    over(0, whole, [&](int64_t e, auto p) { store(scores + e, mul(load(scores + e, p), factor), p); });
}

} // namespace

extern "C" void g3n_frame_sums(const float *x, int64_t width, int64_t T, const float *sums,
                               float *out, int ith, int nth) {
    const Share mine = share_rows(T, width, ith, nth);
    if (!sums) {
        for (int64_t t = mine.t0; t < mine.t1; t++)
            out[t] = static_cast<float>(row_sum(x + t * width, width, 0, false));
        return;
    }
    Mean means(sums, width, mine.t0);
    for (int64_t t = mine.t0; t < mine.t1; t++)
        out[t] = static_cast<float>(row_sum(x + t * width, width, means.next(), true));
}

extern "C" void g3n_cumulative_norm_relu(const float *x, const float *sums, const float *squares,
                                         const float *w, float eps, int64_t C, int64_t width,
                                         int64_t T, float *out, int ith, int nth) {
    const Share mine = share_rows(T, width, ith, nth);
    Mean means(sums, width, mine.t0), variances(squares, width, mine.t0);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const Vec mean = splat(means.next());
        const Vec factor = splat(1.0f / sqrtf(variances.next() + eps));
        for (int64_t at = t * width; at < (t + 1) * width; at += C)
            over(0, C, [&](int64_t c, auto p) {
                Vec y = mul(mul(sub(load(x + at + c, p), mean), factor), load(w + c, p));
                // In this order NaN stays, and is told of.
                store(out + at + c, max(splat(0), y), p);
            });
    }
}

extern "C" void g3n_silu(const float *x, int64_t n, float *out, int ith, int nth) {
    over(border(n, 16, ith, nth), border(n, 16, ith + 1, nth), [&](int64_t e, auto p) {
        Vec v = load(x + e, p);
        store(out + e, mul(v, sigmoid(v)), p);
    });
}

extern "C" void g3n_glu(const float *x, int64_t width, int64_t T, float *out, int ith, int nth) {
    const Share mine = share(T, width, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const float *a = x + 2 * t * width, *b = a + width;
        over(mine.e0, mine.e1, [&](int64_t e, auto p) {
            store(out + t * width + e, mul(load(a + e, p), sigmoid(load(b + e, p))), p);
        });
    }
}

extern "C" void g3n_light_convolution(const float *x, const float *w, int64_t K, const float *norm,
                                      float eps, float bound, int64_t step, int64_t E, int64_t T,
                                      float *out, int ith, int nth) {
    const Share mine = share_rows((T + step - 1) / step, E, ith, nth);
    const Vec high = splat(bound), low = splat(-bound);
    for (int64_t r = mine.t0; r < mine.t1; r++) {
        const int64_t first = r * step - (K - 1);
        float *to = out + r * E;
        over(0, E, [&](int64_t e, auto p) {
            Vec sum = splat(0);
            for (int64_t i = first < 0 ? -first : 0; i < K; i++)
                sum = fma(load(w + i * E + e, p), load(x + (first + i) * E + e, p), sum);
            store(to + e, min(high, max(low, sum)), p);
        });
        const Vec factor = splat(rms_factor(to, E, eps));
        over(0, E, [&](int64_t e, auto p) {
            Vec y = mul(mul(load(to + e, p), factor), load(norm + e, p));
            store(to + e, mul(y, sigmoid(y)), p);
        });
    }
}

extern "C" void g3n_local_attention(const float *q, const float *k, const float *v, const float *r,
                                    const float *scale, float cap, int64_t past, int64_t future,
                                    int64_t d, int64_t H, int64_t T, float *out, void *scratch,
                                    int ith, int nth) {
    const Share mine = share_rows(T, H * d, ith, nth);
    float *query = static_cast<float *>(scratch), *scores = query + (d + 15) / 16 * 16;
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const int64_t first = t < past ? 0 : t - past, last = least(T - 1, t + future);
        const int64_t n = last - first + 1;
        for (int64_t h = 0; h < H; h++) {
            const int64_t head = h * d, row = H * d;
            over(0, d, [&](int64_t e, auto p) {
                store(query + e, mul(load(q + t * row + head + e, p), load(scale + e, p)), p);
            });
            for (int64_t j = 0; j < n; j++) {
                const int64_t key = first + j, slot = past - t + key;
                scores[j] = dot(query, k + key * row + head, d) + dot(query, r + slot * row + head, d);
            }
            capped_soft_max(scores, n, cap);
            over(0, d, [&](int64_t e, auto p) {
                Vec sum = splat(0);
                for (int64_t j = 0; j < n; j++)
                    sum = fma(splat(scores[j]), load(v + (first + j) * row + head + e, p), sum);
                store(out + t * row + head + e, sum, p);
            });
        }
    }
}
