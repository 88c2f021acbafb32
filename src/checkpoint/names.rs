//! The text model's tensors: their names in a checkpoint, their names in GGUF, their shapes.
//!
//! Shapes are in ggml's order (rows first), which is PyTorch's reversed; nothing is transposed or
//! permuted, and nothing is added to norms. Symbols as in [`TextConfig`]. The order is that of the
//! names in a checkpoint, layers by number.

use super::config::TextConfig;
use super::error::Error;
use super::towers;
use super::weights::Weights;

/// A tensor of the GGUF file and the tensors of the checkpoint that it is made of.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Name in GGUF.
    pub name: String,
    /// Shape in ggml's order.
    pub ne: Vec<u64>,
    /// Names in the checkpoint, without prefix; several are stacked on the slowest dimension.
    pub parts: Vec<String>,
    /// Kept in F32 whatever the file's type: AltUp's small coefficient matrices.
    pub always_f32: bool,
    /// How the checkpoint may differ.
    pub presence: Presence,
}

/// Whether, and in what form, the checkpoint has to have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Required,
    /// K and V of layers that share others': never read, written as zeros when absent, because
    /// llama.cpp wants them.
    Unused,
    /// Fewer rows than V: `vocab_size_per_layer_input` of them; zeros follow.
    PaddedRows(u64),
    /// The scale of AltUp's corrected stream where the model doesn't apply it: ones are written.
    Ones,
}

/// `blk.N.` suffix in GGUF, `layers.N.` suffix in the checkpoint, shape.
type LayerTensor = (&'static str, &'static str, &'static [Dim]);

/// Sizes that shapes are made of.
#[derive(Clone, Copy, Debug)]
enum Dim {
    /// Embedding length E.
    E,
    /// Feed-forward width F of the layer.
    F,
    /// Head dimension D.
    D,
    /// Query width H·D.
    Q,
    /// Key and value width K·D.
    Kv,
    /// Per-layer input length P.
    P,
    /// LAuReL rank R.
    R,
    /// AltUp streams A.
    A,
    /// A·A.
    A2,
}

#[rustfmt::skip]
const LAYER: [LayerTensor; 24] = {
    use Dim::{A, A2, D, E, F, Kv, P, Q, R};
    [
        ("altup_correct_scale", "altup.correct_output_scale", &[E]),
        ("altup_correct_coef", "altup.correction_coefs.weight", &[A, A]),
        ("altup_router", "altup.modality_router.weight", &[E, A]),
        ("altup_predict_coef", "altup.prediction_coefs.weight", &[A, A2]),
        ("altup_router_norm", "altup.router_norm.weight", &[E]),
        ("attn_norm", "input_layernorm.weight", &[E]),
        ("laurel_l", "laurel.linear_left.weight", &[E, R]),
        ("laurel_r", "laurel.linear_right.weight", &[R, E]),
        ("laurel_post_norm", "laurel.post_laurel_norm.weight", &[E]),
        ("ffn_down", "mlp.down_proj.weight", &[F, E]),
        ("ffn_gate", "mlp.gate_proj.weight", &[E, F]),
        ("ffn_up", "mlp.up_proj.weight", &[E, F]),
        ("inp_gate", "per_layer_input_gate.weight", &[E, P]),
        ("proj", "per_layer_projection.weight", &[P, E]),
        ("post_attention_norm", "post_attention_layernorm.weight", &[E]),
        ("post_ffw_norm", "post_feedforward_layernorm.weight", &[E]),
        ("post_norm", "post_per_layer_input_norm.weight", &[E]),
        ("ffn_norm", "pre_feedforward_layernorm.weight", &[E]),
        ("attn_k_norm", "self_attn.k_norm.weight", &[D]),
        ("attn_k", "self_attn.k_proj.weight", &[E, Kv]),
        ("attn_output", "self_attn.o_proj.weight", &[Q, E]),
        ("attn_q_norm", "self_attn.q_norm.weight", &[D]),
        ("attn_q", "self_attn.q_proj.weight", &[E, Q]),
        ("attn_v", "self_attn.v_proj.weight", &[E, Kv]),
    ]
};

impl TextConfig {
    fn dim(&self, dim: Dim, layer: usize) -> u64 {
        let (d, a) = (u64::from(self.head_dim), u64::from(self.altup_inputs));
        match dim {
            Dim::E => self.embedding_length.into(),
            Dim::F => self.feed_forward.of_layer(layer).into(),
            Dim::D => d,
            Dim::Q => d * u64::from(self.n_heads),
            Dim::Kv => d * u64::from(self.n_kv_heads),
            Dim::P => self.per_layer_length.into(),
            Dim::R => self.laurel_rank.into(),
            Dim::A => a,
            Dim::A2 => a * a,
        }
    }

    /// All tensors of the GGUF file, in order: 7 and 24 a layer, and a head that isn't tied.
    pub fn expected_tensors(&self) -> Vec<Expected> {
        let (e, p) = (u64::from(self.embedding_length), u64::from(self.per_layer_length));
        let (v, lp) = (u64::from(self.vocab_size), p * u64::from(self.n_layers));
        let streams = u64::from(self.altup_inputs) - 1;
        let stack = |name: &str| (0..streams).map(|i| format!("{name}.{i}.weight")).collect();
        let one = |name: &str| vec![format!("{name}.weight")];
        let global = |name: &str, ne: &[u64], parts: Vec<String>| Expected {
            name: format!("{name}.weight"),
            ne: ne.to_vec(),
            parts,
            always_f32: false,
            presence: Presence::Required,
        };
        let mut tensors = vec![
            global("altup_proj", &[e, e, streams], stack("altup_projections")),
            global("altup_unembd_proj", &[e, e, streams], stack("altup_unembed_projections")),
            global("token_embd", &[e, v], one("embed_tokens")),
            Expected {
                presence: Presence::PaddedRows(self.vocab_size_per_layer.into()),
                ..global("per_layer_token_embd", &[lp, v], one("embed_tokens_per_layer"))
            },
        ];
        for layer in 0..self.n_layers as usize {
            tensors.extend(LAYER.iter().map(|tensor| self.layer_tensor(tensor, layer)));
        }
        tensors.push(global("output_norm", &[e], one("norm")));
        tensors.push(global("per_layer_model_proj", &[e, lp], one("per_layer_model_projection")));
        tensors.push(global("per_layer_proj_norm", &[p], one("per_layer_projection_norm")));
        if !self.tied_embeddings {
            tensors.push(global("output", &[e, v], one("lm_head")));
        }
        tensors
    }

    fn layer_tensor(&self, &(name, part, dims): &LayerTensor, layer: usize) -> Expected {
        let shares = layer >= self.n_owners();
        let presence = match name {
            "attn_k" | "attn_v" | "attn_k_norm" if shares => Presence::Unused,
            "altup_correct_scale" if !self.altup_correct_scale => Presence::Ones,
            _ => Presence::Required,
        };
        Expected {
            name: format!("blk.{layer}.{name}.weight"),
            ne: dims.iter().map(|&dim| self.dim(dim, layer)).collect(),
            parts: vec![format!("layers.{layer}.{part}")],
            always_f32: matches!(name, "altup_correct_coef" | "altup_predict_coef"),
            presence,
        }
    }
}

/// What a tensor of a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The text model's, by its name without prefix.
    Text(&'a str),
    /// The picture's or sound's tower, or what ties it to the text model.
    Tower,
    /// Computed anew from the configuration, not a weight.
    Derived,
}

/// Prefixes of the text model, by class and version, longest first.
const TEXT_PREFIXES: [&str; 5] =
    ["model.language_model.", "language_model.model.", "language_model.", "model.", ""];

/// Whose a tensor is, by its name.
pub fn owner(name: &str) -> Owner<'_> {
    if towers::names::modality(name).is_some() {
        return Owner::Tower;
    }
    if name.ends_with(".inv_freq") || name.ends_with("_inv_freq") {
        return Owner::Derived;
    }
    let text = TEXT_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    Owner::Text(text.unwrap_or(name))
}

