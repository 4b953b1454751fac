//! The migration's configuration: the playbook's `MigrationConfig`, as JSON or
//! YAML, with Drover's optional additions.
//!
//! Reading contacts nothing and reports every [`Problem`] at once. Secrets come
//! from `${ENV}`, `${file:PATH}` or `DROVER_<SOURCE>_<FIELD>` ([`Environment`]),
//! are held apart from the document, and never printed.
//!
//! [`MigrationConfig::load`] is all that most need. Who knows the connectors'
//! schemas reads a [`Document`] first, asks the connectors that it names, and
//! has it judged against them.

mod bus;
mod credentials;
mod document;
mod drift;
mod schema;
mod secrets;
mod unwise;
mod validate;
mod yaml;

#[cfg(test)]
mod any_bytes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bodies::Location;
use crate::extract::drift::Drift;
use crate::transform::Convert;

pub use document::{Field, Node, Value, parse as parse_document};
pub use schema::validate_against;
pub use secrets::{Environment, variable_of};

/// The target when none is named: the company's own platform.
const DEFAULT_TARGET: &str = "postgres";
/// A source's quota is dearer than two minutes of lag: thirty objects at two
/// calls each take 43,200 calls a day at this interval, and 100,000 a day are
/// what a customer commonly has.
const DEFAULT_POLL_INTERVAL_MS: u64 = 120_000;
const DEFAULT_PARTITIONS: i32 = 4;
/// Where Kafka is looked for when nothing says where it is.
pub const DEFAULT_BROKERS: &str = "127.0.0.1:9092";
/// The largest configuration that is read.
const MAX_FILE: u64 = 10 << 20;

/// The name in an object's mappings under which its filter stands.
pub const WHERE: &str = "$where";

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

/// `sourceConfig.clientId: is missing (m.yaml:4); add it`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, " ({file})")?,
            (file, line) => write!(f, " ({file}:{line})")?,
        }
        write!(f, "; {}", self.advice)
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
    /// How often the source is asked for changes at most, in milliseconds; less
    /// often where the calls of its account would not last.
    pub poll_interval_ms: u64,
    /// What is done when the source describes itself otherwise.
    pub drift: Drift,
    /// The bus.
    pub kafka: KafkaConfig,
    /// Where bodies lie that the bus does not take; `None` makes dead letters of
    /// such records.
    pub object_store: Option<Location>,
}

/// The migration's own mappings from source fields to canonical fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mappings {
    /// The flat form: source field → canonical field, wherever the object has
    /// the one and its entity the other.
    pub everywhere: BTreeMap<String, String>,
    /// By object.
    pub by_object: BTreeMap<String, BTreeMap<String, String>>,
    /// By object and source field: what is done to the value, where the mapping
    /// says more than the canonical field.
    #[serde(default)]
    pub rules: BTreeMap<String, BTreeMap<String, Convert>>,
    /// By object: which of its records are migrated (`$where`).
    #[serde(default)]
    pub filters: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

/// The bus. Printing it shows the names of the client settings, not their
/// values: `sasl.password` is one.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Partitions of every data topic.
    pub partitions: i32,
    /// Replication of every topic; `None` leaves it to the broker's default.
    pub replication: Option<i32>,
    /// Further client settings (`security.protocol`, `sasl.*`, `ssl.*`), passed
    /// on: in the document `kafka.client`, or any name with a dot in `kafka`.
    pub client: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("client", &self.client.keys())
            .finish()
    }
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

/// What is done with `sourceConfig` or `targetConfig`.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Nothing: it stays empty, and its secrets need not be here. A process
    /// holds no secret that it doesn't need.
    Skip,
    /// Its secrets are filled in.
    Plain,
    /// And it is judged against its connector's schema.
    Against(&'a serde_json::Value),
}

/// A configuration as it stands in its file. It may hold secrets and has no
/// readable `Debug`.
pub struct Document {
    file: String,
    folder: PathBuf,
    root: Node,
    problems: Vec<Problem>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({})", self.file)
    }
}

