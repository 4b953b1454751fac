//! `/composite/tree/X`: records with their children, all or none of them.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::convert::Strictness;
use super::errors::{ApiError, JSON};
use super::id::Id;
use super::store::Store;
use super::{Salesforce, moment, rows, write};
use crate::exchange::{Answer, Call};

/// Records of one call.
const MOST: usize = 200;

/// What became of the records: reference and id, or reference and error.
#[derive(Default)]
struct Planted {
    done: Vec<(String, Id)>,
    failed: Vec<(String, ApiError)>,
    count: usize,
}

/// Answers a call.
pub fn answer(org: &Salesforce, call: &Call, name: &str) -> Result<Answer, ApiError> {
    let mut body = rows::body(call)?;
    let Some(Value::Array(records)) = body.remove("records") else {
        return Err(ApiError::bad("INVALID_INPUT", "records is required"));
    };
    let mut store = org.writing()?;
    let object = store.schema.number(name).ok_or_else(ApiError::not_found)?;
    let mut planted = Planted::default();
    store.begin();
    for record in records {
        plant(org, &mut store, object, record, None, &mut planted);
    }
    if planted.count > MOST {
        store.roll_back(moment::now());
        return Err(ApiError::bad(
            "INVALID_INPUT",
            format!("The request can't contain more than {MOST} records"),
        ));
    }
    if planted.failed.is_empty() {
        store.commit();
        let results: Vec<Value> = planted
            .done
            .iter()
            .map(|(reference, id)| json!({"referenceId": reference, "id": id.to_string()}))
            .collect();
        let body = json!({"hasErrors": false, "results": results});
        return Ok(Answer::new(StatusCode::CREATED, JSON, body.to_string()));
    }
    store.roll_back(moment::now());
    let results: Vec<Value> = planted
        .failed
        .iter()
        .map(|(reference, error)| json!({"referenceId": reference, "errors": [error.in_collection()]}))
        .collect();
    let body = json!({"hasErrors": true, "results": results});
    Ok(Answer::new(StatusCode::BAD_REQUEST, JSON, body.to_string()))
}

fn plant(
    org: &Salesforce,
    store: &mut Store,
    object: usize,
    record: Value,
    parent: Option<(String, Id)>,
    planted: &mut Planted,
) {
    planted.count += 1;
    let Value::Object(record) = record else {
        return;
    };
    let reference = record
        .get("attributes")
        .and_then(|attributes| attributes["referenceId"].as_str())
        .unwrap_or_default()
        .to_owned();
    let mut children = Vec::new();
    let mut fields = Map::new();
    for (name, value) in record {
        match value.get("records").and_then(Value::as_array) {
            Some(list) => children.push((name, list.clone())),
            None => {
                fields.insert(name, value);
            }
        }
    }
    if let Some((field, id)) = parent {
        fields.insert(field, Value::from(id.to_string()));
    }
    let made = write::create(store, object, &fields, Strictness::Checked, org.at_once());
    let id = match made {
        Ok(id) => id,
        Err(error) => {
            planted.failed.push((reference, error));
            return;
        }
    };
    planted.done.push((reference.clone(), id));
    let parent = store.schema.objects[object].name.clone();
    for (name, list) in children {
        let found = store
            .schema
            .references_to(&parent)
            .into_iter()
            .find_map(|(child, at)| {
                let field = &store.schema.objects[child].fields[usize::from(at)];
                let named = field.children.as_ref()?.eq_ignore_ascii_case(&name);
                named.then(|| (child, field.name.clone()))
            });
        let Some((child, field)) = found else {
            let message = format!("No such column '{name}' on sobject of type {parent}");
            let error = ApiError::bad("INVALID_FIELD", message);
            planted.failed.push((reference.clone(), error));
            continue;
        };
        for record in list {
            let parent = Some((field.clone(), id));
            plant(org, store, child, record, parent, planted);
        }
    }
}
