//! The live dead letters of one stage, so that a success can take its own back,
//! and a further failure of the same version counts on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::DeadLetter;
use crate::record::{Millis, Order};
use crate::spec::Stage;

/// The live dead letters of one stage.
///
/// The stage's own commits change it, and a tail of the topic tells what others
/// have written before the partition was ours. What lies below the end of our
/// own last commit is passed over: the tail lags behind, and would bring a
/// letter back that is gone. Nor does a commit change what the tail has told
/// from behind it already: a process that was stopped between its commit and
/// this, for so long that another one took its partitions over.
#[derive(Debug)]
pub struct LiveLetters {
    prefix: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    letters: HashMap<String, Live>,
    /// By partition of the topic, the end of our own last commit.
    through: HashMap<i32, i64>,
    /// By partition of the topic, the offset behind the last record told.
    told: HashMap<i32, i64>,
}

/// What is kept of a letter.
#[derive(Debug)]
struct Live {
    version: Millis,
    code: String,
    /// Of a loader's letter.
    order: Option<Order>,
    attempt: u32,
    first_seen: Millis,
}

impl LiveLetters {
    /// Those of that stage.
    pub fn of(stage: Stage) -> Self {
        LiveLetters {
            prefix: format!("{}/", stage.as_str()),
            known: Mutex::default(),
        }
    }

    /// Notes what the topic says about a key, as a tail reads it.
    pub fn told(&self, partition: i32, offset: i64, topic_key: &[u8], value: Option<&[u8]>) {
        let mut known = self.lock();
        known.told.insert(partition, offset + 1);
        if known
            .through
            .get(&partition)
            .is_none_or(|end| offset >= *end)
        {
            known.note(&self.prefix, topic_key, value);
        }
    }

