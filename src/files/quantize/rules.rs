//! The standard mixtures' table: which of a model's matrices get more or fewer bits than the rest.
//!
//! Figures are those of llama-quantize for a model of this kind (gguf.md 5.3; reference:
//! llama-quant.cpp, llama_tensor_get_type_impl), so that a name means the same file everywhere.

use super::preset::Standard;
use crate::gguf::TensorType::{self, *};

/// What a tensor is for, as far as mixtures care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    TokenTable,
    Query,
    Value,
    Key,
    /// Query, key and value in one.
    Fused,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Output,
    Other,
}

impl Category {
    pub fn of(name: &str) -> Self {
        const PARTS: [(&str, Category); 8] = [
            ("attn_qkv.weight", Category::Fused),
            ("attn_v.weight", Category::Value),
            ("attn_k.weight", Category::Key),
            ("attn_q.weight", Category::Query),
            ("attn_output.weight", Category::AttentionOutput),
            ("ffn_up", Category::Up),
            ("ffn_gate", Category::Gate),
            ("ffn_down", Category::Down),
        ];
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::TokenTable,
            _ => PARTS
                .iter()
                .find(|(part, _)| name.contains(part))
                .map_or(Self::Other, |(_, category)| *category),
        }
    }

    /// Does it make the values of attention, alone or among others?
    pub fn is_value(self) -> bool {
        matches!(self, Self::Value | Self::Fused)
    }
}

/// How many tensors of each counted category came before.
#[derive(Debug, Default)]
pub struct Counted {
    values: usize,
    up: usize,
    gate: usize,
    down: usize,
}

impl Counted {
    /// The number of this tensor among those that make values, and among its kind of the
    /// feed-forward network's matrices.
    pub fn next(&mut self, category: Category) -> (usize, usize) {
        let take = |count: &mut usize| {
            *count += 1;
            *count - 1
        };
        let value = if category.is_value() { take(&mut self.values) } else { 0 };
        let ffn = match category {
            Category::Up => take(&mut self.up),
            Category::Gate => take(&mut self.gate),
            Category::Down => take(&mut self.down),
            _ => 0,
        };
        (value, ffn)
    }
}

/// A tensor's place in its model.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub category: Category,
    /// Matrices of a stack, `ne[2]`.
    pub matrices: u64,
    /// Are its rows whole blocks of the base type?
    pub whole_blocks: bool,
    /// Its number among the tensors that make values, and how many there are.
    pub i_value: usize,
    pub values: usize,
    /// Its number among its kind of the feed-forward network's matrices.
    pub i_ffn: usize,
    pub layers: usize,
    pub heads_per_kv: usize,
    pub importance: bool,
    /// Do the token tables serve as the head?
    pub tied: bool,
}

/// The i-th of n layers gets more bits: the first eighth, the last, and every third between.
fn more(i: usize, n: usize) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

impl Place {
    /// The type that a standard mixture has for this place.
    pub fn standard_type(&self, standard: Standard) -> TensorType {
        let is_head =
            self.category == Category::Output || self.tied && self.category == Category::TokenTable;
        if is_head {
            return self.head(standard);
        }
        if standard == Standard::MXFP4_MOE {
            return if self.matrices > 1 { MXFP4 } else { Q8_0 };
        }
        if self.category == Category::TokenTable {
            return untied_table(standard);
        }
        match standard {
            _ if is_lowest(standard) => self.lowest(standard),
            _ => match self.category {
                Category::Value | Category::Fused => self.value(standard),
                Category::Key | Category::Query => match standard {
                    Standard::IQ3_XS => IQ3_XXS,
                    Standard::IQ3_XXS => IQ2_S,
                    _ => standard.base(),
                },
                Category::Down => self.down(standard),
                Category::AttentionOutput => attention_output(standard),
                Category::Gate | Category::Up => {
                    let middle = (self.layers / 8..7 * self.layers / 8).contains(&self.i_ffn);
                    if standard == Standard::IQ3_XS && middle { IQ3_XXS } else { standard.base() }
                }
                _ => standard.base(),
            },
        }
    }

    fn head(&self, standard: Standard) -> TensorType {
        match standard {
            Standard::MXFP4_MOE | Standard::Q8_0 => Q8_0,
            _ if !self.whole_blocks => Q8_0,
            Standard::IQ3_XXS => Q5_K,
            _ if is_lowest(standard) => Q5_K,
            _ => Q6_K,
        }
    }

