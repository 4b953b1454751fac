//! From kill -9 of a loader to its rows flowing again.

use std::time::{Duration, Instant};

use drover_pipeline::kafka::client::SESSION;
use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio_postgres::NoTls;

use super::Scenario;
use crate::bench::{Bench, Result};
use crate::canonical;
use crate::figure::{Aim, Figure, Runs};
use crate::watch::Watch;

pub const SCENARIO: Scenario = Scenario {
    name: "recovery",
    about: "from kill -9 of a loader under load to rows flowing again",
    records: 600_000,
    run,
};

/// Partitions of every data topic.
const PARTITIONS: i32 = 4;
/// Longer than any recovery.
const LIMIT: Duration = Duration::from_secs(120);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut restarts, mut takeovers, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.runs {
        let (restart, restart_twice) = recover(bench, false)?;
        let (takeover, takeover_twice) = recover(bench, true)?;
        eprintln!(
            "  round {round}: restart {restart:.2} s, takeover {takeover:.2} s, \
             {restart_twice} and {takeover_twice} rows twice"
        );
        restarts.push(restart);
        takeovers.push(takeover);
        twice.push(restart_twice + takeover_twice);
    }
    let name = SCENARIO.name;
    Ok(vec![
        Figure::new(name, "restart, same instance, s", Runs(restarts)).aim(Aim::AtMost(3.0)),
        Figure::new(name, "takeover by a replica, s", Runs(takeovers))
            .aim(Aim::AtMost(SESSION.as_secs_f64() + 3.0))
            .note(format!(
                "the session, after which a silent member counts as dead, is {SESSION:?}"
            )),
        Figure::new(name, "rows written twice", Runs(twice)).aim(Aim::AtMost(0.0)),
    ])
}

/// Kills a loader in the middle of its work. Seconds until every partition that
/// was its own moves again; and rows that were updated or doubled, of which a
/// first load has none.
fn recover(bench: &Bench, replica: bool) -> Result<(f64, f64)> {
    let mut migration = Migration::on(
        bench.services(),
        "bench",
        &["--records", "20"],
        "postgres",
        json!({}),
        json!({"kafka": {"partitions": PARTITIONS}, "objects": ["Contact"]}),
    );
    migration.drover_ok(&["init"]);
    let services = bench.services();
    let bus = Bus::new(&services.brokers, &migration.id);
    let (topic, group) = (bus.name("canonical.contact"), bus.name("load.postgres"));
    canonical::fill(
        &services.brokers,
        &topic,
        &migration.id,
        bench.records,
        0..1,
    )?;
    let watch = Watch::new(&services.brokers, &group, &topic, PARTITIONS)?;
    let end = watch.end()?;
    migration.start("loader", "loader-1", &[]);
    until(|| Ok(watch.committed()? > end / 10))?;
    if replica {
        // The replica takes half of the partitions, and both work.
        let before = watch.each()?;
        migration.start("loader", "loader-2", &[]);
        until(|| Ok(moved(&before, &watch.each()?)))?;
    }
    migration.stage("loader-1").signal(Signal::SIGKILL);
    let since = Instant::now();
    migration.stage("loader-1").wait_killed(LIMIT);
    migration.stages.remove("loader-1");
    let before = watch.each()?;
    if !replica {
        migration.start("loader", "loader-1", &[]);
    }
    until(|| {
        let now = watch.each()?;
        Ok(moved(&before, &now) || watch.committed()? >= end)
    })?;
    let took = since.elapsed().as_secs_f64();
    until(|| Ok(watch.committed()? >= end))?;
    migration.stop_all();
    let twice = twice(&services.postgres, &migration.schema, bench.records)?;
    let runtime = tokio::runtime::Runtime::new()?;
    for topic in ["canonical.contact", "idempotency.postgres"] {
        runtime.block_on(bus.delete(topic));
    }
    Ok((took, twice))
}

/// Whether every partition has moved.
fn moved(before: &[i64], now: &[i64]) -> bool {
    before.iter().zip(now).all(|(before, now)| now > before)
}

fn until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done()? {
        if Instant::now() > deadline {
            return Err(format!("not within {LIMIT:?}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Rows that are there beyond one a key, and rows that carry another version
/// than their first: an update gives the row a new place and a later writer.
fn twice(url: &str, schema: &str, records: u64) -> Result<f64> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let rows: i64 = client
            .query_one(&format!("SELECT count(*) FROM {schema}.contact"), &[])
            .await?
            .try_get(0)?;
        if rows < records as i64 {
            return Err(format!("{rows} of {records} rows are there").into());
        }
        let updated: i64 = client
            .query_one(
                "SELECT sum(n_tup_upd)::bigint FROM pg_stat_user_tables WHERE schemaname = $1",
                &[&schema],
            )
            .await?
            .try_get(0)?;
        client
            .batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
            .await?;
        Ok((rows - records as i64 + updated) as f64)
    })
}
