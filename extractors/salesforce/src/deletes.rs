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

/// Objects that the source does not replicate: it keeps no log of their deletes
/// (`replicateable` in the describe). What of them is in the recycle bin comes
/// with their records.
const WITHOUT_LOG: [&str; 3] = ["ContentDocument", "ContentVersion", "OpportunityStage"];

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
    #[serde(rename = "SystemModstamp")]
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
}

/// Asks for the log of deletes from a moment on.
///
/// It is asked for a little more than the present, and what it says to cover is
/// cut at its own clock: the next call starts from `latestDateCovered`, not
/// from the end that was asked for.
pub async fn log(api: &Api, object: &str, since: Millis) -> Result<Log> {
    if WITHOUT_LOG.contains(&object) {
        // Any answer tells the time; every user may read this one.
        let at = api.get("/limits", &[], None).await?.at;
        return Ok(Log {
            at,
            covered: at,
            earliest: None,
            deletes: Vec::new(),
        });
    }
    let start = time::print(time::minute(since));
    let end = time::minute(api.clock().await?.max(since)) + 300_000;
    let path = format!("/sobjects/{object}/deleted/");
    let query = [("start", start.as_str()), ("end", &time::print(end))];
    let reply = api.get(&path, &query, Some(object)).await?;
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
    })
}

/// Whether the log reaches back to our position. It is kept for 15 days, or
/// shorter; a lane that stood still for longer would miss deletes in silence.
pub fn reaches_back(api: &Api, selection: &Selection<'_>, log: &Log, from: Position) -> Result<()> {
    match log.earliest {
        Some(earliest)
            if earliest > from.deletes_since + Millis::from(api.config().lookback_ms) =>
        {
            Err(Error::new(
                Code::RecordsLost,
                format!(
                    "the log of deletes of {} starts at {}, behind our position {}: what was removed for good in \
                     between is not known",
                    selection.object,
                    time::print(earliest),
                    time::print(from.deletes_since)
                ),
            ))
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
