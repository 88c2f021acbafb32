// One token: rows of weights in the file's own layout, four at a time, at the speed of memory.
//
// A vector holds 64 weights, two blocks: vpdpbusd gives 16 partial dots, 8 a block, that are scaled by
// (scale of the weights * d of the activations) and summed in f32. High nibbles are left where they are (times 16)
// and the factor is taken off in the scale. Shifts of the weights (-8, -32, ...) are taken off in the integers: the
// sums start from -shift * sum(q), made once for all rows.
#pragma once
#include "product_forms.h"

#ifdef G3N_PRODUCT_AVX512
#include <immintrin.h>

namespace g3n {

constexpr int ROWS = 4;
// The caches' own prefetching does not keep up with four rows at once: while rows are read, those LOOK_AHEAD further on
// are asked for, into the second level (about 10 KB ahead; asking for the first level is slower).
constexpr int LOOK_AHEAD = 8;

template <int BYTES>
inline void prefetch(const uint8_t *p) {
    for (int i = 0; i < BYTES; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

inline __m512 load_ps(const float *p) { return _mm512_loadu_ps(p); }

// Lanes 0..7 take number 2p of a table of 16, lanes 8..15 number 2p + 1.
inline __m512i pair_index(int p) {
    return _mm512_add_epi32(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm512_set1_epi32(2 * p));
}

// 16 f16 that lie STRIDE bytes apart, from p on; reads nothing beyond p + 16 * STRIDE.
template <int STRIDE>
inline __m512 strided_halves(const uint8_t *p) {
#ifdef __AVX512VBMI__
    constexpr int LOADS = (15 * STRIDE + 2 + 63) / 64;
    struct Plan {
        uint8_t index[LOADS][64];
        uint64_t mask[LOADS];
    };
    static constexpr auto make = [] {
        Plan plan{};
        for (int i = 0; i < 16; i++) {
            const int at = i * STRIDE, load = at / 64;
            const int start = load * 64 + 64 <= 16 * STRIDE ? load * 64 : 16 * STRIDE - 64;
            plan.index[load][2 * i] = (uint8_t)(at - start);
            plan.index[load][2 * i + 1] = (uint8_t)(at + 1 - start);
            plan.mask[load] |= (uint64_t)3 << (2 * i);
        }
        return plan;
    };
    alignas(64) static constexpr Plan plan = make();
    __m512i halves = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int l = 0; l < LOADS; l++) {
        const int start = l * 64 + 64 <= 16 * STRIDE ? l * 64 : 16 * STRIDE - 64;
        halves = _mm512_mask_permutexvar_epi8(halves, plan.mask[l], _mm512_load_si512(plan.index[l]), _mm512_loadu_si512(p + start));
    }
    return _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
#else
    alignas(32) uint16_t halves[16];
    for (int i = 0; i < 16; i++) memcpy(halves + i, p + i * STRIDE, 2);
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)halves));
#endif
}

inline __m512i minus_shift(__m512i shift, __m512i x) {
    const __m512i zero = _mm512_setzero_si512();
    return _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, shift, x));
}

inline __m512i broadcast16(const uint8_t *p) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p)); }
inline __m512i broadcast32(const uint8_t *p) { return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p)); }
inline __m512i two16(const uint8_t *low, const uint8_t *high) {
    const __m512i v = broadcast16(low);
    return _mm512_mask_broadcast_i32x4(v, 0xff00, _mm_loadu_si128((const __m128i *)high));
}
inline __m512i two32(const uint8_t *low, const uint8_t *high) {
    const __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)high), 1);
}
inline __m512i halves_of(int low, int high) {
    return _mm512_inserti64x4(_mm512_set1_epi16((short)low), _mm256_set1_epi16((short)high), 1);
}

// The dots of N rows over whole runs of RUN blocks, while the same of `next` are fetched; the last k / 32 % RUN blocks are left to the caller. RUN 0: none.
template <typename T>
struct Rows {
    static constexpr int RUN = 0;
};

