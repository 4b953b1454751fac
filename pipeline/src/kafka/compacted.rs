//! A compacted topic as a table: read once to its end, or followed for ever.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::client::{Client, PATIENCE, Quiet};
use super::{Place, explain};
use crate::control::INCARNATION;
use crate::error::{Class, Code, Error, Result};
use crate::record::Millis;
use crate::retry::passes;

/// The high watermark of a partition: the offset behind its last record,
/// *including* records of open transactions. A `read_committed` client would
/// show the last stable offset only, and an open transaction of a dead process
/// may hide that process's last words.
pub fn high_watermark(client: &Client, place: &Place) -> Result<i64> {
    let (_, high) = watermarks(client, place)?;
    Ok(high)
}

/// The log start and the high watermark of a partition.
pub fn watermarks(client: &Client, place: &Place) -> Result<(i64, i64)> {
    client
        .questions()?
        .fetch_watermarks(&place.topic, place.partition, PATIENCE)
        .map_err(|e| client.explain(&format!("asking for the ends of {place}"), &e))
        .map_err(|error| or_leaderless(client, place, error))
}

/// To the client a partition without a leader is one that is not there. A broker
/// that is fenced for a while has not lost its topics: whether one is there is
/// asked by name, and where it is the error is a passing one.
pub(super) fn or_leaderless(client: &Client, place: &Place, error: Error) -> Error {
    let is_there = |count: i32| place.partition < count;
    match error.code {
        Code::TopicMissing if partition_count(client, &place.topic).is_ok_and(is_there) => Error {
            code: Code::KafkaBusy,
            ..error
        },
        _ => error,
    }
}

/// How many partitions a topic has. [`Code::TopicMissing`] when it isn't there.
pub fn partition_count(client: &Client, topic: &str) -> Result<i32> {
    let metadata = client
        .questions()?
        .fetch_metadata(Some(topic), PATIENCE)
        .map_err(|e| client.explain(&format!("asking for {topic}"), &e))?;
    match metadata.topics().first().map(|t| t.partitions().len()) {
        Some(count) if count > 0 => Ok(count as i32),
        _ => Err(Error::new(
            Code::TopicMissing,
            format!("the topic {topic} is not there"),
        )),
    }
}

/// A record as a scan shows it.
pub struct Scanned<'m> {
    /// The topic's name.
    pub topic: &'m str,
    /// Its partition.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// When it was written, by its producer's clock.
    pub at: Option<Millis>,
    /// Its key.
    pub key: &'m [u8],
    /// Its value; `None` is a tombstone.
    pub value: Option<&'m [u8]>,
}

/// The log start and the high watermark of every partition of a topic.
pub fn ranges(client: &Client, topic: &str) -> Result<BTreeMap<Place, (i64, i64)>> {
    (0..partition_count(client, topic)?)
        .map(|partition| {
            let place = Place::new(topic, partition);
            watermarks(client, &place).map(|range| (place, range))
        })
        .collect()
}

/// Reads a topic's committed records from its start to where it ends now, and
/// calls `each` with key and value (`None`: tombstone) in order of offset
/// within a partition.
pub fn scan(
    client: &Client,
    topic: &str,
    mut each: impl FnMut(&Place, i64, &[u8], Option<&[u8]>),
) -> Result<()> {
    let ranges = ranges(client, topic)?;
    scan_ranges(client, &ranges, |record| {
        let place = Place::new(topic, record.partition);
        each(&place, record.offset, record.key, record.value);
        Ok(())
    })
}

