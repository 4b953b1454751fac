//! One job: what was asked for, how far it is, what it gave.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::csv::Dialect;
use super::ingest::Outcome;
use super::result::Rows;
use crate::salesforce::auth;
use crate::salesforce::errors::ApiError;
use crate::salesforce::id::Id;
use crate::salesforce::moment::{self, Millis};

/// Reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A query.
    Query,
    /// Writes of rows from a file.
    Ingest,
}

impl Kind {
    /// `jobType`.
    pub fn job_type(self) -> &'static str {
        match self {
            Kind::Query => "V2Query",
            Kind::Ingest => "V2Ingest",
        }
    }

    /// The part of the path that names it.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Query => "query",
            Kind::Ingest => "ingest",
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for data.
    Open,
    /// Is queued.
    UploadComplete,
    /// Is at work.
    InProgress,
    /// Ended by its user.
    Aborted,
    /// Done.
    JobComplete,
    /// Ended without a result.
    Failed,
}

impl State {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Aborted | State::JobComplete | State::Failed)
    }
}

/// What a job gave when it ran.
#[derive(Debug)]
pub enum Done {
    /// The rows of a query.
    Rows(Rows),
    /// What became of the rows of a file.
    Written(Outcome),
    /// Nothing, for this reason.
    Failed(String),
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: Id,
    /// Reads or writes.
    pub kind: Kind,
    /// `query`, `queryAll`, `insert`, `upsert`, …
    pub operation: String,
    /// The object's name.
    pub object: String,
    /// The field by which an upsert finds records.
    pub external_id: Option<String>,
    /// The query.
    pub query: String,
    /// The API's version, `67.0`.
    pub version: String,
    /// How its files look.
    pub dialect: Dialect,
    /// Whether its query can be cut into ranges of ids.
    pub chunked: bool,
    /// How far it is.
    pub state: State,
    /// When it was made.
    pub created: Millis,
    /// When its state changed last.
    pub modstamp: Millis,
    /// When it was queued.
    pub queued: Millis,
    /// How often somebody looked at it since it was queued.
    pub looks: u32,
    /// Runs now, in another call.
    pub running: bool,
    /// How it shall end, whatever it does.
    pub doomed: Option<State>,
    /// Why it failed.
    pub error: Option<String>,
    /// The data of an ingest job.
    pub data: Option<Arc<Vec<u8>>>,
    /// The rows of a query.
    pub rows: Option<Arc<Rows>>,
    /// What became of the rows of a file.
    pub outcome: Option<Arc<Outcome>>,
    /// How long it ran.
    pub took: Millis,
}

impl Job {
    /// A job that was asked for now.
    pub fn new(kind: Kind, operation: &str, object: &str, version: &str, dialect: Dialect) -> Job {
        let now = moment::now();
        Job {
            id: Id::MIN,
            kind,
            operation: operation.to_owned(),
            object: object.to_owned(),
            external_id: None,
            query: String::new(),
            version: version.to_owned(),
            dialect,
            chunked: false,
            state: match kind {
                Kind::Query => State::UploadComplete,
                Kind::Ingest => State::Open,
            },
            created: moment::second(now),
            modstamp: moment::second(now),
            queued: now,
            looks: 0,
            running: false,
            doomed: None,
            error: None,
            data: None,
            rows: None,
            outcome: None,
            took: 0,
        }
    }

    /// Ends it without a result.
    pub fn fail(&mut self, state: State, now: Millis) {
        self.state = state;
        self.modstamp = moment::second(now);
        if state == State::Failed {
            self.error = Some(
                "InvalidBatch : Failed to process query: QUERY_TIMEOUT: Your query request was running for too long."
                    .to_owned(),
            );
        }
    }

