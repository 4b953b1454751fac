//! One batch of one lane, step by step: judge → Pending → apply → outcome.
//! The steps are [`super::Step`]; each can be a crash, and each crash is
//! harmless because of what was committed before it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_schemas::{Datum, Entity, Field, Value};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::commit::{Changes, KillPoints, OUTCOME, PENDING};
use super::lanes::{Batch, MOST_AWAY, Message};
use super::run::{Shared, kill_point};
use super::{EntitySupport, Found, Item, Loader, Outcome, Step, Write};
use crate::bodies::{self, Stored};
use crate::control::INCARNATION;
use crate::deadletter::FailureShare;
use crate::envelope::{Envelope, away};
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::{Entry, Identity, Incoming, State, TargetId, Verdict, judge};
use crate::kafka::Place;
use crate::kafka::producer::Failure;
use crate::orphan::Why;
use crate::parking::Reason;
use crate::record::{AbsentReason, CanonicalKey, Fingerprint, Millis, Op, Order};
use crate::retry::Backoff;
use crate::status::{Count, now};
use crate::topics::partition_of;
use crate::transform::OnOrphan;

/// How often the target's shape is looked at.
const LOOK: Duration = Duration::from_secs(1);

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
pub(super) struct Work {
    pub(super) key: CanonicalKey,
    pub(super) object: String,
    pub(super) value: Vec<u8>,
    /// Where in `value` the content lies.
    pub(super) body: Range<usize>,
    /// Where it is, if not there.
    pub(super) stored: Option<Stored>,
    /// The content as the object store gave it, if it is there.
    pub(super) fetched: Option<Vec<u8>>,
    pub(super) order: Order,
    pub(super) op: Op,
    pub(super) reason: AbsentReason,
    pub(super) version: Millis,
    pub(super) fingerprint: Fingerprint,
    pub(super) extracted_at: Millis,
    /// Where it lies, at its order's offset.
    pub(super) place: Arc<Place>,
    /// Whether the batch holds another content of the same version, which a
    /// killed process may have applied: what the target has is not known.
    pub(super) unsure: bool,
}

impl Work {
    /// The content.
    fn content(&self) -> &[u8] {
        match &self.fetched {
            Some(body) => body,
            None => &self.value[self.body.clone()],
        }
    }

    /// Whether it is the same version with another content.
    fn differs(&self, other: &Work) -> bool {
        self.order.version == other.order.version && self.fingerprint != other.fingerprint
    }

    /// The mapping generation that takes it away, although the source has it.
    fn taken_away_by(&self) -> Option<u32> {
        let by_mapping = self.op == Op::Absent && self.reason != AbsentReason::Deleted;
        by_mapping.then_some(self.order.mapping)
    }
}

/// What a batch under way takes away by the mapping.
struct Emptying<L> {
    shared: Arc<Shared<L>>,
    keys: Vec<CanonicalKey>,
}

impl<L> Drop for Emptying<L> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.shared.tables.lock().emptied_now(&self.keys);
        }
    }
}

/// What is to be done about a record.
pub(super) enum Plan<'w> {
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
    /// It must refer to that record, which never comes.
    Orphan(CanonicalKey, Error),
}

/// What becomes of a record whose reference leads to nothing in the target.
enum Without {
    /// It waits for that one.
    Waits(CanonicalKey),
    /// It is sent without the link, and again when one of these comes. Neither
    /// of them: no parent of that kind comes into this target, so nothing is
    /// kept for it.
    Links {
        /// What may come.
        missing: Vec<CanonicalKey>,
        /// What never comes, as far as is known.
        dropped: Vec<CanonicalKey>,
    },
    /// It becomes a dead letter, because that one never comes.
    Orphan(CanonicalKey, Error),
}

/// A record on its way to the target.
pub(super) struct Sending<'w> {
    pub(super) datum: Option<Datum<'w>>,
    pub(super) links: Vec<(usize, TargetId)>,
    /// Optional links that are not possible yet.
    pub(super) missing: Vec<CanonicalKey>,
    /// Links that never will be possible.
    pub(super) dropped: Vec<CanonicalKey>,
    /// What stood before, never Pending: put back when the target refuses.
    pub(super) before: Option<Entry>,
    pub(super) target_id: Option<TargetId>,
    pub(super) recover: bool,
    pub(super) outcome: Option<Outcome>,
}

