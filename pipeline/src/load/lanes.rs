//! The lanes of a loader: one an entity, between the thread that polls Kafka and
//! the tasks that apply. A lane that waits never holds another.
//!
//! A lane has as many parts as its target applies batches at once. A part has a
//! queue and partitions of its own, so a key is always in the same part, and
//! while one part's batch is written the other's is decoded or committed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use tokio::sync::Notify;

use crate::envelope;
use crate::kafka::Place;
use crate::kafka::client::SESSION;
use crate::record::CanonicalKey;
use crate::topics::partition_of;

/// A lane's parts ask for no more while they hold this many bytes in all.
const FULL_BYTES: usize = 24 << 20;
/// Nor while they hold this many records.
const FULL_RECORDS: usize = 40_000;

/// Nor does a batch begin with more bytes than this in the object store, unless
/// one record alone has them.
pub(super) const MOST_AWAY: usize = 64 << 20;

/// A record of a canonical topic, as it was read.
#[derive(Debug)]
pub(super) struct Message {
    /// Shared by those that were read one after the other.
    pub(super) place: Arc<Place>,
    pub(super) offset: i64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What a lane works on at once.
pub(super) struct Batch {
    /// The assignment it belongs to.
    pub(super) epoch: u64,
    /// The group as it was when that assignment began; never refreshed.
    pub(super) group: Arc<ConsumerGroupMetadata>,
    pub(super) messages: Vec<Message>,
    /// Parked and redo records that may go on.
    pub(super) released: Vec<CanonicalKey>,
    /// By partition of the lane's topic, where the batch starts: the offset of
    /// its first message, or the committed one.
    pub(super) starts: HashMap<Place, i64>,
}

/// All lanes of the process.
pub(super) struct Lanes {
    /// By entity, its parts; a partition belongs to the part of its number modulo
    /// theirs.
    lanes: HashMap<String, Vec<Lane>>,
    partitions: i32,
    epoch: AtomicU64,
    /// When the polling thread was last heard of.
    polled: Mutex<Instant>,
    idle: Condvar,
    state: Mutex<Assigned>,
}

#[derive(Default)]
struct Assigned {
    group: Option<Arc<ConsumerGroupMetadata>>,
    /// By partition, what was committed last.
    committed: HashMap<Place, i64>,
    /// Entities and parts.
    in_flight: HashSet<(String, usize)>,
    /// Lanes that dropped a batch: nothing of their topic may be committed
    /// until the partitions are assigned anew.
    held: HashSet<String>,
    /// Partitions are being taken away: no batch begins any more.
    closing: bool,
}

/// One part of a lane.
struct Lane {
    topic: String,
    part: usize,
    parts: usize,
    queue: Mutex<Queue>,
    /// Its messages wait for the first copy of what they require; records that
    /// are let go on do not.
    held_back: AtomicBool,
    wake: Notify,
    /// Records were taken out of the queue.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    first_at: Option<Instant>,
    released: VecDeque<CanonicalKey>,
    timers: BTreeMap<Instant, Vec<CanonicalKey>>,
}

impl Lanes {
    /// Lanes for these entities, each with its topic and the number of its parts;
    /// every topic has so many partitions.
    pub(super) fn new(
        partitions: i32,
        entities: impl IntoIterator<Item = (String, String, usize)>,
    ) -> Self {
        Lanes {
            partitions,
            lanes: entities
                .into_iter()
                .map(|(entity, topic, parts)| {
                    let lane = |part| Lane {
                        topic: topic.clone(),
                        part,
                        parts,
                        queue: Mutex::default(),
                        held_back: AtomicBool::new(false),
                        wake: Notify::new(),
                        room: Condvar::new(),
                    };
                    (entity, (0..parts).map(lane).collect())
                })
                .collect(),
            epoch: AtomicU64::new(0),
            polled: Mutex::new(Instant::now()),
            idle: Condvar::new(),
            state: Mutex::default(),
        }
    }