    /// Takes what it gave.
    pub fn finish(&mut self, done: Done, started: Millis) {
        let now = moment::now();
        self.running = false;
        self.took = now - started;
        self.modstamp = moment::second(now);
        if self.state.is_terminal() {
            // Aborted while it ran.
            return;
        }
        self.state = State::JobComplete;
        match done {
            Done::Rows(rows) => self.rows = Some(Arc::new(rows)),
            Done::Written(outcome) => self.outcome = Some(Arc::new(outcome)),
            Done::Failed(error) => {
                self.state = State::Failed;
                self.error = Some(error);
            }
        }
    }

    /// `PATCH`: the end of an upload, or of the job.
    pub fn change(&mut self, wanted: &Map<String, Value>) -> Result<(), ApiError> {
        let now = moment::now();
        let state = wanted.get("state").and_then(Value::as_str).unwrap_or("");
        let refused = || {
            ApiError::bad(
                "INVALIDJOBSTATE",
                format!(
                    "Job state change from {:?} to {state} is not allowed",
                    self.state
                ),
            )
        };
        match state {
            "UploadComplete" if self.kind == Kind::Ingest && self.state == State::Open => {
                self.state = State::UploadComplete;
                self.queued = now;
            }
            "Aborted" if !self.state.is_terminal() => self.state = State::Aborted,
            "UploadComplete" | "Aborted" => return Err(refused()),
            _ => {
                return Err(ApiError::bad(
                    "INVALIDJOB",
                    format!("InvalidJob : Invalid state: {state}"),
                ));
            }
        }
        self.modstamp = moment::second(now);
        Ok(())
    }

    /// What every answer about the job has.
    fn common(&self, with_type: bool) -> Map<String, Value> {
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("id", json!(self.id.to_string()));
        put("operation", json!(self.operation));
        put("object", json!(self.object));
        put("createdById", json!(auth::user().to_string()));
        put("createdDate", json!(moment::print(self.created)));
        put("systemModstamp", json!(moment::print(self.modstamp)));
        put("state", json!(format!("{:?}", self.state)));
        if let Some(field) = &self.external_id {
            put("externalIdFieldName", json!(field));
        }
        put("concurrencyMode", json!("Parallel"));
        put("contentType", json!("CSV"));
        put(
            "apiVersion",
            json!(self.version.parse::<f64>().unwrap_or_default()),
        );
        if with_type {
            put("jobType", json!(self.kind.job_type()));
        }
        if self.kind == Kind::Ingest && !with_type {
            put(
                "contentUrl",
                json!(format!(
                    "services/data/v{}/jobs/ingest/{}/batches",
                    self.version, self.id
                )),
            );
        }
        put("lineEnding", json!(self.dialect.line_ending()));
        put("columnDelimiter", json!(self.dialect.column_delimiter()));
        all
    }

    /// The answer to who made or changed it.
    pub fn created_json(&self) -> Value {
        Value::Object(self.common(false))
    }

    /// Its entry in the list of jobs.
    pub fn listed_json(&self) -> Value {
        Value::Object(self.common(true))
    }

    /// The answer to who looks at it.
    pub fn json(&self, base: &str) -> Value {
        let _ = base;
        let mut all = self.common(true);
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        match self.kind {
            Kind::Query => {
                let count = self.rows.as_ref().map_or(0, |rows| rows.count());
                put("numberRecordsProcessed", json!(count));
                put("retries", json!(0));
                put("totalProcessingTime", json!(self.took));
                put("isPkChunkingSupported", json!(self.chunked));
            }
            Kind::Ingest => {
                let (done, failed) = self.outcome.as_ref().map_or((0, 0), |it| it.counts());
                put("numberRecordsProcessed", json!(done));
                put("numberRecordsFailed", json!(failed));
                put("retries", json!(0));
                put("totalProcessingTime", json!(self.took));
                put("apiActiveProcessingTime", json!(self.took));
                put("apexProcessingTime", json!(0));
            }
        }
        if let Some(error) = &self.error {
            put("errorMessage", json!(error));
        }
        Value::Object(all)
    }
}
