//! What the ledger takes of a record of each table: no body, no key.

use crate::record::{AbsentReason, Millis, Order};

/// A canonical record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonical {
    /// An envelope.
    Record {
        /// Its order.
        order: Order,
        /// Whether it says that the slot has nothing.
        absent: bool,
    },
    /// Anything else.
    Foreign,
}

/// A parked record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It waits for something.
    Waits {
        /// Its order.
        order: Order,
        /// Whether it is applied already and waits for an optional link only.
        link: bool,
    },
    /// It is applied, and kept only in case that a link comes after all which
    /// never will, as far as is known: it waits for nothing.
    Dropped {
        /// Its order.
        order: Order,
    },
    /// Its value can't be read.
    Unreadable,
}

impl Parked {
    /// Its order, where it can be read.
    pub fn order(self) -> Option<Order> {
        match self {
            Parked::Waits { order, .. } | Parked::Dropped { order } => Some(order),
            Parked::Unreadable => None,
        }
    }
}

/// A live dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// Of an extractor: the record never became a raw one.
    Extractor,
    /// Of a transformer.
    Transformer {
        /// The source's version.
        version: Millis,
        /// Where the raw record lies, where that is in its raw topic.
        offset: Option<i64>,
    },
    /// Of a loader.
    Loader {
        /// The source's version.
        version: Millis,
        /// Its order, where it had one.
        order: Option<Order>,
    },
}

/// An idempotency entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its order.
    pub order: Order,
    /// Pending, applied, or absent with the reason.
    pub state: State,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Of an unknown fate.
    Pending,
    /// In the target.
    Applied,
    /// Rightly not there.
    Deleted(AbsentReason),
    /// The entry can't be read.
    Unreadable,
}

/// A raw record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    /// The source's version; the lowest there is where it can't be read.
    pub version: Millis,
    /// Where it lies.
    pub offset: i64,
}
