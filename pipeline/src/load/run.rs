//! The loader's process: one consumer that polls, one lane an entity, one
//! transactional producer that the lanes use in turn, one tail that follows
//! the tables.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::message::Message as _;
use tokio_util::sync::CancellationToken;

use super::batch::{Dropped, Worker, next_offsets};
use super::lanes::{Lanes, Message};
use super::tables::Tables;
use super::{EntitySupport, Loader, Step};
use crate::control::Plan;
use crate::deadletter::{FailureShare, LiveLetters};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::Entry;
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{Follower, Tail, high_watermark};
use crate::kafka::consumer::{Assignment, Member, Polled, Rebalance};
use crate::kafka::producer::{Failure, Offsets, TransactionalProducer};
use crate::lasting::through_losses;
use crate::parking::Parked;
use crate::process::Context;
use crate::record::CanonicalKey;
use crate::retry::{Backoff, patiently};
use crate::spec::Stage;
use crate::status::{Phase, Status};
use crate::topics::Topics;
use crate::transform::{FieldRule, Mapping};

/// How long a batch waits for more records.
const LINGER: Duration = Duration::from_millis(20);
/// How long the reading of all lanes waits for one that is full before it is
/// paused alone.
const PATIENT: Duration = Duration::from_millis(200);
/// How long an open transaction of a dead owner may hide a table's end.
const RESTORE: Duration = Duration::from_secs(60);

/// What the lanes, the polling thread and the tail share.
pub(super) struct Shared<L> {
    pub(super) loader: Arc<L>,
    pub(super) topics: Topics,
    pub(super) client: Client,
    pub(super) status: Arc<Status>,
    pub(super) owner: String,
    /// This process's name.
    pub(super) instance: String,
    pub(super) stop: CancellationToken,
    pub(super) tables: Tables,
    pub(super) lanes: Lanes,
    pub(super) letters: LiveLetters,
    producer: Mutex<TransactionalProducer>,
    tail: Mutex<Option<Tail>>,
    incarnations: HashMap<String, u32>,
    required: Required,
    pub(super) plan: Plan,
}

impl<L> Shared<L> {
    /// The process's one producer; whoever holds it has the transaction.
    pub(super) fn producer(&self) -> MutexGuard<'_, TransactionalProducer> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which incarnation of a topic its offsets belong to.
    pub(super) fn incarnation(&self, topic: &str) -> u32 {
        self.incarnations.get(topic).copied().unwrap_or(1)
    }

    /// Whether a record must wait for what that field refers to.
    pub(super) fn required(&self, key: &CanonicalKey, field: &str) -> bool {
        let (_, object, _, slot) = key.parts();
        self.required.asks(object, slot, field)
    }

    /// The entity that a slot of an object gives.
    pub(super) fn entity_of(&self, object: &str, slot: &str) -> Option<&str> {
        let mapping = &self.plan.mapping;
        let rules = mapping.objects.get(object);
        let rules = rules.or(mapping.custom_objects.as_ref())?;
        rules.slots.get(slot).map(|slot| slot.entity.as_str())
    }

    /// The text beside each committed offset: how long the idempotency table
    /// was, so that a shorter one is noticed and nothing is created again.
    pub(super) fn offset_metadata<'p>(
        &self,
        places: impl Iterator<Item = &'p Place>,
    ) -> HashMap<Place, String> {
        let known = self.tables.lock();
        places
            .map(|place| {
                let end = known.idempotency_end(place.partition);
                (place.clone(), format!("{{\"idempotency\":{end}}}"))
            })
            .collect()
    }

    fn tail(&self) -> MutexGuard<'_, Option<Tail>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which references a record must wait for, by object, slot and field.
struct Required {
    listed: HashSet<(String, String, String)>,
    objects: HashSet<String>,
    custom: HashSet<(String, String)>,
}

impl Required {
    fn of(mapping: &Mapping) -> Self {
        let fields = |object: &crate::transform::ObjectMapping| {
            object
                .slots
                .iter()
                .flat_map(|(slot, rules)| {
                    rules
                        .fields
                        .iter()
                        .filter(|(_, rule)| matches!(rule, FieldRule::Rule(rule) if rule.required))
                        .map(move |(field, _)| (slot.clone(), field.clone()))
                })
                .collect::<Vec<_>>()
        };
        Required {
            listed: mapping
                .objects
                .iter()
                .flat_map(|(object, rules)| {
                    fields(rules)
                        .into_iter()
                        .map(move |(slot, field)| (object.clone(), slot, field))
                })
                .collect(),
            objects: mapping.objects.keys().cloned().collect(),
            custom: mapping.custom_objects.iter().flat_map(fields).collect(),
        }
    }

