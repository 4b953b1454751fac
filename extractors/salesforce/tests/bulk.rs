//! What becomes of Bulk jobs: waited for, resumed, lost, refused; and a copy
//! that is short.

mod model;

use drover_extractor_salesforce::{Cursor, Salesforce};
use drover_pipeline::extract::{Extractor, Page, Reached};
use drover_pipeline::testing::extractor::{Reader, Source, object};
use drover_pipeline::{Class, Code};
use model::bulk::Doom;
use model::{Model, State};

async fn model(records: usize, page: usize) -> Model {
    let mut model = Model::run(State::new(5, records), page, 600_000).await;
    model.threshold = 0;
    model
}

fn job_of(page: &Page<Cursor>) -> Option<&str> {
    match &page.next {
        Cursor::Bulk(job) => Some(&job.id),
        _ => None,
    }
}

/// The first page names the job before anybody has asked for it; while the job
/// works the cursor stays, and nothing needs saving.
#[tokio::test]
async fn the_job_is_saved_before_it_is_asked_for() {
    let model = model(20, 6).await;
    let extractor = model.extractor();
    let account = object(&extractor, "Account").await;
    let first = extractor.fetch(&account, None).await.expect("a job");
    assert!(matches!(first.reached, Reached::Later(_)));
    assert!(first.changes.is_empty() && job_of(&first).is_some());
    assert_eq!(model.state().polls_of_jobs(), [2]);
    for _ in 0..2 {
        let page = extractor.fetch(&account, Some(&first.next)).await;
        let page = page.expect("a look");
        assert!(matches!(page.reached, Reached::Later(_)));
        assert_eq!(page.next, first.next);
    }
    let page = extractor.fetch(&account, Some(&first.next)).await;
    let page = page.expect("a page");
    assert_eq!((page.changes.len(), job_of(&page)), (6, job_of(&first)));
}

/// The wait for a job grows with its age.
#[tokio::test]
async fn a_job_is_asked_for_ever_less_often() {
    let model = model(20, 6).await;
    model.state().polls = 1_000;
    let extractor = model.extractor();
    let account = object(&extractor, "Account").await;
    let first = extractor.fetch(&account, None).await.expect("a job");
    let mut waits = Vec::new();
    for _ in 0..4 {
        let page = extractor.fetch(&account, Some(&first.next)).await;
        match page.expect("a look").reached {
            Reached::Later(wait) => waits.push(wait.as_secs()),
            other => panic!("{other:?}"),
        }
        model.state().now += 20_000;
    }
    // The clock of answers shows whole seconds.
    assert_eq!(waits, [1, 4, 9, 14]);
}

/// A process that is killed anywhere goes on with the same job, and asks for
/// no page twice that was committed.
#[tokio::test]
async fn a_new_process_goes_on_in_the_middle() {
    let model = model(40, 6).await;
    let mut reader = Reader::<Salesforce>::new(object(&model.extractor(), "Account").await);
    while !reader.complete {
        reader.step(&model.extractor()).await.expect("a page");
    }
    assert_eq!(model.state().jobs.len(), 1);
    // One to make it, three looks of which the last brings a page, six more, the count.
    assert_eq!(reader.snapshot_pages, 1 + 2 + 7 + 1);
    reader.compare(&model.truth("Account").await, "page by page");
}

