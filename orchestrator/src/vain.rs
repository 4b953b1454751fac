//! Parked records whose wait is about to end by itself, judged as the loaders do
//! ([`drover_pipeline::orphan`]), from the topics alone.

use std::collections::BTreeMap;

use drover_pipeline::Result;
use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::{DeadLetter, topic_key};
use drover_pipeline::idempotency::{Entry, State};
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::orphan::{Sight, circle, grace, never};
use drover_pipeline::parking::{Parked, Reason};
use drover_pipeline::record::{CanonicalKey, Millis};
use drover_pipeline::spec::Stage;

use crate::migration::Bus;
use crate::view::Watch;

/// What the topics say of what waits.
pub(crate) struct Waits<'a> {
    plan: &'a Plan,
    /// The entities that the target takes.
    entities: &'a [String],
    watch: &'a Watch,
    parked: BTreeMap<CanonicalKey, Parked>,
    entries: BTreeMap<CanonicalKey, Entry>,
    /// By key in the topic, for which parent a dead letter waits.
    dead: BTreeMap<String, Option<CanonicalKey>>,
}

impl<'a> Waits<'a> {
    /// Reads them.
    pub(crate) fn read(
        bus: &Bus,
        plan: &'a Plan,
        entities: &'a [String],
        watch: &'a Watch,
    ) -> Result<Self> {
        let mut waits = Waits {
            plan,
            entities,
            watch,
            parked: keyed(bus, &bus.topics.parked())?,
            entries: BTreeMap::new(),
            dead: BTreeMap::new(),
        };
        if !waits.parked.is_empty() {
            waits.entries = keyed(bus, &bus.topics.idempotency())?;
            let letters = read_to_end(&bus.client, &bus.topics.deadletter())?;
            let letters = letters.into_iter().filter_map(|(key, value)| {
                let letter = serde_json::from_slice::<DeadLetter>(&value).ok()?;
                Some((String::from_utf8(key).ok()?, letter.waits_for))
            });
            waits.dead = letters.collect();
        }
        Ok(waits)
    }

    /// Whether every parked record waits for something that is not there and may
    /// come. A child whose parent has just been loaded is committed as parked, and
    /// goes on a moment later; one whose parent never comes is a dead letter a
    /// moment later.
    pub(crate) fn rest(&self) -> bool {
        self.parked
            .iter()
            .all(|(key, parked)| match &parked.reason {
                Reason::Lease => false,
                Reason::Parent { parent } => {
                    !self.is_loaded(parent)
                        && never(&self.sight(parent), parked.order.version).is_none()
                        && circle(key, parent, |of| self.waits_for(of)).is_none()
                }
                Reason::Link { parents } | Reason::Dropped { parents } => {
                    !parents.iter().any(|parent| self.is_loaded(parent))
                }
            })
    }

    fn is_loaded(&self, key: &CanonicalKey) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.target_id.is_some())
    }

    fn sight(&self, parent: &CanonicalKey) -> Sight {
        let entry = self.entries.get(parent);
        let (_, object, _, _) = parent.parts();
        let raw = parent.as_str().rsplit_once('#').map_or("", |(raw, _)| raw);
        let letter = |stage, key: &str| self.dead.get(&topic_key(stage, key));
        let own = letter(Stage::Loader, parent.as_str());
        Sight {
            unmigrated: entry.is_none() && !self.migrates(parent),
            absent: entry.and_then(|entry| match entry.state {
                State::Deleted { reason } => Some(reason),
                State::Applied | State::Pending { .. } => None,
            }),
            underway: entry.is_some()
                || self.parked.contains_key(parent)
                || own.is_some()
                || letter(Stage::Transformer, raw).is_some()
                || letter(Stage::Extractor, raw).is_some(),
            orphan: own.is_some_and(Option::is_some),
            covered: self.covered(object),
        }
    }

    fn migrates(&self, key: &CanonicalKey) -> bool {
        let (_, object, _, slot) = key.parts();
        let objects = &self.plan.objects;
        objects
            .iter()
            .find(|one| one.name == object)
            .and_then(|object| self.plan.mapping.of(object)?.slots.get(slot))
            .is_some_and(|slot| self.entities.contains(&slot.entity))
    }

    fn covered(&self, object: &str) -> Option<Millis> {
        self.watch.look(|model| {
            let checkpoint = model.checkpoint(object).filter(|c| c.snapshot_complete)?;
            Some(checkpoint.as_of?.saturating_sub(grace()))
        })
    }

    fn waits_for(&self, key: &CanonicalKey) -> Option<CanonicalKey> {
        if let Some(Reason::Parent { parent }) = self.parked.get(key).map(|parked| &parked.reason) {
            return Some(parent.clone());
        }
        let letter = self.dead.get(&topic_key(Stage::Loader, key.as_str()));
        letter.cloned().flatten()
    }
}

fn keyed<T: serde::de::DeserializeOwned>(
    bus: &Bus,
    topic: &str,
) -> Result<BTreeMap<CanonicalKey, T>> {
    let records = read_to_end(&bus.client, topic)?;
    let read = records.into_iter().filter_map(|(key, value)| {
        let key = CanonicalKey::parse(std::str::from_utf8(&key).ok()?)?;
        Some((key, serde_json::from_slice(&value).ok()?))
    });
    Ok(read.collect())
}
