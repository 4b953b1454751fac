//! A member of a consumer group whose offsets live in transactions.
//!
//! The group protocol is the classic one with eager range assignment: every
//! rebalance takes all partitions away and gives a new set, so an assignment
//! has one number (its `epoch`) and one group metadata for its whole life.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;

use super::client::{Client, Heard, PATIENCE};
use super::continuity::{made_anew, position_within};
use super::heard::{log, log_error};
use super::{Place, compacted, explain};
use crate::error::{Code, Error, Result};
use crate::retry::patiently;

/// For how long an assignment is tried again when the broker fails.
const RESTORE: Duration = Duration::from_secs(60);

/// What a stage does when partitions come and go. Called by the thread that
/// polls, which waits for it.
pub trait Rebalance: Send + Sync + 'static {
    /// These partitions are ours from now on, and reading starts at the given
    /// offsets; `committed` holds the metadata texts stored with them. Restores
    /// what belongs to them. On an error nothing is read and the member's
    /// [`Member::poll`] returns the error.
    fn assigned(&self, assignment: &Assignment) -> Result<()>;

    /// Which incarnation each topic is, as `init` left it; proved with each
    /// assignment for the topics that are named here.
    fn incarnations(&self) -> BTreeMap<String, u32> {
        BTreeMap::new()
    }

    /// Topics of which nothing is read any more, whatever is assigned: a person
    /// must act first.
    fn blocked(&self) -> HashSet<String> {
        HashSet::new()
    }

    /// All partitions are taken away. Finishes what is under way within 5 s or
    /// drops it: a later commit with the old group metadata is refused.
    fn revoked(&self);
}

/// What a member owns between two rebalances.
pub struct Assignment {
    /// Grows with each assignment of this process.
    pub epoch: u64,
    /// By partition, the committed offset (0 if none) at which reading starts.
    pub starts: HashMap<Place, i64>,
    /// By partition, the text stored with the committed offset.
    pub committed: HashMap<Place, String>,
    /// Topics of which nothing is read in this assignment, and why: they were
    /// cut before we read them, or made anew.
    pub lost: BTreeMap<String, Error>,
    /// The group as it is in this generation.
    pub group: Arc<ConsumerGroupMetadata>,
}

struct Context {
    handler: Arc<dyn Rebalance>,
    client: Client,
    heard: Heard,
    state: std::sync::Mutex<(u64, Option<Error>)>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(&self.heard, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let epoch = {
                let mut state = self.lock();
                state.0 += 1;
                state.0
            };
            // A broker that restarts just now; the group waits longer for us.
            let result = patiently(
                |waited| waited < RESTORE,
                || self.assign(consumer, epoch, list),
            );
            if let Err(error) = result {
                tracing::error!(%error, "the assignment failed");
                self.lock().1 = Some(error);
            }
        } else {
            self.handler.revoked();
            // The client keeps a pause beyond the assignment: a partition that came
            // back to us would never be read again.
            let resumed = consumer
                .assignment()
                .and_then(|assigned| consumer.resume(&assigned));
            if let Err(error) = resumed {
                tracing::error!(%error, "could not resume what was paused");
            }
            if let Err(error) = consumer.unassign() {
                tracing::error!(%error, "could not give partitions back");
            }
        }
    }
}

impl Context {
    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Option<Error>)> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        epoch: u64,
        list: &TopicPartitionList,
    ) -> Result<()> {
        let group = consumer
            .group_metadata()
            .ok_or_else(|| Error::new(Code::Invariant, "a member without a group"))?;
        let (mut starts, committed, mut lost) = if list.count() == 0 {
            Default::default()
        } else {
            self.start_offsets(consumer, list)?
        };
        let places: Vec<Place> = starts.keys().cloned().collect();
        lost.extend(made_anew(
            &self.client,
            &places,
            &self.handler.incarnations(),
        )?);
        let blocked = self.handler.blocked();
        starts
            .retain(|place, _| !lost.contains_key(&place.topic) && !blocked.contains(&place.topic));
        let assignment = Assignment {
            epoch,
            starts,
            committed,
            lost,
            group: Arc::new(group),
        };
        let mut with_offsets = TopicPartitionList::with_capacity(assignment.starts.len());
        for (place, offset) in &assignment.starts {
            with_offsets
                .add_partition_offset(&place.topic, place.partition, Offset::Offset(*offset))
                .map_err(|e| explain("naming an offset", &e))?;
        }
        self.handler.assigned(&assignment)?;
        consumer
            .assign(&with_offsets)
            .map_err(|e| explain("taking partitions", &e))
    }

    /// The committed offsets. The broker answers only when no transaction with
    /// offsets of these partitions is pending (`require_stable`), so a dead
    /// owner's last commit is either in it or aborted.
    fn start_offsets(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Result<Starts> {
        let mut tries = 0;
        let answer = loop {
            match consumer.committed_offsets(list.clone(), PATIENCE) {
                Ok(answer) => break answer,
                Err(error) if tries < 6 => {
                    tries += 1;
                    tracing::warn!(%error, "waiting for pending offsets");
                }
                Err(error) => {
                    return Err(self.client.explain("asking for committed offsets", &error));
                }
            }
        };
        let mut starts = HashMap::new();
        let mut committed = HashMap::new();
        let mut lost = BTreeMap::new();
        for elem in answer.elements() {
            elem.error()
                .map_err(|e| explain("asking for committed offsets", &e))?;
            let place = Place::new(elem.topic(), elem.partition());
            let offset = match elem.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            let (low, high) = compacted::watermarks(&self.client, &place)?;
            // That topic's lane stops; the others go on.
            if let Err(error) = position_within(&place, offset, low, high) {
                lost.insert(place.topic.clone(), error);
            }
            if !elem.metadata().is_empty() {
                committed.insert(place.clone(), elem.metadata().to_owned());
            }
            starts.insert(place, offset);
        }
        Ok((starts, committed, lost))
    }
}

