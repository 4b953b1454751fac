//! Having records tried again: they are written to `redo.<target>` or
//! `redo.transform` with their own order, whoever owns their partition takes
//! them, and what became of them is read from the topics alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drover_pipeline::deadletter::{DeadLetter, topic_key};
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::{Follower, Tail, high_watermark, partition_count};
use drover_pipeline::kafka::producer::{PlainProducer, Record};
use drover_pipeline::spec::Stage;
use drover_pipeline::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use crate::migration::Bus;

/// How long the broker may take for what it has.
const LIMIT: Duration = Duration::from_secs(60);

/// A record that is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    /// Who tries: the loader, or the transformer.
    pub(crate) stage: Stage,
    /// Its key: canonical, or raw.
    pub(crate) key: String,
    /// Its envelope, with its order.
    pub(crate) value: Vec<u8>,
    /// Whether it lies among the dead letters, or among the parked records.
    pub(crate) dead: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub(crate) enum Outcome {
    /// The target has it, or a newer version, or rightly nothing.
    InTarget,
    /// It was transformed; the loader comes next.
    Transformed,
    /// It failed again.
    Dead {
        /// With this code.
        code: String,
        /// What happened.
        message: String,
        /// How often this version has failed.
        attempt: u32,
    },
    /// It waits.
    Parked {
        /// What for.
        reason: Value,
    },
    /// A newer version of it came in between, and waits.
    SetAside,
    /// Nobody has taken it yet.
    Unknown,
}

/// What is known of the topics' newest values.
#[derive(Default)]
struct Known {
    letters: HashMap<String, DeadLetter>,
    /// By key: the value without the record itself.
    parked: HashMap<String, Value>,
    /// By topic and key, what is to be tried again.
    asked: HashSet<(String, String)>,
    /// The same, once seen at all.
    seen: HashSet<(String, String)>,
}

