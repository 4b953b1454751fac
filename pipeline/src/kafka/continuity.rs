//! Whether what a stage reads is still what it began to read. Kafka's clients
//! pass over what was removed without a word; this looks, and stops the lane.
//!
//! | what happened | how it is seen |
//! | --- | --- |
//! | records removed before we read them (retention, DeleteRecords) | the log starts behind our position |
//! | a topic deleted | it is not among the broker's topics, at two looks |
//! | a topic deleted and made anew | it ends before our position, or ends before where it ended, or its first record is not the one that `init` wrote |
//! | a transaction that nobody ends | the last stable offset stands still before the end |
//!
//! On compacted topics gaps between offsets are normal, so a gap says nothing.
//! What can be known is looked at with each assignment
//! ([`super::consumer`]), every few seconds while a stage runs ([`Guard`]), and
//! at once when the client complains.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::{Client, PATIENCE, Quiet};
use super::compacted::{first_records, or_leaderless, partition_count, read_to_end, watermarks};
use super::peek::{record_at, records_from};
use super::{Place, explain};
use crate::control::{INCARNATION, Incarnation};
use crate::error::{Class, Code, Error, Result};
use crate::record::Millis;
use crate::retry::patience;
use crate::spec::Stage;
use crate::status::{Edge, Report, SILENCE, Status, now};
use crate::topics::Topics;

/// How often a running stage's topics are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often their first records are read, too.
const FIRST_RECORDS: Duration = Duration::from_secs(60);
/// A client's complaint that is not explained by a look within this time ends
/// the process.
const EXPLAINED: Duration = Duration::from_secs(20);

/// What a look has found.
#[derive(Debug)]
pub enum Finding {
    /// Nothing of that topic may be read any more; a person must act.
    Stops(String, Error),
    /// A transaction holds a partition's records back.
    Held(Place, Error),
    /// It does no more.
    Free(Place),
    /// The client's own complaint, which no look could explain.
    Unexplained(Error),
}

/// Looks after the topics of a running stage, in its own thread.
pub struct Guard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By partition that is read, the offset read next.
    positions: HashMap<Place, i64>,
    findings: Vec<Finding>,
    suspected: Option<(Error, Instant)>,
    hurry: bool,
}

/// What a guard looks at.
pub struct Watched {
    /// The topics that the stage reads.
    pub inputs: Vec<String>,
    /// The tables without which it can't work.
    pub tables: Vec<String>,
    /// Which incarnation each topic is.
    pub incarnations: BTreeMap<String, u32>,
}

struct Looker {
    client: Client,
    topics: Topics,
    watched: Watched,
    status: Arc<Status>,
    committed: Option<BaseConsumer<Quiet>>,
    /// Where each partition ended.
    ends: HashMap<Place, i64>,
    /// Last stable offsets before the end, and since when they stand there.
    stable: HashMap<Place, (i64, Instant, bool)>,
    stopped: Vec<String>,
    /// Topics that were not there at the last look.
    missing: HashSet<String>,
    read_first: Option<Instant>,
}

