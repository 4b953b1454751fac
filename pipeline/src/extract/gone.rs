//! What a second copy of an object does not find. A lane whose checkpoint was taken
//! away copies its object whole again, and the source's log of deletes may not reach
//! back to what was copied before: a record that was deleted meanwhile would stay in
//! the target for good. So a copy ends with those that lay in the raw topic before it
//! began and did not come again: the source is asked for each of them.

use std::collections::BTreeMap;

use super::{Change, Extractor, Object};
use crate::envelope::Envelope;
use crate::error::{Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{ranges, scan_ranges};
use crate::record::{Millis, Op};

/// How many records the source is asked for at once.
const AT_ONCE: usize = 200;

/// Where a topic's partitions end now, in their order.
pub(super) fn ends(client: &Client, topic: &str) -> Result<Vec<i64>> {
    Ok(ranges(client, topic)?
        .values()
        .map(|(_, high)| *high)
        .collect())
}

/// The records of an object, id and version, that were in the raw topic before those
/// offsets and have not come since.
pub(super) fn missed(
    client: &Client,
    topic: &str,
    object: &str,
    before: &[i64],
) -> Result<BTreeMap<String, Millis>> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    for (place, (low, high)) in ranges(client, topic)? {
        let at = usize::try_from(place.partition).ok();
        let began = at.and_then(|at| before.get(at)).copied();
        let began = began.unwrap_or(low).clamp(low, high);
        old.insert(place.clone(), (low, began));
        new.insert(place, (began, high));
    }
    let mut known = BTreeMap::new();
    read(client, &old, object, |envelope| {
        match envelope.op {
            Op::Upsert => known.insert(envelope.id.to_owned(), envelope.version),
            Op::Delete | Op::Absent => known.remove(envelope.id),
        };
    })?;
    // Of a first copy nothing lies there, and what it has written is not read.
    if !known.is_empty() {
        read(client, &new, object, |envelope| {
            known.remove(envelope.id);
        })?;
    }
    Ok(known)
}

fn read(
    client: &Client,
    ranges: &BTreeMap<Place, (i64, i64)>,
    object: &str,
    mut each: impl FnMut(&Envelope<'_>),
) -> Result<()> {
    scan_ranges(client, ranges, |record| {
        // What is not ours is reported by who reads the topic for its own sake.
        let envelope = record.value.and_then(|value| Envelope::decode(value).ok());
        if let Some(envelope) = envelope.filter(|envelope| envelope.object == object) {
            each(&envelope);
        }
        Ok(())
    })
}

/// Those records as the source has them now: deleted, where it shows none, as of then.
pub(super) async fn judge<E: Extractor>(
    extractor: &E,
    object: &Object,
    missed: &BTreeMap<String, Millis>,
    as_of: Millis,
) -> Result<Vec<Change>> {
    let ids: Vec<&str> = missed.keys().map(String::as_str).collect();
    let mut changes = Vec::with_capacity(ids.len());
    for ids in ids.chunks(AT_ONCE) {
        let found = extractor.get(object, ids).await?;
        if found.len() != ids.len() {
            let told = format!("{} answers to {} ids", found.len(), ids.len());
            return Err(Error::new(Code::Invariant, told).at(object.name.clone()));
        }
        for (id, found) in ids.iter().zip(found) {
            // Newer than the version that is known, or the target would pass it over.
            let version = as_of.max(missed[*id] + 1);
            changes.push(found.unwrap_or_else(|| Change {
                id: (*id).to_owned(),
                op: Op::Delete,
                version,
                body: None,
            }));
        }
    }
    Ok(changes)
}
