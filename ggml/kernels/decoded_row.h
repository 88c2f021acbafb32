// A row of weights decoded to signed bytes, and its dots with tokens: AVX2 (with or without VNNI) and scalar form.
#pragma once
#include "product_forms.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define G3N_ROW_AVX2 1
#endif

namespace g3n {

// Blocks of 32 of a row that are decoded together: 2048 weights.
constexpr int ROW_BLOCKS = 64;

// A stretch of one row: w[i] = scale * q[i] + min, scale and min of i's block or half block.
struct DecodedRow {
    alignas(64) int8_t q[32 * ROW_BLOCKS];
#ifdef G3N_ROW_AVX2
    // Per block eight lanes: what the integers start from, and the scales.
    alignas(64) int32_t start[8 * ROW_BLOCKS];
    alignas(64) float scale[8 * ROW_BLOCKS];
    // One a block, or, of half blocks, eight lanes that hold -min / 512 (512 = 128 * 4 lanes).
    alignas(64) float min[8 * ROW_BLOCKS];
#else
    alignas(64) float scale[2 * ROW_BLOCKS];
    alignas(64) float min[2 * ROW_BLOCKS];
#endif
};

#ifdef G3N_ROW_AVX2

// The bytes of a block as T::decode gives them.
template <typename T>
inline __m256i decode_bytes(T, const uint8_t *row, int64_t b, float *scale, float *min) {
    alignas(32) uint8_t q[32];
    T::decode(row, b, q, scale, min);
    return _mm256_load_si256((const __m256i *)q);
}

inline __m256i decode_bytes(Q4_0, const uint8_t *row, int64_t b, float *scale, float *) {
    const uint8_t *p = row + b * Q4_0::BYTES;
    scale[0] = scale[1] = load_half(p);
    const __m128i v = _mm_loadu_si128((const __m128i *)(p + 2));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1);
    return _mm256_add_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(120));
}

inline void k4_factors_of(const uint8_t *p, int j, float *scale, float *min) {
    int s, m;
    k4_scale_min(p + 4, j, &s, &m);
    scale[0] = scale[1] = load_half(p) * (float)s;
    min[0] = min[1] = -load_half(p + 2) * (float)m;
}

inline __m256i shifted(__m256i v, int down, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(down)), _mm256_set1_epi8((char)mask));
}

inline __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

inline __m256i decode_bytes(Q4_K, const uint8_t *row, int64_t b, float *scale, float *min) {
    const uint8_t *p = row + (b >> 3) * Q4_K::BYTES;
    const int j = (int)(b & 7);
    k4_factors_of(p, j, scale, min);
    return shifted(load32(p + 16 + 32 * (j >> 1)), 4 * (j & 1), 15);
}

inline __m256i decode_bytes(Q5_K, const uint8_t *row, int64_t b, float *scale, float *min) {
    const uint8_t *p = row + (b >> 3) * Q5_K::BYTES;
    const int j = (int)(b & 7);
    k4_factors_of(p, j, scale, min);
    const __m256i high = _mm256_slli_epi16(shifted(load32(p + 16), j, 1), 4);
    return _mm256_or_si256(shifted(load32(p + 48 + 32 * (j >> 1)), 4 * (j & 1), 15), high);
}

inline __m256i decode_bytes(Q6_K, const uint8_t *row, int64_t b, float *scale, float *) {
    const uint8_t *p = row + (b >> 3) * Q6_K::BYTES;
    const int j = (int)(b & 7), quarter = j & 3;
    const float d = load_half(p + 208);
    scale[0] = d * (float)(int8_t)p[192 + 2 * j];
    scale[1] = d * (float)(int8_t)p[192 + 2 * j + 1];
    const __m256i low = shifted(load32(p + 64 * (j >> 2) + 32 * (quarter & 1)), 4 * (quarter >> 1), 15);
    const __m256i high = _mm256_slli_epi16(shifted(load32(p + 128 + 32 * (j >> 2)), 2 * quarter, 3), 4);
    return _mm256_add_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(96));
}

// start - 128 * (sums of four bytes each).
inline __m256i shift_start(__m256i w) {
    const __m256i magic = _mm256_set1_epi32(MAGIC_BITS), ones = _mm256_set1_epi8(1);
    const __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, w), _mm256_set1_epi16(1));
    return _mm256_sub_epi32(magic, _mm256_slli_epi32(sums, 7));
}

inline __m256 four_each(const float *two) {
    return _mm256_insertf128_ps(_mm256_set1_ps(two[0]), _mm_set1_ps(two[1]), 1);
}

template <typename T>
inline void decode_row(const uint8_t *row, int64_t b0, int nb, DecodedRow *c) {
    for (int b = 0; b < nb; b++) {
        float scale[2], min[2] = {0.0f, 0.0f};
        __m256i w = decode_bytes(T{}, row, b0 + b, scale, min);
        if (!T::MIN) w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
        _mm256_store_si256((__m256i *)(c->q + 32 * b), w);
        _mm256_store_si256((__m256i *)(c->start + 8 * b), shift_start(w));
        _mm256_store_ps(c->scale + 8 * b, four_each(scale));
        if (T::MIN && T::SUB == 1) c->min[b] = min[0];
        if (T::MIN && T::SUB == 2) _mm256_store_ps(c->min + 8 * b, _mm256_mul_ps(four_each(min), _mm256_set1_ps(-1.0f / 512)));
    }
}

