//! One batch of one lane, step by step: judge → Pending → apply → outcome.
//! The steps are [`super::Step`]; each can be a crash, and each crash is
//! harmless because of what was committed before it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_schemas::{Datum, Entity, Value};

use super::lanes::{Batch, Message};
use super::run::{Shared, kill_point};
use super::{Applied, EntitySupport, Found, Item, Loader, Outcome, Step, Write};
use crate::control::INCARNATION;
use crate::deadletter::{DeadLetter, FailureShare, Origin, record as dead_record};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::{Entry, FirstTouch, Identity, Incoming, State, TargetId, Verdict, judge};
use crate::kafka::Place;
use crate::kafka::producer::{Failure, Offsets, Part, Record};
use crate::parking::{Parked, Reason};
use crate::record::{AbsentReason, CanonicalKey, Fingerprint, Millis, Op, Order};
use crate::retry::Backoff;
use crate::spec::Stage;
use crate::status::{Count, now};
use crate::topics::partition_of;

/// How a batch ended without success.
pub(super) enum Dropped {
    /// Its partitions are gone, or the process stops: another one does it.
    Gone,
    /// A person must act; the lane is blocked.
    Blocked(Error),
    /// The process can't go on.
    Dead(Error),
}

/// A record of the batch, decoded.
struct Work {
    key: CanonicalKey,
    object: String,
    value: Vec<u8>,
    order: Order,
    op: Op,
    reason: AbsentReason,
    version: Millis,
    fingerprint: Fingerprint,
    extracted_at: Millis,
    origin: Origin,
}

/// What is to be done about a record.
enum Plan<'w> {
    /// Nothing is written for it but what clears its parked and redo records.
    Drop(Count),
    /// Only the entry is written.
    Note(Entry, Count),
    /// It waits; after this long where it waits for a lease.
    Park(Reason, Option<Duration>),
    /// It is sent.
    Send(Box<Sending<'w>>),
    /// It can't be understood.
    Refuse(Error),
}

/// A record on its way to the target.
struct Sending<'w> {
    datum: Option<Datum<'w>>,
    links: Vec<(usize, TargetId)>,
    /// Optional links that are not possible yet.
    missing: Vec<CanonicalKey>,
    /// What stood before, never Pending: put back when the target refuses.
    before: Option<Entry>,
    target_id: Option<TargetId>,
    recover: bool,
    outcome: Option<Outcome>,
}

/// What a batch is about to commit, and then to put into memory.
#[derive(Default)]
struct Changes {
    entries: Vec<(CanonicalKey, Option<Entry>)>,
    parked: Vec<(CanonicalKey, Option<Parked>)>,
    redone: Vec<CanonicalKey>,
    letters: Vec<(String, i32, Option<DeadLetter>)>,
    counts: HashMap<(String, u8), (Count, u64)>,
    timers: Vec<(CanonicalKey, Duration)>,
}

impl Changes {
    fn count(&mut self, object: &str, what: Count) {
        self.counts
            .entry((object.to_owned(), what as u8))
            .or_insert((what, 0))
            .1 += 1;
    }
}

/// Works on one lane's batches.
pub(super) struct Worker<L: Loader> {
    pub(super) shared: Arc<Shared<L>>,
    pub(super) entity: &'static Entity,
    pub(super) support: EntitySupport,
    pub(super) share: FailureShare,
}

impl<L: Loader> Worker<L> {
    /// Does a batch to its end. On success everything of it is committed and
    /// in memory; on an error nothing of it counts as done.
    pub(super) async fn batch(&mut self, batch: Batch) -> Result<(), Dropped> {
        kill_point(Step::Taken);
        let next = next_offsets(&batch.messages);
        let mut changes = Changes::default();
        let works = self.works(&batch, &mut changes)?;
        let mut plans = self.judge(&works, &mut changes);
        kill_point(Step::Judged);
        self.recover(&batch, &works, &mut plans).await?;
        self.send(&batch, &works, &mut plans).await?;
        kill_point(Step::Applied);
        let dead = self.settle(&works, plans, &mut changes);
        self.commit(&batch, &next, changes).await?;
        if let Some(seen) = works.iter().map(|work| work.extracted_at).max() {
            self.shared.status.lane_runs(&self.entity.name, Some(seen));
        }
        for failed in dead {
            self.share.note(failed).map_err(Dropped::Blocked)?;
        }
        Ok(())
    }

