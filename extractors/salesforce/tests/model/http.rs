//! HTTP/1.1 as far as the extractor speaks it, by hand, so that an answer can
//! be cut anywhere.

use std::sync::Arc;

use drover_pipeline::http::{Answer, Server};
use drover_pipeline::{Code, Error};
use reqwest::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub token: Option<String>,
    pub body: String,
    /// Of path and query, as they were sent.
    pub length: usize,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// An answer: status, content type, `Date`, body.
    Answer(u16, &'static str, String, String),
    /// A page of a file: `Date`, rows, the next page's locator, body.
    File(String, usize, String, String),
    /// The connection is closed without an answer.
    Cut,
    /// The answer's head and half of its body, then the connection is closed.
    Half(String, String),
}

/// Serves on a free port of this machine and gives its address.
pub async fn serve<F>(handle: F) -> String
where
    F: Fn(Request) -> Reply + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let handle = Arc::new(handle);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move { connection(stream, &*handle).await });
        }
    });
    format!("http://{address}")
}

async fn connection(mut stream: TcpStream, handle: &(impl Fn(Request) -> Reply + Send + Sync)) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let (text, close) = match handle(request) {
            Reply::Answer(status, kind, date, body) => {
                (head(status, kind, &date, body.len()) + &body, false)
            }
            Reply::File(date, rows, locator, body) => {
                let more =
                    format!("sforce-numberofrecords: {rows}\r\nsforce-locator: {locator}\r\n");
                let head = head(200, "text/csv", &date, body.len());
                (
                    format!("{}{more}\r\n{body}", &head[..head.len() - 2]),
                    false,
                )
            }
            Reply::Cut => (String::new(), true),
            Reply::Half(date, body) => {
                let half = (0..=body.len() / 2)
                    .rev()
                    .find(|at| body.is_char_boundary(*at))
                    .unwrap_or(0);
                (head(200, JSON, &date, body.len()) + &body[..half], true)
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

/// The API's content type.
pub const JSON: &str = "application/json;charset=UTF-8";

fn head(status: u16, kind: &str, date: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let header = |name: &str| {
                head.lines()
                    .filter_map(|line| line.split_once(": "))
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_owned())
            };
            let length: usize =
                header("content-length").map_or(0, |n| n.parse().expect("a length"));
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                let mut first = head.lines().next()?.split(' ');
                let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                return Some(Request {
                    length: target.len(),
                    method,
                    path: path.to_owned(),
                    query: form(query),
                    token: header("authorization")
                        .and_then(|h| h.strip_prefix("Bearer ").map(str::to_owned)),
                    body,
                });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A server without a network.
pub struct InProcess<F>(pub F);

impl<F: Fn(Request) -> Reply + Send + Sync> Server for InProcess<F> {
    fn answer(&self, request: reqwest::Request) -> Result<Answer, Error> {
        let header = |name: &str| request.headers().get(name)?.to_str().ok();
        let asked = Request {
            length: request.url().as_str().len(),
            method: request.method().to_string(),
            path: request.url().path().to_owned(),
            query: form(request.url().query().unwrap_or_default()),
            token: header("authorization")
                .and_then(|h| h.strip_prefix("Bearer ").map(str::to_owned)),
            body: request
                .body()
                .and_then(|body| body.as_bytes())
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default(),
        };
        let lost = || Error::new(Code::AnswerLost, "the connection was cut");
        let (status, headers, body) = match self.0(asked) {
            Reply::Cut | Reply::Half(..) => return Err(lost()),
            Reply::Answer(status, kind, date, body) => (
                status,
                vec![("content-type", kind.to_owned()), ("date", date)],
                body,
            ),
            Reply::File(date, rows, locator, body) => {
                let headers = vec![
                    ("content-type", "text/csv".to_owned()),
                    ("date", date),
                    ("sforce-numberofrecords", rows.to_string()),
                    ("sforce-locator", locator),
                ];
                (200, headers, body)
            }
        };
        let headers = headers
            .into_iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(&value).expect("a header");
                (HeaderName::from_static(name), value)
            })
            .collect();
        Ok(Answer {
            status,
            headers,
            body: body.into_bytes(),
        })
    }
}

/// The pairs of a form or query.
pub fn form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).expect("hex"));
                at += 2;
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).expect("UTF-8")
}
