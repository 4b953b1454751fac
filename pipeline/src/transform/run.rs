//! The transformer's loop: a batch of raw records → one Kafka transaction of
//! canonical records, dead letters and input offsets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message};

use super::Transformer;
use super::redo::{Redo, Redos};
use crate::control::INCARNATION;
use crate::deadletter::{
    Author, DeadLetter, FailureShare, LiveLetters, Origin, record as dead_record,
};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::compacted::{Follower, Tail, high_watermark};
use crate::kafka::consumer::{Assignment, Member, Polled, Rebalance};
use crate::kafka::continuity::{Finding, Guard, Watched, explains};
use crate::kafka::producer::{Failure, Offsets, Record, TransactionalProducer};
use crate::lasting::through_losses;
use crate::process::Context;
use crate::record::{Canonical, Content, Fingerprint, Op, RawKey};
use crate::retry::{Backoff, passes, patiently};
use crate::spec::Stage;
use crate::status::{Count, Phase, Status, now};

/// Records in one transaction at the most.
const BATCH: usize = 5_000;
/// Bytes in one transaction at the most.
const BATCH_BYTES: usize = 8 << 20;
/// The largest value that is written: a dead letter of it, in base64, still fits
/// into what the bus takes (10 MB).
pub(crate) const MAX_RECORD: usize = 7 << 20;
/// How long a batch waits for more once it has a record.
const LINGER: Duration = Duration::from_millis(20);

/// Runs the transformer until it is told to stop.
pub async fn run<T: Transformer>(context: Context) -> Result<()> {
    through_losses(&context, |context| async {
        // One blocking thread does all of it: rdkafka's calls block, and a
        // batch borrows its messages from the consumer.
        tokio::task::spawn_blocking(move || Runner::<T>::start(context)?.run())
            .await
            .map_err(|e| Error::new(Code::Invariant, format!("the transformer panicked: {e}")))?
    })
    .await
}

/// What the polling thread and the rebalance callbacks share.
struct Shared {
    /// Raised whenever partitions are taken away: an older batch is dropped.
    epoch: AtomicU64,
    group: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    letters: LiveLetters,
    redos: Redos,
    tail: Mutex<Option<Tail>>,
    deadletter: String,
    redo: String,
    client: crate::kafka::client::Client,
    status: Arc<Status>,
    incarnations: BTreeMap<String, u32>,
    /// By raw topic, its lane's name: the object.
    lanes: HashMap<String, String>,
    /// Topics of which nothing is read any more, whatever is assigned.
    blocked: Mutex<HashSet<String>>,
}

impl Rebalance for Shared {
    fn assigned(&self, assignment: &Assignment) -> Result<()> {
        // The dead letters of these partitions must be known, or a success
        // would leave an old one standing, and a retry would find none.
        let mut partitions: Vec<i32> = assignment.starts.keys().map(|p| p.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let place = Place::new(&self.deadletter, partition);
            let end = high_watermark(&self.client, &place)?;
            if let Some(tail) = &*self.tail.lock().unwrap_or_else(PoisonError::into_inner) {
                tail.wait_for(&place, end, Duration::from_secs(60))?;
            }
        }
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::clone(&assignment.group));
        self.redos.assigned(&assignment.starts);
        self.status.phase(Phase::Running);
        for (topic, error) in &assignment.lost {
            self.block(topic, error);
        }
        tracing::info!(partitions = assignment.starts.len(), "assigned");
        Ok(())
    }

    fn incarnations(&self) -> BTreeMap<String, u32> {
        self.incarnations.clone()
    }

    fn revoked(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.redos.revoked();
    }
}

impl Shared {
    /// Reads nothing more of a topic: its lane waits for a person.
    fn block(&self, topic: &str, error: &Error) {
        if let Some(lane) = self.lanes.get(topic) {
            self.status.lane_failed(lane, error, None);
        }
        self.blocked().insert(topic.to_owned());
    }

    fn blocked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condition(&self, place: &Place, error: Option<&Error>) {
        if let Some(lane) = self.lanes.get(&place.topic) {
            self.status.lane_condition(lane, &place.to_string(), error);
        }
    }
}

impl Follower for Shared {
    fn record(&self, place: &Place, offset: i64, key: &[u8], value: Option<&[u8]>) {
        if place.topic == self.redo {
            self.redos.told(place.partition, key, value);
        } else {
            self.letters.told(place.partition, offset, key, value);
        }
    }

