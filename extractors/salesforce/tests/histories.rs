//! A search for lost rows: random histories of writes between any two requests,
//! late commits, equal stamps, short pages, faults, crashes and restarts,
//! against the extractor alone. A failure prints its seed; `SEED=n` replays it,
//! `HISTORIES=n` searches longer.

mod model;

use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Reader, Write, object};
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

/// One write of a random kind, or some at once.
fn disturb(state: &mut State, rng: &mut StdRng, longest: i64, purge: bool) {
    state.now += rng.random_range(0..1_500);
    if rng.random_bool(0.02) {
        state.now += rng.random_range(0..200_000);
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

async fn history(seed: u64, http: &HttpClient) {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows = rng.random_range(1..40);
    let mut state = State::new(seed, rows);
    state.short = rng.random_bool(0.5);
    state.honest = rng.random_bool(0.7);
    state.skew = if rng.random_bool(0.3) { 2_000 } else { 0 };
    // A transaction may outlast the lookback only where the source says so.
    let lookback = rng.random_range(10_000..60_000);
    let longest = if state.honest {
        200_000
    } else {
        i64::from(lookback) - 5_000
    };
    let purge = state.honest;
    let page = rng.random_range(1..8);
    let mut chaos = StdRng::seed_from_u64(seed + 1);
    state.chaos = Some(Box::new(move |state| {
        disturb(state, &mut chaos, longest, purge)
    }));
    let model = Model::run_for(state, page, lookback, http.clone()).await;

    let mut extractor = model.client("hush");
    let mut reader = Reader::new(object(&extractor, "Account").await);
    let mut stamps = 0;
    for _ in 0..rng.random_range(10..80) {
        if rng.random_bool(0.1) {
            extractor = model.client("hush");
        }
        if rng.random_bool(0.1) {
            let fault = FAULTS[rng.random_range(0..FAULTS.len())];
            model.state().fault = Some((fault, rng.random_range(1..4), 1));
        }
        if rng.random_bool(0.1) {
            // A crash before the page was committed: it is read again.
            let _ = drover_pipeline::extract::Extractor::fetch(
                &extractor,
                reader.object(),
                reader.cursor.as_ref(),
            )
            .await;
        }
        if reader.step(&extractor).await.is_ok() {
            stamps += reader.page.len();
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

#[tokio::test]
async fn no_history_loses_a_row() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let http = HttpClient::new().expect("a client");
    if let Some(seed) = number("SEED") {
        return history(seed, &http).await;
    }
    let histories = number("HISTORIES").unwrap_or(250);
    for seed in 0..histories {
        // So that a panic inside says which history it was.
        println!("seed {seed}");
        history(seed, &http).await;
    }
}
