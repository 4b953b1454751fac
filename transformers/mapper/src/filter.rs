//! The `where` of a slot.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::convert::exact;
use crate::json::Json;

/// A field that must have one of some values.
#[derive(Debug)]
pub struct Condition {
    /// The field's place in the object's plan.
    pub field: usize,
    /// The values.
    accepted: Vec<Accepted>,
}

#[derive(Debug, PartialEq)]
enum Accepted {
    Empty,
    Bool(bool),
    Number(Decimal),
    Text(String),
}

impl Condition {
    /// Compiles what the mapping says of a field. Fails, with what is wrong, on
    /// a value that no field can be compared with.
    pub fn new(field: usize, wanted: &Value) -> Result<Self, &'static str> {
        let accepted = match wanted {
            Value::Array(values) if values.is_empty() => {
                Err("is an empty list, which nothing meets")
            }
            Value::Array(values) => values.iter().map(Accepted::new).collect(),
            value => Accepted::new(value).map(|one| vec![one]),
        }?;
        Ok(Condition { field, accepted })
    }

    /// Whether records without the field can meet the condition.
    pub fn takes_empty(&self) -> bool {
        self.accepted.contains(&Accepted::Empty)
    }

    /// Whether a field's value meets it; `None` is an empty field.
    pub fn holds(&self, raw: Option<&str>) -> bool {
        let Some(raw) = raw else {
            return self.takes_empty();
        };
        match Json::of(raw) {
            Ok(value) => self.accepted.iter().any(|one| one.is(&value)),
            // A text that is not Unicode equals none that a mapping can hold.
            Err(_) => false,
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
                .ok_or("is a number of more than 28 digits"),
            Value::Array(_) | Value::Object(_) => Err("is nested; a plain value is due"),
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
        assert!(Condition::new(0, &json!({"a": 1})).is_err());
        assert!(Condition::new(0, &json!([[1]])).is_err());
        assert!(Condition::new(0, &json!([])).is_err());
    }
}
