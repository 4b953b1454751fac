//! Chaos: two migrations under `drover run`, one into PostgreSQL and one into
//! the append-only target, which shows what is created twice. While the source
//! changes, processes die by SIGKILL or are stopped for a while, loaders come
//! and go, clocks jump, Kafka and PostgreSQL are killed and started again, and the
//! source's API fails. After each blow a few records are edited, and the time is taken
//! until all these edits are in the target: from the blow to rows flowing again.
//! In the end source and target are compared.

mod blow;
mod children;
mod figures;
mod subject;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use self::blow::Blow;
pub use self::figures::Figures;

use self::blow::Deck;
use self::subject::Subject;
use crate::services::{Services, script, services};

/// After this long without the edits in the target the run has failed.
const STUCK: Duration = Duration::from_secs(180);
/// The longest pause between two blows.
const PAUSE_MS: u64 = 800;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long.
    pub time: Duration,
    /// Until so many processes were killed.
    pub kills: Option<usize>,
    /// Only these blows, in turn; empty for all.
    pub only: Vec<Blow>,
    /// Of all random choices.
    pub seed: u64,
    /// Loaders of each migration.
    pub loaders: usize,
    /// Records that each source begins with.
    pub records: usize,
    /// Changes a second in each source.
    pub changes: f64,
}

/// Runs it. Panics when the migrations do not even begin.
pub async fn run(options: &Options) -> Figures {
    println!("seed {}", options.seed);
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut figures = Figures::new(options);
    let services = services();
    let mut subjects = [
        Subject::postgres(options).await,
        Subject::appendonly(options).await,
    ];
    let began = Instant::now();
    let mut deck = Deck::of(&options.only);
    let goes_on = |figures: &Figures| match options.kills {
        Some(kills) => figures.kills < kills,
        None => began.elapsed() < options.time,
    };
    while goes_on(&figures) && !figures.is_stuck() {
        let blow = deck.draw(&mut random);
        // Both at once, each with random choices of its own.
        let mut own = StdRng::seed_from_u64(random.random());
        let (mut one, mut other) = (Figures::default(), Figures::default());
        let [first, second] = &mut subjects;
        if matches!(blow, Blow::Kafka | Blow::Postgres) {
            restart(services, blow);
            let since = Instant::now();
            tokio::join!(
                first.flows(blow, since, &mut one),
                second.flows(blow, since, &mut other),
            );
        } else {
            tokio::join!(
                first.strike(blow, &mut random, &mut one),
                second.strike(blow, &mut own, &mut other),
            );
        }
        figures.take(one);
        figures.take(other);
        figures.seconds = began.elapsed().as_secs_f64();
        println!("{}", figures.line());
        tokio::time::sleep(Duration::from_millis(random.random_range(0..PAUSE_MS))).await;
    }
    for subject in &mut subjects {
        subject.end(&mut figures).await;
    }
    figures
}

/// Kills a service and starts it again.
fn restart(services: &Services, blow: Blow) {
    let (service, dir) = match blow {
        Blow::Kafka => ("kafka", &services.kafka_dir),
        _ => ("postgres", &services.postgres_dir),
    };
    script(service, "restart", dir, &["--kill"]);
}
