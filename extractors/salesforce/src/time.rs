//! The API's three ways to print a moment.
//!
//! Answers hold `2026-03-31T09:15:00.000+0000`, SOQL wants
//! `2026-03-31T09:15:00Z`, and every answer's `Date` header is the source's
//! clock (`reference/salesforce.md` section 2; RFC 9110 section 6.6.1).

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SecondsFormat};
use drover_pipeline::Result;
use drover_pipeline::http::Answer;
use drover_pipeline::record::Millis;

use crate::errors;

/// The latest time of the source that was seen.
#[derive(Debug, Default)]
pub struct Clock(AtomicI64);

impl Clock {
    /// The latest `Date` of any answer; 0 before the first one.
    pub fn latest(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes an answer's time and gives it. An answer without is not the API's.
    pub fn note(&self, answer: &Answer) -> Result<Millis> {
        let at = answer
            .header("date")
            .and_then(parse_date)
            .ok_or_else(|| errors::not_the_api(answer, "it has no Date header"))?;
        self.0.fetch_max(at, Ordering::Relaxed);
        Ok(at)
    }
}

/// Reads a moment of an answer.
pub fn parse(text: &str) -> Option<Millis> {
    DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z")
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .ok()
        .map(|moment| moment.timestamp_millis())
}

/// Reads a `Date` header.
pub fn parse_date(text: &str) -> Option<Millis> {
    DateTime::parse_from_rfc2822(text.trim())
        .ok()
        .map(|moment| moment.timestamp_millis())
}

/// Prints a moment as SOQL and the replication calls take it.
pub fn print(moment: Millis) -> String {
    let format = if moment % 1_000 == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Millis
    };
    DateTime::from_timestamp_millis(moment)
        .unwrap_or_default()
        .to_rfc3339_opts(format, true)
}

/// Prints a moment as answers hold it.
pub fn print_as_rest(moment: Millis) -> String {
    DateTime::from_timestamp_millis(moment)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%S%.3f+0000")
        .to_string()
}

/// The whole minute at or before a moment: the replication calls drop seconds.
pub fn minute(moment: Millis) -> Millis {
    moment - moment.rem_euclid(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_the_same_moment() {
        for text in [
            "2026-03-31T09:15:00.250+0000",
            "2026-03-31T09:15:00.250Z",
            "2026-03-31T11:15:00.250+02:00",
        ] {
            assert_eq!(parse(text), Some(1_774_948_500_250), "{text}");
        }
        assert_eq!(
            parse_date("Tue, 31 Mar 2026 09:15:00 GMT"),
            Some(1_774_948_500_000)
        );
        assert_eq!(print(1_774_948_500_250), "2026-03-31T09:15:00.250Z");
        assert_eq!(print(1_774_948_500_000), "2026-03-31T09:15:00Z");
        assert_eq!(parse(&print(1_774_948_500_250)), Some(1_774_948_500_250));
        assert_eq!(
            print_as_rest(1_774_948_500_250),
            "2026-03-31T09:15:00.250+0000"
        );
        assert_eq!(minute(1_774_948_510_250), 1_774_948_500_000);
        for text in [
            "",
            "2026-03-31",
            "yesterday",
            "2026-13-31T09:15:00.000+0000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
