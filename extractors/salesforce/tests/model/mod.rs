//! A stand-in of Salesforce in this process, with a clock of its own: so that
//! equal stamps, late commits and writes between any two requests happen when a
//! test wants them. It shares no code with the extractor or with the sandbox.

#![allow(dead_code, missing_docs)]

pub mod http;
pub mod soql;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, SecondsFormat};
use drover_extractor_salesforce::Salesforce;
use drover_pipeline::extract::Extractor;
use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Setup, Source, Write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use http::{JSON, Reply, Request};

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
    pub chaos: Option<Box<dyn FnMut(&mut State) + Send>>,
    pub fault: Option<(Fault, u64, u64)>,
    token: u64,
    locators: HashMap<String, Vec<String>>,
}

/// The running stand-in.
pub struct Model {
    pub url: String,
    pub state: Arc<Mutex<State>>,
    pub page: usize,
    pub lookback_ms: u32,
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
            locators: HashMap::new(),
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

    fn date(&mut self) -> String {
        let skew = if self.skew > 0 {
            self.rng.random_range(-self.skew..=self.skew)
        } else {
            0
        };
        DateTime::from_timestamp_millis(self.now + skew)
            .expect("a time")
            .format("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
    }

    fn handle(&mut self, request: &Request) -> Reply {
        if let Some(mut chaos) = self.chaos.take() {
            chaos(self);
            self.chaos = Some(chaos);
        }
        self.advance();
        self.requests += 1;
        let date = self.date();
        let json =
            |status, body: Value| Reply::Answer(status, JSON, date.clone(), body.to_string());
        let refused = |status, code: &str, message: &str| {
            json(status, json!([{"message": message, "errorCode": code}]))
        };
        let mut half = false;
        match self.struck() {
            Some(Fault::RateLimit) => {
                return refused(
                    403,
                    "REQUEST_LIMIT_EXCEEDED",
                    "TotalRequests Limit exceeded.",
                );
            }
            Some(Fault::ServerError) => {
                return refused(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred.");
            }
            Some(Fault::CutBefore | Fault::CutAfter) => return Reply::Cut,
            Some(Fault::HtmlPage) => {
                return Reply::Answer(200, "text/html", date, "<html>Sorry</html>".to_owned());
            }
            Some(Fault::NotJson) => {
                return Reply::Answer(200, JSON, date, "gateway says hello".to_owned());
            }
            Some(Fault::Truncated) => half = true,
            Some(Fault::ExpiredToken) if request.method == "GET" => self.token += 1,
            Some(Fault::ExpiredToken | Fault::Slow) | None => {}
        }
        if request.path == "/services/oauth2/token" {
            let form = http::form(&request.body);
            let has =
                |name: &str, value: &str| form.iter().any(|pair| pair.0 == name && pair.1 == value);
            assert!(has("grant_type", "client_credentials"), "{form:?}");
            if !has("client_id", "id") || !has("client_secret", "hush") {
                let body = json!({"error": "invalid_client", "error_description": "invalid client credentials"});
                return json(400, body);
            }
            if half {
                return Reply::Half(date, "{}".to_owned());
            }
            return json(
                200,
                json!({"access_token": format!("token {}", self.token), "instance_url": self.token_url(), "token_type": "Bearer"}),
            );
        }
        if request.token.as_deref() != Some(&format!("token {}", self.token)) {
            return refused(401, "INVALID_SESSION_ID", "Session expired or invalid");
        }
        let Some(path) = request.path.strip_prefix("/services/data/v67.0") else {
            return refused(404, "NOT_FOUND", "The requested resource does not exist");
        };
        let parameter = |name: &str| {
            request
                .query
                .iter()
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1.as_str())
        };
        let body = match path {
            "/limits" => json!({"DailyApiRequests": {"Max": 100, "Remaining": 50}}).to_string(),
            "/limits/recordCount" => return refused(403, "INSUFFICIENT_ACCESS", "View Setup"),
            "/sobjects" => self.global().to_string(),
            "/query" | "/queryAll" => self.query(parameter("q").expect("q"), path == "/queryAll"),
            _ if path.ends_with("/describe") => describe().to_string(),
            _ if path.starts_with("/query/") => self.locator(path),
            _ => match path
                .strip_prefix("/sobjects/")
                .and_then(|rest| rest.strip_suffix("/deleted/"))
            {
                Some(object) => self.deleted(
                    object,
                    parameter("start").expect("start"),
                    parameter("end").expect("end"),
                ),
                None => return refused(404, "NOT_FOUND", "The requested resource does not exist"),
            },
        };
        // The answer is sent when the work is done, by the same clock.
        match (half, self.requests % 2) {
            (false, _) => Reply::Answer(200, JSON, date, body),
            // Cut on the way, or cut where it was made.
            (true, 0) => Reply::Half(date, body),
            (true, _) => {
                let end = (0..body.len() / 2)
                    .rev()
                    .find(|at| body.is_char_boundary(*at));
                Reply::Answer(200, JSON, date, body[..end.unwrap_or(0)].to_owned())
            }
        }
    }

    fn token_url(&self) -> String {
        self.locators
            .get("url")
            .and_then(|url| url.first().cloned())
            .unwrap_or_default()
    }

    fn struck(&mut self) -> Option<Fault> {
        let (fault, at, times) = self.fault.as_mut()?;
        if *at > 1 {
            *at -= 1;
            return None;
        }
        *times = times.checked_sub(1)?;
        Some(*fault)
    }

    fn global(&self) -> Value {
        let entry = |name: &&str| json!({"name": name, "custom": name.ends_with("__c"), "customSetting": false, "queryable": true});
        json!({"sobjects": self.tables.keys().map(entry).collect::<Vec<_>>()})
    }

    fn query(&mut self, text: &str, all: bool) -> String {
        let query = soql::parse(text);
        let fields: Vec<&str> = query.fields.iter().map(String::as_str).collect();
        let mut found: Vec<(String, Version)> = Vec::new();
        for (id, row) in &self.tables[query.object.as_str()].rows {
            let Some(version) = &row.shown else { continue };
            let value = |field: &str| match field {
                "Id" => id.clone(),
                "SystemModstamp" => format!("{:020}", version.stamp),
                "IsDeleted" => version.deleted.to_string(),
                other => panic!("a filter by {other}"),
            };
            if (all || !version.deleted)
                && query
                    .filter
                    .as_ref()
                    .is_none_or(|filter| filter.holds(&value))
            {
                found.push((id.clone(), version.clone()));
            }
        }
        match query.order.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["Id"] => {}
            ["SystemModstamp", "Id"] => {
                found.sort_by(|a, b| (a.1.stamp, &a.0).cmp(&(b.1.stamp, &b.0)))
            }
            ref other => panic!("order by {other:?}"),
        }
        found.truncate(query.limit.unwrap_or(usize::MAX));
        let rows = found
            .iter()
            .map(|(id, version)| record(id, version, &fields))
            .collect();
        self.answer(rows)
    }

