//! What each part of a model costs and loses: bits and relative error by class of tensor.

use super::super::execute::Loss;
use super::super::plan::Plan;
use crate::gguf::TensorType;

/// A class of tensors in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub class: &'static str,
    /// In the order in which they occur.
    pub types: Vec<TensorType>,
    pub elements: u64,
    pub bytes: u64,
    pub loss: Loss,
}

impl Share {
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elements.max(1) as f64
    }
}

/// The classes that a planned file has, in the order of the model; `losses` are those of its
/// tensors.
pub fn shares(plan: &Plan, losses: &[Loss]) -> Vec<Share> {
    let mut shares: Vec<Share> = CLASSES
        .iter()
        .map(|&class| Share {
            class,
            types: Vec::new(),
            elements: 0,
            bytes: 0,
            loss: Loss::default(),
        })
        .collect();
    for (tensor, loss) in plan.tensors.iter().zip(losses) {
        let target = &tensor.target;
        let share = &mut shares[class(&target.name, target.ne)];
        if !share.types.contains(&target.ty) {
            share.types.push(target.ty);
        }
        share.elements += target.ne.iter().product::<u64>();
        share.bytes += target.nbytes().unwrap_or(0);
        share.loss += *loss;
    }
    shares.retain(|share| share.bytes > 0);
    shares
}

const CLASSES: [&str; 11] = [
    "token table",
    "per-layer table",
    "attention",
    "feed-forward",
    "per-layer gates",
    "small matrices",
    "head",
    "vision",
    "audio",
    "embedders",
    "vectors",
];

/// Which of [`CLASSES`] a tensor belongs to.
fn class(name: &str, ne: [u64; 4]) -> usize {
    let is_matrix = ne[1..].iter().any(|&n| n > 1);
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let named = match name {
        _ if !is_matrix || has(&["_coef."]) => "vectors",
        "token_embd.weight" => "token table",
        "per_layer_token_embd.weight" => "per-layer table",
        "output.weight" => "head",
        _ if name.starts_with("v.") => "vision",
        _ if name.starts_with("a.") => "audio",
        _ if name.starts_with("mm.") => "embedders",
        _ if has(&[".attn_"]) => "attention",
        _ if has(&[".ffn_"]) => "feed-forward",
        _ if has(&[".inp_gate.", ".proj."]) => "per-layer gates",
        _ => "small matrices",
    };
    CLASSES.iter().position(|class| *class == named).unwrap_or(CLASSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_of_a_model_has_its_class() {
        let of = |name: &str, ne| CLASSES[class(name, ne)];
        let matrix = [8, 8, 1, 1];
        assert_eq!(of("blk.3.attn_q.weight", matrix), "attention");
        assert_eq!(of("blk.3.attn_q_norm.weight", [8, 1, 1, 1]), "vectors");
        assert_eq!(of("blk.3.ffn_down_t.weight", matrix), "feed-forward");
        assert_eq!(of("blk.3.proj.weight", matrix), "per-layer gates");
        assert_eq!(of("altup_proj.weight", [8, 8, 3, 1]), "small matrices");
        assert_eq!(of("blk.3.altup_predict_coef.weight", [4, 16, 1, 1]), "vectors");
        assert_eq!(of("blk.3.laurel_l.weight", matrix), "small matrices");
        assert_eq!(of("per_layer_token_embd.weight", matrix), "per-layer table");
        assert_eq!(of("v.blk.0.0.conv_exp.weight", [3, 3, 4, 4]), "vision");
    }
}
