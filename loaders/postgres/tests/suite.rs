//! The conformance suite on a real PostgreSQL, and what is this target's own.

#[path = "suite/encrypted.rs"]
mod encrypted;
#[path = "suite/failures.rs"]
mod failures;
#[path = "suite/harness.rs"]
mod harness;
#[path = "suite/own.rs"]
mod own;
#[path = "suite/server.rs"]
mod server;
#[path = "suite/tables.rs"]
mod tables;

drover_pipeline::loader_suite!(harness::Schema);
