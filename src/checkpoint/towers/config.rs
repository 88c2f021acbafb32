//! `config.json` and `preprocessor_config.json` → sizes and constants of the towers.
//!
//! Absent keys have the defaults of `Gemma3nVisionConfig`, `Gemma3nAudioConfig` and
//! `Gemma3nConfig`, which are the published models' values. transformers 5 writes the picture
//! processor's keys into `processor_config.json`, under `image_processor`.

use std::path::Path;

use serde_json::Value;

use super::audio::{AudioTower, Subsampling};
use crate::checkpoint::config::{MAX_LAYERS, MAX_WIDTH, TextConfig, positive};
use crate::checkpoint::error::Error;
use crate::checkpoint::json::{CONFIG_LIMIT, Document, Section, count, shown};

/// Sides of kernels and strides, and frames that attention sees.
const MAX_SPAN: u32 = 4096;
const MAX_SIDE: u32 = 1 << 16;
/// The second last stage's feature map has the picture's sides divided by this.
const FUSION_STRIDE: u32 = 16;
/// Halvings of the picture's sides, by the stem and four stages.
const WHOLE_STRIDE: u32 = 32;

/// Pixels of a side where no processor says it.
const IMAGE_SIZE: u32 = 768;
const SOFT_TOKENS: &str = "vision_soft_tokens_per_image";

/// Of the picture tower, what its tensors don't say.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Channels of a soft token.
    pub width: u32,
    /// Rows of the embedding of ids, and the first id.
    pub vocab_size: u32,
    pub vocab_offset: u32,
    pub rms_eps: f32,
    /// Pixels of a side.
    pub image_size: u32,
    /// Soft tokens of a picture: a square.
    pub soft_tokens: u32,
    /// What is taken off a pixel in 0..1, by channel, and then divided by.
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl VisionConfig {
    /// # Errors
    /// A mistyped or impossible value, by key.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let document = Document::read(&dir.join("config.json"), CONFIG_LIMIT)?;
        let root = document.root();
        let vision = section_or_empty(&root, "vision_config")?;
        let processor = Processor::read(dir)?;
        let soft_tokens = soft_tokens(&root)?;
        let image_size = match &processor {
            Some(processor) => processor.image_size(soft_tokens)?,
            None => None,
        };
        // The default has to fit as well.
        let image_size = image_size.unwrap_or(IMAGE_SIZE);
        if !is_whole(image_size, soft_tokens) {
            let expected =
                format!("a square number whose root divides {}", image_size / FUSION_STRIDE);
            return Err(root.unexpected(SOFT_TOKENS, &expected, soft_tokens));
        }
        let normalized = match &processor {
            Some(processor) => processor.normalization()?,
            None => None,
        };
        let (mean, std) = normalized.unwrap_or(([0.0; 3], [1.0; 3]));
        Ok(Self {
            width: vision.count("hidden_size", 1, MAX_WIDTH)?.unwrap_or(2048),
            vocab_size: vision.count("vocab_size", 1, MAX_WIDTH)?.unwrap_or(128),
            vocab_offset: vision.count("vocab_offset", 1, u32::MAX)?.unwrap_or(262_144),
            rms_eps: positive(&vision, "rms_norm_eps")?.unwrap_or(1e-6),
            image_size,
            soft_tokens,
            mean,
            std,
        })
    }

    /// Sides of the average over feature maps of the second last stage; llama.cpp finds the number
    /// of soft tokens by it.
    pub fn patch_size(&self) -> u32 {
        self.image_size / (self.soft_tokens.isqrt() * FUSION_STRIDE)
    }
}

fn soft_tokens(root: &Section) -> Result<u32, Error> {
    let soft_tokens = root.count(SOFT_TOKENS, 1, MAX_WIDTH)?.unwrap_or(256);
    if soft_tokens.isqrt().pow(2) != soft_tokens {
        return Err(root.unexpected(SOFT_TOKENS, "a square number", soft_tokens));
    }
    Ok(soft_tokens)
}

/// Are the feature maps of pictures of this side whole, and averages over whole squares of them?
fn is_whole(image_size: u32, soft_tokens: u32) -> bool {
    let grid = soft_tokens.isqrt() * FUSION_STRIDE;
    image_size.is_multiple_of(grid) && image_size.is_multiple_of(WHOLE_STRIDE)
}

