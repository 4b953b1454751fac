//! Moments and ages, as people write and read them.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use drover_pipeline::record::Millis;

/// Reads `2026-11-22T10:00:00Z`, `2026-11-22`, or how long ago: `90s`, `15m`,
/// `2h`, `3d`. `now` is the clock that an age is counted from.
pub fn parse(text: &str, now: Millis) -> Result<Millis, String> {
    let refused = || {
        format!(
            "`{text}` is no moment: write 2026-11-22T10:00:00Z, 2026-11-22, or an age as 15m, 2h, 3d"
        )
    };
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.timestamp_millis());
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return day
            .and_hms_opt(0, 0, 0)
            .map(|moment| moment.and_utc().timestamp_millis())
            .ok_or_else(refused);
    }
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(refused()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| refused())?;
    number
        .checked_mul(seconds * 1000)
        .filter(|_| number >= 0)
        .map(|age| now.saturating_sub(age))
        .ok_or_else(refused)
}

/// A moment in UTC, to the second.
pub fn show(at: Millis) -> String {
    DateTime::<Utc>::from_timestamp_millis(at).map_or_else(
        || "-".to_owned(),
        |at| at.to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}

/// Seconds from a moment to now.
pub fn age(at: Millis, now: Millis) -> u64 {
    u64::try_from((now - at) / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_shown() {
        let now = 1_800_000_000_000;
        assert_eq!(parse("2026-11-22T10:00:00Z", now), Ok(1_795_341_600_000));
        assert_eq!(
            parse("2026-11-22T11:00:00+01:00", now),
            Ok(1_795_341_600_000)
        );
        assert_eq!(parse("2026-11-22", now), Ok(1_795_305_600_000));
        assert_eq!(parse("15m", now), Ok(now - 900_000));
        for bad in ["", "yesterday", "5", "-5m", "m", "99999999999999999d", "5µ"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
        assert_eq!(show(1_795_341_600_123), "2026-11-22T10:00:00Z");
    }
}
