// Attention over the KV cache.
//
//   out[h, t] = sum_s p_s V_s,   p = softmax_s(q[h, t] K_s + mask[s, t])
//
// A slot's row of K or V holds all KV heads; H / K query heads share one, and its rows are read
// once for all of them. The softmax is the running one: a chunk of slots at a time, the sums
// rescaled when the largest score grows. All sums are f32; a slot with mask -inf is not read.
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

namespace {

// Slots of a chunk; query heads whose sums fit the registers; rows of one pass over the cache.
constexpr int CHUNK = 64, HEADS = G3N_VECTORS == 512 ? 4 : 2, ROWS = 64;
// Up to this many rows the cache is read as it is; more are worth a chunk turned into floats.
constexpr int64_t DIRECT_ROWS = 2 * HEADS;

// Values e, e + 1, ... of a row of the cache.
struct Single {
    template <class P> static Vec get(const char *row, int64_t e, P part) {
        return load(reinterpret_cast<const float *>(row) + e, part);
    }
};
struct Half {
    template <class P> static Vec get(const char *row, int64_t e, P part) {
        return load_f16(reinterpret_cast<const uint16_t *>(row) + e, part);
    }
};
// Blocks of an f16 scale and 32 bytes; a vector lies within one, and none is left over.
struct Q8 {
    template <class P> static Vec get(const char *row, int64_t e, P) {
        const char *block = row + e / 32 * 34;
        uint16_t scale;
        memcpy(&scale, block, sizeof(scale));
        return mul(splat_f16(scale), load_i8(block + 2 + e % 32));
    }
};

// Rows of K or V, `stride` bytes apart, and those of them that a token sees.
struct Rows {
    const char *first;
    int64_t stride;
    const char *row(int32_t i) const { return first + stride * i; }
};
struct Seen {
    int n;
    int32_t slot[CHUNK + WIDTH];
    float mask[CHUNK + WIDTH];
};

// scores[i][j] = q_i K_slot(j), four slots and N queries at a time.
template <int N, class K>
void score(const float *q, int64_t d, Rows k, const Seen &seen, float (*scores)[CHUNK]) {
    for (int j = 0; j < seen.n; j += 4) {
        const char *row[4];
        for (int s = 0; s < 4; s++) row[s] = k.row(seen.slot[least(j + s, seen.n - 1)]);
        Vec sum[N][4];
        for (int i = 0; i < N; i++)
            for (int s = 0; s < 4; s++) sum[i][s] = splat(0);
        over(0, d, [&](int64_t e, auto p) {
            Vec key[4];
            for (int s = 0; s < 4; s++) key[s] = K::get(row[s], e, p);
            for (int i = 0; i < N; i++) {
                Vec query = load(q + i * d + e, p);
                for (int s = 0; s < 4; s++) sum[i][s] = fma(query, key[s], sum[i][s]);
            }
        });
        for (int i = 0; i < N; i++) totals(sum[i], scores[i] + j);
    }
}

// out_i = keep_i out_i + sum_j p[i][j] V_slot(j), four vectors of N outputs at a time.
template <int N, class K>
void weigh(float *out, int64_t d, Rows v, const Seen &seen, const float (*p)[CHUNK],
           const float *keep) {
    constexpr int64_t STEP = 4 * WIDTH;
    int64_t e = 0;
    for (; e + STEP <= d; e += STEP) {
        Vec sum[N][4];
        for (int i = 0; i < N; i++)
            for (int c = 0; c < 4; c++)
                sum[i][c] = mul(splat(keep[i]), load(out + i * d + e + c * WIDTH, Full{}));
        for (int j = 0; j < seen.n; j++) {
            const char *row = v.row(seen.slot[j]);
            Vec value[4];
            for (int c = 0; c < 4; c++) value[c] = K::get(row, e + c * WIDTH, Full{});
            for (int i = 0; i < N; i++)
                for (int c = 0; c < 4; c++) sum[i][c] = fma(splat(p[i][j]), value[c], sum[i][c]);
        }
        for (int i = 0; i < N; i++)
            for (int c = 0; c < 4; c++) store(out + i * d + e + c * WIDTH, sum[i][c], Full{});
    }
    over(e, d, [&](int64_t at, auto part) {
        for (int i = 0; i < N; i++) {
            Vec sum = mul(splat(keep[i]), load(out + i * d + at, part));
            for (int j = 0; j < seen.n; j++)
                sum = fma(splat(p[i][j]), K::get(v.row(seen.slot[j]), at, part), sum);
            store(out + i * d + at, sum, part);
        }
    });
}

// Scores to weights e^(s - max), in place; takes the chunk into the running maximum and total,
// and returns the factor of what was summed before.
float soften(float *scores, const Seen &seen, float &top, float &sum) {
    float highest = top;
    for (int j = 0; j < seen.n; j++) {
        scores[j] += seen.mask[j];
        highest = scores[j] > highest ? scores[j] : highest;
    }
    const float keep = top == highest ? 1.0f : expf(top - highest);
    // Up to a whole vector, so that no missing lane counts as e^-max.
    int whole = (seen.n + WIDTH - 1) / WIDTH * WIDTH;
    for (int j = seen.n; j < whole; j++) scores[j] = -INFINITY;
    float added = sum_over(whole, [&](int64_t j, auto p) {
        Vec x = sub(load(scores + j, p), splat(highest));
        Vec e = exponential(max(splat(-87.0f), x));
        e = pick_less(x, splat(-87.0f), splat(0), e);
        store(scores + j, e, p);
        return e;
    });
    top = highest;
    sum = sum * keep + added;
    return keep;
}

struct Work {
    const float *q;
    int64_t d, heads, kv_heads, slots;
    int type;
    const char *k, *v;
    int64_t kv_stride;
    const uint16_t *mask;
    int64_t mask_stride;
    float *out;
    float *scratch;
};

// A chunk of one KV head as floats: for several queries.
template <class K> void unpack(Rows from, int64_t n, int64_t d, float *to) {
    for (int64_t s = 0; s < n; s++, to += d) {
        const char *row = from.row(static_cast<int32_t>(s));
        over(0, d, [&](int64_t e, auto p) { store(to + e, K::get(row, e, p), p); });
    }
}

int64_t head_bytes(int type, int64_t d) {
    return type == G3N_F32 ? 4 * d : type == G3N_F16 ? 2 * d : d / 32 * 34;
}

void look(const Work &w, int64_t token, int64_t from, int64_t to, Seen &seen) {
    const uint16_t *mask = w.mask + token * w.mask_stride + from;
    Vec none = splat(-INFINITY);
    seen.n = 0;
    over(0, to - from, [&](int64_t s, auto p) {
        Vec m = load_f16(mask + s, p);
        uint32_t bits = not_at_most(m, none) & below(p);
        seen.n += pack(bits, m, static_cast<int32_t>(s), seen.mask + seen.n, seen.slot + seen.n);
    });
}

template <int N, class K>
void chunk(const Work &w, const float *q, float *out, Rows k, Rows v, const Seen &seen, float *top,
           float *sum) {
    float p[N][CHUNK], keep[N];
    score<N, K>(q, w.d, k, seen, p);
    for (int i = 0; i < N; i++) keep[i] = soften(p[i], seen, top[i], sum[i]);
    weigh<N, K>(out, w.d, v, seen, p, keep);
}

template <class K>
void chunk_of(int n, const Work &w, const float *q, float *out, Rows k, Rows v, const Seen &seen,
              float *top, float *sum) {
    auto run = n == 1 ? chunk<1, K> : n == 2 ? chunk<2, K> : n == 3 ? chunk<3, K> : chunk<4, K>;
    run(w, q, out, k, v, seen, top, sum);
}

// Rows r = token * (heads of the group) + head, [r0, r1) of one KV head, at most ROWS of them.
void attend(const Work &w, int64_t kv_head, int64_t r0, int64_t r1) {
    const int64_t group = w.heads / w.kv_heads, d = w.d;
    const int64_t head = kv_head * head_bytes(w.type, d);
    const bool direct = w.type == G3N_F32 || r1 - r0 <= DIRECT_ROWS;
    auto at = [&](int64_t r) { return (r / group * w.heads + kv_head * group + r % group) * d; };
    float top[ROWS], sum[ROWS];
    for (int64_t r = r0; r < r1; r++) {
        top[r - r0] = -INFINITY;
        sum[r - r0] = 0;
        memset(w.out + at(r), 0, static_cast<size_t>(d) * sizeof(float));
    }
    Seen seen;
    for (int64_t s = 0; s < w.slots; s += CHUNK) {
        const int64_t n = least(CHUNK, w.slots - s);
        Rows k = {w.k + s * w.kv_stride + head, w.kv_stride};
        Rows v = {w.v + s * w.kv_stride + head, w.kv_stride};
        bool unpacked = direct;
        int64_t rows = 0;
        for (int64_t r = r0, token = -1; r < r1; r += rows) {
            rows = least(HEADS, least(group - r % group, r1 - r));
            if (r / group != token) look(w, token = r / group, s, s + n, seen);
            if (seen.n == 0) continue;
            if (!unpacked) {
                float *keys = w.scratch, *values = w.scratch + CHUNK * d;
                auto floats = w.type == G3N_F16 ? unpack<Half> : unpack<Q8>;
                floats(k, n, d, keys);
                floats(v, n, d, values);
                k = {reinterpret_cast<const char *>(keys), 4 * d};
                v = {reinterpret_cast<const char *>(values), 4 * d};
                unpacked = true;
            }
            auto run = !direct || w.type == G3N_F32 ? chunk_of<Single>
                       : w.type == G3N_F16          ? chunk_of<Half>
                                                    : chunk_of<Q8>;
            run(static_cast<int>(rows), w, w.q + at(r), w.out + at(r), k, v, seen, top + (r - r0),
                sum + (r - r0));
        }
    }
    for (int64_t r = r0; r < r1; r++) {
        // A query that sees nothing gets 0.
        Vec inverse = splat(sum[r - r0] == 0 ? 0.0f : 1.0f / sum[r - r0]);
        float *out = w.out + at(r);
        over(0, d, [&](int64_t e, auto p) { store(out + e, mul(load(out + e, p), inverse), p); });
    }
}

} // namespace

extern "C" int64_t g3n_attention_scratch_bytes(int64_t d) { return 2 * CHUNK * d * 4; }

extern "C" void g3n_attention(const float *q, int type, const void *k, const void *v,
                              int64_t kv_stride, const uint16_t *mask, int64_t mask_stride,
                              int64_t slots, int64_t d, int64_t H, int64_t K, int64_t T, float *out,
                              void *scratch, int ith, int nth) {
    const Work work = {q,
                       d,
                       H,
                       K,
                       slots,
                       type,
                       static_cast<const char *>(k),
                       static_cast<const char *>(v),
                       kv_stride,
                       mask,
                       mask_stride,
                       out,
                       static_cast<float *>(scratch)};
    const int64_t rows = H / K * T, first = H * T * ith / nth, last = H * T * (ith + 1) / nth;
    for (int64_t r = first; r < last;) {
        const int64_t kv_head = r / rows, from = r % rows;
        const int64_t to = least(rows, least(from + ROWS, from + last - r));
        attend(work, kv_head, from, to);
        r += to - from;
    }
}
