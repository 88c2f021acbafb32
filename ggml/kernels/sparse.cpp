// The sparse feed-forward layers: only neurons whose gate passes the token's Gaussian cutoff
// count, about one in twenty.
//
//   cutoff = mean(g) + z sqrt(mean((g - mean)^2))                  over the F gates of a token
//   out    = gelu(max(g - cutoff, 0)) * up
//
// A gate that is not at most the cutoff survives: NaN survives, and shows in the result.
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

extern "C" void g3n_topk_cutoff(const float *gate, int64_t F, int64_t T, float z, float *cutoff,
                                int ith, int nth) {
    const Share mine = share_rows(T, F, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const float *g = gate + t * F;
        float n = static_cast<float>(F);
        float mean = sum_over(F, [&](int64_t e, auto p) { return load(g + e, p); }) / n;
        Vec m = splat(mean);
        // Missing lanes would add mean^2: the part that is left is stepped through by hand.
        int64_t whole = F / WIDTH * WIDTH;
        float squares = sum_over(whole, [&](int64_t e, auto p) {
            Vec d = sub(load(g + e, p), m);
            return mul(d, d);
        });
        for (int64_t e = whole; e < F; e++) squares += (g[e] - mean) * (g[e] - mean);
        cutoff[t] = mean + z * sqrtf(squares / n);
    }
}

extern "C" void g3n_topk_gelu_mul(const float *gate, const float *up, const float *cutoff,
                                  int64_t F, int64_t T, float *out, int ith, int nth) {
    const Share mine = share(T, F, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        Vec c = splat(cutoff[t]);
        over(mine.e0, mine.e1, [&](int64_t e, auto p) {
            Vec v = gelu(max(splat(0), sub(load(gate + t * F + e, p), c)));
            store(out + t * F + e, mul(v, load(up + t * F + e, p)), p);
        });
    }
}

// Up to this many tokens a token's surviving rows are gathered; with more, a row is unpacked
// once for all tokens where it survives.
constexpr int64_t GATHER_TOKENS = 8;
// Neurons and tokens of one block of lists.
constexpr int64_t BLOCK_NEURONS = 128, BLOCK_TOKENS = 256, AHEAD = 4;

extern "C" int64_t g3n_sparse_scratch_bytes(int64_t F, int64_t T) {
    int64_t gather = 3 * (F + WIDTH) * 4;
    int64_t lists = (2 * BLOCK_NEURONS + 1) * least(T, BLOCK_TOKENS) * 4;
    return T <= GATHER_TOKENS ? gather : lists;
}

static float float_dot(int type, const void *w, const float *x, int64_t k) {
    const uint16_t *half = static_cast<const uint16_t *>(w);
    const float *single = static_cast<const float *>(w);
    auto dot = [&](auto weight) {
        return sum_over(k, [&](int64_t e, auto p) { return mul(weight(e, p), load(x + e, p)); });
    };
    if (type == G3N_F16) return dot([&](int64_t e, auto p) { return load_f16(half + e, p); });
    if (type == G3N_BF16) return dot([&](int64_t e, auto p) { return load_bf16(half + e, p); });
    return dot([&](int64_t e, auto p) { return load(single + e, p); });
}

static bool is_float(int type) { return type == G3N_F32 || type == G3N_F16 || type == G3N_BF16; }

static const char *bytes_at(const void *base, int64_t stride, int64_t i) {
    return static_cast<const char *>(base) + stride * i;
}

// The weights and activations of the product, as the caller gave them.
struct Up {
    int type;
    const void *w;
    int64_t w_stride, k;
    const void *a;
    int64_t a_stride;
};

static void gather_dots(const Up &up, const int32_t *rows, int64_t n, int64_t t, float *dots) {
    const void *a = bytes_at(up.a, up.a_stride, t);
    if (!is_float(up.type)) {
        g3n_gather_dots(up.type, up.w, up.w_stride, up.k, rows, n, a, dots);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const void *row = bytes_at(up.w, up.w_stride, rows[i]);
        dots[i] = float_dot(up.type, row, static_cast<const float *>(a), up.k);
    }
}

static void row_dots(const Up &up, int64_t f, const int32_t *tokens, int64_t n, float *dots) {
    const void *row = bytes_at(up.w, up.w_stride, f);
    if (!is_float(up.type)) {
        g3n_row_dots(up.type, row, up.k, up.a, up.a_stride, tokens, n, dots);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const void *a = bytes_at(up.a, up.a_stride, tokens[i]);
        dots[i] = float_dot(up.type, row, static_cast<const float *>(a), up.k);
    }
}

static void gelu_times(float *values, const float *dots, int64_t n) {
    over(0, n, [&](int64_t e, auto p) {
        store(values + e, mul(gelu(load(values + e, p)), load(dots + e, p)), p);
    });
}

