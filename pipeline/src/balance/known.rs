//! What is kept of a key while the tables are read.

use super::{Marks, Parked};
use crate::record::{Millis, Order};

/// What is kept of a key: 24 bytes beside its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) version: Millis,
    /// Mapping generation, incarnation and offset, in the order of comparison.
    pub(super) rank: u64,
    pub(super) marks: Marks,
    pub(super) row: u16,
}

/// What only few keys have.
#[derive(Debug, Default, Clone)]
pub(super) struct Aside {
    pub(super) parked: Option<Parked>,
    pub(super) redo: Option<Option<Order>>,
    pub(super) letter: Option<(Millis, Option<Order>)>,
}

impl Aside {
    /// The order of what is parked, else of what is dead.
    pub(super) fn order(&self) -> Option<Order> {
        let parked = self.parked.and_then(Parked::order);
        parked.or(self.letter.and_then(|(_, order)| order))
    }
}

impl Known {
    /// How an order compares with the newest canonical one.
    pub(super) fn compare(&self, order: &Order) -> std::cmp::Ordering {
        (order.version, rank(order)).cmp(&(self.version, self.rank))
    }

    /// Takes in what lies aside, now that the canonical order is known.
    pub(super) fn join(&mut self, aside: &Aside) {
        if let Some(parked) = aside.parked {
            let dropped = matches!(parked, Parked::Dropped { .. });
            let link = dropped || matches!(parked, Parked::Waits { link: true, .. });
            match parked.order() {
                None => self.marks.set(Marks::UNREADABLE, true),
                Some(order) => {
                    self.marks.set(Marks::PARKED, true);
                    self.marks.set(Marks::LINK, link);
                    self.marks.set(Marks::DROPPED, dropped);
                    let reaches = self.compare(&order).is_ge();
                    self.marks.set(Marks::PARKED_REACHES, reaches);
                }
            }
        }
        if let Some((version, order)) = aside.letter {
            self.marks.set(Marks::LETTER, true);
            let reaches = match order {
                Some(order) => self.compare(&order).is_ge(),
                None => version >= self.version,
            };
            self.marks.set(Marks::LETTER_REACHES, reaches);
        }
        if aside.redo.is_some() && !self.marks.has(Marks::ENTRY) {
            self.marks.set(Marks::REDO, true);
        }
    }
}

/// What follows the version in an order, without `reapply`, as one number that
/// compares the same up to 4,095 generations, 1,023 incarnations and 4 * 10^12
/// records a partition.
pub(super) fn rank(order: &Order) -> u64 {
    let mapping = u64::from(order.mapping).min(0xfff);
    let incarnation = u64::from(order.incarnation).min(0x3ff);
    let offset = u64::try_from(order.offset).unwrap_or(0).min((1 << 42) - 1);
    mapping << 52 | incarnation << 42 | offset
}
