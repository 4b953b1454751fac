//! Making canonical records of raw ones. [`Transformer`] is the trait, the
//! runner in `run.rs` owns Kafka.

mod kinds;
mod mapping;
mod merge;
mod parse;
mod redo;
mod run;

#[cfg(test)]
mod tests;

pub use kinds::{can_become, kind_name};
pub use mapping::{Convert, FieldRule, Mapping, ObjectMapping, OnOrphan, Slot};
pub use merge::merge;
pub(crate) use run::MAX_RECORD;
pub use run::run;

use crate::error::Result;
use crate::extract::Object;
use crate::record::{Canonical, Raw};

/// Maps raw records to canonical ones.
///
/// # Contract
/// Pure: no I/O, clock, randomness or memory, so that the same raw record with
/// the same mapping gives the same bytes for ever, and a replay is harmless.
/// One output for every slot that the mapping declares, Upsert or Absent. An
/// error concerns this record only (class Record) and becomes its dead letter.
pub trait Transformer: Sized + Send + Sync + 'static {
    /// The transformer's name: `mapper`.
    const NAME: &'static str;

    /// Compiles a mapping for the objects as they were discovered. Returns
    /// every problem of the mapping at once.
    fn new(mapping: &Mapping, objects: &[Object]) -> Result<Self, Vec<crate::config::Problem>>;

    /// The canonical records of a raw one, one a slot.
    fn transform(&self, record: &Raw) -> Result<Vec<Canonical>>;
}
