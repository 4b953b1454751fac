//! `drover-bench`: what each stage costs beside the bare cost of its work, in
//! one run, on one machine and the same data. See `bench/README.md`.

mod bare;
mod bench;
mod canonical;
mod data;
mod figure;
mod machine;
mod report;
mod scenario;
mod usage;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::bare::Bare;
use crate::bench::{Bench, Result};
use crate::scenario::{SCENARIOS, Scenario};

#[derive(Parser)]
#[command(
    version,
    about = "Measures Drover's stages beside the bare cost of their work"
)]
struct Arguments {
    /// Which scenarios to run; all of them, if none is named.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// How many records a run moves; without it, as many as the scenario says.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// How often each side runs, in turns.
    #[arg(long, value_name = "K", default_value_t = 5)]
    runs: usize,
    /// Prints the scenarios and ends.
    #[arg(long)]
    list: bool,
    /// Prints JSON instead of the table.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Where the newest figures of this machine are kept; without it, nowhere.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Runs one bare program as a process of its own, for its CPU and memory.
    #[arg(long, hide = true, value_name = "JSON")]
    bare: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drover-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(json) = &arguments.bare {
        return Bare::parse(json)?.run();
    }
    if arguments.list {
        for one in SCENARIOS {
            println!("{:<14} {}", one.name, one.about);
        }
        return Ok(());
    }
    let chosen = choose(&arguments.scenarios)?;
    let mut figures = Vec::new();
    for one in chosen {
        let bench = Bench::new(
            arguments.records.unwrap_or(one.records),
            arguments.runs.max(1),
        );
        eprintln!(
            "{}: {} records, {} runs a side",
            one.name, bench.records, bench.runs
        );
        figures.extend((one.run)(&bench)?);
    }
    let report = report::Report::new(figures);
    match arguments.format {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", report.json()?),
    }
    if let Some(folder) = &arguments.keep {
        let path = report.keep(folder)?;
        eprintln!("kept in {}", path.display());
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |name: &String| {
        SCENARIOS
            .iter()
            .find(|one| one.name == *name)
            .ok_or_else(|| format!("there is no scenario `{name}`; see --list").into())
    };
    names.iter().map(find).collect()
}
