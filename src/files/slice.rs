//! A smaller model cut out of a file, packed bytes as they are: a [`Cut`] → a plan.
//!
//! gate, up: rows 0..F′ · down: columns 0..F′ (neuron-major `ffn_down_t`: rows 0..F′) ·
//! per_layer_token_embd: column groups of P, per_layer_model_proj: row groups of P, of the layers
//! that stay · layers numbered anew · arrays with an entry a layer lose those of layers left out.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use super::convert::metadata::size_label;
use super::error::Error;
use super::plan::{LeftOut, Part, Plan, PlannedTensor, Segment, Stored};
use crate::gguf::{Array, Gguf, Layout, OwnedArray, OwnedValue, Tensor, TensorPlan, Value};
use crate::model::config::{FFN_DOWN, FFN_DOWN_T, LAYOUT, LayerKind};
use crate::model::slice::{Cut, Slice, layer_of};
use crate::model::text::TextModel;

/// Which slice a file is ([`Cut::label`]).
const NOTE: &str = "gemma3n.cli.slice";
/// What llama.cpp takes for granted, whatever the file says (gguf.md, section 2.1).
const LLAMA_OWNERS: usize = 20;
const LLAMA_SPARSE: usize = 10;

/// What the smaller model's file is to contain. The model is opened as it would be to run the
/// slice, so that every tensor is checked.
///
/// # Errors
/// The file is no sound model, or the slice does not fit it.
pub fn plan(gguf: &Arc<Gguf>, slice: &Slice) -> Result<Plan, Error> {
    let model = TextModel::open_slice(gguf, Some(slice))?;
    let cut = model.cut();
    let mut plan = Plan { notices: notices(cut), ..Plan::default() };
    for tensor in gguf.tensors() {
        match cut.rename(&tensor.name) {
            Some(name) => plan.tensors.push(planned(cut, tensor, name)),
            None => {
                let name = tensor.name.clone();
                plan.left_out.push(LeftOut { name, reason: "of a layer left out" });
            }
        }
    }
    plan.metadata = metadata(gguf, cut, &plan);
    Ok(plan)
}

/// What llama.cpp makes of it, where that is not this model.
fn notices(cut: &Cut) -> Vec<String> {
    let c = &cut.config;
    let mut notices = Vec::new();
    if c.ffn.iter().any(|width| *width != c.ffn[0]) {
        notices.push("FFN widths differ between layers: llama.cpp does not load this file".into());
    }
    // Of fewer layers llama.cpp takes all.
    if c.owners() != c.layers.min(LLAMA_OWNERS) {
        let own = match c.owners() {
            1 => "1 layer owns".to_owned(),
            n => format!("{n} layers own"),
        };
        notices.push(format!(
            "{own} keys and values, llama.cpp takes {LLAMA_OWNERS} for granted: it computes this \
             file wrongly"
        ));
    }
    if c.sparsity.iter().enumerate().any(|(il, z)| z.is_some() != (il < LLAMA_SPARSE)) {
        let sparse = c.sparsity.iter().filter(|z| z.is_some()).count();
        let first = c.sparsity.iter().take_while(|z| z.is_some()).count();
        let which = match sparse {
            0 => "no layer is sparse".to_owned(),
            1 if first == 1 => "only the first layer is sparse".to_owned(),
            n if n == first => format!("only the first {n} layers are sparse"),
            n => format!("{n} of {} layers are sparse, not only the first ones", c.layers),
        };
        let taken = match c.layers {
            n if n <= LLAMA_SPARSE => "all".to_owned(),
            _ => format!("the first {LLAMA_SPARSE}"),
        };
        notices
            .push(format!("{which}, llama.cpp takes {taken} to be: it computes this file wrongly"));
    }
    notices
}

fn planned(cut: &Cut, tensor: &Tensor, name: String) -> PlannedTensor {
    let row_len = tensor.ne[0];
    let rows: u64 = tensor.ne[1..].iter().product();
    let mut ne = tensor.ne;
    let mut parts = vec![Part::All];
    if let Some((new, suffix)) = layer_of(&name) {
        let (width, full) = (cut.config.ffn[new] as u64, cut.full[new] as u64);
        match suffix.strip_suffix(".weight") {
            _ if width == full => {}
            Some("ffn_gate" | "ffn_up" | FFN_DOWN_T) => {
                ne[1] = width;
                parts = vec![cut_rows(0..width, row_len)];
            }
            Some(FFN_DOWN) => {
                ne[0] = width;
                parts = vec![Part::Cut { rows: 0..rows, columns: iter::once(0..width).collect() }];
            }
            _ => {}
        }
    } else if cut.sources.len() < cut.whole {
        let p = cut.config.per_layer as u64;
        let groups = cut.runs(0..cut.config.layers).into_iter();
        let groups = groups.map(|run| run.start as u64 * p..run.end as u64 * p);
        let kept = cut.config.layers as u64 * p;
        match name.as_str() {
            "per_layer_token_embd.weight" => {
                ne[0] = kept;
                parts = vec![Part::Cut { rows: 0..rows, columns: groups.collect() }];
            }
            "per_layer_model_proj.weight" => {
                ne[1] = kept;
                parts = groups.map(|rows| cut_rows(rows, row_len)).collect();
            }
            _ => {}
        }
    }
    let stored = |part| {
        let name = tensor.name.clone();
        Segment::Stored(Stored { name, ty: tensor.ty, row_len, rows, part })
    };
    let target = TensorPlan { name, ne, n_dims: tensor.n_dims, ty: tensor.ty };
    PlannedTensor::new(target, parts.into_iter().map(stored).collect())
}

