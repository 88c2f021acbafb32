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

// ---- Fused passes over activations: altup.cpp, norms.cpp, activation.cpp, sparse.cpp, rope.cpp.
//
// All arrays are f32, one token's values contiguous; [E, T] means x[t * E + e]. T tokens, E the
// width of the hidden state. Every function is called by all `nth` threads with its own `ith` and
// does its share; results do not depend on `nth`. Strides are in floats, of weights in bytes.
// Outputs may not lie on inputs except where it is said.

// Ids of the types that are read here (ggml's numbers).
enum { G3N_F32 = 0, G3N_F16 = 1, G3N_Q8_0 = 8, G3N_BF16 = 30 };

// AltUp has at most this many streams.
enum { G3N_MAX_STREAMS = 16 };

// S, pred [E, T, A]; router_norm [E]; router [E, A]; coefs [A, A * A], row i * A + j for C[i][j].
// pred may be S: the faster way with many tokens.
void g3n_altup_predict(const float *S, int64_t T, int64_t E, int A, int active,
                       const float *router_norm, const float *router, const float *coefs, float eps,
                       float *pred, int ith, int nth);

// act [E, T], coefs [A, A], scale [E] or null; out [E, T, A], scaled [E, T]: the corrected active
// stream times scale. out may be pred.
void g3n_altup_correct(const float *pred, const float *act, int64_t T, int64_t E, int A, int active,
                       const float *router_norm, const float *router, const float *coefs,
                       const float *scale, float eps, float *out, float *scaled, int ith, int nth);

// S_i += RMS(row; norm) for streams 1 .. A - 1, in place. row [E, T].
void g3n_add_to_streams(float *S, const float *row, const float *norm, float eps, int64_t T,
                        int64_t E, int A, int ith, int nth);

// w [E] or null. out may be x.
void g3n_rms_norm(const float *x, int64_t x_stride, const float *w, float eps, int64_t E,
                  int64_t rows, float *out, int64_t out_stride, int ith, int nth);

// y = ((x + RMS(attn)) + (h + RMS(laurel))) / sqrt(2), n = RMS(y; ffn_norm). y may be any input.
void g3n_residual(const float *x, const float *attn, const float *attn_norm, const float *h,
                  const float *laurel, const float *laurel_norm, const float *ffn_norm, float eps,
                  int64_t T, int64_t E, float *y, float *n, int ith, int nth);

// act = y + RMS(ffn; norm). act may be an input.
void g3n_ffn_residual(const float *y, const float *ffn, const float *norm, float eps, int64_t T,
                      int64_t E, float *act, int ith, int nth);

// out = gelu(g) * u (tanh form). g, out [width, rows]; u has its own stride. out may be g or u.
void g3n_gelu_mul(const float *g, const float *u, int64_t u_stride, int64_t width, int64_t rows,
                  float *out, int ith, int nth);

// out = cap tanh(x / cap), n values. out may be x.
void g3n_softcap(const float *x, float cap, int64_t n, float *out, int ith, int nth);

// out = softmax(scale x) over each row [width, rows], scale > 0, width > 0. out may be x.
void g3n_soft_max(const float *x, float scale, int64_t width, int64_t rows, float *out, int ith,
                  int nth);

// cutoff[t] = mean + z * (biased) deviation of gate [F, T] over F.
void g3n_topk_cutoff(const float *gate, int64_t F, int64_t T, float z, float *cutoff, int ith,
                     int nth);

// out = gelu(max(gate - cutoff, 0)) * up, all [F, T]. out may be gate or up.
void g3n_topk_gelu_mul(const float *gate, const float *up, const float *cutoff, int64_t F,
                       int64_t T, float *out, int ith, int nth);

// The same, with up = w a computed only where gate > cutoff. w: F rows of k weights, w_stride bytes
// apart; a: T rows as the products of `type` take them (floats for float weights), a_stride bytes
// apart; scratch: g3n_sparse_scratch_bytes(F, T) bytes for each thread, 4-byte aligned.
int64_t g3n_sparse_scratch_bytes(int64_t F, int64_t T);
void g3n_sparse_gated_up(int type, const void *w, int64_t w_stride, int64_t k, int64_t F,
                         const float *gate, const float *cutoff, const void *a, int64_t a_stride,
                         int64_t T, float *out, void *scratch, int ith, int nth);

