//! The balance: whether every record that was read from the source is in
//! exactly one place.
//!
//! Joined are tables, key by key, never counters: each live raw key × declared
//! slot is applied at this or a newer order, absent with its reason, parked,
//! dead, or in flight. The join goes both ways: what lies in the idempotency,
//! parked or canonical table without a raw record is a fault as well.
//!
//! This module is pure. [`Ledger`] takes what the topics hold and keeps a few
//! bytes a key; [`Marks::standing`] is the rule. Who reads the topics, in which
//! order, and why a moving pipeline gives no false fault, stands in the
//! orchestrator's `balance/look.rs`.

mod document;
mod facts;
mod known;
mod ledger;

#[cfg(test)]
mod tests;

pub use document::{Absences, BALANCE, Balance, Red, Row};
pub use facts::{Canonical, Entry, Letter, Parked, Raw, State};
pub use ledger::{Evidence, Hash, Ledger, Outcome, hash_of};

use crate::record::AbsentReason;

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The target has this version or a newer one.
    Applied,
    /// The same, but an optional link still waits for its other end.
    Linking,
    /// The same, without a link whose other end never comes, as far as is known.
    Unlinked,
    /// The target rightly has nothing.
    Absent(AbsentReason),
    /// The target takes no such entity; the record stays in Kafka.
    Untaken,
    /// It waits for a parent, a lease, or a decision.
    Parked,
    /// It could not go on.
    Dead,
    /// A stage has not committed it yet.
    InFlight,
    /// It is in no place, or in two.
    Red(Fault),
}

macro_rules! faults {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, $why:literal, $advice:literal; )*) => {
        /// What is wrong with a key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault { $( $(#[$doc])* $name, )* }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &'static [Fault] = &[ $( Fault::$name, )* ];

            /// Its stable name, why it is one, and what a person should do.
            pub fn facts(self) -> (&'static str, &'static str, &'static str) {
                match self { $( Fault::$name => ($text, $why, $advice), )* }
            }
        }
    };
}

faults! {
    /// Something is known of a key that was never read, or whose raw record is gone.
    NoRaw = "no-raw",
        "later stages know the key, but no raw record of it is there",
        "restore the raw topic, or tombstone what something else wrote under this key";
    /// The transformer has passed the raw record and left neither a canonical record nor a dead letter.
    NotTransformed = "not-transformed",
        "the transformer is past the raw record, but there is no canonical record of its version and no dead letter",
        "restore the canonical or dead-letter topic; an edit of the record in the source brings it through again";
    /// The loader has passed the canonical record and left no trace of it.
    NotApplied = "not-applied",
        "the loader is past the canonical record, but its version is neither applied, absent, parked nor dead",
        "restore the idempotency, parked or dead-letter topic; an edit of the record in the source brings it through again";
    /// A request of unknown fate that nobody will ask about.
    PendingLeft = "pending-left",
        "its entry is Pending, and no parked record makes the loader ask what became of the request",
        "restore the parked topic; an edit of the record in the source makes the loader ask";
    /// Applied, and parked at the same time.
    ParkedLeft = "parked-left",
        "it is parked although this or a newer version is applied",
        "restart the loader, which looks at its parked records; if it stays, report it";
    /// Applied, and dead at the same time.
    LetterLeft = "letter-left",
        "its dead letter is still there although a newer version went through",
        "report it: the stage's success should have taken the letter back";
    /// The entry contradicts the record of the same order.
    Contradiction = "contradiction",
        "the canonical record says that the slot is filled and its entry that it is absent, or the other way round",
        "something else writes into Drover's topics; stop it, and compare the target's row by `drover record`";
    /// A value that can't be read.
    Unreadable = "unreadable",
        "its idempotency entry or parked record can't be read",
        "something else writes into Drover's topics; stop it, and restore the topic";
}

impl Fault {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }
}

/// What the tables say of a key, as answers to yes-or-no questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks(u32);