// The neurons of [from, to) whose gate survives, and by how much it passes the cutoff. Returns
// their count; both lists need room for WIDTH more.
static int64_t survivors(const float *gate, int64_t from, int64_t to, float cutoff,
                         int32_t *neurons, float *shifted) {
    Vec c = splat(cutoff);
    int64_t n = 0;
    over(from, to, [&](int64_t e, auto p) {
        Vec g = load(gate + e, p);
        uint32_t bits = not_at_most(g, c) & below(p);
        n += pack(bits, sub(g, c), static_cast<int32_t>(e), shifted + n, neurons + n);
    });
    return n;
}

// One token: each thread takes an equal number of survivors, and zeroes the stretch they span.
static void gather_token(const Up &up, const float *gate, float cutoff, int64_t F, int64_t t,
                         float *out, void *scratch, int ith, int nth) {
    int32_t *rows = static_cast<int32_t *>(scratch);
    float *values = reinterpret_cast<float *>(rows + F + WIDTH), *dots = values + F + WIDTH;
    const int64_t n = survivors(gate, 0, F, cutoff, rows, values);
    const int64_t lo = n * ith / nth, hi = n * (ith + 1) / nth;
    const int64_t from = ith == 0 ? 0 : lo < n ? rows[lo] : F, to = hi < n ? rows[hi] : F;
    if (from < to) memset(out + from, 0, static_cast<size_t>(to - from) * sizeof(float));
    gather_dots(up, rows + lo, hi - lo, t, dots);
    gelu_times(values + lo, dots, hi - lo);
    for (int64_t i = lo; i < hi; i++) out[rows[i]] = values[i];
}

// Neurons [f0, f1), tokens [t0, t1): the gates are read along their rows, a block of neurons
// wide, and sorted into one list of tokens a neuron.
static void block(const Up &up, const float *gate, const float *cutoff, int64_t F, int64_t f0,
                  int64_t f1, int64_t t0, int64_t t1, float *out, void *scratch) {
    const int64_t most = t1 - t0;
    int32_t *tokens = static_cast<int32_t *>(scratch);
    float *values = reinterpret_cast<float *>(tokens + BLOCK_NEURONS * most);
    float *dots = values + BLOCK_NEURONS * most;
    int32_t end[BLOCK_NEURONS], neurons[BLOCK_NEURONS + WIDTH];
    float shifted[BLOCK_NEURONS + WIDTH];
    for (int64_t f = 0; f < f1 - f0; f++) end[f] = static_cast<int32_t>(f * most);
    for (int64_t t = t0; t < t1; t++) {
        // A row apart is a page apart, which no machine foresees.
        if (t + AHEAD < t1) {
            for (int64_t f = f0; f < f1; f += 16) {
                __builtin_prefetch(gate + (t + AHEAD) * F + f);
                __builtin_prefetch(out + (t + AHEAD) * F + f, 1);
            }
        }
        const int64_t n = survivors(gate + t * F, f0, f1, cutoff[t], neurons, shifted);
        for (int64_t i = 0; i < n; i++) {
            int32_t at = end[neurons[i] - f0]++;
            tokens[at] = static_cast<int32_t>(t);
            values[at] = shifted[i];
        }
        memset(out + t * F + f0, 0, static_cast<size_t>(f1 - f0) * sizeof(float));
    }
    for (int64_t f = f0; f < f1; f++) {
        const int64_t at = (f - f0) * most, n = end[f - f0] - at;
        if (n == 0) continue;
        row_dots(up, f, tokens + at, n, dots);
        gelu_times(values + at, dots, n);
        for (int64_t i = 0; i < n; i++) out[tokens[at + i] * F + f] = values[at + i];
    }
}

extern "C" void g3n_sparse_gated_up(int type, const void *w, int64_t w_stride, int64_t k, int64_t F,
                                    const float *gate, const float *cutoff, const void *a,
                                    int64_t a_stride, int64_t T, float *out, void *scratch, int ith,
                                    int nth) {
    const Up up = {type, w, w_stride, k, a, a_stride};
    if (T <= GATHER_TOKENS) {
        for (int64_t t = 0; t < T; t++)
            gather_token(up, gate + t * F, cutoff[t], F, t, out + t * F, scratch, ith, nth);
        return;
    }
    const int64_t first = border(F, BLOCK_NEURONS, ith, nth);
    const int64_t last = border(F, BLOCK_NEURONS, ith + 1, nth);
    for (int64_t f = first; f < last; f += BLOCK_NEURONS)
        for (int64_t t = 0; t < T; t += BLOCK_TOKENS)
            block(up, gate, cutoff, F, f, least(f + BLOCK_NEURONS, last), t,
                  least(t + BLOCK_TOKENS, T), out, scratch);
}
