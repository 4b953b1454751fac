//! Outcomes become what is to be committed.

use super::*;

impl World {
    /// Turns outcomes into what is to be committed.
    pub(super) fn settle(&mut self, place: usize, batch: &mut Batch) {
        let mut changes = Changes::default();
        let wait = (self.lease().wait().as_millis() as u64).max(1_000);
        let ordered = self.setting.kind == Kind::Ordered;
        let newest = self.has(Rule::NewestDeadLetter);
        let keeps = self.has(Rule::RejectKeepsFound);
        let unsure = self.has(Rule::NoShortcutWithoutPending);
        let keeps_link = self.has(Rule::UnchangedKeepsLink);
        for (work, plan) in batch.works.iter().zip(batch.plans.drain(..)) {
            let key = work.key;
            let parked = self.workers[place].known.parked[key].clone();
            let dead = self.workers[place].known.letters[key];
            let mut park = None;
            let mut waits = false;
            let mut succeeded = true;
            match plan {
                Plan::Drop => succeeded = false,
                Plan::Note(entry, unchanged) => {
                    changes.entries.push((key, Some(entry)));
                    // The same content once more: its link still waits, behind
                    // the order that is noted now.
                    if unchanged
                        && keeps_link
                        && let Some(reason @ (Reason::Link(_) | Reason::Dropped(_))) =
                            parked.as_ref().map(|p| p.reason)
                    {
                        let reapply = work.order.reapply + 1;
                        park = Some((
                            reason,
                            Order {
                                reapply,
                                ..work.order
                            },
                        ));
                    }
                }
                Plan::Park(reason, after) => {
                    succeeded = false;
                    if let Some(after) = after {
                        changes.timers.push((key, after));
                    }
                    waits = parked
                        .as_ref()
                        .is_some_and(|p| p.order == work.order && p.reason == reason);
                    let event = match reason {
                        Reason::Parent(_) => Event::Parents,
                        Reason::Link(_) => Event::Links,
                        Reason::Dropped(_) => Event::DroppedLinks,
                        Reason::Lease => Event::Leases,
                    };
                    if !waits {
                        self.count(event);
                        park = Some((reason, work.order));
                    }
                }
                Plan::Orphan(parent, circle) => {
                    succeeded = false;
                    let letter = Letter {
                        order: work.order,
                        content: work.content,
                        waits_for: Some(parent),
                    };
                    if dead != Some(letter) && dead.is_none_or(|l| l.order <= work.order) {
                        self.count(if circle {
                            Event::Circles
                        } else {
                            Event::Orphans
                        });
                        changes.letters.push((key, Some(letter)));
                    }
                }
                Plan::Send(sending) => match sending.outcome {
                    Some(Outcome::Applied { id, newer }) => {
                        let mut entry = fresh(work, sending.before.as_ref());
                        if newer && unsure {
                            // What the target has is not this content.
                            entry.fingerprint = Fingerprint::default();
                        }

                        let target_id = id.or(entry.target_id.clone());
                        changes
                            .entries
                            .push((key, Some(Entry { target_id, ..entry })));
                        let reason = match (sending.missing, sending.dropped) {
                            (Some(parent), _) => Some((Reason::Link(parent), Event::Links)),
                            (None, Some(parent)) => {
                                Some((Reason::Dropped(parent), Event::DroppedLinks))
                            }
                            (None, None) => None,
                        };
                        if let Some((reason, event)) = reason {
                            let reapply = work.order.reapply + 1;
                            self.count(event);
                            park = Some((
                                reason,
                                Order {
                                    reapply,
                                    ..work.order
                                },
                            ));
                        }
                    }
                    Some(Outcome::Rejected) => {
                        succeeded = false;
                        self.count(Event::Rejected);
                        if !newest || dead.is_none_or(|l| l.order <= work.order) {
                            let letter = Letter {
                                order: work.order,
                                content: work.content,
                                waits_for: None,
                            };
                            changes.letters.push((key, Some(letter)));
                        }
                        if !ordered {
                            let mut entry = sending.before;
                            let knows = entry.as_ref().is_some_and(|e| e.target_id.is_some());
                            if keeps && (!knows || sending.recover) && sending.id.is_some() {
                                // What recovery has found is known from now on;
                                // no content is equal to that entry's.
                                entry = Some(Entry {
                                    state: State::Applied,
                                    fingerprint: Fingerprint::default(),
                                    target_id: sending.id,
                                    ..fresh(work, entry.as_ref())
                                });
                            }
                            changes.entries.push((key, entry));
                        }
                    }
                    Some(Outcome::Unknown) => {
                        succeeded = false;
                        self.count(Event::Leases);
                        changes.timers.push((key, wait));
                        park = Some((Reason::Lease, work.order));
                    }
                    Some(Outcome::NotSent) | None => continue,
                },
            }
            let parks = park.is_some();
            match park {
                Some((reason, order)) => {
                    let content = work.content;
                    changes.parked.push((
                        key,
                        Some(Parked {
                            reason,
                            order,
                            content,
                        }),
                    ));
                }
                None if !waits && parked.is_some_and(|p| p.order <= work.order) => {
                    changes.parked.push((key, None));
                }
                None => {}
            }
            if self.workers[place].known.redo[key].is_some_and(|r| r.order <= work.order) {
                changes.redone.push(key);
            }
            // A record that waits is no longer dead.
            if (succeeded || parks) && dead.is_some_and(|l| l.order <= work.order) {
                changes.letters.push((key, None));
            }
        }
        batch.changes = changes;
        batch.stage = Stage::Outcome(Part::Enter);
    }
}
