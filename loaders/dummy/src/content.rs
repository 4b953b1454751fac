//! A canonical record as this target's JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta};
use drover_pipeline::idempotency::TargetId;
use drover_pipeline::load::Item;
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Datum, Value};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most bytes of a record that this target takes.
const MOST: usize = 1 << 20;

/// What a file holds of a record's content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Content {
    /// By the entity's field; what is empty is null.
    pub fields: BTreeMap<String, serde_json::Value>,
    /// By the source's field, its own JSON, digit by digit.
    pub custom: BTreeMap<String, Box<RawValue>>,
}

/// The content of an item. Fails with [`Code::TargetRefused`] on what this
/// target does not take; the message holds no value of the record.
pub fn of(item: &Item<'_>, datum: &Datum<'_>, links: &[(usize, TargetId)]) -> Result<Content> {
    let refuse = |field: &str, what: &str| Error::new(Code::TargetRefused, what).at(field);
    let mut content = Content::default();
    let mut bytes = 0;
    for (place, (field, value)) in item.entity.fields.iter().zip(&datum.values).enumerate() {
        let linked = links.iter().find(|(linked, _)| *linked == place);
        let json = match value {
            Value::Null => serde_json::Value::Null,
            Value::String(text) | Value::Decimal(text) => {
                bytes += text.len();
                text.as_ref().into()
            }
            Value::Boolean(value) => (*value).into(),
            Value::Long(number) => (*number).into(),
            Value::Date(days) => day(*days)
                .ok_or_else(|| refuse(&field.name, "the calendar does not reach so far"))?
                .into(),
            Value::Datetime(millis) => moment(*millis)
                .ok_or_else(|| refuse(&field.name, "the calendar does not reach so far"))?
                .into(),
            // The target's own id; a link that is not possible yet is empty.
            Value::Reference(_) => linked.map(|(_, id)| id.as_str()).into(),
        };
        content.fields.insert(field.name.clone(), json);
    }
    for value in &datum.custom {
        bytes += value.json.len();
        let json = RawValue::from_string(value.json.to_string())
            .map_err(|_| refuse(&value.name, "the value is no JSON"))?;
        content.custom.insert(value.name.to_string(), json);
    }
    if bytes > MOST {
        let what = format!("the record has {bytes} bytes, and at most {MOST} are taken");
        return Err(Error::new(Code::TargetRefused, what));
    }
    Ok(content)
}

/// `2024-02-29`.
fn day(days: i32) -> Option<String> {
    let from = DateTime::UNIX_EPOCH.date_naive();
    let date = from.checked_add_signed(TimeDelta::try_days(days.into())?)?;
    Some(date.to_string())
}

/// `2024-02-29T12:34:56.789Z`.
fn moment(millis: i64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
