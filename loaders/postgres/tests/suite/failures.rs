//! Crashes, lost connections, locks, and two processes at once.

use std::time::Duration;

use drover_pipeline::Code;
use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{Driver, Harness, Record, applied, contact, content};

use crate::harness::{Schema, connect};
use crate::own::contacts;
use crate::server::Server;

/// Waits until a connection of this test's loader waits for a lock.
async fn until_it_waits(schema: &Schema) {
    let waiting = "SELECT count(*)::text FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND application_name = '{}'";
    let waiting = waiting.replace("{}", schema.application());
    for _ in 0..3000 {
        if schema.ask(&waiting).await.as_deref() != Some("0") {
            return;
        }
        // PostgreSQL announces no such event; it can only be asked.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing waited for the lock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_loses_and_doubles_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut driver = Driver::new(Schema::on(&server.url).await).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(20, 1)).await;
    server.crash();
    let error = driver.try_apply(entity, &contacts(30, 2)).await.err();
    if let Some(error) = error {
        assert_eq!(error.code, Code::TargetUnavailable, "{error}");
    }
    driver.deliver(entity, &contacts(30, 2)).await;
    driver.harness.client = connect(&server.url).await;
    driver.expect(entity, &contacts(30, 2)).await;

    server.stop();
    for _ in 0..3 {
        let error = driver.try_apply(entity, &contacts(30, 3)).await;
        let error = error.expect_err("nobody listens");
        assert_eq!(error.code, Code::TargetUnavailable, "{error}");
    }
    server.again();
    driver.apply(entity, &contacts(30, 3)).await;
    driver.harness.client = connect(&server.url).await;
    driver.expect(entity, &contacts(30, 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_inside_a_batch_leaves_nothing_behind() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let mut driver = Driver::new(schema).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(5, 1)).await;
    // A row lock holds the batch in the middle of its upsert.
    let holder = connect(&driver.harness.url).await;
    let lock = format!(
        "BEGIN; SELECT 1 FROM {} ORDER BY drover_id DESC LIMIT 1 FOR UPDATE",
        driver.harness.table("contact")
    );
    holder.batch_execute(&lock).await.expect("locked");
    let other = driver.harness.loader();
    let records = contacts(9, 2);
    let mut asking = Schema::on(&driver.harness.url).await;
    asking.name.clone_from(&driver.harness.name);
    let cut = async {
        until_it_waits(&asking).await;
        asking.restart().await;
    };
    let (outcome, ()) = tokio::join!(driver.try_apply(entity, &records), cut);
    let error = outcome.expect_err("the connection was cut");
    assert_eq!(error.code, Code::TargetUnavailable, "{error}");
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
    driver.expect(entity, &contacts(5, 1)).await;
    driver.loader = other;
    driver.apply(entity, &records).await;
    driver.expect(entity, &records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_given_up_leaves_nothing_behind() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let mut driver = Driver::new(schema).await;
    driver.loader = driver.harness.loader_with(1);
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(5, 1)).await;
    let holder = connect(&driver.harness.url).await;
    let lock = format!(
        "BEGIN; SELECT 1 FROM {} FOR UPDATE",
        driver.harness.table("contact")
    );
    holder.batch_execute(&lock).await.expect("locked");
    let mut asking = Schema::on(&driver.harness.url).await;
    asking.name.clone_from(&driver.harness.name);
    let records = contacts(9, 2);
    tokio::select! {
        _ = driver.try_apply(entity, &records) => panic!("the lock was not waited for"),
        () = until_it_waits(&asking) => {}
    }
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
    // The one connection of this loader is free again, and not in the middle of
    // the batch that was given up.
    let newer = contacts(9, 3);
    driver.apply(entity, &newer).await;
    driver.expect(entity, &newer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_never_puts_an_older_version_over_a_newer() {
    let Some(schema) = Schema::fresh().await else {
        return;
    };
    let mut driver = Driver::new(schema).await;
    let entity = driver.entity("contact");
    let loaders = [driver.harness.loader(), driver.harness.loader()];
    // Two processes apply versions of the same keys in any interleaving; one
    // of them sends the newest first and the oldest last.
    let rounds = 20;
    let run = async |loader: &drover_loader_postgres::Postgres, versions: Vec<i64>| {
        for version in versions {
            let keys: Vec<_> = (0..50).map(contact).collect();
            let data: Vec<_> = (0..50)
                .map(|n| content::full(entity, version + n))
                .collect();
            let items: Vec<_> = (0..50)
                .map(|n| {
                    let order = drover_pipeline::testing::loader::order(version);
                    drover_pipeline::load::Item {
                        key: &keys[n],
                        entity,
                        order,
                        version: order.version,
                        target_id: None,
                        write: drover_pipeline::load::Write::Upsert {
                            datum: &data[n],
                            links: Vec::new(),
                        },
                    }
                })
                .collect();
            for outcome in loader.apply(&items).await.expect("apply") {
                applied(&outcome);
            }
        }
    };
    let upwards = (0..rounds).step_by(2).collect();
    let downwards = (0..rounds / 2).rev().map(|n| 2 * n + 1).collect();
    tokio::join!(run(&loaders[0], upwards), run(&loaders[1], downwards));
    let last = rounds - 1;
    let expected: Vec<_> = (0..50)
        .map(|n| Record::upsert(&contact(n), last, content::full(entity, last + n as i64)))
        .collect();
    driver.expect(entity, &expected).await;
    let again = driver.apply(entity, &expected).await;
    assert!(again.iter().all(|outcome| !applied(outcome).newer));
}
