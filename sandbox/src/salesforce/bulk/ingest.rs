//! Ingest jobs: rows of a file are created, changed or deleted, each by
//! itself; two more files tell what became of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::csv::{self, Dialect};
use super::job::{Done, Job, Kind, State};
use crate::exchange::{Answer, Call};
use crate::salesforce::convert::Strictness;
use crate::salesforce::errors::ApiError;
use crate::salesforce::id::Id;
use crate::salesforce::schema::{Schema, Source, Type};
use crate::salesforce::store::Store;
use crate::salesforce::{Salesforce, rest, rows, value, write};

/// Rows that are written before others may use the store.
const PIECE: usize = 200;

/// What became of the rows of a file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The file's columns.
    header: Vec<String>,
    /// Id, whether it is new, the row.
    done: Vec<(Id, bool, Vec<String>)>,
    /// Id if the row had one, the error, the row.
    failed: Vec<(String, String, Vec<String>)>,
    /// Of each row of the file, whether it went well.
    well: Vec<bool>,
}

impl Outcome {
    /// Rows that were looked at, and those of them that failed.
    pub fn counts(&self) -> (usize, usize) {
        (self.done.len() + self.failed.len(), self.failed.len())
    }

    /// What became of each row, in the order of the file: id and whether it
    /// is new, or the id it named and the error.
    pub fn in_order(&self) -> impl Iterator<Item = Result<(Id, bool), (&str, &str)>> {
        let (mut done, mut failed) = (self.done.iter(), self.failed.iter());
        self.well.iter().filter_map(move |well| {
            if *well {
                done.next().map(|row| Ok((row.0, row.1)))
            } else {
                failed
                    .next()
                    .map(|row| Err((row.0.as_str(), row.1.as_str())))
            }
        })
    }
}

/// A column of the file.
#[derive(Debug)]
enum Column {
    /// The record's own id.
    Id,
    /// A field.
    Field(String),
    /// The record that a reference points to, by a key of its own.
    Key {
        /// The reference field.
        field: String,
        /// The object it points to.
        object: usize,
        /// The key.
        key: u16,
    },
}

/// `POST /jobs/ingest`: a job, with its data if the request has two parts.
pub fn create(org: &Salesforce, call: &Call, base: &str) -> Result<Answer, ApiError> {
    let kind = call.header("content-type").unwrap_or_default();
    let (request, data) = match kind.split_once("boundary=") {
        Some((_, boundary)) => {
            let (job, content) = parts(&call.body, boundary.trim_matches('"'))
                .ok_or_else(|| ApiError::bad("INVALIDJOB", "Unable to parse Job"))?;
            let part = Call {
                body: job.into(),
                ..call.clone()
            };
            (rows::body(&part)?, Some(content))
        }
        None => (rows::body(call)?, None),
    };
    let mut job = read(org, &request, base)?;
    if let Some(data) = data {
        job.data = Some(Arc::new(data));
        job.state = State::UploadComplete;
    }
    Ok(rest::ok(&org.jobs.keep(job)))
}

/// The two parts of a request: the job and its data.
fn parts(body: &[u8], boundary: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(body).ok()?;
    let mark = format!("--{boundary}");
    let mut parts = text.split(mark.as_str()).skip(1).filter_map(|part| {
        let part = part.strip_prefix("\r\n").or(part.strip_prefix('\n'))?;
        let (_, content) = part
            .split_once("\r\n\r\n")
            .or_else(|| part.split_once("\n\n"))?;
        let content = content
            .strip_suffix("\r\n")
            .or(content.strip_suffix('\n'))
            .unwrap_or(content);
        Some(content.as_bytes().to_vec())
    });
    Some((parts.next()?, parts.next()?))
}

fn read(org: &Salesforce, request: &Map<String, Value>, base: &str) -> Result<Job, ApiError> {
    let invalid = |message: String| ApiError::bad("INVALIDJOB", message);
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let operation = text("operation").unwrap_or_default();
    if !["insert", "update", "upsert", "delete", "hardDelete"].contains(&operation) {
        return Err(invalid(format!(
            "Unable to parse Job: invalid operation: {operation}"
        )));
    }
    let dialect = Dialect::of(request)?;
    let name = text("object").unwrap_or_default();
    let store = org.reading();
    let object = store
        .schema
        .number(name)
        .ok_or_else(|| invalid(format!("InvalidJob : Unable to find object: {name}")))?;
    let described = &store.schema.objects[object];
    let version = base.rsplit_once('v').map_or("", |(_, version)| version);
    let mut job = Job::new(Kind::Ingest, operation, &described.name, version, dialect);
    if operation == "upsert" {
        let wanted = text("externalIdFieldName").unwrap_or_default();
        if wanted.is_empty() {
            return Err(invalid(format!(
                "InvalidJob : External ID was blank for {name}. An External ID must be specified for upsert."
            )));
        }
        let field = described
            .field(wanted)
            .filter(|field| field.is_key())
            .ok_or_else(|| {
                invalid(format!(
                    "InvalidJob : Field name provided, {wanted} does not match an External ID, Salesforce Id, or indexed \
                     field for {name}"
                ))
            })?;
        job.external_id = Some(field.name.clone());
    }
    Ok(job)
}

