//! `/composite/sobjects`: many records in one call, each with its own result.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::convert::Strictness;
use super::errors::{ApiError, JSON};
use super::id::Id;
use super::print::Printer;
use super::store::Store;
use super::{Salesforce, rest, rows, write};
use crate::exchange::{Answer, Call};

/// Records that one writing call takes.
const MOST: usize = 200;
/// Records that one reading call takes.
const MOST_READ: usize = 2_000;

/// The result of one record: its id and, for upserts, whether it is new.
type Outcome = Result<(Id, Option<bool>), ApiError>;

/// Answers a call below `/composite/sobjects`.
pub fn answer(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    rest: &[&str],
) -> Result<Answer, ApiError> {
    match (method, rest) {
        (&Method::POST, []) => many(org, call, false, |store, record| {
            let object = kind(store, &record)?;
            let id = write::create(
                store,
                object,
                &without(record, &["id"]),
                Strictness::Checked,
                org.at_once(),
            )?;
            Ok((id, None))
        }),
        (&Method::PATCH, []) => many(org, call, false, |store, record| {
            let object = kind(store, &record)?;
            let id = record
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("id"))
                .and_then(|(_, id)| id.as_str())
                .ok_or_else(|| {
                    ApiError::bad("MISSING_ARGUMENT", "Id not specified in an update call")
                })?;
            let id = Id::parse(id)
                .ok_or_else(|| ApiError::bad("MALFORMED_ID", format!("malformed id {id}")))?;
            if store.truth(object, id).is_none() {
                return Err(ApiError::bad(
                    "INVALID_CROSS_REFERENCE_KEY",
                    "invalid cross reference id",
                ));
            }
            write::update(
                store,
                object,
                id,
                &without(record, &["id"]),
                Strictness::Checked,
                org.at_once(),
            )?;
            Ok((id, None))
        }),
        (&Method::PATCH, [name, field]) => many(org, call, true, |store, record| {
            let object = store.schema.number(name).ok_or_else(ApiError::not_found)?;
            let key = record
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(field))
                .and_then(|(_, value)| value.as_str().map(str::to_owned));
            let record = without(record, &[field]);
            let (id, created) = match key {
                Some(key) => rows::upsert(org, store, object, field, &key, record, false)?,
                None if field.eq_ignore_ascii_case("id") => (
                    write::create(store, object, &record, Strictness::Checked, org.at_once())?,
                    true,
                ),
                None => {
                    return Err(ApiError::bad(
                        "MISSING_ARGUMENT",
                        format!("{field} not specified"),
                    ));
                }
            };
            Ok((id, Some(created)))
        }),
        (&Method::DELETE, []) => delete(org, call),
        (&Method::GET | &Method::POST, [name]) => retrieve(org, call, base, method, name),
        _ => Err(ApiError::method(method.as_str(), "GET,POST,PATCH,DELETE")),
    }
}

fn kind(store: &Store, record: &Map<String, Value>) -> Result<usize, ApiError> {
    let name = record
        .get("attributes")
        .and_then(|attributes| attributes.get("type"))
        .and_then(Value::as_str)
        .ok_or_else(|| {
            ApiError::bad(
                "INVALID_TYPE",
                "sObject type is missing: attributes.type is required",
            )
        })?;
    store.schema.number(name).ok_or_else(|| {
        ApiError::bad(
            "INVALID_TYPE",
            format!("sObject type '{name}' is not supported."),
        )
    })
}

fn without(mut record: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    record.retain(|name, _| !names.iter().any(|other| other.eq_ignore_ascii_case(name)));
    record
}

