//! The plain data that flows through the pipeline. No I/O here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// Milliseconds since 1970 in UTC. Whose clock it is, the field's name says.
pub type Millis = i64;

/// Names a record of the source for ever: `source/object/id`.
///
/// The id may itself hold slashes; source and object may not, so the text
/// splits in only one way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawKey(String);

impl RawKey {
    /// Builds a key. Fails with [`Code::MissingId`] on an empty part, and with
    /// [`Code::Invariant`] on a slash in source or object.
    pub fn new(source: &str, object: &str, id: &str) -> Result<Self> {
        if source.is_empty() || object.is_empty() || id.is_empty() {
            return Err(Error::new(
                Code::MissingId,
                format!("a record of {source}/{object} has no id"),
            ));
        }
        if source.contains('/') || object.contains('/') {
            return Err(Error::new(
                Code::Invariant,
                format!("`{source}` or `{object}` holds a slash"),
            ));
        }
        Ok(RawKey(format!("{source}/{object}/{id}")))
    }

    /// Reads a key back from its text.
    pub fn parse(text: &str) -> Option<Self> {
        split(text).map(|_| RawKey(text.to_owned()))
    }

    /// The source's name, the object's, and the record's id.
    pub fn parts(&self) -> (&str, &str, &str) {
        split(&self.0).unwrap_or((&self.0, "", ""))
    }

    /// The key of one of the record's slots.
    pub fn slot(&self, slot: &str) -> CanonicalKey {
        CanonicalKey(format!("{}#{slot}", self.0))
    }

    /// The key as text, as it stands in Kafka.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (source, rest) = text.split_once('/')?;
    let (object, id) = rest.split_once('/')?;
    (!source.is_empty() && !object.is_empty() && !id.is_empty()).then_some((source, object, id))
}

impl fmt::Display for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one canonical output of a record: `source/object/id#slot`.
///
/// A slot's name holds no `#`, so the last one splits the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CanonicalKey(String);

impl CanonicalKey {
    /// Reads a key back from its text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_text(text.to_owned())
    }

    /// The same without a copy.
    pub fn from_text(text: String) -> Option<Self> {
        let (raw, slot) = text.rsplit_once('#')?;
        (split(raw).is_some() && !slot.is_empty()).then_some(CanonicalKey(text))
    }

    /// The keys that a reference names: one, or one for each slot that may be
    /// filled (`source/object/id#slot|slot`). None for a text that is no key.
    pub fn of_reference(text: &str) -> Vec<Self> {
        let Some((raw, slots)) = text.rsplit_once('#') else {
            return Vec::new();
        };
        slots
            .split('|')
            .filter_map(|slot| CanonicalKey::parse(&format!("{raw}#{slot}")))
            .collect()
    }

    /// The source's name, the object's, the record's id, and the slot's name.
    pub fn parts(&self) -> (&str, &str, &str, &str) {
        let (raw, slot) = self.0.rsplit_once('#').unwrap_or((&self.0, ""));
        let (source, object, id) = split(raw).unwrap_or((raw, "", ""));
        (source, object, id, slot)
    }

    /// The key as text, as it stands in Kafka.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a record's content is, so that equal content is known without reading
/// it: XXH3-128 of operation, schema and body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a content.
    pub fn of(op: Op, body_schema: &str, body: &[u8]) -> Self {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(&[op as u8]);
        hash.update(body_schema.as_bytes());
        hash.update(&[0]);
        hash.update(body);
        Fingerprint(hash.digest128().to_be_bytes())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16)
            .map(|value| Fingerprint(value.to_be_bytes()))
            .map_err(serde::de::Error::custom)
    }
}

/// What a record says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Op {
    /// The record stands as its body says.
    Upsert = 0,
    /// The source has deleted the record (raw only).
    Delete = 1,
    /// This slot has nothing (canonical only); the reason says why.
    Absent = 2,
}

/// Why a slot has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbsentReason {
    /// The source has deleted the record.
    Deleted,
    /// The mapping's filter leaves the record out.
    Filtered,
    /// The record has nothing for this slot.
    SlotEmpty,
}

impl AbsentReason {
    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AbsentReason::Deleted => "deleted",
            AbsentReason::Filtered => "filtered",
            AbsentReason::SlotEmpty => "slot-empty",
        }
    }
}

/// Whether a record was read by the first copy or by following changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// The first, whole copy of the object.
    Snapshot,
    /// A change read after it.
    Delta,
}

