//! What a running migration looks like: one model, read from Kafka alone, that
//! every command renders.
//!
//! A [`Model`] is fed with the records of the state topics, once to their end
//! ([`read`]) or for ever ([`Watch`]), and keeps counts, not records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_pipeline::control::Plan;
use drover_pipeline::extract::Object;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::client::{Client, PATIENCE};
use drover_pipeline::kafka::compacted::{Follower, Tail, ranges, scan};
use drover_pipeline::record::Millis;
use drover_pipeline::status::{Edge, Lane, Phase, Report, SILENCE, now};
use drover_pipeline::topics::Topics;
use drover_pipeline::{Error, Result};
use serde::Serialize;

mod model;

use crate::connectors::program;
use crate::offsets::{Group, Lag};
use crate::quota::{self, QuotaView};
pub use model::{Model, Table};

/// A process that has run on for so long since its last error is over it.
const OVER: Duration = Duration::from_secs(60);

/// A migration at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Its id.
    pub migration: String,
    /// `ready`, `loading` (until the source is wholly copied once), `syncing`,
    /// `paused` (the same while no process runs), or `dry-running` (`ready`
    /// while none runs).
    pub phase: &'static str,
    /// Whether every record was in exactly one place when that was last proved;
    /// null until then.
    pub balanced: Option<bool>,
    /// The moment that the last proof speaks of, by our clock.
    pub balanced_at: Option<Millis>,
    /// The generation of the mapping that the last proof was taken by, where that is
    /// known.
    pub balanced_generation: Option<u32>,
    /// The source's name.
    pub source: String,
    /// The target's name.
    pub target: String,
    /// Whether nothing is loaded.
    pub dry_run: bool,
    /// The mapping's generation.
    pub generation: u32,
    /// When this was read, by our clock.
    pub at: Millis,
    /// By object, in the plan's order.
    pub objects: Vec<ObjectView>,
    /// The processes that have reported within a day.
    pub processes: Vec<ProcessView>,
    /// What a person should look at, though the records went on, and how often
    /// the processes met it: values without a map, texts that can't be read.
    pub remarks: BTreeMap<String, u64>,
    /// The accounts with a quota of calls that the processes work with.
    pub quotas: Vec<QuotaView>,
}

/// An object at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectView {
    /// Its API name.
    pub object: String,
    /// About how many records the source had when the migration was initialised.
    pub expected: Option<u64>,
    /// Whether the first, whole copy has been read.
    pub snapshot_complete: bool,
    /// Record versions read from the source and committed.
    pub extracted: u64,
    /// Record versions that were mapped, as the running processes counted.
    pub mapped: u64,
    /// Canonical records that the target has, in whatever version: one a record and
    /// slot.
    pub loaded: u64,
    /// Canonical records that the target rightly has not: deleted, left out by
    /// a filter, or an empty slot.
    pub absent: u64,
    /// Versions that the target had already, as the running processes counted.
    pub unchanged: u64,
    /// Versions older than what is known, as the running processes counted.
    pub stale: u64,
    /// Canonical records that wait.
    pub parked: u64,
    /// Records that could not go on.
    pub dead: u64,
    /// Of these, what a person has decided to leave.
    pub waived: u64,
    /// Of the dead, those of which the target has an older version: they count among
    /// the loaded, too.
    pub dead_but_loaded: u64,
    /// The moment up to which the source was asked for changes; null until the
    /// first, whole copy is read.
    pub asked_at: Option<Millis>,
    /// When the source last gave something new, by our clock.
    pub changed_at: Option<Millis>,
    /// How far it is behind.
    pub lag: LagView,
}

/// How far an object is behind: records over all hops, seconds of the worst.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LagView {
    /// Records that are extracted and not through.
    pub records: u64,
    /// How long the oldest of them, or the source itself, waits; null until the
    /// first, whole copy is read.
    pub seconds: Option<u64>,
    /// Source → raw: seconds since the moment up to which the source is read.
    pub extract: HopView,
    /// Raw → canonical.
    pub transform: HopView,
    /// Canonical → target: of all entities that the object gives, whoever
    /// their records come from.
    pub load: HopView,
}

