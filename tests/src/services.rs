//! Kafka and PostgreSQL: those of `tests/run`, or ones that are started here and
//! end with this process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the two services are, and the scripts that restart them.
#[derive(Debug, Clone)]
pub struct Services {
    /// `host:port` of Kafka.
    pub brokers: String,
    /// URL of PostgreSQL's database.
    pub postgres: String,
    /// The directory that Kafka runs in.
    pub kafka_dir: PathBuf,
    /// The directory that PostgreSQL runs in.
    pub postgres_dir: PathBuf,
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// The services of this test process.
pub fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(
        || match (env("KAFKA_BROKERS"), env("DROVER_TEST_POSTGRES")) {
            (Some(brokers), Some(postgres)) => Services {
                brokers,
                postgres,
                kafka_dir: env("DROVER_TEST_KAFKA_DIR").unwrap_or_default().into(),
                postgres_dir: env("DROVER_TEST_PG_DIR").unwrap_or_default().into(),
            },
            _ => start(),
        },
    )
}

/// Services for one test alone, which it may restart; they end with this process.
pub fn own() -> &'static Services {
    Box::leak(Box::new(start()))
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn start() -> Services {
    let place = tempfile::Builder::new()
        .prefix("drover-test.")
        .tempdir()
        .expect("a temporary directory")
        .keep();
    let (kafka_dir, postgres_dir) = (place.join("kafka"), place.join("postgres"));
    let brokers = script("kafka", "start", &kafka_dir, &["--port", "0"]);
    let postgres = script(
        "postgres",
        "start",
        &postgres_dir,
        &["--port", "0", "--unsafe-fast"],
    );
    // A shell that waits for the end of its input, which comes when this
    // process ends, however it ends.
    let stop = format!(
        "cat >/dev/null; '{0}/deploy/kafka/local' stop --dir '{1}'; \
         '{0}/deploy/postgres/local' stop --dir '{2}'; rm -rf '{3}'",
        root().display(),
        kafka_dir.display(),
        postgres_dir.display(),
        place.display()
    );
    let watcher = Command::new("setsid")
        .args(["sh", "-c", &stop])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    std::mem::forget(watcher);
    Services {
        brokers,
        postgres,
        kafka_dir,
        postgres_dir,
    }
}

/// Runs `deploy/<service>/local <verb> --dir DIR` and returns what it prints.
pub fn script(service: &str, verb: &str, dir: &Path, more: &[&str]) -> String {
    let output = Command::new(root().join(format!("deploy/{service}/local")))
        .arg(verb)
        .arg("--dir")
        .arg(dir)
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .expect("the script runs");
    assert!(
        output.status.success(),
        "deploy/{service}/local {verb} failed"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_up_however_much_it_logs_then() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let noise = "somebody joined a group\n".repeat(100_000);
        std::fs::write(place.path().join("log"), format!("it is up\n{noise}")).expect("written");
        let asks = |line: &str| {
            Command::new("bash")
                .args([
                    "-c",
                    "set -euo pipefail; . ./service.sh; log_since \"$0\"",
                    line,
                ])
                .current_dir(root().join("deploy"))
                .env("dir", place.path())
                .env("log_name", "log")
                .env("from", "0")
                .status()
                .expect("bash runs")
                .success()
        };
        assert!(asks("it is up"));
        assert!(!asks("it went down"));
    }
}
