//! A canonical record as this target's JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta};
use drover_pipeline::idempotency::TargetId;
use drover_pipeline::load::Item;
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Datum, Value};
use serde::Serialize;
use serde_json::value::RawValue;

/// The body of a create or update: the whole content.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    entity: &'a str,
    key: &'a str,
    version: i64,
    fields: serde_json::Map<String, serde_json::Value>,
    // The source's own JSON texts, digit by digit.
    custom: BTreeMap<&'a str, &'a RawValue>,
}

impl<'a> Body<'a> {
    /// The body of that item. Fails, class Record, on what JSON or its dates
    /// can't express.
    pub(crate) fn new(
        item: &'a Item<'_>,
        datum: &'a Datum<'_>,
        links: &[(usize, TargetId)],
    ) -> Result<Self> {
        let mut fields = serde_json::Map::new();
        for (place, (field, value)) in item.entity.fields.iter().zip(&datum.values).enumerate() {
            let linked = links.iter().find(|(linked, _)| *linked == place);
            let json = match value {
                Value::Null => serde_json::Value::Null,
                Value::String(text) | Value::Decimal(text) => text.as_ref().into(),
                Value::Boolean(value) => (*value).into(),
                Value::Long(number) => (*number).into(),
                Value::Date(days) => day(*days).ok_or_else(|| impossible(&field.name))?.into(),
                Value::Datetime(millis) => moment(*millis)
                    .ok_or_else(|| impossible(&field.name))?
                    .into(),
                Value::Reference(_) => linked.map(|(_, id)| id.as_str()).into(),
            };
            fields.insert(field.name.clone(), json);
        }
        let mut custom = BTreeMap::new();
        for value in &datum.custom {
            let json: &RawValue = serde_json::from_str(&value.json).map_err(|_| {
                Error::new(Code::InvalidBody, "the value is no JSON").at(value.name.as_ref())
            })?;
            custom.insert(value.name.as_ref(), json);
        }
        Ok(Body {
            entity: &item.entity.name,
            key: item.key.as_str(),
            version: item.version,
            fields,
            custom,
        })
    }
}

fn impossible(field: &str) -> Error {
    Error::new(
        Code::TargetRefused,
        "the target's calendar does not reach so far",
    )
    .at(field)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_moments_are_iso() {
        assert_eq!(day(19_782).as_deref(), Some("2024-02-29"));
        assert_eq!(day(i32::MAX), None);
        assert_eq!(moment(-1).as_deref(), Some("1969-12-31T23:59:59.999Z"));
        assert_eq!(moment(i64::MAX), None);
    }
}
