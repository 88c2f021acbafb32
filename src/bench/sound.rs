//! Timings of a clip: through features and tower, and its soft tokens through the text model.

use std::time::Instant;

use serde::Serialize;

use crate::gguf::Gguf;
use crate::media::audio::RATE;
use crate::media::audio::mel::LogMel;
use crate::model::StepError;
use crate::model::audio::{AudioConfig, Encoder};
use crate::model::text::{Decoder, Logits, Tokens};
use crate::tokenizer::TokenId;

/// Seconds, one entry a repetition.
#[derive(Clone, Debug, Serialize)]
pub struct SoundTimes {
    /// Of the clip.
    pub seconds: f64,
    /// Samples to log-mel features.
    pub features: Vec<f64>,
    /// Features to soft tokens.
    pub encode: Vec<f64>,
    /// Multiply-adds of the blocks' products for this clip, every frame computed in every block: a
    /// tower that leaves out what nobody reads seems the faster.
    pub multiply_adds: f64,
    /// How many soft tokens there are.
    pub soft_tokens: usize,
    /// Soft tokens into an empty cache, logits after the last.
    pub prefill: Vec<f64>,
}

/// A clip as long as the model hears at once.
const SECONDS: usize = 30;

/// Measures a made-up clip, after one run that does not count. `gguf` is the tower's file.
///
/// # Errors
/// Those of tower and decoder.
pub fn sound(
    gguf: &Gguf,
    config: &AudioConfig,
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    repetitions: usize,
) -> Result<SoundTimes, StepError> {
    let samples: Vec<f32> = (0..SECONDS * RATE as usize).map(level).collect();
    let width = decoder.model().config().embedding;
    let log_mel = LogMel::new(config.mel_bins);
    let mut times = SoundTimes {
        seconds: SECONDS as f64,
        features: vec![],
        encode: vec![],
        multiply_adds: 0.0,
        soft_tokens: 0,
        prefill: vec![],
    };
    for repetition in 0..=repetitions {
        let start = Instant::now();
        let features = log_mel.features(&samples);
        let listened = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let rows = encoder.encode(&features.values, &features.valid)?;
        let encode = start.elapsed().as_secs_f64();
        let rows: Vec<_> = rows.chunks_exact(width).enumerate().collect();
        let ids = vec![TokenId(0); rows.len()];
        decoder.clear();
        let start = Instant::now();
        decoder.run(Tokens { ids: &ids, embeddings: &rows }, Logits::Last)?;
        times.soft_tokens = rows.len();
        times.multiply_adds = multiply_adds(gguf, config, features.valid.len());
        if repetition > 0 {
            times.features.push(listened);
            times.encode.push(encode);
            times.prefill.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

/// Each frame that the subsampling leaves meets every weight of the blocks' matrices once (but those
/// of the positions, which are the same for all frames). Subsampling, attention's own products, the
/// depthwise convolutions and the embedder are about 1 % of that.
fn multiply_adds(gguf: &Gguf, config: &AudioConfig, mel_frames: usize) -> f64 {
    let frames = config.strides.iter().fold(mel_frames, |frames, [time, _]| frames.div_ceil(*time));
    let left_out = [".linear_pos.", ".conv_dw."];
    let matrices = gguf.tensors().iter().filter(|tensor| {
        let name = &tensor.name;
        name.starts_with("a.blk.")
            && tensor.ne[1] > 1
            && !left_out.iter().any(|part| name.contains(part))
    });
    let weights: u64 = matrices.map(|tensor| tensor.ne[0] * tensor.ne[1]).sum();
    weights as f64 * frames as f64
}

/// A tone that climbs from 100 Hz to 7 kHz, and noise that is the same in every run.
fn level(i: usize) -> f32 {
    let (n, rate) = ((SECONDS * RATE as usize) as f64, f64::from(RATE));
    let (time, length) = (i as f64 / rate, n / rate);
    let cycles = 100.0 * time + 0.5 * (7000.0 - 100.0) * time * time / length;
    let noise = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let noise = noise as f64 / f64::from(1 << 23) - 1.0;
    (0.5 * (std::f64::consts::TAU * cycles).sin() + 0.05 * noise) as f32
}
