//! Ways from an object to a field: its own, or one of its parents'.

use super::errors::ApiError;
use super::id::Id;
use super::record::Record;
use super::schema::{Field, Mark, Schema, Type};
use super::soql::{Path, located};
use super::store::Store;
use super::value::{self, Value};

/// How far up the API follows parents.
const HIGHEST: usize = 5;

/// The fields that every object has which an owner or another many-valued
/// reference can point to.
const COMMON: [&str; 10] = [
    "Id",
    "Name",
    "FirstName",
    "LastName",
    "Email",
    "Phone",
    "Title",
    "Alias",
    "Username",
    "Type",
];

/// The object a query reads, for finding its fields.
pub struct Scope<'a> {
    /// All objects.
    pub schema: &'a Schema,
    /// The query's object.
    pub object: usize,
    /// Its other name.
    pub alias: Option<&'a str>,
    /// The query, for errors.
    pub text: &'a str,
}

/// A step to a parent: by which field of which object.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The object that holds the reference.
    pub object: usize,
    /// The reference field.
    pub field: u16,
}

/// A way to a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// The steps to parents.
    pub steps: Vec<Step>,
    /// The field at the end.
    pub end: End,
}

/// The field at the end of a way.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// A field of this object.
    Known(usize, u16),
    /// A field, by name, of whichever object the record is of.
    Named(String),
}

impl Scope<'_> {
    /// A message with its place in the query.
    pub fn located(&self, at: usize, message: &str) -> String {
        located(self.text, at, message)
    }

    /// The way that a path names.
    pub fn reach(&self, path: &Path) -> Result<Reach, ApiError> {
        let mut parts = &path.parts[..];
        let own = &self.schema.objects[self.object].name;
        if parts.len() > 1
            && (self
                .alias
                .is_some_and(|alias| alias.eq_ignore_ascii_case(&parts[0]))
                || (own.eq_ignore_ascii_case(&parts[0])
                    && self.schema.objects[self.object]
                        .relationship(&parts[0])
                        .is_none()))
        {
            parts = &parts[1..];
        }
        let Some((last, parents)) = parts.split_last() else {
            return Err(ApiError::not_found());
        };
        let mut steps = Vec::new();
        let mut at = Some(self.object);
        for parent in parents {
            let here = at.and_then(|object| {
                let field = self.schema.objects[object].relationship(parent)?;
                Some((object, field))
            });
            let Some((object, number)) = here else {
                return Err(ApiError::bad(
                    "INVALID_FIELD",
                    self.located(
                        path.at,
                        &format!(
                            "Didn't understand relationship '{parent}' in field path. If you are attempting to use a \
                             custom relationship, be sure to append the '__r' after the custom relationship name. \
                             Please reference your WSDL or the describe call for the appropriate names."
                        ),
                    ),
                ));
            };
            if steps.len() == HIGHEST {
                return Err(ApiError::bad(
                    "INVALID_FIELD",
                    self.located(
                        path.at,
                        "the maximum number of parent relationships in a field path is 5",
                    ),
                ));
            }
            steps.push(Step {
                object,
                field: number,
            });
            let field = &self.schema.objects[object].fields[usize::from(number)];
            at = match field.references.as_slice() {
                [target] => self.schema.number(target),
                _ => None,
            };
        }
        let end = match at {
            Some(object) => self.schema.objects[object]
                .number(last)
                .filter(|field| self.schema.objects[object].shows(*field))
                .map(|field| End::Known(object, field)),
            None => COMMON
                .iter()
                .find(|name| name.eq_ignore_ascii_case(last))
                .map(|name| End::Named((*name).to_owned())),
        };
        match end {
            Some(end) => Ok(Reach { steps, end }),
            None => {
                let entity = at.map_or("Name", |object| self.schema.objects[object].name.as_str());
                Err(self.no_column(path, last, entity))
            }
        }
    }

    fn no_column(&self, path: &Path, name: &str, entity: &str) -> ApiError {
        ApiError::bad(
            "INVALID_FIELD",
            self.located(
                path.at,
                &format!(
                    "No such column '{name}' on entity '{entity}'. If you are attempting to use a custom field, be \
                     sure to append the '__c' after the custom field name. Please reference your WSDL or the describe \
                     call for the appropriate names."
                ),
            ),
        )
    }
}

/// No such object.
pub fn no_object(text: &str, at: usize, name: &str) -> ApiError {
    ApiError::bad(
        "INVALID_TYPE",
        located(
            text,
            at,
            &format!(
                "sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to \
                 append the '__c' after the entity name. Please reference your WSDL or the describe call for the \
                 appropriate names."
            ),
        ),
    )
}

impl Reach {
    /// A field of the object itself.
    pub fn of(object: usize, field: u16) -> Reach {
        Reach {
            steps: Vec::new(),
            end: End::Known(object, field),
        }
    }

