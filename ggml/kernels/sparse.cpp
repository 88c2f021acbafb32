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

// Up to this many tokens threads share each token's survivors equally; with more, each has its
// neurons, and takes a block of their rows of w that stays near through all tokens.
constexpr int64_t SHARED_TOKENS = 8, BLOCK_BYTES = 512 * 1024;

extern "C" int64_t g3n_sparse_scratch_bytes(int64_t F, int64_t) {
    return 3 * (F + WIDTH) * 4;
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

// Lists of one thread: surviving neurons, what they pass the cutoff by, products.
struct Lists {
    int32_t *rows;
    float *values, *dots;
    Lists(void *scratch, int64_t F)
        : rows(static_cast<int32_t *>(scratch)),
          values(reinterpret_cast<float *>(rows + F + WIDTH)), dots(values + F + WIDTH) {}
};

// out of neurons [from, to) of a token: survivors [lo, hi) of the lists, zero elsewhere.
static void fill(const Up &up, const Lists &lists, int64_t lo, int64_t hi, int64_t t, int64_t from,
                 int64_t to, float *out) {
    if (from < to) memset(out + from, 0, static_cast<size_t>(to - from) * sizeof(float));
    gather_dots(up, lists.rows + lo, hi - lo, t, lists.dots);
    gelu_times(lists.values + lo, lists.dots, hi - lo);
    for (int64_t i = lo; i < hi; i++) out[lists.rows[i]] = lists.values[i];
}

extern "C" void g3n_sparse_gated_up(int type, const void *w, int64_t w_stride, int64_t k, int64_t F,
                                    const float *gate, const float *cutoff, const void *a,
                                    int64_t a_stride, int64_t T, float *out, void *scratch, int ith,
                                    int nth) {
    const Up up = {type, w, w_stride, k, a, a_stride};
    const Lists lists(scratch, F);
    if (T <= SHARED_TOKENS) {
        for (int64_t t = 0; t < T; t++) {
            const int64_t n = survivors(gate + t * F, 0, F, cutoff[t], lists.rows, lists.values);
            const int64_t lo = n * ith / nth, hi = n * (ith + 1) / nth;
            const int64_t from = ith == 0 ? 0 : lo < n ? lists.rows[lo] : F;
            fill(up, lists, lo, hi, t, from, hi < n ? lists.rows[hi] : F, out + t * F);
        }
        return;
    }
    const int64_t first = border(F, 16, ith, nth), last = border(F, 16, ith + 1, nth);
    const int64_t rows = BLOCK_BYTES / w_stride / 16 * 16, step = rows < 64 ? 64 : rows;
    for (int64_t f = first; f < last; f += step) {
        const int64_t end = least(f + step, last);
        for (int64_t t = 0; t < T; t++) {
            int64_t n = survivors(gate + t * F, f, end, cutoff[t], lists.rows, lists.values);
            fill(up, lists, 0, n, t, f, end, out + t * F);
        }
    }
}
