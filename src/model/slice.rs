//! MatFormer: a smaller model inside a bigger one.
//!
//! A layer of width F′ < F is its first F′ neurons: rows 0..F′ of gate and up, columns 0..F′ of
//! down. A layer left out takes with it its group of the per-layer row (P values), its P rows of
//! the per-layer projection, and its entry in every array of sizes; what is left is numbered
//! anew. The count of sharing layers falls by one for each of them that is left out, and a layer
//! whose keys and values others read can't go.
//!
//! A [`Slice`] is what is asked for; a [`Cut`] is that, checked against a model. Files and
//! tensors at load are made of the same cut. Design §8; reference: Gemma3nTextConfig of the
//! smaller model (num_hidden_layers, intermediate_size, num_kv_shared_layers).

use std::fmt;
use std::ops::Range;

use super::config::TextConfig;
use super::matformer::{self, CONFIGURATIONS, Configuration, NameError};
use crate::gguf::{Gguf, TensorType};

/// Widths of the layers that stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Widths {
    /// As they are.
    Kept,
    /// The same for all.
    All(usize),
    /// One for each.
    Each(Vec<usize>),
}

/// A smaller model that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub widths: Widths,
    /// Layers left out, as the bigger model numbers them.
    pub left_out: Vec<usize>,
    /// For a row of the published list: its name and the layers of the model that it speaks of.
    listed: Option<(String, usize)>,
}

/// Text that describes no slice.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0:?} is no list of widths (2_048 * 4, 8192, …)")]
    Widths(String),
    #[error("{0:?} is no list of layers")]
    Layers(String),
    #[error("expected one row of the published list, found {0}")]
    Rows(usize),
    #[error("a row has a name, then [widths], then [layers left out]; found {0:?}")]
    Row(String),
}

/// Why a slice can't be cut out of a model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceFault {
    #[error("layer {layer} is to be left out, but the model has layers 0 to {last}")]
    NoSuchLayer { layer: usize, last: usize },
    #[error("layer {0} is to be left out twice")]
    Twice(usize),
    #[error("no layer would stay")]
    NothingStays,
    #[error("{given} FFN widths are given for the {kept} layers that stay")]
    WidthCount { given: usize, kept: usize },
    #[error("it is cut out of {whole} layers (or the {kept} that stay); the model has {layers}")]
    LayerCount { whole: usize, kept: usize, layers: usize },
    #[error("layer {0} can't have an FFN width of 0")]
    NoWidth(usize),
    #[error("layer {layer}: an FFN width of {wanted} is asked for, the model's is {has}")]
    TooWide { layer: usize, wanted: usize, has: usize },
    #[error("layer {layer} can't be left out: layer {reader} reads its keys and values")]
    IsRead { layer: usize, reader: usize },
    #[error("there is nothing to cut: this is the model as it is")]
    NothingToCut,
    #[error("tensor {tensor}: {ty} comes in blocks of {block}: a width of {width} is not whole blocks{}", nearest_width(.nearest))]
    WidthBlocks {
        tensor: String,
        ty: TensorType,
        block: u64,
        width: usize,
        /// Widths that are, below and above.
        nearest: Vec<u64>,
    },
    #[error(
        "tensor {tensor}: {ty} comes in blocks of {block}: a layer's {values} values are not whole \
         blocks, so that no layer can be left out"
    )]
    GroupBlocks { tensor: &'static str, ty: TensorType, block: u64, values: usize },
}

fn nearest_width(nearest: &[u64]) -> String {
    let nearest: Vec<_> = nearest.iter().map(u64::to_string).collect();
    format!("; {} would be", nearest.join(" or "))
}

impl Slice {
    /// A slice of one's own.
    pub fn new(widths: Widths, left_out: Vec<usize>) -> Self {
        Self { widths, left_out, listed: None }
    }

