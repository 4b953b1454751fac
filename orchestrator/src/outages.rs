//! What `drover run` says of the services that its stages work with (the source,
//! the target, the object store) while one is away: at once, every 30 s for how
//! long, and when it answers again. Of Kafka it says so itself.

use std::collections::BTreeMap;
use std::time::Instant;

use drover_pipeline::record::Millis;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Report, SILENCE};
use drover_pipeline::{Class, Code};

use crate::patience::Patience;
use crate::table::seconds;

/// By process, the service that is away for it.
#[derive(Debug, Default)]
pub(crate) struct Outages(BTreeMap<String, Outage>);

#[derive(Debug, Default)]
struct Outage {
    patience: Patience,
    service: &'static str,
    /// When the process last said that it is away.
    at: Millis,
}

impl Outages {
    /// Takes in what a process says now; the line to say, if one is due. A process
    /// that is silent, or just starts, says nothing of either.
    pub(crate) fn look(&mut self, report: &Report, at: Millis, now: Instant) -> Option<String> {
        let silent = at - report.at > SILENCE.as_millis() as Millis;
        if silent || matches!(report.phase, Phase::Stopping | Phase::Stopped) {
            return None;
        }
        let instance = &report.instance;
        if let Some((error, until)) = standing(report) {
            let outage = self.0.entry(instance.clone()).or_default();
            (outage.service, outage.at) = (service(report.stage, error), report.at);
            let line = outage.patience.still(error, now)?;
            let next = next_try(until, at).map(|next| format!(" ({next})"));
            return Some(format!("{instance}: {line}{}", next.unwrap_or_default()));
        }
        if report.phase == Phase::Starting {
            return None;
        }
        let outage = self.0.get_mut(instance)?;
        let lasted = outage.patience.over(now)?;
        let service = outage.service;
        Some(format!(
            "{instance}: {service} answers again (it was away for {lasted})"
        ))
    }

    /// Whether an error that a process met at that time belongs to an outage that
    /// was said.
    pub(crate) fn is_told(&self, instance: &str, error: &str, met: Option<Millis>) -> bool {
        let known = self.0.get(instance);
        of_service(error) && known.is_some_and(|outage| met <= Some(outage.at))
    }
}

/// When it is tried again, in words; nothing of what is tried at once.
pub(crate) fn next_try(until: Option<Millis>, at: Millis) -> Option<String> {
    let left = (until? - at) / 1000;
    let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
    Some(format!("next try in {}", seconds(Some(left))))
}

/// The first error of a process by which a service is away now, and when it tries
/// again. A lane says so as long as it lasts; a start has no lanes yet.
fn standing(report: &Report) -> Option<(&str, Option<Millis>)> {
    let lanes = report.lanes.values();
    let degraded = lanes.filter(|lane| lane.phase == Phase::Degraded);
    let met = degraded.filter_map(|lane| Some((lane.error.as_deref()?, lane.until)));
    let starting = report.last_error.as_deref();
    let starting = starting.filter(|_| report.phase == Phase::Starting);
    met.chain(starting.map(|error| (error, report.until)))
        .find(|(error, _)| of_service(error))
}

/// Whether an error's text says that a service other than Kafka does not answer.
fn of_service(error: &str) -> bool {
    let code = error.split(':').next().unwrap_or_default();
    let known = Code::ALL.iter().find(|known| known.as_str() == code);
    known.is_some_and(|code| {
        let of_kafka = matches!(
            code,
            Code::BrokerUnreachable | Code::Fenced | Code::KafkaBusy | Code::StableOffsetStuck
        );
        // A job that the source lost is begun anew: the source is there.
        code.class() == Class::Transient && !of_kafka && *code != Code::JobLost
    })
}