// ---- Neuron-major `down`: neurons.cpp.
//
// out = act wT: w holds F rows of E weights (row f: what neuron f adds), w_stride bytes apart, of a
// type of the 8-bit products or F16, BF16, F32; act [F, T], out [E, T]. g3n_survivors lists the
// neurons of each token whose activation is not 0, g3n_survivors_len(F) numbers a token; scratch:
// g3n_neurons_scratch_bytes(E, T) bytes for each thread, 4-byte aligned.
int64_t g3n_survivors_len(int64_t F);
void g3n_survivors(const float *act, int64_t F, int64_t T, int32_t *lists, int ith, int nth);
int g3n_neurons_supports(int type, int64_t E);
int64_t g3n_neurons_scratch_bytes(int64_t E, int64_t T);
void g3n_neurons_product(int type, const void *w, int64_t w_stride, int64_t E, int64_t F,
                         const int32_t *lists, int64_t T, float *out, void *scratch, int ith,
                         int nth);

// RMS over each head of x [d, H, T] (w [d] or null), then the rotation by cosines, sines [d/2, T].
// out may be x.
void g3n_qk_norm_rope(const float *x, const float *w, float eps, const float *cosines,
                      const float *sines, int64_t d, int64_t H, int64_t T, float *out, int ith,
                      int nth);

// out = gelu(RMS(x; w)) (tanh form), [E, rows]. out may be x.
void g3n_rms_norm_gelu(const float *x, const float *w, float eps, int64_t E, int64_t rows,
                       float *out, int ith, int nth);

// out = x + gamma * RMS(y; norm), [E, rows]. Without x (null) nothing is added, without norm or
// gamma [E] the step is left out. out may be x or y.
void g3n_norm_scale_add(const float *x, const float *y, const float *norm, const float *gamma,
                        float eps, int64_t E, int64_t rows, float *out, int ith, int nth);

// ---- Convolutions over maps of pixels, channels last: convolution.cpp.

// A window of k_x * k_y taps over a map of width * height pixels, moved by step_x across and by
// step_y down.
typedef struct {
    int64_t channels, width, height, k_x, k_y, step_x, step_y, pad_left, pad_top, out_width,
        out_height;
} G3nWindow;

// in [C, width * height]; out [k_x * k_y * C, out_width * out_height]: the pixels under each window.
void g3n_patches(const float *in, const G3nWindow *w, float *out, int ith, int nth);

// The same in 8 bits, as the products take it: rows of g3n_q8_row_bytes(k_x * k_y * C), a
// multiple of 32 values. Scratch for each thread: k_x * k_y * C floats.
void g3n_patches_q8(const float *in, const G3nWindow *w, void *out, void *scratch, int ith,
                    int nth);

// weights [C, k_x * k_y]; out [C, out_width * out_height].
void g3n_depthwise(const float *in, const float *weights, const G3nWindow *w, float *out, int ith,
                   int nth);

// ---- The conformer: conformer.cpp.

// Sums of x [width, T] over each row, or, given these as `sums`, of the squares of what each value
// is away from the mean of all rows up to its own. out [T].
void g3n_frame_sums(const float *x, int64_t width, int64_t T, const float *sums, float *out,
                    int ith, int nth);

// The cumulative group norm with those two, then relu: x, out [width, T], w [C] repeated over a
// row. out may be x.
void g3n_cumulative_norm_relu(const float *x, const float *sums, const float *squares,
                              const float *w, float eps, int64_t C, int64_t width, int64_t T,
                              float *out, int ith, int nth);

// out = x / (1 + e^-x), n values. out may be x.
void g3n_silu(const float *x, int64_t n, float *out, int ith, int nth);

// out = a / (1 + e^-b), a the first half of each row of x [2 * width, T], b the second.
void g3n_glu(const float *x, int64_t width, int64_t T, float *out, int ith, int nth);

