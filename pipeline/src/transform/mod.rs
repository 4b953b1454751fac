//! Making canonical records of raw ones. [`Transformer`] is the trait, the
//! runner in `run.rs` owns Kafka.

mod batch;
mod committer;
mod kinds;
mod mapping;
mod merge;
mod outputs;
mod parse;
mod redo;
mod run;

#[cfg(test)]
mod any_text;
#[cfg(test)]
mod tests;

pub(crate) use batch::MAX_RECORD;
pub use kinds::{
    Shape, can_become, can_fill, can_take_form, form_fits, form_name, holds, kind_name, shape,
    value_fits,
};
pub use mapping::{ANY, Convert, FieldRule, Form, Mapping, ObjectMapping, OnOrphan, Slot};
pub use merge::{merge, merge_all};
pub use outputs::{Output, Outputs};
pub(crate) use parse::{OWN_RULE, own_rule};
pub use run::run;

use crate::envelope::Envelope;
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

    /// Writes the canonical records of a raw one, one a slot. What an error
    /// leaves in `out` is thrown away. Called by several threads at once.
    fn write<'t>(&'t self, record: &Envelope<'_>, out: &mut Outputs<'t>) -> Result<()>;

    /// The same as owned records, where speed is of no matter.
    fn transform(&self, record: &Raw) -> Result<Vec<Canonical>> {
        let mut out = Outputs::default();
        self.write(&Envelope::of_raw("", record), &mut out)?;
        Ok(out.to_canonical(&record.key))
    }
}