    /// The consumer was polled: our membership is alive.
    pub(super) fn polled(&self) {
        *self.polled.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the consumer was polled within half a session. If not, this
    /// process may have been paused, and its partitions given to another.
    pub(super) fn heard_lately(&self) -> bool {
        let polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().closing || polled.elapsed() < SESSION / 2
    }

    /// The current assignment's number; it changes whenever partitions go.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Partitions are ours: reading starts at `starts`.
    pub(super) fn assign(&self, group: Arc<ConsumerGroupMetadata>, starts: HashMap<Place, i64>) {
        let mut state = self.state();
        state.group = Some(group);
        state.committed = starts;
        state.held.clear();
        state.closing = false;
    }

    /// Partitions go: no batch begins any more, and those under way get `limit`
    /// to finish, which the broker still lets through. Then the assignment's
    /// number changes: what did not finish is dropped, and refused by the broker.
    pub(super) fn revoke(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        state.closing = true;
        while !state.in_flight.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(lanes = ?state.in_flight, "batches are dropped");
                break;
            }
            state = self
                .idle
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.group = None;
        state.in_flight.clear();
        state.committed.clear();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        drop(state);
        for lane in self.lanes.values().flatten() {
            *lane.queue() = Queue::default();
            lane.room.notify_all();
            lane.wake.notify_one();
        }
    }

    /// Whether this process has been given its partitions, and has them still.
    pub(super) fn has_partitions(&self) -> bool {
        self.state().group.is_some()
    }

    /// Whether partitions are being taken away: a batch under way may finish,
    /// but waits for nothing any more.
    pub(super) fn closing(&self) -> bool {
        self.state().closing
    }

    /// Hands a message to its lane. `true` when the lane is full.
    pub(super) fn push(&self, entity: &str, message: Message) -> bool {
        let Some(lane) = self.part_of(entity, message.place.partition) else {
            return false;
        };
        let mut queue = lane.queue();
        queue.bytes += message.value.len() + message.key.len();
        queue.first_at.get_or_insert_with(Instant::now);
        queue.messages.push_back(message);
        let full = lane.is_full(&queue);
        drop(queue);
        lane.wake.notify_one();
        full
    }

    /// The part of an entity's lane that a partition belongs to.
    fn part_of(&self, entity: &str, partition: i32) -> Option<&Lane> {
        let parts = self.lanes.get(entity)?;
        parts.get(partition.unsigned_abs() as usize % parts.len().max(1))
    }

    /// Waits until a partition's part is no longer full; `false` when it still is
    /// after `limit`.
    pub(super) fn wait_for_room(&self, entity: &str, partition: i32, limit: Duration) -> bool {
        let Some(lane) = self.part_of(entity, partition) else {
            return true;
        };
        let full = |queue: &mut Queue| lane.is_full(queue);
        let (queue, _) = lane
            .room
            .wait_timeout_while(lane.queue(), limit, full)
            .unwrap_or_else(PoisonError::into_inner);
        !lane.is_full(&queue)
    }

    /// Whether a full lane has room again.
    pub(super) fn has_room(&self, entity: &str) -> bool {
        let half_empty = |lane: &Lane| {
            let queue = lane.queue();
            queue.bytes < FULL_BYTES / lane.parts / 2
                && queue.messages.len() < FULL_RECORDS / lane.parts / 2
        };
        self.lanes.get(entity).into_iter().flatten().all(half_empty)
    }

    /// The lanes' names: their entities.
    pub(super) fn names(&self) -> Vec<String> {
        self.lanes.keys().cloned().collect()
    }

    /// Lets a lane's messages wait, or lets them go on.
    pub(super) fn hold_back(&self, entity: &str, hold: bool) {
        for lane in self.lanes.get(entity).into_iter().flatten() {
            if lane.held_back.swap(hold, Ordering::SeqCst) != hold {
                lane.wake.notify_one();
            }
        }
    }

    /// Whether any lane's messages wait.
    pub(super) fn anyone_waits(&self) -> bool {
        let waits = |lane: &Lane| lane.held_back.load(Ordering::SeqCst);
        self.lanes.values().flatten().any(waits)
    }

    /// Lets parked or redo records of an entity go on, now or after a while.
    pub(super) fn release(&self, entity: &str, key: CanonicalKey, after: Duration) {
        let partition = partition_of(key.as_str().as_bytes(), self.partitions);
        let Some(lane) = self.part_of(entity, partition) else {
            return;
        };
        let mut queue = lane.queue();
        if after.is_zero() {
            queue.released.push_back(key);
        } else {
            queue
                .timers
                .entry(Instant::now() + after)
                .or_default()
                .push(key);
        }
        drop(queue);
        lane.wake.notify_one();
    }

