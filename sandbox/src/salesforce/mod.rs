//! A stand-in of the Salesforce REST API: an org with records, users who
//! edit them, and answers as the real host gives them.

mod aggregate;
pub mod auth;
mod blob;
mod bulk;
mod collections;
mod composite;
mod convert;
mod derive;
mod describe;
mod errors;
mod field;
mod filter;
mod generate;
mod id;
mod limits;
mod live;
mod load;
mod moment;
mod people;
mod plan;
mod print;
mod query;
mod reach;
mod record;
mod recorded;
mod related;
mod replication;
mod rest;
mod rows;
mod run;
mod schema;
mod search;
mod soap;
pub mod soql;
mod staged;
mod store;
mod team;
mod tree;
mod value;
mod words;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::Options;
use crate::exchange::{Answer, Call};
use crate::system::{Counts, Refusal, System};
use convert::Strictness;
use errors::ApiError;
use id::Id;
use moment::Millis;
use reach::Reach;
use schema::{Schema, Source};
use store::Store;
use write::When;

/// Records in one piece of the answer that tells the truth.
const PIECE: usize = 2_000;

/// An org and its API.
#[derive(Debug)]
pub struct Salesforce {
    store: RwLock<Store>,
    cursors: query::Cursors,
    jobs: bulk::Jobs,
    batches: bulk::v1::Jobs,
    described: recorded::Described,
    auth: auth::Auth,
    usage: limits::Usage,
    frozen: AtomicBool,
    visibility_delay: Millis,
    live_changes: f64,
    seed: u64,
}

impl Salesforce {
    /// An org as the options say: generated, from files, or both.
    pub fn new(options: &Options) -> Result<Salesforce, String> {
        let mut store = Store::new(Schema::standard());
        let start = moment::now();
        let described = recorded::Described::read(&options.describe, &mut store)?;
        let given = match &options.data {
            Some(folder) => load::folder(&mut store, folder, start)?,
            None => Vec::new(),
        };
        let records = options
            .records
            .or(options.data.is_none().then_some(crate::DEFAULT_RECORDS));
        if let Some(records) = records {
            generate::fill(&mut store, options.seed, records, start, &given);
        }
        Ok(Salesforce {
            store: RwLock::new(store),
            cursors: query::Cursors::default(),
            jobs: bulk::Jobs::default(),
            batches: bulk::v1::Jobs::default(),
            described,
            auth: auth::Auth::default(),
            usage: limits::Usage::new(options.daily_calls),
            frozen: AtomicBool::new(false),
            visibility_delay: options.visibility_delay.as_millis() as Millis,
            live_changes: options.live_changes,
            seed: options.seed,
        })
    }