/// Whole rows.
fn cut_rows(rows: Range<u64>, row_len: u64) -> Part {
    Part::Cut { rows, columns: iter::once(0..row_len).collect() }
}

/// The file's keys, with what the cut changes.
fn metadata(gguf: &Gguf, cut: &Cut, plan: &Plan) -> Vec<(String, OwnedValue)> {
    let mut layout = Layout::default();
    layout.copy_metadata(gguf.metadata());
    for (key, value) in gguf.metadata().iter() {
        if let Value::Array(array) = value
            && key.starts_with("gemma3n.")
            && array.len() == cut.whole
        {
            layout.set(key, kept(array, cut));
        }
    }
    let c = &cut.config;
    let sliding: Vec<bool> = c.kinds.iter().map(|kind| *kind == LayerKind::Sliding).collect();
    let widths: Vec<i32> = c.ffn.iter().map(|&width| width as i32).collect();
    layout.set("gemma3n.block_count", c.layers as u32);
    layout.set("gemma3n.feed_forward_length", widths);
    layout.set("gemma3n.attention.shared_kv_layers", c.shared as u32);
    layout.set("gemma3n.attention.sliding_window_pattern", sliding);
    let sparsity = "gemma3n.activation_sparsity_scale";
    if gguf.metadata().get(sparsity).is_none() {
        let scale = |z: &Option<f32>| z.unwrap_or(f32::NEG_INFINITY);
        layout.set(sparsity, c.sparsity.iter().map(scale).collect::<Vec<_>>());
    }
    if !plan.tensors.iter().any(|tensor| tensor.target.name.contains(FFN_DOWN_T)) {
        layout.metadata.retain(|(key, _)| key != LAYOUT);
    }
    rename(&mut layout, cut, plan);
    layout.metadata
}

/// The entries of the layers that stay.
fn kept(array: Array<'_>, cut: &Cut) -> OwnedValue {
    macro_rules! kept {
        ($values:expr, $variant:ident) => {
            OwnedArray::$variant(cut.sources.iter().map(|&il| $values[il].clone()).collect())
        };
    }
    OwnedValue::Array(match OwnedArray::from(array) {
        OwnedArray::U8(values) => kept!(values, U8),
        OwnedArray::I8(values) => kept!(values, I8),
        OwnedArray::U16(values) => kept!(values, U16),
        OwnedArray::I16(values) => kept!(values, I16),
        OwnedArray::U32(values) => kept!(values, U32),
        OwnedArray::I32(values) => kept!(values, I32),
        OwnedArray::F32(values) => kept!(values, F32),
        OwnedArray::Bool(values) => kept!(values, Bool),
        OwnedArray::String(values) => kept!(values, String),
        OwnedArray::U64(values) => kept!(values, U64),
        OwnedArray::I64(values) => kept!(values, I64),
        OwnedArray::F64(values) => kept!(values, F64),
    })
}

/// Names and counts that are the bigger model's.
fn rename(layout: &mut Layout, cut: &Cut, plan: &Plan) {
    let label = cut.label();
    let elements = plan.tensors.iter().map(|tensor| tensor.target.ne.iter().product());
    let elements: u64 = elements.fold(0, u64::saturating_add);
    for (key, value) in &mut layout.metadata {
        match (key.as_str(), &mut *value) {
            ("general.name", OwnedValue::String(name)) => {
                name.extend(format!(", slice {label}").into_bytes());
            }
            ("general.size_label", _) => {
                let published = cut.published().map(|c| c.name.replace("-block", ""));
                let published = published.map(|name| name.replace("-layer", "").to_uppercase());
                *value = published.unwrap_or_else(|| size_label(elements)).into();
            }
            ("general.parameter_count", _) => *value = elements.into(),
            _ => {}
        }
    }
    layout.set(NOTE, label);
}
