//! What Kafka itself refuses, and what it shows to nobody.

use drover_pipeline::Code;
use drover_pipeline::config::{MigrationConfig, Part};
use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::kafka::producer::{Failure, Record, TransactionalProducer};
use drover_pipeline::topics::Topics;
use drover_tests::bus::Bus;
use drover_tests::services::services;
use serde_json::json;

fn write(producer: &TransactionalProducer, topic: &str, value: &[u8]) -> Result<(), Failure> {
    let record = Record::new(topic, b"key", Some(value));
    let written = producer.transaction(|transaction| transaction.send(record), None, |_| {});
    written.map(drop)
}

/// Two loaders of one name, as when a paused process wakes up after its
/// replacement has started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_process_of_the_same_name_is_fenced() {
    let brokers = &services().brokers;
    let id = format!("fencing-{:08x}", rand::random::<u32>());
    let bus = Bus::new(brokers, &id);
    bus.make("idempotency.postgres", 1, "compact").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("migration.json");
    let document = json!({
        "id": id, "tenantId": "t", "sourceType": "salesforce", "sourceConfig": {},
        "targetType": "postgres", "targetConfig": {}, "kafka": {"brokers": brokers},
    });
    std::fs::write(&file, document.to_string()).expect("written");
    let config = MigrationConfig::load_for(&file, Part::Skip, Part::Skip);
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
    let (topics, topic) = (Topics::of(&config), bus.name("idempotency.postgres"));
    let client = Client::new(&config.kafka, "loader-1");
    let open = || {
        let name = topics.transactional_id(&topics.load_group(), "loader-1");
        TransactionalProducer::open(&client, &name).expect("a producer")
    };
    let shown = |expected: &[u8]| {
        let table = read_to_end(&client, &topic).expect("the topic");
        assert_eq!(table.get(&b"key"[..]).map(Vec::as_slice), Some(expected));
    };
    tokio::task::block_in_place(|| {
        let older = open();
        write(&older, &topic, b"older").expect("alone it may write");
        let younger = open();
        write(&younger, &topic, b"younger").expect("it may write");
        match write(&older, &topic, b"too late") {
            Err(Failure::Dead(error)) => assert_eq!(error.code, Code::Fenced),
            other => panic!("the older one wrote: {other:?}"),
        }
        shown(b"younger");
        // What was aborted is shown to nobody.
        let aborted = younger.transaction(
            |transaction| {
                transaction.send(Record::new(&topic, b"key", Some(b"aborted")))?;
                Err(drover_pipeline::Error::new(Code::Invariant, "given up"))
            },
            None,
            |_| {},
        );
        assert!(matches!(aborted, Err(Failure::Aborted(_))), "{aborted:?}");
        shown(b"younger");
    });
    bus.delete("idempotency.postgres").await;
}