    fn asks(&self, object: &str, slot: &str, field: &str) -> bool {
        if self.objects.contains(object) {
            self.listed
                .contains(&(object.to_owned(), slot.to_owned(), field.to_owned()))
        } else {
            self.custom.contains(&(slot.to_owned(), field.to_owned()))
        }
    }
}

impl<L: Loader> Rebalance for Shared<L> {
    fn assigned(&self, assignment: &Assignment) -> Result<()> {
        kill_point(Step::Assigned);
        let partitions: HashSet<i32> = assignment.starts.keys().map(|p| p.partition).collect();
        let mut ends = HashMap::new();
        for &partition in &partitions {
            for topic in [
                self.topics.idempotency(),
                self.topics.parked(),
                self.topics.redo(),
                self.topics.deadletter(),
            ] {
                let place = Place::new(topic, partition);
                let end = high_watermark(&self.client, &place)?;
                ends.insert(place, end);
            }
            // The table must be at least as long as it was when the offsets
            // were committed, or records would be created a second time.
            let table = Place::new(self.topics.idempotency(), partition);
            let end = ends.get(&table).copied().unwrap_or(0);
            for (place, text) in &assignment.committed {
                let promised = serde_json::from_str::<serde_json::Value>(text)
                    .ok()
                    .and_then(|text| text["idempotency"].as_i64())
                    .unwrap_or(0);
                if place.partition == partition && promised > end {
                    return Err(Error::new(
                        Code::IdempotencyLost,
                        format!("{table} ends at {end}, but {place} was committed at {promised}"),
                    ));
                }
            }
        }
        if let Some(tail) = &*self.tail() {
            for (place, end) in &ends {
                tail.wait_for(place, *end, RESTORE)?;
            }
        }
        kill_point(Step::Restored);
        let (again, redos) = {
            let mut known = self.tables.lock();
            known.own(&partitions, ends);
            (known.look_again(), known.redos())
        };
        self.lanes
            .assign(Arc::clone(&assignment.group), assignment.starts.clone());
        for (key, entity) in again {
            self.lanes.release(&entity, key, Duration::ZERO);
        }
        for key in redos {
            self.release_redo(key);
        }
        self.status.phase(Phase::Running);
        tracing::info!(?partitions, epoch = assignment.epoch, "assigned");
        Ok(())
    }

    fn revoked(&self) {
        self.lanes.revoke(Duration::from_secs(5));
        let back = self.tables.lock().disown();
        if let Some(tail) = &*self.tail() {
            for (place, offset) in back {
                tail.seek(&place, offset);
            }
        }
        tracing::info!("partitions revoked");
    }
}

impl<L: Loader> Shared<L> {
    fn release_redo(&self, key: CanonicalKey) {
        let entity = {
            let known = self.tables.lock();
            known.redo(&key).and_then(|value| {
                let envelope = Envelope::decode(value).ok()?;
                drover_schemas::entity_of_schema(envelope.body_schema).map(|e| e.name.clone())
            })
        };
        match entity {
            Some(entity) => self.lanes.release(&entity, key, Duration::ZERO),
            None => tracing::error!(%key, "a redo record can't be read"),
        }
    }
}

impl<L: Loader> Follower for Shared<L> {
    fn record(&self, place: &Place, offset: i64, key: &[u8], value: Option<&[u8]>) {
        if self.topics.is_deadletter(&place.topic) {
            self.letters.told(place.partition, offset, key, value);
            return;
        }
        let Some(key) = std::str::from_utf8(key).ok().and_then(CanonicalKey::parse) else {
            tracing::error!(%place, offset, "a table's key is not ours");
            return;
        };
        if self.topics.is_redo(&place.topic) {
            let owned = {
                let mut known = self.tables.lock();
                known.put_redo(&key, value.map(<[u8]>::to_vec));
                known.owns(&key)
            };
            if owned && value.is_some() {
                self.release_redo(key);
            }
            return;
        }
        let mut released = Vec::new();
        {
            let mut known = self.tables.lock();
            if !known.told_by_tail(place) {
                return;
            }
            known.told(place, offset);
            if self.topics.is_idempotency(&place.topic) {
                match value.map(Entry::from_json).transpose() {
                    Ok(entry) => {
                        for child in known.put_entry(&key, entry.as_ref()) {
                            if let Some(parked) = known.parked(&child) {
                                released.push((child.clone(), parked.entity.clone()));
                            }
                        }
                    }
                    Err(error) => tracing::error!(%place, offset, %error, "an entry is unreadable"),
                }
            } else {
                match value.map(serde_json::from_slice::<Parked>).transpose() {
                    Ok(parked) => known.put_parked(&key, parked),
                    Err(error) => {
                        tracing::error!(%place, offset, %error, "a parked record is unreadable");
                    }
                }
            }
        }
        for (key, entity) in released {
            self.lanes.release(&entity, key, Duration::ZERO);
        }
    }

