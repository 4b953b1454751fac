//! The org's limits: calls that were made, calls that are left.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::errors::ApiError;
use super::store::Store;
use crate::exchange::Call;

/// The calls of the day; the sandbox's day has no end.
#[derive(Debug)]
pub struct Usage {
    used: AtomicU64,
    most: AtomicU64,
}

impl Usage {
    /// Nothing used yet of so many calls.
    pub fn new(most: u64) -> Usage {
        Usage {
            used: AtomicU64::new(0),
            most: AtomicU64::new(most),
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
const UNUSED: [(&str, u64); 69] = [
    ("AnalyticsExternalDataSizeMB", 40_960),
    ("CdpAiInferenceApiMonthlyLimit", 500_000_000),
    ("ConcurrentAsyncGetReportInstances", 200),
    ("ConcurrentEinsteinDataInsightsStoryCreation", 5),
    ("ConcurrentEinsteinDiscoveryStoryCreation", 2),
    ("ConcurrentSyncReportRuns", 20),
    ("ContentDistBandwidthLimitMB", 51_200),
    ("ContentDistViewLimit", 50_000),
    ("ContentPublicationLimit", 2_500),
    ("DailyAnalyticsDataflowJobExecutions", 60),
    ("DailyAnalyticsUploadedFilesSizeMB", 51_200),
    ("DailyApexCursorLimit", 10_000),
    ("DailyApexCursorRowsLimit", 100_000_000),
    ("DailyApexPCursorLimit", 200_000),
    ("DailyAsyncApexExecutions", 250_000),
    ("DailyAsyncApexTests", 500),
    ("DailyBulkApiBatches", 15_000),
    ("DailyBulkV2QueryFileStorageMB", 976_562),
    (QUERY_JOBS, 10_000),
    ("DailyDeliveredPlatformEvents", 10_000),
    ("DailyDurableGenericStreamingApiEvents", 10_000),
    ("DailyDurableStreamingApiEvents", 10_000),
    ("DailyEinsteinDataInsightsStoryCreation", 1_000),
    ("DailyEinsteinDiscoveryOptimizationJobRuns", 25),
    ("DailyEinsteinDiscoveryPredictAPICalls", 50_000),
    ("DailyEinsteinDiscoveryPredictionsByCDC", 500_000),
    ("DailyEinsteinDiscoveryStoryCreation", 100),
    ("DailyFunctionsApiCallLimit", 50_000),
    ("DailyGenericStreamingApiEvents", 10_000),
    ("DailyMetadataRetrievesWithDependencies", 25),
    ("DailyServiceEmailAgentforceCalls", 5_000),
    ("DailyStandardVolumePlatformEvents", 10_000),
    ("DailyStreamingApiEvents", 10_000),
    ("DailyWorkflowEmails", 8_040),
    ("DataStorageMB", 10_240),
    ("DurableStreamingApiConcurrentClients", 20),
    ("ExternalServicesActiveObjects", 3_000),
    ("ExternalServicesActiveOperations", 3_000),
    ("ExternalServicesObjectProperties", 400_000),
    ("ExternalServicesObjects", 10_000),
    ("ExternalServicesOperations", 10_000),
    ("ExternalServicesRegistrations", 700),
    ("FileStorageMB", 10_240),
    ("HourlyAsyncReportRuns", 1_200),
    ("HourlyDashboardRefreshes", 200),
    ("HourlyDashboardResults", 5_000),
    ("HourlyDashboardStatuses", 999_999_999),
    ("HourlyElevateAsyncReportRuns", 1_200),
    ("HourlyElevateSyncReportRuns", 500),
    ("HourlyLongTermIdMapping", 100_000),
    ("HourlyManagedContentPublicRequests", 50_000),
    ("HourlyODataCallout", 1_000),
    ("HourlyPublishedPlatformEvents", 50_000),
    ("HourlyPublishedStandardVolumePlatformEvents", 1_000),
    ("HourlyShortTermIdMapping", 100_000),
    ("HourlySyncReportRuns", 500),
    ("HourlyTimeBasedWorkflow", 1_000),
    ("MassEmail", 5_000),
    ("MaxContentDocumentsLimit", 30_000_000),
    ("MonthlyEinsteinDiscoveryStoryCreation", 500),
    ("Package2VersionCreates", 6),
    ("Package2VersionCreatesWithoutValidation", 500),
    ("PlatformEventTriggersWithParallelProcessing", 5),
    ("PrivateConnectOutboundCalloutHourlyLimitMB", 0),
    ("PublishCallbackUsageInApex", 5_242_880),
    ("ScheduledFlowRunLimit", 250_000),
    ("ScheduledPathRunLimit", 250_000),
    ("SingleEmail", 5_000),
    ("StreamingApiConcurrentClients", 20),
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
    all.push((
        "PermissionSets",
        json!({"Max": 1_500, "Remaining": 1_500, "CreateCustom": {"Max": 1_000, "Remaining": 1_000}}),
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
