//! How many records there are: to choose the way of reading, and to see at the
//! end of the first copy whether all of them were shown.

use drover_pipeline::extract::{Object, Page, Reached};
use drover_pipeline::{Code, Error, Result};
use serde::Deserialize;

use crate::api::Api;
use crate::cursor::{Again, Cursor, Position};
use crate::query::Selection;
use crate::rows::Row;

/// The answer to `SELECT COUNT()`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    total_size: u64,
}

/// The live records stamped before a moment, or all of them.
async fn count(api: &Api, selection: &Selection<'_>, before: Option<i64>) -> Result<u64> {
    let resource = format!("/{}", selection.operation());
    let soql = selection.count(before);
    let reply = api
        .get(&resource, &[("q", &soql)], Some(selection.object))
        .await?;
    Ok(reply.json::<Counted>()?.total_size)
}

/// Whether the source gave up on a count: there are too many records.
fn too_many(error: &Error) -> bool {
    error.source_code.as_deref() == Some("QUERY_TIMEOUT")
}

/// Whether an object is large enough for a Bulk job: by what `discover` learnt,
/// else by a count.
pub async fn is_large(api: &Api, object: &Object, selection: &Selection<'_>) -> Result<bool> {
    let threshold = api.config().bulk_threshold;
    let known = match object.count {
        _ if threshold == 0 => return Ok(true),
        Some(known) => Ok(known),
        None => count(api, selection, None).await,
    };
    match known {
        Ok(count) => Ok(count >= threshold),
        Err(error) if too_many(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// How many rows of a page were stamped before the position. What has no stamp
/// counts: it was shown.
pub fn before(from: Position, rows: &[Row]) -> u64 {
    let old = |row: &&Row| row.stamp.is_none_or(|stamp| stamp < from.since);
    rows.iter().filter(old).count() as u64
}

/// Ends the first copy if it holds every record that the source counts.
///
/// A record that lives now and was stamped before the copy began has lived, as
/// it is, ever since: each of them was on a page, or pages don't show what
/// counts do. Records that were written meanwhile come with the changes.
pub async fn finish(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    read: u64,
) -> Result<Page<Cursor>> {
    let counted = match selection.through {
        // Those can't be counted either.
        Some(_) => Ok(0),
        None => count(api, selection, Some(from.since)).await,
    };
    match counted {
        Ok(counted) if counted > read => {
            return Err(Error::new(
                Code::Short,
                format!(
                    "{} counts {counted} records from before the copy and showed {read} of them",
                    selection.object
                ),
            ));
        }
        Ok(_) => {}
        Err(error) if too_many(&error) => {
            let object = selection.object;
            tracing::warn!(object, "too large to be counted: the copy is not compared");
        }
        Err(error) => return Err(error),
    }
    Ok(Page {
        changes: Vec::new(),
        bad: Vec::new(),
        next: Cursor::Delta {
            from,
            round: None,
            again: Again {
                begun: if selection.changes_unseen() {
                    from.since
                } else {
                    0
                },
                reading: None,
            },
        },
        reached: Reached::More,
        snapshot_complete: true,
        notice: None,
    })
}