    fn sought(&self, place: &Place) {
        self.tables.lock().went_back(place);
    }

    fn failed(&self, error: Error) {
        tracing::warn!(%error, "following the tables");
        self.status.note_error(&error);
    }
}

/// Runs the loader until it is told to stop.
pub async fn run<L: Loader>(loader: L, context: Context) -> Result<()> {
    if !prepare(&loader, &context).await? {
        return Ok(());
    }
    let loader = Arc::new(loader);
    through_losses(&context, |context| live(Arc::clone(&loader), context)).await
}

/// Runs it until it is told to stop, or loses its place in Kafka.
async fn live<L: Loader>(loader: Arc<L>, context: Context) -> Result<()> {
    let supports: Vec<EntitySupport> = loader
        .entities()
        .into_iter()
        .filter(|support| context.plan.entities.contains(&support.entity))
        .collect();
    let topics = context.topics.clone();
    let stop = context.stop.clone();
    let lanes = Lanes::new(
        topics.partitions(),
        supports.iter().map(|support| {
            let topic = topics.canonical(&support.entity);
            (support.entity.clone(), topic, parts(support, &topics))
        }),
    );
    let inputs: Vec<String> = supports
        .iter()
        .map(|s| topics.canonical(&s.entity))
        .collect();
    let instance = context.instance.clone();
    let shared = tokio::task::spawn_blocking({
        let inputs = inputs.clone();
        move || start(loader, context, lanes, &inputs)
    })
    .await
    .map_err(|e| Error::new(Code::Invariant, format!("starting: {e}")))??;

    let (fatal, mut failed) = tokio::sync::mpsc::channel::<Error>(8);
    let mut tasks = tokio::task::JoinSet::new();
    for support in supports {
        let Some(entity) = drover_schemas::entity(&support.entity) else {
            continue;
        };
        shared.status.lane_runs(&entity.name, None);
        for part in 0..parts(&support, &topics) {
            let worker = Worker {
                shared: Arc::clone(&shared),
                entity,
                part,
                support: support.clone(),
                share: FailureShare::default(),
            };
            tasks.spawn(lane(worker, fatal.clone()));
        }
    }
    let mut poller = tokio::task::spawn_blocking({
        let shared = Arc::clone(&shared);
        move || {
            if let Err(error) = poll(&shared, &instance, &inputs) {
                let _ = fatal.blocking_send(error);
            }
        }
    });
    let result = tokio::select! {
        // In this order: told to stop, the poller ends too, and may be seen first.
        biased;
        () = stop.cancelled() => Ok(()),
        Some(error) = failed.recv() => Err(error),
        ended = &mut poller => {
            let how = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
            // Its own error may still be on its way.
            Err(failed.try_recv().unwrap_or_else(|_| {
                Error::new(Code::Invariant, format!("the polling thread {how}"))
            }))
        }
        Some(Err(panic)) = tasks.join_next() => {
            Err(Error::new(Code::Invariant, format!("a lane panicked: {panic}")))
        }
    };
    shared.status.phase(Phase::Stopping);
    shared.stop.cancel();
    // The poller leaves the group, which gives the lanes 5 s for what is under way.
    if !poller.is_finished() {
        let _ = tokio::time::timeout(Duration::from_secs(15), poller).await;
    }
    tasks.shutdown().await;
    // The end of a producer or a consumer may wait for the broker.
    tokio::task::spawn_blocking(move || {
        shared.tail().take();
        drop(shared);
    })
    .await
    .map_err(|e| Error::new(Code::Invariant, format!("stopping: {e}")))?;
    result
}

