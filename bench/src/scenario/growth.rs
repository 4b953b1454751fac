//! How time and memory grow with the number of records.

use super::{Scenario, extractor, transformer};
use crate::bench::{Bench, Result};
use crate::figure::{Aim, Figure, Runs};
use crate::usage::mib;
use crate::watch::Pace;

pub const SCENARIO: Scenario = Scenario {
    name: "growth",
    about: "time and memory from a fiftieth of the records to all of them",
    records: 5_000_000,
    run,
};

/// The smallest size is this part of the largest.
const PART: u64 = 50;
/// The extractor's source is held in memory by the stand-in, so it is smaller.
const SOURCE: u64 = 10;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let of = |paces: &[Pace], pick: fn(&Pace) -> f64| paces.iter().map(pick).collect::<Runs>();
    let mut figures = Vec::new();
    let mut add = |name: &str, sizes: [u64; 2], paces: &[Vec<Pace>]| {
        let [small, large] = sizes;
        let (little, much) = (&paces[0], &paces[1]);
        let grown = format!("{} to {} thousand records", small / 1000, large / 1000);
        figures.push(
            Figure::new(
                SCENARIO.name,
                format!("{name}, records/s"),
                of(much, |p| p.rate),
            )
            .beside(of(little, |p| p.rate))
            .aim(Aim::AtLeast(0.9))
            .note(format!("beside its own pace with fewer: {grown}")),
        );
        figures.push(
            Figure::new(
                SCENARIO.name,
                format!("{name}, peak MiB"),
                of(much, |p| mib(p.peak)),
            )
            .beside(of(little, |p| mib(p.peak)))
            .aim(Aim::AtMost(1.25)),
        );
    };
    let sizes = [bench.records / PART, bench.records];
    let paces = bench.interleave(2, |side, round| {
        let pace = transformer::alone(&Bench::new(sizes[side], 1))?;
        eprintln!(
            "  round {round}: {} records in {:.1?}",
            sizes[side], pace.took
        );
        Ok(pace)
    })?;
    add("transformer", sizes, &paces);
    let sizes = sizes.map(|size| size / SOURCE);
    let paces = bench.interleave(2, |side, round| {
        let pace = extractor::ours(bench, sizes[side])?;
        eprintln!(
            "  round {round}: {} records in {:.1?}",
            sizes[side], pace.took
        );
        Ok(pace)
    })?;
    add("extractor", sizes, &paces);
    Ok(figures)
}
