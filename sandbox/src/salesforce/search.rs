//! `/search`, `/parameterizedSearch` and `/recent`: names that have the words
//! in them, and what was written last. No index stands behind it.

use axum::http::Method;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::schema::{Lack, Mark};
use super::store::Store;
use super::{Salesforce, rest, rows};
use crate::exchange::{Answer, Call};

/// Records that a search finds at most.
const MOST: usize = 2_000;
/// Records that are remembered as recent.
const RECENT: usize = 20;

/// Answers a search: `FIND {words} …` or the parameters of one.
pub fn answer(org: &Salesforce, call: &Call, base: &str) -> Result<Answer, ApiError> {
    let asked = if call.method == Method::POST {
        rows::body(call)?
            .get("q")
            .and_then(Value::as_str)
            .map(str::to_owned)
    } else {
        call.parameter("q")
    };
    let asked = asked.unwrap_or_default();
    let (words, objects) = match asked.trim_start().get(..4) {
        Some(find) if find.eq_ignore_ascii_case("find") => {
            let open = asked.find('{');
            let close = asked.find('}');
            let (Some(open), Some(close)) = (open, close.filter(|at| Some(*at) > open)) else {
                return Err(ApiError::bad(
                    "MALFORMED_SEARCH",
                    "unexpected token: '<EOF>'",
                ));
            };
            (asked[open + 1..close].to_owned(), returned(&asked[close..]))
        }
        _ if call.path.contains("parameterizedSearch") => {
            let named = call.parameter("sobject").or(call.parameter("sObject"));
            (
                asked.clone(),
                named.map(|name| vec![name]).unwrap_or_default(),
            )
        }
        _ => {
            return Err(ApiError::bad(
                "MALFORMED_SEARCH",
                "No search term found. The search term must be enclosed in braces.",
            ));
        }
    };
    let words = words.trim_matches(['*', '"', ' ']).to_lowercase();
    let store = org.reading();
    Ok(rest::ok(
        &json!({"searchRecords": found(&store, base, &words, &objects)}),
    ))
}

/// The objects of a `RETURNING` clause.
fn returned(rest: &str) -> Vec<String> {
    let lower = rest.to_lowercase();
    let Some(at) = lower.find("returning") else {
        return Vec::new();
    };
    let mut depth = 0;
    let plain: String = rest[at + "returning".len()..]
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let outside = depth == 0;
            depth -= i32::from(*c == ')');
            outside
        })
        .collect();
    plain
        .split(',')
        .filter_map(|name| name.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn found(store: &Store, base: &str, words: &str, objects: &[String]) -> Vec<Value> {
    if words.chars().count() < 2 {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (number, object) in store.schema.objects.iter().enumerate() {
        let wanted = objects.is_empty()
            || objects
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&object.name));
        let name = object
            .fields
            .iter()
            .position(|field| field.has(Mark::NameField));
        let (Some(name), true) = (name, wanted && object.can(Lack::Search)) else {
            continue;
        };
        for record in store
            .table(number)
            .rows()
            .values()
            .filter(|row| !row.deleted)
        {
            let text = record.text(name as u16).unwrap_or_default();
            if text.to_lowercase().contains(words) {
                let url = format!("{base}/sobjects/{}/{}", object.name, record.id);
                out.push(json!({
                    "attributes": {"type": object.name, "url": url},
                    "Id": record.id.to_string(),
                }));
            }
            if out.len() == MOST {
                return out;
            }
        }
    }
    out
}

/// The records of the objects people look at that changed last.
pub fn recent(store: &Store, base: &str) -> Value {
    let mut all = Vec::new();
    for (number, object) in store.schema.objects.iter().enumerate() {
        let name = object
            .fields
            .iter()
            .position(|field| field.has(Mark::NameField));
        let (Some(name), true) = (name, object.can(Lack::Recent)) else {
            continue;
        };
        let table = store.table(number);
        for (at, id) in table.by_modstamp().iter().rev().take(RECENT) {
            if let Some(record) = table.row(*id).filter(|record| !record.deleted) {
                all.push((*at, object, record, name as u16));
            }
        }
    }
    all.sort_by_key(|entry| std::cmp::Reverse(entry.0));
    all.iter()
        .take(RECENT)
        .map(|(_, object, record, name)| {
            let url = format!("{base}/sobjects/{}/{}", object.name, record.id);
            json!({
                "attributes": {"type": object.name, "url": url},
                "Id": record.id.to_string(),
                "Name": record.text(*name),
            })
        })
        .collect()
}