    /// The next batch of a lane's part, at most `most` records; waits `linger`
    /// for more once there is one.
    pub(super) async fn take(
        &self,
        entity: &str,
        part: usize,
        most: usize,
        linger: Duration,
    ) -> Batch {
        loop {
            let Some(lane) = self.lanes.get(entity).and_then(|parts| parts.get(part)) else {
                return std::future::pending().await;
            };
            let wait = {
                let mut queue = lane.queue();
                let now = Instant::now();
                while let Some(due) = queue.timers.first_entry().filter(|due| *due.key() <= now) {
                    let keys = due.remove();
                    queue.released.extend(keys);
                }
                let next_timer = queue
                    .timers
                    .keys()
                    .next()
                    .map(|at| at.saturating_duration_since(now));
                let held_back = lane.held_back.load(Ordering::SeqCst);
                if (queue.messages.len() >= most && !held_back) || !queue.released.is_empty() {
                    Some(Duration::ZERO)
                } else if let Some(first) = queue.first_at.filter(|_| !held_back) {
                    Some(linger.saturating_sub(first.elapsed()))
                } else {
                    next_timer
                }
            };
            if wait == Some(Duration::ZERO)
                && let Some(batch) = self.begin(entity, lane, most)
            {
                return batch;
            }
            let notified = lane.wake.notified();
            match wait {
                Some(wait) => {
                    // Due, but not ours to begin: partitions come or go.
                    let wait = match wait {
                        Duration::ZERO => Duration::from_millis(50),
                        wait => wait.max(Duration::from_millis(1)),
                    };
                    let _ = tokio::time::timeout(wait, notified).await;
                }
                None => notified.await,
            }
        }
    }

    fn begin(&self, entity: &str, lane: &Lane, most: usize) -> Option<Batch> {
        let mut state = self.state();
        if state.closing || state.held.contains(entity) {
            return None;
        }
        let group = state.group.clone()?;
        let mut queue = lane.queue();
        let count = match lane.held_back.load(Ordering::SeqCst) {
            true => 0,
            false => {
                let mut away = 0_usize;
                let fits = |message: &&Message| {
                    let begun = away > 0;
                    away = away.saturating_add(envelope::away(&message.value));
                    !begun || away <= MOST_AWAY
                };
                queue.messages.iter().take(most).take_while(fits).count()
            }
        };
        let messages: Vec<Message> = queue.messages.drain(..count).collect();
        queue.bytes -= messages
            .iter()
            .map(|m| m.value.len() + m.key.len())
            .sum::<usize>();
        if count > 0 {
            queue.first_at = (!queue.messages.is_empty()).then(Instant::now);
        }
        let count = queue.released.len().min(most);
        let released: Vec<CanonicalKey> = queue.released.drain(..count).collect();
        drop(queue);
        lane.room.notify_all();
        if messages.is_empty() && released.is_empty() {
            return None;
        }
        let mut starts: HashMap<Place, i64> = state
            .committed
            .iter()
            .filter(|(place, _)| lane.has(place))
            .map(|(place, offset)| (place.clone(), *offset))
            .collect();
        let mut firsts: HashSet<&Place> = HashSet::new();
        let mut last = None;
        for message in &messages {
            // Messages come in runs of one partition.
            if last != Some(&message.place) && firsts.insert(&message.place) {
                starts.insert(Place::clone(&message.place), message.offset);
            }
            last = Some(&message.place);
        }
        state.in_flight.insert((entity.to_owned(), lane.part));
        Some(Batch {
            epoch: self.epoch(),
            group,
            messages,
            released,
            starts,
        })
    }

    /// Does that unless the lane dropped a batch and stands still, in all its
    /// parts; it does not begin to stand still meanwhile.
    pub(super) fn unless_held(&self, entity: &str, act: impl FnOnce()) {
        let state = self.state();
        if !state.held.contains(entity) {
            act();
        }
    }

    /// The batch of a lane's part is over. Without `committed` it was dropped, and
    /// the lane is held: a position behind it must not be committed.
    pub(super) fn done(
        &self,
        entity: &str,
        part: usize,
        epoch: u64,
        committed: Option<&HashMap<Place, i64>>,
    ) {
        let mut state = self.state();
        if epoch == self.epoch() {
            match committed {
                Some(committed) => state
                    .committed
                    .extend(committed.iter().map(|(p, o)| (p.clone(), *o))),
                None => {
                    state.held.insert(entity.to_owned());
                }
            }
            state.in_flight.remove(&(entity.to_owned(), part));
        }
        drop(state);
        self.idle.notify_all();
    }

