//! The contract between the stages: the Avro schemas beside this crate's
//! manifest, and the [`Entity`] each canonical schema describes.
//!
//! A schema is never changed once it is released; a new version is a new file
//! (`contact.v2.avsc`) that can read the old one.

pub mod avro;
mod datum;
mod entity;

pub use datum::{Custom, Datum, Value};
pub use entity::{Entity, Field, Format, Holds, Kind, entities, entity, entity_of_schema};

/// The schema of the envelope that stands around every record.
pub const ENVELOPE: &str = include_str!("../envelope.v1.avsc");

/// The schema of the envelope around a record whose body lies in the object
/// store. Everything else stays in [`ENVELOPE`], whose bytes every version of
/// Drover reads.
pub const ENVELOPE_STORED: &str = include_str!("../envelope.v2.avsc");
