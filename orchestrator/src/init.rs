//! `drover init`: settles what a migration does, and makes its topics.
//!
//! The plan is written last. Until it is there, `init` can be repeated, and
//! goes on where it was interrupted; once it is there, `init` only proves that
//! everything is as it was left, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drover_pipeline::config::Problem;
use drover_pipeline::control::{PLAN, Plan};
use drover_pipeline::extract::{Discovery, Object};
use drover_pipeline::kafka::Place;
use drover_pipeline::topics::{Cleanup, Topic, Topics};
use drover_pipeline::transform::{Mapping, merge, merge_all};
use drover_pipeline::{Code, Error};

mod choice;
mod judge;

use crate::cli::{Format, warn};
use crate::connectors::Connectors;
use crate::doubtful::unsupported;
use crate::failure::{Failure, Failures, Result};
use crate::migration::Migration;
use crate::table::{Column, table, wrap};
use crate::topics::{Broker, Found, Start, same_policy};
pub(crate) use choice::differences;
pub(crate) use choice::entities_of;
use choice::select;
pub(crate) use judge::{judge, not_told};

/// The longest name that Kafka takes.
const LONGEST_NAME: usize = 249;

/// What `init` did.
pub(crate) struct Settled {
    pub(crate) plan: Plan,
    /// Topics that were made; empty when everything was there.
    pub(crate) made: Vec<String>,
    /// Whether the plan was there already.
    pub(crate) known: bool,
    /// Entities of the plan that the target does not take.
    pub(crate) untaken: Vec<String>,
}

pub(crate) async fn run(file: &Path, format: Format) -> Result<()> {
    let migration = Migration::load(file, &Connectors::of_process()).await?;
    warn(&migration.warnings());
    let settled = settle(&migration).await?;
    let parity = migration.source.spec.parity.as_ref();
    let unsupported = unsupported(&migration.bus.config.objects, parity, &settled.plan.objects);
    let unsupported = unsupported.into_iter();
    let told: Vec<Problem> = unsupported
        .map(|problem| migration.document.placed(problem))
        .collect();
    warn(&told);
    match format {
        Format::Json => crate::cli::print_json(&serde_json::json!({
            "migration": migration.bus.config.id,
            "changed": !settled.known,
            "topicsMade": settled.made,
            "plan": settled.plan,
        })),
        Format::Table => crate::cli::print(&describe(&migration, &settled)),
    }
    Ok(())
}

/// What was settled, for a person.
pub(crate) fn describe(migration: &Migration, settled: &Settled) -> String {
    let (plan, id) = (&settled.plan, &migration.bus.config.id);
    let mut text = if settled.known {
        format!("{id} was initialised before, with these objects; nothing is changed\n")
    } else {
        let (topics, made) = (plan.incarnations.len(), settled.made.len());
        format!("{id} is initialised: {topics} topics, {made} of them new\n")
    };
    let rows: Vec<Vec<String>> = plan
        .objects
        .iter()
        .map(|object| {
            vec![
                object.name.clone(),
                entities_of(&plan.mapping, object)
                    .into_iter()
                    .collect::<Vec<_>>()
                    .join(", "),
                object
                    .count
                    .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            ]
        })
        .collect();
    let columns = [
        Column::Text("OBJECT"),
        Column::Text("ENTITIES"),
        Column::Number("RECORDS"),
    ];
    text.push_str(&table(&columns, &rows));
    if !settled.untaken.is_empty() {
        let untaken = settled.untaken.join(", ");
        text.push_str(&wrap(
            &format!("note: the target takes no {untaken}; these records stay in Kafka"),
            "",
        ));
    }
    text
}

/// Initialises the migration, or proves that it is.
pub(crate) async fn settle(migration: &Migration) -> Result<Settled> {
    let (client, topics) = (migration.bus.client.clone(), migration.bus.topics.clone());
    let known = tokio::task::spawn_blocking(move || Plan::read(&client, &topics)).await;
    let known = known.map_err(|e| Error::new(Code::Invariant, format!("reading the plan: {e}")))?;
    let broker = Broker::new(&migration.bus.client)?;
    let (plan, made, is_known) = match known {
        Ok(plan) => {
            prove(migration, &broker, &plan).await?;
            (plan, Vec::new(), true)
        }
        Err(error) if error.code == Code::NotInitialised => {
            let (plan, made) = start(migration, &broker).await?;
            (plan, made, false)
        }
        Err(error) => return Err(error.into()),
    };
    let taken = migration
        .target
        .as_ref()
        .map(|target| &target.spec.entities);
    let untaken = taken
        .filter(|taken| !taken.is_empty())
        .map_or_else(Vec::new, |taken| {
            plan.entities
                .iter()
                .filter(|e| !taken.contains(e))
                .cloned()
                .collect()
        });
    Ok(Settled {
        plan,
        made,
        known: is_known,
        untaken,
    })
}

