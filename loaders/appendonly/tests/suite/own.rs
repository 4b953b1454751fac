//! What goes wrong on purpose, and that a double create would be seen.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use drover_loader_appendonly::server::Faults;
use drover_pipeline::Code;
use drover_pipeline::load::{Loader, Outcome};
use drover_pipeline::testing::loader::{
    Driver, Harness, Record, applied, contact, content, rejected,
};

use crate::harness::{INDEX_DELAY_MS, Server};

fn contacts(count: usize, version: i64) -> Vec<Record> {
    let entity = drover_schemas::entity("contact").expect("the contact");
    (0..count)
        .map(|n| {
            let datum = content::full(entity, version * 1000 + n as i64);
            Record::upsert(&contact(n), version, datum)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_fault_each_key_is_created_once() {
    let mut driver = Driver::new(Server::start()).await;
    let entity = driver.entity("contact");
    let faults = Faults {
        lose_answers: 0.2,
        lose_requests: 0.2,
        throttle_share: 0.1,
        error_share: 0.1,
        slow_ms: 30,
        reject_share: 0.1,
        seed: 11,
    };
    driver.harness.faults(&faults).await;
    let mut refused = HashSet::new();
    for version in 1..=3 {
        let outcomes = driver.deliver(entity, &contacts(200, version)).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Applied(_) => assert!(!refused.contains(&place) || version == 1),
                _ => {
                    assert_eq!(rejected(outcome).source_code.as_deref(), Some("422"));
                    assert!(
                        refused.insert(place) == (version == 1),
                        "always the same keys"
                    );
                }
            }
        }
    }
    let expected: Vec<_> = contacts(200, 3)
        .into_iter()
        .enumerate()
        .filter_map(|(place, record)| (!refused.contains(&place)).then_some(record))
        .collect();
    driver.expect(entity, &expected).await;
    assert_eq!(driver.harness.creates(entity).await, expected.len());
    let stats = driver.harness.stats().await;
    for hits in [
        stats.answers_lost,
        stats.requests_lost,
        stats.throttled,
        stats.failed,
        stats.rejected,
    ] {
        assert!(hits > 10, "{stats:?}");
    }
}

#[tokio::test]
async fn sending_again_without_asking_creates_twice_and_is_seen() {
    let mut driver = Driver::new(Server::start()).await;
    let entity = driver.entity("contact");
    let lose = Faults {
        lose_answers: 1.0,
        ..Faults::default()
    };
    driver.harness.faults(&lose).await;
    let outcomes = driver.apply(entity, &contacts(3, 1)).await;
    for outcome in &outcomes {
        let Outcome::Unknown(error) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(error.code, Code::AnswerLost);
    }
    driver.harness.faults(&Faults::default()).await;
    driver.apply(entity, &contacts(3, 1)).await;
    let creates = driver.harness.all_creates().await;
    let keys: HashSet<_> = creates.iter().map(|create| &create.key).collect();
    assert_eq!((creates.len(), keys.len()), (6, 3));
    // Found, all the same: the older one, whoever asks.
    driver.harness.settle().await;
    let found = driver.loader.find(entity, &[&contact(0)]).await;
    let rows = driver.harness.rows(entity).await;
    let oldest = rows.iter().find(|row| row.key == contact(0).as_str());
    assert_eq!(
        found.expect("found")[0].as_ref().map(|found| &found.id),
        oldest.map(|row| &row.id)
    );
}

#[tokio::test]
async fn the_index_lags_behind() {
    // Long enough that no slow machine can miss it.
    let server = Server::start();
    let loader = server.loader_with(2000, INDEX_DELAY_MS);
    let mut driver = Driver::new(server).await;
    let entity = driver.entity("contact");
    let began = std::time::Instant::now();
    driver.apply(entity, &contacts(1, 1)).await;
    let found = loader.find(entity, &[&contact(0)]).await.expect("find");
    if began.elapsed() < Duration::from_millis(INDEX_DELAY_MS) {
        assert_eq!(found, [None]);
    }
    driver.harness.settle().await;
    let found = loader.find(entity, &[&contact(0)]).await.expect("find");
    assert!(found[0].is_some());
}

#[tokio::test]
async fn answers_say_what_became_of_a_request() {
    let mut driver = Driver::new(Server::start()).await;
    let entity = driver.entity("contact");
    let share = |change: fn(&mut Faults)| {
        let mut faults = Faults::default();
        change(&mut faults);
        faults
    };
    let not_sent = |outcome: &Outcome| match outcome {
        Outcome::NotSent(error) => error.code,
        other => panic!("{other:?}"),
    };
    driver
        .harness
        .faults(&share(|f| f.throttle_share = 1.0))
        .await;
    let outcomes = driver.apply(entity, &contacts(1, 1)).await;
    assert_eq!(not_sent(&outcomes[0]), Code::Throttled);
    driver.harness.faults(&share(|f| f.error_share = 1.0)).await;
    let outcomes = driver.apply(entity, &contacts(1, 1)).await;
    assert_eq!(not_sent(&outcomes[0]), Code::ServerError);
    driver
        .harness
        .faults(&share(|f| f.lose_requests = 1.0))
        .await;
    let outcomes = driver.apply(entity, &contacts(1, 1)).await;
    assert!(matches!(&outcomes[0], Outcome::Unknown(_)), "{outcomes:?}");
    assert_eq!(driver.harness.creates(entity).await, 0, "without effect");
    driver.harness.kill();
    let outcomes = driver.apply(entity, &contacts(1, 1)).await;
    assert_eq!(not_sent(&outcomes[0]), Code::Connection);
}

#[tokio::test]
async fn a_request_goes_on_when_its_sender_is_gone() {
    let mut driver = Driver::new(Server::start()).await;
    let entity = driver.entity("contact");
    let slow = Faults {
        slow_ms: 399,
        seed: 3,
        ..Faults::default()
    };
    driver.harness.faults(&slow).await;
    // This one gives up after a quarter of a very short lease.
    driver.loader = driver.harness.loader_with(40, 0);
    let outcomes = driver.apply(entity, &contacts(1, 1)).await;
    assert!(matches!(&outcomes[0], Outcome::Unknown(_)), "{outcomes:?}");
    for _ in 0..1000 {
        if driver.harness.creates(entity).await == 1 {
            return;
        }
    }
    panic!("the create never took effect");
}

#[tokio::test]
async fn a_lease_or_delay_that_is_too_short_is_refused() {
    let server = Server::start();
    server
        .loader_with(1700, 100)
        .check()
        .await
        .expect("long enough");
    for (lease, delay, says) in [(1600, 100, "leaseMs"), (1700, 99, "indexDelayMs")] {
        let error = server.loader_with(lease, delay).check().await;
        let error = error.expect_err("too short");
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_log_outlives_a_kill_in_the_middle_of_a_line() {
    let mut driver = Driver::new(Server::start()).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(3, 1)).await;
    driver
        .apply(entity, &[Record::delete(&contact(1), 2)])
        .await;
    driver.apply(entity, &contacts(1, 2)).await;
    driver.harness.kill();
    let mut log = std::fs::File::options()
        .append(true)
        .open(driver.harness.dir.path().join("log"))
        .expect("the log");
    log.write_all(b"{\"op\":\"create\",\"id\":\"r-9\"")
        .expect("written");
    driver.harness.again();
    let back = contacts(4, 3);
    let outcomes = driver.deliver(entity, &back).await;
    assert!(applied(&outcomes[3]).created);
    driver.expect(entity, &back).await;
    assert_eq!(driver.harness.creates(entity).await, 4);
    // And once more, so that what came behind the cut line is whole.
    driver.harness.restart().await;
    driver.expect(entity, &back).await;
}
