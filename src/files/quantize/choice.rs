//! Which type each tensor gets: llama-quantize's choice, overrides, and our own families.
//!
//! A pure function of the preset, a few facts about the model, and the list of all its tensors,
//! since three rules count: the i-th `attn_v`, `ffn_down`, `ffn_gate`, `ffn_up` in the order of
//! layers. Facts: gguf.md 5.1 to 5.4; reference: llama-quant.cpp, llama_tensor_get_type.

use regex::Regex;

use super::preset::{Family, Preset, Standard};
use super::rules::{Category, Counted, Place};
use crate::ggml::{self, Type};
use crate::gguf::TensorType::{self, *};
use crate::model::config::{FFN_DOWN, FFN_DOWN_T, TextConfig};
use crate::model::slice::layer_of;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub preset: Preset,
    /// Types for tensors by name; the first pattern found in a name wins.
    pub patterns: Vec<(Regex, TensorType)>,
    /// For `output.weight`, and the token tables where they serve as the head.
    pub output: Option<TensorType>,
    /// For the token tables.
    pub embedding: Option<TensorType>,
    /// The base type wherever a type may change.
    pub pure: bool,
}

/// What the choice depends on besides names and shapes. The default is that of towers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Layers; 0 for towers, as llama-quantize has it.
    pub layers: usize,
    /// Query heads for each head of keys and values; 0 for towers.
    pub heads_per_kv: usize,
    /// Layers that own keys and values: those before the shared ones.
    pub owners: usize,
    /// Layers whose neurons are cut off below a threshold.
    pub sparse: Vec<bool>,
    /// Is there an importance matrix?
    pub importance: bool,
}

/// A tensor whose type is to be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// In the file to be made.
    pub name: &'a str,
    /// Elements along each dimension, fastest first; 1 where there is none.
    pub ne: [u64; 4],
    /// The type it has, which it keeps unless the preset is about it.
    pub ty: TensorType,
}

/// A tensor's type, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub ty: TensorType,
    pub reason: Reason,
    /// To be written with columns as rows, under the name that [`transposed_name`] gives.
    pub transposed: bool,
}

/// Why a tensor gets its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No preset changes such a tensor.
    Kept,
    Preset,
    /// By a pattern, or an option for tables or the head.
    Override,
    /// Rows are no whole blocks of this type, which was meant, or a convolution can't use it.
    Fallback(TensorType),
}

impl Model {
    /// The facts of a text model.
    pub fn of_text(config: &TextConfig) -> Self {
        Self {
            layers: config.layers,
            heads_per_kv: config.heads / config.kv_heads,
            owners: config.owners(),
            sparse: config.sparsity.iter().map(Option::is_some).collect(),
            importance: false,
        }
    }

    /// Is this one of the K and V matrices of layers that use another layer's? No text drives
    /// them, so no importance matrix has them.
    pub fn is_unused(&self, name: &str) -> bool {
        layer(name).is_some_and(|il| il >= self.owners)
            && matches!(Category::of(name), Category::Key | Category::Value)
    }
}

impl Choice {
    /// Has the tensor of this name in the source a row a neuron, or is it to have one? Its columns
    /// are no inputs then, so that no importance matrix is for them.
    pub fn is_neuron_major(&self, name: &str) -> bool {
        self.transposed || is_transposed(name)
    }
}

impl Wanted {
    /// A preset and nothing else.
    pub fn new(preset: Preset) -> Self {
        Self { preset, patterns: Vec::new(), output: None, embedding: None, pure: false }
    }
}

/// Chooses for all tensors of a file, given in any order.
pub fn choose(wanted: &Wanted, model: &Model, tensors: &[Candidate]) -> Vec<Choice> {
    let mut chooser = Chooser {
        wanted,
        model,
        counted: Counted::default(),
        values: tensors.iter().filter(|t| Category::of(t.name).is_value()).count(),
        tied: !tensors.iter().any(|t| Category::of(t.name) == Category::Output),
    };
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (layer(tensors[i].name), tensors[i].name));
    let kept = |t: &Candidate| Choice { ty: t.ty, reason: Reason::Kept, transposed: false };
    let mut choices: Vec<Choice> = tensors.iter().map(kept).collect();
    for i in order {
        choices[i] = chooser.choice(&tensors[i]);
    }
    choices
}