/// `PUT /jobs/ingest/{id}/batches`: the data, once.
pub fn upload(org: &Salesforce, call: &Call, id: Id) -> Result<Answer, ApiError> {
    let kind = call.header("content-type").unwrap_or_default();
    if !kind.starts_with("text/csv") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            format!("Unsupported content type: {kind}"),
        ));
    }
    super::with(org, id, |job| {
        if job.state != State::Open || job.data.is_some() {
            return Err(ApiError::bad(
                "INVALIDJOBSTATE",
                "Found multiple contents for job: please 'Close' / 'Abort' / 'Delete' the current Job then create a \
                 new Job and make sure you only do 'PUT' once on a given Job.",
            ));
        }
        job.data = Some(Arc::new(call.body.to_vec()));
        Ok(Answer::empty(StatusCode::CREATED))
    })
}

/// The files that tell what became of the rows.
pub fn results(org: &Salesforce, id: Id, what: &str) -> Result<Answer, ApiError> {
    let (job, dialect) = super::with(org, id, |job| Ok((job.clone(), job.dialect)))?;
    let mut out = Vec::new();
    let own = |row: &Vec<String>| row.clone();
    let mut line = |first: [&str; 2], row: &[String]| {
        let row = row.iter().map(String::as_str);
        dialect.line(first.into_iter().chain(row), &mut out);
    };
    match (&job.outcome, what) {
        (Some(outcome), "successfulResults") => {
            line(["sf__Id", "sf__Created"], &outcome.header);
            for (id, created, row) in &outcome.done {
                let created = if *created { "true" } else { "false" };
                line([&id.to_string(), created], row);
            }
        }
        (Some(outcome), "failedResults") => {
            line(["sf__Id", "sf__Error"], &outcome.header);
            for (id, error, row) in &outcome.failed {
                line([id, error], row);
            }
        }
        (None, "successfulResults") => line(["sf__Id", "sf__Created"], &[]),
        (None, "failedResults") => line(["sf__Id", "sf__Error"], &[]),
        // A job that is done has none; one that failed looked at none.
        (Some(outcome), _) => dialect.line(outcome.header.iter().map(String::as_str), &mut out),
        (None, _) if job.state.is_terminal() => {
            let data = job.data.as_ref().map(|data| data.as_slice());
            if let Ok((header, rows)) = csv::read(data.unwrap_or_default(), dialect) {
                for row in std::iter::once(&header).chain(&rows).map(own) {
                    dialect.line(row.iter().map(String::as_str), &mut out);
                }
            }
        }
        (None, _) => {}
    }
    Ok(Answer::new(StatusCode::OK, "text/csv", out))
}

/// Runs an ingest job.
pub fn run(org: &Salesforce, job: &Job) -> Done {
    let data = job.data.as_ref().map(|data| data.as_slice());
    let (header, rows) = match csv::read(data.unwrap_or_default(), job.dialect) {
        Ok(read) => read,
        Err(error) => return Done::Failed(error),
    };
    write_rows(org, job, header, rows).map_or_else(Done::Failed, Done::Written)
}

