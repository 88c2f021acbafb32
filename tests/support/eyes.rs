//! A vision tower with random weights, small enough to be made for each test: two stages with a
//! block of each kind, 32 pixels, 16 soft tokens.

use std::path::Path;

use gemma3n::gguf::{Layout, TensorType, Writer};

/// Soft tokens of a picture.
pub const SOFT_TOKENS: usize = 16;

/// Values that look random and are the same everywhere (splitmix64), in [-scale, scale).
fn values(seed: &mut u64, n: usize, scale: f32) -> Vec<f32> {
    (0..n)
        .map(|_| {
            *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = *seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((z >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        })
        .collect()
}

/// A tensor's name and shape.
pub type Tensor = (String, [u64; 4]);

/// The tower's tensors, for a text model of this width.
pub fn tensors(embedding: u64) -> Vec<Tensor> {
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut kernel = |name: &str, side: u64, cin: u64, cout: u64| {
        tensors.push((format!("v.{name}.weight"), [side, side, cin, cout]));
    };
    kernel("conv_stem.conv", 3, 3, 16);
    kernel("blk.0.0.conv_exp", 3, 16, 32);
    kernel("blk.0.0.conv_pwl", 1, 32, 16);
    kernel("blk.1.0.dw_start.conv", 3, 1, 16);
    kernel("blk.1.0.pw_exp.conv", 1, 16, 64);
    kernel("blk.1.0.dw_mid.conv", 5, 1, 64);
    kernel("blk.1.0.pw_proj.conv", 1, 64, 32);
    kernel("blk.1.1.attn.query.proj", 1, 32, 32);
    kernel("blk.1.1.attn.key.proj", 1, 32, 16);
    kernel("blk.1.1.attn.value.proj", 1, 32, 16);
    kernel("blk.1.1.attn.output.proj", 1, 32, 32);
    kernel("msfa.ffn.pw_exp.conv", 1, 48, 64);
    kernel("msfa.ffn.pw_proj.conv", 1, 64, 32);
    let vectors = [
        ("v.conv_stem.conv.bias", 16),
        ("v.conv_stem.bn.weight", 16),
        ("v.blk.0.0.bn1.weight", 32),
        ("v.blk.0.0.bn2.weight", 16),
        ("v.blk.1.0.dw_start.bn.weight", 16),
        ("v.blk.1.0.pw_exp.bn.weight", 64),
        ("v.blk.1.0.dw_mid.bn.weight", 64),
        ("v.blk.1.0.pw_proj.bn.weight", 32),
        ("v.blk.1.0.layer_scale.gamma", 32),
        ("v.blk.1.1.norm.weight", 32),
        ("v.blk.1.1.layer_scale.gamma", 32),
        ("v.msfa.ffn.pw_exp.bn.weight", 64),
        ("v.msfa.ffn.pw_proj.bn.weight", 32),
        ("v.msfa.norm.weight", 32),
        ("mm.hard_emb_norm.weight", 32),
        ("mm.soft_emb_norm.weight", 32),
    ];
    tensors.extend(vectors.map(|(name, n)| (name.to_owned(), [n, 1, 1, 1])));
    tensors.push(("mm.input_projection.weight".to_owned(), [32, embedding, 1, 1]));
    tensors.push(("mm.embedding.weight".to_owned(), [32, 8, 1, 1]));
    tensors
}

/// What the file says of the tower.
pub fn describe(layout: &mut Layout, embedding: u64) {
    layout.set("clip.vision.projector_type", "gemma3nv");
    layout.set("clip.vision.image_size", 32u32);
    layout.set("clip.vision.projection_dim", embedding as u32);
    layout.set("gemma3n.cli.vision.soft_tokens", SOFT_TOKENS as u32);
}

/// Writes the towers' file for a text model of this width; `without` leaves a tensor out.
pub fn write(target: &Path, embedding: u64, without: Option<&str>) {
    let mut layout = Layout::new();
    layout.set("general.architecture", "clip");
    describe(&mut layout, embedding);
    let mut tensors = tensors(embedding);
    tensors.retain(|(name, _)| Some(name.as_str()) != without);
    write_tensors(target, layout, &tensors);
}

/// Writes a file of such tensors with random values: vectors around 1, rows of unit gain.
pub fn write_tensors(target: &Path, mut layout: Layout, tensors: &[Tensor]) {
    for (name, ne) in tensors {
        layout.add_tensor(name, *ne, 4, TensorType::F32);
    }
    let mut writer = Writer::create(target, &layout, true).expect("a file");
    let mut seed = 7;
    for (name, ne) in tensors {
        let n = ne.iter().product::<u64>() as usize;
        let vector = n as u64 == ne[0];
        let fan_in = (n as u64 / ne[3].max(1)).max(1) as f32;
        let mut data = values(&mut seed, n, if vector { 0.5 } else { (3.0 / fan_in).sqrt() });
        if vector {
            data.iter_mut().for_each(|value| *value += 1.0);
        }
        let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.append(name, &bytes).expect("room");
    }
    writer.finish().expect("written");
}
