//! Reference values.

pub mod reference;