/// Reads the committed records of some partitions, each from one offset up to,
/// and without, another, whatever else is written meanwhile; in order of offset
/// within a partition. The records that `init` writes are left out.
pub fn scan_ranges(
    client: &Client,
    ranges: &BTreeMap<Place, (i64, i64)>,
    mut each: impl FnMut(&Scanned<'_>) -> Result<()>,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    let mut ends: Vec<(&Place, i64)> = Vec::new();
    for (place, (low, high)) in ranges.iter().filter(|(_, (low, high))| high > low) {
        ends.push((place, *high));
        assignment
            .add_partition_offset(&place.topic, place.partition, Offset::Offset(*low))
            .map_err(|e| explain("assigning", &e))?;
    }
    let mut open = ends.clone();
    if open.is_empty() {
        return Ok(());
    }
    let consumer = client.open_scanner()?;
    consumer
        .assign(&assignment)
        .map_err(|e| explain("reading", &e))?;
    let mut quiet_since = Instant::now();
    // Records of one partition come in rows: looked up once a row.
    let mut at = 0;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                quiet_since = Instant::now();
                let (topic, partition) = (message.topic(), message.partition());
                let is = |(place, _): &(&Place, i64)| {
                    place.partition == partition && place.topic == topic
                };
                if !ends.get(at).is_some_and(is) {
                    at = ends.iter().position(is).unwrap_or(0);
                }
                let Some((place, end)) = ends.get(at).copied() else {
                    continue;
                };
                let offset = message.offset();
                if offset < end && message.key() != Some(INCARNATION) {
                    each(&Scanned {
                        topic,
                        partition,
                        offset,
                        at: message.timestamp().to_millis(),
                        key: message.key().unwrap_or_default(),
                        value: message.payload(),
                    })?;
                }
                if offset + 1 >= end && open.iter().any(|(other, _)| *other == place) {
                    open.retain(|(other, _)| *other != place);
                    // What lies behind the end is not asked for.
                    let mut done = TopicPartitionList::new();
                    done.add_partition(topic, partition);
                    consumer.pause(&done).map_err(|e| explain("reading", &e))?;
                }
            }
            // Position behind the last marker. A partition whose end hides
            // behind an open transaction is asked again until it closes.
            Some(Err(KafkaError::PartitionEOF(_))) => reached(&consumer, &mut open),
            Some(Err(error)) => passing(client.explain("reading", &error), quiet_since.elapsed())?,
            None if quiet_since.elapsed() > Duration::from_secs(30) => {
                let places: Vec<String> = open
                    .iter()
                    .take(3)
                    .map(|(place, _)| place.to_string())
                    .collect();
                return Err(Error::new(
                    Code::StableOffsetStuck,
                    format!(
                        "nothing readable for 30 s before the end of {}",
                        places.join(", ")
                    ),
                ));
            }
            None => reached(&consumer, &mut open),
        }
    }
    Ok(())
}

/// Takes away what is read to its end.
fn reached(consumer: &BaseConsumer<Quiet>, open: &mut Vec<(&Place, i64)>) {
    open.retain(|(place, end)| position_of(consumer, &place.topic, place.partition) < *end);
}

/// Lets a passing error pass for 30 s: one broker of several may be down while
/// the others serve.
fn passing(error: Error, quiet: Duration) -> Result<()> {
    if error.class() == Class::Transient && quiet < Duration::from_secs(30) {
        tracing::debug!(%error, "reading goes on");
        Ok(())
    } else {
        Err(error)
    }
}

/// A record's key and value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// The key and value of the first record of each of these partitions; one that
/// has none is left out.
pub fn first_records(client: &Client, places: &[Place]) -> Result<HashMap<Place, KeyValue>> {
    let mut assignment = TopicPartitionList::new();
    let mut missing = HashSet::new();
    for place in places {
        let (low, high) = watermarks(client, place)?;
        if low < high {
            assignment
                .add_partition_offset(&place.topic, place.partition, Offset::Offset(low))
                .map_err(|e| explain("assigning", &e))?;
            missing.insert(place.clone());
        }
    }
    let mut found = HashMap::new();
    if missing.is_empty() {
        return Ok(found);
    }
    let consumer = client.open_reader("read_uncommitted")?;
    consumer
        .assign(&assignment)
        .map_err(|e| explain("reading first records", &e))?;
    let since = Instant::now();
    while !missing.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let place = Place::new(message.topic(), message.partition());
                if missing.remove(&place) {
                    let record = (
                        message.key().unwrap_or_default().to_vec(),
                        message.payload().unwrap_or_default().to_vec(),
                    );
                    let mut done = TopicPartitionList::new();
                    done.add_partition(&place.topic, place.partition);
                    consumer
                        .pause(&done)
                        .map_err(|e| explain("reading first records", &e))?;
                    found.insert(place, record);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => {
                passing(
                    client.explain("reading first records", &error),
                    since.elapsed(),
                )?;
            }
            None if since.elapsed() > Duration::from_secs(30) => {
                return Err(client.named(Error::new(
                    Code::BrokerUnreachable,
                    "first records were not readable within 30 s",
                )));
            }
            None => {}
        }
    }
    Ok(found)
}

