//! The transaction, part by part, and memory after it.

use super::*;

impl World {
    /// A part of a transaction.
    pub(super) fn transaction(
        &mut self,
        place: usize,
        lane: usize,
        batch: &mut Batch,
        part: Part,
        pending: bool,
    ) -> Step {
        let wrap = |part| {
            if pending {
                Stage::Pending(part)
            } else {
                Stage::Outcome(part)
            }
        };
        let open = |world: &World| {
            batch
                .transaction
                .is_some_and(|t| world.transactions[t].fate == Fate::Open)
        };
        match part {
            Part::Enter => {
                if self.workers[place].epoch != batch.epoch {
                    return Step::Gone;
                }
                batch.stage = wrap(Part::Produce);
            }
            Part::Produce => {
                let worker = &self.workers[place];
                if worker.holder.is_some() {
                    return Step::Not;
                }
                if let Some(last) = worker.last
                    && !self.transactions[last].complete()
                {
                    return Step::Not;
                }
                let entries = batch.changes.entries.iter();
                let records = entries
                    .map(|(key, entry)| (*key, Value::Entry(entry.clone())))
                    .chain(
                        batch
                            .changes
                            .parked
                            .iter()
                            .map(|(key, parked)| (*key, Value::Parked(parked.clone()))),
                    )
                    .chain(
                        batch
                            .changes
                            .letters
                            .iter()
                            .map(|(key, letter)| (*key, Value::Letter(*letter))),
                    )
                    .chain(
                        batch
                            .changes
                            .redone
                            .iter()
                            .map(|key| (*key, Value::Redo(None))),
                    )
                    .collect();
                let number = self.produce(place, records);
                batch.transaction = Some(number);
                batch.ends.clear();
                for (table, p) in &self.transactions[number].unmarked {
                    batch
                        .ends
                        .push((*table, *p, self.logs[*table][*p].items.len()));
                }
                self.workers[place].holder = Some(lane);
                self.workers[place].last = Some(number);
                batch.stage = wrap(Part::Offsets);
                let what = if pending { "Pending" } else { "the outcome" };
                self.told(place, || format!("lane {lane} produces {what}"));
            }
            Part::Offsets => {
                if !open(self) {
                    return Step::Dead;
                }
                let Some(number) = batch.transaction else {
                    return Step::Dead;
                };
                let mut offsets = batch.starts.clone();
                if !pending {
                    for (p, offset) in &batch.messages {
                        offsets.retain(|(_, partition, _)| partition != p);
                        offsets.push((lane, *p, offset + 1));
                    }
                    offsets.sort_unstable();
                }
                let meta = match self.workers[place].group {
                    Some(current) if !self.has(Rule::BatchStartGeneration) => current,
                    _ => batch.meta,
                };
                if !pending || self.has(Rule::StartOffsetsInPending) {
                    if !self.is_member(place, meta) {
                        self.abort(number);
                        self.workers[place].holder = None;
                        self.count(Event::RefusedByKafka);
                        self.told(place, || {
                            "is refused: no member of this generation".to_owned()
                        });
                        return Step::Gone;
                    }
                    if pending || self.has(Rule::OffsetsInTheTransaction) {
                        self.transactions[number].offsets = Some(offsets);
                    } else {
                        for &(entity, p, next) in &offsets {
                            self.group.offsets[entity][p] = next;
                        }
                        self.told(place, || "commits its offsets on their own".to_owned());
                    }
                }
                batch.stage = wrap(Part::Commit);
            }
            Part::Commit => {
                if !open(self) {
                    return Step::Dead;
                }
                let Some(number) = batch.transaction else {
                    return Step::Dead;
                };
                let what = if pending { "Pending" } else { "the outcome" };
                self.told(place, || format!("lane {lane} commits {what}"));
                self.commit(number);
                batch.stage = wrap(Part::Answer);
            }
            Part::Answer => {
                self.workers[place].holder = None;
                if self.has(Rule::MemoryOnlyWhileOwned) {
                    // Before the producer is free for another lane: else that
                    // lane's commit moves the end of what is in memory past
                    // this one.
                    self.remember(place, lane, batch);
                } else {
                    let known = &mut self.workers[place].known;
                    for (table, p, end) in &batch.ends {
                        known.through[*table][*p] = *end;
                    }
                }
                batch.stage = wrap(Part::Remember);
            }
            Part::Remember => {
                if !self.has(Rule::MemoryOnlyWhileOwned) {
                    self.remember(place, lane, batch);
                }
                if !pending {
                    return Step::Done;
                }
                batch.stage = Stage::Send;
            }
        }
        Step::On
    }

    /// Puts what is committed into memory, and looks again.
    pub(super) fn remember(&mut self, place: usize, lane: usize, batch: &mut Batch) {
        let now = self.now;
        let changes = std::mem::take(&mut batch.changes);
        if self.workers[place].known.epoch != Some(batch.epoch) {
            self.count(Event::LateAnswersOfCommits);
            return;
        }
        let look_again = self.has(Rule::LookAgain);
        let known = &mut self.workers[place].known;
        if self.setting.rules.has(Rule::MemoryOnlyWhileOwned) {
            for (table, p, end) in &batch.ends {
                known.through[*table][*p] = *end;
            }
        }
        let mut released = Vec::new();
        for (key, parked) in changes.parked {
            let waits = parked.as_ref().filter(|p| p.reason.parent().is_some());
            if look_again && waits.is_some_and(|parked| known.can_go_on(parked)) {
                released.push(key);
            }
            known.parked[key] = parked;
        }
        let mut arrived = Vec::new();
        for (key, entry) in changes.entries {
            if known.put_entry(key, entry, now) {
                arrived.push(key);
            }
        }
        for key in arrived {
            released.extend(self.waiters(place, key));
        }
        let committed = self.has(Rule::LettersAsCommitted);
        for (key, letter) in changes.letters {
            let p = self.partition(key);
            let known = &mut self.workers[place].known;
            // What the tail has told from behind this commit is newer: another
            // owner's, while we were stopped.
            let mut ends = batch.ends.iter();
            let newer = ends.any(|(t, q, end)| (*t, *q) == (LETTERS, p) && known.told[p] > *end);
            if !(committed && newer) {
                known.letters[key] = letter;
            }
        }
        let worker = &mut self.workers[place];
        // Redo records are left to the tail: one that was written since must not
        // be forgotten with those that are done.
        for key in released {
            worker.lanes[KEYS[key].entity].released.push(key);
        }
        for (key, after) in changes.timers {
            if after == 0 {
                worker.lanes[lane].released.push(key);
            } else {
                worker.lanes[lane].timers.push((now + after, key));
            }
        }
    }
}
