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
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(lanes.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Metrics {
            registry,
            records,
            lanes,
            lag,
        })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}