struct Watch {
    deadletter: String,
    parked: String,
    known: Mutex<Known>,
    changed: Condvar,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Watch {
    fn record(&self, place: &Place, _: i64, key: &[u8], value: Option<&[u8]>) {
        let key = String::from_utf8_lossy(key).into_owned();
        let mut known = self.lock();
        if place.topic == self.deadletter {
            match value.and_then(|value| serde_json::from_slice::<DeadLetter>(value).ok()) {
                Some(mut letter) => {
                    letter.value.clear();
                    known.letters.insert(key, letter)
                }
                None => known.letters.remove(&key),
            };
        } else if place.topic == self.parked {
            match value.and_then(|value| serde_json::from_slice::<Value>(value).ok()) {
                Some(mut parked) => {
                    parked["value"] = Value::Null;
                    known.parked.insert(key, parked)
                }
                None => known.parked.remove(&key),
            };
        } else {
            let name = (place.topic.clone(), key);
            match value {
                Some(_) => {
                    known.seen.insert(name.clone());
                    known.asked.insert(name);
                }
                None => {
                    known.asked.remove(&name);
                }
            }
        }
        self.changed.notify_all();
    }

    fn failed(&self, error: Error) {
        crate::cli::tell(&error);
    }
}

/// Asks for the records to be tried again, and waits at most `limit` for what
/// becomes of them. An outcome for each, in their order. Blocks.
pub(crate) fn ask(bus: &Bus, records: &[Again], limit: Duration) -> Result<Vec<Outcome>> {
    let topics = &bus.topics;
    let followed = [
        topics.deadletter(),
        topics.parked(),
        topics.redo(),
        topics.redo_transform(),
    ];
    let watch = Arc::new(Watch {
        deadletter: topics.deadletter(),
        parked: topics.parked(),
        known: Mutex::default(),
        changed: Condvar::new(),
    });
    let follower = Arc::clone(&watch) as Arc<dyn Follower>;
    let tail = Tail::start(&bus.client, &followed, follower)?;
    let catch_up = || -> Result<()> {
        for topic in &followed {
            for partition in 0..partition_count(&bus.client, topic)? {
                let place = Place::new(topic, partition);
                let end = high_watermark(&bus.client, &place)?;
                tail.wait_for(&place, end, LIMIT)?;
            }
        }
        Ok(())
    };
    catch_up()?;
    let (before, redo_of) = {
        let mut known = watch.lock();
        known.seen.clear();
        let before: Vec<(Option<DeadLetter>, Option<Value>)> = records
            .iter()
            .map(|record| {
                let letter = known.letters.get(&topic_key(record.stage, &record.key));
                (letter.cloned(), known.parked.get(&record.key).cloned())
            })
            .collect();
        let redo_of = |stage: Stage| match stage {
            Stage::Loader => topics.redo(),
            Stage::Extractor | Stage::Transformer => topics.redo_transform(),
        };
        (before, redo_of)
    };
    let producer = PlainProducer::open(&bus.client)?;
    for record in records {
        let topic = redo_of(record.stage);
        producer.send(Record::new(
            &topic,
            record.key.as_bytes(),
            Some(&record.value),
        ))?;
    }
    producer.flush(LIMIT)?;

    let deadline = Instant::now() + limit;
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut told = Instant::now();
    while outcomes.len() < records.len() && Instant::now() < deadline {
        let ready = {
            let known = watch.lock();
            let ready = |known: &Known| {
                (0..records.len()).any(|at| {
                    !outcomes.contains_key(&at)
                        && judge(known, &records[at], &before[at], &redo_of).is_some()
                })
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if ready(&known) {
                true
            } else {
                let wait = left.min(Duration::from_millis(500));
                let waited = watch.changed.wait_timeout(known, wait);
                ready(&waited.unwrap_or_else(PoisonError::into_inner).0)
            }
        };
        if !ready {
            continue;
        }
        // One transaction shows in one partition before it shows in another: what
        // the topics hold by now is waited for, or a record that was parked
        // would look as if it were through.
        catch_up()?;
        let known = watch.lock();
        for (at, record) in records.iter().enumerate() {
            if let Some(outcome) = judge(&known, record, &before[at], &redo_of) {
                outcomes.entry(at).or_insert(outcome);
            }
        }
        drop(known);
        if records.len() > 1 && told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let _ = writeln!(
                std::io::stderr(),
                "{} of {} are known",
                outcomes.len(),
                records.len()
            );
        }
    }
    Ok((0..records.len())
        .map(|at| outcomes.remove(&at).unwrap_or(Outcome::Unknown))
        .collect())
}

/// What became of a record, as far as the topics say.
fn judge(
    known: &Known,
    record: &Again,
    (letter, waited): &(Option<DeadLetter>, Option<Value>),
    redo_of: &impl Fn(Stage) -> String,
) -> Option<Outcome> {
    let name = (redo_of(record.stage), record.key.clone());
    let taken = known.seen.contains(&name) && !known.asked.contains(&name);
    let now = known.letters.get(&topic_key(record.stage, &record.key));
    if let Some(now) = now
        && letter.as_ref() != Some(now)
    {
        return Some(Outcome::Dead {
            code: now.code.clone(),
            message: now.message.clone(),
            attempt: now.attempt,
        });
    }
    let waits = known.parked.get(&record.key);
    match (record.dead, now, waits) {
        // A parked record keeps its letter away, so what waits is what was dead.
        (true, None, Some(parked)) if record.stage == Stage::Loader && waits_still(parked) => {
            Some(Outcome::Parked {
                reason: parked["reason"].clone(),
            })
        }
        (true, None, _) => Some(match record.stage {
            Stage::Loader => Outcome::InTarget,
            Stage::Extractor | Stage::Transformer => Outcome::Transformed,
        }),
        // One whose parent is still known never to come: nothing new is written.
        (true, Some(now), _) if taken && now.waits_for.is_some() => Some(Outcome::Dead {
            code: now.code.clone(),
            message: now.message.clone(),
            attempt: now.attempt,
        }),
        (true, Some(_), _) if taken => Some(Outcome::SetAside),
        (true, Some(_), _) => None,
        (false, _, Some(parked)) if waited.as_ref() != Some(parked) || taken => {
            Some(match waits_still(parked) {
                true => Outcome::Parked {
                    reason: parked["reason"].clone(),
                },
                // Let go without its link, which it goes on waiting for.
                false => Outcome::InTarget,
            })
        }
        (false, _, Some(_)) => None,
        (false, _, None) => Some(Outcome::InTarget),
    }
}

/// Whether it waits as a whole: one that only lacks an optional link is in the
/// target.
fn waits_still(parked: &Value) -> bool {
    matches!(
        parked["reason"]["kind"].as_str(),
        Some("parent" | "lease" | "decision")
    )
}

/// An outcome for a person: one clause.
pub(crate) fn tell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::InTarget => "in the target".to_owned(),
        Outcome::Transformed => "transformed, on its way to the target".to_owned(),
        Outcome::Dead {
            code,
            message,
            attempt,
        } => format!("failed again, attempt {attempt}: {code}: {message}"),
        Outcome::Parked { reason } => format!("waits: {}", crate::parked::reason_text(reason)),
        Outcome::SetAside => "set aside: a newer version came in between, and waits".to_owned(),
        Outcome::Unknown => {
            "not known yet: it is taken as soon as its stage runs and has its partition".to_owned()
        }
    }
}

