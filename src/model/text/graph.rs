//! The text graph for one class of shapes, written once and run many times.
//!
//! With fewer rows than tokens, prefill stops early: tokens whose logits nobody asks for are done
//! with once the last owner of K/V has theirs (design §5.1). That layer's K and V need its input
//! and its norm and nothing else; from there on only the rows go on. Exact: the shared layers
//! read what the cache holds, and every other mechanism is per token.

use crate::ggml::{Builder, Graph, Input, Output, RunError, Tensor, Threads, Type};
use crate::model::config::{LayerKind, TextConfig};

use super::Scope;
use super::attention::{Reach, Rotation};
use super::cache::Cache;
use super::layer::{self, Surroundings};
use super::weights::TextWeights;
use super::{altup, head, per_layer};
use crate::model::scope::{Activations, Kernels, Reading, Squares, Tap};

/// What makes two steps run the same graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Tokens of the step.
    pub tokens: usize,
    /// The last so many of them whose logits are asked for.
    pub rows: usize,
    /// Slots attended to in full and in sliding layers.
    pub full: usize,
    pub sliding: usize,
    pub reads: Reading,
}

impl Shape {
    /// Do some tokens end at the last owner of K/V?
    pub fn stops_early(&self) -> bool {
        self.rows < self.tokens
    }

    /// Layers that run for every token, in whole.
    pub fn whole_layers(&self, config: &TextConfig) -> usize {
        if self.stops_early() { config.last_owner() } else { config.layers }
    }
}

/// Nodes a layer takes at most, counted generously (taps add copies).
const NODES_A_LAYER: usize = 400;

/// Inputs of one kind of layer for one set of tokens.
#[derive(Clone, Copy)]
pub struct KindInputs {
    pub cos: Input,
    pub sin: Input,
    pub mask: Input,
}

/// Inputs of all kinds for one set of tokens.
#[derive(Clone, Copy)]
pub struct PositionInputs {
    pub full: KindInputs,
    pub sliding: KindInputs,
}

pub struct TextGraph {
    pub shape: Shape,
    pub graph: Graph,
    /// f32 `[E, T]`
    pub embeddings: Input,
    /// f32 `[P, whole layers, T]`
    pub per_layer: Input,
    /// i64 `[T]`, of full and of sliding layers
    pub full_slots: Input,
    pub sliding_slots: Input,
    pub positions: PositionInputs,
    /// What only the rows need, where prefill stops early and there are rows.
    pub rest: Option<RestInputs>,
    /// f32 `[V, rows]`
    pub logits: Option<Output>,
    pub taps: Vec<Tap>,
    pub squares: Vec<Squares>,
}

#[derive(Clone, Copy)]
pub struct RestInputs {
    /// i32 `[rows, A]`: index of each row among the tokens, the same for every stream
    pub rows: Input,
    /// f32 `[P, layers from the last owner on, rows]`
    pub per_layer: Input,
    pub positions: PositionInputs,
}

/// Tables and masks in a graph, for both kinds of layers.
#[derive(Clone, Copy)]
struct Positions<'b> {
    full: (Rotation<'b>, Reach<'b>),
    sliding: (Rotation<'b>, Reach<'b>),
}

impl<'b> Positions<'b> {
    fn new(
        b: &'b Builder,
        config: &TextConfig,
        shape: Shape,
        tokens: usize,
    ) -> (Self, PositionInputs) {
        let kind = |slots: usize| {
            let table = || b.input(Type::F32, [config.head_dim / 2, 1, tokens, 1]);
            let ((cos, cos_input), (sin, sin_input)) = (table(), table());
            let (mask, mask_input) = b.input(Type::F16, [slots, tokens, 1, 1]);
            let inputs = KindInputs { cos: cos_input, sin: sin_input, mask: mask_input };
            ((Rotation { cos, sin }, Reach { mask, slots }), inputs)
        };
        let (full, full_inputs) = kind(shape.full);
        let (sliding, sliding_inputs) = kind(shape.sliding);
        (Self { full, sliding }, PositionInputs { full: full_inputs, sliding: sliding_inputs })
    }

    fn of(&self, kind: LayerKind) -> (Rotation<'b>, Reach<'b>) {
        match kind {
            LayerKind::Full => self.full,
            LayerKind::Sliding => self.sliding,
        }
    }
}

