//! `drover-chaos`: kills, pauses, restarts and faults under `drover run`, for as
//! long as is asked; then compares source and target. See `drover_tests::chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use drover_tests::chaos::{Blow, Options, run};

/// Breaks what can break under two running migrations, then proves that nothing
/// was lost and nothing doubled. Ends with 1 when something was.
#[derive(Parser)]
#[command(name = "drover-chaos", max_term_width = 80)]
struct Arguments {
    /// For how many seconds.
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// Until so many processes were killed, however long that takes.
    #[arg(long, conflicts_with = "seconds")]
    kills: Option<usize>,
    /// Only these blows, in turn
    #[arg(long, value_delimiter = ',')]
    only: Vec<Blow>,
    /// Replays the random choices of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Loaders of each migration.
    #[arg(long, default_value_t = 3)]
    loaders: usize,
    /// Records that the source begins with.
    #[arg(long, default_value_t = 600)]
    records: usize,
    /// Changes a second in the source.
    #[arg(long, default_value_t = 3.0)]
    changes: f64,
    /// Writes the figures into this file, as JSON.
    #[arg(long)]
    figures: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        time: match arguments.kills {
            None => Duration::from_secs(arguments.seconds),
            Some(_) => Duration::MAX,
        },
        kills: arguments.kills,
        only: arguments.only,
        seed: arguments.seed.unwrap_or_else(rand::random),
        loaders: arguments.loaders,
        records: arguments.records,
        changes: arguments.changes,
    };
    let figures = run(&options).await;
    print!("{}", figures.render());
    if let Some(file) = &arguments.figures {
        let text = serde_json::to_string_pretty(&figures.json()).unwrap_or_default();
        if let Err(error) = std::fs::write(file, text + "\n") {
            eprintln!("{} can't be written: {error}", file.display());
            return ExitCode::from(3);
        }
    }
    match figures.passed() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
