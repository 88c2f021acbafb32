// Products of F16, BF16 and F32 weights with f32 activations, exact up to the order of f32 sums.
//
// out[t][r] = sum over k of w[r][k] * x[t][k]
// AVX-512: 32 rows by up to 8 tokens in registers; a panel of 32 rows, 256 columns is widened once for all tokens.
// (vdpbf16ps is no faster than two f32 multiply-adds on the processors at hand, and rounds the activations.)
// Otherwise: each row widened once, 16 partial sums a token.
#include "kernels.h"
#include "panel_avx512.h"
#include "product_blocks.h"

using namespace g3n;

namespace {

// Columns that are widened together.
constexpr int COLUMNS = 256;
constexpr int FLOAT_PANEL = 32;

struct FloatProduct {
    const uint8_t *w;
    int64_t w_stride, k, m;
    const char *x;
    int64_t x_stride, n;
    float *out;
    int64_t out_stride;
};

struct F16 {
    static constexpr int BYTES = 2;
    static float widen(const uint8_t *p) { return load_half(p); }
};

struct BF16 {
    static constexpr int BYTES = 2;
    static float widen(const uint8_t *p) {
        uint16_t half;
        memcpy(&half, p, 2);
        const uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
};

struct F32 {
    static constexpr int BYTES = 4;
    static float widen(const uint8_t *p) {
        float value;
        memcpy(&value, p, 4);
        return value;
    }
};

template <typename F>
bool with_float_type(int type, F f) {
    switch (type) {
        case TYPE_F16: f(F16{}); return true;
        case TYPE_BF16: f(BF16{}); return true;
        case TYPE_F32: f(F32{}); return true;
        default: return false;
    }
}

inline const float *token(const FloatProduct &p, int64_t t) { return (const float *)(p.x + t * p.x_stride); }

#ifdef G3N_PRODUCT_AVX512

constexpr int TILE = 8;

// Two columns of 16 rows, as two vectors of f32.
inline void widen_pairs(F16, __m512i v, __m512 *even, __m512 *odd) {
    *even = low_halves(v);
    *odd = low_halves(_mm512_srli_epi32(v, 16));
}
inline void widen_pairs(BF16, __m512i v, __m512 *even, __m512 *odd) {
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}

// panel[column][row]: columns k0 .. k0 + columns of 16 rows.
template <typename T>
void widen_panel(const RowGroup &g, int group, int64_t k0, int columns, float *panel) {
    constexpr int STEP = 16 / T::BYTES;
    for (int c = 0; c < columns; c += STEP) {
        __m512i v[4];
        interleave16(g, (k0 + c) * T::BYTES, v);
        float *to = panel + c * FLOAT_PANEL + 16 * group;
        for (int i = 0; i < 4; i++) {
            if constexpr (T::BYTES == 4) {
                _mm512_store_ps(to + i * FLOAT_PANEL, _mm512_castsi512_ps(v[i]));
            } else {
                __m512 even, odd;
                widen_pairs(T{}, v[i], &even, &odd);
                _mm512_store_ps(to + 2 * i * FLOAT_PANEL, even);
                _mm512_store_ps(to + (2 * i + 1) * FLOAT_PANEL, odd);
            }
        }
    }
}

template <int T>
void multiply_tile(const float *panel, int columns, const char *x, int64_t stride, float *out, int64_t out_stride, __mmask16 m0,
                   __mmask16 m1, bool first) {
    __m512 sum[T][2];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        sum[t][0] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(m0, out + t * out_stride);
        sum[t][1] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(m1, out + t * out_stride + 16);
    }
    for (int c = 0; c < columns; c += 4) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m512 w0 = _mm512_load_ps(panel + (c + i) * FLOAT_PANEL), w1 = _mm512_load_ps(panel + (c + i) * FLOAT_PANEL + 16);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const __m512 v = _mm512_set1_ps(*(const float *)(x + t * stride + 4 * (c + i)));
                sum[t][0] = _mm512_fmadd_ps(w0, v, sum[t][0]);
                sum[t][1] = _mm512_fmadd_ps(w1, v, sum[t][1]);
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        _mm512_mask_storeu_ps(out + t * out_stride, m0, sum[t][0]);
        _mm512_mask_storeu_ps(out + t * out_stride + 16, m1, sum[t][1]);
    }
}

