//! The towers' tensors as gguf.md, sections 4.4 and 4.5, lists them.

/// Name in GGUF, name in the checkpoint after `model.`; N stands for a block of the conformer.
pub const AUDIO_AND_EMBEDDERS: [(&str, &str); 35] = [
    ("mm.input_projection.weight", "embed_vision.embedding_projection.weight"),
    ("mm.soft_emb_norm.weight", "embed_vision.soft_embedding_norm.weight"),
    ("mm.embedding.weight", "embed_vision.embedding.weight"),
    ("mm.hard_emb_norm.weight", "embed_vision.hard_embedding_norm.weight"),
    ("mm.a.embedding.weight", "embed_audio.embedding.weight"),
    ("mm.a.hard_emb_norm.weight", "embed_audio.hard_embedding_norm.weight"),
    ("mm.a.soft_emb_norm.weight", "embed_audio.soft_embedding_norm.weight"),
    ("mm.a.input_projection.weight", "embed_audio.embedding_projection.weight"),
    ("a.conv1d.0.weight", "audio_tower.subsample_conv_projection.conv_0.conv.weight"),
    ("a.conv1d.0.norm.weight", "audio_tower.subsample_conv_projection.conv_0.norm.weight"),
    ("a.conv1d.1.weight", "audio_tower.subsample_conv_projection.conv_1.conv.weight"),
    ("a.conv1d.1.norm.weight", "audio_tower.subsample_conv_projection.conv_1.norm.weight"),
    ("a.pre_encode.out.weight", "audio_tower.subsample_conv_projection.input_proj_linear.weight"),
    ("a.blk.N.ffn_norm.weight", "audio_tower.conformer.N.ffw_layer_start.pre_layer_norm.weight"),
    ("a.blk.N.ffn_up.weight", "audio_tower.conformer.N.ffw_layer_start.ffw_layer_1.weight"),
    ("a.blk.N.ffn_down.weight", "audio_tower.conformer.N.ffw_layer_start.ffw_layer_2.weight"),
    (
        "a.blk.N.ffn_post_norm.weight",
        "audio_tower.conformer.N.ffw_layer_start.post_layer_norm.weight",
    ),
    ("a.blk.N.ln1.weight", "audio_tower.conformer.N.attention.pre_attn_norm.weight"),
    ("a.blk.N.attn_q.weight", "audio_tower.conformer.N.attention.attn.q_proj.weight"),
    ("a.blk.N.attn_k.weight", "audio_tower.conformer.N.attention.attn.k_proj.weight"),
    ("a.blk.N.attn_v.weight", "audio_tower.conformer.N.attention.attn.v_proj.weight"),
    ("a.blk.N.per_dim_scale", "audio_tower.conformer.N.attention.attn.per_dim_scale"),
    (
        "a.blk.N.linear_pos.weight",
        "audio_tower.conformer.N.attention.attn.relative_position_embedding.pos_proj.weight",
    ),
    ("a.blk.N.attn_out.weight", "audio_tower.conformer.N.attention.post.weight"),
    ("a.blk.N.ln2.weight", "audio_tower.conformer.N.attention.post_norm.weight"),
    ("a.blk.N.conv_norm.weight", "audio_tower.conformer.N.lconv1d.pre_layer_norm.weight"),
    ("a.blk.N.conv_pw1.weight", "audio_tower.conformer.N.lconv1d.linear_start.weight"),
    ("a.blk.N.conv_dw.weight", "audio_tower.conformer.N.lconv1d.depthwise_conv1d.weight"),
    ("a.blk.N.norm_conv.weight", "audio_tower.conformer.N.lconv1d.conv_norm.weight"),
    ("a.blk.N.conv_pw2.weight", "audio_tower.conformer.N.lconv1d.linear_end.weight"),
    ("a.blk.N.ffn_norm_1.weight", "audio_tower.conformer.N.ffw_layer_end.pre_layer_norm.weight"),
    ("a.blk.N.ffn_up_1.weight", "audio_tower.conformer.N.ffw_layer_end.ffw_layer_1.weight"),
    ("a.blk.N.ffn_down_1.weight", "audio_tower.conformer.N.ffw_layer_end.ffw_layer_2.weight"),
    (
        "a.blk.N.ffn_post_norm_1.weight",
        "audio_tower.conformer.N.ffw_layer_end.post_layer_norm.weight",
    ),
    ("a.blk.N.layer_pre_norm.weight", "audio_tower.conformer.N.norm.weight"),
];

/// The name in the checkpoint, after `model.`, of a tensor in the file.
pub fn source(name: &str) -> String {
    let number = name.strip_prefix("a.blk.").map(|rest| rest.split('.').next().unwrap());
    let general = match number {
        Some(number) => name.replacen(&format!(".{number}."), ".N.", 1),
        None => name.to_owned(),
    };
    let listed = AUDIO_AND_EMBEDDERS.iter().find(|(gguf, _)| *gguf == general);
    match (listed, name.strip_prefix("v.blk."), name.strip_prefix("v.")) {
        (Some((_, source)), ..) => {
            source.replacen(".N.", &format!(".{}.", number.unwrap_or("")), 1)
        }
        (None, Some(block), _) => format!("vision_tower.timm_model.blocks.{block}"),
        (None, None, Some(rest)) => format!("vision_tower.timm_model.{rest}"),
        _ => panic!("{name} is no tensor of the format"),
    }
}
