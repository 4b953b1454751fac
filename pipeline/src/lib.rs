//! What the stages of Drover share. This crate knows no connector.
//!
//! Read in this order: [`record`] (the plain data), [`envelope`] (how it lies
//! in Kafka), [`topics`] (where it lies), [`idempotency`] (the rule that keeps
//! anything from being doubled), then the three stages: [`extract`],
//! [`transform`] and [`load`]. Each stage module has a trait that a connector
//! implements (`mod.rs`) and a runner that owns every loop (`run.rs`).

pub mod balance;
pub mod bodies;
pub mod clock;
pub mod config;
pub mod control;
pub mod deadletter;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod http;
pub mod idempotency;
pub mod kafka;
mod lasting;
pub mod load;
pub mod metrics;
pub mod orphan;
pub mod parking;
pub mod process;
pub mod quota;
pub mod record;
pub mod retry;
pub mod spec;
pub mod status;
pub mod testing;
pub mod topics;
pub mod transform;
pub mod waiver;

pub use error::{Class, Code, Error, Result};
