// The 8-bit products: which form serves which call.
//
//            one token                       more tokens
// AVX-512    rows in the file's layout       panels of 32 rows
// other      each row decoded once, four tokens at a time (AVX2, AVX-VNNI or scalar)
#include "kernels.h"
#include "product_forms.h"

using namespace g3n;

namespace {

// Rows that are listed together, and how many of the next ones beside them.
constexpr int64_t STEP = 64, NEXT = 16;

// Rows number of(0..n) of w with one token.
template <typename F>
void listed_rows(int type, const uint8_t *w, int64_t w_stride, int64_t k, int64_t n, F of, const char *a, float *out) {
    const uint8_t *rows[STEP + NEXT];
    for (int64_t i0 = 0; i0 < n; i0 += STEP) {
        const int64_t own = n - i0 < STEP ? n - i0 : STEP, listed = n - i0 < STEP + NEXT ? n - i0 : STEP + NEXT;
        for (int64_t i = 0; i < listed; i++) rows[i] = w + of(i0 + i) * w_stride;
        dot_rows(type, rows, own, listed, k, a, out + i0);
    }
}

// Rows [begin, end) of thread ith of nth: whole multiples of `unit`, contiguous.
void share(int64_t m, int64_t unit, int ith, int nth, int64_t *begin, int64_t *end) {
    const int64_t units = (m + unit - 1) / unit;
    *begin = units * ith / nth * unit;
    *end = units * (ith + 1) / nth * unit;
    if (*end > m) *end = m;
}

}  // namespace

extern "C" int g3n_product_supports(int type, int64_t k) {
    int64_t len = 0;
    return with_type(type, [&](auto t) { len = decltype(t)::LEN; }) && k > 0 && k % len == 0;
}

extern "C" size_t g3n_product_scratch_bytes(int, int64_t, int64_t) { return PANEL_BYTES + 64; }

extern "C" void g3n_product(int type, const void *w, int64_t w_stride, int64_t k, int64_t m, const void *a, int64_t a_stride, int64_t n,
                            float *out, int64_t out_stride, void *scratch, int ith, int nth) {
    const Product p = {type, (const uint8_t *)w, w_stride, k, m, (const char *)a, a_stride, n, out, out_stride};
    int64_t begin, end;
    if (n == 1) {
        share(m, 16, ith, nth, &begin, &end);
        listed_rows(type, p.w + begin * w_stride, w_stride, k, end - begin, [](int64_t i) { return i; }, p.a, out + begin);
        return;
    }
#ifdef G3N_PRODUCT_AVX512
    share(m, PANEL, ith, nth, &begin, &end);
    const uintptr_t own = (uintptr_t)scratch + (size_t)ith * g3n_product_scratch_bytes(type, k, n);
    product_panels(p, begin, end, (void *)((own + 63) & ~(uintptr_t)63));
#else
    (void)scratch;
    share(m, 1, ith, nth, &begin, &end);
    for (int64_t r = begin; r < end; r++) dot_tokens(type, p.w + r * w_stride, k, p.a, a_stride, nullptr, n, out + r, out_stride);
#endif
}

extern "C" void g3n_gather_dots(int type, const void *w, int64_t w_stride, int64_t k, const int32_t *rows, int64_t n_rows, const void *a,
                                float *out) {
    listed_rows(type, (const uint8_t *)w, w_stride, k, n_rows, [&](int64_t i) { return (int64_t)rows[i]; }, (const char *)a, out);
}

extern "C" void g3n_row_dots(int type, const void *w_row, int64_t k, const void *a, int64_t a_stride, const int32_t *tokens,
                             int64_t n_tokens, float *out) {
    dot_tokens(type, (const uint8_t *)w_row, k, (const char *)a, a_stride, tokens, n_tokens, out, 1);
}
