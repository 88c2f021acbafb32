//! Files of pictures to pixels, of sounds to log-mel features. Knows no graph and no model.
//!
//! - [`audio`]: decoding, channels, rates, limits; stretches of speech; log-mel features.
//! - [`image`]: decoding, orientation, transparency, limits.
//! - [`resize`]: the reference's antialiased bilinear resize on 8 bits.

pub mod audio;
mod content;
mod error;
pub mod image;
pub mod resize;

pub use error::{Error, Fault};
