//! What every connector is held to: one conformance suite for loaders.

pub mod loader;
