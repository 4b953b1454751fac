//! A stand-in of Salesforce in this process, with a clock of its own: so that
//! equal stamps, late commits and writes between any two requests happen when a
//! test wants them. It shares no code with the extractor or with the sandbox.

#![allow(dead_code, missing_docs)]

pub mod api;
pub mod bulk;
pub mod http;
pub mod soql;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use api::{FIELDS, record};
use drover_extractor_salesforce::Salesforce;
use drover_pipeline::extract::Extractor;
use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Setup, Source, Write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// A moment of the model's clock.
pub type Millis = i64;

/// Where the clock starts: somewhere inside a minute.
const START: Millis = 1_774_948_512_345;

/// One state of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub stamp: Millis,
    pub deleted: bool,
    pub value: u64,
}

/// A record: what queries see, and a write that they do not see yet.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub shown: Option<Version>,
    pub pending: Option<(Millis, Millis, Option<Version>)>,
}

/// An object.
#[derive(Debug, Default)]
pub struct Table {
    pub prefix: &'static str,
    pub rows: BTreeMap<String, Row>,
    pub log: Vec<(Millis, String)>,
    number: u64,
}

/// Something that happens to the org.
pub type Chaos = Box<dyn FnMut(&mut State) + Send>;

/// The org.
pub struct State {
    pub now: Millis,
    pub tables: BTreeMap<&'static str, Table>,
    pub requests: u64,
    pub rng: StdRng,
    /// How long a write stays unseen; `None`: until the next `settle`.
    pub delay: Option<Millis>,
    /// Whether answers may hold fewer records than asked for.
    pub short: bool,
    /// Whether `latestDateCovered` knows of open transactions.
    pub honest: bool,
    /// How far the `Date` header may be wrong, either way.
    pub skew: Millis,
    /// What happens before each request.
    pub chaos: Option<Chaos>,
    pub fault: Option<(Fault, u64, u64)>,
    token: u64,
    /// The `instance_url` of token answers.
    pub origin: String,
    /// Tokens given so far.
    pub logins: u64,
    /// The most deletes that one answer may hold.
    pub most_deletes: usize,
    /// Whether the next locator has lapsed when it is used.
    pub forget_locators: bool,
    /// Where the log of deletes begins.
    pub log_start: Millis,
    /// Records that are printed without one of their fields.
    pub without: HashMap<String, &'static str>,
    locators: HashMap<String, Vec<String>>,
    /// Records that are counted and not shown.
    pub hidden: HashSet<String>,
    /// What the formula gives, in every record.
    pub formula: u32,
    /// Whether Bulk refuses every object.
    pub no_bulk: bool,
    /// How often a new job is asked for before it is done.
    pub polls: u32,
    pub jobs: BTreeMap<String, bulk::Job>,
    expired: u32,
}

/// The running stand-in.
pub struct Model {
    pub url: String,
    pub state: Arc<Mutex<State>>,
    pub page: usize,
    pub lookback_ms: u32,
    /// Objects of this size are read by Bulk.
    pub threshold: u64,
    http: HttpClient,
}

impl State {
    pub fn new(seed: u64, records: usize) -> State {
        let mut state = State {
            now: START,
            tables: BTreeMap::new(),
            requests: 0,
            rng: StdRng::seed_from_u64(seed),
            delay: Some(0),
            short: false,
            honest: true,
            skew: 0,
            chaos: None,
            fault: None,
            token: 0,
            origin: String::new(),
            logins: 0,
            most_deletes: 600_000,
            forget_locators: false,
            log_start: START - 15 * 86_400_000,
            without: HashMap::new(),
            locators: HashMap::new(),
            hidden: HashSet::new(),
            formula: 0,
            no_bulk: false,
            polls: 2,
            jobs: BTreeMap::new(),
            expired: 0,
        };
        for (name, prefix) in [("Account", "001"), ("Thing__c", "a01")] {
            state.tables.insert(
                name,
                Table {
                    prefix,
                    ..Table::default()
                },
            );
            for _ in 0..records {
                let stamp = START - 86_400_000 + state.rng.random_range(0..80_000) * 1_000;
                let id = state.new_id(name);
                let shown = Some(Version {
                    stamp,
                    deleted: false,
                    value: state.rng.random(),
                });
                state.table(name).rows.insert(
                    id,
                    Row {
                        shown,
                        pending: None,
                    },
                );
            }
        }
        state
    }

