//! The KV cache: K after its norm and RoPE, V after its norm, of the layers that own them.
//!
//! Full layers keep every position at the slot of its number. Sliding layers keep a ring of
//! window + batch slots: a slot remembers its position, and masks come from that. Rows are
//! `[D·K]` of all KV heads. Reference: reference.md §4.4, 4.5; design §8.1.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use half::f16;

use crate::ggml::{Stored, Type};
use crate::model::config::{LayerKind, TextConfig};

/// Element type of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheType {
    F32,
    #[default]
    F16,
    Q8_0,
}

impl CacheType {
    fn ty(self) -> Type {
        match self {
            Self::F32 => Type::F32,
            Self::F16 => Type::F16,
            Self::Q8_0 => Type::Q8_0,
        }
    }
}

/// Keys and values of one layer, `[D·K, slots]` each.
pub struct KvCache {
    pub k: Stored,
    pub v: Stored,
    kind: LayerKind,
}

/// Snapshots of the rings that are kept, one for the start of each of the last turns.
const SNAPSHOTS: usize = 4;
/// Attended lengths are rounded up to this, so that a graph serves many steps.
const BUCKET: usize = 256;

pub struct Cache {
    layers: Vec<KvCache>,
    row_bytes: usize,
    window: usize,
    /// Positions the context holds.
    capacity: usize,
    /// Slots of a ring.
    ring: usize,
    /// Position that each slot of the rings holds.
    ring_positions: Vec<Option<usize>>,
    /// Positions that are stored: 0..len.
    len: usize,
    snapshots: VecDeque<Snapshot>,
}

/// The rings' contents at a length: rows in the order of positions, layer by layer, K then V.
struct Snapshot {
    len: usize,
    first: usize,
    bytes: Vec<u8>,
}

impl Cache {
    /// An empty cache for `capacity` positions, written at most `batch` at a time. `None`: no
    /// memory for it.
    pub fn new(config: &TextConfig, capacity: usize, batch: usize, ty: CacheType) -> Option<Self> {
        let ring = config.window.saturating_add(batch).min(capacity);
        let width = config.kv_heads * config.head_dim;
        let layer = |kind: LayerKind| {
            let slots = if kind == LayerKind::Full { capacity } else { ring };
            let tensor = || Stored::zeroed(ty.ty(), [width, slots, 1, 1]);
            Some(KvCache { k: tensor()?, v: tensor()?, kind })
        };
        let owners = &config.kinds[..config.owners()];
        let layers = owners.iter().map(|&kind| layer(kind)).collect::<Option<_>>()?;
        let mut ring_positions = Vec::new();
        ring_positions.try_reserve_exact(ring).ok()?;
        ring_positions.resize(ring, None);
        Some(Self {
            layers,
            row_bytes: ty.ty().row_bytes(width),
            window: config.window,
            capacity,
            ring,
            ring_positions,
            len: 0,
            snapshots: VecDeque::new(),
        })
    }