/// Mean and standard deviation by channel.
type Normalization = ([f32; 3], [f32; 3]);

/// The file that says how pictures are prepared.
struct Processor {
    document: Document,
    /// Where in it, if not at the top.
    inner: Option<&'static str>,
}

impl Processor {
    fn read(dir: &Path) -> Result<Option<Self>, Error> {
        if let Some(document) =
            Document::read_if_present(&dir.join("preprocessor_config.json"), CONFIG_LIMIT)?
        {
            return Ok(Some(Self { document, inner: None }));
        }
        let Some(document) =
            Document::read_if_present(&dir.join("processor_config.json"), CONFIG_LIMIT)?
        else {
            return Ok(None);
        };
        Ok(Some(Self { document, inner: Some("image_processor") }))
    }

    fn section(&self) -> Result<Option<Section<'_>>, Error> {
        let root = self.document.root();
        match self.inner {
            None => Ok(Some(root)),
            Some(inner) => root.section(inner),
        }
    }

    /// Pixels of a side, where it says so.
    fn image_size(&self, soft_tokens: u32) -> Result<Option<u32>, Error> {
        let Some(section) = self.section()? else { return Ok(None) };
        let Some(size) = section.section("size")? else { return Ok(None) };
        let height = size.required_count("height", 1, MAX_SIDE)?;
        let width = size.required_count("width", 1, MAX_SIDE)?;
        if width != height {
            return Err(size.unexpected("width", &format!("the height, {height}"), width));
        }
        if !is_whole(height, soft_tokens) {
            let grid = soft_tokens.isqrt() * FUSION_STRIDE;
            let expected = format!("a multiple of {WHOLE_STRIDE} and of {grid}");
            return Err(size.unexpected("height", &expected, height));
        }
        Ok(Some(height))
    }

    /// What pixels are normalized by, where they are.
    fn normalization(&self) -> Result<Option<Normalization>, Error> {
        let Some(section) = self.section()? else { return Ok(None) };
        if section.bool("do_normalize")? != Some(true) {
            return Ok(None);
        }
        let mean = channels(&section, "image_mean", |value| value.is_finite())?;
        let std = channels(&section, "image_std", |value| value.is_finite() && value > 0.0)?;
        Ok(Some((mean.unwrap_or([0.5; 3]), std.unwrap_or([0.5; 3]))))
    }
}

fn channels(
    section: &Section,
    key: &str,
    allowed: fn(f32) -> bool,
) -> Result<Option<[f32; 3]>, Error> {
    let Some(values) = section.array(key)? else { return Ok(None) };
    let number = |value: &Value| value.as_f64().map(|x| x as f32).filter(|&x| allowed(x));
    let numbers: Option<Vec<_>> = values.iter().map(number).collect();
    let three = numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
    three.map(Some).ok_or_else(|| {
        section.unexpected(key, "three numbers that pixels can be normalized by", "others")
    })
}

/// The sound tower's sizes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    pub tower: AudioTower,
    /// The first id that belongs to sound.
    pub vocab_offset: u32,
    /// Soft tokens of a clip, and the id that fills them up.
    pub soft_tokens: u32,
    pub pad_id: u32,
    /// Frames of a chunk of attention, and those seen before (itself included) and after.
    pub chunk_size: u32,
    pub context_left: u32,
    pub context_right: u32,
    /// Attention's logits are `cap · tanh(z / cap)`.
    pub logit_cap: f32,
    /// One of so many frames becomes a soft token.
    pub reduction_factor: u32,
    /// Of the feed-forward networks.
    pub residual_weight: f32,
    /// Activations are clamped to ± this.
    pub gradient_clipping: f32,
    pub rms_eps: f32,
    pub group_norm_eps: f32,
}

