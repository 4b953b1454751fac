//! What the topics hold of one record. Only the partitions of its keys are read.

use std::collections::{BTreeMap, HashMap};

use drover_pipeline::Result;
use drover_pipeline::balance::{Fault, Ledger, Standing};
use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::{Scanned, scan_ranges, watermarks};
use drover_pipeline::parking::Parked;
use drover_pipeline::record::Millis;
use drover_pipeline::topics::{partition_of, partition_of_raw};
use drover_schemas::{Datum, Value};
use serde_json::{Value as Json, json};

use super::key::Asked;
use super::life::{Dead, Life, SlotLife, Version, Waiting};
use crate::balance::{Slots, facts};
use crate::body::in_store;
use crate::migration::Bus;
use crate::offsets::{Group, NOTHING};

/// A record of a topic, kept.
struct Kept {
    topic: String,
    partition: i32,
    offset: i64,
    at: Option<Millis>,
    key: String,
    value: Option<Vec<u8>>,
}

impl Kept {
    fn scanned(&self) -> Scanned<'_> {
        Scanned {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            at: self.at,
            key: self.key.as_bytes(),
            value: self.value.as_deref(),
        }
    }
}

/// The groups whose progress tells where a record is. To find a coordinator takes
/// longer than all the rest, so they are opened once.
pub(super) struct Groups {
    transform: Group,
    load: Option<Group>,
}

impl Groups {
    pub(super) fn open(bus: &Bus) -> Result<Self> {
        let (client, topics) = (&bus.client, &bus.topics);
        let load = match bus.config.dry_run {
            true => None,
            false => Some(Group::open(client, &topics.load_group())?),
        };
        Ok(Groups {
            transform: Group::open(client, &topics.transform_group())?,
            load,
        })
    }
}

