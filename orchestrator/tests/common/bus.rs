//! The bus as a test touches it.

use std::time::Duration;

use drover_pipeline::envelope::Envelope;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::record::{AbsentReason, Fingerprint, Op};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::soon;

pub fn clients(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random");
    config
}

pub fn admin<T>(
    brokers: &str,
    work: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(clients(brokers).create().unwrap(), AdminOptions::new()).await })
}

pub fn make(brokers: &str, topic: &str, partitions: i32, policy: &str) {
    admin(brokers, async |admin, options| {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = admin
            .create_topics(&[new.set("cleanup.policy", policy)], &options)
            .await;
        made.unwrap().pop().unwrap().unwrap();
    });
}

pub fn delete(brokers: &str, topic: &str) {
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

pub fn alter(brokers: &str, topic: &str, name: &str, value: &str) {
    admin(brokers, async |admin, options| {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let altered = admin.alter_configs(&[config], &options).await;
        altered.unwrap().pop().unwrap().unwrap();
    });
    soon("the setting is altered", || {
        setting(brokers, topic, name) == value
    });
}

pub fn setting(brokers: &str, topic: &str, name: &str) -> String {
    admin(brokers, async |admin, options| {
        let described = admin
            .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
            .await;
        let resource = described.unwrap().pop().unwrap().unwrap();
        resource.get(name).unwrap().value.clone().unwrap()
    })
}

pub fn produce(brokers: &str, topic: &str, partition: i32, key: &str, value: &Value) {
    produce_bytes(brokers, topic, partition, key, value.to_string().as_bytes());
}

pub fn produce_bytes(brokers: &str, topic: &str, partition: i32, key: &str, value: &[u8]) {
    let producer: BaseProducer = clients(brokers).create().unwrap();
    let record = BaseRecord::to(topic).partition(partition).key(key);
    producer.send(record.payload(value)).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// One record in a transaction of its own, as the stages write: behind it stands the
/// marker of the commit, which is an offset, too.
pub fn produce_committed(brokers: &str, topic: &str, partition: i32, key: &str) {
    let patience = Duration::from_secs(30);
    let producer: BaseProducer = clients(brokers)
        .set("transactional.id", format!("test-{topic}-{key}"))
        .create()
        .unwrap();
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    let record = BaseRecord::to(topic).partition(partition).key(key);
    producer.send(record.payload("1")).unwrap();
    producer.commit_transaction(patience).unwrap();
}

/// An extractor's report that it has read the object: an hour from now, so that runs
/// that begin later find it, too.
pub fn seen(brokers: &str, prefix: &str, object: &str) {
    let hour = chrono::Utc::now().timestamp_millis() + 3_600_000;
    let report = json!({
        "stage": "extractor", "name": "fake", "instance": "elsewhere", "pid": 1, "http": "",
        "startedAt": 1, "at": 1, "phase": "running", "lastError": null, "objects": {},
        "lanes": {object: {"phase": "running", "seen": hour}},
    });
    produce(
        brokers,
        &format!("{prefix}.status"),
        0,
        "elsewhere",
        &report,
    );
}

/// A Contact as the extractor writes it.
pub fn raw(brokers: &str, prefix: &str, partition: i32, id: &str) {
    let (topic, key) = (
        format!("{prefix}.raw.fake.contact"),
        format!("fake/Contact/{id}"),
    );
    let envelope = contact(id, "", Op::Upsert, Some(b"{}"));
    produce_bytes(brokers, &topic, partition, &key, &envelope);
}

/// A Contact that the mapping leaves out, as the transformer writes it.
pub fn filtered(brokers: &str, prefix: &str, partition: i32, id: &str) {
    let (topic, key) = (
        format!("{prefix}.canonical.contact"),
        format!("fake/Contact/{id}#contact"),
    );
    let envelope = contact(id, "contact", Op::Absent, None);
    produce_bytes(brokers, &topic, partition, &key, &envelope);
}

/// A Contact's envelope, of version 1.
pub fn contact(id: &str, slot: &str, op: Op, body: Option<&[u8]>) -> Vec<u8> {
    let schema = match slot {
        "" => drover_pipeline::envelope::JSON,
        _ => drover_schemas::entity("contact").unwrap().schema.as_str(),
    };
    let envelope = Envelope {
        migration: "m",
        source: "fake",
        object: "Contact",
        id,
        slot,
        op,
        reason: (op == Op::Absent).then_some(AbsentReason::Filtered),
        version: 1,
        phase: drover_pipeline::record::Phase::Snapshot,
        extracted_at: 1,
        mapping: u32::from(!slot.is_empty()),
        fingerprint: Fingerprint::default(),
        body_schema: schema,
        order: None,
        body,
        stored: None,
    };
    envelope.encode()
}

pub fn commit(brokers: &str, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = clients(brokers).set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

pub fn client(brokers: &str) -> Client {
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
