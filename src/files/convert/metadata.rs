//! The keys of a text model's file, in the order of llama.cpp's converter; ours come last.

use crate::checkpoint::config::FeedForward;
use crate::checkpoint::{Checkpoint, Float, Tokenizer};
use crate::files::plan::PlannedTensor;
use crate::gguf::OwnedValue;

use super::sparsity::multiplier;

pub(super) type Pairs = Vec<(String, OwnedValue)>;

/// All keys and values.
pub fn metadata(checkpoint: &Checkpoint, ty: Float, tensors: &[PlannedTensor]) -> Pairs {
    let mut pairs = general(checkpoint, tensors);
    pairs.extend(model(checkpoint, ty));
    pairs.extend(tokenizer(&checkpoint.tokenizer));
    let rows = checkpoint.config.vocab_size_per_layer;
    pairs.push(("gemma3n.cli.vocab_size_per_layer_input".to_owned(), rows.into()));
    pairs
}

pub(super) fn put(pairs: &mut Pairs, key: &str, value: impl Into<OwnedValue>) {
    pairs.push((key.to_owned(), value.into()));
}

pub(super) fn put_some(pairs: &mut Pairs, key: &str, value: Option<impl Into<OwnedValue>>) {
    if let Some(value) = value {
        put(pairs, key, value);
    }
}

fn general(checkpoint: &Checkpoint, tensors: &[PlannedTensor]) -> Pairs {
    let mut pairs = Pairs::new();
    let sampling = &checkpoint.generation;
    let parameters = tensors.iter().map(|tensor| tensor.target.ne.iter().product::<u64>()).sum();
    put(&mut pairs, "general.architecture", "gemma3n");
    put(&mut pairs, "general.type", "model");
    put_some(&mut pairs, "general.sampling.top_k", sampling.top_k.map(|k| k as i32));
    put_some(&mut pairs, "general.sampling.top_p", sampling.top_p);
    put_some(&mut pairs, "general.sampling.min_p", sampling.min_p);
    put_some(&mut pairs, "general.sampling.temp", sampling.temperature);
    put_some(&mut pairs, "general.sampling.penalty_repeat", sampling.repetition_penalty);
    put(&mut pairs, "general.name", checkpoint.name());
    put(&mut pairs, "general.size_label", size_label(parameters));
    put_some(&mut pairs, "general.license", checkpoint.license.clone());
    pairs
}

fn model(checkpoint: &Checkpoint, ty: Float) -> Pairs {
    let config = &checkpoint.config;
    let mut pairs = Pairs::new();
    let mut own = |key: &str, value: OwnedValue| put(&mut pairs, &format!("gemma3n.{key}"), value);
    own("block_count", config.n_layers.into());
    own("context_length", config.context_length.into());
    own("embedding_length", config.embedding_length.into());
    let widths = match &config.feed_forward {
        FeedForward::Same(width) => (*width).into(),
        FeedForward::PerLayer(widths) => {
            widths.iter().map(|&width| width as i32).collect::<Vec<_>>().into()
        }
    };
    own("feed_forward_length", widths);
    own("attention.head_count", config.n_heads.into());
    own("attention.head_count_kv", config.n_kv_heads.into());
    own("rope.freq_base", config.rope_base_full.into());
    own("rope.freq_base_swa", config.rope_base_sliding.into());
    own("attention.layer_norm_rms_epsilon", config.rms_eps.into());
    own("attention.key_length", config.head_dim.into());
    own("attention.value_length", config.head_dim.into());
    own("final_logit_softcapping", config.final_softcap.into());
    own("attention.sliding_window", config.sliding_window.into());
    own("altup.active_idx", config.altup_active.into());
    own("altup.num_inputs", config.altup_inputs.into());
    own("embedding_length_per_layer_input", config.per_layer_length.into());
    own("attention.shared_kv_layers", config.n_shared_kv.into());
    let scales: Vec<f32> = config.sparsity.iter().map(|&share| multiplier(share)).collect();
    own("activation_sparsity_scale", scales.into());
    own("attention.sliding_window_pattern", config.sliding.clone().into());
    put(&mut pairs, "general.file_type", file_type(ty));
    put(&mut pairs, "general.quantization_version", 2u32);
    pairs
}

/// llama.cpp's label of the file's main type.
pub(super) fn file_type(ty: Float) -> u32 {
    match ty {
        Float::F32 => 0,
        Float::F16 => 1,
        Float::BF16 => 32,
    }
}

fn tokenizer(tokenizer: &Tokenizer) -> Pairs {
    let mut pairs = Pairs::new();
    let mut own = |key: &str, value: OwnedValue| {
        put(&mut pairs, &format!("tokenizer.ggml.{key}"), value);
    };
    let pieces = &tokenizer.pieces;
    own("model", "llama".into());
    own("pre", "default".into());
    own("tokens", pieces.iter().map(|piece| piece.text.clone()).collect::<Vec<_>>().into());
    own("scores", pieces.iter().map(|piece| piece.score).collect::<Vec<_>>().into());
    own("token_type", pieces.iter().map(|piece| piece.kind as i32).collect::<Vec<_>>().into());
    own("bos_token_id", tokenizer.bos.into());
    own("eos_token_id", tokenizer.eos.into());
    let optional = [
        ("unknown_token_id", tokenizer.unk),
        ("padding_token_id", tokenizer.pad),
        ("mask_token_id", tokenizer.mask),
        ("eot_token_id", tokenizer.other_ends.first().copied()),
        ("eom_token_id", tokenizer.other_ends.get(1).copied()),
    ];
    for (key, id) in optional {
        if let Some(id) = id {
            own(key, id.into());
        }
    }
    own("add_bos_token", tokenizer.add_bos.into());
    own("add_sep_token", false.into());
    own("add_eos_token", tokenizer.add_eos.into());
    own("add_space_prefix", false.into());
    templates(tokenizer, &mut pairs);
    pairs
}

/// The default as `tokenizer.chat_template`, named ones under their names, which are listed.
fn templates(tokenizer: &Tokenizer, pairs: &mut Pairs) {
    let mut names = Vec::new();
    for template in &tokenizer.templates {
        match &template.name {
            None => put(pairs, "tokenizer.chat_template", template.text.clone()),
            Some(name) => {
                put(pairs, &format!("tokenizer.chat_template.{name}"), template.text.clone());
                names.push(name.clone());
            }
        }
    }
    if !names.is_empty() {
        put(pairs, "tokenizer.chat_templates", names);
    }
}

/// The number of parameters with two digits, as in model names: 4.5B, 15M.
pub(in crate::files) fn size_label(parameters: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M")];
    let (unit, suffix) =
        units.into_iter().find(|&(unit, _)| parameters as f64 > unit).unwrap_or((1e3, "K"));
    let scaled = parameters as f64 / unit;
    let digits = if scaled.round_ties_even() < 10.0 { 1 } else { 0 };
    format!("{scaled:.digits$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_labels_have_two_digits() {
        for (parameters, label) in [
            (2_002_944, "2.0M"),
            (4_435_182_688, "4.4B"),
            (6_835_235_568, "6.8B"),
            (14_600_000, "15M"),
            (5_000, "5.0K"),
        ] {
            assert_eq!(size_label(parameters), label);
        }
    }
}
