//! Records from files: `<Object>.jsonl` with one record a line, or
//! `<Object>.json` with an array of records or a query's answer.
//!
//! Values are kept as they stand. What the tables do not know extends them:
//! objects, and fields with a type inferred from their values. Missing
//! stamps are derived from those that are there. A parent that a record
//! brings along (`"Profile": {"attributes": …}`) becomes a record.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::convert::{self, Strictness};
use super::derive;
use super::id::Id;
use super::moment::{self, DAY, Millis};
use super::record::{Record, Values};
use super::schema::{Field, Mark, Source, Type};
use super::store::Store;

/// Loads every file of a folder; gives the numbers of the objects found.
pub fn folder(store: &mut Store, folder: &Path, start: Millis) -> Result<Vec<usize>, String> {
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("{}: {error}", folder.display()))?
            .path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (Some(name), Some("json" | "jsonl")) = (name, extension) {
            files.insert(name.to_owned(), path.clone());
        }
    }
    let mut loader = Loader {
        start,
        given: HashMap::new(),
        parents: Vec::new(),
    };
    let mut objects = Vec::new();
    let mut read = Vec::new();
    for (name, path) in &files {
        let records = records(path)?;
        let object = loader.describe(store, name, &records);
        objects.push(object);
        read.push((object, records, path));
    }
    for (object, records, path) in &read {
        for (at, record) in records.iter().enumerate() {
            loader
                .identify(store, *object, record)
                .map_err(|error| located(path, at, &error))?;
        }
    }
    for (object, records, path) in &read {
        for (at, record) in records.iter().enumerate() {
            loader
                .insert(store, *object, record)
                .map_err(|error| located(path, at, &error))?;
        }
    }
    for (name, id, record) in std::mem::take(&mut loader.parents) {
        loader.parent(store, &name, id, &record)?;
    }
    Ok(objects)
}

fn located(path: &Path, at: usize, error: &str) -> String {
    format!("{}: record {}: {error}", path.display(), at + 1)
}

fn records(path: &PathBuf) -> Result<Vec<Map<String, Value>>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let object = |at: usize, value: Value| match value {
        Value::Object(record) => Ok(record),
        _ => Err(located(path, at, "is not a JSON object")),
    };
    let parsed = |at: usize, text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| located(path, at, &error.to_string()))
    };
    if path
        .extension()
        .is_some_and(|extension| extension == "jsonl")
    {
        return text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .enumerate()
            .map(|(at, line)| object(at, parsed(at, line)?))
            .collect();
    }
    let list = match parsed(0, &text)? {
        Value::Array(list) => list,
        Value::Object(mut answer) => match answer.remove("records") {
            Some(Value::Array(list)) => list,
            _ => {
                return Err(format!(
                    "{}: neither an array nor an object with `records`",
                    path.display()
                ));
            }
        },
        _ => {
            return Err(format!(
                "{}: neither an array nor an object with `records`",
                path.display()
            ));
        }
    };
    list.into_iter()
        .enumerate()
        .map(|(at, value)| object(at, value))
        .collect()
}

struct Loader {
    start: Millis,
    /// What the data calls its records, and their ids here.
    given: HashMap<(usize, String), Id>,
    /// Parents that records brought along.
    parents: Vec<(String, Id, Map<String, Value>)>,
}

impl Loader {
    /// Finds or makes the object and the fields that its records need.
    fn describe(&mut self, store: &mut Store, name: &str, records: &[Map<String, Value>]) -> usize {
        let prefix = records
            .iter()
            .find_map(|record| Id::parse(record.get("Id")?.as_str()?))
            .map(|id| id.prefix().to_owned());
        let object = match store.schema.number(name) {
            Some(object) => object,
            None => store.extend(name, prefix.as_deref()),
        };
        let mut unknown: Vec<&String> = Vec::new();
        for record in records {
            for name in record.keys() {
                if name != "attributes"
                    && !unknown.contains(&name)
                    && store.schema.objects[object].number(name).is_none()
                {
                    unknown.push(name);
                }
            }
        }
        for name in unknown {
            let values = records
                .iter()
                .filter_map(|record| record.get(name))
                .filter(|value| !value.is_null());
            if let Some(field) = infer(name, values) {
                store.schema.objects[object].add(field);
            }
        }
        object
    }

    /// Notes the id of a record before any reference to it is read.
    fn identify(
        &mut self,
        store: &mut Store,
        object: usize,
        record: &Map<String, Value>,
    ) -> Result<(), String> {
        let Some(name) = record.get("Id") else {
            return Ok(());
        };
        let name = name.as_str().ok_or("`Id` is not a text")?;
        if Id::parse(name).is_none() {
            let prefix = store.schema.objects[object].prefix.clone();
            let id = Id::numbered(&prefix, store.table_mut(object).new_number());
            self.given.insert((object, name.to_owned()), id);
        }
        Ok(())
    }

