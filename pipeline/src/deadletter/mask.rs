//! What another system says of a record often quotes its values (`"Ann" is no
//! date`), and a letter's message travels where bodies must not: into headers,
//! logs and terminals. So every value of the record is taken out of it.

use std::borrow::Cow;

use drover_schemas::{Datum, Value};

use crate::envelope::{Envelope, JSON};

/// Shorter values are left: `no` or `12` says nothing of anybody, and would tear
/// holes into sentences.
const SHORTEST: usize = 4;

/// The message without the values of the record that the envelope (or any other
/// JSON) holds. `key` is the record's own, which may stand.
pub(super) fn mask(message: &str, envelope: &[u8], key: &str) -> String {
    match Envelope::decode(envelope) {
        Ok(envelope) => mask_body(message, envelope.body_schema, envelope.body, key),
        Err(_) => {
            let mut values = Vec::new();
            collect_json(envelope, &mut values);
            without_all(message, values, key)
        }
    }
}

/// The same for a body that does not lie in its envelope.
pub(super) fn mask_body(message: &str, schema: &str, body: Option<&[u8]>, key: &str) -> String {
    let mut values = Vec::new();
    let body = body.unwrap_or_default();
    if schema == JSON {
        collect_json(body, &mut values);
    } else if let Some(entity) = drover_schemas::entity_of_schema(schema)
        && let Ok(datum) = Datum::decode(entity, body)
    {
        collect_datum(&datum, &mut values);
    }
    without_all(message, values, key)
}

fn without_all(message: &str, mut values: Vec<String>, key: &str) -> String {
    values.retain(|value| {
        value.chars().count() >= SHORTEST
            && !key.contains(value.as_str())
            && message.len() >= value.len()
    });
    // A value that holds another one goes first.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.dedup();
    let mut text = Cow::Borrowed(message);
    for value in &values {
        if let Some(masked) = without(&text, value) {
            text = Cow::Owned(masked);
        }
    }
    text.into_owned()
}

/// The text with `…` wherever the value stands as a whole; `None` where it does not.
fn without(text: &str, value: &str) -> Option<String> {
    let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut masked = String::new();
    let mut from = 0;
    for (at, _) in text.match_indices(value) {
        let end = at + value.len();
        let inside = joined(text[..at].chars().next_back()) && joined(value.chars().next())
            || joined(text[end..].chars().next()) && joined(value.chars().next_back());
        if !inside {
            masked.push_str(&text[from..at]);
            masked.push('…');
            from = end;
        }
    }
    (from > 0).then(|| masked + &text[from..])
}

fn collect_json(bytes: &[u8], into: &mut Vec<String>) {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        collect(&value, into);
    }
}

fn collect(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => put(text, into),
        serde_json::Value::Number(number) => into.push(number.to_string()),
        serde_json::Value::Array(all) => all.iter().for_each(|value| collect(value, into)),
        serde_json::Value::Object(all) => all.values().for_each(|value| collect(value, into)),
        serde_json::Value::Null | serde_json::Value::Bool(_) => {}
    }
}

fn collect_datum(datum: &Datum<'_>, into: &mut Vec<String>) {
    for value in &datum.values {
        match value {
            Value::String(text) | Value::Decimal(text) => put(text, into),
            Value::Long(number) => into.push(number.to_string()),
            // A reference names a record, as the letter's own key does.
            Value::Null
            | Value::Boolean(_)
            | Value::Date(_)
            | Value::Datetime(_)
            | Value::Reference(_) => {}
        }
    }
    for custom in &datum.custom {
        collect_json(custom.json.as_bytes(), into);
    }
}

/// A text, and as it looks where it is quoted inside of JSON.
fn put(text: &str, into: &mut Vec<String>) {
    into.push(text.to_owned());
    let quoted = serde_json::Value::from(text).to_string();
    let quoted = &quoted[1..quoted.len() - 1];
    if quoted != text {
        into.push(quoted.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out_and_words_are_left() {
        let body = br#"{"Email":"ann@example.com","Name":"Ann \"A\" Lee","Title":"VP","Id":"0031","Type":"text","N":123456,"In":{"deep":"Elm Street"}}"#;
        let key = "salesforce/Contact/0031";
        for (given, want) in [
            (
                "Email address ann@example.com is invalid",
                "Email address … is invalid",
            ),
            (r#"{"message":"Ann \"A\" Lee"}"#, r#"{"message":"…"}"#),
            (r#"Ann "A" Lee, Elm Street: 123456"#, "…, …: …"),
            ("VP is no title of 0031", "VP is no title of 0031"),
            (
                "the context is a textual one",
                "the context is a textual one",
            ),
            (
                "column email of table contact",
                "column email of table contact",
            ),
        ] {
            assert_eq!(mask(given, body, key), want);
        }
        assert_eq!(mask("bytes", b"\xff\xfe", key), "bytes");
    }
}