    /// The lane stops until its partitions are assigned anew: nothing more of its
    /// topic is read, and what it holds is not begun.
    pub(super) fn stop(&self, entity: &str) {
        self.state().held.insert(entity.to_owned());
        for lane in self.lanes.get(entity).into_iter().flatten() {
            *lane.queue() = Queue::default();
            lane.room.notify_all();
        }
    }

    /// By partition, what is read next once everything begun is done.
    pub(super) fn positions(&self) -> HashMap<Place, i64> {
        self.state().committed.clone()
    }

    /// Of the given positions, those that are not committed yet although the
    /// lane holds nothing of the partition: what lies between is commit markers.
    pub(super) fn uncommitted(
        &self,
        positions: HashMap<Place, i64>,
    ) -> Option<(Arc<ConsumerGroupMetadata>, HashMap<Place, i64>)> {
        let state = self.state();
        if state.closing {
            return None;
        }
        let group = state.group.clone()?;
        let busy: Vec<&Lane> = self
            .lanes
            .iter()
            .flat_map(|(entity, parts)| parts.iter().map(move |lane| (entity, lane)))
            .filter(|(entity, lane)| {
                state.in_flight.contains(&((*entity).clone(), lane.part))
                    || state.held.contains(*entity)
                    || !lane.queue().messages.is_empty()
            })
            .map(|(_, lane)| lane)
            .collect();
        let next: HashMap<Place, i64> = positions
            .into_iter()
            .filter(|(place, position)| {
                !busy.iter().any(|lane| lane.has(place))
                    && state.committed.get(place).is_none_or(|at| at < position)
            })
            .collect();
        (!next.is_empty()).then_some((group, next))
    }

    /// These offsets, none of them behind what is committed by now. A batch sends
    /// offsets again that it does not move, as they were when it began; the
    /// reader's position may have been committed since, and nobody would commit
    /// it a second time.
    pub(super) fn not_behind(&self, offsets: &HashMap<Place, i64>) -> HashMap<Place, i64> {
        let state = self.state();
        let newest = |place: &Place, offset: i64| {
            let committed = state.committed.get(place).copied();
            offset.max(committed.unwrap_or(offset))
        };
        offsets
            .iter()
            .map(|(place, offset)| (place.clone(), newest(place, *offset)))
            .collect()
    }

    /// Whether these positions are all committed.
    pub(super) fn all_committed(&self, positions: &HashMap<Place, i64>) -> bool {
        let state = self.state();
        positions
            .iter()
            .all(|(place, position)| state.committed.get(place) == Some(position))
    }

    /// These positions are committed.
    pub(super) fn committed(&self, next: HashMap<Place, i64>) {
        self.state().committed.extend(next);
    }

    fn state(&self) -> MutexGuard<'_, Assigned> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Whether a partition is one of this part's.
    fn has(&self, place: &Place) -> bool {
        place.topic == self.topic
            && place.partition.unsigned_abs() as usize % self.parts == self.part
    }