    pub fn table(&mut self, object: &str) -> &mut Table {
        self.tables.get_mut(object).expect("a table")
    }

    fn new_id(&mut self, object: &str) -> String {
        let table = self.table(object);
        table.number += 1;
        // Ids do not come in order: half of the new ones lie before the old.
        let number = if table.number.is_multiple_of(2) {
            table.number
        } else {
            900_000 - table.number
        };
        let short = format!("{}{number:012}", table.prefix);
        drover_extractor_salesforce::id::normalise(&short).expect("an id")
    }

    /// Shows what has been committed by now.
    fn advance(&mut self) {
        let now = self.now;
        for table in self.tables.values_mut() {
            for (id, row) in &mut table.rows {
                if row.pending.as_ref().is_some_and(|pending| pending.0 <= now)
                    && let Some((_, stamp, version)) = row.pending.take()
                {
                    let was_live = row.shown.as_ref().is_some_and(|shown| !shown.deleted);
                    if was_live && version.as_ref().is_none_or(|version| version.deleted) {
                        table.log.push((stamp, id.clone()));
                    }
                    row.shown = version;
                }
            }
        }
    }

    /// Writes; nothing if the record is not in a state for it.
    pub fn write(&mut self, object: &str, what: Write<'_>) -> Option<String> {
        self.advance();
        let stamp = self.now - self.now % 1_000;
        let value = self.rng.random();
        let live = Some(Version {
            stamp,
            deleted: false,
            value,
        });
        let (id, deleted, version) = match what {
            Write::Create => (self.new_id(object), None, live),
            Write::Edit(id) => (id.to_owned(), Some(false), live),
            Write::Undelete(id) => (id.to_owned(), Some(true), live),
            Write::Delete(id) => (
                id.to_owned(),
                Some(false),
                Some(Version {
                    stamp,
                    deleted: true,
                    value,
                }),
            ),
            Write::Purge(id) => (id.to_owned(), Some(false), None),
        };
        let visible = self.delay.map_or(Millis::MAX, |delay| self.now + delay);
        let row = self.table(object).rows.entry(id.clone()).or_default();
        // A row that another transaction has written is locked.
        let fits =
            row.shown.as_ref().map(|shown| shown.deleted) == deleted && row.pending.is_none();
        if !fits {
            return None;
        }
        row.pending = Some((visible, stamp, version));
        self.advance();
        Some(id)
    }

    /// Commits everything and lets the clock go on past it.
    pub fn settle(&mut self) {
        for row in self
            .tables
            .values_mut()
            .flat_map(|table| table.rows.values_mut())
        {
            if let Some(pending) = &mut row.pending {
                pending.0 = self.now;
            }
        }
        self.advance();
        self.now += 2_000 + self.skew;
    }

    /// The truth: pending writes count.
    pub fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        let mut truth = BTreeMap::new();
        for (id, row) in &self.tables[object].rows {
            let version = match &row.pending {
                Some(pending) => &pending.2,
                None => &row.shown,
            };
            let body = version
                .as_ref()
                .filter(|version| !version.deleted)
                .map(|version| {
                    serde_json::from_str(&record(id, version, self.formula, &FIELDS)).map(
                        |mut body: Map<String, Value>| {
                            body.remove("attributes");
                            body
                        },
                    )
                });
            truth.insert(id.clone(), body.transpose().expect("a record"));
        }
        truth
    }
}

