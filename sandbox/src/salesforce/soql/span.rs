//! Spans of days with names: `TODAY`, `LAST_N_DAYS:3`.

use chrono::{Datelike, Days, Months, NaiveDate};

/// First day and the day behind the last one of a named span.
pub fn named(name: &str, count: Option<u32>, today: NaiveDate) -> Option<(NaiveDate, NaiveDate)> {
    let days = |date: NaiveDate, by: i64| {
        if by < 0 {
            date.checked_sub_days(Days::new(by.unsigned_abs()))
        } else {
            date.checked_add_days(Days::new(by as u64))
        }
    };
    let months = |date: NaiveDate, by: i64| {
        if by < 0 {
            date.checked_sub_months(Months::new(by.unsigned_abs() as u32))
        } else {
            date.checked_add_months(Months::new(by as u32))
        }
    };
    let week = days(today, -i64::from(today.weekday().num_days_from_sunday()))?;
    let month = today.with_day(1)?;
    let quarter = month.with_month0(month.month0() / 3 * 3)?;
    let year = month.with_month(1)?;
    let count = count.map(i64::from);
    Some(match (name, count) {
        ("today", None) => (today, days(today, 1)?),
        ("yesterday", None) => (days(today, -1)?, today),
        ("tomorrow", None) => (days(today, 1)?, days(today, 2)?),
        ("this_week", None) => (week, days(week, 7)?),
        ("last_week", None) => (days(week, -7)?, week),
        ("next_week", None) => (days(week, 7)?, days(week, 14)?),
        ("this_month", None) => (month, months(month, 1)?),
        ("last_month", None) => (months(month, -1)?, month),
        ("next_month", None) => (months(month, 1)?, months(month, 2)?),
        ("this_quarter", None) => (quarter, months(quarter, 3)?),
        ("last_quarter", None) => (months(quarter, -3)?, quarter),
        ("next_quarter", None) => (months(quarter, 3)?, months(quarter, 6)?),
        ("this_year", None) => (year, months(year, 12)?),
        ("last_year", None) => (months(year, -12)?, year),
        ("next_year", None) => (months(year, 12)?, months(year, 24)?),
        ("last_90_days", None) => (days(today, -89)?, days(today, 1)?),
        ("next_90_days", None) => (days(today, 1)?, days(today, 91)?),
        ("last_n_days", Some(n)) => (days(today, -n)?, days(today, 1)?),
        ("next_n_days", Some(n)) => (days(today, 1)?, days(today, n + 1)?),
        ("n_days_ago", Some(n)) => (days(today, -n)?, days(today, 1 - n)?),
        ("last_n_weeks", Some(n)) => (days(week, -7 * n)?, week),
        ("next_n_weeks", Some(n)) => (days(week, 7)?, days(week, 7 * (n + 1))?),
        ("last_n_months", Some(n)) => (months(month, -n)?, month),
        ("next_n_months", Some(n)) => (months(month, 1)?, months(month, n + 1)?),
        ("last_n_years", Some(n)) => (months(year, -12 * n)?, year),
        ("next_n_years", Some(n)) => (months(year, 12)?, months(year, 12 * (n + 1))?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_spans() {
        let today = NaiveDate::from_ymd_opt(2026, 5, 13).unwrap(); // a Wednesday
        let table = [
            ("today", None, "2026-05-13..2026-05-14"),
            ("this_week", None, "2026-05-10..2026-05-17"),
            ("last_month", None, "2026-04-01..2026-05-01"),
            ("this_quarter", None, "2026-04-01..2026-07-01"),
            ("last_n_days", Some(3), "2026-05-10..2026-05-14"),
            ("n_days_ago", Some(2), "2026-05-11..2026-05-12"),
            ("last_n_months", Some(2), "2026-03-01..2026-05-01"),
            ("next_year", None, "2027-01-01..2028-01-01"),
        ];
        for (name, count, shown) in table {
            let (from, to) = named(name, count, today).unwrap();
            assert_eq!(format!("{from}..{to}"), shown, "{name}");
        }
        assert_eq!(named("someday", None, today), None);
    }
}
