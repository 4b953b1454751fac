//! The target's API: each request is sent once, and its answer says exactly
//! what became of it.

use std::time::Duration;

use drover_pipeline::http::{Answer, HttpClient};
use drover_pipeline::idempotency::{Identity, Lease, TargetId};
use drover_pipeline::load::{Applied, Found, Item, Outcome, Write};
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::{Code, Error, Result};
use drover_schemas::Entity;
use reqwest::Method;
use serde::Deserialize;

use crate::body::Body;

/// The API of one server.
pub(crate) struct Api {
    http: HttpClient,
    url: reqwest::Url,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Created {
    id: TargetId,
}

#[derive(Deserialize)]
struct Search {
    results: Vec<Created>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    max_processing_ms: u64,
    index_delay_ms: u64,
}

impl Api {
    /// The API at that address; a request without an answer is given up after
    /// that time.
    pub(crate) fn new(http: HttpClient, url: reqwest::Url, timeout: Duration) -> Self {
        Api { http, url, timeout }
    }

    /// Refuses a server whose limits the lease does not cover: half of it may
    /// pass before a request leaves, and a quarter before it arrives.
    pub(crate) async fn check(&self, lease: &Lease) -> Result<()> {
        let limits: Limits = parse(&self.get(&[], &[]).await?)?;
        let longest = Duration::from_millis(limits.max_processing_ms);
        let delay = Duration::from_millis(limits.index_delay_ms);
        let refused = |message: String| Err(Error::new(Code::Refused, message));
        if lease.length <= longest * 4 {
            return refused(format!(
                "the server may work {longest:?} on a request: targetConfig.leaseMs must be more \
                 than four times that"
            ));
        }
        match lease.identity {
            Identity::None { index_delay } if index_delay < delay => refused(format!(
                "the server's search lags {delay:?} behind: raise targetConfig.indexDelayMs to it"
            )),
            _ => Ok(()),
        }
    }

    /// Creates, updates or deletes one record.
    pub(crate) async fn write(&self, item: &Item<'_>) -> Outcome {
        let request = match (&item.write, item.target_id) {
            (Write::Upsert { datum, links }, id) => {
                let body = match Body::new(item, datum, links) {
                    Ok(body) => body,
                    Err(error) => return Outcome::Rejected(error),
                };
                match id {
                    None => self.request(Method::POST, &["records"]).json(&body),
                    Some(id) => self.request(Method::PATCH, &["records", id]).json(&body),
                }
            }
            (Write::Delete { .. }, Some(id)) => self.request(Method::DELETE, &["records", id]),
            (Write::Delete { .. }, None) => {
                return Outcome::Applied(Applied {
                    id: None,
                    created: false,
                    newer: false,
                });
            }
        };
        match self.http.send(request).await {
            Err(error) if error.code == Code::Connection => Outcome::NotSent(error),
            Err(error) => Outcome::Unknown(error),
            Ok(answer) => outcome(&answer, item.target_id.is_none()),
        }
    }

    /// What the search index has under our key. Several hits are a double
    /// create; the oldest is taken, so that every loader takes the same.
    pub(crate) async fn search(
        &self,
        entity: &Entity,
        key: &CanonicalKey,
    ) -> Result<Option<Found>> {
        let query = [("entity", entity.name.as_str()), ("key", key.as_str())];
        let found: Search = parse(&self.get(&["search"], &query).await?)?;
        if found.results.len() > 1 {
            tracing::warn!(%key, hits = found.results.len(), "the target has the record twice");
        }
        Ok(found.results.into_iter().next().map(|hit| Found {
            id: hit.id,
            order: None,
        }))
    }

    /// A record's JSON.
    pub(crate) async fn read(&self, id: &TargetId) -> Result<Option<String>> {
        let request = self.request(Method::GET, &["records", id]);
        let answer = self.http.send(request).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = good(answer)?;
        String::from_utf8(answer.body)
            .map(Some)
            .map_err(|_| Error::new(Code::BadAnswer, "the answer is not UTF-8"))
    }

    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer> {
        let request = self.request(Method::GET, path).query(query);
        good(self.http.send(request).await?)
    }

    fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        // Only a URL that can't be a base has no segments; `Config` refuses it.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http
            .request(method, url.as_str())
            .timeout(self.timeout)
    }
}

/// What an answer to a write says. 429 and 503 are given before anything is
/// done; another 5xx may come from the middle of it.
fn outcome(answer: &Answer, create: bool) -> Outcome {
    match answer.status {
        200 | 201 => match parse::<Created>(answer) {
            Ok(created) => Outcome::Applied(Applied {
                id: Some(created.id),
                created: create,
                newer: false,
            }),
            Err(error) => Outcome::Unknown(error),
        },
        401 | 403 | 429 | 503 => Outcome::NotSent(refusal(answer)),
        400..=407 | 409..=499 => {
            let error = Error::new(Code::TargetRefused, said(answer));
            Outcome::Rejected(error.source_code(answer.status.to_string()))
        }
        _ => Outcome::Unknown(refusal(answer)),
    }
}

fn good(answer: Answer) -> Result<Answer> {
    if answer.status == 200 {
        Ok(answer)
    } else {
        Err(refusal(&answer))
    }
}

fn refusal(answer: &Answer) -> Error {
    let code = match answer.status {
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        429 => Code::Throttled,
        408 | 500..=599 => Code::ServerError,
        _ => Code::Refused,
    };
    let error = Error::new(code, said(answer)).source_code(answer.status.to_string());
    match answer.retry_after() {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// The server's own words: `{"error": "…"}`.
fn said(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    parse::<Said>(answer).map_or_else(
        |_| format!("the server answered {}", answer.status),
        |said| said.error,
    )
}

fn parse<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // Without serde's message, which quotes what it read.
        let (line, column) = (error.line(), error.column());
        Error::new(
            Code::BadAnswer,
            format!("the answer is not the JSON it should be (line {line}, column {column})"),
        )
    })
}