    fn insert(
        &mut self,
        store: &mut Store,
        object: usize,
        record: &Map<String, Value>,
    ) -> Result<(), String> {
        let id = match record.get("Id").and_then(Value::as_str) {
            Some(name) => match Id::parse(name) {
                Some(id) => id,
                None => self.given[&(object, name.to_owned())],
            },
            None => {
                let prefix = store.schema.objects[object].prefix.clone();
                Id::numbered(&prefix, store.table_mut(object).new_number())
            }
        };
        if store.truth(object, id).is_some() {
            return Err(format!("a second record with the id {id}"));
        }
        let mut values = Values::new();
        for (name, value) in record {
            let described = &store.schema.objects[object];
            if let Value::Object(parent) = value
                && parent.contains_key("attributes")
            {
                self.note_parent(store, object, name, record, parent);
                continue;
            }
            let Some(number) = described.number(name) else {
                continue;
            };
            let field = &described.fields[usize::from(number)];
            if field.source != Source::Stored || value.is_object() || value.is_array() {
                continue;
            }
            let renamed = match (field.kind, value) {
                (Type::Reference, Value::String(name)) => self.renamed(store, field, name),
                _ => None,
            };
            let json = match renamed {
                Some(id) => super::record::quote(&id.to_string()),
                None => {
                    convert::json(field, value, Strictness::Raw).map_err(|error| error.message)?
                }
            };
            values.set_json(number, json);
        }
        let stamp = |name: &str| {
            record
                .get(name)
                .and_then(Value::as_str)
                .and_then(moment::parse)
        };
        let (created, modified, modstamp) = (
            stamp("CreatedDate"),
            stamp("LastModifiedDate"),
            stamp("SystemModstamp"),
        );
        let newest = moment::day(self.start) - DAY;
        let modstamp_or = modstamp.or(modified).or(created).unwrap_or(newest);
        let modified_or = modified.or(modstamp).or(created).unwrap_or(newest);
        let record = Record {
            id,
            created: created.unwrap_or(modified_or.min(modstamp_or)),
            modified: modified_or,
            modstamp: modstamp_or,
            deleted: record
                .get("IsDeleted")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            values: complete(store, object, values).pack(),
        };
        store.put(object, id, Some(record), 0, 0);
        Ok(())
    }

    /// The id of a record that the data calls by another name.
    fn renamed(&self, store: &Store, field: &Field, name: &str) -> Option<Id> {
        if Id::parse(name).is_some() {
            return None;
        }
        let targets = field
            .references
            .iter()
            .filter_map(|target| store.schema.number(target));
        targets
            .chain(if field.references.is_empty() {
                0..store.schema.objects.len()
            } else {
                0..0
            })
            .find_map(|target| self.given.get(&(target, name.to_owned())).copied())
    }

    fn note_parent(
        &mut self,
        store: &Store,
        object: usize,
        name: &str,
        record: &Map<String, Value>,
        parent: &Map<String, Value>,
    ) {
        let attributes = parent.get("attributes");
        let text = |key: &str| {
            attributes
                .and_then(|of| of.get(key))
                .and_then(Value::as_str)
        };
        let described = &store.schema.objects[object];
        let by_field = described
            .relationship(name)
            .and_then(|field| record.get(&described.fields[usize::from(field)].name))
            .and_then(Value::as_str);
        let by_url = text("url").and_then(|url| url.rsplit('/').next());
        if let (Some(kind), Some(id)) = (text("type"), by_field.or(by_url).and_then(Id::parse)) {
            self.parents.push((kind.to_owned(), id, parent.clone()));
        }
    }

    fn parent(
        &mut self,
        store: &mut Store,
        name: &str,
        id: Id,
        fields: &Map<String, Value>,
    ) -> Result<(), String> {
        let object = self.describe(store, name, std::slice::from_ref(fields));
        if store.truth(object, id).is_some() {
            return Ok(());
        }
        let mut record = fields.clone();
        record.insert("Id".to_owned(), Value::from(id.to_string()));
        self.insert(store, object, &record)
    }
}

/// Fills in what the data left out but every record has.
fn complete(store: &mut Store, object: usize, mut values: Values) -> Values {
    let described = &store.schema.objects[object];
    for (at, field) in described.fields.iter().enumerate() {
        if field.has(Mark::AutoNumber) {
            let number = values
                .text(at as u16)
                .map(|text| {
                    text.chars()
                        .filter(char::is_ascii_digit)
                        .collect::<String>()
                })
                .and_then(|digits| digits.parse::<u64>().ok());
            if let Some(number) = number {
                store.table_mut(object).name_taken(number);
            }
            break;
        }
    }
    let described = &store.schema.objects[object];
    if described
        .number("Name")
        .is_some_and(|name| values.json(name).is_none())
    {
        derive::person_name(described, &mut values);
    }
    values
}

/// The field that values of an unknown name belong to; none for parents,
/// children and lists.
fn infer<'a>(name: &str, values: impl Iterator<Item = &'a Value>) -> Option<Field> {
    let mut kind: Option<Type> = None;
    let mut longest = 0;
    for value in values {
        let (found, length) = match value {
            Value::Bool(_) => (Type::Boolean, 0),
            Value::Number(_) => (Type::Double, 0),
            Value::String(text) => (infer_text(name, text), text.chars().count()),
            _ => return None,
        };
        longest = longest.max(length);
        kind = Some(match kind {
            None => found,
            Some(kind) if kind == found => kind,
            Some(_) => Type::String,
        });
    }
    let mut kind = kind.unwrap_or(Type::String);
    let mut length = match kind {
        Type::String => 255,
        _ => 0,
    };
    if kind == Type::String && longest > 255 {
        kind = Type::Textarea;
        length = longest.max(32_768);
    }
    Some(Field::inferred(name, kind, length))
}

fn infer_text(name: &str, text: &str) -> Type {
    let reference = (name.ends_with("Id") || name.ends_with("__c")) && text.len() == 18 && {
        Id::parse(text).is_some_and(|id| id.to_string() == text)
    };
    if reference {
        Type::Reference
    } else if moment::parse_date(text).is_some() {
        Type::Date
    } else if moment::parse(text).is_some() {
        Type::Datetime
    } else {
        Type::String
    }
}