    /// Reads a name ([`matformer::find`]), or a row of the published list.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.contains('[') { Self::row(text) } else { Ok(matformer::find(text)?.into()) }
    }

    /// Reads a file in the form of the published list (CSV; comments and header are passed over)
    /// that holds one row.
    ///
    /// # Errors
    /// It holds none or several, or the row can't be read.
    pub fn parse_file(text: &str) -> Result<Self, ParseError> {
        let rows: Vec<_> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#') && line.contains('['))
            .collect();
        match rows[..] {
            [row] => Self::row(row),
            _ => Err(ParseError::Rows(rows.len())),
        }
    }

    /// `name,layers,parameters,accuracy,"[2_048 * 4, …]","[20, …]"`
    fn row(text: &str) -> Result<Self, ParseError> {
        let fault = || ParseError::Row(text.trim().to_owned());
        let lists = text
            .split('[')
            .skip(1)
            .map(|rest| rest.split_once(']').map(|(list, _)| list))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(fault)?;
        let (widths, left_out) = match lists[..] {
            [widths] => (widths, ""),
            [widths, left_out] => (widths, left_out),
            _ => return Err(fault()),
        };
        let widths = parse_widths(widths)?;
        let left_out = parse_layers(left_out)?;
        let name = text.split([',', '[']).next().unwrap_or_default();
        let name = name.trim_matches(|c: char| c == '"' || c == '\'' || c.is_whitespace());
        let name = if name.is_empty() { "of a row" } else { name };
        let whole = widths.len() + left_out.len();
        let listed = Some((name.to_owned(), whole));
        Ok(Self { widths: Widths::Each(widths), left_out, listed })
    }

    /// Checks the slice against a model and works out the smaller model.
    ///
    /// # Errors
    /// The model has not what the slice asks for.
    pub fn cut(&self, model: &TextConfig) -> Result<Cut, SliceFault> {
        let left_out = self.left_out(model)?;
        let sources: Vec<usize> = (0..model.layers).filter(|il| !left_out.contains(il)).collect();
        if sources.is_empty() {
            return Err(SliceFault::NothingStays);
        }
        let full: Vec<usize> = sources.iter().map(|&il| model.ffn[il]).collect();
        let ffn = match &self.widths {
            Widths::Kept => full.clone(),
            Widths::All(width) => vec![*width; sources.len()],
            Widths::Each(widths) => widths.clone(),
        };
        if ffn.len() != sources.len() {
            return Err(SliceFault::WidthCount { given: ffn.len(), kept: sources.len() });
        }
        for ((&layer, &has), &wanted) in sources.iter().zip(&full).zip(&ffn) {
            if wanted == 0 {
                return Err(SliceFault::NoWidth(layer));
            }
            if wanted > has {
                return Err(SliceFault::TooWide { layer, wanted, has });
            }
        }
        let sharing = sources.iter().filter(|&&il| il >= model.owners());
        for &reader in sharing.clone() {
            let layer = model.kv_source(reader);
            if left_out.contains(&layer) {
                return Err(SliceFault::IsRead { layer, reader });
            }
        }
        let shared = sharing.count();
        if left_out.is_empty() && ffn == full {
            return Err(SliceFault::NothingToCut);
        }
        let config = TextConfig {
            layers: sources.len(),
            kinds: sources.iter().map(|&il| model.kinds[il]).collect(),
            sparsity: sources.iter().map(|&il| model.sparsity[il]).collect(),
            shared,
            neuron_major: model.neuron_major
                && sources.iter().any(|&il| model.sparsity[il].is_some()),
            ffn,
            ..model.clone()
        };
        Ok(Cut { config, sources, full, whole: model.layers })
    }

    /// The layers left out, in order. A row of the list may be cut out of a model that lacks the
    /// layers to be left out already.
    fn left_out(&self, model: &TextConfig) -> Result<Vec<usize>, SliceFault> {
        if let (Some((_, whole)), Widths::Each(widths)) = (&self.listed, &self.widths)
            && model.layers != *whole
        {
            if model.layers == widths.len() {
                return Ok(Vec::new());
            }
            let (whole, kept, layers) = (*whole, widths.len(), model.layers);
            return Err(SliceFault::LayerCount { whole, kept, layers });
        }
        let mut left_out = self.left_out.clone();
        left_out.sort_unstable();
        if let Some(pair) = left_out.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SliceFault::Twice(pair[0]));
        }
        match left_out.last() {
            Some(&layer) if layer >= model.layers => {
                Err(SliceFault::NoSuchLayer { layer, last: model.layers - 1 })
            }
            _ => Ok(left_out),
        }
    }
}

