// Batches: a panel of weights is unpacked once and multiplied with all tokens.
//
// out[t][r] = sum over blocks b of scale[b][r] * (d[t][b] * dot(w[r][b], q[t][b]))  (+ min[b][r] * ds[t][b])
// A tile is 32 rows by up to 6 tokens: 12 integer and 12 float accumulators of 16 rows each, in registers.
// Per chunk of 512 columns the panel (16 KB and its factors) stays in the first-level cache, the activations in the second.
#include "panel_avx512.h"

#include <string.h>

namespace g3n {

#ifdef G3N_PRODUCT_AVX512

namespace {

constexpr int TILE = 6;

// What a tile needs of the activations: the first of its tokens at the chunk's first block.
struct TokenTile {
    const char *q, *d, *nd, *ds, *c32, *c16;
    int64_t stride;
};

inline __m512 broadcast(const char *p) { return _mm512_set1_ps(*(const float *)p); }
inline __m512i broadcast_int(const char *p) { return _mm512_set1_epi32(*(const int32_t *)p); }

// STEPS dot steps of four columns, from `start`, for T tokens and 32 rows.
template <int T, int STEPS>
inline __attribute__((always_inline)) void steps(const uint8_t *w, const char *q, int64_t stride, __m512i (&acc)[T][2]) {
#pragma GCC unroll 8
    for (int s = 0; s < STEPS; s++) {
        const __m512i w0 = _mm512_load_si512(w + 128 * s), w1 = _mm512_load_si512(w + 128 * s + 64);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const __m512i x = broadcast_int(q + t * stride + 4 * s);
            acc[t][0] = _mm512_dpbusd_epi32(acc[t][0], w0, x);
            acc[t][1] = _mm512_dpbusd_epi32(acc[t][1], w1, x);
        }
    }
}

template <int T, int SUB, bool MIN>
void multiply_tile(const Panel &p, int nb, const TokenTile &a, float *out, int64_t out_stride, __mmask16 m0, __mmask16 m1, bool first) {
    __m512 sum[T][2];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        sum[t][0] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(m0, out + t * out_stride);
        sum[t][1] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(m1, out + t * out_stride + 16);
    }
    const int64_t stride = a.stride;
    for (int b = 0; b < nb; b++) {
#pragma GCC unroll 2
        for (int s = 0; s < SUB; s++) {
            __m512i acc[T][2];
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                acc[t][0] = MIN        ? _mm512_set1_epi32(MAGIC_BITS)
                            : SUB == 1 ? broadcast_int(a.c32 + t * stride + 4 * b)
                                       : broadcast_int(a.c16 + t * stride + 8 * b + 4 * s);
                acc[t][1] = acc[t][0];
            }
            steps<T, 8 / SUB>(p.q + 1024 * b + 512 * s, a.q + 32 * b + 16 * s, stride, acc);
            const int64_t at = (b * SUB + s) * PANEL;
            const __m512 s0 = _mm512_load_ps(p.scale + at), s1 = _mm512_load_ps(p.scale + at + 16);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const __m512 d = broadcast(a.d + t * stride + 4 * b), nd = broadcast(a.nd + t * stride + 4 * b);
                sum[t][0] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(acc[t][0]), d, nd), s0, sum[t][0]);
                sum[t][1] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(acc[t][1]), d, nd), s1, sum[t][1]);
            }
            if (MIN) {
                const __m512 n0 = _mm512_load_ps(p.min + at), n1 = _mm512_load_ps(p.min + at + 16);
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    __m512 ds;
                    if (SUB == 1) {
                        ds = broadcast(a.ds + t * stride + 4 * b);
                    } else {
                        // c16 as a float is MAGIC - 128 * sum.
                        const __m512 c = broadcast(a.c16 + t * stride + 8 * b + 4 * s);
                        const __m512 d = broadcast(a.d + t * stride + 4 * b), nd = broadcast(a.nd + t * stride + 4 * b);
                        ds = _mm512_mul_ps(_mm512_fmadd_ps(c, d, nd), _mm512_set1_ps(-1.0f / 128));
                    }
                    sum[t][0] = _mm512_fmadd_ps(n0, ds, sum[t][0]);
                    sum[t][1] = _mm512_fmadd_ps(n1, ds, sum[t][1]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        _mm512_mask_storeu_ps(out + t * out_stride, m0, sum[t][0]);
        _mm512_mask_storeu_ps(out + t * out_stride + 16, m1, sum[t][1]);
    }
}

using TileFunction = void (*)(const Panel &, int, const TokenTile &, float *, int64_t, __mmask16, __mmask16, bool);

