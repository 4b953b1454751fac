//! What is left of the accounts' calls, and whether it will do.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_pipeline::extract::Object;
use drover_pipeline::quota::{Forecast, Stretch, Usage, forecast, grouped, nothing_until};
use drover_pipeline::record::Millis;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Report, SILENCE};
use serde::Serialize;

use crate::table::{counted, seconds};
use crate::view::Model;
use crate::when::age;

/// From how many seconds on it is said how old the number of calls left is: a source
/// tells it only with an answer, so that nobody knows it while nothing is asked.
const OLD: u64 = 30;

/// An account's calls at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaView {
    /// The account.
    pub account: String,
    /// Calls that it may make in a day.
    pub limit: u64,
    /// Calls it has left, by the newest report.
    pub left: u64,
    /// How many seconds ago the source told that, where a process has told when.
    pub told_ago: Option<u64>,
    /// Calls of these that stay for the customer's other tools.
    pub reserve: u64,
    /// Calls that the live processes have made, by their names.
    pub calls: BTreeMap<String, u64>,
    /// Until when a process asks for nothing, the latest of them.
    pub until: Option<Millis>,
    /// Calls needed against calls left, where the source is of this account.
    pub forecast: Option<Forecast>,
}

/// The accounts that the live processes report, by their names.
pub(crate) fn views(
    model: &Model,
    objects: &[Object],
    poll: Duration,
    at: Millis,
) -> Vec<QuotaView> {
    let mut accounts: BTreeMap<&str, Vec<(&Report, &Usage)>> = BTreeMap::new();
    for report in model.reports() {
        if let Some(usage) = report.quota.as_ref().filter(|_| is_alive(report, at)) {
            let account = accounts.entry(usage.account.as_str()).or_default();
            account.push((report, usage));
        }
    }
    let view = |(account, mut reports): (&str, Vec<(&Report, &Usage)>)| {
        reports.sort_by_key(|(report, usage)| (usage.told_at, report.at));
        let (_, newest) = reports.last()?;
        let of_source = reports
            .iter()
            .rev()
            .find(|(report, _)| report.stage == Stage::Extractor);
        let stretches: Vec<Stretch> = objects.iter().map(|o| stretch(model, o)).collect();
        Some(QuotaView {
            account: account.to_owned(),
            limit: newest.limit,
            left: newest.left,
            told_ago: newest.told_at.map(|told| age(told, at)),
            reserve: newest.reserve,
            calls: reports
                .iter()
                .map(|(report, usage)| (report.instance.clone(), usage.calls))
                .collect(),
            until: reports.iter().filter_map(|(_, usage)| usage.until).max(),
            forecast: of_source.map(|(_, usage)| forecast(usage, &stretches, poll)),
        })
    };
    accounts.into_iter().filter_map(view).collect()
}

fn stretch(model: &Model, object: &Object) -> Stretch {
    let checkpoint = model.checkpoint(&object.name);
    Stretch {
        count: object.count,
        read: checkpoint.map_or(0, |checkpoint| checkpoint.extracted),
        complete: checkpoint.is_some_and(|checkpoint| checkpoint.snapshot_complete),
    }
}