    /// Decodes the batch and keeps the newest version of each key.
    fn works(&self, batch: &Batch, changes: &mut Changes) -> Result<Vec<Work>, Dropped> {
        let mut works: Vec<Work> = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            if message.key == INCARNATION {
                continue;
            }
            match self.decode(message) {
                Ok(work) => works.push(work),
                Err(error) if error.class() == Class::Record => {
                    self.bury(message, &error, changes);
                }
                Err(error) => {
                    let place = format!("{}@{}", message.place, message.offset);
                    return Err(Dropped::Blocked(error.at(place)));
                }
            }
        }
        works.extend(self.released(&batch.released));
        let mut newest: HashMap<CanonicalKey, usize> = HashMap::new();
        let mut superseded = HashSet::new();
        for (place, work) in works.iter().enumerate() {
            match newest.get(&work.key) {
                Some(&other) if works[other].order >= work.order => {
                    superseded.insert(place);
                }
                Some(&other) => {
                    superseded.insert(other);
                    newest.insert(work.key.clone(), place);
                }
                None => {
                    newest.insert(work.key.clone(), place);
                }
            }
        }
        for place in &superseded {
            changes.count(&works[*place].object, Count::Stale);
        }
        let mut place = 0;
        works.retain(|_| {
            place += 1;
            !superseded.contains(&(place - 1))
        });
        Ok(works)
    }

    fn decode(&self, message: &Message) -> Result<Work> {
        let envelope = Envelope::decode(&message.value)?;
        let incarnation = self.shared.incarnation(&message.place.topic);
        let order = Order {
            version: envelope.version,
            mapping: envelope.mapping,
            incarnation,
            offset: message.offset,
            reapply: 0,
        };
        let origin = Origin {
            place: message.place.clone(),
            offset: message.offset,
        };
        let work = self.work(&envelope, order, message.value.clone(), origin)?;
        if work.key.as_str().as_bytes() == message.key {
            Ok(work)
        } else {
            Err(Error::new(
                Code::ForeignBytes,
                "the message's key is not the record's key",
            ))
        }
    }

    fn work(
        &self,
        envelope: &Envelope<'_>,
        order: Order,
        value: Vec<u8>,
        origin: Origin,
    ) -> Result<Work> {
        if envelope.body_schema != self.entity.schema {
            let message = format!(
                "the body's schema is {}, this loader reads {}",
                envelope.body_schema, self.entity.schema
            );
            // Another version of the entity comes from a newer transformer;
            // anything else does not belong here.
            let entity = envelope.body_schema.rsplit_once(".v").map(|parts| parts.0);
            return Err(if entity == Some(self.entity.name.as_str()) {
                Error::new(Code::NewerSchema, message)
            } else {
                Error::new(Code::ForeignBytes, message)
            });
        }
        let text = format!(
            "{}/{}/{}#{}",
            envelope.source, envelope.object, envelope.id, envelope.slot
        );
        let key = CanonicalKey::parse(&text)
            .ok_or_else(|| Error::new(Code::ForeignBytes, "the envelope does not name a record"))?;
        Ok(Work {
            key,
            object: envelope.object.to_owned(),
            value,
            order,
            op: envelope.op,
            reason: envelope.reason.unwrap_or(AbsentReason::Deleted),
            version: envelope.version,
            fingerprint: envelope.fingerprint,
            extracted_at: envelope.extracted_at,
            origin,
        })
    }

    /// The parked and redo records that were let go on, with their own order.
    fn released(&self, keys: &[CanonicalKey]) -> Vec<Work> {
        let known = self.shared.tables.lock();
        let mut works = Vec::new();
        // A key may have been let go on under an assignment that is over.
        for key in keys.iter().filter(|key| known.owns(key)) {
            let partition = partition_of(key.as_str().as_bytes(), self.shared.topics.partitions());
            let parked = known.parked(key).and_then(|parked| {
                let origin = Origin {
                    place: Place::new(self.shared.topics.parked(), partition),
                    offset: parked.order.offset,
                };
                Some((parked.envelope()?, Some(parked.order), origin))
            });
            let redo = known.redo(key).map(|value| {
                let origin = Origin {
                    place: Place::new(self.shared.topics.redo(), partition),
                    offset: 0,
                };
                (value.clone(), None, origin)
            });
            for (value, order, origin) in parked.into_iter().chain(redo) {
                let work = Envelope::decode(&value).and_then(|envelope| {
                    let order = order.or(envelope.order).ok_or_else(|| {
                        Error::new(Code::ForeignBytes, "a redo record without its order")
                    })?;
                    self.work(&envelope, order, value.clone(), origin)
                });
                match work {
                    Ok(work) => works.push(work),
                    Err(error) => tracing::error!(%key, %error, "a record can't be released"),
                }
            }
        }
        works
    }

    /// A dead letter of something that is not even a record.
    fn bury(&self, message: &Message, error: &Error, changes: &mut Changes) {
        let key = String::from_utf8_lossy(&message.key).into_owned();
        let origin = Origin {
            place: message.place.clone(),
            offset: message.offset,
        };
        let letter = DeadLetter::new(
            Stage::Loader,
            &key,
            error,
            &origin,
            0,
            None,
            now(),
            &message.value,
        );
        changes.count(&letter.object, Count::Dead);
        changes
            .letters
            .push((key, message.place.partition, Some(letter)));
    }

    /// Asks the rule about every record and resolves references.
    fn judge<'w>(&self, works: &'w [Work], changes: &mut Changes) -> Vec<Plan<'w>> {
        let known = self.shared.tables.lock();
        works
            .iter()
            .map(|work| {
                if let Some(parked) = known.parked(&work.key)
                    && parked.order > work.order
                {
                    // A newer version waits already.
                    return Plan::Drop(Count::Stale);
                }
                let entry = known.entry(&work.key);
                let incoming = Incoming {
                    order: work.order,
                    fingerprint: work.fingerprint,
                    absent: work.op == Op::Absent,
                };
                let seen = known.pending_for(&work.key);
                match judge(entry, &incoming, &self.support.lease, seen) {
                    Verdict::Stale => Plan::Drop(Count::Stale),
                    Verdict::Unchanged => Plan::Note(
                        Entry {
                            order: work.order,
                            ..entry.cloned().unwrap_or_else(|| self.fresh(work, None))
                        },
                        Count::Unchanged,
                    ),
                    Verdict::Remember => Plan::Note(
                        Entry {
                            state: State::Deleted {
                                reason: work.reason,
                            },
                            ..self.fresh(work, entry)
                        },
                        Count::Absent,
                    ),
                    Verdict::Wait(left) => Plan::Park(Reason::Lease, Some(left)),
                    Verdict::Recover => {
                        changes.count(&work.object, Count::Recovered);
                        self.sending(work, entry, true, &known)
                    }
                    Verdict::Apply => self.sending(work, entry, false, &known),
                }
            })
            .collect()
    }

    /// The entry of this version, with what must survive of the one before.
    fn fresh(&self, work: &Work, before: Option<&Entry>) -> Entry {
        Entry {
            order: work.order,
            fingerprint: work.fingerprint,
            state: State::Applied,
            target_id: before.and_then(|entry| entry.target_id.clone()),
            first_touch: before.and_then(|entry| entry.first_touch),
            unknown: before
                .map(|entry| entry.unknown.clone())
                .unwrap_or_default(),
        }
    }

    fn sending<'w>(
        &self,
        work: &'w Work,
        entry: Option<&Entry>,
        recover: bool,
        known: &super::tables::Known,
    ) -> Plan<'w> {
        let before = match entry {
            Some(Entry {
                state: State::Pending { before, .. },
                ..
            }) => before.as_deref().cloned(),
            other => other.cloned(),
        };
        let mut sending = Sending {
            datum: None,
            links: Vec::new(),
            missing: Vec::new(),
            target_id: entry.and_then(|entry| entry.target_id.clone()),
            before,
            recover,
            outcome: None,
        };
        if work.op == Op::Absent {
            return Plan::Send(Box::new(sending));
        }
        let body = match Envelope::decode(&work.value).map(|envelope| envelope.body) {
            Ok(body) => body.unwrap_or_default(),
            Err(error) => return Plan::Refuse(error),
        };
        let datum = match Datum::decode(self.entity, body) {
            Ok(datum) => datum,
            Err(malformed) => {
                return Plan::Refuse(Error::new(
                    Code::ForeignBytes,
                    format!("the body is no {}: {malformed}", self.entity.schema),
                ));
            }
        };
        for (place, value) in datum.values.iter().enumerate() {
            let Value::Reference(text) = value else {
                continue;
            };
            let Some(parent) = CanonicalKey::parse(text) else {
                return Plan::Refuse(
                    Error::new(Code::BadReference, "a reference that names no record").at(self
                        .entity
                        .fields[place]
                        .name
                        .clone()),
                );
            };
            match known.target_of(&parent) {
                Some(id) => sending.links.push((place, id.clone())),
                None if self
                    .shared
                    .required(&work.key, &self.entity.fields[place].name) =>
                {
                    return Plan::Park(Reason::Parent { parent }, None);
                }
                None => sending.missing.push(parent),
            }
        }
        sending.datum = Some(datum);
        Plan::Send(Box::new(sending))
    }

    /// Asks the target what became of earlier requests.
    async fn recover(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &mut [Plan<'_>],
    ) -> Result<(), Dropped> {
        let places: Vec<usize> = (0..plans.len())
            .filter(|place| matches!(&plans[*place], Plan::Send(sending) if sending.recover))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let keys: Vec<&CanonicalKey> = places.iter().map(|place| &works[*place].key).collect();
        let mut backoff = Backoff::default();
        let found: Vec<Option<Found>> = loop {
            match self.shared.loader.find(self.entity, &keys).await {
                Ok(found) if found.len() == keys.len() => break found,
                Ok(found) => {
                    return Err(Dropped::Dead(Error::new(
                        Code::Invariant,
                        format!("find answered {} of {} keys", found.len(), keys.len()),
                    )));
                }
                Err(error) => self.wait_or_drop(batch, &error, &mut backoff).await?,
            }
        };
        for (place, found) in places.into_iter().zip(found) {
            let Plan::Send(sending) = &mut plans[place] else {
                continue;
            };
            match found {
                Some(found) => sending.target_id = Some(found.id),
                // Nothing was there after the lease and the index delay: the
                // request never had an effect. A known id that is gone stays
                // known only where the target says so itself.
                None if !matches!(self.support.lease.identity, Identity::Upsert) => {
                    sending.target_id = sending.before.as_ref().and_then(|e| e.target_id.clone());
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Writes Pending where the target needs it, and applies.
    async fn send(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &mut [Plan<'_>],
    ) -> Result<(), Dropped> {
        let mut open: Vec<usize> = (0..plans.len())
            .filter(|place| matches!(plans[*place], Plan::Send(_)))
            .collect();
        let mut backoff = Backoff::default();
        while !open.is_empty() {
            let pending_since = Instant::now();
            if !self.support.ordered {
                self.commit_pending(batch, works, plans, &open).await?;
            }
            let mut left = Vec::new();
            let mut trouble = None;
            for chunk in open.chunks(self.support.batch.max(1)) {
                // A request must not leave so late that its Pending's lease may
                // lapse at another loader before the target is through with it.
                let fresh = self.support.ordered
                    || matches!(self.support.lease.identity, Identity::Upsert)
                    || pending_since.elapsed() < self.support.lease.length / 2;
                if !fresh || trouble.is_some() {
                    left.extend_from_slice(chunk);
                    continue;
                }
                if self.gone(batch) {
                    return Err(Dropped::Gone);
                }
                let items: Vec<Item<'_>> = chunk
                    .iter()
                    .filter_map(|place| self.item(&works[*place], &plans[*place]))
                    .collect();
                match self.shared.loader.apply(&items).await {
                    Ok(outcomes) if outcomes.len() == items.len() => {
                        drop(items);
                        for (place, outcome) in chunk.iter().zip(outcomes) {
                            match outcome {
                                Outcome::NotSent(error) => {
                                    left.push(*place);
                                    trouble.get_or_insert(error);
                                }
                                outcome => {
                                    if let Plan::Send(sending) = &mut plans[*place] {
                                        sending.outcome = Some(outcome);
                                    }
                                }
                            }
                        }
                    }
                    Ok(outcomes) => {
                        return Err(Dropped::Dead(Error::new(
                            Code::Invariant,
                            format!("apply answered {} of {}", outcomes.len(), items.len()),
                        )));
                    }
                    Err(error) => {
                        left.extend_from_slice(chunk);
                        trouble = Some(error);
                    }
                }
            }
            open = left;
            if let Some(error) = trouble {
                self.wait_or_drop(batch, &error, &mut backoff).await?;
            }
        }
        Ok(())
    }

    fn item<'i>(&self, work: &'i Work, plan: &'i Plan<'_>) -> Option<Item<'i>> {
        let Plan::Send(sending) = plan else {
            return None;
        };
        Some(Item {
            key: &work.key,
            entity: self.entity,
            order: work.order,
            version: work.version,
            target_id: sending.target_id.as_ref(),
            write: match &sending.datum {
                Some(datum) => Write::Upsert {
                    datum,
                    links: sending.links.clone(),
                },
                None => Write::Delete {
                    reason: work.reason,
                },
            },
        })
    }

    /// Makes the Pending entries durable, in a transaction that also sends the
    /// batch's *start* offsets: they change nothing, but Kafka refuses them,
    /// and with them the Pending, when the partitions are no longer ours.
    async fn commit_pending(
        &self,
        batch: &Batch,
        works: &[Work],
        plans: &[Plan<'_>],
        open: &[usize],
    ) -> Result<(), Dropped> {
        let since = now();
        let entries: Vec<(CanonicalKey, Option<Entry>)> = open
            .iter()
            .filter_map(|place| {
                let Plan::Send(sending) = &plans[*place] else {
                    return None;
                };
                let work = &works[*place];
                let entry = Entry {
                    state: State::Pending {
                        owner: self.shared.owner.clone(),
                        since,
                        before: sending.before.clone().map(Box::new),
                    },
                    target_id: sending.target_id.clone(),
                    ..self.fresh(work, sending.before.as_ref())
                };
                Some((work.key.clone(), Some(entry)))
            })
            .collect();
        let changes = Changes {
            entries,
            ..Changes::default()
        };
        self.transaction(
            batch,
            batch.starts.clone(),
            &changes,
            Step::PendingProduced,
            None,
        )
        .await?;
        kill_point(Step::PendingCommitted);
        self.remember(batch, changes);
        Ok(())
    }

    /// Turns outcomes into what is to be committed. Says of each record that
    /// was tried whether it failed.
    fn settle(&self, works: &[Work], plans: Vec<Plan<'_>>, changes: &mut Changes) -> Vec<bool> {
        let known = self.shared.tables.lock();
        let mut tried = Vec::new();
        for (work, plan) in works.iter().zip(plans) {
            let partition = partition_of(
                work.key.as_str().as_bytes(),
                self.shared.topics.partitions(),
            );
            let mut park = None;
            let mut succeeded = true;
            match plan {
                Plan::Drop(count) => {
                    changes.count(&work.object, count);
                    succeeded = false;
                }
                Plan::Note(entry, count) => {
                    changes.entries.push((work.key.clone(), Some(entry)));
                    changes.count(&work.object, count);
                    // The same content once more: its links still wait, and go
                    // on waiting behind the order that is noted now.
                    if count == Count::Unchanged
                        && let Some(reason @ Reason::Link { .. }) =
                            known.parked(&work.key).map(|parked| parked.reason.clone())
                    {
                        let again = Order {
                            reapply: work.order.reapply + 1,
                            ..work.order
                        };
                        park = Some((reason, again));
                    }
                }
                Plan::Park(reason, after) => {
                    succeeded = false;
                    // One that waits already and waits on is not written again.
                    let waits = known
                        .parked(&work.key)
                        .is_some_and(|p| p.order == work.order && p.reason == reason);
                    if let Some(after) = after {
                        changes.timers.push((work.key.clone(), after));
                    }
                    if waits {
                        continue;
                    }
                    changes.count(&work.object, Count::Parked);
                    park = Some((reason, work.order));
                }
                Plan::Refuse(error) => {
                    tried.push(true);
                    succeeded = false;
                    self.letter(work, &error, partition, changes);
                }
                Plan::Send(sending) => match sending.outcome {
                    Some(Outcome::Applied(applied)) => {
                        tried.push(false);
                        changes.count(
                            &work.object,
                            match (applied.newer, work.op) {
                                (true, _) => Count::Stale,
                                (false, Op::Absent) => Count::Absent,
                                (false, _) => Count::Applied,
                            },
                        );
                        let entry = self.applied(work, sending.before.as_ref(), &applied);
                        changes.entries.push((work.key.clone(), Some(entry)));
                        if !sending.missing.is_empty() {
                            let again = Order {
                                reapply: work.order.reapply + 1,
                                ..work.order
                            };
                            let parents = sending.missing;
                            park = Some((Reason::Link { parents }, again));
                        }
                    }
                    Some(Outcome::Rejected(error)) => {
                        tried.push(true);
                        succeeded = false;
                        self.letter(work, &error, partition, changes);
                        // The Pending is taken back: what stood before stands.
                        if !self.support.ordered {
                            let entry = self.refused(work, sending.before, sending.target_id);
                            changes.entries.push((work.key.clone(), entry));
                        }
                    }
                    Some(Outcome::Unknown(error)) => {
                        succeeded = false;
                        tracing::warn!(key = %work.key, %error, "no answer; it will be asked for");
                        // A target without a lease that keeps losing answers is
                        // not asked again at once.
                        let wait = self.support.lease.wait().max(Duration::from_secs(1));
                        changes.timers.push((work.key.clone(), wait));
                        changes.count(&work.object, Count::Parked);
                        park = Some((Reason::Lease, work.order));
                    }
                    // `send` leaves no record without an outcome.
                    Some(Outcome::NotSent(_)) | None => continue,
                },
            }
            match park {
                Some((reason, order)) => {
                    let parked = Parked::new(reason, &self.entity.name, order, now(), &work.value);
                    changes.parked.push((work.key.clone(), Some(parked)));
                }
                None if known
                    .parked(&work.key)
                    .is_some_and(|p| p.order <= work.order) =>
                {
                    changes.count(&work.object, Count::Released);
                    changes.parked.push((work.key.clone(), None));
                }
                None => {}
            }
            if known.redo(&work.key).is_some_and(|value| {
                Envelope::decode(value)
                    .ok()
                    .and_then(|redo| redo.order)
                    .is_none_or(|order| order <= work.order)
            }) {
                changes.redone.push(work.key.clone());
            }
            if succeeded && self.shared.letters.clears(work.key.as_str(), work.version) {
                changes
                    .letters
                    .push((work.key.as_str().to_owned(), partition, None));
            }
        }
        tried
    }

    /// The entry after the target refused a version. Where recovery found a
    /// record that no entry knew, its id is kept, or the next version would
    /// create a second one; no content is equal to that entry's.
    fn refused(
        &self,
        work: &Work,
        before: Option<Entry>,
        target_id: Option<TargetId>,
    ) -> Option<Entry> {
        let known = before.as_ref().and_then(|entry| entry.target_id.as_ref());
        if target_id.is_none() || known.is_some() {
            return before;
        }
        Some(Entry {
            fingerprint: Fingerprint::default(),
            target_id,
            first_touch: Some(FirstTouch::Created),
            ..self.fresh(work, before.as_ref())
        })
    }

    fn applied(&self, work: &Work, before: Option<&Entry>, applied: &Applied) -> Entry {
        let fresh = self.fresh(work, before);
        Entry {
            state: match work.op {
                Op::Absent => State::Deleted {
                    reason: work.reason,
                },
                _ => State::Applied,
            },
            target_id: applied.id.clone().or(fresh.target_id.clone()),
            first_touch: fresh.first_touch.or(match (work.op, applied.created) {
                (Op::Absent, _) => None,
                (_, true) => Some(FirstTouch::Created),
                (_, false) => fresh.first_touch,
            }),
            ..fresh
        }
    }

    fn letter(&self, work: &Work, error: &Error, partition: i32, changes: &mut Changes) {
        let key = work.key.as_str().to_owned();
        tracing::warn!(%key, %error, "dead letter");
        let letter = DeadLetter::new(
            Stage::Loader,
            &key,
            error,
            &work.origin,
            work.version,
            Some(work.order),
            now(),
            &work.value,
        );
        changes.count(&work.object, Count::Dead);
        changes.letters.push((key, partition, Some(letter)));
    }

    /// Commits everything the batch came to, with its offsets, then puts it
    /// into memory and looks at parked records again.
    async fn commit(
        &self,
        batch: &Batch,
        next: &HashMap<Place, i64>,
        changes: Changes,
    ) -> Result<(), Dropped> {
        // A batch of released records only moves no offset; the committed ones
        // are sent again, because only offsets are fenced.
        let mut offsets = batch.starts.clone();
        offsets.extend(next.iter().map(|(p, o)| (p.clone(), *o)));
        self.transaction(
            batch,
            offsets,
            &changes,
            Step::OutcomeProduced,
            Some(Step::OffsetsSent),
        )
        .await?;
        kill_point(Step::OutcomeCommitted);
        self.remember(batch, changes);
        kill_point(Step::LookedAgain);
        Ok(())
    }

    async fn transaction(
        &self,
        batch: &Batch,
        offsets: HashMap<Place, i64>,
        changes: &Changes,
        produced: Step,
        sent: Option<Step>,
    ) -> Result<(), Dropped> {
        let mut backoff = Backoff::default();
        loop {
            // Without offsets nothing would fence the transaction.
            if self.gone(batch) || offsets.is_empty() {
                return Err(Dropped::Gone);
            }
            let shared = Arc::clone(&self.shared);
            let records = self.records(changes);
            let offsets = offsets.clone();
            let group = Arc::clone(&batch.group);
            let written = tokio::task::spawn_blocking(move || {
                let metadata = shared.offset_metadata(offsets.keys());
                let producer = shared.producer();
                let ends = producer.transaction(
                    |transaction| {
                        records.iter().try_for_each(|record| {
                            transaction.send(Record {
                                topic: &record.topic,
                                partition: record.partition,
                                key: record.key.as_bytes(),
                                value: record.value.as_deref(),
                                headers: record.headers.clone(),
                            })
                        })
                    },
                    Some(Offsets {
                        next: &offsets,
                        metadata: &metadata,
                        group: &group,
                    }),
                    |part| match (part, sent) {
                        (Part::Produced, _) => kill_point(produced),
                        (Part::OffsetsSent, Some(step)) => kill_point(step),
                        (Part::OffsetsSent, None) => {}
                    },
                )?;
                shared.tables.lock().committed_through(ends);
                Ok::<(), Failure>(())
            })
            .await;
            match written {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Failure::Dead(error))) => return Err(Dropped::Dead(error)),
                Ok(Err(Failure::Aborted(error))) if error.code == Code::Fenced => {
                    tracing::info!(%error, "the batch is no longer ours");
                    return Err(Dropped::Gone);
                }
                Ok(Err(Failure::Aborted(error))) => {
                    self.wait_or_drop(batch, &error, &mut backoff).await?;
                }
                Err(panic) => {
                    return Err(Dropped::Dead(Error::new(
                        Code::Invariant,
                        format!("a transaction panicked: {panic}"),
                    )));
                }
            }
        }
    }

    fn records(&self, changes: &Changes) -> Vec<Owned> {
        let topics = &self.shared.topics;
        let mut records = Vec::new();
        for (key, entry) in &changes.entries {
            records.push(Owned {
                topic: topics.idempotency(),
                partition: None,
                key: key.as_str().to_owned(),
                value: entry
                    .as_ref()
                    .map(|entry| serde_json::to_vec(entry).unwrap_or_default()),
                headers: None,
            });
        }
        for (key, parked) in &changes.parked {
            records.push(Owned {
                topic: topics.parked(),
                partition: None,
                key: key.as_str().to_owned(),
                value: parked.as_ref().map(Parked::to_json),
                headers: None,
            });
        }
        for key in &changes.redone {
            records.push(Owned {
                topic: topics.redo(),
                partition: None,
                key: key.as_str().to_owned(),
                value: None,
                headers: None,
            });
        }
        let deadletter = topics.deadletter();
        for (key, partition, letter) in &changes.letters {
            let key = crate::deadletter::topic_key(Stage::Loader, key);
            let value = letter.as_ref().map(DeadLetter::to_json);
            let record = dead_record(
                &deadletter,
                *partition,
                &key,
                value.as_deref(),
                letter.as_ref().map(DeadLetter::headers),
            );
            records.push(Owned {
                topic: record.topic.to_owned(),
                partition: record.partition,
                headers: record.headers,
                key,
                value,
            });
        }
        records
    }

    /// Puts what is committed into memory, and lets go on what can. Not when the
    /// partitions went meanwhile: their new owner may have written since, and
    /// the tail tells all of it.
    fn remember(&self, batch: &Batch, changes: Changes) {
        let mut released: Vec<(CanonicalKey, String)> = Vec::new();
        {
            let mut known = self.shared.tables.lock();
            if self.gone(batch) {
                return;
            }
            let mut arrived = Vec::new();
            for (key, parked) in changes.parked {
                let again = parked.as_ref().is_some_and(|parked| {
                    parked
                        .reason
                        .parents()
                        .iter()
                        .any(|parent| known.target_of(parent).is_some())
                });
                // The look again: what it waits for may have arrived between
                // the judgement and the moment the parked record was durable.
                if again {
                    arrived.push(key.clone());
                }
                known.put_parked(&key, parked);
            }
            for (key, entry) in changes.entries {
                arrived.extend(known.put_entry(&key, entry));
            }
            for key in arrived {
                if let Some(parked) = known.parked(&key) {
                    released.push((key.clone(), parked.entity.clone()));
                }
            }
            for key in changes.redone {
                known.put_redo(&key, None);
            }
        }
        for (key, _, letter) in &changes.letters {
            let topic_key = crate::deadletter::topic_key(Stage::Loader, key);
            let value = letter.as_ref().map(DeadLetter::to_json);
            self.shared
                .letters
                .note(topic_key.as_bytes(), value.as_deref());
        }
        for ((object, _), (what, number)) in changes.counts {
            self.shared.status.count(&object, what, number);
        }
        for (key, entity) in released {
            self.shared.lanes.release(&entity, key, Duration::ZERO);
        }
        for (key, after) in changes.timers {
            self.shared.lanes.release(&self.entity.name, key, after);
        }
    }

    fn gone(&self, batch: &Batch) -> bool {
        self.shared.lanes.epoch() != batch.epoch
    }

    /// Waits before another try, or says why there is none.
    async fn wait_or_drop(
        &self,
        batch: &Batch,
        error: &Error,
        backoff: &mut Backoff,
    ) -> Result<(), Dropped> {
        match error.class() {
            Class::Transient | Class::Throttled => {}
            Class::Bug => return Err(Dropped::Dead(clone(error))),
            Class::Operator | Class::Record => return Err(Dropped::Blocked(clone(error))),
        }
        let wait = backoff.after(error);
        self.shared
            .status
            .lane_failed(&self.entity.name, error, Some(wait));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let closing = self.shared.lanes.closing() || self.shared.stop.is_cancelled();
            if self.gone(batch) || closing {
                return Err(Dropped::Gone);
            }
            let step = until
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(step) => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
        Ok(())
    }
}

fn clone(error: &Error) -> Error {
    Error {
        code: error.code,
        message: error.message.clone(),
        source_code: error.source_code.clone(),
        place: error.place.clone(),
        retry_after: error.retry_after,
    }
}

/// A record to produce, owned by the thread that does it.
struct Owned {
    topic: String,
    partition: Option<i32>,
    key: String,
    value: Option<Vec<u8>>,
    headers: Option<rdkafka::message::OwnedHeaders>,
}

fn next_offsets(messages: &[Message]) -> HashMap<Place, i64> {
    let mut next = HashMap::new();
    for message in messages {
        next.insert(message.place.clone(), message.offset + 1);
    }
    next
}
