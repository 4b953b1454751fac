//! Requests: the token, the source's clock, and one way to ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use drover_pipeline::http::{Answer, HttpClient};
use drover_pipeline::record::Millis;
use drover_pipeline::{Error, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::config::{self, Config};
use crate::{errors, time};

/// How often one request gets a new token before that is taken for a refusal.
const RENEWALS: u32 = 3;

/// The API of one org.
pub struct Api {
    http: HttpClient,
    config: Config,
    /// Where the token endpoint is.
    origin: String,
    session: Mutex<Option<Arc<Session>>>,
    /// The latest `Date` that was seen; 0 before the first answer. Only a hint
    /// for how far a request may reach; what matters is read from the answer
    /// in question.
    clock: AtomicI64,
}

/// A token and where it is good.
struct Session {
    token: String,
    origin: String,
}

/// The token endpoint's answer (`reference/salesforce.md` section 1).
#[derive(Deserialize)]
struct Token {
    access_token: String,
    instance_url: String,
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
    /// The API that a configuration describes; `origin` is what
    /// [`Config::validate`] gave.
    pub fn new(config: Config, origin: String, http: HttpClient) -> Self {
        Api {
            http,
            config,
            origin,
            session: Mutex::new(None),
            clock: AtomicI64::new(0),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The latest time of the source that is known.
    pub async fn clock(&self) -> Result<Millis> {
        if self.clock.load(Ordering::Relaxed) == 0 {
            // The token's answer has a date too.
            self.session(None).await?;
        }
        Ok(self.clock.load(Ordering::Relaxed))
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
        let mut session = self.session(None).await?;
        let mut answer = self.send(&session, ask).await?;
        for _ in 0..RENEWALS {
            if !errors::session_expired(&answer) {
                break;
            }
            session = self.session(Some(&session)).await?;
            answer = self.send(&session, ask).await?;
        }
        if let Some(error) = errors::of_api(&answer, about) {
            return Err(error);
        }
        Ok((self.date(&answer)?, answer))
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
        request = request.query(ask.query).bearer_auth(&session.token);
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        self.http.send(request).await
    }

    /// The token; a new one if there is none, or if it is still the one that
    /// was refused. The lock makes one task ask while the others wait for what
    /// it gets.
    async fn session(&self, refused: Option<&Arc<Session>>) -> Result<Arc<Session>> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref()
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, session))
        {
            return Ok(Arc::clone(session));
        }
        *current = None;
        let session = Arc::new(self.login().await?);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// The client credentials flow (`reference/salesforce.md` section 1).
    async fn login(&self) -> Result<Session> {
        let url = format!("{}/services/oauth2/token", self.origin);
        let request = self.http.request(Method::POST, &url).form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &self.config.client_id),
            ("client_secret", &self.config.client_secret),
        ]);
        let answer = self.http.send(request).await?;
        if let Some(error) = errors::of_token(&answer) {
            return Err(error);
        }
        self.date(&answer)?;
        // serde's own message could quote what it found, which may be a token.
        let token: Token = serde_json::from_slice(&answer.body)
            .map_err(|_| errors::not_the_api(&answer, "it holds no token"))?;
        let origin = config::origin(&token.instance_url).map_err(|why| {
            errors::not_the_api(&answer, &format!("its instance_url can't be used: {why}"))
        })?;
        Ok(Session {
            token: token.access_token,
            origin,
        })
    }

    fn date(&self, answer: &Answer) -> Result<Millis> {
        let at = answer
            .header("date")
            .and_then(time::parse_date)
            .ok_or_else(|| errors::not_the_api(answer, "it has no Date header"))?;
        self.clock.fetch_max(at, Ordering::Relaxed);
        Ok(at)
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
