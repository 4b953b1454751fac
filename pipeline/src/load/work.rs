//! What a batch holds: its records decoded, of each key the newest, with the
//! contents that lie in the object store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::Loader;
use super::batch::{Dropped, Worker};
use super::commit::Changes;
use super::lanes::{Batch, MOST_AWAY, Message};
use crate::bodies::{self, Stored};
use crate::control::INCARNATION;
use crate::envelope::{Envelope, away};
use crate::error::{Class, Code, Error, Result};
use crate::idempotency::State;
use crate::kafka::Place;
use crate::parking::Reason;
use crate::record::{AbsentReason, CanonicalKey, Fingerprint, Millis, Op, Order};
use crate::retry::Backoff;
use crate::status::Count;
use crate::topics::partition_of;

/// A record of the batch, decoded.
pub(super) struct Work {
    pub(super) key: CanonicalKey,
    pub(super) object: String,
    pub(super) value: Vec<u8>,
    /// Where in `value` the content lies.
    pub(super) body: Range<usize>,
    /// Where it is, if not there.
    pub(super) stored: Option<Stored>,
    /// The content as the object store gave it, if it is there.
    pub(super) fetched: Option<Vec<u8>>,
    pub(super) order: Order,
    pub(super) op: Op,
    pub(super) reason: AbsentReason,
    pub(super) version: Millis,
    pub(super) fingerprint: Fingerprint,
    pub(super) extracted_at: Millis,
    /// Where it lies, at its order's offset.
    pub(super) place: Arc<Place>,
    /// Whether the batch holds another content of the same version, which a
    /// killed process may have applied: what the target has is not known.
    pub(super) unsure: bool,
    /// Somebody let it go on without the links that it requires; see
    /// [`crate::parking::Parked`].
    pub(super) without_links: bool,
}

impl Work {
    /// The content.
    pub(super) fn content(&self) -> &[u8] {
        match &self.fetched {
            Some(body) => body,
            None => &self.value[self.body.clone()],
        }
    }

    /// Whether it is the same version with another content.
    fn differs(&self, other: &Work) -> bool {
        self.order.version == other.order.version && self.fingerprint != other.fingerprint
    }

    /// The mapping generation that takes it away, although the source has it.
    pub(super) fn taken_away_by(&self) -> Option<u32> {
        let by_mapping = self.op == Op::Absent && self.reason != AbsentReason::Deleted;
        by_mapping.then_some(self.order.mapping)
    }
}

impl<L: Loader> Worker<L> {
    /// Decodes the batch and keeps the newest version of each key.
    pub(super) fn works(
        &self,
        batch: &mut Batch,
        changes: &mut Changes,
    ) -> Result<Vec<Work>, Dropped> {
        let mut works: Vec<Work> = Vec::with_capacity(batch.messages.len());
        for mut message in std::mem::take(&mut batch.messages) {
            if message.key == INCARNATION {
                continue;
            }
            match self.decode(&mut message) {
                Ok(work) => works.push(work),
                Err(error) if error.class() == Class::Record => {
                    self.bury(&message, &error, changes);
                }
                Err(error) => {
                    let place = format!("{}@{}", message.place, message.offset);
                    return Err(Dropped::Blocked(error.at(place)));
                }
            }
        }
        works.extend(self.released(&batch.released));
        let hash = |work: &Work| xxh3_64(work.key.as_str().as_bytes());
        let mut newest: HashTable<usize> = HashTable::with_capacity(works.len());
        let mut superseded = vec![false; works.len()];
        let mut unsure = Vec::new();
        for (place, work) in works.iter().enumerate() {
            let same = |other: &usize| works[*other].key == work.key;
            match newest.find_mut(hash(work), same) {
                Some(other) if works[*other].order >= work.order => {
                    superseded[place] = true;
                    unsure.extend(works[*other].differs(work).then_some(*other));
                }
                Some(other) => {
                    superseded[*other] = true;
                    unsure.extend(works[*other].differs(work).then_some(place));
                    *other = place;
                }
                None => {
                    newest.insert_unique(hash(work), place, |other| hash(&works[*other]));
                }
            }
        }
        for place in unsure {
            works[place].unsure = true;
        }
        let mut place = 0;
        works.retain(|work| {
            place += 1;
            if superseded[place - 1] {
                changes.count(&work.object, Count::Stale);
            }
            !superseded[place - 1]
        });
        Ok(works)
    }

    /// Gets the contents that the bus did not take.
    pub(super) async fn fetch(&self, batch: &Batch, works: &mut [Work]) -> Result<(), Dropped> {
        for work in works {
            let Some(stored) = &work.stored else {
                continue;
            };
            let mut backoff = Backoff::default();
            work.fetched = loop {
                match bodies::get(self.shared.bodies.as_deref(), stored).await {
                    Ok(body) => break Some(body),
                    Err(error) => {
                        let place = error.place.clone().map(|place| format!(", {place}"));
                        let place = format!("{}{}", work.key, place.unwrap_or_default());
                        let error = error.at(place);
                        self.wait_or_drop(batch, &error, &mut backoff).await?;
                    }
                }
            };
        }
        Ok(())
    }

