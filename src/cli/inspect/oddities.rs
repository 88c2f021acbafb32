//! What is unusual in a file and may matter, one sentence each.

use super::model::{GEMMA3N, Keys, Model, NEURON_MAJOR};
use crate::gguf::{Gguf, Tensor, TensorType, Value};

/// Layers with K and V of their own that llama.cpp takes for granted.
const LLAMA_CPP_OWNERS: u64 = 20;
/// Rows of the per-layer table that count; later ones are padding.
const PER_LAYER_ROWS: u64 = 262_144;
/// Bits a weight below which a per-layer table is suspected of ruining the model.
const FEW_BITS: f64 = 5.0;
/// ggml reads tensor data at multiples of this.
const GGML_ALIGNMENT: usize = 32;

/// Names a text model has once.
const GLOBAL: [&str; 8] = [
    "token_embd",
    "per_layer_token_embd",
    "per_layer_model_proj",
    "per_layer_proj_norm",
    "altup_proj",
    "altup_unembd_proj",
    "output_norm",
    "output",
];

/// Names a text model has in each layer.
const IN_LAYER: [&str; 24] = [
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_q_norm",
    "attn_k_norm",
    "attn_output",
    "post_attention_norm",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "post_ffw_norm",
    "inp_gate",
    "proj",
    "post_norm",
    "altup_correct_coef",
    "altup_correct_scale",
    "altup_predict_coef",
    "altup_router",
    "altup_router_norm",
    "laurel_l",
    "laurel_r",
    "laurel_post_norm",
];

/// Adds what is odd about the file.
pub(super) fn oddities(
    gguf: &Gguf,
    architecture: Option<&str>,
    model: Option<&Model>,
    keys: &Keys<'_>,
    odd: &mut Vec<String>,
) {
    match architecture {
        None => odd.push("general.architecture is missing".into()),
        Some(GEMMA3N) => match model {
            Some(model) => text_model(gguf, model, keys, odd),
            None => odd.push("gemma3n.block_count is missing".into()),
        },
        Some("clip") => towers(gguf, odd),
        Some(_) => {}
    }
    vocabulary(gguf, odd);
    let unaligned = |tensor: &&Tensor| !gguf.is_aligned(tensor, GGML_ALIGNMENT);
    let unaligned = gguf.tensors().iter().filter(unaligned).count();
    if unaligned > 0 {
        odd.push(format!("{unaligned} tensors are not aligned to {GGML_ALIGNMENT} bytes"));
    }
}

fn text_model(gguf: &Gguf, model: &Model, keys: &Keys<'_>, odd: &mut Vec<String>) {
    let shared = "attention.shared_kv_layers";
    match keys.get(shared) {
        Some(Value::F32(x)) => {
            odd.push(format!("{GEMMA3N}.{shared} is {x} as f32, as the first files had it"));
        }
        None => odd.push(format!("{GEMMA3N}.{shared} is missing: layers past 20 share")),
        Some(_) => {}
    }
    if keys.get("final_logit_softcapping").is_none() {
        odd.push(format!("{GEMMA3N}.final_logit_softcapping is missing: 30 is taken"));
    }
    if model.ffn.windows(2).any(|pair| pair[0] != pair[1]) {
        odd.push("FFN widths differ between layers: llama.cpp does not load that".into());
    }
    if let (Some(layers), Some(shared)) = (model.layers, model.shared_kv_layers) {
        let owners = layers.saturating_sub(shared);
        if owners != LLAMA_CPP_OWNERS {
            odd.push(format!(
                "{owners} layers own K and V: llama.cpp takes {LLAMA_CPP_OWNERS} and computes it wrongly"
            ));
        }
    }
    tensor_names(gguf, model, odd);
    layout(gguf, model, odd);
    if let Some(table) = gguf.tensor("per_layer_token_embd.weight") {
        if table.ne[1] > PER_LAYER_ROWS {
            let padding = table.ne[1] - PER_LAYER_ROWS;
            odd.push(format!("per_layer_token_embd has {padding} rows of padding"));
        }
        let bits = table.nbytes as f64 * 8.0 / table.n_elements() as f64;
        if bits < FEW_BITS {
            let ty = table.ty;
            odd.push(format!("per_layer_token_embd is {ty}: few bits there are suspected of harm"));
        }
    }
}

/// A layout of our own and the tensors of it, which go together.
fn layout(gguf: &Gguf, model: &Model, odd: &mut Vec<String>) {
    let turned = gguf.tensors().iter().filter(|t| t.name.ends_with(".ffn_down_t.weight")).count();
    match model.layout {
        Some(NEURON_MAJOR) if turned == 0 => {
            odd.push(format!(
                "{GEMMA3N}.cli.layout is {NEURON_MAJOR}, but no ffn_down is neuron-major"
            ));
        }
        None if turned > 0 => odd.push(format!(
            "{turned} neuron-major tensors, but no {GEMMA3N}.cli.layout: not loadable"
        )),
        Some(NEURON_MAJOR) | None => {}
        Some(other) => odd.push(format!("{GEMMA3N}.cli.layout {other} is not known: not loadable")),
    }
}

