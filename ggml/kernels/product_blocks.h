// Blocks of the quantized weight types as files hold them, and their portable decoding.
//
// A decoder turns 32 consecutive weights of a row into bytes and factors:
//   min-less types:  w[i] = scale[i / 16] * (q[i] - 128)
//   types with mins: w[i] = scale[i / 16] * q[i] + min[i / 16]      (min already negated where the type subtracts it)
// scale[0] == scale[1] (and min likewise) for types with one scale per 32. All integers are little-endian.
#pragma once
#include <stdint.h>
#include <string.h>

namespace g3n {

// ggml's numbers of the types that have a product here.
enum Type {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q4_1 = 3,
    TYPE_Q5_0 = 6,
    TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8,
    TYPE_Q2_K = 10,
    TYPE_Q3_K = 11,
    TYPE_Q4_K = 12,
    TYPE_Q5_K = 13,
    TYPE_Q6_K = 14,
    TYPE_IQ4_NL = 20,
    TYPE_IQ4_XS = 23,
    TYPE_BF16 = 30,
};

inline float half_to_float(uint16_t h) {
#ifdef __F16C__
    return __builtin_ia32_vcvtph2ps(__extension__(__attribute__((vector_size(16))) short){(short)h, 0, 0, 0, 0, 0, 0, 0})[0];
#else
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    float value;
    uint32_t bits;
    if ((h & 0x7c00) == 0x7c00) {
        bits = sign | magnitude | 0x7f800000;
    } else {
        memcpy(&value, &magnitude, 4);
        value *= 0x1p112f;  // moves the exponent; right for subnormals too
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    memcpy(&value, &bits, 4);
    return value;
#endif
}

inline float load_half(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}

// The sixteen levels of IQ4_NL and IQ4_XS.
constexpr int8_t IQ4_LEVELS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Two 6-bit values per pair of 32-blocks of Q4_K and Q5_K: scale and min of block j (0..7).
inline void k4_scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
        *min = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
    }
}

// d f16, 16 bytes: element i in the low nibble of byte i, element 16 + i in the high one; minus 8.
struct Q4_0 {
    static constexpr int LEN = 32, BYTES = 18, SUB = 1;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        for (int i = 0; i < 16; i++) {
            q[i] = (uint8_t)((p[2 + i] & 15) + 120);
            q[16 + i] = (uint8_t)((p[2 + i] >> 4) + 120);
        }
    }
};

// d f16, m f16, nibbles as in Q4_0, not shifted.
struct Q4_1 {
    static constexpr int LEN = 32, BYTES = 20, SUB = 1;
    static constexpr bool MIN = true;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *min) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        min[0] = min[1] = load_half(p + 2);
        for (int i = 0; i < 16; i++) {
            q[i] = p[4 + i] & 15;
            q[16 + i] = p[4 + i] >> 4;
        }
    }
};

// The fifth bits of 32 elements lie in one 32-bit word, element i in bit i.
inline void five_bits(const uint8_t *high, const uint8_t *nibbles, int offset, uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        const int low_bit = (high[i >> 3] >> (i & 7)) & 1;
        const int high_bit = (high[2 + (i >> 3)] >> (i & 7)) & 1;
        q[i] = (uint8_t)(((nibbles[i] & 15) | (low_bit << 4)) + offset);
        q[16 + i] = (uint8_t)(((nibbles[i] >> 4) | (high_bit << 4)) + offset);
    }
}

// d f16, 4 bytes of fifth bits, nibbles; minus 16.
struct Q5_0 {
    static constexpr int LEN = 32, BYTES = 22, SUB = 1;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        five_bits(p + 2, p + 6, 112, q);
    }
};

// d f16, m f16, 4 bytes of fifth bits, nibbles.
struct Q5_1 {
    static constexpr int LEN = 32, BYTES = 24, SUB = 1;
    static constexpr bool MIN = true;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *min) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        min[0] = min[1] = load_half(p + 2);
        five_bits(p + 4, p + 8, 0, q);
    }
};

// d f16, 32 signed bytes.
struct Q8_0 {
    static constexpr int LEN = 32, BYTES = 34, SUB = 1;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        for (int i = 0; i < 32; i++) q[i] = p[2 + i] ^ 0x80;
    }
};

// d f16, nibbles as in Q4_0 that choose among IQ4_LEVELS.
struct IQ4_NL {
    static constexpr int LEN = 32, BYTES = 18, SUB = 1;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + b * BYTES;
        scale[0] = scale[1] = load_half(p);
        for (int i = 0; i < 16; i++) {
            q[i] = (uint8_t)(IQ4_LEVELS[p[2 + i] & 15] + 128);
            q[16 + i] = (uint8_t)(IQ4_LEVELS[p[2 + i] >> 4] + 128);
        }
    }
};

// Super-blocks of 256. Scales of the eight 32-blocks: 4 low bits in scales_l, 2 high bits in scales_h; minus 32.
struct IQ4_XS {
    static constexpr int LEN = 256, BYTES = 136, SUB = 1;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7);
        const int high = p[2] | (p[3] << 8);
        const int s = ((p[4 + j / 2] >> (4 * (j & 1))) & 15) | (((high >> (2 * j)) & 3) << 4);
        scale[0] = scale[1] = load_half(p) * (float)(s - 32);
        const uint8_t *n = p + 8 + 16 * j;
        for (int i = 0; i < 16; i++) {
            q[i] = (uint8_t)(IQ4_LEVELS[n[i] & 15] + 128);
            q[16 + i] = (uint8_t)(IQ4_LEVELS[n[i] >> 4] + 128);
        }
    }
};

