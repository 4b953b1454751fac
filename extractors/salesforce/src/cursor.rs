//! Where a lane stands in its object.

use drover_pipeline::record::Millis;
use serde::{Deserialize, Serialize};

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
    },
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
            Cursor::Delta { from, round: None },
            Cursor::Delta {
                from,
                round: Some(round),
            },
        ] {
            let text = serde_json::to_string(&cursor).expect("serialises");
            assert!(text.len() < 300, "{text}");
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
