//! Waivers: what a person has decided to leave out of the target. They lie in
//! the topic `control`, under `waiver/<stage>/<key>`.
//!
//! A waiver names one failure, not a key: the record's version, what it holds,
//! and the code. A new failure of the same key, of another version, with another
//! content or another code, is not covered by it. The same content read or
//! mapped anew is: a restart or `drover remap` asks nobody a second time.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::deadletter::{DeadLetter, topic_key};
use crate::envelope::Envelope;
use crate::error::Result;
use crate::kafka::client::Client;
use crate::kafka::compacted::read_to_end;
use crate::record::{Fingerprint, Millis, Op, Order};
use crate::spec::Stage;
use crate::topics::Topics;

/// What the keys of waivers in `control` start with.
pub const PREFIX: &str = "waiver/";

/// What went wrong with a record: what tells one dead letter of a key from the
/// next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The stage that gave up.
    pub stage: Stage,
    /// The record's key, as in its letter.
    pub key: String,
    /// The record's version, as in its letter.
    pub version: Millis,
    /// A loader's record's order. Counts only where the content is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// What the record held; not known where the letter does not hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Fingerprint>,
    /// The letter's code.
    pub code: String,
}

impl Failure {
    /// What that letter tells.
    pub fn of(letter: &DeadLetter) -> Self {
        let bytes = letter.envelope().filter(|bytes| !bytes.is_empty());
        Failure {
            stage: letter.stage,
            key: letter.key.clone(),
            version: letter.version,
            order: letter.order,
            content: bytes.map(|bytes| match Envelope::decode(&bytes) {
                Ok(envelope) => envelope.fingerprint,
                Err(_) => Fingerprint::of(Op::Upsert, "", &bytes),
            }),
            code: letter.code.clone(),
        }
    }

    /// Whether it is the same one, wherever the record lay and whenever it was
    /// read.
    pub fn is(&self, other: &Failure) -> bool {
        self.stage == other.stage
            && self.key == other.key
            && self.version == other.version
            && self.code == other.code
            && match (self.content, other.content) {
                (Some(one), Some(other)) => one == other,
                _ => self.order == other.order,
            }
    }
}

/// One dead letter that a person has decided to leave as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    /// What was waived.
    #[serde(flatten)]
    pub failure: Failure,
    /// Why, in a person's words.
    pub reason: String,
    /// Who decided it.
    pub actor: String,
    /// When, by the clock of the one who decided.
    pub at: Millis,
}

impl Waiver {
    /// A waiver of that letter.
    pub fn of(letter: &DeadLetter, reason: &str, actor: &str, at: Millis) -> Self {
        Waiver {
            failure: Failure::of(letter),
            reason: reason.to_owned(),
            actor: actor.to_owned(),
            at,
        }
    }

    /// The key in `control` under which it lies.
    pub fn control_key(&self) -> String {
        let letter = topic_key(self.failure.stage, &self.failure.key);
        format!("{PREFIX}{letter}")
    }
}

/// All waivers of a migration.
#[derive(Debug, Clone, Default)]
pub struct Waivers {
    by_letter: HashMap<String, Waiver>,
}

impl Waivers {
    /// Reads them from `control`.
    pub fn read(client: &Client, topics: &Topics) -> Result<Self> {
        let mut waivers = Waivers::default();
        for (key, value) in read_to_end(client, &topics.control())? {
            waivers.note(&key, Some(&value));
        }
        Ok(waivers)
    }

    /// Notes a record of `control`; what is no waiver is passed over.
    pub fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(letter) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.strip_prefix(PREFIX))
        else {
            return;
        };
        match value.and_then(|value| serde_json::from_slice(value).ok()) {
            Some(waiver) => self.by_letter.insert(letter.to_owned(), waiver),
            None => self.by_letter.remove(letter),
        };
    }

    /// The waiver of this failure.
    pub fn of(&self, failure: &Failure) -> Option<&Waiver> {
        self.by_letter
            .get(&topic_key(failure.stage, &failure.key))
            .filter(|waiver| waiver.failure.is(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::testing;

    fn letter(version: Millis, offset: i64, code: Code, held: &[u8]) -> DeadLetter {
        let order = Order {
            version,
            offset,
            ..Order::default()
        };
        DeadLetter {
            order: Some(order),
            ..testing::letter("salesforce/Contact/1#contact", code, version, held)
        }
    }

    #[test]
    fn a_waiver_covers_that_failure_and_no_other() {
        let waived = letter(7, 3, Code::TargetRefused, b"x");
        let waiver = Waiver::of(&waived, "agreed with sales", "ann", 9);
        let key = waiver.control_key();
        assert_eq!(key, "waiver/loader/salesforce/Contact/1#contact");
        let mut waivers = Waivers::default();
        let value = serde_json::to_vec(&waiver).expect("JSON");
        waivers.note(key.as_bytes(), Some(&value));
        waivers.note(b"plan", Some(b"{}"));
        let of = |waivers: &Waivers, letter: &DeadLetter| waivers.of(&Failure::of(letter)).cloned();
        assert_eq!(of(&waivers, &waived), Some(waiver.clone()));
        let again = DeadLetter {
            attempt: 2,
            at: 99,
            ..waived.clone()
        };
        assert_eq!(
            of(&waivers, &again),
            Some(waiver.clone()),
            "the same one, tried again"
        );
        let read_anew = letter(7, 4, Code::TargetRefused, b"x");
        assert_eq!(of(&waivers, &read_anew), Some(waiver), "the same content");
        for other in [
            letter(8, 3, Code::TargetRefused, b"x"),
            letter(7, 4, Code::TargetRefused, b"y"),
            letter(7, 3, Code::TooLong, b"x"),
            // Of one that is too large nobody knows whether it is the same.
            letter(7, 4, Code::TargetRefused, b""),
            DeadLetter {
                stage: Stage::Transformer,
                ..waived.clone()
            },
        ] {
            assert_eq!(of(&waivers, &other), None, "{other:?}");
        }
        waivers.note(key.as_bytes(), None);
        assert_eq!(of(&waivers, &waived), None);
    }
}