impl Document {
    /// Reads a file. The error is what keeps it from being read at all.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let file = path.display().to_string();
        let refuse = |message: String| {
            Err(vec![Problem {
                file: file.clone(),
                ..Problem::at(
                    "",
                    message,
                    "name the migration's configuration by `-c FILE`",
                )
            }])
        };
        match std::fs::metadata(path) {
            Err(error) => return refuse(format!("can't be read: {}", secrets::reason(&error))),
            Ok(facts) if facts.is_dir() => return refuse("is a folder".into()),
            Ok(facts) if facts.len() > MAX_FILE => return refuse("is larger than 10 MB".into()),
            Ok(_) => {}
        }
        match std::fs::read(path) {
            Err(error) => refuse(format!("can't be read: {}", secrets::reason(&error))),
            Ok(bytes) => Document::parse(&file, &bytes),
        }
    }

    /// Reads bytes as if they stood in that file.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let root = document::parse(file, bytes, &mut problems).map_err(|problem| vec![problem])?;
        let document = Document {
            file: file.to_owned(),
            folder: Path::new(file).parent().unwrap_or(Path::new("")).to_owned(),
            root,
            problems,
        };
        if let Value::Map(_) = document.root.value {
            return Ok(document);
        }
        let message = format!("holds {}, not a group of fields", document.root.kind());
        Err(vec![document.problem(
            "",
            message,
            "start with `id: mig-tenant-123`",
        )])
    }

    /// The file's name, as on the command line.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text at the top level under that name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.root.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The target's name, given or not.
    pub fn target_type(&self) -> &str {
        self.text("targetType").unwrap_or(DEFAULT_TARGET)
    }

    /// The tree, secrets not filled in.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The environment of this process; files are relative to this one.
    pub fn environment(&self) -> Environment {
        Environment::of_process(&self.folder)
    }

    /// A problem at a path of this document.
    pub fn problem(
        &self,
        path: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Problem {
        self.placed(Problem::at(path, message, advice))
    }

    /// The same problem with file and line, found by its path.
    pub fn placed(&self, mut problem: Problem) -> Problem {
        self.file.clone_into(&mut problem.file);
        problem.line = self.root.line_of(&problem.path);
        problem
    }

    /// The mappings alone, as far as they can be read.
    pub fn mappings(&self) -> Mappings {
        let mut check = validate::Check {
            file: &self.file,
            problems: Vec::new(),
        };
        validate::mappings(validate::field(&self.root, "mappings"), &mut check)
    }

    /// The configuration, or every problem of it in the order of the lines.
    pub fn migration(
        &self,
        environment: &Environment,
        source: Part<'_>,
        target: Part<'_>,
    ) -> Result<MigrationConfig, Vec<Problem>> {
        match self.as_far_as_it_goes(environment, source, target) {
            (config, problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// The configuration with a stand-in for what can't be read, and every
    /// problem: what is wrong in one part need not hide what is wrong in another.
    pub fn as_far_as_it_goes(
        &self,
        environment: &Environment,
        source: Part<'_>,
        target: Part<'_>,
    ) -> (MigrationConfig, Vec<Problem>) {
        let mut check = validate::Check {
            file: &self.file,
            problems: self.problems.clone(),
        };
        let config = validate::migration(&self.root, environment, (source, target), &mut check);
        check.problems.sort_by_key(|problem| problem.line);
        (config, check.problems)
    }
}

impl MigrationConfig {
    /// Loads a configuration with the secrets of both connectors, whose schemas
    /// are not known here.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::load_for(path, Part::Plain, Part::Plain)
    }

    /// Loads a configuration for a process that needs these parts of it.
    pub fn load_for(path: &Path, source: Part<'_>, target: Part<'_>) -> Result<Self, Vec<Problem>> {
        let document = Document::read(path)?;
        document.migration(&document.environment(), source, target)
    }
}

/// The known name that is most like this one, if any is.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| -> String {
        let kept = text.chars().filter(|c| c.is_alphanumeric());
        kept.flat_map(char::to_lowercase).collect()
    };
    let name = plain(name);
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name, &plain(known)), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// A field that nobody knows.
fn unknown_field<'k>(
    path: String,
    name: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> Problem {
    if validate::FIELDS.contains(&name) {
        return Problem::at(
            path,
            "is no field of this part",
            "move it to the file's top level",
        );
    }
    let advice = match nearest(name, known.clone()) {
        Some(near) => format!("write `{near}`, or remove it"),
        None => match known.collect::<Vec<_>>() {
            known if known.is_empty() => "remove it".to_owned(),
            known => format!("remove it, or use one of: {}", known.join(", ")),
        },
    };
    Problem::at(path, "is no known field", advice)
}
