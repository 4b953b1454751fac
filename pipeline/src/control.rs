//! The documents of the topic `control`: what the orchestrator has decided, and
//! every stage obeys. One JSON value a key, newest wins.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::extract::Object;
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{first_records, partition_count, read_to_end};
use crate::topics::Topics;
use crate::transform::Mapping;

/// Key of the [`Plan`].
pub const PLAN: &str = "plan";

/// What the migration does, as `drover init` settled it: the stages read it
/// from the bus and need neither each other nor the source to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The mapping's generation, from 1. A transformer of another one stops.
    pub generation: u32,
    /// The connector's mapping with the migration's own on top.
    pub mapping: Mapping,
    /// The objects to migrate, as the source described them.
    pub objects: Vec<Object>,
    /// The canonical entities they give.
    pub entities: Vec<String>,
    /// By topic, which incarnation it is: raised each time `init` makes it.
    /// Each partition's first record names it too, so that a topic that was
    /// deleted and made anew behind our back is noticed.
    pub incarnations: BTreeMap<String, u32>,
}

/// Key of the record that `init` writes first into every partition of a topic.
/// It is no record of the migration: readers pass over it.
pub const INCARNATION: &[u8] = b"__drover/incarnation";

/// Value of that record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Which incarnation of its topic the partition belongs to.
    pub incarnation: u32,
}

impl Plan {
    /// Reads the plan from the topic `control`. [`Code::NotInitialised`] when the
    /// topic or the plan isn't there.
    pub fn read(client: &Client, topics: &Topics) -> Result<Plan> {
        let topic = topics.control();
        let documents = read_to_end(client, &topic).map_err(|error| match error.code {
            Code::TopicMissing => Error::new(Code::NotInitialised, format!("{topic} is not there")),
            _ => error,
        })?;
        let value = documents
            .get(PLAN.as_bytes())
            .ok_or_else(|| Error::new(Code::NotInitialised, format!("{topic} holds no plan")))?;
        serde_json::from_slice(value).map_err(|e| {
            Error::new(
                Code::NewerSchema,
                format!("the plan in {topic} can't be read: {e}"),
            )
        })
    }

    /// Proves that these topics are the ones that `init` made: the first record
    /// of each partition names the incarnation that the plan knows.
    /// [`Code::TopicRecreated`] otherwise.
    pub fn check_incarnations(&self, client: &Client, topics: &[String]) -> Result<()> {
        let mut places = Vec::new();
        // Custom objects share a topic, and a partition is asked for only once.
        let topics: BTreeSet<&String> = topics.iter().collect();
        for topic in topics
            .into_iter()
            .filter(|t| self.incarnations.contains_key(*t))
        {
            for partition in 0..partition_count(client, topic)? {
                places.push(Place::new(topic, partition));
            }
        }
        let firsts = first_records(client, &places)?;
        for place in places {
            let expected = self.incarnations.get(&place.topic).copied();
            let found = firsts
                .get(&place)
                .filter(|(key, _)| key == INCARNATION)
                .and_then(|(_, value)| serde_json::from_slice::<Incarnation>(value).ok());
            if found.map(|found| found.incarnation) != expected {
                return Err(Error::new(
                    Code::TopicRecreated,
                    format!(
                        "{place} does not start with incarnation {}, which `drover init` wrote",
                        expected.unwrap_or_default()
                    ),
                ));
            }
        }
        Ok(())
    }
}
