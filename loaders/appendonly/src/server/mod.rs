//! The target itself, for tests: an HTTP server that appends what it is told
//! to, twice if it is told twice.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /` | its limits: `{"maxProcessingMs", "indexDelayMs"}` |
//! | `POST /records` | creates: 201 `{"id"}` |
//! | `PATCH /records/{id}` | replaces the content, and takes a deleted one back |
//! | `DELETE /records/{id}` | marks as deleted |
//! | `GET /records/{id}` | the record |
//! | `GET /search?entity=E&key=K` | `{"results": [{"id"}]}`, oldest first; deleted ones too; lags behind |
//! | `POST /_control/faults` | what goes wrong from now on: [`Faults`] |
//! | `GET /_control/creates` | every create there ever was, as NDJSON: `id, entity, key, at` |
//! | `GET /_control/records` | every record, as NDJSON |
//! | `GET /_control/stats` | how often each fault hit |
//! | `GET /_control/indexed` | answers when the index has all that was created before |
//!
//! A write that was received is carried out even when its sender is gone, but
//! never later than `--max-processing-ms` after it arrived: a lease relies on
//! that. 429 and 503 have no effect.

mod faults;
mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

pub use faults::{Faults, Stats};
pub use store::{Content, Settings, Store};

use faults::Fate;
use store::Refusal;

/// The routes over a store.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/", get(limits))
        .route("/records", post(create))
        .route("/records/{id}", patch(update).delete(remove).get(record))
        .route("/search", get(search))
        .route("/_control/faults", post(set_faults))
        .route("/_control/creates", get(creates))
        .route("/_control/records", get(records))
        .route("/_control/stats", get(stats))
        .route("/_control/indexed", get(indexed))
        .with_state(Arc::new(store))
}

type Shared = State<Arc<Store>>;

async fn limits(State(store): Shared) -> Response {
    let settings = store.settings();
    Json(json!({
        "maxProcessingMs": settings.max_processing.as_millis() as u64,
        "indexDelayMs": settings.index_delay.as_millis() as u64,
    }))
    .into_response()
}

async fn create(State(store): Shared, body: Bytes) -> Response {
    write(store, move |store| {
        let content = Content::parse(&body)?;
        let key = content.key.clone();
        Ok((key, Box::new(move || store.create(content))))
    })
    .await
}

async fn update(State(store): Shared, Path(id): Path<String>, body: Bytes) -> Response {
    write(store, move |store| {
        let content = Content::parse(&body)?;
        let key = content.key.clone();
        Ok((key, Box::new(move || store.update(&id, Some(content)))))
    })
    .await
}

async fn remove(State(store): Shared, Path(id): Path<String>) -> Response {
    write(store, move |store| {
        // A delete is never rejected at random: it has no content to refuse.
        Ok((String::new(), Box::new(move || store.update(&id, None))))
    })
    .await
}

type Effect = Box<dyn FnOnce() -> Result<(StatusCode, String), Refusal> + Send>;

/// A write, with what goes wrong on its way.
async fn write(
    store: Arc<Store>,
    prepare: impl FnOnce(Arc<Store>) -> Result<(String, Effect), Refusal>,
) -> Response {
    let arrived = Instant::now();
    let (key, effect) = match prepare(Arc::clone(&store)) {
        Ok(prepared) => prepared,
        Err(refusal) => return refused(refusal),
    };
    let (fate, slow) = store.draw(&key);
    match fate {
        Fate::Throttle => return throttled(),
        Fate::Fail => return unavailable("the server has a fault"),
        Fate::Reject => {
            return refused(Refusal::new(422, "the server does not like this record"));
        }
        Fate::LoseRequest => return lost(),
        Fate::LoseAnswer | Fate::Answer => {}
    }
    // In a task of its own: the sender may hang up, the write goes on.
    let bound = store.settings().max_processing;
    let done = tokio::spawn(async move {
        tokio::time::sleep(slow).await;
        if arrived.elapsed() > bound {
            return None;
        }
        Some(effect())
    });
    match done.await {
        Ok(Some(_)) if fate == Fate::LoseAnswer => lost(),
        Ok(Some(Ok((status, id)))) => (status, Json(json!({ "id": id }))).into_response(),
        Ok(Some(Err(refusal))) => refused(refusal),
        Ok(None) => unavailable("the request took too long and was given up"),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn record(State(store): Shared, Path(id): Path<String>) -> Response {
    match store.record(&id) {
        Some(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => refused(Refusal::new(404, "there is no such record")),
    }
}

#[derive(Deserialize)]
struct Wanted {
    entity: String,
    key: String,
}

async fn search(State(store): Shared, Query(wanted): Query<Wanted>) -> Response {
    let hits = store.search(&wanted.entity, &wanted.key);
    let results: Vec<_> = hits.into_iter().map(|id| json!({ "id": id })).collect();
    Json(json!({ "results": results })).into_response()
}

async fn set_faults(State(store): Shared, body: Bytes) -> Response {
    let faults: Faults = match serde_json::from_slice(&body) {
        Ok(faults) => faults,
        Err(error) => return refused(Refusal::new(400, &error.to_string())),
    };
    let bound = store.settings().max_processing;
    if Duration::from_millis(faults.slow_ms) >= bound {
        let message = format!("slow_ms must be less than --max-processing-ms ({bound:?})");
        return refused(Refusal::new(400, &message));
    }
    store.set_faults(faults);
    StatusCode::NO_CONTENT.into_response()
}

async fn creates(State(store): Shared) -> Response {
    lines(store.creates())
}

async fn records(State(store): Shared) -> Response {
    lines(store.records())
}

async fn stats(State(store): Shared) -> Response {
    Json(store.stats()).into_response()
}

async fn indexed(State(store): Shared) -> Response {
    while let Some(left) = store.index_lag() {
        tokio::time::sleep(left).await;
    }
    StatusCode::NO_CONTENT.into_response()
}

fn lines(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

fn refused(refusal: Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, Json(json!({ "error": refusal.message }))).into_response()
}

fn throttled() -> Response {
    let error = Json(json!({ "error": "too many requests" }));
    let wait = [(header::RETRY_AFTER, "0")];
    (StatusCode::TOO_MANY_REQUESTS, wait, error).into_response()
}

fn unavailable(message: &str) -> Response {
    let error = Json(json!({ "error": message }));
    (StatusCode::SERVICE_UNAVAILABLE, error).into_response()
}

/// The connection breaks: an answer whose body fails before its first byte.
fn lost() -> Response {
    let cut = std::io::Error::other("lost on purpose");
    let body = futures::stream::once(async { Err::<String, _>(cut) });
    Response::new(Body::from_stream(body))
}