/// The newest value of each key of a compacted topic.
pub fn read_to_end(client: &Client, topic: &str) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
    let mut table = HashMap::new();
    scan(client, topic, |_, _, key, value| match value {
        Some(value) => {
            table.insert(key.to_vec(), value.to_vec());
        }
        None => {
            table.remove(key);
        }
    })?;
    Ok(table)
}

/// The offset a reader reads next, or -1 before it has one.
fn position_of(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32) -> i64 {
    consumer
        .position()
        .ok()
        .and_then(|list| {
            list.find_partition(topic, partition)
                .and_then(|elem| elem.offset().to_raw())
        })
        .unwrap_or(-1)
}

/// What a [`Tail`] tells its owner, from the tail's own thread.
pub trait Follower: Send + Sync + 'static {
    /// A committed record, in order of offset within a partition.
    fn record(&self, place: &Place, offset: i64, key: &[u8], value: Option<&[u8]>);
    /// The tail has gone back in this partition, as [`Tail::seek`] asked: from
    /// here on records come from that offset.
    fn sought(&self, _place: &Place) {}
    /// Reading fails. A failure that passes heals by itself, and has been logged.
    fn failed(&self, error: Error);
}

/// Follows all partitions of some compacted topics from their start, for ever.
pub struct Tail {
    shared: Arc<TailShared>,
    thread: Option<JoinHandle<()>>,
}

struct TailShared {
    stop: AtomicBool,
    state: Mutex<TailState>,
    moved: Condvar,
}

#[derive(Default)]
struct TailState {
    /// By partition, the offset read next.
    positions: HashMap<Place, i64>,
    /// What was asked for, in order.
    turns: Vec<Turn>,
}

impl TailState {
    fn goes_back(&self, place: &Place) -> bool {
        let back = |turn: &Turn| matches!(turn, Turn::Back(to, _) if to == place);
        self.turns.iter().any(back)
    }
}

/// A change of how a partition is read.
enum Turn {
    /// To go on at that offset.
    Back(Place, i64),
    /// Not to read on until it goes back.
    Rest(Place),
}