// Bytes of 15 and 240, or of `low` and `high`, in turns of 16.
inline __m512i turns16(int low, int high) {
    return _mm512_mask_blend_epi32(0xf0f0, _mm512_set1_epi8((char)low), _mm512_set1_epi8((char)high));
}

template <>
struct Rows<Q4_0> {
    static constexpr int RUN = 16;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i mask = turns16(15, 240), shift = turns16(8, 128);
        const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 16, 16, 16, 16, 1, 1, 1, 1, 17, 17, 17, 17);
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 d = load_ps(a.d + b);
            __m512 scale[N], scale16[N];
            for (int r = 0; r < N; r++) {
                prefetch<RUN * Q4_0::BYTES>(next[r] + b * Q4_0::BYTES);
                scale[r] = _mm512_mul_ps(strided_halves<Q4_0::BYTES>(rows[r] + b * Q4_0::BYTES), d);
                scale16[r] = _mm512_mul_ps(scale[r], _mm512_set1_ps(1.0f / 16));
            }
#pragma GCC unroll 8
            for (int p = 0; p < 8; p++) {
                const __m512i x = _mm512_loadu_si512(a.q + 32 * b + 64 * p);
                const __m512i start = minus_shift(shift, x), index = _mm512_add_epi32(first, _mm512_set1_epi32(2 * p));
                for (int r = 0; r < N; r++) {
                    const uint8_t *q = rows[r] + (b + 2 * p) * Q4_0::BYTES;
                    const __m512i w = _mm512_and_si512(two16(q + 2, q + 2 + Q4_0::BYTES), mask);
                    const __m512 s = _mm512_permutex2var_ps(scale[r], index, scale16[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, w, x)), s, sum[r]);
                }
            }
        }
    }
};

template <>
struct Rows<IQ4_NL> {
    static constexpr int RUN = 16;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i shift = _mm512_set1_epi8((char)128), down = turns16(0, 4);
        const __m512i words = _mm512_and_si512(down, _mm512_set1_epi16(255)), low = _mm512_set1_epi8(15);
        const __m512i levels = _mm512_xor_si512(broadcast16((const uint8_t *)IQ4_LEVELS), shift);
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 d = load_ps(a.d + b);
            __m512 scale[N];
            for (int r = 0; r < N; r++) {
                prefetch<RUN * IQ4_NL::BYTES>(next[r] + b * IQ4_NL::BYTES);
                scale[r] = _mm512_mul_ps(strided_halves<IQ4_NL::BYTES>(rows[r] + b * IQ4_NL::BYTES), d);
            }
#pragma GCC unroll 8
            for (int p = 0; p < 8; p++) {
                const __m512i x = _mm512_loadu_si512(a.q + 32 * b + 64 * p);
                const __m512i start = minus_shift(shift, x), index = pair_index(p);
                for (int r = 0; r < N; r++) {
                    const uint8_t *q = rows[r] + (b + 2 * p) * IQ4_NL::BYTES;
                    const __m512i n = _mm512_srlv_epi16(two16(q + 2, q + 2 + IQ4_NL::BYTES), words);
                    const __m512i w = _mm512_shuffle_epi8(levels, _mm512_and_si512(n, low));
                    const __m512 s = _mm512_permutexvar_ps(index, scale[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, w, x)), s, sum[r]);
                }
            }
        }
    }
};

template <>
struct Rows<Q8_0> {
    static constexpr int RUN = 16;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i shift = _mm512_set1_epi8((char)128);
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 d = load_ps(a.d + b);
            __m512 scale[N];
            for (int r = 0; r < N; r++) {
                prefetch<RUN * Q8_0::BYTES>(next[r] + b * Q8_0::BYTES);
                scale[r] = _mm512_mul_ps(strided_halves<Q8_0::BYTES>(rows[r] + b * Q8_0::BYTES), d);
            }
#pragma GCC unroll 8
            for (int p = 0; p < 8; p++) {
                const __m512i x = _mm512_loadu_si512(a.q + 32 * b + 64 * p);
                const __m512i start = minus_shift(shift, x), index = pair_index(p);
                for (int r = 0; r < N; r++) {
                    const uint8_t *q = rows[r] + (b + 2 * p) * Q8_0::BYTES;
                    const __m512i w = _mm512_xor_si512(two32(q + 2, q + 2 + Q8_0::BYTES), shift);
                    const __m512 s = _mm512_permutexvar_ps(index, scale[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, w, x)), s, sum[r]);
                }
            }
        }
    }
};

