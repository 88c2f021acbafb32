// One token, or one row: dots straight from the file's layout, and from a row that is decoded once.
#include "gemv_avx512.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define G3N_ROW_AVX2 1
#endif

namespace g3n {

namespace {

// Tokens that a decoded row meets at once.
constexpr int TOKENS = 4;

// A stretch of one row, decoded: w[i] = scale[i / 16] * q[i] + min[i / 16], with signed bytes for every type.
struct Chunk {
    alignas(64) int8_t q[32 * CHUNK];
    alignas(64) float scale[2 * CHUNK];
    alignas(64) float min[2 * CHUNK];
#ifdef G3N_ROW_AVX2
    // Per 32-block eight lanes: what the integers start from, and the scales.
    alignas(64) int32_t start[8 * CHUNK];
    alignas(64) float lanes[8 * CHUNK];
#endif
};

template <typename T>
void decode_chunk(const uint8_t *row, int64_t b0, int nb, Chunk *c) {
    for (int b = 0; b < nb; b++) {
        uint8_t q[32];
        T::decode(row, b0 + b, q, c->scale + 2 * b, c->min + 2 * b);
        for (int i = 0; i < 32; i++) c->q[32 * b + i] = (int8_t)(T::MIN ? q[i] : q[i] ^ 0x80);
#ifdef G3N_ROW_AVX2
        for (int i = 0; i < 8; i++) {
            int sum = 0;
            for (int j = 0; j < 4; j++) sum += c->q[32 * b + 4 * i + j];
            c->start[8 * b + i] = MAGIC_BITS - 128 * sum;
            c->lanes[8 * b + i] = c->scale[2 * b + i / 4];
        }
#endif
    }
}

// The part of the mins: sum of min * d * (sum of q), from block b0 of the activations on.
template <typename T>
float dot_mins(const Chunk &c, int64_t b0, int nb, const Activations &a) {
    float sum = 0.0f;
    if (T::MIN && T::SUB == 1) {
        for (int b = 0; b < nb; b++) sum += c.min[2 * b] * a.ds[b0 + b];
    }
    if (T::MIN && T::SUB == 2) {
        for (int i = 0; i < 2 * nb; i++) sum += c.min[i] * (a.d[b0 + i / 2] * (float)((MAGIC_BITS - a.c16[2 * b0 + i]) / 128));
    }
    return sum;
}

#ifdef G3N_ROW_AVX2

// MAGIC_BITS + the dots of groups of four (AVX2: of other groups, with the same sum per eight bytes).
inline __m256i dot32(__m256i w, __m256i start, __m256i x) {
    // With x shifted by 128 into unsigned bytes, `start` takes 128 * (sum of w) off again.
    const __m256i shifted = _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80));
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(start, shifted, w);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(start, shifted, w);
#else
    (void)start, (void)shifted;
    // |w| * (x with the sign of w): at most 2 * 128 * 127 in 16 bits.
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), _mm256_set1_epi32(MAGIC_BITS));
#endif
}

inline float sum8(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(four) + _mm_cvtss_f32(_mm_movehdup_ps(four));
}

template <typename T, int N>
void dot_chunk(const Chunk &c, int64_t b0, int nb, const Activations *a, float *out) {
    __m256 sum[N];
    for (int t = 0; t < N; t++) sum[t] = _mm256_setzero_ps();
    for (int b = 0; b < nb; b++) {
        const __m256i w = _mm256_load_si256((const __m256i *)(c.q + 32 * b));
        const __m256i start = _mm256_load_si256((const __m256i *)(c.start + 8 * b));
        const __m256 scale = _mm256_load_ps(c.lanes + 8 * b);
#pragma GCC unroll 4
        for (int t = 0; t < N; t++) {
            const __m256i x = _mm256_loadu_si256((const __m256i *)(a[t].q + 32 * (b0 + b)));
            const __m256 dot = _mm256_fmadd_ps(_mm256_castsi256_ps(dot32(w, start, x)), _mm256_set1_ps(a[t].d[b0 + b]),
                                               _mm256_set1_ps(a[t].nd[b0 + b]));
            sum[t] = _mm256_fmadd_ps(dot, scale, sum[t]);
        }
    }
    for (int t = 0; t < N; t++) out[t] = sum8(sum[t]) + dot_mins<T>(c, b0, nb, a[t]);
}

#else

