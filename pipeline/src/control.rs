//! The documents of the topic `control`: what the orchestrator has decided, and
//! every stage obeys. One JSON value a key, newest wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Error, Result};
use crate::extract::Object;
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{Follower, Tail, first_records, partition_count, read_to_end};
use crate::retry::passes;
use crate::topics::Topics;
use crate::transform::Mapping;

/// Key of the [`Plan`].
pub const PLAN: &str = "plan";

/// What the migration does, as `drover init` settled it: the stages read it
/// from the bus and need neither each other nor the source to start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Whether the transformers' offsets are not yet set back for this
    /// generation: none of them starts before that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remapping: bool,
    /// Whether a person has agreed that this generation empties more records
    /// than [`MOST_EMPTIED`] of those that the target has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent_accepted: bool,
    /// By canonical entity, the generation from which its records are written
    /// again although nothing of them has changed: what the target had of them
    /// was lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reloads: BTreeMap<String, u32>,
}

/// The share of known keys that a changed mapping may turn ABSENT without being
/// asked for: 1 in this many.
pub const MOST_EMPTIED: u64 = 100;

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
        let missing = |why: &str| {
            let message = format!("the migration was not initialised: the topic {topic} {why}");
            Error::new(Code::NotInitialised, message)
        };
        let documents = read_to_end(client, &topic).map_err(|error| match error.code {
            Code::TopicMissing => missing("is not there"),
            _ => error,
        })?;
        let value = documents
            .get(PLAN.as_bytes())
            .ok_or_else(|| missing("holds no plan"))?;
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

/// Follows `control`, and ends the process when it no longer works by the
/// current plan: started again, it reads the new one.
pub struct Watch {
    topic: String,
    generation: u32,
    absent_accepted: bool,
    stop: CancellationToken,
}

impl Watch {
    /// Follows until the tail that is returned is dropped.
    pub fn start(
        client: &Client,
        topics: &Topics,
        plan: &Plan,
        stop: &CancellationToken,
    ) -> Result<Tail> {
        let watch = Arc::new(Watch {
            topic: topics.control(),
            generation: plan.generation,
            absent_accepted: plan.absent_accepted,
            stop: stop.clone(),
        });
        Tail::start(client, &[topics.control()], watch)
    }
}

impl Follower for Watch {
    fn record(&self, place: &Place, _: i64, key: &[u8], value: Option<&[u8]>) {
        if place.topic != self.topic || key != PLAN.as_bytes() {
            return;
        }
        // One that can't be read is of a newer Drover: the next start says so.
        let Some(Ok(plan)) = value.map(serde_json::from_slice::<Plan>) else {
            return;
        };
        let newer = plan.generation > self.generation
            || (plan.generation == self.generation
                && plan.absent_accepted
                && !self.absent_accepted);
        if newer && !self.stop.is_cancelled() {
            tracing::info!(
                generation = plan.generation,
                ours = self.generation,
                "the plan has changed: this process ends, to start with the new one"
            );
            self.stop.cancel();
        }
    }

    fn failed(&self, error: Error) {
        if !passes(&error) {
            tracing::warn!(%error, "following the plan");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_an_older_plan_ends() {
        let stop = CancellationToken::new();
        let watch = Watch {
            topic: "control".into(),
            generation: 2,
            absent_accepted: false,
            stop: stop.clone(),
        };
        let place = Place::new("control", 0);
        let tell = |generation| {
            let plan = Plan {
                generation,
                ..Plan::default()
            };
            let plan = serde_json::to_vec(&plan).expect("JSON");
            watch.record(&place, 0, PLAN.as_bytes(), Some(&plan));
            stop.is_cancelled()
        };
        assert!(!tell(1), "what lies in the topic from before");
        assert!(!tell(2), "its own");
        assert!(tell(3), "a newer one");
    }
}
