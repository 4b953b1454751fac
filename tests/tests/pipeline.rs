//! The whole way, on real parts: Salesforce's stand-in → Kafka → PostgreSQL.

use std::time::Duration;

use drover_tests::migration::Migration;
use drover_tests::oracle::compare;

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
    settle(&mut migration).await;
    migration.stop_all();
}

async fn settle(migration: &mut Migration) {
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    loop {
        let differences = compare(migration).await;
        let Some(missing) = differences.missing() else {
            println!(
                "{} records compared, {} wait for a parent that is not there",
                differences.compared, differences.waiting
            );
            assert!(differences.compared > 0);
            return;
        };
        migration.assert_alive();
        assert!(
            std::time::Instant::now() < deadline,
            "{missing}\n{}",
            migration.logs()
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