/// Works on the batches of one lane's part.
pub(super) struct Worker<L: Loader> {
    pub(super) shared: Arc<Shared<L>>,
    pub(super) entity: &'static Entity,
    /// Which part of the entity's lane.
    pub(super) part: usize,
    pub(super) support: EntitySupport,
    pub(super) share: FailureShare,
    /// When the target's shape was looked at last.
    pub(super) looked: Option<Instant>,
}

impl<L: Loader> Worker<L> {
    /// Does a batch to its end. On success everything of it is committed and
    /// in memory; on an error nothing of it counts as done.
    pub(super) async fn batch(&mut self, mut batch: Batch) -> Result<(), Dropped> {
        kill_point(Step::Taken);
        self.look_at_target().await?;
        let next = next_offsets(&batch.messages);
        let mut changes = Changes::default();
        let mut works = self.works(&mut batch, &mut changes)?;
        self.fetch(&batch, &mut works).await?;
        let _emptying = self.ask_before_emptying(&works)?;
        let mut plans = self.judge(&works, &mut changes);
        kill_point(Step::Judged);
        self.recover(&batch, &works, &mut plans).await?;
        self.send(&batch, &works, &mut plans).await?;
        kill_point(Step::Applied);
        let dead = self.settle(&works, plans, &mut changes);
        // A batch of released records only moves no offset; the committed ones
        // are sent again, because only offsets are fenced.
        let mut offsets = batch.starts.clone();
        offsets.extend(next);
        self.commit(&batch, offsets, changes, &OUTCOME).await?;
        if let Some(seen) = works.iter().map(|work| work.extracted_at).max() {
            // Not over what another part of the lane was stopped by.
            let (shared, name) = (&self.shared, &self.entity.name);
            let runs = || shared.status.lane_runs(name, Some(seen));
            shared.lanes.unless_held(name, runs);
        }
        for failed in dead {
            self.share.note(failed).map_err(Dropped::Blocked)?;
        }
        Ok(())
    }

