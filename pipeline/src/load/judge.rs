//! What is to be done about each record of a batch: the rule's verdict, its
//! references, and whether a person must be asked first.

use std::sync::Arc;
use std::time::Duration;

use drover_schemas::{Datum, Field, Value};

use super::batch::{Dropped, Worker};
use super::commit::Changes;
use super::references::Rule;
use super::run::Shared;
use super::tables::Known;
use super::work::Work;
use super::{Loader, Outcome};
use crate::error::{Code, Error};
use crate::idempotency::{Entry, Incoming, State, TargetId, Verdict, judge};
use crate::orphan::Why;
use crate::parking::Reason;
use crate::record::{CanonicalKey, Fingerprint, Op};
use crate::status::Count;
use crate::transform::OnOrphan;

/// How many keys are looked up at once: their entries stay near.
const AT_ONCE: usize = 64;

/// What a batch under way takes away by the mapping.
pub(super) struct Emptying<L> {
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

impl<L: Loader> Worker<L> {
    /// A changed mapping that takes away more than a share of what the target
    /// has stops the lane, until a person agrees. What the batch takes away counts
    /// for the batches beside it until what is returned is dropped.
    pub(super) fn ask_before_emptying(&self, works: &[Work]) -> Result<Emptying<L>, Dropped> {
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
    pub(super) fn judge<'w>(&self, works: &'w [Work], changes: &mut Changes) -> Vec<Plan<'w>> {
        let known = self.shared.tables.lock();
        let mut plans = Vec::with_capacity(works.len());
        for works in works.chunks(AT_ONCE) {
            let keys: Vec<&CanonicalKey> = works.iter().map(|work| &work.key).collect();
            for (work, entry) in works.iter().zip(known.entries(&keys)) {
                plans.push(self.plan(work, entry, &known, changes));
            }
        }
        plans
    }

    fn plan<'w>(
        &self,
        work: &'w Work,
        entry: Option<Entry>,
        known: &Known,
        changes: &mut Changes,
    ) -> Plan<'w> {
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
        if let Some(parents) = self.links_in_vain(work, known) {
            return Plan::Park(Reason::Dropped { parents }, None);
        }
        let reload = self.shared.plan.reloads.get(&self.entity.name);
        let entry = entry.map(|entry| match reload {
            // What the target has is not what was loaded.
            Some(from) if entry.order.mapping < *from => Entry {
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
                self.sending(work, entry.as_ref(), false, known)
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
                self.sending(work, entry.as_ref(), false, known)
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
                self.sending(work, entry.as_ref(), true, known)
            }
            Verdict::Apply => self.sending(work, entry.as_ref(), false, known),
        }
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
        known: &Known,
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
        known: &Known,
        parents: Vec<CanonicalKey>,
        field: &str,
    ) -> Without {
        let (orphans, references) = (&self.shared.orphans, &self.shared.references);
        let rule = match work.without_links {
            true => Rule::OPTIONAL,
            false => references.rule(&work.key, field),
        };
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
    fn links_in_vain(&self, work: &Work, known: &Known) -> Option<Vec<CanonicalKey>> {
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
}
