//! `drover doctor` on a real Kafka, and `drover metrics` beside it.
#![allow(clippy::unwrap_used)]

mod common;

use common::bus::{alter, delete};
use common::{Bench, Ended, fresh_id, kafka};
use serde_json::{Value, json};

fn finding<'a>(findings: &'a Value, subject: &str) -> Option<&'a Value> {
    let all = findings.as_array().unwrap();
    all.iter().find(|finding| finding["subject"] == subject)
}

#[test]
fn what_is_wrong_is_named_with_the_command_that_mends_it() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({}));
    let doctor = || -> Ended { bench.drover(&["doctor", "-c", "m.json", "--format", "json"]) };

    let ended = doctor();
    ended.code(0);
    let findings = ended.json();
    let topics = finding(&findings, "topics").unwrap();
    assert_eq!(topics["health"], "warning");
    assert_eq!(topics["mend"], "drover init -c m.json");
    let program = finding(&findings, "drover-extractor-fake").unwrap();
    assert_eq!(program["health"], "ok", "{program}");

    bench.drover(&["init", "-c", "m.json"]).code(0);
    let ended = doctor();
    ended.code(0);
    assert_eq!(finding(&ended.json(), "topics").unwrap()["health"], "ok");
    bench.drover(&["doctor", "-c", "m.json"]).code(0);

    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let contact = format!("{prefix}.canonical.contact");
    alter(&kafka.brokers, &contact, "delete.retention.ms", "1000");
    let gone = format!("{prefix}.checkpoint");
    delete(&kafka.brokers, &gone);
    let ended = doctor();
    ended.code(3);
    let findings = ended.json();
    // Kafka's older call, which the test uses, takes back what it does not name:
    // the cleanup policy too.
    let altered = |setting: &str| {
        let all = findings.as_array().unwrap().iter();
        let mut of_topic = all.filter(|finding| finding["subject"] == contact);
        let found = of_topic.find(|f| f["detail"].as_str().unwrap().starts_with(setting));
        found.unwrap_or_else(|| panic!("{setting}: {findings}"))
    };
    assert_eq!(altered("cleanup.policy")["health"], "failed");
    let retention = altered("delete.retention.ms");
    assert_eq!(retention["health"], "warning");
    let mend = retention["mend"].as_str().unwrap();
    assert!(
        mend.ends_with("--add-config delete.retention.ms=604800000"),
        "{mend}"
    );
    assert_eq!(finding(&findings, &gone).unwrap()["health"], "failed");
}

#[test]
fn without_a_broker_or_a_configuration_it_says_so() {
    let bench = Bench::new();
    let ended = bench.drover(&["doctor"]);
    ended.code(0);
    assert!(
        ended.out.contains("mend: drover doctor -c FILE"),
        "{}",
        ended.out
    );
    bench.config("m", "127.0.0.1:9", json!({}));
    let ended = bench.drover(&["doctor", "-c", "m.json"]);
    ended.code(3);
    assert!(ended.out.contains("BROKER_UNREACHABLE"), "{}", ended.out);
    assert!(ended.out.contains("127.0.0.1:9"), "{}", ended.out);
    let raw = ended.out.contains('[') || ended.out.contains("Local:");
    assert!(!raw, "librdkafka's own words: {}", ended.out);
}

#[test]
fn the_metrics_of_a_migration_are_printed() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    // Not for a person: its lines are as long as they are.
    let ended = bench.drover(&["metrics", "-c", "m.json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ready = format!(r#"drover_migration_phase{{phase="ready",migration="{id}"}} 1"#);
    assert!(ended.out.contains(&ready), "{}", ended.out);
    let lag = format!(
        "group=\"drover.{}.transform\"",
        drover_pipeline::topics::segment(&id)
    );
    assert!(ended.out.contains(&lag), "{}", ended.out);
    let ended = bench.drover(&["metrics", "-c", "m.json", "--format", "json"]);
    let families = ended.json();
    let mut phases = families.as_array().unwrap().iter();
    let phase = phases.find(|family| family["name"] == "drover_migration_phase");
    assert_eq!(phase.unwrap()["values"][0]["labels"]["phase"], "ready");
}
