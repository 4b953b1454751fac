//! The `where` of a slot: reading it stands in `filter/read.rs`.

mod read;

use std::cmp::Ordering;

use rust_decimal::Decimal;

use crate::convert::{date, datetime, exact};
use crate::json::Json;

/// A field that must have, or must not have, one of some values.
#[derive(Debug)]
pub struct Condition {
    /// The field's place in the object's plan.
    pub field: usize,
    test: Test,
}

/// The field that a condition asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its place in the object's plan.
    pub place: usize,
    /// `Contact.Birthdate`.
    pub name: &'a str,
    /// The type that the source declares, if it was asked.
    pub declared: Option<&'a str>,
}

/// What keeps a condition from being one that a record can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where in the condition: `.not[1]`, or nothing for the whole of it.
    pub below: String,
    /// What is wrong.
    pub what: String,
    /// What to write.
    pub advice: String,
}

#[derive(Debug)]
enum Test {
    /// One of these.
    Is(Vec<Accepted>),
    /// None of these.
    IsNot(Vec<Accepted>),
    /// From the first on and before the second.
    Between(Option<Bound>, Option<Bound>),
}

#[derive(Debug, PartialEq)]
enum Accepted {
    Empty,
    Bool(bool),
    Number(Decimal),
    Text(String),
    /// Of a field that is declared as a moment, which has several spellings.
    Moment(i64),
}

/// The end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Number(Decimal),
    /// A date or a moment, in milliseconds since 1970 in UTC.
    Time(i64),
}

impl Condition {
    /// Whether records without the field can meet the condition.
    pub fn takes_empty(&self) -> bool {
        match &self.test {
            Test::Is(values) => values.contains(&Accepted::Empty),
            Test::IsNot(values) => !values.contains(&Accepted::Empty),
            Test::Between(..) => false,
        }
    }

    /// Whether a field's value meets it; `None` is an empty field.
    pub fn holds(&self, raw: Option<&str>) -> bool {
        let Some(raw) = raw else {
            return self.takes_empty();
        };
        // A text that is not Unicode equals none that a mapping can hold.
        let value = Json::of(raw).ok();
        let among = |values: &[Accepted]| {
            values
                .iter()
                .any(|v| value.as_ref().is_some_and(|j| v.is(j)))
        };
        match &self.test {
            Test::Is(values) => among(values),
            Test::IsNot(values) => !among(values),
            Test::Between(from, until) => {
                let at = value.as_ref().and_then(Bound::of);
                at.is_some_and(|at| {
                    from.is_none_or(|from| at >= from) && until.is_none_or(|until| at < until)
                })
            }
        }
    }
}

