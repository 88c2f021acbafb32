//! Running the model: ids in, logits out, the cache between.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::ggml::Threads;
use crate::model::config::{LayerKind, TextConfig};
use crate::model::error::StepError;
use crate::model::scope::{Kernels, Reading, TapValue};
use crate::tokenizer::TokenId;

use super::TextModel;
use super::cache::{Cache, CacheType};
use super::graph::{KindInputs, PositionInputs, Shape, TextGraph};
use super::rope::Frequencies;

/// How a decoder runs.
#[derive(Clone, Debug)]
pub struct DecoderOptions {
    /// Positions the cache holds.
    pub context: usize,
    /// Tokens of one step at most.
    pub batch: usize,
    pub cache: CacheType,
    pub threads: usize,
    pub kernels: Kernels,
}

/// Of which tokens of a step logits are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    None,
    Last,
    All,
}

/// What a step reads: ids, and the rows that take the place of their embeddings, for pictures,
/// sounds and the ids of the towers' own vocabularies. The per-layer inputs stay those of the ids.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    pub ids: &'a [TokenId],
    /// Which token, and its embedding `[E]`; ascending.
    pub embeddings: &'a [(usize, &'a [f32])],
}

impl<'a> From<&'a [TokenId]> for Tokens<'a> {
    fn from(ids: &'a [TokenId]) -> Self {
        Self { ids, embeddings: &[] }
    }
}

impl<'a, const N: usize> From<&'a [TokenId; N]> for Tokens<'a> {
    fn from(ids: &'a [TokenId; N]) -> Self {
        Self::from(&ids[..])
    }
}

impl<'a> From<&'a Vec<TokenId>> for Tokens<'a> {
    fn from(ids: &'a Vec<TokenId>) -> Self {
        Self::from(&ids[..])
    }
}

/// A batch of tokens; `first` is its first token's place among those of the embeddings.
#[derive(Clone, Copy)]
struct Batch<'a> {
    tokens: Tokens<'a>,
    first: usize,
}

impl<'a> Tokens<'a> {
    fn batches(self, size: usize) -> impl Iterator<Item = Batch<'a>> {
        self.ids.chunks(size).scan(0, move |first, ids| {
            let embedding =
                |place: usize| self.embeddings.partition_point(|&(token, _)| token < place);
            let end = *first + ids.len();
            let embeddings = &self.embeddings[embedding(*first)..embedding(end)];
            let batch = Batch { tokens: Tokens { ids, embeddings }, first: *first };
            *first = end;
            Some(batch)
        })
    }
}

/// Graphs kept for shapes that come again.
const GRAPHS: usize = 4;
/// Of graphs with more intermediate values than this (bytes) only one is kept.
const LARGE: usize = 16 << 20;

/// A model with a cache: one sequence of tokens.
pub struct Decoder {
    model: Arc<TextModel>,
    options: DecoderOptions,
    threads: Threads,
    cache: Cache,
    graphs: VecDeque<TextGraph>,
    frequencies: [Frequencies; 2],
}

impl Decoder {
    /// A decoder with an empty cache.
    ///
    /// # Errors
    /// Options that do not go together with the model; a context that memory does not hold.
    pub fn new(model: Arc<TextModel>, options: DecoderOptions) -> Result<Self, StepError> {
        let c = model.config();
        if options.context == 0 || options.batch == 0 {
            return Err(StepError::Options("context and batch size must be at least 1".into()));
        }
        if options.cache == CacheType::Q8_0 && !c.head_dim.is_multiple_of(32) {
            let text = format!("a q8_0 cache needs heads of a multiple of 32, not {}", c.head_dim);
            return Err(StepError::Options(text));
        }
        let batch = options.batch.min(options.context);
        let cache = Cache::new(c, options.context, batch, options.cache)
            .ok_or(StepError::ContextMemory { context: options.context })?;
        let threads = Threads::new(options.threads);
        let frequencies = [
            Frequencies::new(c.rope_full, c.head_dim),
            Frequencies::new(c.rope_sliding, c.head_dim),
        ];
        let options = DecoderOptions { batch, ..options };
        Ok(Self { model, options, threads, cache, graphs: VecDeque::new(), frequencies })
    }

    pub fn model(&self) -> &Arc<TextModel> {
        &self.model
    }

    pub fn options(&self) -> &DecoderOptions {
        &self.options
    }

