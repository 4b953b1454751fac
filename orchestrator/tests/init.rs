//! `drover init` on a real Kafka.
#![allow(clippy::unwrap_used)]

mod common;

use common::bus::{client, delete, make, produce, setting};
use common::{Bench, fresh_id, kafka};
use serde_json::json;

#[test]
fn init_makes_what_is_needed_and_repeats_without_a_change() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({}));
    for verb in [
        &["status"][..],
        &["deadletter", "list"],
        &["deadletter", "retry", "--all"],
        &["parked", "list"],
        &["parked", "why", "fake/Contact/1"],
        &["balance"],
        &["topics"],
        &["record", "Contact/1"],
        &["remap"],
    ] {
        let ended = bench.drover(&[verb, &["-c", "m.json"]].concat());
        ended.code(3);
        let told = "NOT_INITIALISED: the migration was not initialised: the topic ";
        assert!(ended.err.starts_with(told), "{verb:?}: {ended:?}");
    }

    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(0);
    assert!(
        ended
            .out
            .contains("is initialised: 16 topics, 16 of them new"),
        "{}",
        ended.out
    );
    for row in [
        "Account     company                 2",
        "Lead        company, contact        -",
        "Invoice__c  record                  -",
    ] {
        assert!(ended.out.contains(row), "{}", ended.out);
    }
    assert!(!ended.out.contains("Task"), "{}", ended.out);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    for (topic, name, value) in [
        ("canonical.contact", "cleanup.policy", "compact"),
        ("raw.fake.custom", "cleanup.policy", "compact"),
        ("idempotency.store", "max.message.bytes", "12582912"),
        ("status", "cleanup.policy", "compact,delete"),
        ("status", "retention.ms", "86400000"),
        ("checkpoint", "unclean.leader.election.enable", "false"),
    ] {
        assert_eq!(
            setting(&kafka.brokers, &format!("{prefix}.{topic}"), name),
            value,
            "{topic}"
        );
    }
    let client = client(&kafka.brokers);
    let document = std::fs::read(bench.path("m.json")).unwrap();
    let document = drover_pipeline::config::Document::parse("m.json", &document).unwrap();
    let part = drover_pipeline::config::Part::Skip;
    let config = document
        .migration(&document.environment(), part, part)
        .unwrap();
    let topics = drover_pipeline::topics::Topics::of(&config);
    let plan = drover_pipeline::control::Plan::read(&client, &topics).unwrap();
    assert_eq!(
        (
            plan.generation,
            plan.entities.len(),
            plan.incarnations.len()
        ),
        (1, 3, 16)
    );
    let all: Vec<String> = plan.incarnations.keys().cloned().collect();
    plan.check_incarnations(&client, &all).unwrap();
    // Two custom objects name the same topic.
    let twice = [all.clone(), all].concat();
    plan.check_incarnations(&client, &twice).unwrap();

    let ended = bench.drover(&["init", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    assert_eq!(ended.json()["changed"], false);
    assert_eq!(ended.json()["plan"], serde_json::to_value(&plan).unwrap());
    assert_eq!(bench.calls("drover-extractor-fake discover"), 1);

    // A changed mapping is what `remap` is for: a warning, unless it can't work.
    bench.config(
        &id,
        &kafka.brokers,
        json!({"mappings": {"Phone": "phoneNumber"}}),
    );
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(0);
    let row = ended.out.lines().find(|line| line.starts_with("mappings"));
    let row = row.map(|row| row.split_whitespace().nth(1).unwrap());
    assert_eq!(row, Some("warn"), "{}", ended.out);
    let text = ended.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("`drover remap`"), "{text}");
    let failing = "2\nCONFIG_INVALID: objects.Lead.slots.contact.fields.phoneNumber: no; mend it\n";
    bench.write("drover-transformer-mapper.fail", failing);
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    assert!(
        ended.err.starts_with("CONFIG_INVALID: mappings.Phone: no "),
        "{ended:?}"
    );
    std::fs::remove_file(bench.path("drover-transformer-mapper.fail")).unwrap();

    // What lies in a topic that was just made.
    let ended = bench.drover(&["topics", "-c", "m.json", "--format", "json"]);
    for topic in ended.json().as_array().unwrap() {
        let empty = !topic["topic"].as_str().unwrap().ends_with(".control");
        assert!(!empty || topic["offsets"] == 0, "{topic}");
    }

    // Another mapping, other objects, fewer partitions: refused, each clearly.
    for (more, told) in [
        (
            json!({"mappings": {"Phone": "phoneNumber"}}),
            "CONTROL_MISMATCH: the mapping differs from generation 1: ",
        ),
        (
            json!({"objects": ["Contact"]}),
            "CONTROL_MISMATCH: it was initialised with",
        ),
        (
            json!({"kafka": {"brokers": kafka.brokers, "partitions": 2}}),
            "TOPIC_MISMATCH: ",
        ),
    ] {
        bench.config(&id, &kafka.brokers, more);
        let ended = bench.drover(&["init", "-c", "m.json"]);
        ended.code(3);
        assert!(ended.err.starts_with(told), "{ended:?}");
    }

    // The idempotency table is gone: never made anew in silence.
    bench.config(&id, &kafka.brokers, json!({}));
    delete(&kafka.brokers, &format!("{prefix}.idempotency.store"));
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(3);
    assert!(
        ended
            .err
            .starts_with("IDEMPOTENCY_LOST: topics of an initialised migration are gone: "),
        "{ended:?}"
    );
    make(
        &kafka.brokers,
        &format!("{prefix}.idempotency.store"),
        4,
        "compact",
    );
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(3);
    assert!(ended.err.starts_with("IDEMPOTENCY_LOST: "), "{ended:?}");
}

