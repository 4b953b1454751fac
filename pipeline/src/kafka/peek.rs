//! A look at single records, wherever they lie.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::client::Client;
use super::{Place, explain};
use crate::error::Result;
use crate::record::Millis;

/// How long is looked for records that may not be there.
const LOOK: Duration = Duration::from_secs(2);

/// A record, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// When it was written, as the broker tells it.
    pub at: Option<Millis>,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; empty for a tombstone.
    pub value: Vec<u8>,
}

/// The first record at or behind an offset, committed or not. `None` when there
/// is none within 2 s: what lies there may be the markers of transactions.
pub fn record_at(client: &Client, place: &Place, offset: i64) -> Result<Option<Peeked>> {
    let found = records_from(client, &[(place.clone(), offset)])?;
    Ok(found.into_values().next())
}

/// The same for one offset of each of several partitions.
pub fn records_from(client: &Client, from: &[(Place, i64)]) -> Result<HashMap<Place, Peeked>> {
    let mut found = HashMap::new();
    if from.is_empty() {
        return Ok(found);
    }
    let mut assignment = TopicPartitionList::new();
    for (place, offset) in from {
        assignment
            .add_partition_offset(&place.topic, place.partition, Offset::Offset(*offset))
            .map_err(|e| explain("assigning", &e))?;
    }
    let consumer = client.open_reader("read_uncommitted")?;
    consumer
        .assign(&assignment)
        .map_err(|e| explain("looking at records", &e))?;
    let since = Instant::now();
    while found.len() < from.len() && since.elapsed() < LOOK {
        // The end of a partition, or a passing error: the time is short anyway.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let place = Place::new(message.topic(), message.partition());
        let mut done = TopicPartitionList::new();
        done.add_partition(&place.topic, place.partition);
        consumer
            .pause(&done)
            .map_err(|e| explain("looking at records", &e))?;
        found.entry(place).or_insert_with(|| Peeked {
            at: message.timestamp().to_millis(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
        });
    }
    Ok(found)
}
