//! The command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use drover_pipeline::Code;
use drover_pipeline::spec::Stage;

use crate::failure::{Failure, Result};
use crate::{
    balance, check, deadletter, doctor, explain, exporter, init, inventory, parked, record, remap,
    run, status, template,
};

#[derive(Parser)]
#[command(
    name = "drover",
    version,
    max_term_width = 80,
    about = "Moves the data of one SaaS product into another, over Kafka",
    after_help = "Exit codes: 0 ok, 1 a bug, 2 bad configuration, 3 the environment or the \
                  operator must act, 128+n signal n."
)]
struct Arguments {
    /// The migration's configuration, JSON or YAML.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// How lists are printed.
    #[arg(long, value_enum, default_value = "table", global = true)]
    format: Format,
    #[command(subcommand)]
    verb: Verb,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Prove the configuration, the source, the target and the bus; change nothing.
    Check,
    /// Settle what is migrated and create the topics; safe to repeat.
    Init,
    /// Run all stages here, and start again what fails; Ctrl-C ends cleanly.
    Run(Run),
    /// Map anew what was read, by the configuration's mappings; no call to the source.
    Remap(Remap),
    /// Show where the migration stands.
    Status {
        /// Show it again each second, until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },
    /// Prove by the topics alone that every record is in exactly one place; exit
    /// code 3 if not.
    Balance,
    /// Show one record's life: every version, its entry, the target's row.
    Record(Record),
    /// List what lies in which topic, who writes and who reads it.
    Topics {
        /// Read all of it, and count live keys and their bytes.
        #[arg(long)]
        live: bool,
    },
    /// Records that could not go on.
    #[command(subcommand)]
    Deadletter(deadletter::Deadletter),
    /// Records that wait.
    #[command(subcommand)]
    Parked(parked::Verb),
    /// Tell what an error's code means, and what to do.
    Explain {
        /// The code: TOO_LONG. Without one, all are listed.
        code: Option<String>,
    },
    /// Tell what this machine and the cluster lack, and the commands that mend it.
    Doctor,
    /// Print the migration's metrics for Prometheus, or serve them.
    Metrics {
        /// Serve them at /metrics of this address until Ctrl-C; port 0 picks one.
        #[arg(long, value_name = "ADDR")]
        http: Option<std::net::SocketAddr>,
    },
    /// Make the folder of a new source, in a clone of Drover's repository.
    NewExtractor(New),
    /// Make the folder of a new target, in a clone of Drover's repository.
    NewLoader(New),
}

#[derive(Args)]
struct New {
    /// The connector's name: small letters and digits.
    name: String,
}

#[derive(Args)]
struct Record {
    /// `source/object/id`, `Object/id`, or an id that only one object has; with
    /// `#slot` or without.
    key: String,
    /// Show the record's values, too.
    #[arg(long)]
    bodies: bool,
}

#[derive(Args)]
pub(crate) struct Run {
    /// How many loaders.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) loaders: u32,
    /// How many transformers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) transformers: u32,
    /// End once the first whole copy is through: with exit code 0 when all of it
    /// is in the target, with 3 when records are dead or wait.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) until: Option<Until>,
    /// Where logs are kept [default: .drover/ID beside the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Remap {
    /// Let the new mapping take away more than 1 % of the target's records.
    #[arg(long)]
    pub(crate) accept_absent: bool,
    /// Writes all records of this canonical entity again, changed or not: what
    /// the target had of them was lost.
    #[arg(long, value_name = "ENTITY")]
    pub(crate) reload: Vec<String>,
}

/// When `drover run` ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// Everything the snapshot produced is committed by the last stage.
    Synced,
}

/// `main` of the program.
pub fn main() -> ExitCode {
    drover_pipeline::clock::jump_as_told("drover");
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format_args!("{}: no runtime: {error}", Code::Invariant));
            return ExitCode::FAILURE;
        }
    };
    let handle = runtime.handle().clone();
    let ending = Ending(Some(runtime));
    let result = handle.block_on(dispatch(arguments));
    drop(ending);
    match result {
        Ok(code) => code,
        Err(failures) => {
            // A program reads a failure a line; a person lines that fit, and
            // may want to read on.
            if !std::io::stderr().is_terminal() {
                tell(&failures);
            } else {
                for line in failures.to_string().lines() {
                    tell(crate::table::wrap(line, "").trim_end());
                }
                let codes: Vec<Code> = failures.0.iter().map(|failure| failure.code).collect();
                tell(explain::hint(&codes));
            }
            ExitCode::from(failures.exit())
        }
    }
}

