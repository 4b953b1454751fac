//! Topics as `drover init` makes and finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_pipeline::control::{INCARNATION, Incarnation};
use drover_pipeline::kafka::client::{Client, PATIENCE};
use drover_pipeline::kafka::producer::{PlainProducer, Record};
use drover_pipeline::kafka::{Place, explain};
use drover_pipeline::topics::{Cleanup, Topic, Topics};
use drover_pipeline::{Code, Error, Result};
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

/// What lies at the start of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing at all.
    Empty,
    /// Only the record that `init` writes first.
    Fresh(u32),
    /// That record, and others behind it.
    Used(u32),
    /// Something else: `init` did not make it.
    Foreign,
}

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many partitions it has.
    pub partitions: i32,
    /// Its `cleanup.policy`.
    pub policy: String,
    /// All its settings, those of the broker's defaults included.
    pub settings: BTreeMap<String, String>,
}

/// The settings of a topic, each for a reason.
pub fn settings(
    topic: &Topic,
    topics: &Topics,
    replication: Option<i32>,
) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("cleanup.policy", topic.cleanup.policy().to_owned()),
        // A replica that lags must not become the truth: it has forgotten
        // what was acknowledged.
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    if replication.is_some_and(|replicas| replicas >= 3) {
        // Acknowledged means: on two machines.
        all.push(("min.insync.replicas", "2".to_owned()));
    }
    let mut set = |name, value: u64| all.push((name, value.to_string()));
    let is_data = topic.name.contains(".raw.") || topics.entity_of(&topic.name).is_some();
    match topic.cleanup {
        Cleanup::Forever => {
            all.push(("retention.ms", "-1".to_owned()));
            all.push(("retention.bytes", "-1".to_owned()));
            return all;
        }
        // Reports of a second's interval: small segments, soon closed, soon
        // compacted; an instance that is not heard of for a day is forgotten.
        Cleanup::CompactExpire => {
            set("retention.ms", DAY);
            set("segment.ms", 10 * MINUTE);
            set("segment.bytes", 16 * MIB);
            set("delete.retention.ms", MINUTE);
            all.push(("min.cleanable.dirty.ratio", "0.1".to_owned()));
            return all;
        }
        // Large, and mostly written once a key. The last hour keeps every
        // version, for a person who looks at one record's life.
        Cleanup::Compact if is_data => {
            set("segment.bytes", 256 * MIB);
            set("segment.ms", DAY);
            set("min.compaction.lag.ms", HOUR);
        }
        // Tables that every start reads whole: kept short, since a key is
        // written again and again.
        Cleanup::Compact => {
            set("segment.bytes", 64 * MIB);
            set("segment.ms", HOUR);
            all.push(("min.cleanable.dirty.ratio", "0.1".to_owned()));
        }
    }
    // The producers' own limit of 10 MiB, and room for what Kafka adds.
    all.push(("max.message.bytes", (12 * MIB).to_string()));
    // A reader that stood still over a long weekend must still see tombstones.
    all.push(("delete.retention.ms", (7 * DAY).to_string()));
    all
}

/// Asks and changes the broker's topics.
pub struct Broker {
    client: Client,
    admin: AdminClient<DefaultClientContext>,
}

impl Broker {
    /// Makes the clients; contacts nobody yet.
    pub fn new(client: &Client) -> Result<Self> {
        let admin = client
            .admin()
            .create()
            .map_err(|e| explain("making a client", &e))?;
        Ok(Broker {
            client: client.clone(),
            admin,
        })
    }

