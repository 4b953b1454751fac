use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::spec::Stage;

const MINUTE: Millis = 60_000;
const DAY: usize = 1_440;

/// An account whose limit holds for any 24 hours, as the source counts it.
struct Account {
    limit: u64,
    /// Calls of each of the last 1,440 minutes, the newest last.
    minutes: VecDeque<u64>,
    /// Their sum.
    used: u64,
    least_left: u64,
}

impl Account {
    fn left(&self) -> u64 {
        self.limit - self.used
    }

    fn call(&mut self) {
        assert!(self.left() > 0, "the source had to refuse a call");
        *self.minutes.back_mut().expect("a minute") += 1;
        self.used += 1;
        self.least_left = self.least_left.min(self.left());
    }

    fn minute(&mut self) {
        self.minutes.push_back(0);
        if self.minutes.len() > DAY {
            self.used -= self.minutes.pop_front().unwrap_or_default();
        }
    }
}

fn meters(number: usize, clock: &Arc<AtomicI64>) -> Vec<Meter> {
    let meter = |_| {
        let clock = Arc::clone(clock);
        let meter = Meter::with_clock(move || clock.load(Ordering::Relaxed));
        meter.terms(Terms {
            account: "acme".to_owned(),
            reserve_percent: 20,
            records_per_call: 2_000,
            large: None,
            calls_per_poll: 2,
        });
        meter.guard();
        meter.shared_by(number as u64);
        meter
    };
    (0..number).map(meter).collect()
}

/// Three loaders and an extractor that could use the account up many times: of
/// what is left after the reserve and the customer's own calls they use at least
/// 95 %, and the reserve is touched by no more than the few calls that look
/// whether there is more again.
#[test]
fn what_is_left_after_the_reserve_is_used() {
    let clock = Arc::new(AtomicI64::new(0));
    let meters = meters(4, &clock);
    let mut account = Account {
        limit: 100_000,
        minutes: VecDeque::from([0]),
        used: 0,
        least_left: u64::MAX,
    };
    let days = 3;
    let mut waits = 0;
    for minute in 0..days * DAY {
        clock.store(minute as Millis * MINUTE, Ordering::Relaxed);
        account.minute();
        // The customer's other tools: 10,080 calls a day.
        for _ in 0..7 {
            account.call();
        }
        for _ in 0..100 {
            for meter in &meters {
                match meter.pass() {
                    Ok(_pass) => {
                        account.call();
                        meter.told(account.limit, account.left());
                    }
                    Err(error) => {
                        assert_eq!(error.code, Code::QuotaExhausted);
                        assert!(error.retry_after > Some(Duration::ZERO));
                        waits += 1;
                    }
                }
            }
        }
    }
    let ours: u64 = meters.iter().map(|m| m.usage().expect("told").calls).sum();
    let rate = 100_000 - 20_000 - 7 * DAY as u64;
    let share = ours as f64 / (rate * days as u64) as f64;
    assert!(share >= 0.95, "{:.1} % of the rate", share * 100.0);
    assert!(waits > 0, "the account was never the limit");
    // The customer's calls go on while we wait; each look of ours costs one.
    let touched = 20_000_u64.saturating_sub(account.least_left);
    assert!(
        touched <= 7 * DAY as u64 + 4 * 96,
        "{touched} of the reserve"
    );
    let alone = meters.iter().map(|m| m.usage().expect("told").calls);
    let (least, most) = (alone.clone().min(), alone.max());
    assert!(least > most.map(|most| most / 2), "{least:?} to {most:?}");
}

