//! What is known of parents that are not in the target, and the dead letters
//! that wait for one of them. A view of the topic `deadletter`, and of how far
//! the stages in front have come ([`super::upstream`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::references::References;
use super::tables::Known;
use crate::deadletter::{DeadLetter, topic_key};
use crate::idempotency::State;
use crate::orphan::{Sight, Why, circle, grace, never};
use crate::parking::{Parked, Reason};
use crate::record::{CanonicalKey, Millis, Order};
use crate::spec::Stage;

/// A dead letter whose record waits for a parent that never comes.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    /// What it waits for.
    pub(super) parent: CanonicalKey,
    /// Drover's code.
    pub(super) code: String,
    /// Its order.
    pub(super) order: Order,
    /// When it became one.
    pub(super) first_seen: Millis,
    /// The record itself.
    pub(super) envelope: Vec<u8>,
}

/// What is known of parents that are not in the target.
#[derive(Default)]
pub(super) struct Orphans {
    state: Mutex<Seen>,
    /// How many dead letters wait for a parent: hardly ever any.
    count: AtomicUsize,
}

#[derive(Default)]
struct Seen {
    /// The live dead letters of all stages, by their key in the topic.
    dead: HashSet<String>,
    orphans: HashMap<CanonicalKey, Orphan>,
    by_parent: HashMap<CanonicalKey, HashSet<CanonicalKey>>,
    /// By object, up to when it is covered; see [`Sight::covered`].
    covered: HashMap<String, Millis>,
}

impl Orphans {
    /// Notes what the topic says about a dead letter. Returns the record where
    /// it is one that waits for a parent.
    pub(super) fn note(&self, topic_key: &[u8], value: Option<&[u8]>) -> Option<CanonicalKey> {
        let topic_key = std::str::from_utf8(topic_key).ok()?;
        let mut seen = self.lock();
        let loader = format!("{}/", Stage::Loader.as_str());
        let child = topic_key
            .strip_prefix(&loader)
            .and_then(CanonicalKey::parse);
        if let Some(child) = &child {
            seen.forget(child);
        }
        let noted = seen.take(topic_key, child, value);
        self.count.store(seen.orphans.len(), Ordering::Relaxed);
        noted
    }

    /// Whether no dead letter waits for a parent.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The dead letter of a record that waits for a parent.
    pub(super) fn get(&self, child: &CanonicalKey) -> Option<Orphan> {
        self.lock().orphans.get(child).cloned()
    }

    /// Whose dead letters wait for that record.
    pub(super) fn children(&self, parent: &CanonicalKey) -> Vec<CanonicalKey> {
        let seen = self.lock();
        seen.by_parent
            .get(parent)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The dead letters whose parent is in the target.
    pub(super) fn with_parent(&self, known: &Known) -> Vec<CanonicalKey> {
        let seen = self.lock();
        seen.orphans
            .iter()
            .filter(|(_, orphan)| known.target_of(&orphan.parent).is_some())
            .map(|(child, _)| child.clone())
            .collect()
    }

    /// Everything that the source had of an object up to then has reached our
    /// tables. Never goes back.
    pub(super) fn covers(&self, object: &str, until: Millis) {
        let mut seen = self.lock();
        let covered = seen.covered.entry(object.to_owned()).or_insert(until);
        *covered = (*covered).max(until);
    }

    /// Why that parent never comes for a child of that version, if it is known.
    pub(super) fn never(
        &self,
        known: &Known,
        references: &References,
        parent: &CanonicalKey,
        child: Millis,
    ) -> Option<Why> {
        never(&self.lock().sight(known, references, parent), child)
    }

    /// Whether a parked record waits in vain: it can go on to its end.
    pub(super) fn in_vain(
        &self,
        known: &Known,
        references: &References,
        key: &CanonicalKey,
        parked: &Parked,
    ) -> bool {
        let seen = self.lock();
        let gone = |parent: &CanonicalKey| {
            never(&seen.sight(known, references, parent), parked.order.version).is_some()
        };
        match &parked.reason {
            Reason::Parent { parent } => {
                gone(parent) || circle(key, parent, |of| seen.waits_for(known, of)).is_some()
            }
            Reason::Link { parents } => parents.iter().all(gone),
            Reason::Dropped { .. } | Reason::Lease => false,
        }
    }

    /// The circle that a child would close by waiting for that parent.
    pub(super) fn circle(
        &self,
        known: &Known,
        child: &CanonicalKey,
        parent: &CanonicalKey,
    ) -> Option<Vec<CanonicalKey>> {
        let seen = self.lock();
        circle(child, parent, |of| seen.waits_for(known, of))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn take(
        &mut self,
        topic_key: &str,
        child: Option<CanonicalKey>,
        value: Option<&[u8]>,
    ) -> Option<CanonicalKey> {
        let Some(value) = value else {
            self.dead.remove(topic_key);
            return None;
        };
        self.dead.insert(topic_key.to_owned());
        let letter: DeadLetter = serde_json::from_slice(value).ok()?;
        let (child, parent) = (child?, letter.waits_for.clone()?);
        let orphan = Orphan {
            envelope: letter.envelope()?,
            order: letter.order?,
            first_seen: letter.first_seen,
            code: letter.code,
            parent: parent.clone(),
        };
        self.by_parent
            .entry(parent)
            .or_default()
            .insert(child.clone());
        self.orphans.insert(child.clone(), orphan);
        Some(child)
    }

    fn forget(&mut self, child: &CanonicalKey) {
        if let Some(before) = self.orphans.remove(child)
            && let Some(children) = self.by_parent.get_mut(&before.parent)
        {
            children.remove(child);
            if children.is_empty() {
                self.by_parent.remove(&before.parent);
            }
        }
    }

    fn sight(&self, known: &Known, references: &References, parent: &CanonicalKey) -> Sight {
        let entry = known.entry(parent);
        let (_, object, _, _) = parent.parts();
        let raw = parent.as_str().rsplit_once('#').map_or("", |(raw, _)| raw);
        let dead = |stage: Stage, key: &str| self.dead.contains(&topic_key(stage, key));
        Sight {
            unmigrated: entry.is_none() && !references.migrates(parent),
            absent: entry.as_ref().and_then(|entry| match entry.state {
                State::Deleted { reason } => Some(reason),
                State::Applied | State::Pending { .. } => None,
            }),
            underway: entry.is_some()
                || known.parked(parent).is_some()
                || dead(Stage::Loader, parent.as_str())
                || dead(Stage::Transformer, raw)
                || dead(Stage::Extractor, raw),
            orphan: self.orphans.contains_key(parent),
            covered: self
                .covered
                .get(object)
                .map(|at| at.saturating_sub(grace())),
        }
    }

    fn waits_for(&self, known: &Known, key: &CanonicalKey) -> Option<CanonicalKey> {
        if let Some(Reason::Parent { parent }) = known.parked(key).map(|parked| &parked.reason) {
            return Some(parent.clone());
        }
        self.orphans.get(key).map(|orphan| orphan.parent.clone())
    }
}
