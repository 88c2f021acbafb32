// One token with many rows, straight from the file's layout.
#include "decoded_row.h"
#include "gemv_avx512.h"

namespace g3n {

namespace {

#ifdef G3N_PRODUCT_AVX512

template <typename T, int N>
void dot_some(const uint8_t *const *rows, const uint8_t *const *next, int64_t blocks, const Activations &a, float *out) {
    constexpr int RUN = Rows<T>::RUN;
    const int64_t whole = blocks / RUN * RUN;
    __m512 sum[N];
    for (int r = 0; r < N; r++) sum[r] = _mm512_setzero_ps();
    Rows<T>::template run<N>(rows, next, whole, a, sum);
    for (int r = 0; r < N; r++) {
        out[r] = _mm512_reduce_add_ps(sum[r]) + (whole < blocks ? dot_from<T>(rows[r], whole, blocks, a) : 0.0f);
    }
}

template <typename T>
void dot_all(const uint8_t *const *rows, int64_t n, int64_t listed, int64_t blocks, const Activations &a, float *out) {
    int64_t i = 0;
    if constexpr (Rows<T>::RUN > 0) {
        const uint8_t *next[ROWS];
        for (; i + ROWS <= n; i += ROWS) {
            for (int r = 0; r < ROWS; r++) next[r] = rows[i + LOOK_AHEAD + r < listed ? i + LOOK_AHEAD + r : listed - 1];
            dot_some<T, ROWS>(rows + i, next, blocks, a, out + i);
        }
        for (; i < n; i++) dot_some<T, 1>(rows + i, rows + i, blocks, a, out + i);
    } else {
        for (; i < n; i++) out[i] = dot_from<T>(rows[i], 0, blocks, a);
    }
}

#else

template <typename T>
void dot_all(const uint8_t *const *rows, int64_t n, int64_t, int64_t blocks, const Activations &a, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = dot_from<T>(rows[i], 0, blocks, a);
}

#endif

}  // namespace

void dot_rows(int type, const uint8_t *const *rows, int64_t n, int64_t listed, int64_t k, const char *a, float *out) {
    with_type(type, [&](auto t) { dot_all<decltype(t)>(rows, n, listed, k / 32, Activations(a, k), out); });
}

}  // namespace g3n
