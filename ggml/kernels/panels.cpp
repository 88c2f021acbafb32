// Products of weights that are packed in panels, for batches: 8 bits, one scale for up to 256 columns of a row.
//
// w[r][c] = scale[c / 256][r] * q[r][c],  x[t][c] = d[t][c / 256] * (u[t][c] - 128),  |q| <= 127, 1 <= u <= 255
// out[t][r] = sum over groups g of d[t][g] * (scale[g][r] * (dot(u, q) - 128 * sum(q)))
//
// A panel holds 32 rows, four columns at a time, which is what both vpdpbusd and AMX's tiles want, so that nothing is unpacked. With
// so few scales the integer units are what it is bound by. Dots start from MAGIC_BITS - 128 * sum(q): read as a float that is MAGIC + dot
// (|dot| < 2^22), and one multiply-add makes scale * dot of it. Both forms do the same operations in the same order.
//
// A panel:       q int8 [k / 4][32][4], start int32 [groups][32], scale f32 [groups][32], -MAGIC * scale f32 [groups][32]
// Activations:   u uint8 [k], d f32 [groups], each row padded to 64 bytes
#include "kernels.h"
#include "product_forms.h"
#include "vectors.h"

#include <float.h>
#include <math.h>
#include <string.h>

#ifdef G3N_PRODUCT_AVX512
#include <immintrin.h>
#endif

#if defined(G3N_PRODUCT_AVX512) && defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(__linux__)
#define G3N_TILES 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using namespace g3n;

namespace {

constexpr int64_t GROUP = 256;
// Columns come in whole tile rows.
constexpr int64_t COLUMNS = 64;

int64_t groups_of(int64_t k) { return (k + GROUP - 1) / GROUP; }

size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct Packed {
    int8_t *q;
    int32_t *start;
    float *scale, *nscale;

    Packed(void *panel, int64_t k) {
        const int64_t groups = groups_of(k);
        q = (int8_t *)panel;
        start = (int32_t *)(q + PANEL * k);
        scale = (float *)(start + PANEL * groups);
        nscale = scale + PANEL * groups;
    }
};

// The scale of values up to `top`, with a mantissa short enough for MAGIC * scale to be exact, not less than top / 127; of what is not
// finite NaN, so that it is not lost, and of what is next to nothing 0, whose inverse would not be finite.
float short_scale(float top) {
    if (!(top <= FLT_MAX)) return NAN;
    float scale = top / 127.0f;
    if (scale < 1e-30f) return 0;
    uint32_t bits;
    memcpy(&bits, &scale, 4);
    bits = (bits + 0xff) & ~0xffu;
    memcpy(&scale, &bits, 4);
    return scale;
}

// The greatest |x|; NaN where a value is not finite.
float greatest(const float *x, int64_t n) {
    Vec top = splat(0), odd = splat(0);
    over(0, n, [&](int64_t i, auto part) {
        const Vec v = load(x + i, part);
        top = max(top, abs(v));
        odd = add(odd, sub(v, v));
    });
    float lanes[WIDTH], odds[WIDTH], most = 0;
    store(lanes, top, Full{});
    store(odds, odd, Full{});
    for (float lane : lanes) most = lane > most ? lane : most;
    for (float lane : odds) most += lane;
    return most;
}

// The low bytes of x / scale + offset, rounded to the nearest, and their sum without the offset; n is a multiple of 16.
int32_t quantize_group(const float *x, float inverse, int64_t n, int offset, uint8_t *bytes) {
#ifdef G3N_PRODUCT_AVX512
    const __m512 factor = _mm512_set1_ps(inverse);
    const __m512i add = _mm512_set1_epi32(offset);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)(bytes + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(q, add)));
    }
    return _mm512_reduce_add_epi32(sum);
#else
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const int q = (int)lrintf(x[i] * inverse);
        bytes[i] = (uint8_t)(q + offset);
        sum += q;
    }
    return sum;
#endif
}

#ifdef G3N_PRODUCT_AVX512

// A product's activations and results; tokens from t0 on.
struct Batch {
    const uint8_t *u;
    const char *d;
    int64_t a_stride;
    float *out;
    int64_t out_stride;

    Batch from(int64_t t) const { return {u + t * a_stride, d + t * a_stride, a_stride, out + t * out_stride, out_stride}; }
};

