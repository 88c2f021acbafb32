// What build.rs compiles and how: shared by build.rs (through `include!`) and read by people.
// File names are relative to `ggml/src` of the pinned package; see ggml/README.md.

/// The version of ggml inside the pinned package (its own CMakeLists.txt is not packed).
pub const VERSION: &str = "0.26.0";

/// C and C++ files of ggml that do not depend on the instruction set.
pub const BASE: &[&str] = &[
    "ggml.c",
    "ggml.cpp",
    "ggml-alloc.c",
    "ggml-backend.cpp",
    "ggml-backend-meta.cpp",
    "ggml-threading.cpp",
    "ggml-quants.c",
];

/// The CPU backend: compiled for the instruction set of the target machine.
pub const CPU: &[&str] = &[
    "ggml-cpu/ggml-cpu.c",
    "ggml-cpu/ggml-cpu.cpp",
    "ggml-cpu/repack.cpp",
    "ggml-cpu/hbm.cpp",
    "ggml-cpu/quants.c",
    "ggml-cpu/traits.cpp",
    "ggml-cpu/amx/amx.cpp",
    "ggml-cpu/amx/mmq.cpp",
    "ggml-cpu/tiled/tiled.cpp",
    "ggml-cpu/tiled/tiled-kernel.cpp",
    "ggml-cpu/binary-ops.cpp",
    "ggml-cpu/unary-ops.cpp",
    "ggml-cpu/vec.cpp",
    "ggml-cpu/ops.cpp",
    "ggml-cpu/llamafile/sgemm.cpp",
];

pub const CPU_X86: &[&str] = &["ggml-cpu/arch/x86/quants.c", "ggml-cpu/arch/x86/repack.cpp"];
pub const CPU_ARM: &[&str] = &["ggml-cpu/arch/arm/quants.c", "ggml-cpu/arch/arm/repack.cpp"];

/// Include folders, relative to the ggml folder of the package.
pub const INCLUDES: &[&str] = &["include", "src", "src/ggml-cpu"];

pub const DEFINES: &[(&str, Option<&str>)] = &[
    ("NDEBUG", None),
    ("GGML_SCHED_MAX_COPIES", Some("4")),
    ("GGML_USE_CPU", None),
    ("GGML_USE_CPU_REPACK", None),
    ("GGML_USE_LLAMAFILE", None),
];

/// glibc hides what ggml needs (affinity, madvise) behind these.
pub const DEFINES_LINUX: &[(&str, Option<&str>)] =
    &[("_GNU_SOURCE", None), ("_XOPEN_SOURCE", Some("600"))];

/// Our own kernels, relative to `ggml/kernels` of this repository.
pub const KERNELS: &[&str] = &[
    "features.cpp",
    "quantize.cpp",
    "gemv.cpp",
    "row_tokens.cpp",
    "gemm.cpp",
    "product.cpp",
    "product_float.cpp",
    "panels.cpp",
    "altup.cpp",
    "norms.cpp",
    "activation.cpp",
    "convolution.cpp",
    "conformer.cpp",
    "sparse.cpp",
    "neurons.cpp",
    "rope.cpp",
    "attention.cpp",
];
