//! A record's body as JSON, with its values or with what they are.

use drover_pipeline::bodies::Stored;
use drover_pipeline::envelope::{Envelope, JSON};
use drover_schemas::{Datum, Value};
use serde_json::{Map, Value as Json, json};

/// What the bytes of a record hold. Without `shown`, a value is replaced by what
/// it is: its type, and a text's length.
pub fn describe(bytes: &[u8], shown: bool) -> Json {
    let envelope = match Envelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(_) if bytes.is_empty() => return json!({"bytes": 0}),
        Err(_) => {
            let text = shown.then(|| String::from_utf8_lossy(bytes).into_owned());
            return json!({"bytes": bytes.len(), "foreign": text});
        }
    };
    let body = envelope.body.unwrap_or_default();
    let fields = match drover_schemas::entity_of_schema(envelope.body_schema) {
        _ if envelope.stored.is_some() => {
            let stored = envelope.stored.as_ref();
            Json::String(stored.map(in_store).unwrap_or_default())
        }
        _ if envelope.body.is_none() => Json::Null,
        _ if envelope.body_schema == JSON => match serde_json::from_slice(body) {
            Ok(fields) => masked(fields, shown),
            Err(_) if shown => Json::String(String::from_utf8_lossy(body).into_owned()),
            Err(_) => Json::String(format!("{} bytes that are no JSON", body.len())),
        },
        Some(entity) => match Datum::decode(entity, body) {
            Ok(datum) => masked(fields_of(entity, &datum), shown),
            Err(_) => Json::String(format!(
                "{} bytes that are no {}",
                body.len(),
                entity.schema
            )),
        },
        None => Json::String(format!("{} bytes of an unknown schema", body.len())),
    };
    json!({
        "op": envelope.op,
        "schema": envelope.body_schema,
        "bytes": bytes.len(),
        "fields": fields,
    })
}

/// What is told of a body that lies in the object store, and is left there.
pub(crate) fn in_store(stored: &Stored) -> String {
    let (length, name) = (stored.length, stored.name());
    format!("{length} bytes in the object store, under its SHA-256 {name}")
}

fn fields_of(entity: &drover_schemas::Entity, datum: &Datum<'_>) -> Json {
    let mut fields = Map::new();
    for (field, value) in entity.fields.iter().zip(&datum.values) {
        let value = match value {
            Value::Null => continue,
            Value::String(text) | Value::Decimal(text) | Value::Reference(text) => json!(text),
            Value::Boolean(value) => json!(value),
            Value::Long(number) => json!(number),
            Value::Datetime(at) => json!(crate::when::show(*at)),
            Value::Date(days) => {
                let at = i64::from(*days).saturating_mul(86_400_000);
                json!(crate::when::show(at).get(..10).unwrap_or_default())
            }
        };
        fields.insert(field.name.clone(), value);
    }
    for custom in &datum.custom {
        let value = serde_json::from_str(&custom.json).unwrap_or(Json::Null);
        fields.insert(format!("custom.{}", custom.name), value);
    }
    Json::Object(fields)
}

fn masked(value: Json, shown: bool) -> Json {
    match value {
        value if shown => value,
        Json::Null => Json::Null,
        Json::Bool(_) => json!("(yes or no)"),
        Json::Number(_) => json!("(number)"),
        Json::String(text) => json!(format!("(text, {} characters)", text.chars().count())),
        Json::Array(all) => json!(format!("(list of {})", all.len())),
        Json::Object(all) => all
            .into_iter()
            .map(|(name, value)| (name, masked(value, false)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use drover_pipeline::record::{Op, Phase, Raw, RawKey};

    use super::*;

    #[test]
    fn values_are_shown_only_when_asked_for() {
        let raw = Raw {
            key: RawKey::new("s", "Contact", "1").expect("a key"),
            op: Op::Upsert,
            version: 1,
            phase: Phase::Delta,
            extracted_at: 2,
            body: Some(br#"{"Name":"Ann","N":7,"In":{"x":true},"L":[1]}"#.to_vec()),
        };
        let bytes = Envelope::of_raw("m", &raw).encode();
        let hidden = describe(&bytes, false);
        assert_eq!(
            hidden["fields"],
            json!({"Name": "(text, 3 characters)", "N": "(number)", "In": {"x": "(yes or no)"}, "L": "(list of 1)"})
        );
        assert_eq!(describe(&bytes, true)["fields"]["Name"], "Ann");
        assert_eq!(
            describe(b"secret", false),
            json!({"bytes": 6, "foreign": null})
        );
        assert_eq!(describe(b"secret", true)["foreign"], "secret");

        let large = Stored::of(b"large");
        let bytes = Envelope::of_raw("m", &raw).with_body_at(large).encode();
        let told = describe(&bytes, true);
        let fields = told["fields"].as_str().expect("a text");
        assert!(fields.starts_with("5 bytes in the object store"), "{told}");
        assert!(fields.ends_with(&large.name()), "{told}");

        let contact = drover_schemas::entity("contact").expect("an entity");
        let mut datum = Datum::empty(contact);
        let (last, _) = contact.field("lastName").expect("a field");
        let (born, _) = contact.field("birthDate").expect("a field");
        datum.values[last] = Value::String("Lee".into());
        datum.values[born] = Value::Date(1);
        let fields = fields_of(contact, &datum);
        assert_eq!(
            fields,
            json!({"lastName": "Lee", "birthDate": "1970-01-02"})
        );
    }
}