    /// The cache of an owning layer.
    pub fn layer(&self, il: usize) -> &KvCache {
        &self.layers[il]
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots that layers of a kind look at once `len` positions are stored.
    pub fn attended(&self, kind: LayerKind, len: usize) -> usize {
        let slots = if kind == LayerKind::Full { self.capacity } else { self.ring };
        len.next_multiple_of(BUCKET).min(slots)
    }

    /// The slots of `count` new positions.
    pub fn slots(&self, kind: LayerKind, count: usize) -> Vec<i64> {
        let slots = if kind == LayerKind::Full { self.capacity } else { self.ring };
        (self.len..self.len + count).map(|position| (position % slots) as i64).collect()
    }

    /// Books `count` new positions, which a graph is about to write; `settle` follows.
    pub fn begin(&mut self, count: usize) {
        for position in self.len..self.len + count {
            self.ring_positions[position % self.ring] = Some(position);
        }
    }

    /// Ends what `begin` began: the positions are stored, or (after an interruption) forgotten.
    pub fn settle(&mut self, count: usize, stored: bool) {
        if stored {
            self.len += count;
        } else {
            self.forget(self.len);
        }
    }

    /// The mask of queries at `positions` over the attended slots: 0 where a key is seen.
    pub fn mask(&self, kind: LayerKind, positions: &[usize], slots: usize) -> Vec<f16> {
        let mut mask = vec![f16::NEG_INFINITY; slots * positions.len()];
        for (row, &query) in mask.chunks_exact_mut(slots).zip(positions) {
            match kind {
                LayerKind::Full => row[..=query].fill(f16::ZERO),
                LayerKind::Sliding => {
                    for (value, position) in row.iter_mut().zip(&self.ring_positions) {
                        let seen = position.is_some_and(|p| p <= query && query - p < self.window);
                        if seen {
                            *value = f16::ZERO;
                        }
                    }
                }
            }
        }
        mask
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.snapshots.clear();
    }

    /// Goes back to the greatest length at most `len` whose window is still there (in the ring or
    /// in a snapshot), and returns it.
    pub fn truncate(&mut self, len: usize) -> usize {
        let wanted = len.min(self.len);
        let in_ring = (0..=wanted).rev().find(|&n| self.has_window(n)).unwrap_or(0);
        let snapshot = self.snapshots.iter().rposition(|s| s.len <= wanted);
        match snapshot {
            Some(i) if self.snapshots[i].len > in_ring => self.restore(i),
            _ => self.len = in_ring,
        }
        self.forget(self.len);
        self.snapshots.retain(|s| s.len <= self.len);
        self.len
    }

    /// Are the positions that a query at `len` sees still in the rings?
    fn has_window(&self, len: usize) -> bool {
        self.window_of(len)
            .all(|position| self.ring_positions[position % self.ring] == Some(position))
    }

    /// The stored positions that a query at `len` sees.
    fn window_of(&self, len: usize) -> std::ops::Range<usize> {
        len.saturating_sub(self.window - 1)..len
    }

    fn forget(&mut self, len: usize) {
        for position in &mut self.ring_positions {
            if position.is_some_and(|p| p >= len) {
                *position = None;
            }
        }
    }

    /// Keeps the rings as they are now, so that `truncate` can come back to this length.
    pub fn snapshot(&mut self) {
        // Rings that hold the whole context never lose a position.
        let forgets = self.ring < self.capacity;
        if !forgets || self.snapshots.back().is_some_and(|s| s.len == self.len) {
            return;
        }
        let positions = self.window_of(self.len);
        let first = positions.start;
        let mut bytes = Vec::new();
        for layer in self.layers.iter().filter(|layer| layer.kind == LayerKind::Sliding) {
            for tensor in [&layer.k, &layer.v] {
                for position in positions.clone() {
                    bytes.extend_from_slice(row(tensor, position % self.ring, self.row_bytes));
                }
            }
        }
        if self.snapshots.len() == SNAPSHOTS {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back(Snapshot { len: self.len, first, bytes });
    }

    fn restore(&mut self, i: usize) {
        let snapshot = &self.snapshots[i];
        let (first, len, ring, row_bytes) =
            (snapshot.first, snapshot.len, self.ring, self.row_bytes);
        let mut rows = snapshot.bytes.chunks_exact(row_bytes);
        for layer in self.layers.iter_mut().filter(|layer| layer.kind == LayerKind::Sliding) {
            for tensor in [&mut layer.k, &mut layer.v] {
                for position in first..len {
                    let row = rows.next().expect("a snapshot holds every row");
                    tensor.write_row(position % ring, row);
                }
            }
        }
        self.ring_positions.fill(None);
        for position in first..len {
            self.ring_positions[position % ring] = Some(position);
        }
        self.len = len;
    }

    /// Writes length and rows, in the order of positions: full layers all, sliding ones what
    /// their rings hold without a gap.
    pub fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let kept = self.ring_run();
        for word in [self.len, kept] {
            out.write_all(&(word as u64).to_le_bytes())?;
        }
        for layer in &self.layers {
            let (first, slots) = match layer.kind {
                LayerKind::Full => (0, self.capacity),
                LayerKind::Sliding => (self.len - kept, self.ring),
            };
            for tensor in [&layer.k, &layer.v] {
                for position in first..self.len {
                    out.write_all(row(tensor, position % slots, self.row_bytes))?;
                }
            }
        }
        Ok(())
    }

    /// How many of the last positions the rings hold, all of them in a row.
    fn ring_run(&self) -> usize {
        let held = |position: &usize| self.ring_positions[position % self.ring] == Some(*position);
        (0..self.len).rev().take_while(held).count()
    }

    /// Reads what `save` wrote for the same config and type.
    ///
    /// # Errors
    /// More positions than the context holds, or an early end; the cache is empty then.
    pub fn load(&mut self, input: &mut dyn Read) -> io::Result<()> {
        self.clear();
        let outcome = self.load_rows(input);
        if outcome.is_err() {
            self.len = 0;
            self.ring_positions.fill(None);
        }
        outcome
    }

    fn load_rows(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let mut words = [0; 2];
        for word in &mut words {
            let mut bytes = [0; 8];
            input.read_exact(&mut bytes)?;
            *word = u64::from_le_bytes(bytes);
        }
        let [len, kept] = words;
        if len > self.capacity as u64 {
            return Err(invalid(format!(
                "{len} positions, but the context holds {}",
                self.capacity
            )));
        }
        let (len, kept) = (len as usize, usize::try_from(kept).unwrap_or(usize::MAX));
        if kept > len || kept < self.window_of(len).len() {
            return Err(invalid(format!("{kept} of {len} positions cannot be a window")));
        }
        self.len = len;
        let mut bytes = vec![0; self.row_bytes];
        for il in 0..self.layers.len() {
            let (first, slots) = match self.layers[il].kind {
                LayerKind::Full => (0, self.capacity),
                LayerKind::Sliding => (len - kept, self.ring),
            };
            for value in [false, true] {
                // A smaller ring ends with the last positions: later rows go over earlier ones.
                for position in first..len {
                    input.read_exact(&mut bytes)?;
                    let layer = &mut self.layers[il];
                    let tensor = if value { &mut layer.v } else { &mut layer.k };
                    tensor.write_row(position % slots, &bytes);
                }
            }
        }
        for position in len - kept..len {
            self.ring_positions[position % self.ring] = Some(position);
        }
        Ok(())
    }

    /// Bytes of all keys and values.
    pub fn memory(&self) -> usize {
        self.layers.iter().map(|layer| layer.k.len() + layer.v.len()).sum()
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn row(tensor: &Stored, slot: usize, row_bytes: usize) -> &[u8] {
    &tensor.bytes()[slot * row_bytes..(slot + 1) * row_bytes]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::tests::config;

    fn filled(capacity: usize, batch: usize, len: usize) -> Cache {
        let mut cache = Cache::new(&config(), capacity, batch, CacheType::F32).unwrap();
        for start in (0..len).step_by(batch) {
            let count = batch.min(len - start);
            cache.begin(count);
            for il in 0..cache.layers.len() {
                let slots = cache.slots(cache.layers[il].kind, count);
                for (i, slot) in slots.into_iter().enumerate() {
                    let bytes = vec![(start + i) as u8; cache.row_bytes];
                    cache.layers[il].k.write_row(slot as usize, &bytes);
                    cache.layers[il].v.write_row(slot as usize, &bytes);
                }
            }
            cache.settle(count, true);
        }
        cache
    }

    fn seen(cache: &Cache, kind: LayerKind, query: usize) -> Vec<u8> {
        let slots = cache.attended(kind, cache.len().max(query + 1));
        let layer = cache.layers.iter().find(|layer| layer.kind == kind).unwrap();
        let mask = cache.mask(kind, &[query], slots);
        let mut found: Vec<u8> = (0..slots)
            .filter(|&slot| mask[slot] == f16::ZERO)
            .map(|slot| row(&layer.k, slot, cache.row_bytes)[0])
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_query_sees_its_window_and_itself() {
        let cache = filled(64, 5, 40);
        // window 8: the query's own position and the 7 before it
        assert_eq!(seen(&cache, LayerKind::Sliding, 39), (32..40).collect::<Vec<u8>>());
        assert_eq!(seen(&cache, LayerKind::Full, 39), (0..40).collect::<Vec<u8>>());
    }

    #[test]
    fn truncation_goes_no_further_than_the_ring_remembers() {
        let mut cache = filled(64, 5, 40);
        // 13 slots hold 27..40: the window of 34 is 27..34, that of 33 has lost 26
        assert_eq!(cache.truncate(34), 34);
        assert_eq!(seen(&cache, LayerKind::Sliding, 33), (27..34).collect::<Vec<u8>>());
        let mut cache = filled(64, 5, 40);
        assert_eq!(cache.truncate(33), 0);
    }

    #[test]
    fn a_snapshot_brings_its_window_back() {
        let mut cache = filled(64, 5, 20);
        cache.snapshot();
        cache.begin(5);
        cache.settle(5, true);
        cache.begin(5);
        cache.settle(5, true);
        cache.begin(5);
        cache.settle(5, true);
        assert_eq!(cache.len(), 35);
        assert_eq!(cache.truncate(22), 20);
        assert_eq!(seen(&cache, LayerKind::Sliding, 19), (13..20).collect::<Vec<u8>>()[..]);
    }

    #[test]
    fn rings_that_never_wrap_need_no_snapshot() {
        let mut cache = filled(10, 5, 9);
        cache.snapshot();
        assert!(cache.snapshots.is_empty());
        assert_eq!(cache.truncate(3), 3);
        assert_eq!(seen(&cache, LayerKind::Sliding, 2), [0, 1, 2]);
    }

    #[test]
    fn a_context_that_no_memory_holds_is_refused() {
        for capacity in [1 << 50, usize::MAX / 8, usize::MAX] {
            assert!(Cache::new(&config(), capacity, 512, CacheType::F16).is_none());
            assert!(Cache::new(&config(), capacity, capacity, CacheType::F16).is_none());
        }
    }

    #[test]
    fn an_interrupted_step_leaves_the_window_whole() {
        let mut cache = filled(64, 5, 40);
        cache.begin(5);
        cache.settle(5, false);
        assert_eq!(cache.len(), 40);
        assert!(cache.has_window(40));
        assert_eq!(seen(&cache, LayerKind::Sliding, 39), (32..40).collect::<Vec<u8>>());
    }

    #[test]
    fn saved_rows_fit_a_cache_with_another_ring() {
        let cache = filled(64, 5, 40);
        let mut bytes = Vec::new();
        cache.save(&mut bytes).unwrap();
        let mut other = Cache::new(&config(), 50, 11, CacheType::F32).unwrap();
        other.load(&mut bytes.as_slice()).unwrap();
        assert_eq!(other.len(), 40);
        assert_eq!(seen(&other, LayerKind::Sliding, 39), (32..40).collect::<Vec<u8>>());
        assert_eq!(seen(&other, LayerKind::Full, 39), (0..40).collect::<Vec<u8>>());
        // the ring of 13 slots came whole, and with it the way back
        assert_eq!(other.truncate(34), 34);
        assert_eq!(seen(&other, LayerKind::Sliding, 33), (27..34).collect::<Vec<u8>>());
        for end in [0, 7, 8, 15, 16, 100, bytes.len() - 1] {
            assert!(other.load(&mut &bytes[..end]).is_err());
            assert_eq!(other.len(), 0);
        }
    }
}
