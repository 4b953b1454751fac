//! The extractor's loop: one lane an object, all lanes share one transactional
//! producer. A page's records and its checkpoint become visible together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::drift::{Policy, read_also, settle};
use super::gone;
use super::look::{Looks, look};
use super::others::Others;
use super::{BadRecord, Change, Discovery, Extractor, Object, Page, Reached, SourceField};
use crate::bodies::Stored;
use crate::deadletter::{
    Author, DeadLetter, LiveLetters, Origin, record as dead_record, topic_key,
};
use crate::envelope::{Envelope, JSON};
use crate::error::{Class, Code, Error, Result};
use crate::kafka::compacted::read_to_end;
use crate::kafka::producer::{Failure, Record, TransactionalProducer};
use crate::kafka::{Place, client::Client};
use crate::process::Context;
use crate::record::{Fingerprint, Millis, Op, Phase as ReadPhase, Raw, RawKey};
use crate::retry::{Backoff, passes};
use crate::spec::Stage;
use crate::status::{Count, Phase, Report, Status, now};
use crate::topics::partition_of_raw;
use crate::transform::MAX_RECORD;

/// A checkpoint without a change is written when it covers so much more time.
const COVERS_MORE: Millis = 10_000;

/// An extractor that was not heard of for this long is taken over.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Where a lane stands, as the value of the topic `checkpoint`, keyed
/// `source/object`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The connector's cursor.
    pub cursor: serde_json::Value,
    /// Which part of the work the next page belongs to.
    pub phase: ReadPhase,
    /// Whether the first, whole copy is complete.
    pub snapshot_complete: bool,
    /// Record versions committed so far.
    pub extracted: u64,
    /// The source's time up to which the object is covered.
    pub as_of: Option<Millis>,
    /// When this was written, by our clock.
    pub at: Millis,
    /// When the source last gave a record that was new, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Millis>,
    /// Fields that the source has had only since the migration was initialised,
    /// and that are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<SourceField>,
    /// Until the copy is complete, where the partitions of its raw topic ended when it
    /// began: what lies before that is of an earlier copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<i64>,
}

/// Runs the extractor until it is told to stop. When another process has taken
/// over, it stands by, and takes over in turn only when that one was not heard
/// of for 30 s, so that two processes never fence each other in turns.
pub async fn run<E: Extractor>(extractor: E, context: Context) -> Result<()> {
    let extractor = Arc::new(extractor);
    let context = Arc::new(context);
    let mut backoff = Backoff::default();
    loop {
        let ended = match stand_by(&context, E::NAME).await {
            Ok(true) => lead(&extractor, &context).await,
            Ok(false) => return Ok(()),
            Err(error) => Err(error),
        };
        match ended {
            Err(error) if error.code == Code::Fenced => {
                tracing::warn!(%error, "standing by");
                context.status.note_error(&error);
            }
            // Of the start: the lanes meet such errors themselves.
            Err(error) if passes(&error) => {
                let wait = backoff.after(&error);
                tracing::warn!(%error, ?wait, "starting again");
                context.status.note_wait(&error, wait);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = context.stop.cancelled() => return Ok(()),
                }
            }
            other => return other,
        }
    }
}

/// Waits until no other extractor of this migration is alive. `false` when told
/// to stop.
async fn stand_by(context: &Arc<Context>, name: &str) -> Result<bool> {
    let mut others = Others::default();
    loop {
        let reports = {
            let (client, topic) = (context.client.clone(), context.topics.status());
            blocking(move || read_to_end(&client, &topic)).await?
        };
        let other = reports
            .values()
            .filter_map(|value| serde_json::from_slice::<Report>(value).ok())
            .find(|report| {
                report.stage == Stage::Extractor
                    && report.name == name
                    && report.instance != context.instance
                    && !matches!(report.phase, Phase::Stopped | Phase::Standby)
                    && others.is_alive(report, TAKEOVER, Instant::now(), now())
            });
        let Some(other) = other else { return Ok(true) };
        tracing::info!(other = other.instance, "another extractor is at work");
        context.status.phase(Phase::Standby);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = context.stop.cancelled() => return Ok(false),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Code::Invariant, format!("a thread panicked: {e}")))?
}

