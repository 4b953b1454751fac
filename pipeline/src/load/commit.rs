//! One transaction of a loader, and memory with it.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::run::{Shared, kill_point};
use super::{Loader, Step};
use crate::deadletter::{DeadLetter, record as dead_record};
use crate::idempotency::Entry;
use crate::kafka::Place;
use crate::kafka::producer::{Failure, Offsets, Part, Record};
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
    pub(super) counts: HashMap<(String, u8), (Count, u64)>,
    pub(super) timers: Vec<(CanonicalKey, Duration)>,
}

impl Changes {
    /// Counts a record of an object; told to the status once it is committed.
    pub(super) fn count(&mut self, object: &str, what: Count) {
        self.counts
            .entry((object.to_owned(), what as u8))
            .or_insert((what, 0))
            .1 += 1;
    }

    /// The records that make these changes durable.
    fn records(&self, topics: &Topics) -> Vec<Owned> {
        let mut records = Vec::new();
        for (key, entry) in &self.entries {
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
        for (key, parked) in &self.parked {
            records.push(Owned {
                topic: topics.parked(),
                partition: None,
                key: key.as_str().to_owned(),
                value: parked.as_ref().map(Parked::to_json),
                headers: None,
            });
        }
        for key in &self.redone {
            records.push(Owned {
                topic: topics.redo(),
                partition: None,
                key: key.as_str().to_owned(),
                value: None,
                headers: None,
            });
        }
        let deadletter = topics.deadletter();
        for (key, partition, letter) in &self.letters {
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
        let records = changes.records(&self.topics);
        let producer = self.producer();
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
            let written = changes.letters.iter().map(|(key, _, letter)| {
                let key = crate::deadletter::topic_key(Stage::Loader, key);
                (key, letter.as_ref().map(DeadLetter::to_json))
            });
            let written: Vec<(String, Option<Vec<u8>>)> = written.collect();
            for (key, letter) in &written {
                self.orphans.note(key.as_bytes(), letter.as_deref());
            }
            self.letters.committed(letters, written);
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
                arrived.extend(known.put_entry(key, entry.clone()));
                parents.push(key);
            }
            self.orphans_of(&known, &parents, &mut released);
            for key in arrived {
                if let Some(parked) = known.parked(&key) {
                    released.push((key.clone(), parked.entity.clone()));
                }
            }
            for key in &changes.redone {
                known.put_redo(key, None);
            }
        }
        for ((object, _), (what, number)) in &changes.counts {
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

/// A record to produce, owned by the thread that does it.
struct Owned {
    topic: String,
    partition: Option<i32>,
    key: String,
    value: Option<Vec<u8>>,
    headers: Option<rdkafka::message::OwnedHeaders>,
}
