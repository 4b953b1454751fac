//! The `/_sandbox` endpoints, the same for every system: what happened, what
//! is true, what shall go wrong. They need no token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::exchange::{Answer, Call};
use crate::faults::Faults;
use crate::system::System;

/// The first part of a control path.
pub const PREFIX: &str = "_sandbox";

/// Requests by path, method and status. Status 0: closed without an answer.
#[derive(Debug, Default)]
pub struct Requests {
    counts: Mutex<BTreeMap<(String, String, u16), u64>>,
}

impl Requests {
    /// Counts a request.
    pub fn count(&self, path: String, method: &Method, status: u16) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts
            .entry((path, method.to_string(), status))
            .or_default() += 1;
    }

    fn list(&self) -> Value {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((path, method, status), count)| {
                json!({"path": path, "method": method, "status": status, "count": count})
            })
            .collect()
    }
}

/// Answers a control request.
pub fn answer(
    system: &Arc<dyn System>,
    faults: &Faults,
    requests: &Requests,
    call: &Call,
) -> Response {
    let segments = call.segments();
    let parts: Vec<&str> = segments.iter().skip(1).map(String::as_str).collect();
    if let (Method::GET, ["records", object]) = (call.method.clone(), parts.as_slice()) {
        return records(system, object);
    }
    let answer = match (call.method.clone(), parts.as_slice()) {
        (Method::GET, ["stats"]) => done(stats(system, requests)),
        (Method::GET, ["faults"]) => done(faults.list()),
        (Method::POST, ["faults"]) => body(call)
            .and_then(|request| faults.add(&request))
            .map_or_else(|error| refused(&error), |()| done(faults.list())),
        (Method::DELETE, ["faults"]) => {
            faults.clear();
            done(json!([]))
        }
        (Method::POST, ["edit"]) => body(call)
            .and_then(|request| system.edit(&request))
            .map_or_else(|error| refused(&error), done),
        (Method::POST, ["freeze"]) => {
            system.freeze(true);
            done(json!({"frozen": true}))
        }
        (Method::DELETE, ["freeze"]) => {
            system.freeze(false);
            done(json!({"frozen": false}))
        }
        _ => system.control(call, &parts).unwrap_or_else(|| {
            let body =
                json!({"error": format!("no control endpoint {} {}", call.method, call.path)});
            Answer::json(StatusCode::NOT_FOUND, &body)
        }),
    };
    whole(answer)
}

fn done(body: Value) -> Answer {
    Answer::json(StatusCode::OK, &body)
}

fn refused(error: &str) -> Answer {
    Answer::json(StatusCode::BAD_REQUEST, &json!({"error": error}))
}

fn body(call: &Call) -> Result<Value, String> {
    serde_json::from_slice(&call.body).map_err(|error| format!("the body is no JSON: {error}"))
}

fn stats(system: &Arc<dyn System>, requests: &Requests) -> Value {
    let objects: serde_json::Map<String, Value> = system
        .counts()
        .into_iter()
        .map(|(name, counts)| {
            let counts = json!({
                "records": counts.records,
                "deleted": counts.deleted,
                "creates": counts.creates,
                "edits": counts.edits,
                "deletes": counts.deletes,
            });
            (name, counts)
        })
        .collect();
    json!({"requests": requests.list(), "objects": objects})
}

/// Streams the truth, piece by piece.
fn records(system: &Arc<dyn System>, object: &str) -> Response {
    let Some(first) = system.records(object, None) else {
        let body = json!({"error": format!("no object `{object}`")});
        return whole(Answer::json(StatusCode::NOT_FOUND, &body));
    };
    let system = system.clone();
    let object = object.to_owned();
    let pieces = futures::stream::unfold(Some(first), move |state| {
        let (system, object) = (system.clone(), object.clone());
        async move {
            let (piece, after) = state?;
            let next = after.and_then(|after| system.records(&object, Some(&after)));
            Some((Ok::<_, std::convert::Infallible>(piece), next))
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let kind = axum::http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert("content-type", kind);
    response
}

/// An answer in one piece.
pub fn whole(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}