#[test]
fn one_lane_looks_while_the_others_wait() {
    let clock = Arc::new(AtomicI64::new(0));
    let meter = &meters(1, &clock)[0];
    meter.told(1_000, 200);
    let wait = |meter: &Meter| meter.pass().err().and_then(|error| error.retry_after);
    assert_eq!(wait(meter), Some(WAIT));
    assert_eq!(
        meter.usage().and_then(|usage| usage.until),
        Some(15 * MINUTE)
    );
    clock.store(14 * MINUTE, Ordering::Relaxed);
    assert_eq!(wait(meter), Some(Duration::from_secs(60)));
    clock.store(15 * MINUTE, Ordering::Relaxed);
    let look = meter.pass().expect("one looks");
    assert_eq!(wait(meter), Some(A_MOMENT));
    meter.told(1_000, 200);
    drop(look);
    assert_eq!(wait(meter), Some(WAIT), "nothing has come back");
    clock.store(30 * MINUTE, Ordering::Relaxed);
    let look = meter.pass().expect("one looks");
    meter.told(1_000, 203);
    let passes: Vec<_> = (0..2).map(|_| meter.pass()).collect();
    assert!(passes.iter().all(Result::is_ok), "and all go on");
    assert_eq!(wait(meter), Some(A_MOMENT), "no more than there is");
    drop((look, passes));
}

/// A refusal closes the account only where it is used up; one that comes while
/// calls are left is of another limit.
#[test]
fn a_refusal_says_until_when() {
    let clock = Arc::new(AtomicI64::new(0));
    let meter = &meters(2, &clock)[0];
    assert_eq!(meter.refused(), Some(WAIT), "nothing is known");
    meter.told(1_000, 900);
    assert_eq!(meter.usage().and_then(|usage| usage.until), None);
    assert_eq!(meter.refused(), None);
    meter.told(1_000, 0);
    assert_eq!(meter.refused(), Some(WAIT));
    let error = meter.pass().err().expect("closed");
    assert!(
        error
            .message
            .contains("until 00:15:00 UTC, then one call looks whether there are more"),
        "{error}"
    );
    assert!(
        error
            .message
            .contains("0 of 1,000 calls are left, 200 stay"),
        "{error}"
    );
    let free = Meter::with_clock(|| 0);
    free.told(1_000, 0);
    assert!(
        free.pass().is_ok(),
        "a command that asks once is not held back"
    );
}

#[test]
fn live_processes_of_the_account_share_it() {
    let report = |instance: &str, account: &str, phase, at| {
        let status = Status::new(Stage::Loader, "x", instance, "").expect("a status");
        status.phase(phase);
        status.quota(Some(Usage {
            account: account.to_owned(),
            ..Usage::default()
        }));
        Report {
            at,
            ..status.report()
        }
    };
    let neighbours = Neighbours::default();
    let place = Place::new("status".to_owned(), 0);
    for report in [
        report("me", "acme", Phase::Running, 100_000),
        report("one", "acme", Phase::Throttled, 95_000),
        report("silent", "acme", Phase::Running, 80_000),
        report("ended", "acme", Phase::Stopped, 100_000),
        report("other", "zenith", Phase::Running, 100_000),
    ] {
        let value = serde_json::to_vec(&report).expect("JSON");
        neighbours.record(&place, 0, report.instance.as_bytes(), Some(&value));
    }
    assert_eq!(neighbours.others("acme", "me", 100_000), 1);
    neighbours.record(&place, 1, b"one", None);
    assert_eq!(neighbours.others("acme", "me", 100_000), 0);
}

#[test]
fn a_forecast_has_a_range_and_says_what_is_too_much() {
    let usage = Usage {
        limit: 100_000,
        left: 21_000,
        reserve: 20_000,
        records_per_call: 2_000,
        large: None,
        calls_per_poll: 2,
        ..Usage::default()
    };
    let stretch = |count, read, complete| Stretch {
        count,
        read,
        complete,
    };
    let objects = [
        stretch(Some(1_000_000), 0, false),
        stretch(Some(1_000_000), 500_000, false),
        stretch(Some(9_000_000), 9_000_000, true),
        stretch(None, 0, false),
    ];
    let forecast = forecast(&usage, &objects, Duration::from_secs(5));
    assert_eq!((forecast.free, forecast.free_a_day), (1_000, 80_000));
    let (least, most) = (502 + 252 + 3, 553 + 303 + 4);
    assert_eq!(forecast.copy, Range { least, most });
    let (least, most) = (17_280 * 8, 17_280 * 10);
    assert_eq!(forecast.changes_a_day, Range { least, most });
    assert_eq!(
        forecast.text(),
        "1,000 calls may be made now; the first copy needs 757 to 860 and what 1 uncounted \
         object needs; following the changes every 5 s needs 138,240 to 172,800 a day of 80,000, \
         which is more than lasts: each object is asked every 760.4 s instead"
    );
    assert!(forecast.is_short());
}

