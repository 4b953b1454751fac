//! `drover record KEY`: one record's life, from the source to the target.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use drover_pipeline::control::Plan;
use drover_pipeline::load::ask::Question;
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::spec::Stage;

mod compare;
mod key;
mod life;
mod show;
mod trace;

use crate::balance;
use crate::cli::{Format, blocking, print, print_json, with_patience};
use crate::connectors::Connectors;
use crate::failure::Result;
use crate::migration::Bus;
use life::{Life, Target};

pub(crate) async fn run(file: &Path, format: Format, text: &str, bodies: bool) -> Result<ExitCode> {
    let bus = Arc::new(Bus::load(file)?);
    let plan = {
        let bus = Arc::clone(&bus);
        blocking(move || Plan::read(&bus.client, &bus.topics)).await?
    };
    let slots = balance::slots(&plan, balance::taken(&bus).await?.as_deref());
    let source = &bus.config.source_type;
    let asked = key::likely(&plan, key::candidates(&plan, source, text));
    if asked.is_empty() {
        return Err(key::unknown_object(&plan, source, text).into());
    }
    let reading = {
        let (bus, text) = (Arc::clone(&bus), text.to_owned());
        blocking(move || -> Result<Life> {
            let groups = trace::Groups::open(&bus)?;
            let lives = asked
                .into_iter()
                .map(|asked| trace::read(&bus, &plan, &slots, &groups, &asked));
            let lives = lives.collect::<Result<Vec<Life>, _>>()?;
            key::only_one(lives, &text)
        })
    };
    let mut life = with_patience("reading the record's partitions", reading).await?;
    with_patience("asking the target", ask_target(&bus, file, &mut life)).await;
    for slot in &mut life.slots {
        slot.differences = compare::differences(slot, bodies);
    }
    if !bodies {
        life.mask();
    }
    match format {
        Format::Json => print_json(&life),
        Format::Table => print(&show::render(&life)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the target what it has. That it does not answer is shown, and hides
/// nothing of what Kafka knows.
async fn ask_target(bus: &Bus, file: &Path, life: &mut Life) {
    if bus.config.dry_run {
        return;
    }
    let found = Connectors::of_process().find(Stage::Loader, &bus.config.target_type);
    let Some(connector) = found else {
        return;
    };
    let questions: Vec<Question> = life
        .slots
        .iter()
        .filter_map(|slot| {
            Some(Question {
                entity: slot.entity.clone(),
                key: CanonicalKey::parse(&slot.key)?,
                target_id: slot
                    .entry
                    .as_ref()
                    .and_then(|entry| entry.target_id.clone()),
            })
        })
        .collect();
    match connector.read(file, &questions).await {
        Ok(answers) => {
            for (slot, answer) in life.slots.iter_mut().zip(answers) {
                slot.target = Some(Target::Answer(answer));
            }
        }
        Err(failures) => {
            for slot in &mut life.slots {
                let error = failures.to_string();
                slot.target = Some(Target::Silent { error });
            }
        }
    }
}
