//! `config.json` → the sizes and switches of the text model.
//!
//! Both dialects: transformers 4.x (`rope_theta`, `rope_local_base_freq`, `rope_scaling`) and 5.x
//! (`rope_parameters`). Sizes must be given; the rest defaults as in `Gemma3nTextConfig` of 5.x.

use std::path::Path;

use serde_json::Value;

use super::error::Error;
use super::json::{CONFIG_LIMIT, Document, Section, count, shown};

/// More than any Gemma 3n; small enough that products of two of them fit `u64` many times over.
pub(super) const MAX_WIDTH: u32 = 1 << 24;
/// llama.cpp's own bound.
pub(super) const MAX_LAYERS: u32 = 512;

/// Widths of the feed-forward blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// One number for all layers, as older configurations have it.
    Same(u32),
    /// One for each layer.
    PerLayer(Vec<u32>),
}

impl FeedForward {
    pub fn of_layer(&self, layer: usize) -> u32 {
        match self {
            Self::Same(width) => *width,
            Self::PerLayer(widths) => widths[layer],
        }
    }
}

/// The text model's configuration, checked. Symbols are those of the shapes in [`super::names`].
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// L.
    pub n_layers: u32,
    /// E.
    pub embedding_length: u32,
    /// F of each layer.
    pub feed_forward: FeedForward,
    /// H.
    pub n_heads: u32,
    /// K.
    pub n_kv_heads: u32,
    /// D.
    pub head_dim: u32,
    /// V.
    pub vocab_size: u32,
    /// Rows of the per-layer table; ids from there on use row 0.
    pub vocab_size_per_layer: u32,
    /// P.
    pub per_layer_length: u32,
    /// A.
    pub altup_inputs: u32,
    pub altup_active: u32,
    /// Whether `correct_output_scale` is applied.
    pub altup_correct_scale: bool,
    /// R.
    pub laurel_rank: u32,
    /// S, counted from the end.
    pub n_shared_kv: u32,
    /// True where the layer's attention is sliding.
    pub sliding: Vec<bool>,
    pub sliding_window: u32,
    /// Share of gate activations that each layer's Gaussian top-k drops; 0 is dense.
    pub sparsity: Vec<f32>,
    pub rope_base_full: f32,
    pub rope_base_sliding: f32,
    pub rms_eps: f32,
    pub context_length: u32,
    pub final_softcap: f32,
    /// Whether the head is `embed_tokens`.
    pub tied_embeddings: bool,
    pub bos: Option<u32>,
    pub pad: Option<u32>,
    /// All that `config.json` names, top level first.
    pub eos: Vec<u32>,
}

