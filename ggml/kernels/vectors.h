// Vectors of floats for the fused kernels: one notation, three forms, chosen by the compiler's
// own macros. AVX-512 (16 lanes), AVX2 with FMA (8), and plain loops over 8 floats.
//
// A kernel is written once with these names. Rows need not be a multiple of the width: `over`
// calls its body with `Full` for whole vectors and once with `Part{n}` for the rest, whose
// missing lanes load as zero and are not stored.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define G3N_VECTORS 512
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define G3N_VECTORS 256
#include <immintrin.h>
#else
#define G3N_VECTORS 0
#endif

namespace g3n {

struct Full {};
struct Part {
    int n;
};

#if G3N_VECTORS == 512

using Vec = __m512;
constexpr int WIDTH = 16;

static inline __mmask16 lanes(Part p) { return static_cast<__mmask16>((1u << p.n) - 1u); }
static inline Vec splat(float x) { return _mm512_set1_ps(x); }
static inline Vec load(const float *p, Full) { return _mm512_loadu_ps(p); }
static inline Vec load(const float *p, Part n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
static inline void store(float *p, Vec v, Full) { _mm512_storeu_ps(p, v); }
static inline void store(float *p, Vec v, Part n) { _mm512_mask_storeu_ps(p, lanes(n), v); }
static inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// a where a > b, else b: a NaN in b stays.
static inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec round(Vec a) { return _mm512_roundscale_ps(a, 8); }
static inline Vec scale2(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
static inline Vec abs(Vec a) { return _mm512_abs_ps(a); }
static inline Vec pick_less(Vec a, Vec b, Vec yes, Vec no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
// One bit a lane: set unless a <= b, so that a NaN on either side sets it.
static inline uint32_t not_at_most(Vec a, Vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ);
}
// 1 / a for finite a of ordinary size: 14 bits, then one step of Newton's.
static inline Vec reciprocal(Vec a) {
    Vec r = _mm512_rcp14_ps(a);
    return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, splat(1.0f)), r);
}
static inline float total(Vec a) { return _mm512_reduce_add_ps(a); }
static inline __m256i load16(const uint16_t *p, Full) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
static inline __m256i load16(const uint16_t *p, Part n) {
    return _mm256_maskz_loadu_epi16(lanes(n), p);
}
template <class P> static inline Vec load_f16(const uint16_t *p, P part) {
    return _mm512_cvtph_ps(load16(p, part));
}
template <class P> static inline Vec load_bf16(const uint16_t *p, P part) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load16(p, part)), 16));
}
static inline Vec load_i8(const char *p) {
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
static inline Vec splat_f16(uint16_t h) { return splat(_cvtsh_ss(h)); }

#elif G3N_VECTORS == 256

using Vec = __m256;
constexpr int WIDTH = 8;

static inline __m256i lanes(Part p) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(p.n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline Vec splat(float x) { return _mm256_set1_ps(x); }
static inline Vec load(const float *p, Full) { return _mm256_loadu_ps(p); }
static inline Vec load(const float *p, Part n) { return _mm256_maskload_ps(p, lanes(n)); }
static inline void store(float *p, Vec v, Full) { _mm256_storeu_ps(p, v); }
static inline void store(float *p, Vec v, Part n) { _mm256_maskstore_ps(p, lanes(n), v); }
static inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
static inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
static inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
static inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
static inline Vec round(Vec a) { return _mm256_round_ps(a, 8); }
static inline Vec scale2(Vec a, Vec n) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}
static inline Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline Vec pick_less(Vec a, Vec b, Vec yes, Vec no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline uint32_t not_at_most(Vec a, Vec b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLE_UQ)));
}
static inline Vec reciprocal(Vec a) { return _mm256_div_ps(splat(1.0f), a); }
static inline float total(Vec a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline __m128i load16(const uint16_t *p, Full) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
}
static inline __m128i load16(const uint16_t *p, Part n) {
    uint16_t all[WIDTH] = {0};
    memcpy(all, p, static_cast<size_t>(n.n) * sizeof(uint16_t));
    return load16(all, Full{});
}
template <class P> static inline Vec load_f16(const uint16_t *p, P part) {
    return _mm256_cvtph_ps(load16(p, part));
}
template <class P> static inline Vec load_bf16(const uint16_t *p, P part) {
    __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p, part)), 16);
    return _mm256_castsi256_ps(bits);
}
static inline Vec load_i8(const char *p) {
    __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
static inline Vec splat_f16(uint16_t h) { return splat(_cvtsh_ss(h)); }

#else

constexpr int WIDTH = 8;
struct Vec {
    float v[WIDTH];
};

// One lane at a time; compilers vectorize these loops where the machine can.
template <class F> static inline Vec each(F f) {
    Vec r;
    for (int i = 0; i < WIDTH; i++) r.v[i] = f(i);
    return r;
}
static inline Vec splat(float x) {
    return each([&](int) { return x; });
}
static inline Vec load(const float *p, Full) {
    return each([&](int i) { return p[i]; });
}
static inline Vec load(const float *p, Part n) {
    return each([&](int i) { return i < n.n ? p[i] : 0.0f; });
}
static inline void store(float *p, Vec v, Full) { memcpy(p, v.v, sizeof(v.v)); }
static inline void store(float *p, Vec v, Part n) {
    for (int i = 0; i < n.n; i++) p[i] = v.v[i];
}
static inline Vec add(Vec a, Vec b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
static inline Vec sub(Vec a, Vec b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
static inline Vec mul(Vec a, Vec b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
static inline Vec fma(Vec a, Vec b, Vec c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
static inline Vec max(Vec a, Vec b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
static inline Vec min(Vec a, Vec b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// To the nearest whole number, for |a| < 2^22: above 1.5 * 2^23 floats have no fraction.
static inline Vec round(Vec a) {
    return each([&](int i) { return (a.v[i] + 12582912.0f) - 12582912.0f; });
}
static inline Vec scale2(Vec a, Vec n) {
    return each([&](int i) {
        // A NaN in n has no whole value; a is then NaN too, whatever it is multiplied by.
        float whole = n.v[i] == n.v[i] ? n.v[i] : 0.0f;
        uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
        float power;
        memcpy(&power, &bits, sizeof(power));
        return a.v[i] * power;
    });
}
static inline Vec abs(Vec a) {
    return each([&](int i) { return fabsf(a.v[i]); });
}
static inline Vec pick_less(Vec a, Vec b, Vec yes, Vec no) {
    return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
static inline uint32_t not_at_most(Vec a, Vec b) {
    uint32_t bits = 0;
    for (int i = 0; i < WIDTH; i++) bits |= static_cast<uint32_t>(!(a.v[i] <= b.v[i])) << i;
    return bits;
}
static inline Vec reciprocal(Vec a) {
    return each([&](int i) { return 1.0f / a.v[i]; });
}
static inline float total(Vec a) {
    return ((a.v[0] + a.v[1]) + (a.v[2] + a.v[3])) + ((a.v[4] + a.v[5]) + (a.v[6] + a.v[7]));
}
static inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}
// Shifted into a float's place an f16 is 2^112 times too small, subnormals included; infinity
// and NaN come out as 2^16 and more, and get a float's exponent.
static inline float from_f16(uint16_t h) {
    float x = from_bits(static_cast<uint32_t>(h & 0x7fff) << 13) * from_bits(0x77800000);
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if (x >= 65536.0f) bits |= 0x7f800000;
    return from_bits(bits | static_cast<uint32_t>(h & 0x8000) << 16);
}
static inline int count(Full) { return WIDTH; }
static inline int count(Part p) { return p.n; }
template <class P> static inline Vec load_f16(const uint16_t *p, P part) {
    return each([&](int i) { return i < count(part) ? from_f16(p[i]) : 0.0f; });
}
template <class P> static inline Vec load_bf16(const uint16_t *p, P part) {
    return each([&](int i) {
        return i < count(part) ? from_bits(static_cast<uint32_t>(p[i]) << 16) : 0.0f;
    });
}
static inline Vec load_i8(const char *p) {
    return each([&](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
}
static inline Vec splat_f16(uint16_t h) { return splat(from_f16(h)); }

#endif

// The sums of four vectors' lanes.
static inline void totals(const Vec a[4], float out[4]) {
#if G3N_VECTORS == 512
    // Each step adds what two neighbours hold of the same sum; every 128 bits then hold all four.
    __m512 ab = add(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    __m512 cd = add(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    __m512d low = _mm512_castps_pd(ab), high = _mm512_castps_pd(cd);
    __m512 all = add(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                     _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    all = add(all, _mm512_shuffle_f32x4(all, all, 0x4e));
    all = add(all, _mm512_shuffle_f32x4(all, all, 0xb1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(all));
#else
    for (int i = 0; i < 4; i++) out[i] = total(a[i]);
#endif
}

// The bits of lanes that are there: missing ones load as 0 and compare as that.
static inline uint32_t below(Full) { return (1u << WIDTH) - 1u; }
static inline uint32_t below(Part p) { return (1u << p.n) - 1u; }

// Packs the lanes of v whose bit is set to the front of `values` and their numbers, counted from
// `first`, to `numbers`; returns how many. May write WIDTH places of both.
static inline int pack(uint32_t bits, Vec v, int32_t first, float *values, int32_t *numbers) {
#if G3N_VECTORS == 512
    // To a register and then to memory: some machines are slow in doing both at once.
    __mmask16 m = static_cast<__mmask16>(bits);
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i number = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(m, v));
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(m, number));
#else
    float all[WIDTH];
    store(all, v, Full{});
    for (uint32_t left = bits; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        *values++ = all[lane];
        *numbers++ = first + lane;
    }
#endif
    return __builtin_popcount(bits);
}

// body(e, Full) for whole vectors of [from, to), then body(e, Part) for what is left.
template <class F> static inline void over(int64_t from, int64_t to, F body) {
    int64_t e = from;
    for (; e + WIDTH <= to; e += WIDTH) body(e, Full{});
    if (e < to) body(e, Part{static_cast<int>(to - e)});
}

// Sum over e < n of term(e, lanes), in four accumulators; term must be 0 in missing lanes.
template <class F> static inline float sum_over(int64_t n, F term) {
    Vec s0 = splat(0), s1 = s0, s2 = s0, s3 = s0;
    int64_t e = 0;
    for (; e + 4 * WIDTH <= n; e += 4 * WIDTH) {
        s0 = add(s0, term(e, Full{}));
        s1 = add(s1, term(e + WIDTH, Full{}));
        s2 = add(s2, term(e + 2 * WIDTH, Full{}));
        s3 = add(s3, term(e + 3 * WIDTH, Full{}));
    }
    over(e, n, [&](int64_t at, auto part) { s0 = add(s0, term(at, part)); });
    return total(add(add(s0, s1), add(s2, s3)));
}

static inline float mean_square(const float *x, int64_t n) {
    float sum = sum_over(n, [&](int64_t e, auto p) {
        Vec v = load(x + e, p);
        return mul(v, v);
    });
    return sum / static_cast<float>(n);
}

// The factor of RMS(x): 1 / sqrt(mean(x^2) + eps).
static inline float rms_factor(const float *x, int64_t n, float eps) {
    return 1.0f / sqrtf(mean_square(x, n) + eps);
}

// e^x for |x| <= 87: x = n ln 2 + r, a polynomial in r (Cephes' minimax coefficients), times 2^n.
static inline Vec exponential(Vec x) {
    Vec n = round(mul(x, splat(1.44269504f)));
    Vec r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    Vec p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, splat(1.0f)));
    return scale2(p, n);
}

// tanh(x): an odd polynomial (Cephes) near 0, where 1 - 2 / (e^2x + 1) would cancel.
static inline Vec tanh_of(Vec x) {
    Vec t = min(splat(10.0f), max(splat(-10.0f), x));
    Vec e = exponential(add(t, t));
    Vec far = fma(splat(-2.0f), reciprocal(add(e, splat(1.0f))), splat(1.0f));
    Vec z = mul(t, t);
    Vec p = splat(-5.70498872745e-3f);
    p = fma(p, z, splat(2.06390887954e-2f));
    p = fma(p, z, splat(-5.37397155531e-2f));
    p = fma(p, z, splat(1.33314422036e-1f));
    p = fma(p, z, splat(-3.33332819422e-1f));
    Vec near = fma(mul(p, z), t, t);
    return pick_less(abs(t), splat(0.625f), near, far);
}

// gelu(x) = x/2 (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3).
// Below -9 the true value is under 1e-28 in size: 0. Above 9 it is x.
static inline Vec gelu(Vec x) {
    Vec t = min(splat(9.0f), max(splat(-9.0f), x));
    Vec inner = fma(splat(0.044715f), mul(t, t), splat(1.0f));
    Vec e = exponential(mul(mul(splat(-1.5957691216f), t), inner));
    Vec y = mul(x, reciprocal(add(e, splat(1.0f))));
    return pick_less(x, splat(-9.0f), splat(0), y);
}

// What one thread of `nth` does of a job over tokens and elements.
struct Share {
    int64_t t0, t1, e0, e1;
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The ith of nth nearly equal parts of [0, n) whose borders are multiples of `unit`.
static inline int64_t border(int64_t n, int64_t unit, int64_t ith, int64_t nth) {
    int64_t units = (n + unit - 1) / unit;
    return least(n, units * ith / nth * unit);
}

// Whole tokens if there are as many as threads, else a token's elements among nth / T threads.
static inline Share share(int64_t T, int64_t E, int ith, int nth) {
    if (T >= nth) return {T * ith / nth, T * (ith + 1) / nth, 0, E};
    if (T <= 0) return {0, 0, 0, 0};
    int64_t parts = nth / T, t = ith / parts, part = ith % parts;
    if (t >= T) return {0, 0, 0, 0};
    return {t, t + 1, border(E, 16, part, parts), border(E, 16, part + 1, parts)};
}

// Whole rows only, for kernels that reduce over a row and write it.
static inline Share share_rows(int64_t rows, int64_t width, int ith, int nth) {
    return {rows * ith / nth, rows * (ith + 1) / nth, 0, width};
}

} // namespace g3n