/// What `drover check` says of the source's account as it has just told of itself,
/// and whether the calls don't do for what the file asks for. Where processes of the
/// migration work with the account, they know how often they ask; `model` has what
/// was read, if anything was.
pub(crate) fn at_check(
    told: &Usage,
    model: &Model,
    objects: &[Object],
    poll: Duration,
    at: Millis,
) -> (String, bool) {
    let views = views(model, objects, poll, at);
    let live = views.into_iter().find(|view| view.account == told.account);
    let polling = model.reports().filter(|report| is_alive(report, at));
    let polling = polling.filter(|report| report.stage == Stage::Extractor);
    let polling = polling.filter_map(|report| report.quota.as_ref());
    let polling = polling.filter(|usage| usage.account == told.account).last();
    let usage = Usage {
        polls: polling.and_then(|usage| usage.polls),
        processes: polling.map_or(told.processes, |usage| usage.processes),
        ..told.clone()
    };
    let stretches: Vec<Stretch> = objects.iter().map(|o| stretch(model, o)).collect();
    let forecast = forecast(&usage, &stretches, poll);
    let (short, lasting) = (forecast.is_short(), forecast.lasting_ms);
    let advice = match () {
        () if forecast.is_too_often() => format!(
            ". Set pollIntervalMs to {lasting} or more, or name fewer objects, keep a smaller \
             reserve, or ask the vendor for more calls"
        ),
        () if forecast.copy.most > forecast.free => {
            ". Ask the vendor for more calls if the first copy must not wait".to_owned()
        }
        () if short => ". Wait, or ask the vendor for more calls".to_owned(),
        () => String::new(),
    };
    let view = QuotaView {
        account: usage.account,
        limit: usage.limit,
        left: usage.left,
        // It was asked just now.
        told_ago: None,
        reserve: usage.reserve,
        calls: live
            .as_ref()
            .map_or_else(BTreeMap::new, |live| live.calls.clone()),
        until: live.and_then(|live| live.until),
        forecast: Some(forecast),
    };
    (view.text() + &advice, short)
}

fn is_alive(report: &Report, at: Millis) -> bool {
    report.phase != Phase::Stopped && at - report.at <= SILENCE.as_millis() as Millis
}