/// Reads the source as the one leading extractor.
async fn lead<E: Extractor>(extractor: &Arc<E>, context: &Arc<Context>) -> Result<()> {
    let mut needed = vec![context.topics.checkpoint(), context.topics.deadletter()];
    needed.extend(
        context
            .plan
            .objects
            .iter()
            .map(|object| context.topics.raw(&object.name, object.custom)),
    );
    let (client, id) = (
        context.client.clone(),
        context.topics.extract_transactional_id(0),
    );
    // The checkpoints are read after `init_transactions`: from here on nobody
    // else can add to them.
    let (producer, checkpoints, letters) = {
        let topic = context.topics.checkpoint();
        let deadletter = context.topics.deadletter();
        let plan = context.plan.clone();
        blocking(move || {
            client.require_topics(&needed)?;
            plan.check_incarnations(&client, &needed)?;
            let producer = open(&client, &id)?;
            let checkpoints = read_to_end(&client, &topic)?;
            let letters = LiveLetters::of(Stage::Extractor);
            for (key, value) in read_to_end(&client, &deadletter)? {
                letters.told(0, 0, &key, Some(&value));
            }
            Ok((producer, checkpoints, Arc::new(letters)))
        })
        .await?
    };
    context.status.phase(Phase::Running);
    context.meter.polls(
        context.plan.objects.len() as u64,
        Duration::from_millis(context.config.poll_interval_ms),
    );
    let producer = Arc::new(Mutex::new(producer));
    let (blocked, mut all_blocked) = watch::channel(0_usize);
    let (tell, found) = watch::channel(None);
    let looks = Looks {
        found,
        now: Arc::default(),
    };
    let (asked, now) = (Arc::clone(extractor), Arc::clone(&looks.now));
    // Of this lead alone: the next one looks anew.
    let _looking =
        AbortOnDropHandle::new(tokio::spawn(look(asked, Arc::clone(context), tell, now)));
    let mut lanes = JoinSet::new();
    for object in &context.plan.objects {
        let key = format!("{}/{}", E::NAME, object.name);
        let checkpoint = checkpoints
            .get(key.as_bytes())
            .map(|value| {
                serde_json::from_slice::<Checkpoint>(value).map_err(|e| {
                    Error::new(
                        Code::NewerSchema,
                        format!("the checkpoint of {key} can't be read: {e}"),
                    )
                })
            })
            .transpose()?;
        let lane = Lane {
            extractor: Arc::clone(extractor),
            context: Arc::clone(context),
            producer: Arc::clone(&producer),
            object: object.clone(),
            key,
            seen: Seen::default(),
            letters: Arc::clone(&letters),
            blocked: blocked.clone(),
            looks: looks.clone(),
            added: Vec::new(),
            before: Vec::new(),
        };
        lanes.spawn(lane.run(checkpoint));
    }
    let count = context.plan.objects.len();
    loop {
        tokio::select! {
            ended = lanes.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    lanes.shutdown().await;
                    return Err(error);
                }
                Some(Err(error)) => {
                    return Err(Error::new(Code::Invariant, format!("a lane panicked: {error}")));
                }
            },
            Ok(()) = all_blocked.changed() => {
                if count > 0 && *all_blocked.borrow() >= count {
                    // Give the report a chance to be read before the end.
                    tokio::time::sleep(crate::status::INTERVAL).await;
                    return Err(context.status.all_blocked_by());
                }
            }
        }
    }
}

fn open(client: &Client, id: &str) -> Result<TransactionalProducer> {
    let mut backoff = Backoff::default();
    loop {
        match TransactionalProducer::open(client, id) {
            Err(error) if error.class() == Class::Transient && backoff.tries() < 5 => {
                std::thread::sleep(backoff.after(&error));
            }
            other => return other,
        }
    }
}

/// Why a lane does not ask for its object after the source has described itself.
enum Halt {
    /// The object is gone, which the file allows, and may come back.
    Gone,
    /// It waits until a difference is gone.
    Parked(Error),
    /// It waits for a person.
    Stopped(Error),
}