    /// Positions in the cache.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions the cache can hold.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Bytes of the cache when full.
    pub fn cache_bytes(&self) -> usize {
        self.cache.memory()
    }

    /// Forgets all positions and marks.
    pub fn clear(&mut self) {
        self.cache.clear();
    }

    /// Marks the start of a turn: `truncate` can come back here, for the last four marks.
    pub fn snapshot(&mut self) {
        self.cache.snapshot();
    }

    /// Rolls back to the greatest reachable length at most `len` and returns it; what lies
    /// between is to be prefilled again.
    pub fn truncate(&mut self, len: usize) -> usize {
        self.cache.truncate(len)
    }

    /// Once true, the flag ends a running step between two nodes, as if it had not begun.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.threads.set_interrupt(flag);
    }

    /// Takes tokens into the cache; stops at the last layer that owns K/V.
    ///
    /// # Errors
    /// See [`StepError`]; batches before the failing one stay in the cache.
    pub fn prefill<'a>(&mut self, tokens: impl Into<Tokens<'a>>) -> Result<(), StepError> {
        self.run(tokens, Logits::None).map(drop)
    }

    /// Takes tokens into the cache and returns the logits that follow the last one.
    ///
    /// # Errors
    /// See [`StepError`]; batches before the failing one stay in the cache.
    pub fn prefill_logits<'a>(
        &mut self,
        tokens: impl Into<Tokens<'a>>,
    ) -> Result<Vec<f32>, StepError> {
        self.run(tokens, Logits::Last)
    }

    /// Takes tokens into the cache, a batch at a time, and returns the logits asked for, one
    /// row of the vocabulary's size after the other.
    ///
    /// # Errors
    /// See [`StepError`]; batches before the failing one stay in the cache.
    pub fn run<'a>(
        &mut self,
        tokens: impl Into<Tokens<'a>>,
        logits: Logits,
    ) -> Result<Vec<f32>, StepError> {
        let tokens = tokens.into();
        self.check(tokens)?;
        let mut all = Vec::new();
        for batch in tokens.batches(self.options.batch) {
            let end = batch.first + batch.tokens.ids.len();
            let rows = match logits {
                Logits::All => batch.tokens.ids.len(),
                Logits::Last if end == tokens.ids.len() => 1,
                Logits::None | Logits::Last => 0,
            };
            self.step(batch, rows, Reading::Logits, &mut |graph| {
                if let Some(output) = graph.logits {
                    all.extend_from_slice(graph.graph.read(output));
                }
            })?;
        }
        Ok(all)
    }

    /// One step of at most a batch with every intermediate value and all logits (tap `logits`).
    ///
    /// # Errors
    /// See [`StepError`].
    pub fn trace<'a>(&mut self, tokens: impl Into<Tokens<'a>>) -> Result<Vec<TapValue>, StepError> {
        let tokens = tokens.into();
        let ids = tokens.ids;
        self.check(tokens)?;
        if ids.len() > self.options.batch {
            let text = format!("{} tokens in a batch of {}", ids.len(), self.options.batch);
            return Err(StepError::Options(text));
        }
        let vocabulary = self.model.config().vocabulary;
        let mut values = Vec::new();
        self.step(Batch { tokens, first: 0 }, ids.len(), Reading::Taps, &mut |graph| {
            let read = |output| graph.graph.read(output).to_vec();
            values.extend(graph.taps.iter().map(|tap| TapValue {
                name: tap.name.clone(),
                ne: tap.ne,
                values: read(tap.output),
            }));
            if let Some(output) = graph.logits {
                let ne = [vocabulary, ids.len(), 1, 1];
                values.push(TapValue { name: "logits".into(), ne, values: read(output) });
            }
        })?;
        Ok(values)
    }

    /// Takes tokens into the cache, every one through all layers, and hands over the sums of
    /// squares `Σ x²` of each product's input: weight's name, sums by column, rows summed; for each
    /// batch, and as often as the weight is used. The products are those of the layers.
    ///
    /// # Errors
    /// See [`StepError`]; batches before the failing one stay in the cache.
    pub fn observe(
        &mut self,
        ids: &[TokenId],
        sums: &mut dyn FnMut(&str, &[f32], usize),
    ) -> Result<(), StepError> {
        let tokens = Tokens::from(ids);
        self.check(tokens)?;
        for batch in tokens.batches(self.options.batch) {
            let n = batch.tokens.ids.len();
            self.step(batch, n, Reading::Squares, &mut |graph| {
                for squares in &graph.squares {
                    sums(&squares.weight, graph.graph.read(squares.output), n);
                }
            })?;
        }
        Ok(())
    }

    /// Writes what is needed to go on at this length, K and V in the order of positions.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn save_state(&self, out: &mut dyn Write) -> io::Result<()> {
        self.cache.save(out)
    }

    /// Reads what `save_state` of the same model and cache type wrote.
    ///
    /// # Errors
    /// An early end or a length beyond the context; the cache is empty then.
    pub fn load_state(&mut self, input: &mut dyn Read) -> io::Result<()> {
        self.cache.load(input)
    }

    fn check(&self, tokens: Tokens<'_>) -> Result<(), StepError> {
        let (vocabulary, width) = (self.model.config().vocabulary, self.model.config().embedding);
        let ascending = tokens.embeddings.is_sorted_by(|(a, _), (b, _)| a < b);
        let last = tokens.embeddings.last().is_none_or(|&(token, _)| token < tokens.ids.len());
        if !ascending || !last || tokens.embeddings.iter().any(|(_, row)| row.len() != width) {
            let text = format!("embeddings that are not rows of {width} for some of the tokens");
            return Err(StepError::Options(text));
        }
        let given = |token| tokens.embeddings.binary_search_by_key(&token, |&(i, _)| i).is_ok();
        let beyond = |(i, id): &(usize, &TokenId)| id.0 as usize >= vocabulary && !given(*i);
        if let Some((_, id)) = tokens.ids.iter().enumerate().find(beyond) {
            return Err(StepError::Token { id: id.0, vocabulary });
        }
        let (needed, capacity) = (self.len() + tokens.ids.len(), self.capacity());
        if needed > capacity {
            return Err(StepError::ContextFull { needed, capacity });
        }
        Ok(())
    }

    /// Runs one batch; `read` sees the graph after it has run.
    fn step(
        &mut self,
        batch: Batch<'_>,
        rows: usize,
        reads: Reading,
        read: &mut dyn FnMut(&TextGraph),
    ) -> Result<(), StepError> {
        let ids = batch.tokens.ids;
        if ids.is_empty() {
            return Ok(());
        }
        let start = self.len();
        let end = start + ids.len();
        let shape = Shape {
            tokens: ids.len(),
            rows,
            full: self.cache.attended(LayerKind::Full, end),
            sliding: self.cache.attended(LayerKind::Sliding, end),
            reads,
        };
        let mut graph = self.take_graph(shape)?;
        self.fill(&mut graph, batch, start);
        let outcome = graph.graph.run(&mut self.threads).map_err(StepError::from);
        let outcome = outcome.and_then(|()| finite(&graph, end - rows));
        self.cache.settle(ids.len(), outcome.is_ok());
        if outcome.is_ok() {
            read(&graph);
        }
        self.keep_graph(graph);
        outcome
    }

    fn take_graph(&mut self, shape: Shape) -> Result<TextGraph, StepError> {
        let kept = self.graphs.iter().position(|graph| graph.shape == shape);
        if let Some(graph) = kept.and_then(|i| self.graphs.remove(i)) {
            return Ok(graph);
        }
        let (config, weights) = (self.model.config(), self.model.weights());
        let (kernels, threads) = (self.options.kernels, &self.threads);
        Ok(TextGraph::new(config, weights, &self.cache, kernels, threads, shape)?)
    }

    fn keep_graph(&mut self, graph: TextGraph) {
        if graph.shape.reads == Reading::Taps {
            return;
        }
        if graph.graph.memory() > LARGE {
            self.graphs.retain(|kept| kept.graph.memory() <= LARGE);
        }
        self.graphs.push_front(graph);
        self.graphs.truncate(GRAPHS);
    }

    /// Writes the inputs of a step that begins at position `start`, and books its slots.
    fn fill(&mut self, graph: &mut TextGraph, batch: Batch<'_>, start: usize) {
        let ids = batch.tokens.ids;
        let c = self.model.config();
        let shape = graph.shape;
        let positions: Vec<usize> = (start..start + ids.len()).collect();
        let first_row = ids.len() - shape.rows;
        let whole = shape.whole_layers(c);

        self.model.will_need(ids);
        let g = &mut graph.graph;
        g.write(graph.embeddings, &self.model.embeddings(batch));
        g.write(graph.per_layer, &self.model.per_layer_rows(ids, 0..whole));
        g.write(graph.full_slots, &self.cache.slots(LayerKind::Full, ids.len()));
        g.write(graph.sliding_slots, &self.cache.slots(LayerKind::Sliding, ids.len()));
        self.cache.begin(ids.len());
        self.write_positions(graph, graph.positions, &positions);
        if let Some(rest) = graph.rest {
            let indices: Vec<i32> = (first_row..ids.len()).map(|row| row as i32).collect();
            graph.graph.write(rest.rows, &indices.repeat(c.streams));
            let rows = self.model.per_layer_rows(&ids[first_row..], c.last_owner()..c.layers);
            graph.graph.write(rest.per_layer, &rows);
            self.write_positions(graph, rest.positions, &positions[first_row..]);
        }
    }

    fn write_positions(&self, graph: &mut TextGraph, inputs: PositionInputs, positions: &[usize]) {
        let shape = graph.shape;
        let kinds: [(LayerKind, KindInputs, usize, &Frequencies); 2] = [
            (LayerKind::Full, inputs.full, shape.full, &self.frequencies[0]),
            (LayerKind::Sliding, inputs.sliding, shape.sliding, &self.frequencies[1]),
        ];
        for (kind, inputs, slots, frequencies) in kinds {
            let (cos, sin) = frequencies.tables(positions);
            graph.graph.write(inputs.cos, &cos);
            graph.graph.write(inputs.sin, &sin);
            graph.graph.write(inputs.mask, &self.cache.mask(kind, positions, slots));
        }
    }
}

