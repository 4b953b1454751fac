//! The suites that every connector passes.

pub mod extractor;
