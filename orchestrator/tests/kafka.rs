//! `init`, `run`, `status` and `deadletter` on a real Kafka, with programs that
//! stand in for the stages.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::time::Duration;

use common::{Bench, Ended, fresh_id, is_alive, kafka, signal, soon};
use drover_pipeline::kafka::client::Client;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

fn clients(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random");
    config
}

fn admin<T>(
    brokers: &str,
    work: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(clients(brokers).create().unwrap(), AdminOptions::new()).await })
}

fn make(brokers: &str, topic: &str, partitions: i32, policy: &str) {
    admin(brokers, async |admin, options| {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = admin
            .create_topics(&[new.set("cleanup.policy", policy)], &options)
            .await;
        made.unwrap().pop().unwrap().unwrap();
    });
}

fn delete(brokers: &str, topic: &str) {
    admin(brokers, async |admin, options| {
        admin
            .delete_topics(&[topic], &options)
            .await
            .unwrap()
            .pop()
            .unwrap()
            .unwrap();
    });
    let consumer: BaseConsumer = clients(brokers).create().unwrap();
    soon("the topic is deleted", || {
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(5))
            .unwrap();
        metadata.topics().iter().all(|t| t.name() != topic)
    });
}

fn setting(brokers: &str, topic: &str, name: &str) -> String {
    admin(brokers, async |admin, options| {
        let described = admin
            .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
            .await;
        let resource = described.unwrap().pop().unwrap().unwrap();
        resource.get(name).unwrap().value.clone().unwrap()
    })
}

