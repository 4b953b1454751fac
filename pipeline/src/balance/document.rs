//! The result of a balance, as commands print it and as it lies in the topic
//! `control`, where everybody who shows the migration finds the last one.

use serde::{Deserialize, Serialize};

use super::Standing;
use crate::record::{AbsentReason, Millis};

/// Key of the last [`Balance`] in the topic `control`.
pub const BALANCE: &str = "balance";

/// What a balance came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Whether every key is in exactly one place.
    pub balanced: bool,
    /// The moment it speaks of: when it began to read, by our clock.
    pub at: Millis,
    /// The generation of the mapping that it was taken by; 0 where an older
    /// version of Drover took it, which did not say.
    #[serde(default)]
    pub generation: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How often the topics were read: once, and again for keys that looked wrong.
    pub looks: u32,
    /// By object and slot.
    pub rows: Vec<Row>,
    /// The keys that are in no place, or in two. Not all of them where there
    /// are thousands: `rows` counts them.
    pub red: Vec<Red>,
}

/// An object's slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The object in the source.
    pub object: String,
    /// The slot.
    pub slot: String,
    /// Live raw keys, each counted once for this slot.
    pub live: u64,
    /// In the target at this or a newer order.
    pub applied: u64,
    /// Those of them that still wait for an optional link.
    pub linking: u64,
    /// Those of them that lack a link whose other end never comes.
    #[serde(default)]
    pub unlinked: u64,
    /// Rightly not in the target.
    pub absent: Absences,
    /// Waiting for a parent, a lease or a decision.
    pub parked: u64,
    /// Could not go on.
    pub dead: u64,
    /// Not yet committed by a stage.
    pub in_flight: u64,
    /// In no place, or in two.
    pub red: u64,
}

/// Why slots have nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Absences {
    /// The source has deleted the record.
    pub deleted: u64,
    /// The mapping's filter leaves it out.
    pub filtered: u64,
    /// The record has nothing for this slot.
    pub slot_empty: u64,
    /// The target takes no such entity, or the migration is a dry run.
    pub untaken: u64,
}

/// A key that does not balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Red {
    /// Its canonical key.
    pub key: String,
    /// What is wrong, as a stable name.
    pub fault: String,
    /// Why that is wrong.
    pub why: String,
    /// What to do.
    pub advice: String,
}

impl Row {
    /// Counts a key.
    pub fn count(&mut self, standing: Standing) {
        let place = match standing {
            Standing::Linking => {
                self.linking += 1;
                &mut self.applied
            }
            Standing::Unlinked => {
                self.unlinked += 1;
                &mut self.applied
            }
            Standing::Applied => &mut self.applied,
            Standing::Absent(AbsentReason::Deleted) => &mut self.absent.deleted,
            Standing::Absent(AbsentReason::Filtered) => &mut self.absent.filtered,
            Standing::Absent(AbsentReason::SlotEmpty) => &mut self.absent.slot_empty,
            Standing::Untaken => &mut self.absent.untaken,
            Standing::Parked => &mut self.parked,
            Standing::Dead => &mut self.dead,
            Standing::InFlight => &mut self.in_flight,
            Standing::Red(_) => &mut self.red,
        };
        *place += 1;
    }

    /// Adds another part of the same row.
    pub fn add(&mut self, other: &Row) {
        self.live += other.live;
        self.applied += other.applied;
        self.linking += other.linking;
        self.unlinked += other.unlinked;
        self.absent.deleted += other.absent.deleted;
        self.absent.filtered += other.absent.filtered;
        self.absent.slot_empty += other.absent.slot_empty;
        self.absent.untaken += other.absent.untaken;
        self.parked += other.parked;
        self.dead += other.dead;
        self.in_flight += other.in_flight;
        self.red += other.red;
    }
}

impl Absences {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.deleted + self.filtered + self.slot_empty + self.untaken
    }
}

impl Balance {
    /// How many keys are in no place, or in two.
    pub fn reds(&self) -> u64 {
        self.rows.iter().map(|row| row.red).sum()
    }
}
