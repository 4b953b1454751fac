//! Drover's use of Kafka, in one place: client settings ([`client`]), reading a
//! compacted topic as a table ([`compacted`]), a group's assignment
//! ([`consumer`]), a group seen from outside ([`group`]) and transactions ([`producer`]).

pub mod client;
pub mod compacted;
pub mod consumer;
pub mod continuity;
pub mod group;
mod heard;
pub mod outage;
pub mod peek;
pub mod producer;

// Only to be linked: it mends librdkafka.
use drover_librdkafka as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{Code, Error};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl Place {
    /// That partition of that topic.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Place {
            topic: topic.into(),
            partition,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// Kafka's error in Drover's terms; `doing` says what we were about.
pub fn explain(doing: &str, error: &KafkaError) -> Error {
    let code = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::MessageTimedOut,
        ) => Code::BrokerUnreachable,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => Code::TopicMissing,
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::Fatal,
        ) => Code::Fenced,
        Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
            Code::RecordsLost
        }
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Code::TooLarge,
        Some(
            RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::ConcurrentTransactions
            | RDKafkaErrorCode::NotEnoughReplicas
            | RDKafkaErrorCode::NotEnoughReplicasAfterAppend
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::Unknown
            | RDKafkaErrorCode::KafkaStorageError
            | RDKafkaErrorCode::UnstableOffsetCommit
            | RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::QueueFull,
        ) => Code::KafkaBusy,
        _ => Code::KafkaRefused,
    };
    let mut explained = Error::new(code, format!("{doing}: {error}"));
    if let Some(code) = error.rdkafka_error_code() {
        explained = explained.source_code(format!("{code:?}"));
    }
    explained
}