// The factors of a super-block of Q4_K or Q5_K: numbers 0..7 are scale * d of the blocks, 8..15 are -min * ds.
// `header` holds d, dmin and the packed scales and mins, `factors` d of the activations (0..7) and -ds (8..15).
inline __m512 k4_factors(const uint8_t *header, __m512 factors) {
    const __m128i h = _mm_loadu_si128((const __m128i *)header);
    const __m128i x = _mm_shuffle_epi8(h, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m128i y = _mm_shuffle_epi8(h, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    const __m128i low = _mm_and_si128(_mm_srlv_epi32(x, _mm_setr_epi32(0, 0, 0, 4)),
                                      _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    const __m128i high = _mm_and_si128(_mm_srli_epi32(y, 2), _mm_set1_epi32(0x30303030));
    const __m512 six = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_or_si128(low, high)));
    const __m512 d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                                           _mm512_castps128_ps512(_mm_cvtph_ps(h)));
    return _mm512_mul_ps(_mm512_mul_ps(six, d), factors);
}

// d of eight blocks of the activations, then -ds of the same.
inline __m512 k4_activations(const Activations &a, int64_t b, __m256 weight) {
    const __m256 ds = _mm256_sub_ps(_mm256_setzero_ps(), _mm256_loadu_ps(a.ds + b));
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_mul_ps(_mm256_loadu_ps(a.d + b), weight)), ds, 1);
}

template <>
struct Rows<Q4_K> {
    static constexpr int RUN = 8;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i mask = _mm512_mask_blend_epi32(0xff00, _mm512_set1_epi8(15), _mm512_set1_epi8((char)240));
        const __m512i zero = _mm512_setzero_si512();
        // High nibbles count 16 times.
        const __m256 weight = _mm256_setr_ps(1, 1.0f / 16, 1, 1.0f / 16, 1, 1.0f / 16, 1, 1.0f / 16);
        __m512 mins[N];
        for (int r = 0; r < N; r++) mins[r] = _mm512_setzero_ps();
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 factors = k4_activations(a, b, weight);
            const int64_t at = b / 8 * Q4_K::BYTES;
            __m512 scale[N];
            for (int r = 0; r < N; r++) {
                prefetch<Q4_K::BYTES>(next[r] + at);
                scale[r] = k4_factors(rows[r] + at, factors);
                mins[r] = _mm512_add_ps(mins[r], scale[r]);
            }
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                const __m512i x = _mm512_loadu_si512(a.q + 32 * b + 64 * p), index = pair_index(p);
                for (int r = 0; r < N; r++) {
                    const __m512i w = _mm512_and_si512(broadcast32(rows[r] + at + 16 + 32 * p), mask);
                    const __m512 s = _mm512_permutexvar_ps(index, scale[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, w, x)), s, sum[r]);
                }
            }
        }
        for (int r = 0; r < N; r++) sum[r] = _mm512_mask_add_ps(sum[r], 0xff00, sum[r], mins[r]);
    }
};

