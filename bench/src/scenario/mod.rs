//! The scenarios, one a module. A scenario measures, and leaves nothing behind
//! but its figures.

mod calls;
mod extractor;
mod growth;
mod latency;
mod loader;
mod recovery;
mod start;
mod table;
mod transformer;

use crate::bench::{Bench, Result};
use crate::figure::Figure;

/// Something to measure.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures, in one line.
    pub about: &'static str,
    /// How many records a run moves, unless the command line says otherwise.
    pub records: u64,
    /// Measures it.
    pub run: fn(&Bench) -> Result<Vec<Figure>>,
}

/// All of them, in the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    transformer::SCENARIO,
    extractor::SCENARIO,
    calls::SCENARIO,
    growth::SCENARIO,
    loader::SCENARIO,
    loader::VERSIONS,
    table::SCENARIO,
    start::SCENARIO,
    start::LARGE,
    recovery::SCENARIO,
    latency::SCENARIO,
];