/// A number and a time have no order between them.
impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Bound::Number(a), Bound::Number(b)) => a.partial_cmp(b),
            (Bound::Time(a), Bound::Time(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

impl Bound {
    /// The place of a field's value in a range, if it can have one.
    fn of(value: &Json<'_>) -> Option<Self> {
        const DAY: i64 = 86_400_000;
        match value {
            Json::Number(digits) => exact(digits).map(Bound::Number),
            Json::Text(_) => {
                let day = date(value).map(|day| i64::from(day) * DAY);
                day.or_else(|_| datetime(value)).ok().map(Bound::Time)
            }
            _ => None,
        }
    }
}

impl Accepted {
    fn is(&self, value: &Json<'_>) -> bool {
        match (self, value) {
            (Accepted::Bool(a), Json::Bool(b)) => a == b,
            (Accepted::Text(a), Json::Text(b)) => a == b,
            (Accepted::Number(a), Json::Number(b)) => exact(b).is_some_and(|b| *a == b),
            (Accepted::Moment(a), Json::Text(_)) => datetime(value).is_ok_and(|b| *a == b),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(wanted: &Value, declared: Option<&str>) -> Result<Condition, Vec<Wrong>> {
        let asked = Asked {
            place: 0,
            name: "Thing.Field",
            declared,
        };
        Condition::new(asked, wanted)
    }

    fn holds(wanted: &Value, raw: Option<&str>) -> bool {
        read(wanted, None).expect("compiles").holds(raw)
    }

    /// What is wrong, as `below: what; advice`.
    fn told(wanted: Value, declared: Option<&str>) -> Vec<String> {
        let wrong = read(&wanted, declared).err().unwrap_or_default();
        let line = |one: Wrong| format!("{}: {}; {}", one.below, one.what, one.advice);
        wrong.into_iter().map(line).collect()
    }

    #[test]
    fn a_condition_compares_values_of_one_kind() {
        assert!(holds(&json!(false), Some("false")));
        assert!(!holds(&json!(false), None));
        assert!(!holds(&json!(false), Some("\"false\"")));
        assert!(holds(&json!([false, null]), None));
        assert!(holds(&json!("é"), Some("\"\\u00e9\"")));
        assert!(holds(&json!(100), Some("100.0")));
        assert!(holds(&json!(["a", "b"]), Some("\"b\"")));
        assert!(!holds(&json!(["a", "b"]), Some("\"c\"")));
        assert!(!holds(&json!("a"), Some("\"\\ud800\"")));
        assert!(!holds(&json!("a"), Some("{}")));
        assert!(read(&json!([[1]]), None).is_err());
        assert!(read(&json!([]), None).is_err());
    }

    #[test]
    fn a_condition_can_exclude_and_compare() {
        let not = json!({"not": ["Call", "Email"]});
        assert!(holds(&not, Some("\"Task\"")) && holds(&not, None));
        assert!(!holds(&not, Some("\"Call\"")));
        assert!(!holds(&json!({"not": null}), None) && holds(&json!({"not": null}), Some("1")));
        let range = json!({"atLeast": 10, "below": 20.5});
        assert!(holds(&range, Some("10.0")) && holds(&range, Some("20")));
        assert!(!holds(&range, Some("20.50")) && !holds(&range, None));
        assert!(!holds(&range, Some("\"2026-01-01\"")));
        let since = json!({"atLeast": "2026-01-01"});
        assert!(holds(&since, Some("\"2026-01-01T00:00:00.000+0000\"")));
        assert!(!holds(&since, Some("\"2025-12-31T23:59:59.000Z\"")));
        assert!(!holds(&since, Some("\"yesterday\"")));
        assert!(
            !holds(&since, Some("5")) && !holds(&json!({"atLeast": 5}), Some("\"2026-01-01\""))
        );
        for bad in [
            json!({"not": 1, "below": 2}),
            json!({"atLeast": "soon"}),
            json!({"above": 1}),
            json!({}),
        ] {
            assert!(read(&bad, None).is_err(), "{bad}");
        }
    }

    /// A moment has several spellings, and the source prints one of them.
    #[test]
    fn a_moment_equals_itself_however_it_is_written() {
        let wanted = json!("2026-01-31T10:00:00+01:00");
        let condition = read(&wanted, Some("datetime")).expect("compiles");
        assert!(condition.holds(Some("\"2026-01-31T09:00:00.000+0000\"")));
        assert!(!condition.holds(Some("\"2026-01-31T09:00:01.000+0000\"")));
        assert!(!condition.holds(None));
    }

    #[test]
    fn everything_that_is_wrong_with_a_condition_is_told_with_its_place() {
        assert_eq!(
            told(json!({"atLeat": 3, "below": "soon"}), None),
            [
                ".atLeat: `atLeat` is no condition; write `atLeast`",
                ".below: `\"soon\"` is no number, date or time to compare Thing.Field with; \
                 write a number, a date (2026-01-31) or a time with its zone \
                 (2026-01-31T09:00:00Z)",
            ]
        );
        assert_eq!(
            told(json!(["a", ["b"], {}]), None),
            [
                "[1]: the value is nested; write a text, a number, true, false or null, or a list of them",
                "[2]: the value is nested; write a text, a number, true, false or null, or a list of them",
            ]
        );
        assert_eq!(
            told(json!({"atLeast": 3, "below": 3}), Some("int")),
            [": nothing is at least 3 and below 3; write a larger `below`, or one of the two"]
        );
        assert_eq!(
            told(json!({"atLeast": 3, "below": "2026-01-31"}), None),
            [
                ": nothing is at least 3 and below \"2026-01-31\"; write two numbers, or two dates or times"
            ]
        );
    }

    #[test]
    fn a_value_that_the_declared_type_never_has_is_told() {
        for (declared, wanted, what) in [
            (
                "boolean",
                json!("false"),
                ": Thing.Field is declared as boolean, and `\"false\"` is a text; \
                 write `false`, without quotes",
            ),
            (
                "checkbox",
                json!({"not": ["no"]}),
                ".not[0]: Thing.Field is declared as checkbox, and `\"no\"` is a text; \
                 write true, false or null",
            ),
            (
                "boolean",
                json!({"atLeast": 1}),
                ".atLeast: Thing.Field is declared as boolean, whose values have no order; \
                 write true, false or null",
            ),
            (
                "currency",
                json!("5"),
                ": Thing.Field is declared as currency, and `\"5\"` is a text; \
                 write `5`, without quotes",
            ),
            (
                "double",
                json!({"below": "2026-01-31"}),
                ".below: Thing.Field is declared as double, and `\"2026-01-31\"` is a date or time; \
                 write a number",
            ),
            (
                "date",
                json!("31.1.2026"),
                ": Thing.Field is declared as date, and `\"31.1.2026\"` is no such value; \
                 write a date: 2026-01-31",
            ),
            (
                "date",
                json!({"atLeast": 2026}),
                ".atLeast: Thing.Field is declared as date, and `2026` is a number; \
                 write a date: 2026-01-31",
            ),
            (
                "datetime",
                json!("2026-01-31"),
                ": Thing.Field is declared as datetime, and `\"2026-01-31\"` is no such value; \
                 write a time with its zone (2026-01-31T09:00:00Z), or for whole days \
                 `{ atLeast: 2026-01-31, below: 2026-02-01 }`",
            ),
            (
                "picklist",
                json!(5),
                ": Thing.Field is declared as picklist, and `5` is a number; put it in quotes",
            ),
            (
                "string",
                json!({"atLeast": 5}),
                ".atLeast: Thing.Field is declared as string, and `5` is a number; \
                 write a date or a time, or name values",
            ),
            (
                "reference",
                json!(true),
                ": Thing.Field is declared as reference, and `true` is true or false; write an id",
            ),
            (
                "address",
                json!("Berlin"),
                ": Thing.Field is declared as address, which holds no plain value; \
                 write null or `{ not: null }`, or ask another field",
            ),
        ] {
            assert_eq!(told(wanted, Some(declared)), [what]);
        }
        for (declared, wanted) in [
            ("boolean", json!([false, null])),
            ("int", json!({"atLeast": 5})),
            ("int", json!([1, 2.0, ""])),
            ("date", json!({"not": "2026-01-31"})),
            ("datetime", json!({"atLeast": "2026-01-31"})),
            ("string", json!({"atLeast": "2026-01-31"})),
            ("picklist", json!("5")),
            ("id", json!(5)),
            ("address", json!({"not": null})),
            ("some vendor's type", json!([true, 5, "x"])),
        ] {
            assert!(read(&wanted, Some(declared)).is_ok(), "{declared} {wanted}");
        }
    }
}
