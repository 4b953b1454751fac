//! Dead letters: records that could not go on, each with its cause, kept in
//! the topic `deadletter` until they succeed. The live ones are the records
//! that are not in the target.

mod live;
mod mask;
mod share;

pub use live::LiveLetters;
pub use share::FailureShare;

use base64::Engine;
use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::kafka::Place;
use crate::kafka::producer::Record;
use crate::record::{CanonicalKey, Millis, Order};
use crate::spec::Stage;

/// The value of a dead letter: JSON, readable with any Kafka tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The stage that gave up.
    pub stage: Stage,
    /// The record's key: raw in an extractor or transformer, canonical in a loader.
    pub key: String,
    /// The object in the source, where the key has one.
    pub object: String,
    /// Drover's code.
    pub code: String,
    /// The other system's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_code: Option<String>,
    /// How the code's failures are treated: `record` as a rule.
    #[serde(default)]
    pub class: String,
    /// What happened, without any value of the record.
    pub message: String,
    /// The field or place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Where the record lies.
    pub topic: String,
    /// Where the record lies.
    pub partition: i32,
    /// Where the record lies.
    pub offset: i64,
    /// The source's version of the record.
    pub version: Millis,
    /// A loader's record's order, for a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// When it was written, by our clock.
    pub at: Millis,
    /// The parent that never comes, where that is the cause: should it come
    /// after all, the record is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<CanonicalKey>,
    /// How often this version has failed, from 1.
    #[serde(default = "first")]
    pub attempt: u32,
    /// When this version failed first, or an older one by the same cause since
    /// which none succeeded, or when it began to wait for a parent that never
    /// comes, by our clock.
    #[serde(default)]
    pub first_seen: Millis,
    /// The connector that gave up.
    #[serde(default)]
    pub connector: String,
    /// The process that gave up.
    #[serde(default)]
    pub instance: String,
    /// The record itself, base64 of its envelope (or of the foreign bytes).
    pub value: String,
}

fn first() -> u32 {
    1
}

/// Which process writes a letter.
#[derive(Debug, Clone)]
pub struct Author {
    /// Its stage.
    pub stage: Stage,
    /// Its connector's name.
    pub connector: String,
    /// Its own name.
    pub instance: String,
}

/// Where a record lies, for its dead letter.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Topic and partition.
    pub place: Place,
    /// Offset.
    pub offset: i64,
}

impl DeadLetter {
    /// A dead letter of a record.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        author: &Author,
        key: &str,
        error: &Error,
        origin: &Origin,
        version: Millis,
        order: Option<Order>,
        at: Millis,
        value: &[u8],
    ) -> Self {
        DeadLetter {
            stage: author.stage,
            key: key.to_owned(),
            object: key.split('/').nth(1).unwrap_or_default().to_owned(),
            code: error.code.as_str().to_owned(),
            source_code: error.source_code.clone(),
            class: error.class().as_str().to_owned(),
            message: mask::mask(&error.message, value, key),
            place: error.place.clone(),
            topic: origin.place.topic.clone(),
            partition: origin.place.partition,
            offset: origin.offset,
            version,
            order,
            at,
            waits_for: None,
            attempt: first(),
            first_seen: at,
            connector: author.connector.clone(),
            instance: author.instance.clone(),
            value: base64::engine::general_purpose::STANDARD.encode(value),
        }
    }

    /// Takes the values of a body out of the message that does not lie in the
    /// letter, because it lies in the object store.
    pub(crate) fn mask_body(&mut self, schema: &str, body: &[u8]) {
        self.message = mask::mask_body(&self.message, schema, Some(body), &self.key);
    }

    /// The key in the topic: `loader/salesforce/Contact/003…#contact`.
    pub fn topic_key(&self) -> String {
        topic_key(self.stage, &self.key)
    }

    /// The value in the topic.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The record's envelope (or the foreign bytes); `None` when it was altered.
    pub fn envelope(&self) -> Option<Vec<u8>> {
        base64::engine::general_purpose::STANDARD
            .decode(&self.value)
            .ok()
    }

    /// The headers that Kafka Connect's tools read (KIP-298 lists the names),
    /// and ours. None holds anything of the record but its key and place.
    pub fn headers(&self) -> OwnedHeaders {
        let program = format!("drover-{}-{}", self.stage.as_str(), self.connector);
        let origin = format!("{}/{}@{}", self.topic, self.partition, self.offset);
        [
            ("__connect.errors.topic", self.topic.clone()),
            ("__connect.errors.partition", self.partition.to_string()),
            ("__connect.errors.offset", self.offset.to_string()),
            ("__connect.errors.connector.name", self.connector.clone()),
            ("__connect.errors.task.id", self.instance.clone()),
            ("__connect.errors.stage", self.stage.as_str().to_owned()),
            ("__connect.errors.class.name", program),
            ("__connect.errors.exception.class.name", self.code.clone()),
            ("__connect.errors.exception.message", self.message.clone()),
            ("drover.errors.code", self.code.clone()),
            ("drover.errors.class", self.class.clone()),
            ("drover.errors.stage", self.stage.as_str().to_owned()),
            ("drover.errors.attempt", self.attempt.to_string()),
            ("drover.errors.first-seen", self.first_seen.to_string()),
            ("drover.errors.origin", origin),
        ]
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}

