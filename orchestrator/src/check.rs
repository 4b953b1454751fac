//! `drover check`: everything that can be proved without changing anything.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use drover_pipeline::clock::now;
use drover_pipeline::config::{Document, Problem};
use drover_pipeline::control::Plan;
use drover_pipeline::extract::{Discovery, Object};
use drover_pipeline::kafka::client::{Client, PATIENCE};
use drover_pipeline::spec::Stage;
use drover_pipeline::topics::Topics;
use drover_pipeline::{Code, Error};
use rdkafka::consumer::Consumer;
use serde::Serialize;

use crate::cli::{Format, blocking, print, print_json, warn};
use crate::connectors::{Connector, Connectors};
use crate::doubtful::{doubtful, undrifted, unlisted, unsupported};
use crate::failure::{Failure, Failures, Result};
use crate::init::{
    differences, judge, judge_blindly, not_told, prove_objects, resolve, settle_plan,
};
use crate::migration::{Bus, Draft, Migration};
use crate::quota::at_check;
use crate::remap::next_mapping;
use crate::table::{Column, counted, table};
use crate::view::Model;

#[derive(Serialize)]
struct Row {
    check: String,
    ok: Option<bool>,
    /// Whether a person should look at it, though nothing keeps the migration
    /// from running.
    warn: bool,
    detail: String,
    /// What a person should look at, each with its place.
    warnings: Vec<String>,
    #[serde(skip)]
    failures: Option<Failures>,
}

impl Row {
    fn of(check: impl Into<String>, result: Result<String>) -> Self {
        let (ok, detail, failures) = match result {
            Ok(detail) => (true, detail, None),
            Err(failures) => {
                let first = failures.0.first().map(ToString::to_string);
                let more = match failures.0.len() {
                    0 | 1 => String::new(),
                    all => format!(" (and {} more, below)", all - 1),
                };
                (false, first.unwrap_or_default() + &more, Some(failures))
            }
        };
        Row {
            check: check.into(),
            ok: Some(ok),
            warn: false,
            detail,
            warnings: Vec::new(),
            failures,
        }
    }

    /// The same with what a person should look at.
    fn warned(mut self, problems: Vec<Problem>) -> Self {
        self.warn |= !problems.is_empty();
        self.warnings = problems.iter().map(ToString::to_string).collect();
        self
    }

    fn skipped(check: impl Into<String>, why: &str) -> Self {
        Row {
            check: check.into(),
            ok: None,
            warn: false,
            detail: why.to_owned(),
            warnings: Vec::new(),
            failures: None,
        }
    }
}

