//! Weights by formula (reference.md §11.4): a name seeds a stream, a shape scales it.

use std::path::Path;

use gemma3n::gguf::{Layout, TensorType, Writer};

/// The first values of a stream that a name seeds: FNV-1a, then splitmix64, in [0, 1).
pub fn stream(name: &str) -> impl Iterator<Item = f64> + use<> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (1u64..).map(move |k| {
        let mut z = seed.wrapping_add(k.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 24)
    })
}

/// A tensor's values by its name in the checkpoint; shape in PyTorch's order. One-dimensional ones are `0.5 + u`, others
/// `(2u − 1)·√(3 / n)`, n the product of all dimensions but the first.
fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let n = shape[1..].iter().product::<usize>() as f64;
    let value = |u: f64| match shape.len() {
        1 => (0.5 + u) as f32,
        _ => ((2.0 * u - 1.0) * (3.0 / n).sqrt()) as f32,
    };
    stream(name).map(value).take(shape.iter().product()).collect()
}

/// A tensor to write.
pub struct Made {
    /// In the file.
    pub name: String,
    /// PyTorch's order.
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Made {
    pub fn by_formula(name: String, checkpoint: &str, shape: &[usize]) -> Self {
        Self { name, values: values(checkpoint, shape), shape: shape.to_vec() }
    }

    pub fn ones(name: &str, shape: &[usize]) -> Self {
        let values = vec![1.0; shape.iter().product()];
        Self { name: name.to_owned(), values, shape: shape.to_vec() }
    }
}

/// A file of these tensors.
pub fn write(target: &Path, mut layout: Layout, tensors: &[Made]) {
    for tensor in tensors {
        let mut ne = [1; 4];
        for (n, size) in ne.iter_mut().zip(tensor.shape.iter().rev()) {
            *n = *size as u64;
        }
        layout.add_tensor(&tensor.name, ne, tensor.shape.len() as u32, TensorType::F32);
    }
    let mut writer = Writer::create(target, &layout, true).unwrap();
    for tensor in tensors {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.append(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}
