//! The sizes and constants of a text model, read from a file's metadata.
//!
//! Keys, their variants in published files and the defaults for absent ones: those of llama.cpp's
//! Gemma 3n reader, so that whatever it reads we read alike.

use std::ops::RangeInclusive;

use super::error::{Fault, OpenError};
use crate::gguf::{Gguf, Value};

/// Standard deviations above the mean that 95 % of a normal distribution stay below, in f32.
const SPARSITY_95: f32 = 1.644_853_4;
/// The key of a layout of our own: a number; absent in files that every program reads.
pub const LAYOUT: &str = "gemma3n.cli.layout";
/// The only one so far: `ffn_down` of sparse layers with a row a neuron, `[E, F]`.
pub const NEURON_MAJOR: u32 = 1;
/// The usual name of the matrix: `blk.N.ffn_down.weight`, `[F, E]`.
pub const FFN_DOWN: &str = "ffn_down";
/// Its name then: `blk.N.ffn_down_t.weight`.
pub const FFN_DOWN_T: &str = "ffn_down_t";
/// Ids from here on belong to pictures and sound; none has a row of per-layer embeddings.
const FIRST_SOFT_ID: usize = 262_144;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// The last `window` positions, the query's own among them.
    Sliding,
    /// All positions up to the query's.
    Full,
}

/// A text model's sizes; symbols as in the reference's formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Width of a stream, E.
    pub embedding: usize,
    /// Layers, L.
    pub layers: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Heads of keys and values, K; H is a multiple.
    pub kv_heads: usize,
    /// Width of a head, D; even.
    pub head_dim: usize,
    /// Width of a layer's per-layer input, P.
    pub per_layer: usize,
    /// AltUp streams, A.
    pub streams: usize,
    /// The stream that layers compute.
    pub active: usize,
    /// Positions that sliding layers see, the query's own among them.
    pub window: usize,
    pub eps: f32,
    /// Logits are `cap · tanh(z / cap)`.
    pub softcap: Option<f32>,
    /// Kind of each layer.
    pub kinds: Vec<LayerKind>,
    /// How many of the last layers read an earlier layer's keys and values, S.
    pub shared: usize,
    /// RoPE bases.
    pub rope_full: f32,
    pub rope_sliding: f32,
    /// Neurons of each layer's feed-forward network, F.
    pub ffn: Vec<usize>,
    /// For layers with Gaussian top-k: the cut-off in standard deviations above the mean.
    pub sparsity: Vec<Option<f32>>,
    /// Is `ffn_down` of the layers with a cut-off neuron-major (`gemma3n.cli.layout` = 1)?
    pub neuron_major: bool,
    /// LAuReL's inner width, R.
    pub laurel: usize,
    /// Tokens, V.
    pub vocabulary: usize,
    /// Ids at or above this use row 0 of the per-layer table.
    pub per_layer_vocabulary: usize,
}

impl TextConfig {
    /// Reads and checks the metadata; sizes that have no key come from tensors' shapes.
    ///
    /// # Errors
    /// A key that is missing, of a wrong kind, or out of range; named with the file.
    pub fn read(gguf: &Gguf) -> Result<Self, OpenError> {
        let reader = Reader { gguf };
        match gguf.metadata().str("general.architecture")? {
            Some("gemma3n") => {}
            found => {
                let found = found.unwrap_or("missing").to_owned();
                return Err(reader.fault(Fault::Architecture { found }));
            }
        }
        reader.config()
    }

    /// Layers that own keys and values: those before the shared ones.
    pub fn owners(&self) -> usize {
        self.layers - self.shared
    }

    /// The layer whose keys and values layer `il` reads: its own, or the last owner of its kind.
    pub fn kv_source(&self, il: usize) -> usize {
        let owners = self.owners();
        if il < owners {
            return il;
        }
        let kind = self.kinds[il];
        (0..owners).rfind(|&o| self.kinds[o] == kind).expect("checked when the config was read")
    }

    /// The last layer whose keys and values are stored: a position whose logits nobody asks for
    /// is done with once they are.
    pub fn last_owner(&self) -> usize {
        self.owners() - 1
    }
}

struct Reader<'a> {
    gguf: &'a Gguf,
}

