//! The org's calls: how many are made, and what is done when none is left.

mod sandbox;

use std::time::Duration;

use drover_pipeline::Code;
use drover_pipeline::extract::{Extractor, Reached};
use drover_pipeline::testing::extractor::{Reader, Source, object};
use reqwest::Method;
use sandbox::Sandbox;
use serde_json::json;

/// One call for 2,000 rows, beside the two of a first copy (the time at which
/// the changes start, and a count at its end), and two
/// for each object that has not changed; as the sandbox counts them.
#[tokio::test]
async fn calls_are_few() {
    let sandbox = Sandbox::run(&["--records", "12000", "--seed", "3"], Duration::ZERO);
    let extractor = sandbox.client(json!({"pageSize": 2000}));
    let mut rows_read = 0;
    for name in Sandbox::OBJECTS {
        let object = object(&extractor, name).await;
        let rows = sandbox.truth(name).await.values().flatten().count();
        let before = sandbox.requests().await;
        let mut reader = Reader::new(object);
        while !reader.complete {
            reader.step(&extractor).await.expect("a page");
        }
        let calls = sandbox.requests().await - before;
        let most = rows.div_ceil(2_000) as u64 + 2;
        assert!(calls <= most, "{name}: {calls} calls for {rows} rows");
        while !matches!(reader.step(&extractor).await, Ok(Reached::Now { .. })) {}
        let before = sandbox.requests().await;
        reader.step(&extractor).await.expect("an idle round");
        let calls = sandbox.requests().await - before;
        assert!(calls <= 2, "{name}: {calls} calls of an idle round");
        rows_read += rows;
    }
    assert!(rows_read > 4_000, "only {rows_read} rows");
}

/// At the reserve no further call is made, whoever asks, and the error says
/// until when; what the source has left is read from each of its answers.
#[tokio::test]
async fn the_reserve_is_left_alone() {
    let sandbox = Sandbox::run(&["--records", "100", "--seed", "3"], Duration::ZERO);
    let (extractor, http) = sandbox.metered(json!({"reservePercent": 25}));
    http.meter().guard();
    let quota = json!({"used": 730, "max": 1000});
    let set = sandbox.control(Method::POST, "quota", Some(quota)).await;
    set.expect("set");
    let error = loop {
        match extractor.check().await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::QuotaExhausted);
    assert!(
        error.message.contains("250 of 1,000 calls are left"),
        "{error}"
    );
    assert!(error.message.contains("until "), "{error}");
    let wait = error.retry_after.expect("a time");
    assert!(wait <= drover_pipeline::quota::WAIT && wait > Duration::from_secs(60));
    let usage = http.meter().usage().expect("told");
    assert_eq!((usage.left, usage.reserve, usage.calls), (250, 250, 20));
    let before = sandbox.requests().await;
    extractor.check().await.expect_err("still closed");
    assert_eq!(sandbox.requests().await, before, "nothing was asked");
}

/// An org without a call left: one request hears so, and nobody asks again.
#[tokio::test]
async fn a_used_up_quota_is_asked_once() {
    let sandbox = Sandbox::run(&["--records", "100", "--seed", "3"], Duration::ZERO);
    let (extractor, http) = sandbox.metered(json!({}));
    http.meter().guard();
    let quota = json!({"used": 1000, "max": 1000});
    let set = sandbox.control(Method::POST, "quota", Some(quota)).await;
    set.expect("set");
    let error = extractor.check().await.expect_err("used up");
    assert_eq!(error.code, Code::QuotaExhausted);
    assert_eq!(error.source_code.as_deref(), Some("REQUEST_LIMIT_EXCEEDED"));
    assert_eq!(error.retry_after, Some(drover_pipeline::quota::WAIT));
    let told = "UTC, then one call looks whether there are more";
    assert!(error.message.ends_with(told), "{error}");
    let before = sandbox.requests().await;
    extractor.check().await.expect_err("still closed");
    assert_eq!(sandbox.requests().await, before, "nothing was asked");
}
