//! A migration's topics, as somebody else touches them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The topics of one migration.
pub struct Bus {
    brokers: String,
    prefix: String,
}

impl Bus {
    /// Those of the migration with that id.
    pub fn new(brokers: &str, migration: &str) -> Bus {
        Bus {
            brokers: brokers.to_owned(),
            prefix: format!("drover.{migration}"),
        }
    }

    /// The whole name of a topic, or of a consumer group.
    pub fn name(&self, topic: &str) -> String {
        format!("{}.{topic}", self.prefix)
    }

    /// Writes a record; returns partition and offset.
    pub async fn produce(&self, topic: &str, key: &[u8], value: Option<&[u8]>) -> (i32, i64) {
        let name = self.name(topic);
        let record = FutureRecord::to(&name).key(key);
        self.send(match value {
            Some(value) => record.payload(value),
            None => record,
        })
        .await
    }

    /// The same into one partition.
    pub async fn produce_into(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) {
        let name = self.name(topic);
        let record = FutureRecord::to(&name).key(key).payload(value);
        self.send(record.partition(partition)).await;
    }

    /// Takes a key out of one partition.
    pub async fn tombstone(&self, topic: &str, partition: i32, key: &[u8]) {
        let name = self.name(topic);
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&name).key(key);
        self.send(record.partition(partition)).await;
    }

    async fn send(&self, record: FutureRecord<'_, [u8], [u8]>) -> (i32, i64) {
        let producer: FutureProducer = self
            .client()
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        let delivered = producer
            .send(record, PATIENCE)
            .await
            .expect("Kafka takes the record");
        (delivered.partition, delivered.offset)
    }

    /// Every committed record of a topic.
    pub fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        let name = self.name(topic);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "a-test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer");
        let metadata = consumer
            .fetch_metadata(Some(&name), PATIENCE)
            .expect("the topic");
        let mut open = metadata.topics()[0].partitions().len();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..open {
            assignment
                .add_partition_offset(&name, partition as i32, Offset::Beginning)
                .expect("a partition");
        }
        consumer.assign(&assignment).expect("an assignment");
        let mut records = Vec::new();
        while open > 0 {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => records.push(message.detach()),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
                other => panic!("reading {name}: {other:?}"),
            }
        }
        records
    }

    /// A compacted topic as a table of JSON, without the records that `init` writes.
    pub fn table(&self, topic: &str) -> BTreeMap<String, serde_json::Value> {
        let mut table = BTreeMap::new();
        for record in self.read(topic) {
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            match record.payload() {
                _ if key.starts_with("__drover/") => {}
                Some(value) => {
                    table.insert(key, serde_json::from_slice(value).expect("JSON"));
                }
                None => {
                    table.remove(&key);
                }
            }
        }
        table
    }

    /// What a group has committed in a topic, by partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> i64 {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", self.name(group))
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name(topic), partition);
        let committed = consumer
            .committed_offsets(list, PATIENCE)
            .expect("committed offsets");
        committed.elements()[0].offset().to_raw().unwrap_or(-1)
    }

    /// Where a partition starts and ends.
    pub fn ends(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        consumer
            .fetch_watermarks(&self.name(topic), partition, PATIENCE)
            .expect("its ends")
    }

    /// Removes every record of a topic by Kafka's own DeleteRecords, which it
    /// allows only where a retention was set.
    pub async fn cut(&self, topic: &str, partitions: i32) {
        let name = self.name(topic);
        let config = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let set = self
            .admin()
            .alter_configs(
                &[config.set("cleanup.policy", "compact,delete")],
                &AdminOptions::new(),
            )
            .await
            .expect("an answer");
        assert!(set.iter().all(Result::is_ok), "{set:?}");
        let mut before = TopicPartitionList::new();
        for partition in 0..partitions {
            let (_, end) = self.ends(topic, partition);
            before
                .add_partition_offset(&self.name(topic), partition, Offset::Offset(end))
                .expect("a partition");
        }
        let cut = self
            .admin()
            .delete_records(&before, &AdminOptions::new())
            .await
            .expect("an answer");
        for elem in cut.elements() {
            elem.error().expect("records removed");
        }
    }

    /// Sets what a group has committed, as `kafka-consumer-groups.sh
    /// --reset-offsets` does. The group must have no members; that of a static
    /// member which has ended is waited for.
    pub async fn commit(&self, group: &str, topic: &str, offsets: &[i64]) {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", self.name(group))
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(&self.name(topic), partition, Offset::Offset(*offset))
                .expect("a partition");
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            assert!(std::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A record in a transaction that stays open until the producer is dropped
    /// or ends it.
    pub async fn hang(&self, topic: &str, partition: i32, id: &str) -> FutureProducer {
        let producer: FutureProducer = self
            .client()
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "120000")
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("an id");
        producer.begin_transaction().expect("a transaction");
        let name = self.name(topic);
        let record = FutureRecord::to(&name)
            .partition(partition)
            .key("a-foreign-key")
            .payload("a foreign value");
        producer
            .send(record, PATIENCE)
            .await
            .expect("Kafka takes it");
        producer
    }

    /// Whether there is such a topic.
    pub fn exists(&self, topic: &str) -> bool {
        let name = self.name(topic);
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let all = consumer.fetch_metadata(None, PATIENCE).expect("the topics");
        all.topics().iter().any(|topic| topic.name() == name)
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete(&self, topic: &str) {
        let name = self.name(topic);
        let deleted = self
            .admin()
            .delete_topics(&[&name], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted[0].is_ok(), "{deleted:?}");
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        loop {
            let all = consumer
                .fetch_metadata(None, PATIENCE)
                .expect("the topics' names");
            if all.topics().iter().all(|topic| topic.name() != name) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes a topic.
    pub async fn make(&self, topic: &str, partitions: i32, policy: &str) {
        let name = self.name(topic);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let made = self
            .admin()
            .create_topics(&[new.set("cleanup.policy", policy)], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(made[0].is_ok(), "{made:?}");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}
