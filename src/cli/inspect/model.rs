//! What the metadata say of a transformer, read as liberally as writers differ.

use std::cell::RefCell;

use serde::Serialize;

use crate::gguf::{Error, Gguf, Metadata, Value};

/// The architecture of Gemma 3n text models.
pub(super) const GEMMA3N: &str = "gemma3n";

/// Facts of a text model; what a file does not say is absent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Model {
    /// `E2B`, `E4B`, the name of a published slice, or nothing.
    pub size: Option<String>,
    pub layers: Option<u64>,
    pub width: Option<u64>,
    /// FFN widths, one a layer.
    pub ffn: Vec<u64>,
    pub heads: Option<u64>,
    pub kv_heads: Option<u64>,
    pub head_size: Option<u64>,
    pub context: Option<u64>,
    pub window: Option<u64>,
    /// Layers with a sliding window; the others see the whole context.
    pub sliding_layers: Option<u64>,
    pub shared_kv_layers: Option<u64>,
    /// Layers whose FFN is sparse by design.
    pub sparse_layers: Option<u64>,
    pub per_layer_width: Option<u64>,
    pub altup_streams: Option<u64>,
    pub softcap: Option<f32>,
    pub vocabulary: Option<u64>,
    /// A layout of our own (`gemma3n.cli.layout`); absent in files that every program reads.
    pub layout: Option<u64>,
}

/// `ffn_down` of sparse layers neuron-major, as `blk.N.ffn_down_t.weight`.
pub(super) const NEURON_MAJOR: u64 = 1;

/// Reads keys of one architecture; a key of the wrong kind becomes a remark, not an error.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
    remarks: RefCell<Vec<String>>,
}

impl<'a> Keys<'a> {
    pub fn new(metadata: &'a Metadata, architecture: &'a str) -> Self {
        Self { metadata, architecture, remarks: RefCell::default() }
    }

    /// What was wrong with the keys that were read.
    pub fn into_remarks(self) -> Vec<String> {
        self.remarks.into_inner()
    }

    /// The value of `ARCHITECTURE.key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(&self.name(key))
    }

    pub fn u64(&self, key: &str) -> Option<u64> {
        self.read(self.metadata.u64(&self.name(key)))
    }

    fn f32(&self, key: &str) -> Option<f32> {
        self.read(self.metadata.f32(&self.name(key)))
    }

    fn bools(&self, key: &str) -> Option<Vec<bool>> {
        self.read(self.metadata.bool_array(&self.name(key)))
    }

    fn floats(&self, key: &str) -> Option<Vec<f32>> {
        self.read(self.metadata.f32_array(&self.name(key)))
    }

    /// A number for each layer, from an array or one number for all.
    fn per_layer(&self, key: &str, layers: Option<u64>) -> Vec<u64> {
        if let Some(Value::Array(_)) = self.get(key) {
            let values = self.read(self.metadata.u32_array(&self.name(key)));
            return values.unwrap_or_default().into_iter().map(u64::from).collect();
        }
        /// More layers than this are a fault of the file.
        const MOST: u64 = 1 << 16;
        match (self.u64(key), layers) {
            (Some(value), Some(layers)) if layers <= MOST => vec![value; layers as usize],
            _ => Vec::new(),
        }
    }

    /// The number, or the largest of an array of them.
    fn largest(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Array(_)) => self.per_layer(key, None).into_iter().max(),
            _ => self.u64(key),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn read<T>(&self, result: Result<Option<T>, Error>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.remarks.borrow_mut().push(error.fault.to_string());
            None
        })
    }
}

impl Model {
    /// The facts of a file with a `block_count`; nothing for others.
    pub fn of(gguf: &Gguf, keys: &Keys<'_>) -> Option<Self> {
        let layers = keys.u64("block_count")?;
        let heads = keys.largest("attention.head_count");
        let width = keys.u64("embedding_length");
        let even_split = || width?.checked_div(heads?);
        let pattern = keys.bools("attention.sliding_window_pattern");
        let sparsity = keys.floats("activation_sparsity_scale");
        let vocabulary = gguf.tensor("token_embd.weight").map(|tensor| tensor.ne[1]);
        Some(Self {
            size: None,
            layers: Some(layers),
            width,
            ffn: keys.per_layer("feed_forward_length", Some(layers)),
            heads,
            kv_heads: keys.largest("attention.head_count_kv"),
            head_size: keys.u64("attention.key_length").or_else(even_split),
            context: keys.u64("context_length"),
            window: keys.u64("attention.sliding_window"),
            sliding_layers: pattern.map(|p| p.iter().filter(|&&sliding| sliding).count() as u64),
            shared_kv_layers: keys.u64("attention.shared_kv_layers"),
            sparse_layers: sparsity.map(|s| s.iter().filter(|&&scale| scale > 0.0).count() as u64),
            per_layer_width: keys.u64("embedding_length_per_layer_input"),
            altup_streams: keys.u64("altup.num_inputs"),
            softcap: keys.f32("final_logit_softcapping"),
            vocabulary,
            layout: keys.u64("cli.layout"),
        })
    }
}
