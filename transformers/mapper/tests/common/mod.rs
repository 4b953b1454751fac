//! What several tests need.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use drover_pipeline::Error;
use drover_pipeline::extract::{Object, SourceField};
use drover_pipeline::record::{AbsentReason, Canonical, Content, Op, Phase, Raw, RawKey};
use drover_pipeline::transform::{Mapping, Transformer};
use drover_schemas::{Datum, Value, entity};
use drover_transformer_mapper::Mapper;
use serde_json::{Value as Json, json};

/// An object with fields as `name: type`, separated by commas.
pub fn object(name: &str, fields: &str) -> Object {
    Object {
        name: name.into(),
        custom: name.ends_with("__c"),
        count: None,
        fields: fields
            .split(',')
            .filter_map(|field| field.trim().split_once(':'))
            .map(|(name, kind)| SourceField {
                name: name.trim().into(),
                kind: kind.trim().into(),
                references: Vec::new(),
                ..SourceField::default()
            })
            .collect(),
        ..Object::default()
    }
}

pub fn mapping(json: Json) -> Mapping {
    serde_json::from_value(json).unwrap()
}

/// A mapping of one object `Thing` with one slot `main`.
pub fn one(entity: &str, fields: Json) -> Mapping {
    mapping(
        json!({"objects": {"Thing": {"slots": {"main": {"entity": entity, "fields": fields}}}}}),
    )
}

pub fn mapper(mapping: &Mapping, objects: &[Object]) -> Mapper {
    Mapper::new(mapping, objects)
        .unwrap_or_else(|problems| panic!("a mapping without problems: {problems:#?}"))
}

pub fn raw(object: &str, body: impl AsRef<[u8]>) -> Raw {
    Raw {
        key: RawKey::new("salesforce", object, "1").unwrap(),
        op: Op::Upsert,
        version: 1,
        phase: Phase::Snapshot,
        extracted_at: 2,
        body: Some(body.as_ref().to_vec()),
    }
}

/// An output as it looks to a target.
#[derive(Debug, PartialEq)]
pub struct Row {
    pub key: String,
    pub entity: String,
    pub fields: BTreeMap<String, Json>,
    pub custom: BTreeMap<String, (String, String)>,
    pub absent: Option<AbsentReason>,
}

impl Row {
    pub fn of(canonical: &Canonical) -> Row {
        let mut row = Row {
            key: canonical.key.as_str().into(),
            entity: canonical.entity.clone(),
            fields: BTreeMap::new(),
            custom: BTreeMap::new(),
            absent: None,
        };
        match &canonical.content {
            Content::Absent(reason) => row.absent = Some(*reason),
            Content::Upsert { schema, datum } => {
                let entity = entity(&canonical.entity).unwrap();
                assert_eq!(*schema, entity.schema);
                let datum = Datum::decode(entity, datum).unwrap();
                for (field, value) in entity.fields.iter().zip(&datum.values) {
                    let value = match value {
                        Value::Null => continue,
                        Value::String(t) | Value::Decimal(t) | Value::Reference(t) => json!(t),
                        Value::Boolean(b) => json!(b),
                        Value::Long(n) | Value::Datetime(n) => json!(n),
                        Value::Date(n) => json!(n),
                    };
                    row.fields.insert(field.name.clone(), value);
                }
                let names: Vec<_> = datum.custom.iter().map(|c| c.name.clone()).collect();
                assert!(names.is_sorted(), "custom is not sorted: {names:?}");
                for custom in datum.custom {
                    let value = (custom.kind.into_owned(), custom.json.into_owned());
                    row.custom.insert(custom.name.into_owned(), value);
                }
            }
        }
        row
    }
}

pub fn rows(mapper: &Mapper, record: &Raw) -> Result<Vec<Row>, Error> {
    Ok(mapper.transform(record)?.iter().map(Row::of).collect())
}