macro_rules! marks {
    ($( $(#[$doc:meta])* $name:ident = $bit:literal; )*) => {
        impl Marks { $( $(#[$doc])* pub const $name: Marks = Marks(1 << $bit); )* }
    };
}

marks! {
    /// A live raw record is there.
    RAW = 0;
    /// The transformer has not committed the newest one.
    RAW_IN_FLIGHT = 1;
    /// The newest version died before it became canonical.
    RAW_DEAD = 2;
    /// No canonical record is as new as the newest raw one that was transformed.
    UNTRANSFORMED = 3;
    /// A dead letter of the transformer is older than what it has transformed since.
    RAW_LETTER_LEFT = 4;
    /// A dead letter names a raw record that is not there.
    RAW_LETTER_ALONE = 5;
    /// A canonical record is there.
    CANONICAL = 6;
    /// The loader has not committed the newest one.
    CANONICAL_IN_FLIGHT = 7;
    /// The newest one is ABSENT.
    CANONICAL_ABSENT = 8;
    /// Something that is no envelope lies in the canonical topic.
    FOREIGN = 9;
    /// An idempotency entry is there.
    ENTRY = 10;
    /// It is Pending.
    PENDING = 11;
    /// It is Deleted.
    DELETED = 12;
    /// It is Deleted because of the filter.
    FILTERED = 13;
    /// It is Deleted because the slot is empty.
    SLOT_EMPTY = 14;
    /// It is as new as the canonical record, or newer.
    ENTRY_REACHES = 15;
    /// It is of the canonical record's very order.
    ENTRY_SAME = 16;
    /// It is parked.
    PARKED = 17;
    /// It is parked for an optional link only.
    LINK = 18;
    /// What is parked is as new as the canonical record, or newer.
    PARKED_REACHES = 19;
    /// The entry is as new as what is parked, or newer.
    PARKED_PASSED = 20;
    /// The loader left a dead letter.
    LETTER = 21;
    /// It is as new as the canonical record, or newer.
    LETTER_REACHES = 22;
    /// The entry is newer than the letter.
    LETTER_PASSED = 23;
    /// It was asked to be applied again, and the loader has not done it.
    REDO = 24;
    /// The target does not take the slot's entity.
    UNTAKEN = 25;
    /// An entry or a parked record can't be read.
    UNREADABLE = 26;
    /// The link that it is parked for never comes.
    DROPPED = 27;
}

impl Marks {
    /// Whether all of those are set.
    pub fn has(self, those: Marks) -> bool {
        self.0 & those.0 == those.0
    }

    /// Sets those marks, or takes them away.
    pub fn set(&mut self, those: Marks, set: bool) {
        if set {
            self.0 |= those.0;
        } else {
            self.0 &= !those.0;
        }
    }

    /// The rule. The order of the questions is the rule: what is newest decides
    /// where a key is, and what stands in front of a stage hides nothing behind it.
    pub fn standing(self) -> Standing {
        let red = Standing::Red;
        let has = |marks| self.has(marks);
        if has(Marks::UNREADABLE) {
            return red(Fault::Unreadable);
        }
        if !has(Marks::RAW) {
            return match () {
                // Refused before it could become a raw record.
                () if has(Marks::RAW_DEAD) && !has(Marks::CANONICAL) && !has(Marks::ENTRY) => {
                    Standing::Dead
                }
                () if !has(Marks::FOREIGN) || has(Marks::CANONICAL) || has(Marks::ENTRY) => {
                    red(Fault::NoRaw)
                }
                () if has(Marks::LETTER) => Standing::Dead,
                () if has(Marks::CANONICAL_IN_FLIGHT) => Standing::InFlight,
                () => red(Fault::NoRaw),
            };
        }
        if has(Marks::RAW_DEAD) {
            return Standing::Dead;
        }
        if has(Marks::RAW_IN_FLIGHT) {
            return Standing::InFlight;
        }
        if !has(Marks::CANONICAL) || has(Marks::UNTRANSFORMED) {
            return red(Fault::NotTransformed);
        }
        if has(Marks::RAW_LETTER_LEFT) {
            return red(Fault::LetterLeft);
        }
        if has(Marks::UNTAKEN) && !has(Marks::ENTRY) {
            return Standing::Untaken;
        }
        let settled = has(Marks::ENTRY) && !has(Marks::PENDING);
        if settled && has(Marks::PARKED) && has(Marks::PARKED_PASSED) {
            return red(Fault::ParkedLeft);
        }
        if settled && has(Marks::LETTER) && has(Marks::LETTER_PASSED) {
            return red(Fault::LetterLeft);
        }
        if has(Marks::PARKED) && has(Marks::PARKED_REACHES) && !has(Marks::LINK) {
            return Standing::Parked;
        }
        if has(Marks::LETTER) && has(Marks::LETTER_REACHES) {
            return Standing::Dead;
        }
        if has(Marks::REDO) {
            return Standing::InFlight;
        }
        let reaches = has(Marks::ENTRY) && has(Marks::ENTRY_REACHES);
        if has(Marks::CANONICAL_IN_FLIGHT) && !(settled && reaches) {
            return Standing::InFlight;
        }
        if !reaches {
            return red(Fault::NotApplied);
        }
        if has(Marks::PENDING) {
            // Its links have come, and it is being applied once more.
            return match has(Marks::PARKED) {
                true => Standing::Parked,
                false => red(Fault::PendingLeft),
            };
        }
        let deleted = has(Marks::DELETED);
        if has(Marks::ENTRY_SAME) && deleted != has(Marks::CANONICAL_ABSENT) {
            return red(Fault::Contradiction);
        }
        match () {
            () if has(Marks::FILTERED) => Standing::Absent(AbsentReason::Filtered),
            () if has(Marks::SLOT_EMPTY) => Standing::Absent(AbsentReason::SlotEmpty),
            () if deleted => Standing::Absent(AbsentReason::Deleted),
            () if has(Marks::PARKED) && has(Marks::DROPPED) => Standing::Unlinked,
            () if has(Marks::PARKED) => Standing::Linking,
            () => Standing::Applied,
        }
    }
}

impl std::ops::BitOr for Marks {
    type Output = Marks;

    fn bitor(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }
}
