// Panels: 32 rows of weights, a chunk of their columns, interleaved for vpdpbusd.
//
// q      [block][step 0..7][row 0..31][4]   bytes of columns 4*step .. 4*step+3 of the block
// scale  [block][sub][row]                  sub: 0 for types with one scale per 32, 0..1 for one per 16
// min    [block][sub][row]
// The packed bytes of 16 rows are interleaved before they are taken apart: half the shuffles for 4-bit types.
#pragma once
#include "product_forms.h"

#ifdef G3N_PRODUCT_AVX512
#include <immintrin.h>

namespace g3n {

struct Panel {
    uint8_t *q;
    float *scale, *min;
};

// Sixteen rows of a panel: their first bytes, and the same as 32-bit distances from rows[0] for gathers.
struct RowGroup {
    const uint8_t *rows[16];
    __m512i distance;
};

// The rows of a panel, with masks of those that exist; missing ones repeat the last.
struct PanelRows {
    RowGroup groups[2];
    __mmask16 mask[2];

    PanelRows(const uint8_t *first, int64_t stride, int64_t rows) {
        if (rows > PANEL) rows = PANEL;
        for (int g = 0; g < 2; g++) {
            alignas(64) int32_t distance[16];
            for (int i = 0; i < 16; i++) {
                const int64_t r = 16 * g + i < rows ? 16 * g + i : rows - 1;
                groups[g].rows[i] = first + r * stride;
                distance[i] = (int32_t)(groups[g].rows[i] - groups[g].rows[0]);
            }
            groups[g].distance = _mm512_load_si512(distance);
            const int64_t own = rows - 16 * g;
            mask[g] = own >= 16 ? 0xffff : own > 0 ? (__mmask16)((1 << own) - 1) : 0;
        }
    }
};

// Asks for `bytes` of `count` rows into the second-level cache.
inline void prefetch_rows(const uint8_t *const *rows, int count, int64_t offset, int64_t bytes) {
    for (int r = 0; r < count; r++) {
        for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)rows[r] + offset + i, _MM_HINT_T1);
    }
}

// out[j] = bytes 4j..4j+3 of the 16 bytes at `offset` of every row, in the order of the rows.
inline void interleave16(const RowGroup &g, int64_t offset, __m512i out[4]) {
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(g.rows[i] + offset)));
        v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const __m128i *)(g.rows[4 + i] + offset)), 1);
        v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const __m128i *)(g.rows[8 + i] + offset)), 2);
        v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const __m128i *)(g.rows[12 + i] + offset)), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

// The f16 at `offset` of every row. `shift` 16: the 32 bits read end with it, so as not to pass the end of the weights.
template <int SHIFT = 0>
inline __m512 gather_halves(const RowGroup &g, int64_t offset) {
    const __m512i words = _mm512_i32gather_epi32(g.distance, g.rows[0] + offset - SHIFT / 8, 1);
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(SHIFT ? _mm512_srli_epi32(words, SHIFT) : words));
}

inline __m512 low_halves(__m512i words) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)); }

inline __m512i nibbles(__m512i v, int shift) {
    return _mm512_and_si512(shift ? _mm512_srli_epi16(v, 4) : v, _mm512_set1_epi8(15));
}

inline void put(uint8_t *q, int step, __m512i v) { _mm512_store_si512(q + 128 * step, v); }

// Any type: row by row through its portable decoder. `group` is 0 or 1.
template <typename T>
struct Unpack {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        alignas(64) uint8_t plain[16][32];
        RowGroup decoded;
        for (int r = 0; r < 16; r++) decoded.rows[r] = plain[r];
        for (int b = 0; b < nb; b++) {
            for (int r = 0; r < 16; r++) {
                float scale[2], min[2];
                T::decode(g.rows[r], b0 + b, plain[r], scale, min);
                for (int s = 0; s < T::SUB; s++) {
                    const int64_t at = (b * T::SUB + s) * PANEL + 16 * group + r;
                    p.scale[at] = scale[s];
                    if (T::MIN) p.min[at] = min[s];
                }
            }
            uint8_t *q = p.q + 1024 * b + 64 * group;
            for (int h = 0; h < 2; h++) {
                __m512i v[4];
                interleave16(decoded, 16 * h, v);
                for (int i = 0; i < 4; i++) put(q, 4 * h + i, v[i]);
            }
        }
    }
};

