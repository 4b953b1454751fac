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
//! - What changes without a sign (formulas, links of documents) is read whole
//!   again at an interval.
//!
//! This file holds the first copy; [`crate::delta`] the rounds.

use drover_pipeline::Result;
use drover_pipeline::extract::{BadRecord, Change, Object, Page, Reached};
use drover_pipeline::record::Millis;

use crate::api::{Api, Reply};
use crate::cursor::{Cursor, Position};
use crate::query::Selection;
use crate::rows::{Answered, Row, Text};
use crate::{bulk, count, deletes, delta, links, wide};

/// A page of records, by the order of a key.
pub struct Rows {
    /// The records.
    pub rows: Vec<Row>,
    /// The key of the last one that has a key; what is behind it, the next page
    /// has. Its time is 0 in an order of ids.
    pub key: Option<(Millis, String)>,
    /// Whether there is nothing behind it.
    pub last: bool,
    /// The answer that said so.
    pub reply: Reply,
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
        Some(Cursor::Delta { from, round, again }) => {
            delta::fetch(api, &selection, *from, round.as_ref(), again).await
        }
    }
}

/// Where the changes start: the source's time now, before anything is read.
async fn start(api: &Api, selection: &Selection<'_>) -> Result<Position> {
    let lookback = Millis::from(api.config().lookback_ms);
    let now = api.clock().await?;
    let log = deletes::log(api, selection, now - lookback.max(120_000)).await?;
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
    let page = whole(api, selection, after, false).await?;
    let read = before + count::before(from, &page.rows);
    let next = match page.key {
        _ if page.last => Cursor::Counted { from, read },
        Some((_, after)) => Cursor::Snapshot { after, from, read },
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

/// A page of the whole object, in the order of ids, or of its documents' ids
/// where it is shown by documents alone. `deleted`: those too.
pub async fn whole(
    api: &Api,
    selection: &Selection<'_>,
    after: Option<&str>,
    deleted: bool,
) -> Result<Rows> {
    if let Some(through) = selection.through {
        return links::whole(api, selection, through, after, deleted).await;
    }
    let soql = |part: &Selection<'_>| part.by_id(after, api.config().page_size);
    let resource = format!("/{}", selection.operation());
    let place = after.unwrap_or("the start");
    let by_id = |row: &Row| row.id.clone();
    let mut page = wide::read(api, selection, &resource, soql, place, by_id).await?;
    if selection.parts.len() < 2 {
        // Here a record needs no stamp to be followed.
        let last = page.rows.iter().rev().find_map(by_id);
        page.key = last.map(|id| (0, id));
    }
    Ok(page)
}

/// Reads one page of a query. `place` names it for records without an id.
pub async fn page(
    api: &Api,
    selection: &Selection<'_>,
    resource: &str,
    soql: &str,
    place: &str,
) -> Result<Rows> {
    let reply = api
        .get(resource, &[("q", soql)], Some(selection.object))
        .await?;
    let (rows, done) = rows(&reply, selection, place)?;
    // The server may answer with fewer records than asked for: the end is where
    // it says so and has not merely filled the page. The next page starts behind
    // the last record, so the locator of the rest is never needed.
    let full = rows.len() >= api.config().page_size as usize;
    if !done && rows.is_empty() {
        return Err(reply.broken("it holds no record and says that more follow"));
    }
    let key = |row: &Row| Some((row.stamp?, row.id.clone()?));
    Ok(Rows {
        key: rows.iter().rev().find_map(key),
        last: done && !full,
        rows,
        reply,
    })
}

/// The records of an answer, and whether nothing follows.
pub fn rows(reply: &Reply, selection: &Selection<'_>, place: &str) -> Result<(Vec<Row>, bool)> {
    let text = Text::of(reply.body());
    let answered: Answered<'_> =
        serde_json::from_str(&text.text).map_err(|error| reply.malformed(&error))?;
    let place = |at: usize| format!("{} behind {place}, record {}", selection.object, at + 1);
    let numbered = answered.records.iter().enumerate();
    let rows = numbered.map(|(at, raw)| text.row(raw, selection, || place(at)));
    Ok((rows.collect(), answered.done))
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
