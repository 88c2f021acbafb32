// The product with `down` weights that lie neuron-major: row f is what neuron f adds to the output.
//
//   out[t][e] = sum over f of act[t][f] * w[f][e]              w [E, F], act [F, T], out [E, T]
//
// Only neurons with act != 0 count (NaN does), and only their rows are read. Weights are widened to
// f32, activations stay as they are. A column is summed by one thread in the order of the neurons:
// results depend neither on the number of threads nor on how many tokens come together.
//
// Few tokens: the rows of a token's neurons, a group at a time, straight from the file's layout.
// More:       a tile of neurons and columns widened once, then token by token the neurons of the
//             tile that it has, with the sums of its columns in registers.
#include "decoded_row.h"
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

namespace {

// Columns that are widened together, and the vectors that they are.
constexpr int BLOCK = 32, PIECES = BLOCK / WIDTH;
// Columns and neurons of a tile: 8 vectors of sums, a tile of 128 KiB (AVX-512).
constexpr int COLUMNS = 8 * WIDTH, NEURONS = 256;
// Up to this many tokens go one by one.
constexpr int64_t SINGLE_TOKENS = 16;
// From this many tokens on hardly a neuron is used by none.
constexpr int64_t MANY_TOKENS = 64;
// Rows that are read side by side.
constexpr int GROUP = 8;

// A token's neurons in ascending order with INT32_MAX at the end, and their activations.
struct Survivors {
    int64_t count;
    const int32_t *neurons;
    const float *values;
    Survivors(const int32_t *row, int64_t F)
        : count(row[0]), neurons(row + WIDTH), values(reinterpret_cast<const float *>(row + F + 3 * WIDTH)) {}
};

struct NeuronProduct {
    const uint8_t *w;
    int64_t w_stride, E, F;
    const int32_t *lists;
    int64_t T;
    float *out;
    Survivors token(int64_t t) const { return Survivors(lists + t * g3n_survivors_len(F), F); }
};

// Weights as floats, described as the blocks of the quantized types are.
struct Half {
    static constexpr int LEN = 1, BYTES = 2;
    template <class P> static Vec load_at(const uint8_t *p, P part) { return load_f16(reinterpret_cast<const uint16_t *>(p), part); }
};
struct Brain {
    static constexpr int LEN = 1, BYTES = 2;
    template <class P> static Vec load_at(const uint8_t *p, P part) { return load_bf16(reinterpret_cast<const uint16_t *>(p), part); }
};
struct Single {
    static constexpr int LEN = 1, BYTES = 4;
    template <class P> static Vec load_at(const uint8_t *p, P part) { return load(reinterpret_cast<const float *>(p), part); }
};

// Columns e .. e + BLOCK of a row, of which n are there; the others are zero.
template <class T>
inline void widen_floats(const uint8_t *row, int64_t e, int64_t n, Vec *w) {
    for (int i = 0; i < PIECES; i++) {
        const uint8_t *p = row + (e + i * WIDTH) * T::BYTES;
        const int64_t left = n - i * WIDTH;
        w[i] = left >= WIDTH ? T::load_at(p, Full{}) : left > 0 ? T::load_at(p, Part{static_cast<int>(left)}) : splat(0);
    }
}
inline void widen(Half, const uint8_t *row, int64_t e, int64_t n, Vec *w) { widen_floats<Half>(row, e, n, w); }
inline void widen(Brain, const uint8_t *row, int64_t e, int64_t n, Vec *w) { widen_floats<Brain>(row, e, n, w); }
inline void widen(Single, const uint8_t *row, int64_t e, int64_t n, Vec *w) { widen_floats<Single>(row, e, n, w); }

// The whole numbers of a block as T::decode gives them, signed.
template <class T>
inline void block_integers(const uint8_t *row, int64_t b, float *scale, float *min, Vec *q) {
#if G3N_VECTORS
    __m256i bytes = decode_bytes(T{}, row, b, scale, min);
    if (!T::MIN) bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
#if G3N_VECTORS == 512
    q[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low));
    q[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high));
#else
    q[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
    q[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(low, 8)));
    q[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
    q[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(high, 8)));
#endif
#else
    uint8_t bytes[BLOCK];
    T::decode(row, b, bytes, scale, min);
    for (int i = 0; i < PIECES; i++) {
        q[i] = each([&](int lane) { return static_cast<float>(bytes[i * WIDTH + lane] - (T::MIN ? 0 : 128)); });
    }
#endif
}

