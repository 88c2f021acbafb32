//! A conversation on a model.

pub mod sampler;
pub mod stop;