template <>
struct Unpack<Q4_0> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        const __m512i shift = _mm512_set1_epi8(120);
        for (int b = 0; b < nb; b++) {
            const int64_t at = (b0 + b) * Q4_0::BYTES;
            uint8_t *q = p.q + 1024 * b + 64 * group;
            __m512i v[4];
            interleave16(g, at + 2, v);
            for (int i = 0; i < 4; i++) {
                put(q, i, _mm512_add_epi8(nibbles(v[i], 0), shift));
                put(q, 4 + i, _mm512_add_epi8(nibbles(v[i], 4), shift));
            }
            _mm512_store_ps(p.scale + b * PANEL + 16 * group, gather_halves(g, at));
        }
    }
};

template <>
struct Unpack<IQ4_NL> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        const __m512i levels = _mm512_xor_si512(
            _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)IQ4_LEVELS)), _mm512_set1_epi8((char)0x80));
        for (int b = 0; b < nb; b++) {
            const int64_t at = (b0 + b) * IQ4_NL::BYTES;
            uint8_t *q = p.q + 1024 * b + 64 * group;
            __m512i v[4];
            interleave16(g, at + 2, v);
            for (int i = 0; i < 4; i++) {
                put(q, i, _mm512_shuffle_epi8(levels, nibbles(v[i], 0)));
                put(q, 4 + i, _mm512_shuffle_epi8(levels, nibbles(v[i], 4)));
            }
            _mm512_store_ps(p.scale + b * PANEL + 16 * group, gather_halves(g, at));
        }
    }
};

template <>
struct Unpack<Q8_0> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        const __m512i sign = _mm512_set1_epi8((char)0x80);
        for (int b = 0; b < nb; b++) {
            const int64_t at = (b0 + b) * Q8_0::BYTES;
            uint8_t *q = p.q + 1024 * b + 64 * group;
            for (int h = 0; h < 2; h++) {
                __m512i v[4];
                interleave16(g, at + 2 + 16 * h, v);
                for (int i = 0; i < 4; i++) put(q, 4 * h + i, _mm512_xor_si512(v[i], sign));
            }
            _mm512_store_ps(p.scale + b * PANEL + 16 * group, gather_halves(g, at));
        }
    }
};

// Scales and mins of one super-block of Q4_K or Q5_K: blocks 8s .. 8s+7 of the chunk, as far as they are in it.
inline void unpack_k4_scales(const RowGroup &g, int64_t at, int group, int b, int nb, const Panel &p) {
    __m512i v[4];
    interleave16(g, at, v);
    const __m512 d = low_halves(v[0]);
    const __m512 dmin = _mm512_sub_ps(_mm512_setzero_ps(), low_halves(_mm512_srli_epi32(v[0], 16)));
    const __m512i six = _mm512_set1_epi32(63), four = _mm512_set1_epi32(15), top = _mm512_set1_epi32(0x30);
    for (int j = 0; j < 8 && b + j < nb; j++) {
        const __m128i byte = _mm_cvtsi32_si128(8 * (j & 3));
        const __m512i s0 = _mm512_srl_epi32(v[1], byte), m0 = _mm512_srl_epi32(v[2], byte);
        const __m512i both = _mm512_srl_epi32(v[3], byte);
        __m512i scale, min;
        if (j < 4) {
            scale = _mm512_and_si512(s0, six);
            min = _mm512_and_si512(m0, six);
        } else {
            scale = _mm512_or_si512(_mm512_and_si512(both, four), _mm512_and_si512(_mm512_srli_epi32(s0, 2), top));
            min = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(both, 4), four),
                                  _mm512_and_si512(_mm512_srli_epi32(m0, 2), top));
        }
        const int64_t to = (b + j) * PANEL + 16 * group;
        _mm512_store_ps(p.scale + to, _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
        _mm512_store_ps(p.min + to, _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(min)));
    }
}

