//! How time and memory grow with the number of records.

use super::{Scenario, extractor, loader, transformer};
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

/// The pace of large and small differs by less than the machine's noise after a
/// few rounds, and each is long.
const ROUNDS: usize = 3;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let bench = &Bench::new(bench.records, bench.runs.min(ROUNDS));
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
    figures.extend(loader_grows(bench)?);
    Ok(figures)
}

/// The loader's memory holds its table, so it grows with the records: evenly.
fn loader_grows(bench: &Bench) -> Result<Vec<Figure>> {
    let sizes = [bench.records / PART, bench.records];
    let paces = bench.interleave(2, |side, round| {
        let pace = loader::alone(bench, sizes[side])?;
        eprintln!(
            "  round {round}: {} records in {:.1?}, {:.0} MiB",
            sizes[side],
            pace.took,
            mib(pace.peak)
        );
        Ok(pace)
    })?;
    let (little, much) = (&paces[0], &paces[1]);
    let [small, large] = sizes;
    let of = |paces: &[Pace], pick: fn(&Pace) -> f64| paces.iter().map(pick).collect::<Runs>();
    let grown = much.iter().zip(little).map(|(much, little)| {
        much.peak.saturating_sub(little.peak) as f64 / (large - small).max(1) as f64
    });
    let name = SCENARIO.name;
    Ok(vec![
        Figure::new(name, "loader, records/s", of(much, |p| p.rate))
            .beside(of(little, |p| p.rate))
            .aim(Aim::AtLeast(0.9))
            .note(format!(
                "beside its own pace with fewer: {} to {} thousand records",
                small / 1000,
                large / 1000
            )),
        Figure::new(name, "loader, CPU s a million", of(much, |p| p.cpu))
            .beside(of(little, |p| p.cpu)),
        Figure::new(name, "loader, peak MiB", of(much, |p| mib(p.peak))),
        Figure::new(name, "loader, bytes a record more", grown.collect())
            .note("its table: what it takes beyond the text of key and id is in `table`"),
    ])
}
