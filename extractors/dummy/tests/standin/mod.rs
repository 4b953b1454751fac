//! A stand-in of the API, with a clock of its own: so that equal stamps, late
//! records and writes between any two requests happen when a test wants them. It
//! shares no code with the extractor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use drover_extractor_dummy::{Config, Dummy};
use drover_pipeline::extract::Extractor;
use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Setup, Source, Write};
use serde_json::{Map, Value, json};

const KEY: &str = "hush";
/// Where the clock starts: inside a second.
const START: i64 = 1_774_948_512_345;
/// How long the clock runs while a request is answered.
const REQUEST: i64 = 100;
/// How far the extractor's rounds reach back.
const LOOKBACK: u32 = 60_000;

/// What the product keeps.
#[derive(Default)]
struct State {
    now: i64,
    tables: BTreeMap<&'static str, BTreeMap<String, Row>>,
    written: u64,
    /// Whether writes show only when the test says so.
    late: bool,
    requests: u64,
    /// The fault, the number of its first request, and how many it strikes.
    fault: Option<(Fault, u64, u64)>,
    /// The token that is good is `token N`.
    token: u64,
}

/// A record: as it shows, and as it was written and does not show yet.
#[derive(Default)]
struct Row {
    shown: Option<Map<String, Value>>,
    pending: Option<Map<String, Value>>,
}

/// The running stand-in.
pub struct StandIn {
    url: String,
    state: Arc<Mutex<State>>,
}

impl State {
    /// The next version of a record. Stamps are whole seconds, as many products
    /// have them, so that several writes bear the same one.
    fn version(&mut self, object: &str, id: &str) -> Map<String, Value> {
        self.written += 1;
        let number = self.written;
        let fields = match object {
            "Company" => json!({
                "name": format!("Company \"{number}\""), "website": null,
                "revenue": number as f64 + 0.5,
            }),
            _ => json!({
                "firstName": "Zoë", "lastName": format!("O'Neil {number}"),
                "email": format!("p{number}@example.com"), "company": "company-0001",
            }),
        };
        let stamp = self.now - self.now % 1_000;
        let Value::Object(mut record) = json!({"id": id, "modified": stamp}) else {
            unreachable!("an object");
        };
        record.extend(fields.as_object().cloned().unwrap_or_default());
        record
    }

    fn write(&mut self, object: &str, what: Write<'_>) -> Option<String> {
        let (name, table) = self.tables.iter().find(|(name, _)| **name == object)?;
        let name = *name;
        let live = |id: &str| {
            let row = table.get(id)?;
            // A record that somebody else is writing is locked.
            let shown = row.shown.as_ref().filter(|_| row.pending.is_none())?;
            (!shown.contains_key("deleted")).then(|| id.to_owned())
        };
        let (id, delete) = match what {
            Write::Create => (format!("{}-{:04}", name.to_lowercase(), table.len()), false),
            Write::Edit(id) => (live(id)?, false),
            Write::Delete(id) => (live(id)?, true),
            // There is no recycle bin: what is gone stays gone.
            Write::Undelete(_) | Write::Purge(_) => return None,
        };
        let mut record = self.version(name, &id);
        if delete {
            record.retain(|field, _| field == "id" || field == "modified");
            record.insert("deleted".to_owned(), true.into());
        }
        let late = self.late;
        let row = self.tables.get_mut(name)?.entry(id.clone()).or_default();
        match late {
            true => row.pending = Some(record),
            false => row.shown = Some(record),
        }
        Some(id)
    }

    /// Shows all that was written, and lets the lookback pass.
    fn settle(&mut self) {
        for row in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            row.shown = row.pending.take().or(row.shown.take());
        }
        self.now += i64::from(LOOKBACK) + 1_000;
    }

    /// The answer to a request: its status and body.
    fn answer(&self, path: &[&str], query: &Query, body: &Value) -> (u16, Value) {
        let rows = |object: &str| {
            let rows = self.tables.get(object)?.values();
            Some(
                rows.filter_map(|row| row.shown.as_ref())
                    .collect::<Vec<_>>(),
            )
        };
        let limit = query.number("limit").unwrap_or(0) as usize;
        let body = match *path {
            ["time"] => Some(json!({"now": self.now})),
            ["objects"] => Some(json!({"objects": [
                described("Company", self.tables["Company"].len(), &["name", "website", "revenue"]),
                described("Person", self.tables["Person"].len(), &["firstName", "lastName", "email", "company"]),
            ]})),
            ["records", object] => rows(object).map(|mut rows| {
                let key = |row: &Map<String, Value>| (stamp(row), id(row).to_owned());
                let after = query.number("afterModified").zip(query.text("afterId"));
                rows.retain(|row| {
                    Some(stamp(row)) >= query.number("since")
                        && query
                            .number("until")
                            .is_some_and(|until| stamp(row) < until)
                        && after.as_ref().is_none_or(|after| key(row) > *after)
                });
                rows.sort_by_key(|row| key(row));
                json!({"more": rows.len() > limit, "records": rows[..rows.len().min(limit)]})
            }),
            ["records", object, "get"] => rows(object).map(|mut rows| {
                let asked = body["ids"].as_array().cloned().unwrap_or_default();
                rows.retain(|row| asked.contains(&row["id"]));
                json!({"records": rows})
            }),
            ["records", object, "ids"] => rows(object).map(|mut rows| {
                let after = query.text("after").unwrap_or_default();
                rows.retain(|row| id(row) > after.as_str() && !row.contains_key("deleted"));
                let ids: Vec<&str> = rows.iter().take(limit).map(|row| id(row)).collect();
                json!({"more": rows.len() > limit, "ids": ids})
            }),
            _ => None,
        };
        body.map_or((404, json!({})), |body| (200, body))
    }
}