template <>
struct Unpack<Q4_K> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        for (int b = 0; b < nb; b += 8) {
            const int64_t at = (b0 + b) / 8 * Q4_K::BYTES;
            unpack_k4_scales(g, at, group, b, nb, p);
            for (int j = 0; j < 8; j++) {
                uint8_t *q = p.q + 1024 * (b + (j & ~1)) + 64 * group;
                __m512i v[4];
                interleave16(g, at + 16 + 16 * j, v);
                for (int i = 0; i < 4; i++) {
                    put(q, 4 * (j & 1) + i, nibbles(v[i], 0));
                    put(q + 1024, 4 * (j & 1) + i, nibbles(v[i], 4));
                }
            }
        }
    }
};

template <>
struct Unpack<Q5_K> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        const __m512i bit = _mm512_set1_epi8(16);
        for (int b = 0; b < nb; b += 8) {
            const int64_t at = (b0 + b) / 8 * Q5_K::BYTES;
            unpack_k4_scales(g, at, group, b, nb, p);
            for (int h = 0; h < 2; h++) {
                __m512i high[4];
                interleave16(g, at + 16 + 16 * h, high);
                for (int j = 0; j < 4; j++) {
                    uint8_t *q = p.q + 1024 * (b + 2 * j) + 64 * group;
                    const __m128i down = _mm_cvtsi32_si128(2 * j);
                    __m512i v[4];
                    interleave16(g, at + 48 + 32 * j + 16 * h, v);
                    for (int i = 0; i < 4; i++) {
                        const __m512i two = _mm512_srl_epi16(high[i], down);
                        const __m512i low = _mm512_and_si512(_mm512_slli_epi16(two, 4), bit);
                        const __m512i top = _mm512_and_si512(_mm512_slli_epi16(two, 3), bit);
                        put(q, 4 * h + i, _mm512_or_si512(nibbles(v[i], 0), low));
                        put(q + 1024, 4 * h + i, _mm512_or_si512(nibbles(v[i], 4), top));
                    }
                }
            }
        }
    }
};

template <>
struct Unpack<Q6_K> {
    static void run(const RowGroup &g, int group, int64_t b0, int nb, const Panel &p) {
        const __m512i bits = _mm512_set1_epi8(0x30), shift = _mm512_set1_epi8(96);
        for (int b = 0; b < nb; b += 8) {
            const int64_t at = (b0 + b) / 8 * Q6_K::BYTES;
            const __m512 d = gather_halves<16>(g, at + 208);
            __m512i s[4];
            interleave16(g, at + 192, s);
            for (int j = 0; j < 16; j++) {
                const __m512i up = _mm512_sll_epi32(s[j >> 2], _mm_cvtsi32_si128(24 - 8 * (j & 3)));
                const __m512 scale = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(up, 24)));
                _mm512_store_ps(p.scale + (2 * b + j) * PANEL + 16 * group, scale);
            }
            for (int half = 0; half < 2; half++) {
                for (int h = 0; h < 2; h++) {
                    uint8_t *q = p.q + 1024 * (b + 4 * half) + 64 * group;
                    __m512i high[4], first[4], second[4];
                    interleave16(g, at + 128 + 32 * half + 16 * h, high);
                    interleave16(g, at + 64 * half + 16 * h, first);
                    interleave16(g, at + 64 * half + 32 + 16 * h, second);
                    for (int i = 0; i < 4; i++) {
                        const __m512i h0 = _mm512_and_si512(_mm512_slli_epi16(high[i], 4), bits);
                        const __m512i h1 = _mm512_and_si512(_mm512_slli_epi16(high[i], 2), bits);
                        const __m512i h2 = _mm512_and_si512(high[i], bits);
                        const __m512i h3 = _mm512_and_si512(_mm512_srli_epi16(high[i], 2), bits);
                        const int step = 4 * h + i;
                        put(q, step, _mm512_add_epi8(_mm512_or_si512(nibbles(first[i], 0), h0), shift));
                        put(q + 1024, step, _mm512_add_epi8(_mm512_or_si512(nibbles(second[i], 0), h1), shift));
                        put(q + 2048, step, _mm512_add_epi8(_mm512_or_si512(nibbles(first[i], 4), h2), shift));
                        put(q + 3072, step, _mm512_add_epi8(_mm512_or_si512(nibbles(second[i], 4), h3), shift));
                    }
                }
            }
        }
    }
};

}  // namespace g3n
#endif
