//! Running the tower: a clip's log-mel features in, soft tokens out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::config::{AudioConfig, TOWER_EPS};
use super::subsampling::subsampled;
use super::tower::tower;
use super::{AudioModel, Scope};
use crate::ggml::{Builder, Graph, Input, Output, Threads, Type};
use crate::model::error::StepError;
use crate::model::scope::{Kernels, Reading, Tap, TapValue};
use crate::model::tower::EncoderOptions;
use crate::model::tower::convolution::Constants;
use crate::model::tower::embedder::{hard_tokens, soft_tokens};

/// A tower with its threads and the graph of the size used last.
pub struct Encoder {
    model: Arc<AudioModel>,
    kernels: Kernels,
    threads: Threads,
    graph: Option<TowerGraph>,
    /// The embedding of the padding id, once it was needed.
    padding: Option<Vec<f32>>,
}

/// Nodes a block takes at most, counted generously (taps add copies).
const NODES_A_BLOCK: usize = 192;

/// What a graph is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    /// Frames of features.
    frames: usize,
    /// Subsampled frames that are the sound's own.
    valid: usize,
}

struct TowerGraph {
    size: Size,
    graph: Graph,
    features: Input,
    constants: Constants,
    soft_tokens: Output,
    taps: Vec<Tap>,
}

impl Encoder {
    pub fn new(model: Arc<AudioModel>, options: EncoderOptions) -> Self {
        let threads = Threads::new(options.threads);
        Self { model, kernels: options.kernels, threads, graph: None, padding: None }
    }

    /// Once true, the flag ends a running clip between two nodes.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.threads.set_interrupt(flag);
    }

    fn config(&self) -> &AudioConfig {
        &self.model.config
    }

    /// Features `[mel bins, frames]` of a clip, and which frames are of the sound itself (the
    /// first; the rest is padding): soft tokens `[E, soft_tokens]`, filled up with the embedding
    /// of the padding id.
    ///
    /// # Errors
    /// No frame of sound, more than the soft tokens hold, interrupted, out of memory, or not
    /// finite.
    ///
    /// # Panics
    /// The features are not so many.
    pub fn encode(&mut self, features: &[f32], valid: &[bool]) -> Result<Vec<f32>, StepError> {
        let graph = self.run(features, valid, false)?;
        let mut soft = graph.graph.read(graph.soft_tokens).to_vec();
        if soft.iter().any(|value| !value.is_finite()) {
            return Err(StepError::NotFiniteTower("audio"));
        }
        let padding = self.padding()?;
        let rows = self.config().soft_tokens;
        while soft.len() < rows * padding.len() {
            soft.extend_from_slice(&padding);
        }
        Ok(soft)
    }

    /// As [`Encoder::encode`], with every intermediate value; of the soft tokens, the last of
    /// them, there are only the sound's own.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn trace(&mut self, features: &[f32], valid: &[bool]) -> Result<Vec<TapValue>, StepError> {
        let graph = self.run(features, valid, true)?;
        let value = |tap: &Tap| TapValue {
            name: tap.name.clone(),
            ne: tap.ne,
            values: graph.graph.read(tap.output).to_vec(),
        };
        let values = graph.taps.iter().map(value).collect();
        self.graph = None;
        Ok(values)
    }

    fn run(
        &mut self,
        features: &[f32],
        valid: &[bool],
        taps: bool,
    ) -> Result<&TowerGraph, StepError> {
        assert_eq!(features.len(), self.config().mel_bins * valid.len(), "features of frames");
        let size = self.size(valid)?;
        let kept = self.graph.take().filter(|graph| graph.size == size && !taps);
        let mut graph = match kept {
            Some(graph) => graph,
            None => TowerGraph::new(&self.model, self.kernels, &self.threads, size, taps)?,
        };
        graph.graph.write(graph.features, features);
        graph.constants.write(&mut graph.graph);
        graph.graph.run(&mut self.threads)?;
        Ok(self.graph.insert(graph))
    }

    fn size(&self, valid: &[bool]) -> Result<Size, StepError> {
        let config = self.config();
        let (frames, own) = (valid.len(), valid.iter().take_while(|&&valid| valid).count());
        let subsampled = subsampled(&self.model.weights, config.strides, frames);
        // A subsampled frame is valid if the first of its own frames is.
        let stride: usize = config.strides.iter().map(|[down, _]| down).product();
        let valid = if own == frames { subsampled } else { own.div_ceil(stride).min(subsampled) };
        let size = Size { frames, valid };
        let soft = size.valid.div_ceil(config.reduction);
        match soft {
            0 => Err(StepError::Options("the clip has no frame of sound".to_owned())),
            _ if soft > config.soft_tokens => Err(StepError::Options(format!(
                "the clip gives {soft} soft tokens, more than the {} there is room for",
                config.soft_tokens
            ))),
            _ => Ok(size),
        }
    }

    fn padding(&mut self) -> Result<Vec<f32>, StepError> {
        if let Some(padding) = &self.padding {
            return Ok(padding.clone());
        }
        let index = self.config().pad_id - self.config().vocab_offset;
        let rows = self.hard_tokens()?;
        let [_, ids, ..] = self.model.weights.embedder.table.ne();
        let width = rows.len() / ids;
        let padding = rows[index * width..(index + 1) * width].to_vec();
        Ok(self.padding.insert(padding).clone())
    }

    /// The embedding of every id of the audio vocabulary, `[E, ids]`.
    ///
    /// # Errors
    /// Interrupted, or out of memory.
    pub fn hard_tokens(&mut self) -> Result<Vec<f32>, StepError> {
        let b = Builder::new(NODES_A_BLOCK, &self.threads);
        let config = &self.model.config;
        let s = Scope::new(&b, config, config.eps, self.kernels, Reading::Logits);
        let output = b.output(hard_tokens(&s, &self.model.weights.embedder));
        drop(s);
        let mut graph = b.finish()?;
        graph.run(&mut self.threads)?;
        Ok(graph.read(output).to_vec())
    }
}

impl TowerGraph {
    fn new(
        model: &AudioModel,
        kernels: Kernels,
        threads: &Threads,
        size: Size,
        taps: bool,
    ) -> Result<Self, StepError> {
        let (config, weights) = (&model.config, &model.weights);
        let b = Builder::new(NODES_A_BLOCK * (weights.blocks.len() + 4), threads);
        let reads = if taps { Reading::Taps } else { Reading::Logits };
        let mut s = Scope::new(&b, config, TOWER_EPS, kernels, reads);
        let mut constants = Constants::default();
        let (x, features) = b.input(Type::F32, [config.mel_bins, size.frames, 1, 1]);
        let frames = tower(&s, &mut constants, weights, x, size.valid);
        s.eps = config.eps;
        let soft = soft_tokens(&s, &weights.embedder, frames);
        s.tap("soft_tokens", soft);
        let soft_tokens = b.output(soft);
        let (taps, _) = s.into_readings();
        Ok(Self { size, graph: b.finish()?, features, constants, soft_tokens, taps })
    }
}