/// Reads what the topics hold of a record.
pub(super) fn read(
    bus: &Bus,
    plan: &Plan,
    slots: &Slots,
    groups: &Groups,
    asked: &Asked,
) -> Result<Life> {
    let (topics, raw_key) = (&bus.topics, asked.key.as_str());
    let (_, name, _) = asked.key.parts();
    let custom = plan.objects.iter().any(|o| o.name == name && o.custom);
    let raw_topic = topics.raw(name, custom);
    let partition = partition_of_raw(&asked.key, topics.partitions());
    let object = plan.objects.iter().find(|object| object.name == name);
    let mapping = object.and_then(|object| plan.mapping.of(object));
    let named: Vec<(String, String)> = mapping
        .into_iter()
        .flat_map(|mapping| &mapping.slots)
        .filter(|(slot, _)| asked.slot.as_ref().is_none_or(|asked| asked == *slot))
        .map(|(slot, rule)| (format!("{raw_key}#{slot}"), rule.entity.clone()))
        .collect();

    // The ends are taken in the order that the balance's reading explains.
    let mut tables = vec![Place::new(topics.deadletter(), partition)];
    let mut canonicals = Vec::new();
    for (key, entity) in &named {
        let partition = partition_of(key.as_bytes(), topics.partitions());
        canonicals.push(Place::new(topics.canonical(entity), partition));
        for topic in [
            topics.idempotency(),
            topics.parked(),
            topics.redo(),
            topics.deadletter(),
        ] {
            tables.push(Place::new(topic, partition));
        }
    }
    let raws = vec![Place::new(&raw_topic, partition)];
    let mut committed = groups.transform.committed(raws.iter())?;
    if let Some(load) = &groups.load {
        committed.extend(load.committed(canonicals.iter())?);
    }
    let mut ranges = BTreeMap::new();
    for place in tables.into_iter().chain(canonicals).chain(raws) {
        let range = watermarks(&bus.client, &place)?;
        ranges.insert(place, range);
    }
    let mut kept = Vec::new();
    scan_ranges(&bus.client, &ranges, |record| {
        let key = String::from_utf8_lossy(record.key);
        let letter = record.topic == topics.deadletter();
        let of = match letter {
            true => facts::letter_of(&key).map_or("", |(_, key)| key),
            false => &key,
        };
        if of == raw_key || named.iter().any(|(key, _)| key == of) {
            kept.push(Kept {
                topic: record.topic.to_owned(),
                partition: record.partition,
                offset: record.offset,
                at: record.at,
                key: key.clone().into_owned(),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
        Ok(())
    })?;
    kept.sort_by(|one, other| (&one.topic, one.offset).cmp(&(&other.topic, other.offset)));

    let of = |topic: &str| -> Vec<&Kept> { kept.iter().filter(|k| k.topic == topic).collect() };
    let places = places(bus, plan, slots, &kept, &committed, &raw_topic)?;
    let letters = of(&topics.deadletter());
    let life = Life {
        key: raw_key.to_owned(),
        raw: of(&raw_topic)
            .into_iter()
            .map(|record| version(record, &committed))
            .collect(),
        letters: ["extractor", "transformer"]
            .iter()
            .filter_map(|stage| newest(&letters, &format!("{stage}/{raw_key}")))
            .filter_map(dead)
            .collect(),
        slots: named
            .iter()
            .map(|(key, entity)| {
                let entry = newest(&of(&topics.idempotency()), key);
                let parked = newest(&of(&topics.parked()), key);
                let standing = places.get(key);
                SlotLife {
                    key: key.clone(),
                    entity: entity.clone(),
                    place: standing.map_or_else(|| "nowhere".to_owned(), |s| place(*s)),
                    wrong: standing.and_then(|standing| match standing {
                        Standing::Red(fault) => Some(wrong(*fault)),
                        _ => None,
                    }),
                    canonical: of(&topics.canonical(entity))
                        .into_iter()
                        .filter(|record| record.key == *key)
                        .map(|record| version(record, &committed))
                        .collect(),
                    entry: entry.and_then(|e| serde_json::from_slice(e.value.as_ref()?).ok()),
                    entry_at: entry.and_then(|entry| entry.at),
                    parked: parked.and_then(waiting),
                    redo_at: newest(&of(&topics.redo()), key).and_then(|redo| redo.at),
                    letter: newest(&letters, &format!("loader/{key}")).and_then(dead),
                    target: None,
                    differences: Vec::new(),
                }
            })
            .collect(),
    };
    Ok(life)
}

/// Where each slot is: the balance's own join, over this record alone.
fn places(
    bus: &Bus,
    plan: &Plan,
    slots: &Slots,
    kept: &[Kept],
    committed: &HashMap<Place, i64>,
    raw_topic: &str,
) -> Result<HashMap<String, Standing>> {
    let topics = &bus.topics;
    let partitions = topics.partitions();
    let mut ledger = Ledger::of_all(slots, partitions);
    for record in kept.iter().filter(|k| topics.entity_of(&k.topic).is_some()) {
        let incarnation = plan.incarnations.get(&record.topic).copied();
        let canonical = facts::canonical(&record.scanned(), incarnation.unwrap_or(1))?;
        ledger.canonical(&record.key, canonical, !is_committed(record, committed));
    }
    for record in kept.iter().filter(|k| k.topic == topics.parked()) {
        ledger.parked(&record.key, record.value.as_deref().map(facts::parked));
    }
    for record in kept.iter().filter(|k| k.topic == topics.redo()) {
        ledger.redo(&record.key, record.value.as_deref().map(facts::redo));
    }
    for record in kept.iter().filter(|k| k.topic == topics.deadletter()) {
        if let Some((stage, key)) = facts::letter_of(&record.key) {
            let letter = record.value.as_deref().map(|v| facts::letter(stage, v));
            ledger.letter(stage, key, letter);
        }
    }
    for record in kept.iter().filter(|k| k.topic == topics.idempotency()) {
        ledger.entry(&record.key, record.value.as_deref().map(facts::entry));
    }
    for record in kept.iter().filter(|k| k.topic == raw_topic) {
        let raw = facts::raw(&record.scanned())?;
        ledger.raw(&record.key, raw, !is_committed(record, committed));
    }
    Ok(ledger.places())
}

fn is_committed(record: &Kept, committed: &HashMap<Place, i64>) -> bool {
    let place = Place::new(&record.topic, record.partition);
    record.offset < committed.get(&place).copied().unwrap_or(NOTHING)
}

/// The newest record of a key, unless it is a tombstone.
fn newest<'k>(records: &[&'k Kept], key: &str) -> Option<&'k Kept> {
    let newest = records.iter().rev().find(|record| record.key == key)?;
    newest.value.is_some().then_some(*newest)
}

