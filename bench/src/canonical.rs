//! Contacts as the transformer writes them, for what reads them: about 650 bytes
//! a record, without references.

use std::time::Duration;

use drover_pipeline::envelope::Envelope;
use drover_pipeline::record::{Fingerprint, Op, Phase};
use drover_schemas::{Custom, Datum, Entity, Value, entity};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::bench::Result;

/// 2026-03-01T00:00:00Z
pub const START: i64 = 1_772_323_200_000;

/// The filled text fields of the n-th contact, and its birth date in days since
/// 1970. `version` is part of the content, so that each version differs.
pub fn texts(n: u64, version: u64) -> ([(&'static str, String); 10], i32) {
    let mix = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17;
    let pick = |bits: u32, from: &[&str]| from[(mix >> bits) as usize % from.len()].to_owned();
    let first = pick(
        0,
        &["Ada", "Björn", "Chen", "Dmitri", "Esperanza", "Fatima"],
    );
    let last = pick(3, &["Lovelace", "Ångström", "Wei", "Mendeleev", "al-Fihri"]);
    let fields = [
        ("firstName", first),
        ("lastName", last),
        ("email", format!("contact{n}@example.com")),
        ("phoneNumber", format!("(785) 241-{:04}", mix % 10_000)),
        (
            "title",
            pick(
                6,
                &["VP of Engineering", "Buyer", "Site Manager", "Analyst"],
            ),
        ),
        (
            "mailingStreet",
            format!(
                "{} Main St.\nFloor {}, version {version}",
                mix % 9000,
                mix % 28
            ),
        ),
        (
            "mailingCity",
            pick(9, &["Rotterdam", "San José", "Łódź", "Lawrence"]),
        ),
        (
            "mailingState",
            pick(9, &["Zuid-Holland", "California", "Łódzkie", "Kansas"]),
        ),
        ("mailingPostalCode", format!("{:05}", mix % 99_999)),
        (
            "mailingCountry",
            pick(9, &["Netherlands", "USA", "Poland", "USA"]),
        ),
    ];
    (fields, (mix % 20_000) as i32 - 7000)
}

/// Moments of the n-th contact: created and updated, in milliseconds.
pub fn moments(n: u64) -> (i64, i64) {
    let created = START - 86_400_000 * (n % 400) as i64 - 1000 * (n % 3600) as i64;
    (created, created + 3_600_000)
}

/// What stands in `custom`: names and JSON texts.
pub fn customs(n: u64) -> [(&'static str, String); 2] {
    [
        ("Level__c", "\"Tertiary\"".to_owned()),
        ("Score__c", format!("{}.0", n % 1000)),
    ]
}

/// The id of the n-th contact.
pub fn id(n: u64) -> String {
    format!("003Ws{n:010}IAB")
}

fn body(entity: &Entity, n: u64, version: u64, out: &mut Vec<u8>) -> Option<()> {
    let mut datum = Datum::empty(entity);
    let mut set = |name: &str, value| {
        let (place, _) = entity.field(name)?;
        datum.values[place] = value;
        Some(())
    };
    let (texts, birth) = texts(n, version);
    for (name, text) in texts {
        set(name, Value::String(text.into()))?;
    }
    let (created, updated) = moments(n);
    set("birthDate", Value::Date(birth))?;
    set("createdAt", Value::Datetime(created))?;
    set("updatedAt", Value::Datetime(updated))?;
    datum.custom = customs(n)
        .into_iter()
        .map(|(name, json)| Custom {
            name: name.into(),
            kind: "string".into(),
            json: json.into(),
        })
        .collect();
    out.clear();
    datum.encode(out);
    Some(())
}

/// Writes versions of that many contacts into a canonical topic: all contacts in
/// one version, then all in the next.
pub fn fill(
    brokers: &str,
    topic: &str,
    migration: &str,
    keys: u64,
    versions: std::ops::Range<u64>,
) -> Result<()> {
    let producer = producer(brokers)?;
    let entity = entity("contact").ok_or("no contact")?;
    let (mut datum, mut value) = (Vec::new(), Vec::new());
    for version in versions {
        for n in 0..keys {
            body(entity, n, version, &mut datum).ok_or("the contact has other fields")?;
            let id = id(n);
            let envelope = Envelope {
                migration,
                source: "salesforce",
                object: "Contact",
                id: &id,
                slot: "contact",
                op: Op::Upsert,
                reason: None,
                version: START + version as i64,
                phase: Phase::Snapshot,
                extracted_at: START,
                mapping: 1,
                fingerprint: Fingerprint::of(Op::Upsert, &entity.schema, &datum),
                body_schema: &entity.schema,
                order: None,
                body: Some(&datum),
                stored: None,
            };
            value.clear();
            envelope.encode_into(&mut value);
            let key = format!("salesforce/Contact/{id}#contact");
            send(&producer, topic, key.as_bytes(), &value)?;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

/// A producer for filling topics.
pub fn producer(brokers: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("partitioner", "murmur2_random")
        .create()?)
}

/// Produces a record, waiting while the queue is full.
pub fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    while let Err((error, returned)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
        record = returned;
    }
    Ok(())
}