/// Offsets, the texts beside them, and topics that can't be read on.
type Starts = (
    HashMap<Place, i64>,
    HashMap<Place, String>,
    BTreeMap<String, Error>,
);

/// A member of a group.
pub struct Member {
    inner: BaseConsumer<Context>,
}

/// What a poll brought.
pub enum Polled<'m> {
    /// Partitions were assigned, but what belongs to them could not be restored.
    /// The member holds them and reads nothing, so the process must end.
    NotAssigned(Error),
    /// A record.
    Message(BorrowedMessage<'m>),
    /// A partition's end was reached; positions stand behind commit markers.
    End,
    /// Nothing within the time.
    Nothing,
}

impl Member {
    /// Joins the group under that static instance name and subscribes.
    pub fn join(
        client: &Client,
        group: &str,
        instance: &str,
        topics: &[String],
        handler: Arc<dyn Rebalance>,
    ) -> Result<Self> {
        let inner: BaseConsumer<Context> = client
            .member(group, instance)
            .create_with_context(Context {
                handler,
                client: client.clone(),
                heard: client.context().0,
                state: std::sync::Mutex::new((0, None)),
            })
            .map_err(|e| explain("making a consumer", &e))?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        inner
            .subscribe(&topics)
            .map_err(|e| explain("subscribing", &e))?;
        Ok(Member { inner })
    }

    /// The next record or event. Rebalances happen inside this call. A
    /// transient error heals by itself; an error of class Operator or
    /// [`Code::Fenced`] does not.
    pub fn poll(&self, wait: Duration) -> Result<Polled<'_>> {
        let outage = self.inner.context().client.outage();
        let polled = self.inner.poll(wait);
        match &polled {
            None => outage.passed(false),
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => outage.passed(true),
            Some(Err(_)) => {}
        }
        match polled {
            // A rebalance brings no message.
            None => match self.inner.context().lock().1.take() {
                Some(error) => Ok(Polled::NotAssigned(error)),
                None => Ok(Polled::Nothing),
            },
            Some(Ok(message)) => Ok(Polled::Message(message)),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::End),
            Some(Err(error)) => {
                let mut explained = self.inner.context().client.explain("reading", &error);
                // What `Fatal` stands for: above all that somebody has joined
                // under this member's name, be it this member itself.
                if let Some((code, text)) = self.inner.client().fatal_error() {
                    explained = Error::new(Code::Fenced, format!("reading: {text}"))
                        .source_code(format!("{code:?}"));
                }
                Err(explained)
            }
        }
    }

    /// The partitions that are ours.
    pub fn assigned(&self) -> Vec<Place> {
        let Ok(list) = self.inner.assignment() else {
            return Vec::new();
        };
        list.elements()
            .iter()
            .map(|elem| Place::new(elem.topic(), elem.partition()))
            .collect()
    }

    /// By partition, the offset that is read next, past commit markers.
    pub fn positions(&self) -> HashMap<Place, i64> {
        let Ok(list) = self.inner.position() else {
            return HashMap::new();
        };
        list.elements()
            .iter()
            .filter_map(|elem| {
                let offset = elem.offset().to_raw().filter(|offset| *offset >= 0)?;
                Some((Place::new(elem.topic(), elem.partition()), offset))
            })
            .collect()
    }

    /// Stops fetching these partitions; what is under way still comes.
    pub fn pause(&self, places: &[Place]) -> Result<()> {
        self.inner
            .pause(&list_of(places))
            .map_err(|e| explain("pausing", &e))
    }

    /// Fetches these partitions again.
    pub fn resume(&self, places: &[Place]) -> Result<()> {
        self.inner
            .resume(&list_of(places))
            .map_err(|e| explain("resuming", &e))
    }

    /// Goes back in a partition after a batch of it was dropped.
    pub fn seek(&self, place: &Place, offset: i64) -> Result<()> {
        self.inner
            .seek(
                &place.topic,
                place.partition,
                Offset::Offset(offset),
                PATIENCE,
            )
            .map_err(|e| explain(&format!("going back in {place}"), &e))
    }
}

fn list_of(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places {
        list.add_partition(&place.topic, place.partition);
    }
    list
}
