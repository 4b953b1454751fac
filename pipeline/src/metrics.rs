//! Every metric of Drover: its name, its labels, what it means, who serves it.
//! Names and units follow OpenMetrics (base units, `_total` for counters); a
//! consumer group's lag has the names that Kafka dashboards know
//! (kafka-lag-exporter's).
//!
//! A stage serves its own counters at `/metrics`; what concerns the migration
//! as a whole is served by `drover metrics`, once, however many stages run.
//! Board and alert rules in `deploy/` use only what stands here; a test
//! compares them.

use std::collections::BTreeMap;
use std::time::Instant;

use prometheus::process_collector::ProcessCollector;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::quota::Usage;

/// Who serves a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Each stage process, at its own `/metrics`.
    Stage,
    /// `drover metrics`.
    Migration,
    /// Each stage process, by the Prometheus library's process collector.
    Library,
}

/// A metric's name and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name, unit and suffix included.
    pub name: &'static str,
    /// Its own labels; stages add `stage` and `instance` to theirs, `drover
    /// metrics` adds `migration`.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
    /// Who serves it.
    pub server: Server,
}

impl Family {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

macro_rules! families {
    ($( $name:ident = $server:ident $text:literal [$($label:literal),*] $help:literal; )*) => {
        $(
            #[doc = $help]
            pub const $name: Family = Family {
                name: $text, labels: &[$($label),*], help: $help, server: Server::$server,
            };
        )*
        /// Every metric there is.
        pub const ALL: &[Family] = &[$($name),*];
    };
}

families! {
    RECORDS = Stage "drover_records_total" ["object", "outcome"]
        "Records, by what became of them, since the process started.";
    LANE_STATE = Stage "drover_lane_state" ["lane", "state"]
        "1 for the state that a lane (an object or an entity) is in, 0 for the others.";
    LANE_SEEN = Stage "drover_lane_seen_timestamp_seconds" ["lane"]
        "When the newest record that the lane has finished was read from the source.";
    THROTTLED = Stage "drover_throttled_seconds_total" ["lane", "reason"]
        "Seconds that a lane has waited because the other side asked for it; the reason is the error's code.";
    EDGE_RECORDS = Stage "drover_log_start_distance_records" ["topic"]
        "Offsets between the start of a topic's log and what is read next of it, of the nearest partition: what retention must remove before anything unread is lost.";
    EDGE_SECONDS = Stage "drover_log_start_distance_seconds" ["topic"]
        "The same as time between the first record and the one that is read next, or now where everything is read.";
    QUOTA_LEFT = Stage "drover_quota_left_calls" ["account"]
        "Calls that the account has left, as the other side told this process last.";
    QUOTA_RESERVE = Stage "drover_quota_reserve_calls" ["account"]
        "Calls of the account that stay for the customer's other tools.";
    QUOTA_SHARE = Stage "drover_quota_share_calls" ["account"]
        "Calls that this process may make of what the account has left.";
    QUOTA_CALLS = Stage "drover_quota_calls_total" ["account"]
        "Calls that the process has made since it started.";
    QUOTA_POLL = Stage "drover_quota_poll_interval_seconds" ["account"]
        "How often each object of the source is asked for changes, so that the account's calls last; more than pollIntervalMs where they would not.";

    PHASE = Migration "drover_migration_phase" ["phase"]
        "1 for the phase that the migration is in.";
    BALANCED = Migration "drover_balanced" []
        "Whether the last balance found every record in exactly one place; missing until one was taken.";
    BALANCED_AT = Migration "drover_balanced_timestamp_seconds" []
        "The moment that the last balance speaks of, in seconds since 1970; missing until one was taken.";
    OBJECT_RECORDS = Migration "drover_object_records" ["object", "state"]
        "Records of an object, by where they are: expected, extracted, loaded, absent, parked, dead, waived.";
    SNAPSHOT = Migration "drover_snapshot_complete" ["object"]
        "Whether the first, whole copy of the object has been read.";
    FRESHNESS = Migration "drover_freshness_seconds" ["object"]
        "How far the target is behind the source: the worst hop; missing until the first copy is read.";
    HOP_RECORDS = Migration "drover_hop_lag_records" ["object", "hop"]
        "Records that wait for a hop: transform or load.";
    HOP_SECONDS = Migration "drover_hop_lag_seconds" ["object", "hop"]
        "How long the oldest record that waits for a hop has waited, by the records' own times; for extract, how long ago the source was read up to.";
    SCALABLE = Migration "drover_scalable_lag_records" ["stage"]
        "Records in front of a stage that more replicas would help with: those of lanes that neither a quota nor a blocked or waiting lane holds back. Made for autoscaling.";
    ALIVE = Migration "drover_process_alive" ["stage", "process", "instance"]
        "Whether a process that reported within a day still does. One that was told to end, as by a scale-down, has none.";
    FAILED = Migration "drover_process_failed" ["stage", "process", "instance"]
        "Whether a process has ended by an error and was not started again.";
    STAGE_PROCESSES = Migration "drover_stage_processes" ["stage"]
        "How many processes of a stage report.";

    GROUP_LAG = Migration "kafka_consumergroup_group_lag" ["group", "topic", "partition"]
        "Records of a partition that the group has not committed.";
    GROUP_LAG_SECONDS = Migration "kafka_consumergroup_group_lag_seconds" ["group", "topic", "partition"]
        "How long the oldest of them has waited, by the records' own times.";
    GROUP_MAX_LAG = Migration "kafka_consumergroup_group_max_lag" ["group"]
        "The largest lag of the group's partitions.";
    GROUP_MAX_LAG_SECONDS = Migration "kafka_consumergroup_group_max_lag_seconds" ["group"]
        "The largest lag of the group's partitions, in seconds.";
    GROUP_SUM_LAG = Migration "kafka_consumergroup_group_sum_lag" ["group"]
        "The lag of all partitions of the group.";
    GROUP_TOPIC_SUM_LAG = Migration "kafka_consumergroup_group_topic_sum_lag" ["group", "topic"]
        "The lag of all partitions of a topic.";

    CPU = Library "process_cpu_seconds_total" []
        "Processor time that the process has used.";
    MEMORY = Library "process_resident_memory_bytes" []
        "Memory of the process.";
    OPEN_FILES = Library "process_open_fds" []
        "Files and connections that the process has open.";
    MAX_FILES = Library "process_max_fds" []
        "How many it may open.";
    STARTED = Library "process_start_time_seconds" []
        "When the process started.";
}

/// The states of a lane, as [`LANE_STATE`] shows them.
const LANE_STATES: [&str; 4] = ["running", "degraded", "throttled", "blocked"];

/// The metrics of a stage process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    records: IntCounterVec,
    states: IntGaugeVec,
    seen: GaugeVec,
    throttled: CounterVec,
    quota: [GaugeVec; 3],
    poll: GaugeVec,
    calls: IntCounterVec,
    /// The lanes that are throttled: since when this was last counted, and why.
    throttling: BTreeMap<String, (Instant, &'static str)>,
    edge_records: IntGaugeVec,
    edge_seconds: IntGaugeVec,
}

impl Metrics {
    /// The metrics of a process; the migration's id, `stage` and `instance` label all
    /// of them.
    pub fn new(migration: &str, stage: &str, instance: &str) -> prometheus::Result<Self> {
        let labels = [
            ("migration", migration),
            ("stage", stage),
            ("instance", instance),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        let registry = Registry::new_custom(None, Some(labels))?;
        let records = IntCounterVec::new(RECORDS.opts(), RECORDS.labels)?;
        let states = IntGaugeVec::new(LANE_STATE.opts(), LANE_STATE.labels)?;
        let seen = GaugeVec::new(LANE_SEEN.opts(), LANE_SEEN.labels)?;
        let throttled = CounterVec::new(THROTTLED.opts(), THROTTLED.labels)?;
        let edge_records = IntGaugeVec::new(EDGE_RECORDS.opts(), EDGE_RECORDS.labels)?;
        let edge_seconds = IntGaugeVec::new(EDGE_SECONDS.opts(), EDGE_SECONDS.labels)?;
        registry.register(Box::new(edge_records.clone()))?;
        registry.register(Box::new(edge_seconds.clone()))?;
        let quota = [
            GaugeVec::new(QUOTA_LEFT.opts(), QUOTA_LEFT.labels)?,
            GaugeVec::new(QUOTA_RESERVE.opts(), QUOTA_RESERVE.labels)?,
            GaugeVec::new(QUOTA_SHARE.opts(), QUOTA_SHARE.labels)?,
        ];
        let calls = IntCounterVec::new(QUOTA_CALLS.opts(), QUOTA_CALLS.labels)?;
        let poll = GaugeVec::new(QUOTA_POLL.opts(), QUOTA_POLL.labels)?;
        registry.register(Box::new(poll.clone()))?;
        for gauge in &quota {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(states.clone()))?;
        registry.register(Box::new(seen.clone()))?;
        registry.register(Box::new(throttled.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Metrics {
            registry,
            records,
            states,
            seen,
            throttled,
            quota,
            poll,
            calls,
            throttling: BTreeMap::new(),
            edge_records,
            edge_seconds,
        })
    }

    /// Records of an object came to an end.
    pub fn count(&self, object: &str, outcome: &str, number: u64) {
        let counter = self.records.with_label_values(&[object, outcome]);
        counter.inc_by(number);
    }

    /// How far what is read of a topic is from the start of its log.
    pub fn edge(&self, topic: &str, records: u64, seconds: Option<u64>) {
        let set = |gauge: &IntGaugeVec, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            gauge.with_label_values(&[topic]).set(value);
        };
        set(&self.edge_records, records);
        if let Some(seconds) = seconds {
            set(&self.edge_seconds, seconds);
        }
    }

    /// What the process uses of its account's calls.
    pub fn quota(&self, usage: &Usage) {
        let values = [usage.left, usage.reserve, usage.share];
        for (gauge, value) in self.quota.iter().zip(values) {
            let gauge = gauge.with_label_values(&[usage.account.as_str()]);
            gauge.set(value as f64);
        }
        if let Some(polls) = &usage.polls {
            let poll = self.poll.with_label_values(&[usage.account.as_str()]);
            poll.set(polls.interval_ms as f64 / 1000.0);
        }
        let calls = self.calls.with_label_values(&[usage.account.as_str()]);
        calls.inc_by(usage.calls.saturating_sub(calls.get()));
    }

    /// A lane is in that state (one of `running`, `degraded`, `throttled`,
    /// `blocked`) from now on. `reason` is why it is throttled; `seen` is the
    /// time of its newest finished record, in milliseconds.
    pub fn lane(
        &mut self,
        lane: &str,
        state: &str,
        reason: Option<&'static str>,
        seen: Option<i64>,
    ) {
        self.spend(Some(lane));
        for known in LANE_STATES {
            let gauge = self.states.with_label_values(&[lane, known]);
            gauge.set(i64::from(known == state));
        }
        if let Some(seen) = seen {
            let gauge = self.seen.with_label_values(&[lane]);
            gauge.set(seen as f64 / 1000.0);
        }
        match reason {
            Some(reason) => {
                // Zero at first, so that a rate sees the first wait.
                self.throttled.with_label_values(&[lane, reason]);
                self.throttling
                    .insert(lane.to_owned(), (Instant::now(), reason));
            }
            None => {
                self.throttling.remove(lane);
            }
        }
    }

    /// Counts the time that a lane, or each, has been throttled since this was
    /// counted last.
    fn spend(&mut self, only: Option<&str>) {
        for (lane, (since, reason)) in &mut self.throttling {
            if only.is_none_or(|only| only == lane) {
                let counter = self.throttled.with_label_values(&[lane.as_str(), *reason]);
                counter.inc_by(since.elapsed().as_secs_f64());
                *since = Instant::now();
            }
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&mut self) -> String {
        self.spend(None);
        text(&self.registry)
    }
}

/// A page of gauges that is made anew for each scrape, from a model that lives
/// elsewhere.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
    gauges: BTreeMap<&'static str, GaugeVec>,
}

impl Page {
    /// A page whose values all carry the migration's id.
    pub fn new(migration: &str) -> prometheus::Result<Self> {
        let labels = [("migration".to_owned(), migration.to_owned())].into();
        Ok(Page {
            registry: Registry::new_custom(None, Some(labels))?,
            gauges: BTreeMap::new(),
        })
    }