template <class T>
inline void widen(T, const uint8_t *row, int64_t e, int64_t, Vec *w) {
    float scale[2], min[2] = {0.0f, 0.0f};
    block_integers<T>(row, e / BLOCK, scale, min, w);
    for (int i = 0; i < PIECES; i++) {
        const int half = i * WIDTH / 16;
        w[i] = T::MIN ? fma(w[i], splat(scale[half]), splat(min[half])) : mul(w[i], splat(scale[half]));
    }
}

// Adds N rows times their activations to the sums of columns [from, to).
template <int N, class T>
inline void add_rows(T type, const uint8_t *const *rows, const float *values, int64_t from, int64_t to, float *sums) {
    Vec a[N];
    for (int i = 0; i < N; i++) a[i] = splat(values[i]);
    for (int64_t e = from; e < to; e += BLOCK, sums += BLOCK) {
        Vec sum[PIECES], w[PIECES];
        for (int p = 0; p < PIECES; p++) sum[p] = load(sums + p * WIDTH, Full{});
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) {
            widen(type, rows[i], e, to - e, w);
            for (int p = 0; p < PIECES; p++) sum[p] = fma(w[p], a[i], sum[p]);
        }
        for (int p = 0; p < PIECES; p++) store(sums + p * WIDTH, sum[p], Full{});
    }
}

template <class T>
void one_token(T type, const NeuronProduct &p, int64_t t, int64_t from, int64_t to, float *sums) {
    const Survivors own = p.token(t);
    const int64_t first = from * T::BYTES / T::LEN, last = to * T::BYTES / T::LEN;
    memset(sums, 0, static_cast<size_t>(to - from + BLOCK) * sizeof(float));
    const auto row = [&](int64_t i) { return p.w + own.neurons[i] * p.w_stride; };
    int64_t i = 0;
    for (; i + GROUP <= own.count; i += GROUP) {
        const uint8_t *rows[GROUP];
        for (int g = 0; g < GROUP; g++) rows[g] = row(i + g);
        // Rows are too short for the machine to see where they go on.
        for (int64_t next = i + GROUP; next < least(i + 2 * GROUP, own.count); next++) {
            for (int64_t at = first; at < last; at += 64) __builtin_prefetch(row(next) + at, 0, 2);
        }
        add_rows<GROUP>(type, rows, own.values + i, from, to, sums);
    }
    for (; i < own.count; i++) {
        const uint8_t *one = row(i);
        add_rows<1>(type, &one, own.values + i, from, to, sums);
    }
    memcpy(p.out + t * p.E + from, sums, static_cast<size_t>(to - from) * sizeof(float));
}

// Scratch of one thread for many tokens: widened weights, sums [columns of the thread, T], where each
// token's list has come to, and which of a panel's neurons some token has.
struct Panel {
    float *weights, *sums;
    int64_t sums_len;
    int32_t *next, *used;
    Panel(void *scratch, int64_t columns, int64_t T)
        : weights(static_cast<float *>(scratch)), sums(weights + NEURONS * COLUMNS), sums_len(padded(columns)),
          next(reinterpret_cast<int32_t *>(sums + T * sums_len)), used(next + T) {}
    static int64_t padded(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS * COLUMNS; }
};

// Lists which of the neurons [f0, f1) some token has.
int64_t list_used(const NeuronProduct &p, const Panel &panel, int64_t f0, int64_t f1) {
    uint8_t used[NEURONS];
    memset(used, p.T >= MANY_TOKENS, sizeof(used));
    for (int64_t t = 0; t < p.T && p.T < MANY_TOKENS; t++) {
        const int32_t *neurons = p.token(t).neurons;
        for (int32_t i = panel.next[t]; neurons[i] < f1; i++) used[neurons[i] - f0] = 1;
    }
    int64_t n = 0;
    for (int64_t f = f0; f < f1; f++) {
        panel.used[n] = static_cast<int32_t>(f);
        n += used[f - f0];
    }
    return n;
}

template <class T>
void widen_tile(T type, const NeuronProduct &p, const Panel &panel, int64_t n, int64_t f0, int64_t e0, int64_t columns) {
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *row = p.w + panel.used[i] * p.w_stride;
        float *to = panel.weights + (panel.used[i] - f0) * COLUMNS;
        for (int64_t e = 0; e < columns; e += BLOCK) {
            Vec w[PIECES];
            widen(type, row, e0 + e, columns - e, w);
            for (int v = 0; v < PIECES; v++) store(to + e + v * WIDTH, w[v], Full{});
        }
    }
}