impl QuotaView {
    /// For a person.
    pub(crate) fn text(&self) -> String {
        let old = self.told_ago.filter(|ago| *ago > OLD);
        let as_of = old.map(|ago| format!(" as of {} ago", seconds(Some(ago))));
        let mut text = format!(
            "quota of {}: {} of {} calls left{}, {} kept for other tools",
            self.account,
            grouped(self.left),
            grouped(self.limit),
            as_of.unwrap_or_default(),
            grouped(self.reserve),
        );
        if !self.calls.is_empty() {
            let processes = counted(self.calls.len() as u64, "process", "processes");
            text += &format!(", {processes}");
        }
        if let Some(until) = self.until {
            text += &format!("; {}", nothing_until(until));
        }
        if let Some(forecast) = &self.forecast {
            text += &format!("; {}", forecast.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use drover_pipeline::status::Status;

    use super::*;
    use crate::view::Table;

    #[test]
    fn a_check_says_what_to_do_about_too_few_calls() {
        let usage = Usage {
            account: "acme".to_owned(),
            limit: 100_000,
            left: 99_000,
            reserve: 10_000,
            records_per_call: 2_000,
            large: None,
            calls_per_poll: 2,
            ..Usage::default()
        };
        let objects = |number| {
            let object = |n| Object {
                name: format!("O{n}"),
                count: Some(1_000),
                ..Object::default()
            };
            (0..number).map(object).collect::<Vec<_>>()
        };
        let check = |usage: &Usage, seconds| {
            let poll = Duration::from_secs(seconds);
            at_check(usage, &Model::default(), &objects(28), poll, 0)
        };
        let (text, short) = check(&usage, 60);
        assert!(!short, "{text}");
        let (text, short) = check(&usage, 5);
        // By the calls that are left now, and for good by those of a whole day.
        assert!(
            short && text.contains("asked every 59.8 s instead"),
            "{text}"
        );
        assert!(
            text.contains("Set pollIntervalMs to 59136 or more"),
            "{text}"
        );
        let left = |left| Usage {
            left,
            ..usage.clone()
        };
        let (text, short) = check(&left(10_050), 60);
        assert!(short && text.contains("must not wait"), "{text}");
        let (text, short) = check(&left(9_000), 120);
        let spent = "no call may be made now, and all waits for more; the first copy";
        assert!(short && text.contains(spent), "{text}");
        // How often each would be asked is not said while none is.
        assert!(!text.contains("is asked every"), "{text}");
    }

    #[test]
    fn check_and_status_say_the_same_of_a_migration_whose_calls_are_spent() {
        let meter = drover_pipeline::quota::Meter::default();
        meter.terms(drover_pipeline::quota::Terms {
            account: "acme".to_owned(),
            reserve_percent: 10,
            records_per_call: 2_000,
            large: None,
            calls_per_poll: 2,
        });
        meter.told(100_000, 9_000);
        let told = meter.usage().expect("told");
        // The extractor that runs knows more: how often it asks, and that it waits.
        meter.polls(1, Duration::from_secs(120));
        meter.guard();
        assert!(meter.pass().is_err());
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        status.quota(meter.usage());
        let report = status.report();
        let mut model = Model::default();
        let value = serde_json::to_vec(&report).expect("JSON");
        model.apply(Table::Status, b"extractor-1", Some(&value));
        let checkpoint = serde_json::json!({
            "cursor": null, "phase": "DELTA", "snapshotComplete": true, "extracted": 1_000,
            "asOf": 1, "at": 1,
        });
        let value = checkpoint.to_string();
        model.apply(Table::Checkpoint, b"x/Contact", Some(value.as_bytes()));
        let objects = [Object {
            name: "Contact".to_owned(),
            count: Some(1_000),
            ..Object::default()
        }];
        let poll = Duration::from_secs(120);
        let (text, short) = at_check(&told, &model, &objects, poll, report.at);
        let [view] = views(&model, &objects, poll, report.at)
            .try_into()
            .expect("one account");
        assert!(short);
        let text = text.strip_suffix(". Wait, or ask the vendor for more calls");
        assert_eq!(text, Some(view.text().as_str()));
        let view = view.text();
        for told in [
            "no call may be made now",
            "the first copy needs none",
            "UTC, then one call looks whether there are more",
        ] {
            assert!(view.contains(told), "no {told}: {view}");
        }
        assert!(!view.contains("is asked every"), "{view}");
    }

    #[test]
    fn the_newest_report_of_an_account_counts_and_each_call_is_shown() {
        let usage = |left, calls, until| Usage {
            account: "acme".to_owned(),
            limit: 1_000,
            left,
            reserve: 100,
            calls,
            until,
            records_per_call: 10,
            large: None,
            calls_per_poll: 2,
            ..Usage::default()
        };
        let mut model = Model::default();
        let mut report = |stage, instance: &str, at, phase, usage| {
            let status = Status::new(stage, "x", instance, "").expect("a status");
            status.phase(phase);
            status.quota(Some(usage));
            let report = Report {
                at,
                ..status.report()
            };
            let value = serde_json::to_vec(&report).expect("JSON");
            model.apply(Table::Status, instance.as_bytes(), Some(&value));
        };
        report(
            Stage::Extractor,
            "e",
            50_000,
            Phase::Running,
            usage(500, 7, None),
        );
        report(
            Stage::Loader,
            "l",
            51_000,
            Phase::Throttled,
            usage(490, 3, Some(90_000)),
        );
        report(
            Stage::Loader,
            "ended",
            52_000,
            Phase::Stopped,
            usage(1, 9, None),
        );
        report(
            Stage::Loader,
            "silent",
            1_000,
            Phase::Running,
            usage(2, 9, None),
        );
        let objects = [Object {
            name: "Contact".to_owned(),
            count: Some(5_000),
            ..Object::default()
        }];
        let views = views(&model, &objects, Duration::from_secs(60), 52_000);
        let [view] = views.as_slice() else {
            panic!("one account: {views:?}")
        };
        assert_eq!(
            (view.left, view.reserve, view.until),
            (490, 100, Some(90_000))
        );
        let calls = [("e".to_owned(), 7), ("l".to_owned(), 3)].into();
        assert_eq!(view.calls, calls);
        let forecast = view.forecast.as_ref().expect("of the source");
        assert_eq!((forecast.free, forecast.copy.least), (400, 502));
        let text = view.text();
        assert!(
            text.contains("490 of 1,000 calls left, 100 kept for other tools, 2 processes"),
            "{text}"
        );
        assert!(text.contains("nothing is asked until"), "{text}");
        assert!(text.contains("which is more: it will wait"), "{text}");
        let as_of = |seconds| QuotaView {
            told_ago: Some(seconds),
            ..view.clone()
        };
        let text = as_of(250).text();
        assert!(
            text.contains("490 of 1,000 calls left as of 4m ago, 100 kept"),
            "{text}"
        );
        assert!(!as_of(30).text().contains("as of"));
    }
}
