//! The names of all metrics, in one place, in OpenMetrics units.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// The metrics of a stage process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `drover_records_total{object,outcome}`: records, by what became of them.
    pub records: IntCounterVec,
    /// `drover_lane_healthy{lane,state}`: 1 for the state a lane is in.
    pub lanes: IntGaugeVec,
    /// `drover_lag_records{topic}`: records not yet read, as of the last look.
    pub lag: IntGaugeVec,
    /// `drover_log_start_distance_records{topic}`: offsets between the start of
    /// the log and what is read next, of the nearest partition.
    pub edge_records: IntGaugeVec,
    /// `drover_log_start_distance_seconds{topic}`: the same in time.
    pub edge_seconds: IntGaugeVec,
}

impl Metrics {
    /// The metrics of a process; `stage` and `instance` label all of them.
    pub fn new(stage: &str, instance: &str) -> prometheus::Result<Self> {
        let labels = [("stage", stage), ("instance", instance)]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let registry = Registry::new_custom(None, Some(labels))?;
        let records = IntCounterVec::new(
            Opts::new("drover_records_total", "Records, by what became of them."),
            &["object", "outcome"],
        )?;
        let lanes = IntGaugeVec::new(
            Opts::new("drover_lane_state", "1 for the state a lane is in."),
            &["lane", "state"],
        )?;
        let lag = IntGaugeVec::new(
            Opts::new("drover_lag_records", "Records not yet read."),
            &["topic"],
        )?;
        let edge = |name: &str, unit: &str| {
            let help = format!("{unit} that retention must remove before unread records are lost.");
            IntGaugeVec::new(Opts::new(name, help), &["topic"])
        };
        let edge_records = edge("drover_log_start_distance_records", "Records")?;
        let edge_seconds = edge("drover_log_start_distance_seconds", "Seconds")?;
        registry.register(Box::new(edge_records.clone()))?;
        registry.register(Box::new(edge_seconds.clone()))?;
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(lanes.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Metrics {
            registry,
            records,
            lanes,
            lag,
            edge_records,
            edge_seconds,
        })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}