/// A runtime that waits for nothing when it ends, be it by a panic: a call that
/// hangs in a dead broker must not keep the command alive.
struct Ending(Option<tokio::runtime::Runtime>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<ExitCode> {
    if let Verb::Explain { code } = &arguments.verb {
        explain::run(code.as_deref(), arguments.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    if matches!(arguments.verb, Verb::Doctor) {
        return doctor::run(arguments.config.as_deref(), arguments.format).await;
    }
    let made = match &arguments.verb {
        Verb::NewExtractor(new) => Some((Stage::Extractor, new)),
        Verb::NewLoader(new) => Some((Stage::Loader, new)),
        _ => None,
    };
    if let Some((stage, new)) = made {
        let here = std::env::current_dir().unwrap_or_default();
        template::run(stage, &new.name, &here)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = arguments.config else {
        let what = "no configuration is named";
        return Err(Failure::new(Code::ConfigInvalid, what, "add `-c FILE`").into());
    };
    let format = arguments.format;
    match arguments.verb {
        // Done above: they need no configuration.
        Verb::Doctor | Verb::Explain { .. } | Verb::NewExtractor(_) | Verb::NewLoader(_) => {}
        Verb::Check => return check::run(&file, format).await,
        Verb::Init => init::run(&file, format).await?,
        Verb::Remap(options) => remap::run(&file, format, &options).await?,
        Verb::Run(options) => return run::run(&file, format, options).await,
        Verb::Balance => return balance::run(&file, format).await,
        Verb::Record(asked) => {
            return record::run(&file, format, &asked.key, asked.bodies).await;
        }
        Verb::Topics { live } => inventory::run(&file, format, live).await?,
        Verb::Status { watch } => status::run(&file, format, watch).await?,
        Verb::Deadletter(verb) => return deadletter::run(verb, &file, format).await,
        Verb::Parked(verb) => return parked::run(verb, &file, format).await,
        Verb::Metrics { http } => exporter::run(&file, format, http).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output. A reader that has seen enough is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A line on standard error. Whoever reads it may be gone (`2>&1 | head`): that is
/// no reason to end, and `eprintln!` would panic.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says what a person should look at, though nothing keeps the command from working.
pub(crate) fn warn(warnings: &[impl std::fmt::Display]) {
    for warning in warnings {
        tell(format_args!("warning: {warning}"));
    }
}

pub(crate) fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"));
}

/// How long a command may be silent on a terminal.
const MOMENT: Duration = Duration::from_secs(1);

/// Says on a terminal what takes its time, when it takes more than a moment.
pub(crate) async fn with_patience<T>(what: &str, work: impl Future<Output = T>) -> T {
    match std::io::stderr().is_terminal() {
        true => {
            telling(work, MOMENT, |seconds| {
                tell(format_args!("{what} … {seconds} s"))
            })
            .await
        }
        false => work.await,
    }
}

/// Awaits the work, and says after each such time for how long it has gone on.
async fn telling<T>(
    work: impl Future<Output = T>,
    every: Duration,
    mut tell: impl FnMut(u64),
) -> T {
    let began = Instant::now();
    let mut wait = every;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(wait) => tell(began.elapsed().as_secs()),
        }
        wait *= 2;
    }
}

/// Runs what waits for the broker beside the runtime.
pub(crate) async fn blocking<T: Send + 'static, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T>
where
    E: Send + 'static,
    crate::failure::Failures: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::new(
            Code::Invariant,
            format!("a thread panicked: {error}"),
            Code::Invariant.advice(),
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_takes_its_time_is_said_until_it_is_done() {
        let (heard, mut told) = (Notify::new(), 0);
        let work = async {
            heard.notified().await;
            heard.notified().await;
            7
        };
        let every = Duration::from_millis(1);
        let result = telling(work, every, |_| {
            told += 1;
            heard.notify_one();
        });
        assert_eq!(result.await, 7);
        assert!(told >= 2, "{told}");
    }
}
