//! Files of pictures to pixels. Knows no graph and no model.
//!
//! - [`image`]: decoding, orientation, transparency, limits.
//! - [`resize`]: the reference's antialiased bilinear resize on 8 bits.

mod error;
pub mod image;
pub mod resize;

pub use error::{Error, Fault};
