//! Calls that a migration needs, against those it may make.

use std::time::Duration;

use serde::Serialize;

use super::pace::{DAY, Hours, Purse};
use super::{Usage, as_millis, now};

/// From how many to how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// At least.
    pub least: u64,
    /// At most, as far as can be told.
    pub most: u64,
}

/// What an object has, and how much of it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    /// About how many records it has, where the source told.
    pub count: Option<u64>,
    /// Records that were read.
    pub read: u64,
    /// Whether the first copy is complete.
    pub complete: bool,
}

/// Calls that a migration needs, against those it may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Calls that the account has left above its reserve.
    pub free: u64,
    /// Calls a day that the account's limit gives above its reserve.
    pub free_a_day: u64,
    /// Calls until the first copy is complete.
    pub copy: Range,
    /// Calls a day to follow the changes as often as the file asks for.
    pub changes_a_day: Range,
    /// How often each object is asked for changes at most, in milliseconds: what
    /// the file says.
    pub asked_ms: u64,
    /// How often each is now, so that the calls last that are left, in milliseconds.
    pub interval_ms: u64,
    /// How often each may be where a whole day's calls are left, in milliseconds.
    pub lasting_ms: u64,
    /// Objects of which nobody knows how many records they have; only their
    /// first page is counted.
    pub uncounted: usize,
}

/// What is needed for those objects when they are asked for changes every
/// `poll`. The upper end allows for a tenth more records than the source's
/// estimate and for half of the polls to bring a page of changes.
pub fn forecast(usage: &Usage, objects: &[Stretch], poll: Duration) -> Forecast {
    let per_call = usage.records_per_call.max(1);
    let (mut copy, mut uncounted) = (Range::default(), 0);
    for object in objects.iter().filter(|object| !object.complete) {
        let left = |count: u64| {
            let large = usage.large.filter(|large| count >= large.from);
            let (per_call, also) = match large {
                Some(large) if object.read == 0 => (large.records_per_call, large.calls),
                Some(large) => (large.records_per_call, 0),
                None => (per_call, 0),
            };
            let pages = count.saturating_sub(object.read).div_ceil(per_call.max(1));
            pages.max(1) + also
        };
        // One for the time at which the changes start, one for a count at the
        // end; one for an empty last page.
        let count = object.count.unwrap_or_else(|| {
            uncounted += 1;
            0
        });
        copy.least += left(count) + 2;
        copy.most += left(count + count / 10) + 3;
    }
    let free_a_day = usage.limit.saturating_sub(usage.reserve);
    let asked_ms = as_millis(poll).max(1);
    let polls = DAY.unsigned_abs() / asked_ms;
    let a_round = objects.len() as u64 * usage.calls_per_poll;
    let idle = polls * a_round;
    let a_day = free_a_day / usage.processes.max(1);
    let free = usage.left.saturating_sub(usage.reserve);
    let interval = |free, hours: &Hours| {
        let purse = Purse {
            free,
            a_day,
            a_round,
        };
        as_millis(purse.interval(hours, now())).max(asked_ms)
    };
    // A process that polls says it; one that will poll does it by the same rule.
    let own = || interval(free / usage.processes.max(1), &usage.hours);
    Forecast {
        free,
        free_a_day,
        copy,
        changes_a_day: Range {
            least: idle,
            most: idle + polls * objects.len() as u64 / 2,
        },
        asked_ms,
        interval_ms: usage.polls.map_or_else(own, |polls| polls.interval_ms),
        lasting_ms: interval(a_day, &Hours::default()),
        uncounted,
    }
}

/// A number for a person: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Forecast {
    /// For a person: one or two sentences.
    pub fn text(&self) -> String {
        let Forecast {
            free,
            free_a_day,
            copy,
            changes_a_day: changes,
            ..
        } = self;
        let range = |range: &Range| format!("{} to {}", grouped(range.least), grouped(range.most));
        let mut text = match free {
            0 => "no call may be made now, and all waits for more".to_owned(),
            free => format!("{} calls may be made now", grouped(*free)),
        };
        text += "; the first copy needs ";
        text += &match copy.most {
            0 => "none".to_owned(),
            _ => range(copy),
        };
        text += &match self.uncounted {
            0 => String::new(),
            1 => " and what 1 uncounted object needs".to_owned(),
            several => format!(" and what {several} uncounted objects need"),
        };
        if copy.most > *free {
            text += ", which is more: it will wait for the quota";
        }
        text += &format!(
            "; following the changes every {} needs {} a day of {}",
            seconds(self.asked_ms),
            range(changes),
            grouped(*free_a_day)
        );
        let interval = seconds(self.interval_ms);
        if self.is_too_often() {
            text += ", which is more than lasts";
        }
        // While no call may be made at all, how often one would be says nothing.
        if *free == 0 {
            return text;
        }
        if self.is_too_often() {
            text += ": each object is asked every ";
            text += &format!("{interval} instead");
        } else if self.is_stretched() {
            text += "; while so few calls are left, each object is asked every ";
            text += &format!("{interval} instead");
        }
        text
    }

    /// Whether not even a whole day's calls do for what the file asks for.
    pub fn is_too_often(&self) -> bool {
        self.lasting_ms > self.asked_ms
    }

    /// Whether the source is asked less often than the file says, for now or for good.
    pub fn is_stretched(&self) -> bool {
        self.interval_ms > self.asked_ms
    }

    /// Whether the calls don't do for what the file asks for.
    pub fn is_short(&self) -> bool {
        self.free == 0 || self.is_stretched() || self.copy.most > self.free
    }
}

/// `5 s`, `67.2 s`.
fn seconds(ms: u64) -> String {
    format!("{} s", ms.div_ceil(100) as f64 / 10.0)
}
