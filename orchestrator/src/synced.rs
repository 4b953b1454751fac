//! When a migration is synced: everything that the first whole copy produced,
//! up to the offsets seen when it ended, is committed by the last stage, and no
//! parked record waits for something that has come, or that never comes.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_pipeline::control::Plan;
use drover_pipeline::kafka::Place;
use drover_pipeline::{Class, Result};
use tokio_util::sync::CancellationToken;

use crate::migration::Bus;
use crate::offsets::Group;
use crate::vain::Waits;
use crate::view::Watch;

const PAUSE: Duration = Duration::from_millis(300);

/// Waits until the migration is synced. `false` when told to stop before.
///
/// The marks are taken only when what writes before them is done, stage after
/// stage, so nothing of the snapshot can still come in front of them. A stage
/// commits past its producer's last marker, so the end itself is reached.
pub(crate) fn wait(
    bus: &Bus,
    plan: &Plan,
    entities: &[String],
    watch: &Watch,
    stop: &CancellationToken,
) -> Result<bool> {
    let copied = || {
        let complete = watch.look(|model| {
            let mut objects = plan.objects.iter();
            objects.all(|o| {
                model
                    .checkpoint(&o.name)
                    .is_some_and(|c| c.snapshot_complete)
            })
        });
        Ok(complete)
    };
    if !until(stop, copied)? {
        return Ok(false);
    }
    let raw = plan
        .objects
        .iter()
        .map(|o| bus.topics.raw(&o.name, o.custom))
        .collect::<Vec<_>>();
    if !through(bus, &bus.topics.transform_group(), &raw, stop)? {
        return Ok(false);
    }
    if bus.config.dry_run {
        return Ok(true);
    }
    let canonical: Vec<String> = entities.iter().map(|e| bus.topics.canonical(e)).collect();
    if !through(bus, &bus.topics.load_group(), &canonical, stop)? {
        return Ok(false);
    }
    until(stop, || Ok(Waits::read(bus, plan, entities, watch)?.rest()))
}

/// Waits until the group has committed the ends that the topics have now.
fn through(bus: &Bus, group: &str, topics: &[String], stop: &CancellationToken) -> Result<bool> {
    let group = Group::open(&bus.client, group)?;
    let mut marks: Option<BTreeMap<Place, i64>> = None;
    until(stop, || {
        let marks = match &mut marks {
            Some(marks) => marks,
            none => none.insert(
                group
                    .ends(topics)?
                    .into_iter()
                    .map(|(place, (_, high))| (place, high))
                    .collect(),
            ),
        };
        Ok(group.behind(marks)?.is_empty())
    })
}

/// Asks again and again; a broker that is away for a while is waited for.
fn until(stop: &CancellationToken, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    while !stop.is_cancelled() {
        match done() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if error.class() == Class::Transient => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}
