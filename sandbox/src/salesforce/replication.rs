//! `/updated` and `/deleted`: what changed within a span of time.
//!
//! Seconds of start and end are cut off, as the real API does. The answer
//! says up to when it is complete: not past the oldest write that readers
//! can't see yet.

use serde_json::{Value, json};

use super::errors::ApiError;
use super::id::Id;
use super::moment::{self, DAY, MINUTE, Millis};
use super::store::Store;
use crate::exchange::Call;

/// How long the recycle bin keeps records, and `/deleted` knows of them.
const BIN: Millis = 15 * DAY;
/// How far `/updated` reaches back.
const UPDATES: Millis = 30 * DAY;
/// Ids that one answer can have.
const MOST: usize = 600_000;

/// The span of a call, whole minutes, and up to when it is covered.
struct Span {
    from: Millis,
    to: Millis,
    covered: Millis,
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::bad("INVALID_REPLICATION_DATE", message)
}

impl Span {
    fn of(call: &Call, now: Millis, delay: Millis, reach: Millis) -> Result<Span, ApiError> {
        let read = |name: &str| {
            let text = call
                .parameter(name)
                .ok_or_else(|| ApiError::bad("MISSING_ARGUMENT", format!("{name} is required")))?;
            // A `+` that was not encoded arrived as a space.
            moment::parse(&text.replace(' ', "+"))
                .map(moment::minute)
                .ok_or_else(|| ApiError::bad("INVALID_FIELD", format!("invalid date: {text}")))
        };
        let (from, to) = (read("start")?, read("end")?);
        if from < now - reach - MINUTE {
            let days = reach / DAY;
            return Err(bad(format!(
                "startDate cannot be more than {days} days ago"
            )));
        }
        if from > now {
            return Err(bad("startDate cannot be in the future"));
        }
        if to < from {
            return Err(bad("startDate must be before endDate"));
        }
        if to < from + MINUTE {
            return Err(bad(
                "endDate must be at least one minute greater than the startDate",
            ));
        }
        let covered = to.min(moment::minute(now - delay)).max(from);
        Ok(Span { from, to, covered })
    }
}

/// The answer to `/sobjects/X/updated`.
pub fn updated(
    store: &Store,
    object: usize,
    call: &Call,
    now: Millis,
    delay: Millis,
) -> Result<Value, ApiError> {
    let span = Span::of(call, now, delay, UPDATES)?;
    let table = store.table(object);
    let ids: Vec<String> = table
        .by_modstamp()
        .range((span.from, Id::MIN)..(span.to, Id::MIN))
        .filter(|(_, id)| table.row(*id).is_some_and(|record| !record.deleted))
        .map(|(_, id)| id.to_string())
        .take(MOST + 1)
        .collect();
    if ids.len() > MOST {
        return Err(too_many());
    }
    Ok(json!({"ids": ids, "latestDateCovered": moment::print(span.covered)}))
}

/// The answer to `/sobjects/X/deleted`.
pub fn deleted(
    store: &Store,
    object: usize,
    call: &Call,
    now: Millis,
    delay: Millis,
) -> Result<Value, ApiError> {
    let span = Span::of(call, now, delay, BIN)?;
    let table = store.table(object);
    let mut records: Vec<Value> = Vec::new();
    for (at, id) in table
        .deletions()
        .range((span.from, Id::MIN)..(span.to, Id::MIN))
    {
        // Out of the bin again, or deleted once more later on.
        let again = table
            .row(*id)
            .is_some_and(|record| !record.deleted || record.modstamp > *at);
        if !again {
            records.push(json!({"deletedDate": moment::print(*at), "id": id.to_string()}));
        }
        if records.len() > MOST {
            return Err(too_many());
        }
    }
    Ok(json!({
        "deletedRecords": records,
        "earliestDateAvailable": moment::print(moment::minute(now - BIN)),
        "latestDateCovered": moment::print(span.covered),
    }))
}

fn too_many() -> ApiError {
    ApiError::bad(
        "EXCEEDED_ID_LIMIT",
        "The limit of 600,000 ids has been exceeded: use a shorter span of time",
    )
}
