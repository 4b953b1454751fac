//! The API: one way to ask, and what each refusal means. A request is sent once;
//! what to do about an error decides the runner, by its code (the table in
//! `pipeline/src/error.rs`). Where an account has a quota, each request would
//! take a pass of `HttpClient::meter` first.

use drover_pipeline::extract::Object;
use drover_pipeline::http::{Answer, HttpClient};
use drover_pipeline::record::Millis;
use drover_pipeline::{Code, Error, Result};
use reqwest::{Method, RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;

use crate::Config;
use crate::fetch::Key;

/// The API of one account.
pub struct Api {
    config: Config,
    url: Url,
    http: HttpClient,
    /// The token; all objects share it.
    token: Mutex<Option<String>>,
}

/// Which records are asked for.
pub struct Range<'a> {
    /// Stamped at this time or later.
    pub since: Millis,
    /// Stamped before this time.
    pub until: Millis,
    /// Behind this one.
    pub after: Option<&'a Key>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Time {
    now: Millis,
}

#[derive(Deserialize)]
struct Objects {
    objects: Vec<Object>,
}

/// A page of ids.
#[derive(Deserialize)]
pub struct Listed {
    /// The ids.
    pub ids: Vec<String>,
    /// Whether more follow.
    pub more: bool,
}

impl Api {
    /// The API at that address.
    pub fn new(config: Config, url: Url, http: HttpClient) -> Self {
        Api {
            config,
            url,
            http,
            token: Mutex::new(None),
        }
    }

    /// How far a round reaches back.
    pub fn lookback(&self) -> Millis {
        self.config.lookback_ms.into()
    }

    /// The source's time. Stamps are compared with it alone: this machine's
    /// clock may be wrong.
    pub async fn time(&self) -> Result<Millis> {
        let answer = self.ask(self.request(Method::GET, &["time"])).await?;
        parse::<Time>(&answer).map(|time| time.now)
    }

    /// The objects, with their fields and counts.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        let answer = self.ask(self.request(Method::GET, &["objects"])).await?;
        parse::<Objects>(&answer).map(|found| found.objects)
    }

    /// The text of a page of records.
    pub async fn page(&self, object: &str, range: &Range<'_>) -> Result<String> {
        let request = self.request(Method::GET, &["records", object]);
        let limit = self.config.page_size.to_string();
        let mut request = request
            .query(&[("since", range.since), ("until", range.until)])
            .query(&[("limit", limit)]);
        if let Some(key) = range.after {
            request = request.query(&[("afterModified", key.modified)]);
            request = request.query(&[("afterId", &key.id)]);
        }
        self.ask(request).await
    }

    /// The text of an answer with the records of these ids.
    pub async fn get(&self, object: &str, ids: &[&str]) -> Result<String> {
        let request = self.request(Method::POST, &["records", object, "get"]);
        self.ask(request.json(&json!({"ids": ids}))).await
    }

    /// The ids behind this one.
    pub async fn ids(&self, object: &str, after: Option<&str>) -> Result<Listed> {
        let request = self.request(Method::GET, &["records", object, "ids"]);
        let after = after.unwrap_or_default();
        let limit = self.config.page_size.to_string();
        let request = request.query(&[("after", after), ("limit", &limit)]);
        parse(&self.ask(request).await?)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        // An address that can't have a path was refused with the configuration.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url.as_str())
    }

    /// Sends a request. A token that has expired is replaced once; one that is
    /// refused although it is new asks for a person.
    async fn ask(&self, request: RequestBuilder) -> Result<String> {
        let again = request.try_clone();
        let token = self.token(None).await?;
        let mut answer = self.http.send(request.bearer_auth(&token)).await?;
        if answer.status == 401
            && let Some(again) = again
        {
            let token = self.token(Some(&token)).await?;
            answer = self.http.send(again.bearer_auth(&token)).await?;
        }
        text(answer)
    }

    /// The token, or a new one in place of one that was refused. The lock is
    /// held while it is asked for, so that of many lanes one asks.
    async fn token(&self, refused: Option<&str>) -> Result<String> {
        let mut known = self.token.lock().await;
        if let Some(token) = known
            .as_ref()
            .filter(|token| Some(token.as_str()) != refused)
        {
            return Ok(token.clone());
        }
        let request = self.request(Method::POST, &["token"]);
        let request = request.json(&json!({"key": self.config.api_key}));
        let granted: Token = parse(&text(self.http.send(request).await?)?)?;
        *known = Some(granted.token.clone());
        Ok(granted.token)
    }
}

/// The text of a success; or what the refusal means. A status that no line knows
/// is `REFUSED`: it stops the lane and asks, where a guess would lose records.
fn text(answer: Answer) -> Result<String> {
    let code = match answer.status {
        200..=299 if answer.is_json() => {
            let text = String::from_utf8(answer.body);
            return text.map_err(|_| Error::new(Code::BadAnswer, "it is not UTF-8"));
        }
        200..=299 => return Err(Error::new(Code::BadAnswer, "it is not JSON")),
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        404 => Code::UnknownObject,
        429 => Code::Throttled,
        408 | 500..=599 => Code::ServerError,
        _ => Code::Refused,
    };
    let error = Error::new(code, "the API refuses").source_code(answer.status.to_string());
    Err(match answer.retry_after() {
        Some(wait) => error.retry_after(wait),
        None => error,
    })
}

/// Reads an answer. serde's message could quote it, and with it a token.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|_| Error::new(Code::BadAnswer, "it is not what the API promises"))
}