impl AudioConfig {
    /// # Errors
    /// A mistyped or impossible value, by key.
    pub fn read(dir: &Path, text: &TextConfig) -> Result<Self, Error> {
        let document = Document::read(&dir.join("config.json"), CONFIG_LIMIT)?;
        let root = document.root();
        let audio = section_or_empty(&root, "audio_config")?;
        let span = |key, min, default| Ok(audio.count(key, min, MAX_SPAN)?.unwrap_or(default));
        let real = |key, default| Ok(positive(&audio, key)?.unwrap_or(default));
        Ok(Self {
            tower: tower(&audio, text)?,
            vocab_offset: audio.count("vocab_offset", 1, u32::MAX)?.unwrap_or(262_272),
            soft_tokens: root.count("audio_soft_tokens_per_image", 1, MAX_WIDTH)?.unwrap_or(188),
            pad_id: text.vocab_size - 1,
            chunk_size: span("conf_attention_chunk_size", 1, 12)?,
            context_left: span("conf_attention_context_left", 1, 13)?,
            context_right: span("conf_attention_context_right", 0, 0)?,
            logit_cap: real("conf_attention_logit_cap", 50.0)?,
            reduction_factor: span("conf_reduction_factor", 1, 4)?,
            residual_weight: real("conf_residual_weight", 0.5)?,
            gradient_clipping: real("gradient_clipping", 1e10)?,
            rms_eps: real("rms_norm_eps", 1e-6)?,
            group_norm_eps: real("sscp_conv_group_norm_eps", 1e-3)?,
        })
    }
}

fn tower(audio: &Section, text: &TextConfig) -> Result<AudioTower, Error> {
    let number = |key, max, default| -> Result<u64, Error> {
        Ok(audio.count(key, 1, max)?.unwrap_or(default).into())
    };
    let channels = pair(audio, "sscp_conv_channel_size", [128, 32], size)?;
    let sides = |value: &Value| match &value.as_array()?[..] {
        [time, bins] => Some([size(time)?, size(bins)?]),
        _ => None,
    };
    let kernels = pair(audio, "sscp_conv_kernel_size", [[3, 3], [3, 3]], sides)?;
    let strides = pair(audio, "sscp_conv_stride_size", [[2, 2], [2, 2]], sides)?;
    let subsampling = [0, 1].map(|index| Subsampling {
        channels: channels[index],
        kernel: kernels[index],
        stride: strides[index],
    });
    let tower = AudioTower {
        layers: number("conf_num_hidden_layers", MAX_LAYERS, 12)?,
        width: number("hidden_size", MAX_WIDTH, 1536)?,
        heads: number("conf_num_attention_heads", MAX_SPAN, 8)?,
        mel_bins: number("input_feat_size", MAX_SPAN, 128)?,
        subsampling,
        conv_kernel: number("conf_conv_kernel_size", MAX_SPAN, 5)?,
        text: text.embedding_length.into(),
        vocab: number("vocab_size", MAX_WIDTH, 128)?,
    };
    if !tower.width.is_multiple_of(tower.heads) {
        let expected = format!("a divisor of hidden_size, {}", tower.width);
        return Err(audio.unexpected("conf_num_attention_heads", &expected, tower.heads));
    }
    if tower.bins_left().is_none() {
        let expected = format!("kernels within {} mel bins", tower.mel_bins);
        return Err(audio.unexpected("sscp_conv_kernel_size", &expected, "wider ones"));
    }
    Ok(tower)
}

fn size(value: &Value) -> Option<u64> {
    count(value, 1, MAX_SPAN).map(u64::from)
}

/// A list of two.
fn pair<T>(
    section: &Section,
    key: &str,
    default: [T; 2],
    read: impl Fn(&Value) -> Option<T>,
) -> Result<[T; 2], Error> {
    let Some(values) = section.array(key)? else { return Ok(default) };
    let read = match &values[..] {
        [first, second] => read(first).zip(read(second)),
        _ => None,
    };
    let found = || values.iter().map(shown).collect::<Vec<_>>().join(", ");
    let expected = format!("two sizes (or pairs of them) from 1 to {MAX_SPAN}");
    read.map(<[T; 2]>::from).ok_or_else(|| section.unexpected(key, &expected, found()))
}

fn section_or_empty<'a>(root: &Section<'a>, key: &str) -> Result<Section<'a>, Error> {
    Ok(root.section(key)?.unwrap_or_else(|| root.empty(key)))
}
