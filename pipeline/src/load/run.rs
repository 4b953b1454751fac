//! The loader's process: one consumer that polls, one lane an entity, one
//! transactional producer that the lanes use in turn, one tail that follows
//! the tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::message::Message as _;
use tokio_util::sync::CancellationToken;

use super::batch::{Dropped, Worker, next_offsets};
use super::kill::kill_point;
use super::lanes::{Lanes, Message};
use super::orphans::Orphans;
use super::references::References;
use super::tables::{Known, Tables};
use super::upstream::{Upstream, watch};
use super::{EntitySupport, Loader, Step};
use crate::bodies::Bodies;
use crate::control::Plan;
use crate::deadletter::{FailureShare, LiveLetters};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::Entry;
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{Follower, Tail, high_watermark};
use crate::kafka::consumer::{Assignment, Member, Polled, Rebalance};
use crate::kafka::continuity::{Finding, Guard, Watched, explains};
use crate::kafka::group::GroupOffsets;
use crate::kafka::producer::{Failure, Offsets, TransactionalProducer};
use crate::lasting::through_losses;
use crate::parking::Parked;
use crate::process::Context;
use crate::record::CanonicalKey;
use crate::retry::{Backoff, passes, patiently};
use crate::spec::Stage;
use crate::status::{Phase, Status};
use crate::topics::Topics;

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
    /// How long what a lane waits for may stand still.
    pub(super) patience: Duration,
    /// Where bodies lie that the bus does not take.
    pub(super) bodies: Option<Arc<Bodies>>,
    pub(super) orphans: Orphans,
    pub(super) references: References,
    pub(super) upstream: Upstream,
    incarnations: HashMap<String, u32>,
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

    /// Whether `init` wrote a record into every partition of that topic.
    pub(super) fn is_stamped(&self, topic: &str) -> bool {
        self.incarnations.contains_key(topic)
    }

    /// Whether everything below these offsets of our tables is in memory.
    pub(super) fn has_told(&self, ends: &BTreeMap<Place, i64>) -> bool {
        // Where our own commits change a table the tail's position says nothing:
        // a commit that others see already may not be in memory yet. Whoever has
        // the producer has remembered what was committed before.
        drop(self.producer());
        let others: Vec<(&Place, i64)> = {
            let known = self.tables.lock();
            let others = ends.iter().filter(|(place, _)| !known.is_ours(place));
            others.map(|(place, end)| (place, *end)).collect()
        };
        let tail = self.tail();
        let told = |tail: &Tail| others.iter().all(|(place, end)| tail.is_at(place, *end));
        tail.as_ref().is_some_and(told)
    }

    /// The entity that a slot of an object gives.
    pub(super) fn entity_of(&self, object: &str, slot: &str) -> Option<&str> {
        let mapping = &self.plan.mapping;
        let rules = mapping.objects.get(object);
        let rules = rules.or(mapping.custom_objects.as_ref())?;
        rules.slots.get(slot).map(|slot| slot.entity.as_str())
    }

    /// The text beside each committed offset: how long the idempotency table
    /// was, so that a shorter one is noticed and nothing is created again; and
    /// whether the lane has waited for its parents already.
    pub(super) fn offset_metadata<'p>(
        &self,
        places: impl Iterator<Item = &'p Place>,
    ) -> HashMap<Place, String> {
        let known = self.tables.lock();
        places
            .map(|place| {
                let end = known.idempotency_end(place.partition);
                let entity = self.topics.entity_of(&place.topic);
                let promise = Promise {
                    idempotency: end,
                    free: entity.is_some_and(|entity| self.upstream.is_free(entity)),
                };
                (place.clone(), promise.text())
            })
            .collect()
    }

    fn tail(&self) -> MutexGuard<'_, Option<Tail>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
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
                let text: Promise = serde_json::from_str(text).unwrap_or_default();
                if let Some(entity) = self.topics.entity_of(&place.topic).filter(|_| text.free) {
                    self.upstream.free(entity);
                    self.lanes.hold_back(entity, false);
                }
                let promised = text.idempotency;
                if place.partition == partition && promised > end {
                    return Err(Error::new(
                        Code::IdempotencyLost,
                        format!("{table} ends at {end}, but {place} was committed at {promised}"),
                    ));
                }
            }
        }
        // What is ours already, because this is a second try, our own commits have
        // put into memory, and the tail rests there.
        ends.retain(|place, _| !self.tables.lock().is_ours(place));
        if let Some(tail) = &*self.tail() {
            for (place, end) in &ends {
                tail.wait_for(place, *end, RESTORE)?;
            }
        }
        kill_point(Step::Restored);
        let (again, redos, orphans) = {
            let mut known = self.tables.lock();
            known.own(&partitions, ends);
            let mut orphans = self.orphans.with_parent(&known);
            orphans.retain(|child| known.owns(child));
            (known.look_again(), known.redos(), orphans)
        };
        // From here on our own commits change these, and what is read of them would
        // be passed over. Only `revoked` makes them another's, and goes back.
        if let Some(tail) = &*self.tail() {
            for &partition in &partitions {
                tail.rest(Place::new(self.topics.idempotency(), partition));
                tail.rest(Place::new(self.topics.parked(), partition));
            }
        }
        self.lanes
            .assign(Arc::clone(&assignment.group), assignment.starts.clone());
        for (topic, error) in &assignment.lost {
            self.stop_lane(topic, error);
        }
        for (key, entity) in again {
            self.lanes.release(&entity, key, Duration::ZERO);
        }
        for key in redos {
            self.release_redo(key);
        }
        for key in orphans {
            self.release_orphan(key);
        }
        self.status.phase(Phase::Running);
        tracing::info!(?partitions, epoch = assignment.epoch, "assigned");
        Ok(())
    }

    fn incarnations(&self) -> BTreeMap<String, u32> {
        self.incarnations.clone().into_iter().collect()
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

/// What stands beside a committed offset.
#[derive(Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Promise {
    /// How long the idempotency table was.
    idempotency: i64,
    /// The lane waits for no first copy any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    free: bool,
}

