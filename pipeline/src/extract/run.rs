//! The extractor's loop.