    /// Takes the message's value, unless it fails.
    fn decode(&self, message: &mut Message) -> Result<Work> {
        let envelope = Envelope::decode(&message.value)?;
        let incarnation = self.shared.incarnation(&message.place.topic);
        let order = Order {
            version: envelope.version,
            mapping: envelope.mapping,
            incarnation,
            offset: message.offset,
            reapply: 0,
        };
        let place = Arc::clone(&message.place);
        let mut work = self.work(&envelope, order, &message.value, place)?;
        if work.key.as_str().as_bytes() != message.key {
            return Err(Error::new(
                Code::ForeignBytes,
                "the message's key is not the record's key",
            ));
        }
        work.value = std::mem::take(&mut message.value);
        Ok(work)
    }

    /// The record of that envelope; the caller gives it `value`, its bytes.
    fn work(
        &self,
        envelope: &Envelope<'_>,
        order: Order,
        value: &[u8],
        place: Arc<Place>,
    ) -> Result<Work> {
        if envelope.body_schema != self.entity.schema {
            let message = format!(
                "the body's schema is {}, this loader reads {}",
                envelope.body_schema, self.entity.schema
            );
            // Another version of the entity comes from a newer transformer;
            // anything else does not belong here.
            let entity = envelope.body_schema.rsplit_once(".v").map(|parts| parts.0);
            return Err(if entity == Some(self.entity.name.as_str()) {
                Error::new(Code::NewerSchema, message)
            } else {
                Error::new(Code::ForeignBytes, message)
            });
        }
        let text = [
            envelope.source,
            "/",
            envelope.object,
            "/",
            envelope.id,
            "#",
            envelope.slot,
        ];
        let key = CanonicalKey::from_text(text.concat())
            .ok_or_else(|| Error::new(Code::ForeignBytes, "the envelope does not name a record"))?;
        Ok(Work {
            key,
            object: envelope.object.to_owned(),
            value: Vec::new(),
            body: place_in(value, envelope.body.unwrap_or_default()),
            stored: envelope.stored,
            fetched: None,
            order,
            op: envelope.op,
            reason: envelope.reason.unwrap_or(AbsentReason::Deleted),
            version: envelope.version,
            fingerprint: envelope.fingerprint,
            extracted_at: envelope.extracted_at,
            place,
            unsure: false,
            without_links: false,
        })
    }

    /// The parked and redo records that were let go on, with their own order.
    fn released(&self, keys: &[CanonicalKey]) -> Vec<Work> {
        let known = self.shared.tables.lock();
        let mut works = Vec::new();
        let (mut held, mut later) = (0_usize, Vec::new());
        // A key may have been let go on under an assignment that is over.
        for key in keys.iter().filter(|key| known.owns(key)) {
            if held > MOST_AWAY {
                later.push(key);
                continue;
            }
            let partition = partition_of(key.as_str().as_bytes(), self.shared.topics.partitions());
            // A timer of an earlier wait may let a record go on that waits for
            // something else by now.
            let recovers = known
                .entry(key)
                .is_some_and(|entry| matches!(entry.state, State::Pending { .. }));
            let (orphans, references) = (&self.shared.orphans, &self.shared.references);
            let waits = known.parked(key);
            let bare = |order: Order| {
                waits.is_some_and(|parked| match parked.order == order {
                    true => parked.without_links,
                    false => parked.order_without_links() == order,
                })
            };
            let parked = waits.filter(|parked| {
                let links = matches!(parked.reason, Reason::Link { .. } | Reason::Dropped { .. });
                !links
                    || recovers
                    || known.can_go_on(parked)
                    || orphans.in_vain(&known, references, key, parked)
            });
            let parked = parked.and_then(|parked| Some((parked.envelope()?, Some(parked.order))));
            let redo = known.redo(key).map(|value| (value.clone(), None));
            let orphan = orphans.get(key);
            let orphan = orphan.map(|orphan| (orphan.envelope, Some(orphan.order)));
            for (value, order) in parked.into_iter().chain(redo).chain(orphan) {
                held = held.saturating_add(away(&value));
                let work = Envelope::decode(&value).and_then(|envelope| {
                    let order = order.or(envelope.order).ok_or_else(|| {
                        Error::new(Code::ForeignBytes, "a redo record without its order")
                    })?;
                    // Its own place, wherever it lay meanwhile.
                    let topic = self.shared.topics.canonical(&self.entity.name);
                    let place = Arc::new(Place::new(topic, partition));
                    let work = self.work(&envelope, order, &value, place)?;
                    let without_links = bare(order);
                    Ok(Work {
                        without_links,
                        ..work
                    })
                });
                match work {
                    Ok(work) => works.push(Work { value, ..work }),
                    Err(error) => tracing::error!(%key, %error, "a record can't be released"),
                }
            }
        }
        drop(known);
        for key in later {
            let (lanes, entity) = (&self.shared.lanes, &self.entity.name);
            lanes.release(entity, key.clone(), Duration::ZERO);
        }
        works
    }
}

/// Where in a text a part of it lies.
fn place_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    match whole.get(from..from + part.len()) {
        Some(_) if !part.is_empty() => from..from + part.len(),
        _ => 0..0,
    }
}
