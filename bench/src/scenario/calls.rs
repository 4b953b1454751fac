//! How many calls of the source's API a migration takes: each of them is one
//! that the customer's other tools don't get.

use std::time::{Duration, Instant};

use drover_tests::account::Loader;
use drover_tests::migration::Migration;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Scenario;
use crate::bench::{Bench, Result};
use crate::figure::{Aim, Figure};

pub const SCENARIO: Scenario = Scenario {
    name: "calls",
    about: "calls of the source's API: first copy, idle polls, and a limit",
    records: 50_000,
    run,
};

/// Large ones and small ones.
const OBJECTS: [&str; 5] = ["Account", "Contact", "Lead", "Opportunity", "Case"];
/// What a page holds at most: 2,000 by the API (SOQL and SOSL Reference, "FOR
/// VIEW"; `Sforce-Query-Options`).
const PAGE: u64 = 2_000;
/// A first copy's other calls of each object: the source's time, and a count.
const BESIDE: u64 = 2;
/// Between two polls of an object.
const POLL: Duration = Duration::from_secs(1);
/// How many polls are counted.
const POLLS: u32 = 15;
/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run took.
struct Calls {
    /// Of a first copy, for each page that its rows fill.
    page: f64,
    /// Of an idle poll of an object.
    idle: f64,
    /// The share of what the reserve leaves that is used while the account is
    /// the limit, in per cent.
    limit: f64,
}

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let outcomes = bench.interleave(1, |_, round| {
        let (page, idle) = calls(bench)?;
        let limit = limit(bench)?;
        eprintln!(
            "  round {round}: {page:.2} a full page, {idle:.2} an idle poll of an object, \
             {limit:.1} % of a limit"
        );
        Ok(Calls { page, idle, limit })
    })?;
    let of = |pick: fn(&Calls) -> f64| outcomes[0].iter().map(pick).collect();
    let name = SCENARIO.name;
    Ok(vec![
        Figure::new(name, "first copy, calls per 2,000 rows", of(|c| c.page))
            .aim(Aim::AtMost(1.0))
            .note(format!(
                "by REST, an object's last page counted as full; beside {BESIDE} of each object for \
                 the source's time and a count"
            )),
        Figure::new(name, "idle poll of an object, calls", of(|c| c.idle)).aim(Aim::AtMost(2.0)),
        Figure::new(name, "calls used of a limit, %", of(|c| c.limit))
            .aim(Aim::AtLeast(95.0))
            .note(
                "of those that a reserve of 10 % leaves, by an extractor and three loaders of one \
                 account, each of which wants more",
            ),
    ])
}

/// Calls of a first copy for each full page, and of an idle poll of an object.
fn calls(bench: &Bench) -> Result<(f64, f64)> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut migration = Migration::on(
        bench.services(),
        "bench",
        &["--records", &bench.records.to_string()],
        "postgres",
        json!({}),
        json!({
            "kafka": {"partitions": 4},
            "objects": OBJECTS,
            "pollIntervalMs": POLL.as_millis() as u64,
        }),
    );
    migration.drover_ok(&["init"]);
    let mut pages = 0;
    for object in OBJECTS {
        let rows = runtime.block_on(migration.sandbox.records(object)).len() as u64;
        pages += rows.div_ceil(PAGE);
    }
    let before = queries(&runtime.block_on(migration.sandbox.stats()));
    migration.start("extractor", "extractor-1", &[]);
    let deadline = Instant::now() + LIMIT;
    let bus = migration.bus();
    let is_copied = || {
        let checkpoints = bus.table("checkpoint");
        let copied = checkpoints
            .values()
            .filter(|at| at["snapshotComplete"] == true);
        copied.count() == OBJECTS.len()
    };
    while !is_copied() {
        migration.assert_alive();
        if Instant::now() > deadline {
            return Err(format!("no first copy within {LIMIT:?}").into());
        }
        std::thread::sleep(POLL / 10);
    }
    let copied = queries(&runtime.block_on(migration.sandbox.stats())) - before;
    let objects = OBJECTS.len() as u64;
    let page = copied.saturating_sub(BESIDE * objects) as f64 / pages as f64;

    // Nothing changes any more, and the source has described itself once: that
    // comes five seconds after a start, then every hour.
    std::thread::sleep(POLL * 7);
    let used = || runtime.block_on(migration.sandbox.used()).0;
    let (since, before) = (Instant::now(), used());
    std::thread::sleep(POLL * POLLS);
    let (polled, after) = (since.elapsed(), used());
    let polls = polled.as_secs_f64() / POLL.as_secs_f64() * objects as f64;
    migration.stop_all();
    Ok((page, (after - before) as f64 / polls))
}

/// What share of the account's free calls is used, in per cent, when an extractor
/// and three loaders want more of them than there are.
fn limit(bench: &Bench) -> Result<f64> {
    const CALLS: u64 = 600;
    const FREE: u64 = CALLS - CALLS / 10;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut migration = Migration::on(
        bench.services(),
        "bench",
        &["--records", "8000"],
        "postgres",
        json!({}),
        json!({"kafka": {"partitions": 4}, "objects": ["Account", "Contact"]}),
    );
    let mut document: Value = serde_json::from_slice(&std::fs::read(&migration.config)?)?;
    document["sourceConfig"]["pageSize"] = json!(2);
    std::fs::write(&migration.config, document.to_string())?;
    migration.drover_ok(&["init"]);
    runtime.block_on(async {
        migration.sandbox.quota(0, CALLS).await;
        let stop = CancellationToken::new();
        let start = |n| Loader::start(&migration, n, &stop);
        let loaders: Vec<Loader> = (1..=3).map(start).collect();
        migration.start("extractor", "extractor-1", &[]);
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = migration.status();
            let processes = status["processes"].as_array();
            let throttled = processes.into_iter().flatten().any(|process| {
                process["instance"] == "extractor-1" && process["phase"] == "throttled"
            });
            let waits = |loader: &Loader| loader.meter.usage().is_some_and(|u| u.until.is_some());
            if throttled && loaders.iter().all(waits) {
                break;
            }
            migration.assert_alive();
            if Instant::now() > deadline {
                return Err(format!("the account is no limit within {LIMIT:?}").into());
            }
            tokio::time::sleep(POLL / 5).await;
        }
        let (used, _) = migration.sandbox.used().await;
        stop.cancel();
        for loader in loaders {
            loader.ended().await;
        }
        migration.stop_all();
        Ok(used as f64 * 100.0 / FREE as f64)
    })
}

/// Queries and further pages of them, as the source has counted.
fn queries(stats: &Value) -> u64 {
    let requests = stats["requests"].as_array().into_iter().flatten();
    let is_query = |request: &&Value| {
        let path = request["path"].as_str().unwrap_or_default();
        path.contains("/query")
    };
    let counts = requests
        .filter(is_query)
        .filter_map(|r| r["count"].as_u64());
    counts.sum()
}
