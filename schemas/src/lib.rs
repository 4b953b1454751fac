//! The contract between the stages: the Avro schemas beside this crate's
//! manifest, and the [`Entity`] each canonical schema describes.
//!
//! A schema is never changed once it is released; a new version is a new file
//! (`contact.v2.avsc`) that can read the old one.

pub mod avro;
mod datum;
mod entity;

pub use datum::{Custom, Datum, Value};
pub use entity::{Entity, Field, Format, Kind, entities, entity, entity_of_schema};

/// The schema of the envelope that stands around every record.
pub const ENVELOPE: &str = include_str!("../envelope.v1.avsc");
