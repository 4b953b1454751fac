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

use drover_pipeline::Result;
use drover_pipeline::extract::{BadRecord, Change, Object, Page, Reached};
use drover_pipeline::record::Millis;

use crate::api::{Api, Reply};
use crate::cursor::{Cursor, Position, Round, Step};
use crate::query::Selection;
use crate::rows::{Answered, Row, Text};
use crate::{bulk, count, deletes, time};

/// How far an idle lane lets its position stay, so that it has nothing to save.
const STAY: Millis = 3_600_000;

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
            if bulk::can_read(&selection) && count::is_large(api, object, &selection).await? {
                return bulk::begin(api, &selection, position, 1, None).await;
            }
            snapshot(api, &selection, None, position, 0).await
        }
        Some(Cursor::Snapshot { after, from, read }) => {
            snapshot(api, &selection, Some(after), *from, *read).await
        }
        Some(Cursor::Bulk(job)) => bulk::fetch(api, &selection, job).await,
        Some(Cursor::Counted { from, read }) => count::finish(api, &selection, *from, *read).await,
        Some(Cursor::Delta { from, round }) => delta(api, &selection, *from, round.as_ref()).await,
    }
}

/// Where the changes start: the source's time now, before anything is read.
async fn start(api: &Api, selection: &Selection<'_>) -> Result<Position> {
    let lookback = Millis::from(api.config().lookback_ms);
    let now = api.clock().await?;
    let log = deletes::log(api, selection.object, now - lookback.max(120_000)).await?;
    Ok(Position::behind(log.at, log.covered, lookback))
}

/// A page of the first copy by REST; `before` is what the pages before it hold
/// of records from before the copy.
pub async fn snapshot(
    api: &Api,
    selection: &Selection<'_>,
    after: Option<&str>,
    from: Position,
    before: u64,
) -> Result<Page<Cursor>> {
    let soql = selection.by_id(after, api.config().page_size);
    let resource = format!("/{}", selection.operation());
    let page = page(
        api,
        selection,
        &resource,
        &soql,
        after.unwrap_or("the start"),
    )
    .await?;
    let last = page.rows.iter().rev().find_map(|row| row.id.clone());
    let read = before + count::before(from, &page.rows);
    let next = match last {
        _ if page.last => Cursor::Counted { from, read },
        Some(after) => Cursor::Snapshot { after, from, read },
        None => {
            return Err(page
                .reply
                .broken("a page without a single id can't be followed"));
        }
    };
    let (changes, bad) = split(page.rows);
    Ok(Page {
        changes,
        bad,
        next,
        reached: Reached::More,
        snapshot_complete: false,
        notice: None,
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
            let log = deletes::log(api, selection.object, from.deletes_since).await?;
            deletes::reaches_back(api, selection, &log, from)?;
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
            let more = waiting.len() > deletes::AT_ONCE;
            waiting.truncate(deletes::AT_ONCE);
            changes = deletes::confirm(api, selection, &waiting).await?;
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
        notice: None,
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
        notice: None,
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

/// The records of rows, and what is none.
pub fn split(rows: Vec<Row>) -> (Vec<Change>, Vec<BadRecord>) {
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