pub(crate) async fn run(file: &Path, format: Format) -> Result<ExitCode> {
    let (loaded, draft) = match Draft::read(file, &Connectors::of_process()).await {
        Err(failures) => (Err(failures), None),
        Ok(draft) => match (draft.failures(), draft.migration) {
            (Failures(none), Some(migration)) if none.is_empty() => (Ok(migration), None),
            (failures, draft) => (Err(failures), draft),
        },
    };
    let migration = loaded.as_ref().ok().or(draft.as_ref());
    let doubts = migration.map_or_else(Vec::new, Migration::warnings);
    // What is wrong for a connector need not keep the bus from being asked.
    let bus = match &loaded {
        Ok(migration) => Ok((migration.bus.config.clone(), migration.bus.client.clone())),
        Err(_) => Bus::load(file).map(|bus| (bus.config, bus.client)),
    };
    let kafka = async {
        match bus {
            Err(_) => (
                Row::skipped("kafka", "the configuration is not valid"),
                None,
            ),
            Ok((config, client)) => {
                let topics = Topics::of(&config);
                let name = format!("kafka {}", config.kafka.brokers);
                let replication = config.kafka.replication;
                let reached = blocking(move || reach(&client, &topics, replication)).await;
                let (text, plan) = match reached {
                    Ok((text, plan)) => (Ok(text), plan),
                    Err(failures) => (Err(failures), None),
                };
                (Row::of(name, text), plan)
            }
        }
    };
    let store = store(&loaded).await;
    let rows: Vec<Row> = match &loaded {
        Err(failures) => {
            let mappings = meanwhile(draft.as_ref(), failures);
            let (kafka, parts, mappings) = tokio::join!(kafka, parts(file, failures), mappings);
            let [source, target] = parts;
            let (mappings, described) = mappings;
            let source = asked(source, described);
            let read = Row::of("configuration", Err(failures.clone())).warned(doubts);
            vec![read, source, target, mappings, kafka.0]
        }
        Ok(migration) => {
            let source = &migration.source.connector;
            let live = |name: &str| Ok(format!("{name} answers"));
            let source_row = async {
                let result = match source.check(&migration.file).await {
                    Ok(()) => source.discover(&migration.file).await,
                    Err(failures) => Err(failures),
                };
                let name = format!("source {}", source.name);
                let (text, discovery) = match result {
                    Ok(discovery) => (live(&source.program()), Some(discovery)),
                    Err(failures) => (Err(failures), None),
                };
                (Row::of(name, text), discovery)
            };
            let target_row = async {
                let Some(target) = migration.target.as_ref().map(|t| &t.connector) else {
                    return Row::skipped("target", "a dry run has none");
                };
                let result = target.check(&migration.file).await;
                let name = format!("target {}", target.name);
                Row::of(name, result.and_then(|()| live(&target.program())))
            };
            let (source, target, kafka) = tokio::join!(source_row, target_row, kafka);
            let valid = configuration(file, &source.0, &target).warned(doubts);
            let mappings = mappings(migration, source.1.as_ref(), kafka.1.as_ref()).await;
            let quota = match source.1.as_ref() {
                Some(discovery) => quota(migration, discovery, kafka.1.as_ref()).await,
                None => None,
            };
            let rows = [valid, source.0].into_iter().chain(quota);
            rows.chain([target, mappings, kafka.0])
                .chain(store)
                .collect()
        }
    };
    match format {
        Format::Json => print_json(&serde_json::json!({
            "ok": rows.iter().all(|row| row.ok != Some(false)),
            "checks": rows,
            "problems": rows.iter().filter_map(|row| row.failures.as_ref()).flat_map(|f| &f.0)
                .map(ToString::to_string).collect::<Vec<_>>(),
        })),
        Format::Table => {
            let cells = rows.iter().map(|row| {
                let result = match row.ok {
                    Some(true) if row.warn => "warn",
                    Some(true) => "ok",
                    Some(false) => "failed",
                    None => "skipped",
                };
                // The whole of it stands once, below.
                let detail = match &row.failures {
                    Some(failures) => failures.brief(),
                    None => row.detail.clone(),
                };
                vec![row.check.clone(), result.to_owned(), detail]
            });
            let columns = [
                Column::Text("CHECK"),
                Column::Text("RESULT"),
                Column::Text("DETAIL"),
            ];
            print(&table(&columns, &cells.collect::<Vec<_>>()));
        }
    }
    for row in &rows {
        warn(&row.warnings);
    }
    let failures: Vec<_> = rows
        .into_iter()
        .filter_map(|row| row.failures)
        .flat_map(|failures| failures.0)
        .collect();
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failures(failures))
}

/// The row of a file that is valid as far as its schemas tell, although a connector
/// may refuse its part of it.
fn configuration(file: &Path, source: &Row, target: &Row) -> Row {
    let refuses = |row: &Row| {
        let mut failures = row.failures.iter().flat_map(|failures| &failures.0);
        failures.any(|failure| failure.code == Code::ConfigInvalid)
    };
    let told = match (refuses(source), refuses(target)) {
        (false, false) => return Row::of("configuration", Ok(file.display().to_string())),
        (true, false) => "`sourceConfig` is refused, below",
        (false, true) => "`targetConfig` is refused, below",
        (true, true) => "`sourceConfig` and `targetConfig` are refused, below",
    };
    Row {
        ok: Some(false),
        ..Row::skipped("configuration", told)
    }
}

/// The source's row, where it was asked to describe itself although something else in
/// the document keeps its own check from being made.
fn asked(row: Row, described: Option<Result<()>>) -> Row {
    match described {
        Some(described) if row.ok.is_none() => {
            let told = described.map(|()| "answers; the configuration is not valid".to_owned());
            Row::of(row.check, told)
        }
        _ => row,
    }
}

/// Whether the object store can be written and read, where one is configured.
async fn store(loaded: &Result<Migration>) -> Option<Row> {
    let bus = &loaded.as_ref().ok()?.bus;
    let told = match bus.bodies().transpose()? {
        Ok(bodies) => bodies.check().await,
        Err(error) => Err(error),
    };
    let told = told.map(|()| "can be written and read".to_owned());
    Some(Row::of("object store", told.map_err(Failures::from)))
}

