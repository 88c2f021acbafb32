//! ggml behind safe types: the only unsafe room of the program.

mod fused;
mod sys;
