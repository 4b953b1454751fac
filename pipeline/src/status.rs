//! What a process says of itself: each second into the topic `status`, and on
//! its HTTP address (`/healthz`, `/readyz`, `/metrics`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Code, Error, Result};
use crate::kafka::client::Client;
use crate::kafka::compacted::read_to_end;
use crate::kafka::producer::{PlainProducer, Record};
use crate::metrics::Metrics;
use crate::quota::Usage;
use crate::record::Millis;
use crate::retry::{Backoff, passes};
use crate::spec::Stage;

/// How often a process reports.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// A process that has not reported for this long is taken for dead.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It connects, or reads its tables.
    Starting,
    /// Another process does the work; this one would take over.
    Standby,
    /// It works.
    Running,
    /// It meets passing errors and tries again.
    Degraded,
    /// It waits because the other side asked for it.
    Throttled,
    /// At least one lane waits for a person.
    Blocked,
    /// It ends.
    Stopping,
    /// It has ended.
    Stopped,
}

impl Phase {
    /// Its name, as reports and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Standby => "standby",
            Phase::Running => "running",
            Phase::Degraded => "degraded",
            Phase::Throttled => "throttled",
            Phase::Blocked => "blocked",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Read from the source and committed.
    Extracted,
    /// Mapped and committed.
    Transformed,
    /// Written to the target.
    Applied,
    /// The target has it already.
    Unchanged,
    /// Older than what is known.
    Stale,
    /// Nothing for this slot.
    Absent,
    /// Waits for something.
    Parked,
    /// Was let go on.
    Released,
    /// Became a dead letter.
    Dead,
    /// An earlier request's fate was asked for.
    Recovered,
    /// Written without a link, because what it points to never comes.
    Unlinked,
    /// Filled fields without a mapping, which went to `custom`.
    Custom,
}

/// What the processes of one name counted for one object: a process goes on
/// where the last one of its name stood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // Each field is the count of the variant of the same name.
pub struct Counts {
    pub extracted: u64,
    pub transformed: u64,
    pub applied: u64,
    pub unchanged: u64,
    pub stale: u64,
    pub absent: u64,
    pub parked: u64,
    pub released: u64,
    pub dead: u64,
    pub recovered: u64,
    pub unlinked: u64,
    pub custom: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.extracted += other.extracted;
        self.transformed += other.transformed;
        self.applied += other.applied;
        self.unchanged += other.unchanged;
        self.stale += other.stale;
        self.absent += other.absent;
        self.parked += other.parked;
        self.released += other.released;
        self.dead += other.dead;
        self.recovered += other.recovered;
        self.unlinked += other.unlinked;
        self.custom += other.custom;
    }

    fn of(&mut self, count: Count) -> (&mut u64, &'static str) {
        match count {
            Count::Extracted => (&mut self.extracted, "extracted"),
            Count::Transformed => (&mut self.transformed, "transformed"),
            Count::Applied => (&mut self.applied, "applied"),
            Count::Unchanged => (&mut self.unchanged, "unchanged"),
            Count::Stale => (&mut self.stale, "stale"),
            Count::Absent => (&mut self.absent, "absent"),
            Count::Parked => (&mut self.parked, "parked"),
            Count::Released => (&mut self.released, "released"),
            Count::Dead => (&mut self.dead, "dead"),
            Count::Recovered => (&mut self.recovered, "recovered"),
            Count::Unlinked => (&mut self.unlinked, "unlinked"),
            Count::Custom => (&mut self.custom, "custom"),
        }
    }
}

/// Where a lane stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lane {
    /// Running, Degraded, Throttled or Blocked.
    pub phase: Phase,
    /// Why, if it is not running: code, what happened, what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Until when it waits, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// What it waits for, if another lane's work comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The newest record it finished, by the time the record was read from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Millis>,
}

