//! One file to another.
