//! One record's life, as `drover record` shows it.

use drover_pipeline::idempotency::Entry;
use drover_pipeline::load::ask::Answer;
use drover_pipeline::parking::Reason;
use drover_pipeline::record::{AbsentReason, Fingerprint, Millis, Op, Order, Phase};
use serde::Serialize;
use serde_json::{Value as Json, json};

/// One record's life.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Life {
    /// Its raw key.
    pub(super) key: String,
    /// Every version that the log still has, oldest first.
    pub(super) raw: Vec<Version>,
    /// What became of it, slot by slot.
    pub(super) slots: Vec<SlotLife>,
    /// Live dead letters of the stages before its slots: extractor, transformer.
    pub(super) letters: Vec<Dead>,
}

/// One slot's life.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlotLife {
    /// Its canonical key.
    pub(super) key: String,
    /// Its canonical entity.
    pub(super) entity: String,
    /// Where it is, as `drover balance` counts it.
    pub(super) place: String,
    /// Why that is wrong and what to do, where it is.
    pub(super) wrong: Option<String>,
    /// Every canonical version that the log still has, oldest first.
    pub(super) canonical: Vec<Version>,
    /// What the loader knows of it.
    pub(super) entry: Option<Entry>,
    /// When the entry was written, by the loader's clock.
    pub(super) entry_at: Option<Millis>,
    /// What it waits for.
    pub(super) parked: Option<Waiting>,
    /// Since when it waits to be applied again.
    pub(super) redo_at: Option<Millis>,
    /// Its live dead letter of the loader.
    pub(super) letter: Option<Dead>,
    /// What the target has.
    pub(super) target: Option<Target>,
    /// In what canonical record, entry and target differ.
    pub(super) differences: Vec<String>,
}

/// A version of a record in a log.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// When it was written, by the stage's clock.
    pub(super) at: Option<Millis>,
    /// Whether the next stage has committed it.
    pub(super) committed: bool,
    /// A tombstone, or foreign bytes, has none of what follows.
    pub(super) op: Option<Op>,
    pub(super) reason: Option<AbsentReason>,
    /// The source's modification time.
    pub(super) version: Option<Millis>,
    pub(super) phase: Option<Phase>,
    pub(super) extracted_at: Option<Millis>,
    pub(super) mapping: Option<u32>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) bytes: usize,
    pub(super) body: Option<Json>,
    /// Where the body is, where that is the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored: Option<String>,
}

/// A parked record, without its envelope.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    pub(super) reason: Reason,
    pub(super) order: Order,
    pub(super) since: Millis,
}

/// A dead letter, without the record.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dead {
    pub(super) stage: &'static str,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) place: Option<String>,
    pub(super) version: Millis,
    pub(super) at: Millis,
}

/// What the target says.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Target {
    /// What it has.
    Answer(Answer),
    /// Why nobody knows.
    Silent {
        /// As its loader said.
        error: String,
    },
}

impl Life {
    /// Whether no topic knows the record.
    pub(super) fn is_empty(&self) -> bool {
        let nothing = |slot: &SlotLife| {
            slot.canonical.is_empty()
                && slot.entry.is_none()
                && slot.parked.is_none()
                && slot.letter.is_none()
        };
        self.raw.is_empty() && self.letters.is_empty() && self.slots.iter().all(nothing)
    }

    /// Takes every value of the record away, and leaves the fields' names.
    pub(super) fn mask(&mut self) {
        let canonical = self.slots.iter_mut().flat_map(|slot| &mut slot.canonical);
        for version in self.raw.iter_mut().chain(canonical) {
            version.body.as_mut().into_iter().for_each(mask);
        }
        for slot in &mut self.slots {
            if let Some(Target::Answer(answer)) = &mut slot.target {
                answer.row.as_mut().into_iter().for_each(mask);
            }
        }
    }
}

/// What stands where a value is not shown.
pub(super) const MASK: &str = "•••";

fn mask(body: &mut Json) {
    match body {
        Json::Object(fields) => fields.values_mut().for_each(mask),
        Json::Array(values) => values.iter_mut().for_each(mask),
        Json::Null => {}
        value => *value = json!(MASK),
    }
}