fn service(stage: Stage, error: &str) -> &'static str {
    match stage {
        _ if error.starts_with(Code::ObjectStoreUnavailable.as_str()) => "the object store",
        Stage::Extractor => "the source",
        Stage::Transformer => "the object store",
        Stage::Loader => "the target",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drover_pipeline::Error;
    use drover_pipeline::status::Status;

    use super::*;

    #[test]
    fn a_target_that_is_away_is_said_every_30_s_and_when_it_answers_again() {
        let status = Status::new(Stage::Loader, "x", "loader-1", "").expect("a status");
        status.phase(Phase::Running);
        status.lane_runs("company", None);
        let mut outages = Outages::default();
        let began = Instant::now();
        let mut look = |status: &Status, second: u64| {
            let report = status.report();
            outages.look(&report, report.at, began + Duration::from_secs(second))
        };
        assert_eq!(look(&status, 0), None);
        let away = Error::new(Code::TargetUnavailable, "it does not answer");
        let mut told = Vec::new();
        for second in 1..=70 {
            // Each try waits longer than the one before.
            let wait = Duration::from_millis(200 + 150 * second);
            status.lane_failed("company", &away, Some(wait));
            told.extend(look(&status, second).map(|line| (second, line)));
        }
        status.lane_runs("company", None);
        told.extend(look(&status, 75).map(|line| (75, line)));
        told.extend(look(&status, 76).map(|line| (76, line)));
        let error = "TARGET_UNAVAILABLE: it does not answer; check that the target runs; \
                     Drover keeps trying";
        let line = |text: String| format!("loader-1: {text}");
        assert_eq!(
            told,
            [
                (1, line(error.to_owned())),
                (
                    31,
                    line(format!("still, after 30s: {error} (next try in 4s)"))
                ),
                (
                    61,
                    line(format!("still, after 60s: {error} (next try in 9s)"))
                ),
                (
                    75,
                    line("the target answers again (it was away for 74s)".to_owned())
                ),
            ]
        );
        // What was met meanwhile is not told once more; what comes later is.
        let report = status.report();
        let met = report.last_error_at;
        let last = report.last_error.expect("an error");
        assert!(outages.is_told("loader-1", &last, met));
        assert!(!outages.is_told("loader-1", &last, met.map(|at| at + 60_000)));
        assert!(!outages.is_told("loader-1", "TARGET_ALTERED: no", met));
        assert!(!outages.is_told("loader-2", &last, met));
    }

    #[test]
    fn a_source_that_is_away_from_the_start_and_in_other_words_is_one_outage() {
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        let mut outages = Outages::default();
        let began = Instant::now();
        let mut look = |status: &Status, second: u64| {
            let report = status.report();
            outages.look(&report, report.at, began + Duration::from_secs(second))
        };
        let refused = Error::new(Code::Connection, "refused");
        let broken = Error::new(Code::AnswerLost, "broken");
        status.note_wait(&refused, Duration::from_secs(20));
        let line = look(&status, 0).expect("said at once");
        assert!(
            line.starts_with("extractor-1: CONNECTION: refused; "),
            "{line}"
        );
        assert!(line.contains(" (next try in "), "{line}");
        // The next process of this name: it does not know yet.
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        assert_eq!(look(&status, 2), None);
        status.phase(Phase::Running);
        status.lane_failed("Account", &broken, Some(Duration::ZERO));
        let line = look(&status, 3).expect("another error");
        assert!(
            line.starts_with("extractor-1: ANSWER_LOST: broken; "),
            "{line}"
        );
        status.lane_failed("Account", &refused, Some(Duration::ZERO));
        assert_eq!(look(&status, 4), None, "both were said");
        // A quota, Kafka, and a person who must act, are no outage of the source.
        for code in [Code::QuotaExhausted, Code::KafkaBusy, Code::JobLost] {
            assert!(!of_service(&Error::new(code, "x").to_string()), "{code}");
        }
        status.lane_failed("Account", &Error::new(Code::Unauthorized, "401"), None);
        let over = "extractor-1: the source answers again (it was away for 9s)";
        assert_eq!(look(&status, 9).as_deref(), Some(over));
    }
}
