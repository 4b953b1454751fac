//! A canonical record's body in memory, and its Avro datum.

use std::borrow::Cow;

use crate::avro::{Malformed, Reader, put_long, put_str};
use crate::entity::{Entity, Kind};

/// A field's value. The text kinds borrow from the datum they were read from.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// [`Kind::String`].
    String(Cow<'a, str>),
    /// [`Kind::Boolean`].
    Boolean(bool),
    /// [`Kind::Long`].
    Long(i64),
    /// [`Kind::Decimal`]: plain decimal text, `-12.50`.
    Decimal(Cow<'a, str>),
    /// [`Kind::Date`]: days since 1970-01-01.
    Date(i32),
    /// [`Kind::Datetime`]: milliseconds since 1970 in UTC.
    Datetime(i64),
    /// [`Kind::Reference`]: a canonical key.
    Reference(Cow<'a, str>),
}

/// A filled field without a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Custom<'a> {
    /// The field's API name in the source.
    pub name: Cow<'a, str>,
    /// The type the source declares for it.
    pub kind: Cow<'a, str>,
    /// The value as the source's JSON text.
    pub json: Cow<'a, str>,
}

/// The body of a canonical record.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum<'a> {
    /// One value a field, in the order of [`Entity::fields`].
    pub values: Vec<Value<'a>>,
    /// Everything else, sorted by name so that equal content gives equal bytes.
    pub custom: Vec<Custom<'a>>,
}

impl<'a> Datum<'a> {
    /// A datum of that entity without any value.
    pub fn empty(entity: &Entity) -> Self {
        Datum {
            values: vec![Value::Null; entity.fields.len()],
            custom: Vec::new(),
        }
    }