// 16 bytes of 4-bit scales (low) and mins (high) of the 16-blocks, 64 bytes of 2-bit values, d f16, dmin f16.
struct Q2_K {
    static constexpr int LEN = 256, BYTES = 84, SUB = 2;
    static constexpr bool MIN = true;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *min) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7);
        const float d = load_half(p + 80), dmin = load_half(p + 82);
        for (int h = 0; h < 2; h++) {
            scale[h] = d * (float)(p[2 * j + h] & 15);
            min[h] = -dmin * (float)(p[2 * j + h] >> 4);
        }
        const uint8_t *n = p + 16 + 32 * (j >> 2);
        const int shift = 2 * (j & 3);
        for (int i = 0; i < 32; i++) q[i] = (n[i] >> shift) & 3;
    }
};

// 32 bytes of third bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales of the 16-blocks (minus 32), d f16; minus 4.
struct Q3_K {
    static constexpr int LEN = 256, BYTES = 110, SUB = 2;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7);
        const float d = load_half(p + 108);
        const uint8_t *s = p + 96;
        for (int h = 0; h < 2; h++) {
            const int i = 2 * j + h;
            const int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4;
            const int high = (s[8 + (i & 3)] >> (2 * (i >> 2))) & 3;
            scale[h] = d * (float)((low | (high << 4)) - 32);
        }
        const uint8_t *n = p + 32 + 32 * (j >> 2);
        const int shift = 2 * (j & 3);
        for (int i = 0; i < 32; i++) {
            q[i] = (uint8_t)(((n[i] >> shift) & 3) + (((p[i] >> j) & 1) << 2) + 124);
        }
    }
};

// d f16, dmin f16, 12 bytes of 6-bit scales and mins of the 32-blocks, 128 bytes: per 64 elements 32 bytes, first half low.
struct Q4_K {
    static constexpr int LEN = 256, BYTES = 144, SUB = 1;
    static constexpr bool MIN = true;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *min) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7);
        int s, m;
        k4_scale_min(p + 4, j, &s, &m);
        scale[0] = scale[1] = load_half(p) * (float)s;
        min[0] = min[1] = -load_half(p + 2) * (float)m;
        const uint8_t *n = p + 16 + 32 * (j >> 1);
        const int shift = 4 * (j & 1);
        for (int i = 0; i < 32; i++) q[i] = (n[i] >> shift) & 15;
    }
};

// Q4_K with 32 bytes of fifth bits after the scales: block j in bit j.
struct Q5_K {
    static constexpr int LEN = 256, BYTES = 176, SUB = 1;
    static constexpr bool MIN = true;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *min) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7);
        int s, m;
        k4_scale_min(p + 4, j, &s, &m);
        scale[0] = scale[1] = load_half(p) * (float)s;
        min[0] = min[1] = -load_half(p + 2) * (float)m;
        const uint8_t *n = p + 48 + 32 * (j >> 1);
        const int shift = 4 * (j & 1);
        for (int i = 0; i < 32; i++) q[i] = (uint8_t)(((n[i] >> shift) & 15) | (((p[16 + i] >> j) & 1) << 4));
    }
};

// 128 bytes of low nibbles, 64 bytes of 2 high bits, 16 signed scales of the 16-blocks, d f16; minus 32.
// A half of 128 elements: 64 low bytes hold elements 0..63 low and 64..127 high, 32 high bytes all four 32-blocks.
struct Q6_K {
    static constexpr int LEN = 256, BYTES = 210, SUB = 2;
    static constexpr bool MIN = false;
    static void decode(const uint8_t *row, int64_t b, uint8_t *q, float *scale, float *) {
        const uint8_t *p = row + (b >> 3) * BYTES;
        const int j = (int)(b & 7), quarter = j & 3;
        const float d = load_half(p + 208);
        scale[0] = d * (float)(int8_t)p[192 + 2 * j];
        scale[1] = d * (float)(int8_t)p[192 + 2 * j + 1];
        const uint8_t *n = p + 64 * (j >> 2) + 32 * (quarter & 1);
        const uint8_t *h = p + 128 + 32 * (j >> 2);
        const int shift = 4 * (quarter >> 1), high_shift = 2 * quarter;
        for (int i = 0; i < 32; i++) {
            q[i] = (uint8_t)((((n[i] >> shift) & 15) | (((h[i] >> high_shift) & 3) << 4)) + 96);
        }
    }
};

// Calls f with a value of the type's struct; false where the type has no product in 8 bits.
template <typename F>
inline bool with_type(int type, F f) {
    switch (type) {
        case TYPE_Q4_0: f(Q4_0{}); return true;
        case TYPE_Q4_1: f(Q4_1{}); return true;
        case TYPE_Q5_0: f(Q5_0{}); return true;
        case TYPE_Q5_1: f(Q5_1{}); return true;
        case TYPE_Q8_0: f(Q8_0{}); return true;
        case TYPE_Q2_K: f(Q2_K{}); return true;
        case TYPE_Q3_K: f(Q3_K{}); return true;
        case TYPE_Q4_K: f(Q4_K{}); return true;
        case TYPE_Q5_K: f(Q5_K{}); return true;
        case TYPE_Q6_K: f(Q6_K{}); return true;
        case TYPE_IQ4_NL: f(IQ4_NL{}); return true;
        case TYPE_IQ4_XS: f(IQ4_XS{}); return true;
        default: return false;
    }
}

}  // namespace g3n
