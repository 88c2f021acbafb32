//! Does this machine have what the binary was compiled for?

use super::sys::g3n_compiled_features;

/// The instruction sets of `ggml/kernels/kernels.h`, as bit, name and what the machine says.
#[cfg(target_arch = "x86_64")]
fn table() -> Vec<(u32, &'static str, bool)> {
    vec![
        (1 << 0, "AVX2", is_x86_feature_detected!("avx2")),
        (1 << 1, "AVX-512F", is_x86_feature_detected!("avx512f")),
        (1 << 2, "AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        (1 << 3, "AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
        (
            1 << 4,
            "FMA and F16C",
            is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
        ),
        (1 << 5, "AVX-VNNI", is_x86_feature_detected!("avxvnni")),
        (1 << 6, "AVX-512 FP16", is_x86_feature_detected!("avx512fp16")),
        (1 << 7, "AVX-512 VBMI", is_x86_feature_detected!("avx512vbmi")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn table() -> Vec<(u32, &'static str, bool)> {
    vec![(1 << 8, "dot product", std::arch::is_aarch64_feature_detected!("dotprod"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn table() -> Vec<(u32, &'static str, bool)> {
    Vec::new()
}

/// Says which instruction sets the binary needs and this machine lacks, so that a wrong binary
/// ends in a sentence and not in SIGILL. To be called before anything else of this room.
pub fn check_machine() -> Result<(), String> {
    // SAFETY: takes nothing, returns a constant; compiled without vector code.
    let compiled = unsafe { g3n_compiled_features() };
    let lacking: Vec<&str> = table()
        .into_iter()
        .filter(|(bit, _, present)| compiled & bit != 0 && !present)
        .map(|(_, name, _)| name)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this binary was compiled for a processor with {}, which this machine lacks \
         (compiled with {})",
        lacking.join(", "),
        env!("GEMMA3N_MARCH_FLAG"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_that_compiled_the_tests_can_run_them() {
        assert_eq!(check_machine(), Ok(()));
    }

    /// A bit in kernels.h without a name here would go unchecked.
    #[test]
    fn every_compiled_bit_is_known() {
        let known = table().iter().fold(0, |bits, (bit, _, _)| bits | bit);
        // SAFETY: as in `check_machine`.
        assert_eq!(unsafe { g3n_compiled_features() } & !known, 0);
    }
}
