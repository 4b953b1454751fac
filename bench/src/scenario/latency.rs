//! From an edit in the source to its row in PostgreSQL, through all stages.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use drover_pipeline::envelope::Envelope;
use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use rdkafka::Message as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

use super::Scenario;
use crate::bench::{Bench, Result};
use crate::figure::{Aim, Figure, Runs};

pub const SCENARIO: Scenario = Scenario {
    name: "latency",
    about: "50 edits a second in the source until their rows are in PostgreSQL",
    records: 1_000,
    run,
};

/// How often the source is asked, in ms.
const POLL: u64 = 200;
/// From one edit to the next: 50 a second.
const PACE: Duration = Duration::from_millis(20);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut halves = Vec::new();
    let mut beyond = Vec::new();
    for round in 0..bench.runs {
        let mut latencies = runtime.block_on(once(bench))?;
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
        eprintln!("  round {round}: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
        halves.push(ms(at(0.5)));
        beyond.push(ms(at(0.99)) - POLL as f64);
    }
    Ok(vec![
        Figure::new(SCENARIO.name, "p99 beyond the poll, ms", Runs(beyond))
            .aim(Aim::AtMost(300.0))
            .note(format!(
                "{} edits; the source is asked every {POLL} ms",
                bench.records
            )),
        Figure::new(SCENARIO.name, "p50, poll included, ms", Runs(halves)),
    ])
}

/// Makes the edits and returns how long each took.
async fn once(bench: &Bench) -> Result<Vec<Duration>> {
    let services = bench.services();
    let mut migration = Migration::on(
        services,
        "bench",
        &["--records", "2000"],
        "postgres",
        json!({}),
        json!({"kafka": {"partitions": 4}, "pollIntervalMs": POLL}),
    );
    migration.start_all(1);
    migration.until_equal(Duration::from_secs(120)).await;
    let mut arrivals = listen(&services.postgres, &migration.schema).await?;
    let ids = rows(&migration).await?;
    let mut made = HashMap::new();
    let mut latencies = Vec::new();
    let mut tick = tokio::time::interval(PACE);
    let mut next = 0;
    let deadline = Instant::now() + PACE * bench.records as u32 + Duration::from_secs(60);
    while (latencies.len() as u64) < bench.records {
        tokio::select! {
            _ = tick.tick(), if next < bench.records => {
                let title = format!("edit {next}");
                let id = &ids[next as usize % ids.len()];
                let fields = json!({"Title": title});
                migration.sandbox.edit(json!({"object": "Contact", "id": id, "fields": fields})).await;
                made.insert(title, (id.clone(), Instant::now()));
                next += 1;
            }
            arrived = arrivals.recv() => {
                let (title, at) = arrived.ok_or("the database has gone")?;
                // An edit that the next one of its record overtakes has no row of
                // its own; ids take turns far more slowly than that.
                if let Some((_, since)) = made.remove(&title) {
                    latencies.push(at.saturating_duration_since(since));
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                let mut text = format!("{} of {} edits arrived", latencies.len(), bench.records);
                for (title, (id, _)) in &made {
                    text += &whereabouts(&migration, title, id).await?;
                }
                return Err((text + &migration.logs()).into());
            }
        }
    }
    migration.stop_all();
    Ok(latencies)
}

/// The contacts that have a row and are live in the source. One that waits for a
/// parent that the source lacks has none, and its edits wait with it.
async fn rows(migration: &Migration) -> Result<Vec<String>> {
    let (client, connection) =
        tokio_postgres::connect(&migration.services().postgres, NoTls).await?;
    tokio::spawn(connection);
    let sql = format!(
        "SELECT drover_id FROM {}.contact WHERE drover_object = 'Contact' \
         AND drover_deleted_at IS NULL ORDER BY id",
        migration.schema
    );
    let rows = client.query(&sql, &[]).await?;
    let ids: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    Ok(ids?)
}

/// How far an edit that did not arrive has come: one line a place.
async fn whereabouts(migration: &Migration, title: &str, id: &str) -> Result<String> {
    let services = migration.services();
    let mut text = format!("\n`{title}` of {id}:");
    let source = migration.sandbox.records("Contact").await;
    text += &format!("\n  source: {:?}", source.get(id).map(|r| &r["Title"]));
    let bus = Bus::new(&services.brokers, &migration.id);
    for topic in ["raw.salesforce.contact", "canonical.contact"] {
        for record in bus.read(topic) {
            let Ok(envelope) = Envelope::decode(record.payload().unwrap_or_default()) else {
                continue;
            };
            if envelope.id == id {
                let body = String::from_utf8_lossy(envelope.body.unwrap_or_default());
                text += &format!(
                    "\n  {topic} {}@{}: version {}, {:?}, this edit: {}",
                    record.partition(),
                    record.offset(),
                    envelope.version,
                    envelope.op,
                    body.contains(title)
                );
            }
        }
    }
    for topic in ["idempotency.postgres", "parked.postgres", "deadletter"] {
        let table = bus.table(topic);
        let about = table.iter().filter(|(key, _)| key.contains(id));
        text.extend(about.map(|(key, value)| format!("\n  {topic} {key}: {value}")));
    }
    let (client, connection) = tokio_postgres::connect(&services.postgres, NoTls).await?;
    tokio::spawn(connection);
    let sql = format!(
        "SELECT title, drover_order::text FROM {}.contact WHERE drover_id = $1",
        migration.schema
    );
    for row in client.query(&sql, &[&id]).await? {
        let (title, order): (Option<String>, String) = (row.try_get(0)?, row.try_get(1)?);
        text += &format!("\n  row: {title:?}, order {order}");
    }
    Ok(text + "\n")
}

/// Has PostgreSQL tell of each title that is committed, and when.
async fn listen(url: &str, schema: &str) -> Result<mpsc::UnboundedReceiver<(String, Instant)>> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(note))) => {
                    let _ = tell.send((note.payload().to_owned(), Instant::now()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
    client
        .batch_execute(&format!(
            "CREATE FUNCTION {schema}.bench_tell() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_notify('{schema}', NEW.title); RETURN NULL; END $$;
             CREATE TRIGGER bench_tell AFTER INSERT OR UPDATE ON {schema}.contact
             FOR EACH ROW WHEN (NEW.title LIKE 'edit %') EXECUTE FUNCTION {schema}.bench_tell();
             LISTEN {schema}"
        ))
        .await?;
    // The connection lives as long as its client.
    std::mem::forget(client);
    Ok(told)
}
