//! What the clients of a bus said last about their connections: the call that
//! fails later knows only that no broker answered, not why.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Statistics};

/// What was said longer ago explains nothing any more.
const FRESH: Duration = Duration::from_secs(60);

/// The last reason why a connection failed, shared by all clients of a bus.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Option<(Instant, String)>>>);

impl Heard {
    /// Why the connection failed, in librdkafka's words, if that was lately.
    pub fn reason(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = heard.as_ref()?;
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
            let told = line.split_once("]: ").map_or(line, |(_, told)| told);
            let told = told.split(" (after ").next().unwrap_or(told);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Instant::now(), told.trim().to_owned()));
        }
        true
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
/// that fails by it tells why: here they are for who looks closely.
pub(super) fn log(heard: &Heard, level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    if heard.note(level, facility, line) {
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
        let reason =
            "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(heard.reason().as_deref(), Some(reason));
        // An idle connection that is closed is no failure.
        assert!(heard.note(RDKafkaLogLevel::Info, "FAIL", "[thrd:x]: x: Disconnected"));
        assert_eq!(heard.reason().as_deref(), Some(reason));
    }
}
