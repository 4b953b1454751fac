//! Values of requests and of data as the store keeps them.

use serde_json::Value;

use super::errors::ApiError;
use super::id::Id;
use super::moment;
use super::record::{double, quote};
use super::schema::{Field, Mark, Type};

/// How far a value is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// As the real API checks what its clients send.
    Checked,
    /// Not at all: tests and data may say anything.
    Raw,
}

/// The JSON text that the store keeps of a value.
pub fn json(field: &Field, value: &Value, how: Strictness) -> Result<String, ApiError> {
    if value.is_null() {
        return if how == Strictness::Checked && field.kind == Type::Boolean {
            Err(wrong("boolean", "VALUE_NULL", value, field))
        } else {
            Ok("null".to_owned())
        };
    }
    let checked = how == Strictness::Checked;
    match (field.kind, value) {
        (Type::Boolean, Value::Bool(flag)) => Ok(flag.to_string()),
        (Type::Int, Value::Number(number)) => match number.as_i64() {
            Some(whole) => Ok(whole.to_string()),
            None if checked => Err(wrong("int", "VALUE_NUMBER_FLOAT", value, field)),
            None => Ok(format!("{:.0}", number.as_f64().unwrap_or_default())),
        },
        (kind, Value::Number(number)) if kind.is_double() => {
            Ok(double(number.as_f64().unwrap_or_default()))
        }
        // The real API takes numbers and booleans as texts too.
        (Type::Int, Value::String(text)) if text.parse::<i64>().is_ok() => Ok(text.clone()),
        (Type::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            Ok(text.clone())
        }
        (kind, Value::String(text)) if kind.is_double() && text.parse::<f64>().is_ok() => {
            Ok(double(text.parse().unwrap_or_default()))
        }
        (_, Value::String(text)) if text.is_empty() => Ok("null".to_owned()),
        (Type::Date, Value::String(text)) => match moment::parse_date(text) {
            Some(_) => Ok(quote(text)),
            None if checked => Err(wrong("date", "VALUE_STRING", value, field)),
            None => Ok(quote(text)),
        },
        (Type::Datetime, Value::String(text)) => match moment::parse(text) {
            Some(at) => Ok(quote(&moment::print(at))),
            None if checked => Err(wrong("datetime", "VALUE_STRING", value, field)),
            None => Ok(quote(text)),
        },
        (Type::Reference | Type::Id, Value::String(text)) => match Id::parse(text) {
            Some(id) => Ok(quote(&id.to_string())),
            None if checked => Err(ApiError::bad(
                "MALFORMED_ID",
                format!("{}: id value of incorrect type: {text}", field.label),
            )
            .on(&[&field.name])),
            None => Ok(quote(text)),
        },
        (Type::Base64, Value::String(text)) => Ok(quote(text)),
        (kind, Value::String(text)) if kind.is_text() => {
            if checked {
                check_text(field, text)?;
            }
            Ok(quote(text))
        }
        (kind, Value::Number(_) | Value::Bool(_)) if kind.is_text() => {
            Ok(quote(&value.to_string()))
        }
        (kind, _) if checked => {
            let found = match value {
                Value::Object(_) => "START_OBJECT",
                Value::Array(_) => "START_ARRAY",
                Value::Bool(true) => "VALUE_TRUE",
                Value::Bool(false) => "VALUE_FALSE",
                Value::Number(_) => "VALUE_NUMBER_INT",
                _ => "VALUE_STRING",
            };
            Err(wrong(kind.name(), found, value, field))
        }
        (_, other) => Ok(other.to_string()),
    }
}

fn wrong(expected: &str, found: &str, value: &Value, field: &Field) -> ApiError {
    let shown = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    ApiError::bad(
        "JSON_PARSER_ERROR",
        format!(
            "Cannot deserialize instance of {expected} from {found} value {shown} or request may be missing a required \
             field at field {}",
            field.name
        ),
    )
}

fn check_text(field: &Field, text: &str) -> Result<(), ApiError> {
    let length = text.chars().count();
    if field.length > 0 && length > field.length {
        let shown: String = text.chars().take(field.length.min(255)).collect();
        return Err(ApiError::bad(
            "STRING_TOO_LONG",
            format!(
                "{}: data value too large: {shown} (max length={})",
                field.label, field.length
            ),
        )
        .on(&[&field.name]));
    }
    if field.kind == Type::Email && !is_email(text) {
        return Err(ApiError::bad(
            "INVALID_EMAIL_ADDRESS",
            format!("{}: invalid email address: {text}", field.label),
        )
        .on(&[&field.name]));
    }
    if field.has(Mark::Restricted) && !field.picklist.iter().any(|value| value == text) {
        return Err(ApiError::bad(
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            format!(
                "{}: bad value for restricted picklist field: {text}",
                field.label
            ),
        )
        .on(&[&field.name]));
    }
    Ok(())
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*/=?^_+-`{|}~.".contains(c);
    !local.is_empty()
        && local.chars().all(plain)
        && domain.contains('.')
        && domain.split('.').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::schema::Schema;
    use serde_json::json;

    fn convert(object: &str, name: &str, value: Value) -> Result<String, &'static str> {
        let schema = Schema::standard();
        let field = schema.objects[schema.number(object).unwrap()]
            .field(name)
            .unwrap()
            .clone();
        super::json(&field, &value, Strictness::Checked).map_err(|error| error.code)
    }

    #[test]
    fn values_are_checked_and_printed_by_type() {
        let table = [
            ("Name", json!("Ac\"me"), Ok("\"Ac\\\"me\"")),
            ("Name", json!(""), Ok("null")),
            ("Name", json!("x".repeat(256)), Err("STRING_TOO_LONG")),
            ("AnnualRevenue", json!(139_000_000), Ok("1.39E8")),
            ("AnnualRevenue", json!("12.5"), Ok("12.5")),
            ("AnnualRevenue", json!("many"), Err("JSON_PARSER_ERROR")),
            ("NumberOfEmployees", json!(12), Ok("12")),
            ("NumberOfEmployees", json!(1.5), Err("JSON_PARSER_ERROR")),
            (
                "ParentId",
                json!("001dM00003jU9Gx"),
                Ok("\"001dM00003jU9GxQAK\""),
            ),
            ("ParentId", json!("nonsense"), Err("MALFORMED_ID")),
            (
                "SLAExpirationDate__c",
                json!("2026-02-30"),
                Err("JSON_PARSER_ERROR"),
            ),
            (
                "LastViewedDate",
                json!("2026-03-31T11:15:00+02:00"),
                Ok("\"2026-03-31T09:15:00.000+0000\""),
            ),
            (
                "CleanStatus",
                json!("Foo"),
                Err("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
            ),
            (
                "Industry",
                json!("Not in the list"),
                Ok("\"Not in the list\""),
            ),
            ("Website", json!({"a": 1}), Err("JSON_PARSER_ERROR")),
        ];
        for (name, value, expected) in table {
            assert_eq!(
                convert("Account", name, value.clone()),
                expected.map(str::to_owned),
                "{name} {value}"
            );
        }
        assert_eq!(
            convert("Contact", "Email", json!("a+b@x.example.org")),
            Ok("\"a+b@x.example.org\"".to_owned())
        );
        assert_eq!(
            convert("Contact", "Email", json!("a@b")),
            Err("INVALID_EMAIL_ADDRESS")
        );
    }
}