/// One hop of an object's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopView {
    /// Records not yet through; null where nobody can know.
    pub records: Option<u64>,
    /// How long the oldest of them has waited for this hop.
    pub seconds: Option<u64>,
}

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// The name of its program.
    pub name: String,
    /// Its own name.
    pub instance: String,
    /// `extractor`, `transformer` or `loader`.
    pub stage: &'static str,
    /// Its process id, on its machine.
    pub pid: u32,
    /// Where it serves health and metrics.
    pub http: String,
    /// Whether it has reported within the last 10 s and has not ended.
    pub alive: bool,
    /// What it does.
    pub phase: Phase,
    /// Whether it has ended by its last error; one that was told to end has not.
    pub failed: bool,
    /// The last error it met; it may be over.
    pub last_error: Option<String>,
    /// When it met that error.
    pub last_error_at: Option<Millis>,
    /// Whether all of it has worked for a minute since, though it may have been told
    /// to end meanwhile.
    pub last_error_over: bool,
    /// Until when it waits before it tries again what its last error ended; a lane
    /// says so itself.
    pub until: Option<Millis>,
    /// When it reported last.
    pub at: Millis,
    /// Its lanes that do not simply run: what is wrong, or what they wait for.
    pub lanes: BTreeMap<String, Lane>,
    /// By topic that it reads, how far it is from the start of the topic's log,
    /// where retention would remove what was not read yet.
    pub edges: BTreeMap<String, Edge>,
}

/// What the view of a migration is read with.
pub struct Reader {
    client: Client,
    topics: Topics,
    plan: Plan,
    /// How often the source is asked for changes.
    poll: Duration,
    header: View,
    transform: Group,
    load: Option<Group>,
}

impl Reader {
    /// A reader of the migration that the plan belongs to.
    pub fn open(bus: &crate::migration::Bus, plan: Plan) -> Result<Self> {
        let (client, topics) = (bus.client.clone(), bus.topics.clone());
        let load = match bus.config.dry_run {
            true => None,
            false => Some(Group::open(&client, &topics.load_group())?),
        };
        Ok(Reader {
            transform: Group::open(&client, &topics.transform_group())?,
            load,
            header: View {
                migration: bus.config.id.clone(),
                phase: "ready",
                balanced: None,
                balanced_at: None,
                balanced_generation: None,
                source: bus.config.source_type.clone(),
                target: bus.config.target_type.clone(),
                dry_run: bus.config.dry_run,
                generation: plan.generation,
                at: 0,
                objects: Vec::new(),
                processes: Vec::new(),
                remarks: BTreeMap::new(),
                quotas: Vec::new(),
            },
            poll: Duration::from_millis(bus.config.poll_interval_ms),
            client,
            topics,
            plan,
        })
    }

    /// The state topics, and what each holds.
    fn tables(&self) -> [(String, Table); 6] {
        [
            (self.topics.status(), Table::Status),
            (self.topics.checkpoint(), Table::Checkpoint),
            (self.topics.idempotency(), Table::Idempotency),
            (self.topics.parked(), Table::Parked),
            (self.topics.deadletter(), Table::DeadLetter),
            (self.topics.control(), Table::Control),
        ]
    }

    /// Reads all state topics to their end.
    pub fn model(&self) -> Result<Model> {
        let mut model = Model::default();
        for (topic, table) in self.tables() {
            scan(&self.client, &topic, |_, _, key, value| {
                model.apply(table, key, value)
            })?;
        }
        Ok(model)
    }

    /// Follows all state topics from now on.
    pub fn watch(&self) -> Result<Watch> {
        let tables = self.tables();
        let shared = Arc::new(Shared {
            tables: tables.to_vec(),
            model: Mutex::new((Model::default(), None)),
        });
        let names: Vec<String> = tables.into_iter().map(|(topic, _)| topic).collect();
        let tail = Tail::start(&self.client, &names, Arc::<Shared>::clone(&shared))?;
        let mut ends = Vec::new();
        for name in &names {
            let ranges = ranges(&self.client, name)?.into_iter();
            let held = ranges.filter(|(_, (low, high))| high > low);
            ends.extend(held.map(|(place, (_, high))| (place, high)));
        }
        Ok(Watch { shared, tail, ends })
    }

    /// The same, from the state as it is now on: what the topics hold has been
    /// read when this returns. Blocks.
    pub fn watch_from_now(&self) -> Result<Watch> {
        let watch = self.watch()?;
        for (place, end) in &watch.ends {
            watch.tail.wait_for(place, *end, PATIENCE)?;
        }
        Ok(watch)
    }

    /// What the groups have not read, as it is now.
    pub fn lags(&self) -> Result<Lags> {
        let raw = |name: &str, custom| self.topics.raw(name, custom);
        let raws: Vec<String> = self
            .plan
            .objects
            .iter()
            .map(|o| raw(&o.name, o.custom))
            .collect();
        let canonicals: Vec<String> = self
            .plan
            .entities
            .iter()
            .map(|entity| self.topics.canonical(entity))
            .collect();
        Ok(Lags {
            transform: self.transform.lag(&raws)?,
            load: match &self.load {
                Some(group) => group.lag(&canonicals)?,
                None => BTreeMap::new(),
            },
        })
    }

    /// The view of a model, with the lag as it is now.
    pub fn view(&self, model: &Model) -> Result<View> {
        Ok(self.view_with(model, &self.lags()?))
    }

