//! `/composite` and `/composite/batch`: several calls in one.

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::{Salesforce, rest, rows};
use crate::exchange::{Answer, Call};

/// Calls that one call takes.
const MOST: usize = 25;

/// `/composite`: later calls may use what earlier ones answered, by
/// `@{name.field}`.
pub fn requests(org: &Salesforce, call: &Call) -> Result<Answer, ApiError> {
    let body = rows::body(call)?;
    let all_or_none = body.get("allOrNone") == Some(&Value::Bool(true));
    let requests = list(&body, "compositeRequest")?;
    let (results, _) = chain(org, call, requests, all_or_none);
    Ok(rest::ok(&json!({"compositeResponse": results})))
}

/// `/composite/graph`: several chains, each of them all or none.
pub fn graphs(org: &Salesforce, call: &Call) -> Result<Answer, ApiError> {
    let body = rows::body(call)?;
    let graphs: Vec<Value> = list(&body, "graphs")?
        .iter()
        .map(|graph| {
            let requests = graph["compositeRequest"].as_array();
            let (results, well) = chain(org, call, requests.map_or(&[], Vec::as_slice), true);
            json!({
                "graphId": graph["graphId"],
                "graphResponse": {"compositeResponse": results},
                "isSuccessful": well,
            })
        })
        .collect();
    Ok(rest::ok(&json!({"graphs": graphs})))
}

/// Makes calls one after the other; the answers, and whether all went well.
/// A chain that is all or none undoes what it wrote; others may write
/// meanwhile, what they wrote to its records is undone with it.
fn chain(
    org: &Salesforce,
    call: &Call,
    requests: &[Value],
    all_or_none: bool,
) -> (Vec<Value>, bool) {
    if all_or_none {
        org.locked().begin();
    }
    let mut known: Vec<(String, Value)> = Vec::new();
    let mut results: Vec<Value> = Vec::new();
    let mut well = true;
    for request in requests {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let name = text("referenceId").unwrap_or_default().to_owned();
        let url = replaced(&Value::from(text("url").unwrap_or_default()), &known);
        let body = request.get("body").map(|body| replaced(body, &known));
        let method = text("method").unwrap_or("GET");
        if all_or_none && !well {
            results.push(halted(&name));
            continue;
        }
        let headers = request.get("httpHeaders").and_then(Value::as_object);
        let url = url.as_str().unwrap_or_default().to_owned();
        let answer = part(org, call, method, &url, body, headers);
        well &= !answer.status.is_client_error() && !answer.status.is_server_error();
        let content = content(&answer);
        let mut headers = Map::new();
        for (header, shown) in [
            ("location", "Location"),
            ("etag", "ETag"),
            ("last-modified", "Last-Modified"),
        ] {
            let value = answer.headers.get(header);
            if let Some(value) = value.and_then(|value| value.to_str().ok()) {
                headers.insert(shown.to_owned(), Value::from(value));
            }
        }
        results.push(json!({
            "body": content,
            "httpHeaders": headers,
            "httpStatusCode": answer.status.as_u16(),
            "referenceId": name,
        }));
        known.push((name, content));
    }
    if all_or_none && well {
        org.locked().commit();
    } else if all_or_none {
        org.locked().roll_back(super::moment::now());
        for result in &mut results {
            if result["httpStatusCode"].as_u64().is_some_and(|it| it < 400) {
                *result = halted(result["referenceId"].as_str().unwrap_or_default());
            }
        }
    }
    (results, well)
}

/// The answer to a call that another one's failure undid or kept from being made.
fn halted(name: &str) -> Value {
    let message =
        "The transaction was rolled back since another operation in the same transaction failed.";
    json!({
        "body": [{"errorCode": "PROCESSING_HALTED", "message": message}],
        "httpHeaders": {},
        "httpStatusCode": 400,
        "referenceId": name,
    })
}

/// `/composite/batch`: calls that know nothing of each other.
pub fn batch(org: &Salesforce, call: &Call) -> Result<Answer, ApiError> {
    let body = rows::body(call)?;
    let requests = list(&body, "batchRequests")?;
    let mut failed = false;
    let mut results = Vec::new();
    for request in requests {
        let url = request
            .get("url")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim_start_matches('/');
        let url = if url.starts_with("services/") {
            format!("/{url}")
        } else {
            format!("/services/data/{url}")
        };
        let method = request
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or("GET");
        let answer = part(
            org,
            call,
            method,
            &url,
            request.get("richInput").cloned(),
            None,
        );
        failed |= answer.status.is_client_error() || answer.status.is_server_error();
        results.push(json!({"statusCode": answer.status.as_u16(), "result": content(&answer)}));
    }
    Ok(rest::ok(&json!({"hasErrors": failed, "results": results})))
}

fn list<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a Vec<Value>, ApiError> {
    let requests = body
        .get(name)
        .and_then(Value::as_array)
        .ok_or_else(|| ApiError::bad("JSON_PARSER_ERROR", format!("{name} is required")))?;
    if requests.len() > MOST {
        return Err(ApiError::bad(
            "LIMIT_EXCEEDED",
            format!("The request can't contain more than {MOST} operations"),
        ));
    }
    Ok(requests)
}

fn part(
    org: &Salesforce,
    call: &Call,
    method: &str,
    url: &str,
    body: Option<Value>,
    headers: Option<&Map<String, Value>>,
) -> Answer {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut part = Call {
        method: Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: call.headers.clone(),
        body: body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())),
    };
    for (name, value) in headers.into_iter().flatten() {
        let name = axum::http::HeaderName::from_bytes(name.to_lowercase().as_bytes());
        let value = axum::http::HeaderValue::from_str(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            part.headers.insert(name, value);
        }
    }
    let segments = part.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["services", "data", version, rest @ ..]
            if rest.first() != Some(&"composite")
                || rest.len() > 1 && matches!(rest[1], "sobjects" | "tree") =>
        {
            let base = format!("/services/data/{version}");
            rest::routed(org, &part, &base, rest).unwrap_or_else(|error| error.answer())
        }
        _ => ApiError::not_found().answer(),
    }
}

fn content(answer: &Answer) -> Value {
    if matches!(
        answer.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return Value::Null;
    }
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// A value with every `@{name.path}` in its texts replaced.
fn replaced(value: &Value, known: &[(String, Value)]) -> Value {
    match value {
        Value::String(text) => {
            let mut text = text.clone();
            while let Some(start) = text.find("@{") {
                let Some(length) = text[start..].find('}') else {
                    break;
                };
                let path = text[start + 2..start + length].to_owned();
                let found = lookup(&path, known);
                let shown = found
                    .as_str()
                    .map_or_else(|| found.to_string(), str::to_owned);
                text.replace_range(start..=start + length, &shown);
            }
            Value::from(text)
        }
        Value::Array(items) => items.iter().map(|item| replaced(item, known)).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), replaced(value, known)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn lookup(path: &str, known: &[(String, Value)]) -> Value {
    let mut parts = path.split('.');
    let name = parts.next().unwrap_or_default();
    let Some((_, value)) = known.iter().find(|entry| entry.0 == name) else {
        return Value::Null;
    };
    let mut value = value;
    for part in parts {
        let (field, index) = match part.split_once('[') {
            Some((field, index)) => (field, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        value = &value[field];
        if let Some(index) = index {
            value = &value[index];
        }
    }
    value.clone()
}
