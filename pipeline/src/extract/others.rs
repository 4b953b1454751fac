//! Whether another process is alive, by its reports and our own monotonic
//! clock: the time in a report is by the other's wall clock, which may be off
//! by hours, and would keep a dead process alive, or bury a living one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::record::Millis;
use crate::status::Report;

/// However old a report looks, it is watched for at least so long: a living
/// process reports each second.
const LOOK: Duration = Duration::from_secs(6);

/// What was seen of other processes.
#[derive(Debug, Default)]
pub(super) struct Others(HashMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    /// Of the newest report: when its process started, and when it was written.
    report: (Millis, Millis),
    /// It counts as alive until then, if nothing newer comes.
    until: Instant,
}

impl Others {
    /// Whether the process of a report has been silent for less than `limit`, as
    /// seen at `at`, which is `clock` by the wall clock. What it wrote before we
    /// first looked counts by the wall clock, within bounds.
    pub(super) fn is_alive(
        &mut self,
        report: &Report,
        limit: Duration,
        at: Instant,
        clock: Millis,
    ) -> bool {
        let this = (report.started_at, report.at);
        let seen = self.0.get_mut(&report.instance);
        let until = match seen {
            Some(seen) if seen.report == this => seen.until,
            Some(_) => at + limit,
            None => {
                let age = Duration::from_millis(clock.saturating_sub(report.at).max(0) as u64);
                at + limit.saturating_sub(age).max(LOOK)
            }
        };
        let instance = report.instance.clone();
        self.0.insert(
            instance,
            Seen {
                report: this,
                until,
            },
        );
        at < until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Stage;
    use crate::status::Status;

    const LIMIT: Duration = Duration::from_secs(30);
    const HOUR: Millis = 3_600_000;

    fn report(at: Millis) -> Report {
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        Report {
            started_at: 1,
            at,
            ..status.report()
        }
    }

    /// After so many seconds of watching, with a report written at `at(second)`,
    /// while our clock stands at 0 in the beginning.
    fn alive_after(seconds: u64, at: impl Fn(u64) -> Millis) -> bool {
        let (mut others, began) = (Others::default(), Instant::now());
        let mut alive = true;
        for second in 0..=seconds {
            let now = began + Duration::from_secs(second);
            let clock = second as Millis * 1_000;
            alive = others.is_alive(&report(at(second)), LIMIT, now, clock);
        }
        alive
    }

    #[test]
    fn who_reports_is_alive_however_far_its_clock_is_off() {
        for off in [0, HOUR, -HOUR] {
            let living = |second: u64| second as Millis * 1_000 + off;
            assert!(alive_after(100, living), "{off}");
        }
    }

    #[test]
    fn who_is_silent_is_dead_in_the_end_however_far_its_clock_is_off() {
        for (off, seconds) in [(0, 30), (HOUR, 30), (-20_000, 10), (-HOUR, 6)] {
            assert!(alive_after(seconds - 1, |_| off), "{off}");
            assert!(!alive_after(seconds, |_| off), "{off}");
        }
    }
}