impl Reader<'_> {
    fn fault(&self, fault: Fault) -> OpenError {
        OpenError::Model { file: self.gguf.path().to_path_buf(), fault }
    }

    fn bad(&self, key: &str, problem: impl Into<String>) -> OpenError {
        self.fault(Fault::Key { key: format!("gemma3n.{key}"), problem: problem.into() })
    }

    fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<usize>, OpenError> {
        let Some(value) = self.gguf.metadata().u32(&format!("gemma3n.{key}"))? else {
            return Ok(None);
        };
        if !range.contains(&value) {
            let problem = format!("expected {} to {}, found {value}", range.start(), range.end());
            return Err(self.bad(key, problem));
        }
        Ok(Some(value as usize))
    }

    fn required(&self, key: &str, range: RangeInclusive<u32>) -> Result<usize, OpenError> {
        self.number(key, range)?
            .ok_or_else(|| self.fault(Fault::MissingKey(format!("gemma3n.{key}"))))
    }

    /// A finite number above zero.
    fn positive(&self, key: &str) -> Result<Option<f32>, OpenError> {
        let value = self.gguf.metadata().f32(&format!("gemma3n.{key}"))?;
        match value {
            Some(x) if !(x.is_finite() && x > 0.0) => {
                Err(self.bad(key, format!("expected a number above 0, found {x}")))
            }
            value => Ok(value),
        }
    }

    fn is_array(&self, key: &str) -> bool {
        matches!(self.gguf.metadata().get(&format!("gemma3n.{key}")), Some(Value::Array(_)))
    }

    /// Checks that an array has an entry for each layer.
    fn per_layer<T>(&self, key: &str, values: Vec<T>, layers: usize) -> Result<Vec<T>, OpenError> {
        if values.len() != layers {
            let problem = format!("expected {layers} entries, found {}", values.len());
            return Err(self.bad(key, problem));
        }
        Ok(values)
    }

    /// A number, or an array with the same number for every layer.
    fn uniform(&self, key: &str, layers: usize) -> Result<Option<usize>, OpenError> {
        if !self.is_array(key) {
            return self.number(key, 1..=1 << 16);
        }
        let values = self.gguf.metadata().u32_array(&format!("gemma3n.{key}"))?.unwrap_or_default();
        let values = self.per_layer(key, values, layers)?;
        match values.first() {
            Some(&first) if first > 0 && values.iter().all(|&v| v == first) => {
                Ok(Some(first as usize))
            }
            _ => Err(self.bad(key, "layers differ, which Gemma 3n's do not")),
        }
    }

    /// A tensor's dimension, for sizes without a key.
    fn dimension(&self, tensor: &str, dim: usize) -> Result<usize, OpenError> {
        let found = self.gguf.tensor(tensor);
        let tensor = found.ok_or_else(|| self.fault(Fault::MissingTensor(tensor.to_owned())))?;
        Ok(tensor.ne[dim] as usize)
    }

    fn config(&self) -> Result<TextConfig, OpenError> {
        let layers = self.required("block_count", 1..=512)?;
        let embedding = self.required("embedding_length", 1..=1 << 20)?;
        let heads = match self.uniform("attention.head_count", layers)? {
            Some(heads) => heads,
            None => {
                return Err(self.fault(Fault::MissingKey("gemma3n.attention.head_count".into())));
            }
        };
        let kv_heads = self.uniform("attention.head_count_kv", layers)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let problem = format!("{heads} query heads cannot share {kv_heads} evenly");
            return Err(self.bad("attention.head_count_kv", problem));
        }
        let head_dim = match self.number("attention.key_length", 2..=1 << 14)? {
            Some(dim) => dim,
            None => self.number("head_dim", 2..=1 << 14)?.unwrap_or(embedding / heads),
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(self.bad("attention.key_length", format!("{head_dim} is not even")));
        }
        let value_dim = self.number("attention.value_length", 1..=1 << 14)?.unwrap_or(head_dim);
        if value_dim != head_dim {
            let problem = format!("expected {head_dim} like the keys, found {value_dim}");
            return Err(self.bad("attention.value_length", problem));
        }
        let streams = self.number("altup.num_inputs", 2..=16)?.unwrap_or(4);
        let active = self.number("altup.active_idx", 0..=streams as u32 - 1)?.unwrap_or(0);
        let per_layer = match self.number("embedding_length_per_layer_input", 1..=1 << 16)? {
            Some(width) => width,
            None => self.dimension("per_layer_proj_norm.weight", 0)?,
        };
        let eps = self.positive("attention.layer_norm_rms_epsilon")?;
        let vocabulary = self.dimension("token_embd.weight", 1)?;
        let table = self.dimension("per_layer_token_embd.weight", 1)?;
        let per_layer_vocabulary = self
            .number("cli.vocab_size_per_layer_input", 1..=u32::MAX)?
            .unwrap_or(FIRST_SOFT_ID)
            .min(table);
        let kinds = self.kinds(layers)?;
        let sparsity = self.sparsity(layers)?;
        Ok(TextConfig {
            context_length: self.required("context_length", 1..=1 << 24)?,
            embedding,
            layers,
            heads,
            kv_heads,
            head_dim,
            per_layer,
            streams,
            active,
            window: self.required("attention.sliding_window", 1..=1 << 24)?,
            eps: eps.ok_or_else(|| {
                self.fault(Fault::MissingKey("gemma3n.attention.layer_norm_rms_epsilon".into()))
            })?,
            softcap: Some(self.positive("final_logit_softcapping")?.unwrap_or(30.0)),
            shared: self.shared(layers, &kinds)?,
            kinds,
            rope_full: self.positive("rope.freq_base")?.unwrap_or(10_000.0),
            rope_sliding: match self.positive("rope.freq_base_swa")? {
                Some(base) => base,
                None => self.positive("rope.freq_base_local")?.unwrap_or(10_000.0),
            },
            ffn: self.ffn(layers)?,
            neuron_major: self.neuron_major(&sparsity)?,
            sparsity,
            laurel: self.dimension("blk.0.laurel_l.weight", 1)?,
            vocabulary,
            per_layer_vocabulary,
        })
    }

    /// An array of booleans (true: sliding), or a period whose last layer is a full one.
    fn kinds(&self, layers: usize) -> Result<Vec<LayerKind>, OpenError> {
        let key = "attention.sliding_window_pattern";
        let sliding = if self.is_array(key) {
            let values = self.gguf.metadata().bool_array(&format!("gemma3n.{key}"))?;
            self.per_layer(key, values.unwrap_or_default(), layers)?
        } else {
            let period = self.number(key, 1..=512)?.unwrap_or(5);
            (0..layers).map(|il| il % period != period - 1).collect()
        };
        let kind = |sliding| if sliding { LayerKind::Sliding } else { LayerKind::Full };
        Ok(sliding.into_iter().map(kind).collect())
    }

    /// Absent: all layers from the 20th on share, as llama.cpp has it.
    fn shared(&self, layers: usize, kinds: &[LayerKind]) -> Result<usize, OpenError> {
        let key = "attention.shared_kv_layers";
        let shared = match self.number(key, 0..=layers as u32 - 1)? {
            Some(shared) => shared,
            None => layers.saturating_sub(20),
        };
        let (owners, sharing) = kinds.split_at(layers - shared);
        match sharing.iter().find(|kind| !owners.contains(kind)) {
            Some(kind) => {
                let problem = format!("no layer before the shared ones has {kind:?} attention");
                Err(self.bad(key, problem))
            }
            None => Ok(shared),
        }
    }

    fn ffn(&self, layers: usize) -> Result<Vec<usize>, OpenError> {
        let key = "feed_forward_length";
        if !self.is_array(key) {
            return Ok(vec![self.required(key, 1..=1 << 24)?; layers]);
        }
        let values = self.gguf.metadata().u32_array(&format!("gemma3n.{key}"))?;
        let values = self.per_layer(key, values.unwrap_or_default(), layers)?;
        match values.iter().find(|&&width| !(1..=1 << 24).contains(&width)) {
            Some(width) => Err(self.bad(key, format!("a width of {width}"))),
            None => Ok(values.into_iter().map(|width| width as usize).collect()),
        }
    }

    /// Layouts of our own are refused by number where they are not known (design §8).
    fn neuron_major(&self, sparsity: &[Option<f32>]) -> Result<bool, OpenError> {
        let bad = |problem: String| self.fault(Fault::Key { key: LAYOUT.to_owned(), problem });
        match self.gguf.metadata().u32(LAYOUT)? {
            None => Ok(false),
            Some(NEURON_MAJOR) if sparsity.iter().all(Option::is_none) => {
                Err(bad("neuron-major ffn_down in sparse layers, but no layer is sparse".into()))
            }
            Some(NEURON_MAJOR) => Ok(true),
            Some(other) => {
                Err(bad(format!("layout {other} is not known here, only {NEURON_MAJOR}")))
            }
        }
    }

    /// Multipliers of the standard deviation; the converter writes −∞ for dense layers.
    fn sparsity(&self, layers: usize) -> Result<Vec<Option<f32>>, OpenError> {
        let key = "activation_sparsity_scale";
        let Some(values) = self.gguf.metadata().f32_array(&format!("gemma3n.{key}"))? else {
            return Ok((0..layers).map(|il| (il < 10).then_some(SPARSITY_95)).collect());
        };
        let values = self.per_layer(key, values, layers)?;
        if let Some(value) = values.iter().find(|v| v.is_nan() || **v == f32::INFINITY) {
            return Err(self.bad(key, format!("a scale of {value}")));
        }
        Ok(values.into_iter().map(|v| (v > 0.0).then_some(v)).collect())
    }
}