fn many(
    org: &Salesforce,
    call: &Call,
    upsert: bool,
    write: impl Fn(&mut Store, Map<String, Value>) -> Outcome,
) -> Result<Answer, ApiError> {
    let mut body = rows::body(call)?;
    let all_or_none = body
        .get("allOrNone")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let Some(Value::Array(records)) = body.remove("records") else {
        return Err(ApiError::bad(
            "REQUIRED_FIELD_MISSING",
            "At least 1 record is required",
        ));
    };
    if records.is_empty() {
        return Err(ApiError::bad(
            "REQUIRED_FIELD_MISSING",
            "At least 1 record is required",
        ));
    }
    limited(records.len(), MOST)?;
    let mut store = org.writing()?;
    if all_or_none {
        store.begin();
    }
    let mut outcomes: Vec<Outcome> = records
        .into_iter()
        .map(|record| checked(&mut store, record, &write))
        .collect();
    let failed = outcomes.iter().any(Result::is_err);
    if all_or_none && failed {
        store.roll_back(super::moment::now());
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = Err(ApiError::bad(
                "ALL_OR_NONE_OPERATION_ROLLED_BACK",
                "Record rolled back because not all records were valid and the request was using AllOrNone header",
            ));
        }
    } else if all_or_none {
        store.commit();
    }
    let results: Value = outcomes
        .iter()
        .map(|outcome| {
            let mut shown = result(outcome);
            if upsert && outcome.is_err() {
                shown["created"] = Value::from(false);
            }
            shown
        })
        .collect();
    Ok(rest::ok(&results))
}

fn checked(
    store: &mut Store,
    record: Value,
    write: impl Fn(&mut Store, Map<String, Value>) -> Outcome,
) -> Outcome {
    match record {
        Value::Object(record) => write(store, record),
        _ => Err(ApiError::bad(
            "JSON_PARSER_ERROR",
            "each record must be an object",
        )),
    }
}

fn limited(count: usize, most: usize) -> Result<(), ApiError> {
    if count > most {
        return Err(ApiError::bad(
            "EXCEEDED_MAX_SIZE_REQUEST",
            format!("record limit reached. cannot submit more than {most} records into this call"),
        ));
    }
    Ok(())
}

fn result(outcome: &Outcome) -> Value {
    match outcome {
        Ok((id, None)) => json!({"id": id.to_string(), "success": true, "errors": []}),
        Ok((id, Some(created))) => {
            json!({"id": id.to_string(), "success": true, "errors": [], "created": created})
        }
        Err(error) => json!({"success": false, "errors": [error.in_collection()]}),
    }
}

fn delete(org: &Salesforce, call: &Call) -> Result<Answer, ApiError> {
    let ids = call.parameter("ids").unwrap_or_default();
    let ids: Vec<&str> = ids
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        return Err(ApiError::bad(
            "REQUIRED_FIELD_MISSING",
            "The ids parameter is required",
        ));
    }
    limited(ids.len(), MOST)?;
    let mut store = org.writing()?;
    let results: Value = ids
        .into_iter()
        .map(|text| {
            let outcome = (|| {
                let malformed = || ApiError::bad("MALFORMED_ID", format!("malformed id {text}"));
                let id = Id::parse(text).ok_or_else(malformed)?;
                let object = store.schema.by_prefix(id.prefix()).ok_or_else(malformed)?;
                write::delete(&mut store, object, id, Strictness::Checked, org.at_once())?;
                Ok((id, None))
            })();
            result(&outcome)
        })
        .collect();
    Ok(rest::ok(&results))
}

/// Reads records by id; for those that are not there, null.
fn retrieve(
    org: &Salesforce,
    call: &Call,
    base: &str,
    method: &Method,
    name: &str,
) -> Result<Answer, ApiError> {
    let list = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default()
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    };
    let (ids, fields) = if *method == Method::GET {
        (list(call.parameter("ids")), list(call.parameter("fields")))
    } else {
        let body = rows::body(call)?;
        let strings = |key: &str| -> Vec<String> {
            let items = body.get(key).and_then(Value::as_array);
            items
                .into_iter()
                .flatten()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect()
        };
        (strings("ids"), strings("fields"))
    };
    limited(ids.len(), MOST_READ)?;
    let store = org.reading();
    let object = store.schema.number(name).ok_or_else(ApiError::not_found)?;
    let plan = rows::whole(
        object,
        rows::named_columns(&store, object, fields.iter().map(String::as_str))?,
    );
    let printer = Printer::new(&store, base, false);
    let mut out = vec![b'['];
    for (at, text) in ids.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let before = out.len();
        if let Some(id) = Id::parse(text) {
            printer.records(&plan, &[id], &mut out, |_| false);
        }
        if out.len() == before {
            out.extend_from_slice(b"null");
        }
    }
    out.push(b']');
    Ok(Answer::new(axum::http::StatusCode::OK, JSON, out))
}