    /// The store with everything shown that is visible by now.
    fn reading(&self) -> RwLockReadGuard<'_, Store> {
        let now = moment::now();
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        if !store.is_due(now) {
            return store;
        }
        drop(store);
        self.locked().advance(now);
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store for a write by the API, unless the org is read-only.
    fn writing(&self) -> Result<RwLockWriteGuard<'_, Store>, ApiError> {
        let store = self.locked();
        if self.frozen.load(Ordering::SeqCst) {
            return Err(ApiError::read_only());
        }
        Ok(store)
    }

    /// A write by the API has been committed when it is answered.
    fn at_once(&self) -> When {
        let now = moment::now();
        When {
            stamp: moment::second(now),
            visible: now,
            now,
            user: auth::user(),
        }
    }

    fn edited(&self, request: &Map<String, Value>) -> Result<Value, String> {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let says = |name: &str| request.get(name) == Some(&Value::Bool(true));
        const KNOWN: [&str; 10] = [
            "object",
            "id",
            "fields",
            "create",
            "delete",
            "undelete",
            "hard_delete",
            "merge",
            "at",
            "visible_after_ms",
        ];
        if let Some(unknown) = request.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(format!(
                "unknown key `{unknown}`; known are {}",
                KNOWN.join(", ")
            ));
        }
        let now = moment::now();
        let stamp = match text("at") {
            Some(at) => moment::parse(at).ok_or_else(|| format!("`at` is no date-time: {at}"))?,
            None => moment::second(now),
        };
        let delay = match request.get("visible_after_ms") {
            Some(delay) => delay
                .as_i64()
                .ok_or("`visible_after_ms` is not a whole number")?,
            None => self.visibility_delay,
        };
        let when = When {
            stamp,
            visible: now + delay,
            now,
            user: auth::user(),
        };
        let name = text("object").ok_or("`object` is missing")?;
        let mut store = self.locked();
        let object = store
            .schema
            .number(name)
            .ok_or_else(|| format!("no object `{name}`"))?;
        let failed = |error: ApiError| format!("{}: {}", error.code, error.message);
        if let Some(fields) = request.get("create") {
            let fields = fields.as_object().ok_or("`create` is not an object")?;
            let id =
                write::create(&mut store, object, fields, Strictness::Raw, when).map_err(failed)?;
            return Ok(json!({"id": id.to_string()}));
        }
        let id = text("id").ok_or("`id` is missing")?;
        let id = Id::parse(id).ok_or_else(|| format!("`id` is no id: {id}"))?;
        if let Some(fields) = request.get("fields") {
            let fields = fields.as_object().ok_or("`fields` is not an object")?;
            write::update(&mut store, object, id, fields, Strictness::Raw, when).map_err(failed)?;
        } else if let Some(losers) = request.get("merge") {
            let losers: Option<Vec<Id>> = losers.as_array().map(|ids| {
                ids.iter()
                    .filter_map(|id| Id::parse(id.as_str()?))
                    .collect()
            });
            let losers = losers.ok_or("`merge` is not a list of ids")?;
            write::merge(&mut store, object, id, &losers, when).map_err(failed)?;
        } else if says("delete") {
            write::delete(&mut store, object, id, Strictness::Raw, when).map_err(failed)?;
        } else if says("undelete") {
            write::undelete(&mut store, object, id, when).map_err(failed)?;
        } else if says("hard_delete") {
            write::hard_delete(&mut store, object, id, when).map_err(failed)?;
        } else {
            return Err(
                "one of `fields`, `create`, `delete`, `undelete`, `hard_delete`, `merge` is needed"
                    .to_owned(),
            );
        }
        Ok(json!({"id": id.to_string()}))
    }
}

impl System for Salesforce {
    fn start(self: Arc<Self>) {
        if self.live_changes > 0.0 {
            let changes = self.live_changes;
            tokio::spawn(live::run(self, changes));
        }
    }

    fn answer(&self, call: &Call) -> Answer {
        rest::answer(self, call)
    }

    fn label(&self, call: &Call) -> String {
        rest::label(call)
    }

    fn counts(&self) -> Vec<(String, Counts)> {
        let store = self.reading();
        store
            .schema
            .objects
            .iter()
            .enumerate()
            .map(|(number, object)| {
                let table = store.table(number);
                let counts = Counts {
                    records: table.live(),
                    deleted: table.binned(),
                    creates: table.writes.creates,
                    edits: table.writes.edits,
                    deletes: table.writes.deletes,
                };
                (object.name.clone(), counts)
            })
            .collect()
    }

