//! The transformer beside a bare copy of the same bytes.

use std::time::Duration;

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use serde_json::json;

use super::Scenario;
use crate::bare::Bare;
use crate::bare::copy::Copy;
use crate::bench::{Bench, Result};
use crate::data;
use crate::figure::{Aim, Figure, Runs};
use crate::usage::mib;
use crate::watch::{Pace, Watch};

pub const SCENARIO: Scenario = Scenario {
    name: "transformer",
    about: "JSON in, Avro out, beside a bare copy of the same bytes",
    records: 1_000_000,
    run,
};

/// Partitions of every data topic.
const PARTITIONS: i32 = 4;
/// Records in one batch of a bare copy.
const BATCH: usize = 10_000;
/// What a stop-and-wait copy reaches of one with three batches in flight, as
/// measured elsewhere; a copy much slower than that is a weak baseline.
const STOP_AND_WAIT: f64 = 0.65;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut setting = None;
    let outcomes = bench.interleave(3, |side, round| {
        // Each round has its own migration, so that every side always starts
        // with the same topics.
        if setting.as_ref().is_none_or(|(of, _)| *of != round) {
            setting = Some((round, Setting::new(bench)?));
        }
        let Some((_, setting)) = &mut setting else {
            return Err("no setting".into());
        };
        let pace = match side {
            0 => setting.ours()?,
            1 => setting.bare("three", 3)?,
            _ => setting.bare("one", 1)?,
        };
        let name = ["ours", "bare", "stop-and-wait"][side];
        eprintln!(
            "  round {round}: {name} {:.0}/s in {:.1?}",
            pace.rate, pace.took
        );
        Ok(pace)
    })?;
    let [ours, bare, waiting] = [0, 1, 2].map(|side| &outcomes[side]);
    let rates = |paces: &[Pace]| paces.iter().map(|pace| pace.rate).collect::<Runs>();
    let mut rate = Figure::new(SCENARIO.name, "records/s", rates(ours))
        .beside(rates(bare))
        .aim(Aim::AtLeast(0.5))
        .note("bare: a librdkafka copy, 3 batches in flight, acks=all, offsets committed");
    let relation = rates(waiting).over(&rates(bare)).median();
    if relation > STOP_AND_WAIT * 1.1 {
        rate = rate.note(format!(
            "WEAK BASELINE: a stop-and-wait copy reaches {relation:.2} of it, which \
             should be about {STOP_AND_WAIT}"
        ));
    }
    let peaks = |paces: &[Pace]| paces.iter().map(|pace| mib(pace.peak)).collect::<Runs>();
    let cpus = |paces: &[Pace]| paces.iter().map(|pace| pace.cpu).collect::<Runs>();
    Ok(vec![
        rate,
        Figure::new(SCENARIO.name, "stop-and-wait, records/s", rates(waiting)).beside(rates(bare)),
        Figure::new(SCENARIO.name, "CPU s a million records", cpus(ours)).aim(Aim::AtMost(6.0)),
        Figure::new(SCENARIO.name, "the same, bare copy", cpus(bare)),
        Figure::new(SCENARIO.name, "peak memory, MiB", peaks(ours)).aim(Aim::AtMost(100.0)),
        Figure::new(SCENARIO.name, "the same, bare copy", peaks(bare)),
    ])
}

/// The transformer without anything beside it.
pub fn alone(bench: &Bench) -> Result<Pace> {
    Setting::new(bench)?.ours()
}

/// A migration with a filled raw topic.
struct Setting {
    migration: Migration,
    bus: Bus,
    records: u64,
    /// The topics that are deleted in the end.
    topics: Vec<String>,
}

impl Setting {
    fn new(bench: &Bench) -> Result<Setting> {
        let migration = Migration::on(
            bench.services(),
            "bench",
            &["--records", "20"],
            "postgres",
            json!({}),
            json!({"kafka": {"partitions": PARTITIONS}, "objects": ["Contact"]}),
        );
        migration.drover_ok(&["init"]);
        let bus = Bus::new(&migration.services().brokers, &migration.id);
        let topic = bus.name("raw.salesforce.contact");
        data::fill(
            &migration.services().brokers,
            &topic,
            &migration.id,
            bench.records,
        )?;
        Ok(Setting {
            migration,
            bus,
            records: bench.records,
            topics: ["raw.salesforce.contact", "canonical.contact"]
                .map(str::to_owned)
                .into(),
        })
    }

    fn watch(&self, group: &str) -> Result<Watch> {
        let topic = self.bus.name("raw.salesforce.contact");
        Watch::new(
            &self.migration.services().brokers,
            group,
            &topic,
            PARTITIONS,
        )
    }

    /// The offset behind the last record, summed: each partition begins with
    /// the record of its incarnation.
    fn end(&self) -> u64 {
        self.records + PARTITIONS as u64
    }

    fn ours(&mut self) -> Result<Pace> {
        let watch = self.watch(&self.bus.name("transform"))?;
        self.migration.start("transformer", "transformer-1", &[]);
        let end = self.end();
        let stage = self.migration.stage("transformer-1");
        let pace = watch.pace(stage, end, Duration::from_secs(300));
        self.migration.stop_all();
        pace
    }

    fn bare(&mut self, name: &str, in_flight: usize) -> Result<Pace> {
        let topic = format!("bench.{name}");
        // The same settings as a data topic's.
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(self.bus.make(&topic, PARTITIONS, "compact"));
        self.topics.push(topic.clone());
        let group = self.bus.name(&format!("bench-{name}"));
        let watch = self.watch(&group)?;
        let mut copy = Bare::Copy(Copy {
            brokers: self.migration.services().brokers.clone(),
            from: self.bus.name("raw.salesforce.contact"),
            to: self.bus.name(&topic),
            group,
            batch: BATCH,
            in_flight,
            records: self.end(),
        })
        .start()?;
        let pace = watch.pace(&mut copy, self.end(), Duration::from_secs(300));
        copy.wait()?;
        pace
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Runtime::new() else {
            return;
        };
        for topic in &self.topics {
            runtime.block_on(self.bus.delete(topic));
        }
    }
}