impl Promise {
    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The entity of an envelope's body.
fn entity_of(value: &[u8]) -> Option<String> {
    let envelope = Envelope::decode(value).ok()?;
    drover_schemas::entity_of_schema(envelope.body_schema).map(|entity| entity.name.clone())
}

impl<L: Loader> Shared<L> {
    /// Stops the lane of a topic that can't be read on.
    fn stop_lane(&self, topic: &str, error: &Error) {
        if let Some(entity) = self.topics.entity_of(topic) {
            self.lanes.stop(entity);
            self.status.lane_failed(entity, error, None);
        }
    }

    /// What the guard has found. An error ends the process.
    fn found(&self, finding: Finding, member: &Member) -> Result<()> {
        match finding {
            Finding::Stops(topic, error) => {
                if self.topics.entity_of(&topic).is_none() {
                    // A table: no lane can work without it.
                    return Err(error);
                }
                self.stop_lane(&topic, &error);
                let mut places = member.assigned();
                places.retain(|place| place.topic == topic);
                member.pause(&places)?;
                if self.status.all_blocked() {
                    return Err(error);
                }
            }
            Finding::Held(place, error) => self.condition(&place, Some(&error)),
            Finding::Free(place) => self.condition(&place, None),
            Finding::Unexplained(error) => return Err(error),
        }
        Ok(())
    }

    fn condition(&self, place: &Place, error: Option<&Error>) {
        if let Some(entity) = self.topics.entity_of(&place.topic) {
            self.status
                .lane_condition(entity, &place.to_string(), error);
        }
    }

    /// Of parents that have just got an entry, the children of ours that are
    /// dead letters because of them: those go on.
    pub(super) fn orphans_of(
        &self,
        known: &Known,
        parents: &[&CanonicalKey],
        released: &mut Vec<(CanonicalKey, String)>,
    ) {
        if self.orphans.is_empty() {
            return;
        }
        for parent in parents {
            if known.target_of(parent).is_none() {
                continue;
            }
            for child in self.orphans.children(parent) {
                let orphan = self.orphans.get(&child).filter(|_| known.owns(&child));
                if let Some(entity) = orphan.and_then(|orphan| entity_of(&orphan.envelope)) {
                    released.push((child, entity));
                }
            }
        }
    }

