//! Cases that the suite does not come to: many deletes, undeletes, a log that
//! is too short, records that are none, one token for many tasks.

mod model;

use std::sync::Arc;

use drover_extractor_salesforce::Cursor;
use drover_pipeline::extract::{Extractor, Reached};
use drover_pipeline::record::Op;
use drover_pipeline::testing::extractor::{Fault, Reader, Source, Write, object};
use drover_pipeline::{Class, Code};
use model::{Model, State};

async fn model(records: usize, page: usize) -> Model {
    Model::run(State::new(3, records), page, 600_000).await
}

/// More deletes than one call looks at: each arrives, and the cursor between
/// two calls says how far the log was read.
#[tokio::test]
async fn thousands_are_gone_for_good() {
    let model = model(3_000, 2_000).await;
    let extractor = model.extractor();
    let mut reader = Reader::new(object(&extractor, "Account").await);
    reader.catch_up(&extractor).await;
    let ids: Vec<String> = reader.known.keys().cloned().collect();
    for id in ids.iter().take(2_900) {
        model
            .state()
            .write("Account", Write::Purge(id))
            .expect("purged");
    }
    model.settle().await;
    let mut calls = 0;
    while !matches!(reader.step(&extractor).await, Ok(Reached::Now { .. })) {
        assert!(matches!(
            reader.cursor,
            Some(Cursor::Delta { round: Some(_), .. })
        ));
        calls += 1;
    }
    assert_eq!(calls, 2);
    reader.compare(&model.truth("Account").await, "after 2,900 deletes");
}

/// A formula changes without a stamp: it arrives when the interval is over, and
/// what changes meanwhile is not held up by the reading.
#[tokio::test]
async fn formulas_are_read_again_at_the_interval() {
    let model = model(20, 6).await;
    let extractor = model.extractor();
    let mut reader = Reader::new(object(&extractor, "Account").await);
    reader.catch_up(&extractor).await;
    let ids: Vec<String> = reader.known.keys().cloned().collect();
    model.state().formula = 7;
    model.settle().await;
    reader.catch_up(&extractor).await;
    assert!(
        reader
            .known
            .values()
            .all(|known| !known.1.as_deref().unwrap_or_default().contains("= 7"))
    );
    // Six hours, and some.
    model.state().now += 22_000_000;
    let mut pages = 0;
    while matches!(reader.step(&extractor).await, Ok(Reached::More)) {
        pages += 1;
        let id = ids[19 - pages].clone();
        model
            .state()
            .write("Account", Write::Edit(&id))
            .expect("an edit");
        model.state().now += 2_000;
        if pages == 3 {
            // Between two pages the round has come, with what was just edited.
            assert!(reader.page.iter().any(|change| change.id == ids[17]));
        }
    }
    // The round that begins it, and four pages with a round behind each but the
    // last; rounds overlap, so some of them take two pages.
    assert!(pages >= 1 + 4 + 3, "{pages}");
    model.settle().await;
    reader.catch_up(&extractor).await;
    reader.compare(&model.truth("Account").await, "read again");
    let cursor = reader.cursor.clone();
    reader.catch_up(&extractor).await;
    assert_eq!(reader.cursor, cursor, "and not once more");
}

/// The log still names a record that was brought back: it is not deleted.
#[tokio::test]
async fn an_undeleted_record_is_no_delete() {
    let model = model(5, 2).await;
    let extractor = model.extractor();
    let mut reader = Reader::new(object(&extractor, "Account").await);
    reader.catch_up(&extractor).await;
    let id = reader.known.keys().next().cloned().expect("a record");
    model
        .state()
        .write("Account", Write::Delete(&id))
        .expect("deleted");
    model
        .state()
        .write("Account", Write::Undelete(&id))
        .expect("undeleted");
    model.settle().await;
    reader.catch_up(&extractor).await;
    assert!(reader.page.iter().any(|change| change.id == id));
    assert!(reader.page.iter().all(|change| change.op == Op::Upsert));
}

