//! Running the tower: a picture's pixels in, soft tokens out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::config::VisionConfig;
use super::tower::tower;
use super::{Map, Scope, VisionModel};
use crate::ggml::{Builder, Graph, Input, Output, Threads, Type};
use crate::model::error::StepError;
use crate::model::scope::{Kernels, Reading, Tap, TapValue};
use crate::model::tower::EncoderOptions;
use crate::model::tower::convolution::Constants;
use crate::model::tower::embedder::{hard_tokens, soft_tokens};

/// A tower with its threads and the graph of the size used last.
pub struct Encoder {
    model: Arc<VisionModel>,
    kernels: Kernels,
    threads: Threads,
    graph: Option<TowerGraph>,
}

/// Nodes a block takes at most, counted generously (taps add copies).
const NODES_A_BLOCK: usize = 64;

struct TowerGraph {
    side: usize,
    graph: Graph,
    pixels: Input,
    constants: Constants,
    soft_tokens: Output,
    taps: Vec<Tap>,
}

impl Encoder {
    pub fn new(model: Arc<VisionModel>, options: EncoderOptions) -> Self {
        let threads = Threads::new(options.threads);
        Self { model, kernels: options.kernels, threads, graph: None }
    }

    /// Once true, the flag ends a running picture between two nodes.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.threads.set_interrupt(flag);
    }

    /// Sides are multiples of this: the last map is half the fused one, and
    /// that is pooled evenly. 256 for the real one.
    fn step(&self) -> usize {
        let (stride, grid) = (1 << self.model.weights.stages.len(), self.config().grid);
        stride * if grid.is_multiple_of(2) { grid } else { 2 * grid }
    }

    /// The sides that the tower takes, in pixels: up to that of its training.
    pub fn sides(&self) -> impl Iterator<Item = usize> + use<> {
        let (step, most) = (self.step(), self.config().image_size);
        (step..=most).step_by(step)
    }

    /// Whether the tower takes pictures of this side.
    pub fn takes(&self, side: usize) -> bool {
        self.sides().any(|taken| taken == side)
    }

    fn config(&self) -> &VisionConfig {
        &self.model.config
    }

    /// A picture of `side × side` pixels, `[3, side²]` in [0, 1], channels together: soft tokens
    /// `[E, soft_tokens]`, row by row of the picture.
    ///
    /// # Errors
    /// Interrupted, out of memory, or not finite.
    ///
    /// # Panics
    /// The side is not one that the tower [takes](Self::takes), or the pixels are not so many.
    pub fn encode(&mut self, pixels: &[f32], side: usize) -> Result<Vec<f32>, StepError> {
        let graph = self.run(pixels, side, false)?;
        let soft_tokens = graph.graph.read(graph.soft_tokens).to_vec();
        if soft_tokens.iter().any(|value| !value.is_finite()) {
            return Err(StepError::NotFiniteTower("vision"));
        }
        Ok(soft_tokens)
    }

    /// As [`Encoder::encode`], with every intermediate value; `soft_tokens` is the last.
    ///
    /// # Errors
    /// Interrupted, or out of memory.
    pub fn trace(&mut self, pixels: &[f32], side: usize) -> Result<Vec<TapValue>, StepError> {
        let graph = self.run(pixels, side, true)?;
        let value = |tap: &Tap| TapValue {
            name: tap.name.clone(),
            ne: tap.ne,
            values: graph.graph.read(tap.output).to_vec(),
        };
        let values = graph.taps.iter().map(value).collect();
        self.graph = None;
        Ok(values)
    }

    fn run(&mut self, pixels: &[f32], side: usize, taps: bool) -> Result<&TowerGraph, StepError> {
        assert!(self.takes(side) && pixels.len() == 3 * side * side, "a picture of {side} pixels");
        let kept = self.graph.take().filter(|graph| graph.side == side && !taps);
        let mut graph = match kept {
            Some(graph) => graph,
            None => TowerGraph::new(&self.model, self.kernels, &self.threads, side, taps)?,
        };
        graph.graph.write(graph.pixels, pixels);
        graph.constants.write(&mut graph.graph);
        graph.graph.run(&mut self.threads)?;
        Ok(self.graph.insert(graph))
    }

    /// The embedding of every id of the vision vocabulary, `[E, ids]`.
    ///
    /// # Errors
    /// Interrupted, or out of memory.
    pub fn hard_tokens(&mut self) -> Result<Vec<f32>, StepError> {
        let b = Builder::new(NODES_A_BLOCK, &self.threads);
        let s =
            Scope::new(&b, &self.model.config, self.config().eps, self.kernels, Reading::Logits);
        let output = b.output(hard_tokens(&s, &self.model.weights.embedder));
        drop(s);
        let mut graph = b.finish()?;
        graph.run(&mut self.threads)?;
        Ok(graph.read(output).to_vec())
    }
}

impl TowerGraph {
    fn new(
        model: &VisionModel,
        kernels: Kernels,
        threads: &Threads,
        side: usize,
        taps: bool,
    ) -> Result<Self, StepError> {
        let (config, weights) = (&model.config, &model.weights);
        let blocks = weights.stages.iter().map(Vec::len).sum::<usize>() + 4;
        let b = Builder::new(NODES_A_BLOCK * blocks, threads);
        let reads = if taps { Reading::Taps } else { Reading::Logits };
        let s = Scope::new(&b, config, config.eps, kernels, reads);
        let mut constants = Constants::default();
        let (x, pixels) = b.input(Type::F32, [3, side * side, 1, 1]);
        let picture = Map { x, width: side, height: side };
        let features = tower(&s, &mut constants, weights, picture);
        // The reference scales a picture's features, and no sound's (`get_image_features`).
        let [width, ..] = features.ne();
        let scaled = features.scale((width as f32).sqrt());
        let soft = soft_tokens(&s, &weights.embedder, scaled);
        s.tap("soft_tokens", soft);
        let soft_tokens = b.output(soft);
        let (taps, _) = s.into_readings();
        Ok(Self { side, graph: b.finish()?, pixels, constants, soft_tokens, taps })
    }
}