    /// Notes what this process has committed: by partition of the topic, the
    /// end of its records; and those records, each with its partition (`None`:
    /// taken back). `noted` hears of each that is not out of date by now.
    pub fn committed<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        ends: impl IntoIterator<Item = (i32, i64)>,
        records: impl IntoIterator<Item = (i32, K, Option<V>)>,
        mut noted: impl FnMut(&[u8], Option<&[u8]>),
    ) {
        let ends: HashMap<i32, i64> = ends.into_iter().collect();
        let mut known = self.lock();
        for (partition, key, value) in records {
            let told = known.told.get(&partition);
            if ends.get(&partition).is_some_and(|end| told > Some(end)) {
                continue;
            }
            let value = value.as_ref().map(AsRef::as_ref);
            known.note(&self.prefix, key.as_ref(), value);
            noted(key.as_ref(), value);
        }
        known.through.extend(ends);
    }

    /// Whether a success of that version takes back a live dead letter.
    pub fn clears(&self, key: &str, version: Millis) -> bool {
        self.version(key).is_some_and(|dead| dead <= version)
    }

    /// Whether what became of that order takes back a live dead letter of a
    /// loader. The source's version alone does not decide: the same version may
    /// have been written again with another content, and a retry of the older
    /// one must not clear the newer one's letter.
    pub fn settles(&self, key: &str, order: &Order) -> bool {
        let known = self.lock();
        known
            .letters
            .get(key)
            .is_some_and(|live| match &live.order {
                Some(dead) => dead <= order,
                None => live.version <= order.version,
            })
    }

    /// Whether a loader's live dead letter is of just that order.
    pub fn is_at(&self, key: &str, order: &Order) -> bool {
        let known = self.lock();
        known
            .letters
            .get(key)
            .is_some_and(|live| live.order.as_ref() == Some(order))
    }

    /// Whether a loader's live dead letter is of a newer order than that.
    pub fn is_behind(&self, key: &str, order: &Order) -> bool {
        let known = self.lock();
        known
            .letters
            .get(key)
            .is_some_and(|live| match &live.order {
                Some(dead) => dead > order,
                None => live.version > order.version,
            })
    }

    /// What failed before counts on: of the same version the attempts and since
    /// when, of another one that fails by the same cause, since when. `true` when
    /// it is the same version.
    pub fn count_on(&self, letter: &mut DeadLetter) -> bool {
        let known = self.lock();
        let Some(before) = known.letters.get(&letter.key) else {
            return false;
        };
        let is_same = before.version == letter.version;
        if is_same {
            letter.attempt = before.attempt.saturating_add(1);
        }
        if is_same || before.code == letter.code {
            letter.first_seen = before.first_seen;
        }
        is_same
    }

    fn version(&self, key: &str) -> Option<Millis> {
        self.lock().letters.get(key).map(|live| live.version)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn note(&mut self, prefix: &str, topic_key: &[u8], value: Option<&[u8]>) {
        let Some(key) = std::str::from_utf8(topic_key)
            .ok()
            .and_then(|key| key.strip_prefix(prefix))
        else {
            return;
        };
        match value.and_then(|value| serde_json::from_slice::<DeadLetter>(value).ok()) {
            Some(letter) => {
                let live = Live {
                    version: letter.version,
                    code: letter.code,
                    order: letter.order,
                    attempt: letter.attempt,
                    first_seen: letter.first_seen,
                };
                self.letters.insert(key.to_owned(), live);
            }
            None => {
                self.letters.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::letter;
    use super::*;

    const KEY: &str = "salesforce/Contact/1";

    #[test]
    fn a_retry_of_an_older_order_does_not_clear_a_newer_letter_of_the_same_version() {
        let live = LiveLetters::of(Stage::Transformer);
        let at = |offset| Order {
            version: 7,
            offset,
            ..Order::default()
        };
        let mut dead = letter(7);
        dead.order = Some(at(20));
        live.told(0, 0, dead.topic_key().as_bytes(), Some(&dead.to_json()));
        assert!(!live.settles(KEY, &at(10)));
        assert!(live.is_behind(KEY, &at(10)));
        assert!(live.settles(KEY, &at(20)));
        assert!(live.settles(KEY, &at(30)));
        assert!(!live.is_behind(KEY, &at(20)));
        assert!(live.is_at(KEY, &at(20)) && !live.is_at(KEY, &at(10)));
    }

    #[test]
    fn a_success_takes_back_only_what_is_not_newer() {
        let live = LiveLetters::of(Stage::Transformer);
        let dead = letter(7);
        live.told(0, 0, dead.topic_key().as_bytes(), Some(&dead.to_json()));
        assert!(!live.clears(KEY, 6));
        assert!(live.clears(KEY, 7));
        live.told(0, 1, dead.topic_key().as_bytes(), None);
        assert!(!live.clears(KEY, 7));
        live.told(0, 2, b"loader/salesforce/Contact/1", Some(&dead.to_json()));
        assert!(!live.clears(KEY, 7));
    }

    #[test]
    fn a_tail_that_lags_brings_no_letter_back() {
        let live = LiveLetters::of(Stage::Transformer);
        let dead = letter(7);
        let key = dead.topic_key();
        live.committed([(0, 5)], [(0, &key, Some(dead.to_json()))], |_, _| {});
        live.committed([(0, 7)], [(0, &key, None::<Vec<u8>>)], |_, _| {});
        live.told(0, 4, dead.topic_key().as_bytes(), Some(&dead.to_json()));
        assert!(!live.clears(KEY, 7), "it was taken back at offset 6");
        live.told(0, 9, dead.topic_key().as_bytes(), Some(&dead.to_json()));
        assert!(live.clears(KEY, 7), "another owner wrote it since");
    }

    #[test]
    fn a_commit_that_is_remembered_late_brings_no_letter_back() {
        let live = LiveLetters::of(Stage::Loader);
        let dead = DeadLetter {
            stage: Stage::Loader,
            ..letter(7)
        };
        let (key, json) = (dead.topic_key(), dead.to_json());
        let mut noted = Vec::new();
        let mut remember = |end, partition| {
            live.committed(
                [(partition, end)],
                [(partition, &key, Some(&json))],
                |key, _| noted.push((partition, key.to_vec())),
            );
        };
        // Committed at offset 4, with its marker at 5; stopped before it is
        // remembered. The next owner takes it back at 6, and the tail tells that.
        live.told(0, 4, key.as_bytes(), Some(&json));
        live.told(0, 6, key.as_bytes(), None);
        remember(5, 0);
        assert!(!live.clears(KEY, 7), "taken back at offset 6");
        // In another partition the tail has come to our own record only.
        live.told(1, 4, key.as_bytes(), Some(&json));
        remember(5, 1);
        assert!(live.clears(KEY, 7));
        assert_eq!(noted, [(1, key.clone().into_bytes())]);
    }

    #[test]
    fn a_further_failure_of_the_same_version_counts_on() {
        let live = LiveLetters::of(Stage::Transformer);
        let known = letter(7);
        let record = (0, known.topic_key(), Some(known.to_json()));
        live.committed([], [record], |_, _| {});
        let mut again = DeadLetter {
            at: 99,
            first_seen: 99,
            ..letter(7)
        };
        assert!(live.count_on(&mut again));
        assert_eq!((again.attempt, again.first_seen, again.at), (2, 5, 99));
        let mut newer = DeadLetter {
            first_seen: 99,
            ..letter(8)
        };
        assert!(!live.count_on(&mut newer), "a new failure");
        assert_eq!(
            (newer.attempt, newer.first_seen),
            (1, 5),
            "by the old cause"
        );
        let mut other = DeadLetter {
            first_seen: 99,
            code: "ANOTHER".to_owned(),
            ..letter(8)
        };
        assert!(!live.count_on(&mut other));
        assert_eq!((other.attempt, other.first_seen), (1, 99), "by another one");
    }
}