void add_tile(const NeuronProduct &p, const Panel &panel, int64_t f0, int64_t f1, int64_t column) {
    for (int64_t t = 0; t < p.T; t++) {
        const Survivors own = p.token(t);
        int32_t i = panel.next[t];
        if (own.neurons[i] >= f1) continue;
        float *sums = panel.sums + t * panel.sums_len + column;
        Vec sum[8];
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) sum[v] = load(sums + v * WIDTH, Full{});
        for (; own.neurons[i] < f1; i++) {
            const float *w = panel.weights + (own.neurons[i] - f0) * COLUMNS;
            const Vec a = splat(own.values[i]);
#pragma GCC unroll 8
            for (int v = 0; v < 8; v++) sum[v] = fma(load(w + v * WIDTH, Full{}), a, sum[v]);
        }
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) store(sums + v * WIDTH, sum[v], Full{});
    }
}

void advance(const NeuronProduct &p, const Panel &panel, int64_t f1) {
    for (int64_t t = 0; t < p.T; t++) {
        const int32_t *neurons = p.token(t).neurons;
        while (neurons[panel.next[t]] < f1) panel.next[t]++;
    }
}

template <class T>
void many_tokens(T type, const NeuronProduct &p, int64_t from, int64_t to, void *scratch) {
    const Panel panel(scratch, to - from, p.T);
    memset(panel.sums, 0, static_cast<size_t>(p.T * panel.sums_len) * sizeof(float));
    // Columns that are not there are added up too.
    memset(panel.weights, 0, sizeof(float) * NEURONS * COLUMNS);
    memset(panel.next, 0, static_cast<size_t>(p.T) * sizeof(int32_t));
    for (int64_t f0 = 0; f0 < p.F; f0 += NEURONS) {
        const int64_t f1 = least(f0 + NEURONS, p.F), used = list_used(p, panel, f0, f1);
        for (int64_t e0 = from; e0 < to; e0 += COLUMNS) {
            widen_tile(type, p, panel, used, f0, e0, least(COLUMNS, to - e0));
            add_tile(p, panel, f0, f1, e0 - from);
        }
        advance(p, panel, f1);
    }
    for (int64_t t = 0; t < p.T; t++) {
        memcpy(p.out + t * p.E + from, panel.sums + t * panel.sums_len, static_cast<size_t>(to - from) * sizeof(float));
    }
}

template <class F>
bool with_weights(int type, F f) {
    switch (type) {
        case TYPE_F32: f(Single{}); return true;
        case TYPE_F16: f(Half{}); return true;
        case TYPE_BF16: f(Brain{}); return true;
        default: return with_type(type, f);
    }
}

}  // namespace

extern "C" int64_t g3n_survivors_len(int64_t F) { return 2 * F + 4 * WIDTH; }

extern "C" void g3n_survivors(const float *act, int64_t F, int64_t T, int32_t *lists, int ith, int nth) {
    const Share mine = share_rows(T, F, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        int32_t *row = lists + t * g3n_survivors_len(F), *neurons = row + WIDTH;
        float *values = reinterpret_cast<float *>(row + F + 3 * WIDTH);
        int64_t n = 0;
        over(0, F, [&](int64_t f, auto p) {
            const Vec a = load(act + t * F + f, p);
            const uint32_t some = not_at_most(abs(a), splat(0)) & below(p);
            n += pack(some, a, static_cast<int32_t>(f), values + n, neurons + n);
        });
        row[0] = static_cast<int32_t>(n);
        neurons[n] = INT32_MAX;
    }
}

extern "C" int g3n_neurons_supports(int type, int64_t E) {
    int64_t len = 0;
    return with_weights(type, [&](auto t) { len = decltype(t)::LEN; }) && E > 0 && E % len == 0;
}

extern "C" int64_t g3n_neurons_scratch_bytes(int64_t E, int64_t T) {
    if (T <= SINGLE_TOKENS) return (E + BLOCK) * 4;
    return (NEURONS * COLUMNS + T * Panel::padded(E) + T + NEURONS) * 4;
}

extern "C" void g3n_neurons_product(int type, const void *w, int64_t w_stride, int64_t E, int64_t F, const int32_t *lists, int64_t T,
                                    float *out, void *scratch, int ith, int nth) {
    const NeuronProduct p = {static_cast<const uint8_t *>(w), w_stride, E, F, lists, T, out};
    const int64_t from = border(E, BLOCK, ith, nth), to = border(E, BLOCK, ith + 1, nth);
    if (from >= to) return;
    with_weights(type, [&](auto t) {
        if (T > SINGLE_TOKENS) return many_tokens(t, p, from, to, scratch);
        for (int64_t i = 0; i < T; i++) one_token(t, p, i, from, to, static_cast<float *>(scratch));
    });
}
