//! Names of the towers' tensors in a checkpoint ↔ in GGUF.
//!
//! In a checkpoint they begin with `model.` or nothing, by class and version.

/// Which of the two towers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    Vision,
    Audio,
}

/// The wrapper of transformers around timm's model.
const VISION: &str = "vision_tower.timm_model.";
const CONFORMER: &str = "audio_tower.conformer.";

/// Checkpoint, GGUF.
type Pair = (&'static str, &'static str);

#[rustfmt::skip]
const SINGLE: [Pair; 13] = [
    ("embed_vision.embedding.weight", "mm.embedding.weight"),
    ("embed_vision.embedding_projection.weight", "mm.input_projection.weight"),
    ("embed_vision.hard_embedding_norm.weight", "mm.hard_emb_norm.weight"),
    ("embed_vision.soft_embedding_norm.weight", "mm.soft_emb_norm.weight"),
    ("embed_audio.embedding.weight", "mm.a.embedding.weight"),
    ("embed_audio.embedding_projection.weight", "mm.a.input_projection.weight"),
    ("embed_audio.hard_embedding_norm.weight", "mm.a.hard_emb_norm.weight"),
    ("embed_audio.soft_embedding_norm.weight", "mm.a.soft_emb_norm.weight"),
    ("audio_tower.subsample_conv_projection.conv_0.conv.weight", "a.conv1d.0.weight"),
    ("audio_tower.subsample_conv_projection.conv_0.norm.weight", "a.conv1d.0.norm.weight"),
    ("audio_tower.subsample_conv_projection.conv_1.conv.weight", "a.conv1d.1.weight"),
    ("audio_tower.subsample_conv_projection.conv_1.norm.weight", "a.conv1d.1.norm.weight"),
    ("audio_tower.subsample_conv_projection.input_proj_linear.weight", "a.pre_encode.out.weight"),
];

/// After the block's number.
#[rustfmt::skip]
const BLOCK: [Pair; 22] = [
    ("attention.attn.k_proj.weight", "attn_k.weight"),
    ("attention.attn.per_dim_scale", "per_dim_scale"),
    ("attention.attn.q_proj.weight", "attn_q.weight"),
    ("attention.attn.relative_position_embedding.pos_proj.weight", "linear_pos.weight"),
    ("attention.attn.v_proj.weight", "attn_v.weight"),
    ("attention.post.weight", "attn_out.weight"),
    ("attention.post_norm.weight", "ln2.weight"),
    ("attention.pre_attn_norm.weight", "ln1.weight"),
    ("ffw_layer_end.ffw_layer_1.weight", "ffn_up_1.weight"),
    ("ffw_layer_end.ffw_layer_2.weight", "ffn_down_1.weight"),
    ("ffw_layer_end.post_layer_norm.weight", "ffn_post_norm_1.weight"),
    ("ffw_layer_end.pre_layer_norm.weight", "ffn_norm_1.weight"),
    ("ffw_layer_start.ffw_layer_1.weight", "ffn_up.weight"),
    ("ffw_layer_start.ffw_layer_2.weight", "ffn_down.weight"),
    ("ffw_layer_start.post_layer_norm.weight", "ffn_post_norm.weight"),
    ("ffw_layer_start.pre_layer_norm.weight", "ffn_norm.weight"),
    ("lconv1d.conv_norm.weight", "norm_conv.weight"),
    ("lconv1d.depthwise_conv1d.weight", "conv_dw.weight"),
    ("lconv1d.linear_end.weight", "conv_pw2.weight"),
    ("lconv1d.linear_start.weight", "conv_pw1.weight"),
    ("lconv1d.pre_layer_norm.weight", "conv_norm.weight"),
    ("norm.weight", "layer_pre_norm.weight"),
];

/// A name in a checkpoint without `model.`.
pub fn without_prefix(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

/// Whose a tensor is, by its name in a checkpoint; `None` for the text model's.
pub fn modality(name: &str) -> Option<Modality> {
    let name = without_prefix(name);
    let any = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if any(["vision_tower.", "embed_vision."]) {
        Some(Modality::Vision)
    } else if any(["audio_tower.", "embed_audio."]) {
        Some(Modality::Audio)
    } else {
        None
    }
}

/// Checkpoint → GGUF; `None` for a name that no tensor of a tower can have.
pub fn gguf_name(name: &str) -> Option<String> {
    let name = without_prefix(name);
    if let Some(inner) = name.strip_prefix(VISION) {
        return Some(match inner.strip_prefix("blocks.") {
            Some(block) => format!("v.blk.{block}"),
            None => format!("v.{inner}"),
        });
    }
    if let Some(inner) = name.strip_prefix(CONFORMER) {
        let (number, part) = inner.split_once('.')?;
        let (_, gguf) = BLOCK.iter().find(|(checkpoint, _)| *checkpoint == part)?;
        return Some(format!("a.blk.{number}.{gguf}"));
    }
    let (_, gguf) = SINGLE.iter().find(|(checkpoint, _)| *checkpoint == name)?;
    Some((*gguf).to_owned())
}

/// GGUF → checkpoint, without `model.`; the name itself where there is none.
pub fn checkpoint_name(gguf: &str) -> String {
    let block = || {
        let (number, part) = gguf.strip_prefix("a.blk.")?.split_once('.')?;
        let (checkpoint, _) = BLOCK.iter().find(|(_, gguf)| *gguf == part)?;
        Some(format!("{CONFORMER}{number}.{checkpoint}"))
    };
    let single = || {
        let (checkpoint, _) = SINGLE.iter().find(|(_, name)| *name == gguf)?;
        Some((*checkpoint).to_owned())
    };
    let vision = || match gguf.strip_prefix("v.")?.strip_prefix("blk.") {
        Some(block) => Some(format!("{VISION}blocks.{block}")),
        None => Some(format!("{VISION}{}", &gguf["v.".len()..])),
    };
    block().or_else(single).or_else(vision).unwrap_or_else(|| gguf.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for (checkpoint, gguf) in [
            ("vision_tower.timm_model.conv_stem.conv.bias", "v.conv_stem.conv.bias"),
            (
                "vision_tower.timm_model.blocks.2.9.attn.key.down_conv.weight",
                "v.blk.2.9.attn.key.down_conv.weight",
            ),
            ("audio_tower.conformer.11.lconv1d.conv_norm.weight", "a.blk.11.norm_conv.weight"),
            ("audio_tower.conformer.0.attention.attn.per_dim_scale", "a.blk.0.per_dim_scale"),
            ("embed_audio.embedding_projection.weight", "mm.a.input_projection.weight"),
        ] {
            assert_eq!(gguf_name(checkpoint).as_deref(), Some(gguf));
            assert_eq!(gguf_name(&format!("model.{checkpoint}")).as_deref(), Some(gguf));
            assert_eq!(checkpoint_name(gguf), checkpoint);
        }
        assert_eq!(gguf_name("audio_tower.conformer.0.bias"), None);
        assert_eq!(gguf_name("vision_tower.blocks.0.0.bn1.weight"), None);
    }
}