impl Tail {
    /// Starts following. Fails when a topic isn't there.
    pub fn start(client: &Client, topics: &[String], follower: Arc<dyn Follower>) -> Result<Tail> {
        let mut assignment = TopicPartitionList::new();
        let mut places = Vec::new();
        for topic in topics {
            for partition in 0..partition_count(client, topic)? {
                let place = Place::new(topic, partition);
                let (low, _) = watermarks(client, &place)?;
                assignment
                    .add_partition_offset(topic, partition, Offset::Offset(low))
                    .map_err(|e| explain("assigning", &e))?;
                places.push((place, low));
            }
        }
        let consumer = client.open_reader("read_committed")?;
        consumer
            .assign(&assignment)
            .map_err(|e| explain("following", &e))?;
        let shared = Arc::new(TailShared {
            stop: AtomicBool::new(false),
            state: Mutex::new(TailState {
                positions: places.into_iter().collect(),
                turns: Vec::new(),
            }),
            moved: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("tail".into())
            .spawn({
                let (shared, client) = (Arc::clone(&shared), client.clone());
                move || follow(&client, &consumer, &shared, &*follower)
            })
            .map_err(|e| Error::new(Code::Invariant, format!("no thread: {e}")))?;
        Ok(Tail {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits until everything below `offset` of the partition was told to the
    /// follower. [`Code::StableOffsetStuck`] when it takes longer than `limit`.
    pub fn wait_for(&self, place: &Place, offset: i64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while state.goes_back(place) || state.positions.get(place).is_none_or(|at| *at < offset) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let at = state.positions.get(place).copied().unwrap_or(-1);
                return Err(Error::new(
                    Code::StableOffsetStuck,
                    format!("{place} is readable up to {at} only, its end is {offset}"),
                ));
            }
            state = self
                .shared
                .moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    /// Whether everything below `offset` of the partition was told.
    pub fn is_at(&self, place: &Place, offset: i64) -> bool {
        let state = self.lock();
        !state.goes_back(place) && state.positions.get(place).is_some_and(|at| *at >= offset)
    }

    /// Reads the partition again from `offset` on.
    pub fn seek(&self, place: &Place, offset: i64) {
        let mut state = self.lock();
        state.turns.push(Turn::Back(place.clone(), offset));
        state.positions.insert(place.clone(), offset);
    }

    /// Does not read the partition on until [`Tail::seek`] goes back in it, for
    /// one whose only writer is this process, which knows what it wrote. Some
    /// records may still be told. Until then the tail's position there says
    /// nothing: neither [`Tail::wait_for`] nor [`Tail::is_at`] may be asked.
    pub fn rest(&self, place: Place) {
        self.lock().turns.push(Turn::Rest(place));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TailState> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn go_back(consumer: &BaseConsumer<Quiet>, place: &Place, offset: i64) -> KafkaResult<()> {
    // First of all it must not rest any more: a gap would be a loss, and a
    // record that is told twice is none.
    consumer.resume(&alone(place))?;
    let offset = Offset::Offset(offset);
    consumer.seek(&place.topic, place.partition, offset, PATIENCE)
}

fn alone(place: &Place) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.topic, place.partition);
    list
}

fn follow(
    client: &Client,
    consumer: &BaseConsumer<Quiet>,
    shared: &TailShared,
    follower: &dyn Follower,
) {
    let lock = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    // The last message that was told, of whose position nobody knows yet.
    let mut told: Option<(Place, i64)> = None;
    // A seek that was asked for meanwhile goes behind what was told; its position
    // must not be overwritten.
    let tell = |state: &mut TailState, told: &mut Option<(Place, i64)>| {
        if let Some((place, next)) = told.take() {
            if !state.goes_back(&place) {
                state.positions.insert(place, next);
            }
            shared.moved.notify_all();
        }
    };
    while !shared.stop.load(Ordering::Relaxed) {
        let turns = {
            let mut state = lock();
            if !state.turns.is_empty() {
                tell(&mut state, &mut told);
            }
            std::mem::take(&mut state.turns)
        };
        for turn in turns {
            match turn {
                Turn::Back(place, offset) => match go_back(consumer, &place, offset) {
                    Ok(()) => follower.sought(&place),
                    Err(error) => {
                        follower.failed(explain(&format!("going back in {place}"), &error));
                        lock().turns.push(Turn::Back(place, offset));
                    }
                },
                // Read on, it costs time and nothing else.
                Turn::Rest(place) => {
                    if let Err(error) = consumer.pause(&alone(&place)) {
                        tracing::debug!(%place, %error, "it is read on");
                    }
                }
            }
        }
        // While there is more at once, positions are told by the run of a partition.
        let polled = consumer.poll(Duration::ZERO).or_else(|| {
            tell(&mut lock(), &mut told);
            consumer.poll(Duration::from_millis(50))
        });
        match polled {
            Some(Ok(message)) => {
                client.outage().passed(true);
                let (topic, partition) = (message.topic(), message.partition());
                let offset = message.offset();
                let same = |(place, _): &(Place, i64)| {
                    place.partition == partition && place.topic == topic
                };
                let place = match told.take() {
                    Some(last) if same(&last) => last.0,
                    last => {
                        told = last;
                        tell(&mut lock(), &mut told);
                        Place::new(topic, partition)
                    }
                };
                // A message fetched before a seek came back to it is told anyway:
                // telling twice in order is harmless, a gap is not.
                if message.key() != Some(INCARNATION) {
                    follower.record(
                        &place,
                        offset,
                        message.key().unwrap_or_default(),
                        message.payload(),
                    );
                }
                told = Some((place, offset + 1));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                // rdkafka names the partition only, not the topic, so every
                // position is taken over; it moves past commit markers.
                if let Ok(list) = consumer.position() {
                    let mut state = lock();
                    tell(&mut state, &mut told);
                    if !state.turns.is_empty() {
                        continue;
                    }
                    for elem in list.elements() {
                        if let Some(offset) = elem.offset().to_raw().filter(|o| *o >= 0) {
                            let place = Place::new(elem.topic(), elem.partition());
                            let at = state.positions.entry(place).or_insert(0);
                            *at = (*at).max(offset);
                        }
                    }
                    drop(state);
                    shared.moved.notify_all();
                }
            }
            Some(Err(error)) => {
                let error = client.explain("reading the state of the migration", &error);
                if passes(&error) {
                    client
                        .outage()
                        .met("reading the state of the migration", &error);
                }
                follower.failed(error);
            }
            None => client.outage().passed(false),
        }
    }
}
