//! What users of other extractors of SaaS products complain of, by the threads'
//! names; `docs/complaints.md` lists them all.

mod model;

use drover_extractor_salesforce::{Config, Salesforce};
use drover_pipeline::testing::extractor::{Reader, Source, Write, object};
use model::{Model, State};
use serde_json::json;

/// Whether a record arrives that shows only when the lane has read past its
/// stamp, and the source says nothing of open transactions.
async fn late_record_arrives(lookback_ms: u32) -> bool {
    let mut state = State::new(11, 20);
    state.honest = false;
    let model = Model::run(state, 6, lookback_ms).await;
    let extractor = model.extractor();
    let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
    reader.catch_up(&extractor).await;
    model.state().delay = None;
    let late = model.state().write("Account", Write::Create);
    let late = late.expect("a record that shows later");
    for id in reader.known.keys().take(2).cloned().collect::<Vec<_>>() {
        // Others are written meanwhile and show at once: the position moves on.
        {
            let mut state = model.state();
            state.now += 20_000;
            state.delay = Some(0);
            state.write("Account", Write::Edit(&id)).expect("an edit");
            state.now += 20_000;
        }
        reader.catch_up(&extractor).await;
    }
    assert!(!reader.known.contains_key(&late), "it shows too early");
    model.settle().await;
    reader.catch_up(&extractor).await;
    reader.known.contains_key(&late)
}

/// Rows whose `SystemModstamp` lies below the saved cursor are never read.
#[tokio::test]
async fn airbyte_27146_a_record_that_shows_below_the_cursor_is_read() {
    assert!(late_record_arrives(600_000).await);
    // The same history without overlap loses it, so this proves something.
    assert!(!late_record_arrives(0).await);
}

/// The overlap was there, and its default was none.
#[tokio::test]
async fn airbyte_69203_without_a_setting_rounds_overlap_far_enough() {
    let config = json!({"instanceUrl": "https://acme.my.salesforce.com", "clientId": "id"});
    let config: Config = serde_json::from_value(config).expect("a config");
    assert!(config.lookback_ms >= 60_000, "{}", config.lookback_ms);
    assert!(late_record_arrives(config.lookback_ms).await);
}

/// A search that ends at its 10,000th hit says nothing of the others: 9,990 of
/// 2 million came. Here every kind of answer is cut short by the source.
#[tokio::test]
async fn airbyte_23630_no_limit_of_an_answer_is_the_end_of_an_object() {
    for threshold in [0, u64::MAX] {
        let mut state = State::new(12, 300);
        state.short = true;
        state.most_deletes = 7;
        let mut model = Model::run(state, 50, 600_000).await;
        model.threshold = threshold;
        let extractor = model.extractor();
        let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
        reader.catch_up(&extractor).await;
        assert_eq!(reader.known.len(), 300);
        for (at, id) in reader.known.keys().take(120).enumerate() {
            let mut state = model.state();
            let what = [Write::Purge(id), Write::Edit(id)][at % 2];
            state.write("Account", what).expect("written");
            state.now += 60_000;
        }
        model.settle().await;
        // The log is read part by part, each up to a time; the last one is behind
        // all that was written.
        model.state().now += 1_200_000;
        let now = model.state().now - 600_000;
        while reader.catch_up(&extractor).await < now {}
        reader.compare(&model.truth("Account").await, "limits everywhere");
    }
}

/// Rows are skipped when the cursor's field changes while pages are read.
#[tokio::test]
async fn airbyte_21500_what_is_edited_between_two_pages_is_not_skipped() {
    let model = Model::run(State::new(13, 60), 6, 600_000).await;
    let ids: Vec<String> = model.truth("Account").await.into_keys().collect();
    let edited = ids.clone();
    let mut at = 0;
    model.state().chaos = Some(Box::new(move |state| {
        // Before each request some records leave their place for the end.
        for _ in 0..4 {
            at += 7;
            state.write("Account", Write::Edit(&edited[at % edited.len()]));
        }
        state.now += 1_000;
    }));
    let extractor = model.extractor();
    let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
    while !reader.complete {
        reader.step(&extractor).await.expect("a page");
    }
    assert!(
        ids.iter().all(|id| reader.known.contains_key(id)),
        "a row was skipped"
    );
    for _ in 0..40 {
        reader.step(&extractor).await.expect("a page");
    }
    model.state().chaos = None;
    model.settle().await;
    reader.catch_up(&extractor).await;
    reader.catch_up(&extractor).await;
    reader.compare(
        &model.truth("Account").await,
        "edited between any two pages",
    );
}
