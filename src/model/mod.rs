//! Gemma 3n.