/// How far a reader is from where a topic's log starts: what retention would
/// have to remove before anything is lost that it has not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Offsets between the log's start and the position, of the nearest partition.
    pub records: u64,
    /// Time between the first record and the one that is read next, or now where
    /// everything is read; of the nearest partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The value in the topic `status`, keyed by the instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which stage.
    pub stage: Stage,
    /// Which connector.
    pub name: String,
    /// The instance's name.
    pub instance: String,
    /// Its process id.
    pub pid: u32,
    /// Its HTTP address.
    pub http: String,
    /// When it started.
    pub started_at: Millis,
    /// When it reported.
    pub at: Millis,
    /// What it is doing: the worst of its lanes.
    pub phase: Phase,
    /// The last error it met, code first; it may be over.
    pub last_error: Option<String>,
    /// When it met that error.
    #[serde(default)]
    pub last_error_at: Option<Millis>,
    /// Whether it has ended by that error; one that was told to end has not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Until when it waits, by our clock, before it tries again what that error
    /// ended; of a lane, the lane says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// By object.
    pub objects: BTreeMap<String, Counts>,
    /// By lane: an object or an entity.
    pub lanes: BTreeMap<String, Lane>,
    /// By lane, the newest record that any process of this name has finished, by
    /// the time the record was read from the source: what the last one has seen
    /// is not forgotten because this one gets nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, Millis>,
    /// By topic that is read, the distance to the start of its log.
    #[serde(default)]
    pub edges: BTreeMap<String, Edge>,
    /// What a person should look at, though the records went on, and how often
    /// it was met: values without a map, texts that could not be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remarks: BTreeMap<String, u64>,
    /// The generation of the mapping that the remarks are about, where it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remarks_of: Option<u32>,
    /// What it uses of its account's calls, where the account has a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Usage>,
}

impl Report {
    fn note_seen(&mut self, lane: &str, seen: Millis) {
        match self.seen.get_mut(lane) {
            Some(known) => *known = seen.max(*known),
            None => {
                self.seen.insert(lane.to_owned(), seen);
            }
        }
    }
}

/// The most different remarks that one process keeps.
const MOST_REMARKS: usize = 500;

/// The report of this process, updated as it works.
pub struct Status {
    report: Mutex<Report>,
    /// By lane and place, what is wrong although its records flow.
    conditions: Mutex<BTreeMap<(String, String), String>>,
    /// The first error that blocked a lane, and which.
    blocked_by: Mutex<Option<(String, Error)>>,
    metrics: Mutex<Metrics>,
    /// What the last process of this name said of its account.
    last_quota: Mutex<Option<Usage>>,
}

pub use crate::clock::now;

impl Status {
    /// The report of a process that starts, outside of any migration.
    pub fn new(stage: Stage, name: &str, instance: &str, http: &str) -> Result<Arc<Self>> {
        Status::within("", stage, name, instance, http)
    }

    /// The report of a migration's process that starts.
    pub fn within(
        migration: &str,
        stage: Stage,
        name: &str,
        instance: &str,
        http: &str,
    ) -> Result<Arc<Self>> {
        let metrics = Metrics::new(migration, stage.as_str(), instance)
            .map_err(|e| Error::new(Code::Invariant, format!("metrics: {e}")))?;
        Ok(Arc::new(Status {
            report: Mutex::new(Report {
                stage,
                name: name.to_owned(),
                instance: instance.to_owned(),
                pid: std::process::id(),
                http: http.to_owned(),
                started_at: now(),
                at: now(),
                phase: Phase::Starting,
                last_error: None,
                last_error_at: None,
                failed: false,
                until: None,
                objects: BTreeMap::new(),
                lanes: BTreeMap::new(),
                seen: BTreeMap::new(),
                edges: BTreeMap::new(),
                remarks: BTreeMap::new(),
                remarks_of: None,
                quota: None,
            }),
            conditions: Mutex::default(),
            blocked_by: Mutex::default(),
            metrics: Mutex::new(metrics),
            last_quota: Mutex::default(),
        }))
    }

    /// Counts records of an object.
    pub fn count(&self, object: &str, what: Count, number: u64) {
        if number == 0 {
            return;
        }
        let mut report = self.lock();
        if !report.objects.contains_key(object) {
            report.objects.insert(object.to_owned(), Counts::default());
        }
        if let Some(counts) = report.objects.get_mut(object) {
            let (value, name) = counts.of(what);
            *value += number;
            self.metrics().count(object, name, number);
        }
    }

