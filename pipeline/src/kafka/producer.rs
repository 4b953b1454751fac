//! Transactions, and the plain producer for what needs none.
//!
//! rust-rdkafka's `flush` and `commit_transaction` wait in steps of 100 ms while
//! deliveries are outstanding. A [`Transaction`] therefore waits for its own
//! deliveries first, on a condition variable, and commits an empty queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;

use super::client::Client;
use super::heard::{log, log_error};
use super::{Place, explain};
use crate::error::{Code, Error, Result};

/// How long one call of a transaction may take before it is looked at again.
const CALL: Duration = Duration::from_secs(10);
/// How long a broker may take to answer a question that needs no coordinator.
const REACH: Duration = Duration::from_secs(2);

/// Counts deliveries and keeps their offsets.
#[derive(Default)]
struct Deliveries {
    outstanding: AtomicUsize,
    state: Mutex<Delivered>,
    changed: Condvar,
}

#[derive(Default)]
struct Delivered {
    failure: Option<KafkaError>,
    /// By partition, the offset behind the last delivered record. A list: it is
    /// asked for each record, and a transaction writes to few partitions.
    ends: Vec<(Place, i64)>,
}

impl Delivered {
    fn arrived(&mut self, topic: &str, partition: i32, end: i64) {
        let known = self
            .ends
            .iter_mut()
            .find(|(place, _)| place.partition == partition && place.topic == topic);
        match known {
            Some((_, known)) => *known = (*known).max(end),
            None => self.ends.push((Place::new(topic, partition), end)),
        }
    }
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is outstanding, and takes the first failure, if any.
    fn wait(&self, limit: Duration) -> Result<Option<KafkaError>> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while self.outstanding.load(Ordering::SeqCst) > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    Code::BrokerUnreachable,
                    format!("records were not delivered within {limit:?}"),
                ));
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(state.failure.take())
    }
}

struct Context {
    deliveries: Arc<Deliveries>,
    client: Client,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(&self.client.context().0, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut state = self.deliveries.lock();
        match result {
            Ok(message) => {
                state.arrived(message.topic(), message.partition(), message.offset() + 1);
            }
            Err((error, _)) => {
                state.failure.get_or_insert_with(|| error.clone());
            }
        }
        // Under the lock, so that nobody begins to wait in between.
        if self.deliveries.outstanding.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.deliveries.changed.notify_all();
        }
    }
}

/// A record to produce.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition, where it is not the key's own.
    pub partition: Option<i32>,
    /// The key.
    pub key: &'a [u8],
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, for tools only.
    pub headers: Option<OwnedHeaders>,
}

impl<'a> Record<'a> {
    /// A record in its key's own partition, without headers.
    pub fn new(topic: &'a str, key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        Record {
            topic,
            partition: None,
            key,
            value,
            headers: None,
        }
    }
}

/// The offsets a transaction commits for a consumer group, with the group
/// metadata as it was when the batch began. Never refreshed: Kafka compares
/// member and generation, not who owns a partition, so metadata of a later
/// generation would let a batch of an earlier one through.
pub struct Offsets<'a> {
    /// By partition, the offset to read next.
    pub next: &'a HashMap<Place, i64>,
    /// Text to store beside each offset.
    pub metadata: &'a HashMap<Place, String>,
    /// The group, captured at the batch's begin.
    pub group: &'a ConsumerGroupMetadata,
}

/// A producer of transactions; one at a time.
pub struct TransactionalProducer {
    inner: ThreadedProducer<Context>,
    deliveries: Arc<Deliveries>,
}

/// How a transaction ended without success.
#[derive(Debug)]
pub enum Failure {
    /// It was aborted: nothing of it is visible. The batch may be tried again
    /// by whoever owns it now.
    Aborted(Error),
    /// This producer is of no use any more (it was fenced, or the broker's
    /// answer is fatal), and whether its transaction was committed is not known:
    /// what was built on it must be built anew from Kafka.
    Dead(Error),
}

impl Failure {
    /// The error in either case.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Aborted(error) | Failure::Dead(error) => error,
        }
    }
}

