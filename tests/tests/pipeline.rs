//! The whole way, on real parts: Salesforce's stand-in → Kafka → PostgreSQL.

use std::time::Duration;

use drover_tests::migration::Migration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_org_is_copied_and_kept_in_step() {
    let mut migration = Migration::new(
        "whole",
        &["--seed", "7", "--records", "1500", "--live-changes", "20"],
    );
    migration.start_all(1);
    // People go on editing while the copy runs; then they stop, and the target
    // must come to be what the source is.
    tokio::time::sleep(Duration::from_secs(5)).await;
    migration.sandbox.freeze().await;
    let equal = migration.until_equal(Duration::from_secs(90)).await;
    println!(
        "{} records compared, {} wait for a parent that is not there",
        equal.compared, equal.waiting
    );
    migration.stop_all();
}