    /// Goes on counting where the last process of this name stood, so that a
    /// restart makes nobody's numbers smaller.
    fn go_on_from(&self, last: Report) {
        *self.last_quota() = last.quota;
        let mut report = self.lock();
        // Whoever started later is younger, also where the clock went back
        // meanwhile: by this a process tells whether it was replaced.
        report.started_at = report.started_at.max(last.started_at + 1);
        for (object, counted) in last.objects {
            report.objects.entry(object).or_default().add(counted);
        }
        // One that ends at once, again and again, is seen while it starts, mostly.
        if report.last_error.is_none() && last.failed {
            report.last_error = last.last_error;
            report.last_error_at = last.last_error_at;
        }
        // Which generation it maps by, this process may not know yet.
        if report.remarks_of.is_none() || report.remarks_of == last.remarks_of {
            report.remarks_of = last.remarks_of;
            for (remark, number) in last.remarks {
                *report.remarks.entry(remark).or_default() += number;
            }
        }
        let lanes = last.lanes.into_iter();
        let lanes = lanes.filter_map(|(name, lane)| Some((name, lane.seen?)));
        for (lane, seen) in last.seen.into_iter().chain(lanes) {
            report.note_seen(&lane, seen);
        }
    }

    /// From now on remarks are about that generation of the mapping: those about
    /// another one are forgotten, also when the last process made them.
    pub fn maps_by(&self, generation: u32) {
        let mut report = self.lock();
        if report.remarks_of != Some(generation) {
            report.remarks.clear();
            report.remarks_of = Some(generation);
        }
    }

    /// Counts something that a person should see: `Object.Field: what`, or
    /// `Object: what` of an object as a whole. Of very many different ones the first
    /// are kept.
    pub fn remark(&self, text: String, number: u64) {
        let remarks = &mut self.lock().remarks;
        if remarks.len() < MOST_REMARKS || remarks.contains_key(&text) {
            *remarks.entry(text).or_default() += number;
        }
    }

    /// A remark on what is now of its place, instead of all that were made of that
    /// place before.
    pub fn remark_anew(&self, text: String) {
        let place = text.split(": ").next().unwrap_or_default();
        let of_place = format!("{place}: ");
        let remarks = &mut self.lock().remarks;
        remarks.retain(|known, _| *known == text || !known.starts_with(&of_place));
        if remarks.len() < MOST_REMARKS {
            remarks.entry(text).or_insert(1);
        }
    }

    /// Says what the process uses of its account's calls.
    pub fn quota(&self, usage: Option<Usage>) {
        if let Some(usage) = &usage {
            self.metrics().quota(usage);
        }
        self.lock().quota = usage;
    }

    /// What the last process of this name said of its account's calls, once.
    pub fn take_last_quota(&self) -> Option<Usage> {
        self.last_quota().take()
    }

    fn last_quota(&self) -> std::sync::MutexGuard<'_, Option<Usage>> {
        self.last_quota
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the process as a whole is doing. What has ended stays so, whatever
    /// a thread says that is left behind.
    pub fn phase(&self, phase: Phase) {
        let mut report = self.lock();
        if report.phase != Phase::Stopped {
            report.phase = phase;
        }
    }

    /// A lane works again, or still.
    pub fn lane_runs(&self, lane: &str, seen: Option<Millis>) {
        let mut report = self.lock();
        let known = report.lanes.get(lane).and_then(|lane| lane.seen);
        let condition = self
            .conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .find(|((other, _), _)| other == lane)
            .map(|(_, text)| text.clone());
        let lane_now = Lane {
            phase: match condition {
                Some(_) => Phase::Degraded,
                None => Phase::Running,
            },
            error: condition,
            until: None,
            waits_for: report.lanes.get(lane).and_then(|l| l.waits_for.clone()),
            seen: seen.or(known),
        };
        self.set_lane(&mut report, lane, lane_now, None);
    }

    /// A lane met an error; `wait` is how long it waits before it tries again.
    pub fn lane_failed(&self, lane: &str, error: &Error, wait: Option<Duration>) {
        let phase = match (error.class(), wait) {
            (Class::Throttled, _) => Phase::Throttled,
            (_, Some(_)) => Phase::Degraded,
            (_, None) => Phase::Blocked,
        };
        tracing::warn!(lane, ?phase, %error, "the lane waits");
        if phase == Phase::Blocked {
            self.blocked_by()
                .get_or_insert_with(|| (lane.to_owned(), error.clone()));
        }
        let mut report = self.lock();
        let seen = report.lanes.get(lane).and_then(|lane| lane.seen);
        let lane_now = Lane {
            phase,
            error: Some(match wait {
                Some(_) => error.while_running(),
                None => error.to_string(),
            }),
            until: wait.map(|wait| now() + wait.as_millis() as Millis),
            waits_for: None,
            seen,
        };
        report.last_error = lane_now.error.clone();
        report.last_error_at = Some(now());
        report.until = None;
        let throttled = (phase == Phase::Throttled).then(|| error.code.as_str());
        self.set_lane(&mut report, lane, lane_now, throttled);
    }