    /// Whether the target is still as it was made: one that was altered may take
    /// our records and say nothing. What passes is met by the batch itself.
    async fn look_at_target(&mut self) -> Result<(), Dropped> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        match self.shared.loader.altered(self.entity).await {
            Err(error) if error.class() == Class::Operator => Err(Dropped::Blocked(error)),
            _ => Ok(()),
        }
    }

    /// Decodes the batch and keeps the newest version of each key.
    fn works(&self, batch: &mut Batch, changes: &mut Changes) -> Result<Vec<Work>, Dropped> {
        let mut works: Vec<Work> = Vec::with_capacity(batch.messages.len());
        for mut message in std::mem::take(&mut batch.messages) {
            if message.key == INCARNATION {
                continue;
            }
            match self.decode(&mut message) {
                Ok(work) => works.push(work),
                Err(error) if error.class() == Class::Record => {
                    self.bury(&message, &error, changes);
                }
                Err(error) => {
                    let place = format!("{}@{}", message.place, message.offset);
                    return Err(Dropped::Blocked(error.at(place)));
                }
            }
        }
        works.extend(self.released(&batch.released));
        let hash = |work: &Work| xxh3_64(work.key.as_str().as_bytes());
        let mut newest: HashTable<usize> = HashTable::with_capacity(works.len());
        let mut superseded = vec![false; works.len()];
        let mut unsure = Vec::new();
        for (place, work) in works.iter().enumerate() {
            let same = |other: &usize| works[*other].key == work.key;
            match newest.find_mut(hash(work), same) {
                Some(other) if works[*other].order >= work.order => {
                    superseded[place] = true;
                    unsure.extend(works[*other].differs(work).then_some(*other));
                }
                Some(other) => {
                    superseded[*other] = true;
                    unsure.extend(works[*other].differs(work).then_some(place));
                    *other = place;
                }
                None => {
                    newest.insert_unique(hash(work), place, |other| hash(&works[*other]));
                }
            }
        }
        for place in unsure {
            works[place].unsure = true;
        }
        let mut place = 0;
        works.retain(|work| {
            place += 1;
            if superseded[place - 1] {
                changes.count(&work.object, Count::Stale);
            }
            !superseded[place - 1]
        });
        Ok(works)
    }

    /// Gets the contents that the bus did not take.
    async fn fetch(&self, batch: &Batch, works: &mut [Work]) -> Result<(), Dropped> {
        for work in works {
            let Some(stored) = &work.stored else {
                continue;
            };
            let mut backoff = Backoff::default();
            work.fetched = loop {
                match bodies::get(self.shared.bodies.as_deref(), stored).await {
                    Ok(body) => break Some(body),
                    Err(error) => {
                        let place = error.place.clone().map(|place| format!(", {place}"));
                        let place = format!("{}{}", work.key, place.unwrap_or_default());
                        let error = error.at(place);
                        self.wait_or_drop(batch, &error, &mut backoff).await?;
                    }
                }
            };
        }
        Ok(())
    }

    /// Takes the message's value, unless it fails.
    fn decode(&self, message: &mut Message) -> Result<Work> {
        let envelope = Envelope::decode(&message.value)?;
        let incarnation = self.shared.incarnation(&message.place.topic);
        let order = Order {
            version: envelope.version,
            mapping: envelope.mapping,
            incarnation,
            offset: message.offset,
            reapply: 0,
        };
        let place = Arc::clone(&message.place);
        let mut work = self.work(&envelope, order, &message.value, place)?;
        if work.key.as_str().as_bytes() != message.key {
            return Err(Error::new(
                Code::ForeignBytes,
                "the message's key is not the record's key",
            ));
        }
        work.value = std::mem::take(&mut message.value);
        Ok(work)
    }

    /// The record of that envelope; the caller gives it `value`, its bytes.
    fn work(
        &self,
        envelope: &Envelope<'_>,
        order: Order,
        value: &[u8],
        place: Arc<Place>,
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
        let text = [
            envelope.source,
            "/",
            envelope.object,
            "/",
            envelope.id,
            "#",
            envelope.slot,
        ];
        let key = CanonicalKey::from_text(text.concat())
            .ok_or_else(|| Error::new(Code::ForeignBytes, "the envelope does not name a record"))?;
        Ok(Work {
            key,
            object: envelope.object.to_owned(),
            value: Vec::new(),
            body: place_in(value, envelope.body.unwrap_or_default()),
            stored: envelope.stored,
            fetched: None,
            order,
            op: envelope.op,
            reason: envelope.reason.unwrap_or(AbsentReason::Deleted),
            version: envelope.version,
            fingerprint: envelope.fingerprint,
            extracted_at: envelope.extracted_at,
            place,
            unsure: false,
        })
    }

    /// The parked and redo records that were let go on, with their own order.
    fn released(&self, keys: &[CanonicalKey]) -> Vec<Work> {
        let known = self.shared.tables.lock();
        let mut works = Vec::new();
        let (mut held, mut later) = (0_usize, Vec::new());
        // A key may have been let go on under an assignment that is over.
        for key in keys.iter().filter(|key| known.owns(key)) {
            if held > MOST_AWAY {
                later.push(key);
                continue;
            }
            let partition = partition_of(key.as_str().as_bytes(), self.shared.topics.partitions());
            // A timer of an earlier wait may let a record go on that waits for
            // something else by now.
            let recovers = known
                .entry(key)
                .is_some_and(|entry| matches!(entry.state, State::Pending { .. }));
            let (orphans, references) = (&self.shared.orphans, &self.shared.references);
            let parked = known.parked(key).filter(|parked| {
                let links = matches!(parked.reason, Reason::Link { .. } | Reason::Dropped { .. });
                !links
                    || recovers
                    || known.can_go_on(parked)
                    || orphans.in_vain(&known, references, key, parked)
            });
            let parked = parked.and_then(|parked| Some((parked.envelope()?, Some(parked.order))));
            let redo = known.redo(key).map(|value| (value.clone(), None));
            let orphan = orphans.get(key);
            let orphan = orphan.map(|orphan| (orphan.envelope, Some(orphan.order)));
            for (value, order) in parked.into_iter().chain(redo).chain(orphan) {
                held = held.saturating_add(away(&value));
                let work = Envelope::decode(&value).and_then(|envelope| {
                    let order = order.or(envelope.order).ok_or_else(|| {
                        Error::new(Code::ForeignBytes, "a redo record without its order")
                    })?;
                    // Its own place, wherever it lay meanwhile.
                    let topic = self.shared.topics.canonical(&self.entity.name);
                    let place = Arc::new(Place::new(topic, partition));
                    self.work(&envelope, order, &value, place)
                });
                match work {
                    Ok(work) => works.push(Work { value, ..work }),
                    Err(error) => tracing::error!(%key, %error, "a record can't be released"),
                }
            }
        }
        drop(known);
        for key in later {
            let (lanes, entity) = (&self.shared.lanes, &self.entity.name);
            lanes.release(entity, key.clone(), Duration::ZERO);
        }
        works
    }

    /// A changed mapping that takes away more than a share of what the target
    /// has stops the lane, until a person agrees. What the batch takes away counts
    /// for the batches beside it until what is returned is dropped.
    fn ask_before_emptying(&self, works: &[Work]) -> Result<Emptying<L>, Dropped> {
        let mut emptying = Emptying {
            shared: Arc::clone(&self.shared),
            keys: Vec::new(),
        };
        if self.shared.plan.absent_accepted {
            return Ok(emptying);
        }
        let mut known = self.shared.tables.lock();
        let generation = self.shared.plan.generation;
        let emptied = works.iter().filter(|work| {
            work.taken_away_by() == Some(generation)
                && known.entry(&work.key).is_some_and(|entry| {
                    !matches!(entry.state, State::Deleted { .. })
                        && entry.order.version == work.order.version
                        && entry.order.mapping < work.order.mapping
                })
        });
        let keys: Vec<CanonicalKey> = emptied.map(|work| work.key.clone()).collect();
        known.empty(&keys, generation).map_err(|(taken, all)| {
            Dropped::Blocked(Error::new(
                Code::EmptiedByMapping,
                format!(
                    "mapping generation {generation} takes away at least {taken} of {all} records"
                ),
            ))
        })?;
        drop(known);
        emptying.keys = keys;
        Ok(emptying)
    }

    /// Asks the rule about every record and resolves references.
    fn judge<'w>(&self, works: &'w [Work], changes: &mut Changes) -> Vec<Plan<'w>> {
        let known = self.shared.tables.lock();
        let reload = self.shared.plan.reloads.get(&self.entity.name).copied();
        works
            .iter()
            .map(|work| {
                // What an earlier mapping took away is not obeyed any more: the
                // present one's word for the same record follows, as a remap maps
                // everything anew.
                let taken_away = work.taken_away_by();
                if taken_away.is_some_and(|mapping| mapping < self.shared.plan.generation) {
                    return Plan::Drop(Count::Stale);
                }
                if let Some(parked) = known.parked(&work.key)
                    && parked.order > work.order
                {
                    // A newer version waits already.
                    return Plan::Drop(Count::Stale);
                }
                if let Some(parents) = self.links_in_vain(work, &known) {
                    return Plan::Park(Reason::Dropped { parents }, None);
                }
                let entry = known.entry(&work.key).map(|entry| match reload {
                    // What the target has is not what was loaded.
                    Some(from) if entry.order.mapping < from => Entry {
                        fingerprint: Fingerprint::default(),
                        ..entry
                    },
                    _ => entry,
                });
                let incoming = Incoming {
                    order: work.order,
                    fingerprint: work.fingerprint,
                    absent: work.op == Op::Absent,
                };
                let seen = known.pending_for(&work.key);
                match judge(entry.as_ref(), &incoming, &self.support.lease, seen) {
                    Verdict::Stale => Plan::Drop(Count::Stale),
                    Verdict::Unchanged if work.unsure && self.support.ordered => {
                        self.sending(work, entry.as_ref(), false, &known)
                    }
                    Verdict::Unchanged => Plan::Note(
                        Entry {
                            order: work.order,
                            ..entry.unwrap_or_else(|| self.fresh(work, None))
                        },
                        Count::Unchanged,
                    ),
                    // A target that writes without Pending may have an older
                    // version that no entry knows of: its sender was killed
                    // between the target's commit and Kafka's.
                    Verdict::Remember if self.support.ordered => {
                        self.sending(work, entry.as_ref(), false, &known)
                    }
                    Verdict::Remember => Plan::Note(
                        Entry {
                            state: State::Deleted {
                                reason: work.reason,
                            },
                            ..self.fresh(work, entry.as_ref())
                        },
                        Count::Absent,
                    ),
                    Verdict::Wait(left) => Plan::Park(Reason::Lease, Some(left)),
                    Verdict::Recover => {
                        changes.count(&work.object, Count::Recovered);
                        self.sending(work, entry.as_ref(), true, &known)
                    }
                    Verdict::Apply => self.sending(work, entry.as_ref(), false, &known),
                }
            })
            .collect()
    }

    /// The entry of this version, with what must survive of the one before.
    pub(super) fn fresh(&self, work: &Work, before: Option<&Entry>) -> Entry {
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
            dropped: Vec::new(),
            target_id: entry.and_then(|entry| entry.target_id.clone()),
            before,
            recover,
            outcome: None,
        };
        if work.op == Op::Absent {
            return Plan::Send(Box::new(sending));
        }
        let mut typed = Vec::new();
        let mut datum = match Datum::decode(self.entity, work.content()) {
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
            let field = &self.entity.fields[place];
            let parents = CanonicalKey::of_reference(text);
            if parents.is_empty() {
                return Plan::Refuse(
                    Error::new(Code::BadReference, "a reference that names no record")
                        .at(field.name.clone()),
                );
            }
            // Of several slots of one record one is filled; what the others
            // once held is deleted.
            let found = parents
                .iter()
                .filter_map(|parent| Some((parent, known.target_of(parent)?)))
                .max_by_key(|(parent, _)| known.is_live(parent));
            if let Some((parent, id)) = found {
                sending.links.push((place, id));
                if let Some(kind) = self.type_of(field, parent) {
                    typed.push(kind);
                }
                continue;
            }
            match self.without(work, known, parents, &field.name) {
                Without::Waits(parent) => return Plan::Park(Reason::Parent { parent }, None),
                Without::Links { missing, dropped } => {
                    sending.missing.extend(missing);
                    sending.dropped.extend(dropped);
                }
                Without::Orphan(parent, error) => return Plan::Orphan(parent, error),
            }
        }
        for (place, entity) in typed {
            datum.values[place] = Value::String(entity.into());
        }
        sending.datum = Some(datum);
        Plan::Send(Box::new(sending))
    }

    /// For a reference to any entity: the field beside it that names the
    /// entity, and which it is. The mapper could not know it where several slots
    /// of one record might be filled.
    fn type_of(&self, field: &Field, parent: &CanonicalKey) -> Option<(usize, String)> {
        let (place, _) = self.entity.field(field.type_field.as_deref()?)?;
        let (_, object, _, slot) = parent.parts();
        Some((place, self.shared.entity_of(object, slot)?.to_owned()))
    }

    /// What becomes of a record because of a reference to what is not there.
    /// Which of several slots will be filled nobody knows yet, so a record does
    /// not wait for them: it is linked later.
    fn without(
        &self,
        work: &Work,
        known: &super::tables::Known,
        parents: Vec<CanonicalKey>,
        field: &str,
    ) -> Without {
        let (orphans, references) = (&self.shared.orphans, &self.shared.references);
        let rule = references.rule(&work.key, field);
        let required = rule.required && parents.len() == 1;
        let (mut missing, mut dropped) = (Vec::new(), Vec::new());
        let mut cause = None;
        for parent in parents {
            let circle = match required {
                true => orphans.circle(known, &work.key, &parent),
                false => None,
            };
            let (error, may_come) = if let Some(circle) = circle {
                let way: Vec<&str> = circle.iter().map(CanonicalKey::as_str).collect();
                let message = format!("requires {}", way.join(", which requires "));
                (Error::new(Code::ReferenceCycle, message), true)
            } else {
                match orphans.never(known, references, &parent, work.version) {
                    Some(why) => {
                        let why_not = why.text();
                        let message = format!("refers to {parent}, which never comes: {why_not}");
                        let error = Error::new(Code::ParentNeverComes, message);
                        (error, why != Why::NotMigrated)
                    }
                    None if required => return Without::Waits(parent),
                    None => {
                        missing.push(parent);
                        continue;
                    }
                }
            };
            cause.get_or_insert_with(|| (parent.clone(), error.at(field)));
            if may_come {
                dropped.push(parent);
            }
        }
        match cause {
            Some((parent, error)) if missing.is_empty() && rule.orphan == OnOrphan::DeadLetter => {
                Without::Orphan(parent, error)
            }
            _ => Without::Links { missing, dropped },
        }
    }

    /// The links of a record that is in the target and waits for nothing but
    /// them, where none of them ever will be possible: nothing is to be sent.
    fn links_in_vain(
        &self,
        work: &Work,
        known: &super::tables::Known,
    ) -> Option<Vec<CanonicalKey>> {
        let parked = known.parked(&work.key)?;
        let Reason::Link { parents } = &parked.reason else {
            return None;
        };
        let pending = known
            .entry(&work.key)
            .is_none_or(|entry| matches!(entry.state, State::Pending { .. }));
        let (orphans, references) = (&self.shared.orphans, &self.shared.references);
        (parked.order == work.order
            && !pending
            && !parents.iter().any(|p| known.target_of(p).is_some())
            && orphans.in_vain(known, references, &work.key, parked))
        .then(|| parents.clone())
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
                if !self.shared.lanes.heard_lately() {
                    // Paused for long: the partitions may be another's by now.
                    left.extend_from_slice(chunk);
                    trouble = Some(Error::new(
                        Code::KafkaBusy,
                        "this process has not heard of its group for a while",
                    ));
                    continue;
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
            order: Order {
                // The same version with more of its links is newer to a target
                // that orders: a killed sender may have written it with fewer.
                reapply: match self.support.ordered {
                    true => work.order.reapply + sending.links.len() as u32,
                    false => work.order.reapply,
                },
                ..work.order
            },
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
        self.commit(batch, batch.starts.clone(), changes, &PENDING)
            .await?;
        Ok(())
    }

    /// Commits changes with offsets and puts them into memory; tried again until
    /// it is known to have happened, or not to be ours any more.
    async fn commit(
        &self,
        batch: &Batch,
        offsets: HashMap<Place, i64>,
        changes: Changes,
        points: &'static KillPoints,
    ) -> Result<(), Dropped> {
        let mut backoff = Backoff::default();
        let changes = Arc::new(changes);
        loop {
            // Without offsets nothing would fence the transaction.
            if self.gone(batch) || offsets.is_empty() {
                return Err(Dropped::Gone);
            }
            let shared = Arc::clone(&self.shared);
            let (changes, offsets) = (Arc::clone(&changes), offsets.clone());
            let (group, epoch) = (Arc::clone(&batch.group), batch.epoch);
            let entity = self.entity;
            let written = tokio::task::spawn_blocking(move || {
                shared.commit(&entity.name, epoch, &group, &offsets, &changes, points)
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

/// By partition, the offset behind the last of these messages.
pub(super) fn next_offsets(messages: &[Message]) -> HashMap<Place, i64> {
    let mut next = HashMap::new();
    // Messages come in runs of one partition.
    for run in messages.chunk_by(|one, other| one.place == other.place) {
        if let Some(last) = run.last() {
            next.insert(Place::clone(&last.place), last.offset + 1);
        }
    }
    next
}

/// Where in a text a part of it lies.
fn place_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    match whole.get(from..from + part.len()) {
        Some(_) if !part.is_empty() => from..from + part.len(),
        _ => 0..0,
    }
}
