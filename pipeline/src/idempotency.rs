//! The rule that keeps anything from being lost or doubled: what a loader
//! knows of a key ([`Entry`]), and what it does with a record ([`judge`]).
//!
//! The entries lie in the compacted topic `idempotency.<target>`, one JSON
//! value a canonical key, readable with any Kafka tool. They are also the map
//! from the source's ids to the target's.

mod json;
mod packed;
mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{AbsentReason, Fingerprint, Millis, Order};

pub use packed::PackedTable;
pub use table::Table;

/// A record's id in the target, as text.
pub type TargetId = String;

/// What a loader knows of a canonical key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The order of the newest version that was applied, or that is Pending.
    pub order: Order,
    /// That version's content.
    pub fingerprint: Fingerprint,
    /// Where it stands.
    pub state: State,
    /// The record's id in the target, once it has one. It stays when the
    /// record is deleted, so that a record that comes back finds its row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<TargetId>,
    /// What we found in the target when we first touched it; decides what a
    /// rollback does. Set once, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_touch: Option<FirstTouch>,
    /// Fields a newer version of Drover wrote; kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Where a key stands in the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Committed before a request is sent: from here on the target may or may
    /// not have the record, and only the target can tell.
    Pending {
        /// Which process sends it: a random id per process start.
        owner: String,
        /// When it was written, by the owner's clock. Shown to people; the
        /// lease runs on the reader's own clock.
        since: Millis,
        /// What stood before, put back when the target rejects the record.
        before: Option<Box<Entry>>,
    },
    /// The target has this version.
    Applied,
    /// The target has nothing for this key, as it should.
    Deleted {
        /// Why.
        reason: AbsentReason,
    },
}

/// What we found in the target when we first touched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstTouch {
    /// Nothing: we created the record. A rollback deletes it.
    Created,
    /// A record that was there: its image lies in `rollback.<target>`.
    Updated,
}

/// How a target finds a record that we may have created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The target itself refuses a second create by our key: sending again is safe.
    Upsert,
    /// A consistent lookup by our key exists, but two requests could both create.
    Find,
    /// Only a search index that lags behind: waits at least this long before it
    /// may say that something is not there.
    None {
        /// How far the index may lag.
        index_delay: Duration,
    },
}

/// How long a Pending of an unknown fate is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How the target finds a record.
    pub identity: Identity,
    /// The target's longest processing time of one request, and more: a request
    /// of a killed process may still be on its way for this long.
    pub length: Duration,
}

impl Lease {
    /// How long after a Pending was first seen its fate can be asked for.
    pub fn wait(&self) -> Duration {
        match self.identity {
            Identity::Upsert => Duration::ZERO,
            Identity::Find => self.length,
            Identity::None { index_delay } => self.length + index_delay,
        }
    }
}

/// A version that wants to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// Its order.
    pub order: Order,
    /// Its content.
    pub fingerprint: Fingerprint,
    /// Whether it says that the slot has nothing.
    pub absent: bool,
}

/// What a loader does with an incoming version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to the target.
    Apply,
    /// Nothing to send: the target has nothing for this key, and should not.
    /// The order is remembered, so that an older version can't come back.
    Remember,
    /// Older than what is known: drop it.
    Stale,
    /// The target has this content already: only the order is noted.
    Unchanged,
    /// An earlier request's fate is unknown and may be asked for now.
    Recover,
    /// An earlier request's fate is unknown and it may still be on its way:
    /// park the version for this long, never hold the batch.
    Wait(Duration),
}