template <typename T>
TileFunction tile_function(int tokens) {
    static constexpr TileFunction table[TILE] = {
        multiply_tile<1, T::SUB, T::MIN>, multiply_tile<2, T::SUB, T::MIN>, multiply_tile<3, T::SUB, T::MIN>,
        multiply_tile<4, T::SUB, T::MIN>, multiply_tile<5, T::SUB, T::MIN>, multiply_tile<6, T::SUB, T::MIN>,
    };
    return table[tokens - 1];
}

// Unpacks blocks b0 .. b0 + nb of a panel. Meanwhile what comes next, `bytes` at `ahead` behind each row's start, is
// fetched, in portions that the processor can keep in flight.
template <typename T>
void unpack_chunk(const PanelRows &rows, int64_t b0, int nb, int64_t ahead, const Panel &p) {
    constexpr int HALF = CHUNK / 2;
    constexpr int64_t BYTES = (int64_t)CHUNK * 32 / T::LEN * T::BYTES;
    for (int g = 0; g < 2 && rows.mask[g]; g++) {
        for (int b = 0; b < nb; b += HALF) {
            prefetch_rows(rows.groups[g].rows + b, HALF, ahead, BYTES);
            const Panel part = {p.q + 1024 * b, p.scale + T::SUB * PANEL * b, p.min + T::SUB * PANEL * b};
            Unpack<T>::run(rows.groups[g], g, b0 + b, nb - b < HALF ? nb - b : HALF, part);
        }
    }
}

// Adds an unpacked chunk's part to all tokens' results of a panel that starts at row r0.
template <typename T>
void multiply_chunk(const Product &p, const Panel &panel, const PanelRows &rows, int64_t r0, int64_t b0, int nb) {
    const Activations a(p.a, p.k);
    // Tiles of nearly equal size, so that no small one is left over.
    const int64_t tiles = (p.n + TILE - 1) / TILE, size = p.n / tiles, larger = p.n % tiles;
    for (int64_t i = 0, t = 0; i < tiles; i++) {
        const int tokens = (int)(size + (i < larger));
        const int64_t skip = t * p.a_stride;
        const TokenTile tile = {(const char *)(a.q + 32 * b0) + skip, (const char *)(a.d + b0) + skip,
                                (const char *)(a.nd + b0) + skip,     (const char *)(a.ds + b0) + skip,
                                (const char *)(a.c32 + b0) + skip,    (const char *)(a.c16 + 2 * b0) + skip,
                                p.a_stride};
        tile_function<T>(tokens)(panel, nb, tile, p.out + t * p.out_stride + r0, p.out_stride, rows.mask[0], rows.mask[1], b0 == 0);
        t += tokens;
    }
}

// Activations larger than this (part of the second-level cache) are read a chunk at a time for several panels.
constexpr int64_t MANY_BYTES = 1 << 20;
constexpr int64_t GROUP = 8;

template <typename T>
void panels(const Product &p, int64_t begin, int64_t end, void *scratch) {
    Panel panel;
    panel.q = (uint8_t *)scratch;
    panel.scale = (float *)(panel.q + PANEL * CHUNK * 32);
    panel.min = panel.scale + PANEL * CHUNK * 2;
    constexpr int64_t PACKED = T::LEN / 32;
    const int64_t blocks = p.k / 32, step = PANEL * (p.n * p.k > MANY_BYTES ? GROUP : 1);
    for (int64_t g0 = begin; g0 < end; g0 += step) {
        const int64_t stop = end - g0 < step ? end : g0 + step;
        for (int64_t b0 = 0; b0 < blocks; b0 += CHUNK) {
            const int nb = (int)(blocks - b0 < CHUNK ? blocks - b0 : CHUNK);
            for (int64_t r0 = g0; r0 < stop; r0 += PANEL) {
                const PanelRows rows(p.w + r0 * p.w_stride, p.w_stride, end - r0);
                int64_t next_row = r0 + PANEL, next_block = b0;
                if (next_row >= stop) {
                    next_block = b0 + CHUNK < blocks ? b0 + CHUNK : 0;
                    next_row = next_block ? g0 : stop;
                }
                const int64_t ahead = (next_row - r0) * p.w_stride + next_block / PACKED * T::BYTES;
                unpack_chunk<T>(rows, b0, nb, ahead, panel);
                multiply_chunk<T>(p, panel, rows, r0, b0, nb);
            }
        }
    }
}

}  // namespace

void product_panels(const Product &p, int64_t begin, int64_t end, void *scratch) {
    with_type(p.type, [&](auto t) { panels<decltype(t)>(p, begin, end, scratch); });
}

#endif

}  // namespace g3n
