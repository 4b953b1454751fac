//! The checks, each a rule of [`crate::load::Loader`]'s contract.

mod calls;
mod contents;
mod lookups;
mod refusals;
mod versions;

pub use calls::*;
pub use contents::*;
pub use lookups::*;
pub use refusals::*;
pub use versions::*;

use super::content::full;
use super::driver::{Record, contact};

/// The suite's usual records: `count` contacts of that version.
fn contacts(count: usize, version: i64) -> Vec<Record> {
    let entity = drover_schemas::entity("contact").expect("the contact");
    (0..count)
        .map(|n| {
            let datum = full(entity, version * 1000 + n as i64);
            Record::upsert(&contact(n), version, datum)
        })
        .collect()
}
