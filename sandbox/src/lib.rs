//! Stand-in servers of the APIs that Drover reads from: they keep state,
//! page, order, limit, delay and fail as the real ones do, for machines that
//! can't reach those. `drover-sandbox` serves them; tests may start them
//! inside their own process with [`start`].

#![recursion_limit = "256"]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod control;
mod exchange;
mod faults;
pub mod salesforce;
mod server;
mod system;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use exchange::{Answer, Call};
pub use system::{Counts, Refusal, System};

/// Records of an org when nobody says how many.
pub const DEFAULT_RECORDS: u64 = 1_000;

/// Calls a day when nobody says how many, as of an Enterprise org with some users.
pub const DEFAULT_DAILY_CALLS: u64 = 100_000;

/// The systems there are stand-ins of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Salesforce.
    Salesforce,
}

impl Name {
    /// All systems.
    pub const ALL: [Name; 1] = [Name::Salesforce];

    /// What a client needs to log in.
    pub fn credentials(self) -> Value {
        match self {
            Name::Salesforce => salesforce::auth::credentials(),
        }
    }

    fn system(self, options: &Options) -> Result<Arc<dyn System>, String> {
        match self {
            Name::Salesforce => {
                let system = Arc::new(salesforce::Salesforce::new(options)?);
                system.clone().start();
                Ok(system)
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Salesforce => "salesforce",
        })
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        Name::ALL
            .into_iter()
            .find(|name| name.to_string() == text)
            .ok_or_else(|| {
                let known: Vec<String> = Name::ALL.iter().map(Name::to_string).collect();
                format!(
                    "there is no stand-in of `{text}`; there are: {}",
                    known.join(", ")
                )
            })
    }
}

/// How a system is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Generated data, live changes and shares of faults follow from it.
    pub seed: u64,
    /// How many records are generated, over all objects. With data and
    /// without a number: none.
    pub records: Option<u64>,
    /// A folder with records.
    pub data: Option<PathBuf>,
    /// Recorded describes, files or folders of them; the last one of an
    /// object counts.
    pub describe: Vec<PathBuf>,
    /// Changes made each second.
    pub live_changes: f64,
    /// How long after its stamp a write can be seen.
    pub visibility_delay: Duration,
    /// The time every answer takes.
    pub latency: Duration,
    /// The calls a day that the API lets clients make.
    pub daily_calls: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            records: None,
            data: None,
            describe: Vec::new(),
            live_changes: 0.0,
            visibility_delay: Duration::ZERO,
            latency: Duration::ZERO,
            daily_calls: DEFAULT_DAILY_CALLS,
        }
    }
}

/// A system that is served; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub name: Name,
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// The URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to serve a system; it answers when this returns.
pub async fn start(name: Name, listen: SocketAddr, options: Options) -> Result<Running, String> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("{listen}: {error}"))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("{listen}: {error}"))?;
    let prepared = options.clone();
    let system = tokio::task::spawn_blocking(move || name.system(&prepared))
        .await
        .map_err(|error| error.to_string())??;
    let server = server::Server {
        system,
        faults: faults::Faults::new(options.seed),
        requests: control::Requests::default(),
        latency: options.latency,
    };
    let task = tokio::spawn(server::serve(Arc::new(server), listener));
    Ok(Running {
        name,
        address,
        task,
    })
}
