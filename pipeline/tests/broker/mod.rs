//! The broker of a test: librdkafka's in-process one, or, for what that one does
//! not tell (offsets that were committed in transactions), a real Kafka.

use std::time::{Duration, Instant};

use drover_pipeline::topics::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A broker.
pub enum Broker {
    /// In this process, of one test.
    Mock(MockCluster<'static, DefaultProducerContext>),
    /// That of `KAFKA_BROKERS`.
    Real(String),
}

impl Broker {
    /// In this process.
    pub fn mock() -> Broker {
        Broker::Mock(MockCluster::new(1).expect("a mock broker"))
    }

    /// The one that `tests/run` starts; `None`, said aloud, where there is none.
    pub fn real() -> Option<Broker> {
        match std::env::var("KAFKA_BROKERS") {
            Ok(brokers) => Some(Broker::Real(brokers)),
            Err(_) => {
                eprintln!("SKIPPED: KAFKA_BROKERS is not set; `tests/run unit` sets it");
                None
            }
        }
    }

    /// `host:port`.
    pub fn servers(&self) -> String {
        match self {
            Broker::Mock(cluster) => cluster.bootstrap_servers(),
            Broker::Real(brokers) => brokers.clone(),
        }
    }

    /// Makes the topics.
    pub fn create(&self, topics: &[Topic]) {
        match self {
            Broker::Mock(cluster) => {
                for topic in topics {
                    cluster
                        .create_topic(&topic.name, topic.partitions, 1)
                        .expect("a topic");
                }
            }
            Broker::Real(brokers) => {
                let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
                    .set("bootstrap.servers", brokers)
                    .create()
                    .expect("a client");
                let new: Vec<NewTopic<'_>> = topics
                    .iter()
                    .map(|topic| {
                        let one = TopicReplication::Fixed(1);
                        NewTopic::new(&topic.name, topic.partitions, one)
                    })
                    .collect();
                let options = AdminOptions::new();
                let making = admin.create_topics(&new, &options);
                let made = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(making)
                });
                for topic in made.expect("an answer") {
                    topic.expect("a topic");
                }
                ready(brokers, topics);
            }
        }
    }
}

/// Waits until every partition has its leader: a topic is there before.
fn ready(brokers: &str, topics: &[Topic]) {
    let patience = Duration::from_secs(20);
    let deadline = Instant::now() + patience;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    for topic in topics {
        for partition in 0..topic.partitions {
            while let Err(error) = consumer.fetch_watermarks(&topic.name, partition, patience) {
                assert!(Instant::now() < deadline, "{}: {error}", topic.name);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