impl TextConfig {
    /// # Errors
    /// A missing, mistyped or impossible key, by name; another model's configuration.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let document = Document::read(&dir.join("config.json"), CONFIG_LIMIT)?;
        let root = document.root();
        check_architecture(&root)?;
        let text = root.section("text_config")?.unwrap_or_else(|| root.clone());
        refuse_variants(&root, &text)?;
        let n_layers = text.required_count("num_hidden_layers", 1, MAX_LAYERS)?;
        let width = |key| text.required_count(key, 1, MAX_WIDTH);
        let altup_inputs = text.required_count("altup_num_inputs", 2, 64)?;
        let (rope_base_full, rope_base_sliding) = rope_bases(&text)?;
        let first = |section: &Section, key| -> Result<Option<u32>, Error> {
            Ok(section.ids(key)?.first().copied())
        };
        let mut eos = root.ids("eos_token_id")?;
        eos.extend(text.ids("eos_token_id")?);
        let config = Self {
            n_layers,
            embedding_length: width("hidden_size")?,
            feed_forward: feed_forward(&text, n_layers)?,
            n_heads: text.required_count("num_attention_heads", 1, 4096)?,
            n_kv_heads: text.required_count("num_key_value_heads", 1, 4096)?,
            head_dim: text.required_count("head_dim", 1, 65536)?,
            vocab_size: width("vocab_size")?,
            vocab_size_per_layer: width("vocab_size_per_layer_input")?,
            per_layer_length: text.required_count("hidden_size_per_layer_input", 1, 65536)?,
            altup_inputs,
            altup_active: text.count("altup_active_idx", 0, altup_inputs - 1)?.unwrap_or(0),
            altup_correct_scale: text.bool("altup_correct_scale")?.unwrap_or(true),
            laurel_rank: width("laurel_rank")?,
            n_shared_kv: text.required_count("num_kv_shared_layers", 0, n_layers - 1)?,
            sliding: layer_types(&text, n_layers)?,
            sliding_window: text.required_count("sliding_window", 1, u32::MAX)?,
            sparsity: sparsity(&text, n_layers)?,
            rope_base_full,
            rope_base_sliding,
            rms_eps: positive(&text, "rms_norm_eps")?.unwrap_or(1e-6),
            context_length: text.count("max_position_embeddings", 1, u32::MAX)?.unwrap_or(32768),
            final_softcap: softcap(&text)?,
            tied_embeddings: tied(&root, &text)?,
            bos: first(&root, "bos_token_id")?.or(first(&text, "bos_token_id")?),
            pad: first(&root, "pad_token_id")?.or(first(&text, "pad_token_id")?),
            eos,
        };
        config.check(&text)?;
        Ok(config)
    }

    /// What holds between keys.
    fn check(&self, text: &Section) -> Result<(), Error> {
        if self.vocab_size_per_layer > self.vocab_size {
            let expected = format!("at most vocab_size, {}", self.vocab_size);
            let found = self.vocab_size_per_layer;
            return Err(text.unexpected("vocab_size_per_layer_input", &expected, found));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let expected = format!("a divisor of num_attention_heads, {}", self.n_heads);
            return Err(text.unexpected("num_key_value_heads", &expected, self.n_kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(text.unexpected("head_dim", "an even number", self.head_dim));
        }
        let (owners, sharing) = self.sliding.split_at(self.n_owners());
        for kind in sharing {
            if !owners.contains(kind) {
                let expected = "so few that a layer of each kind of attention owns its K and V";
                return Err(text.unexpected("num_kv_shared_layers", expected, self.n_shared_kv));
            }
        }
        Ok(())
    }

    /// Layers that compute keys and values of their own: the first L − S.
    pub fn n_owners(&self) -> usize {
        (self.n_layers - self.n_shared_kv) as usize
    }
}

fn check_architecture(root: &Section) -> Result<(), Error> {
    const EXPECTED: &str = "Gemma3nForConditionalGeneration or Gemma3nForCausalLM";
    if let Some(names) = root.array("architectures")? {
        let ours = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("Gemma3n"));
        if !names.is_empty() && !names.iter().any(ours) {
            let found: Vec<_> = names.iter().map(shown).collect();
            return Err(root.unexpected("architectures", EXPECTED, found.join(", ")));
        }
    }
    match root.str("model_type")? {
        Some("gemma3n" | "gemma3n_text") => Ok(()),
        Some(other) => Err(root.unexpected("model_type", "gemma3n or gemma3n_text", other)),
        None => Err(root.missing("model_type")),
    }
}

/// Refuses what would need other mathematics than the model's.
fn refuse_variants(root: &Section, text: &Section) -> Result<(), Error> {
    for section in [root, text] {
        if section.get("quantization_config").is_some() {
            let expected = "an unquantized checkpoint";
            return Err(section.unexpected("quantization_config", expected, "a quantized one"));
        }
    }
    if text.bool("attention_bias")? == Some(true) {
        return Err(text.unexpected("attention_bias", "false", true));
    }
    match text.str("hidden_activation")? {
        None | Some("gelu_pytorch_tanh") => Ok(()),
        Some(other) => Err(text.unexpected("hidden_activation", "gelu_pytorch_tanh", other)),
    }
}

fn feed_forward(text: &Section, n_layers: u32) -> Result<FeedForward, Error> {
    const KEY: &str = "intermediate_size";
    let expected = format!("a width from 1 to {MAX_WIDTH}, or a list of {n_layers}");
    let value = text.get(KEY).ok_or_else(|| text.missing(KEY))?;
    let widths = match value {
        Value::Array(values) if values.len() == n_layers as usize => values
            .iter()
            .map(|value| count(value, 1, MAX_WIDTH))
            .collect::<Option<_>>()
            .map(FeedForward::PerLayer),
        single => count(single, 1, MAX_WIDTH).map(FeedForward::Same),
    };
    widths.ok_or_else(|| text.unexpected(KEY, &expected, shown(value)))
}