/// The key of a record's dead letter in the topic.
pub fn topic_key(stage: Stage, key: &str) -> String {
    format!("{}/{key}", stage.as_str())
}

/// A record of the dead-letter topic, in the partition of the record itself, so
/// that the owner of the one is the owner of the other.
pub fn record<'a>(
    topic: &'a str,
    partition: i32,
    key: &'a str,
    value: Option<&'a [u8]>,
    headers: Option<OwnedHeaders>,
) -> Record<'a> {
    Record {
        topic,
        partition: Some(partition),
        key: key.as_bytes(),
        value,
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    pub(super) fn letter(version: Millis) -> DeadLetter {
        let origin = Origin {
            place: Place::new("t", 1),
            offset: 9,
        };
        let error = Error::new(Code::TooLong, "`Elisabeth` has 9 characters, at most 5")
            .at("Contact.Email");
        let author = Author {
            stage: Stage::Transformer,
            connector: "mapper".into(),
            instance: "transformer-1".into(),
        };
        DeadLetter::new(
            &author,
            "salesforce/Contact/1",
            &error,
            &origin,
            version,
            None,
            5,
            br#"{"LastName":"Elisabeth"}"#,
        )
    }

    #[test]
    fn tools_of_connect_can_read_it() {
        use rdkafka::message::Headers;
        let headers = letter(1).headers();
        let pairs: Vec<(&str, &str)> = headers
            .iter()
            .map(|h| {
                (
                    h.key,
                    std::str::from_utf8(h.value.unwrap_or_default()).unwrap_or("?"),
                )
            })
            .collect();
        // KIP-298's list, but for the stack trace, and then ours.
        let expected = [
            ("__connect.errors.topic", "t"),
            ("__connect.errors.partition", "1"),
            ("__connect.errors.offset", "9"),
            ("__connect.errors.connector.name", "mapper"),
            ("__connect.errors.task.id", "transformer-1"),
            ("__connect.errors.stage", "transformer"),
            ("__connect.errors.class.name", "drover-transformer-mapper"),
            ("__connect.errors.exception.class.name", "TOO_LONG"),
            (
                "__connect.errors.exception.message",
                "`…` has 9 characters, at most 5",
            ),
            ("drover.errors.code", "TOO_LONG"),
            ("drover.errors.class", "record"),
            ("drover.errors.stage", "transformer"),
            ("drover.errors.attempt", "1"),
            ("drover.errors.first-seen", "5"),
            ("drover.errors.origin", "t/1@9"),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(letter(1).object, "Contact");
    }

    #[test]
    fn a_letter_of_an_older_drover_is_read() {
        let mut old = serde_json::to_value(letter(1)).unwrap_or_default();
        for field in ["attempt", "firstSeen", "connector", "instance", "class"] {
            assert!(
                old.as_object_mut()
                    .is_some_and(|o| o.remove(field).is_some()),
                "{field}"
            );
        }
        let letter: DeadLetter = serde_json::from_value(old).expect("it parses");
        assert_eq!(letter.attempt, 1);
    }
}