    /// Something is wrong with a place of a lane, although what it gets flows;
    /// the lane is shown as degraded until this is taken back by `None`.
    pub fn lane_condition(&self, lane: &str, place: &str, error: Option<&Error>) {
        {
            let mut conditions = self
                .conditions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let key = (lane.to_owned(), place.to_owned());
            match error {
                Some(error) => conditions.insert(key, error.to_string()),
                None => conditions.remove(&key),
            };
        }
        if let Some(error) = error {
            tracing::warn!(lane, %error, "the lane is held back");
            self.note_error(error);
        }
        let standing = self.lock().lanes.get(lane).map(|lane| lane.phase);
        if matches!(standing, Some(Phase::Running | Phase::Degraded)) {
            self.lane_runs(lane, None);
        }
    }

    /// The distances to the starts of the logs that are read.
    pub fn edges(&self, edges: BTreeMap<String, Edge>) {
        for (topic, edge) in &edges {
            self.metrics().edge(topic, edge.records, edge.seconds);
        }
        self.lock().edges = edges;
    }

    /// Says what a lane waits for, or that it waits no more.
    pub fn lane_waits(&self, lane: &str, for_what: Option<String>) {
        if let Some(lane) = self.lock().lanes.get_mut(lane) {
            lane.waits_for = for_what;
        }
    }

    /// `throttled` is the code of what a throttled lane waits for.
    fn set_lane(
        &self,
        report: &mut Report,
        lane: &str,
        now: Lane,
        throttled: Option<&'static str>,
    ) {
        self.metrics()
            .lane(lane, now.phase.as_str(), throttled, now.seen);
        if let Some(seen) = now.seen {
            report.note_seen(lane, seen);
        }
        if now.phase != Phase::Blocked {
            self.blocked_by().take_if(|(blocked, _)| blocked == lane);
        }
        report.lanes.insert(lane.to_owned(), now);
        let worst = [Phase::Blocked, Phase::Throttled, Phase::Degraded]
            .into_iter()
            .find(|phase| report.lanes.values().any(|lane| lane.phase == *phase));
        if matches!(
            report.phase,
            Phase::Running | Phase::Degraded | Phase::Throttled | Phase::Blocked
        ) {
            report.phase = worst.unwrap_or(Phase::Running);
        }
    }

    /// Notes an error that concerns the process, not a lane; it goes on.
    pub fn note_error(&self, error: &Error) {
        self.noted(error.while_running());
    }

    /// Notes an error that concerns the process, which tries again after that wait.
    pub fn note_wait(&self, error: &Error, wait: Duration) {
        self.noted(error.while_running());
        self.lock().until = Some(now() + wait.as_millis() as Millis);
    }

    /// Notes the error that ends the process.
    pub fn ended_by(&self, error: &Error) {
        self.noted(error.to_string());
        self.lock().failed = true;
    }

    /// Notes that the process ends because whoever supervised it has gone.
    pub fn abandoned(&self) {
        self.noted("`drover run` has gone; start it again".to_owned());
        self.lock().failed = true;
    }

    fn noted(&self, error: String) {
        let mut report = self.lock();
        report.last_error = Some(error);
        report.last_error_at = Some(now());
        report.until = None;
    }

    /// Whether every lane is blocked (and there is one).
    pub fn all_blocked(&self) -> bool {
        let report = self.lock();
        !report.lanes.is_empty()
            && report
                .lanes
                .values()
                .all(|lane| lane.phase == Phase::Blocked)
    }

    /// Why no lane can go on without a person: what blocked the first of them, with
    /// its code where such an error ends a process that may be started again.
    pub fn all_blocked_by(&self) -> Error {
        let first = self.blocked_by().clone();
        let Some((lane, error)) = first else {
            return Error::new(Code::Refused, "every lane is blocked");
        };
        let texts: BTreeSet<Option<String>> = {
            let report = self.lock();
            let lanes = report.lanes.values();
            lanes.map(|lane| lane.error.clone()).collect()
        };
        let message = match texts.len() {
            0 | 1 => format!("every lane is blocked: {}", error.message),
            _ => format!("every lane is blocked, {lane} by this: {}", error.message),
        };
        let code = match (error.class(), error.code.exit()) {
            (Class::Operator, 3) => error.code,
            _ => Code::Refused,
        };
        Error {
            code,
            message,
            ..error
        }
    }

