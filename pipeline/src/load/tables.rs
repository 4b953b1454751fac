//! What a loader keeps in memory, all of it a view of compacted topics: the
//! idempotency entries of every key (references cross partitions), the parked
//! records and the redo records.
//!
//! **Who changes it.** For a partition that this process owns, its own commits
//! do; the tail rests there, and what it still tells of it is passed over. For
//! the others the tail does. When a partition is lost, the tail goes back to the
//! end of our last commit in it, because what another owner wrote while we still
//! believed to be the owner was not read, or passed over.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control::MOST_EMPTIED;
use crate::idempotency::{Entry, PackedTable, State, Table, TargetId};
use crate::kafka::Place;
use crate::parking::Parked;
use crate::record::{AbsentReason, CanonicalKey};
use crate::topics::partition_of;

/// The tables, behind one lock.
pub(super) struct Tables {
    inner: Mutex<Known>,
}

/// What the tables hold.
pub(super) struct Known {
    partitions: i32,
    idempotency: String,
    parked_topic: String,
    entries: Box<dyn Table>,
    /// How many entries are not deleted.
    live: u64,
    /// By mapping generation, how many entries it emptied.
    emptied: HashMap<u32, u64>,
    /// What batches under way are about to empty.
    emptying: HashSet<CanonicalKey>,
    /// When this process first saw each Pending, by its monotonic clock.
    pending_seen: HashMap<CanonicalKey, Instant>,
    parked: HashMap<CanonicalKey, Parked>,
    /// By what is waited for, who waits.
    waiting: HashMap<CanonicalKey, HashSet<CanonicalKey>>,
    /// Records to apply again: their envelopes.
    redo: HashMap<CanonicalKey, Vec<u8>>,
    owned: HashSet<i32>,
    /// Partitions of tables that were lost, until the tail has gone back in
    /// them: what it tells before that is older than what is in memory.
    going_back: HashSet<Place>,
    /// By partition of a table, the end of what is in memory.
    through: HashMap<Place, i64>,
}

/// What an entry counts as.
#[derive(Clone, Copy)]
enum Held {
    Live,
    /// The record is there, and this mapping generation gives nothing for it.
    Emptied(u32),
    Gone,
}

impl Held {
    fn of(entry: &Entry) -> Self {
        match entry.state {
            State::Deleted {
                reason: AbsentReason::Deleted,
            } => Held::Gone,
            // One that never was in the target was not taken away.
            State::Deleted { .. } if entry.target_id.is_none() => Held::Gone,
            State::Deleted { .. } => Held::Emptied(entry.order.mapping),
            State::Pending { .. } | State::Applied => Held::Live,
        }
    }
}

