//! What is left of the accounts' calls, and whether it will do.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_pipeline::extract::Object;
use drover_pipeline::quota::{Forecast, Stretch, Usage, forecast, grouped};
use drover_pipeline::record::Millis;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Report, SILENCE};
use serde::Serialize;

use crate::table::counted;
use crate::view::Model;

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
    let silence = SILENCE.as_millis() as Millis;
    let mut accounts: BTreeMap<&str, Vec<(&Report, &Usage)>> = BTreeMap::new();
    for report in model.reports() {
        let alive = report.phase != Phase::Stopped && at - report.at <= silence;
        if let Some(usage) = report.quota.as_ref().filter(|_| alive) {
            let account = accounts.entry(usage.account.as_str()).or_default();
            account.push((report, usage));
        }
    }
    let view = |(account, mut reports): (&str, Vec<(&Report, &Usage)>)| {
        reports.sort_by_key(|(report, _)| report.at);
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

/// What `drover check` says of a source that was not read yet, and whether the
/// calls don't do for what the file asks for.
pub(crate) fn at_first(usage: &Usage, objects: &[Object], poll: Duration) -> (String, bool) {
    let stretches: Vec<Stretch> = objects
        .iter()
        .map(|object| Stretch {
            count: object.count,
            ..Stretch::default()
        })
        .collect();
    let Usage {
        account,
        limit,
        left,
        reserve,
        ..
    } = usage;
    let forecast = forecast(usage, &stretches, poll);
    let mut text = format!(
        "{account}: {} of {} calls left, {} kept for other tools; {}",
        grouped(*left),
        grouped(*limit),
        grouped(*reserve),
        forecast.text()
    );
    if forecast.is_stretched() {
        text += &format!(
            ". Set pollIntervalMs to {} or more, or name fewer objects, keep a smaller \
             reserve, or ask the vendor for more calls",
            forecast.interval_ms
        );
    } else if forecast.is_short() {
        text += ". Ask the vendor for more calls if the first copy must not wait";
    }
    (text, forecast.is_short())
}

impl QuotaView {
    /// For a person.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "quota of {}: {} of {} calls left, {} kept for other tools, {}",
            self.account,
            grouped(self.left),
            grouped(self.limit),
            grouped(self.reserve),
            counted(self.calls.len() as u64, "process", "processes")
        );
        let until = self.until.and_then(chrono::DateTime::from_timestamp_millis);
        if let Some(until) = until {
            let until = until.with_timezone(&chrono::Local);
            text += &format!("; nothing is asked until {}", until.format("%H:%M:%S"));
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
        let minute = Duration::from_secs(60);
        let (text, short) = at_first(&usage, &objects(28), minute);
        assert!(!short, "{text}");
        let (text, short) = at_first(&usage, &objects(28), Duration::from_secs(5));
        assert!(
            short && text.contains("asked every 59.2 s instead"),
            "{text}"
        );
        assert!(
            text.contains("Set pollIntervalMs to 59136 or more"),
            "{text}"
        );
        let scarce = Usage {
            left: 10_050,
            ..usage
        };
        let (text, short) = at_first(&scarce, &objects(28), minute);
        assert!(short && text.contains("must not wait"), "{text}");
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
    }
}
