//! A migration as its configuration describes it, with the connectors that the
//! configuration names.

use std::path::{Path, PathBuf};

use drover_pipeline::bodies::Bodies;
use drover_pipeline::config::{Document, MigrationConfig, Part, Problem};
use drover_pipeline::kafka::client::Client;
use drover_pipeline::spec::{Spec, Stage};
use drover_pipeline::topics::Topics;
use drover_pipeline::transform::merge;

use crate::connectors::{Connector, Connectors, TRANSFORMER};
use crate::failure::{Failure, Failures, Result};

/// A migration whose state is only looked at: no connector is asked, and no
/// secret of source or target is needed.
pub struct Bus {
    /// Its configuration, without what is for the connectors.
    pub config: MigrationConfig,
    /// Its topics.
    pub topics: Topics,
    /// Its bus.
    pub client: Client,
}

impl Bus {
    /// Reads the configuration.
    pub fn load(file: &Path) -> Result<Self> {
        let config = MigrationConfig::load_for(file, Part::Skip, Part::Skip)?;
        Ok(Bus::of(config))
    }

    /// The same once more, for work on another thread.
    pub(crate) fn again(&self) -> Self {
        Bus {
            config: self.config.clone(),
            topics: self.topics.clone(),
            client: self.client.clone(),
        }
    }

    /// Where bodies lie that the bus does not take, if anywhere.
    pub(crate) fn bodies(&self) -> drover_pipeline::Result<Option<Bodies>> {
        let location = self.config.object_store.as_ref();
        let open = |location| Bodies::open(location, &self.config.id);
        location.map(open).transpose()
    }

    fn of(config: MigrationConfig) -> Self {
        Bus {
            topics: Topics::of(&config),
            client: Client::new(&config.kafka, "drover"),
            config,
        }
    }
}

/// A connector and what it says of itself.
pub struct Asked {
    /// The program.
    pub connector: Connector,
    /// Its spec.
    pub spec: Spec,
}

/// A migration that is to be run.
pub struct Migration {
    /// The configuration's file.
    pub file: PathBuf,
    /// As it stands in the file.
    pub document: Document,
    /// Its configuration and bus.
    pub bus: Bus,
    /// The source.
    pub source: Asked,
    /// The transformer.
    pub transformer: Connector,
    /// The target; `None` in a dry run.
    pub target: Option<Asked>,
}

/// A migration as far as it could be read, and everything that is wrong with it.
pub(crate) struct Draft {
    /// The migration, where its source and the transformer are known, with a
    /// stand-in for what of its configuration can't be read.
    pub(crate) migration: Option<Migration>,
    /// What is wrong with the configuration.
    problems: Vec<Problem>,
    /// What is wrong with the connectors.
    failures: Vec<Failure>,
}

impl Migration {
    /// Reads the configuration and asks the connectors it names, and has it
    /// judged by their schemas. Every problem is told at once.
    pub async fn load(file: &Path, connectors: &Connectors) -> Result<Self> {
        Draft::read(file, connectors).await?.whole()
    }

    /// What of the file is taken and hardly wise: the connectors' and the bus's
    /// secrets that stand in it, and numbers that a connector advises against.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let target = self.target.as_ref().map(|asked| &asked.spec.config_schema);
        let source = Some(&self.source.spec.config_schema);
        let mut found = self.document.literal_secrets(source, target);
        found.extend(self.document.ill_advised(source, target));
        found
    }
}

impl Draft {
    /// Reads the configuration and asks the connectors it names. The error is what
    /// keeps the file from being read at all.
    pub(crate) async fn read(file: &Path, connectors: &Connectors) -> Result<Self> {
        let document = Document::read(file)?;
        let mut failures = Vec::new();
        let dry_run = document
            .root()
            .get("dryRun")
            .is_some_and(|node| node.to_json() == serde_json::Value::Bool(true));
        let source = match document.text("sourceType") {
            None => None,
            Some(name) => {
                let found = connectors.named(&document, "sourceType", Stage::Extractor, name);
                ask(found, &mut failures).await
            }
        };
        let target = if dry_run {
            None
        } else {
            let name = document.target_type();
            let found = connectors.named(&document, "targetType", Stage::Loader, name);
            ask(found, &mut failures).await
        };
        let transformer = connectors.find(Stage::Transformer, TRANSFORMER);
        if transformer.is_none() {
            let program = crate::connectors::program(Stage::Transformer, TRANSFORMER);
            failures.push(Failure::new(
                drover_pipeline::Code::Refused,
                format!("the program {program} is not installed"),
                "put it beside drover or on PATH",
            ));
        }
        let part =
            |asked: &Option<Asked>| asked.as_ref().map(|asked| asked.spec.config_schema.clone());
        let (source_schema, target_schema) = (part(&source), part(&target));
        let target_part = match (&target_schema, dry_run) {
            (_, true) => Part::Skip,
            (Some(schema), _) => Part::Against(schema),
            (None, _) => Part::Plain,
        };
        let source_part = source_schema.as_ref().map_or(Part::Plain, Part::Against);
        let (config, problems) =
            document.as_far_as_it_goes(&document.environment(), source_part, target_part);
        let migration = match (source, transformer) {
            (Some(source), Some(transformer)) => Some(Migration {
                file: file.to_owned(),
                document,
                bus: Bus::of(config),
                source,
                transformer,
                target,
            }),
            _ => None,
        };
        Ok(Draft {
            migration,
            problems,
            failures,
        })
    }

    /// Everything that is wrong, without what there may be wrong with mappings.
    pub(crate) fn failures(&self) -> Failures {
        let problems = self.problems.iter().cloned().map(Failure::from);
        Failures(problems.chain(self.failures.iter().cloned()).collect())
    }

    /// The migration, or everything that is wrong: what is wrong elsewhere does not
    /// hide what is wrong with the mappings, as far as that is known without the
    /// source.
    fn whole(mut self) -> Result<Migration> {
        match self.migration {
            Some(migration) if self.problems.is_empty() && self.failures.is_empty() => {
                return Ok(migration);
            }
            Some(Migration {
                ref source,
                ref document,
                ..
            }) => {
                if let Some(connector) = &source.spec.mapping
                    && let Err(wrong) = merge(connector, &document.mappings(), &[])
                {
                    let placed = wrong.into_iter().map(|problem| document.placed(problem));
                    self.problems.extend(placed);
                    self.problems.sort_by_key(|problem| problem.line);
                }
            }
            None => {}
        }
        Err(self.failures())
    }
}

async fn ask(found: Result<Connector, Problem>, failures: &mut Vec<Failure>) -> Option<Asked> {
    let connector = found
        .map_err(|problem| failures.push(problem.into()))
        .ok()?;
    let spec = connector.spec().await;
    let spec = spec.map_err(|failure| failures.push(failure)).ok()?;
    Some(Asked { connector, spec })
}
