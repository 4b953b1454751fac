//! Parked records: they wait for something that is expected to come, and say
//! what. A parked record blocks nobody else.

use base64::Engine;
use serde::{Deserialize, Serialize};

use crate::record::{CanonicalKey, Millis, Order};

/// The value of a parked record: JSON, keyed by the canonical key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    /// What it waits for.
    pub reason: Reason,
    /// Its entity.
    pub entity: String,
    /// Its order, which it keeps when it is released.
    pub order: Order,
    /// Since when the key waits for this, by our clock; see [`since`].
    pub since: Millis,
    /// Somebody let it go on without the links that it requires: of this very
    /// version none is required any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_links: bool,
    /// The record itself: base64 of its envelope.
    pub value: String,
}

/// What a parked record waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Reason {
    /// A record it requires is not in the target yet.
    Parent {
        /// Which one.
        parent: CanonicalKey,
    },
    /// It is in the target without its optional links, and is applied again as
    /// soon as one of them is possible.
    Link {
        /// What it would link to.
        parents: Vec<CanonicalKey>,
    },
    /// It is in the target, and none of these links will ever be possible, as
    /// far as can be known. Kept only so that it is applied again should one of
    /// them come after all; nobody waits for it.
    Dropped {
        /// What it would link to.
        parents: Vec<CanonicalKey>,
    },
    /// An earlier request for its key may still be on its way.
    Lease,
}

impl Reason {
    /// The keys whose arrival releases the record.
    pub fn parents(&self) -> &[CanonicalKey] {
        match self {
            Reason::Parent { parent } => std::slice::from_ref(parent),
            Reason::Link { parents } | Reason::Dropped { parents } => parents,
            Reason::Lease => &[],
        }
    }
}

impl Reason {
    /// Whether something is still expected: a dropped link is not.
    pub fn waits(&self) -> bool {
        !matches!(self, Reason::Dropped { .. })
    }
}

/// Since when a key has had the trouble that it has now: what was parked for the
/// same reason, or dead for the lack of the same parent (`dead`: which, and since
/// when), goes on waiting when it is mapped anew or changes.
pub fn since(
    reason: &Reason,
    parked: Option<&Parked>,
    dead: Option<(&CanonicalKey, Millis)>,
    now: Millis,
) -> Millis {
    let parked = parked.filter(|parked| parked.reason == *reason);
    let dead = dead.filter(|(parent, _)| reason.parents().contains(parent));
    let before = [
        parked.map(|parked| parked.since),
        dead.map(|(_, since)| since),
    ];
    before.into_iter().flatten().min().unwrap_or(now)
}

impl Parked {
    /// A record to park.
    pub fn new(reason: Reason, entity: &str, order: Order, since: Millis, envelope: &[u8]) -> Self {
        Parked {
            reason,
            entity: entity.to_owned(),
            order,
            since,
            without_links: false,
            value: base64::engine::general_purpose::STANDARD.encode(envelope),
        }
    }

    /// The order of the request to let it go on without the links that it
    /// requires: newer than its own, so that the request is not the wait itself.
    pub fn order_without_links(&self) -> Order {
        Order {
            reapply: self.order.reapply + 1,
            ..self.order
        }
    }

    /// The record's envelope. `None` when the value was altered.
    pub fn envelope(&self) -> Option<Vec<u8>> {
        base64::engine::general_purpose::STANDARD
            .decode(&self.value)
            .ok()
    }

    /// The value in the topic.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_goes_on_and_another_one_begins() {
        let key = |text: &str| CanonicalKey::parse(text).expect("a key");
        let (account, lead) = (key("s/Account/1#company"), key("s/Lead/1#company"));
        let waits = |parent: &CanonicalKey| Reason::Parent {
            parent: parent.clone(),
        };
        let parked = Parked::new(waits(&account), "contact", Order::default(), 5, b"x");
        // Mapped anew, and parked again.
        assert_eq!(since(&waits(&account), Some(&parked), None, 99), 5);
        assert_eq!(since(&waits(&lead), Some(&parked), None, 99), 99);
        // Dead because the parent never comes, then parked for it again.
        let dead = Some((&account, 3));
        assert_eq!(since(&waits(&account), None, dead, 99), 3);
        assert_eq!(since(&waits(&lead), None, dead, 99), 99);
        assert_eq!(since(&Reason::Lease, Some(&parked), dead, 99), 99);
    }
}
