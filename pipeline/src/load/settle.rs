//! What a batch comes to: the target's outcomes as entries, parked records, dead
//! letters and tombstones.

use std::time::Duration;

use super::batch::Worker;
use super::commit::Changes;
use super::judge::Plan;
use super::lanes::Message;
use super::work::Work;
use super::{Applied, Loader, Outcome};
use crate::deadletter::{Author, DeadLetter, Origin};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::idempotency::{Entry, FirstTouch, State, TargetId};
use crate::kafka::Place;
use crate::parking::{Parked, Reason, since};
use crate::record::{CanonicalKey, Fingerprint, Millis, Op, Order};
use crate::spec::Stage;
use crate::status::{Count, now};
use crate::topics::partition_of;

impl<L: Loader> Worker<L> {
    /// Turns outcomes into what is to be committed. Says of each record that
    /// was tried whether it failed.
    pub(super) fn settle(
        &self,
        works: &[Work],
        plans: Vec<Plan<'_>>,
        changes: &mut Changes,
    ) -> Vec<bool> {
        let known = self.shared.tables.lock();
        let mut tried = Vec::new();
        for (work, plan) in works.iter().zip(plans) {
            let mut park = None;
            let mut without_links = work.without_links;
            let mut waits = false;
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
                        && let Some(parked) = known.parked(&work.key)
                        && let Reason::Link { .. } | Reason::Dropped { .. } = &parked.reason
                    {
                        let again = Order {
                            reapply: work.order.reapply + 1,
                            ..work.order
                        };
                        without_links |= parked.without_links;
                        park = Some((parked.reason.clone(), again));
                    }
                }
                Plan::Park(reason, after) => {
                    succeeded = false;
                    // One that waits already and waits on is not written again.
                    waits = known
                        .parked(&work.key)
                        .is_some_and(|p| p.order == work.order && p.reason == reason);
                    if let Some(after) = after {
                        changes.timers.push((work.key.clone(), after));
                    }
                    if !waits {
                        changes.count(
                            &work.object,
                            match reason.waits() {
                                true => Count::Parked,
                                false => Count::Unlinked,
                            },
                        );
                        park = Some((reason, work.order));
                    }
                }
                Plan::Refuse(error) => {
                    succeeded = false;
                    tried.push(self.letter(work, &error, None, None, changes));
                }
                // Not counted against the lane: it waited in vain for another
                // one, which says nothing about the next record.
                Plan::Orphan(parent, error) => {
                    succeeded = false;
                    let same = self.shared.orphans.get(&work.key).is_some_and(|orphan| {
                        orphan.parent == parent && orphan.code == error.code.as_str()
                    });
                    // Which letters are live is asked of what knows our own
                    // commits: the tail may still show one that is taken back.
                    let live = self.shared.letters.is_at(work.key.as_str(), &work.order);
                    if !(same && live) {
                        // It has waited for that parent, and now does so in vain.
                        let since = known
                            .parked(&work.key)
                            .filter(|parked| parked.reason.parents().contains(&parent))
                            .map(|parked| parked.since);
                        self.letter(work, &error, Some(parent), since, changes);
                    }
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
                        let entry = self.applied(work, sending.before.as_ref(), applied);
                        changes.entries.push((work.key.clone(), Some(entry)));
                        let again = Order {
                            reapply: work.order.reapply + 1,
                            ..work.order
                        };
                        let mut parents = sending.missing;
                        let waits = !parents.is_empty();
                        parents.extend(sending.dropped);
                        if waits {
                            park = Some((Reason::Link { parents }, again));
                        } else if !parents.is_empty() {
                            changes.count(&work.object, Count::Unlinked);
                            park = Some((Reason::Dropped { parents }, again));
                        }
                    }
                    Some(Outcome::Rejected(error)) => {
                        succeeded = false;
                        tried.push(self.letter(work, &error, None, None, changes));
                        // The Pending is taken back: what stood before stands.
                        if !self.support.ordered {
                            let (found, recovered) = (sending.target_id, sending.recover);
                            let entry = self.refused(work, sending.before, found, recovered);
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
            let parks = park.is_some();
            match park {
                Some((reason, order)) => {
                    let orphan = self.shared.orphans.get(&work.key);
                    let dead = orphan.as_ref().map(|dead| (&dead.parent, dead.first_seen));
                    let since = since(&reason, known.parked(&work.key), dead, now());
                    let parked = Parked::new(reason, &self.entity.name, order, since, &work.value);
                    let parked = Parked {
                        without_links,
                        ..parked
                    };
                    changes.parked.push((work.key.clone(), Some(parked)));
                }
                None if !waits
                    && known
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
            // A record that waits is no longer dead: it stands in one place.
            if (succeeded || parks) && self.shared.letters.settles(work.key.as_str(), &work.order) {
                changes
                    .letters
                    .push((work.key.as_str().to_owned(), self.partition(work), None));
            }
        }
        tried
    }

    /// The entry after the target refused a version. Where recovery found a
    /// record, what stood before is not what the target has: the version whose
    /// fate was unknown may be there. Its id is kept, or the next version would
    /// create a second one; no content is equal to that entry's, and it is
    /// there to be deleted.
    fn refused(
        &self,
        work: &Work,
        before: Option<Entry>,
        target_id: Option<TargetId>,
        recovered: bool,
    ) -> Option<Entry> {
        let known = before.as_ref().and_then(|entry| entry.target_id.as_ref());
        if target_id.is_none() || known.is_some() && !recovered {
            return before;
        }
        let fresh = self.fresh(work, before.as_ref());
        Some(Entry {
            fingerprint: Fingerprint::default(),
            target_id,
            first_touch: fresh.first_touch.or(Some(FirstTouch::Created)),
            ..fresh
        })
    }

    fn applied(&self, work: &Work, before: Option<&Entry>, applied: Applied) -> Entry {
        let fresh = self.fresh(work, before);
        Entry {
            // What the target has instead is not this content.
            fingerprint: match applied.newer {
                true => Fingerprint::default(),
                false => fresh.fingerprint,
            },
            state: match work.op {
                Op::Absent => State::Deleted {
                    reason: work.reason,
                },
                _ => State::Applied,
            },
            target_id: applied.id.or(fresh.target_id),
            first_touch: fresh.first_touch.or(match (work.op, applied.created) {
                (Op::Absent, _) => None,
                (_, true) => Some(FirstTouch::Created),
                (_, false) => fresh.first_touch,
            }),
            ..fresh
        }
    }

    fn partition(&self, work: &Work) -> i32 {
        let partitions = self.shared.topics.partitions();
        partition_of(work.key.as_str().as_bytes(), partitions)
    }

    /// Writes a dead letter; `waits_for` is the parent that never comes, where
    /// that is the cause, and `since` when the record began to wait for it. Says
    /// whether it counts as a failure of its lane: the same version, tried again,
    /// was counted before.
    fn letter(
        &self,
        work: &Work,
        error: &Error,
        waits_for: Option<CanonicalKey>,
        since: Option<Millis>,
        changes: &mut Changes,
    ) -> bool {
        let key = work.key.as_str().to_owned();
        changes.count(&work.object, Count::Dead);
        if self.shared.letters.is_behind(&key, &work.order) {
            // An older order, seen again: the newer one's letter stays.
            return true;
        }
        let origin = Origin {
            place: Place::clone(&work.place),
            offset: work.order.offset,
        };
        let mut letter = DeadLetter::new(
            &self.author(),
            &key,
            error,
            &origin,
            work.version,
            Some(work.order),
            now(),
            &work.value,
        );
        if let Some(body) = &work.fetched {
            letter.mask_body(&self.entity.schema, body);
        }
        letter.waits_for = waits_for;
        let again = self.shared.letters.count_on(&mut letter);
        letter.first_seen = since.map_or(letter.first_seen, |at| at.min(letter.first_seen));
        let (code, message, attempt) = (&letter.code, &letter.message, letter.attempt);
        tracing::warn!(%key, code, message, attempt, "dead letter");
        let partition = self.partition(work);
        changes.letters.push((key, partition, Some(letter)));
        !again
    }

    fn author(&self) -> Author {
        Author {
            stage: Stage::Loader,
            connector: L::NAME.to_owned(),
            instance: self.shared.instance.clone(),
        }
    }

    /// A dead letter of something that is not even a record.
    pub(super) fn bury(&self, message: &Message, error: &Error, changes: &mut Changes) {
        let key = String::from_utf8_lossy(&message.key).into_owned();
        let origin = Origin {
            place: Place::clone(&message.place),
            offset: message.offset,
        };
        let letter = DeadLetter::new(
            &self.author(),
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
}
