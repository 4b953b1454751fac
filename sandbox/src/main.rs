//! `drover-sandbox`: serves stand-ins of the APIs that Drover reads from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use drover_sandbox::{Name, Options, start};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Stand-in servers of SaaS APIs.
#[derive(Parser)]
#[command(version, about, max_term_width = 80)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve one or more systems until told to stop.
    Serve(Serve),
    /// Print as JSON what a client needs to log in.
    Credentials {
        /// The system.
        #[arg(long)]
        system: Name,
    },
}

#[derive(Args)]
struct Serve {
    /// A system; give --listen as often, in the same order.
    #[arg(long = "system", required = true)]
    systems: Vec<Name>,
    /// The address of a system; port 0 picks a free one.
    #[arg(long = "listen", required = true)]
    addresses: Vec<SocketAddr>,
    /// What is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many records to generate, over all objects [default: 1000, with --data none].
    #[arg(long)]
    records: Option<u64>,
    /// A folder of <Object>.jsonl or <Object>.json files.
    #[arg(long)]
    data: Option<PathBuf>,
    /// A recorded describe (JSON), or a folder of them; may be repeated.
    #[arg(long, value_name = "PATH")]
    describe: Vec<PathBuf>,
    /// Changes that people make each second.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    live_changes: f64,
    /// How long after its time stamp a change can be seen.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    visibility_delay: u64,
    /// The time every answer of the API takes.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// The calls a day that the API lets clients make.
    #[arg(long, value_name = "N", default_value_t = drover_sandbox::DEFAULT_DAILY_CALLS)]
    daily_calls: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Command::parse().verb {
        Verb::Credentials { system } => {
            println!("{:#}", system.credentials());
            ExitCode::SUCCESS
        }
        Verb::Serve(serve) => match run(serve).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("drover-sandbox: {error}");
                ExitCode::from(2)
            }
        },
    }
}

async fn run(serve: Serve) -> Result<(), String> {
    if serve.systems.len() != serve.addresses.len() {
        return Err(format!(
            "{} --system but {} --listen: each system needs its own address",
            serve.systems.len(),
            serve.addresses.len()
        ));
    }
    if !(serve.live_changes >= 0.0 && serve.live_changes.is_finite()) {
        return Err("--live-changes must not be negative".to_owned());
    }
    let failed = |error: std::io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut running = Vec::new();
    for (name, address) in serve.systems.iter().zip(&serve.addresses) {
        let options = Options {
            seed: serve.seed,
            records: serve.records,
            data: serve.data.clone(),
            describe: serve.describe.clone(),
            live_changes: serve.live_changes,
            visibility_delay: Duration::from_millis(serve.visibility_delay),
            latency: Duration::from_millis(serve.latency),
            daily_calls: serve.daily_calls,
        };
        let system = start(*name, *address, options).await?;
        println!(
            "{}",
            json!({"system": name.to_string(), "url": system.url()})
        );
        running.push(system);
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
