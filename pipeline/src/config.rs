//! The migration's configuration: the playbook's `MigrationConfig`, as JSON or
//! YAML, with Drover's optional additions.
//!
//! Parsing is pure and reports every [`Problem`] at once; nothing is
//! contacted. Secrets come from `${ENV}`, `${file:PATH}` or
//! `DROVER_<SOURCE>_<FIELD>`, are held apart from the document, and never
//! printed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong with a configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named on the command line; empty if there is none.
    pub file: String,
    /// The line in it, from 1; 0 where there is none.
    pub line: usize,
    /// The path in the document: `sourceConfig.instanceUrl`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub advice: String,
}

impl Problem {
    /// A problem at a path of the document; file and line are filled in by
    /// whoever knows the document.
    pub fn at(
        path: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Problem {
            file: String::new(),
            line: 0,
            path: path.into(),
            message: message.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            write!(f, " ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.message, self.advice)
    }
}

/// A migration, as its operator describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct MigrationConfig {
    /// The migration's id: part of every topic's name.
    pub id: String,
    /// Whose data it is.
    pub tenant_id: String,
    /// The source's name: `salesforce`.
    pub source_type: String,
    /// What the source's extractor needs, secrets filled in.
    pub source_config: Secret,
    /// The target's name: `postgres`.
    pub target_type: String,
    /// What the target's loader needs, secrets filled in.
    pub target_config: Secret,
    /// Whether nothing may be written to the target.
    pub dry_run: bool,
    /// The migration's own mappings.
    pub mappings: Mappings,
    /// The objects to migrate; empty means every one that the mapping covers.
    pub objects: Vec<String>,
    /// How often the source is asked for changes, in milliseconds.
    pub poll_interval_ms: u64,
    /// The bus.
    pub kafka: KafkaConfig,
}

/// The migration's own mappings from source fields to canonical fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mappings {
    /// The flat form: source field → canonical field, wherever the object has
    /// the one and its entity the other.
    pub everywhere: BTreeMap<String, String>,
    /// By object.
    pub by_object: BTreeMap<String, BTreeMap<String, String>>,
}

/// The bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Partitions of every data topic.
    pub partitions: i32,
    /// Replication of every topic; `None` leaves it to the broker's default.
    pub replication: Option<i32>,
    /// Further client settings (`security.protocol`, `sasl.*`, `ssl.*`), passed on.
    pub client: BTreeMap<String, String>,
}

/// A document that may hold secrets: it prints as `***`.
#[derive(Clone, PartialEq, Default)]
pub struct Secret(serde_json::Map<String, serde_json::Value>);

impl Secret {
    /// Wraps a document.
    pub fn new(document: serde_json::Map<String, serde_json::Value>) -> Self {
        Secret(document)
    }

    /// The document, secrets and all. For a connector's own constructor only.
    pub fn expose(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
