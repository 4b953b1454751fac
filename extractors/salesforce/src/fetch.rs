//! Reading an object: the first copy, then rounds of changes.
//!
//! Why nothing is lost (`reference/salesforce.md` section 6; each sentence has
//! a test in the suite):
//! - The position is taken before the first page, so what changes, appears or
//!   goes while the copy is made is found by the first round behind it.
//! - Ids do not change, so the copy's key does not shift when records do.
//! - A round's bounds stand still. A record that is edited while the round is
//!   read leaves it for the next one; its key holds stamp and id, so equal
//!   stamps may lie on two pages.
//! - A record may show long after its stamp, since a transaction stamps early
//!   and commits late. Rounds overlap by the lookback, and by more while the
//!   source says (`latestDateCovered`) that an older transaction is open.
//! - A record in the recycle bin is read by `queryAll`; one that is gone for
//!   good by the log of deletes.

use std::collections::HashMap;

use drover_pipeline::extract::{BadRecord, Change, Object, Page, Reached};
use drover_pipeline::record::{Millis, Op};
use drover_pipeline::{Code, Error, Result};
use serde::Deserialize;

use crate::api::{Api, Reply};
use crate::cursor::{Cursor, Position, Round, Step};
use crate::query::Selection;
use crate::rows::{Answered, Row, Text};
use crate::{id, lookup, time};

/// How far an idle lane lets its position stay, so that it has nothing to save.
const STAY: Millis = 3_600_000;

/// Deletes that are looked at in one call.
const DELETES: usize = 1_200;

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
struct Log {
    /// When it was asked, by the source's clock.
    at: Millis,
    /// The deletes up to here are all in it.
    covered: Millis,
    /// Older deletes have been dropped from it.
    earliest: Option<Millis>,
    /// The deletes, in the order of time and id.
    deletes: Vec<(Millis, String)>,
}

/// A page of a query.
struct Rows {
    rows: Vec<Row>,
    /// Whether there is nothing behind it.
    last: bool,
    reply: Reply,
}

/// The next page behind a cursor.
pub async fn fetch(api: &Api, object: &Object, from: Option<&Cursor>) -> Result<Page<Cursor>> {
    let selection = Selection::of(object)?;
    match from {
        None => {
            let position = start(api, &selection).await?;
            snapshot(api, &selection, None, position).await
        }
        Some(Cursor::Snapshot { after, from }) => {
            snapshot(api, &selection, Some(after), *from).await
        }
        Some(Cursor::Delta { from, round }) => delta(api, &selection, *from, round.as_ref()).await,
    }
}

/// Where the changes start: the source's time now, before anything is read.
async fn start(api: &Api, selection: &Selection<'_>) -> Result<Position> {
    let lookback = Millis::from(api.config().lookback_ms);
    let now = api.clock().await?;
    let log = log(api, selection.object, now - lookback.max(120_000)).await?;
    Ok(Position::behind(log.at, log.covered, lookback))
}

async fn snapshot(
    api: &Api,
    selection: &Selection<'_>,
    after: Option<&str>,
    from: Position,
) -> Result<Page<Cursor>> {
    let soql = selection.by_id(after, api.config().page_size);
    let read = page(
        api,
        selection,
        "/query",
        &soql,
        after.unwrap_or("the start"),
    )
    .await?;
    let last = read.rows.iter().rev().find_map(|row| row.id.clone());
    let next = match last {
        _ if read.last => Cursor::Delta { from, round: None },
        Some(after) => Cursor::Snapshot { after, from },
        None => {
            return Err(read
                .reply
                .broken("a page without a single id can't be followed"));
        }
    };
    let snapshot_complete = read.last;
    let (changes, bad) = split(read.rows);
    Ok(Page {
        changes,
        bad,
        next,
        reached: Reached::More,
        snapshot_complete,
    })
}

