//! Which tensor gets which type: llama-quantize's table for a file without `output.weight`.

use anyhow::{Result, bail};
use gemma3n::gguf::TensorType::{self, *};

/// A named mixture of types.
#[derive(Clone, Debug)]
pub struct Preset {
    name: String,
    /// The label in `general.file_type`.
    pub file_type: u32,
    base: TensorType,
    embedding: TensorType,
}

impl std::str::FromStr for Preset {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let name = name.to_ascii_uppercase();
        let (file_type, base, embedding) = match name.as_str() {
            "F32" => (0, F32, F32),
            "F16" => (1, F16, F16),
            "BF16" => (32, BF16, BF16),
            "Q4_0" => (2, Q4_0, Q6_K),
            "Q4_1" => (3, Q4_1, Q6_K),
            "Q5_0" => (8, Q5_0, Q6_K),
            "Q5_1" => (9, Q5_1, Q6_K),
            "Q8_0" => (7, Q8_0, Q8_0),
            "Q2_K" => (10, Q2_K, Q6_K),
            "Q3_K_S" => (11, Q3_K, Q6_K),
            "Q3_K_M" => (12, Q3_K, Q6_K),
            "Q3_K_L" => (13, Q3_K, Q6_K),
            "Q4_K_S" => (14, Q4_K, Q6_K),
            "Q4_K_M" => (15, Q4_K, Q6_K),
            "Q5_K_S" => (16, Q5_K, Q6_K),
            "Q5_K_M" => (17, Q5_K, Q6_K),
            "Q6_K" => (18, Q6_K, Q6_K),
            "IQ4_NL" => (25, IQ4_NL, Q6_K),
            "IQ3_S" => (26, IQ3_S, Q6_K),
            "IQ3_M" => (27, IQ3_S, Q6_K),
            "IQ4_XS" => (30, IQ4_XS, Q6_K),
            "TQ1_0" => (36, TQ1_0, Q6_K),
            "TQ2_0" => (37, TQ2_0, Q6_K),
            _ => bail!("{name} is not a preset that this program knows"),
        };
        Ok(Self { name, file_type, base, embedding })
    }
}

impl Preset {
    /// The type of a matrix. `layer` is the number in `blk.N.`, 0 for the others.
    pub fn type_of(&self, name: &str, layer: u64, layers: u64) -> TensorType {
        if name.starts_with("token_embd") || name.starts_with("per_layer_token_embd") {
            return self.embedding;
        }
        if ["altup", "laurel", "per_layer_model_proj"].iter().any(|kept| name.contains(kept)) {
            return match self.base {
                _ if name.contains("_coef.") => F32,
                F32 | BF16 => self.base,
                _ => F16,
            };
        }
        let eighth = layers / 8;
        let more = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        let value = name.contains("attn_v.");
        let output = name.contains("attn_output.");
        let down = name.contains("ffn_down");
        match self.name.as_str() {
            "Q5_K_M" | "Q4_K_M" if (value || down) && more => Q6_K,
            "Q4_K_S" if value && layer < 4 || down && layer < eighth => Q5_K,
            "Q3_K_L" if value || output || down => Q5_K,
            "Q3_K_M" if value && layer < 2 || down && layer < layers / 16 => Q5_K,
            "Q3_K_M" if value || output || down => Q4_K,
            "Q2_K" if value => Q4_K,
            "Q2_K" if output || down => Q3_K,
            "IQ4_NL" | "IQ4_XS" if value || down && layer < eighth => Q5_K,
            "IQ3_S" | "IQ3_M" if value => Q4_K,
            "IQ3_M" if output || down && layer < eighth => Q4_K,
            _ => self.base,
        }
    }
}
