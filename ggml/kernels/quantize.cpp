// Activations in 8 bits: q = round(x / d), d = max|x| / 127 of a block of 32, rounded up to 16 bits of mantissa.
// A block that holds a NaN or an infinity gets a scale that is not finite, so that the fault stays visible.
#include "kernels.h"
#include "product_activations.h"

#include <math.h>
#include <string.h>
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#endif

using namespace g3n;

namespace {

// Below this a block counts as zero: its scale would lose bits.
constexpr float SMALLEST = 1e-30f;

float short_scale(float amax) {
    float d = amax / 127.0f;
    uint32_t bits;
    memcpy(&bits, &d, 4);
    bits = (bits + 0xff) & ~0xffu;
    memcpy(&d, &bits, 4);
    return d;
}

#if defined(__AVX512F__) && defined(__AVX512BW__)
void quantize_block(const float *x, int8_t *q, float *d, int32_t *sums) {
    const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    // As integers, so that a NaN counts as the greatest.
    const __m512i sign = _mm512_set1_epi32(0x7fffffff);
    const __m512i top = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(x0), sign),
                                         _mm512_and_si512(_mm512_castps_si512(x1), sign));
    const int32_t bits = _mm512_reduce_max_epi32(top);
    float amax;
    memcpy(&amax, &bits, 4);
    const bool zero = amax < SMALLEST;
    *d = zero ? 0.0f : bits >= 0x7f800000 ? NAN : short_scale(amax);
    const __m512 inverse = _mm512_set1_ps(zero || bits >= 0x7f800000 ? 0.0f : 1.0f / *d);
    const __m512i q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
    const __m512i q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
    sums[0] = _mm512_reduce_add_epi32(q0);
    sums[1] = _mm512_reduce_add_epi32(q1);
    _mm_storeu_si128((__m128i *)q, _mm512_cvtsepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtsepi32_epi8(q1));
}
#else
void quantize_block(const float *x, int8_t *q, float *d, int32_t *sums) {
    float amax = 0.0f;
    bool finite = true;
    for (int i = 0; i < 32; i++) {
        const float a = fabsf(x[i]);
        finite &= a <= 3.4028235e38f;
        amax = a > amax ? a : amax;
    }
    const bool zero = amax < SMALLEST;
    *d = !finite ? NAN : zero ? 0.0f : short_scale(amax);
    const float inverse = zero || !finite ? 0.0f : 1.0f / *d;
    for (int h = 0; h < 2; h++) {
        int32_t sum = 0;
        for (int i = 0; i < 16; i++) {
            const int32_t v = finite ? (int32_t)nearbyintf(x[16 * h + i] * inverse) : 0;
            q[16 * h + i] = (int8_t)v;
            sum += v;
        }
        sums[h] = sum;
    }
}
#endif

}  // namespace

extern "C" size_t g3n_q8_row_bytes(int64_t k) { return ActivationLayout(k).bytes; }

extern "C" void g3n_q8_quantize(const float *x, int64_t k, void *out) {
    const ActivationLayout at(k);
    char *p = (char *)out;
    int8_t *q = (int8_t *)p;
    float *d = (float *)(p + at.d), *nd = (float *)(p + at.nd), *ds = (float *)(p + at.ds);
    int32_t *c32 = (int32_t *)(p + at.c32), *c16 = (int32_t *)(p + at.c16);
    // Padding is read (never used) by whole-vector loads, so it must hold something finite.
    for (size_t i = (size_t)k; i < at.d; i++) q[i] = 0;
    const int64_t blocks = k / 32, padded = (int64_t)(at.nd - at.d) / 4;
    for (int64_t b = 0; b < blocks; b++) {
        int32_t sums[2];
        quantize_block(x + 32 * b, q + 32 * b, d + b, sums);
        nd[b] = -MAGIC * d[b];
        ds[b] = d[b] * (float)(sums[0] + sums[1]);
        c32[b] = MAGIC_BITS - 128 * (sums[0] + sums[1]);
        c16[2 * b] = MAGIC_BITS - 128 * sums[0];
        c16[2 * b + 1] = MAGIC_BITS - 128 * sums[1];
    }
    for (int64_t b = blocks; b < padded; b++) {
        d[b] = nd[b] = ds[b] = 0.0f;
        c32[b] = MAGIC_BITS;
    }
    for (int64_t b = 2 * blocks; b < (int64_t)(at.bytes - at.c16) / 4; b++) c16[b] = MAGIC_BITS;
}