/// The whole idempotency rule. Pure; the order of the questions is the rule.
///
/// `pending_seen` is how long ago, by the reader's own monotonic clock, this
/// reader first saw the Pending that `known` is; ignored for other states. A
/// wall clock of another machine is never compared.
pub fn judge(
    known: Option<&Entry>,
    incoming: &Incoming,
    lease: &Lease,
    pending_seen: Duration,
) -> Verdict {
    let Some(known) = known else {
        return if incoming.absent {
            Verdict::Remember
        } else {
            Verdict::Apply
        };
    };
    if incoming.order < known.order {
        return Verdict::Stale;
    }
    match &known.state {
        State::Pending { .. } => match lease.wait().checked_sub(pending_seen) {
            None | Some(Duration::ZERO) => Verdict::Recover,
            Some(left) => Verdict::Wait(left),
        },
        // Over two generations, the one between may have been applied by a process
        // that was killed before it could note it: what the target has is not
        // known. Over one it is, because a mapping gives one content.
        State::Applied | State::Deleted { .. }
            if incoming.order.version == known.order.version
                && incoming.order.mapping <= known.order.mapping.saturating_add(1)
                && incoming.order.reapply <= known.order.reapply
                && incoming.fingerprint == known.fingerprint =>
        {
            Verdict::Unchanged
        }
        State::Deleted { .. } if incoming.absent => Verdict::Remember,
        State::Applied | State::Deleted { .. } => Verdict::Apply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(version: i64, offset: i64, reapply: u32) -> Order {
        Order {
            version,
            mapping: 1,
            incarnation: 1,
            offset,
            reapply,
        }
    }

    fn entry(version: i64, state: State) -> Entry {
        Entry {
            order: order(version, version, 0),
            fingerprint: Fingerprint([version as u8; 16]),
            state,
            target_id: Some("7".into()),
            first_touch: None,
            unknown: serde_json::Map::new(),
        }
    }

    fn pending(version: i64) -> Entry {
        entry(
            version,
            State::Pending {
                owner: "a".into(),
                since: 0,
                before: None,
            },
        )
    }

    const fn lease(identity: Identity) -> Lease {
        Lease {
            identity,
            length: Duration::from_secs(10),
        }
    }

    const DELETED: State = State::Deleted {
        reason: AbsentReason::Deleted,
    };

    #[test]
    fn the_rule_question_by_question() {
        let upsert = lease(Identity::Upsert);
        let find = lease(Identity::Find);
        let none = lease(Identity::None {
            index_delay: Duration::from_secs(5),
        });
        let at = |version: i64| Incoming {
            order: order(version, version, 0),
            fingerprint: Fingerprint([version as u8; 16]),
            absent: false,
        };
        let absent = |version: i64| Incoming {
            absent: true,
            ..at(version)
        };
        let moved = |version, offset, print| Incoming {
            order: order(version, offset, 0),
            fingerprint: Fingerprint([print; 16]),
            absent: false,
        };
        let again = Incoming {
            order: order(5, 5, 1),
            fingerprint: Fingerprint([5; 16]),
            absent: false,
        };
        let remapped = |mapping| Incoming {
            order: Order {
                mapping,
                ..order(5, 9, 0)
            },
            fingerprint: Fingerprint([5; 16]),
            absent: false,
        };
        let secs = Duration::from_secs;
        type Row<'a> = (&'a str, Option<Entry>, Incoming, &'a Lease, u64, Verdict);
        let table: &[Row<'_>] = &[
            ("nothing known", None, at(5), &upsert, 0, Verdict::Apply),
            (
                "absent of the unknown",
                None,
                absent(5),
                &upsert,
                0,
                Verdict::Remember,
            ),
            (
                "older",
                Some(entry(6, State::Applied)),
                at(5),
                &upsert,
                0,
                Verdict::Stale,
            ),
            (
                "older than a Pending",
                Some(pending(6)),
                at(5),
                &find,
                99,
                Verdict::Stale,
            ),
            (
                "older than a delete",
                Some(entry(6, DELETED)),
                at(5),
                &upsert,
                0,
                Verdict::Stale,
            ),
            (
                "Pending, the target refuses a second create",
                Some(pending(5)),
                at(5),
                &upsert,
                0,
                Verdict::Recover,
            ),
            (
                "Pending, on its way",
                Some(pending(5)),
                at(5),
                &find,
                4,
                Verdict::Wait(secs(6)),
            ),
            (
                "Pending, lease over",
                Some(pending(5)),
                at(5),
                &find,
                10,
                Verdict::Recover,
            ),
            (
                "Pending, a newer version waits too",
                Some(pending(5)),
                at(9),
                &find,
                0,
                Verdict::Wait(secs(10)),
            ),
            (
                "Pending, index behind",
                Some(pending(5)),
                at(5),
                &none,
                12,
                Verdict::Wait(secs(3)),
            ),
            (
                "Pending, index caught up",
                Some(pending(5)),
                at(5),
                &none,
                15,
                Verdict::Recover,
            ),
            (
                "redelivered",
                Some(entry(5, State::Applied)),
                at(5),
                &upsert,
                0,
                Verdict::Unchanged,
            ),
            (
                "transformed again, same content",
                Some(entry(5, State::Applied)),
                moved(5, 9, 5),
                &upsert,
                0,
                Verdict::Unchanged,
            ),
            (
                "transformed by the next mapping, same content",
                Some(entry(5, State::Applied)),
                remapped(2),
                &upsert,
                0,
                Verdict::Unchanged,
            ),
            (
                "transformed by the mapping after the next, same content",
                Some(entry(5, State::Applied)),
                remapped(3),
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "transformed again, other content",
                Some(entry(5, State::Applied)),
                moved(5, 9, 4),
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "newer version, same content",
                Some(entry(5, State::Applied)),
                moved(6, 9, 5),
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "asked to apply again",
                Some(entry(5, State::Applied)),
                again,
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "comes back",
                Some(entry(5, DELETED)),
                at(6),
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "deleted",
                Some(entry(5, State::Applied)),
                absent(6),
                &upsert,
                0,
                Verdict::Apply,
            ),
            (
                "deleted again",
                Some(entry(5, DELETED)),
                absent(6),
                &upsert,
                0,
                Verdict::Remember,
            ),
        ];
        for (name, known, incoming, lease, seen, expected) in table {
            assert_eq!(
                judge(known.as_ref(), incoming, lease, secs(*seen)),
                *expected,
                "{name}"
            );
        }
    }

    #[test]
    fn an_entry_keeps_what_a_newer_version_wrote() {
        let text = r#"{"order":{"version":1,"mapping":1,"incarnation":1,"offset":4,"reapply":0},"fingerprint":"00000000000000000000000000000001","state":{"pending":{"owner":"x","since":3,"before":null}},"targetId":"9","later":[1]}"#;
        let entry: Entry = serde_json::from_str(text).expect("parses");
        assert_eq!(entry.target_id.as_deref(), Some("9"));
        let text = serde_json::to_string(&entry).expect("serialises");
        for field in ["state", "owner", "order", "later"] {
            assert_eq!(text.matches(&format!("\"{field}\":")).count(), 1, "{text}");
        }
        let back: serde_json::Value = serde_json::from_str(&text).expect("parses");
        assert_eq!(back["later"], serde_json::json!([1]));
        assert_eq!(back["state"]["pending"]["owner"], "x");
        let deleted: Entry = serde_json::from_str(r#"{"order":{"version":1,"mapping":1,"incarnation":1,"offset":4},"fingerprint":"01","state":{"deleted":{"reason":"slot-empty"}}}"#).expect("parses");
        assert_eq!(
            deleted.state,
            State::Deleted {
                reason: AbsentReason::SlotEmpty
            }
        );
    }
}
