// AltUp: A streams of the hidden state, of which one is computed.
//
//   route(x)  = tanh(W (RMS(x) * norm / E))                        [A]
//   predict:    pred_i = S_i + sum_j C[i][j] S_j                   C = coefs route(S_active)
//   correct:    S'_i   = pred_i + b_i (act - pred_active)          b = coefs route(act) + 1
//   per layer:  S'_i  += RMS(p) * norm                             i = 1 .. A-1
//
// Streams are [E, T, A]: element e of token t of stream a is S[(a T + t) E + e].
#include "kernels.h"
#include "vectors.h"

using namespace g3n;

// Four rows of the router at a time; a row beyond the last repeats it and is dropped.
static void route(const float *x, const float *norm, const float *router, float eps, int64_t E,
                  int A, float *out) {
    Vec factor = splat(rms_factor(x, E, eps)), scale = splat(1.0f / static_cast<float>(E));
    for (int a = 0; a < A; a += 4) {
        const float *row[4];
        for (int i = 0; i < 4; i++) row[i] = router + least(a + i, A - 1) * E;
        Vec even[4], odd[4];
        for (int i = 0; i < 4; i++) even[i] = odd[i] = splat(0);
        auto step = [&](Vec *sum, int64_t e, auto p) {
            Vec v = mul(mul(mul(load(x + e, p), factor), load(norm + e, p)), scale);
            for (int i = 0; i < 4; i++) sum[i] = fma(v, load(row[i] + e, p), sum[i]);
        };
        int64_t e = 0;
        for (; e + 2 * WIDTH <= E; e += 2 * WIDTH) {
            step(even, e, Full{});
            step(odd, e + WIDTH, Full{});
        }
        over(e, E, [&](int64_t at, auto p) { step(even, at, p); });
        for (int i = 0; i < 4 && a + i < A; i++) out[a + i] = tanhf(total(add(even[i], odd[i])));
    }
}

// N is A where it is known at compile time (coefficients then live in registers), else 0.
template <int N>
static void mix(const float *S, const float *C, int64_t stream, int64_t e0, int64_t e1, int A,
                float *out) {
    constexpr int MOST = N ? N : G3N_MAX_STREAMS;
    const int n = N ? N : A;
    Vec c[N ? N * N : 1];
    if (N)
        for (int i = 0; i < N * N; i++) c[i] = splat(C[i]);
    over(e0, e1, [&](int64_t e, auto p) {
        Vec s[MOST];
        for (int j = 0; j < n; j++) s[j] = load(S + j * stream + e, p);
        for (int i = 0; i < n; i++) {
            Vec sum = splat(0);
            for (int j = 0; j < n; j++) {
                Vec factor = N ? c[i * n + j] : splat(C[i * n + j]);
                sum = fma(factor, s[j], sum);
            }
            store(out + i * stream + e, add(s[i], sum), p);
        }
    });
}

extern "C" void g3n_altup_predict(const float *S, int64_t T, int64_t E, int A, int active,
                                  const float *router_norm, const float *router,
                                  const float *coefs, float eps, float *pred, int ith, int nth) {
    // In place, a thread must not write what another's router still reads.
    const Share mine = pred == S ? share_rows(T, E, ith, nth) : share(T, E, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        float r[G3N_MAX_STREAMS], C[G3N_MAX_STREAMS * G3N_MAX_STREAMS];
        route(S + (active * T + t) * E, router_norm, router, eps, E, A, r);
        for (int i = 0; i < A * A; i++) {
            C[i] = 0;
            for (int k = 0; k < A; k++) C[i] += coefs[i * A + k] * r[k];
        }
        auto run = A == 4 ? mix<4> : A == 2 ? mix<2> : mix<0>;
        run(S + t * E, C, T * E, mine.e0, mine.e1, A, pred + t * E);
    }
}

extern "C" void g3n_altup_correct(const float *pred, const float *act, int64_t T, int64_t E, int A,
                                  int active, const float *router_norm, const float *router,
                                  const float *coefs, const float *scale, float eps, float *out,
                                  float *scaled, int ith, int nth) {
    const Share mine = share(T, E, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        float r[G3N_MAX_STREAMS];
        Vec b[G3N_MAX_STREAMS];
        route(act + t * E, router_norm, router, eps, E, A, r);
        for (int i = 0; i < A; i++) {
            float sum = 0;
            for (int k = 0; k < A; k++) sum += coefs[i * A + k] * r[k];
            b[i] = splat(sum + 1.0f);
        }
        over(mine.e0, mine.e1, [&](int64_t e, auto p) {
            Vec old = load(pred + (active * T + t) * E + e, p);
            Vec innovation = sub(load(act + t * E + e, p), old);
            for (int i = 0; i < A; i++) {
                int64_t at = (i * T + t) * E + e;
                store(out + at, fma(b[i], innovation, load(pred + at, p)), p);
            }
            Vec y = fma(b[active], innovation, old);
            store(scaled + t * E + e, scale ? mul(y, load(scale + e, p)) : y, p);
        });
    }
}

extern "C" void g3n_add_to_streams(float *S, const float *row, const float *norm, float eps,
                                   int64_t T, int64_t E, int A, int ith, int nth) {
    const Share mine = share(T, E, ith, nth);
    for (int64_t t = mine.t0; t < mine.t1; t++) {
        const float *x = row + t * E;
        Vec factor = splat(rms_factor(x, E, eps));
        over(mine.e0, mine.e1, [&](int64_t e, auto p) {
            Vec y = mul(mul(load(x + e, p), factor), load(norm + e, p));
            for (int i = 1; i < A; i++) {
                float *s = S + (i * T + t) * E + e;
                store(s, add(load(s, p), y), p);
            }
        });
    }
}
