//! Timings of a picture: through the tower, and its soft tokens through the text model.

use std::time::Instant;

use serde::Serialize;

use crate::model::StepError;
use crate::model::text::{Decoder, Logits, Tokens};
use crate::model::vision::Encoder;
use crate::tokenizer::TokenId;

/// Seconds, one entry a repetition.
#[derive(Clone, Debug, Serialize)]
pub struct PictureTimes {
    /// Pixels of the side.
    pub side: usize,
    /// Pixels to soft tokens.
    pub encode: Vec<f64>,
    /// How many these are.
    pub soft_tokens: usize,
    /// Soft tokens into an empty cache, logits after the last.
    pub prefill: Vec<f64>,
}

/// Measures a made-up picture, after one run that does not count.
///
/// # Errors
/// Those of tower and decoder.
pub fn picture(
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    side: usize,
    repetitions: usize,
) -> Result<PictureTimes, StepError> {
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| level(i, side)).collect();
    let width = decoder.model().config().embedding;
    let mut times = PictureTimes { side, encode: vec![], soft_tokens: 0, prefill: vec![] };
    for repetition in 0..=repetitions {
        let start = Instant::now();
        let rows = encoder.encode(&pixels, side)?;
        let encode = start.elapsed().as_secs_f64();
        let rows: Vec<_> = rows.chunks_exact(width).enumerate().collect();
        let ids = vec![TokenId(0); rows.len()];
        decoder.clear();
        let start = Instant::now();
        decoder.run(Tokens { ids: &ids, embeddings: &rows }, Logits::Last)?;
        times.soft_tokens = rows.len();
        if repetition > 0 {
            times.encode.push(encode);
            times.prefill.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

/// Smooth waves of colour.
fn level(i: usize, side: usize) -> f32 {
    let (pixel, channel) = (i / 3, i % 3);
    let (x, y) = ((pixel % side) as f32 / side as f32, (pixel / side) as f32 / side as f32);
    0.5 + 0.25 * ((20.0 * x + channel as f32).sin() + (14.0 * y).cos())
}