    /// Sets a gauge; the labels stand in the family's order.
    pub fn set(&mut self, family: &Family, labels: &[&str], value: f64) -> prometheus::Result<()> {
        if !self.gauges.contains_key(family.name) {
            let gauge = GaugeVec::new(family.opts(), family.labels)?;
            self.registry.register(Box::new(gauge.clone()))?;
            self.gauges.insert(family.name, gauge);
        }
        if let Some(gauge) = self.gauges.get(family.name) {
            gauge.get_metric_with_label_values(labels)?.set(value);
        }
        Ok(())
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        text(&self.registry)
    }

    /// The same for a program: each family with its values and their labels.
    pub fn to_json(&self) -> serde_json::Value {
        let families = self.registry.gather();
        let family = |family: &prometheus::proto::MetricFamily| {
            let values = family.get_metric().iter().map(|metric| {
                let labels = metric.get_label().iter();
                let labels: BTreeMap<&str, &str> =
                    labels.map(|label| (label.name(), label.value())).collect();
                serde_json::json!({"labels": labels, "value": metric.get_gauge().get_value()})
            });
            serde_json::json!({
                "name": family.name(),
                "help": family.help(),
                "values": values.collect::<Vec<_>>(),
            })
        };
        families.iter().map(family).collect()
    }
}

fn text(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::quota::Polls;

    fn names(text: &str) -> BTreeSet<&str> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).collect()
    }

