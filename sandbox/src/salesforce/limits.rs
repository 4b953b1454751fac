//! The org's limits: calls that were made, calls that are left.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::errors::ApiError;
use super::store::Store;
use crate::exchange::Call;

/// Calls a day, as of an Enterprise org with some users.
const MOST: u64 = 100_000;

/// The calls of the day; the sandbox's day has no end.
#[derive(Debug)]
pub struct Usage {
    used: AtomicU64,
    most: AtomicU64,
}

impl Usage {
    /// Nothing used yet.
    pub fn new() -> Usage {
        Usage {
            used: AtomicU64::new(0),
            most: AtomicU64::new(MOST),
        }
    }

    /// Counts a call; false if there was none left.
    pub fn take(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < most).then_some(used + 1)
            })
            .is_ok()
    }

    /// Sets what is used, and how much there is.
    pub fn set(&self, used: Option<u64>, most: Option<u64>) {
        if let Some(used) = used {
            self.used.store(used, Ordering::Relaxed);
        }
        if let Some(most) = most {
            self.most.store(most, Ordering::Relaxed);
        }
    }

    /// Calls used and calls a day.
    pub fn get(&self) -> (u64, u64) {
        (
            self.used.load(Ordering::Relaxed),
            self.most.load(Ordering::Relaxed),
        )
    }

    /// The value of `Sforce-Limit-Info`.
    pub fn header(&self) -> String {
        let (used, most) = self.get();
        format!("api-usage={used}/{most}")
    }
}

/// The limit of query jobs.
const QUERY_JOBS: &str = "DailyBulkV2QueryJobs";

/// Names and sizes of limits; of most the sandbox never uses any.
const UNUSED: [(&str, u64); 20] = [
    ("AnalyticsExternalDataSizeMB", 40_960),
    ("ConcurrentAsyncGetReportInstances", 200),
    ("ConcurrentSyncReportRuns", 20),
    ("DailyAnalyticsDataflowJobExecutions", 60),
    ("DailyAsyncApexExecutions", 250_000),
    ("DailyBulkApiBatches", 15_000),
    ("DailyBulkV2QueryFileStorageMB", 976_562),
    (QUERY_JOBS, 10_000),
    ("DailyDurableGenericStreamingApiEvents", 10_000),
    ("DailyDurableStreamingApiEvents", 10_000),
    ("DailyGenericStreamingApiEvents", 10_000),
    ("DailyStandardVolumePlatformEvents", 10_000),
    ("DailyStreamingApiEvents", 10_000),
    ("DailyWorkflowEmails", 8_040),
    ("DataStorageMB", 10_240),
    ("FileStorageMB", 10_240),
    ("HourlyODataCallout", 1_000),
    ("HourlyTimeBasedWorkflow", 1_000),
    ("MassEmail", 5_000),
    ("SingleEmail", 5_000),
];

/// The answer to `/limits`; so many query jobs were made.
pub fn limits(usage: &Usage, queries: u64) -> Value {
    let (used, most) = usage.get();
    let mut all: Vec<(&str, Value)> = UNUSED
        .iter()
        .map(|(name, most)| {
            let used = if *name == QUERY_JOBS { queries } else { 0 };
            (
                *name,
                json!({"Max": most, "Remaining": most.saturating_sub(used)}),
            )
        })
        .collect();
    all.push((
        "DailyApiRequests",
        json!({"Max": most, "Remaining": most.saturating_sub(used)}),
    ));
    all.sort_by_key(|limit| limit.0);
    Value::Object(
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// The answer to `/limits/recordCount`: objects without records and unknown
/// ones are missing.
pub fn record_counts(store: &Store, call: &Call) -> Result<Value, ApiError> {
    let wanted: Option<Vec<String>> = call.parameter("sObjects").map(|names| {
        names
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .collect()
    });
    let counts: Vec<Value> = store
        .schema
        .objects
        .iter()
        .enumerate()
        .filter(|(_, object)| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&object.name.to_lowercase()))
        })
        .map(|(number, object)| (object, store.table(number).live()))
        .filter(|(_, count)| wanted.is_some() || *count > 0)
        .map(|(object, count)| json!({"count": count, "name": object.name}))
        .collect();
    Ok(json!({"sObjects": counts}))
}
