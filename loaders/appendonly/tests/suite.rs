//! The conformance suite on the server of this crate, and what goes wrong
//! there on purpose.

#[path = "suite/harness.rs"]
mod harness;
#[path = "suite/own.rs"]
mod own;

drover_pipeline::loader_suite!(harness::Server);