/// Where a version of a key stands among all versions of that key. Compared
/// as a whole, in the order of the fields (derived `Ord`); a key never goes
/// backwards in it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Order {
    /// The source's own version: its modification time in milliseconds.
    pub version: Millis,
    /// The generation of the mapping that made the canonical record.
    pub mapping: u32,
    /// The incarnation of the canonical topic that the offset belongs to.
    pub incarnation: u32,
    /// The offset in the canonical topic. Comparable because a key's partition
    /// never changes: `init` refuses another partition count.
    pub offset: i64,
    /// How often this very record was asked to be applied again (a link that
    /// became possible, a repair).
    #[serde(default)]
    pub reapply: u32,
}

impl Order {
    /// As five numbers, in the order of comparison; PostgreSQL's `bigint[]`
    /// compares in the same way.
    pub fn as_array(&self) -> [i64; 5] {
        [
            self.version,
            self.mapping.into(),
            self.incarnation.into(),
            self.offset,
            self.reapply.into(),
        ]
    }
}

/// A record as the source gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// Who it is.
    pub key: RawKey,
    /// Upsert or Delete.
    pub op: Op,
    /// The source's modification time.
    pub version: Millis,
    /// Snapshot or delta.
    pub phase: Phase,
    /// When we read it, by our clock.
    pub extracted_at: Millis,
    /// The source's JSON, byte for byte; `None` for a delete.
    pub body: Option<Vec<u8>>,
}

/// A record in the form that every target understands.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonical {
    /// Who it is.
    pub key: CanonicalKey,
    /// The canonical entity, which is also the topic: `contact`.
    pub entity: String,
    /// Upsert with a body, or Absent with a reason.
    pub content: Content,
    /// What is worth telling of it.
    pub told: Told,
}

/// What a transformer tells of a record beside its content, to be counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Filled fields without a mapping, which went to `custom`.
    pub custom: usize,
    /// What a person should look at, though the record goes on: a value without
    /// a map, a text that could not be read. Never a record's own text.
    pub remarks: Vec<String>,
}

/// What a canonical record holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The Avro datum of the entity's schema, and that schema's name (`contact.v1`).
    Upsert {
        /// The schema's name.
        schema: String,
        /// The datum.
        datum: Vec<u8>,
    },
    /// Nothing, and why.
    Absent(AbsentReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_in_only_one_way() {
        let key = RawKey::new("jira", "issue", "A/1#2").expect("a good key");
        assert_eq!(key.as_str(), "jira/issue/A/1#2");
        assert_eq!(key.parts(), ("jira", "issue", "A/1#2"));
        let slot = key.slot("main");
        assert_eq!(slot.parts(), ("jira", "issue", "A/1#2", "main"));
        assert_eq!(CanonicalKey::parse(slot.as_str()), Some(slot));
        assert!(CanonicalKey::parse("no-slash#x").is_none());
        let both = CanonicalKey::of_reference("s/o/1#a|b");
        let texts: Vec<&str> = both.iter().map(CanonicalKey::as_str).collect();
        assert_eq!(texts, ["s/o/1#a", "s/o/1#b"]);
        assert_eq!(CanonicalKey::of_reference("s/o/1#"), []);
        assert!(RawKey::parse("a/b/").is_none());
        assert_eq!(
            RawKey::new("a", "b", "").map_err(|e| e.code),
            Err(Code::MissingId)
        );
    }

    #[test]
    fn order_compares_as_a_whole() {
        let order = |version, mapping, offset, reapply| Order {
            version,
            mapping,
            incarnation: 1,
            offset,
            reapply,
        };
        assert!(order(2, 1, 0, 0) > order(1, 9, 9, 9));
        assert!(order(1, 2, 0, 0) > order(1, 1, 9, 9));
        assert!(order(1, 1, 5, 1) > order(1, 1, 5, 0));
        assert_eq!(order(7, 1, 3, 0).as_array(), [7, 1, 1, 3, 0]);
    }

    #[test]
    fn fingerprint_survives_json() {
        let print = Fingerprint::of(Op::Upsert, "contact.v1", b"abc");
        let text = serde_json::to_string(&print).expect("serialises");
        assert_eq!(text.len(), 34);
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&text).expect("parses"),
            print
        );
        assert_ne!(print, Fingerprint::of(Op::Absent, "contact.v1", b"abc"));
    }
}
