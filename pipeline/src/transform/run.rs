//! The transformer's loop: a batch of raw records → one Kafka transaction of
//! canonical records, dead letters and input offsets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message};

use super::Transformer;
use super::batch::{Batch, Became, Desk, Sinks, Touched};
use super::committer::{Busy, Committer};
use super::redo::Redos;
use crate::deadletter::{Author, FailureShare, LiveLetters};
use crate::envelope::away as away_of;
use crate::error::{Class, Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::compacted::{Follower, Tail, high_watermark};
use crate::kafka::consumer::{Assignment, Member, Polled, Rebalance};
use crate::kafka::continuity::{Finding, Guard, Watched, explains};
use crate::kafka::producer::{Failure, Offsets, TransactionalProducer};
use crate::lasting::through_losses;
use crate::process::Context;
use crate::retry::{Backoff, passes, patiently};
use crate::spec::Stage;
use crate::status::{Count, Phase, Status};

/// Records in one transaction at the most.
const BATCH: usize = 10_000;
/// Bytes in one transaction at the most.
const BATCH_BYTES: usize = 8 << 20;
/// With so many records a batch waits for no more.
const ENOUGH: usize = 5_000;
/// Records that are mapped at once.
const CHUNK: usize = 1_000;
/// How long a batch with few records waits for more.
const LINGER: Duration = Duration::from_millis(20);
/// When nothing comes for this long, a batch waits no longer.
const PAUSE: Duration = Duration::from_millis(2);
/// How long an idle transformer waits for a record.
const IDLE: Duration = Duration::from_millis(200);
/// Retries in one transaction at the most.
const MOST_RETRIES: usize = 500;

/// Runs the transformer until it is told to stop.
pub async fn run<T: Transformer>(context: Context) -> Result<()> {
    through_losses(&context, |context| async {
        // Threads of its own: rdkafka's calls block, and a batch borrows its
        // messages from the consumer.
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
    /// Whether a batch is being committed.
    busy: Arc<Busy>,
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

    fn blocked(&self) -> HashSet<String> {
        self.blocked_topics().clone()
    }

    fn revoked(&self) {
        // What is under way may still be committed; what is only made is dropped.
        self.busy.wait(Duration::from_secs(5));
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
        self.blocked_topics().insert(topic.to_owned());
    }

    fn blocked_topics(&self) -> MutexGuard<'_, HashSet<String>> {
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
        if !passes(&error) {
            tracing::warn!(%error, "following dead letters and retries");
        }
    }
}

struct Runner<T> {
    desk: Desk<T>,
    context: Context,
    shared: Arc<Shared>,
    committer: Committer,
    /// The batch that is being made while another one is committed.
    making: Batch,
    /// Of the last batch, for its memory.
    spare: Batch,
    /// By raw topic, its lane's name: the object.
    lanes: HashMap<String, String>,
    shares: HashMap<String, FailureShare>,
    /// By partition, what was committed last.
    committed: HashMap<Place, i64>,
    /// Partitions in which we went back and have committed nothing since: the
    /// consumer may still say the position from before.
    sought: HashSet<Place>,
    backoff: Backoff,
}

/// Why batches did not go through.
enum Trouble {
    /// Of this one topic: its lane is blocked, the others go on.
    Lane(String, Error),
    /// Of these topics, which had too many dead letters: nothing more is read
    /// of them.
    Stopped(Vec<String>),
    /// Of the transaction: tried again from the same offsets.
    Again(Error),
}

/// What was collected.
enum Collected<'m> {
    /// The partitions were taken away meanwhile.
    Lost,
    /// Messages, or none.
    Some {
        messages: Vec<BorrowedMessage<'m>>,
        /// Whether an end of the input was met.
        ended: bool,
        /// Whether nothing more is there just now.
        paused: bool,
    },
}

impl<T: Transformer> Runner<T> {
    fn start(context: Context) -> Result<Self> {
        context.status.maps_by(context.plan.generation);
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
            busy: Arc::default(),
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
        let sinks = Arc::new(Sinks::new(&context.topics));
        let busy = Arc::clone(&shared.busy);
        Ok(Runner {
            desk: Desk {
                transformer,
                generation: context.plan.generation,
                author: Author {
                    stage: Stage::Transformer,
                    connector: T::NAME.to_owned(),
                    instance: context.instance.clone(),
                },
                bodies: context.bodies.clone(),
                // The others fetch, compress and commit meanwhile.
                threads: std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)),
            },
            committer: Committer::start(producer, sinks, busy)?,
            making: Batch::default(),
            spare: Batch::default(),
            shared,
            lanes,
            shares: HashMap::new(),
            committed: HashMap::new(),
            sought: HashSet::new(),
            backoff: Backoff::default(),
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
            guard.reads(self.committed.clone());
            for finding in guard.findings() {
                self.found(finding, &member)?;
            }
            let Collected::Some {
                messages,
                ended: end,
                paused,
            } = self.collect(&member, &guard)?
            else {
                self.lost()?;
                continue;
            };
            ended |= end;
            if self.making.is_empty() {
                // As it is when the batch begins; never refreshed.
                self.making.group = self.group();
                self.retry();
            }
            let mut trouble = self.make(&messages);
            drop(messages);
            // Before a batch is dropped or grows too large, it must be known
            // what becomes of the one before it.
            let full = self.making.records >= BATCH || self.making.bytes >= BATCH_BYTES;
            let mut failed = None;
            if let Some((batch, result)) = self.committer.outcome(full || trouble.is_some())? {
                match self.settle(&batch, result)? {
                    Some(other) => {
                        // The older one's trouble counts: what comes behind it
                        // is read again.
                        trouble = Some(other);
                        failed = Some(batch);
                    }
                    None => self.spare = batch,
                }
            }
            if let Some(trouble) = trouble {
                self.recover(&member, failed, trouble)?;
                if self.context.status.all_blocked() {
                    return Err(self.context.status.all_blocked_by());
                }
                continue;
            }
            if !self.committer.is_idle() {
                continue;
            }
            if self.making.is_empty() {
                if ended && let Some(group) = self.group() {
                    // Tried until it is through: no other end would be met.
                    ended = !self.commit_position(&member, &group)?;
                }
            } else if paused || full || self.is_due() {
                let mut empty = std::mem::take(&mut self.spare);
                empty.clear();
                let mut batch = std::mem::replace(&mut self.making, empty);
                batch.fence = self.fence(&batch);
                for retried in &mut batch.retried {
                    let redo = &retried.redo;
                    retried.renewed = !self.shared.redos.is_newest(&redo.key, &redo.value);
                }
                self.committer.commit(batch)?;
            }
        }
        self.context.status.phase(Phase::Stopping);
        if let Some((batch, result)) = self.committer.outcome(true)? {
            self.settle(&batch, result)?;
        }
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

    /// What is committed already, for a batch of retries alone.
    fn fence(&self, batch: &Batch) -> HashMap<Place, i64> {
        if !batch.spans.is_empty() {
            return HashMap::new();
        }
        let mut fence = batch.fence.clone();
        for (place, offset) in &mut fence {
            *offset = self.committed.get(place).copied().unwrap_or(*offset);
        }
        fence
    }

    fn is_due(&self) -> bool {
        let age = self.making.since.map(|since| since.elapsed());
        self.making.records >= ENOUGH || age.is_some_and(|age| age >= LINGER)
    }

    /// Collects messages until there are enough for once, or none comes for a
    /// moment. Whether the partitions were taken away is asked after each poll,
    /// because the next one may already bring messages of the new assignment,
    /// which must not be thrown away.
    fn collect<'m>(&self, member: &'m Member, guard: &Guard) -> Result<Collected<'m>> {
        let epoch = self.shared.epoch.load(Ordering::SeqCst);
        let mut messages = Vec::with_capacity(CHUNK);
        // Of their bodies, in the object store.
        let mut away = 0_usize;
        let mut ended = false;
        let mut paused = false;
        let idle = self.making.is_empty() && self.committer.is_idle();
        let mut wait = if idle { IDLE } else { PAUSE };
        while messages.len() < CHUNK && away < BATCH_BYTES && !paused && !ended {
            match member.poll(wait) {
                Ok(Polled::Message(message)) => {
                    away = away.saturating_add(away_of(message.payload().unwrap_or_default()));
                    messages.push(message);
                    wait = PAUSE;
                }
                Ok(Polled::End) => ended = true,
                Ok(Polled::NotAssigned(error)) => return Err(error),
                Ok(Polled::Nothing) => paused = true,
                Err(error) if passes(&error) => {
                    self.context.status.note_error(&error);
                    self.context.client.outage().met("reading", &error);
                    paused = true;
                }
                Err(error) if explains(&error) => {
                    guard.suspect(error);
                    paused = true;
                }
                Err(error) => return Err(error),
            }
            if self.shared.epoch.load(Ordering::SeqCst) != epoch {
                return Ok(Collected::Lost);
            }
        }
        Ok(Collected::Some {
            messages,
            ended,
            paused,
        })
    }

    /// Adds what becomes of messages to the batch in the making.
    fn make(&mut self, messages: &[BorrowedMessage<'_>]) -> Option<Trouble> {
        if messages.is_empty() {
            return None;
        }
        let none = Touched::new();
        let before = self.committer.touched().unwrap_or(&none);
        self.making
            .add(&self.desk, messages, &self.shared.letters, before)
            .err()
            .map(|(topic, error)| match passes(&error) {
                // The object store is away, and comes back.
                true => Trouble::Again(error),
                false => Trouble::Lane(topic, error),
            })
    }

    /// Takes up retries, before the messages: these may hold newer versions of
    /// the same keys.
    fn retry(&mut self) {
        let (redos, starts) = self.shared.redos.due(MOST_RETRIES);
        for redo in redos {
            // What is under way may be a newer version of it, or itself.
            let touched = self.committer.touched();
            if touched.is_some_and(|touched| touched.contains_key(&redo.key)) {
                continue;
            }
            let raw_topic = |object: &str| {
                let objects = &self.context.plan.objects;
                let object = objects.iter().find(|one| one.name == object)?;
                Some(self.context.topics.raw(&object.name, object.custom))
            };
            let letters = &self.shared.letters;
            if let Err(error) = self.making.retry(&self.desk, &redo, raw_topic, letters) {
                if passes(&error) {
                    // Due again with the next batch.
                    self.context.status.note_error(&error);
                    break;
                }
                tracing::error!(key = %redo.key, %error, "a retry waits for a person");
                self.shared.redos.stuck(redo.key);
            }
        }
        self.making.fence = starts;
    }

    /// The partitions were taken away: their new owner reads on behind what is
    /// committed, and what was made of the rest is dropped.
    fn lost(&mut self) -> Result<()> {
        self.making.clear();
        if let Some((batch, result)) = self.committer.outcome(true)? {
            match self.settle(&batch, result)? {
                // Nothing is paused in an assignment that is gone.
                None | Some(Trouble::Stopped(_)) => {}
                Some(Trouble::Again(error) | Trouble::Lane(_, error)) => {
                    tracing::warn!(%error, "a batch was dropped with its partitions");
                }
            }
        }
        self.committed.clear();
        self.sought.clear();
        Ok(())
    }

    /// Notes how a batch has ended. An error ends the process.
    fn settle(
        &mut self,
        batch: &Batch,
        result: Result<HashMap<Place, i64>, Failure>,
    ) -> Result<Option<Trouble>> {
        let ends = match result {
            Ok(ends) => ends,
            Err(Failure::Aborted(error)) => return Ok(Some(Trouble::Again(error))),
            Err(Failure::Dead(error)) => return Err(error),
        };
        self.backoff.reset();
        let mut too_many: Vec<(String, Error)> = Vec::new();
        for tally in &batch.tallies {
            let share = self.shares.entry(tally.object.clone()).or_default();
            let failed = tally.became == Became::Dead;
            if let Some(error) = (0..tally.number).find_map(|_| share.note(failed).err()) {
                too_many.push((tally.topic.clone(), error.at(tally.object.clone())));
            }
            let count = tally.became.count();
            self.context
                .status
                .count(&tally.object, count, tally.number);
            if tally.custom > 0 {
                let (object, custom) = (&tally.object, tally.custom);
                self.context.status.count(object, Count::Custom, custom);
            }
            for (remark, number) in &tally.remarks {
                let text = format!("{}.{remark}", tally.object);
                self.context.status.remark(text, *number);
            }
            if let Some(lane) = self.lanes.get(&tally.topic) {
                self.context.status.lane_runs(lane, tally.extracted_at);
            }
        }
        let ends = ends
            .iter()
            .filter(|(place, _)| place.topic == self.shared.deadletter)
            .map(|(place, end)| (place.partition, *end));
        let letters = batch.letters.iter();
        let letters = letters.map(|letter| {
            let (key, value) = (letter.key.as_bytes(), letter.value.as_deref());
            (letter.partition, key, value)
        });
        self.shared.letters.committed(ends, letters, |_, _| {});
        for retried in &batch.retried {
            let redo = &retried.redo;
            self.shared.redos.done(&redo.key, &redo.value);
            if let Some(became) = &retried.became {
                let count = became.count();
                self.context.status.count(&retried.object, count, 1);
            }
        }
        for span in &batch.spans {
            self.sought.remove(&span.place);
            self.committed.insert(span.place.clone(), span.next);
        }
        if too_many.is_empty() {
            return Ok(None);
        }
        // Committed all the same, so that the dead letters can be read.
        for (topic, error) in &too_many {
            self.shared.block(topic, error);
        }
        let stopped = too_many.into_iter().map(|(topic, _)| topic);
        Ok(Some(Trouble::Stopped(stopped.collect())))
    }

    /// Commits positions behind commit markers, so that a drained topic shows
    /// no lag. Called when nothing is held. `false` when the broker did not take
    /// them.
    fn commit_position(&mut self, member: &Member, group: &ConsumerGroupMetadata) -> Result<bool> {
        let next: HashMap<Place, i64> = member
            .positions()
            .into_iter()
            .filter(|(place, position)| self.committed.get(place) != Some(position))
            .filter(|(place, _)| !self.sought.contains(place))
            .collect();
        if next.is_empty() {
            return Ok(true);
        }
        let offsets = Offsets {
            next: &next,
            metadata: &HashMap::new(),
            group,
        };
        match self
            .committer
            .producer()
            .transaction(|_| Ok(()), Some(offsets), |_| {})
        {
            Ok(_) => {
                self.committed.extend(next);
                Ok(true)
            }
            Err(Failure::Aborted(error)) => {
                tracing::debug!(%error, "the position is committed later");
                self.context.status.note_error(&error);
                Ok(false)
            }
            Err(Failure::Dead(error)) => Err(error),
        }
    }

    /// Goes back to the start of what was not committed, so that nothing of it
    /// is passed over. `failed` is the batch before the one in the making.
    fn recover(&mut self, member: &Member, failed: Option<Batch>, trouble: Trouble) -> Result<()> {
        let mut starts: HashMap<Place, i64> = HashMap::new();
        let older = failed.filter(|_| matches!(trouble, Trouble::Again(_)));
        for batch in older.iter().chain([&self.making]) {
            for span in &batch.spans {
                starts.entry(span.place.clone()).or_insert(span.start);
            }
        }
        match trouble {
            Trouble::Lane(topic, error) => {
                self.shared.block(&topic, &error);
                pause(member, &topic)?;
            }
            Trouble::Stopped(topics) => {
                for topic in topics {
                    pause(member, &topic)?;
                }
            }
            Trouble::Again(error) if error.class() == Class::Transient => {
                let wait = self.backoff.after(&error);
                let lane = starts.keys().find_map(|place| self.lanes.get(&place.topic));
                if let Some(lane) = lane {
                    self.context.status.lane_failed(lane, &error, Some(wait));
                }
                tracing::warn!(%error, ?wait, "the batch is tried again");
                std::thread::sleep(wait.min(Duration::from_secs(2)));
            }
            Trouble::Again(error) => return Err(error),
        }
        self.making.clear();
        for (place, offset) in starts {
            member.seek(&place, offset)?;
            self.sought.insert(place);
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
