//! The transactional producer, on librdkafka's in-process broker.

use drover_pipeline::Class;
use drover_pipeline::config::KafkaConfig;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::producer::{Failure, Record, TransactionalProducer};
use rdkafka::mocking::{MockCluster, MockCoordinator};

/// What was seen with a real broker that came back from a crash: everything
/// works again but this producer's connection to its coordinator, for good.
#[test]
fn a_producer_whose_coordinator_stays_deaf_is_given_up() {
    let cluster = MockCluster::new(2).expect("a mock cluster");
    cluster.create_topic("t", 1, 1).expect("a topic");
    cluster.partition_leader("t", 0, Some(1)).expect("a leader");
    let coordinator = |broker| {
        let id = MockCoordinator::Transaction("tx".into());
        cluster.coordinator(id, broker).expect("a coordinator");
    };
    coordinator(2);
    let kafka = KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        partitions: 1,
        replication: None,
        client: std::collections::BTreeMap::new(),
    };
    let client = Client::new(&kafka, "test");
    let producer = TransactionalProducer::open(&client, "tx").expect("a producer");

    let ended = producer.transaction(
        |transaction| transaction.send(Record::new("t", b"k", Some(b"v"))),
        None,
        |_| cluster.broker_down(2).expect("it is down"),
    );
    let Err(Failure::Dead(error)) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.message.starts_with("committing: "), "{error}");

    // A new one goes on, whatever the old one left undone.
    coordinator(1);
    let producer = TransactionalProducer::open(&client, "tx").expect("another producer");
    let ends = producer
        .transaction(
            |transaction| transaction.send(Record::new("t", b"k", Some(b"w"))),
            None,
            |_| {},
        )
        .expect("a transaction");
    assert_eq!(ends.len(), 1, "{ends:?}");
}