// Of every step-th row of x [E, T] (0, step, ...): silu(RMS(clip(y); norm)) with y the sum of w[i]
// times the row K - 1 - i before it, i < K; w [E, K], rows before the first are 0. clip: to
// +-bound. out [E, rows].
void g3n_light_convolution(const float *x, const float *w, int64_t K, const float *norm, float eps,
                           float bound, int64_t step, int64_t E, int64_t T, float *out, int ith,
                           int nth);

// Attention within a span of rows: q, k, v, out [d, H, T], r [d, H, past + 1 + future], scale [d].
// Row t sees rows t - past .. t + future that there are, with the scores
// cap tanh((scale q_t) (k_j + r[past - t + j]) / cap). Scratch for each thread: d + past + 1 +
// future floats, rounded up to a multiple of 16, and 16 more.
void g3n_local_attention(const float *q, const float *k, const float *v, const float *r,
                         const float *scale, float cap, int64_t past, int64_t future, int64_t d,
                         int64_t H, int64_t T, float *out, void *scratch, int ith, int nth);

// ---- Attention over a cache: attention.cpp.

// Attention over slots of a KV cache. q, out [d, H, T]; k, v: `slots` rows of K heads of d values,
// kv_stride bytes apart, f32, f16 or Q8_0 (`type`); mask: f16 [slots, T], added to the scores, rows
// mask_stride values apart; a slot at -inf is not read. H is a multiple of K. Scratch for each
// thread: g3n_attention_scratch_bytes(d) bytes, 4-byte aligned.
int64_t g3n_attention_scratch_bytes(int64_t d);
void g3n_attention(const float *q, int type, const void *k, const void *v, int64_t kv_stride,
                   const uint16_t *mask, int64_t mask_stride, int64_t slots, int64_t d, int64_t H,
                   int64_t K, int64_t T, float *out, void *scratch, int ith, int nth);

// ---- Products: quantize.cpp, gemv.cpp, gemm.cpp, product.cpp.
//
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

// The same for F16, BF16 and F32 weights with f32 activations (x_stride in bytes), exact up to the order of f32 sums.
// For batches: with one token ggml's own product reads such weights at the speed of memory.
int g3n_product_float_supports(int type, int64_t k);
size_t g3n_product_float_scratch_bytes(void);
void g3n_product_float(int type, const void *w, int64_t w_stride, int64_t k, int64_t m, const float *x, int64_t x_stride, int64_t n,
                       float *out, int64_t out_stride, void *scratch, int ith, int nth);

// ---- Products of packed weights: panels.cpp. For batches, on machines with AVX-512 VNNI; 8 bits, one scale for up to 256 columns.

// Whether rows of k weights can be packed here.
int g3n_panels_supports(int64_t k);

// A panel of 32 rows, aligned to 64 bytes like its length; the n rows that there are come from and go to floats [k, n].
size_t g3n_panel_bytes(int64_t k);
void g3n_panel_pack(const float *rows, int64_t n, int64_t k, void *panel);
void g3n_panel_unpack(const void *panel, int64_t n, int64_t k, float *rows);

// A row of k activations for them, aligned to 64 bytes like its length.
size_t g3n_wide_row_bytes(int64_t k);
void g3n_wide_quantize(const float *x, int64_t k, void *out);

// out[t * out_stride + r] = dot(w row r, a row t) for r < m, t < n. Panels and rows lie one behind the other.
// Scratch for each thread: g3n_panels_scratch_bytes().
size_t g3n_panels_scratch_bytes(void);
void g3n_panels_product(const void *panels, int64_t k, int64_t m, const void *a, int64_t n, float *out, int64_t out_stride,
                        void *scratch, int ith, int nth);

// out[i] = dot(w row rows[i], a), one row of activations.
void g3n_gather_dots(int type, const void *w, int64_t w_stride, int64_t k, const int32_t *rows, int64_t n_rows, const void *a, float *out);

// out[i] = dot(w_row, a row tokens[i]), one row of weights, decoded once.
void g3n_row_dots(int type, const void *w_row, int64_t k, const void *a, int64_t a_stride, const int32_t *tokens, int64_t n_tokens,
                  float *out);

#ifdef __cplusplus
}
#endif
