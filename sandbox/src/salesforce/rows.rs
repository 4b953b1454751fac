//! Single records: `/sobjects/X`, `/sobjects/X/{id}`, `/sobjects/X/{field}/{value}`.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::convert::Strictness;
use super::errors::{ApiError, JSON};
use super::id::Id;
use super::plan::{Column, Output, Plan};
use super::print::Printer;
use super::record::quote;
use super::schema::{Source, Type};
use super::store::Store;
use super::{Salesforce, describe, rest, value, write};
use crate::exchange::{Answer, Call};

/// Reads a request's record.
pub fn body(call: &Call) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(&call.body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(ApiError::bad(
            "JSON_PARSER_ERROR",
            format!(
                "Unexpected character at [line:1, column:1]: found {other}, expected an object"
            ),
        )),
        Err(error) => Err(ApiError::bad(
            "JSON_PARSER_ERROR",
            format!(
                "Unexpected character at [line:{}, column:{}]",
                error.line(),
                error.column()
            ),
        )),
    }
}

fn object_number(store: &Store, name: &str) -> Result<usize, ApiError> {
    store.schema.shown(name).ok_or_else(ApiError::not_found)
}

/// `/sobjects/X`: what it is, or a new record.
pub fn collection(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    name: &str,
) -> Result<Answer, ApiError> {
    match *method {
        Method::GET | Method::HEAD => {
            let store = org.reading();
            let object = object_number(&store, name)?;
            let body = json!({"objectDescribe": describe::entry(&store.schema.objects[object], base), "recentItems": []});
            Ok(rest::ok(&body))
        }
        Method::POST => {
            let fields = body(call)?;
            let mut store = org.writing()?;
            let object = object_number(&store, name)?;
            let id = write::create(
                &mut store,
                object,
                &fields,
                Strictness::Checked,
                org.at_once(),
            )?;
            Ok(made(base, &store.schema.objects[object].name, id, None))
        }
        _ => Err(ApiError::method(method.as_str(), "HEAD,GET,POST")),
    }
}

/// `/sobjects/X/{id}`
pub fn by_id(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    name: &str,
    id: &str,
) -> Result<Answer, ApiError> {
    let parsed = Id::parse(id);
    match *method {
        Method::GET | Method::HEAD => {
            let store = org.reading();
            let object = object_number(&store, name)?;
            let id = parsed.ok_or_else(ApiError::not_found)?;
            read(&store, call, base, object, id)
        }
        Method::PATCH => {
            let fields = body(call)?;
            let mut store = org.writing()?;
            let object = object_number(&store, name)?;
            let id = parsed.ok_or_else(|| malformed(id))?;
            exists(&store, object, id)?;
            write::update(
                &mut store,
                object,
                id,
                &fields,
                Strictness::Checked,
                org.at_once(),
            )?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            let mut store = org.writing()?;
            let object = object_number(&store, name)?;
            let id = parsed.ok_or_else(|| malformed(id))?;
            exists(&store, object, id)?;
            write::delete(&mut store, object, id, Strictness::Checked, org.at_once())?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::method(method.as_str(), "HEAD,GET,PATCH,DELETE")),
    }
}

fn malformed(id: &str) -> ApiError {
    ApiError::bad("MALFORMED_ID", format!("malformed id {id}")).on(&[])
}

/// A record that never was is not found; one that went is deleted.
fn exists(store: &Store, object: usize, id: Id) -> Result<(), ApiError> {
    if store.truth(object, id).is_some() || store.table(object).ids().contains(&id) {
        Ok(())
    } else {
        Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The requested resource does not exist",
        ))
    }
}

/// `/sobjects/X/{field}/{value}`: reads, updates or creates by another key.
pub fn by_field(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    name: &str,
    field: &str,
    value: &str,
) -> Result<Answer, ApiError> {
    match *method {
        Method::GET | Method::HEAD => {
            let store = org.reading();
            let object = object_number(&store, name)?;
            match found(&store, object, field, value)?.as_slice() {
                [] => Err(ApiError::not_found()),
                [id] => read(&store, call, base, object, *id),
                several => Ok(choices(&store, base, object, several)),
            }
        }
        Method::PATCH => {
            let fields = body(call)?;
            let update_only = call
                .parameter("updateOnly")
                .is_some_and(|flag| flag == "true");
            let mut store = org.writing()?;
            let object = object_number(&store, name)?;
            let several = found(&store, object, field, value)?;
            if several.len() > 1 {
                return Ok(choices(&store, base, object, &several));
            }
            let (id, created) = upsert(org, &mut store, object, field, value, fields, update_only)?;
            Ok(made(
                base,
                &store.schema.objects[object].name,
                id,
                Some(created),
            ))
        }
        Method::DELETE => {
            let mut store = org.writing()?;
            let object = object_number(&store, name)?;
            match found(&store, object, field, value)?.as_slice() {
                [] => Err(ApiError::not_found()),
                [id] => {
                    write::delete(&mut store, object, *id, Strictness::Checked, org.at_once())?;
                    Ok(Answer::empty(StatusCode::NO_CONTENT))
                }
                several => Ok(choices(&store, base, object, several)),
            }
        }
        _ => Err(ApiError::method(method.as_str(), "HEAD,GET,PATCH,DELETE")),
    }
}

