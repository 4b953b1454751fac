//! Reading an object: the first copy, then rounds of changes. Why nothing is
//! lost; the suite has a test for each sentence:
//! - The source's time is taken before the first page. What is edited, made or
//!   deleted while the copy goes on is stamped later, and the changes bring it.
//! - A page is asked for by the key (`modified`, `id`) of the last record before
//!   it, not by its number: records that come or go shift nothing, and equal
//!   stamps may lie on two pages.
//! - A round's bounds stand still. A record that is edited while the round is
//!   read leaves it for the next one.
//! - A record may show later than its stamp. So a round starts before the
//!   *beginning* of the one before it by the lookback; its end would be too
//!   late, since a round may take longer than the lookback. What comes twice
//!   the runner drops.

use drover_pipeline::extract::{Page, Reached};
use drover_pipeline::record::{Millis, Op};
use drover_pipeline::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::api::{Api, Range};
use crate::record;

/// Where a lane stands. It holds all that the next page needs, since the page
/// may be asked for by another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum Cursor {
    /// In the first copy.
    Snapshot {
        /// The source's time before the first page.
        began: Millis,
        /// The last record that was read.
        after: Key,
    },
    /// In the changes.
    Delta {
        /// Records stamped before this were read.
        since: Millis,
        /// The round that goes on; nothing between two rounds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        round: Option<Round>,
    },
}

/// A round of changes that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The source's time before its first page.
    pub began: Millis,
    /// The last record that was read.
    pub after: Key,
}

/// A record's place in the order of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its stamp.
    pub modified: Millis,
    /// Its id.
    pub id: String,
}

/// The next page behind a cursor.
pub async fn fetch(api: &Api, object: &str, from: Option<&Cursor>) -> Result<Page<Cursor>> {
    match from {
        None => snapshot(api, object, api.time().await?, None).await,
        Some(Cursor::Snapshot { began, after }) => snapshot(api, object, *began, Some(after)).await,
        Some(Cursor::Delta { since, round }) => delta(api, object, *since, round.as_ref()).await,
    }
}

async fn snapshot(
    api: &Api,
    object: &str,
    began: Millis,
    after: Option<&Key>,
) -> Result<Page<Cursor>> {
    let range = Range {
        since: 0,
        until: began,
        after,
    };
    let (mut listed, last) = page(api, object, &range).await?;
    // Whoever has never seen a record need not hear that it is gone. A record of
    // the copy that goes meanwhile is stamped later than `began`.
    listed.changes.retain(|change| change.op != Op::Delete);
    let (complete, next) = match last {
        Some(after) => (false, Cursor::Snapshot { began, after }),
        None => {
            let (since, round) = (began - api.lookback(), None);
            (true, Cursor::Delta { since, round })
        }
    };
    Ok(Page {
        changes: listed.changes,
        bad: listed.bad,
        next,
        reached: Reached::More,
        snapshot_complete: complete,
        notice: None,
    })
}

async fn delta(
    api: &Api,
    object: &str,
    since: Millis,
    round: Option<&Round>,
) -> Result<Page<Cursor>> {
    let began = match round {
        Some(round) => round.began,
        None => api.time().await?,
    };
    let range = Range {
        since,
        until: began,
        after: round.map(|round| &round.after),
    };
    let (listed, last) = page(api, object, &range).await?;
    let (since, round, reached) = match last {
        Some(after) => (since, Some(Round { began, after }), Reached::More),
        // An empty round moves nothing: an idle lane has nothing to save.
        None if round.is_none() && listed.changes.is_empty() && listed.bad.is_empty() => {
            (since, None, Reached::Now { as_of: began })
        }
        None => {
            let since = since.max(began - api.lookback());
            (since, None, Reached::Now { as_of: began })
        }
    };
    Ok(Page {
        changes: listed.changes,
        bad: listed.bad,
        next: Cursor::Delta { since, round },
        reached,
        snapshot_complete: true,
        notice: None,
    })
}

/// A page, and the key to go on behind if more follow.
async fn page(api: &Api, object: &str, range: &Range<'_>) -> Result<(record::Listed, Option<Key>)> {
    let text = api.page(object, range).await?;
    let mut listed = record::read(&text, object)?;
    if !listed.more {
        return Ok((listed, None));
    }
    // To go on without a key would read the same page for ever.
    let last = listed.last.take().ok_or_else(|| {
        let what = "a page without a single id and stamp says that more follow";
        Error::new(Code::BadAnswer, what).at(object)
    })?;
    Ok((listed, Some(last)))
}
