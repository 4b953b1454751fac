//! The extractor on an unthrottled stand-in, beside a reader that only reads.

use std::time::{Duration, Instant};

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::Scenario;
use crate::bare::Bare;
use crate::bare::pages::{Pages, Read};
use crate::bench::{Bench, Result};
use crate::figure::{Aim, Figure, Runs};
use crate::usage::{Usage, mib};
use crate::watch::{Pace, Watched};

pub const SCENARIO: Scenario = Scenario {
    name: "extractor",
    about: "pages of an unthrottled source into Kafka, beside reading them only",
    records: 200_000,
    run,
};

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(300);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let outcomes = bench.interleave(2, |side, round| {
        let (name, pace) = match side {
            0 => ("ours", ours(bench, bench.records)?),
            _ => ("bare", bare(bench)?),
        };
        eprintln!(
            "  round {round}: {name} {:.0}/s in {:.1?}",
            pace.rate, pace.took
        );
        Ok(pace)
    })?;
    let of =
        |side: usize, pick: fn(&Pace) -> f64| outcomes[side].iter().map(pick).collect::<Runs>();
    let name = SCENARIO.name;
    Ok(vec![
        Figure::new(name, "page to commit, records/s", of(0, |pace| pace.rate))
            .aim(Aim::AtLeast(30_000.0)),
        Figure::new(name, "beside reading only", of(0, |pace| pace.rate))
            .beside(of(1, |pace| pace.rate))
            .note("bare: the same pages by the same queries, read and thrown away"),
        Figure::new(name, "CPU s a million records", of(0, |pace| pace.cpu)),
        Figure::new(name, "peak memory, MiB", of(0, |pace| mib(pace.peak))).aim(Aim::AtMost(100.0)),
    ])
}

/// A migration with an org of that size, of which nothing is extracted yet.
fn migration(bench: &Bench, records: u64) -> Migration {
    let migration = Migration::on(
        bench.services(),
        "bench",
        &["--records", &records.to_string()],
        "postgres",
        json!({}),
        json!({"kafka": {"partitions": 4}}),
    );
    migration.drover_ok(&["init"]);
    migration
}

/// The plan's objects.
fn objects(bus: &Bus) -> Result<Vec<Value>> {
    let mut control = bus.table("control");
    let plan = control.remove("plan").ok_or("no plan")?;
    match plan["objects"].as_array() {
        Some(objects) => Ok(objects.clone()),
        None => Err("a plan without objects".into()),
    }
}

/// The extractor's first copy of an org of that size, as its checkpoints tell.
pub fn ours(bench: &Bench, records: u64) -> Result<Pace> {
    let mut migration = migration(bench, records);
    let bus = Bus::new(&bench.services().brokers, &migration.id);
    let objects = objects(&bus)?.len();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &bench.services().brokers)
        .set("group.id", "drover-bench")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&bus.name("checkpoint"), 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    migration.start("extractor", "extractor-1", &[]);
    let stage = migration.stage("extractor-1");
    let deadline = Instant::now() + LIMIT;
    let mut known = std::collections::BTreeMap::new();
    let mut first: Option<(Instant, u64, f64)> = None;
    let pace = loop {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message?;
            let key = message.key().unwrap_or_default().to_vec();
            if let Ok(value) =
                serde_json::from_slice::<Value>(message.payload().unwrap_or_default())
                && let Some(extracted) = value["extracted"].as_u64()
            {
                known.insert(key, (extracted, value["snapshotComplete"] == true));
            }
        }
        let pid = Watched::pid(stage);
        let used = Usage::of(pid).ok_or("the extractor has gone")?;
        let sum: u64 = known.values().map(|(extracted, _)| extracted).sum();
        let (now, complete) = (Instant::now(), known.values().filter(|k| k.1).count());
        match first {
            None if sum > 0 => first = Some((now, sum, used.cpu)),
            Some((since, at, cpu)) if complete == objects => {
                let moved = (sum - at) as f64;
                break Pace {
                    rate: moved / (now - since).as_secs_f64(),
                    cpu: (used.cpu - cpu) / moved * 1e6,
                    peak: used.peak,
                    took: now - since,
                };
            }
            _ => {}
        }
        if let Some(why) = stage.failed() {
            return Err(format!("the extractor ended: {why}").into());
        }
        if now > deadline {
            return Err(format!("{sum} records within {LIMIT:?}").into());
        }
    };
    migration.stop_all();
    Ok(pace)
}

/// The same pages, read and thrown away.
fn bare(bench: &Bench) -> Result<Pace> {
    let migration = migration(bench, bench.records);
    let bus = Bus::new(&bench.services().brokers, &migration.id);
    let credentials = drover_tests::sandbox::Sandbox::credentials("salesforce");
    let text = |name: &str| credentials[name].as_str().unwrap_or_default().to_owned();
    let pages = Pages {
        url: migration.sandbox.url.clone(),
        client_id: text("client_id"),
        client_secret: text("client_secret"),
        objects: objects(&bus)?,
    };
    let output = Bare::Pages(pages).output()?;
    let read: Read = serde_json::from_slice(&output)?;
    Ok(Pace {
        rate: read.records as f64 / read.seconds,
        cpu: read.cpu / read.records as f64 * 1e6,
        peak: read.peak,
        took: Duration::from_secs_f64(read.seconds),
    })
}