fn produce(brokers: &str, topic: &str, partition: i32, key: &str, value: &Value) {
    let producer: BaseProducer = clients(brokers).create().unwrap();
    let value = value.to_string();
    producer
        .send(
            BaseRecord::to(topic)
                .partition(partition)
                .key(key)
                .payload(&value),
        )
        .unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn commit(brokers: &str, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = clients(brokers).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

fn client(brokers: &str) -> Client {
    let text =
        json!({"id": "x", "tenantId": "x", "sourceType": "x", "kafka": {"brokers": brokers}});
    let document = drover_pipeline::config::Document::parse("x.json", text.to_string().as_bytes());
    let part = drover_pipeline::config::Part::Skip;
    let document = document.unwrap();
    let config = document
        .migration(&document.environment(), part, part)
        .unwrap();
    Client::new(&config.kafka, "test")
}

#[test]
fn init_makes_what_is_needed_and_repeats_without_a_change() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({}));
    let ended = bench.drover(&["status", "-c", "m.json"]);
    ended.code(3);
    assert!(ended.err.starts_with("NOT_INITIALISED: "), "{ended:?}");

    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(0);
    assert!(
        ended
            .out
            .contains("is initialised: 15 topics, 15 of them new"),
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
        (1, 3, 15)
    );
    let all: Vec<String> = plan.incarnations.keys().cloned().collect();
    plan.check_incarnations(&client, &all).unwrap();

    let ended = bench.drover(&["init", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    assert_eq!(ended.json()["changed"], false);
    assert_eq!(ended.json()["plan"], serde_json::to_value(&plan).unwrap());
    assert_eq!(bench.calls("drover-extractor-fake discover"), 1);

    // Other objects, another target, fewer partitions: refused, each clearly.
    for (more, told) in [
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
        ended.out.contains("10 topics, 9 of them new"),
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
    assert!(
        ended
            .err
            .contains("objects[1]: the connector's mapping has no `Task`"),
        "{ended:?}"
    );
}

#[test]
fn status_and_dead_letters_are_read_from_kafka_alone() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact", "Lead"]}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    bench.drover(&["status", "-c", "m.json"]).code(0);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let put = |topic: &str, key: &str, value: Value| {
        produce(&kafka.brokers, &format!("{prefix}.{topic}"), 0, key, &value);
    };
    let now = drover_pipeline::status::now();
    put(
        "checkpoint",
        "fake/Contact",
        json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": true, "extracted": 9, "asOf": now - 3000, "at": now}),
    );
    let entry = |state: Value| json!({"order": {"version": 1, "mapping": 1, "incarnation": 1, "offset": 1}, "fingerprint": "00000000000000000000000000000001", "state": state});
    put(
        "idempotency.store",
        "fake/Contact/1#contact",
        entry(json!("applied")),
    );
    put(
        "idempotency.store",
        "fake/Contact/2#contact",
        entry(json!("applied")),
    );
    put(
        "idempotency.store",
        "fake/Contact/3#contact",
        entry(json!({"deleted": {"reason": "deleted"}})),
    );
    put(
        "parked.store",
        "fake/Contact/4#contact",
        json!({"reason": {"kind": "lease"}}),
    );
    let letter = |key: &str| json!({"stage": "transformer", "key": key, "object": "Contact", "code": "TOO_LONG", "message": "300 characters, at most 255", "place": "Contact.Name", "topic": "t", "partition": 0, "offset": 1, "version": 1, "at": now, "value": ""});
    put(
        "deadletter",
        "transformer/fake/Contact/5",
        letter("fake/Contact/5"),
    );
    put(
        "deadletter",
        "transformer/fake/Contact/6",
        letter("fake/Contact/6"),
    );
    put(
        "status",
        "loader-1",
        json!({"stage": "loader", "name": "store", "instance": "loader-1", "pid": 7, "http": "127.0.0.1:9", "startedAt": now, "at": now, "phase": "running", "lastError": "THROTTLED: wait", "objects": {"Contact": {"unchanged": 4, "stale": 2}}, "lanes": {}}),
    );
    put(
        "status",
        "loader-2",
        json!({"stage": "loader", "name": "store", "instance": "loader-2", "pid": 8, "http": "127.0.0.1:9", "startedAt": now, "at": now - 11_000, "phase": "running", "lastError": null, "objects": {}, "lanes": {}}),
    );
    // Two raw records of which one is read; nothing read of the canonical one.
    put("raw.fake.contact", "fake/Contact/1", json!(1));
    put("raw.fake.contact", "fake/Contact/2", json!(2));
    commit(
        &kafka.brokers,
        &format!("{prefix}.transform"),
        &format!("{prefix}.raw.fake.contact"),
        2,
    );
    put("canonical.contact", "fake/Contact/1#contact", json!(1));

    let ended = bench.drover(&["status", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    let view = ended.json();
    assert_eq!(view["migration"], id.as_str());
    assert_eq!(view["phase"], "loading");
    assert_eq!(view["balanced"], Value::Null);
    let contact = &view["objects"][0];
    for (name, value) in [
        ("extracted", 9),
        ("loaded", 2),
        ("absent", 1),
        ("unchanged", 4),
        ("stale", 2),
        ("parked", 1),
        ("dead", 2),
    ] {
        assert_eq!(contact[name], value, "{name} in {contact}");
    }
    assert_eq!(contact["object"], "Contact");
    assert_eq!(contact["lag"]["transform"]["records"], 1, "{contact}");
    assert_eq!(contact["lag"]["load"]["records"], 1, "{contact}");
    assert_eq!(contact["lag"]["records"], 2, "{contact}");
    assert!(
        contact["lag"]["load"]["seconds"].as_u64().unwrap() < 60,
        "{contact}"
    );
    assert!(
        (3..60).contains(&contact["lag"]["seconds"].as_u64().unwrap()),
        "{contact}"
    );
    let lead = &view["objects"][1];
    assert_eq!(
        (&lead["extracted"], &lead["lag"]["transform"]["records"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(view["processes"][0]["name"], "drover-loader-store");
    assert_eq!(view["processes"][0]["alive"], true);
    assert_eq!(view["processes"][0]["lastError"], "THROTTLED: wait");
    assert_eq!(view["processes"][1]["alive"], false);
    bench.drover(&["status", "-c", "m.json"]).code(0);

    let ended = bench.drover(&["deadletter", "list", "-c", "m.json"]);
    ended.code(0);
    assert!(
        ended
            .out
            .contains("2  Contact: TOO_LONG at Contact.Name (transformer)"),
        "{}",
        ended.out
    );
    let ended = bench.drover(&["deadletter", "list", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    assert_eq!(ended.json()[0]["count"], 2);
    assert!(
        ended.json()[0]["example"]["key"]
            .as_str()
            .unwrap()
            .starts_with("fake/Contact/")
    );
}

#[test]
fn run_supervises_until_a_signal_ends_it() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    let mut run = bench
        .command(&["run", "-c", "m.json", "--loaders", "2", "--dir", "here"])
        .spawn()
        .unwrap();
    let pids = |instance: &str| -> Vec<String> {
        bench
            .read(&format!("{instance}.pids"))
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let instances = ["extractor-1", "transformer-1", "loader-1", "loader-2"];
    soon("all stages run", || {
        instances.iter().all(|instance| pids(instance).len() == 1)
    });
    let second = bench.drover(&["run", "-c", "m.json", "--dir", "here"]);
    second.code(3);
    assert!(
        second
            .err
            .starts_with("REFUSED: another `drover run` is at work in here; end it"),
        "{second:?}"
    );

    // The first restart comes at once.
    let killed = pids("loader-2")[0].clone();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &killed])
            .status()
            .unwrap()
            .success()
    );
    soon("the loader is started again", || {
        pids("loader-2").len() == 2
    });
    signal(&run, "INT");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let ended = Ended::of(&run.wait_with_output().unwrap());
    ended.code(0);
    assert!(
        ended
            .err
            .contains("loader-2: ended (signal 9); starts again now"),
        "{ended:?}"
    );
    assert!(ended.err.contains("logs: here/logs"), "{ended:?}");
    for instance in instances {
        assert!(
            pids(instance).iter().all(|pid| !is_alive(pid)),
            "{instance}"
        );
        let log = bench.read(&format!("here/logs/{instance}.log"));
        assert!(
            log.contains("a line of the log") && log.contains("told to stop"),
            "{log}"
        );
    }
}

#[test]
fn a_bad_configuration_of_a_stage_ends_the_run_and_a_crash_does_not() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    bench.write("extractor-1.fail", "3\nCONNECTION: nobody there; check\n");
    let mut run = bench.command(&["run", "-c", "m.json"]).spawn().unwrap();
    soon("the extractor is started again", || {
        bench.read("extractor-1.pids").lines().count() == 2
    });
    bench.write(
        "loader-1.fail",
        "2\nCONFIG_INVALID: targetConfig.url: is no address; mend it\n",
    );
    let pid = bench.read("loader-1.pids").trim().to_owned();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let ended = Ended::of(&run.wait_with_output().unwrap());
    ended.code(2);
    assert!(ended.err.contains("extractor-1: ended (exit code 3); starts again now\nextractor-1: CONNECTION: nobody there; check\n"), "{ended:?}");
    assert!(
        ended
            .err
            .ends_with("CONFIG_INVALID: targetConfig.url: is no address; mend it\n"),
        "{ended:?}"
    );
    let log = format!(".drover/{id}/logs/loader-1.log");
    assert!(bench.read(&log).contains("is no address"));
}

#[test]
fn run_until_synced_waits_for_the_last_stage() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let (raw, canonical) = (
        format!("{prefix}.raw.fake.contact"),
        format!("{prefix}.canonical.contact"),
    );
    for partition in 0..4 {
        produce(&kafka.brokers, &raw, partition, "fake/Contact/1", &json!(1));
        produce(
            &kafka.brokers,
            &canonical,
            partition,
            "fake/Contact/1#contact",
            &json!(1),
        );
    }
    let mut run = bench
        .command(&[
            "run", "-c", "m.json", "--until", "synced", "--format", "json",
        ])
        .spawn()
        .unwrap();
    let mut waits = |what: &str| {
        std::thread::sleep(Duration::from_secs(2));
        assert!(run.try_wait().unwrap().is_none(), "{what}");
    };
    waits("nothing is extracted");
    let checkpoint = |complete: bool| json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": complete, "extracted": 4, "asOf": 1, "at": 1});
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint(false),
    );
    commit(
        &kafka.brokers,
        &format!("{prefix}.load.store"),
        &canonical,
        2,
    );
    waits("the snapshot is not complete");
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint(true),
    );
    waits("the transformer has read nothing");
    // It makes one more of what it reads.
    produce(
        &kafka.brokers,
        &canonical,
        3,
        "fake/Contact/2#contact",
        &json!(2),
    );
    commit(&kafka.brokers, &format!("{prefix}.transform"), &raw, 2);
    waits("the loader has not read the last one");
    commit(
        &kafka.brokers,
        &format!("{prefix}.load.store"),
        &canonical,
        3,
    );
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let mut out = String::new();
    run.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let ended = Ended::of(&run.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let view: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&view["phase"], &view["objects"][0]["extracted"]),
        (&json!("syncing"), &json!(4))
    );
    assert!(
        ended.err.contains("Contact: following, 4 read, 0 loaded"),
        "{ended:?}"
    );
}

#[test]
fn a_dry_run_starts_no_loader() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(
        &id,
        &kafka.brokers,
        json!({"objects": ["Contact"], "dryRun": true, "targetConfig": {}}),
    );
    bench.drover(&["init", "-c", "m.json"]).code(0);
    let prefix = format!("drover-dryrun.{}", drover_pipeline::topics::segment(&id));
    let checkpoint = json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": true, "extracted": 0, "asOf": 1, "at": 1});
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint,
    );
    let ended = bench.drover(&["run", "-c", "m.json", "--until", "synced"]);
    ended.code(0);
    assert!(ended.out.starts_with("synced\nOBJECT"), "{ended:?}");
    assert_eq!(bench.calls("drover-transformer-mapper run"), 1);
    assert_eq!(bench.calls("drover-loader-store run"), 0);
}
