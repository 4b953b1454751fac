//! `drover remap`: maps anew what was read, without a call to the source.
//!
//! The new plan names the next mapping generation and says that it is not ready:
//! transformers of the generation before see it and end, new ones wait. When
//! their group is empty, its offsets are set back to the beginning of the raw
//! topics, and the plan says that it is ready. An entity that is to be loaded
//! again is named in the plan with that generation: its records are written
//! although their content is the same. A remap that was interrupted goes
//! on where it stood when it is called again.

use std::path::Path;
use std::time::Duration;

use drover_pipeline::Error;
use drover_pipeline::config::{Problem, nearest};
use drover_pipeline::control::{PLAN, Plan};
use drover_pipeline::kafka::client::{Client, PATIENCE};
use drover_pipeline::kafka::{Place, explain};
use drover_pipeline::topics::{Topic, Topics};
use drover_pipeline::transform::Mapping;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::cli::{Format, Remap, blocking, print, print_json, tell};
use crate::connectors::Connectors;
use crate::failure::{Failures, Result};
use crate::init::{add_topics, all_topics, differences, entities_of, judge, merged, placed};
use crate::migration::Migration;
use crate::table::wrap;
use crate::topics::Broker;

/// How often the group is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What a remap did.
enum Done {
    /// The plan's mapping is the configuration's already.
    Nothing,
    /// A person agreed to what the mapping takes away.
    Accepted,
    /// The transformers map everything anew.
    Remapped,
}

pub(crate) async fn run(file: &Path, format: Format, options: &Remap) -> Result<()> {
    let migration = Migration::load(file, &Connectors::of_process()).await?;
    let (client, topics) = (migration.bus.client.clone(), migration.bus.topics.clone());
    let before = blocking(move || Plan::read(&client, &topics)).await?;
    let (plan, done) = remap(&migration, before.clone(), options).await?;
    let changed = match plan.mapping == before.mapping {
        false => differences(&plan.mapping, &before.mapping),
        true if options.reload.is_empty() => "as was begun".to_owned(),
        true => format!("all of {} again", options.reload.join(", ")),
    };
    match format {
        Format::Json => print_json(&serde_json::json!({
            "migration": migration.bus.config.id,
            "generation": plan.generation,
            "remapped": matches!(done, Done::Remapped),
            "absentAccepted": plan.absent_accepted,
        })),
        Format::Table => {
            let (id, generation) = (&migration.bus.config.id, plan.generation);
            let text = match done {
                Done::Nothing => format!(
                    "{id} is mapped by generation {generation} already; nothing was changed"
                ),
                Done::Accepted => {
                    format!("{id}: what generation {generation} takes away is accepted")
                }
                Done::Remapped => format!(
                    "{id} is mapped anew, by generation {generation}: {changed}. The source is \
                     not asked; the transformers go on when they are started, under `drover run` \
                     by themselves"
                ),
            };
            print(&format!("{}\n", wrap(&text, "").trim_end()));
        }
    }
    Ok(())
}

async fn remap(migration: &Migration, before: Plan, options: &Remap) -> Result<(Plan, Done)> {
    let accept = options.accept_absent;
    known_entities(&before, &options.reload)?;
    let broker = Broker::new(&migration.bus.client)?;
    let control = migration.bus.topics.control();
    let next_mapping = next_mapping(migration, &before)?;
    let resumed = next_mapping.is_none() && options.reload.is_empty();
    let mapping = next_mapping.unwrap_or_else(|| before.mapping.clone());
    if resumed && !before.remapping {
        if !accept || before.absent_accepted {
            return Ok((before, Done::Nothing));
        }
        let plan = Plan {
            absent_accepted: true,
            ..before
        };
        broker.write(&control, PLAN, &plan)?;
        return Ok((plan, Done::Accepted));
    }
    let mut plan = next(before, mapping, accept, resumed);
    let from = plan.generation;
    let again = options.reload.iter().map(|entity| (entity.clone(), from));
    plan.reloads.extend(again);
    // A mapping that can't be compiled must not end the transformers.
    judge(migration, &plan).await?;
    let names = plan.entities.clone();
    let topics = all_topics(&migration.bus.topics, &plan.objects, &names);
    let made: Vec<&Topic> = topics
        .iter()
        .filter(|topic| !plan.incarnations.contains_key(&topic.name))
        .collect();
    let stamped = add_topics(migration, &broker, &made).await?;
    plan.incarnations.extend(stamped);
    broker.write(&control, PLAN, &plan)?;
    let (client, topics) = (migration.bus.client.clone(), migration.bus.topics.clone());
    let planned = plan.clone();
    blocking(move || set_back(&client, &topics, &planned)).await?;
    plan.remapping = false;
    broker.write(&control, PLAN, &plan)?;
    Ok((plan, Done::Remapped))
}

/// The mapping that the file asks for, where it is another than the plan's; fails
/// where it can't follow that one.
pub(crate) fn next_mapping(migration: &Migration, plan: &Plan) -> Result<Option<Mapping>> {
    let mut mapping = merged(migration, &plan.objects)?;
    mapping
        .retire(&plan.mapping, &plan.objects)
        .map_err(|slots| changed_entity(migration, &slots))?;
    Ok((mapping != plan.mapping).then_some(mapping))
}

