//! Times as the API prints and reads them: `2026-03-31T09:15:00.000+0000`.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone, Utc};

/// A moment in milliseconds since 1970, UTC.
pub type Millis = i64;

/// One second.
pub const SECOND: Millis = 1_000;
/// One minute.
pub const MINUTE: Millis = 60 * SECOND;
/// One hour.
pub const HOUR: Millis = 60 * MINUTE;
/// One day.
pub const DAY: Millis = 24 * HOUR;

/// The time now.
pub fn now() -> Millis {
    Utc::now().timestamp_millis()
}

/// The second a moment lies in: stamps of records have no finer unit.
pub fn second(at: Millis) -> Millis {
    at.div_euclid(SECOND) * SECOND
}

/// The minute a moment lies in.
pub fn minute(at: Millis) -> Millis {
    at.div_euclid(MINUTE) * MINUTE
}

/// The day a moment lies in.
pub fn day(at: Millis) -> Millis {
    at.div_euclid(DAY) * DAY
}

/// Appends a moment in the API's form, without quotes.
pub fn push(at: Millis, out: &mut Vec<u8>) {
    let days = at.div_euclid(DAY);
    let mut rest = at.rem_euclid(DAY);
    let (year, month, date) = civil(days);
    digits(year, 4, out);
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(date, 2, out);
    out.push(b'T');
    digits(rest / HOUR, 2, out);
    rest %= HOUR;
    out.push(b':');
    digits(rest / MINUTE, 2, out);
    rest %= MINUTE;
    out.push(b':');
    digits(rest / SECOND, 2, out);
    out.push(b'.');
    digits(rest % SECOND, 3, out);
    out.extend_from_slice(b"+0000");
}

/// A moment in the API's form.
pub fn print(at: Millis) -> String {
    let mut out = Vec::with_capacity(28);
    push(at, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The date of a moment, `2026-03-31`.
pub fn print_date(at: Millis) -> String {
    let (year, month, date) = civil(at.div_euclid(DAY));
    format!("{year:04}-{month:02}-{date:02}")
}

/// Reads a date-time with a zone: `Z`, `+00:00` or `+0000`, with or without
/// fractions of a second.
pub fn parse(text: &str) -> Option<Millis> {
    if text.len() < 20 || text.as_bytes()[10] != b'T' {
        return None;
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.timestamp_millis());
    }
    DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z")
        .ok()
        .map(|at| at.timestamp_millis())
}

/// Reads a date, `2026-03-31`.
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    if text.len() != 10 {
        return None;
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

/// The first moment of a date, UTC.
pub fn start_of(date: NaiveDate) -> Millis {
    Utc.from_utc_datetime(&NaiveDateTime::from(date))
        .timestamp_millis()
}

fn digits(number: i64, width: usize, out: &mut Vec<u8>) {
    let mut divisor = 10_i64.pow(width as u32 - 1);
    while divisor > 0 {
        out.push(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// Year, month and day of a number of days since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        for text in [
            "2026-03-31T09:15:00.000+0000",
            "2024-02-29T23:59:59.999+0000",
            "1969-12-31T00:00:00.000+0000",
        ] {
            assert_eq!(print(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn zones_are_read() {
        let at = parse("2026-03-31T09:15:00Z").unwrap();
        for text in [
            "2026-03-31T09:15:00+00:00",
            "2026-03-31T09:15:00.000+0000",
            "2026-03-31T11:15:00+0200",
            "2026-03-31T04:15:00.000-05:00",
        ] {
            assert_eq!(parse(text), Some(at), "{text}");
        }
        assert_eq!(parse("2026-03-31T09:15:00"), None);
        assert_eq!(parse("2026-03-31"), None);
        assert_eq!(print_date(at), "2026-03-31");
    }
}