impl TransactionalProducer {
    /// Opens the producer and takes over its transactional id: an older process
    /// of the same id is fenced, and its open transaction aborted, when this
    /// returns. Blocks.
    pub fn open(client: &Client, transactional_id: &str) -> Result<Self> {
        let deliveries = Arc::new(Deliveries::default());
        let inner: ThreadedProducer<Context> = client
            .transactional(transactional_id)
            .create_with_context(Context {
                deliveries: Arc::clone(&deliveries),
                client: client.clone(),
            })
            .map_err(|e| explain("making a producer", &e))?;
        inner
            .init_transactions(Duration::from_secs(30))
            .map_err(|e| client.explain("initialising transactions", &e))?;
        Ok(TransactionalProducer { inner, deliveries })
    }

    /// Runs one transaction: `write` produces its records, then `offsets` (if
    /// any) are added, then it is committed. Returns the ends of the partitions
    /// written. On any failure the transaction is aborted before this returns,
    /// unless the producer is dead. Blocks.
    ///
    /// `at` is called between the parts, for the kill points of a runner.
    pub fn transaction(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<()>,
        offsets: Option<Offsets<'_>>,
        at: impl Fn(Part),
    ) -> Result<HashMap<Place, i64>, Failure> {
        self.reset();
        self.inner
            .begin_transaction()
            .map_err(|e| self.judge("beginning a transaction", &e))?;
        let result = self.fill(write, offsets, &at);
        let failure = match result {
            Ok(()) => match self.commit() {
                Ok(()) => {
                    let ends = std::mem::take(&mut self.deliveries.lock().ends);
                    return Ok(ends.into_iter().collect());
                }
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        match failure {
            Failure::Dead(error) => Err(Failure::Dead(error)),
            Failure::Aborted(error) => {
                self.abort()?;
                Err(Failure::Aborted(error))
            }
        }
    }

    fn fill(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<()>,
        offsets: Option<Offsets<'_>>,
        at: &impl Fn(Part),
    ) -> Result<(), Failure> {
        write(&mut Transaction { producer: self }).map_err(Failure::Aborted)?;
        self.delivered()?;
        at(Part::Produced);
        if let Some(offsets) = offsets.filter(|offsets| !offsets.next.is_empty()) {
            let list = offset_list(&offsets).map_err(Failure::Aborted)?;
            self.until_known("adding offsets to the transaction", || {
                self.inner
                    .send_offsets_to_transaction(&list, offsets.group, CALL)
            })?;
        }
        at(Part::OffsetsSent);
        Ok(())
    }

    /// A commit whose answer is lost is asked for again until it is known;
    /// guessing either way would lose or double.
    fn commit(&self) -> Result<(), Failure> {
        self.until_known("committing", || self.inner.commit_transaction(CALL))
    }

    fn abort(&self) -> Result<(), Failure> {
        self.until_known("aborting", || self.inner.abort_transaction(CALL))
            .map_err(|failure| Failure::Dead(failure.into_error()))
    }

    /// A broker that is away is waited for. But librdkafka can lose the way to a
    /// coordinator that is there again (its request then waits in `TxnCoordinator`'s
    /// queue for good): a producer that gets no answer for as long as a whole call,
    /// while others do, is given up. The next one of its id learns from the
    /// coordinator how the transaction ended, or ends it.
    fn until_known(
        &self,
        doing: &str,
        call: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), Failure> {
        let client = &self.inner.context().client;
        let mut deaf: Option<Instant> = None;
        loop {
            match call() {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                    tracing::warn!(doing, %error, "the broker did not answer; asking again");
                    if client.reach(REACH).is_err() {
                        deaf = None;
                    } else if deaf.get_or_insert_with(Instant::now).elapsed() >= CALL {
                        let text = format!(
                            "{doing}: the coordinator has not answered this producer for {CALL:?}, \
                             while Kafka answers others"
                        );
                        return Err(Failure::Dead(Error::new(Code::KafkaBusy, text)));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(self.judge(doing, &error)),
            }
        }
    }

    fn judge(&self, doing: &str, error: &KafkaError) -> Failure {
        let explained = self.inner.context().client.explain(doing, error);
        let fatal = match error {
            KafkaError::Transaction(inner) => inner.is_fatal() || !inner.txn_requires_abort(),
            _ => matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced)
            ),
        };
        // What librdkafka calls abortable heals by aborting, whatever the code;
        // only rights and sizes do not.
        let lasting = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                    | RDKafkaErrorCode::InvalidMessageSize
            )
        );
        let explained = match explained.code {
            Code::KafkaRefused if !fatal && !lasting => Error {
                code: Code::KafkaBusy,
                ..explained
            },
            _ => explained,
        };
        if fatal {
            // What it was: the error itself may say `Fatal` only.
            let cause = self.inner.client().fatal_error();
            let explained = match cause.filter(|_| !lasting) {
                Some((code, text)) => Error::new(Code::Fenced, format!("{doing}: {text}"))
                    .source_code(format!("{code:?}")),
                None if lasting => explained,
                None => Error {
                    code: Code::Fenced,
                    ..explained
                },
            };
            Failure::Dead(explained)
        } else {
            Failure::Aborted(explained)
        }
    }

    /// Waits until every record of this transaction is on the broker.
    fn delivered(&self) -> Result<(), Failure> {
        match self.deliveries.wait(Duration::from_secs(30)) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(Failure::Aborted(
                self.judge("producing", &error).into_error(),
            )),
            Err(late) => Err(Failure::Aborted(self.inner.context().client.named(late))),
        }
    }

    fn reset(&self) {
        let mut state = self.deliveries.lock();
        state.failure = None;
        self.deliveries.outstanding.store(0, Ordering::SeqCst);
        state.ends.clear();
    }
}