impl Guard {
    /// Starts looking.
    pub fn start(
        client: &Client,
        topics: &Topics,
        watched: Watched,
        status: Arc<Status>,
    ) -> Result<Guard> {
        let shared = Arc::new(Shared::default());
        let mut looker = Looker {
            client: client.clone(),
            topics: topics.clone(),
            watched,
            status,
            committed: None,
            ends: HashMap::new(),
            stable: HashMap::new(),
            stopped: Vec::new(),
            missing: HashSet::new(),
            read_first: None,
        };
        let thread = std::thread::Builder::new()
            .name("guard".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(&mut looker)
            })
            .map_err(|e| Error::new(Code::Invariant, format!("no thread: {e}")))?;
        Ok(Guard {
            shared,
            thread: Some(thread),
        })
    }

    /// Says what is read, and from where on.
    pub fn reads(&self, positions: HashMap<Place, i64>) {
        self.shared.lock().positions = positions;
    }

    /// The client complains: looks at once, and gives the complaint back as
    /// [`Finding::Unexplained`] when nothing is found.
    pub fn suspect(&self, error: Error) {
        let mut state = self.shared.lock();
        state.suspected.get_or_insert((error, Instant::now()));
        state.hurry = true;
        self.shared.changed.notify_all();
    }

    /// What was found since this was asked last.
    pub fn findings(&self) -> Vec<Finding> {
        let mut state = self.shared.lock();
        if state
            .suspected
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > EXPLAINED)
            && let Some((error, _)) = state.suspected.take()
        {
            state.findings.push(Finding::Unexplained(error));
        }
        std::mem::take(&mut state.findings)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, looker: &mut Looker) {
        while !self.stop.load(Ordering::Relaxed) {
            let state = self.lock();
            let hurried = |state: &mut State| {
                !self.stop.load(Ordering::Relaxed) && !std::mem::take(&mut state.hurry)
            };
            let (state, _) = self
                .changed
                .wait_timeout_while(state, LOOK.min(patience() / 4), hurried)
                .unwrap_or_else(PoisonError::into_inner);
            let positions = state.positions.clone();
            let suspects = state.suspected.is_some();
            drop(state);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match looker.look(&positions, suspects) {
                Ok(found) => {
                    let mut state = self.lock();
                    if found.iter().any(|f| matches!(f, Finding::Stops(..))) {
                        state.suspected = None;
                    }
                    state.findings.extend(found);
                }
                Err(error) => tracing::debug!(%error, "looking at the topics"),
            }
        }
    }
}