    fn records(&self, object: &str, after: Option<&str>) -> Option<(Vec<u8>, Option<String>)> {
        let store = self.reading();
        let object = store.schema.number(object)?;
        let described = &store.schema.objects[object];
        let after = after.and_then(Id::parse).unwrap_or(Id::MIN);
        let mut out = Vec::new();
        let mut last = None;
        let mut found = Vec::new();
        for (count, record) in store.truths_after(object, after).enumerate() {
            if count == PIECE {
                return Some((out, last));
            }
            found.clear();
            found.resize(described.fields.len(), None);
            for (number, json) in record.entries() {
                found[usize::from(number)] = Some(json);
            }
            for (number, field) in described.fields.iter().enumerate() {
                out.extend_from_slice(if number == 0 { b"{\"" } else { b",\"" });
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b"\":");
                if field.source == Source::Formula {
                    Reach::of(object, number as u16).push_json(&store, record, &mut out);
                    continue;
                }
                value::push_found(record, described, number as u16, &mut out, |number| {
                    found[usize::from(number)]
                });
            }
            out.extend_from_slice(b"}\n");
            last = Some(record.id.to_string());
        }
        Some((out, None))
    }

    fn edit(&self, request: &Value) -> Result<Value, String> {
        self.edited(request.as_object().ok_or("the request is not an object")?)
    }

    fn freeze(&self, frozen: bool) {
        // Whoever writes holds the lock and looked before: no write follows.
        let _store = self.locked();
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    fn refuse(&self, refusal: Refusal, call: &Call, retry_after_s: Option<u64>) -> Answer {
        let _ = call;
        match refusal {
            Refusal::RateLimit => ApiError::limit()
                .answer()
                .with("sforce-limit-info", &self.usage.header()),
            Refusal::LostScope => {
                let message = "This session is not valid for use with the REST API";
                ApiError::new(StatusCode::FORBIDDEN, "INVALID_SESSION_ID", message).answer()
            }
            Refusal::ServerError => {
                let answer = ApiError::unavailable().answer();
                match retry_after_s {
                    Some(seconds) => answer.with("retry-after", &seconds.to_string()),
                    None => answer,
                }
            }
            Refusal::HtmlPage => Answer::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/html;charset=UTF-8",
                "<!DOCTYPE html>\n<html><head><title>Down For Maintenance</title></head>\n<body><h1>We are down for \
                 maintenance.</h1><p>Sorry for the inconvenience. We'll be back shortly.</p></body></html>\n",
            ),
            Refusal::NotJson => Answer::new(
                StatusCode::OK,
                errors::JSON,
                "<!DOCTYPE html>\n<html><head><title>Login | Salesforce</title></head><body></body></html>\n",
            ),
        }
    }

    fn expire(&self, call: &Call) {
        if let Some(token) = auth::bearer(call) {
            self.auth.expire(token);
        }
    }

    fn end_job(&self, call: &Call, answer: Option<&Answer>, aborted: bool) -> bool {
        let made = || {
            let body: Value = serde_json::from_slice(&answer?.body).ok()?;
            Id::parse(body["id"].as_str()?)
        };
        bulk::named(call)
            .or_else(made)
            .is_some_and(|id| self.jobs.doom(id, aborted))
    }

    fn control(&self, call: &Call, parts: &[&str]) -> Option<Answer> {
        match (call.method.clone(), parts) {
            (Method::POST, ["quota"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                self.usage.set(body["used"].as_u64(), body["max"].as_u64());
                let (used, most) = self.usage.get();
                Some(Answer::json(
                    StatusCode::OK,
                    &json!({"used": used, "max": most}),
                ))
            }
            (Method::POST, ["describe"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                Some(match staged::change(&mut self.locked(), &body) {
                    Ok(done) => Answer::json(StatusCode::OK, &done),
                    Err(error) => Answer::json(StatusCode::BAD_REQUEST, &json!({"error": error})),
                })
            }
            (Method::POST, ["session"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                let lifetime = body["lifetime_s"].as_f64();
                self.auth
                    .set_lifetime(lifetime.map(|seconds| (seconds * 1_000.0) as Millis));
                Some(Answer::json(
                    StatusCode::OK,
                    &json!({"lifetime_s": lifetime}),
                ))
            }
            (Method::POST, ["jobs"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                let Some(looks) = body["looks"].as_u64() else {
                    let error = json!({"error": "`looks` is not a whole number"});
                    return Some(Answer::json(StatusCode::BAD_REQUEST, &error));
                };
                self.jobs.set_looks(looks.min(1_000) as u32);
                Some(Answer::json(StatusCode::OK, &json!({"looks": looks})))
            }
            (Method::DELETE, ["cursors"]) => {
                self.cursors.clear();
                self.jobs.expire_locators();
                Some(Answer::json(StatusCode::OK, &json!({})))
            }
            _ => None,
        }
    }
}