/// Whether the record needs nobody any more.
pub(crate) fn is_through(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::InTarget | Outcome::Transformed)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::Code;
    use drover_pipeline::testing;
    use serde_json::json;

    use super::*;

    const KEY: &str = "s/o/1#c";

    fn letter(attempt: u32) -> DeadLetter {
        let mut letter = testing::letter(KEY, Code::TargetRefused, 1, b"x");
        letter.attempt = attempt;
        letter
    }

    #[test]
    fn an_outcome_is_never_a_guess() {
        let record = Again {
            stage: Stage::Loader,
            key: KEY.into(),
            value: Vec::new(),
            dead: true,
        };
        let redo = |_| "redo".to_owned();
        let name = ("redo".to_owned(), KEY.to_owned());
        let letter_key = topic_key(Stage::Loader, KEY);
        let before = (Some(letter(1)), None);
        let mut known = Known::default();
        known.letters.insert(letter_key.clone(), letter(1));
        assert_eq!(judge(&known, &record, &before, &redo), None);
        known.seen.insert(name.clone());
        known.asked.insert(name.clone());
        assert_eq!(
            judge(&known, &record, &before, &redo),
            None,
            "not taken yet"
        );
        known.asked.remove(&name);
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::SetAside)
        );
        let mut orphan = letter(1);
        orphan.waits_for = drover_pipeline::record::CanonicalKey::parse("s/o/9#c");
        known.letters.insert(letter_key.clone(), orphan.clone());
        let of_orphan = judge(&known, &record, &(Some(orphan), None), &redo);
        assert!(
            matches!(of_orphan, Some(Outcome::Dead { attempt: 1, .. })),
            "{of_orphan:?}"
        );
        known.letters.insert(letter_key.clone(), letter(2));
        let dead = judge(&known, &record, &before, &redo);
        assert!(
            matches!(dead, Some(Outcome::Dead { attempt: 2, .. })),
            "{dead:?}"
        );
        known.letters.remove(&letter_key);
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::InTarget)
        );
        let reason = json!({"kind": "parent", "parent": "s/o/2#c"});
        known.parked.insert(KEY.into(), json!({"reason": reason}));
        let parked = judge(&known, &record, &before, &redo);
        assert_eq!(
            parked,
            Some(Outcome::Parked {
                reason: reason.clone()
            })
        );
        let link = json!({"reason": {"kind": "link", "parents": ["s/o/2#c"]}});
        known.parked.insert(KEY.into(), link);
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::InTarget)
        );

        // A parked one that is released.
        let record = Again {
            dead: false,
            ..record
        };
        let value = json!({"reason": reason});
        known.parked.insert(KEY.into(), value.clone());
        known.asked.insert(name.clone());
        let before = (None, Some(value));
        assert_eq!(judge(&known, &record, &before, &redo), None);
        known.asked.remove(&name);
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::Parked { reason })
        );
        let link = json!({"reason": {"kind": "link", "parents": ["s/o/2#c"]}});
        known.parked.insert(KEY.into(), link);
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::InTarget)
        );
        known.parked.clear();
        assert_eq!(
            judge(&known, &record, &before, &redo),
            Some(Outcome::InTarget)
        );
    }
}