    fn blocked_by(&self) -> std::sync::MutexGuard<'_, Option<(String, Error)>> {
        self.blocked_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The report as it stands.
    pub fn report(&self) -> Report {
        let mut report = self.lock().clone();
        report.at = now();
        report
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> std::sync::MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports each second until `stop`, and once more at the end. A report
    /// that does not arrive is no failure: the next one replaces it. The last
    /// process's report is read before it is replaced.
    pub async fn publish(self: Arc<Self>, client: Client, topic: String, stop: CancellationToken) {
        let Ok(producer) = PlainProducer::open(&client) else {
            return;
        };
        let mut producer = Arc::new(producer);
        let mut backoff = Backoff::default();
        loop {
            let (client, topic) = (client.clone(), topic.clone());
            let read = tokio::task::spawn_blocking(move || read_to_end(&client, &topic)).await;
            let instance = self.lock().instance.clone();
            match read {
                Ok(Err(error)) if passes(&error) && !stop.is_cancelled() => {
                    let wait = backoff.after(&error).min(Duration::from_secs(2));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Ok(Ok(reports)) => {
                    let last = reports.get(instance.as_bytes());
                    if let Some(last) = last.and_then(|value| serde_json::from_slice(value).ok()) {
                        self.go_on_from(last);
                    }
                    break;
                }
                // Not initialised: there was nobody before.
                _ => break,
            }
        }
        loop {
            let last = stop.is_cancelled();
            let report = self.report();
            let value = serde_json::to_vec(&report).unwrap_or_default();
            let record = Record::new(&topic, report.instance.as_bytes(), Some(&value));
            // A producer that met a fatal error takes nothing more.
            if producer.send(record.clone()).is_err()
                && let Ok(another) = PlainProducer::open(&client)
            {
                producer = Arc::new(another);
                let _ = producer.send(record);
            }
            if last {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
        let flushed =
            tokio::task::spawn_blocking(move || producer.flush(Duration::from_secs(6))).await;
        if let Ok(Err(error)) = flushed {
            tracing::debug!(%error, "the last report did not arrive");
        }
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` until `stop`.
    pub async fn serve(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        stop: CancellationToken,
    ) {
        let router = axum::Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the HTTP address is gone");
        }
    }
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    let report = status.report();
    let text = format!(
        "{}\n{}",
        serde_json::to_string(&report.phase).unwrap_or_default(),
        report.last_error.unwrap_or_default()
    );
    match report.phase {
        Phase::Running | Phase::Degraded | Phase::Throttled | Phase::Standby => {
            (StatusCode::OK, text)
        }
        Phase::Starting | Phase::Blocked | Phase::Stopping | Phase::Stopped => {
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> String {
    status.metrics().render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_makes_no_number_smaller() {
        let status = || Status::new(Stage::Loader, "x", "loader-1", "").expect("a status");
        let first = status();
        first.count("Contact", Count::Unchanged, 3);
        let second = status();
        second.count("Contact", Count::Unchanged, 1);
        second.go_on_from(first.report());
        second.count("Contact", Count::Unchanged, 1);
        assert_eq!(second.report().objects["Contact"].unchanged, 5);
    }

    #[test]
    fn a_process_that_starts_says_what_the_last_one_ended_by() {
        let status = || Status::new(Stage::Extractor, "x", "e-1", "").expect("a status");
        let ended = |failed| Report {
            failed,
            last_error: Some("RECORDS_LOST: gone".to_owned()),
            last_error_at: Some(5),
            ..status().report()
        };
        let error = |last: Report| {
            let next = status();
            next.go_on_from(last);
            let report = next.report();
            (report.last_error, report.last_error_at)
        };
        let known = (Some("RECORDS_LOST: gone".to_owned()), Some(5));
        assert_eq!(error(ended(true)), known);
        assert_eq!(error(ended(false)), (None, None), "it was told to end");
    }

    #[test]
    fn a_remark_takes_the_place_of_those_of_the_same_place() {
        let status = Status::new(Stage::Extractor, "x", "e-1", "").expect("a status");
        status.remark_anew("Contact.Old: gone".to_owned());
        status.remark_anew("Contact.Older: gone".to_owned());
        status.remark_anew("Contact.Old: new".to_owned());
        status.remark_anew("Contact.Old: new".to_owned());
        let told: Vec<(String, u64)> = status.report().remarks.into_iter().collect();
        let both = ["Contact.Old: new", "Contact.Older: gone"];
        assert_eq!(told, both.map(|text| (text.to_owned(), 1)));
    }

    #[test]
    fn remarks_are_kept_over_a_restart_as_long_as_the_mapping_is_the_same() {
        let status = || Status::new(Stage::Transformer, "x", "t-1", "").expect("a status");
        let met = |status: &Status| status.remark("Contact.Level: no map".to_owned(), 62);
        let first = status();
        first.maps_by(2);
        met(&first);
        let kept = |status: &Status| {
            status
                .report()
                .remarks
                .get("Contact.Level: no map")
                .copied()
        };
        // What the last process said may be read before or after the mapping.
        let second = status();
        second.go_on_from(first.report());
        second.maps_by(2);
        met(&second);
        assert_eq!(kept(&second), Some(124));
        let third = status();
        third.maps_by(2);
        third.go_on_from(first.report());
        assert_eq!(kept(&third), Some(62));
        // A remap looks at all records anew.
        let remapped = status();
        remapped.go_on_from(first.report());
        remapped.maps_by(3);
        assert_eq!(kept(&remapped), None);
        let remapped = status();
        remapped.maps_by(3);
        remapped.go_on_from(first.report());
        assert_eq!(kept(&remapped), None);
    }

    #[test]
    fn what_the_last_process_has_read_is_known_though_this_one_reads_nothing() {
        let status = || Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        let first = status();
        first.lane_runs("Contact", Some(5_000));
        let second = status();
        second.lane_runs("Contact", None);
        second.go_on_from(first.report());
        let refused = Error::new(Code::Unauthorized, "401");
        second.lane_failed("Contact", &refused, None);
        assert_eq!(second.report().seen["Contact"], 5_000);
        // A process of before this was reported tells it by its lanes alone.
        let third = status();
        let mut older = first.report();
        older.seen.clear();
        third.go_on_from(older);
        assert_eq!(third.report().seen["Contact"], 5_000);
        third.lane_runs("Contact", Some(6_000));
        assert_eq!(third.report().seen["Contact"], 6_000);
    }

    #[test]
    fn a_process_ends_with_what_blocked_its_lanes() {
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        let refused = Error::new(Code::Unauthorized, "the login is refused")
            .source_code("invalid_grant")
            .at("oauth2/token");
        status.lane_failed("Account", &refused, None);
        status.lane_failed("Contact", &refused, None);
        assert_eq!(
            status.all_blocked_by().to_string(),
            "UNAUTHORIZED: every lane is blocked: the login is refused [invalid_grant] \
             (at oauth2/token); renew the credentials, then run this again"
        );
        let other = Error::new(Code::Forbidden, "403");
        status.lane_failed("Contact", &other, None);
        let told = status.all_blocked_by().to_string();
        let first = "UNAUTHORIZED: every lane is blocked, Account by this: the login is refused";
        assert!(told.starts_with(first), "{told}");
        // A process that ended by this code would not be started again.
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        status.lane_failed("Account", &Error::new(Code::ConfigInvalid, "no"), None);
        assert_eq!(status.all_blocked_by().code, Code::Refused);
    }

    #[test]
    fn what_has_ended_stays_so_and_tells_whether_by_an_error() {
        let status = Status::new(Stage::Loader, "x", "loader-1", "").expect("a status");
        status.phase(Phase::Stopped);
        status.phase(Phase::Running);
        let report = status.report();
        assert_eq!((report.phase, report.failed), (Phase::Stopped, false));
        status.ended_by(&Error::new(Code::Refused, "no"));
        assert!(status.report().failed);
    }

    #[test]
    fn who_starts_later_is_younger_though_the_clock_went_back() {
        let status = || Status::new(Stage::Loader, "x", "loader-1", "").expect("a status");
        let second = status();
        let first = Report {
            started_at: second.report().started_at + 3_600_000,
            ..status().report()
        };
        let before = first.started_at;
        second.go_on_from(first);
        assert!(second.report().started_at > before);
    }
}
