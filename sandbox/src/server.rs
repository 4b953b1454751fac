//! The server around a system: reads requests, counts them, lets faults
//! happen, and closes connections when they say so.

use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use flate2::read::GzDecoder;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::control::{self, Requests, whole};
use crate::exchange::{Answer, Call};
use crate::faults::{Fault, Faults, Kind};
use crate::system::{Refusal, System};

/// The largest request body.
const LARGEST: usize = 256 << 20;
/// Pieces of a slow body, and the time between them.
const SLOW_PIECES: usize = 20;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// One system behind one address.
#[derive(Debug)]
pub struct Server {
    /// The system.
    pub system: Arc<dyn System>,
    /// What goes wrong.
    pub faults: Faults,
    /// What was asked.
    pub requests: Requests,
    /// The time every answer takes.
    pub latency: Duration,
}

/// Serves a system until the process ends. Names of headers are written as the
/// real hosts write them, `Content-Type`: there are clients that look for it in
/// their own spelling, and so work by chance with the one and not with the other.
pub async fn serve(server: Arc<Server>, listener: TcpListener) -> std::io::Result<()> {
    let mut http = http1::Builder::new();
    http.title_case_headers(true);
    loop {
        let stream = accept(&listener).await;
        let connection = Connection(stream.cut.clone());
        let (server, http) = (server.clone(), http.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (server, connection) = (server.clone(), connection.clone());
                let request = request.map(Body::new);
                async move { Ok::<_, Infallible>(answer(server, connection, request).await) }
            });
            // It ends when either side closes it; a cut one with an error.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(server: Arc<Server>, connection: Connection, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LARGEST).await else {
        return whole(Answer::empty(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let packed = parts.headers.get("content-encoding");
    // Some clients say so of a request without a body, too.
    let body = match packed.is_some_and(|packing| packing == "gzip") && !body.is_empty() {
        true => match unpacked(&body) {
            Some(body) => body,
            None => return whole(Answer::empty(StatusCode::BAD_REQUEST)),
        },
        false => body,
    };
    let call = Call {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    if call.path.trim_start_matches('/').split('/').next() == Some(control::PREFIX) {
        return control::answer(&server.system, &server.faults, &server.requests, &call);
    }
    if !server.latency.is_zero() {
        tokio::time::sleep(server.latency).await;
    }
    let fault = server.faults.hit(&call);
    let label = server.system.label(&call);
    let method = call.method.clone();
    if fault
        .as_ref()
        .is_some_and(|fault| fault.kind == Kind::CutBefore)
    {
        server.requests.count(label, &method, 0);
        connection.cut();
        return whole(Answer::empty(StatusCode::OK));
    }
    let answered = made(server.clone(), call, fault.clone()).await;
    server
        .requests
        .count(label, &method, answered.status.as_u16());
    match fault.map(|fault| fault.kind) {
        Some(Kind::CutAfter) => cut_after(answered, connection),
        Some(Kind::Slow) => slow(answered),
        _ => whole(answered),
    }
}

/// A body that came packed by gzip; nothing if it is none, or too large.
fn unpacked(body: &[u8]) -> Option<Bytes> {
    let mut plain = Vec::new();
    let most = LARGEST as u64 + 1;
    let read = GzDecoder::new(body).take(most).read_to_end(&mut plain);
    read.ok().filter(|length| *length <= LARGEST)?;
    Some(plain.into())
}

/// The answer of the system, or what a fault makes of it.
async fn made(server: Arc<Server>, call: Call, fault: Option<Fault>) -> Answer {
    let retry_after = fault.as_ref().and_then(|fault| fault.retry_after_s);
    let refusal = match fault.as_ref().map(|fault| fault.kind) {
        Some(Kind::RateLimit) => Some(Refusal::RateLimit),
        Some(Kind::ServerError) => Some(Refusal::ServerError),
        Some(Kind::HtmlPage) => Some(Refusal::HtmlPage),
        Some(Kind::NotJson) => Some(Refusal::NotJson),
        Some(Kind::LostScope) => Some(Refusal::LostScope),
        Some(Kind::ExpiredToken) => {
            server.system.expire(&call);
            None
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        return server.system.refuse(refusal, &call, retry_after);
    }
    let packed = fault.is_none()
        && call
            .header("accept-encoding")
            .is_some_and(|accepted| accepted.contains("gzip"));
    // Large answers take a while; others shall not wait for them.
    let system = server.system.clone();
    let aborted = match fault.as_ref().map(|fault| fault.kind) {
        Some(Kind::JobFailed) => Some(false),
        Some(Kind::JobAborted) => Some(true),
        _ => None,
    };
    let answered = move || {
        let Some(aborted) = aborted else {
            let answer = system.answer(&call);
            return if packed { answer.packed() } else { answer };
        };
        let named = system.end_job(&call, None, aborted);
        let answer = system.answer(&call);
        if !named {
            system.end_job(&call, Some(&answer), aborted);
        }
        answer
    };
    let mut answer = tokio::task::spawn_blocking(answered)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "a request failed");
            Answer::empty(StatusCode::INTERNAL_SERVER_ERROR)
        });
    if fault.is_some_and(|fault| fault.kind == Kind::Truncated) {
        let half = answer.body.len() / 2;
        answer.body.truncate(half);
    }
    answer
}

/// Half of the body, then the end of the connection.
fn cut_after(answer: Answer, connection: Connection) -> Response {
    let length = answer.body.len();
    let half = answer.body.slice(..length / 2);
    let pieces = futures::stream::unfold(0, move |step| {
        let (half, connection) = (half.clone(), connection.clone());
        async move {
            if step == 0 {
                return Some((Ok(half), 1));
            }
            // The first half shall be on its way.
            tokio::time::sleep(Duration::from_millis(20)).await;
            connection.cut();
            Some((Err(std::io::Error::other("cut")), 2))
        }
    });
    streamed(
        answer.status,
        answer.headers,
        length,
        Body::from_stream(pieces),
    )
}

fn slow(answer: Answer) -> Response {
    let length = answer.body.len();
    let size = length.div_ceil(SLOW_PIECES).max(1);
    let body = answer.body;
    let pieces = futures::stream::unfold(0, move |from| {
        let body = body.clone();
        async move {
            if from >= body.len() {
                return None;
            }
            tokio::time::sleep(SLOW_PAUSE).await;
            let to = body.len().min(from + size);
            Some((Ok::<Bytes, std::io::Error>(body.slice(from..to)), to))
        }
    });
    streamed(
        answer.status,
        answer.headers,
        length,
        Body::from_stream(pieces),
    )
}

fn streamed(
    status: StatusCode,
    headers: axum::http::HeaderMap,
    length: usize,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
        .headers_mut()
        .insert("content-length", HeaderValue::from(length));
    response
}

/// A handle to close the connection a request came by.
#[derive(Clone, Debug)]
pub struct Connection(Arc<AtomicBool>);

impl Connection {
    /// Nothing more is written; the connection closes.
    fn cut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A connection that can be cut.
struct Stream {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

async fn accept(listener: &TcpListener) -> Stream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers shall not wait for more.
                let _ = stream.set_nodelay(true);
                let cut = Arc::default();
                return Stream { stream, cut };
            }
            // Out of descriptors, most likely: they come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Stream {
    fn check(&self) -> std::io::Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
