//! Dead letters: records that could not go on, each with its cause, kept in
//! the topic `deadletter` until they succeed. The live ones are the records
//! that are not in the target.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
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
    /// What happened.
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
    /// The record itself, base64 of its envelope (or of the foreign bytes).
    pub value: String,
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
        stage: Stage,
        key: &str,
        error: &Error,
        origin: &Origin,
        version: Millis,
        order: Option<Order>,
        at: Millis,
        value: &[u8],
    ) -> Self {
        DeadLetter {
            stage,
            key: key.to_owned(),
            object: key.split('/').nth(1).unwrap_or_default().to_owned(),
            code: error.code.as_str().to_owned(),
            source_code: error.source_code.clone(),
            message: error.message.clone(),
            place: error.place.clone(),
            topic: origin.place.topic.clone(),
            partition: origin.place.partition,
            offset: origin.offset,
            version,
            order,
            at,
            waits_for: None,
            value: base64::engine::general_purpose::STANDARD.encode(value),
        }
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

    /// The headers that Kafka Connect's tools read.
    pub fn headers(&self) -> OwnedHeaders {
        [
            ("__connect.errors.topic", self.topic.clone()),
            ("__connect.errors.partition", self.partition.to_string()),
            ("__connect.errors.offset", self.offset.to_string()),
            ("__connect.errors.stage", self.stage.as_str().to_owned()),
            ("__connect.errors.exception.class.name", self.code.clone()),
            ("__connect.errors.exception.message", self.message.clone()),
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

/// The live dead letters of one stage, so that a success can take its own back.
///
/// Follows the topic; that it may lag behind is harmless: at worst a tombstone
/// is written once more.
#[derive(Debug)]
pub struct LiveLetters {
    prefix: String,
    versions: Mutex<HashMap<String, Millis>>,
}

impl LiveLetters {
    /// Those of that stage.
    pub fn of(stage: Stage) -> Self {
        LiveLetters {
            prefix: format!("{}/", stage.as_str()),
            versions: Mutex::default(),
        }
    }

    /// Notes what the topic says about a key.
    pub fn note(&self, topic_key: &[u8], value: Option<&[u8]>) {
        let Some(key) = std::str::from_utf8(topic_key)
            .ok()
            .and_then(|key| key.strip_prefix(&self.prefix))
        else {
            return;
        };
        let mut versions = self.lock();
        match value.and_then(|value| serde_json::from_slice::<DeadLetter>(value).ok()) {
            Some(letter) => {
                versions.insert(key.to_owned(), letter.version);
            }
            None => {
                versions.remove(key);
            }
        }
    }

    /// Whether a success of that version takes back a live dead letter.
    pub fn clears(&self, key: &str, version: Millis) -> bool {
        self.lock().get(key).is_some_and(|dead| *dead <= version)
    }

    /// Whether a live dead letter is of a newer version than that.
    pub fn is_newer(&self, key: &str, version: Millis) -> bool {
        self.lock().get(key).is_some_and(|dead| *dead > version)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Millis>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops a lane whose records fail too often: 5 % of the last 1,000.
#[derive(Debug, Default)]
pub struct FailureShare {
    window: std::collections::VecDeque<bool>,
    failures: usize,
}

impl FailureShare {
    const WINDOW: usize = 1000;
    const MOST: usize = 50;

    /// Notes an outcome; an error when failures take more than their share.
    pub fn note(&mut self, failed: bool) -> Result<(), Error> {
        self.window.push_back(failed);
        self.failures += usize::from(failed);
        if self.window.len() > Self::WINDOW && self.window.pop_front() == Some(true) {
            self.failures -= 1;
        }
        if self.failures > Self::MOST {
            return Err(Error::new(
                Code::TooManyDeadLetters,
                format!(
                    "{} of the last {} records failed",
                    self.failures,
                    self.window.len()
                ),
            ));
        }
        Ok(())
    }
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

    fn letter(version: Millis) -> DeadLetter {
        let origin = Origin {
            place: Place::new("t", 1),
            offset: 9,
        };
        let error = Error::new(Code::TooLong, "300 characters, at most 255").at("Contact.Email");
        DeadLetter::new(
            Stage::Transformer,
            "salesforce/Contact/1",
            &error,
            &origin,
            version,
            None,
            5,
            b"x",
        )
    }

    #[test]
    fn a_success_takes_back_only_what_is_not_newer() {
        let live = LiveLetters::of(Stage::Transformer);
        let dead = letter(7);
        live.note(dead.topic_key().as_bytes(), Some(&dead.to_json()));
        assert!(!live.clears("salesforce/Contact/1", 6));
        assert!(live.clears("salesforce/Contact/1", 7));
        live.note(dead.topic_key().as_bytes(), None);
        assert!(!live.clears("salesforce/Contact/1", 7));
        live.note(b"loader/salesforce/Contact/1", Some(&dead.to_json()));
        assert!(!live.clears("salesforce/Contact/1", 7));
    }

    #[test]
    fn a_lane_stops_above_five_per_cent_of_the_last_thousand() {
        let mut share = FailureShare::default();
        for n in 0..2000 {
            assert!(share.note(n % 20 == 0).is_ok(), "{n}");
        }
        let refused = (0..1000).find_map(|_| share.note(true).err());
        assert_eq!(refused.map(|e| e.code), Some(Code::TooManyDeadLetters));
    }

    #[test]
    fn tools_of_connect_can_read_it() {
        use rdkafka::message::Headers;
        let headers = letter(1).headers();
        let names: Vec<&str> = headers.iter().map(|h| h.key).collect();
        assert!(names.contains(&"__connect.errors.topic"));
        assert!(names.contains(&"__connect.errors.exception.message"));
        assert_eq!(letter(1).object, "Contact");
    }
}
