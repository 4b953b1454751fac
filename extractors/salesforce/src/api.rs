//! Requests: one way to ask, with the token of `auth.rs` and the source's clock.

use std::collections::HashMap;
use std::sync::Arc;

use drover_pipeline::clock::now;
use drover_pipeline::http::{Answer, HttpClient};
use drover_pipeline::quota::nothing_until;
use drover_pipeline::record::Millis;
use drover_pipeline::{Code, Error, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::auth::{Auth, Session};
use crate::config::{Config, Origins};
use crate::time::Clock;
use crate::{errors, quota};

/// How often one request gets a new token before that is taken for a refusal.
const RENEWALS: u32 = 3;

/// The API of one org.
pub struct Api {
    http: HttpClient,
    config: Arc<Config>,
    auth: Auth,
    /// Only a hint for how far a request may reach; what matters is read from
    /// the answer in question.
    clock: Arc<Clock>,
}

/// A request.
struct Ask<'a> {
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    /// What is posted; without it the request only reads.
    body: Option<&'a Value>,
}

/// A success, with the source's time at which it was sent.
pub struct Reply {
    /// The source's clock; from the `Date` header.
    pub at: Millis,
    answer: Answer,
}

impl Api {
    /// The API that a configuration describes; `origins` is what
    /// [`Config::validate`] gave.
    pub fn new(config: Config, origins: Origins, http: HttpClient) -> Self {
        let (config, clock) = (Arc::new(config), Arc::<Clock>::default());
        http.meter().terms(quota::terms(&config, &origins));
        Api {
            auth: Auth::new(
                http.clone(),
                Arc::clone(&config),
                origins,
                Arc::clone(&clock),
            ),
            http,
            config,
            clock,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The latest time of the source that is known.
    pub async fn clock(&self) -> Result<Millis> {
        if self.clock.latest() == 0 {
            // The token's answer has a date too.
            self.auth.session(None).await?;
        }
        Ok(self.clock.latest())
    }

    /// Asks for a path below `/services/data/vNN.0`, or for a whole path that
    /// an earlier answer gave. `about` is the object that is asked for.
    ///
    /// A token that has expired is renewed and the request sent once more. All
    /// objects share the token, so the new one may be gone as well by then: only
    /// one that is refused again and again is [`Code::Unauthorized`].
    pub async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        about: Option<&str>,
    ) -> Result<Reply> {
        let ask = Ask {
            path,
            query,
            body: None,
        };
        let (at, answer) = self.ask(&ask, about).await?;
        if !answer.is_json() {
            return Err(errors::not_the_api(&answer, "it is not JSON"));
        }
        Ok(Reply { at, answer })
    }

    /// Asks for a file: a path below `/services/data/vNN.0` whose answer is CSV.
    pub async fn file(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply> {
        let ask = Ask {
            path,
            query,
            body: None,
        };
        let (at, answer) = self.ask(&ask, None).await?;
        let kind = answer.header("content-type").unwrap_or_default();
        if !kind.contains("csv") {
            return Err(errors::not_the_api(&answer, "it is not CSV"));
        }
        Ok(Reply { at, answer })
    }

    /// Has something made that no record depends on: a job.
    pub async fn post(&self, path: &str, body: &Value, about: Option<&str>) -> Result<Reply> {
        let ask = Ask {
            path,
            query: &[],
            body: Some(body),
        };
        let (at, answer) = self.ask(&ask, about).await?;
        if !answer.is_json() {
            return Err(errors::not_the_api(&answer, "it is not JSON"));
        }
        Ok(Reply { at, answer })
    }

    async fn ask(&self, ask: &Ask<'_>, about: Option<&str>) -> Result<(Millis, Answer)> {
        let mut session = self.auth.session(None).await?;
        let mut answer = self.send(&session, ask).await?;
        for _ in 0..RENEWALS {
            if !errors::session_expired(&answer) {
                break;
            }
            session = self.auth.session(Some(&session)).await?;
            answer = self.send(&session, ask).await?;
        }
        if let Some(error) = errors::of_api(&answer, about) {
            return Err(self.until(error));
        }
        Ok((self.clock.note(&answer)?, answer))
    }

    async fn send(&self, session: &Session, ask: &Ask<'_>) -> Result<Answer> {
        let path = ask.path;
        let url = if path.starts_with("/services/") {
            format!("{}{path}", session.origin)
        } else {
            let version = &self.config.api_version;
            format!("{}/services/data/v{version}{path}", session.origin)
        };
        let method = if ask.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = self.http.request(method, &url);
        request = request.query(ask.query).bearer_auth(session.token.expose());
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let meter = self.http.meter();
        let _pass = meter.pass()?;
        let answer = self.http.send(request).await?;
        if let Some(told) = answer
            .header("sforce-limit-info")
            .and_then(quota::of_header)
        {
            meter.told(told.0, told.1);
        }
        Ok(answer)
    }

    /// Adds how long to wait where the org's calls are used up, and says so:
    /// Salesforce does not.
    fn until(&self, error: Error) -> Error {
        if error.code != Code::QuotaExhausted || error.retry_after.is_some() {
            return error;
        }
        let Some(wait) = self.http.meter().refused() else {
            return error;
        };
        let until = nothing_until(now() + wait.as_millis() as Millis);
        let message = format!("{}; {until}", error.message);
        Error { message, ..error }.retry_after(wait)
    }

    /// Notes the org's calls as `/limits` tells them, unless a newer header did.
    pub fn limits(&self, limits: &HashMap<String, Value>) {
        let meter = self.http.meter();
        if let (None, Some((limit, left))) = (meter.usage(), quota::of_limits(limits)) {
            meter.told(limit, left);
        }
    }
}

impl Reply {
    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.answer.body
    }

    /// A header's text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.header(name)
    }

    /// Reads the body as JSON of a shape. The error says where it fails, and
    /// nothing of what stands there.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(self.body()).map_err(|error| self.malformed(&error))
    }

    /// The failure of an answer whose JSON is cut or has another shape.
    pub fn malformed(&self, error: &serde_json::Error) -> Error {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "it has another shape",
            _ => "it is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        self.broken(&format!("{what} (line {line}, column {column})"))
    }

    /// The failure of an answer that breaks a promise of the API.
    pub fn broken(&self, why: &str) -> Error {
        errors::not_the_api(&self.answer, why)
    }
}