using TileFunction = void (*)(const float *, int, const char *, int64_t, float *, int64_t, __mmask16, __mmask16, bool);
constexpr TileFunction TILES[TILE] = {multiply_tile<1>, multiply_tile<2>, multiply_tile<3>, multiply_tile<4>,
                                      multiply_tile<5>, multiply_tile<6>, multiply_tile<7>, multiply_tile<8>};

template <typename T>
void rows_with_tokens(const FloatProduct &p, int64_t begin, int64_t end, float *panel) {
    const int64_t tiles = (p.n + TILE - 1) / TILE, size = p.n / tiles, larger = p.n % tiles;
    for (int64_t r0 = begin; r0 < end; r0 += FLOAT_PANEL) {
        const PanelRows rows(p.w + r0 * p.w_stride, p.w_stride, end - r0);
        for (int64_t k0 = 0; k0 < p.k; k0 += COLUMNS) {
            const int columns = (int)(p.k - k0 < COLUMNS ? p.k - k0 : COLUMNS);
            widen_panel<T>(rows.groups[0], 0, k0, columns, panel);
            if (rows.mask[1]) widen_panel<T>(rows.groups[1], 1, k0, columns, panel);
            for (int64_t i = 0, t = 0; i < tiles; i++) {
                const int64_t tokens = size + (i < larger);
                TILES[tokens - 1](panel, columns, (const char *)(token(p, t) + k0), p.x_stride, p.out + t * p.out_stride + r0,
                                  p.out_stride, rows.mask[0], rows.mask[1], k0 == 0);
                t += tokens;
            }
        }
    }
}

#else

template <typename T>
void rows_with_tokens(const FloatProduct &p, int64_t begin, int64_t end, float *row) {
    constexpr int LANES = 16;
    for (int64_t r = begin; r < end; r++) {
        for (int64_t t = 0; t < p.n; t++) p.out[t * p.out_stride + r] = 0.0f;
        for (int64_t k0 = 0; k0 < p.k; k0 += COLUMNS) {
            const int columns = (int)(p.k - k0 < COLUMNS ? p.k - k0 : COLUMNS);
            const uint8_t *w = p.w + r * p.w_stride + k0 * T::BYTES;
            for (int c = 0; c < columns; c++) row[c] = T::widen(w + c * T::BYTES);
            for (int64_t t = 0; t < p.n; t++) {
                const float *x = token(p, t) + k0;
                float sums[LANES] = {};
                int c = 0;
                for (; c + LANES <= columns; c += LANES) {
                    for (int i = 0; i < LANES; i++) sums[i] += row[c + i] * x[c + i];
                }
                float sum = 0.0f;
                for (; c < columns; c++) sum += row[c] * x[c];
                for (int i = 0; i < LANES; i++) sum += sums[i];
                p.out[t * p.out_stride + r] += sum;
            }
        }
    }
}

#endif

}  // namespace

extern "C" int g3n_product_float_supports(int type, int64_t k) {
    int bytes = 0;
    return with_float_type(type, [&](auto t) { bytes = decltype(t)::BYTES; }) && k > 0 && k * bytes % 16 == 0;
}

extern "C" size_t g3n_product_float_scratch_bytes(void) { return sizeof(float) * FLOAT_PANEL * COLUMNS + 64; }

extern "C" void g3n_product_float(int type, const void *w, int64_t w_stride, int64_t k, int64_t m, const float *x, int64_t x_stride,
                                  int64_t n, float *out, int64_t out_stride, void *scratch, int ith, int nth) {
    const FloatProduct p = {(const uint8_t *)w, w_stride, k, m, (const char *)x, x_stride, n, out, out_stride};
    const int64_t units = (m + FLOAT_PANEL - 1) / FLOAT_PANEL;
    const int64_t begin = units * ith / nth * FLOAT_PANEL, end = units * (ith + 1) / nth * FLOAT_PANEL;
    const uintptr_t own = (uintptr_t)scratch + (size_t)ith * g3n_product_float_scratch_bytes();
    float *panel = (float *)((own + 63) & ~(uintptr_t)63);
    with_float_type(type, [&](auto t) { rows_with_tokens<decltype(t)>(p, begin, end < m ? end : m, panel); });
}