/// After days without anybody reading, all that was written, deleted, brought
/// back and removed for good arrives.
#[tokio::test]
async fn an_outage_of_days_is_made_good() {
    for most_deletes in [600_000, 40] {
        let model = model(600, 200).await;
        let extractor = model.extractor();
        let mut reader = Reader::new(object(&extractor, "Account").await);
        reader.catch_up(&extractor).await;
        let ids: Vec<String> = reader.known.keys().cloned().collect();
        // So many deletes that one answer can't hold them.
        model.state().most_deletes = most_deletes;
        for (at, id) in ids.iter().enumerate() {
            let mut state = model.state();
            let what = match at % 4 {
                0 => Write::Edit(id),
                1 => Write::Delete(id),
                2 => Write::Purge(id),
                _ => Write::Create,
            };
            state.write("Account", what).expect("written");
            if at % 8 == 1 {
                state.now += 2_000;
                state.write("Account", Write::Undelete(id)).expect("back");
            }
            // Ten days in all.
            state.now += 1_440_000;
        }
        model.settle().await;
        // Part of the log after part: it says each time how far it has come.
        let now = model.state().now - 600_000;
        while reader.catch_up(&extractor).await < now {}
        let context = format!("{most_deletes} deletes in an answer");
        reader.compare(&model.truth("Account").await, &context);
    }
}

/// A locator that lapses in the middle of an answer costs one more call.
#[tokio::test]
async fn a_lapsed_locator_is_asked_anew() {
    let model = model(40, 40).await;
    let extractor = model.extractor();
    let account = object(&extractor, "Account").await;
    let ids: Vec<String> = model.truth("Account").await.into_keys().collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    model.state().short = true;
    let mut lapsed = 0;
    for _ in 0..30 {
        model.state().forget_locators = true;
        match extractor.get(&account, &ids).await {
            Ok(found) => assert!(found.iter().all(Option::is_some)),
            Err(error) => {
                assert_eq!(
                    (error.code, error.class()),
                    (Code::BadAnswer, Class::Transient)
                );
                lapsed += 1;
                let found = extractor.get(&account, &ids).await.expect("all of them");
                assert!(found.iter().all(Option::is_some));
            }
        }
    }
    assert!(lapsed > 3, "{lapsed}");
}

/// A lane that stood still for longer than the log of deletes is kept must not
/// go on as if it knew.
#[tokio::test]
async fn a_log_that_is_too_short_asks_for_a_person() {
    let model = model(5, 2).await;
    let extractor = model.extractor();
    let mut reader = Reader::new(object(&extractor, "Account").await);
    reader.catch_up(&extractor).await;
    {
        let mut state = model.state();
        state.now += 20 * 86_400_000;
        state.log_start = state.now - 15 * 86_400_000;
    }
    let error = reader
        .step(&extractor)
        .await
        .expect_err("deletes are missing");
    assert_eq!(
        (error.code, error.class()),
        (Code::RecordsLost, Class::Operator)
    );
    // For so long that the source does not even answer.
    model.state().now += 20 * 86_400_000;
    let error = reader.step(&extractor).await.expect_err("they still are");
    assert_eq!(error.code, Code::RecordsLost);
    assert_eq!(
        error.source_code.as_deref(),
        Some("INVALID_REPLICATION_DATE")
    );
}

