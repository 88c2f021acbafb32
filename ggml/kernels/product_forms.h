// The forms of the 8-bit products that product.cpp chooses from, and what they share.
#pragma once
#include "product_activations.h"
#include "product_blocks.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#define G3N_PRODUCT_AVX512 1
#endif

namespace g3n {

// Blocks of 32 of a row that a panel holds: 512 columns.
constexpr int CHUNK = 16;
// Rows of weights that a panel interleaves.
constexpr int PANEL = 32;

// A product out[t * out_stride + r] = dot(w row r, a row t).
struct Product {
    int type;
    const uint8_t *w;
    int64_t w_stride, k, m;
    const char *a;
    int64_t a_stride, n;
    float *out;
    int64_t out_stride;
};

// Dots of the rows at rows[0..n) with one token; those at rows[n..listed) will come next and may be fetched: gemv.cpp.
void dot_rows(int type, const uint8_t *const *rows, int64_t n, int64_t listed, int64_t k, const char *a, float *out);

// Dots of one row with the chosen tokens (null: tokens 0..n-1), out[i * out_stride] each: row_tokens.cpp.
void dot_tokens(int type, const uint8_t *row, int64_t k, const char *a, int64_t a_stride, const int32_t *tokens, int64_t n, float *out,
                int64_t out_stride);

// Rows [begin, end) with all tokens; scratch of PANEL_BYTES, aligned to 64: gemm.cpp, in the AVX-512 form only.
void product_panels(const Product &p, int64_t begin, int64_t end, void *scratch);
constexpr size_t PANEL_BYTES = (size_t)PANEL * CHUNK * (32 + 2 * 4 + 2 * 4);

}  // namespace g3n
