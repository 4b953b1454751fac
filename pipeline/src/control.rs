//! The documents of the topic `control`: what the orchestrator has decided, and
//! every stage obeys. One JSON value a key, newest wins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extract::Object;
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
