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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_until_synced_ends_when_everything_is_there() {
    let mut migration = Migration::new("synced", &["--seed", "8", "--records", "800"]);
    let output = migration.drover(&["run", "--until", "synced", "--loaders", "2"]);
    let text = String::from_utf8_lossy(&output.stderr);
    // No stage runs any more: what is missing now would stay missing.
    let equal = migration.until_equal(Duration::ZERO).await;
    assert!(equal.compared > 700, "{text}");
    let status = migration.status();
    // What waits for a record that is not there is named, and is no success.
    let objects = status["objects"].as_array().expect("objects");
    let sum = |what: &str| objects.iter().filter_map(|o| o[what].as_u64()).sum::<u64>();
    let (parked, dead) = (sum("parked"), sum("dead"));
    assert_eq!(dead as usize, migration.orphans(), "{status}");
    let short = "INCOMPLETE: not everything is in the target as it should be: ";
    let incomplete = text.contains(short);
    assert!(
        incomplete || parked + dead == 0,
        "{parked} and {dead}: {text}"
    );
    let code = if incomplete { 3 } else { 0 };
    assert_eq!(output.status.code(), Some(code), "{text}");
    let mut named = Vec::new();
    if dead > 0 {
        named.push(format!("{dead} dead ("));
    }
    if equal.waiting > dead as usize {
        let outside = equal.waiting - dead as usize;
        named.push(format!(
            "{outside} parked, waiting for a record they require"
        ));
    }
    for what in named {
        assert!(text.contains(&what), "not {what:?} in {text}");
    }
    assert_eq!(status["phase"], "paused", "{status}");
    for field in ["migration", "phase", "balanced", "objects", "processes"] {
        assert!(status.get(field).is_some(), "no {field}: {status}");
    }
    for object in status["objects"].as_array().expect("objects") {
        assert_eq!(object["lag"]["records"], 0, "{status}");
    }
    for process in status["processes"].as_array().expect("processes") {
        assert_eq!(process["alive"], false, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_maps_everything_and_writes_nothing() {
    let more = serde_json::json!({"dryRun": true});
    let sandbox = ["--seed", "8", "--records", "300"];
    let mut migration = Migration::with("dry", &sandbox, "postgres", serde_json::json!({}), more);
    let told = migration.drover_ok(&["run", "--until", "synced"]);
    let heading = "synced\ndry run: no target; what would be written\nOBJECT";
    assert!(told.starts_with(heading), "{told}");
    let client = drover_tests::oracle::connect(&migration.services().postgres).await;
    let tables = client
        .query_one(
            "select count(*) from information_schema.tables where table_schema = $1",
            &[&migration.schema],
        )
        .await
        .expect("a count");
    assert_eq!(tables.get::<_, i64>(0), 0, "a dry run made tables");
    let status = migration.status();
    let extracted: u64 = status["objects"]
        .as_array()
        .expect("objects")
        .iter()
        .filter_map(|object| object["extracted"].as_u64())
        .sum();
    assert!(extracted >= 290, "{status}");
    // What it found, by object and entity: every record would be loaded, or is
    // absent with a reason.
    let row = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.first() == Some(&"Account"))
        .expect("a row");
    let number = |at: usize| row[at].parse::<u64>().expect("a number");
    assert_eq!(row[1], "company", "{told}");
    assert_eq!(number(3) + number(4), number(2), "{told}");
    assert!(number(3) > 0 && number(5) == 0, "{told}");
    let custom = told
        .split_once("which go to `custom`\n")
        .expect("unmapped fields")
        .1;
    assert!(custom.contains("Account to company: "), "{told}");
    // A loader that is started by hand refuses.
    migration.start("loader", "loader-1", &[]);
    let status = migration.stage("loader-1").wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(2));
    let log = migration.stage("loader-1").log_tail();
    assert!(log.contains("DRY_RUN"), "{log}");
}