impl From<&'static Configuration> for Slice {
    fn from(configuration: &'static Configuration) -> Self {
        let widths = configuration.widths();
        let left_out = (0..widths.len()).filter(|&il| widths[il].is_none()).collect();
        Self {
            listed: Some((configuration.name.to_owned(), widths.len())),
            widths: Widths::Each(widths.into_iter().flatten().collect()),
            left_out,
        }
    }
}

/// What was asked for, for messages.
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listed {
            Some((name, _)) => write!(f, "slice {name}"),
            None => f.write_str("the slice"),
        }
    }
}

/// Numbers, or products of numbers, between commas; `_` between digits.
///
/// # Errors
/// Something else, or more than a width can be.
pub fn parse_widths(text: &str) -> Result<Vec<usize>, ParseError> {
    let factor = |text: &str| text.trim().replace('_', "").parse::<usize>().ok();
    let width = |text: &str| {
        text.split('*').try_fold(1usize, |width, text| width.checked_mul(factor(text)?))
    };
    text.split(',')
        .map(|text| width(text).filter(|&width| width <= 1 << 24))
        .collect::<Option<_>>()
        .ok_or_else(|| ParseError::Widths(text.to_owned()))
}

/// Layers between commas; nothing is none.
///
/// # Errors
/// Something that is no number.
pub fn parse_layers(text: &str) -> Result<Vec<usize>, ParseError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|layer| layer.trim().parse().ok())
        .collect::<Option<_>>()
        .ok_or_else(|| ParseError::Layers(text.to_owned()))
}

/// `blk.N.suffix`
pub fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (il, suffix) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((il.parse().ok()?, suffix))
}

/// A model inside a file's model (or that model itself): where each layer comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The sizes of the model that is cut out.
    pub config: TextConfig,
    /// Of each of its layers, the file's layer.
    pub sources: Vec<usize>,
    /// Of each of its layers, the width in the file.
    pub full: Vec<usize>,
    /// Layers in the file.
    pub whole: usize,
}

impl Cut {
    /// The file's model as it is.
    pub fn nothing(config: TextConfig) -> Self {
        let (sources, full) = ((0..config.layers).collect(), config.ffn.clone());
        Self { sources, full, whole: config.layers, config }
    }

    /// Is anything of the file's model cut off?
    pub fn cuts(&self) -> bool {
        self.sources.len() < self.whole || self.config.ffn != self.full
    }

    /// The runs of neighbours among the file's layers that a range of layers comes from.
    pub fn runs(&self, layers: Range<usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &source in &self.sources[layers] {
            match runs.last_mut() {
                Some(run) if run.end == source => run.end += 1,
                _ => runs.push(source..source + 1),
            }
        }
        runs
    }

    /// What the smaller model calls a tensor of the file; `None` for one of a layer left out.
    pub fn rename(&self, name: &str) -> Option<String> {
        let Some((il, suffix)) = layer_of(name) else { return Some(name.to_owned()) };
        let new = self.sources.iter().position(|&source| source == il)?;
        Some(format!("blk.{new}.{suffix}"))
    }