/// Records without an id or a stamp are set apart, in the middle of a page and
/// at its end; every other record arrives.
#[tokio::test]
async fn what_is_no_record_does_not_stop_the_page() {
    for page in [3, 4, 7] {
        let model = model(20, page).await;
        let extractor = model.extractor();
        let account = object(&extractor, "Account").await;
        let ids: Vec<String> = model.truth("Account").await.into_keys().collect();
        model.state().without = [
            (ids[1].clone(), "Id"),
            (ids[5].clone(), "SystemModstamp"),
            (ids[8].clone(), "Name"),
        ]
        .into();
        let (mut cursor, mut good, mut bad) = (None, Vec::new(), Vec::new());
        for _ in 0..50 {
            let page = extractor
                .fetch(&account, cursor.as_ref())
                .await
                .expect("a page");
            good.extend(page.changes.into_iter().map(|change| change.id));
            bad.extend(page.bad.into_iter().map(|bad| (bad.place, bad.code)));
            cursor = Some(page.next);
            if page.snapshot_complete {
                break;
            }
        }
        assert_eq!(good.len(), 17, "page of {page}");
        bad.dedup();
        assert_eq!(bad.len(), 3, "page of {page}: {bad:?}");
        assert_eq!(bad[0].1, Code::MissingId);
        assert_eq!(bad[1], (ids[5].clone(), Code::InvalidBody));
        assert_eq!(bad[2], (ids[8].clone(), Code::InvalidBody));
    }
}

/// Many tasks that need a token at once ask for one, and for one more when it
/// has expired; they share the refusal as well.
#[tokio::test]
async fn one_task_asks_for_the_token() {
    let model = model(50, 2).await;
    let account = object(&model.extractor(), "Account").await;
    model.state().logins = 0;
    let extractor = Arc::new(model.extractor());
    for logins in [1, 2] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (extractor, account) = (Arc::clone(&extractor), account.clone());
            tasks.spawn(async move {
                extractor
                    .fetch(&account, None)
                    .await
                    .map(|page| page.changes.len())
            });
        }
        while let Some(done) = tasks.join_next().await {
            assert_eq!(done.expect("no panic").ok(), Some(2));
        }
        assert_eq!(model.state().logins, logins);
        model.fault(Fault::ExpiredToken, 1, 1).await;
    }
    let before = model.requests().await;
    let extractor = model.intruder();
    // In one task, so that none begins when the refusal has come already.
    let checks = (0..100).map(|_| async { extractor.check().await.map_err(|e| e.to_string()) });
    let told = futures::future::join_all(checks).await;
    assert!(told.iter().all(|one| one == &told[0] && one.is_err()));
    assert_eq!(model.requests().await - before, 1);
}

/// A token is replaced before the org's session time is over: no request is
/// refused, and no second token is asked for.
#[tokio::test]
async fn a_token_is_replaced_before_it_expires() {
    const MINUTE: i64 = 60_000;
    let model = model(5, 2).await;
    let extractor = model.extractor();
    extractor.check().await.expect("a token");
    assert_eq!(model.state().logins, 1);
    // Each answer tells the time; the next request goes by it.
    for (minutes, logins) in [(100, 1), (7, 1), (2, 1), (1, 2), (60, 2)] {
        model.state().now += minutes * MINUTE;
        let before = model.requests().await;
        extractor.check().await.expect("an answer");
        let asked = u64::from(logins != 1 && minutes == 1);
        assert_eq!(model.state().logins, logins, "{minutes}");
        assert_eq!(model.requests().await - before, 1 + asked, "{minutes}");
    }
    // While no new one is to be had, the old one serves on.
    model.state().now += 60 * MINUTE;
    extractor.check().await.expect("an answer");
    model.fault(Fault::ServerError, 1, 1).await;
    extractor
        .check()
        .await
        .expect("an answer with the old token");
    model.state().now += 2 * MINUTE;
    extractor.check().await.expect("an answer");
    extractor.check().await.expect("an answer");
    assert_eq!(model.state().logins, 3);
}

/// A token answer that names an address in the clear, or none, is not followed.
#[tokio::test]
async fn the_token_goes_to_no_strange_address() {
    let model = model(5, 2).await;
    for origin in ["http://example.com", "", "ftp://127.0.0.1"] {
        model.state().origin = origin.to_owned();
        let error = model
            .extractor()
            .check()
            .await
            .expect_err("a strange address");
        assert_eq!(error.code, Code::BadAnswer, "{error}");
        assert!(!error.to_string().contains("token 0"), "{error}");
    }
}
