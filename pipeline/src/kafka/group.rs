//! What a consumer group has committed, seen from outside.

use std::collections::{BTreeMap, HashMap};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use super::client::{Client, PATIENCE, Quiet};
use super::compacted::{high_watermark, partition_count};
use super::{Place, explain};
use crate::error::Result;

/// A consumer group as others see it. It joins nothing and disturbs nobody.
pub struct GroupOffsets {
    client: Client,
    consumer: BaseConsumer<Quiet>,
}

impl GroupOffsets {
    /// The group of that name.
    pub fn open(client: &Client, group: &str) -> Result<Self> {
        let consumer = client
            // An open transaction hides nothing: what it would commit later is
            // asked for again later.
            .reader("read_uncommitted")
            .set("group.id", group)
            .create_with_context(client.context())
            .map_err(|e| explain("making a client", &e))?;
        Ok(GroupOffsets {
            client: client.clone(),
            consumer,
        })
    }

    /// The committed offsets of these partitions; those without are left out.
    pub fn committed<'p>(
        &self,
        places: impl Iterator<Item = &'p Place>,
    ) -> Result<HashMap<Place, i64>> {
        let mut list = TopicPartitionList::new();
        for place in places {
            list.add_partition(&place.topic, place.partition);
        }
        if list.count() == 0 {
            return Ok(HashMap::new());
        }
        let committed = self
            .consumer
            .committed_offsets(list, PATIENCE)
            .map_err(|e| explain("asking for what a group has committed", &e))?;
        let offset_of = |elem: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            match elem.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        };
        Ok(committed
            .elements()
            .iter()
            .filter_map(|elem| Some((Place::new(elem.topic(), elem.partition()), offset_of(elem)?)))
            .collect())
    }

    /// Where these topics end now, open transactions included.
    pub fn ends<'t>(
        &self,
        topics: impl Iterator<Item = &'t String>,
    ) -> Result<BTreeMap<Place, i64>> {
        let mut ends = BTreeMap::new();
        for topic in topics {
            for partition in 0..partition_count(&self.client, topic)? {
                let place = Place::new(topic, partition);
                let end = high_watermark(&self.client, &place)?;
                ends.insert(place, end);
            }
        }
        Ok(ends)
    }
}
