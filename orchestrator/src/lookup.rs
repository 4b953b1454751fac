//! One record in a topic.

use std::time::{Duration, Instant};

use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::compacted::watermarks;
use drover_pipeline::kafka::{Place, explain};
use drover_pipeline::topics::partition_of;
use drover_pipeline::{Code, Error, Result};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

/// How long the broker may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// A record as it lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where.
    pub(crate) offset: i64,
    /// Its value; `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

/// Whether a person who writes `wanted` means the record of that key: the key
/// itself, with or without its slot, or its end from a slash on, as `Contact/003…`
/// or the id alone.
pub(crate) fn names(key: &str, wanted: &str) -> bool {
    let is = |whole: &str| {
        whole
            .strip_suffix(wanted)
            .is_some_and(|front| front.is_empty() || front.ends_with('/') && !wanted.is_empty())
    };
    is(key) || key.rsplit_once('#').is_some_and(|(raw, _)| is(raw))
}

/// The record of that key at that offset; `None` where it was compacted away.
pub(crate) fn at(client: &Client, place: &Place, offset: i64, key: &str) -> Result<Option<Found>> {
    let (low, high) = watermarks(client, place)?;
    if offset < low || offset >= high {
        return Ok(None);
    }
    let mut found = None;
    read(client, place, offset, offset + 1, |at, its, value| {
        if at == offset && its == key.as_bytes() {
            found = Some(Found {
                offset: at,
                value: value.map(<[u8]>::to_vec),
            });
        }
    })?;
    Ok(found)
}

/// The newest records of some keys of one topic. Reads the keys' partitions
/// whole, and none else.
pub(crate) fn latest(
    client: &Client,
    topic: &str,
    partitions: i32,
    keys: &[&str],
) -> Result<Vec<Option<Found>>> {
    let mut newest: Vec<Option<Found>> = vec![None; keys.len()];
    let mut places: Vec<i32> = keys
        .iter()
        .map(|key| partition_of(key.as_bytes(), partitions))
        .collect();
    places.sort_unstable();
    places.dedup();
    for partition in places {
        let place = Place::new(topic, partition);
        let (low, high) = watermarks(client, &place)?;
        if low >= high {
            continue;
        }
        read(client, &place, low, high, |offset, key, value| {
            if let Some(at) = keys.iter().position(|wanted| wanted.as_bytes() == key) {
                newest[at] = Some(Found {
                    offset,
                    value: value.map(<[u8]>::to_vec),
                });
            }
        })?;
    }
    Ok(newest)
}

/// Reads a partition's committed records from one offset up to another.
fn read(
    client: &Client,
    place: &Place,
    from: i64,
    to: i64,
    mut each: impl FnMut(i64, &[u8], Option<&[u8]>),
) -> Result<()> {
    let consumer = client.open_scanner()?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(&place.topic, place.partition, Offset::Offset(from))
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|e| explain(&format!("reading {place}"), &e))?;
    let mut heard = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.offset() < to => {
                heard = Instant::now();
                let key = message.key().unwrap_or_default();
                each(message.offset(), key, message.payload());
                if message.offset() + 1 == to {
                    return Ok(());
                }
            }
            // Behind the end; or all that is left are commit markers.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if heard.elapsed() > SILENCE => {
                return Err(explain(&format!("reading {place}"), &error));
            }
            None if heard.elapsed() > SILENCE => {
                let told = format!("{place} gives nothing for {} s", SILENCE.as_secs());
                return Err(Error::new(Code::BrokerUnreachable, told));
            }
            Some(Err(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_record_is_named_by_its_key_or_by_the_end_of_it() {
        let key = "salesforce/Contact/003A#contact";
        for wanted in [
            key,
            "salesforce/Contact/003A",
            "Contact/003A",
            "003A",
            "003A#contact",
        ] {
            assert!(names(key, wanted), "{wanted}");
        }
        for other in [
            "",
            "3A",
            "tact/003A",
            "Contact/003A#",
            "Lead/003A",
            "contact",
        ] {
            assert!(!names(key, other), "{other}");
        }
    }
}