/// Makes the target ready, waiting for one that can't be reached. `false` when
/// told to stop meanwhile.
async fn prepare<L: Loader>(loader: &L, context: &Context) -> Result<bool> {
    let mut backoff = Backoff::default();
    loop {
        match loader.prepare().await {
            Ok(()) => return Ok(true),
            Err(error) if matches!(error.class(), Class::Transient | Class::Throttled) => {
                let wait = backoff.after(&error);
                context.status.note_error(&error);
                tracing::warn!(%error, ?wait, "waiting for the target");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = context.stop.cancelled() => return Ok(false),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn start<L: Loader>(
    loader: Arc<L>,
    context: Context,
    lanes: Lanes,
    inputs: &[String],
) -> Result<Arc<Shared<L>>> {
    let topics = context.topics;
    let tables = [
        topics.idempotency(),
        topics.parked(),
        topics.redo(),
        topics.deadletter(),
    ];
    let needed: Vec<String> = inputs.iter().chain(&tables).cloned().collect();
    let id = topics.transactional_id(&topics.load_group(), &context.instance);
    let go_on = |_| !context.stop.is_cancelled();
    let producer = patiently(go_on, || {
        context.client.require_topics(&needed)?;
        context.plan.check_incarnations(&context.client, &needed)?;
        TransactionalProducer::open(&context.client, &id)
    })?;
    let shared = Arc::new(Shared {
        loader,
        tables: Tables::new(topics.partitions(), topics.idempotency(), topics.parked()),
        lanes,
        letters: LiveLetters::of(Stage::Loader),
        producer: Mutex::new(producer),
        tail: Mutex::new(None),
        incarnations: context.plan.incarnations.clone().into_iter().collect(),
        required: Required::of(&context.plan.mapping),
        plan: context.plan,
        topics,
        client: context.client,
        status: context.status,
        owner: context.owner,
        instance: context.instance,
        stop: context.stop,
    });
    let follower = || Arc::clone(&shared) as Arc<dyn Follower>;
    let tail = patiently(
        |_| !shared.stop.is_cancelled(),
        || Tail::start(&shared.client, &tables, follower()),
    )?;
    *shared.tail() = Some(tail);
    Ok(shared)
}

/// How many parts the lane of an entity has.
fn parts(support: &EntitySupport, topics: &Topics) -> usize {
    let partitions = topics.partitions().unsigned_abs() as usize;
    support.concurrency.clamp(1, partitions.max(1))
}

/// One part of a lane: batch after batch.
async fn lane<L: Loader>(mut worker: Worker<L>, fatal: tokio::sync::mpsc::Sender<Error>) {
    let shared = Arc::clone(&worker.shared);
    let entity = worker.entity.name.clone();
    let part = worker.part;
    let most = worker.support.batch.clamp(1, 10_000);
    while !shared.stop.is_cancelled() {
        let batch = shared.lanes.take(&entity, part, most, LINGER).await;
        let epoch = batch.epoch;
        let next = next_offsets(&batch.messages);
        match worker.batch(batch).await {
            Ok(()) => shared.lanes.done(&entity, part, epoch, Some(&next)),
            Err(Dropped::Gone) => {
                shared.lanes.done(&entity, part, epoch, None);
                let going = shared.lanes.closing() || shared.stop.is_cancelled();
                if shared.lanes.epoch() == epoch && !going {
                    // Refused by the broker before we heard of it: without a
                    // rebalance nothing would read the batch again.
                    let error = Error::new(Code::Fenced, "a batch was refused by the broker");
                    let _ = fatal.send(error).await;
                    return;
                }
            }
            Err(Dropped::Blocked(error)) => {
                shared.lanes.done(&entity, part, epoch, None);
                shared.status.lane_failed(&entity, &error, None);
                if shared.status.all_blocked() {
                    // Give the report a chance to be read before the end.
                    tokio::time::sleep(crate::status::INTERVAL).await;
                    let _ = fatal.send(error).await;
                }
                // Until a rebalance or a restart: the batch is not committed,
                // so nothing behind it may be either.
                while shared.lanes.epoch() == epoch && !shared.stop.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Err(Dropped::Dead(error)) => {
                shared.lanes.done(&entity, part, epoch, None);
                let _ = fatal.send(error).await;
                return;
            }
        }
    }
}

/// Polls Kafka and hands messages to the lanes, until told to stop.
fn poll<L: Loader>(shared: &Arc<Shared<L>>, instance: &str, inputs: &[String]) -> Result<()> {
    let member = Member::join(
        &shared.client,
        &shared.topics.load_group(),
        instance,
        inputs,
        Arc::clone(shared) as Arc<dyn Rebalance>,
    )?;
    let mut paused: HashMap<String, Vec<Place>> = HashMap::new();
    let mut epoch = shared.lanes.epoch();
    let mut ended = false;
    while !shared.stop.is_cancelled() {
        let polled = member.poll(Duration::from_millis(50));
        shared.lanes.polled();
        match polled {
            Ok(Polled::Message(message)) => {
                let partition = message.partition();
                let place = Place::new(message.topic(), partition);
                let Some(entity) = shared.topics.entity_of(&place.topic).map(str::to_owned) else {
                    continue;
                };
                let full = shared.lanes.push(
                    &entity,
                    Message {
                        offset: message.offset(),
                        key: message.key().unwrap_or_default().to_vec(),
                        value: message.payload().unwrap_or_default().to_vec(),
                        place,
                    },
                );
                // A pause throws away what was fetched ahead, and the reader is
                // slow to begin again: a lane that soon has room is waited for.
                if full
                    && !paused.contains_key(&entity)
                    && !shared.lanes.wait_for_room(&entity, partition, PATIENT)
                {
                    let topic = shared.topics.canonical(&entity);
                    let places: Vec<Place> = member
                        .assigned()
                        .into_iter()
                        .filter(|place| place.topic == topic)
                        .collect();
                    member.pause(&places)?;
                    paused.insert(entity, places);
                }
            }
            Ok(Polled::End) => ended = true,
            Ok(Polled::NotAssigned(error)) => return Err(error),
            Ok(Polled::Nothing) if ended => {
                // The lanes may still be busy with what came before the end, so
                // the question stays open until nothing is left to commit.
                ended = !commit_positions(shared, &member)?;
            }
            Ok(Polled::Nothing) => {}
            Err(error) if error.class() == Class::Transient && error.code != Code::Fenced => {
                shared.status.note_error(&error);
                tracing::warn!(%error, "reading");
            }
            Err(error) => return Err(error),
        }
        if epoch != shared.lanes.epoch() {
            // A new assignment starts unpaused.
            epoch = shared.lanes.epoch();
            paused.clear();
        }
        let room: Vec<String> = paused
            .keys()
            .filter(|entity| shared.lanes.has_room(entity))
            .cloned()
            .collect();
        for entity in room {
            if let Some(places) = paused.remove(&entity) {
                member.resume(&places)?;
            }
        }
    }
    Ok(())
}

/// Commits positions behind commit markers where a lane holds nothing, so that
/// a drained topic shows no lag. `true` when nothing is left to commit.
fn commit_positions<L: Loader>(shared: &Shared<L>, member: &Member) -> Result<bool> {
    let positions = member.positions();
    if shared.stop.is_cancelled() || shared.lanes.all_committed(&positions) {
        return Ok(true);
    }
    let Some((group, next)) = shared.lanes.uncommitted(positions) else {
        return Ok(false);
    };
    let metadata = shared.offset_metadata(next.keys());
    let offsets = Offsets {
        next: &next,
        metadata: &metadata,
        group: &group,
    };
    let committed = shared
        .producer()
        .transaction(|_| Ok(()), Some(offsets), |_| {});
    match committed {
        Ok(_) => {
            shared.lanes.committed(next);
            Ok(false)
        }
        Err(Failure::Aborted(error)) => {
            tracing::debug!(%error, "positions are committed later");
            Ok(false)
        }
        Err(Failure::Dead(error)) => Err(error),
    }
}

/// Where a test wants this process to die: `DROVER_KILL_AT=<step>[:<n>]`, at the
/// n-th time the step is reached.
static KILL_AT: LazyLock<Option<(Step, u32)>> = LazyLock::new(|| {
    let text = std::env::var("DROVER_KILL_AT").ok()?;
    let (step, count) = text.split_once(':').unwrap_or((&text, "1"));
    let step = serde_json::from_value(serde_json::Value::String(step.to_owned())).ok()?;
    Some((step, count.parse().ok()?))
});

static REACHED: AtomicU32 = AtomicU32::new(0);

/// Ends the process with SIGKILL when a test asked for it here.
pub(super) fn kill_point(step: Step) {
    let Some((wanted, count)) = &*KILL_AT else {
        return;
    };
    if *wanted == step && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        eprintln!("kill point {step:?} reached");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
    }
}
