//! The changes behind the first copy, in rounds; [`crate::fetch`] says why
//! nothing is lost.

use drover_pipeline::Result;
use drover_pipeline::extract::{BadRecord, Change, Page, Reached};
use drover_pipeline::record::Millis;

use crate::api::Api;
use crate::cursor::{Again, Cursor, Position, Reading, Round, Step};
use crate::fetch::{self, Rows, split};
use crate::query::Selection;
use crate::rows::Row;
use crate::{deletes, links, time, wide};

/// How far an idle lane lets its position stay, so that it has nothing to save.
const STAY: Millis = 3_600_000;

/// The next page of changes, or of a whole reading between two rounds.
pub async fn fetch(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    begun: Option<&Round>,
    again: &Again,
) -> Result<Page<Cursor>> {
    match &again.reading {
        // A page of it, then a round, in turns: a long reading holds no change up.
        Some(reading) if begun.is_none() && reading.turn => {
            read_again(api, selection, from, again, reading).await
        }
        _ => round(api, selection, from, begun, again).await,
    }
}

/// One page of a whole reading.
async fn read_again(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    again: &Again,
    reading: &Reading,
) -> Result<Page<Cursor>> {
    let page = fetch::whole(api, selection, reading.after.as_deref(), true).await?;
    let again = match page.key {
        _ if page.last => Again {
            begun: reading.begun,
            reading: None,
        },
        Some((_, after)) => Again {
            begun: again.begun,
            reading: Some(Reading {
                begun: reading.begun,
                after: Some(after),
                turn: false,
            }),
        },
        None => {
            return Err(page
                .reply
                .broken("a page without a single id can't be followed"));
        }
    };
    let (changes, bad) = split(page.rows);
    Ok(more_of(changes, bad, from, None, again))
}

/// What the whole reading's state is at the end of a round.
fn after_round(api: &Api, selection: &Selection<'_>, until: Millis, again: &Again) -> Again {
    let interval = Millis::from(api.config().reread_interval_ms);
    match &again.reading {
        Some(reading) => Again {
            begun: again.begun,
            reading: Some(Reading {
                turn: true,
                ..reading.clone()
            }),
        },
        None if selection.changes_unseen() && interval > 0 && until - again.begun >= interval => {
            Again {
                begun: again.begun,
                reading: Some(Reading {
                    begun: until,
                    after: None,
                    turn: true,
                }),
            }
        }
        None => again.clone(),
    }
}

async fn round(
    api: &Api,
    selection: &Selection<'_>,
    from: Position,
    begun: Option<&Round>,
    again: &Again,
) -> Result<Page<Cursor>> {
    let mut changes = Vec::new();
    // A round starts with the log of deletes, whose answer has the two times
    // that bound it: two calls for a round that finds nothing.
    let mut whole = true;
    let (until, covered, after) = match begun {
        Some(Round {
            until,
            covered,
            step: Step::Records { at, id },
        }) => (*until, *covered, Some((*at, id.as_str()))),
        _ => {
            let log = deletes::log(api, selection, from.deletes_since).await?;
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
            whole = log.whole;
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
                return Ok(more_of(
                    changes,
                    Vec::new(),
                    from,
                    Some(round),
                    again.clone(),
                ));
            }
            (until, covered, None)
        }
    };
    let lookback = Millis::from(api.config().lookback_ms);
    let mut bad = Vec::new();
    if until > from.since {
        let read = stamped(api, selection, from.since, until, after).await?;
        let (mut read_changes, read_bad) = split(read.rows);
        changes.append(&mut read_changes);
        bad = read_bad;
        if !read.last {
            let Some((at, id)) = read.key else {
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
            let round = Round {
                until,
                covered,
                step,
            };
            return Ok(more_of(changes, bad, from, Some(round), again.clone()));
        }
    }
    // While nothing happens the position may stay: reading more again is safe,
    // and an equal cursor needs no saving.
    let idle = begun.is_none() && changes.is_empty() && bad.is_empty();
    let stays =
        idle && whole && until - lookback - from.since < STAY && covered >= from.deletes_since;
    let next = if stays {
        from
    } else {
        Position::behind(until, covered, lookback)
    };
    let next_again = after_round(api, selection, until, again);
    // The source drops seconds from what it has covered; more than that means
    // an open transaction, whose records are not visible yet. What shows no
    // change by itself is covered only as far as it was read whole.
    let as_of = match covered >= time::minute(until) {
        _ if selection.through.is_some() => again.begun.min(until),
        true => until,
        false => covered,
    };
    let reached = match &next_again.reading {
        None if whole => Reached::Now { as_of },
        // The next part of the log, or of the whole reading.
        _ => Reached::More,
    };
    Ok(Page {
        changes,
        bad,
        next: Cursor::Delta {
            from: next,
            round: None,
            again: next_again,
        },
        reached,
        snapshot_complete: true,
        notice: None,
    })
}

/// A page of what was stamped in a window.
async fn stamped(
    api: &Api,
    selection: &Selection<'_>,
    since: Millis,
    until: Millis,
    after: Option<(Millis, &str)>,
) -> Result<Rows> {
    if let Some(through) = selection.through {
        return links::stamped(api, selection, through, (since, until), after).await;
    }
    let soql = |part: &Selection<'_>| part.by_stamp(since, until, after, api.config().page_size);
    let place = after.map_or("the round's start", |key| key.1);
    let by_stamp = |row: &Row| Some((row.stamp?, row.id.clone()?));
    wide::read(api, selection, "/queryAll", soql, place, by_stamp).await
}

fn more_of(
    changes: Vec<Change>,
    bad: Vec<BadRecord>,
    from: Position,
    round: Option<Round>,
    again: Again,
) -> Page<Cursor> {
    Page {
        changes,
        bad,
        next: Cursor::Delta { from, round, again },
        reached: Reached::More,
        snapshot_complete: true,
        notice: None,
    }
}
