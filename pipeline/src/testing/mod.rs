//! What every connector is held to: one conformance suite for extractors, one
//! for loaders.

pub mod extractor;
pub mod loader;
