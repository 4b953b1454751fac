//! Where a lane stands in its object.

use drover_pipeline::record::Millis;
use serde::{Deserialize, Serialize};

/// An id that no record has, and that comes before all others.
const FIRST: &str = "000000000000000AAA";

/// Where a lane stands: in the first copy, or in the changes behind it.
///
/// All times are the source's. A cursor holds a few numbers and one id, so it
/// stays far below the limit of 16 KB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "phase",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Cursor {
    /// In the first copy, in the order of ids.
    Snapshot {
        /// The last id that was read.
        after: String,
        /// Where the changes start, taken before the first page.
        from: Position,
        /// Records read so far that were stamped before `from`.
        read: u64,
    },
    /// In the first copy, which a Bulk job makes.
    Bulk(Job),
    /// Behind the first copy's last record, which is counted next.
    Counted {
        /// Where the changes start.
        from: Position,
        /// Records of the copy that were stamped before `from`.
        read: u64,
    },
    /// In the changes, in rounds.
    Delta {
        /// What the rounds before have covered.
        from: Position,
        /// The round that has begun; nothing between two rounds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        round: Option<Round>,
        /// Of an object that changes without a sign: its whole readings.
        #[serde(default, skip_serializing_if = "Again::is_none")]
        again: Again,
    },
}

/// The whole readings of an object that changes without a sign.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Again {
    /// When the last complete one began.
    pub begun: Millis,
    /// The one that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

impl Again {
    fn is_none(&self) -> bool {
        *self == Again::default()
    }
}

/// A whole reading that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// When it began.
    pub begun: Millis,
    /// The last id of its last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether its next page comes before the next round.
    pub turn: bool,
}

/// A Bulk job that reads an object, and how far its file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job's id in the source; saved before anybody asks for the job.
    pub id: String,
    /// Which job of this copy it is: 2 when the first one was lost.
    pub attempt: u32,
    /// Where the changes start, taken before the first job was made.
    pub from: Position,
    /// Where the next page of the file starts, as the source named it; nothing
    /// before the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
    /// Records read so far that were stamped before `from`.
    pub read: u64,
}

/// From when on changes are still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Records stamped before this have been read; it lies behind what was
    /// covered by the lookback, since records may show later than their stamp.
    pub since: Millis,
    /// Deletes before this have been read: the `latestDateCovered` of the last
    /// round, which reaches back by itself.
    pub deletes_since: Millis,
}

/// A round that has begun. Its bounds stand still, so that its pages do not
/// shift while records go on changing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Records stamped before this belong to the round.
    pub until: Millis,
    /// What the source said it has covered of the deletes.
    pub covered: Millis,
    /// How far the round has come.
    pub step: Step,
}

/// How far a round has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "read",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Step {
    /// The deletes up to this one have been read.
    Deletes {
        /// When it was deleted.
        at: Millis,
        /// Its id.
        id: String,
    },
    /// The records up to this one have been read, in the order of stamps and ids.
    Records {
        /// Its stamp.
        at: Millis,
        /// Its id.
        id: String,
    },
}

impl Cursor {
    /// Every record once more, from the first id on; the changes start where
    /// they would have without it, so that no delete is passed over.
    pub fn again(&self) -> Cursor {
        let from = match self {
            Cursor::Snapshot { from, .. }
            | Cursor::Bulk(Job { from, .. })
            | Cursor::Counted { from, .. }
            | Cursor::Delta { from, .. } => *from,
        };
        Cursor::Snapshot {
            after: FIRST.to_owned(),
            from,
            read: 0,
        }
    }
}

impl Position {
    /// The position behind a round that covered everything stamped before
    /// `until` and visible, while the source's oldest open transaction began
    /// at `covered` or later.
    ///
    /// The next round starts before the oldest open transaction even where that
    /// is longer ago than the lookback: its records will show with old stamps.
    pub fn behind(until: Millis, covered: Millis, lookback: Millis) -> Self {
        Position {
            since: (until - lookback).min(covered),
            deletes_since: covered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_json() {
        let from = Position {
            since: 1,
            deletes_since: 2,
        };
        let step = Step::Records {
            at: 3,
            id: "001dM00003kS5tZQAS".to_owned(),
        };
        let round = Round {
            until: 9,
            covered: 8,
            step,
        };
        for cursor in [
            Cursor::Snapshot {
                after: "001dM00003kS5tZQAS".to_owned(),
                from,
                read: 7,
            },
            Cursor::Bulk(Job {
                id: "750R0000000zlh9IAA".to_owned(),
                attempt: 1,
                from,
                locator: Some("MTAwMDA".to_owned()),
                read: 7,
            }),
            Cursor::Counted { from, read: 7 },
            Cursor::Delta {
                from,
                round: None,
                again: Again::default(),
            },
            Cursor::Delta {
                from,
                round: Some(round),
                again: Again {
                    begun: 5,
                    reading: Some(Reading {
                        begun: 6,
                        after: Some("001dM00003kS5tZQAS".to_owned()),
                        turn: true,
                    }),
                },
            },
        ] {
            let text = serde_json::to_string(&cursor).expect("serialises");
            assert!(text.len() < 400, "{text}");
            assert_eq!(
                serde_json::from_str::<Cursor>(&text).expect("parses"),
                cursor
            );
        }
    }

    #[test]
    fn an_open_transaction_holds_the_position_back() {
        let ahead = Position::behind(1_000_000, 990_000, 600_000);
        assert_eq!((ahead.since, ahead.deletes_since), (400_000, 990_000));
        let held = Position::behind(1_000_000, 100_000, 600_000);
        assert_eq!((held.since, held.deletes_since), (100_000, 100_000));
    }
}