/// What the connectors find wrong with their own parts of a document that has other
/// problems, too, so that nobody mends these first to be told the next ones.
async fn parts(file: &Path, told: &Failures) -> [Row; 2] {
    let why = "the configuration is not valid";
    let document = Document::read(file).ok();
    let connectors = Connectors::of_process();
    let find = |stage, name: Option<&str>| name.and_then(|name| connectors.find(stage, name));
    let document = document.as_ref();
    let source = find(
        Stage::Extractor,
        document.and_then(|d| d.text("sourceType")),
    );
    let target = find(Stage::Loader, document.map(Document::target_type));
    let ask = async |row: &str, connector: Option<Connector>| {
        let Some(connector) = connector else {
            return Row::skipped(row, why);
        };
        let name = format!("{row} {}", connector.name);
        match connector.check(file).await {
            Ok(()) => Row::of(name, Ok(format!("{} answers", connector.program()))),
            Err(Failures(mut all)) => {
                // A dry run has no target.
                all.retain(|one| !told.0.contains(one) && one.code != Code::DryRun);
                match all.is_empty() {
                    true => Row::skipped(name, why),
                    false => Row::of(name, Err(Failures(all))),
                }
            }
        }
    };
    let (source, target) = tokio::join!(ask("source", source), ask("target", target));
    [source, target]
}

/// Whether `objects` and `mappings` can be what they ask for: as the plan has it
/// once the migration is initialised, as the source describes itself before; as
/// far as the connector's own mapping tells where the source was not asked.
async fn mappings(
    migration: &Migration,
    discovery: Option<&Discovery>,
    plan: Option<&Plan>,
) -> Row {
    let mut changed = false;
    let told = match (plan, discovery) {
        (Some(plan), _) => initialised(migration, plan).await.map(|(text, differs)| {
            changed = differs;
            text
        }),
        (None, Some(discovery)) => newly(migration, discovery).await,
        (None, None) => match judge_blindly(migration).await {
            Ok(()) => {
                let why =
                    "only judged without the source, which does not answer: nothing wrong so far";
                return Row::skipped("mappings", why);
            }
            Err(failures) => Err(failures),
        },
    };
    let known = discovery.map(|found| &found.objects);
    let known = known.or(plan.map(|plan| &plan.objects));
    let warnings = known.map_or_else(Vec::new, |objects| warnings(migration, objects));
    let told = told.map(|text| match warnings.len() {
        0 => text,
        n => format!(
            "{text}; {}, below",
            counted(n as u64, "warning", "warnings")
        ),
    });
    let row = Row::of("mappings", told).warned(warnings);
    Row {
        warn: changed || row.warn,
        ..row
    }
}

/// What works of the objects and mappings and is hardly meant.
fn warnings(migration: &Migration, objects: &[Object]) -> Vec<Problem> {
    let config = &migration.bus.config;
    let connector = migration.source.spec.mapping.clone().unwrap_or_default();
    let parity = migration.source.spec.parity.as_ref();
    let found = unsupported(&config.objects, parity, objects).into_iter();
    let found = found.chain(undrifted(&config.drift, &config.objects, objects));
    let found = found.chain(unlisted(&config.mappings, objects));
    let found = found.chain(doubtful(&config.mappings, &connector, objects));
    found
        .map(|problem| migration.document.placed(problem))
        .collect()
}

/// What is wrong with the mappings of a document that has other problems, too, so
/// that nobody mends these first to be told the next ones. Beside it how the source
/// answered, unless what was told already kept it from being asked.
async fn meanwhile(draft: Option<&Migration>, told: &Failures) -> (Row, Option<Result<()>>) {
    let why = "the configuration is not valid";
    let Some(migration) = draft else {
        return (Row::skipped("mappings", why), None);
    };
    let (judged, warnings, described) =
        match migration.source.connector.discover(&migration.file).await {
            Ok(discovery) => (
                newly(migration, &discovery).await.map(drop),
                warnings(migration, &discovery.objects),
                Some(Ok(())),
            ),
            Err(Failures(mut all)) => {
                all.retain(|one| !told.0.contains(one) && one.code != Code::ConfigInvalid);
                let refused = (!all.is_empty()).then_some(Err(Failures(all)));
                (judge_blindly(migration).await, Vec::new(), refused)
            }
        };
    let found = judged.err().map_or_else(Vec::new, |failures| failures.0);
    let is_object = |failure: &&Failure| failure.text.starts_with("objects[");
    let objects = found.iter().filter(is_object).cloned();
    let mut all: Vec<Failure> = objects.filter(|one| !told.0.contains(one)).collect();
    all.extend(not_told(told, found));
    let row = match all.is_empty() {
        true => Row::skipped("mappings", why),
        false => Row::of("mappings", Err(Failures(all))),
    };
    (row.warned(warnings), described)
}

/// What `init` would settle.
async fn newly(migration: &Migration, discovery: &Discovery) -> Result<String> {
    let plan = settle_plan(migration, discovery).await?;
    let names: Vec<&str> = plan.objects.iter().map(|o| o.name.as_str()).collect();
    let objects = counted(names.len() as u64, "object", "objects");
    Ok(format!("{objects}: {}", names.join(", ")))
}