    #[test]
    fn a_stage_serves_what_is_said_of_it() {
        let mut metrics = Metrics::new("mig-1", "loader", "l-1").expect("opens");
        metrics.count("Contact", "applied", 3);
        metrics.quota(&Usage {
            account: "acme".to_owned(),
            left: 7,
            polls: Some(Polls {
                interval_ms: 67_200,
                ..Polls::default()
            }),
            ..Usage::default()
        });
        metrics.lane("contact", "throttled", Some("THROTTLED"), Some(1500));
        metrics.edge("t", 3, Some(5));
        let text = metrics.render();
        for family in ALL.iter().filter(|f| f.server != Server::Migration) {
            assert!(names(&text).contains(family.name), "{}", family.name);
        }
        let of_migration =
            |line: &str| line.starts_with('#') || line.contains(r#"migration="mig-1""#);
        assert!(text.lines().all(of_migration), "{text}");
        // The common labels come in any order behind the family's own.
        let value = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start));
            line.and_then(|line| line.rsplit(' ').next().map(str::to_owned))
        };
        let records = r#"drover_records_total{object="Contact",outcome="applied","#;
        assert_eq!(value(records).as_deref(), Some("3"), "{text}");
        let left = r#"drover_quota_left_calls{account="acme","#;
        assert_eq!(value(left).as_deref(), Some("7"), "{text}");
        let poll = r#"drover_quota_poll_interval_seconds{account="acme","#;
        assert_eq!(value(poll).as_deref(), Some("67.2"), "{text}");
        let seen = r#"drover_lane_seen_timestamp_seconds{lane="contact","#;
        assert_eq!(value(seen).as_deref(), Some("1.5"), "{text}");
    }

    #[test]
    fn throttled_time_is_counted_while_it_passes_and_not_after() {
        let mut metrics = Metrics::new("mig-1", "loader", "l-1").expect("opens");
        let spent = |metrics: &Metrics| {
            let counter = metrics
                .throttled
                .with_label_values(&["contact", "THROTTLED"]);
            counter.get()
        };
        metrics.lane("contact", "throttled", Some("THROTTLED"), None);
        assert_eq!(spent(&metrics), 0.0);
        metrics.render();
        let first = spent(&metrics);
        assert!(first > 0.0);
        metrics.lane("contact", "running", None, None);
        let second = spent(&metrics);
        assert!(second > first);
        metrics.render();
        assert_eq!(spent(&metrics), second);
    }

    #[test]
    fn a_name_has_its_unit_and_stands_once() {
        let all: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(all.len(), ALL.len());
        for family in ALL.iter().filter(|f| f.server == Server::Stage) {
            assert!(family.name.starts_with("drover_"), "{}", family.name);
        }
    }
}
