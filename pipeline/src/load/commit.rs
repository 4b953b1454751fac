//! One transaction of a loader, and memory with it.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::kill::kill_point;
use super::run::Shared;
use super::{Loader, Step};
use crate::deadletter::{DeadLetter, record as dead_record};
use crate::error::Error;
use crate::idempotency::Entry;
use crate::kafka::Place;
use crate::kafka::producer::{Failure, Offsets, Part, Record, Transaction};
use crate::parking::Parked;
use crate::record::CanonicalKey;
use crate::spec::Stage;
use crate::status::Count;
use crate::topics::Topics;

/// What a batch is about to commit, and then to put into memory.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) entries: Vec<(CanonicalKey, Option<Entry>)>,
    pub(super) parked: Vec<(CanonicalKey, Option<Parked>)>,
    pub(super) redone: Vec<CanonicalKey>,
    pub(super) letters: Vec<(String, i32, Option<DeadLetter>)>,
    /// By object and what became of a record: a handful.
    pub(super) counts: Vec<(String, Count, u64)>,
    pub(super) timers: Vec<(CanonicalKey, Duration)>,
}

impl Changes {
    /// Counts a record of an object; told to the status once it is committed.
    pub(super) fn count(&mut self, object: &str, what: Count) {
        let same = |known: &&mut (String, Count, u64)| known.1 == what && known.0 == object;
        match self.counts.iter_mut().find(same) {
            Some((_, _, number)) => *number += 1,
            None => self.counts.push((object.to_owned(), what, 1)),
        }
    }

    /// Produces the records that make these changes durable.
    fn produce(&self, topics: &Topics, transaction: &mut Transaction<'_>) -> Result<(), Error> {
        let (entries, parked) = (topics.idempotency(), topics.parked());
        let mut json = Vec::with_capacity(512);
        for (key, entry) in &self.entries {
            json.clear();
            let value = entry.as_ref().map(|entry| {
                entry.write_json(&mut json);
                json.as_slice()
            });
            transaction.send(Record::new(&entries, key.as_str().as_bytes(), value))?;
        }
        for (key, record) in &self.parked {
            let value = record.as_ref().map(Parked::to_json);
            let key = key.as_str().as_bytes();
            transaction.send(Record::new(&parked, key, value.as_deref()))?;
        }
        if !self.redone.is_empty() {
            let redo = topics.redo();
            for key in &self.redone {
                transaction.send(Record::new(&redo, key.as_str().as_bytes(), None))?;
            }
        }
        let deadletter = topics.deadletter();
        for (key, partition, letter) in &self.letters {
            transaction.send(dead_record(
                &deadletter,
                *partition,
                &crate::deadletter::topic_key(Stage::Loader, key),
                letter.as_ref().map(DeadLetter::to_json).as_deref(),
                letter.as_ref().map(DeadLetter::headers),
            ))?;
        }
        Ok(())
    }
}

/// Where a test may kill the process around a transaction.
pub(super) struct KillPoints {
    produced: Step,
    sent: Option<Step>,
    committed: Step,
    remembered: Option<Step>,
}

/// Around the transaction that makes Pending durable.
pub(super) const PENDING: KillPoints = KillPoints {
    produced: Step::PendingProduced,
    sent: None,
    committed: Step::PendingCommitted,
    remembered: None,
};

/// Around the transaction of a batch's outcome.
pub(super) const OUTCOME: KillPoints = KillPoints {
    produced: Step::OutcomeProduced,
    sent: Some(Step::OffsetsSent),
    committed: Step::OutcomeCommitted,
    remembered: Some(Step::LookedAgain),
};

impl<L: Loader> Shared<L> {
    /// Commits changes with offsets, and puts them into memory before another
    /// transaction can begin. Blocks.
    pub(super) fn commit(
        &self,
        entity: &str,
        epoch: u64,
        group: &ConsumerGroupMetadata,
        offsets: &HashMap<Place, i64>,
        changes: &Changes,
        points: &KillPoints,
    ) -> Result<(), Failure> {
        let metadata = self.offset_metadata(offsets.keys());
        let producer = self.producer();
        let offsets = &self.lanes.not_behind(offsets);
        let ends = producer.transaction(
            |transaction| changes.produce(&self.topics, transaction),
            Some(Offsets {
                next: offsets,
                metadata: &metadata,
                group,
            }),
            |part| match part {
                Part::Produced => kill_point(points.produced),
                Part::OffsetsSent => points.sent.into_iter().for_each(kill_point),
            },
        )?;
        kill_point(points.committed);
        self.remember(entity, epoch, changes, ends);
        drop(producer);
        points.remembered.into_iter().for_each(kill_point);
        Ok(())
    }

    /// Puts what is committed into memory, and lets go on what can. Not when the
    /// partitions went meanwhile: their new owner may have written since. Then
    /// the end of what is in memory does not move either, and the tail tells
    /// all of it again.
    fn remember(&self, entity: &str, epoch: u64, changes: &Changes, ends: HashMap<Place, i64>) {
        let mut released: Vec<(CanonicalKey, String)> = Vec::new();
        {
            let mut known = self.tables.lock();
            if self.lanes.epoch() != epoch {
                return;
            }
            let deadletter = self.topics.deadletter();
            let letters = ends
                .iter()
                .filter(|(place, _)| place.topic == deadletter)
                .map(|(place, end)| (place.partition, *end));
            let written = changes.letters.iter().map(|(key, partition, letter)| {
                let key = crate::deadletter::topic_key(Stage::Loader, key);
                (*partition, key, letter.as_ref().map(DeadLetter::to_json))
            });
            self.letters.committed(letters, written, |key, letter| {
                self.orphans.note(key, letter);
            });
            known.committed_through(ends);
            let mut arrived = Vec::new();
            let mut parents = Vec::new();
            for (key, parked) in &changes.parked {
                // The look again: what it waits for may have arrived between
                // the judgement and the moment the parked record was durable.
                if parked.as_ref().is_some_and(|p| known.can_go_on(p)) {
                    arrived.push(key.clone());
                }
                known.put_parked(key, parked.clone());
            }
            for (key, entry) in &changes.entries {
                arrived.extend(known.put_entry(key, entry.as_ref()));
                parents.push(key);
            }
            self.orphans_of(&known, &parents, &mut released);
            for key in arrived {
                if let Some(parked) = known.parked(&key) {
                    released.push((key.clone(), parked.entity.clone()));
                }
            }
            // Redo records are left to the tail, which tells our own tombstones,
            // too: one that was written since must not be forgotten with them.
        }
        for (object, what, number) in &changes.counts {
            self.status.count(object, *what, *number);
        }
        for (key, entity) in released {
            self.lanes.release(&entity, key, Duration::ZERO);
        }
        for (key, after) in &changes.timers {
            self.lanes.release(entity, key.clone(), *after);
        }
    }
}
