// Convolutions of maps with the channels last: a pixel's C values are contiguous, pixels go row by
// row. Pixels outside the map count as zero.
//
//   patches:   out[(y, x)] = the pixels under the window at (y, x), tap by tap; a product with
//              weights in that order is then the convolution
//   depthwise: out[(y, x)][c] = sum over taps of w[tap][c] * in[tap under (y, x)][c]
//
// Threads take whole rows of the result.
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

namespace {

// Taps of one output column or row that lie inside: [first, last), at `start + tap` of the input.
struct Span {
    int64_t start, first, last;
};

Span span(int64_t at, int64_t stride, int64_t pad, int64_t k, int64_t n) {
    const int64_t start = at * stride - pad;
    const int64_t first = start < 0 ? -start : 0;
    return {start, first, least(k, n - start)};
}

// One pixel's window, k_x * k_y * C floats.
void gather(const float *in, const G3nWindow &w, int64_t oy, int64_t ox, float *out) {
    const Span y = span(oy, w.step_y, w.pad_top, w.k_y, w.height);
    const Span x = span(ox, w.step_x, w.pad_left, w.k_x, w.width);
    const size_t row = static_cast<size_t>(w.k_x * w.channels) * sizeof(float);
    for (int64_t ky = 0; ky < w.k_y; ky++, out += w.k_x * w.channels) {
        if (ky < y.first || ky >= y.last) {
            memset(out, 0, row);
            continue;
        }
        const float *from = in + ((y.start + ky) * w.width + x.start + x.first) * w.channels;
        const int64_t before = x.first * w.channels, inside = (x.last - x.first) * w.channels;
        memset(out, 0, static_cast<size_t>(before) * sizeof(float));
        memcpy(out + before, from, static_cast<size_t>(inside) * sizeof(float));
        memset(out + before + inside, 0, row - static_cast<size_t>(before + inside) * sizeof(float));
    }
}

// N vectors of channels from c on, of a row of results: their weights stay close by.
template <int N, class P>
void depthwise_columns(const float *in, const float *weights, const G3nWindow &w, int64_t oy,
                       int64_t c, P part, float *out) {
    const Span y = span(oy, w.step_y, w.pad_top, w.k_y, w.height);
    const int64_t C = w.channels;
    for (int64_t ox = 0; ox < w.out_width; ox++) {
        const Span x = span(ox, w.step_x, w.pad_left, w.k_x, w.width);
        Vec sum[N];
        for (int i = 0; i < N; i++) sum[i] = splat(0);
        for (int64_t ky = y.first; ky < y.last; ky++) {
            const float *row = in + ((y.start + ky) * w.width + x.start) * C + c;
            const float *taps = weights + ky * w.k_x * C + c;
            for (int64_t kx = x.first; kx < x.last; kx++)
                for (int i = 0; i < N; i++)
                    sum[i] = fma(load(row + kx * C + i * WIDTH, part),
                                 load(taps + kx * C + i * WIDTH, part), sum[i]);
        }
        for (int i = 0; i < N; i++) store(out + ox * C + c + i * WIDTH, sum[i], part);
    }
}

void depthwise_row(const float *in, const float *weights, const G3nWindow &w, int64_t oy,
                   float *out) {
    constexpr int VECTORS = 4;
    int64_t c = 0;
    for (; c + VECTORS * WIDTH <= w.channels; c += VECTORS * WIDTH)
        depthwise_columns<VECTORS>(in, weights, w, oy, c, Full{}, out);
    over(c, w.channels, [&](int64_t at, auto part) {
        depthwise_columns<1>(in, weights, w, oy, at, part, out);
    });
}

} // namespace

extern "C" void g3n_patches(const float *in, const G3nWindow *w, float *out, int ith, int nth) {
    const int64_t length = w->k_x * w->k_y * w->channels;
    const Share mine = share_rows(w->out_height, 0, ith, nth);
    for (int64_t y = mine.t0; y < mine.t1; y++)
        for (int64_t x = 0; x < w->out_width; x++)
            gather(in, *w, y, x, out + (y * w->out_width + x) * length);
}

extern "C" void g3n_patches_q8(const float *in, const G3nWindow *w, void *out, void *scratch,
                               int ith, int nth) {
    const int64_t length = w->k_x * w->k_y * w->channels;
    const size_t row = g3n_q8_row_bytes(length);
    const Share mine = share_rows(w->out_height, 0, ith, nth);
    float *patch = static_cast<float *>(scratch);
    for (int64_t y = mine.t0; y < mine.t1; y++)
        for (int64_t x = 0; x < w->out_width; x++) {
            gather(in, *w, y, x, patch);
            const size_t at = static_cast<size_t>(y * w->out_width + x) * row;
            g3n_q8_quantize(patch, length, static_cast<char *>(out) + at);
        }
}

extern "C" void g3n_depthwise(const float *in, const float *weights, const G3nWindow *w, float *out,
                              int ith, int nth) {
    const Share mine = share_rows(w->out_height, 0, ith, nth);
    for (int64_t y = mine.t0; y < mine.t1; y++)
        depthwise_row(in, weights, *w, y, out + y * w->out_width * w->channels);
}