impl Model {
    pub async fn run(state: State, page: usize, lookback_ms: u32) -> Model {
        Model::run_for(
            state,
            page,
            lookback_ms,
            HttpClient::new().expect("a client"),
        )
        .await
    }

    /// The same for a client that is there: to make one takes a while.
    pub async fn run_for(state: State, page: usize, lookback_ms: u32, http: HttpClient) -> Model {
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let url =
            http::serve(move |request| served.lock().expect("the state").handle(&request)).await;
        Model::of(state, url, page, lookback_ms, http)
    }

    /// The same without a network.
    pub fn in_process(state: State, page: usize, lookback_ms: u32, http: &HttpClient) -> Model {
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let server =
            http::InProcess(move |request| served.lock().expect("the state").handle(&request));
        let http = http.answered_by(Arc::new(server));
        Model::of(
            state,
            "http://127.0.0.1:1".to_owned(),
            page,
            lookback_ms,
            http,
        )
    }

    fn of(
        state: Arc<Mutex<State>>,
        url: String,
        page: usize,
        lookback_ms: u32,
        http: HttpClient,
    ) -> Model {
        state.lock().expect("the state").origin = url.clone();
        Model {
            url,
            state,
            page,
            lookback_ms,
            threshold: u64::MAX,
            http,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    pub fn client(&self, secret: &str) -> Salesforce {
        let config = json!({
            "instanceUrl": self.url, "clientId": "id", "clientSecret": secret,
            "pageSize": self.page, "lookbackMs": self.lookback_ms,
            "bulkThreshold": self.threshold, "bulkPageSize": self.page,
        });
        let config = serde_json::from_value(config).expect("a config");
        Salesforce::new(config, self.http.clone()).expect("an extractor")
    }
}

impl Source for Model {
    type Extractor = Salesforce;
    const OBJECTS: &'static [&'static str] = &["Account", "Thing__c"];
    const PAGE: usize = 6;
    const IDLE: u64 = 2;

    async fn start(setup: Setup) -> Self {
        let mut state = State::new(7, setup.records);
        if setup.late {
            state.delay = None;
        }
        Model::run(state, Self::PAGE, 600_000).await
    }

    fn extractor(&self) -> Salesforce {
        self.client("hush")
    }

    fn intruder(&self) -> Salesforce {
        self.client("wrong")
    }

    async fn write(&self, object: &str, what: Write<'_>) -> Option<String> {
        self.state().write(object, what)
    }

    async fn settle(&self) {
        self.state().settle();
    }

    async fn fault(&self, fault: Fault, at: u64, times: u64) {
        self.state().fault = Some((fault, at, times));
    }

    async fn requests(&self) -> u64 {
        self.state().requests
    }

    async fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        self.state().truth(object)
    }
}

/// The same, whose first copies are made by Bulk jobs.
pub struct BulkModel(pub Model);

impl Source for BulkModel {
    type Extractor = Salesforce;
    const OBJECTS: &'static [&'static str] = Model::OBJECTS;
    const PAGE: usize = Model::PAGE;
    const IDLE: u64 = Model::IDLE;

    async fn start(setup: Setup) -> Self {
        let mut model = Model::start(setup).await;
        model.threshold = 0;
        BulkModel(model)
    }

    fn extractor(&self) -> Salesforce {
        self.0.extractor()
    }

    fn intruder(&self) -> Salesforce {
        self.0.intruder()
    }

    async fn write(&self, object: &str, what: Write<'_>) -> Option<String> {
        Source::write(&self.0, object, what).await
    }

    async fn settle(&self) {
        Source::settle(&self.0).await;
    }

    async fn fault(&self, fault: Fault, at: u64, times: u64) {
        Source::fault(&self.0, fault, at, times).await;
    }

    async fn requests(&self) -> u64 {
        self.0.requests().await
    }

    async fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        Source::truth(&self.0, object).await
    }
}