/// N of `blk.N.…`; globals come first.
fn layer(name: &str) -> Option<usize> {
    layer_of(name).map(|(il, _)| il)
}

/// The name of `ffn_down` with its columns as rows.
pub fn transposed_name(name: &str) -> String {
    name.replace(FFN_DOWN, FFN_DOWN_T)
}

/// Is this `ffn_down` with its columns as rows already?
pub fn is_transposed(name: &str) -> bool {
    let stem = layer_of(name).and_then(|(_, suffix)| suffix.strip_suffix(".weight"));
    stem == Some(FFN_DOWN_T)
}

/// Whether a tensor of this name may get another type at all: a matrix that is a weight, neither
/// small nor delicate.
fn may_change(tensor: &Candidate) -> bool {
    const DELICATE: [&str; 7] = [
        "_norm.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        ".position_embd",
        ".patch_embd",
        ".patch_merger",
    ];
    let dimensions = tensor.ne.iter().rposition(|&n| n > 1).map_or(1, |last| last + 1);
    dimensions >= 2
        && tensor.name.ends_with("weight")
        && !DELICATE.iter().any(|part| tensor.name.contains(part))
}

/// Matrices that llama.cpp leaves in F16 and `-small8` does not.
fn is_small(name: &str) -> bool {
    let tail = name.split_once('.').map_or("", |(_, tail)| tail);
    matches!(name, "altup_proj.weight" | "altup_unembd_proj.weight" | "per_layer_model_proj.weight")
        || name.starts_with("blk.")
            && [".altup_router.weight", ".laurel_l.weight", ".laurel_r.weight"]
                .iter()
                .any(|end| tail.ends_with(end))
}

struct Chooser<'a> {
    wanted: &'a Wanted,
    model: &'a Model,
    counted: Counted,
    /// How many `attn_v` there are.
    values: usize,
    /// Do the token tables serve as the head?
    tied: bool,
}

