//! Values as conditions and orders compare them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::id::Id;
use super::moment::{self, Millis};
use super::record::{Record, unquote};
use super::schema::{Field, Object, Source, Type};

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A moment, or the first one of a day.
    Moment(Millis),
    /// An id.
    Id(Id),
    /// A text; compared without regard to case.
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// The order of two values of one field; nulls first.
    pub fn compare(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Moment(a), Value::Moment(b)) => a.cmp(b),
            (Value::Id(a), Value::Id(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => folded(a).cmp(folded(b)),
            _ => Ordering::Equal,
        }
    }

    /// Whether two values are the same, as `=` sees it.
    pub fn same(&self, other: &Value<'_>) -> bool {
        self.compare(other) == Ordering::Equal
    }
}

fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// The value of a field in a record.
pub fn of<'a>(record: &'a Record, field: &Field, number: u16) -> Value<'a> {
    match field.source {
        Source::Id => Value::Id(record.id),
        Source::Deleted => Value::Boolean(record.deleted),
        Source::Created => Value::Moment(record.created),
        Source::Modified => Value::Moment(record.modified),
        Source::Modstamp => Value::Moment(record.modstamp),
        Source::Address | Source::Photo | Source::Blob | Source::Formula => Value::Null,
        Source::Stored => match record.json(number) {
            Some(json) => read(json, field.kind),
            None if field.kind == Type::Boolean => Value::Boolean(false),
            None => Value::Null,
        },
    }
}

/// Reads the JSON text of a stored value.
fn read(json: &str, kind: Type) -> Value<'_> {
    match kind {
        Type::Boolean => Value::Boolean(json == "true"),
        Type::Int | Type::Double | Type::Currency | Type::Percent => {
            json.parse().map_or(Value::Null, Value::Number)
        }
        Type::Id | Type::Reference => match Id::parse(json.trim_matches('"')) {
            Some(id) => Value::Id(id),
            None => unquote(json).map_or(Value::Null, Value::Text),
        },
        Type::Date => unquote(json)
            .and_then(|text| moment::parse_date(&text))
            .map_or(Value::Null, |date| Value::Moment(moment::start_of(date))),
        Type::Datetime => unquote(json)
            .and_then(|text| moment::parse(&text))
            .map_or(Value::Null, Value::Moment),
        _ => unquote(json).map_or(Value::Null, Value::Text),
    }
}

/// The parts of a compound address, in the order of its keys.
const ADDRESS: [(&str, &str); 8] = [
    ("city", "City"),
    ("country", "Country"),
    ("geocodeAccuracy", "GeocodeAccuracy"),
    ("latitude", "Latitude"),
    ("longitude", "Longitude"),
    ("postalCode", "PostalCode"),
    ("state", "State"),
    ("street", "Street"),
];

/// Appends the JSON of a field's value.
pub fn push_json(record: &Record, object: &Object, number: u16, out: &mut Vec<u8>) {
    push_found(record, object, number, out, |field| record.json(field));
}

/// Appends the JSON of a field's value; `stored` finds stored values.
pub fn push_found<'a>(
    record: &'a Record,
    object: &Object,
    number: u16,
    out: &mut Vec<u8>,
    stored: impl Fn(u16) -> Option<&'a str>,
) {
    let field = &object.fields[usize::from(number)];
    let moment = |at: Millis, out: &mut Vec<u8>| {
        out.push(b'"');
        moment::push(at, out);
        out.push(b'"');
    };
    match field.source {
        Source::Id => {
            out.push(b'"');
            record.id.push_to(out);
            out.push(b'"');
        }
        Source::Deleted => out.extend_from_slice(if record.deleted { b"true" } else { b"false" }),
        Source::Created => moment(record.created, out),
        Source::Modified => moment(record.modified, out),
        Source::Modstamp => moment(record.modstamp, out),
        // What this is of is printed by who knows the store.
        Source::Formula => out.extend_from_slice(b"null"),
        Source::Blob => {
            out.extend_from_slice(b"\"/sobjects/");
            out.extend_from_slice(object.name.as_bytes());
            out.push(b'/');
            record.id.push_to(out);
            out.push(b'/');
            out.extend_from_slice(field.name.as_bytes());
            out.push(b'"');
        }
        Source::Photo => {
            out.extend_from_slice(b"\"/services/images/photo/");
            record.id.push_to(out);
            out.push(b'"');
        }
        Source::Stored => match stored(number) {
            Some(json) => out.extend_from_slice(json.as_bytes()),
            None if field.kind == Type::Boolean => out.extend_from_slice(b"false"),
            None => out.extend_from_slice(b"null"),
        },
        Source::Address => {
            let stem = field.name.strip_suffix("Address").unwrap_or(&field.name);
            let parts: Vec<(&str, Option<&str>)> = ADDRESS
                .iter()
                .filter_map(|(key, part)| {
                    let number = object.number(&format!("{stem}{part}"))?;
                    Some((*key, stored(number)))
                })
                .collect();
            if parts.iter().all(|part| part.1.is_none()) {
                out.extend_from_slice(b"null");
                return;
            }
            for (at, (key, json)) in parts.into_iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                out.push(b'"');
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"\":");
                out.extend_from_slice(json.unwrap_or("null").as_bytes());
            }
            out.push(b'}');
        }
    }
}