fn version(record: &Kept, committed: &HashMap<Place, i64>) -> Version {
    let value = record.value.as_deref();
    let envelope = value.and_then(|value| Envelope::decode(value).ok());
    let envelope = envelope.as_ref();
    let is_raw = envelope.is_some_and(|e| e.slot.is_empty());
    Version {
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        at: record.at,
        committed: is_committed(record, committed),
        op: envelope.map(|e| e.op),
        reason: envelope.and_then(|e| e.reason),
        version: envelope.map(|e| e.version),
        phase: envelope.map(|e| e.phase),
        extracted_at: envelope.map(|e| e.extracted_at),
        mapping: envelope.filter(|_| !is_raw).map(|e| e.mapping),
        fingerprint: envelope.map(|e| e.fingerprint),
        bytes: value.map_or(0, <[u8]>::len),
        body: envelope.and_then(body),
        stored: envelope.and_then(|e| e.stored.as_ref()).map(in_store),
    }
}

/// A body as JSON: the source's own, or the entity's fields.
fn body(envelope: &Envelope<'_>) -> Option<Json> {
    let bytes = envelope.body?;
    let entity = envelope.body_schema.rsplit_once(".v").map(|parts| parts.0);
    let Some(entity) = entity.and_then(drover_schemas::entity) else {
        return serde_json::from_slice(bytes).ok();
    };
    let datum = Datum::decode(entity, bytes).ok()?;
    let mut fields = serde_json::Map::new();
    for (field, value) in entity.fields.iter().zip(&datum.values) {
        let value = match value {
            Value::Null => continue,
            Value::String(text) | Value::Decimal(text) | Value::Reference(text) => json!(text),
            Value::Boolean(value) => json!(value),
            Value::Long(value) => json!(value),
            Value::Date(days) => json!(super::show::date(*days)),
            Value::Datetime(at) => json!(super::show::time(*at)),
        };
        fields.insert(field.name.clone(), value);
    }
    for custom in &datum.custom {
        let value = serde_json::from_str(&custom.json).unwrap_or_else(|_| json!(custom.json));
        fields.insert(format!("custom.{}", custom.name), value);
    }
    Some(Json::Object(fields))
}

fn waiting(record: &Kept) -> Option<Waiting> {
    let parked: Parked = serde_json::from_slice(record.value.as_ref()?).ok()?;
    Some(Waiting {
        reason: parked.reason,
        order: parked.order,
        since: parked.since,
    })
}

fn dead(record: &Kept) -> Option<Dead> {
    let letter: DeadLetter = serde_json::from_slice(record.value.as_ref()?).ok()?;
    Some(Dead {
        stage: letter.stage.as_str(),
        code: letter.code,
        message: letter.message,
        place: letter.place,
        version: letter.version,
        at: letter.at,
    })
}

fn place(standing: Standing) -> String {
    match standing {
        Standing::Applied => "applied".into(),
        Standing::Linking => "applied, an optional link waits".into(),
        Standing::Unlinked => "applied, a link is missing whose other end never comes".into(),
        Standing::Absent(reason) => format!("absent: {}", reason.as_str()),
        Standing::Untaken => "not taken by the target".into(),
        Standing::Parked => "parked".into(),
        Standing::Dead => "dead".into(),
        Standing::InFlight => "in flight".into(),
        Standing::Red(fault) => format!("RED: {}", fault.as_str()),
    }
}

fn wrong(fault: Fault) -> String {
    let (_, why, advice) = fault.facts();
    format!("{why}; {advice}")
}
