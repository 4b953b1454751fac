//! A search for lost rows: random histories of writes between any two requests,
//! late commits, equal stamps, short pages, lost jobs, faults, crashes and
//! restarts, against the extractor alone, without a network. A failure prints
//! its seed; `SEED=n` replays it, `HISTORIES=n` searches longer or shorter.

mod model;

use std::panic::{AssertUnwindSafe, catch_unwind};

use drover_extractor_salesforce::cursor::Position;
use drover_extractor_salesforce::{Cursor, Salesforce};
use drover_pipeline::extract::{Extractor, Object};
use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Reader, Write, object};
use model::bulk::Doom;
use model::{Model, State};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const FAULTS: [Fault; 7] = [
    Fault::RateLimit,
    Fault::ServerError,
    Fault::CutBefore,
    Fault::ExpiredToken,
    Fault::HtmlPage,
    Fault::NotJson,
    Fault::Truncated,
];

const DOOMS: [Doom; 4] = [
    Doom::Ends("Failed"),
    Doom::Ends("Aborted"),
    Doom::Deleted,
    Doom::Expired,
];

/// A rule of the extractor that is switched off, to see whether the search
/// finds what is lost without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Rounds do not overlap.
    Lookback,
    /// The changes' position is taken when the copy is complete.
    PositionBeforeCopy,
}

/// One write of a random kind, or some at once.
fn disturb(state: &mut State, rng: &mut StdRng, longest: i64, purge: bool) {
    state.now += rng.random_range(0..1_500);
    if rng.random_bool(0.02) {
        state.now += rng.random_range(0..200_000);
    }
    if rng.random_bool(0.03) {
        state.doom(DOOMS[rng.random_range(0..DOOMS.len())]);
    }
    let writes = if rng.random_bool(0.1) {
        12
    } else {
        rng.random_range(0..3)
    };
    for _ in 0..writes {
        state.delay = Some(if rng.random_bool(0.5) {
            0
        } else {
            rng.random_range(0..=longest)
        });
        let rows = &state.tables["Account"].rows;
        let Some(id) = rows.keys().nth(rng.random_range(0..rows.len())).cloned() else {
            return;
        };
        let what = match rng.random_range(0..10) {
            0 | 1 => Write::Create,
            2 => Write::Delete(&id),
            3 | 4 => Write::Undelete(&id),
            5 if purge => Write::Purge(&id),
            _ => Write::Edit(&id),
        };
        state.write("Account", what);
    }
}

/// One history. Panics when a row was lost, or is not as in the source.
async fn history(seed: u64, account: &Object, http: &HttpClient, without: Without) {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows = rng.random_range(1..40);
    let mut state = State::new(seed, rows);
    state.short = rng.random_bool(0.5);
    state.honest = without == Without::Nothing && rng.random_bool(0.7);
    // The clocks of the source's own servers may differ by minutes, if it says
    // by one of them what it has covered.
    state.skew = match rng.random_range(0..10) {
        0..3 => 2_000,
        3..5 if state.honest => 300_000,
        _ => 0,
    };
    state.polls = rng.random_range(0..4);
    // A transaction may outlast the lookback only where the source says so.
    let lookback = match without {
        Without::Lookback => 0,
        _ => rng.random_range(10_000..60_000),
    };
    let longest = match without {
        Without::Lookback => 30_000,
        _ if state.honest => 200_000,
        _ => i64::from(lookback) - 5_000,
    };
    let purge = state.honest;
    let page = rng.random_range(1..8);
    let mut chaos = StdRng::seed_from_u64(seed + 1);
    state.chaos = Some(Box::new(move |state| {
        disturb(state, &mut chaos, longest, purge)
    }));
    let mut model = Model::in_process(state, page, lookback, http);
    if rng.random_bool(0.5) {
        model.threshold = 0;
    }

    let mut extractor = model.client("hush");
    let mut reader = Reader::<Salesforce>::new(account.clone());
    let mut stamps = 0;
    for _ in 0..rng.random_range(10..60) {
        if rng.random_bool(0.1) {
            extractor = model.client("hush");
        }
        if rng.random_bool(0.1) {
            let fault = FAULTS[rng.random_range(0..FAULTS.len())];
            model.state().fault = Some((fault, rng.random_range(1..4), 1));
        }
        if rng.random_bool(0.1) {
            // A crash before the page was committed: it is read again.
            let _ = extractor
                .fetch(reader.object(), reader.cursor.as_ref())
                .await;
        }
        let copying = !reader.complete;
        if reader.step(&extractor).await.is_ok() {
            stamps += reader.page.len();
        }
        if without == Without::PositionBeforeCopy
            && copying
            && let Some(Cursor::Delta { from, .. }) = &mut reader.cursor
        {
            let now = model.state().now;
            *from = Position::behind(now, now, i64::from(lookback));
        }
    }
    {
        let mut state = model.state();
        state.chaos = None;
        state.fault = None;
        state.settle();
    }
    reader.catch_up(&extractor).await;
    reader.catch_up(&extractor).await;
    let truth = model.state().truth("Account");
    reader.compare(&truth, &format!("seed {seed}, {stamps} changes"));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs histories on all processors and gives the seeds of those that failed.
fn search(seeds: std::ops::Range<u64>, without: Without) -> Vec<u64> {
    let http = HttpClient::new().expect("a client");
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    let search_some = |worker: u64, http: &HttpClient, seeds: std::ops::Range<u64>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let model = Model::in_process(State::new(1, 1), 1, 0, http);
        let account = runtime.block_on(object(&model.client("hush"), "Account"));
        let mut failed = Vec::new();
        for seed in seeds.filter(|seed| seed % workers == worker) {
            let one = || runtime.block_on(history(seed, &account, http, without));
            if catch_unwind(AssertUnwindSafe(one)).is_err() {
                failed.push(seed);
            }
        }
        failed
    };
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..workers)
            .map(|worker| {
                let (http, seeds) = (&http, seeds.clone());
                scope.spawn(move || search_some(worker, http, seeds))
            })
            .collect();
        let found = searches.into_iter().map(|it| it.join().expect("no panic"));
        found.flatten().collect()
    })
}

/// Without optimisation a part of them: the whole search is for `make test`.
#[test]
fn no_history_loses_a_row() {
    if let Some(seed) = number("SEED") {
        assert!(search(seed..seed + 1, Without::Nothing).is_empty());
        return;
    }
    let few = cfg!(debug_assertions);
    let histories = number("HISTORIES").unwrap_or(if few { 500 } else { 10_000 });
    let failed = search(0..histories, Without::Nothing);
    assert!(failed.is_empty(), "of {histories} seeds: {failed:?}");
}

/// The search is worth something: without one of the rules it finds a loss.
#[test]
fn the_search_finds_what_is_lost_without_a_rule() {
    for without in [Without::Lookback, Without::PositionBeforeCopy] {
        let failed = search(0..100, without);
        assert!(!failed.is_empty(), "nothing is lost without {without:?}");
        println!("without {without:?}: {} of 100 lose rows", failed.len());
    }
}