/// True for sliding layers. Without the key every fifth layer is full, as in transformers 5.
fn layer_types(text: &Section, n_layers: u32) -> Result<Vec<bool>, Error> {
    const KEY: &str = "layer_types";
    let Some(types) = text.array(KEY)? else {
        return Ok((1..=n_layers).map(|position| !position.is_multiple_of(5)).collect());
    };
    if types.len() != n_layers as usize {
        let expected = format!("a list of {n_layers}");
        return Err(text.unexpected(KEY, &expected, format!("a list of {}", types.len())));
    }
    let sliding = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(text.unexpected(KEY, "sliding_attention or full_attention", shown(kind))),
    };
    types.iter().map(sliding).collect()
}

/// Without the key the first ten layers of more than ten are 95 % sparse. Shares up to one half
/// would give a multiplier of 0 or less, which readers of GGUF take for "dense".
fn sparsity(text: &Section, n_layers: u32) -> Result<Vec<f32>, Error> {
    const KEY: &str = "activation_sparsity_pattern";
    let n_layers = n_layers as usize;
    let share = |value: &Value| {
        let share = value.as_f64()? as f32;
        (share == 0.0 || share > 0.5 && share < 1.0).then_some(share)
    };
    let expected = format!("{n_layers} shares, each 0 or above 0.5 and below 1");
    match text.get(KEY) {
        None => {
            let sparse = if n_layers > 10 { 10 } else { 0 };
            Ok((0..n_layers).map(|layer| if layer < sparse { 0.95 } else { 0.0 }).collect())
        }
        Some(Value::Array(values)) if values.len() == n_layers => values
            .iter()
            .map(|value| share(value).ok_or_else(|| text.unexpected(KEY, &expected, shown(value))))
            .collect(),
        Some(other) => Err(text.unexpected(KEY, &expected, shown(other))),
    }
}

/// RoPE's θ of full and of sliding layers, in either dialect.
fn rope_bases(text: &Section) -> Result<(f32, f32), Error> {
    const SCALED: &str = "no scaling of RoPE (type default)";
    let mut bases = [
        positive(text, "rope_theta")?.unwrap_or(1e6),
        positive(text, "rope_local_base_freq")?.unwrap_or(1e4),
    ];
    let parameters = text.section("rope_parameters")?;
    let kinds = ["full_attention", "sliding_attention"];
    for (base, kind) in bases.iter_mut().zip(kinds) {
        let Some(of_kind) = parameters.as_ref().map(|all| all.section(kind)).transpose()?.flatten()
        else {
            continue;
        };
        refuse_scaling(&of_kind, SCALED)?;
        *base = positive(&of_kind, "rope_theta")?.unwrap_or(*base);
    }
    if let Some(scaling) = text.section("rope_scaling")? {
        refuse_scaling(&scaling, SCALED)?;
    }
    Ok((bases[0], bases[1]))
}

fn refuse_scaling(section: &Section, expected: &str) -> Result<(), Error> {
    for key in ["rope_type", "type"] {
        match section.str(key)? {
            None | Some("default") => {}
            Some(other) => return Err(section.unexpected(key, expected, other)),
        }
    }
    Ok(())
}

/// A finite number above 0 that stays so as `f32`.
pub(super) fn positive(section: &Section, key: &str) -> Result<Option<f32>, Error> {
    let Some(value) = section.f64(key)? else { return Ok(None) };
    let narrowed = value as f32;
    if narrowed.is_finite() && narrowed > 0.0 {
        Ok(Some(narrowed))
    } else {
        Err(section.unexpected(key, "a finite number above 0", value))
    }
}

/// 30 without the key. Files have no way to say "no cap", so an explicit `null` is refused.
fn softcap(text: &Section) -> Result<f32, Error> {
    const KEY: &str = "final_logit_softcapping";
    match positive(text, KEY)? {
        None if text.entries().any(|(key, _)| key == KEY) => {
            Err(text.unexpected(KEY, "a finite number above 0", "null"))
        }
        cap => Ok(cap.unwrap_or(30.0)),
    }
}

fn tied(root: &Section, text: &Section) -> Result<bool, Error> {
    const KEY: &str = "tie_word_embeddings";
    Ok(root.bool(KEY)?.or(text.bool(KEY)?).unwrap_or(true))
}