struct Rows {
    __mmask16 low, high;
};

// T tokens with a panel, in registers.
template <int T>
void few_tokens(const Packed &p, int64_t k, const Batch &b, Rows rows) {
    __m512 sum[T][2];
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
    for (int64_t g = 0, c0 = 0; c0 < k; g++, c0 += GROUP) {
        const int64_t c1 = k - c0 < GROUP ? k : c0 + GROUP;
        __m512i dots[T][2];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            dots[t][0] = _mm512_load_si512(p.start + PANEL * g);
            dots[t][1] = _mm512_load_si512(p.start + PANEL * g + 16);
        }
        for (int64_t c = c0; c < c1; c += 4) {
            const __m512i w0 = _mm512_load_si512(p.q + PANEL * c), w1 = _mm512_load_si512(p.q + PANEL * c + 64);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                int32_t four;
                memcpy(&four, b.u + t * b.a_stride + c, 4);
                const __m512i x = _mm512_set1_epi32(four);
                dots[t][0] = _mm512_dpbusd_epi32(dots[t][0], x, w0);
                dots[t][1] = _mm512_dpbusd_epi32(dots[t][1], x, w1);
            }
        }
        const __m512 s0 = _mm512_load_ps(p.scale + PANEL * g), s1 = _mm512_load_ps(p.scale + PANEL * g + 16);
        const __m512 n0 = _mm512_load_ps(p.nscale + PANEL * g), n1 = _mm512_load_ps(p.nscale + PANEL * g + 16);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const __m512 d = _mm512_set1_ps(((const float *)(b.d + t * b.a_stride))[g]);
            sum[t][0] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(dots[t][0]), s0, n0), d, sum[t][0]);
            sum[t][1] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(dots[t][1]), s1, n1), d, sum[t][1]);
        }
    }
    for (int t = 0; t < T; t++) {
        _mm512_mask_storeu_ps(b.out + t * b.out_stride, rows.low, sum[t][0]);
        _mm512_mask_storeu_ps(b.out + t * b.out_stride + 16, rows.high, sum[t][1]);
    }
}

void vector_tokens(const Packed &p, int64_t k, const Batch &b, int64_t n, Rows rows) {
    constexpr int64_t TILE = 6;
    static constexpr void (*table[TILE])(const Packed &, int64_t, const Batch &, Rows) = {
        few_tokens<1>, few_tokens<2>, few_tokens<3>, few_tokens<4>, few_tokens<5>, few_tokens<6>};
    const int64_t tiles = (n + TILE - 1) / TILE, size = n / tiles, larger = n % tiles;
    for (int64_t i = 0, t = 0; i < tiles; i++) {
        const int64_t tokens = size + (i < larger);
        table[tokens - 1](p, k, b.from(t), rows);
        t += tokens;
    }
}

#ifdef G3N_TILES

// Tokens of a step: two tiles of 16, with the two of a panel.
constexpr int64_t SQUARE = 32;

bool machine_has_tiles() {
    constexpr unsigned TILES = 1u << 24, INT8 = 1u << 25;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILES) == 0 || (d & INT8) == 0) return false;
    // Tiles are large: Linux wants to be asked before it keeps them for a process.
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

bool tiles_available() {
    static const bool available = machine_has_tiles();
    return available;
}

// All eight tiles of 16 rows of 64 bytes: dots 0 to 3, activations 4 and 5, weights 6 and 7.
void configure_tiles() {
    struct {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; tile++) {
        config.row_bytes[tile] = 64;
        config.rows[tile] = 16;
    }
    // Compilers think that the instruction reads the first bytes only.
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

// Dots of a group of columns, [group of rows][token][16 rows].
void tile_dots(const Packed &p, int64_t g, int64_t c0, int64_t c1, const Batch &b, int32_t *dots) {
    const int32_t *start = p.start + PANEL * g;
    _tile_loadd(0, start, 0);
    _tile_loadd(1, start + 16, 0);
    _tile_loadd(2, start, 0);
    _tile_loadd(3, start + 16, 0);
    const uint8_t *u = b.u + 16 * b.a_stride;
    for (int64_t c = c0; c < c1; c += COLUMNS) {
        const int8_t *q = p.q + PANEL * c;
        // A tile's rows lie far apart, which hardware does not foresee: the next step's are asked for.
        for (int64_t i = 0; i < SQUARE; i++) {
            _mm_prefetch((const char *)(b.u + i * b.a_stride + c + COLUMNS), _MM_HINT_T0);
            _mm_prefetch((const char *)(q + COLUMNS * PANEL + 64 * i), _MM_HINT_T0);
        }
        _tile_loadd(4, b.u + c, b.a_stride);
        _tile_loadd(6, q, 128);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, q + 64, 128);
        _tile_dpbusd(1, 4, 7);
        _tile_loadd(5, u + c, b.a_stride);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, dots, 64);
    _tile_stored(1, dots + 512, 64);
    _tile_stored(2, dots + 256, 64);
    _tile_stored(3, dots + 768, 64);
}