/// Updates the record with this key or creates it; true if created.
pub fn upsert(
    org: &Salesforce,
    store: &mut Store,
    object: usize,
    field: &str,
    value: &str,
    mut fields: Map<String, Value>,
    update_only: bool,
) -> Result<(Id, bool), ApiError> {
    let key = key_field(store, object, field)?;
    let name = store.schema.objects[object].fields[usize::from(key)]
        .name
        .clone();
    match found(store, object, field, value)?.as_slice() {
        [id] => {
            write::update(
                store,
                object,
                *id,
                &fields,
                Strictness::Checked,
                org.at_once(),
            )?;
            Ok((*id, false))
        }
        [] if update_only || name == "Id" => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The requested resource does not exist",
        )),
        [] => {
            fields.insert(name, Value::from(value));
            let id = write::create(store, object, &fields, Strictness::Checked, org.at_once())?;
            Ok((id, true))
        }
        several => Err(ApiError::bad(
            "DUPLICATE_EXTERNAL_ID",
            format!("{name}: more than one record found for external id field: {several:?}"),
        )
        .on(&[])),
    }
}

/// The field by which records are found.
fn key_field(store: &Store, object: usize, name: &str) -> Result<u16, ApiError> {
    let described = &store.schema.objects[object];
    described
        .number(name)
        .filter(|number| described.fields[usize::from(*number)].is_key())
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                format!("Provided external ID field does not exist or is not accessible: {name}"),
            )
        })
}

/// The records, not in the bin, whose key has this value.
fn found(store: &Store, object: usize, name: &str, wanted: &str) -> Result<Vec<Id>, ApiError> {
    let number = key_field(store, object, name)?;
    let field = &store.schema.objects[object].fields[usize::from(number)];
    if field.source == Source::Id {
        let id = Id::parse(wanted).ok_or_else(|| malformed(wanted))?;
        return Ok(store
            .truth(object, id)
            .filter(|record| !record.deleted)
            .map(|record| record.id)
            .into_iter()
            .collect());
    }
    Ok(having(store, object, number, wanted))
}

/// The records, not in the bin, whose field has this value.
pub fn having(store: &Store, object: usize, number: u16, wanted: &str) -> Vec<Id> {
    let field = &store.schema.objects[object].fields[usize::from(number)];
    let wanted = match field.kind {
        Type::Id | Type::Reference => {
            Id::parse(wanted).map_or(value::Value::Null, value::Value::Id)
        }
        kind if kind.is_double() || kind == Type::Int => wanted
            .parse()
            .map_or(value::Value::Null, value::Value::Number),
        _ => value::Value::Text(wanted.into()),
    };
    store
        .truths(object)
        .filter(|record| !record.deleted && value::of(record, field, number).same(&wanted))
        .map(|record| record.id)
        .collect()
}

/// Several records have the key: their URLs, and the client chooses.
fn choices(store: &Store, base: &str, object: usize, ids: &[Id]) -> Answer {
    let name = &store.schema.objects[object].name;
    let urls: Vec<String> = ids
        .iter()
        .map(|id| format!("{base}/sobjects/{name}/{id}"))
        .collect();
    Answer::new(StatusCode::MULTIPLE_CHOICES, JSON, json!(urls).to_string())
}

/// The answer to a write that gave or found an id.
fn made(base: &str, object: &str, id: Id, created: Option<bool>) -> Answer {
    let mut body = json!({"id": id.to_string(), "success": true, "errors": []});
    if let Some(created) = created {
        body["created"] = Value::from(created);
    }
    let status = if created == Some(false) {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Answer::new(status, JSON, body.to_string())
        .with("location", &format!("{base}/sobjects/{object}/{id}"))
}

/// Reads one record as queries see it.
fn read(store: &Store, call: &Call, base: &str, object: usize, id: Id) -> Result<Answer, ApiError> {
    let described = &store.schema.objects[object];
    let columns = match call.parameter("fields") {
        None => all_columns(store, object),
        Some(names) => named_columns(store, object, names.split(',').map(str::trim))?,
    };
    let record = store
        .table(object)
        .row(id)
        .ok_or_else(ApiError::not_found)?;
    if record.deleted {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ENTITY_IS_DELETED",
            "entity is deleted",
        )
        .on(&[]));
    }
    let mut out = Vec::new();
    Printer::new(store, base, false).records(&whole(object, columns), &[id], &mut out, |_| false);
    debug_assert!(
        out.starts_with(
            format!("{{\"attributes\":{{\"type\":{}", quote(&described.name)).as_bytes()
        )
    );
    Ok(Answer::new(StatusCode::OK, JSON, out))
}

/// Every field of an object.
pub fn all_columns(store: &Store, object: usize) -> Vec<Column> {
    (0..store.schema.objects[object].fields.len())
        .map(|number| Column::own(&store.schema, object, number as u16))
        .collect()
}

/// These fields of an object.
pub fn named_columns<'a>(
    store: &Store,
    object: usize,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Column>, ApiError> {
    let described = &store.schema.objects[object];
    names
        .map(|name| {
            let number = described.number(name).ok_or_else(|| {
                ApiError::bad(
                    "INVALID_FIELD",
                    format!(
                        "No such column '{name}' on sobject of type {}",
                        described.name
                    ),
                )
            })?;
            Ok(Column::own(&store.schema, object, number))
        })
        .collect()
}

/// A plan that prints records whose ids are known.
pub fn whole(object: usize, columns: Vec<Column>) -> Plan {
    Plan {
        object,
        output: Output::Rows(columns),
        test: None,
        order: Vec::new(),
        limit: None,
        offset: 0,
    }
}
