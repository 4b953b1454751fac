//! A copy of a topic by librdkafka alone: the cost of reading, writing and
//! remembering how far, which nobody on Kafka can save.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::bench::Result;

/// A copy, at least once: a batch's offsets are committed when every record of
/// it has been acknowledged by all replicas.
#[derive(Debug, Serialize, Deserialize)]
pub struct Copy {
    /// `host:port` of Kafka.
    pub brokers: String,
    /// The topic that is read, from its start.
    pub from: String,
    /// The topic that is written.
    pub to: String,
    /// The consumer group whose offsets say how far it is.
    pub group: String,
    /// How many records a batch has.
    pub batch: usize,
    /// How many batches are on their way at once; 1 is stop and wait.
    pub in_flight: usize,
    /// How many records are copied before it ends.
    pub records: u64,
}

/// Counts a batch's open deliveries. One that failed ends the process: a copy
/// that loses is no baseline.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<AtomicUsize>;

    fn delivery(&self, result: &DeliveryResult<'_>, open: Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            eprintln!("the bare copy: {error}");
            std::process::exit(1);
        }
        open.fetch_sub(1, Ordering::Release);
    }
}

struct Batch {
    open: Arc<AtomicUsize>,
    next: BTreeMap<i32, i64>,
}

impl Copy {
    /// Copies until it has copied everything it was asked for.
    pub fn run(self) -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "8192")
            .create()?;
        let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .create_with_context(Deliveries)?;
        consumer.subscribe(&[&self.from])?;
        let mut flying: VecDeque<Batch> = VecDeque::new();
        let mut copied = 0;
        while copied < self.records {
            let batch = self.batch(&consumer, &producer, self.records - copied, &mut copied)?;
            flying.push_back(batch);
            while flying.len() >= self.in_flight {
                self.settle(&consumer, flying.pop_front())?;
            }
        }
        while !flying.is_empty() {
            self.settle(&consumer, flying.pop_front())?;
        }
        producer.flush(Duration::from_secs(10))?;
        Ok(())
    }

    /// Reads a batch, and hands each record to the producer as it comes.
    fn batch(
        &self,
        consumer: &BaseConsumer,
        producer: &ThreadedProducer<Deliveries>,
        left: u64,
        copied: &mut u64,
    ) -> Result<Batch> {
        let open = Arc::new(AtomicUsize::new(0));
        let mut next = BTreeMap::new();
        let mut count = 0;
        let mut deadline = None;
        while count < self.batch.min(left as usize) {
            let Some(message) = consumer.poll(Duration::from_millis(20)) else {
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    break;
                }
                continue;
            };
            let message = message?;
            deadline.get_or_insert_with(|| Instant::now() + Duration::from_millis(20));
            next.insert(message.partition(), message.offset() + 1);
            let mut record = BaseRecord::with_opaque_to(&self.to, Arc::clone(&open))
                .key(message.key().unwrap_or_default())
                .payload(message.payload().unwrap_or_default());
            open.fetch_add(1, Ordering::Relaxed);
            while let Err((error, returned)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                std::thread::sleep(Duration::from_millis(1));
                record = returned;
            }
            count += 1;
        }
        *copied += count as u64;
        Ok(Batch { open, next })
    }

    /// Waits for a batch's deliveries and commits its offsets.
    fn settle(&self, consumer: &BaseConsumer, batch: Option<Batch>) -> Result<()> {
        let Some(batch) = batch else { return Ok(()) };
        while batch.open.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        let mut list = TopicPartitionList::new();
        for (partition, next) in batch.next {
            list.add_partition_offset(&self.from, partition, Offset::Offset(next))?;
        }
        consumer.commit(&list, CommitMode::Sync)?;
        Ok(())
    }
}
