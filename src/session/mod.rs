//! A conversation on a model.