/// Writes rows as a job says.
pub fn write_rows(
    org: &Salesforce,
    job: &Job,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
) -> Result<Outcome, String> {
    let (object, columns, mut keys) = {
        let store = org.reading();
        let object = store.schema.number(&job.object).unwrap_or_default();
        let columns: Vec<Column> = header
            .iter()
            .map(|name| column(&store.schema, object, name))
            .collect::<Result<_, _>>()?;
        let keys = match &job.external_id {
            Some(field) if field != "Id" => Some(Keys::of(&store, object, field)),
            _ => None,
        };
        (object, columns, keys)
    };
    let mut outcome = Outcome {
        header,
        ..Outcome::default()
    };
    let mut rows = rows.into_iter();
    loop {
        let piece: Vec<Vec<String>> = rows.by_ref().take(PIECE).collect();
        if piece.is_empty() {
            return Ok(outcome);
        }
        let mut seen = HashSet::new();
        for row in piece {
            let written = org.writing().and_then(|mut store| {
                let (id, fields) = fields(&store, &columns, &row, job.operation == "insert")?;
                one(
                    org, &mut store, job, object, id, fields, &mut keys, &mut seen,
                )
            });
            outcome.well.push(written.is_ok());
            match written {
                Ok((id, created)) => outcome.done.push((id, created, row)),
                Err(error) => {
                    let id = columns
                        .iter()
                        .position(|column| matches!(column, Column::Id))
                        .and_then(|at| row.get(at).cloned());
                    outcome
                        .failed
                        .push((id.unwrap_or_default(), printed(&error), row));
                }
            }
        }
    }
}

/// `CODE:message:fields --`
fn printed(error: &ApiError) -> String {
    let fields = error.fields.clone().unwrap_or_default().join(", ");
    let space = if fields.is_empty() { "" } else { " " };
    format!("{}:{}:{fields}{space}--", error.code, error.message)
}

fn column(schema: &Schema, object: usize, name: &str) -> Result<Column, String> {
    let unknown = || format!("InvalidBatch : Field name not found : {name}");
    let described = &schema.objects[object];
    let Some((relationship, key)) = name.split_once('.') else {
        let field = described.field(name).ok_or_else(unknown)?;
        return Ok(match field.source {
            Source::Id => Column::Id,
            _ => Column::Field(field.name.clone()),
        });
    };
    // A reference to several objects says which: `Owner:User.Email`.
    let (relationship, target) = match relationship.split_once(':') {
        Some((relationship, target)) => (relationship, Some(target)),
        None => (relationship, None),
    };
    let field = described.relationship(relationship).ok_or_else(unknown)?;
    let field = &described.fields[usize::from(field)];
    let target = target.or(field.references.first().map(String::as_str));
    let object = target
        .and_then(|target| schema.number(target))
        .ok_or_else(unknown)?;
    let key = schema.objects[object].number(key).ok_or_else(unknown)?;
    Ok(Column::Key {
        field: field.name.clone(),
        object,
        key,
    })
}

/// The id and the fields that a row says.
fn fields(
    store: &Store,
    columns: &[Column],
    row: &[String],
    insert: bool,
) -> Result<(Option<String>, Map<String, Value>), ApiError> {
    let mut id = None;
    let mut fields = Map::new();
    for (column, cell) in columns.iter().zip(row) {
        let value = match cell.as_str() {
            "" => continue,
            "#N/A" if insert => continue,
            "#N/A" => Value::Null,
            text => Value::from(text),
        };
        match column {
            Column::Id => id = Some(cell.clone()),
            Column::Field(name) => {
                fields.insert(name.clone(), value);
            }
            Column::Key { field, object, key } => {
                let described = &store.schema.objects[*object];
                let found = rows::having(store, *object, *key, cell);
                let value = match found.as_slice() {
                    _ if value.is_null() => Value::Null,
                    [id] => Value::from(id.to_string()),
                    found => {
                        let key = &described.fields[usize::from(*key)].name;
                        let message = if found.is_empty() {
                            format!(
                                "Foreign key external ID: {cell} not found for field {key} in entity {}",
                                described.name
                            )
                        } else {
                            format!("More than one record found for external id field: {cell}")
                        };
                        return Err(ApiError::bad("INVALID_FIELD", message).on(&[]));
                    }
                };
                fields.insert(field.clone(), value);
            }
        }
    }
    Ok((id, fields))
}

