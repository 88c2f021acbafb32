// C interface of the kernels: plain functions on pointers with sizes.
// They know neither GGUF nor Rust, allocate nothing and never throw.
#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

// Bits of the instruction sets that this build's files were compiled for.
enum {
    G3N_AVX2 = 1 << 0,
    G3N_AVX512 = 1 << 1,
    G3N_AVX512_VNNI = 1 << 2,
    G3N_AVX512_BF16 = 1 << 3,
    G3N_FMA_F16C = 1 << 4,
    G3N_AVX_VNNI = 1 << 5,
    G3N_AVX512_FP16 = 1 << 6,
    G3N_AVX512_VBMI = 1 << 7,
    G3N_ARM_DOTPROD = 1 << 8,
};

// What the compiler was told the machine has. Compared with what the machine says before
// anything else of this library runs.
uint32_t g3n_compiled_features(void);

// Products of quantized weights with activations in 8 bits. The form (AVX-512 VNNI, AVX2, scalar) is chosen when the
// files are compiled, by the compiler's macros: build.rs compiles for one -march. `type` is ggml's number of the type.

// A row of k activations (k a multiple of 32) in 8 bits; its layout is product_activations.h's own business.
// Rows are to start at multiples of 64 bytes: g3n_q8_row_bytes is one.
size_t g3n_q8_row_bytes(int64_t k);
void g3n_q8_quantize(const float *x, int64_t k, void *out);

// Whether there is a product for rows of k weights of this type.
int g3n_product_supports(int type, int64_t k);

// out[t * out_stride + r] = dot(w row r, a row t) for r < m, t < n. Strides of w and a are in bytes, of out in floats.
// Each of nth threads calls it with its own ith; rows of the result are shared out, nobody waits for anybody.
// scratch: nth times g3n_product_scratch_bytes, one stretch for all threads.
size_t g3n_product_scratch_bytes(int type, int64_t k, int64_t n);
void g3n_product(int type, const void *w, int64_t w_stride, int64_t k, int64_t m, const void *a, int64_t a_stride, int64_t n, float *out,
                 int64_t out_stride, void *scratch, int ith, int nth);

// out[i] = dot(w row rows[i], a), one row of activations.
void g3n_gather_dots(int type, const void *w, int64_t w_stride, int64_t k, const int32_t *rows, int64_t n_rows, const void *a, float *out);

// out[i] = dot(w_row, a row tokens[i]), one row of weights, decoded once.
void g3n_row_dots(int type, const void *w_row, int64_t k, const void *a, int64_t a_stride, const int32_t *tokens, int64_t n_tokens,
                  float *out);

#ifdef __cplusplus
}
#endif
