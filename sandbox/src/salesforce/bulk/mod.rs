//! Bulk API 2.0: `/jobs/query` and `/jobs/ingest`.
//!
//! A job waits, works and is done after some looks at it, or after some
//! seconds without any. The result of a query is a file that no longer
//! changes: rows stand in it as they were when the job ran, not as they are
//! when a page of it is fetched.

mod csv;
mod ingest;
mod job;
mod query;
mod result;
pub mod v1;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::id::Id;
use super::{Salesforce, moment, rest, rows};
use crate::exchange::{Answer, Call};
pub use job::{Job, Kind, State};

/// Looks at a job until it is done, when nobody says how many.
const LOOKS: u32 = 3;
/// A job that nobody looks at is done after this time.
const UNSEEN: moment::Millis = 3 * moment::SECOND;
/// Jobs on one page of a list.
const LISTED: usize = 1_000;

/// The jobs of an org.
#[derive(Debug)]
pub struct Jobs {
    all: Mutex<BTreeMap<Id, Job>>,
    made: AtomicU64,
    looks: AtomicU32,
    /// Raised when every locator shall become invalid.
    expired: AtomicU64,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs {
            all: Mutex::default(),
            made: AtomicU64::new(0),
            looks: AtomicU32::new(LOOKS),
            expired: AtomicU64::new(0),
        }
    }
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Id, Job>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every locator given so far is invalid from now on.
    pub fn expire_locators(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// A job is done at the n-th look at it.
    pub fn set_looks(&self, looks: u32) {
        self.looks.store(looks.max(1), Ordering::Relaxed);
    }

    /// Query jobs made since the start.
    pub fn queries(&self) -> u64 {
        self.all()
            .values()
            .filter(|job| job.kind == Kind::Query)
            .count() as u64
    }

    /// A number that no job or batch has yet.
    fn next_number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The id of a new job.
    fn next_id(&self) -> Id {
        Id::numbered("750", self.next_number())
    }

    fn keep(&self, mut job: Job) -> Value {
        job.id = self.next_id();
        let shown = job.created_json();
        self.all().insert(job.id, job);
        shown
    }

    /// Ends a job in a bad way: at once if it is queued or at work, or else
    /// as soon as it would have been done.
    pub fn doom(&self, id: Id, aborted: bool) -> bool {
        let mut all = self.all();
        let Some(job) = all.get_mut(&id) else {
            return false;
        };
        job.doomed = Some(if aborted {
            State::Aborted
        } else {
            State::Failed
        });
        true
    }
}

/// The job that a call is about, by its path.
pub fn named(call: &Call) -> Option<Id> {
    let segments = call.segments();
    match segments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["services", "data", _, "jobs", "query" | "ingest", id, ..] => Id::parse(id),
        _ => None,
    }
}

/// Answers a call below `/jobs`.
pub fn answer(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    rest: &[&str],
) -> Result<Answer, ApiError> {
    let (kind, rest) = match rest {
        ["query", rest @ ..] => (Kind::Query, rest),
        ["ingest", rest @ ..] => (Kind::Ingest, rest),
        _ => return Err(ApiError::not_found()),
    };
    match (method, rest) {
        (&Method::GET, []) => Ok(rest::ok(&list(org, call, base, kind))),
        (&Method::POST, []) if kind == Kind::Query => {
            let job = query::create(org, &rows::body(call)?, base)?;
            Ok(rest::ok(&org.jobs.keep(job)))
        }
        (&Method::POST, []) => ingest::create(org, call, base),
        (_, []) => Err(ApiError::method(method.as_str(), "GET,HEAD,POST")),
        (_, [id, rest @ ..]) => {
            let id = Id::parse(id)
                .ok_or_else(|| ApiError::bad("INVALIDJOB", format!("Invalid job id: {id}")))?;
            if org.jobs.all().get(&id).is_none_or(|job| job.kind != kind) {
                return Err(ApiError::not_found());
            }
            one(org, call, base, method, kind, id, rest)
        }
    }
}

fn one(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    kind: Kind,
    id: Id,
    rest: &[&str],
) -> Result<Answer, ApiError> {
    match (method, kind, rest) {
        (&Method::GET, _, []) => {
            look(org, id);
            with(org, id, |job| Ok(rest::ok(&job.json(base))))
        }
        (&Method::PATCH, _, []) => {
            let wanted = rows::body(call)?;
            with(org, id, |job| {
                job.change(&wanted)?;
                Ok(rest::ok(&job.created_json()))
            })
        }
        (&Method::DELETE, _, []) => {
            let mut all = org.jobs.all();
            if all.get(&id).is_some_and(|job| !job.state.is_terminal()) {
                return Err(ApiError::bad(
                    "API_ERROR",
                    "Error encountered when deleting the job because the job is not terminated",
                ));
            }
            all.remove(&id);
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, Kind::Query, ["results"]) => result::page(org, call, base, id),
        (&Method::GET, Kind::Query, ["resultPages"]) => result::pages(org, call, base, id),
        (&Method::PUT, Kind::Ingest, ["batches"]) => ingest::upload(org, call, id),
        (
            &Method::GET,
            Kind::Ingest,
            [what @ ("successfulResults" | "failedResults" | "unprocessedrecords")],
        ) => ingest::results(org, id, what),
        (_, _, []) => Err(ApiError::method(method.as_str(), "DELETE,GET,HEAD,PATCH")),
        _ => Err(ApiError::not_found()),
    }
}

fn with<T>(
    org: &Salesforce,
    id: Id,
    work: impl FnOnce(&mut Job) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut all = org.jobs.all();
    work(all.get_mut(&id).ok_or_else(ApiError::not_found)?)
}

/// Somebody looks at a job: it goes on a step, and runs when it is time.
fn look(org: &Salesforce, id: Id) {
    let now = moment::now();
    let looks = org.jobs.looks.load(Ordering::Relaxed);
    let mut all = org.jobs.all();
    let Some(job) = all.get_mut(&id) else { return };
    if !matches!(job.state, State::UploadComplete | State::InProgress) || job.running {
        return;
    }
    job.looks += 1;
    let due = job.looks >= looks || now - job.queued > UNSEEN;
    if !due {
        if job.looks > 1 {
            job.state = State::InProgress;
            job.modstamp = moment::second(now);
        }
        return;
    }
    if let Some(doom) = job.doomed {
        job.fail(doom, now);
        return;
    }
    // Other jobs shall not wait for this one.
    job.running = true;
    let work = job.clone();
    drop(all);
    let done = match work.kind {
        Kind::Query => query::run(org, &work),
        Kind::Ingest => ingest::run(org, &work),
    };
    if let Some(job) = org.jobs.all().get_mut(&id) {
        job.finish(done, now);
    }
}

fn list(org: &Salesforce, call: &Call, base: &str, kind: Kind) -> Value {
    let wanted = call.parameter("jobType");
    let from: usize = call
        .parameter("queryLocator")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let all = org.jobs.all();
    // Newest first, as the real list is.
    let mut jobs = all
        .values()
        .rev()
        .filter(|job| job.kind == kind)
        .filter(|job| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted == job.kind.job_type())
        })
        .skip(from);
    let records: Vec<Value> = jobs.by_ref().take(LISTED).map(Job::listed_json).collect();
    let next = (jobs.next().is_some())
        .then(|| format!("{base}/jobs/{}?queryLocator={}", kind.path(), from + LISTED));
    let mut body = Map::new();
    body.insert("done".to_owned(), Value::from(next.is_none()));
    body.insert("records".to_owned(), Value::from(records));
    body.insert("nextRecordsUrl".to_owned(), json!(next));
    Value::Object(body)
}
