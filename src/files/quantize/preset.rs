//! Names of mixtures: those that people know from llama.cpp, and two families of our own.
//!
//! A standard name stands for a label (`general.file_type`) and a base type; which tensors get
//! another one says [`choice`](super::choice). Our families put a word behind a standard name:
//! `-small8` and `-nm`.

use std::fmt;

use crate::gguf::TensorType;

/// A mixture of types by its standard name: the label in `general.file_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standard(u32);

macro_rules! standard_mixtures {
    ($($name:ident = $label:literal, $base:ident;)*) => {
        impl Standard {
            $(
                #[doc = concat!("Label ", stringify!($label), ", base type ", stringify!($base), ".")]
                pub const $name: Self = Self($label);
            )*

            /// Every standard mixture, from the largest base type to the smallest.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* _ => "?" }
            }

            /// What a tensor without a rule of its own gets.
            pub fn base(self) -> TensorType {
                match self { $(Self::$name => TensorType::$base,)* _ => TensorType::F32 }
            }
        }
    };
}

standard_mixtures! {
    F32 = 0, F32;
    F16 = 1, F16;
    BF16 = 32, BF16;
    Q8_0 = 7, Q8_0;
    Q6_K = 18, Q6_K;
    Q5_K_M = 17, Q5_K;
    Q5_K_S = 16, Q5_K;
    Q5_1 = 9, Q5_1;
    Q5_0 = 8, Q5_0;
    Q4_K_M = 15, Q4_K;
    Q4_K_S = 14, Q4_K;
    Q4_1 = 3, Q4_1;
    Q4_0 = 2, Q4_0;
    IQ4_NL = 25, IQ4_NL;
    IQ4_XS = 30, IQ4_XS;
    MXFP4_MOE = 38, MXFP4;
    Q3_K_L = 13, Q3_K;
    Q3_K_M = 12, Q3_K;
    Q3_K_S = 11, Q3_K;
    IQ3_M = 27, IQ3_S;
    IQ3_S = 26, IQ3_S;
    IQ3_XS = 22, IQ3_S;
    IQ3_XXS = 23, IQ3_XXS;
    Q2_K = 10, Q2_K;
    Q2_K_S = 21, Q2_K;
    Q2_0 = 41, Q2_0;
    IQ2_M = 29, IQ2_S;
    IQ2_S = 28, IQ2_XS;
    IQ2_XS = 20, IQ2_XS;
    IQ2_XXS = 19, IQ2_XXS;
    IQ1_M = 31, IQ1_M;
    IQ1_S = 24, IQ1_S;
    TQ2_0 = 37, TQ2_0;
    TQ1_0 = 36, TQ1_0;
    Q1_0 = 40, Q1_0;
}

impl Standard {
    /// The label for `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.0
    }
}

/// What a family of presets adds to the standard choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// As llama.cpp chooses.
    #[default]
    Standard,
    /// `-small8`: the small matrices and the per-layer table at Q8_0.
    Small8,
    /// `-nm`: in addition `ffn_down` of sparse layers neuron-major.
    NeuronMajor,
}

/// A preset as it was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Preset {
    pub standard: Standard,
    pub family: Family,
}

/// Short names that llama-quantize takes too.
const ALIASES: &[(&str, Standard)] =
    &[("Q3_K", Standard::Q3_K_M), ("Q4_K", Standard::Q4_K_M), ("Q5_K", Standard::Q5_K_M)];

const SMALL8: &str = "-small8";
const NEURON_MAJOR: &str = "-nm";

impl Preset {
    /// The standard mixture alone.
    pub const fn standard(standard: Standard) -> Self {
        Self { standard, family: Family::Standard }
    }

    /// The preset of this name, in any case. Families of our own go with quantized mixtures only.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let families = [(SMALL8, Family::Small8), (NEURON_MAJOR, Family::NeuronMajor)];
        let (name, family) = families
            .iter()
            .find_map(|(suffix, family)| {
                Some((name.strip_suffix(&suffix.to_ascii_uppercase())?, *family))
            })
            .unwrap_or((&name, Family::Standard));
        let named = Standard::ALL.iter().copied().find(|standard| standard.name() == name);
        let standard = named.or_else(|| {
            ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, standard)| *standard)
        })?;
        let preset = Self { standard, family };
        (family == Family::Standard || standard.base().is_quantized()).then_some(preset)
    }

    /// The names to list where one is not known.
    pub fn names() -> String {
        let names: Vec<_> = Standard::ALL.iter().map(|standard| standard.name()).collect();
        format!("{}; each quantized one also with {SMALL8} or {NEURON_MAJOR}", names.join(", "))
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.standard.name())?;
        f.write_str(match self.family {
            Family::Standard => "",
            Family::Small8 => SMALL8,
            Family::NeuronMajor => NEURON_MAJOR,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_in_any_case() {
        for &standard in Standard::ALL {
            let preset = Preset::standard(standard);
            assert_eq!(Preset::from_name(&standard.name().to_lowercase()), Some(preset));
            assert_eq!(preset.to_string(), standard.name());
        }
        let small8 = Preset::from_name("q4_k-Small8").unwrap();
        assert_eq!(small8.to_string(), "Q4_K_M-small8");
        assert_eq!(Preset::from_name("q4_0-nm").unwrap().family, Family::NeuronMajor);
        for unknown in ["", "Q4", "F16-small8", "Q4_0-small", "-nm", "Q4_0-nm-small8"] {
            assert_eq!(Preset::from_name(unknown), None, "{unknown}");
        }
    }
}