/// No number that is not finite gets past here.
fn finite(graph: &TextGraph, first: usize) -> Result<(), StepError> {
    let Some(output) = graph.logits else { return Ok(()) };
    let logits = graph.graph.read(output);
    match logits.iter().position(|value| !value.is_finite()) {
        Some(i) => {
            Err(StepError::NotFinite { position: first + i / (logits.len() / graph.shape.rows) })
        }
        None => Ok(()),
    }
}

impl TextModel {
    /// Token embeddings times √E, or what takes their place: `[E, T]`.
    fn embeddings(&self, batch: Batch<'_>) -> Vec<f32> {
        let e = self.config().embedding;
        let scale = (e as f32).sqrt();
        let Tokens { ids, embeddings } = batch.tokens;
        let mut given = embeddings.iter().peekable();
        let mut values = vec![0.0; e * ids.len()];
        for (i, (row, id)) in values.chunks_exact_mut(e).zip(ids).enumerate() {
            if let Some((_, embedding)) = given.next_if(|(token, _)| *token == batch.first + i) {
                row.copy_from_slice(embedding);
                continue;
            }
            self.weights().token_embd.read(id.0 as usize, 0, row);
            row.iter_mut().for_each(|value| *value *= scale);
        }
        values
    }

    /// Rows of the per-layer table times √P, a range of layers: `[P, layers, T]`.
    fn per_layer_rows(&self, ids: &[TokenId], layers: std::ops::Range<usize>) -> Vec<f32> {
        let c = self.config();
        let width = c.per_layer * layers.len();
        let scale = (c.per_layer as f32).sqrt();
        let mut values = vec![0.0; width * ids.len()];
        if width == 0 {
            return values;
        }
        let runs = self.cut().runs(layers);
        for (row, &id) in values.chunks_exact_mut(width).zip(ids) {
            let index = self.per_layer_row(c, id);
            let mut rest = &mut *row;
            for run in &runs {
                let (part, behind) = rest.split_at_mut(run.len() * c.per_layer);
                self.weights().per_layer_token_embd.read(index, run.start * c.per_layer, part);
                rest = behind;
            }
            row.iter_mut().for_each(|value| *value *= scale);
        }
        values
    }

    /// Ids beyond the per-layer vocabulary use the padding token's row.
    fn per_layer_row(&self, c: &TextConfig, id: TokenId) -> usize {
        let id = id.0 as usize;
        if id < c.per_layer_vocabulary { id } else { 0 }
    }

    /// Asks for the table rows of a step together.
    fn will_need(&self, ids: &[TokenId]) {
        let mut rows: Vec<usize> =
            ids.iter().map(|&id| self.per_layer_row(self.config(), id)).collect();
        rows.sort_unstable();
        rows.dedup();
        self.weights().per_layer_token_embd.will_need(&rows);
    }
}