// MAGIC_BITS + the dots of groups of four (without VNNI: of other groups, with the same sum for each half block).
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

// Sum of min * ds over the blocks, for one min a block, in eight lanes and a rest.
inline __m256 dot_mins8(const DecodedRow &c, int64_t b0, int nb, const Activations &a, float *rest) {
    __m256 sum = _mm256_setzero_ps();
    int b = 0;
    for (; b + 8 <= nb; b += 8) sum = _mm256_fmadd_ps(_mm256_load_ps(c.min + b), _mm256_loadu_ps(a.ds + b0 + b), sum);
    for (; b < nb; b++) *rest += c.min[b] * a.ds[b0 + b];
    return sum;
}

// Dots of nb decoded blocks, which are those from b0 on, with N tokens.
template <typename T, int N>
inline void dot_decoded(const DecodedRow &c, int64_t b0, int nb, const Activations *a, float *out) {
    __m256 sum[N];
    for (int t = 0; t < N; t++) {
        out[t] = 0.0f;
        sum[t] = _mm256_setzero_ps();
        if (T::MIN && T::SUB == 1) sum[t] = dot_mins8(c, b0, nb, a[t], out + t);
    }
    for (int b = 0; b < nb; b++) {
        const __m256i w = _mm256_load_si256((const __m256i *)(c.q + 32 * b));
        const __m256i start = _mm256_load_si256((const __m256i *)(c.start + 8 * b));
        const __m256 scale = _mm256_load_ps(c.scale + 8 * b);
#pragma GCC unroll 4
        for (int t = 0; t < N; t++) {
            const __m256i x = _mm256_loadu_si256((const __m256i *)(a[t].q + 32 * (b0 + b)));
            const __m256 d = _mm256_set1_ps(a[t].d[b0 + b]), nd = _mm256_set1_ps(a[t].nd[b0 + b]);
            const __m256 dot = _mm256_fmadd_ps(_mm256_castsi256_ps(dot32(w, start, x)), d, nd);
            sum[t] = _mm256_fmadd_ps(dot, scale, sum[t]);
            if (T::MIN && T::SUB == 2) {
                // c16 as a float is MAGIC - 128 * sum.
                const int32_t *c16 = a[t].c16 + 2 * (b0 + b);
                const __m256i both = _mm256_inserti128_si256(_mm256_set1_epi32(c16[0]), _mm_set1_epi32(c16[1]), 1);
                const __m256 sums = _mm256_fmadd_ps(_mm256_castsi256_ps(both), d, nd);
                sum[t] = _mm256_fmadd_ps(sums, _mm256_load_ps(c.min + 8 * b), sum[t]);
            }
        }
    }
    for (int t = 0; t < N; t++) out[t] += sum8(sum[t]);
}

#else

template <typename T>
inline void decode_row(const uint8_t *row, int64_t b0, int nb, DecodedRow *c) {
    for (int b = 0; b < nb; b++) {
        uint8_t q[32];
        float min[2] = {0.0f, 0.0f};
        T::decode(row, b0 + b, q, c->scale + 2 * b, min);
        for (int i = 0; i < 32; i++) c->q[32 * b + i] = (int8_t)(T::MIN ? q[i] : q[i] ^ 0x80);
        for (int s = 0; s < T::SUB; s++) c->min[T::SUB * b + s] = min[s];
    }
}

template <typename T, int N>
inline void dot_decoded(const DecodedRow &c, int64_t b0, int nb, const Activations *a, float *out) {
    for (int t = 0; t < N; t++) {
        float sum = 0.0f;
        for (int i = 0; i < 2 * nb; i++) {
            const int8_t *w = c.q + 16 * i, *x = a[t].q + 32 * b0 + 16 * i;
            int32_t dot = 0;
            for (int j = 0; j < 16; j++) dot += (int32_t)w[j] * x[j];
            sum += c.scale[i] * (a[t].d[b0 + i / 2] * (float)dot);
            if (T::MIN) sum += c.min[T::SUB == 2 ? i : i / 2] * (a[t].d[b0 + i / 2] * (float)((MAGIC_BITS - a[t].c16[2 * b0 + i]) / 128));
        }
        out[t] = sum;
    }
}

#endif

// The dot of one row from block b0 on with one token.
template <typename T>
inline float dot_from(const uint8_t *row, int64_t b0, int64_t blocks, const Activations &a) {
    float sum = 0.0f;
    DecodedRow c;
    for (; b0 < blocks; b0 += ROW_BLOCKS) {
        const int nb = (int)(blocks - b0 < ROW_BLOCKS ? blocks - b0 : ROW_BLOCKS);
        float part;
        decode_row<T>(row, b0, nb, &c);
        dot_decoded<T, 1>(c, b0, nb, &a, &part);
        sum += part;
    }
    return sum;
}

}  // namespace g3n