impl Chooser<'_> {
    fn choice(&mut self, tensor: &Candidate) -> Choice {
        let category = Category::of(tensor.name);
        // Counted even if an override is for it: an override changes what it names and no more.
        let counts = if may_change(tensor) { category } else { Category::Other };
        let (i_value, i_ffn) = self.counted.next(counts);
        let place = Place {
            category,
            matrices: tensor.ne[2],
            whole_blocks: tensor.ne[0].is_multiple_of(self.base().block_len()),
            i_value,
            values: self.values,
            i_ffn,
            layers: self.model.layers,
            heads_per_kv: self.model.heads_per_kv,
            importance: self.model.importance,
            tied: self.tied,
        };
        let transposed = self.is_to_be_transposed(tensor);
        let Some((ty, reason)) = self.meant(tensor, &place) else {
            return Choice { ty: tensor.ty, reason: Reason::Kept, transposed: false };
        };
        let neuron_major = transposed || is_transposed(tensor.name);
        let ty = if neuron_major { for_neurons(ty) } else { ty };
        let row_len = if transposed { tensor.ne[1] } else { tensor.ne[0] };
        let fit = match fitting(ty, row_len) {
            // llama.cpp's convolutions end the process on BF16.
            BF16 if self.model.layers == 0 && tensor.ne[2..].iter().any(|&n| n > 1) => F16,
            fit => fit,
        };
        let reason = if fit == ty { reason } else { Reason::Fallback(ty) };
        Choice { ty: fit, reason, transposed }
    }

    fn base(&self) -> TensorType {
        self.wanted.preset.standard.base()
    }

    fn pattern(&self, name: &str) -> Option<TensorType> {
        let found = self.wanted.patterns.iter().find(|(pattern, _)| pattern.is_match(name));
        found.map(|(_, ty)| *ty)
    }

    /// The type meant for a tensor, whatever its shape; nothing where it keeps its own.
    fn meant(&self, tensor: &Candidate, place: &Place) -> Option<(TensorType, Reason)> {
        let Wanted { preset, output, embedding, pure, .. } = self.wanted;
        let pattern = self.pattern(tensor.name);
        if !may_change(tensor) {
            return self.small(tensor, pattern);
        }
        let is_table = place.category == Category::TokenTable;
        let named_apart = tensor.name == PER_LAYER_TABLE && pattern.is_some();
        match (embedding, output) {
            (Some(ty), _) if is_table && !named_apart => return Some((*ty, Reason::Override)),
            (_, Some(ty)) if place.category == Category::Output => {
                return Some((*ty, Reason::Override));
            }
            _ => {}
        }
        if let Some(ty) = pattern {
            return Some((ty, Reason::Override));
        }
        if *pure || !self.base().is_quantized() {
            return Some((self.base(), Reason::Preset));
        }
        if let (true, true, Some(ty)) = (self.tied, is_table, output) {
            return Some((*ty, Reason::Override));
        }
        if preset.family != Family::Standard && tensor.name == PER_LAYER_TABLE {
            return Some((Q8_0, Reason::Preset));
        }
        Some((place.standard_type(preset.standard), Reason::Preset))
    }

    /// Small matrices change in our families, or if a pattern is for them.
    fn small(
        &self,
        tensor: &Candidate,
        pattern: Option<TensorType>,
    ) -> Option<(TensorType, Reason)> {
        if !is_small(tensor.name) {
            return None;
        }
        let in_family = self.wanted.preset.family != Family::Standard && !self.wanted.pure;
        let by_family = || in_family.then_some((Q8_0, Reason::Preset));
        pattern.map(|ty| (ty, Reason::Override)).or_else(by_family)
    }

    fn is_to_be_transposed(&self, tensor: &Candidate) -> bool {
        self.wanted.preset.family == Family::NeuronMajor
            && tensor.name.ends_with(".ffn_down.weight")
            && layer(tensor.name)
                .is_some_and(|il| self.model.sparse.get(il).is_some_and(|&sparse| sparse))
    }
}

const PER_LAYER_TABLE: &str = "per_layer_token_embd.weight";

/// The type itself, or the nearest whose blocks fill rows of this length.
fn fitting(ty: TensorType, row_len: u64) -> TensorType {
    let fits = |ty: TensorType| row_len.is_multiple_of(ty.block_len());
    if fits(ty) {
        return ty;
    }
    let smaller = match ty {
        IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_XS => IQ4_NL,
        Q1_0 | Q2_0 | Q2_K | Q3_K | TQ1_0 | TQ2_0 | NVFP4 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        _ => F16,
    };
    if fits(smaller) { smaller } else { F16 }
}

/// The type itself, or one of about its size that the kernel for neuron-major matrices has and that
/// needs no importance matrix: there is none for a matrix's rows.
fn for_neurons(ty: TensorType) -> TensorType {
    match ty {
        IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | TQ1_0 | TQ2_0 | Q1_0 | Q2_0 => Q2_K,
        IQ3_XXS | IQ3_S => Q3_K,
        MXFP4 | NVFP4 => Q4_0,
        ty => ty,
    }
}

/// Whether the type is so low, or the mixture so made, that llama-quantize refuses to make this
/// tensor without an importance matrix, or ggml can't. Token tables and the head never have one, and
/// neither have neuron-major matrices.
pub fn needs_importance(standard: Standard, name: &str, choice: &Choice) -> bool {
    let without = matches!(Category::of(name), Category::TokenTable | Category::Output)
        || choice.is_neuron_major(name);
    let refused = match choice.ty {
        IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS => true,
        Q2_K => standard == Standard::Q2_K_S,
        _ => false,
    };
    !without && refused
        || Type::weight_from_id(choice.ty.id()).is_some_and(ggml::requires_importance)
}
