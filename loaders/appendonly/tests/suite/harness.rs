//! A server process of its own, looked at by its control requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use chrono::{DateTime, NaiveDate};
use drover_loader_appendonly::server::{Faults, Stats};
use drover_loader_appendonly::{AppendOnly, Config};
use drover_pipeline::http::HttpClient;
use drover_pipeline::load::Loader;
use drover_pipeline::testing::loader::{Harness, Row};
use drover_schemas::{Datum, Entity, Kind, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How far the index lags behind in these tests.
pub const INDEX_DELAY_MS: u64 = 100;

/// A server in a process of its own, with its log.
pub struct Server {
    process: Mutex<Child>,
    /// Where it listens.
    pub url: String,
    /// Its log lies here.
    pub dir: tempfile::TempDir,
}

#[derive(Deserialize)]
struct Listening {
    url: String,
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    deleted: bool,
    key: String,
    entity: String,
    fields: BTreeMap<String, serde_json::Value>,
    custom: BTreeMap<String, Box<RawValue>>,
}

/// A line of `GET /_control/creates`.
#[derive(Deserialize)]
pub struct Created {
    /// The record's entity.
    pub entity: String,
    /// Its canonical key.
    pub key: String,
}

impl Server {
    /// A new server.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (process, url) = spawn(&dir, "127.0.0.1:0");
        Server {
            process: Mutex::new(process),
            url,
            dir,
        }
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&self) {
        let mut process = self.process.lock().expect("no test panics in here");
        process.kill().expect("killed");
        process.wait().expect("ended");
    }

    /// Starts it again at its old address, with its old log.
    pub fn again(&self) {
        let address = self.url.trim_start_matches("http://");
        *self.process.lock().expect("no test panics in here") = spawn(&self.dir, address).0;
    }

    /// A loader with these settings beside the address.
    pub fn loader_with(&self, lease_ms: u64, index_delay_ms: u64) -> AppendOnly {
        let config = serde_json::json!({
            "url": self.url, "leaseMs": lease_ms, "indexDelayMs": index_delay_ms,
        });
        let config: Config = serde_json::from_value(config).expect("a config");
        let http = HttpClient::new().expect("a client");
        AppendOnly::new(config, http).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// Lets these faults happen from now on.
    pub async fn faults(&self, faults: &Faults) {
        let url = format!("{}/_control/faults", self.url);
        let sent = reqwest::Client::new().post(url).json(faults).send().await;
        assert_eq!(sent.expect("an answer").status(), 204);
    }

    /// How often which fault hit.
    pub async fn stats(&self) -> Stats {
        serde_json::from_str(&self.get("_control/stats").await).expect("stats")
    }

    /// Every create there ever was.
    pub async fn all_creates(&self) -> Vec<Created> {
        let text = self.get("_control/creates").await;
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("NDJSON")
    }

    async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}/{path}", self.url)).await;
        let answer = answer.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.text().await.expect("a body")
    }
}

fn spawn(dir: &tempfile::TempDir, address: &str) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_drover-appendonly-server"))
        .args(["--listen", address, "--until-stdin-ends"])
        .args(["--index-delay-ms", &INDEX_DELAY_MS.to_string()])
        .arg("--log")
        .arg(dir.path().join("log"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().expect("its stdout"))
        .read_line(&mut line)
        .expect("a line");
    let listening: Listening = serde_json::from_str(&line).expect("the listening line");
    (process, listening.url)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Harness for Server {
    type Loader = AppendOnly;

    async fn fresh() -> Option<Self> {
        Some(Server::start())
    }

    fn loader(&self) -> AppendOnly {
        self.loader_with(2000, INDEX_DELAY_MS)
    }

    async fn rows(&self, entity: &'static Entity) -> Vec<Row> {
        let text = self.get("_control/records").await;
        text.lines()
            .map(|line| serde_json::from_str::<Stored>(line).expect("a record"))
            .filter(|stored| stored.entity == entity.name)
            .map(|stored| Row {
                values: entity
                    .fields
                    .iter()
                    .map(|field| value(field.kind, &stored.fields[&field.name]))
                    .collect(),
                custom: stored
                    .custom
                    .into_iter()
                    .map(|(name, json)| (name, json.get().to_owned()))
                    .collect(),
                key: stored.key,
                id: stored.id,
                deleted: stored.deleted,
            })
            .collect()
    }

    async fn creates(&self, entity: &'static Entity) -> usize {
        let all = self.all_creates().await;
        all.iter().filter(|one| one.entity == entity.name).count()
    }

    async fn settle(&self) {
        self.get("_control/indexed").await;
    }

    fn spoil(&self, datum: &mut Datum<'static>) {
        datum.values[0] = Value::String("nothing can hold \0".into());
    }

    async fn restart(&self) {
        self.kill();
        self.again();
    }
}

fn value(kind: Kind, json: &serde_json::Value) -> Value<'static> {
    if json.is_null() {
        return Value::Null;
    }
    let text = || json.as_str().expect("a text").to_owned();
    match kind {
        Kind::String => Value::String(text().into()),
        Kind::Decimal => Value::Decimal(text().into()),
        Kind::Reference => Value::Reference(text().into()),
        Kind::Boolean => Value::Boolean(json.as_bool().expect("a boolean")),
        Kind::Long => Value::Long(json.as_i64().expect("a number")),
        Kind::Date => {
            let day: NaiveDate = text().parse().expect("a day");
            let since = day - DateTime::UNIX_EPOCH.date_naive();
            Value::Date(since.num_days() as i32)
        }
        Kind::Datetime => {
            let time = DateTime::parse_from_rfc3339(&text()).expect("a moment");
            Value::Datetime(time.timestamp_millis())
        }
    }
}