#[test]
fn init_goes_on_where_it_was_interrupted_and_refuses_what_is_not_its_own() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    make(
        &kafka.brokers,
        &format!("{prefix}.redo.store"),
        3,
        "compact",
    );
    make(
        &kafka.brokers,
        &format!("{prefix}.parked.store"),
        4,
        "delete",
    );
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(3);
    assert_eq!(
        ended
            .err
            .lines()
            .map(|line| line.split(';').next().unwrap().to_owned())
            .collect::<Vec<_>>(),
        [
            format!("TOPIC_MISMATCH: {prefix}.parked.store has cleanup.policy=delete, not compact"),
            format!("TOPIC_MISMATCH: {prefix}.redo.store has 3 partitions, not 4"),
        ]
    );
    for topic in ["redo.store", "parked.store"] {
        delete(&kafka.brokers, &format!("{prefix}.{topic}"));
    }
    // Made, and stamped in part only, when it was interrupted.
    let topic = format!("{prefix}.redo.store");
    make(&kafka.brokers, &topic, 4, "compact");
    produce(
        &kafka.brokers,
        &topic,
        1,
        "__drover/incarnation",
        &json!({"incarnation": 1}),
    );
    let raw = format!("{prefix}.raw.fake.contact");
    make(&kafka.brokers, &raw, 4, "compact");
    produce(
        &kafka.brokers,
        &raw,
        2,
        "__drover/incarnation",
        &json!({"incarnation": 1}),
    );
    produce(
        &kafka.brokers,
        &raw,
        2,
        "a",
        &json!("record of another life"),
    );
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(3);
    assert!(
        ended.err.contains("TOPIC_RECREATED: ")
            && ended.err.contains("although the migration has no plan"),
        "{ended:?}"
    );
    delete(&kafka.brokers, &raw);
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(0);
    assert!(
        ended.out.contains("11 topics, 10 of them new"),
        "{}",
        ended.out
    );

    // Nothing of a source that is not asked for, and nothing unknown.
    bench.config(
        &fresh_id(),
        &kafka.brokers,
        json!({"objects": ["Contcat", "Task"]}),
    );
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(2);
    assert!(
        ended
            .err
            .contains("objects[0]: the source has no `Contcat` (m.json:"),
        "{ended:?}"
    );
    assert!(ended.err.contains("write `Contact`"), "{ended:?}");
    // An object without rules of its own is migrated as a record when asked for.
    assert!(!ended.err.contains("objects[1]"), "{ended:?}");

    bench.config(
        &fresh_id(),
        &kafka.brokers,
        json!({"mappings": {"Phone": "phoneNumbr"}}),
    );
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(2);
    assert!(
        ended.err.starts_with("CONFIG_INVALID: mappings.Phone: "),
        "{ended:?}"
    );
    assert!(ended.err.contains(" (m.json:"), "{ended:?}");
}