    fn answer(&mut self, mut rows: Vec<String>) -> String {
        let total = rows.len();
        let mut more = String::new();
        if self.short && rows.len() > 1 && self.rng.random_bool(0.3) {
            let rest = rows.split_off(self.rng.random_range(1..rows.len()));
            let name = format!("01g{:012}-{}", self.locators.len(), rows.len());
            more = format!(r#""nextRecordsUrl":"/services/data/v67.0/query/{name}","#);
            self.locators.insert(name, rest);
        }
        format!(
            r#"{{"totalSize":{total},"done":{},{more}"records":[{}]}}"#,
            more.is_empty(),
            rows.join(",")
        )
    }

    fn locator(&mut self, path: &str) -> String {
        let rows = self
            .locators
            .remove(&path["/query/".len()..])
            .expect("a locator");
        self.answer(rows)
    }

    fn deleted(&self, object: &str, start: &str, end: &str) -> String {
        let moment = |text: &str| {
            DateTime::parse_from_rfc3339(text)
                .expect("a time")
                .timestamp_millis()
        };
        let (start, end) = (moment(start), moment(end));
        assert!(
            start % 60_000 == 0 && end % 60_000 == 0 && end > start,
            "whole minutes"
        );
        let table = &self.tables[object];
        // Undeleted records stay in the log: the extractor must look.
        let records: Vec<Value> = table
            .log
            .iter()
            .filter(|(at, _)| (start..end).contains(at))
            .map(|(at, id)| json!({"id": id, "deletedDate": stamp(*at)}))
            .collect();
        let open = table
            .rows
            .values()
            .filter_map(|row| row.pending.as_ref())
            .map(|pending| pending.1)
            .min();
        let covered = if self.honest {
            open.unwrap_or(self.now).min(self.now)
        } else {
            self.now
        };
        json!({
            "deletedRecords": records,
            "earliestDateAvailable": stamp(START - 15 * 86_400_000),
            "latestDateCovered": stamp((covered - covered % 60_000).min(end)),
        })
        .to_string()
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
                    serde_json::from_str(&record(id, version, &FIELDS)).map(
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

/// The fields of every object; the compound one is not asked for.
pub const FIELDS: [&str; 7] = [
    "Id",
    "IsDeleted",
    "Name",
    "Amount__c",
    "Nothing__c",
    "CreatedDate",
    "SystemModstamp",
];

fn describe() -> Value {
    let mut fields: Vec<Value> = FIELDS
        .iter()
        .map(|name| json!({"name": name, "type": "string"}))
        .collect();
    fields.insert(3, json!({"name": "BillingAddress", "type": "address"}));
    json!({"fields": fields})
}

fn stamp(at: Millis) -> String {
    DateTime::from_timestamp_millis(at)
        .expect("a time")
        .to_rfc3339_opts(SecondsFormat::Millis, true)
        .replace('Z', "+0000")
}

/// A record as the API prints it.
fn record(id: &str, version: &Version, fields: &[&str]) -> String {
    let value = |field: &str| match field {
        "Id" => format!("{id:?}"),
        "IsDeleted" => version.deleted.to_string(),
        "Name" => format!(r#""Zo\u00eb 🦀 {}""#, version.value),
        "Amount__c" => format!("{}.{:03}E1", version.value % 100, version.value % 1_000),
        "Nothing__c" => "null".to_owned(),
        "CreatedDate" | "SystemModstamp" => format!("{:?}", stamp(version.stamp)),
        other => panic!("field {other}"),
    };
    let values: Vec<String> = fields
        .iter()
        .map(|field| format!("{field:?}:{}", value(field)))
        .collect();
    format!(r#"{{"attributes":{{"type":"X"}},{}}}"#, values.join(","))
}

impl Model {
    pub async fn run(state: State, page: usize, lookback_ms: u32) -> Model {
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let url =
            http::serve(move |request| served.lock().expect("the state").handle(&request)).await;
        state
            .lock()
            .expect("the state")
            .locators
            .insert("url".to_owned(), vec![url.clone()]);
        let http = HttpClient::new().expect("a client");
        Model {
            url,
            state,
            page,
            lookback_ms,
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
