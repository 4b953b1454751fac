//! HTTP/1.1 as far as the extractor speaks it, by hand, so that an answer can
//! be cut anywhere.

use std::sync::Arc;

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
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// An answer: status, content type, `Date`, body.
    Answer(u16, &'static str, String, String),
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