#[test]
fn large_objects_are_counted_by_the_way_they_are_read() {
    let usage = Usage {
        records_per_call: 2_000,
        large: Some(Large {
            from: 180,
            records_per_call: 50,
            calls: 4,
        }),
        ..Usage::default()
    };
    let least = |count, read| {
        let stretch = Stretch {
            count: Some(count),
            read,
            complete: false,
        };
        let forecast = forecast(&usage, &[stretch], Duration::from_secs(5));
        forecast.copy.least
    };
    assert_eq!(least(179, 0), 1 + 2);
    assert_eq!(least(500, 0), 10 + 4 + 2);
    // Its job is there already.
    assert_eq!(least(500, 100), 8 + 2);
}

/// What an idle migration of 40 objects asks for, in steps of five seconds: as
/// often as its calls last, all day long, with never a refusal; also after a
/// copy has used most of them, and with a restart in between.
#[test]
fn idle_polling_lasts_all_day() {
    let clock = Arc::new(AtomicI64::new(0));
    let mut meter = meters(1, &clock).remove(0);
    meter.polls(40, Duration::from_secs(5));
    let mut account = Account {
        limit: 100_000,
        minutes: VecDeque::from([0]),
        used: 0,
        least_left: u64::MAX,
    };
    let (days, steps) = (4, 12);
    let (mut next, mut of_day) = (0, vec![0_u64; 4]);
    for minute in 0..days * DAY {
        account.minute();
        // The customer's other tools: 10,080 calls a day.
        (0..7).for_each(|_| account.call());
        for step in 0..steps {
            let at = minute as Millis * MINUTE + step * 5_000;
            clock.store(at, Ordering::Relaxed);
            let mut calls = 0;
            // The copy, in the second hour.
            if (60..120).contains(&minute) {
                calls += 50;
            }
            if at >= next {
                calls += 80;
                next = at + millis(meter.interval());
            }
            for _ in 0..calls {
                let pass = meter.pass().unwrap_or_else(|e| panic!("{minute}: {e}"));
                account.call();
                meter.told(account.limit, account.left());
                drop(pass);
            }
            of_day[minute / DAY] += calls;
        }
        if minute == 3 * DAY + 100 {
            let last = meter.usage().expect("told");
            meter = meters(1, &clock).remove(0);
            meter.go_on_from(&last);
            meter.polls(40, Duration::from_secs(5));
            meter.told(account.limit, account.left());
            let interval = meter.interval();
            assert!(interval < Duration::from_secs(120), "{interval:?}");
        }
    }
    assert!(account.least_left > 20_000, "{}", account.least_left);
    let rate = (100_000 - 20_000 - 7 * DAY) as f64;
    for calls in &of_day[2..] {
        let share = *calls as f64 / rate;
        assert!(
            (0.85..0.97).contains(&share),
            "{share} of the rate, {of_day:?}"
        );
    }
}

#[test]
fn what_the_file_asks_for_is_the_fastest() {
    let clock = Arc::new(AtomicI64::new(0));
    let meter = &meters(2, &clock)[0];
    assert_eq!(meter.interval(), Duration::ZERO, "nothing is asked for");
    meter.polls(10, Duration::from_secs(5));
    assert_eq!(meter.interval(), Duration::from_secs(5), "nothing is known");
    meter.told(100_000_000, 100_000_000);
    assert_eq!(meter.interval(), Duration::from_secs(5));
    // 40,000 for each of the two, 20 a round, a tenth of them for other things.
    meter.told(100_000, 100_000);
    assert_eq!(meter.interval(), Duration::from_millis(47_520));
    // Others use more than their reserve.
    meter.told(100_000, 30_000);
    assert_eq!(meter.interval(), Duration::from_millis(380_160));
    meter.told(100_000, 20_000);
    assert_eq!(meter.interval(), SELDOMEST, "nothing is left");
    let polls = meter.usage().and_then(|usage| usage.polls);
    let told = Polls {
        objects: 10,
        asked_ms: 5_000,
        interval_ms: 3_600_000,
    };
    assert_eq!(polls, Some(told));
}