    /// The view of a model, with that lag.
    pub fn view_with(&self, model: &Model, lags: &Lags) -> View {
        let raw = |name: &str, custom| self.topics.raw(name, custom);
        let (transform, load) = (by_topic(&lags.transform), by_topic(&lags.load));
        let at = now();
        let age = |then: Millis| u64::try_from((at - then) / 1000).unwrap_or(0);
        let hop = |lags: &[&Lag]| HopView {
            records: Some(lags.iter().map(|lag| lag.records).sum()),
            seconds: match lags.iter().filter(|lag| lag.records > 0).count() {
                0 => Some(0),
                _ => lags.iter().filter_map(|lag| lag.oldest).min().map(age),
            },
        };
        let mut view = View {
            at,
            balanced: model.balance().map(|balance| balance.balanced),
            balanced_at: model.balance().map(|balance| balance.at),
            balanced_generation: model
                .balance()
                .map(|balance| balance.generation)
                .filter(|generation| *generation > 0),
            processes: processes(model, at),
            remarks: remarks(model),
            quotas: quota::views(model, &self.plan.objects, self.poll, at),
            ..self.header.clone()
        };
        for object in &self.plan.objects {
            let entities = crate::init::entities_of(&self.plan.mapping, object);
            let loads: Vec<&Lag> = entities
                .iter()
                .filter_map(|e| load.get(self.topics.canonical(e).as_str()))
                .collect();
            let checkpoint = model.checkpoint(&object.name);
            let mut shown = model.object(&object.name);
            shown.expected = object.count;
            let rules = self.plan.mapping.of(object).into_iter();
            let slots = rules.flat_map(|rules| rules.slots.keys().map(String::as_str));
            shown.dead_but_loaded = model.outlived(&object.name, slots);
            // A round that finds nothing new writes no checkpoint, but the
            // extractor reports it. Before the copy is whole nobody can tell.
            let covered = checkpoint
                .and_then(|c| c.as_of)
                .max(model.seen(&object.name));
            shown.asked_at = covered.filter(|_| shown.snapshot_complete);
            shown.changed_at = checkpoint.and_then(|c| c.changed_at);
            shown.lag.extract.seconds = shown.asked_at.map(age);
            let transforms = transform.get(raw(&object.name, object.custom).as_str());
            shown.lag.transform = hop(transforms.as_slice());
            if self.load.is_some() {
                shown.lag.load = hop(&loads);
            }
            let hops = [shown.lag.extract, shown.lag.transform, shown.lag.load];
            // A group's distance counts markers of transactions, what compaction has
            // taken away and, of an entity, other objects' records, too.
            let most = shown.extracted * slots_of(&self.plan, object);
            let records: u64 = hops.iter().filter_map(|hop| hop.records).sum();
            shown.lag.records = records.min(most);
            shown.lag.seconds = shown
                .lag
                .extract
                .seconds
                .and_then(|_| hops.iter().filter_map(|hop| hop.seconds).max());
            view.objects.push(shown);
        }
        let runs = view.processes.iter().any(|process| process.alive);
        view.phase = match () {
            () if !model.has_started() => "ready",
            () if !runs => "paused",
            () if self.header.dry_run => "dry-running",
            () if view.objects.iter().all(|object| object.snapshot_complete) => "syncing",
            () => "loading",
        };
        view
    }
}

/// What the groups of a migration have not read, by partition.
#[derive(Debug, Clone, Default)]
pub struct Lags {
    /// Of the raw topics.
    pub(crate) transform: BTreeMap<Place, Lag>,
    /// Of the canonical topics.
    pub(crate) load: BTreeMap<Place, Lag>,
}

/// Reads where a migration stands.
pub fn read(bus: &crate::migration::Bus) -> Result<View> {
    let plan = Plan::read(&bus.client, &bus.topics)?;
    let reader = Reader::open(bus, plan)?;
    let model = reader.model()?;
    reader.view(&model)
}

/// How many canonical records a record of the object gives.
fn slots_of(plan: &Plan, object: &Object) -> u64 {
    let rules = plan.mapping.of(object);
    rules.map_or(1, |rules| rules.slots.len().max(1) as u64)
}

