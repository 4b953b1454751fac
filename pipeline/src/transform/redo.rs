//! Raw records to transform once more: the topic `redo.transform`, followed as a
//! table, as a loader follows its own. Its live records are those that no
//! outcome has tombstoned yet, so a restart finds them again.
//!
//! A record is taken only by the process that owns its partition, and only
//! while the dead letter that it answers is live: once a newer version went
//! through, an older one must not be the newest of `canonical` again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kafka::Place;

/// The live records of `redo.transform`, and what fences a batch of them.
#[derive(Default)]
pub(super) struct Redos {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By raw key: partition and envelope.
    records: HashMap<String, (i32, Vec<u8>)>,
    /// Keys that can't be transformed until a person has acted.
    stuck: HashSet<String>,
    owned: HashSet<i32>,
    /// Where reading started, for each partition that is ours.
    starts: HashMap<Place, i64>,
}

/// A raw record to transform once more.
#[derive(Clone)]
pub(super) struct Redo {
    pub(super) key: String,
    pub(super) partition: i32,
    pub(super) value: Vec<u8>,
}

impl Redos {
    /// Notes what the topic says about a key.
    pub(super) fn told(&self, partition: i32, key: &[u8], value: Option<&[u8]>) {
        let key = String::from_utf8_lossy(key).into_owned();
        let mut inner = self.lock();
        inner.stuck.remove(&key);
        match value {
            Some(value) => inner.records.insert(key, (partition, value.to_vec())),
            None => inner.records.remove(&key),
        };
    }

    /// Partitions are ours, and reading them starts there.
    pub(super) fn assigned(&self, starts: &HashMap<Place, i64>) {
        let mut inner = self.lock();
        inner.owned = starts.keys().map(|place| place.partition).collect();
        inner.starts = starts.clone();
        inner.stuck.clear();
    }

    /// No partition is ours any more.
    pub(super) fn revoked(&self) {
        let mut inner = self.lock();
        inner.owned.clear();
        inner.starts.clear();
    }

    /// Up to `most` records of ours, with the offsets at which reading began.
    pub(super) fn due(&self, most: usize) -> (Vec<Redo>, HashMap<Place, i64>) {
        let inner = self.lock();
        let due: Vec<Redo> = inner
            .records
            .iter()
            .filter(|(key, (partition, _))| {
                inner.owned.contains(partition) && !inner.stuck.contains(*key)
            })
            .take(most)
            .map(|(key, (partition, value))| Redo {
                key: key.clone(),
                partition: *partition,
                value: value.clone(),
            })
            .collect();
        let starts = match due.is_empty() {
            true => HashMap::new(),
            false => inner.starts.clone(),
        };
        (due, starts)
    }

    /// Whether the topic says nothing newer about a key than what was taken.
    pub(super) fn is_newest(&self, key: &str, taken: &[u8]) -> bool {
        let inner = self.lock();
        inner.records.get(key).is_none_or(|(_, now)| now == taken)
    }

    /// The outcome of what was taken is committed. What was asked for since is
    /// another retry, and stays.
    pub(super) fn done(&self, key: &str, taken: &[u8]) {
        let mut inner = self.lock();
        if inner.records.get(key).is_some_and(|(_, now)| now == taken) {
            inner.records.remove(key);
        }
    }

    /// Left alone until it is written anew or partitions are assigned again.
    pub(super) fn stuck(&self, key: String) {
        self.lock().stuck.insert(key);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_records_of_owned_partitions_are_due() {
        let redos = Redos::default();
        redos.told(0, b"a", Some(b"1"));
        redos.told(1, b"b", Some(b"2"));
        assert!(redos.due(9).0.is_empty(), "nothing is ours yet");
        let starts = HashMap::from([(Place::new("raw", 0), 5)]);
        redos.assigned(&starts);
        let (due, fence) = redos.due(9);
        assert_eq!(
            due.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(),
            ["a"]
        );
        assert_eq!(fence, starts);
        redos.stuck("a".into());
        assert!(redos.due(9).0.is_empty(), "a person must act");
        redos.told(0, b"a", Some(b"3"));
        assert_eq!(redos.due(9).0[0].value, b"3", "asked for again");
        redos.done("a", b"3");
        assert!(redos.due(9).0.is_empty(), "its outcome is committed");
        redos.told(0, b"a", Some(b"4"));
        redos.told(0, b"a", None);
        assert!(redos.due(9).0.is_empty(), "tombstoned");
        redos.told(0, b"a", Some(b"5"));
        redos.revoked();
        assert!(redos.due(9).0.is_empty(), "another's by now");
    }
    #[test]
    fn a_retry_asked_for_while_another_is_committed_stays() {
        let redos = Redos::default();
        redos.assigned(&HashMap::from([(Place::new("raw", 0), 5)]));
        redos.told(0, b"a", Some(b"1"));
        assert_eq!(redos.due(9).0[0].value, b"1");
        assert!(redos.is_newest("a", b"1"), "its tombstone may be sent");
        redos.told(0, b"a", Some(b"2"));
        assert!(!redos.is_newest("a", b"1"), "a tombstone would hide it");
        redos.done("a", b"1");
        assert_eq!(redos.due(9).0[0].value, b"2");
        redos.done("a", b"2");
        assert!(redos.due(9).0.is_empty());
    }
}
