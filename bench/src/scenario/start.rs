//! From the start of a loader's process to ready, with a full idempotency table.

use std::time::{Duration, Instant};

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use serde_json::json;

use super::Scenario;
use super::table::{entry, key};
use crate::bench::{Bench, Result};
use crate::canonical::{producer, send};
use crate::figure::{Aim, Figure, Runs};
use crate::usage::{Usage, mib};

pub const SCENARIO: Scenario = Scenario {
    name: "start",
    about: "a loader's start with a full table",
    records: 1_000_000,
    run,
};

/// The same with a large table.
pub const LARGE: Scenario = Scenario {
    name: "start-large",
    about: "a loader's start with a table five times as large",
    records: 5_000_000,
    run: run_large,
};

/// Partitions of every data topic.
const PARTITIONS: i32 = 4;
/// Longer than any start.
const LIMIT: Duration = Duration::from_secs(300);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, SCENARIO.name)
}

fn run_large(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, LARGE.name)
}

fn measure(bench: &Bench, name: &str) -> Result<Vec<Figure>> {
    let mut migration = Migration::on(
        bench.services(),
        "bench",
        &["--records", "20"],
        "postgres",
        json!({}),
        json!({"kafka": {"partitions": PARTITIONS}, "objects": ["Contact"]}),
    );
    migration.drover_ok(&["init"]);
    let brokers = &bench.services().brokers;
    let bus = Bus::new(brokers, &migration.id);
    let table = bus.name("idempotency.postgres");
    let producer = producer(brokers)?;
    let mut json = Vec::new();
    for n in 0..bench.records {
        json.clear();
        entry(n).write_json(&mut json);
        send(&producer, &table, key(n)?.as_str().as_bytes(), &json)?;
    }
    rdkafka::producer::Producer::flush(&producer, Duration::from_secs(60))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut took, mut resident, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.runs {
        let since = Instant::now();
        migration.start("loader", "loader-1", &[]);
        let stage = migration.stage("loader-1");
        let http = stage.first["http"].as_str().unwrap_or_default().to_owned();
        runtime.block_on(until_ready(&http))?;
        took.push(since.elapsed().as_secs_f64());
        let pid = migration.stage("loader-1").pid().as_raw().unsigned_abs();
        let usage = Usage::of(pid).ok_or("the loader has gone")?;
        resident.push(mib(usage.resident));
        cpu.push(usage.cpu);
        eprintln!(
            "  round {round}: {:.2} s, CPU {:.2} s",
            took[round], usage.cpu
        );
        migration.stop_all();
    }
    runtime.block_on(bus.delete("idempotency.postgres"));
    // 5 s for 1,000,000 entries, 25 s for 5,000,000.
    let aim = 5.0 * (bench.records as f64 / 1e6).max(1.0);
    Ok(vec![
        Figure::new(name, "to ready, s", Runs(took)).aim(Aim::AtMost(aim)),
        Figure::new(name, "CPU until then, s", Runs(cpu)),
        Figure::new(name, "resident, MiB", Runs(resident)),
    ])
}

/// Asks the stage's own health address.
async fn until_ready(http: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let url = format!("http://{http}/readyz");
    loop {
        if reqwest::get(&url)
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("not ready within {LIMIT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
