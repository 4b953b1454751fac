//! The one HTTP client of connectors. It sends once and says exactly what
//! became of the request; retries, waits and limits belong to the runners.
//!
//! Layers, from the outside in: answer size limit, time-outs, gzip, connection
//! pool, TLS. Redirects are not followed: an API that redirects has moved, and a
//! token must not travel to another host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::error::{Code, Error, Result};
use crate::quota::Meter;

/// The most bytes of an answer that is read.
const MAX_ANSWER: usize = 256 << 20;

/// An HTTP client shared by everything in a process.
#[derive(Clone)]
pub struct HttpClient {
    inner: reqwest::Client,
    meter: Arc<Meter>,
    /// What answers in place of a server; in tests.
    server: Option<Arc<dyn Server>>,
}

/// A server in this process, for tests that ask too often for a network.
pub trait Server: Send + Sync {
    /// What becomes of a request.
    fn answer(&self, request: reqwest::Request) -> Result<Answer>;
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl HttpClient {
    /// A client with Drover's name and time-outs.
    pub fn new() -> Result<Self> {
        let inner = reqwest::Client::builder()
            .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .timeout(Duration::from_secs(600))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| {
                Error::new(
                    Code::Invariant,
                    format!("no HTTP client: {}", e.without_url()),
                )
            })?;
        Ok(HttpClient {
            inner,
            server: None,
            meter: Arc::default(),
        })
    }

    /// What this process may still ask of the account that it works with. A
    /// connector of a source with a quota takes a pass before each request, and
    /// tells what the answer says.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The same client, but its requests go to a server in this process.
    pub fn answered_by(&self, server: Arc<dyn Server>) -> Self {
        HttpClient {
            inner: self.inner.clone(),
            meter: Arc::default(),
            server: Some(server),
        }
    }

    /// Starts a request; the caller adds query, headers and body.
    pub fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.inner.request(method, url)
    }

    /// Sends the request once and reads the whole answer, whatever its status.
    ///
    /// [`Code::Connection`]: it was not sent. [`Code::AnswerLost`]: it may have
    /// been sent, the answer did not come. [`Code::BadAnswer`]: the answer's
    /// body was cut or too large. Error texts hold no URL query and no header.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let (client, request) = request.build_split();
        let request = request.map_err(|error| Error::new(Code::Connection, explain(error)))?;
        if let Some(server) = &self.server {
            return server.answer(request);
        }
        let url = request.url();
        let server = match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => "the server".to_owned(),
        };
        let mut response = client.execute(request).await.map_err(|error| {
            let code = if error.is_connect() || error.is_builder() {
                Code::Connection
            } else {
                Code::AnswerLost
            };
            Error::new(code, format!("{server}: {}", explain(error)))
        })?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    return Err(Error::new(
                        Code::BadAnswer,
                        format!("the answer is larger than {MAX_ANSWER} bytes"),
                    ));
                }
                Err(error) => {
                    return Err(Error::new(
                        Code::AnswerLost,
                        format!(
                            "the answer was cut after {} bytes: {}",
                            body.len(),
                            explain(error)
                        ),
                    ));
                }
            }
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

impl Answer {
    /// A header's text, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After` in seconds, where the answer has one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?
            .trim()
            .parse()
            .ok()
            .map(Duration::from_secs)
    }

    /// Whether the answer says that it is JSON.
    pub fn is_json(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"))
    }
}

/// The error's own words and those of its causes, without the URL, whose query
/// may hold what must not be logged.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
