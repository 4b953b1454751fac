//! An account that is the limit: an extractor reads from it, and three loaders
//! write to it, each sharing what is left after the reserve by what the others
//! say in the topic `status`. The source's own count is what is judged.

use std::time::{Duration, Instant};

use drover_tests::account::Loader;
use drover_tests::migration::Migration;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LIMIT: u64 = 600;
const RESERVE: u64 = LIMIT / 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_reserve_leaves_is_used_by_all_together() {
    let mut migration = Migration::new("shared", &["--records", "8000", "--seed", "3"]);
    let document = std::fs::read_to_string(&migration.config).expect("the configuration");
    let mut document: Value = serde_json::from_str(&document).expect("JSON");
    document["objects"] = json!(["Account", "Contact"]);
    document["sourceConfig"]["pageSize"] = json!(2);
    std::fs::write(&migration.config, document.to_string()).expect("written");
    migration.drover_ok(&["init"]);
    migration.sandbox.quota(0, LIMIT).await;

    let stop = CancellationToken::new();
    let loaders: Vec<Loader> = (1..=3)
        .map(|n| Loader::start(&migration, n, &stop))
        .collect();
    migration.start("extractor", "extractor-1", &[]);

    let deadline = Instant::now() + Duration::from_secs(60);
    let quota = loop {
        let status = migration.status();
        let quota = &status["quotas"][0];
        let extractor = process(&status, "extractor-1");
        let waits = |loader: &Loader| loader.meter.usage().is_some_and(|u| u.until.is_some());
        if extractor["phase"] == "throttled"
            && quota["calls"].as_object().map_or(0, |calls| calls.len()) == 4
            && loaders.iter().all(waits)
        {
            break quota.clone();
        }
        migration.assert_alive();
        assert!(
            Instant::now() < deadline,
            "{status:#}\n{}",
            migration.logs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let (used, _) = migration.sandbox.used().await;
    let free = LIMIT - RESERVE;
    assert!(used * 100 >= free * 95, "{used} of {free}: {quota:#}");
    // Each of the four may have had one request under way.
    assert!(used <= free + 4, "{used} of {free}: {quota:#}");
    // A report may be one call behind what the source has counted.
    let (by_loaders, by_extractor) = loop {
        let by_loaders: u64 = loaders
            .iter()
            .filter_map(|loader| loader.meter.usage())
            .map(|usage| usage.calls)
            .sum();
        let status = migration.status();
        let by_extractor = status["quotas"][0]["calls"]["extractor-1"].as_u64();
        let by_extractor = by_extractor.expect("its calls");
        let (used, _) = migration.sandbox.used().await;
        if used == by_loaders + by_extractor {
            break (by_loaders, by_extractor);
        }
        let told = by_loaders + by_extractor;
        let waits = Instant::now() < deadline;
        assert!(
            waits,
            "the source counts {used}, they say {told}: {quota:#}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(by_loaders > 0 && by_extractor > 0, "{quota:#}");
    let status = migration.status();
    let error = process(&status, "extractor-1")["lastError"].clone();
    let error = error.as_str().expect("it says why");
    assert!(error.starts_with("QUOTA_EXHAUSTED: "), "{error}");
    assert!(error.contains("4 processes of"), "{error}");
    stop.cancel();
    for loader in loaders {
        loader.ended().await;
    }
    migration.stop_all();
}

fn process(status: &Value, instance: &str) -> Value {
    let processes = status["processes"].as_array().into_iter().flatten();
    let mut found = processes.filter(|process| process["instance"] == instance);
    found.next().cloned().unwrap_or_default()
}