    /// Are packed types cut between blocks only? `down` loses columns, and the rows of the
    /// per-layer table groups of P.
    ///
    /// # Errors
    /// The first tensor that would be cut inside a block.
    pub fn check_blocks(&self, gguf: &Gguf) -> Result<(), SliceFault> {
        for ((&source, &full), &width) in self.sources.iter().zip(&self.full).zip(&self.config.ffn)
        {
            let name = format!("blk.{source}.ffn_down.weight");
            let Some(tensor) = gguf.tensor(&name).filter(|_| width < full) else { continue };
            let block = tensor.ty.block_len();
            if !(width as u64).is_multiple_of(block) {
                let below = width as u64 / block * block;
                let nearest = [below, below + block];
                let nearest = nearest.into_iter().filter(|&w| w > 0 && w <= full as u64).collect();
                let ty = tensor.ty;
                return Err(SliceFault::WidthBlocks { tensor: name, ty, block, width, nearest });
            }
        }
        let (name, values) = ("per_layer_token_embd.weight", self.config.per_layer);
        let Some(table) = gguf.tensor(name).filter(|_| self.sources.len() < self.whole) else {
            return Ok(());
        };
        let (ty, block) = (table.ty, table.ty.block_len());
        if (values as u64).is_multiple_of(block) {
            Ok(())
        } else {
            Err(SliceFault::GroupBlocks { tensor: name, ty, block, values })
        }
    }

    /// The published configuration that this is.
    pub fn published(&self) -> Option<&'static Configuration> {
        let mut widths = vec![None; self.whole];
        for (&source, &width) in self.sources.iter().zip(&self.config.ffn) {
            widths[source] = Some(width);
        }
        CONFIGURATIONS.iter().find(|configuration| {
            let wanted = configuration.widths();
            let kept = wanted.iter().copied().filter(Option::is_some);
            widths == wanted || kept.eq(widths.iter().copied())
        })
    }

    /// The slice in words, the same for the same cut: a published name, or widths and what is
    /// left out (`ffn 8192 x 4, 16384 without layers 3, 5`).
    pub fn label(&self) -> String {
        if let Some(configuration) = self.published() {
            return configuration.name.to_owned();
        }
        let widths = self.config.ffn.chunk_by(|a, b| a == b).map(|same| match same {
            [one] => one.to_string(),
            _ => format!("{} x {}", same[0], same.len()),
        });
        let mut label = format!("ffn {}", widths.collect::<Vec<_>>().join(", "));
        let left_out = (0..self.whole).filter(|il| !self.sources.contains(il));
        let left_out: Vec<_> = left_out.map(|il| il.to_string()).collect();
        if !left_out.is_empty() {
            label = format!("{label} without layers {}", left_out.join(", "));
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_with_and_without_layers_left_out() {
        let slice = Slice::parse("Own,3,1.0,50%,\"[2_048 * 4, 16_384, 8]\",\"[1, 3]\"").unwrap();
        assert_eq!(slice.widths, Widths::Each(vec![8192, 16384, 8]));
        assert_eq!(
            (slice.left_out.clone(), slice.to_string()),
            (vec![1, 3], "slice Own".to_owned())
        );
        let slice = Slice::parse("\"Own\",1,1.0,50%,[8],").unwrap();
        assert_eq!((slice.widths, slice.left_out), (Widths::Each(vec![8]), Vec::new()));
        for wrong in ["a,[8", "a,[8],[1],[2]", "a,[],", "a,[x]", "a,[8],[x]", "a,[8*],", "[-8]"] {
            assert!(Slice::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn widths_beyond_all_models_are_refused_before_they_overflow() {
        assert_eq!(parse_widths("2_048 * 4,1").unwrap(), [8192, 1]);
        for wrong in ["4294967296 * 4294967296", "16777217", "99999999999999999999", ""] {
            assert!(parse_widths(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_layers(" ").unwrap(), Vec::<usize>::new());
        assert!(parse_layers("1,,2").is_err());
    }
}