/// One object's lane.
struct Lane<E: Extractor> {
    extractor: Arc<E>,
    context: Arc<Context>,
    producer: Arc<Mutex<TransactionalProducer>>,
    object: Object,
    /// Of its checkpoint.
    key: String,
    seen: Seen,
    /// The live dead letters of this stage; only the leader writes them.
    letters: Arc<LiveLetters>,
    blocked: watch::Sender<usize>,
    looks: Looks,
    /// Fields that were found later than the plan.
    added: Vec<SourceField>,
    /// See [`Checkpoint::before`].
    before: Vec<i64>,
}

impl<E: Extractor> Lane<E> {
    async fn run(mut self, checkpoint: Option<Checkpoint>) -> Result<()> {
        let status = Arc::clone(&self.context.status);
        let lane = self.object.name.clone();
        status.lane_runs(&lane, None);
        let mut cursor: Option<E::Cursor> = match &checkpoint {
            None => None,
            Some(saved) => Some(serde_json::from_value(saved.cursor.clone()).map_err(|e| {
                Error::new(
                    Code::NewerSchema,
                    format!("the cursor of {} can't be read: {e}", self.key),
                )
            })?),
        };
        let mut saved = checkpoint;
        if let Some(saved) = &saved {
            self.added.clone_from(&saved.added);
            read_also(&mut self.object.fields, &saved.added);
            self.before.clone_from(&saved.before);
        } else {
            let (client, topic) = (self.context.client.clone(), self.raw_topic());
            self.before = blocking(move || gone::ends(&client, &topic)).await?;
        }
        let mut backoff = Backoff::default();
        // Whether the source has been asked how it describes itself since it
        // refused what we asked for.
        let mut refused = false;
        let mut looked = false;
        while !self.context.stop.is_cancelled() {
            if std::mem::take(&mut looked) || self.looks.found.has_changed().unwrap_or(false) {
                let found = self.looks.found.borrow_and_update().clone();
                let halt = found.and_then(|found| self.take_over(&found, &mut cursor));
                match halt {
                    None => {}
                    Some(Halt::Gone) => {
                        // The source has just said that there is nothing to read.
                        status.lane_runs(&lane, Some(now()));
                        self.looked().await;
                        looked = true;
                        continue;
                    }
                    Some(Halt::Parked(error)) => {
                        let every = self.context.config.drift.every;
                        status.lane_failed(&lane, &error, Some(every));
                        self.looked().await;
                        looked = true;
                        continue;
                    }
                    Some(Halt::Stopped(error)) => return self.block(&error).await,
                }
            }
            let page = tokio::select! {
                // A request under way may finish; what it brings is not lost
                // if we leave, since the cursor has not moved.
                page = self.next_page(cursor.as_ref()) => page,
                () = leave(&self.context.stop) => return Ok(()),
            };
            let page = match page {
                Ok(page) => page,
                Err(error) if matches!(error.class(), Class::Transient | Class::Throttled) => {
                    let wait = backoff.after(&error);
                    status.lane_failed(&lane, &error, Some(wait));
                    self.pause(wait).await;
                    continue;
                }
                Err(error) if error.class() == Class::Bug => return Err(error),
                Err(error)
                    if matches!(error.code, Code::UnknownField | Code::UnknownObject)
                        && !refused =>
                {
                    refused = true;
                    self.looks.now.notify_one();
                    // The rules decide what it means, mostly a moment later.
                    let soon = crate::status::INTERVAL;
                    if tokio::time::timeout(soon, self.looked()).await.is_err() {
                        status.lane_failed(&lane, &error, Some(soon));
                        self.looked().await;
                    }
                    looked = true;
                    continue;
                }
                // Operator, or a code that has no business here: stop this
                // lane and ask, rather than guess.
                Err(error) => return self.block(&error).await,
            };
            let reached = page.reached;
            let next = page.next.clone();
            if let Some(notice) = &page.notice {
                tracing::warn!(lane, %notice, "the lane goes on");
                status.note_error(notice);
            }
            match self.commit(page, saved.as_ref(), cursor.as_ref()).await {
                Ok(committed) => {
                    backoff.reset();
                    refused = false;
                    if let Some(committed) = committed {
                        self.before.clone_from(&committed.before);
                        saved = Some(committed);
                    }
                    cursor = Some(next);
                    status.lane_runs(&lane, Some(now()));
                }
                Err(error) if error.code == Code::Fenced => return Err(error),
                Err(error) if error.class() == Class::Transient => {
                    let wait = backoff.after(&error);
                    status.lane_failed(&lane, &error, Some(wait));
                    self.pause(wait).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match reached {
                Reached::More => {}
                Reached::Later(wait) => self.pause(wait).await,
                Reached::Now { .. } => {
                    self.seen.round_ended();
                    self.rest().await;
                }
            }
        }
        Ok(())
    }

    /// The next page; one that completes the copy has what the copy did not find.
    async fn next_page(&self, cursor: Option<&E::Cursor>) -> Result<Page<E::Cursor>> {
        let mut page = self.extractor.fetch(&self.object, cursor).await?;
        if !page.snapshot_complete || self.before.is_empty() {
            return Ok(page);
        }
        let (client, topic) = (self.context.client.clone(), self.raw_topic());
        let (object, before) = (self.object.name.clone(), self.before.clone());
        let missed = move || gone::missed(&client, &topic, &object, &before);
        let mut missed = blocking(missed).await?;
        missed.retain(|id, _| page.changes.iter().all(|change| change.id != *id));
        if missed.is_empty() {
            return Ok(page);
        }
        let as_of = match page.reached {
            Reached::Now { as_of } => as_of,
            Reached::More | Reached::Later(_) => 0,
        };
        let found = gone::judge(&*self.extractor, &self.object, &missed, as_of).await?;
        let deleted = found
            .iter()
            .filter(|change| change.op == Op::Delete)
            .count();
        tracing::warn!(
            object = self.object.name,
            deleted,
            "not found by the new copy"
        );
        if deleted > 0 {
            let told = "records of an earlier copy that the source no longer shows are deleted";
            let told = format!("{}: {deleted} {told}", self.object.name);
            self.context.status.remark_anew(told);
        }
        page.changes.extend(found);
        Ok(page)
    }

    fn raw_topic(&self) -> String {
        let object = &self.object;
        self.context.topics.raw(&object.name, object.custom)
    }

    /// Waits for a person: for the end of the process.
    async fn block(&self, error: &Error) -> Result<()> {
        let status = &self.context.status;
        status.lane_failed(&self.object.name, error, None);
        self.blocked.send_modify(|count| *count += 1);
        self.context.stop.cancelled().await;
        Ok(())
    }

    /// Waits until the source has been asked how it describes itself.
    async fn looked(&mut self) {
        tokio::select! {
            _ = self.looks.found.changed() => {}
            () = self.context.stop.cancelled() => {}
        }
    }

    /// Reads the object from now on as the source describes it, or gives why it
    /// does not.
    fn take_over(&mut self, found: &Discovery, cursor: &mut Option<E::Cursor>) -> Option<Halt> {
        let (plan, name) = (&self.context.plan, &self.object.name);
        let now = found.objects.iter().find(|object| object.name == *name);
        let rules = self.context.config.drift.of(name);
        let known = &self.object;
        let mut settled = settle(known, now, rules, |field| plan.mapping.reads(known, field));
        // Nothing is applied while the lane stands, so nothing is told to be.
        match settled.halt {
            None => {}
            Some((Policy::Park, error)) => return Some(Halt::Parked(error)),
            Some((_, error)) => return Some(Halt::Stopped(error)),
        }
        if !settled.added.is_empty()
            && let Some(at) = cursor
        {
            match self.extractor.again(at) {
                Some(again) => *at = again,
                None => {
                    let late = "a record brings its new fields with its next change";
                    settled.remarks.push(format!("{name}: {late}"));
                }
            }
        }
        for remark in &settled.remarks {
            self.context.status.remark_anew(remark.clone());
        }
        settled.apply(&mut self.object);
        read_also(&mut self.added, &settled.added);
        settled.gone.then_some(Halt::Gone)
    }

    /// Waits until the object is to be asked for changes again. What the account
    /// has left may change meanwhile, and with it how long that is.
    async fn rest(&self) {
        let begun = Instant::now();
        while !self.context.stop.is_cancelled() {
            let rest = self
                .context
                .meter
                .interval()
                .saturating_sub(begun.elapsed());
            if rest.is_zero() {
                return;
            }
            self.pause(rest.min(crate::status::INTERVAL)).await;
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.context.stop.cancelled() => {}
        }
    }

    /// Commits a page with its checkpoint. `None` when there was nothing to
    /// write: the same cursor again, and no change.
    async fn commit(
        &mut self,
        page: Page<E::Cursor>,
        saved: Option<&Checkpoint>,
        from: Option<&E::Cursor>,
    ) -> Result<Option<Checkpoint>> {
        let phase = match saved {
            Some(saved) if saved.snapshot_complete => ReadPhase::Delta,
            _ => ReadPhase::Snapshot,
        };
        let at = now();
        let mut raws = Vec::with_capacity(page.changes.len());
        let mut bad = page.bad;
        let mut fresh = Vec::new();
        for change in page.changes {
            let print = Fingerprint::of(
                change.op,
                JSON,
                change.body.as_deref().unwrap_or_default().as_bytes(),
            );
            if self.seen.repeats(&change.id, change.version, print) {
                continue;
            }
            fresh.push((change.id.clone(), change.version, print));
            match self.raw(change, phase, at) {
                Ok(raw) => raws.push(raw),
                Err(refused) => bad.push(refused),
            }
        }
        if raws.is_empty()
            && bad.is_empty()
            && from == Some(&page.next)
            && saved.is_some_and(|saved| saved.snapshot_complete == page.snapshot_complete)
            && !covers_more(saved, page.reached)
        {
            return Ok(None);
        }
        let checkpoint = Checkpoint {
            cursor: serde_json::to_value(&page.next)
                .map_err(|e| Error::new(Code::Invariant, format!("a cursor: {e}")))?,
            phase,
            snapshot_complete: page.snapshot_complete
                || saved.is_some_and(|saved| saved.snapshot_complete),
            extracted: saved.map_or(0, |saved| saved.extracted) + raws.len() as u64,
            as_of: match page.reached {
                Reached::Now { as_of } => Some(as_of),
                _ => saved.and_then(|saved| saved.as_of),
            },
            at,
            changed_at: match raws.is_empty() {
                true => saved.and_then(|saved| saved.changed_at),
                false => Some(at),
            },
            added: self.added.clone(),
            before: match page.snapshot_complete {
                true => Vec::new(),
                false => self.before.clone(),
            },
        };
        // Durable before the transaction begins that names them.
        let mut stored = HashMap::new();
        if let Some(bodies) = &self.context.bodies {
            for (at, raw) in raws.iter().enumerate() {
                if let Some(body) = raw.body.as_ref().filter(|body| body.len() > MAX_RECORD) {
                    stored.insert(at, bodies.put(body.clone()).await?);
                }
            }
        }
        let cleared: Vec<String> = raws
            .iter()
            .filter(|raw| self.letters.clears(raw.key.as_str(), raw.version))
            .map(|raw| raw.key.as_str().to_owned())
            .collect();
        let letters: Vec<DeadLetter> = bad.iter().map(|bad| self.letter(bad, at)).collect();
        let noted = letters.clone();
        let batch = Batch {
            migration: self.context.config.id.clone(),
            topic: self.raw_topic(),
            deadletter: self.context.topics.deadletter(),
            partitions: self.context.topics.partitions(),
            checkpoint_topic: self.context.topics.checkpoint(),
            checkpoint_key: self.key.clone(),
            checkpoint: serde_json::to_vec(&checkpoint)
                .map_err(|e| Error::new(Code::Invariant, format!("a checkpoint: {e}")))?,
            letters,
            cleared: cleared.clone(),
            raws,
            stored,
        };
        let (extracted, dead) = (batch.raws.len() as u64, batch.letters.len() as u64);
        let producer = Arc::clone(&self.producer).lock_owned().await;
        blocking(move || batch.write(&producer)).await?;
        let noted = noted
            .iter()
            .map(|letter| (0, letter.topic_key(), Some(letter.to_json())));
        let cleared = cleared
            .iter()
            .map(|key| (0, topic_key(Stage::Extractor, key), None));
        // No tail follows them here, so no partition matters.
        self.letters.committed([], noted.chain(cleared), |_, _| {});
        for (id, version, print) in fresh {
            self.seen.note(id, version, print);
        }
        let status: &Status = &self.context.status;
        status.count(&self.object.name, Count::Extracted, extracted);
        status.count(&self.object.name, Count::Dead, dead);
        Ok(Some(checkpoint))
    }

    fn raw(&self, change: Change, phase: ReadPhase, at: Millis) -> Result<Raw, BadRecord> {
        let length = change.body.as_ref().map_or(0, String::len);
        if length > MAX_RECORD && self.context.bodies.is_none() {
            return Err(BadRecord {
                place: change.id,
                code: Code::TooLarge,
                message: format!("{length} bytes, at most {MAX_RECORD}"),
                body: String::new(),
            });
        }
        let key = RawKey::new(E::NAME, &self.object.name, &change.id).map_err(|e| BadRecord {
            place: "a record without an id".into(),
            code: e.code,
            message: e.message,
            body: change.body.clone().unwrap_or_default(),
        })?;
        Ok(Raw {
            key,
            op: change.op,
            version: change.version,
            phase,
            extracted_at: at,
            body: change.body.map(String::into_bytes),
        })
    }

    fn letter(&self, bad: &BadRecord, at: Millis) -> DeadLetter {
        let key = key_of_bad(E::NAME, &self.object.name, bad);
        let origin = Origin {
            place: Place::new(self.raw_topic(), -1),
            offset: -1,
        };
        let error = Error::new(bad.code, bad.message.clone()).at(bad.place.clone());
        let author = Author {
            stage: Stage::Extractor,
            connector: E::NAME.to_owned(),
            instance: self.context.instance.clone(),
        };
        let body = bad.body.as_bytes();
        let mut letter = DeadLetter::new(&author, &key, &error, &origin, 0, None, at, body);
        self.letters.count_on(&mut letter);
        letter
    }
}

/// Whether a page without a change says of much more time than the checkpoint
/// that everything of it was read. Others must know: who waits for a record of
/// the object waits in vain from then on.
fn covers_more(saved: Option<&Checkpoint>, reached: Reached) -> bool {
    let Reached::Now { as_of } = reached else {
        return false;
    };
    let known = saved.and_then(|saved| saved.as_of);
    known.is_none_or(|known| as_of - known >= COVERS_MORE)
}

/// The key of something that is no record. What has no id is named by its
/// content: by its place alone one of another page would take its letter away,
/// and the same page, read again, must not write a second one.
fn key_of_bad(source: &str, object: &str, bad: &BadRecord) -> String {
    match bad.code {
        Code::MissingId => {
            let content = Fingerprint::of(Op::Upsert, "", bad.body.as_bytes());
            format!("{source}/{object}/without an id, {content}")
        }
        _ => format!("{source}/{object}/{}", bad.place),
    }
}

/// A moment for a request under way once we are told to stop.
async fn leave(stop: &tokio_util::sync::CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
}

/// One page, ready to be written.
struct Batch {
    migration: String,
    topic: String,
    deadletter: String,
    partitions: i32,
    checkpoint_topic: String,
    checkpoint_key: String,
    checkpoint: Vec<u8>,
    letters: Vec<DeadLetter>,
    /// Keys whose dead letters are taken back.
    cleared: Vec<String>,
    raws: Vec<Raw>,
    /// Which of them the bus does not take, and where their bodies lie.
    stored: HashMap<usize, Stored>,
}

impl Batch {
    fn write(&self, producer: &TransactionalProducer) -> Result<()> {
        let written = producer.transaction(
            |transaction| {
                let mut value = Vec::new();
                for (at, raw) in self.raws.iter().enumerate() {
                    value.clear();
                    let envelope = Envelope::of_raw(&self.migration, raw);
                    match self.stored.get(&at) {
                        None => envelope.encode_into(&mut value),
                        Some(stored) => envelope.with_body_at(*stored).encode_into(&mut value),
                    }
                    transaction.send(Record::new(
                        &self.topic,
                        raw.key.as_str().as_bytes(),
                        Some(&value),
                    ))?;
                }
                for letter in &self.letters {
                    let key = letter.topic_key();
                    let partition = RawKey::parse(&letter.key)
                        .map_or(0, |key| partition_of_raw(&key, self.partitions));
                    transaction.send(dead_record(
                        &self.deadletter,
                        partition,
                        &key,
                        Some(&letter.to_json()),
                        Some(letter.headers()),
                    ))?;
                }
                for key in &self.cleared {
                    let partition =
                        RawKey::parse(key).map_or(0, |key| partition_of_raw(&key, self.partitions));
                    let key = topic_key(Stage::Extractor, key);
                    transaction.send(dead_record(&self.deadletter, partition, &key, None, None))?;
                }
                transaction.send(Record::new(
                    &self.checkpoint_topic,
                    self.checkpoint_key.as_bytes(),
                    Some(&self.checkpoint),
                ))
            },
            None,
            |_| {},
        );
        match written {
            Ok(_) => Ok(()),
            Err(Failure::Aborted(error)) => Err(error),
            // The producer is thrown away. librdkafka reports a transaction
            // that timed out as fenced too; standing by tells the two apart.
            Err(Failure::Dead(error)) => Err(Error::new(Code::Fenced, error.message)
                .source_code(error.source_code.unwrap_or_default())),
        }
    }
}

/// The versions seen in the last rounds of delta, so that the overlap of two
/// rounds is not written again. Only a saving: after a restart the repeats
/// come through and fall out as unchanged.
///
/// Each round reads its whole lookback window again, so what a round did not
/// bring is out of the window and forgotten after the next.
#[derive(Default)]
struct Seen {
    round: u64,
    versions: HashMap<String, (Millis, Fingerprint, u64)>,
}

impl Seen {
    fn repeats(&mut self, id: &str, version: Millis, print: Fingerprint) -> bool {
        let round = self.round;
        match self.versions.get_mut(id) {
            Some(known) if known.0 == version && known.1 == print => {
                known.2 = round;
                true
            }
            _ => false,
        }
    }

    fn note(&mut self, id: String, version: Millis, print: Fingerprint) {
        // During the first copy every record is new, and there is no window yet.
        if self.round > 0 {
            self.versions.insert(id, (version, print, self.round));
        }
    }

    fn round_ended(&mut self) {
        let round = self.round;
        self.versions.retain(|_, known| known.2 + 1 >= round);
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_an_id_take_no_letter_from_each_other() {
        let bad = |code, place: &str, body: &str| BadRecord {
            place: place.into(),
            code,
            message: "x".into(),
            body: body.into(),
        };
        let key = |bad: &BadRecord| key_of_bad("salesforce", "Contact", bad);
        let one = key(&bad(Code::MissingId, "record 3", "{\"Name\":\"a\"}"));
        let other = key(&bad(Code::MissingId, "record 3", "{\"Name\":\"b\"}"));
        assert_ne!(one, other, "two pages, the same place");
        let again = key(&bad(Code::MissingId, "record 4", "{\"Name\":\"a\"}"));
        assert_eq!(one, again, "the same, read again elsewhere");
        assert_eq!(
            key(&bad(Code::TooLarge, "003", "")),
            "salesforce/Contact/003"
        );
    }

    #[test]
    fn the_overlap_is_seen_once_and_forgotten_when_it_has_passed() {
        let print = Fingerprint::of(Op::Upsert, JSON, b"1");
        let other = Fingerprint::of(Op::Upsert, JSON, b"2");
        let mut seen = Seen::default();
        seen.round_ended();
        assert!(!seen.repeats("a", 1, print));
        seen.note("a".into(), 1, print);
        seen.round_ended();
        assert!(seen.repeats("a", 1, print));
        assert!(!seen.repeats("a", 2, print), "another version");
        assert!(!seen.repeats("a", 1, other), "another content");
        seen.round_ended();
        seen.round_ended();
        seen.round_ended();
        assert!(!seen.repeats("a", 1, print), "out of the window");
        assert!(seen.versions.is_empty());
    }
}
