//! The first copy of a large object by a job of Bulk API 2.0
//! (`reference/salesforce.md` section 5).
//!
//! - The changes' position is taken before the job is made, and the job's id is
//!   saved before anybody asks for the job: a process that starts again goes on
//!   with the same job, at the page behind the last one that was committed.
//! - The job's file does not change while it is read. A job that is lost (it
//!   failed, or was aborted, deleted or expired) is replaced by a new one that
//!   is read from its start; what was read twice falls out as unchanged. The
//!   position stays that of the first job, so nothing lies in between.
//! - What jobs can't read, pages by REST can.

use std::time::Duration;

use drover_pipeline::extract::{Page, Reached};
use drover_pipeline::{Class, Code, Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::api::Api;
use crate::canon::Kind;
use crate::cursor::{Cursor, Job, Position};
use crate::query::Selection;
use crate::rows::Text;
use crate::{count, fetch, id, sheet, time};

/// Jobs that may be lost before the copy is made by REST.
const JOBS: u32 = 3;

/// The shortest and the longest wait for a job; in between, a quarter of its age.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What the source says of a job.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    id: String,
    state: String,
    created_date: String,
    #[serde(default)]
    error_message: Option<String>,
}

/// Whether a file can say all that is asked for: of some types only JSON tells
/// what a value is.
pub fn can_read(selection: &Selection<'_>) -> bool {
    selection.through.is_none() && !selection.kinds.contains(&Kind::Any)
}

/// Makes a job for the copy; reads by REST where the source makes none.
pub async fn begin(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    attempt: u32,
    notice: Option<Error>,
) -> Result<Page<Cursor>> {
    let wanted = json!({
        "operation": selection.operation(),
        "query": selection.whole(),
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    });
    let made = match api
        .post("/jobs/query", &wanted, Some(selection.object))
        .await
    {
        Ok(reply) => reply,
        // Some objects are not for Bulk, some users neither. A refusal that is
        // about anything else, REST meets as well.
        Err(error) if error.class() == Class::Operator && error.code != Code::Unauthorized => {
            tracing::info!(object = selection.object, %error, "no Bulk job; reading by REST");
            let mut page = fetch::snapshot(api, selection, None, from, 0).await?;
            page.notice = notice;
            return Ok(page);
        }
        Err(error) => return Err(error),
    };
    let described: Described = made.json()?;
    let id = id::normalise(&described.id).ok_or_else(|| made.broken("it names no job"))?;
    let job = Job {
        id,
        attempt,
        from,
        locator: None,
        read: 0,
    };
    Ok(waiting(job, SHORTEST, notice))
}

fn waiting(job: Job, wait: Duration, notice: Option<Error>) -> Page<Cursor> {
    Page {
        changes: Vec::new(),
        bad: Vec::new(),
        next: Cursor::Bulk(job),
        reached: Reached::Later(wait),
        snapshot_complete: false,
        notice,
    }
}

/// The next page of a job's file, or how long to wait for the job.
pub async fn fetch(api: &Api, selection: &Selection<'_>, job: &Job) -> Result<Page<Cursor>> {
    let read = match &job.locator {
        None => match look(api, job).await {
            Ok(State::Complete) => page(api, selection, job).await,
            Ok(State::AtWork(wait)) => return Ok(waiting(job.clone(), wait, None)),
            Ok(State::Ended(why)) => return lost(api, selection, job, &why).await,
            Err(error) => Err(error),
        },
        Some(_) => page(api, selection, job).await,
    };
    match read {
        // Its file is gone with it, or it said too early that it is done.
        Err(error) if error.source_code.as_deref() == Some("JOB_NOT_COMPLETE") => {
            match look(api, job).await? {
                State::Ended(why) => lost(api, selection, job, &why).await,
                State::AtWork(wait) => Ok(waiting(job.clone(), wait, None)),
                State::Complete => Ok(waiting(job.clone(), SHORTEST, None)),
            }
        }
        Err(error) if is_gone(&error) => lost(api, selection, job, &error.message).await,
        read => read,
    }
}

/// How far a job is.
enum State {
    Complete,
    /// How long to wait for it.
    AtWork(Duration),
    /// Without a result, and why.
    Ended(String),
}

async fn look(api: &Api, job: &Job) -> Result<State> {
    let path = format!("/jobs/query/{}", job.id);
    let reply = api.get(&path, &[], None).await?;
    let described: Described = reply.json()?;
    Ok(match described.state.as_str() {
        "JobComplete" => State::Complete,
        "Failed" | "Aborted" => {
            let why = described.error_message.unwrap_or_default();
            State::Ended(format!("{} {why}", described.state).trim().to_owned())
        }
        _ => {
            let begun = time::parse(&described.created_date).unwrap_or(reply.at);
            let age = Duration::from_millis((reply.at - begun).max(0).unsigned_abs());
            State::AtWork((age / 4).clamp(SHORTEST, LONGEST))
        }
    })
}

async fn page(api: &Api, selection: &Selection<'_>, job: &Job) -> Result<Page<Cursor>> {
    let most = api.config().bulk_page_size.to_string();
    let mut query = vec![("maxRecords", most.as_str())];
    if let Some(locator) = &job.locator {
        query.push(("locator", locator));
    }
    let reply = api
        .file(&format!("/jobs/query/{}/results", job.id), &query)
        .await?;
    let rows = reply
        .header("sforce-numberofrecords")
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| reply.broken("it does not say how many rows it holds"))?;
    // Without a word on the next page this one might be taken for the last.
    let locator = reply
        .header("sforce-locator")
        .ok_or_else(|| reply.broken("it does not say where the next page is"))?;
    let next = (locator != "null").then(|| locator.to_owned());
    if next.is_some() && next == job.locator {
        return Err(reply.broken("the next page is this one again"));
    }
    let text = Text::of(reply.body());
    let place = job.locator.as_deref().unwrap_or("the start");
    let rows = sheet::read(&text, rows, selection, place).map_err(|why| reply.broken(&why))?;
    let read = job.read + count::before(job.from, &rows);
    let (changes, bad) = fetch::split(rows);
    let next = match next {
        Some(locator) => Cursor::Bulk(Job {
            locator: Some(locator),
            read,
            ..job.clone()
        }),
        None => Cursor::Counted {
            from: job.from,
            read,
        },
    };
    Ok(Page {
        changes,
        bad,
        next,
        reached: Reached::More,
        snapshot_complete: false,
        notice: None,
    })
}

/// Whether a refusal says that the job, or its file, is not there any more: it
/// was deleted, has expired, or was made for another version of the API.
fn is_gone(error: &Error) -> bool {
    match error.source_code.as_deref() {
        Some("INVALID_QUERY_LOCATOR") => true,
        _ => error.code == Code::Refused,
    }
}

/// Replaces a job that was lost.
async fn lost(api: &Api, selection: &Selection<'_>, job: &Job, why: &str) -> Result<Page<Cursor>> {
    let object = selection.object;
    let next = if job.attempt < JOBS {
        "another job reads the object from its start"
    } else {
        "REST reads the object from its start"
    };
    let notice = Error::new(
        Code::JobLost,
        format!("job {} of {object} is lost ({why}); {next}", job.id),
    );
    if job.attempt < JOBS {
        return begin(api, selection, job.from, job.attempt + 1, Some(notice)).await;
    }
    let mut page = fetch::snapshot(api, selection, None, job.from, 0).await?;
    page.notice = Some(notice);
    Ok(page)
}