impl Looker {
    fn look(&mut self, positions: &HashMap<Place, i64>, suspects: bool) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        let watched = self.watched.inputs.iter().chain(&self.watched.tables);
        for topic in watched.cloned().collect::<Vec<_>>() {
            if self.stopped.contains(&topic) {
                continue;
            }
            if let Err(error) = self.topic(&topic, positions, &mut found) {
                if error.class() != Class::Operator {
                    return Err(error);
                }
                // A broker that has just come up may not know its topics yet.
                if error.code == Code::TopicMissing && self.missing.insert(topic.clone()) {
                    continue;
                }
                self.stopped.push(topic.clone());
                found.push(Finding::Stops(topic, error));
            } else {
                self.missing.remove(&topic);
            }
        }
        let due = self
            .read_first
            .is_none_or(|at| at.elapsed() >= FIRST_RECORDS);
        if (due || suspects) && !positions.is_empty() {
            self.read_first = Some(Instant::now());
            self.first_records(positions, &mut found)?;
        }
        Ok(found)
    }

    fn topic(
        &mut self,
        topic: &str,
        positions: &HashMap<Place, i64>,
        found: &mut Vec<Finding>,
    ) -> Result<()> {
        for partition in 0..partition_count(&self.client, topic)? {
            let place = Place::new(topic, partition);
            let (low, high) = watermarks(&self.client, &place)?;
            if let Some(position) = positions.get(&place) {
                position_within(&place, *position, low, high)?;
                self.stable(&place, high, found)?;
            }
            let ended = self.ends.insert(place.clone(), high).unwrap_or(high);
            if high < ended {
                return Err(Error::new(
                    Code::TopicRecreated,
                    format!("{place} ends at {high}, and ended at {ended} before"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the last stable offset has stood still for too long.
    fn stable(&mut self, place: &Place, high: i64, found: &mut Vec<Finding>) -> Result<()> {
        let reader = match &self.committed {
            Some(reader) => reader,
            None => {
                let reader = self.client.open_reader("read_committed")?;
                self.committed.insert(reader)
            }
        };
        let (_, stable) = reader
            .fetch_watermarks(&place.topic, place.partition, PATIENCE)
            .map_err(|e| explain(&format!("asking for the stable end of {place}"), &e))
            .map_err(|error| or_leaderless(&self.client, place, error))?;
        if stable >= high {
            if self.stable.remove(place).is_some_and(|(.., told)| told) {
                found.push(Finding::Free(place.clone()));
            }
            return Ok(());
        }
        let stands = self
            .stable
            .entry(place.clone())
            .or_insert((stable, Instant::now(), false));
        if stands.0 != stable {
            let told = std::mem::replace(stands, (stable, Instant::now(), false)).2;
            if told {
                found.push(Finding::Free(place.clone()));
            }
        } else if stands.1.elapsed() >= patience() && !stands.2 {
            stands.2 = true;
            let since = stands.1;
            let error = self.held(place, stable, high, since);
            found.push(Finding::Held(place.clone(), error));
        }
        Ok(())
    }

    /// Who may hold a partition back. Kafka tells the producer's id only to its
    /// own tools; we can tell whose record is the first that is held back, and
    /// who else writes there.
    fn held(&self, place: &Place, stable: i64, high: i64, since: Instant) -> Error {
        let first = record_at(&self.client, place, stable).ok().flatten();
        let first = match first {
            Some(record) => match crate::envelope::Envelope::decode(&record.value) {
                Ok(_) => format!("its first record is {}", text(&record.key)),
                Err(_) => format!(
                    "its first record, with the key {}, was not written by Drover",
                    text(&record.key)
                ),
            },
            None => "its first record can't be read".to_owned(),
        };
        let writers = self.writers(&place.topic).join(", ");
        let message = format!(
            "an open transaction holds {} offsets of {place} back from {stable} on, for {} s; \
             {first}; Drover's own writers there: {writers}; its producer is told by \
             `kafka-transactions.sh describe-producers --topic {} --partition {}`",
            high - stable,
            since.elapsed().as_secs(),
            place.topic,
            place.partition,
        );
        Error::new(Code::StableOffsetStuck, message).at(format!("{place}@{stable}"))
    }

    /// The transactional ids that write to a topic, as far as the topic `status`
    /// knows their processes.
    fn writers(&self, topic: &str) -> Vec<String> {
        let reports = read_to_end(&self.client, &self.topics.status()).unwrap_or_default();
        let canonical = self.topics.entity_of(topic).is_some();
        let wanted = match canonical {
            true => Stage::Transformer,
            false => Stage::Extractor,
        };
        let mut writers: Vec<String> = reports
            .values()
            .filter_map(|value| serde_json::from_slice::<Report>(value).ok())
            .filter(|report| report.stage == wanted)
            .map(|report| {
                let id = match canonical {
                    true => self
                        .topics
                        .transactional_id(&self.topics.transform_group(), &report.instance),
                    false => self.topics.extract_transactional_id(0),
                };
                let silent = (now() - report.at) / 1000;
                match silent > SILENCE.as_secs() as Millis {
                    true => format!("{id} (silent for {silent} s)"),
                    false => format!("{id} (alive)"),
                }
            })
            .collect();
        writers.sort();
        writers.dedup();
        if writers.is_empty() {
            writers.push("none that has reported".to_owned());
        }
        writers
    }

    /// Reads the first record of each partition: whether it is the one that
    /// `init` wrote, and how old it is.
    fn first_records(
        &mut self,
        positions: &HashMap<Place, i64>,
        found: &mut Vec<Finding>,
    ) -> Result<()> {
        let places: Vec<Place> = positions
            .keys()
            .filter(|place| !self.stopped.contains(&place.topic))
            .cloned()
            .collect();
        let wrong = made_anew(&self.client, &places, &self.watched.incarnations)?;
        for (topic, error) in wrong {
            self.stopped.push(topic.clone());
            found.push(Finding::Stops(topic, error));
        }
        self.edges(positions)
    }

    /// How far each position is from where the log starts: what retention would
    /// have to remove before anything unread is lost.
    fn edges(&self, positions: &HashMap<Place, i64>) -> Result<()> {
        let mut edges: BTreeMap<String, Edge> = BTreeMap::new();
        let (mut firsts, mut ours) = (Vec::new(), Vec::new());
        for (place, position) in positions {
            let (low, high) = watermarks(&self.client, place)?;
            if low < high {
                firsts.push((place.clone(), low));
            }
            if *position < high {
                ours.push((place.clone(), *position));
            }
            let records = u64::try_from(position - low).unwrap_or(0);
            let edge = edges.entry(place.topic.clone()).or_insert(Edge {
                records,
                seconds: None,
            });
            edge.records = edge.records.min(records);
        }
        let unread = records_from(&self.client, &ours)?;
        for (place, first) in records_from(&self.client, &firsts)? {
            let drained = !ours.iter().any(|(other, _)| *other == place);
            let ours = match drained {
                true => Some(now()),
                false => unread.get(&place).and_then(|record| record.at),
            };
            if let (Some(first), Some(ours)) = (first.at, ours)
                && let Some(edge) = edges.get_mut(&place.topic)
            {
                let seconds = u64::try_from((ours - first) / 1000).unwrap_or(0);
                edge.seconds = Some(edge.seconds.map_or(seconds, |known| known.min(seconds)));
            }
        }
        self.status.edges(edges);
        Ok(())
    }
}

/// Whether a reader's error may concern one topic only: the client does not say
/// which, a look finds out.
pub fn explains(error: &Error) -> bool {
    matches!(error.code, Code::RecordsLost | Code::TopicMissing)
}

/// A record's key as text, for an error.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(100)]).into_owned()
}

/// Whether a position lies within a partition's log. [`Code::RecordsLost`] when
/// the log starts behind it, [`Code::TopicRecreated`] when it ends before it.
pub fn position_within(place: &Place, position: i64, low: i64, high: i64) -> Result<()> {
    if position < low {
        return Err(Error::new(
            Code::RecordsLost,
            format!(
                "{place} starts at offset {low}, and was read up to {position} only: \
                 {} offsets were removed before they were read",
                low - position
            ),
        )
        .at(format!("{place}@{position}")));
    }
    if position > high {
        return Err(Error::new(
            Code::TopicRecreated,
            format!(
                "{place} ends at offset {high}, and was read up to {position}: \
                 the topic was deleted and made anew"
            ),
        )
        .at(format!("{place}@{position}")));
    }
    Ok(())
}

/// By topic, why it is not the one that `init` made: the first record of each
/// of these partitions must name the incarnation that the plan knows. A
/// partition whose first records were removed can't be judged by them.
pub fn made_anew(
    client: &Client,
    places: &[Place],
    incarnations: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, Error>> {
    let mut wrong = BTreeMap::new();
    let mut judged = Vec::new();
    for place in places {
        if incarnations.contains_key(&place.topic) && watermarks(client, place)?.0 == 0 {
            judged.push(place.clone());
        }
    }
    let firsts = first_records(client, &judged)?;
    for place in judged {
        let expected = incarnations.get(&place.topic).copied();
        let found = firsts
            .get(&place)
            .filter(|(key, _)| key == INCARNATION)
            .and_then(|(_, value)| serde_json::from_slice::<Incarnation>(value).ok());
        if found.map(|found| found.incarnation) != expected {
            let message = format!(
                "{place} does not start with incarnation {}, which `drover init` wrote: \
                 the topic was deleted and made anew",
                expected.unwrap_or_default()
            );
            let error = Error::new(Code::TopicRecreated, message);
            wrong.insert(place.topic, error);
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_outside_of_its_log_is_never_passed_over() {
        let place = Place::new("t", 1);
        let code = |position| {
            position_within(&place, position, 10, 20)
                .err()
                .map(|e| e.code)
        };
        assert_eq!(code(9), Some(Code::RecordsLost));
        assert_eq!(code(10), None);
        assert_eq!(code(20), None);
        assert_eq!(code(21), Some(Code::TopicRecreated));
        let error = position_within(&place, 4, 10, 20).expect_err("6 are lost");
        assert!(error.message.contains("6 offsets were removed"), "{error}");
        assert_eq!(error.place.as_deref(), Some("t[1]@4"));
    }
}
