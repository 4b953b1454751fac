//! How far the groups have read, and what lies before them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use drover_pipeline::Result;
use drover_pipeline::control::INCARNATION;
use drover_pipeline::kafka::client::{Client, PATIENCE, Quiet};
use drover_pipeline::kafka::{Place, explain};
use drover_pipeline::record::Millis;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

/// How long the ages of unread records are looked for.
const LOOK: Duration = Duration::from_secs(2);

/// So few offsets are read to their end, to count the records among them: a
/// transaction ends with a marker, which is an offset, too. They mostly come with the
/// first record that is asked for.
const FEW: u64 = 20;

/// A consumer group as seen from outside. It joins nothing and disturbs nobody.
pub(crate) struct Group {
    client: Client,
    consumer: BaseConsumer<Quiet>,
}

/// What a group has not read of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Records between what is committed and the end; where there are many, offsets.
    pub(crate) records: u64,
    /// When the oldest of them was written; `None` when nothing is unread, or
    /// when it could not be read in time.
    pub(crate) oldest: Option<Millis>,
}

impl Group {
    /// The group of that name.
    pub(crate) fn open(client: &Client, name: &str) -> Result<Self> {
        let consumer = client
            // An open transaction of another group's producer hides nothing.
            .reader("read_uncommitted")
            .set("group.id", name)
            .create_with_context(client.context())
            .map_err(|e| explain("making a client", &e))?;
        Ok(Group {
            client: client.clone(),
            consumer,
        })
    }

    /// The log start and end of every partition of these topics. Topics that
    /// are not there are left out.
    pub(crate) fn ends(&self, topics: &[String]) -> Result<BTreeMap<Place, (i64, i64)>> {
        let metadata = self
            .consumer
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.client.explain("asking the broker for its topics", &e))?;
        let mut ends = BTreeMap::new();
        for topic in metadata.topics() {
            if !topics.iter().any(|wanted| wanted == topic.name()) {
                continue;
            }
            for partition in topic.partitions() {
                let place = Place::new(topic.name(), partition.id());
                let watermarks = self
                    .consumer
                    .fetch_watermarks(topic.name(), partition.id(), PATIENCE)
                    .map_err(|e| {
                        self.client
                            .explain(&format!("asking for the ends of {place}"), &e)
                    })?;
                ends.insert(place, watermarks);
            }
        }
        Ok(ends)
    }

    /// What the group has committed; partitions without are left out.
    pub(crate) fn committed<'p>(
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
            .map_err(|e| {
                self.client
                    .explain("asking for what a group has committed", &e)
            })?;
        Ok(committed
            .elements()
            .iter()
            .filter_map(|elem| match elem.offset() {
                Offset::Offset(offset) => {
                    Some((Place::new(elem.topic(), elem.partition()), offset))
                }
                _ => None,
            })
            .collect())
    }

    /// Those partitions whose committed offset is not yet at the given one.
    pub(crate) fn behind(&self, marks: &BTreeMap<Place, i64>) -> Result<BTreeMap<Place, i64>> {
        let committed = self.committed(marks.keys())?;
        Ok(marks
            .iter()
            .filter(|(place, mark)| committed.get(place).copied().unwrap_or(NOTHING) < **mark)
            .map(|(place, mark)| {
                (
                    place.clone(),
                    mark - committed.get(place).unwrap_or(&NOTHING),
                )
            })
            .collect())
    }

    /// What the group has not read of these topics.
    pub(crate) fn lag(&self, topics: &[String]) -> Result<BTreeMap<Place, Lag>> {
        let ends = self.ends(topics)?;
        let committed = self.committed(ends.keys())?;
        let mut lags = BTreeMap::new();
        let mut unread = BTreeMap::new();
        for (place, (low, high)) in ends {
            let at = committed.get(&place).copied().unwrap_or(NOTHING).max(low);
            let records = u64::try_from(high - at).unwrap_or(0);
            if records > 0 {
                unread.insert(place.clone(), at);
            }
            lags.insert(
                place,
                Lag {
                    records,
                    oldest: None,
                },
            );
        }
        self.look(&unread, &mut lags)?;
        Ok(lags)
    }

    /// Reads the first record behind each position, for its time, and where there are
    /// few, all of them, to count them. Where only commit markers follow, nothing is
    /// unread.
    fn look(&self, from: &BTreeMap<Place, i64>, lags: &mut BTreeMap<Place, Lag>) -> Result<()> {
        let mut open: BTreeMap<&Place, Unread> = BTreeMap::new();
        for (place, at) in from {
            let offsets = lags.get(place).map_or(0, |lag| lag.records);
            let end = *at + i64::try_from(offsets).unwrap_or(i64::MAX);
            open.insert(
                place,
                Unread {
                    end,
                    count: (offsets <= FEW).then_some(0),
                },
            );
        }
        if open.is_empty() {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        for (place, at) in from {
            assignment
                .add_partition_offset(&place.topic, place.partition, Offset::Offset(*at))
                .map_err(|e| explain("assigning", &e))?;
        }
        self.consumer
            .assign(&assignment)
            .map_err(|e| explain("reading", &e))?;
        let deadline = Instant::now() + LOOK;
        while !open.is_empty() && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    let place = Place::new(message.topic(), message.partition());
                    if message.key() == Some(INCARNATION) {
                        continue;
                    }
                    let Some(unread) = open.get_mut(&place) else {
                        continue;
                    };
                    if let Some(lag) = lags.get_mut(&place)
                        && lag.oldest.is_none()
                        && message.offset() < unread.end
                    {
                        lag.oldest = message.timestamp().to_millis();
                    }
                    let is_counted = unread.note(message.offset());
                    if let (true, Some(count), Some(lag)) =
                        (is_counted, unread.count, lags.get_mut(&place))
                    {
                        lag.records = count;
                    }
                    if is_counted {
                        open.remove(&place);
                        // It is enough, and prefetching costs the broker.
                        let mut done = TopicPartitionList::new();
                        done.add_partition(&place.topic, place.partition);
                        let _ = self.consumer.pause(&done);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {
                    let position = self
                        .consumer
                        .position()
                        .map_err(|e| explain("reading", &e))?;
                    open.retain(|place, unread| {
                        let at = position
                            .find_partition(&place.topic, place.partition)
                            .and_then(|elem| elem.offset().to_raw())
                            .unwrap_or(-1);
                        if at < unread.end {
                            return true;
                        }
                        if let Some(lag) = lags.get_mut(*place) {
                            lag.records = unread.count.unwrap_or(0);
                        }
                        false
                    });
                }
                Some(Err(error)) => return Err(explain("reading", &error)),
            }
        }
        self.consumer.unassign().map_err(|e| explain("reading", &e))
    }
}

/// A partition of which something is unread.
struct Unread {
    /// The end when it was asked for.
    end: i64,
    /// How many records were read of it, where they are counted.
    count: Option<u64>,
}

impl Unread {
    /// Takes in the record at that offset; whether no more needs to be read.
    fn note(&mut self, offset: i64) -> bool {
        let Some(count) = &mut self.count else {
            return true;
        };
        *count += u64::from(offset < self.end);
        offset + 1 >= self.end
    }
}

/// Where a group stands in a partition of which it has committed nothing:
/// behind the record that `init` writes first.
pub(crate) const NOTHING: i64 = 1;
