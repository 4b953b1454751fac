//! The log of deletes (`reference/salesforce.md` section 6, getDeleted): what
//! is gone for good, and up to when the source has shown everything.

use std::collections::HashMap;

use drover_pipeline::extract::Change;
use drover_pipeline::record::{Millis, Op};
use drover_pipeline::{Code, Error, Result};
use serde::Deserialize;

use crate::api::Api;
use crate::cursor::Position;
use crate::query::Selection;
use crate::{id, lookup, time};

/// Deletes that are looked at in one call.
pub const AT_ONCE: usize = 1_200;

/// The log of deletes (`reference/salesforce.md` section 6).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    deleted_records: Vec<DeletedRecord>,
    #[serde(default)]
    earliest_date_available: Option<String>,
    latest_date_covered: String,
}

/// An entry of that log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletedRecord {
    id: String,
    deleted_date: String,
}

/// Which of the records in the log are still shown.
#[derive(Debug, Deserialize)]
struct Shown {
    records: Vec<ShownRecord>,
}

#[derive(Debug, Deserialize)]
struct ShownRecord {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "IsDeleted", default)]
    deleted: bool,
    #[serde(
        rename = "SystemModstamp",
        alias = "LastModifiedDate",
        alias = "CreatedDate",
        alias = "LoginTime"
    )]
    stamp: String,
}

/// What the log of deletes said.
pub struct Log {
    /// When it was asked, by the source's clock.
    pub at: Millis,
    /// The deletes up to here are all in it.
    pub covered: Millis,
    /// Older deletes have been dropped from it.
    earliest: Option<Millis>,
    /// The deletes, in the order of time and id.
    pub deletes: Vec<(Millis, String)>,
    /// Whether it reaches up to the present.
    pub whole: bool,
}

/// Asks for the log of deletes from a moment on.
///
/// It is asked for a little more than the present, and what it says to cover is
/// cut at its own clock: the next call starts from `latestDateCovered`, not
/// from the end that was asked for.
pub async fn log(api: &Api, selection: &Selection<'_>, since: Millis) -> Result<Log> {
    let object = selection.object;
    if !selection.has_log {
        // Any answer tells the time; every user may read this one.
        let at = api.get("/limits", &[], None).await?.at;
        return Ok(Log {
            at,
            covered: at,
            earliest: None,
            deletes: Vec::new(),
            whole: true,
        });
    }
    let start = time::minute(since);
    let mut end = time::minute(api.clock().await?.max(since)) + 300_000;
    let path = format!("/sobjects/{object}/deleted/");
    let (reply, whole) = loop {
        let window = (time::print(start), time::print(end));
        let query = [("start", window.0.as_str()), ("end", window.1.as_str())];
        match api.get(&path, &query, Some(object)).await {
            Ok(reply) => {
                let whole = end > reply.at;
                break (reply, whole);
            }
            // More deletes than one answer may hold: the first half of them.
            Err(error) if is(&error, "EXCEEDED_ID_LIMIT") && end - start > 120_000 => {
                end = time::minute(start + (end - start) / 2);
            }
            Err(error) if is(&error, "INVALID_REPLICATION_DATE") => {
                return Err(gone(
                    object,
                    since,
                    "reaches back for less time than we were away",
                )
                .source_code("INVALID_REPLICATION_DATE"));
            }
            Err(error) => return Err(error),
        }
    };
    let said: Deleted = reply.json()?;
    let moment =
        |text: &str| time::parse(text).ok_or_else(|| reply.broken("a time in it can't be read"));
    let earliest = said
        .earliest_date_available
        .as_deref()
        .map(moment)
        .transpose()?;
    let covered = moment(&said.latest_date_covered)?.min(reply.at);
    let mut deletes = Vec::with_capacity(said.deleted_records.len());
    for record in &said.deleted_records {
        let id =
            id::normalise(&record.id).ok_or_else(|| reply.broken("an id in it can't be read"))?;
        deletes.push((moment(&record.deleted_date)?, id));
    }
    deletes.sort_unstable();
    Ok(Log {
        at: reply.at,
        covered,
        earliest,
        deletes,
        whole,
    })
}

fn is(error: &Error, code: &str) -> bool {
    error.source_code.as_deref() == Some(code)
}

fn gone(object: &str, since: Millis, why: &str) -> Error {
    let since = time::print(since);
    Error::new(
        Code::RecordsLost,
        format!(
            "the log of deletes of {object} {why}: we stand at {since}, and what was removed for \
             good in between is not known"
        ),
    )
}

/// Whether the log reaches back to our position. It is kept for 15 days, or
/// shorter; a lane that stood still for longer would miss deletes in silence.
pub fn reaches_back(api: &Api, selection: &Selection<'_>, log: &Log, from: Position) -> Result<()> {
    match log.earliest {
        Some(earliest)
            if earliest > from.deletes_since + Millis::from(api.config().lookback_ms) =>
        {
            let why = format!("starts at {}, behind our position", time::print(earliest));
            Err(gone(selection.object, from.deletes_since, &why))
        }
        _ => Ok(()),
    }
}

/// What became of records that the log names. One that is shown as live again
/// was undeleted and comes with the round's records; all others are gone.
pub async fn confirm(
    api: &Api,
    selection: &Selection<'_>,
    logged: &[(Millis, String)],
) -> Result<Vec<Change>> {
    let mut ids: Vec<String> = logged.iter().map(|delete| delete.1.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut live: HashMap<String, Millis> = HashMap::new();
    for soql in selection.shown(&ids) {
        for reply in lookup::pages(api, selection.object, &soql).await? {
            for shown in reply.json::<Shown>()?.records {
                if let (Some(id), Some(at)) = (id::normalise(&shown.id), time::parse(&shown.stamp))
                    && !shown.deleted
                {
                    live.insert(id, at);
                }
            }
        }
    }
    let mut gone: HashMap<&str, Millis> = HashMap::new();
    for (at, id) in logged {
        // A record whose stamp is older than its delete is an old view of it.
        if live.get(id).is_none_or(|stamp| stamp < at) {
            let latest = gone.entry(id).or_insert(*at);
            *latest = (*latest).max(*at);
        }
    }
    let mut changes: Vec<Change> = gone
        .into_iter()
        .map(|(id, version)| Change {
            id: id.to_owned(),
            op: Op::Delete,
            version,
            body: None,
        })
        .collect();
    changes.sort_unstable_by(|a, b| (a.version, &a.id).cmp(&(b.version, &b.id)));
    Ok(changes)
}