/// A migration that has a plan: everything must be as the plan says.
async fn prove(migration: &Migration, broker: &Broker, plan: &Plan) -> Result<()> {
    prove_plan(migration, plan)?;
    let topics = all_topics(&migration.bus.topics, &plan.objects, &plan.entities);
    let names = topics.iter().map(|topic| topic.name.clone()).collect();
    let found = broker.find(&names).await?;
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !found.contains_key(*name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Err(vanished(migration, &missing).into());
    }
    same_shape(&topics, &found)?;
    // A topic whose records expire loses its first one too.
    let kept: Vec<&Topic> = topics
        .iter()
        .filter(|topic| topic.cleanup != Cleanup::CompactExpire)
        .collect();
    for (place, start) in broker.starts(&kept)? {
        let expected = plan.incarnations.get(&place.topic).copied();
        let found = match start {
            Start::Fresh(incarnation) | Start::Used(incarnation) => Some(incarnation),
            Start::Empty | Start::Foreign => None,
        };
        if found != expected {
            let message = format!("{place} is not the partition that `drover init` made");
            return Err(recreated(migration, &place.topic, message).into());
        }
    }
    Ok(())
}

fn mismatch(message: String) -> Failures {
    Error::new(Code::ControlMismatch, message).into()
}

/// The configuration must still ask for what the plan says.
fn prove_plan(migration: &Migration, plan: &Plan) -> Result<()> {
    prove_objects(migration, plan)?;
    let mut mapping = merged(migration, &plan.objects)?;
    // Slots that gave another entity are a difference too, and told as one.
    let kept = mapping.retire(&plan.mapping, &plan.objects);
    if kept.is_err() || mapping != plan.mapping {
        let what = differences(&mapping, &plan.mapping);
        let generation = plan.generation;
        return Err(mismatch(format!(
            "the mapping differs from generation {generation}: {what}"
        )));
    }
    Ok(())
}

/// Source, target and objects must be those of the plan: nothing changes them
/// later.
pub(crate) fn prove_objects(migration: &Migration, plan: &Plan) -> Result<()> {
    let topics = all_topics(&migration.bus.topics, &plan.objects, &plan.entities);
    if let Some(topic) = topics
        .iter()
        .find(|t| !plan.incarnations.contains_key(&t.name))
    {
        let message = format!(
            "the plan knows no topic {}: another source or target",
            topic.name
        );
        return Err(mismatch(message));
    }
    let wanted: BTreeSet<&str> = migration
        .bus
        .config
        .objects
        .iter()
        .map(String::as_str)
        .collect();
    let planned: BTreeSet<&str> = plan.objects.iter().map(|o| o.name.as_str()).collect();
    if !wanted.is_empty() && wanted != planned {
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        let (planned, wanted) = (list(&planned), list(&wanted));
        return Err(mismatch(format!(
            "it was initialised with {planned}, and asks for {wanted}"
        )));
    }
    Ok(())
}

/// The objects to migrate and the whole mapping, as the source's description and
/// the configuration make them, as far as that goes; and every problem of both.
pub(crate) fn resolve(
    migration: &Migration,
    discovery: &Discovery,
) -> (Vec<Object>, Mapping, Vec<Problem>) {
    let connector = migration.source.spec.mapping.clone().unwrap_or_default();
    let parity = migration.source.spec.parity.as_ref();
    let wanted = &migration.bus.config.objects;
    let (objects, mut problems) = select(&connector, parity, wanted, discovery);
    // Without an object there is nothing that a mapping could apply to.
    if objects.is_empty() {
        return (objects, connector, problems);
    }
    let own = &migration.bus.config.mappings;
    let (mapping, more) = merge_all(&connector, own, &objects);
    problems.extend(more);
    (objects, mapping, problems)
}