// Adds a group's scaled dots to the sums of 32 tokens, 32 floats each.
void scale_dots(const Packed &p, int64_t g, const Batch &b, const int32_t *dots, float *sums, bool first) {
    const __m512 s0 = _mm512_load_ps(p.scale + PANEL * g), s1 = _mm512_load_ps(p.scale + PANEL * g + 16);
    const __m512 n0 = _mm512_load_ps(p.nscale + PANEL * g), n1 = _mm512_load_ps(p.nscale + PANEL * g + 16);
    for (int64_t t = 0; t < SQUARE; t++) {
        const __m512 d = _mm512_set1_ps(((const float *)(b.d + t * b.a_stride))[g]);
        const __m512 x0 = _mm512_castsi512_ps(_mm512_load_si512(dots + 16 * t));
        const __m512 x1 = _mm512_castsi512_ps(_mm512_load_si512(dots + 512 + 16 * t));
        const __m512 z0 = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + 32 * t);
        const __m512 z1 = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + 32 * t + 16);
        _mm512_store_ps(sums + 32 * t, _mm512_fmadd_ps(_mm512_fmadd_ps(x0, s0, n0), d, z0));
        _mm512_store_ps(sums + 32 * t + 16, _mm512_fmadd_ps(_mm512_fmadd_ps(x1, s1, n1), d, z1));
    }
}

// n tokens, at least 32. The last ones are computed with tokens before them, so that all tiles are whole.
void tile_tokens(const Packed &p, int64_t k, const Batch &all, int64_t n, Rows rows, int32_t *dots) {
    constexpr int64_t DOTS = SQUARE * PANEL;
    float *sums = (float *)(dots + 2 * DOTS);
    for (int64_t t0 = 0; t0 < n; t0 += SQUARE) {
        const Batch b = all.from(n - t0 < SQUARE ? n - SQUARE : t0);
        // The tiles work on a group while the one before it is scaled.
        int64_t g = 0;
        for (int64_t c0 = 0; c0 < k; g++, c0 += GROUP) {
            tile_dots(p, g, c0, k - c0 < GROUP ? k : c0 + GROUP, b, dots + g % 2 * DOTS);
            if (g > 0) scale_dots(p, g - 1, b, dots + (g - 1) % 2 * DOTS, sums, g == 1);
        }
        scale_dots(p, g - 1, b, dots + (g - 1) % 2 * DOTS, sums, g == 1);
        for (int64_t t = 0; t < SQUARE; t++) {
            _mm512_mask_storeu_ps(b.out + t * b.out_stride, rows.low, _mm512_load_ps(sums + 32 * t));
            _mm512_mask_storeu_ps(b.out + t * b.out_stride + 16, rows.high, _mm512_load_ps(sums + 32 * t + 16));
        }
    }
}

#endif

#endif

// Two groups' dots and the sums of a square, and what alignment takes.
constexpr size_t SCRATCH = 3 * 32 * PANEL * 4 + 64;
// Activations of so many bytes stay in the second-level cache while panels go by.
constexpr int64_t NEAR = 1 << 20;

}  // namespace

extern "C" int g3n_panels_supports(int64_t k) {
#ifdef G3N_PRODUCT_AVX512
    return k > 0 && k % COLUMNS == 0;
#else
    (void)k;
    return 0;
#endif
}

extern "C" size_t g3n_panel_bytes(int64_t k) { return (size_t)(PANEL * k + 3 * 4 * PANEL * groups_of(k)); }

