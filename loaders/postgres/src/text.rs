//! Values as PostgreSQL's text input takes them, and COPY's escaping.
//!
//! The server judges every value: what it can't hold it refuses by its own
//! code, and `isolate` finds the row. Nothing is checked twice here.

use std::io::Write;

use drover_pipeline::record::{Millis, Order};

/// COPY's sign for NULL.
pub(crate) const NULL: &[u8] = b"\\N";

/// Appends a text, escaped for COPY: it can't end its column or its row.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(&[b'\\', escaped]);
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

/// Appends a whole number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: i64) {
    // Writing to a `Vec` can't fail.
    let _ = write!(out, "{number}");
}

/// Appends a day, given as days since 1970-01-01: `2024-02-29`, `0044-03-15 BC`.
pub(crate) fn put_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    put_day(out, year, month, day);
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// Appends a moment: `2024-02-29 12:00:00.123+00`.
pub(crate) fn put_moment(out: &mut Vec<u8>, millis: Millis) {
    const DAY: i64 = 86_400_000;
    let (year, month, day) = civil(millis.div_euclid(DAY));
    let rest = millis.rem_euclid(DAY);
    put_day(out, year, month, day);
    let _ = write!(
        out,
        " {:02}:{:02}:{:02}.{:03}+00",
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1000 % 60,
        rest % 1000
    );
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// Appends an order as a `bigint[]`: `{1,2,3,4,5}`.
pub(crate) fn put_order(out: &mut Vec<u8>, order: &Order) {
    let [a, b, c, d, e] = order.as_array();
    let _ = write!(out, "{{{a},{b},{c},{d},{e}}}");
}

/// A moment as text of its own.
pub(crate) fn moment(millis: Millis) -> String {
    text(|out| put_moment(out, millis))
}

/// An order as text of its own.
pub(crate) fn order(order: &Order) -> String {
    text(|out| put_order(out, order))
}

fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    put(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn put_day(out: &mut Vec<u8>, year: i64, month: i64, day: i64) {
    // The year before 1 is the year 1 BC; there is no year 0 in PostgreSQL.
    let shown = if year <= 0 { 1 - year } else { year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
}

/// Year, month and day of a count of days since 1970-01-01, for any count
/// (calendar libraries stop earlier than PostgreSQL does). Source: H. Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_moments_are_written_as_postgresql_reads_them() {
        for (days, want) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
            (2_932_897, "10000-01-01"),
        ] {
            assert_eq!(text(|out| put_date(out, days)), want);
        }
        for (millis, want) in [
            (0, "1970-01-01 00:00:00.000+00"),
            (-1, "1969-12-31 23:59:59.999+00"),
            (1_709_210_096_789, "2024-02-29 12:34:56.789+00"),
            (-62_135_596_800_001, "0001-12-31 23:59:59.999+00 BC"),
        ] {
            assert_eq!(moment(millis), want);
        }
        // No value may panic, however far out: the server refuses it by name.
        for millis in [i64::MIN, i64::MAX] {
            assert!(moment(millis).ends_with(if millis < 0 { " BC" } else { "+00" }));
        }
    }

    #[test]
    fn nothing_in_a_text_can_end_its_column_or_row() {
        let mut out = Vec::new();
        put_text(&mut out, "a\tb\nc\rd\\N\\. é😀");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "a\\tb\\nc\\rd\\\\N\\\\. é😀"
        );
    }
}
