// The instruction sets this build may use, read off the compiler's own macros.
#include "kernels.h"

extern "C" uint32_t g3n_compiled_features(void) {
    uint32_t bits = 0;
#ifdef __AVX2__
    bits |= G3N_AVX2;
#endif
#ifdef __AVX512F__
    bits |= G3N_AVX512;
#endif
#ifdef __AVX512VNNI__
    bits |= G3N_AVX512_VNNI;
#endif
#ifdef __AVX512BF16__
    bits |= G3N_AVX512_BF16;
#endif
#if defined(__FMA__) && defined(__F16C__)
    bits |= G3N_FMA_F16C;
#endif
#ifdef __AVXVNNI__
    bits |= G3N_AVX_VNNI;
#endif
#ifdef __AVX512FP16__
    bits |= G3N_AVX512_FP16;
#endif
#ifdef __AVX512VBMI__
    bits |= G3N_AVX512_VBMI;
#endif
#ifdef __ARM_FEATURE_DOTPROD
    bits |= G3N_ARM_DOTPROD;
#endif
    return bits;
}