    fn release_orphan(&self, key: CanonicalKey) {
        let entity = self.orphans.get(&key).and_then(|o| entity_of(&o.envelope));
        if let Some(entity) = entity {
            self.lanes.release(&entity, key, Duration::ZERO);
        }
    }

    fn release_redo(&self, key: CanonicalKey) {
        let entity = {
            let known = self.tables.lock();
            known.redo(&key).and_then(|value| entity_of(value))
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
            if let Some(child) = self.orphans.note(key, value) {
                // Its parent may have come before the letter was told.
                let goes_on = {
                    let known = self.tables.lock();
                    let orphan = self.orphans.get(&child);
                    let parent = orphan.filter(|_| known.owns(&child)).map(|o| o.parent);
                    parent.is_some_and(|parent| known.target_of(&parent).is_some())
                };
                if goes_on {
                    self.release_orphan(child);
                }
            }
            return;
        }
        if place.topic == self.topics.checkpoint() {
            self.upstream.checkpoint(key, value);
            return;
        }
        if place.topic == self.topics.status() {
            self.upstream.report(key, value);
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
                        self.orphans_of(&known, &[&key], &mut released);
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
        if !passes(&error) {
            tracing::warn!(%error, "following the tables");
        }
        self.status.note_error(&error);
    }
}

/// Runs the loader until it is told to stop.
pub async fn run<L: Loader>(loader: L, context: Context) -> Result<()> {
    let altered = altered(&loader, &context, &supports(&loader, &context)).await?;
    // What is gone must not be made anew, empty, as if nothing had been lost.
    if altered.is_empty() && !prepare(&loader, &context).await? {
        return Ok(());
    }
    let loader = Arc::new(loader);
    through_losses(&context, |context| live(Arc::clone(&loader), context)).await
}

/// The entities of this migration that the target takes.
fn supports<L: Loader>(loader: &L, context: &Context) -> Vec<EntitySupport> {
    let all = loader.entities().into_iter();
    all.filter(|support| context.plan.entities.contains(&support.entity))
        .collect()
}

/// Runs it until it is told to stop, or loses its place in Kafka.
async fn live<L: Loader>(loader: Arc<L>, context: Context) -> Result<()> {
    let supports = supports(&*loader, &context);
    let mut altered = altered(&*loader, &context, &supports).await?;
    let topics = context.topics.clone();
    let stop = context.stop.clone();
    let lanes = Lanes::new(
        topics.partitions(),
        supports.iter().map(|support| {
            let topic = topics.canonical(&support.entity);
            (support.entity.clone(), topic, parts(support, &topics))
        }),
    );
    let entities: Vec<&str> = supports.iter().map(|s| s.entity.as_str()).collect();
    let references = References::of(&context.plan, &entities);
    let upstream = Upstream::of(&context.plan, &topics, &entities);
    for entity in &entities {
        lanes.hold_back(entity, references.parents(entity).next().is_some());
    }
    let inputs: Vec<String> = supports
        .iter()
        .map(|s| topics.canonical(&s.entity))
        .collect();
    let instance = context.instance.clone();
    let shared = tokio::task::spawn_blocking({
        let inputs = inputs.clone();
        move || start(loader, context, lanes, references, upstream, &inputs)
    })
    .await
    .map_err(|e| Error::new(Code::Invariant, format!("starting: {e}")))??;

    let (fatal, mut failed) = tokio::sync::mpsc::channel::<Error>(8);
    let mut tasks = tokio::task::JoinSet::new();
    // All of them first: one that is blocked from the start must not look as if
    // every lane were.
    for support in &supports {
        shared.status.lane_runs(&support.entity, None);
    }
    for support in supports {
        let Some(entity) = drover_schemas::entity(&support.entity) else {
            continue;
        };
        let mut altered = altered.remove(&entity.name);
        // A lane that may not begin has one part, which says so.
        let parts = match altered {
            Some(_) => 1,
            None => parts(&support, &topics),
        };
        for part in 0..parts {
            let worker = Worker {
                shared: Arc::clone(&shared),
                entity,
                part,
                support: support.clone(),
                share: FailureShare::default(),
                looked: None,
            };
            tasks.spawn(lane(worker, altered.take(), fatal.clone()));
        }
    }
    let watcher = tokio::task::spawn_blocking({
        let shared = Arc::clone(&shared);
        move || watch(&shared)
    });
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
    let _ = tokio::time::timeout(Duration::from_secs(15), watcher).await;
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
                context.status.note_wait(&error, wait);
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

/// The entities that were loaded before and whose tables in the target were
/// altered since, each with what is wrong.
async fn altered<L: Loader>(
    loader: &L,
    context: &Context,
    supports: &[EntitySupport],
) -> Result<BTreeMap<String, Error>> {
    let places: Vec<Place> = supports
        .iter()
        .flat_map(|support| {
            let topic = context.topics.canonical(&support.entity);
            (0..context.topics.partitions()).map(move |p| Place::new(&topic, p))
        })
        .collect();
    let (client, group) = (context.client.clone(), context.topics.load_group());
    let stop = context.stop.clone();
    let committed = tokio::task::spawn_blocking(move || {
        let ask = || GroupOffsets::open(&client, &group)?.committed(places.iter());
        patiently(|_| !stop.is_cancelled(), ask)
    })
    .await
    .map_err(|e| Error::new(Code::Invariant, format!("asking for offsets: {e}")))?;
    let mut altered = BTreeMap::new();
    // A topic that is not there is refused where it is needed.
    for (place, offset) in committed.unwrap_or_default() {
        let stamped = context.plan.incarnations.contains_key(&place.topic);
        let name = context.topics.entity_of(&place.topic).unwrap_or_default();
        let (Some(entity), true) = (drover_schemas::entity(name), offset > i64::from(stamped))
        else {
            continue;
        };
        if let Err(error) = loader.altered(entity).await
            && error.code == Code::TargetAltered
        {
            altered.insert(name.to_owned(), error);
        }
    }
    Ok(altered)
}

fn start<L: Loader>(
    loader: Arc<L>,
    context: Context,
    lanes: Lanes,
    references: References,
    upstream: Upstream,
    inputs: &[String],
) -> Result<Arc<Shared<L>>> {
    let topics = context.topics;
    let tables = [
        topics.idempotency(),
        topics.parked(),
        topics.redo(),
        topics.deadletter(),
    ];
    let followed: Vec<String> = tables
        .iter()
        .cloned()
        .chain([topics.checkpoint(), topics.status()])
        .collect();
    let needed: Vec<String> = inputs.iter().chain(&tables).cloned().collect();
    let id = topics.transactional_id(&topics.load_group(), &context.instance);
    let go_on = |_| !context.stop.is_cancelled();
    let producer = patiently(go_on, || {
        context.client.require_topics(&needed)?;
        // The inputs are proved with each assignment, lane by lane.
        context.plan.check_incarnations(&context.client, &tables)?;
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
        patience: context.patience,
        bodies: context.bodies,
        orphans: Orphans::default(),
        references,
        upstream,
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
        || Tail::start(&shared.client, &followed, follower()),
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
async fn lane<L: Loader>(
    mut worker: Worker<L>,
    altered: Option<Error>,
    fatal: tokio::sync::mpsc::Sender<Error>,
) {
    let shared = Arc::clone(&worker.shared);
    let entity = worker.entity.name.clone();
    let part = worker.part;
    let most = worker.support.batch.clamp(1, 10_000);
    if let Some(error) = altered {
        shared.status.lane_failed(&entity, &error, None);
        if shared.status.all_blocked() {
            tokio::time::sleep(crate::status::INTERVAL).await;
            let _ = fatal.send(error).await;
        }
        // Until a restart.
        return shared.stop.cancelled().await;
    }
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
    let watched = Watched {
        inputs: inputs.to_vec(),
        tables: vec![
            shared.topics.idempotency(),
            shared.topics.parked(),
            shared.topics.redo(),
            shared.topics.deadletter(),
        ],
        incarnations: shared.incarnations(),
    };
    let status = Arc::clone(&shared.status);
    let guard = Guard::start(&shared.client, &shared.topics, watched, status)?;
    let mut paused: HashMap<String, Vec<Place>> = HashMap::new();
    let mut epoch = shared.lanes.epoch();
    let mut ended = false;
    let mut told = Instant::now();
    // Messages come in runs of one partition: its entity and its place.
    let mut last: Option<(String, Arc<Place>)> = None;
    while !shared.stop.is_cancelled() {
        let polled = member.poll(Duration::from_millis(50));
        shared.lanes.polled();
        let due = told.elapsed() >= Duration::from_secs(1);
        if due {
            told = Instant::now();
            guard.reads(shared.lanes.positions());
            for finding in guard.findings() {
                shared.found(finding, &member)?;
            }
        }
        match polled {
            Ok(Polled::Message(message)) => {
                let (topic, partition) = (message.topic(), message.partition());
                let same = |(_, place): &(String, Arc<Place>)| {
                    place.partition == partition && place.topic == topic
                };
                if !last.as_ref().is_some_and(same) {
                    let entity = shared.topics.entity_of(topic);
                    let place = Arc::new(Place::new(topic, partition));
                    last = entity.map(|entity| (entity.to_owned(), place));
                }
                let Some((entity, place)) = &last else {
                    continue;
                };
                let full = shared.lanes.push(
                    entity,
                    Message {
                        offset: message.offset(),
                        key: message.key().unwrap_or_default().to_vec(),
                        value: message.payload().unwrap_or_default().to_vec(),
                        place: Arc::clone(place),
                    },
                );
                // A pause throws away what was fetched ahead, and the reader is
                // slow to begin again: a lane that soon has room is waited for.
                if full
                    && !paused.contains_key(entity)
                    && !shared.lanes.wait_for_room(entity, partition, PATIENT)
                {
                    let topic = shared.topics.canonical(entity);
                    let places: Vec<Place> = member
                        .assigned()
                        .into_iter()
                        .filter(|place| place.topic == topic)
                        .collect();
                    member.pause(&places)?;
                    paused.insert(entity.clone(), places);
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
                shared.client.outage().met("reading", &error);
            }
            Err(error) if explains(&error) => guard.suspect(error),
            Err(error) => return Err(error),
        }
        // Also while other topics keep us busy: lanes may wait for the end of this
        // one. Not before the message is in its lane, which holds the position.
        if due && ended {
            ended = !commit_positions(shared, &member)?;
        }
        if epoch != shared.lanes.epoch() {
            // A new assignment starts unpaused; see `Member`.
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
    // Noted before a lane's transaction can begin, which would go back otherwise.
    let producer = shared.producer();
    let committed = producer.transaction(|_| Ok(()), Some(offsets), |_| {});
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of what was done out of order does not fit beside an offset: the
    /// broker takes 4,096 bytes, and the consumer stands still from then on
    /// (confluentinc/parallel-consumer 647, 832). Ours does not grow with what
    /// is under way: that is what the idempotency topic is for.
    #[test]
    fn parallel_consumer_647_what_stands_beside_an_offset_does_not_grow() {
        let promise = Promise {
            idempotency: i64::MAX,
            free: true,
        };
        let text = promise.text();
        assert!(text.len() < 100, "{text}");
        let back: Promise = serde_json::from_str(&text).expect("it reads its own");
        assert_eq!(back, promise);
        // What an older version wrote is read, too.
        let old: Promise = serde_json::from_str(r#"{"idempotency":7}"#).expect("it reads");
        assert_eq!((old.idempotency, old.free), (7, false));
    }
}
