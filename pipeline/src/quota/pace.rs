//! How often a source may be asked for changes, so that an account's calls last:
//! nobody waits at the end of a day for calls that an idle migration spent in
//! its morning.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Millis;

/// An object is asked for changes at least so often, whatever is left: sources
/// keep their logs of deletes for days.
pub const SELDOMEST: Duration = Duration::from_secs(3600);

const HOUR: Millis = 3_600_000;
/// The time for which an account's limit holds.
pub(super) const DAY: Millis = 24 * HOUR;

/// What is asked for changes, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Polls {
    /// How many objects are.
    pub objects: u64,
    /// How often each is, at most, in milliseconds: what the migration's file says.
    pub asked_ms: u64,
    /// How often each is now, so that the calls last, in milliseconds.
    pub interval_ms: u64,
}

/// The calls of a process in the last day, by hours since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hours(BTreeMap<Millis, u64>);

impl Hours {
    /// Notes a call.
    pub(super) fn note(&mut self, at: Millis) {
        *self.0.entry(at.div_euclid(HOUR)).or_default() += 1;
        self.0.retain(|hour, _| come_back(*hour) > at);
    }

    /// Adds those of the process that had this one's name.
    pub(super) fn join(&mut self, before: &Hours) {
        for (hour, calls) in &before.0 {
            *self.0.entry(*hour).or_default() += calls;
        }
    }

    /// How long after `at` how many calls will have come back, the soonest first.
    fn back(&self, at: Millis) -> impl Iterator<Item = (u64, u64)> {
        self.0
            .iter()
            .map(move |(hour, calls)| ((come_back(*hour) - at).max(0).unsigned_abs(), *calls))
    }
}

/// The moment at which the last call of an hour no longer counts.
fn come_back(hour: Millis) -> Millis {
    (hour + 1) * HOUR + DAY
}

/// What a process may spend on asking for changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purse {
    /// Calls that it may make now.
    pub free: u64,
    /// Calls that it may make in a day, however many are free.
    pub a_day: u64,
    /// Calls that asking every object once takes.
    pub a_round: u64,
}

impl Purse {
    /// The shortest time between two rounds at which the calls last: at no
    /// moment of the coming day more of them were made than are free now and
    /// have come back until then. A tenth is left for whatever else the process
    /// asks: pages of changes, descriptions, whole readings.
    pub(super) fn interval(self, made: &Hours, at: Millis) -> Duration {
        let every = |within: u64, calls: u64| {
            let needed = within.saturating_mul(self.a_round).saturating_mul(11);
            needed.checked_div(calls.saturating_mul(10))
        };
        let mut free = self.free;
        // Without a single call there is no time at which they last.
        let mut longest = 0;
        for (within, calls) in made.back(at) {
            longest = longest.max(every(within, free).unwrap_or(u64::MAX));
            free += calls;
        }
        let day = every(DAY.unsigned_abs(), free.min(self.a_day));
        let longest = longest.max(day.unwrap_or(u64::MAX));
        Duration::from_millis(longest).min(SELDOMEST)
    }
}