    /// Writes the Avro datum. `custom` must be sorted by name already.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for value in &self.values {
            match value {
                Value::Null => {
                    out.push(0);
                    continue;
                }
                _ => out.push(2),
            }
            match value {
                Value::Null => {}
                Value::String(text) | Value::Decimal(text) | Value::Reference(text) => {
                    put_str(out, text);
                }
                Value::Boolean(value) => out.push(u8::from(*value)),
                Value::Long(value) | Value::Datetime(value) => put_long(out, *value),
                Value::Date(value) => put_long(out, i64::from(*value)),
            }
        }
        if !self.custom.is_empty() {
            put_long(out, self.custom.len() as i64);
            for custom in &self.custom {
                put_str(out, &custom.name);
                put_str(out, &custom.kind);
                put_str(out, &custom.json);
            }
        }
        out.push(0);
    }

    /// Reads the Avro datum of that entity. Fails on anything that is not
    /// exactly one such datum.
    pub fn decode(entity: &Entity, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut values = Vec::with_capacity(entity.fields.len());
        for field in &entity.fields {
            if reader.choice(2)? == 0 {
                values.push(Value::Null);
                continue;
            }
            values.push(match field.kind {
                Kind::String => Value::String(reader.str()?.into()),
                Kind::Decimal => Value::Decimal(reader.str()?.into()),
                Kind::Reference => Value::Reference(reader.str()?.into()),
                Kind::Boolean => Value::Boolean(reader.take(1)?[0] == 1),
                Kind::Long => Value::Long(reader.long()?),
                Kind::Datetime => Value::Datetime(reader.long()?),
                Kind::Date => {
                    let days = reader.long()?;
                    Value::Date(i32::try_from(days).map_err(|_| reader.malformed("a date"))?)
                }
            });
        }
        let mut custom = Vec::new();
        loop {
            // A map comes in blocks; a negative count is followed by the
            // block's size in bytes, which only a skipping reader needs.
            let count = reader.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                reader.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                custom.push(Custom {
                    name: reader.str()?.into(),
                    kind: reader.str()?.into(),
                    json: reader.str()?.into(),
                });
            }
        }
        reader.end()?;
        Ok(Datum { values, custom })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use apache_avro::Schema;
    use apache_avro::types::Value as Avro;
    use proptest::prelude::*;

    use super::*;
    use crate::entity::{SCHEMAS, entities, entity};

    fn to_avro(entity: &Entity, datum: &Datum<'_>) -> Avro {
        let mut fields: Vec<(String, Avro)> = entity
            .fields
            .iter()
            .zip(&datum.values)
            .map(|(field, value)| {
                let (branch, value) = match value {
                    Value::Null => (0, Avro::Null),
                    Value::String(t) | Value::Decimal(t) | Value::Reference(t) => {
                        (1, Avro::String(t.to_string()))
                    }
                    Value::Boolean(b) => (1, Avro::Boolean(*b)),
                    Value::Long(n) => (1, Avro::Long(*n)),
                    Value::Date(d) => (1, Avro::Date(*d)),
                    Value::Datetime(m) => (1, Avro::TimestampMillis(*m)),
                };
                (field.name.clone(), Avro::Union(branch, Box::new(value)))
            })
            .collect();
        let custom: HashMap<String, Avro> = datum
            .custom
            .iter()
            .map(|c| {
                (
                    c.name.to_string(),
                    Avro::Record(vec![
                        ("type".into(), Avro::String(c.kind.to_string())),
                        ("json".into(), Avro::String(c.json.to_string())),
                    ]),
                )
            })
            .collect();
        fields.push(("custom".into(), Avro::Map(custom)));
        Avro::Record(fields)
    }

    fn any_datum() -> impl Strategy<Value = (usize, Datum<'static>)> {
        (0..entities().len()).prop_flat_map(|index| {
            let values: Vec<BoxedStrategy<Value<'static>>> = entities()[index]
                .fields
                .iter()
                .map(|field| {
                    let filled = match field.kind {
                        Kind::String => any::<String>()
                            .prop_map(|t| Value::String(t.into()))
                            .boxed(),
                        Kind::Decimal => any::<i64>()
                            .prop_map(|n| Value::Decimal(n.to_string().into()))
                            .boxed(),
                        Kind::Reference => any::<String>()
                            .prop_map(|t| Value::Reference(t.into()))
                            .boxed(),
                        Kind::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
                        Kind::Long => any::<i64>().prop_map(Value::Long).boxed(),
                        Kind::Datetime => any::<i64>().prop_map(Value::Datetime).boxed(),
                        Kind::Date => any::<i32>().prop_map(Value::Date).boxed(),
                    };
                    prop_oneof![Just(Value::Null), filled].boxed()
                })
                .collect();
            // One custom field at the most: apache-avro's map has no order, so
            // only then are its bytes comparable.
            let custom = prop::collection::vec(("[a-z]+", any::<String>()), 0..2);
            (Just(index), values, custom).prop_map(|(index, values, custom)| {
                let custom = custom
                    .into_iter()
                    .map(|(name, json)| Custom {
                        name: name.into(),
                        kind: "string".into(),
                        json: json.into(),
                    })
                    .collect();
                (index, Datum { values, custom })
            })
        })
    }

    proptest! {
        #[test]
        fn the_datum_is_what_apache_avro_writes((index, datum) in any_datum()) {
            let entity = &entities()[index];
            let schema = Schema::parse_str(SCHEMAS[index].1).expect("our schema");
            let mut ours = Vec::new();
            datum.encode(&mut ours);
            let theirs = apache_avro::to_avro_datum(&schema, to_avro(entity, &datum)).expect("encodes");
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(Datum::decode(entity, &ours).expect("decodes"), datum);
        }

        #[test]
        fn foreign_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for entity in entities() {
                if let Ok(datum) = Datum::decode(entity, &bytes) {
                    prop_assert_eq!(datum.values.len(), entity.fields.len());
                }
            }
        }
    }

    #[test]
    fn every_schema_is_valid_and_named_as_its_file() {
        for (name, text) in SCHEMAS {
            Schema::parse_str(text).expect("valid Avro");
            let entity = crate::entity_of_schema(name).expect("listed");
            assert_eq!(format!("{}.v1", entity.name), *name);
            for field in &entity.fields {
                assert_eq!(
                    field.kind == Kind::Reference,
                    field.entity.is_some() != field.type_field.is_some(),
                    "{name}.{}",
                    field.name
                );
                if let Some(beside) = &field.type_field {
                    let (_, beside) = entity.field(beside).expect("a field of the entity");
                    assert_eq!(beside.kind, Kind::String, "{name}.{}", field.name);
                }
                if let Some(target) = &field.entity {
                    assert!(crate::entity(target).is_some(), "{name}.{}", field.name);
                }
            }
        }
        Schema::parse_str(crate::ENVELOPE).expect("valid Avro");
    }

    #[test]
    fn the_playbook_names_exist() {
        let contact = entity("contact").expect("the contact");
        assert!(contact.field("phoneNumber").is_some());
        assert!(contact.field("bio").is_some());
    }
}
