//! What the org's answers say of its calls (`reference/salesforce.md` section 8).

use std::collections::HashMap;

use drover_pipeline::quota::{Large, Terms};
use serde::Deserialize;

use crate::config::{Config, Origins};

/// Calls of an idle round: the log of deletes and the records of the window.
const PER_POLL: u64 = 2;

/// What the configuration says of the account's quota.
pub fn terms(config: &Config, origins: &Origins) -> Terms {
    let host = origins.instance.split_once("://").map(|parts| parts.1);
    Terms {
        account: host.unwrap_or(&origins.instance).to_owned(),
        reserve_percent: config.reserve_percent,
        records_per_call: u64::from(config.page_size),
        large: Some(Large {
            from: config.bulk_threshold,
            records_per_call: u64::from(config.bulk_page_size),
            // The job, and some looks at it.
            calls: 4,
        }),
        calls_per_poll: PER_POLL,
    }
}

/// Reads `Sforce-Limit-Info`, `api-usage=10018/100000; per-app-api-usage=...`:
/// the limit, and what is left of it.
pub fn of_header(text: &str) -> Option<(u64, u64)> {
    let usage = text
        .split([';', ','])
        .find_map(|part| part.trim().strip_prefix("api-usage="))?;
    let (used, limit) = usage.split_once('/')?;
    let limit = limit.trim().parse::<u64>().ok()?;
    Some((limit, limit.saturating_sub(used.trim().parse().ok()?)))
}

/// One entry of `/limits`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Limit {
    max: u64,
    remaining: u64,
}

/// The calls of the day in the answer of `/limits`, which is some minutes old:
/// the limit, and what is left of it.
pub fn of_limits(limits: &HashMap<String, serde_json::Value>) -> Option<(u64, u64)> {
    let daily = limits.get("DailyApiRequests")?;
    let daily = Limit::deserialize(daily).ok()?;
    Some((daily.max, daily.remaining))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_by_its_key() {
        for (text, expected) in [
            ("api-usage=10018/100000", Some((100_000, 89_982))),
            (
                "api-usage=18/5000; per-app-api-usage=17/250(appName=x)",
                Some((5_000, 4_982)),
            ),
            (
                "per-app-api-usage=17/250(appName=x); api-usage=18/5000",
                Some((5_000, 4_982)),
            ),
            (
                "api-usage=100007/100000; api-bursts=1/750",
                Some((100_000, 0)),
            ),
            ("api-usage=x/100", None),
            ("", None),
        ] {
            assert_eq!(of_header(text), expected, "{text}");
        }
    }
}