/// What the file asks for of a migration that is initialised, and whether that is
/// another mapping than it works with. One that `drover remap` can apply is legal.
async fn initialised(migration: &Migration, plan: &Plan) -> Result<(String, bool)> {
    prove_objects(migration, plan)?;
    let generation = plan.generation;
    let Some(mapping) = next_mapping(migration, plan)? else {
        return Ok((format!("as initialised, generation {generation}"), false));
    };
    let what = differences(&mapping, &plan.mapping);
    let next = Plan {
        mapping,
        ..plan.clone()
    };
    judge(migration, &next).await?;
    let text = format!(
        "changed since generation {generation}: {what}; `drover remap` applies it, and until then \
         `drover init` and `drover run` refuse it"
    );
    Ok((text, true))
}

/// The calls that the copy needs against those that the source's account has
/// left; nothing where it has no quota. A shortage is no failure: the copy waits,
/// and changes are asked for less often. Of a migration that is initialised it says
/// what `drover status` says.
async fn quota(migration: &Migration, discovery: &Discovery, plan: Option<&Plan>) -> Option<Row> {
    let usage = discovery.quota.as_ref()?;
    let poll = Duration::from_millis(migration.bus.config.poll_interval_ms);
    let (chosen, _, problems) = resolve(migration, discovery);
    let objects = match plan {
        Some(plan) => &plan.objects,
        None if problems.is_empty() => &chosen,
        None => &discovery.objects,
    };
    let (client, topics) = (migration.bus.client.clone(), migration.bus.topics.clone());
    // What can't be read now is told by the row of Kafka.
    let model = match plan {
        Some(_) => blocking(move || Model::of_extractors(&client, &topics))
            .await
            .ok(),
        None => None,
    };
    let (detail, short) = at_check(usage, &model.unwrap_or_default(), objects, poll, now());
    Some(Row {
        warn: short,
        ..Row::of("quota", Ok(detail))
    })
}

/// Whether the bus answers, and what is there of this migration.
fn reach(
    client: &Client,
    topics: &Topics,
    replication: Option<i32>,
) -> Result<(String, Option<Plan>), Failures> {
    let metadata = client
        .questions()?
        .fetch_metadata(None, PATIENCE)
        .map_err(|e| client.explain("asking the broker for its topics", &e))?;
    let brokers = metadata.brokers().len();
    if let Some(wanted) =
        replication.filter(|wanted| usize::try_from(*wanted).is_ok_and(|w| w > brokers))
    {
        let answer = counted(brokers as u64, "broker answers", "brokers answer");
        let message = format!("kafka.replication is {wanted}, and {answer}");
        return Err(Error::new(Code::KafkaRefused, message).into());
    }
    let (state, plan) = match Plan::read(client, topics) {
        Ok(plan) => (
            format!("initialised, generation {}", plan.generation),
            Some(plan),
        ),
        Err(error) if error.code == Code::NotInitialised => ("not initialised".to_owned(), None),
        Err(error) => return Err(error.into()),
    };
    let brokers = counted(brokers as u64, "broker", "brokers");
    Ok((format!("{brokers}; {state}"), plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_a_connector_refuses_is_not_ok() {
        let file = Path::new("m.yaml");
        let fine = Row::of("target x", Ok("answers".to_owned()));
        let row = |code| {
            let failure = Failure::new(code, "clientSecret is missing", "add it");
            configuration(file, &Row::of("source x", Err(failure.into())), &fine)
        };
        let refused = row(Code::ConfigInvalid);
        assert_eq!(
            (refused.ok, refused.detail.as_str()),
            (Some(false), "`sourceConfig` is refused, below")
        );
        assert_eq!(row(Code::Unauthorized).ok, Some(true));
    }

    #[test]
    fn a_source_that_was_asked_is_not_called_skipped() {
        let skipped = || Row::skipped("source x", "the configuration is not valid");
        let row = asked(skipped(), Some(Ok(())));
        assert_eq!((row.ok, row.check.as_str()), (Some(true), "source x"));
        assert!(row.detail.starts_with("answers"), "{}", row.detail);
        let away = Failure::new(Code::Connection, "refused", "wait");
        let row = asked(skipped(), Some(Err(away.into())));
        assert_eq!(row.ok, Some(false));
        // Nobody could ask it.
        assert_eq!(asked(skipped(), None).ok, None);
        // What its own check says goes first.
        let told = Row::of(
            "source x",
            Err(Failure::new(Code::Unauthorized, "401", "renew").into()),
        );
        assert_eq!(asked(told, Some(Ok(()))).ok, Some(false));
    }
}