/// The plan of a migration that has none: what is migrated, and how; or everything
/// that is wrong with it, be it by the source's description or by the transformer.
pub(crate) async fn settle_plan(migration: &Migration, discovery: &Discovery) -> Result<Plan> {
    let (objects, mapping, problems) = resolve(migration, discovery);
    let plan = Plan {
        generation: 1,
        mapping,
        objects,
        ..Plan::default()
    };
    if problems.is_empty() {
        judge(migration, &plan).await?;
        return Ok(plan);
    }
    let mut failures = placed(migration, problems);
    if !plan.objects.is_empty()
        && let Err(Failures(more)) = judge(migration, &plan).await
    {
        failures.0.extend(not_told(&failures, more));
    }
    Err(failures)
}

fn vanished(migration: &Migration, missing: &[&str]) -> Error {
    let idempotency = migration.bus.topics.idempotency();
    let worst = missing
        .iter()
        .find(|name| **name == idempotency)
        .or(missing.first());
    let message = format!(
        "topics of an initialised migration are gone: {}",
        missing.join(", ")
    );
    recreated(migration, worst.copied().unwrap_or_default(), message)
}

/// Without the idempotency table everything would be created again.
fn recreated(migration: &Migration, topic: &str, message: String) -> Error {
    let code = if topic == migration.bus.topics.idempotency() {
        Code::IdempotencyLost
    } else {
        Code::TopicRecreated
    };
    Error::new(code, message)
}

/// A migration without a plan: a new one, or one whose `init` was interrupted.
async fn start(migration: &Migration, broker: &Broker) -> Result<(Plan, Vec<String>)> {
    let config = &migration.bus.config;
    let discovery = migration.source.connector.discover(&migration.file).await?;
    let mut plan = settle_plan(migration, &discovery).await?;
    let (objects, mapping) = (&plan.objects, &plan.mapping);
    let entities: BTreeSet<String> = objects
        .iter()
        .flat_map(|object| entities_of(mapping, object))
        .collect();
    let entities: Vec<String> = entities.into_iter().collect();
    let topics = all_topics(&migration.bus.topics, objects, &entities);
    if let Some(topic) = topics.iter().find(|topic| topic.name.len() > LONGEST_NAME) {
        let problem = Problem::at(
            "id",
            format!(
                "the topic's name {} would be longer than {LONGEST_NAME}",
                topic.name
            ),
            "choose a shorter id",
        );
        return Err(placed(migration, vec![problem]));
    }

    let names = topics.iter().map(|topic| topic.name.clone()).collect();
    let found = broker.find(&names).await?;
    same_shape(&topics, &found)?;
    let (there, missing): (Vec<&Topic>, Vec<&Topic>) = topics
        .iter()
        .partition(|topic| found.contains_key(&topic.name));
    let mut incarnations: BTreeMap<String, u32> = BTreeMap::new();
    let mut stamps: BTreeMap<Place, u32> = BTreeMap::new();
    let mut empty = Vec::new();
    for (place, start) in broker.starts(&there)? {
        match start {
            Start::Empty => empty.push(place),
            Start::Fresh(incarnation) => {
                incarnations.insert(place.topic, incarnation);
            }
            // Processes that wait for the plan report already.
            Start::Used(_) | Start::Foreign if place.topic == migration.bus.topics.status() => {}
            Start::Used(_) | Start::Foreign => {
                let message = format!("{place} holds records although the migration has no plan");
                return Err(recreated(migration, &place.topic, message).into());
            }
        }
    }
    if !missing.is_empty() {
        broker
            .create(&missing, &migration.bus.topics, config.kafka.replication)
            .await?;
    }
    for topic in &missing {
        empty.extend((0..topic.partitions).map(|partition| Place::new(&topic.name, partition)));
    }
    for topic in &topics {
        incarnations.entry(topic.name.clone()).or_insert(1);
    }
    for place in empty {
        let incarnation = incarnations.get(&place.topic).copied().unwrap_or(1);
        stamps.insert(place, incarnation);
    }
    broker.stamp(&stamps)?;

    plan.entities = entities;
    plan.incarnations = incarnations;
    broker.write(&migration.bus.topics.control(), PLAN, &plan)?;
    // Two who initialise at once: the later one wins, and the other is told.
    let (client, topics) = (migration.bus.client.clone(), migration.bus.topics.clone());
    let read = tokio::task::spawn_blocking(move || Plan::read(&client, &topics)).await;
    let read =
        read.map_err(|e| Error::new(Code::Invariant, format!("reading the plan: {e}")))??;
    if read != plan {
        let message = "another `drover init` with another plan ran at the same time";
        return Err(Error::new(Code::ControlMismatch, message).into());
    }
    Ok((
        plan,
        missing
            .into_iter()
            .map(|topic| topic.name.clone())
            .collect(),
    ))
}