impl Tables {
    pub(super) fn new(partitions: i32, idempotency: String, parked_topic: String) -> Self {
        Tables {
            inner: Mutex::new(Known {
                partitions,
                idempotency,
                parked_topic,
                entries: Box::new(PackedTable::default()),
                live: 0,
                emptied: HashMap::new(),
                emptying: HashSet::new(),
                pending_seen: HashMap::new(),
                parked: HashMap::new(),
                waiting: HashMap::new(),
                redo: HashMap::new(),
                owned: HashSet::new(),
                going_back: HashSet::new(),
                through: HashMap::new(),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is known of a key.
    pub(super) fn entry(&self, key: &CanonicalKey) -> Option<Entry> {
        self.entries.get(key)
    }

    /// The same of a few keys, in their order; faster than one by one.
    pub(super) fn entries(&self, keys: &[&CanonicalKey]) -> Vec<Option<Entry>> {
        self.entries.get_all(keys)
    }

    /// How long ago this process first saw the key's Pending.
    pub(super) fn pending_for(&self, key: &CanonicalKey) -> Duration {
        self.pending_seen
            .get(key)
            .map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(super) fn parked(&self, key: &CanonicalKey) -> Option<&Parked> {
        self.parked.get(key)
    }

    pub(super) fn redo(&self, key: &CanonicalKey) -> Option<&Vec<u8>> {
        self.redo.get(key)
    }

    /// Whether what a reference points to is in the target, and under which id.
    pub(super) fn target_of(&self, key: &CanonicalKey) -> Option<TargetId> {
        self.entries.target_id(key)
    }

    /// Whether the record is known, and not as deleted.
    pub(super) fn is_live(&self, key: &CanonicalKey) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| !matches!(entry.state, State::Deleted { .. }))
    }

    pub(super) fn owns(&self, key: &CanonicalKey) -> bool {
        self.owned
            .contains(&partition_of(key.as_str().as_bytes(), self.partitions))
    }

    /// The end of what is in memory of a partition of the idempotency topic.
    pub(super) fn idempotency_end(&self, partition: i32) -> i64 {
        self.through
            .get(&Place::new(&self.idempotency, partition))
            .copied()
            .unwrap_or(0)
    }

    /// From now on our own commits change these partitions. `ends` are the high
    /// watermarks up to which the tail has told everything.
    pub(super) fn own(&mut self, partitions: &HashSet<i32>, ends: HashMap<Place, i64>) {
        self.owned = partitions.clone();
        self.through.extend(ends);
    }

    /// All partitions are lost; says where the tail must go back to.
    pub(super) fn disown(&mut self) -> Vec<(Place, i64)> {
        let topics = [self.idempotency.clone(), self.parked_topic.clone()];
        let owned = std::mem::take(&mut self.owned);
        let places: Vec<(Place, i64)> = owned
            .into_iter()
            .flat_map(|partition| topics.iter().map(move |t| Place::new(t, partition)))
            .map(|place| {
                let end = self.through.get(&place).copied().unwrap_or(0);
                (place, end)
            })
            .collect();
        self.going_back
            .extend(places.iter().map(|(place, _)| place.clone()));
        places
    }

    /// The tail has gone back in a lost partition.
    pub(super) fn went_back(&mut self, place: &Place) {
        self.going_back.remove(place);
    }

    /// Our own commit ends there.
    pub(super) fn committed_through(&mut self, ends: HashMap<Place, i64>) {
        for (place, end) in ends {
            if place.topic == self.idempotency || place.topic == self.parked_topic {
                self.through.insert(place, end);
            }
        }
    }

    /// Sets or removes an entry. Returns the keys of ours that waited for it.
    pub(super) fn put_entry(
        &mut self,
        key: &CanonicalKey,
        entry: Option<&Entry>,
    ) -> Vec<CanonicalKey> {
        match entry {
            None => {
                let before = self.entries.get(key);
                self.entries.remove(key);
                self.recount(before.as_ref().map(Held::of), None);
                self.pending_seen.remove(key);
                Vec::new()
            }
            Some(entry) => {
                match entry.state {
                    // The lease runs from when this very Pending was first seen.
                    State::Pending { .. } if self.entries.get(key).as_ref() == Some(entry) => {
                        self.pending_seen
                            .entry(key.clone())
                            .or_insert_with(Instant::now);
                    }
                    State::Pending { .. } => {
                        self.pending_seen.insert(key.clone(), Instant::now());
                    }
                    State::Applied | State::Deleted { .. } => {
                        // Nearly always empty, and then not worth a hash.
                        if !self.pending_seen.is_empty() {
                            self.pending_seen.remove(key);
                        }
                    }
                }
                // What was deleted before it had an id never comes: who waits for
                // it goes on to its end.
                let settled = matches!(entry.state, State::Deleted { .. });
                let arrived = entry.target_id.is_some() || settled;
                let before = self.entries.get(key).as_ref().map(Held::of);
                self.entries.put(key, entry);
                self.recount(before, Some(Held::of(entry)));
                if arrived {
                    self.waiters(key)
                } else {
                    Vec::new()
                }
            }
        }
    }

    fn recount(&mut self, before: Option<Held>, after: Option<Held>) {
        for (held, more) in [(before, false), (after, true)] {
            let number = match held {
                None | Some(Held::Gone) => continue,
                Some(Held::Live) => &mut self.live,
                Some(Held::Emptied(generation)) => self.emptied.entry(generation).or_default(),
            };
            *number = if more {
                *number + 1
            } else {
                number.saturating_sub(1)
            };
        }
    }

    /// Lets a batch of this mapping generation empty these keys, until
    /// [`emptied_now`](Self::emptied_now) says that it has, or has not. If all
    /// such batches took away more than the share of [`MOST_EMPTIED`], they may
    /// not: the error is how many of how many it would be.
    pub(super) fn empty(
        &mut self,
        keys: &[CanonicalKey],
        generation: u32,
    ) -> Result<(), (u64, u64)> {
        if keys.is_empty() {
            return Ok(());
        }
        let emptied = self.emptied.get(&generation).copied().unwrap_or(0);
        // One that is committed already is among the emptied, too.
        let is_live = |key: &&CanonicalKey| self.is_live(key);
        let before = emptied + self.emptying.iter().filter(is_live).count() as u64;
        let (now, all) = (keys.len() as u64, self.live + emptied);
        if (now + before) * MOST_EMPTIED <= all {
            self.emptying.extend(keys.iter().cloned());
            return Ok(());
        }
        Err((now + before, all))
    }

    /// The batch that was let empty these keys is over.
    pub(super) fn emptied_now(&mut self, keys: &[CanonicalKey]) {
        for key in keys {
            self.emptying.remove(key);
        }
    }

    /// The keys of ours that wait for that one.
    fn waiters(&self, key: &CanonicalKey) -> Vec<CanonicalKey> {
        self.waiting
            .get(key)
            .into_iter()
            .flatten()
            .filter(|child| self.owns(child))
            .cloned()
            .collect()
    }

    /// Sets or removes a parked record.
    pub(super) fn put_parked(&mut self, key: &CanonicalKey, parked: Option<Parked>) {
        if let Some(before) = self.parked.remove(key) {
            for parent in before.reason.parents() {
                if let Some(children) = self.waiting.get_mut(parent) {
                    children.remove(key);
                    if children.is_empty() {
                        self.waiting.remove(parent);
                    }
                }
            }
        }
        if let Some(parked) = parked {
            for parent in parked.reason.parents() {
                self.waiting
                    .entry(parent.clone())
                    .or_default()
                    .insert(key.clone());
            }
            self.parked.insert(key.clone(), parked);
        }
    }

    pub(super) fn put_redo(&mut self, key: &CanonicalKey, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.redo.insert(key.clone(), value),
            None => self.redo.remove(key),
        };
    }

    /// Whether what a parked record waits for has come, or is known to be gone.
    /// A lease is asked of the rule, which knows.
    pub(super) fn can_go_on(&self, parked: &Parked) -> bool {
        let parents = parked.reason.parents();
        let waits = parked.reason.waits();
        parents.is_empty()
            || parents
                .iter()
                .any(|p| self.target_of(p).is_some() || waits && self.is_gone(p))
    }

    /// Whether the target has nothing for a key, and never had.
    fn is_gone(&self, key: &CanonicalKey) -> bool {
        self.entry(key).is_some_and(|entry| {
            entry.target_id.is_none() && matches!(entry.state, State::Deleted { .. })
        })
    }

    /// Our parked records that wait for other records.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&CanonicalKey, &Parked)> {
        self.parked
            .iter()
            .filter(|(key, parked)| !parked.reason.parents().is_empty() && self.owns(key))
    }

    /// Our parked records that could go on now, with their entities, and those
    /// that wait for a lease.
    pub(super) fn look_again(&self) -> Vec<(CanonicalKey, String)> {
        self.parked
            .iter()
            .filter(|(key, parked)| {
                let pending = self
                    .entry(key)
                    .is_some_and(|entry| matches!(entry.state, State::Pending { .. }));
                self.owns(key) && (self.can_go_on(parked) || pending)
            })
            .map(|(key, parked)| (key.clone(), parked.entity.clone()))
            .collect()
    }

    /// The keys of ours with a redo record.
    pub(super) fn redos(&self) -> Vec<CanonicalKey> {
        self.redo
            .keys()
            .filter(|key| self.owns(key))
            .cloned()
            .collect()
    }

    /// Whether a partition of a table is changed by our own commits alone. Of the
    /// dead letters none is: other stages write them, too.
    pub(super) fn is_ours(&self, place: &Place) -> bool {
        let ours = place.topic == self.idempotency || place.topic == self.parked_topic;
        ours && self.owned.contains(&place.partition)
    }

    /// Whether a record of a table is told by the tail, or by our own commits.
    pub(super) fn told_by_tail(&self, place: &Place) -> bool {
        !self.owned.contains(&place.partition) && !self.going_back.contains(place)
    }

    /// Notes how far the tail told a partition that is not ours.
    pub(super) fn told(&mut self, place: &Place, offset: i64) {
        self.through.insert(place.clone(), offset + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Order;

    fn key(n: u64) -> CanonicalKey {
        CanonicalKey::parse(&format!("s/Contact/{n}#contact")).expect("a key")
    }

    fn entry(mapping: u32, state: State) -> Entry {
        Entry {
            order: Order {
                mapping,
                ..Order::default()
            },
            fingerprint: Default::default(),
            state,
            target_id: Some("1".to_owned()),
            first_touch: None,
            unknown: serde_json::Map::new(),
        }
    }

    #[test]
    fn batches_beside_each_other_take_away_no_more_than_one_would() {
        let tables = Tables::new(1, "i".into(), "p".into());
        let mut known = tables.lock();
        for n in 0..1_000 {
            known.put_entry(&key(n), Some(&entry(1, State::Applied)));
        }
        let keys = |from: u64, to: u64| -> Vec<CanonicalKey> { (from..to).map(key).collect() };
        assert_eq!(known.empty(&keys(0, 6), 2), Ok(()));
        assert_eq!(known.empty(&keys(6, 11), 2), Err((11, 1_000)));
        // The first one is committed, and in memory, before it is over.
        let reason = AbsentReason::Filtered;
        for n in 0..6 {
            known.put_entry(&key(n), Some(&entry(2, State::Deleted { reason })));
        }
        assert_eq!(known.empty(&keys(6, 11), 2), Err((11, 1_000)));
        assert_eq!(known.empty(&keys(6, 10), 2), Ok(()));
        known.emptied_now(&keys(0, 6));
        assert_eq!(known.empty(&keys(10, 11), 2), Err((11, 1_000)));
        // A batch that failed has taken nothing away.
        known.emptied_now(&keys(6, 10));
        assert_eq!(known.empty(&keys(7, 11), 2), Ok(()));
        // Another mapping is asked for by itself.
        known.emptied_now(&keys(7, 11));
        assert_eq!(known.empty(&keys(11, 20), 3), Ok(()));
    }
}