/// A part of a transaction that is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every record is on the broker, invisible still.
    Produced,
    /// The offsets are in the transaction.
    OffsetsSent,
}

/// An open transaction.
pub struct Transaction<'p> {
    producer: &'p TransactionalProducer,
}

impl Transaction<'_> {
    /// Produces a record. Waits while the client's queue is full.
    pub fn send(&mut self, record: Record<'_>) -> Result<()> {
        let outstanding = &self.producer.deliveries.outstanding;
        outstanding.fetch_add(1, Ordering::SeqCst);
        enqueue(&self.producer.inner, record).inspect_err(|_| {
            outstanding.fetch_sub(1, Ordering::SeqCst);
        })
    }
}

fn enqueue<C>(producer: &ThreadedProducer<C>, record: Record<'_>) -> Result<()>
where
    C: ProducerContext<DeliveryOpaque = ()> + 'static,
{
    let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(record.topic).key(record.key);
    base.partition = record.partition;
    base.payload = record.value;
    base.headers = record.headers;
    loop {
        match producer.send(base) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                // Deliveries make room; there is no event to wait for.
                std::thread::sleep(Duration::from_millis(1));
                base = returned;
            }
            Err((error, _)) => {
                return Err(explain(&format!("producing to {}", record.topic), &error));
            }
        }
    }
}

fn offset_list(offsets: &Offsets<'_>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.next.len());
    for (place, next) in offsets.next {
        let mut elem = list.add_partition(&place.topic, place.partition);
        elem.set_offset(Offset::Offset(*next))
            .map_err(|e| explain("naming an offset", &e))?;
        if let Some(text) = offsets.metadata.get(place) {
            elem.set_metadata(text.as_str());
        }
    }
    Ok(list)
}

/// A producer without transactions: for status, control and incarnations.
pub struct PlainProducer {
    inner: ThreadedProducer<Context>,
    deliveries: Arc<Deliveries>,
}

impl PlainProducer {
    /// Opens the producer; contacts nobody yet.
    pub fn open(client: &Client) -> Result<Self> {
        let deliveries = Arc::new(Deliveries::default());
        let inner = client
            .producer()
            .create_with_context(Context {
                deliveries: Arc::clone(&deliveries),
                client: client.clone(),
            })
            .map_err(|e| explain("making a producer", &e))?;
        Ok(PlainProducer { inner, deliveries })
    }

    /// Hands a record over; [`PlainProducer::flush`] says whether it arrived.
    pub fn send(&self, record: Record<'_>) -> Result<()> {
        let outstanding = &self.deliveries.outstanding;
        outstanding.fetch_add(1, Ordering::SeqCst);
        enqueue(&self.inner, record).inspect_err(|_| {
            outstanding.fetch_sub(1, Ordering::SeqCst);
        })
    }

    /// Waits until everything handed over is durable, or fails.
    pub fn flush(&self, limit: Duration) -> Result<()> {
        let client = &self.inner.context().client;
        let waited = self.deliveries.wait(limit);
        match waited.map_err(|late| client.named(late))? {
            None => Ok(()),
            Some(error) => Err(client.explain("producing", &error)),
        }
    }
}
