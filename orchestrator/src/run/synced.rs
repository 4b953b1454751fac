//! When a migration is synced: the source answers, everything that the first whole copy produced,
//! up to the offsets seen when it ended, is committed by the last stage, and no
//! parked record waits for something that has come, or that never comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_pipeline::control::Plan;
use drover_pipeline::kafka::Place;
use drover_pipeline::record::Millis;
use drover_pipeline::{Class, Result};
use tokio_util::sync::CancellationToken;

use crate::migration::Bus;
use crate::offsets::Group;
use crate::vain::Waits;
use crate::view::{Model, Watch};

const PAUSE: Duration = Duration::from_millis(300);

/// Waits until the migration is synced. `false` when told to stop before.
///
/// The marks are taken only when what writes before them is done, stage after
/// stage, so nothing of the snapshot can still come in front of them. A stage
/// commits past its producer's last marker, so the end itself is reached. `began`
/// is when this run began, by our clock.
pub(crate) fn wait(
    bus: &Bus,
    plan: &Plan,
    entities: &[String],
    watch: &Watch,
    began: Millis,
    stop: &CancellationToken,
) -> Result<bool> {
    let copied = || watch.look(|model| is_copied(model, plan, began));
    if !until(stop, || Ok(copied()))? {
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

/// Whether each object was copied whole, and an extractor has read it since
/// `began`: a copy of yesterday says nothing of a source that lets nobody in today.
fn is_copied(model: &Model, plan: &Plan, began: Millis) -> bool {
    plan.objects.iter().all(|object| {
        let checkpoint = model.checkpoint(&object.name);
        checkpoint.is_some_and(|checkpoint| checkpoint.snapshot_complete)
            && model.seen(&object.name).is_some_and(|seen| seen >= began)
    })
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
        let began = Instant::now();
        match done() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if error.class() == Class::Transient => {}
            Err(error) => return Err(error),
        }
        // Where a look reads whole topics, most of the time nobody looks.
        std::thread::sleep(PAUSE.max(4 * began.elapsed()));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::Object;
    use drover_pipeline::spec::Stage;
    use drover_pipeline::status::{Status, now};

    use super::*;
    use crate::view::Table;

    #[test]
    fn a_copy_of_before_is_not_enough_while_the_source_lets_nobody_in() {
        let plan = Plan {
            objects: vec![Object {
                name: "Contact".to_owned(),
                ..Object::default()
            }],
            ..Plan::default()
        };
        let mut model = Model::default();
        let checkpoint = br#"{"cursor":1,"phase":"DELTA","snapshotComplete":true,"extracted":7,"asOf":5,"at":6}"#;
        model.apply(Table::Checkpoint, b"x/Contact", Some(checkpoint));
        let began = now();
        let mut tell = |seen: Millis| {
            let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
            status.lane_runs("Contact", Some(seen));
            let report = serde_json::to_vec(&status.report()).expect("serialises");
            model.apply(Table::Status, b"extractor-1", Some(&report));
            is_copied(&model, &plan, began)
        };
        assert!(!tell(began - 1), "read by a process of before");
        assert!(tell(began));
    }
}
