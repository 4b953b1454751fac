//! The `where` of a slot.

use drover_pipeline::config::nearest;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::convert::{date, datetime, exact};
use crate::json::Json;

/// A field that must have, or must not have, one of some values.
#[derive(Debug)]
pub struct Condition {
    /// The field's place in the object's plan.
    pub field: usize,
    test: Test,
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
}

/// The end of a range.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Bound {
    Number(Decimal),
    /// A date or a moment, in milliseconds since 1970 in UTC.
    Time(i64),
}

/// What keeps a condition from being one: what is wrong, and what to write.
pub type Wrong = (String, &'static str);

/// What a condition may say beside plain values.
const WORDS: [&str; 3] = ["not", "atLeast", "below"];
const FORMS: &str = "write a value, a list of values, `{ not: … }` or `{ atLeast: …, below: … }`";
const PLAIN: &str = "write a text, a number, true, false or null, or a list of them";

impl Condition {
    /// Compiles what the mapping says of a field. Fails, with what is wrong, on
    /// a value that no field can be compared with.
    pub fn new(field: usize, wanted: &Value) -> Result<Self, Wrong> {
        let plain = |values| accepted(values).map_err(|what| (what.to_owned(), PLAIN));
        let test = match wanted {
            Value::Object(says) => {
                if let Some(word) = says.keys().find(|word| !WORDS.contains(&word.as_str())) {
                    return Err(match nearest(word, WORDS) {
                        Some("not") => (format!("`{word}` is no condition"), "write `not`"),
                        Some("below") => (format!("`{word}` is no condition"), "write `below`"),
                        Some(_) => (format!("`{word}` is no condition"), "write `atLeast`"),
                        None => (format!("`{word}` is no condition"), FORMS),
                    });
                }
                match (says.get("not"), says.len()) {
                    (Some(not), 1) => Test::IsNot(plain(not)?),
                    (None, 1 | 2) => {
                        let bound = |name| says.get(name).map(Bound::new).transpose();
                        let range = "write a number, a date (2026-01-31) or a time with its zone";
                        let wrong = |what: &str| (what.to_owned(), range);
                        let from = bound("atLeast").map_err(wrong)?;
                        Test::Between(from, bound("below").map_err(wrong)?)
                    }
                    (Some(_), _) => {
                        let what = "`not` stands beside another condition";
                        return Err((what.to_owned(), "keep one of them"));
                    }
                    _ => return Err(("it holds no condition".to_owned(), FORMS)),
                }
            }
            value => Test::Is(plain(value)?),
        };
        Ok(Condition { field, test })
    }

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

fn accepted(wanted: &Value) -> Result<Vec<Accepted>, &'static str> {
    match wanted {
        Value::Array(values) if values.is_empty() => {
            Err("the value is an empty list, which nothing meets")
        }
        Value::Array(values) => values.iter().map(Accepted::new).collect(),
        value => Accepted::new(value).map(|one| vec![one]),
    }
}

impl Bound {
    fn new(value: &Value) -> Result<Self, &'static str> {
        let text = value.to_string();
        let json = Json::of(&text).ok();
        let bound = json.as_ref().and_then(Bound::of);
        bound.ok_or("the value is no number, date or time to compare with")
    }

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
    fn new(value: &Value) -> Result<Self, &'static str> {
        match value {
            Value::Null => Ok(Accepted::Empty),
            Value::Bool(value) => Ok(Accepted::Bool(*value)),
            Value::String(text) if text.is_empty() => Ok(Accepted::Empty),
            Value::String(text) => Ok(Accepted::Text(text.clone())),
            Value::Number(number) => exact(&number.to_string())
                .map(Accepted::Number)
                .ok_or("the value is a number of more than 28 digits"),
            Value::Array(_) | Value::Object(_) => Err("the value is nested; a plain value is due"),
        }
    }

    fn is(&self, value: &Json<'_>) -> bool {
        match (self, value) {
            (Accepted::Bool(a), Json::Bool(b)) => a == b,
            (Accepted::Text(a), Json::Text(b)) => a == b,
            (Accepted::Number(a), Json::Number(b)) => exact(b).is_some_and(|b| *a == b),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_compares_values_of_one_kind() {
        let holds = |wanted: Value, raw: Option<&str>| {
            Condition::new(0, &wanted).expect("compiles").holds(raw)
        };
        assert!(holds(json!(false), Some("false")));
        assert!(!holds(json!(false), None));
        assert!(!holds(json!(false), Some("\"false\"")));
        assert!(holds(json!([false, null]), None));
        assert!(holds(json!("é"), Some("\"\\u00e9\"")));
        assert!(holds(json!(100), Some("100.0")));
        assert!(holds(json!(["a", "b"]), Some("\"b\"")));
        assert!(!holds(json!(["a", "b"]), Some("\"c\"")));
        assert!(!holds(json!("a"), Some("\"\\ud800\"")));
        assert!(!holds(json!("a"), Some("{}")));
        assert!(Condition::new(0, &json!([[1]])).is_err());
        assert!(Condition::new(0, &json!([])).is_err());
    }

    #[test]
    fn a_condition_can_exclude_and_compare() {
        let holds = |wanted: Value, raw: Option<&str>| {
            Condition::new(0, &wanted).expect("compiles").holds(raw)
        };
        let not = json!({"not": ["Call", "Email"]});
        assert!(holds(not.clone(), Some("\"Task\"")) && holds(not.clone(), None));
        assert!(!holds(not, Some("\"Call\"")));
        assert!(!holds(json!({"not": null}), None) && holds(json!({"not": null}), Some("1")));
        let range = json!({"atLeast": 10, "below": 20.5});
        assert!(holds(range.clone(), Some("10.0")) && holds(range.clone(), Some("20")));
        assert!(!holds(range.clone(), Some("20.50")) && !holds(range.clone(), None));
        assert!(!holds(range, Some("\"2026-01-01\"")));
        let since = json!({"atLeast": "2026-01-01"});
        assert!(holds(
            since.clone(),
            Some("\"2026-01-01T00:00:00.000+0000\"")
        ));
        assert!(!holds(since.clone(), Some("\"2025-12-31T23:59:59.000Z\"")));
        assert!(!holds(since, Some("\"yesterday\"")));
        for bad in [
            json!({"not": 1, "below": 2}),
            json!({"atLeast": "soon"}),
            json!({"above": 1}),
            json!({}),
        ] {
            assert!(Condition::new(0, &bad).is_err(), "{bad}");
        }
        let wrong = Condition::new(0, &json!({"atLeat": 3})).expect_err("a typo");
        assert_eq!(
            wrong,
            ("`atLeat` is no condition".to_owned(), "write `atLeast`")
        );
        let (_, advice) = Condition::new(0, &json!({"atLeast": "soon"})).expect_err("no time");
        assert!(advice.contains("2026-01-31"), "{advice}");
    }
}