impl TextGraph {
    /// Writes the graph. `shape.full` and `shape.sliding` are slots of `cache`.
    ///
    /// # Errors
    /// There is no memory for its intermediate values.
    pub fn new(
        config: &TextConfig,
        weights: &TextWeights,
        cache: &Cache,
        kernels: Kernels,
        threads: &Threads,
        shape: Shape,
    ) -> Result<Self, RunError> {
        let b = Builder::new(NODES_A_LAYER * (config.layers + 2), threads);
        let scope = Scope::new(&b, config, config.eps, kernels, shape.reads);
        let (c, t) = (config, shape.tokens);
        let whole = shape.whole_layers(c);
        let (e0, embeddings) = b.input(Type::F32, [c.embedding, t, 1, 1]);
        let (rows, per_layer) = b.input(Type::F32, [c.per_layer, whole, t, 1]);
        let (full_slots, full_slots_input) = b.input(Type::I64, [t, 1, 1, 1]);
        let (sliding_slots, sliding_slots_input) = b.input(Type::I64, [t, 1, 1, 1]);
        let (positions, position_inputs) = Positions::new(&b, c, shape, t);
        scope.tap("embeds", e0);
        // The oracle keeps some rows of the one and all of the other.
        scope.tap("embeds_merged", e0);
        scope.tap("per_layer_token_embeds", rows);

        let embedded = Activations::new(e0);
        let inputs =
            (whole > 0).then(|| per_layer::inputs(&scope, weights, 0..whole, &embedded, rows));
        if let Some(inputs) = inputs {
            scope.tap("per_layer_inputs", inputs);
        }
        let mut writer = Writer {
            s: &scope,
            weights,
            cache,
            slots: (full_slots, sliding_slots),
            stored: Vec::new(),
        };
        let mut streams = altup::init(&scope, weights, e0);
        for il in 0..whole {
            let input = per_layer::of_layer(&scope, inputs.expect("there are whole layers"), il);
            streams = writer.whole_layer(il, streams, input, positions);
        }
        let rest = shape
            .stops_early()
            .then(|| writer.rest(shape, streams, &embedded, positions))
            .flatten();
        let rest = rest.map(|(narrowed, inputs)| {
            streams = narrowed;
            inputs
        });
        let logits = (shape.rows > 0 && shape.reads != Reading::Squares).then(|| {
            scope.enter(String::new());
            b.output(head::head(&scope, weights, streams))
        });
        let (taps, squares) = scope.into_readings();
        Ok(Self {
            shape,
            graph: b.finish()?,
            embeddings,
            per_layer,
            full_slots: full_slots_input,
            sliding_slots: sliding_slots_input,
            positions: position_inputs,
            rest,
            logits,
            taps,
            squares,
        })
    }
}

struct Writer<'b, 'c> {
    s: &'c Scope<'b>,
    weights: &'c TextWeights,
    cache: &'c Cache,
    /// Slots of the new positions in full and in sliding layers.
    slots: (Tensor<'b>, Tensor<'b>),
    /// K and V that each owning layer stored in this step.
    stored: Vec<(Tensor<'b>, Tensor<'b>)>,
}

impl<'b> Writer<'b, '_> {
    /// A layer for every token.
    fn whole_layer(
        &mut self,
        il: usize,
        streams: Tensor<'b>,
        input: Tensor<'b>,
        positions: Positions<'b>,
    ) -> Tensor<'b> {
        let opened = self.open(il, streams, positions);
        self.close(il, opened, input, positions)
    }

    /// A layer's first part, with K and V where it owns them.
    fn open(
        &mut self,
        il: usize,
        streams: Tensor<'b>,
        positions: Positions<'b>,
    ) -> layer::Opened<'b> {
        let (s, w) = (self.s, &self.weights.layers[il]);
        s.enter(format!("layer{il:02}."));
        let kind = s.config.kinds[il];
        let opened = layer::open(s, w, streams);
        if il < s.config.owners() {
            let (rotation, _) = positions.of(kind);
            let slots = match kind {
                LayerKind::Full => self.slots.0,
                LayerKind::Sliding => self.slots.1,
            };
            let stored = opened.store_kv(s, w, self.cache.layer(il), rotation, slots);
            self.stored.push(stored);
        }
        opened
    }

    fn close(
        &self,
        il: usize,
        opened: layer::Opened<'b>,
        input: Tensor<'b>,
        positions: Positions<'b>,
    ) -> Tensor<'b> {
        let (s, w) = (self.s, &self.weights.layers[il]);
        let (rotation, reach) = positions.of(s.config.kinds[il]);
        let source = s.config.kv_source(il);
        if s.has_taps() {
            let (k, v) = self.stored[source];
            s.tap("k", k);
            s.tap("v", v);
        }
        let cache = self.cache.layer(source);
        opened.close(s, w, il, Surroundings { cache, rotation, reach, input })
    }

    /// From the last owner of K/V on: its K and V for every token, then the rows alone. The
    /// streams of the rows, if any are asked for.
    fn rest(
        &mut self,
        shape: Shape,
        streams: Tensor<'b>,
        embedded: &Activations<'b>,
        positions: Positions<'b>,
    ) -> Option<(Tensor<'b>, RestInputs)> {
        let (s, c) = (self.s, self.s.config);
        let last = c.last_owner();
        let opened = self.open(last, streams, positions);
        if shape.rows == 0 {
            return None;
        }
        let (rows, rows_input) = s.b.input(Type::I32, [shape.rows, c.streams, 1, 1]);
        let (table, table_input) =
            s.b.input(Type::F32, [c.per_layer, c.layers - last, shape.rows, 1]);
        let (positions, position_inputs) = Positions::new(s.b, c, shape, shape.rows);
        let one = rows.slice(1, 0, 1).reshape([shape.rows, 1, 1, 1]);
        let embedded = Activations::new(embedded.f32.get_rows(one));
        let inputs = per_layer::inputs(s, self.weights, last..c.layers, &embedded, table);
        let input = |il: usize| per_layer::of_layer(s, inputs, il - last);
        let opened = opened.select(s, &self.weights.layers[last], rows);
        let mut streams = self.close(last, opened, input(last), positions);
        for il in last + 1..c.layers {
            streams = self.whole_layer(il, streams, input(il), positions);
        }
        let inputs =
            RestInputs { rows: rows_input, per_layer: table_input, positions: position_inputs };
        Some((streams, inputs))
    }
}
