//! The tail, which follows the tables, and what it makes the lanes look at again.

use super::*;

impl World {
    /// One step of the tail in a partition of a table. `late`: a poll that was
    /// under way when it was told to go back brings its record first.
    pub fn follow(&mut self, place: usize, table: usize, p: usize, late: bool) -> bool {
        if !self.workers[place].runs() {
            return false;
        }
        let keeps = self.has(Rule::SeekBeforeTelling);
        let mut did = self.let_go(place);
        let worker = &mut self.workers[place];
        let following = &mut worker.tail[table][p];
        let mut passing = false;
        if let Some(back) = following.seek {
            did = true;
            if late {
                passing = true;
            } else {
                following.seek = None;
                following.fetch = back;
            }
        }
        let log = &self.logs[table][p];
        let stable = log.stable();
        while following.fetch < stable {
            let offset = following.fetch;
            following.fetch += 1;
            let record = match &log.items[offset] {
                Logged::Record { by, key, value }
                    if self.transactions[*by].fate == Fate::Committed =>
                {
                    Some((*key, Value::clone(value)))
                }
                _ => None,
            };
            did = true;
            if passing && keeps {
                return true;
            }
            if !passing {
                following.position = offset + 1;
            }
            if let Some((key, value)) = record {
                self.note(place, table, p, offset, key, value);
                return true;
            }
            if passing {
                return true;
            }
        }
        did
    }

    pub(super) fn note(
        &mut self,
        place: usize,
        table: usize,
        p: usize,
        at: usize,
        key: Key,
        value: Value,
    ) {
        let now = self.now;
        let heals = self.has(Rule::OrphanWhoseParentCame);
        let committed = self.has(Rule::LettersAsCommitted);
        let worker = &mut self.workers[place];
        let owned = worker.known.owned.contains(&p);
        match value {
            // These two are followed whoever owns the partition; but of letters
            // the tail must not bring back what our own commit took back.
            Value::Letter(letter) => {
                worker.known.told[p] = at + 1;
                if !committed || at >= worker.known.through[table][p] {
                    worker.known.letters[key] = letter;
                }
                let parent = letter.and_then(|letter| letter.waits_for);
                if heals && owned && parent.is_some_and(|p| worker.known.has_id(p)) {
                    worker.letting_go.push(key);
                }
                return;
            }
            Value::Redo(redo) => {
                worker.known.redo[key] = redo;
                if owned && redo.is_some() {
                    worker.letting_go.push(key);
                }
                return;
            }
            Value::Entry(_) | Value::Parked(_) => {}
        }
        if owned {
            return;
        }
        worker.known.through[table][p] = at + 1;
        match value {
            Value::Entry(entry) => {
                if worker.known.put_entry(key, entry, now) {
                    let waiting = self.waiters(place, key);
                    self.workers[place].letting_go.extend(waiting);
                }
            }
            Value::Parked(parked) => worker.known.parked[key] = parked,
            Value::Letter(_) | Value::Redo(_) => {}
        }
    }

    /// Those of ours that go on when that key has come, or is gone.
    pub(super) fn waiters(&self, place: usize, parent: Key) -> Vec<Key> {
        let known = &self.workers[place].known;
        (0..KEYS.len())
            .filter(|key| known.owned.contains(&self.partition(*key)))
            .filter(|key| {
                let parked = known.parked[*key].as_ref();
                let letter = known.letters[*key];
                parked.is_some_and(|p| p.reason.parent() == Some(parent))
                    || known.has_id(parent)
                        && letter.is_some_and(|letter| letter.waits_for == Some(parent))
            })
            .collect()
    }

    /// Takes note of what the source had of an entity until now, where all of it
    /// has reached this worker's tables.
    pub fn cover(&mut self, place: usize, entity: usize) -> bool {
        let worker = &self.workers[place];
        let Some(until) = self.now.checked_sub(1).filter(|_| worker.runs()) else {
            return false;
        };
        let through = (0..self.setting.partitions).all(|p| {
            self.group.offsets[entity][p] >= self.canonical[entity][p].len()
                && [IDEMPOTENCY, PARKED, LETTERS].iter().all(|table| {
                    let following = worker.tail[*table][p];
                    following.seek.is_none()
                        && following.position >= self.logs[*table][p].items.len()
                })
        });
        let known = &mut self.workers[place].known;
        if !through || known.covered[entity] >= Some(until) {
            return false;
        }
        known.covered[entity] = Some(until);
        true
    }

    /// Lets go on to their end those that wait in vain.
    pub fn search(&mut self, place: usize) -> bool {
        let worker = &self.workers[place];
        if !worker.runs() || !self.has(Rule::SearchInVain) {
            return false;
        }
        let found: Vec<Key> = (0..KEYS.len())
            .filter(|key| worker.known.owned.contains(&self.partition(*key)))
            .filter(|key| worker.known.in_vain(*key))
            .filter(|key| !worker.lanes[KEYS[*key].entity].released.contains(key))
            .collect();
        let worker = &mut self.workers[place];
        for key in &found {
            worker.lanes[KEYS[*key].entity].released.push(*key);
        }
        !found.is_empty()
    }

    /// The children's lane waits for its parents' first copy, or does no more.
    pub fn hold_back(&mut self, place: usize, hold: bool) -> bool {
        let lane = &mut self.workers[place].lanes[CHILDREN];
        if lane.held_back == hold {
            return false;
        }
        lane.held_back = hold;
        if hold {
            self.count(Event::HeldBack);
        }
        true
    }

    /// What the tail found to be released gets to the lanes.
    pub(super) fn let_go(&mut self, place: usize) -> bool {
        let worker = &mut self.workers[place];
        let keys = std::mem::take(&mut worker.letting_go);
        for key in &keys {
            worker.lanes[KEYS[*key].entity].released.push(*key);
        }
        !keys.is_empty()
    }
}
