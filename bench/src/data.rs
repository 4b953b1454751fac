//! Contact-like records as the Salesforce extractor writes them: the same
//! names, kinds and proportions of empty fields, about 500 bytes of JSON.

use std::time::Duration;

use drover_pipeline::envelope::Envelope;
use drover_pipeline::record::{Op, Phase, Raw, RawKey};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::bench::Result;

/// 2026-03-01T00:00:00Z
const START: i64 = 1_772_323_200_000;

const FIRST: [&str; 8] = [
    "Ada",
    "Björn",
    "Chen",
    "Dmitri",
    "Esperanza",
    "Fatima",
    "Giulia",
    "Hana",
];
const LAST: [&str; 8] = [
    "Lovelace",
    "Ångström",
    "Wei",
    "Mendeleev",
    "Vargas",
    "al-Fihri",
    "Rossi",
    "Sato",
];
const TITLE: [&str; 5] = [
    "VP of Engineering",
    "Buyer",
    "Chief Financial Officer",
    "Site Manager",
    "Analyst",
];
const CITY: [(&str, &str, &str); 4] = [
    ("Rotterdam", "Zuid-Holland", "Netherlands"),
    ("San José", "California", "USA"),
    ("Łódź", "Łódzkie", "Poland"),
    ("Lawrence", "Kansas", "USA"),
];

/// Writes the JSON of the n-th contact into `out`, over what is there.
pub fn contact(n: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    out.clear();
    // A fixed walk through the tables, so that neighbours differ and every run
    // on every machine has the same bytes.
    let mix = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17;
    let pick = |bits: u32, len: usize| (mix >> bits) as usize % len;
    let (first, last) = (FIRST[pick(0, FIRST.len())], LAST[pick(3, LAST.len())]);
    let title = TITLE[pick(6, TITLE.len())];
    let (city, state, country) = CITY[pick(9, CITY.len())];
    let (day, second) = (1 + pick(12, 28), pick(5, 60));
    // A Vec takes every byte, so writing cannot fail.
    let _ = write!(
        out,
        "{{\"Id\":\"003Ws{n:010}IAB\",\"IsDeleted\":false,\"AccountId\":\"001Ws{:010}IAR\",\
         \"LastName\":\"{last}\",\"FirstName\":\"{first}\",\"Salutation\":null,\
         \"Name\":\"{first} {last}\",\"MailingStreet\":\"{} Main St.\\nFloor {day}\",\
         \"MailingCity\":\"{city}\",\"MailingState\":\"{state}\",\"MailingPostalCode\":\"{:05}\",\
         \"MailingCountry\":\"{country}\",\"Phone\":\"(785) 241-{:04}\",\"MobilePhone\":null,\
         \"Email\":\"contact{n}@example.com\",\"Title\":\"{title}\",\"Department\":null,\
         \"Birthdate\":\"19{:02}-04-{day:02}\",\
         \"CreatedDate\":\"2026-01-{day:02}T08:15:{second:02}.000+0000\",\
         \"LastModifiedDate\":\"2026-02-{day:02}T08:15:{second:02}.000+0000\",\
         \"Level__c\":\"Tertiary\",\"Score__c\":{}.0}}",
        n / 10,
        mix % 9000,
        mix % 99_999,
        mix % 10_000,
        50 + pick(2, 50),
        mix % 1000,
    );
}

/// Writes that many contacts into a raw topic; returns the bytes of their bodies.
pub fn fill(brokers: &str, topic: &str, migration: &str, records: u64) -> Result<u64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("partitioner", "murmur2_random")
        .create()?;
    let (mut body, mut value) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for n in 0..records {
        contact(n, &mut body);
        bytes += body.len() as u64;
        let raw = Raw {
            key: RawKey::new("salesforce", "Contact", &format!("003Ws{n:010}IAB"))?,
            op: Op::Upsert,
            version: START + n as i64,
            phase: Phase::Snapshot,
            extracted_at: START,
            body: Some(std::mem::take(&mut body)),
        };
        value.clear();
        Envelope::of_raw(migration, &raw).encode_into(&mut value);
        let mut record = BaseRecord::to(topic).key(raw.key.as_str()).payload(&value);
        while let Err((error, returned)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(1));
            record = returned;
        }
        body = raw.body.unwrap_or_default();
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_json_of_about_500_bytes() {
        let mut body = Vec::new();
        let mut sum = 0;
        for n in 0..1000 {
            contact(n * 977, &mut body);
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(value["Email"], format!("contact{}@example.com", n * 977));
            sum += body.len();
        }
        assert!((500..700).contains(&(sum / 1000)), "{}", sum / 1000);
    }
}
