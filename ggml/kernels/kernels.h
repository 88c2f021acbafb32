// C interface of the kernels: plain functions on pointers with sizes.
// They know neither GGUF nor Rust, allocate nothing and never throw.
#pragma once
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

#ifdef __cplusplus
}
#endif