extern "C" void g3n_panel_pack(const float *rows, int64_t n, int64_t k, void *panel) {
    const Packed p(panel, k);
    memset(panel, 0, g3n_panel_bytes(k));
    for (int64_t g = 0; g < groups_of(k); g++)
        for (int64_t r = 0; r < PANEL; r++) p.start[PANEL * g + r] = MAGIC_BITS;
    for (int64_t r = 0; r < n; r++)
        for (int64_t g = 0, c0 = 0; c0 < k; g++, c0 += GROUP) {
            const float *x = rows + r * k;
            const int64_t c1 = k - c0 < GROUP ? k : c0 + GROUP;
            const float scale = short_scale(greatest(x + c0, c1 - c0));
            const float inverse = scale > 0 ? 1.0f / scale : 0;
            uint8_t bytes[GROUP];
            const int32_t sum = quantize_group(x + c0, inverse, c1 - c0, 0, bytes);
            for (int64_t c = c0; c < c1; c += 4) memcpy(p.q + PANEL * c + 4 * r, bytes + c - c0, 4);
            p.start[PANEL * g + r] = MAGIC_BITS - 128 * sum;
            p.scale[PANEL * g + r] = scale;
            p.nscale[PANEL * g + r] = -MAGIC * scale;
        }
}

extern "C" void g3n_panel_unpack(const void *panel, int64_t n, int64_t k, float *rows) {
    const Packed p((void *)panel, k);
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < k; c++)
            rows[r * k + c] = p.scale[PANEL * (c / GROUP) + r] * (float)p.q[PANEL * (c / 4 * 4) + 4 * r + c % 4];
}

extern "C" size_t g3n_wide_row_bytes(int64_t k) { return padded((size_t)k) + padded((size_t)groups_of(k) * 4); }

extern "C" void g3n_wide_quantize(const float *x, int64_t k, void *out) {
    uint8_t *u = (uint8_t *)out;
    float *d = (float *)(u + padded((size_t)k));
    for (int64_t g = 0, c0 = 0; c0 < k; g++, c0 += GROUP) {
        const int64_t c1 = k - c0 < GROUP ? k : c0 + GROUP;
        const float scale = short_scale(greatest(x + c0, c1 - c0));
        const float inverse = scale > 0 ? 1.0f / scale : 0;
        quantize_group(x + c0, inverse, c1 - c0, 128, u + c0);
        d[g] = scale;
    }
}

extern "C" size_t g3n_panels_scratch_bytes(void) { return SCRATCH; }

extern "C" void g3n_panels_product(const void *panels, int64_t k, int64_t m, const void *a, int64_t n, float *out, int64_t out_stride,
                                   void *scratch, int ith, int nth) {
#ifdef G3N_PRODUCT_AVX512
    const int64_t count = (m + PANEL - 1) / PANEL, begin = count * ith / nth, end = count * (ith + 1) / nth;
    const int64_t a_stride = (int64_t)g3n_wide_row_bytes(k);
    const Batch all = {(const uint8_t *)a, (const char *)a + padded((size_t)k), a_stride, out, out_stride};
    int32_t *dots = (int32_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int64_t near = NEAR / a_stride / 32 * 32;
    if (near < 32) near = 32;
#ifdef G3N_TILES
    const bool tiles = n >= SQUARE && tiles_available();
    if (tiles) configure_tiles();
#endif
    for (int64_t t0 = 0; t0 < n; t0 += near) {
        // A rest that is too small for tiles goes with the tokens before it.
        const int64_t tokens = n - t0 < near + 32 ? n - t0 : near;
        for (int64_t i = begin; i < end; i++) {
            const Packed p((void *)((const char *)panels + (size_t)i * g3n_panel_bytes(k)), k);
            const int64_t left = m - PANEL * i;
            const Rows rows = {(__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1),
                               (__mmask16)(left >= 32 ? 0xffff : left > 16 ? (1 << (left - 16)) - 1 : 0)};
            Batch b = all.from(t0);
            b.out += PANEL * i;
#ifdef G3N_TILES
            if (tiles) {
                tile_tokens(p, k, b, tokens, rows, dots);
                continue;
            }
#endif
            vector_tokens(p, k, b, tokens, rows);
        }
        if (tokens > near) break;
    }
#ifdef G3N_TILES
    if (tiles) _tile_release();
#endif
    (void)dots;
#else
    (void)panels, (void)k, (void)m, (void)a, (void)n, (void)out, (void)out_stride, (void)scratch, (void)ith, (void)nth;
#endif
}
