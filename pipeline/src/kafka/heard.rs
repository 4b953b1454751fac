//! What the clients of a bus said last about their connections: the call that
//! fails later knows only that no broker answered, not why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Statistics};

/// What was said longer ago explains nothing any more.
const FRESH: Duration = Duration::from_secs(60);

/// A line that comes again within this time says nothing new.
const AGAIN: Duration = Duration::from_secs(30);
/// Lines that are remembered, at most.
const LINES: usize = 100;

/// What the clients of a bus have logged, shared by all of them.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// The last reason why a connection failed.
    failed: Option<(Instant, String)>,
    /// When each line was last let through.
    told: HashMap<String, Instant>,
}

/// A line without the thread that tells it: `[thrd:main]: 1/1 brokers are down`.
fn text(line: &str) -> &str {
    line.split_once("]: ").map_or(line, |(_, text)| text)
}

/// A reason with the broker's address alone: by its role (`bootstrap`, a number,
/// `GroupCoordinator`) one broker that is away has several names, and each would
/// be told as a failure of its own.
fn address(reason: &str) -> String {
    let role = |text: &str| text == "bootstrap" || text.bytes().all(|b| b.is_ascii_digit());
    let reason = match reason.split_once(": ") {
        Some((name, rest)) if name.ends_with("Coordinator") => rest,
        _ => reason,
    };
    match reason.split_once(": ") {
        Some((name, why)) => match name.rsplit_once('/') {
            Some((host, text)) if role(text) => format!("{host}: {why}"),
            _ => reason.to_owned(),
        },
        None => reason.to_owned(),
    }
}

impl Heard {
    /// Why the connection failed, in librdkafka's words, if that was lately.
    pub fn reason(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = heard.failed.as_ref()?;
        (at.elapsed() < FRESH).then(|| reason.clone())
    }

    /// Takes in a line of a client's log: `[thrd:…]: host:port/1: Connect to …
    /// failed: Connection refused (after 0ms in state CONNECT)`. Says whether it
    /// is about a connection.
    pub(super) fn note(&self, level: RDKafkaLogLevel, facility: &str, line: &str) -> bool {
        if facility != "FAIL" {
            return false;
        }
        if !matches!(
            level,
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Debug
        ) {
            let told = text(line).split(" (after ").next().unwrap_or_default();
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.failed = Some((Instant::now(), address(told.trim())));
        }
        true
    }

    /// Whether the line was let through lately. While a broker is away a client
    /// says the same hundreds of times a second.
    fn again(&self, line: &str, now: Instant) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: &Instant| now.duration_since(*at) < AGAIN;
        if heard.told.get(text(line)).is_some_and(fresh) {
            return true;
        }
        if heard.told.len() >= LINES {
            heard.told.retain(|_, at| fresh(at));
        }
        if heard.told.len() < LINES {
            heard.told.insert(text(line).to_owned(), now);
        }
        false
    }
}

/// A client's context that logs what matters: the end of a partition, which
/// rdkafka reports as an error, is none.
#[derive(Debug, Clone, Default)]
pub struct Quiet(pub(super) Heard);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(&self.0, level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// Logs a line of a client's own log. Connections come and go, and each call
/// that fails by it tells why: here they are for who looks closely, as is what
/// was said a moment ago.
pub(super) fn log(heard: &Heard, level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    if heard.note(level, facility, line) || heard.again(line, Instant::now()) {
        tracing::debug!(target: "librdkafka", facility, "{line}");
        return;
    }
    match level {
        Emerg | Alert | Critical | Error => {
            tracing::error!(target: "librdkafka", facility, "{line}");
        }
        Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        Notice | Info => tracing::info!(target: "librdkafka", facility, "{line}"),
        Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// Logs what a client reports outside of any call.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        _ if matches!(error, KafkaError::PartitionEOF(_)) => {}
        // Told by every call that meets it, and here again and again.
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            tracing::debug!(%error, reason, "Kafka");
        }
        _ => tracing::warn!(%error, reason, "Kafka"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_of_a_connection_is_kept() {
        let heard = Heard::default();
        assert!(!heard.note(
            RDKafkaLogLevel::Error,
            "FATAL",
            "[thrd:main]: no connection"
        ));
        assert_eq!(heard.reason(), None);
        let line = "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to \
                    ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert!(heard.note(RDKafkaLogLevel::Error, "FAIL", line));
        let reason = "127.0.0.1:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(heard.reason().as_deref(), Some(reason));
        // The same broker under its other names.
        for name in [
            "127.0.0.1:1/7",
            "GroupCoordinator: 127.0.0.1:1",
            "GroupCoordinator: 127.0.0.1:1/7",
        ] {
            let line = line.replace("]: 127.0.0.1:1/bootstrap", &format!("]: {name}"));
            assert!(heard.note(RDKafkaLogLevel::Error, "FAIL", &line));
            assert_eq!(heard.reason().as_deref(), Some(reason), "{line}");
        }
        let tls = "sasl_ssl://k:9/bootstrap: SSL handshake failed";
        assert_eq!(address(tls), "sasl_ssl://k:9: SSL handshake failed");
        assert_eq!(address("no name"), "no name");
        // An idle connection that is closed is no failure.
        assert!(heard.note(RDKafkaLogLevel::Info, "FAIL", "[thrd:x]: x: Disconnected"));
        assert_eq!(heard.reason().as_deref(), Some(reason));
    }

    #[test]
    fn a_line_is_told_again_only_after_a_while() {
        let heard = Heard::default();
        let now = Instant::now();
        assert!(!heard.again("[thrd:main]: 1/1 brokers are down", now));
        assert!(heard.again("[thrd:app]: 1/1 brokers are down", now + AGAIN / 2));
        assert!(!heard.again("[thrd:main]: another", now + AGAIN / 2));
        assert!(!heard.again("[thrd:main]: 1/1 brokers are down", now + AGAIN));
        // Never more lines in memory than that; what finds no room is told.
        for number in 0..2 * LINES {
            assert!(!heard.again(&format!("[thrd:main]: {number}"), now));
        }
        assert_eq!(heard.0.lock().expect("lock").told.len(), LINES);
    }
}