/// Compares the tensors' names with those a text model has.
fn tensor_names(gguf: &Gguf, model: &Model, odd: &mut Vec<String>) {
    let layers = model.layers.unwrap_or(0);
    let known = |name: &str| {
        let Some(stem) = name.strip_suffix(".weight") else { return false };
        match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stem)) => {
                layer.parse().is_ok_and(|layer: u64| layer < layers)
                    && (IN_LAYER.contains(&stem) || ["attn_qkv", "ffn_down_t"].contains(&stem))
            }
            None => GLOBAL.contains(&stem),
        }
    };
    let extra: Vec<&str> =
        gguf.tensors().iter().map(|t| t.name.as_str()).filter(|name| !known(name)).collect();
    push_names(odd, "unknown tensors (llama.cpp refuses the file)", &extra);

    let has = |name: &str| gguf.tensor(name).is_some();
    let owners = layers.saturating_sub(model.shared_kv_layers.unwrap_or(0));
    let (mut missing, mut unused) = (Vec::new(), 0);
    for stem in &GLOBAL[..GLOBAL.len() - 1] {
        let name = format!("{stem}.weight");
        if !has(&name) {
            missing.push(name);
        }
    }
    // A count past what the tensors could fill is a fault of its own.
    for layer in 0..layers.min(gguf.tensors().len() as u64 + 1) {
        for stem in IN_LAYER {
            let name = format!("blk.{layer}.{stem}.weight");
            let own = ["attn_k", "attn_v", "attn_k_norm"].contains(&stem);
            let fused = ["attn_q", "attn_k", "attn_v"].contains(&stem)
                && has(&format!("blk.{layer}.attn_qkv.weight"));
            let turned = stem == "ffn_down" && has(&format!("blk.{layer}.ffn_down_t.weight"));
            if has(&name) || fused || turned {
                continue;
            }
            if own && layer >= owners {
                unused += 1;
            } else {
                missing.push(name);
            }
        }
    }
    push_names(odd, "missing tensors", &missing.iter().map(String::as_str).collect::<Vec<_>>());
    if unused > 0 {
        odd.push("K and V of sharing layers are left out: llama.cpp wants them".into());
    }
}

/// `WHAT: a, b, c and 4 more`.
fn push_names(odd: &mut Vec<String>, what: &str, names: &[&str]) {
    const SHOWN: usize = 3;
    if names.is_empty() {
        return;
    }
    let mut line = format!("{what}: {}", names[..names.len().min(SHOWN)].join(", "));
    if names.len() > SHOWN {
        line += &format!(" and {} more", names.len() - SHOWN);
    }
    odd.push(super::values::one_line(line.as_bytes()));
}

fn towers(gguf: &Gguf, odd: &mut Vec<String>) {
    let metadata = gguf.metadata();
    if metadata.get("clip.projector_type").is_some() {
        odd.push("clip.projector_type is set: it stands for pictures and sound alike".into());
    }
    let kernels = |tensor: &&Tensor| {
        tensor.ty == TensorType::BF16 && tensor.n_dims == 4 && tensor.name.starts_with("v.")
    };
    let kernels = gguf.tensors().iter().filter(kernels).count();
    if kernels > 0 {
        odd.push(format!("{kernels} BF16 convolution kernels: llama.cpp aborts on them on a CPU"));
    }
    let flat = |tensor: &&Tensor| tensor.name.contains("layer_scale.gamma") && tensor.n_dims == 1;
    let flat = gguf.tensors().iter().filter(flat).count();
    if flat > 0 {
        odd.push(format!("{flat} layer scales with one dimension: llama.cpp aborts on them"));
    }
}

fn vocabulary(gguf: &Gguf, odd: &mut Vec<String>) {
    let len = |key| match gguf.metadata().get(key) {
        Some(Value::Array(array)) => Some(array.len()),
        _ => None,
    };
    let Some(tokens) = len("tokenizer.ggml.tokens") else { return };
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        match len(key) {
            Some(n) if n != tokens => {
                odd.push(format!("{key} has {n} entries for {tokens} tokens"))
            }
            _ => {}
        }
    }
    match gguf.tensor("token_embd.weight") {
        Some(table) if table.ne[1] != tokens as u64 => {
            odd.push(format!("token_embd has {} rows for {tokens} tokens", table.ne[1]));
        }
        _ => {}
    }
    if gguf.metadata().get("tokenizer.chat_template").is_none() {
        odd.push("no chat template in the file".into());
    }
}
