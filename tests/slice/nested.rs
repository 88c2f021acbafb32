//! Models with random weights in any type, made where they are needed: for cuts at blocks, and in
//! E4B's shape (35 layers of 16384 neurons) with narrow streams.

use std::path::Path;
use std::sync::Arc;

use gemma3n::ggml::{self, Type};
use gemma3n::gguf::{Gguf, Layout, TensorType, Writer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows of a matrix are put together from so many stretches of packed values.
const POOL: usize = 64;

#[derive(Clone, Copy)]
pub struct Nested {
    /// Of all matrices whose rows are whole blocks.
    pub ty: TensorType,
    pub embedding: u64,
    pub layers: u64,
    /// Layers that share keys and values.
    pub shared: u64,
    /// Every so many layers one sees the whole context.
    pub period: u64,
    /// The first layers, with Gaussian top-k.
    pub sparse: u64,
    pub ffn: u64,
    pub per_layer: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    /// `ffn_down` of the sparse layers with a row a neuron.
    pub neuron_major: bool,
}

impl Nested {
    /// Six layers, the last two share; every row is whole blocks of every type.
    pub fn blocks() -> Self {
        Self {
            ty: TensorType::F32,
            embedding: 256,
            layers: 6,
            shared: 2,
            period: 2,
            sparse: 2,
            ffn: 768,
            per_layer: 256,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            neuron_major: false,
        }
    }

    /// E4B's layers and their widths.
    pub fn e4b() -> Self {
        Self {
            ty: TensorType::Q4_0,
            embedding: 32,
            layers: 35,
            shared: 15,
            period: 5,
            sparse: 10,
            ffn: 16384,
            per_layer: 32,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            neuron_major: false,
        }
    }

    pub fn layers_of(gguf: &Gguf) -> usize {
        gguf.metadata().u32("gemma3n.block_count").unwrap().unwrap() as usize
    }

    /// Writes the model; `None` for types that ggml has no quantizer for, or one that needs an
    /// importance matrix.
    pub fn write(&self, path: &Path) -> Option<Arc<Gguf>> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let pool = self.pool(&mut rng)?;
        let mut layout = Layout::default();
        self.set_metadata(&mut layout);
        for (name, ne) in self.tensors() {
            let n_dims = ne.iter().rposition(|&n| n > 1).unwrap_or(0) as u32 + 1;
            let packs = n_dims > 1 && !name.contains("_coef") && self.fits(ne[0]);
            let ty = if packs { self.ty } else { TensorType::F32 };
            layout.add_tensor(&name, ne, n_dims, ty);
        }
        let mut writer = Writer::create(path, &layout, true).unwrap();
        for tensor in &layout.tensors {
            let elements: u64 = tensor.ne.iter().product();
            let mut bytes = Vec::new();
            if tensor.ty == self.ty && self.fits(tensor.ne[0]) && tensor.n_dims > 1 {
                for _ in 0..elements / self.stretch() {
                    bytes.extend_from_slice(&pool[rng.random_range(0..POOL)]);
                }
            } else {
                let centre = if tensor.name.contains("_norm") { 0.6 } else { 0.0 };
                for _ in 0..elements {
                    bytes.extend((centre + rng.random_range(-0.2f32..0.2)).to_le_bytes());
                }
            }
            writer.append(&tensor.name, &bytes).unwrap();
        }
        writer.finish().unwrap();
        Some(Arc::new(Gguf::open(path).unwrap()))
    }

    fn stretch(&self) -> u64 {
        self.ty.block_len().max(16)
    }

    fn fits(&self, row_len: u64) -> bool {
        row_len.is_multiple_of(self.stretch())
    }

    /// Stretches of values in the model's type.
    fn pool(&self, rng: &mut ChaCha8Rng) -> Option<Vec<Vec<u8>>> {
        let ty = Type::weight_from_id(self.ty.id())?;
        let len = self.stretch() as usize;
        let stretch = |_| {
            let values: Vec<f32> = (0..len).map(|_| rng.random_range(-0.1f32..0.1)).collect();
            ggml::quantize(ty, &values, len).ok()
        };
        (0..POOL).map(stretch).collect()
    }

    fn tensors(&self) -> Vec<(String, [u64; 4])> {
        let (e, p, l, f, d) =
            (self.embedding, self.per_layer, self.layers, self.ffn, self.head_dim);
        let (q, kv, a, r, v) = (self.heads * d, self.kv_heads * d, 3, 32, 64);
        let global: [(&str, &[u64]); 7] = [
            ("token_embd", &[e, v]),
            ("per_layer_token_embd", &[p * l, v]),
            ("per_layer_model_proj", &[e, p * l]),
            ("per_layer_proj_norm", &[p]),
            ("altup_proj", &[e, e, a - 1]),
            ("altup_unembd_proj", &[e, e, a - 1]),
            ("output_norm", &[e]),
        ];
        let layer: [(&str, &[u64]); 24] = [
            ("attn_norm", &[e]),
            ("attn_q", &[e, q]),
            ("attn_k", &[e, kv]),
            ("attn_v", &[e, kv]),
            ("attn_q_norm", &[d]),
            ("attn_k_norm", &[d]),
            ("attn_output", &[q, e]),
            ("post_attention_norm", &[e]),
            ("ffn_norm", &[e]),
            ("ffn_gate", &[e, f]),
            ("ffn_up", &[e, f]),
            ("ffn_down", &[f, e]),
            ("post_ffw_norm", &[e]),
            ("inp_gate", &[e, p]),
            ("proj", &[p, e]),
            ("post_norm", &[e]),
            ("altup_correct_coef", &[a, a]),
            ("altup_correct_scale", &[e]),
            ("altup_predict_coef", &[a, a * a]),
            ("altup_router", &[e, a]),
            ("altup_router_norm", &[e]),
            ("laurel_l", &[e, r]),
            ("laurel_r", &[r, e]),
            ("laurel_post_norm", &[e]),
        ];
        let shape = |sizes: &[u64]| {
            let mut ne = [1; 4];
            ne[..sizes.len()].copy_from_slice(sizes);
            ne
        };
        let turns =
            |il: u64, name: &str| self.neuron_major && il < self.sparse && name == "ffn_down";
        let layers = (0..l).flat_map(|il| {
            layer.map(|(name, ne)| match turns(il, name) {
                true => (format!("blk.{il}.ffn_down_t"), shape(&[e, f])),
                false => (format!("blk.{il}.{name}"), shape(ne)),
            })
        });
        let global = global.map(|(name, ne)| (name.to_owned(), shape(ne)));
        global.into_iter().chain(layers).map(|(name, ne)| (format!("{name}.weight"), ne)).collect()
    }

    fn set_metadata(&self, layout: &mut Layout) {
        layout.set("general.architecture", "gemma3n");
        layout.set("general.name", "nested");
        for (key, value) in [
            ("context_length", 64),
            ("embedding_length", self.embedding),
            ("block_count", self.layers),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("attention.sliding_window", 12),
            ("attention.shared_kv_layers", self.shared),
            ("altup.active_idx", 0),
            ("altup.num_inputs", 3),
            ("embedding_length_per_layer_input", self.per_layer),
            ("feed_forward_length", self.ffn),
        ] {
            layout.set(&format!("gemma3n.{key}"), value as u32);
        }
        layout.set("gemma3n.attention.layer_norm_rms_epsilon", 1e-6f32);
        layout.set("gemma3n.rope.freq_base", 1e6f32);
        if self.neuron_major {
            layout.set("gemma3n.cli.layout", 1u32);
        }
        let layers = 0..self.layers;
        let sliding = |il: u64| il % self.period != self.period - 1;
        layout.set(
            "gemma3n.attention.sliding_window_pattern",
            layers.clone().map(sliding).collect::<Vec<bool>>(),
        );
        let scale = |il: u64| if il < self.sparse { 1.281_551_6 } else { f32::NEG_INFINITY };
        layout.set("gemma3n.activation_sparsity_scale", layers.map(scale).collect::<Vec<f32>>());
    }
}