/// The plan of the next generation, or the one that was interrupted.
fn next(before: Plan, mapping: Mapping, accept: bool, resumed: bool) -> Plan {
    let mut entities = before.entities;
    for object in &before.objects {
        for entity in entities_of(&mapping, object) {
            if !entities.contains(&entity) {
                entities.push(entity);
            }
        }
    }
    entities.sort_unstable();
    Plan {
        generation: before.generation + u32::from(!resumed),
        mapping,
        entities,
        remapping: true,
        absent_accepted: accept || (resumed && before.absent_accepted),
        objects: before.objects,
        incarnations: before.incarnations,
        reloads: before.reloads,
    }
}

/// Refuses to load again what the migration does not have.
fn known_entities(plan: &Plan, named: &[String]) -> Result<()> {
    let unknown = named.iter().filter(|name| !plan.entities.contains(name));
    let problems: Vec<Problem> = unknown
        .map(|name| {
            let known = plan.entities.iter().map(String::as_str);
            let all = plan.entities.join(", ");
            let advice = match nearest(name, known) {
                Some(near) => format!("write `{near}`; there are {all}"),
                None => format!("name one of {all}"),
            };
            // The argument is wrong, and no line of the file.
            let message = format!("this migration loads no entity `{name}`");
            Problem::at("--reload", message, advice)
        })
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems.into()),
    }
}

fn changed_entity(migration: &Migration, slots: &[String]) -> Failures {
    let problem = |slot: &String| {
        Problem::at(
            "mappings",
            format!("the slot {slot} gave another entity before"),
            "give the slot another name, so that what it gave can be taken away",
        )
    };
    placed(migration, slots.iter().map(problem).collect())
}

/// Waits until the transformers' group is empty, and sets its offsets back.
fn set_back(client: &Client, topics: &Topics, plan: &Plan) -> Result<(), Error> {
    let group = topics.transform_group();
    // Read committed: it waits for offsets of open transactions, which a
    // process that has stood still might commit behind ours.
    let consumer: BaseConsumer = client
        .reader("read_committed")
        .set("group.id", &group)
        .create()
        .map_err(|e| explain("making a client", &e))?;
    let mut told = false;
    while members(&consumer, &group)? > 0 {
        if !told {
            tell("waiting for the transformers of the mapping before to end");
            told = true;
        }
        std::thread::sleep(LOOK);
    }
    let mut starts = TopicPartitionList::new();
    for object in &plan.objects {
        let topic = topics.raw(&object.name, object.custom);
        for partition in 0..topics.partitions() {
            if starts.find_partition(&topic, partition).is_some() {
                continue;
            }
            let place = Place::new(&topic, partition);
            let (start, _) = consumer
                .fetch_watermarks(&topic, partition, PATIENCE)
                .map_err(|e| explain(&format!("asking for the start of {place}"), &e))?;
            starts
                .add_partition_offset(&topic, partition, Offset::Offset(start))
                .map_err(|e| explain("setting offsets back", &e))?;
        }
    }
    let known = consumer.committed_offsets(starts.clone(), PATIENCE * 2);
    known.map_err(|e| explain("asking for the group's offsets", &e))?;
    consumer
        .commit(&starts, CommitMode::Sync)
        .map_err(|e| explain("setting the group's offsets back", &e))?;
    Ok(())
}

/// How many processes are in a group; none if it isn't known.
fn members(consumer: &BaseConsumer, group: &str) -> Result<usize, Error> {
    let list = consumer
        .fetch_group_list(Some(group), PATIENCE)
        .map_err(|e| explain("asking for the transformers' group", &e))?;
    let found = list.groups().iter().find(|found| found.name() == group);
    Ok(found.map_or(0, |found| found.members().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_entity_is_blamed_on_the_argument_with_what_there_is() {
        let plan = Plan {
            entities: ["company", "contact"].map(str::to_owned).into(),
            ..Plan::default()
        };
        let told = |name: &str| {
            let refused = known_entities(&plan, &[name.to_owned()]);
            refused.map_err(|failures| failures.to_string())
        };
        assert_eq!(told("contact"), Ok(()));
        let text = "CONFIG_INVALID: --reload: this migration loads no entity";
        let nonsense = format!("{text} `nonsense`; name one of company, contact");
        assert_eq!(told("nonsense"), Err(nonsense));
        let near = format!("{text} `contacts`; write `contact`; there are company, contact");
        assert_eq!(told("contacts"), Err(near));
    }

    #[test]
    fn an_interrupted_remap_keeps_its_generation() {
        let before = Plan {
            generation: 3,
            remapping: true,
            absent_accepted: true,
            ..Plan::default()
        };
        let resumed = next(before.clone(), Mapping::default(), false, true);
        assert_eq!((resumed.generation, resumed.absent_accepted), (3, true));
        // Agreement to one mapping is none to the next.
        let new = next(before, Mapping::default(), false, false);
        assert_eq!((new.generation, new.absent_accepted), (4, false));
        assert!(new.remapping);
    }
}