    fn failed(&self, error: Error) {
        tracing::warn!(%error, "following dead letters and retries");
    }
}

struct Runner<T> {
    transformer: T,
    context: Context,
    shared: Arc<Shared>,
    producer: TransactionalProducer,
    /// By raw topic, its lane's name: the object.
    lanes: HashMap<String, String>,
    shares: HashMap<String, FailureShare>,
    /// By partition, what was committed last.
    committed: HashMap<Place, i64>,
    backoff: Backoff,
    /// Topics whose lane had too many dead letters: nothing more is read of them.
    stopped: Vec<String>,
}

/// Why a batch did not go through.
enum Trouble {
    /// Of this one topic: its lane is blocked, the others go on.
    Lane(String, Error),
    /// Of the transaction: tried again from the same offsets.
    Again(Error),
    /// Of the process.
    Dead(Error),
}

impl<T: Transformer> Runner<T> {
    fn start(context: Context) -> Result<Self> {
        let transformer = T::new(&context.plan.mapping, &context.plan.objects).map_err(|all| {
            let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
            Error::new(Code::ConfigInvalid, texts.join("; "))
        })?;
        let mut lanes: HashMap<String, String> = HashMap::new();
        for object in &context.plan.objects {
            let lane = if object.custom {
                "custom"
            } else {
                &object.name
            };
            lanes.insert(context.topics.raw(&object.name, object.custom), lane.into());
        }
        let mut needed: Vec<String> = lanes.keys().cloned().collect();
        needed.push(context.topics.deadletter());
        needed.push(context.topics.redo_transform());
        needed.extend(
            context
                .plan
                .entities
                .iter()
                .map(|entity| context.topics.canonical(entity)),
        );
        let go_on = |_| !context.stop.is_cancelled();
        patiently(go_on, || {
            context.client.require_topics(&needed)?;
            // The inputs are proved with each assignment, lane by lane; what is
            // written is proved by those who read it.
            let tables = [context.topics.deadletter()];
            context.plan.check_incarnations(&context.client, &tables)
        })?;
        for lane in lanes.values() {
            context.status.lane_runs(lane, None);
        }
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            group: Mutex::new(None),
            letters: LiveLetters::of(Stage::Transformer),
            redos: Redos::default(),
            tail: Mutex::new(None),
            deadletter: context.topics.deadletter(),
            redo: context.topics.redo_transform(),
            client: context.client.clone(),
            status: Arc::clone(&context.status),
            incarnations: context.plan.incarnations.clone(),
            lanes: lanes.clone(),
            blocked: Mutex::default(),
        });
        let tail = patiently(go_on, || {
            let follower = Arc::clone(&shared) as Arc<dyn Follower>;
            let tables = [shared.deadletter.clone(), shared.redo.clone()];
            Tail::start(&context.client, &tables, follower)
        })?;
        *shared.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
        let group = context.topics.transform_group();
        let id = context.topics.transactional_id(&group, &context.instance);
        let producer = patiently(go_on, || TransactionalProducer::open(&context.client, &id))?;
        Ok(Runner {
            transformer,
            shared,
            producer,
            lanes,
            shares: HashMap::new(),
            committed: HashMap::new(),
            backoff: Backoff::default(),
            stopped: Vec::new(),
            context,
        })
    }

    fn run(mut self) -> Result<()> {
        let topics: Vec<String> = self.lanes.keys().cloned().collect();
        let member = Member::join(
            &self.context.client,
            &self.context.topics.transform_group(),
            &self.context.instance,
            &topics,
            Arc::clone(&self.shared) as Arc<dyn Rebalance>,
        )?;
        let watched = Watched {
            inputs: topics,
            tables: vec![self.context.topics.deadletter()],
            incarnations: self.context.plan.incarnations.clone(),
        };
        let guard = Guard::start(
            &self.context.client,
            &self.context.topics,
            watched,
            Arc::clone(&self.context.status),
        )?;
        let mut ended = false;
        while !self.context.stop.is_cancelled() {
            let epoch = self.shared.epoch.load(Ordering::SeqCst);
            guard.reads(self.committed.clone());
            for finding in guard.findings() {
                self.found(finding, &member)?;
            }
            let Some((batch, end)) = self.collect(&member, epoch, &guard)? else {
                // Taken away while it was collected: its new owner reads it.
                self.committed.clear();
                // A new assignment starts unpaused.
                let blocked = self.shared.blocked().clone();
                blocked.iter().try_for_each(|topic| pause(&member, topic))?;
                continue;
            };
            ended |= end;
            let Some(group) = self.group() else { continue };
            let (redos, starts) = self.shared.redos.due(BATCH / 10);
            if batch.is_empty() && redos.is_empty() {
                if ended {
                    self.commit_position(&member, &group)?;
                    ended = false;
                }
                continue;
            }
            match self.batch(&batch, &redos, &starts, &group) {
                Ok(()) => {
                    self.backoff.reset();
                    for topic in std::mem::take(&mut self.stopped) {
                        pause(&member, &topic)?;
                    }
                }
                Err(trouble) => self.recover(&member, &batch, trouble)?,
            }
            if self.context.status.all_blocked() {
                return Err(Error::new(
                    Code::Refused,
                    "every lane is blocked; see `drover status`",
                ));
            }
        }
        self.context.status.phase(Phase::Stopping);
        Ok(())
    }

    /// What the guard has found. An error ends the process.
    fn found(&mut self, finding: Finding, member: &Member) -> Result<()> {
        match finding {
            Finding::Stops(topic, error) => {
                if !self.lanes.contains_key(&topic) {
                    return Err(error);
                }
                self.shared.block(&topic, &error);
                pause(member, &topic)?;
                if self.context.status.all_blocked() {
                    return Err(error);
                }
            }
            Finding::Held(place, error) => self.shared.condition(&place, Some(&error)),
            Finding::Free(place) => self.shared.condition(&place, None),
            Finding::Unexplained(error) => return Err(error),
        }
        Ok(())
    }

    fn group(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.shared
            .group
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Collects messages until the batch is full or old enough, and says whether
    /// an end of the input was met. `None` when the partitions were taken away
    /// meanwhile: asked after each poll, because the next one may already bring
    /// messages of the new assignment, which must not be thrown away.
    #[allow(clippy::type_complexity)]
    fn collect<'m>(
        &self,
        member: &'m Member,
        epoch: u64,
        guard: &Guard,
    ) -> Result<Option<(Vec<BorrowedMessage<'m>>, bool)>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut ended = false;
        let mut deadline = Instant::now() + Duration::from_millis(200);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            match member.poll(left) {
                Ok(Polled::Message(message)) => {
                    if batch.is_empty() {
                        deadline = Instant::now() + LINGER;
                    }
                    bytes += message.payload_len();
                    batch.push(message);
                }
                Ok(Polled::End) => ended = true,
                Ok(Polled::NotAssigned(error)) => return Err(error),
                Ok(Polled::Nothing) => {}
                Err(error) if passes(&error) => {
                    self.context.status.note_error(&error);
                    tracing::warn!(%error, "reading");
                }
                Err(error) if explains(&error) => guard.suspect(error),
                Err(error) => return Err(error),
            }
            if self.shared.epoch.load(Ordering::SeqCst) != epoch {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(Some((batch, ended)))
    }

    fn batch(
        &mut self,
        batch: &[BorrowedMessage<'_>],
        redos: &[Redo],
        starts: &HashMap<Place, i64>,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Trouble> {
        let mut counts: HashMap<(String, String, Became), u64> = HashMap::new();
        let mut next = HashMap::new();
        let mut seen: HashMap<String, i64> = HashMap::new();
        let mut lane_trouble = None;
        let mut letters = HashMap::new();
        let mut outputs: Vec<Output> = Vec::with_capacity(batch.len());
        // Before the messages: these may hold newer versions of the same keys.
        let mut retried = Vec::new();
        for redo in redos {
            match self.again(redo, &mut letters) {
                Ok(done) => {
                    retried.push((redo.key.clone(), done.object, done.count));
                    outputs.extend(done.outputs);
                }
                Err(error) => {
                    tracing::error!(key = %redo.key, %error, "a retry waits for a person");
                    self.shared.redos.stuck(redo.key.clone());
                }
            }
        }
        for message in batch {
            let place = Place::new(message.topic(), message.partition());
            next.insert(place.clone(), message.offset() + 1);
            if message.key() == Some(INCARNATION) {
                continue;
            }
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let origin = Origin {
                place: place.clone(),
                offset: message.offset(),
            };
            let value = message.payload().unwrap_or_default();
            match self.one(key, value, origin, &mut letters) {
                Ok(done) => {
                    let count = (place.topic.clone(), done.object.clone(), done.count);
                    *counts.entry(count).or_default() += 1;
                    if let Some(at) = done.extracted_at {
                        seen.insert(place.topic.clone(), at);
                    }
                    outputs.extend(done.outputs);
                }
                Err(error) => {
                    lane_trouble = Some((place.topic.clone(), error));
                    break;
                }
            }
        }
        if let Some((topic, error)) = lane_trouble {
            return Err(Trouble::Lane(topic, error));
        }
        if outputs.is_empty() && next.is_empty() {
            return Ok(());
        }
        let read: Vec<Place> = next.keys().cloned().collect();
        if next.is_empty() {
            // Only offsets are fenced, so what is committed is sent once more.
            next.extend(starts.iter().map(|(p, o)| (p.clone(), *o)));
            let known = self
                .committed
                .iter()
                .filter(|(p, _)| starts.contains_key(*p));
            next.extend(known.map(|(p, o)| (p.clone(), *o)));
        }
        let ends = self
            .producer
            .transaction(
                |transaction| {
                    outputs
                        .iter()
                        .try_for_each(|output| transaction.send(output.record()))
                },
                Some(Offsets {
                    next: &next,
                    metadata: &HashMap::new(),
                    group,
                }),
                |_| {},
            )
            .map_err(|failure| match failure {
                Failure::Aborted(error) => Trouble::Again(error),
                Failure::Dead(error) => Trouble::Dead(error),
            })?;
        let mut too_many = Vec::new();
        for ((topic, object, became), number) in &counts {
            for _ in 0..*number {
                let share = self.shares.entry(object.clone()).or_default();
                if let Err(error) = share.note(*became == Became::Dead) {
                    too_many.push((topic.clone(), error.at(object.clone())));
                    break;
                }
            }
        }
        let ends = ends
            .iter()
            .filter(|(place, _)| place.topic == self.shared.deadletter)
            .map(|(place, end)| (place.partition, *end));
        let written = outputs
            .iter()
            .filter(|output| output.topic == self.shared.deadletter)
            .map(|output| (output.key.as_slice(), output.value.as_deref()));
        self.shared.letters.committed(ends, written);
        for (key, object, became) in retried {
            self.shared.redos.done([key]);
            if let Some(became) = became {
                self.context.status.count(&object, became.count(), 1);
            }
        }
        for ((_, object, count), number) in counts {
            self.context.status.count(&object, count.count(), number);
        }
        for place in &read {
            if let Some(lane) = self.lanes.get(&place.topic) {
                self.context
                    .status
                    .lane_runs(lane, seen.get(&place.topic).copied());
            }
        }
        self.committed.extend(next);
        // Committed all the same, so that the dead letters can be read.
        for (topic, error) in too_many {
            if let Some(lane) = self.lanes.get(&topic) {
                self.context.status.lane_failed(lane, &error, None);
            }
            self.shared.blocked().insert(topic.clone());
            self.stopped.push(topic);
        }
        Ok(())
    }

    /// A retry's outputs, and the tombstone that ends it. Its letter must be live:
    /// otherwise this or a newer version has gone through since.
    fn again(&self, redo: &Redo, letters: &mut HashMap<String, i64>) -> Result<Retried> {
        let envelope = Envelope::decode(&redo.value).map_err(|e| e.at(redo.key.clone()))?;
        let lives = self.shared.letters.clears(&redo.key, envelope.version);
        let object = self
            .context
            .plan
            .objects
            .iter()
            .find(|object| object.name == envelope.object);
        let mut retried = Retried {
            object: envelope.object.to_owned(),
            count: None,
            outputs: Vec::new(),
        };
        if let Some(object) = object.filter(|_| lives) {
            let topic = self.context.topics.raw(&object.name, object.custom);
            let origin = Origin {
                place: Place::new(topic, redo.partition),
                offset: envelope.order.map_or(-1, |order| order.offset),
            };
            let done = self.one(redo.key.clone(), &redo.value, origin, letters)?;
            retried.count = Some(done.count);
            retried.outputs = done.outputs;
        }
        retried.outputs.push(Output {
            topic: self.shared.redo.clone(),
            partition: None,
            key: redo.key.clone().into_bytes(),
            value: None,
            headers: None,
        });
        Ok(retried)
    }

    /// One record's outputs; an error blocks the lane. `letters` are the
    /// versions of dead letters that this very batch writes.
    fn one(
        &self,
        key: String,
        value: &[u8],
        origin: Origin,
        letters: &mut HashMap<String, i64>,
    ) -> Result<Done> {
        let place = &origin.place;
        let envelope = match Envelope::decode(value) {
            Ok(envelope) => envelope,
            Err(error) if error.class() == Class::Record => {
                return self.dead(&key, &error, &origin, 0, value);
            }
            Err(error) => return Err(error.at(format!("{place}@{}", origin.offset))),
        };
        let raw = match envelope.to_raw() {
            Ok(raw) if raw.key.as_str() == key => raw,
            Ok(_) => {
                let error = Error::new(
                    Code::ForeignBytes,
                    "the message's key is not the record's key",
                );
                return self.dead(&key, &error, &origin, 0, value);
            }
            Err(error) => return self.dead(&key, &error, &origin, envelope.version, value),
        };
        match self.transformer.transform(&raw) {
            Ok(canonicals) => {
                let mut outputs: Vec<Output> = canonicals
                    .iter()
                    .map(|canonical| self.canonical(canonical, &envelope))
                    .collect();
                let now_dead = letters.get(&key).is_some_and(|dead| *dead <= raw.version);
                if now_dead || self.shared.letters.clears(&key, raw.version) {
                    outputs.push(self.tombstone(&raw.key, place.partition));
                    letters.remove(&key);
                }
                if let Some(large) = outputs
                    .iter()
                    .filter_map(|output| output.value.as_ref().map(Vec::len))
                    .find(|length| *length > MAX_RECORD)
                {
                    let error = Error::new(
                        Code::TooLarge,
                        format!("{large} bytes when mapped, at most {MAX_RECORD}"),
                    );
                    return self.dead(&key, &error, &origin, raw.version, b"");
                }
                Ok(Done {
                    object: envelope.object.to_owned(),
                    count: Became::Transformed,
                    extracted_at: Some(raw.extracted_at),
                    outputs,
                })
            }
            Err(error) if error.class() == Class::Record => {
                letters.insert(key.clone(), raw.version);
                self.dead(&key, &error, &origin, raw.version, value)
            }
            Err(error) => Err(error.at(key)),
        }
    }

    fn canonical(&self, canonical: &Canonical, raw: &Envelope<'_>) -> Output {
        let (source, object, id, slot) = canonical.key.parts();
        let schema = drover_schemas::entity(&canonical.entity)
            .map_or(canonical.entity.as_str(), |entity| entity.schema.as_str());
        let (op, reason, body_schema, body) = match &canonical.content {
            Content::Upsert { schema, datum } => {
                (Op::Upsert, None, schema.as_str(), Some(datum.as_slice()))
            }
            Content::Absent(reason) => (Op::Absent, Some(*reason), schema, None),
        };
        let envelope = Envelope {
            migration: raw.migration,
            source,
            object,
            id,
            slot,
            op,
            reason,
            version: raw.version,
            phase: raw.phase,
            extracted_at: raw.extracted_at,
            mapping: self.context.plan.generation,
            fingerprint: Fingerprint::of(op, body_schema, body.unwrap_or_default()),
            body_schema,
            order: None,
            body,
        };
        Output {
            topic: self.context.topics.canonical(&canonical.entity),
            partition: None,
            key: canonical.key.as_str().as_bytes().to_vec(),
            value: Some(envelope.encode()),
            headers: None,
        }
    }

    fn tombstone(&self, key: &RawKey, partition: i32) -> Output {
        Output {
            topic: self.shared.deadletter.clone(),
            partition: Some(partition),
            key: crate::deadletter::topic_key(Stage::Transformer, key.as_str()).into_bytes(),
            value: None,
            headers: None,
        }
    }

    fn dead(
        &self,
        key: &str,
        error: &Error,
        origin: &Origin,
        version: i64,
        value: &[u8],
    ) -> Result<Done> {
        let author = Author {
            stage: Stage::Transformer,
            connector: T::NAME.to_owned(),
            instance: self.context.instance.clone(),
        };
        let mut letter = DeadLetter::new(&author, key, error, origin, version, None, now(), value);
        let count = match self.shared.letters.count_on(&mut letter) {
            true => Became::DeadAgain,
            false => Became::Dead,
        };
        Ok(Done {
            object: letter.object.clone(),
            count,
            extracted_at: None,
            outputs: vec![Output {
                topic: self.shared.deadletter.clone(),
                partition: Some(origin.place.partition),
                key: letter.topic_key().into_bytes(),
                value: Some(letter.to_json()),
                headers: Some(letter.headers()),
            }],
        })
    }

    /// Commits positions behind commit markers, so that a drained topic shows
    /// no lag. Called when nothing is held.
    fn commit_position(&mut self, member: &Member, group: &ConsumerGroupMetadata) -> Result<()> {
        let next: HashMap<Place, i64> = member
            .positions()
            .into_iter()
            .filter(|(place, position)| self.committed.get(place) != Some(position))
            .collect();
        if next.is_empty() {
            return Ok(());
        }
        let offsets = Offsets {
            next: &next,
            metadata: &HashMap::new(),
            group,
        };
        match self.producer.transaction(|_| Ok(()), Some(offsets), |_| {}) {
            Ok(_) => {
                self.committed.extend(next);
                Ok(())
            }
            Err(Failure::Aborted(error)) => {
                tracing::warn!(%error, "the position was not committed; again at the next end");
                Ok(())
            }
            Err(Failure::Dead(error)) => Err(error),
        }
    }

    /// Goes back to the batch's start, so that nothing of it is passed over.
    fn recover(
        &mut self,
        member: &Member,
        batch: &[BorrowedMessage<'_>],
        trouble: Trouble,
    ) -> Result<()> {
        let blocked = match &trouble {
            Trouble::Dead(_) => None,
            Trouble::Lane(topic, error) => {
                let lane = self.lanes.get(topic).cloned().unwrap_or_default();
                self.context.status.lane_failed(&lane, error, None);
                self.shared.blocked().insert(topic.clone());
                Some(topic.clone())
            }
            Trouble::Again(error) => {
                if error.class() != Class::Transient {
                    if let Trouble::Again(error) = trouble {
                        return Err(error);
                    }
                    return Ok(());
                }
                let wait = self.backoff.after(error);
                for message in batch {
                    if let Some(lane) = self.lanes.get(message.topic()) {
                        self.context.status.lane_failed(lane, error, Some(wait));
                        break;
                    }
                }
                tracing::warn!(%error, ?wait, "the batch is tried again");
                std::thread::sleep(wait.min(Duration::from_secs(2)));
                None
            }
        };
        if let Trouble::Dead(error) = trouble {
            return Err(error);
        }
        let mut starts: HashMap<Place, i64> = HashMap::new();
        for message in batch {
            starts
                .entry(Place::new(message.topic(), message.partition()))
                .or_insert(message.offset());
        }
        if let Some(topic) = &blocked {
            pause(member, topic)?;
        }
        for (place, offset) in starts {
            member.seek(&place, offset)?;
        }
        Ok(())
    }
}

/// Reads no more of a topic, whatever partitions of it are ours.
fn pause(member: &Member, topic: &str) -> Result<()> {
    let mut places = member.assigned();
    places.retain(|place| place.topic == topic);
    member.pause(&places)
}

/// What a message gave.
struct Done {
    object: String,
    count: Became,
    extracted_at: Option<i64>,
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Became {
    Transformed,
    Dead,
    /// The same version failed before: it was counted then.
    DeadAgain,
}

impl Became {
    fn count(self) -> Count {
        match self {
            Became::Transformed => Count::Transformed,
            Became::Dead | Became::DeadAgain => Count::Dead,
        }
    }
}

/// What a retry gave.
struct Retried {
    object: String,
    /// `None`: there was nothing left to do.
    count: Option<Became>,
    outputs: Vec<Output>,
}

/// A record to produce, owned until the transaction is through.
struct Output {
    topic: String,
    partition: Option<i32>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    headers: Option<rdkafka::message::OwnedHeaders>,
}

impl Output {
    fn record(&self) -> Record<'_> {
        let key = std::str::from_utf8(&self.key).unwrap_or_default();
        match self.partition {
            Some(partition) => dead_record(
                &self.topic,
                partition,
                key,
                self.value.as_deref(),
                self.headers.clone(),
            ),
            None => Record::new(&self.topic, &self.key, self.value.as_deref()),
        }
    }
}