    /// Those of `names` that are there.
    pub async fn find(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Found>> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.client.explain("asking the broker for its topics", &e))?;
        let counts: BTreeMap<String, i32> = metadata
            .topics()
            .iter()
            .filter(|topic| names.contains(topic.name()) && !topic.partitions().is_empty())
            .map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32))
            .collect();
        let mut found = BTreeMap::new();
        let wanted: Vec<_> = counts
            .keys()
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        if wanted.is_empty() {
            return Ok(found);
        }
        let described = self
            .admin
            .describe_configs(&wanted, &options())
            .await
            .map_err(|e| {
                self.client
                    .explain("asking the broker for its topics' settings", &e)
            })?;
        for ((name, partitions), resource) in counts.iter().zip(described) {
            let resource = resource.map_err(|code| {
                let error = KafkaError::AdminOp(code);
                explain(&format!("asking for the settings of {name}"), &error)
            })?;
            let settings = values(&resource);
            found.insert(
                name.clone(),
                Found {
                    partitions: *partitions,
                    policy: settings.get("cleanup.policy").cloned().unwrap_or_default(),
                    settings,
                },
            );
        }
        Ok(found)
    }

    /// The brokers that answer, by number.
    pub fn ids(&self) -> Result<Vec<i32>> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.client.explain("asking for the brokers", &e))?;
        Ok(metadata
            .brokers()
            .iter()
            .map(|broker| broker.id())
            .collect())
    }

    /// The settings of a broker.
    pub async fn settings(&self, id: i32) -> Result<BTreeMap<String, String>> {
        let what = format!("asking for the settings of broker {id}");
        let described = self
            .admin
            .describe_configs(&[ResourceSpecifier::Broker(id)], &options())
            .await
            .map_err(|e| self.client.explain(&what, &e))?;
        let mut all = BTreeMap::new();
        for resource in described {
            let resource = resource.map_err(|code| explain(&what, &KafkaError::AdminOp(code)))?;
            all.extend(values(&resource));
        }
        Ok(all)
    }

    /// Makes topics, and waits until each can be written to. One that someone
    /// else has made meanwhile is no failure.
    pub async fn create(
        &self,
        missing: &[&Topic],
        topics: &Topics,
        replication: Option<i32>,
    ) -> Result<()> {
        let settings: Vec<_> = missing
            .iter()
            .map(|t| settings(t, topics, replication))
            .collect();
        let new: Vec<NewTopic<'_>> = missing
            .iter()
            .zip(&settings)
            .map(|(topic, settings)| {
                // -1: the broker's own default.
                let replication = TopicReplication::Fixed(replication.unwrap_or(-1));
                let new = NewTopic::new(&topic.name, topic.partitions, replication);
                settings
                    .iter()
                    .fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let made = self
            .admin
            .create_topics(&new, &options())
            .await
            .map_err(|e| self.client.explain("creating topics", &e))?;
        for result in made {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let error = KafkaError::AdminOp(code);
                    return Err(explain(&format!("creating the topic {name}"), &error));
                }
            }
        }
        let deadline = Instant::now() + 3 * PATIENCE;
        while !self.all_led(missing)? {
            if Instant::now() > deadline {
                let message = "the topics that were created have no leader yet";
                return Err(Error::new(Code::KafkaBusy, message));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn all_led(&self, wanted: &[&Topic]) -> Result<bool> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.client.explain("asking the broker for its topics", &e))?;
        Ok(wanted.iter().all(|wanted| {
            metadata.topics().iter().any(|topic| {
                topic.name() == wanted.name
                    && topic.partitions().len() as i32 == wanted.partitions
                    && topic.partitions().iter().all(|p| p.leader() >= 0)
            })
        }))
    }

    /// What lies at the start of every partition of these topics.
    pub fn starts(&self, topics: &[&Topic]) -> Result<BTreeMap<Place, Start>> {
        let consumer: BaseConsumer = self
            .client
            .reader("read_uncommitted")
            .create()
            .map_err(|e| explain("making a client", &e))?;
        let mut starts = BTreeMap::new();
        // By partition, what is known so far, until its end is reached.
        let mut open: BTreeMap<Place, (i64, Start)> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..topic.partitions {
                let place = Place::new(&topic.name, partition);
                let (low, high) = consumer
                    .fetch_watermarks(&topic.name, partition, PATIENCE)
                    .map_err(|e| {
                        self.client
                            .explain(&format!("asking for the ends of {place}"), &e)
                    })?;
                if low == high {
                    starts.insert(place, Start::Empty);
                    continue;
                }
                assignment
                    .add_partition_offset(&topic.name, partition, Offset::Offset(low))
                    .map_err(|e| explain("assigning", &e))?;
                open.insert(place, (high, Start::Empty));
            }
        }
        consumer
            .assign(&assignment)
            .map_err(|e| explain("reading topics", &e))?;
        let deadline = Instant::now() + 3 * PATIENCE;
        while !open.is_empty() {
            if Instant::now() > deadline {
                let message = "the first records of the topics were not readable";
                return Err(self
                    .client
                    .named(Error::new(Code::BrokerUnreachable, message)));
            }
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let place = Place::new(message.topic(), message.partition());
                    let Some((high, known)) = open.get_mut(&place) else {
                        continue;
                    };
                    *known = next(*known, message.key(), message.payload());
                    let ended = message.offset() + 1 >= *high;
                    if ended || !matches!(known, Start::Fresh(_)) {
                        starts.insert(place.clone(), *known);
                        open.remove(&place);
                    }
                }
                // Behind the last record there may be commit markers.
                Some(Err(KafkaError::PartitionEOF(_))) | None => {
                    let position = consumer.position().map_err(|e| explain("reading", &e))?;
                    open.retain(|place, (high, known)| {
                        let at = position.find_partition(&place.topic, place.partition);
                        let at = at.and_then(|elem| elem.offset().to_raw());
                        let ended = at.is_some_and(|at| at >= *high);
                        if ended {
                            starts.insert(place.clone(), *known);
                        }
                        !ended
                    });
                }
                Some(Err(error)) => return Err(explain("reading topics", &error)),
            }
        }
        Ok(starts)
    }

    /// Writes the record of its incarnation into each of these partitions.
    pub fn stamp(&self, places: &BTreeMap<Place, u32>) -> Result<()> {
        let producer = PlainProducer::open(&self.client)?;
        for (place, incarnation) in places {
            let value = json(&Incarnation {
                incarnation: *incarnation,
            })?;
            producer.send(Record {
                topic: &place.topic,
                partition: Some(place.partition),
                key: INCARNATION,
                value: Some(&value),
                headers: None,
            })?;
        }
        producer.flush(6 * PATIENCE)
    }

    /// Writes a document of the topic `control`.
    pub fn write(&self, topic: &str, key: &str, document: &impl serde::Serialize) -> Result<()> {
        let producer = PlainProducer::open(&self.client)?;
        let value = json(document)?;
        producer.send(Record::new(topic, key.as_bytes(), Some(&value)))?;
        producer.flush(6 * PATIENCE)
    }
}

fn next(known: Start, key: Option<&[u8]>, value: Option<&[u8]>) -> Start {
    if key != Some(INCARNATION) {
        return match known {
            Start::Fresh(incarnation) | Start::Used(incarnation) => Start::Used(incarnation),
            Start::Empty | Start::Foreign => Start::Foreign,
        };
    }
    match value.and_then(|value| serde_json::from_slice::<Incarnation>(value).ok()) {
        Some(found) => Start::Fresh(found.incarnation),
        None => Start::Foreign,
    }
}

fn json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|error| Error::new(Code::Invariant, format!("writing a document: {error}")))
}

fn values(resource: &ConfigResource) -> BTreeMap<String, String> {
    let entries = resource.entries.iter();
    entries
        .filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)))
        .collect()
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(3 * PATIENCE))
        .operation_timeout(Some(3 * PATIENCE))
}

/// Whether two cleanup policies are the same, in whatever order they are written.
pub fn same_policy(one: &str, other: &str) -> bool {
    let set = |text: &str| -> BTreeSet<String> {
        text.split(',').map(|word| word.trim().to_owned()).collect()
    };
    set(one) == set(other)
}
