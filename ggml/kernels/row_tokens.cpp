// One row of weights, decoded once, with chosen tokens, four at a time.
#include "decoded_row.h"

namespace g3n {

namespace {

constexpr int TOKENS = 4;

template <typename T>
void dot_row(const uint8_t *row, int64_t k, const char *a, int64_t a_stride, const int32_t *tokens, int64_t n, float *out, int64_t out_stride) {
    const auto token = [&](int64_t i) { return Activations(a + (tokens ? tokens[i] : i) * a_stride, k); };
    const int64_t blocks = k / 32;
    DecodedRow c;
    for (int64_t i = 0; i < n; i++) out[i * out_stride] = 0.0f;
    for (int64_t b0 = 0; b0 < blocks; b0 += ROW_BLOCKS) {
        const int nb = (int)(blocks - b0 < ROW_BLOCKS ? blocks - b0 : ROW_BLOCKS);
        decode_row<T>(row, b0, nb, &c);
        float part[TOKENS];
        int64_t i = 0;
        for (; i + TOKENS <= n; i += TOKENS) {
            const Activations four[TOKENS] = {token(i), token(i + 1), token(i + 2), token(i + 3)};
            dot_decoded<T, TOKENS>(c, b0, nb, four, part);
            for (int t = 0; t < TOKENS; t++) out[(i + t) * out_stride] += part[t];
        }
        for (; i < n; i++) {
            const Activations one = token(i);
            dot_decoded<T, 1>(c, b0, nb, &one, part);
            out[i * out_stride] += part[0];
        }
    }
}

}  // namespace

void dot_tokens(int type, const uint8_t *row, int64_t k, const char *a, int64_t a_stride, const int32_t *tokens, int64_t n, float *out,
                int64_t out_stride) {
    with_type(type, [&](auto t) { dot_row<decltype(t)>(row, k, a, a_stride, tokens, n, out, out_stride); });
}

}  // namespace g3n