    fn lowest(&self, standard: Standard) -> TensorType {
        let better = matches!(standard, Standard::IQ2_S | Standard::IQ2_M);
        let one_bit = matches!(standard, Standard::IQ1_S | Standard::IQ1_M);
        match self.category {
            Category::Value | Category::Fused if self.heads_per_kv >= 4 => Q4_K,
            Category::Value | Category::Fused if better => IQ3_S,
            Category::Value | Category::Fused => Q2_K,
            Category::Down if self.i_ffn < self.layers / 8 && better => IQ3_S,
            Category::Down if self.i_ffn < self.layers / 8 => Q2_K,
            Category::AttentionOutput if one_bit => IQ2_XXS,
            Category::AttentionOutput if better => IQ3_S,
            _ => standard.base(),
        }
    }

    fn value(&self, standard: Standard) -> TensorType {
        let shared = self.heads_per_kv >= 4;
        match standard {
            Standard::Q2_K if shared => Q4_K,
            Standard::Q2_K => Q3_K,
            Standard::Q2_K_S | Standard::IQ3_XXS | Standard::IQ3_XS | Standard::IQ3_S if shared => {
                Q4_K
            }
            Standard::IQ3_XXS if !self.importance => IQ3_S,
            Standard::IQ3_M => Q4_K,
            Standard::Q3_K_M if self.i_value < 2 => Q5_K,
            Standard::Q3_K_M => Q4_K,
            Standard::Q3_K_L => Q5_K,
            Standard::IQ4_NL | Standard::IQ4_XS if shared => Q5_K,
            Standard::Q4_K_M | Standard::Q5_K_M if more(self.i_value, self.values) => Q6_K,
            Standard::Q4_K_S if self.i_value < 4 => Q5_K,
            _ => standard.base(),
        }
    }

    fn down(&self, standard: Standard) -> TensorType {
        let (i, n) = (self.i_ffn, self.layers);
        match standard {
            Standard::Q2_K => Q3_K,
            Standard::Q2_K_S if i < n / 8 => Q4_K,
            Standard::IQ3_XXS if !self.importance && i < n / 8 => Q4_K,
            Standard::IQ3_XXS if !self.importance => Q3_K,
            Standard::Q3_K_M if i < n / 16 => Q5_K,
            Standard::Q3_K_M => Q4_K,
            Standard::IQ3_M if i < n / 8 => Q4_K,
            Standard::Q3_K_L => Q5_K,
            Standard::Q4_K_M | Standard::Q5_K_M if more(i, n) => Q6_K,
            Standard::IQ4_NL | Standard::IQ4_XS if !self.importance && i < n / 8 => Q5_K,
            Standard::Q4_K_S if i < n / 8 => Q5_K,
            Standard::Q4_0 if self.importance && i < n / 8 => Q4_1,
            Standard::Q5_0 if self.importance && i < n / 8 => Q5_1,
            _ => standard.base(),
        }
    }
}

/// Mixtures of about two bits and less.
fn is_lowest(standard: Standard) -> bool {
    matches!(
        standard,
        Standard::IQ1_S
            | Standard::IQ1_M
            | Standard::IQ2_XXS
            | Standard::IQ2_XS
            | Standard::IQ2_S
            | Standard::IQ2_M
    )
}

fn attention_output(standard: Standard) -> TensorType {
    match standard {
        Standard::Q2_K => Q3_K,
        Standard::IQ3_XXS => IQ3_S,
        Standard::Q3_K_M | Standard::IQ3_M => Q4_K,
        Standard::Q3_K_L => Q5_K,
        _ => standard.base(),
    }
}

/// A token table beside a head of its own.
fn untied_table(standard: Standard) -> TensorType {
    match standard {
        Standard::IQ2_XXS | Standard::IQ2_XS | Standard::IQ1_S | Standard::IQ1_M => Q2_K,
        Standard::IQ2_S | Standard::IQ2_M | Standard::IQ3_XXS => IQ3_S,
        Standard::TQ1_0 | Standard::TQ2_0 | Standard::Q2_0 => Q4_K,
        _ => standard.base(),
    }
}