template <>
struct Rows<Q5_K> {
    static constexpr int RUN = 8;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i low = _mm512_set1_epi8(15), bit = _mm512_set1_epi8(16), zero = _mm512_setzero_si512();
        const __m512i down = halves_of(0, 4);
        const __m256 one = _mm256_set1_ps(1.0f);
        __m512 mins[N];
        for (int r = 0; r < N; r++) mins[r] = _mm512_setzero_ps();
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 factors = k4_activations(a, b, one);
            const int64_t at = b / 8 * Q5_K::BYTES;
            __m512 scale[N];
            __m512i high[N];
            for (int r = 0; r < N; r++) {
                prefetch<Q5_K::BYTES>(next[r] + at);
                scale[r] = k4_factors(rows[r] + at, factors);
                mins[r] = _mm512_add_ps(mins[r], scale[r]);
                // Bits 0 and 1 of each byte to bit 4 in the two halves; the next pairs follow by shifts of 2.
                high[r] = broadcast32(rows[r] + at + 16);
            }
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                const __m512i x = _mm512_loadu_si512(a.q + 32 * b + 64 * p), index = pair_index(p);
                for (int r = 0; r < N; r++) {
                    const __m512i n = _mm512_and_si512(_mm512_srlv_epi16(broadcast32(rows[r] + at + 48 + 32 * p), down), low);
                    const __m512i h = p < 2 ? _mm512_sllv_epi16(high[r], halves_of(4 - 2 * p, 3 - 2 * p))
                                            : _mm512_srlv_epi16(high[r], halves_of(2 * p - 4, 2 * p - 3));
                    // n | (h & bit)
                    const __m512i w = _mm512_ternarylogic_epi32(n, h, bit, 0xf8);
                    const __m512 s = _mm512_permutexvar_ps(index, scale[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, w, x)), s, sum[r]);
                }
            }
        }
        for (int r = 0; r < N; r++) sum[r] = _mm512_mask_add_ps(sum[r], 0xff00, sum[r], mins[r]);
    }
};

template <>
struct Rows<Q6_K> {
    static constexpr int RUN = 8;
    template <int N>
    static void run(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, __m512 *sum) {
        const __m512i low = _mm512_set1_epi8(15), bits = _mm512_set1_epi8(0x30), shift = _mm512_set1_epi8(32);
        const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        const __m512i quads = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        for (int64_t b = 0; b < blocks; b += RUN) {
            const __m512 d = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(a.d + b)));
            const int64_t at = b / 8 * Q6_K::BYTES;
            __m512 scale[N];
            for (int r = 0; r < N; r++) {
                const uint8_t *p = rows[r] + at;
                prefetch<Q6_K::BYTES>(next[r] + at);
                const __m512i s = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 192)));
                scale[r] = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(load_half(p + 208))), d);
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const int8_t *q = a.q + 32 * b + 128 * half;
                const __m512i x0 = _mm512_loadu_si512(q), x1 = _mm512_loadu_si512(q + 64);
                const __m512i start0 = minus_shift(shift, x0), start1 = minus_shift(shift, x1);
                const __m512i index0 = _mm512_add_epi32(quads, _mm512_set1_epi32(8 * half));
                const __m512i index1 = _mm512_add_epi32(quads, _mm512_set1_epi32(8 * half + 4));
                for (int r = 0; r < N; r++) {
                    const uint8_t *p = rows[r] + at;
                    const __m512i n = _mm512_loadu_si512(p + 64 * half), h = broadcast32(p + 128 + 32 * half);
                    const __m512i h0 = _mm512_sllv_epi16(h, halves_of(4, 2)), h1 = _mm512_srlv_epi16(h, halves_of(0, 2));
                    // (n & 15) | (h & bits)
                    const __m512i w0 = _mm512_ternarylogic_epi32(_mm512_and_si512(n, low), h0, bits, 0xf8);
                    const __m512i w1 = _mm512_ternarylogic_epi32(_mm512_and_si512(_mm512_srli_epi16(n, 4), low), h1, bits, 0xf8);
                    const __m512 s0 = _mm512_permutexvar_ps(index0, scale[r]), s1 = _mm512_permutexvar_ps(index1, scale[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start0, w0, x0)), s0, sum[r]);
                    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start1, w1, x1)), s1, sum[r]);
                }
            }
        }
    }
};

}  // namespace g3n
#endif