/// However a job is lost, and whenever: another one reads the object, the
/// status says why, and what was written meanwhile arrives.
#[tokio::test]
async fn a_lost_job_loses_nothing() {
    let dooms = [
        Doom::Ends("Failed"),
        Doom::Ends("Aborted"),
        Doom::Deleted,
        Doom::Expired,
    ];
    for doom in dooms {
        for lost_at in 1..8 {
            let model = model(20, 6).await;
            let extractor = model.extractor();
            let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
            let ids: Vec<String> = model.truth("Account").await.into_keys().collect();
            for _ in 0..lost_at {
                reader.step(&extractor).await.expect("a page");
            }
            model.state().doom(doom);
            model.state().now += 5_000;
            // Read by the first job already, or not yet.
            model.state().edit("Account", &ids[1]);
            model.state().edit("Account", &ids[18]);
            let page = extractor
                .fetch(reader.object(), reader.cursor.as_ref())
                .await;
            let page = page.unwrap_or_else(|error| panic!("{doom:?} at {lost_at}: {error}"));
            let expected = match (doom, lost_at) {
                // There is no locator yet, or no page left.
                (Doom::Expired, 1..=3) | (_, 7..) => None,
                // A file whose job has ended is still told about.
                _ => Some(Code::JobLost),
            };
            let notice = page.notice.as_ref().map(|notice| notice.code);
            assert_eq!(notice, expected, "{doom:?} at {lost_at}");
            reader.take(page);
            reader.catch_up(&extractor).await;
            model.settle().await;
            reader.catch_up(&extractor).await;
            let context = format!("{doom:?} at {lost_at}");
            reader.compare(&model.truth("Account").await, &context);
        }
    }
}

/// Three jobs are lost: the object is read by pages.
#[tokio::test]
async fn jobs_that_always_fail_give_way_to_pages() {
    let model = model(20, 6).await;
    let extractor = model.extractor();
    let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
    let mut notices = 0;
    while !reader.complete {
        model.state().doom(Doom::Ends("Failed"));
        let page = extractor
            .fetch(reader.object(), reader.cursor.as_ref())
            .await;
        let page = page.expect("a page");
        notices += usize::from(page.notice.is_some());
        reader.take(page);
    }
    assert_eq!((notices, model.state().jobs.len()), (3, 3));
    assert_eq!(reader.known.len(), 20);
}

/// What Bulk refuses is read by pages, and so is what a CSV can't tell.
#[tokio::test]
async fn what_is_not_for_bulk_is_read_by_pages() {
    let model = model(20, 6).await;
    let extractor = model.extractor();
    let account = object(&extractor, "Account").await;
    model.state().no_bulk = true;
    let page = extractor.fetch(&account, None).await.expect("a page");
    assert!(matches!(page.next, Cursor::Snapshot { .. }));
    model.state().no_bulk = false;
    let mut odd = account;
    odd.fields[2].kind = "anyType".to_owned();
    let page = extractor.fetch(&odd, None).await.expect("a page");
    assert!(matches!(page.next, Cursor::Snapshot { .. }));
    assert!(model.state().jobs.is_empty());
}

/// The threshold is compared with what the source told, else with a count.
#[tokio::test]
async fn only_large_objects_are_read_by_jobs() {
    let mut model = model(20, 6).await;
    for (threshold, told, by_job) in [
        (20, None, true),
        (21, None, false),
        (20, Some(19), false),
        (21, Some(21), true),
    ] {
        model.threshold = threshold;
        let extractor = model.extractor();
        let mut account = object(&extractor, "Account").await;
        account.count = told;
        let page = extractor.fetch(&account, None).await.expect("a page");
        assert_eq!(job_of(&page).is_some(), by_job, "{threshold} {told:?}");
    }
}

/// Records that are counted and not shown: the copy is never called complete.
#[tokio::test]
async fn airbyte_42490_a_short_copy_is_not_complete() {
    for threshold in [0, u64::MAX] {
        let mut model = model(20, 6).await;
        model.threshold = threshold;
        let id = model.truth("Account").await.into_keys().nth(7).expect("it");
        model.state().hidden = [id].into();
        let extractor = model.extractor();
        let mut reader = Reader::<Salesforce>::new(object(&extractor, "Account").await);
        let error = loop {
            if let Err(error) = reader.step(&extractor).await {
                break error;
            }
            assert!(!reader.complete);
        };
        assert_eq!((error.code, error.class()), (Code::Short, Class::Operator));
        assert!(
            error.message.contains("20") && error.message.contains("19"),
            "{error}"
        );
        // Shown again, it is whole by another copy alone.
        model.state().hidden.clear();
        reader.step(&extractor).await.expect_err("still short");
        let mut again = Reader::<Salesforce>::new(reader.object().clone());
        again.catch_up(&extractor).await;
        assert_eq!(again.known.len(), 20);
    }
}