async fn delta(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    begun: Option<&Round>,
) -> Result<Page<Cursor>> {
    let mut changes = Vec::new();
    // A round starts with the log of deletes, whose answer has the two times
    // that bound it: two calls for a round that finds nothing.
    let (until, covered, after) = match begun {
        Some(Round {
            until,
            covered,
            step: Step::Records { at, id },
        }) => (*until, *covered, Some((*at, id.as_str()))),
        _ => {
            let log = log(api, selection.object, from.deletes_since).await?;
            reaches_back(api, selection, &log, from)?;
            let done = match begun {
                Some(Round {
                    step: Step::Deletes { at, id },
                    ..
                }) => Some((*at, id.clone())),
                _ => None,
            };
            let (until, covered) = match begun {
                Some(round) => (round.until, round.covered),
                None => (log.at, log.covered),
            };
            let mut waiting = log.deletes;
            waiting.retain(|delete| done.as_ref().is_none_or(|done| delete > done));
            let more = waiting.len() > DELETES;
            waiting.truncate(DELETES);
            changes = deletes(api, selection, &waiting).await?;
            if let (true, Some((at, id))) = (more, waiting.pop()) {
                let step = Step::Deletes { at, id };
                let round = Round {
                    until,
                    covered,
                    step,
                };
                return Ok(more_of(changes, Vec::new(), from, round));
            }
            (until, covered, None)
        }
    };
    let lookback = Millis::from(api.config().lookback_ms);
    let mut bad = Vec::new();
    if until > from.since {
        let soql = selection.by_stamp(from.since, until, after, api.config().page_size);
        let place = after.map_or("the round's start", |key| key.1);
        let mut read = page(api, selection, "/queryAll", &soql, place).await?;
        let last = read
            .rows
            .iter()
            .rev()
            .find_map(|row| Some((row.stamp?, row.id.clone()?)));
        let is_last = read.last;
        let (mut read_changes, read_bad) = split(std::mem::take(&mut read.rows));
        changes.append(&mut read_changes);
        bad = read_bad;
        if !is_last {
            let Some((at, id)) = last else {
                return Err(read
                    .reply
                    .broken("a page without a single key can't be followed"));
            };
            if after == Some((at, id.as_str())) {
                return Err(read
                    .reply
                    .broken("the page ends where the one before it ended"));
            }
            let step = Step::Records { at, id };
            return Ok(more_of(
                changes,
                bad,
                from,
                Round {
                    until,
                    covered,
                    step,
                },
            ));
        }
    }
    // While nothing happens the position may stay: reading more again is safe,
    // and an equal cursor needs no saving.
    let idle = begun.is_none() && changes.is_empty() && bad.is_empty();
    let stays = idle && until - lookback - from.since < STAY && covered >= from.deletes_since;
    let next = if stays {
        from
    } else {
        Position::behind(until, covered, lookback)
    };
    // The source drops seconds from what it has covered; more than that means
    // an open transaction, whose records are not visible yet.
    let as_of = if covered >= time::minute(until) {
        until
    } else {
        covered
    };
    Ok(Page {
        changes,
        bad,
        next: Cursor::Delta {
            from: next,
            round: None,
        },
        reached: Reached::Now { as_of },
        snapshot_complete: true,
    })
}

fn more_of(
    changes: Vec<Change>,
    bad: Vec<BadRecord>,
    from: Position,
    round: Round,
) -> Page<Cursor> {
    Page {
        changes,
        bad,
        next: Cursor::Delta {
            from,
            round: Some(round),
        },
        reached: Reached::More,
        snapshot_complete: true,
    }
}

/// Reads one page of a query. `place` names it for records without an id.
async fn page(
    api: &Api,
    selection: &Selection<'_>,
    resource: &str,
    soql: &str,
    place: &str,
) -> Result<Rows> {
    let reply = api
        .get(resource, &[("q", soql)], Some(selection.object))
        .await?;
    let text = Text::of(reply.body());
    let answered: Answered<'_> =
        serde_json::from_str(&text.text).map_err(|error| reply.malformed(&error))?;
    let rows: Vec<Row> = answered
        .records
        .iter()
        .enumerate()
        .map(|(at, raw)| {
            text.row(raw, selection, || {
                format!("{} behind {place}, record {}", selection.object, at + 1)
            })
        })
        .collect();
    // The server may answer with fewer records than asked for: the end is where
    // it says so and has not merely filled the page. The next page starts behind
    // the last record, so the locator of the rest is never needed.
    let full = rows.len() >= api.config().page_size as usize;
    if !answered.done && rows.is_empty() {
        return Err(reply.broken("it holds no record and says that more follow"));
    }
    let last = answered.done && !full;
    drop(answered);
    drop(text);
    Ok(Rows { rows, last, reply })
}

fn split(rows: Vec<Row>) -> (Vec<Change>, Vec<BadRecord>) {
    let mut changes = Vec::with_capacity(rows.len());
    let mut bad = Vec::new();
    for row in rows {
        match row.content {
            Ok(change) => changes.push(change),
            Err(record) => bad.push(record),
        }
    }
    (changes, bad)
}

/// Asks for the log of deletes from a moment on.
///
/// It is asked for a little more than the present, and what it says to cover is
/// cut at its own clock: the next call starts from `latestDateCovered`, not
/// from the end that was asked for.
async fn log(api: &Api, object: &str, since: Millis) -> Result<Log> {
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
fn reaches_back(api: &Api, selection: &Selection<'_>, log: &Log, from: Position) -> Result<()> {
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
async fn deletes(
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