/// The text model's tensors by their names without prefix.
///
/// # Errors
/// Two tensors that are the same one under two prefixes.
pub fn text_tensors(weights: &Weights) -> Result<std::collections::BTreeMap<&str, &str>, Error> {
    let mut tensors = std::collections::BTreeMap::new();
    for (full, stored) in weights.iter() {
        let Owner::Text(short) = owner(full) else { continue };
        if let Some(other) = tensors.insert(short, full) {
            return Err(Error::SameTensor {
                path: weights.path(stored).to_owned(),
                tensor: full.to_owned(),
                other: other.to_owned(),
            });
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_all_versions_lead_to_one_name() {
        for name in [
            "model.language_model.layers.3.mlp.up_proj.weight",
            "language_model.model.layers.3.mlp.up_proj.weight",
            "language_model.layers.3.mlp.up_proj.weight",
            "model.layers.3.mlp.up_proj.weight",
            "layers.3.mlp.up_proj.weight",
        ] {
            assert_eq!(owner(name), Owner::Text("layers.3.mlp.up_proj.weight"), "{name}");
        }
        assert_eq!(owner("lm_head.weight"), Owner::Text("lm_head.weight"));
        assert_eq!(owner("model.embed_vision.embedding.weight"), Owner::Tower);
        assert_eq!(owner("audio_tower.conformer.0.norm.weight"), Owner::Tower);
        assert_eq!(owner("model.language_model.rotary_emb.inv_freq"), Owner::Derived);
    }
}