    /// The whole way in the names of the describe: `Account.Owner.Name`.
    pub fn name(&self, schema: &Schema) -> String {
        let mut name = String::new();
        for step in &self.steps {
            let field = &schema.objects[step.object].fields[usize::from(step.field)];
            name.push_str(field.relationship.as_deref().unwrap_or_default());
            name.push('.');
        }
        match &self.end {
            End::Known(object, field) => {
                name.push_str(&schema.objects[*object].fields[usize::from(*field)].name);
            }
            End::Named(field) => name.push_str(field),
        }
        name
    }

    /// The field at the end; a common one is described as text.
    pub fn field(&self, schema: &Schema) -> Field {
        match &self.end {
            End::Known(object, field) => {
                schema.objects[*object].fields[usize::from(*field)].clone()
            }
            End::Named(name) => {
                let kind = if name == "Id" { Type::Id } else { Type::String };
                Field::inferred(name, kind, 255)
            }
        }
    }

    /// The number of the object's own field, if the way leads nowhere else.
    pub fn own(&self) -> Option<u16> {
        match &self.end {
            End::Known(_, field) if self.steps.is_empty() => Some(*field),
            _ => None,
        }
    }

    /// The record at the end of the way.
    fn last<'a>(&self, store: &'a Store, record: &'a Record) -> Option<&'a Record> {
        let mut record = record;
        for step in &self.steps {
            record = parent(store, record, step.field)?.1?;
        }
        Some(record)
    }

    /// Appends the JSON of the value at the end of the way.
    pub fn push_json(&self, store: &Store, record: &Record, out: &mut Vec<u8>) {
        let Some(record) = self.last(store, record) else {
            out.extend_from_slice(b"null");
            return;
        };
        match &self.end {
            End::Known(object, number) => match target(store, record, *object, *number) {
                Some((record, object, number)) => {
                    value::push_json(record, &store.schema.objects[object], number, out);
                }
                None => out.extend_from_slice(b"null"),
            },
            End::Named(name) => push_common(store, record, name, out),
        }
    }

    /// The value at the end of the way that starts at a record.
    pub fn value<'a>(&self, store: &'a Store, record: &'a Record) -> Value<'a> {
        let Some(record) = self.last(store, record) else {
            return Value::Null;
        };
        match &self.end {
            End::Known(object, number) => match target(store, record, *object, *number) {
                Some((record, object, number)) => value::of(
                    record,
                    &store.schema.objects[object].fields[usize::from(number)],
                    number,
                ),
                None => Value::Null,
            },
            End::Named(name) => match common(store, record.id, name) {
                Common::Field(object, number) => value::of(
                    record,
                    &store.schema.objects[object].fields[usize::from(number)],
                    number,
                ),
                Common::Type(name) => Value::Text(name.to_owned().into()),
                Common::Nothing => Value::Null,
            },
        }
    }
}

/// The record, object and field that hold the value of a field: others than
/// its own where it is a formula.
fn target<'a>(
    store: &'a Store,
    record: &'a Record,
    object: usize,
    number: u16,
) -> Option<(&'a Record, usize, u16)> {
    let field = &store.schema.objects[object].fields[usize::from(number)];
    let Some(path) = &field.formula else {
        return Some((record, object, number));
    };
    let (mut record, mut object) = (record, object);
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let described = &store.schema.objects[object];
        if parts.peek().is_none() {
            return Some((record, object, described.number(part)?));
        }
        let (of, found) = parent(store, record, described.relationship(part)?)?;
        (record, object) = (found?, of);
    }
    None
}

/// A common field in the object that an id belongs to.
pub enum Common<'a> {
    /// The object's field.
    Field(usize, u16),
    /// The object's name.
    Type(&'a str),
    /// The object has no such field.
    Nothing,
}

/// Finds a common field in the object that an id belongs to.
pub fn common<'a>(store: &'a Store, id: Id, name: &str) -> Common<'a> {
    let Some(object) = store.schema.by_prefix(id.prefix()) else {
        return Common::Nothing;
    };
    let described = &store.schema.objects[object];
    if name == "Type" {
        return Common::Type(&described.name);
    }
    let number = if name == "Name" {
        described
            .fields
            .iter()
            .position(|field| field.has(Mark::NameField))
            .map(|at| at as u16)
    } else {
        described.number(name)
    };
    number.map_or(Common::Nothing, |number| Common::Field(object, number))
}

/// Appends the JSON of a common field of a record.
pub fn push_common(store: &Store, record: &Record, name: &str, out: &mut Vec<u8>) {
    match common(store, record.id, name) {
        Common::Field(object, field) => {
            value::push_json(record, &store.schema.objects[object], field, out);
        }
        Common::Type(name) => {
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
        Common::Nothing => out.extend_from_slice(b"null"),
    }
}

/// The object and the record that a reference field points to, as queries see
/// them; a record in the bin counts as gone.
pub fn parent<'a>(
    store: &'a Store,
    record: &Record,
    field: u16,
) -> Option<(usize, Option<&'a Record>)> {
    let id = record.reference(field)?;
    let object = store.schema.by_prefix(id.prefix())?;
    let parent = store.table(object).row(id).filter(|parent| !parent.deleted);
    Some((object, parent))
}