template <typename T, int N>
void dot_chunk(const Chunk &c, int64_t b0, int nb, const Activations *a, float *out) {
    for (int t = 0; t < N; t++) {
        float sum = dot_mins<T>(c, b0, nb, a[t]);
        for (int i = 0; i < 2 * nb; i++) {
            const int8_t *w = c.q + 16 * i, *x = a[t].q + 32 * b0 + 16 * i;
            int32_t dot = 0;
            for (int j = 0; j < 16; j++) dot += (int32_t)w[j] * x[j];
            sum += c.scale[i] * (a[t].d[b0 + i / 2] * (float)dot);
        }
        out[t] = sum;
    }
}

#endif

// The dot of one row from block b0 on.
template <typename T>
float dot_from(const uint8_t *row, int64_t b0, int64_t blocks, const Activations &a) {
    float sum = 0.0f;
    Chunk c;
    for (; b0 < blocks; b0 += CHUNK) {
        const int nb = (int)(blocks - b0 < CHUNK ? blocks - b0 : CHUNK);
        float part;
        decode_chunk<T>(row, b0, nb, &c);
        dot_chunk<T, 1>(c, b0, nb, &a, &part);
        sum += part;
    }
    return sum;
}

template <typename T>
void dot_row(const uint8_t *row, int64_t k, const char *a, int64_t a_stride, const int32_t *tokens, int64_t n, float *out, int64_t out_stride) {
    const auto token = [&](int64_t i) { return Activations(a + (tokens ? tokens[i] : i) * a_stride, k); };
    const int64_t blocks = k / 32;
    Chunk c;
    for (int64_t i = 0; i < n; i++) out[i * out_stride] = 0.0f;
    for (int64_t b0 = 0; b0 < blocks; b0 += CHUNK) {
        const int nb = (int)(blocks - b0 < CHUNK ? blocks - b0 : CHUNK);
        decode_chunk<T>(row, b0, nb, &c);
        float part[TOKENS];
        int64_t i = 0;
        for (; i + TOKENS <= n; i += TOKENS) {
            const Activations four[TOKENS] = {token(i), token(i + 1), token(i + 2), token(i + 3)};
            dot_chunk<T, TOKENS>(c, b0, nb, four, part);
            for (int t = 0; t < TOKENS; t++) out[(i + t) * out_stride] += part[t];
        }
        for (; i < n; i++) {
            const Activations one = token(i);
            dot_chunk<T, 1>(c, b0, nb, &one, part);
            out[i * out_stride] += part[0];
        }
    }
}

#ifdef G3N_PRODUCT_AVX512

template <typename T, int N>
void dot_some(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, float *out) {
    constexpr int RUN = Rows<T>::RUN;
    const int64_t whole = blocks / RUN * RUN;
    __m512 sum[N];
    for (int r = 0; r < N; r++) sum[r] = _mm512_setzero_ps();
    Rows<T>::template run<N>(rows, next, whole, a, sum);
    for (int r = 0; r < N; r++) {
        out[r] = _mm512_reduce_add_ps(sum[r]) + (whole < blocks ? dot_from<T>(rows[r], whole, blocks, a) : 0.0f);
    }
}

template <typename T>
void dot_all(const uint8_t *const *rows, int64_t n, int64_t listed, int64_t blocks, const Activations &a, float *out) {
    int64_t i = 0;
    if constexpr (Rows<T>::RUN > 0) {
        const uint8_t *next[ROWS];
        for (; i + ROWS <= n; i += ROWS) {
            for (int r = 0; r < ROWS; r++) next[r] = rows[i + LOOK_AHEAD + r < listed ? i + LOOK_AHEAD + r : listed - 1];
            dot_some<T, ROWS>(rows + i, next, blocks, a, out + i);
        }
        for (; i < n; i++) dot_some<T, 1>(rows + i, rows + i, blocks, a, out + i);
    } else {
        for (; i < n; i++) out[i] = dot_from<T>(rows[i], 0, blocks, a);
    }
}

#else

template <typename T>
void dot_all(const uint8_t *const *rows, int64_t n, int64_t, int64_t blocks, const Activations &a, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = dot_from<T>(rows[i], 0, blocks, a);
}

#endif

}  // namespace

void dot_rows(int type, const uint8_t *const *rows, int64_t n, int64_t listed, int64_t k, const char *a, float *out) {
    with_type(type, [&](auto t) { dot_all<decltype(t)>(rows, n, listed, k / 32, Activations(a, k), out); });
}

void dot_tokens(int type, const uint8_t *row, int64_t k, const char *a, int64_t a_stride, const int32_t *tokens, int64_t n, float *out,
                int64_t out_stride) {
    with_type(type, [&](auto t) { dot_row<decltype(t)>(row, k, a, a_stride, tokens, n, out, out_stride); });
}

}  // namespace g3n