fn described(name: &str, count: usize, fields: &[&str]) -> Value {
    let field = |name: &&str| match *name {
        "company" => json!({"name": name, "type": "reference", "references": ["Company"]}),
        _ => json!({"name": name, "type": "text"}),
    };
    let all = ["id", "modified"].iter().chain(fields).map(field);
    json!({"name": name, "count": count, "fields": all.collect::<Vec<_>>()})
}

fn stamp(row: &Map<String, Value>) -> i64 {
    row["modified"].as_i64().expect("a stamp")
}

fn id(row: &Map<String, Value>) -> &str {
    row["id"].as_str().expect("an id")
}

struct Query(Vec<(String, String)>);

impl Query {
    fn text(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.clone())
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name).map(|text| text.parse().expect("a number"))
    }
}

/// One request, as the product answers it or as the fault has it.
async fn serve(state: Arc<Mutex<State>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let url = reqwest::Url::parse(&format!("http://x{}", head.uri)).expect("an address");
    let query = Query(url.query_pairs().into_owned().collect());
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let token = head.headers.get(header::AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let (fault, (status, body)) = {
        let mut state = state.lock().expect("the state");
        state.requests += 1;
        state.now += REQUEST;
        let struck = state.fault.filter(|(_, from, times)| {
            (*from..from.saturating_add(*times)).contains(&state.requests)
        });
        let fault = struck.map(|(fault, ..)| fault);
        let good = format!("token {}", state.token);
        // A token that is given out while the fault lasts is void as well.
        state.token += u64::from(fault == Some(Fault::ExpiredToken));
        let answer = match (&path[..], token) {
            (["token"], _) if body["key"] == KEY => (200, json!({"token": good})),
            (["token"], _) => (401, json!({})),
            _ if token != Some(&format!("token {}", state.token)) => (401, json!({})),
            _ => state.answer(&path, &query, &body),
        };
        (fault, answer)
    };
    let text = body.to_string();
    let json = |status: u16, text: &str| {
        let status = StatusCode::from_u16(status).expect("a status");
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (status, kind, text.to_owned()).into_response()
    };
    match fault {
        None | Some(Fault::ExpiredToken) => json(status, &text),
        Some(Fault::Slow) => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            json(status, &text)
        }
        Some(Fault::RateLimit) => {
            let wait = [(header::RETRY_AFTER, "3")];
            (StatusCode::TOO_MANY_REQUESTS, wait, "{}").into_response()
        }
        Some(Fault::ServerError) => json(503, "{}"),
        // A body that fails makes axum close the connection.
        Some(Fault::CutBefore | Fault::CutAfter) => {
            let cut = futures::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("cut"))]);
            Body::from_stream(cut).into_response()
        }
        Some(Fault::HtmlPage) => axum::response::Html("<html>Sorry</html>").into_response(),
        Some(Fault::NotJson) => json(200, "gateway says hello"),
        Some(Fault::Truncated) => json(200, text.get(..text.len() / 2).unwrap_or("{")),
    }
}

impl StandIn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    fn client(&self, key: &str) -> Dummy {
        let config = json!({
            "url": self.url, "apiKey": key, "pageSize": Self::PAGE, "lookbackMs": LOOKBACK,
        });
        let config: Config = serde_json::from_value(config).expect("a config");
        let http = HttpClient::new().expect("a client");
        Dummy::new(config, http).unwrap_or_else(|problems| panic!("{problems:?}"))
    }
}

impl Source for StandIn {
    type Extractor = Dummy;
    const OBJECTS: &'static [&'static str] = &["Company", "Person"];
    const PAGE: usize = 6;
    const IDLE: u64 = 2;

    async fn start(setup: Setup) -> Self {
        let mut state = State::default();
        for (number, object) in Self::OBJECTS.iter().enumerate() {
            state.tables.insert(object, BTreeMap::new());
            for record in 0..setup.records {
                // Three records a second, a day ago.
                state.now = START - 86_400_000 + (record / 3 * 1_000 + number) as i64;
                state.write(object, Write::Create).expect("a record");
            }
        }
        (state.now, state.late) = (START, setup.late);
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let router = Router::new().fallback(move |request| serve(Arc::clone(&served), request));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        StandIn { url, state }
    }

    fn extractor(&self) -> Dummy {
        self.client(KEY)
    }

    fn intruder(&self) -> Dummy {
        self.client("guessed")
    }

    async fn write(&self, object: &str, what: Write<'_>) -> Option<String> {
        self.state().write(object, what)
    }

    async fn settle(&self) {
        self.state().settle();
    }

    async fn fault(&self, fault: Fault, at: u64, times: u64) {
        let mut state = self.state();
        state.fault = Some((fault, state.requests + at, times));
    }

    async fn requests(&self) -> u64 {
        self.state().requests
    }

    async fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        self.state().tables[object]
            .iter()
            .map(|(id, row)| {
                let record = row.pending.as_ref().or(row.shown.as_ref());
                let live = record.filter(|record| !record.contains_key("deleted"));
                (id.clone(), live.cloned())
            })
            .collect()
    }
}
