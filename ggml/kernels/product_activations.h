// A row of activations in 8 bits: x[i] ~ d[i / 32] * q[i], as six arrays in one stretch of memory.
//
// q     int8  [k]       |q| <= 127
// d     f32   [k / 32]  scale, with a mantissa of at most 16 bits
// nd    f32   [k / 32]  -MAGIC * d, exact because d is short
// ds    f32   [k / 32]  d * (sum of the block's q)
// c32   int32 [k / 32]  MAGIC_BITS - 128 * (sum of the block's q)
// c16   int32 [k / 16]  the same for each half block
//
// What MAGIC is for: an integer dot that starts from MAGIC_BITS is, read as a float, MAGIC + dot (|dot| < 2^22), so one
// fused multiply-add with d and nd gives d * dot, correctly rounded, without a conversion. Starting from c32 also takes
// off the 128 that min-less weights are shifted by. Each array starts at a multiple of 64 bytes and is padded to it.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace g3n {

constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23
constexpr int32_t MAGIC_BITS = 0x4B400000;

struct ActivationLayout {
    size_t d, nd, ds, c32, c16, bytes;
    explicit ActivationLayout(int64_t k) {
        const size_t values = ((size_t)k + 63) / 64 * 64;
        const size_t blocks = ((size_t)k / 32 * 4 + 63) / 64 * 64;
        const size_t halves = ((size_t)k / 16 * 4 + 63) / 64 * 64;
        d = values;
        nd = d + blocks;
        ds = nd + blocks;
        c32 = ds + blocks;
        c16 = c32 + blocks;
        bytes = c16 + halves;
    }
};

// A row's arrays; `stride` bytes further lie those of the next token.
struct Activations {
    const int8_t *q;
    const float *d, *nd, *ds;
    const int32_t *c32, *c16;

    Activations(const void *row, int64_t k) {
        const ActivationLayout at(k);
        const char *p = (const char *)row;
        q = (const int8_t *)p;
        d = (const float *)(p + at.d);
        nd = (const float *)(p + at.nd);
        ds = (const float *)(p + at.ds);
        c32 = (const int32_t *)(p + at.c32);
        c16 = (const int32_t *)(p + at.c16);
    }
};

}  // namespace g3n
