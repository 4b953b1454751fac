//! The result of a query job: a file that is read in pages.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value, json};

use super::csv::Dialect;
use super::{Job, State};
use crate::exchange::{Answer, Call};
use crate::salesforce::Salesforce;
use crate::salesforce::errors::ApiError;
use crate::salesforce::id::Id;
use crate::salesforce::rest;

/// Rows of a page for clients that do not say how many.
const ROWS: usize = 50_000;
/// Pages that one list of pages names.
const PAGES: usize = 5;
/// From this version on there are lists of pages.
const FIRST_WITH_PAGES: u32 = 58;

/// The rows of a result, on disk: a million of them need not fit into memory.
#[derive(Debug)]
pub struct Rows {
    header: Vec<u8>,
    file: File,
    /// Where each row ends.
    ends: Vec<u64>,
}

impl Rows {
    /// A result without rows.
    pub fn new(dialect: Dialect, columns: &[&str]) -> std::io::Result<Rows> {
        let mut header = Vec::new();
        dialect.line(columns.iter().copied(), &mut header);
        Ok(Rows {
            header,
            file: tempfile::tempfile()?,
            ends: Vec::new(),
        })
    }

    /// Appends rows; `ends` says where in `text` each one ends.
    pub fn append(&mut self, text: &[u8], ends: &[usize]) -> std::io::Result<()> {
        let begun = self.ends.last().copied().unwrap_or(0);
        self.file.write_all(text)?;
        self.ends.extend(ends.iter().map(|end| begun + *end as u64));
        Ok(())
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// All of it.
    pub fn whole(&self) -> std::io::Result<Vec<u8>> {
        self.page(0, usize::MAX)
    }

    /// A page: the header and some rows.
    fn page(&self, from: usize, most: usize) -> std::io::Result<Vec<u8>> {
        let to = self.ends.len().min(from.saturating_add(most));
        let end = |row: usize| if row == 0 { 0 } else { self.ends[row - 1] };
        let (start, end) = (end(from), end(to));
        let mut out = vec![0; self.header.len() + (end - start) as usize];
        out[..self.header.len()].copy_from_slice(&self.header);
        self.file
            .read_exact_at(&mut out[self.header.len()..], start)?;
        Ok(out)
    }
}

/// The rows of a finished job.
fn finished(org: &Salesforce, base: &str, id: Id) -> Result<Arc<Rows>, ApiError> {
    let all = org.jobs.all();
    let job: &Job = all.get(&id).ok_or_else(ApiError::not_found)?;
    if !base.ends_with(&format!("/v{}", job.version)) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "API_ERROR",
            format!(
                "The API version of the request is not the version {} that the job was created with",
                job.version
            ),
        ));
    }
    match (&job.rows, job.state) {
        (Some(rows), State::JobComplete) => Ok(rows.clone()),
        _ => {
            let state = match job.state {
                State::UploadComplete => "UPLOAD_COMPLETE",
                State::InProgress => "IN_PROGRESS",
                State::Aborted => "ABORTED",
                _ => "FAILED",
            };
            Err(ApiError::new(
                StatusCode::PRECONDITION_FAILED,
                "JOB_NOT_COMPLETE",
                format!(
                    "can only download query results of successfully completed bulk job with status: JOB_COMPLETE. \
                     Current status: {state}"
                ),
            ))
        }
    }
}

/// A locator says where a page starts; it is of no use once locators expired.
fn locator(org: &Salesforce, at: usize) -> String {
    let text = match org.jobs.expired.load(Ordering::Relaxed) {
        0 => at.to_string(),
        generation => format!("{at}.{generation}"),
    };
    STANDARD_NO_PAD.encode(text)
}

fn located(org: &Salesforce, text: &str) -> Option<usize> {
    let bytes = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (at, generation) = text.split_once('.').unwrap_or((&text, "0"));
    let generation: u64 = generation.parse().ok()?;
    (generation == org.jobs.expired.load(Ordering::Relaxed))
        .then(|| at.parse().ok())
        .flatten()
}

/// Where the page starts that a call asks for.
fn start(org: &Salesforce, call: &Call, rows: &Rows) -> Result<usize, ApiError> {
    match call.parameter("locator") {
        None => Ok(0),
        Some(text) if text == "null" => Ok(0),
        Some(text) => located(org, &text)
            .filter(|at| *at < rows.count())
            .ok_or_else(|| ApiError::bad("INVALID_QUERY_LOCATOR", "invalid query locator")),
    }
}

/// `/jobs/query/{id}/results`
pub fn page(org: &Salesforce, call: &Call, base: &str, id: Id) -> Result<Answer, ApiError> {
    let rows = finished(org, base, id)?;
    let from = start(org, call, &rows)?;
    let most = match call.parameter("maxRecords") {
        None => ROWS,
        Some(text) => text.parse().ok().filter(|most| *most > 0).ok_or_else(|| {
            ApiError::bad("API_ERROR", format!("Invalid value for maxRecords: {text}"))
        })?,
    };
    let body = rows.page(from, most).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN_EXCEPTION",
            error.to_string(),
        )
    })?;
    let next = from + most.min(rows.count() - from);
    let following = if next < rows.count() {
        locator(org, next)
    } else {
        "null".to_owned()
    };
    Ok(Answer::new(StatusCode::OK, "text/csv", body)
        .with("sforce-locator", &following)
        .with("sforce-numberofrecords", &(next - from).to_string()))
}

/// `/jobs/query/{id}/resultPages`: the addresses of pages that can be fetched
/// at the same time.
pub fn pages(org: &Salesforce, call: &Call, base: &str, id: Id) -> Result<Answer, ApiError> {
    let version = base
        .rsplit_once('v')
        .and_then(|(_, version)| version.split('.').next()?.parse::<u32>().ok());
    if version.is_none_or(|version| version < FIRST_WITH_PAGES) {
        return Err(ApiError::not_found());
    }
    let rows = finished(org, base, id)?;
    let from = start(org, call, &rows)?;
    let own = format!("{base}/jobs/query/{id}");
    let starts: Vec<usize> = (from..rows.count().max(from + 1))
        .step_by(ROWS)
        .take(PAGES)
        .collect();
    let urls: Vec<Value> = starts
        .iter()
        .map(|at| {
            let url = if *at == 0 {
                format!("{own}/results")
            } else {
                format!("{own}/results?locator={}", locator(org, *at))
            };
            json!({"resultUrl": url})
        })
        .collect();
    let next = from + PAGES * ROWS;
    let mut body = Map::new();
    body.insert("resultPages".to_owned(), Value::from(urls));
    if next < rows.count() {
        let url = format!("{own}/resultPages?locator={}", locator(org, next));
        body.insert("nextRecordsUrl".to_owned(), Value::from(url));
    }
    body.insert("done".to_owned(), Value::from(next >= rows.count()));
    Ok(rest::ok(&Value::Object(body)))
}