    fn is_full(&self, queue: &Queue) -> bool {
        queue.bytes >= FULL_BYTES / self.parts || queue.messages.len() >= FULL_RECORDS / self.parts
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Redpanda Connect's `salesforce_cdc` dropped what did not fit into its
    /// buffer, and moved the checkpoint past it (redpanda-data/connect 4689).
    #[test]
    fn redpanda_4689_a_full_lane_drops_nothing_and_holds_its_position() {
        let lanes = Lanes::new(1, [("company".to_owned(), "t".to_owned(), 1)]);
        let place = Place::new("t", 0);
        let message = |offset| Message {
            place: Arc::new(Place::new("t", 0)),
            offset,
            key: vec![1],
            value: vec![0; 10],
        };
        let mut full = false;
        let mut sent = 0;
        while !full {
            full = lanes.push("company", message(sent));
            sent += 1;
        }
        // What was under way when the partition was paused comes all the same.
        assert!(lanes.push("company", message(sent)));
        sent += 1;
        assert!(!lanes.has_room("company"));
        let lane = &lanes.lanes["company"][0];
        let held: Vec<i64> = lane.queue().messages.iter().map(|m| m.offset).collect();
        assert_eq!(held, (0..sent).collect::<Vec<i64>>());
        // The reader stands behind all of it, and none of that is committed.
        let positions = HashMap::from([(place, sent)]);
        assert!(lanes.uncommitted(positions).is_none());
    }

    #[tokio::test]
    async fn a_batch_holds_no_more_of_the_object_store_than_fits_into_memory() {
        let place = Place::new("t", 0);
        let lanes = assigned(HashMap::from([(place.clone(), 0)]));
        let raw = crate::record::Raw {
            key: crate::record::RawKey::new("s", "o", "1").expect("a key"),
            op: crate::record::Op::Upsert,
            version: 1,
            phase: crate::record::Phase::Delta,
            extracted_at: 1,
            body: None,
        };
        let value = |length| {
            let stored = crate::bodies::Stored {
                sha256: [1; 32],
                length,
            };
            let envelope = envelope::Envelope::of_raw("m", &raw);
            match length {
                0 => envelope.encode(),
                _ => envelope.with_body_at(stored).encode(),
            }
        };
        for (offset, megabytes) in [0, 30, 0, 30, 30, 100, 0].into_iter().enumerate() {
            let message = Message {
                place: Arc::new(place.clone()),
                offset: offset as i64,
                key: vec![1],
                value: value(megabytes << 20),
            };
            lanes.push("company", message);
        }
        let mut taken = Vec::new();
        for _ in 0..4 {
            let batch = lanes.take("company", 0, 10, Duration::ZERO).await;
            taken.push(batch.messages.len());
            lanes.done("company", 0, batch.epoch, Some(&HashMap::new()));
        }
        assert_eq!(taken, [4, 1, 1, 1], "one that is too large goes alone");
    }

    /// A lane of companies whose partitions are ours.
    fn assigned(starts: HashMap<Place, i64>) -> Lanes {
        let lanes = Lanes::new(1, [("company".to_owned(), "t".to_owned(), 1)]);
        let reader: rdkafka::consumer::BaseConsumer = rdkafka::ClientConfig::new()
            .set("group.id", "g")
            .create()
            .expect("a client");
        let group = rdkafka::consumer::Consumer::group_metadata(&reader).expect("a group");
        lanes.assign(Arc::new(group), starts);
        lanes
    }

    #[tokio::test]
    async fn a_lane_that_waits_begins_no_message_and_lets_released_records_go_on() {
        let place = Place::new("t", 0);
        let lanes = assigned(HashMap::from([(place.clone(), 0)]));
        lanes.hold_back("company", true);
        lanes.push(
            "company",
            Message {
                place: Arc::new(place),
                offset: 0,
                key: vec![1],
                value: vec![2],
            },
        );
        let key = CanonicalKey::parse("s/o/1#x").expect("a key");
        lanes.release("company", key.clone(), Duration::ZERO);
        let batch = lanes.take("company", 0, 10, Duration::ZERO).await;
        assert!(batch.messages.is_empty(), "they wait for their parents");
        assert_eq!(batch.released, [key]);
        lanes.done("company", 0, batch.epoch, Some(&HashMap::new()));
        lanes.hold_back("company", false);
        let batch = lanes.take("company", 0, 10, Duration::ZERO).await;
        assert_eq!(batch.messages.len(), 1);
    }

    /// The position behind the last commit marker is committed once, and a batch
    /// of released records that began before must not take it back: whoever waits
    /// for the end of the topic would wait for ever.
    #[tokio::test]
    async fn a_batch_that_began_before_takes_no_committed_position_back() {
        let place = Place::new("t", 0);
        let starts = HashMap::from([(place.clone(), 5)]);
        let lanes = assigned(starts.clone());
        // The position is on its way to the broker while the batch begins.
        let positions = HashMap::from([(place, 7)]);
        let (_, next) = lanes.uncommitted(positions.clone()).expect("to commit");
        let key = CanonicalKey::parse("s/o/1#x").expect("a key");
        lanes.release("company", key, Duration::ZERO);
        let batch = lanes.take("company", 0, 10, Duration::ZERO).await;
        assert_eq!(batch.starts, starts);
        lanes.committed(next);
        assert_eq!(lanes.not_behind(&batch.starts), positions);
        // A batch that moves it further does so.
        let moved = HashMap::from([(Place::new("t", 0), 9)]);
        assert_eq!(lanes.not_behind(&moved), moved);
    }
}