#[expect(clippy::too_many_arguments)]
fn one(
    org: &Salesforce,
    store: &mut Store,
    job: &Job,
    object: usize,
    id: Option<String>,
    mut fields: Map<String, Value>,
    keys: &mut Option<Keys>,
    seen: &mut HashSet<String>,
) -> Result<(Id, bool), ApiError> {
    let how = Strictness::Checked;
    typed(store, object, &mut fields)?;
    let existing = |store: &Store, id: &Option<String>| {
        let text = id
            .as_deref()
            .ok_or_else(|| ApiError::bad("MISSING_ARGUMENT", "Id not specified").on(&[]))?;
        let id = Id::parse(text).ok_or_else(|| {
            ApiError::bad(
                "MALFORMED_ID",
                format!("Id: id value of incorrect type: {text}"),
            )
            .on(&["Id"])
        })?;
        if store.truth(object, id).is_none() {
            return Err(
                ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id").on(&[]),
            );
        }
        Ok(id)
    };
    match (job.operation.as_str(), keys) {
        ("insert", _) => {
            let id = write::create(store, object, &fields, how, org.at_once())?;
            Ok((id, true))
        }
        ("update", _) => {
            let id = existing(store, &id)?;
            write::update(store, object, id, &fields, how, org.at_once())?;
            Ok((id, false))
        }
        ("upsert", Some(keys)) => {
            let value = match fields.remove(&keys.name) {
                Some(Value::String(value)) => value,
                _ => {
                    let message = format!("{} not specified", keys.name);
                    return Err(ApiError::bad("MISSING_ARGUMENT", message).on(&[&keys.name]));
                }
            };
            if !seen.insert(keys.folded(&value)) {
                let message = format!("Duplicate external id specified: {value}");
                return Err(ApiError::bad("DUPLICATE_VALUE", message).on(&[&keys.name]));
            }
            match keys.found(&value) {
                [] => {
                    fields.insert(keys.name.clone(), Value::from(value.clone()));
                    let id = write::create(store, object, &fields, how, org.at_once())?;
                    keys.add(&value, id);
                    Ok((id, true))
                }
                [id] => {
                    write::update(store, object, *id, &fields, how, org.at_once())?;
                    Ok((*id, false))
                }
                several => {
                    let message = format!(
                        "{}: more than one record found for external id field: {several:?}",
                        keys.name
                    );
                    Err(ApiError::bad("DUPLICATE_EXTERNAL_ID", message).on(&[]))
                }
            }
        }
        ("upsert", None) if id.is_none() => {
            let id = write::create(store, object, &fields, how, org.at_once())?;
            Ok((id, true))
        }
        ("upsert", None) => {
            let id = existing(store, &id)?;
            write::update(store, object, id, &fields, how, org.at_once())?;
            Ok((id, false))
        }
        ("hardDelete", _) => {
            let id = existing(store, &id)?;
            write::hard_delete(store, object, id, org.at_once())?;
            Ok((id, false))
        }
        _ => {
            let id = existing(store, &id)?;
            write::delete(store, object, id, how, org.at_once())?;
            Ok((id, false))
        }
    }
}

/// Gives texts of the file the form that JSON has; wrong ones are refused as
/// the real service refuses those of files.
fn typed(store: &Store, object: usize, fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let described = &store.schema.objects[object];
    for (name, value) in fields {
        let (Some(field), Value::String(text)) = (described.field(name), &*value) else {
            continue;
        };
        let good = match field.kind {
            Type::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => {
                    *value = Value::Bool(true);
                    continue;
                }
                "false" | "0" | "no" => {
                    *value = Value::Bool(false);
                    continue;
                }
                _ => false,
            },
            Type::Int => match text.parse::<f64>() {
                Ok(number) if number.fract() == 0.0 => {
                    *value = Value::from(number as i64);
                    continue;
                }
                _ => false,
            },
            kind if kind.is_double() => text.parse::<f64>().is_ok(),
            _ => true,
        };
        if !good {
            let message = format!("{}: value not of required type: {text}", field.label);
            return Err(
                ApiError::bad("INVALID_TYPE_ON_FIELD_IN_RECORD", message).on(&[&field.name])
            );
        }
    }
    Ok(())
}

/// The records of an object by a key: large files must not search for each row.
struct Keys {
    name: String,
    ids: HashMap<String, Vec<Id>>,
}

impl Keys {
    fn of(store: &Store, object: usize, name: &str) -> Keys {
        let mut keys = Keys {
            name: name.to_owned(),
            ids: HashMap::new(),
        };
        let described = &store.schema.objects[object];
        if let Some(number) = described.number(name) {
            let field = &described.fields[usize::from(number)];
            for record in store.truths(object).filter(|record| !record.deleted) {
                match value::of(record, field, number) {
                    value::Value::Text(text) => keys.add(&text, record.id),
                    value::Value::Number(number) => keys.add(&number.to_string(), record.id),
                    _ => {}
                }
            }
        }
        keys
    }

    fn folded(&self, value: &str) -> String {
        value.to_lowercase()
    }

    fn add(&mut self, value: &str, id: Id) {
        self.ids.entry(self.folded(value)).or_default().push(id);
    }

    fn found(&self, value: &str) -> &[Id] {
        self.ids.get(&self.folded(value)).map_or(&[], Vec::as_slice)
    }
}