/// Makes topics that a changed mapping needs, each with its first records; their
/// incarnations.
pub(crate) async fn add_topics(
    migration: &Migration,
    broker: &Broker,
    missing: &[&Topic],
) -> Result<BTreeMap<String, u32>> {
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let replication = migration.bus.config.kafka.replication;
    broker
        .create(missing, &migration.bus.topics, replication)
        .await?;
    let mut stamps = BTreeMap::new();
    for (place, start) in broker.starts(missing)? {
        match start {
            Start::Empty => {
                stamps.insert(place, 1);
            }
            // Of a remap that was interrupted.
            Start::Fresh(1) => {}
            Start::Fresh(_) | Start::Used(_) | Start::Foreign => {
                let message = format!("{place} holds records although the plan has no such topic");
                return Err(recreated(migration, &place.topic, message).into());
            }
        }
    }
    broker.stamp(&stamps)?;
    Ok(missing
        .iter()
        .map(|topic| (topic.name.clone(), 1))
        .collect())
}

/// Existing topics must be as `init` would make them.
fn same_shape(topics: &[Topic], found: &BTreeMap<String, Found>) -> Result<()> {
    let mut failures = Vec::new();
    for topic in topics {
        let Some(found) = found.get(&topic.name) else {
            continue;
        };
        let (is, must) = (found.partitions, topic.partitions);
        if is != must {
            let message = format!("{} has {is} partitions, not {must}", topic.name);
            failures.push(Failure::from(Error::new(Code::TopicMismatch, message)));
        }
        if !same_policy(&found.policy, topic.cleanup.policy()) {
            let (is, must) = (&found.policy, topic.cleanup.policy());
            let message = format!("{} has cleanup.policy={is}, not {must}", topic.name);
            failures.push(Failure::from(Error::new(Code::TopicMismatch, message)));
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failures(failures))
    }
}

pub(crate) fn all_topics(topics: &Topics, objects: &[Object], entities: &[String]) -> Vec<Topic> {
    topics.all(
        objects
            .iter()
            .map(|object| (object.name.as_str(), object.custom)),
        entities.iter().map(String::as_str),
    )
}

/// What can be told of the mappings while the source does not answer: by the
/// connector's own rules, and by the transformer what stands in the file.
pub(crate) async fn judge_blindly(migration: &Migration) -> Result<()> {
    let connector = migration.source.spec.mapping.clone().unwrap_or_default();
    let (mapping, problems) = merge_all(&connector, &migration.bus.config.mappings, &[]);
    let plan = Plan {
        generation: 1,
        mapping,
        ..Plan::default()
    };
    let mut failures = placed(migration, problems);
    if let Err(Failures(more)) = judge(migration, &plan).await {
        failures.0.extend(not_told(&failures, more));
    }
    match failures.0.is_empty() {
        true => Ok(()),
        false => Err(failures),
    }
}

/// The connector's mapping with the migration's own on top; without `objects`
/// as far as it can be told without the source.
pub(crate) fn merged(migration: &Migration, objects: &[Object]) -> Result<Mapping> {
    let connector = migration.source.spec.mapping.clone().unwrap_or_default();
    merge(&connector, &migration.bus.config.mappings, objects)
        .map_err(|problems| placed(migration, problems))
}

pub(crate) fn placed(migration: &Migration, problems: Vec<Problem>) -> Failures {
    let placed = problems
        .into_iter()
        .map(|problem| migration.document.placed(problem));
    let mut placed: Vec<Problem> = placed.collect();
    // As a person reads the file.
    placed.sort_by_key(|problem| problem.line);
    placed.into()
}