fn by_topic(lags: &BTreeMap<Place, Lag>) -> BTreeMap<&str, Lag> {
    let mut topics: BTreeMap<&str, Lag> = BTreeMap::new();
    for (place, lag) in lags {
        let topic = topics.entry(&place.topic).or_default();
        topic.records += lag.records;
        topic.oldest = match (topic.oldest, lag.oldest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    topics
}

fn remarks(model: &Model) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (remark, count) in model.reports().flat_map(|report| &report.remarks) {
        *all.entry(remark.clone()).or_default() += count;
    }
    all
}

/// Whether nothing was wrong with a lane of the process when it reported.
fn all_run(report: &Report) -> bool {
    let mut lanes = report.lanes.values();
    lanes.all(|lane| lane.phase == Phase::Running)
}

fn processes(model: &Model, at: Millis) -> Vec<ProcessView> {
    let silence = SILENCE.as_millis() as Millis;
    let alive = |report: &Report| report.phase != Phase::Stopped && at - report.at <= silence;
    let over = |report: &Report| {
        // What was told to end has worked until its last report.
        let (works, until) = match report.phase {
            Phase::Running => (alive(report), at),
            Phase::Stopped => (!report.failed && all_run(report), report.at),
            _ => (false, at),
        };
        let lasted = report.last_error_at.map(|met| until - met);
        works && lasted.is_some_and(|lasted| lasted > OVER.as_millis() as Millis)
    };
    let mut processes: Vec<ProcessView> = model
        .reports()
        .map(|report| ProcessView {
            name: program(report.stage, &report.name),
            instance: report.instance.clone(),
            stage: report.stage.as_str(),
            pid: report.pid,
            http: report.http.clone(),
            alive: alive(report),
            phase: report.phase,
            failed: report.failed,
            last_error: report.last_error.clone(),
            last_error_at: report.last_error_at,
            last_error_over: over(report),
            until: report.until,
            at: report.at,
            lanes: report
                .lanes
                .iter()
                .filter(|(_, lane)| lane.phase != Phase::Running || lane.waits_for.is_some())
                .map(|(name, lane)| (name.clone(), lane.clone()))
                .collect(),
            edges: report.edges.clone(),
        })
        .collect();
    processes.sort_by(|a, b| (a.stage, &a.instance).cmp(&(b.stage, &b.instance)));
    processes
}

/// A model that follows the migration.
pub struct Watch {
    shared: Arc<Shared>,
    tail: Tail,
    /// Where the topics ended when this began.
    ends: Vec<(Place, i64)>,
}

struct Shared {
    tables: Vec<(String, Table)>,
    model: Mutex<(Model, Option<Error>)>,
}

impl Watch {
    /// What `with` sees in the model as it stands.
    pub fn look<T>(&self, with: impl FnOnce(&Model) -> T) -> T {
        with(&self.shared.lock().0)
    }

    /// Whether what the topics held when this began has been read: before that the
    /// model is of a migration of long ago.
    pub fn is_current(&self) -> bool {
        let mut ends = self.ends.iter();
        ends.all(|(place, end)| self.tail.is_at(place, *end))
    }

    /// Why reading failed since this was asked last.
    pub fn trouble(&self) -> Option<Error> {
        self.shared.lock().1.take()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Model, Option<Error>)> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Shared {
    fn record(&self, place: &Place, _offset: i64, key: &[u8], value: Option<&[u8]>) {
        if let Some((_, table)) = self.tables.iter().find(|(topic, _)| *topic == place.topic) {
            self.lock().0.apply(*table, key, value);
        }
    }

    fn failed(&self, error: Error) {
        self.lock().1 = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use drover_pipeline::spec::Stage;
    use drover_pipeline::status::Status;

    use super::*;

    /// Whether the last error of a loader is over that met it at 0, reported at
    /// `at`, and was as `change` has it; seen just then.
    fn over(at: Millis, change: impl FnOnce(&mut Report)) -> bool {
        let status = Status::new(Stage::Loader, "x", "loader-1", "").expect("a status");
        status.lane_runs("contact", None);
        let mut report = Report {
            at,
            last_error: Some("FENCED: another one took over; wait".to_owned()),
            last_error_at: Some(0),
            ..status.report()
        };
        change(&mut report);
        let mut model = Model::default();
        let value = serde_json::to_vec(&report).expect("serialises");
        model.apply(Table::Status, b"loader-1", Some(&value));
        processes(&model, at)[0].last_error_over
    }

    #[test]
    fn an_error_is_over_when_the_process_has_worked_since_and_though_it_ended_then() {
        assert!(over(61_000, |report| report.phase = Phase::Running));
        assert!(!over(60_000, |report| report.phase = Phase::Running));
        assert!(!over(61_000, |report| report.phase = Phase::Degraded));
        assert!(over(61_000, |report| report.phase = Phase::Stopped));
        assert!(!over(60_000, |report| report.phase = Phase::Stopped));
        assert!(!over(61_000, |report| {
            report.phase = Phase::Stopped;
            report.failed = true;
        }));
        assert!(!over(61_000, |report| {
            report.phase = Phase::Stopped;
            for lane in report.lanes.values_mut() {
                lane.phase = Phase::Blocked;
            }
        }));
    }
}
