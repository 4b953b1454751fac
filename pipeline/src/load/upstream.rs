//! How far the stages in front of this loader have come, as Kafka itself says
//! it: the topic `checkpoint` and what the groups of transformers and loaders
//! have committed. Two things hang on it:
//!
//! - **Lane order.** While the first copy of an object is under way, the lanes
//!   whose records require it wait, so that parents come first and hardly
//!   anything is parked. A lane is let go for good when its parents' copy is in
//!   the target, when a lane it waits for is blocked, or when none of them has
//!   moved for 30 s: from then on parking does the work.
//! - **Parents that never come.** What the source had of an object up to a
//!   moment (`as_of`) is *covered* once it has reached our tables. Who still
//!   waits for a record of that object which nobody knows, waits in vain.
//!
//! An object is followed in rounds: its checkpoint is taken first, then the end
//! of its raw topic, which the transformers must have committed. From there on
//! each entity that it gives goes its own way, because one of them may wait for
//! the other: the end of the canonical topic, which the loaders must have
//! committed; then the ends of the loaders' tables, which we must have been
//! told. Each end is taken only when what writes before it is done, so nothing
//! of that checkpoint can still come behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Loader;
use super::references::Parent;
use super::run::Shared;
use crate::control::Plan;
use crate::error::{Class, Result};
use crate::extract::Checkpoint;
use crate::kafka::Place;
use crate::kafka::group::GroupOffsets;
use crate::record::{CanonicalKey, Millis};
use crate::spec::Stage;
use crate::status::{Phase, Report, SILENCE, now};

/// How often it is looked while a lane waits.
const LOOK: Duration = Duration::from_millis(250);
/// How long a lane has waited before it is said. A process that just started, or was
/// just given its partitions, has not looked yet: the copy may be long complete.
const SAID: Duration = Duration::from_secs(2);
/// How often it is looked otherwise, and for records that wait in vain.
const SEARCH: Duration = Duration::from_secs(2);
/// After this long a record that still waits in vain is let go on once more: its
/// batch may have been dropped.
const AGAIN: Duration = Duration::from_secs(20);

/// What is known of the stages in front.
pub(super) struct Upstream {
    state: Mutex<State>,
    /// By object, the topics on its way.
    ways: BTreeMap<String, Way>,
}

#[derive(Default)]
struct State {
    checkpoints: HashMap<String, Checkpoint>,
    reports: HashMap<String, Report>,
    /// Lanes that wait for nothing any more.
    free: HashSet<String>,
}

/// An object's way to the target.
struct Way {
    raw: String,
    /// The lane's name in the transformers; in an extractor it is the object's.
    lane: String,
    /// Entity and topic.
    canonicals: Vec<(String, String)>,
}

/// Following one object's checkpoint to our tables.
struct Round {
    as_of: Option<Millis>,
    /// The ends of its raw topic; `None` once the transformers are through.
    raw: Option<BTreeMap<Place, i64>>,
    /// Its entities that are not in our tables yet.
    legs: Vec<Leg>,
}

/// One entity of a round.
struct Leg {
    entity: String,
    topic: String,
    hop: Hop,
    ends: BTreeMap<Place, i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hop {
    Load,
    Tables,
}

/// Since when this process has partitions.
#[derive(Default)]
struct Given(Option<Instant>);

impl Given {
    /// Whether it has had them so long that what it waits for may be said.
    fn says(&mut self, given: bool, now: Instant) -> bool {
        match given {
            true => now - *self.0.get_or_insert(now) >= SAID,
            false => {
                self.0 = None;
                false
            }
        }
    }
}

/// What the watcher keeps between two looks.
#[derive(Default)]
struct Watch {
    given: Given,
    rounds: HashMap<String, Round>,
    /// What of the first copy is in the target.
    loaded: BTreeSet<Parent>,
    /// Objects whose first copy is in the target as a whole.
    copied: BTreeSet<String>,
    /// By object, how far it is covered.
    covered: HashMap<String, Millis>,
    /// By lane, what its parents had done at the last look, and since when.
    moved: HashMap<String, (i64, Instant)>,
    /// Objects whose records are waited for.
    wanted: HashSet<String>,
    /// Records that were let go on to their end, and when.
    ended: HashMap<CanonicalKey, Instant>,
}

impl Upstream {
    pub(super) fn of(plan: &Plan, topics: &crate::topics::Topics, entities: &[&str]) -> Self {
        let ways = plan.objects.iter().filter_map(|object| {
            let slots = plan.mapping.of(object)?.slots.values();
            let taken: BTreeSet<&str> = slots
                .map(|slot| slot.entity.as_str())
                .filter(|entity| entities.contains(entity))
                .collect();
            let way = Way {
                raw: topics.raw(&object.name, object.custom),
                lane: match object.custom {
                    true => "custom".to_owned(),
                    false => object.name.clone(),
                },
                canonicals: taken
                    .into_iter()
                    .map(|entity| (entity.to_owned(), topics.canonical(entity)))
                    .collect(),
            };
            Some((object.name.clone(), way))
        });
        Upstream {
            state: Mutex::default(),
            ways: ways.collect(),
        }
    }

    /// Takes in a checkpoint, keyed `source/object`.
    pub(super) fn checkpoint(&self, key: &[u8], value: Option<&[u8]>) {
        let Some((_, object)) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.split_once('/'))
        else {
            return;
        };
        let checkpoint = value.and_then(|value| serde_json::from_slice(value).ok());
        let mut state = self.lock();
        match checkpoint {
            Some(checkpoint) => state.checkpoints.insert(object.to_owned(), checkpoint),
            None => state.checkpoints.remove(object),
        };
    }

    /// Takes in a process's report.
    pub(super) fn report(&self, key: &[u8], value: Option<&[u8]>) {
        let key = String::from_utf8_lossy(key).into_owned();
        let report = value.and_then(|value| serde_json::from_slice(value).ok());
        let mut state = self.lock();
        match report {
            Some(report) => state.reports.insert(key, report),
            None => state.reports.remove(&key),
        };
    }

    /// That lane waits for nothing any more.
    pub(super) fn free(&self, lane: &str) {
        self.lock().free.insert(lane.to_owned());
    }

    /// Whether that lane waits for nothing any more.
    pub(super) fn is_free(&self, lane: &str) -> bool {
        self.lock().free.contains(lane)
    }

    /// Whether a lane on the way of those records waits for a person, as this
    /// process (`own`) or another living one reports.
    fn is_blocked(&self, parent: &Parent, own: &Report) -> bool {
        let lane_in_front = self.ways.get(&parent.object).map(|way| &way.lane);
        let state = self.lock();
        let silence = SILENCE.as_millis() as Millis;
        state
            .reports
            .values()
            .filter(|report| report.phase != Phase::Stopped && now() - report.at < silence)
            .chain([own])
            .any(|report| {
                report.lanes.iter().any(|(lane, standing)| {
                    let on_the_way = match report.stage {
                        Stage::Extractor => *lane == parent.object,
                        Stage::Transformer => Some(lane) == lane_in_front,
                        Stage::Loader => *lane == parent.entity,
                    };
                    on_the_way && standing.phase == Phase::Blocked
                })
            })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the stages in front until the loader stops. Blocks.
pub(super) fn watch<L: Loader>(shared: &Arc<Shared<L>>) {
    let mut watch = Watch::default();
    let mut groups: Option<(GroupOffsets, GroupOffsets)> = None;
    let mut searched = Instant::now();
    while !shared.stop.is_cancelled() {
        let looked = match &groups {
            Some(groups) => watch.look(shared, groups),
            None => {
                let transform = shared.topics.transform_group();
                let load = shared.topics.load_group();
                let open = |group: &str| GroupOffsets::open(&shared.client, group);
                open(&transform)
                    .and_then(|transform| Ok((transform, open(&load)?)))
                    .map(|opened| groups = Some(opened))
            }
        };
        if let Err(error) = looked {
            // Whoever must act on it is told by the lanes themselves.
            let level = error.class() == Class::Transient;
            tracing::debug!(%error, level, "looking at the stages in front");
        }
        watch.order(shared);
        if searched.elapsed() >= SEARCH {
            searched = Instant::now();
            watch.search(shared);
        }
        let pause = match shared.lanes.anyone_waits() {
            true => LOOK,
            false => SEARCH / 2,
        };
        std::thread::sleep(pause);
    }
}

impl Watch {
    /// Goes on with the rounds as far as possible.
    fn look<L: Loader>(
        &mut self,
        shared: &Arc<Shared<L>>,
        (transform, load): &(GroupOffsets, GroupOffsets),
    ) -> Result<()> {
        let upstream = &shared.upstream;
        for (object, way) in &upstream.ways {
            if !self.rounds.contains_key(object) {
                let due = !self.copied.contains(object) || self.wanted.contains(object);
                let checkpoint = upstream.lock().checkpoints.get(object).cloned();
                let Some(checkpoint) = checkpoint.filter(|c| due && c.snapshot_complete) else {
                    continue;
                };
                let known = self.covered.get(object).copied();
                if self.copied.contains(object) && checkpoint.as_of <= known {
                    continue;
                }
                let round = Round {
                    as_of: checkpoint.as_of,
                    raw: Some(transform.ends([&way.raw].into_iter())?),
                    legs: Vec::new(),
                };
                self.rounds.insert(object.clone(), round);
            }
            let Some(round) = self.rounds.get_mut(object) else {
                continue;
            };
            if let Some(ends) = &round.raw {
                if !through(shared, transform, ends)? {
                    continue;
                }
                let legs = way.canonicals.iter().map(|(entity, topic)| {
                    Ok(Leg {
                        entity: entity.clone(),
                        topic: topic.clone(),
                        hop: Hop::Load,
                        ends: load.ends([topic].into_iter())?,
                    })
                });
                round.legs = legs.collect::<Result<_>>()?;
                round.raw = None;
            }
            let mut on_the_way = Vec::new();
            for mut leg in std::mem::take(&mut round.legs) {
                // What is not known now is asked for again.
                let arrived = leg.go_on(shared, load).unwrap_or_else(|error| {
                    tracing::debug!(%error, topic = leg.topic, "looking at the loaders");
                    false
                });
                if !arrived {
                    on_the_way.push(leg);
                    continue;
                }
                let loaded = Parent {
                    object: object.clone(),
                    entity: leg.entity,
                };
                if self.loaded.insert(loaded.clone()) {
                    let Parent { object, entity } = loaded;
                    tracing::info!(object, entity, "the first copy is in the target");
                }
            }
            round.legs = on_the_way;
            if round.legs.is_empty() {
                self.copied.insert(object.clone());
                if let Some(as_of) = round.as_of {
                    self.covered.insert(object.clone(), as_of);
                    shared.orphans.covers(object, as_of);
                }
                self.rounds.remove(object);
            }
        }
        self.note_movement(shared, transform, load)
    }

    /// Lets those go on to their end that wait in vain, and notes which objects
    /// the others wait for.
    fn search<L: Loader>(&mut self, shared: &Arc<Shared<L>>) {
        let mut in_vain = Vec::new();
        self.wanted.clear();
        self.ended.retain(|_, at| at.elapsed() < AGAIN);
        {
            let known = shared.tables.lock();
            for (key, parked) in known.waiting().filter(|(_, parked)| parked.reason.waits()) {
                let references = &shared.references;
                if !shared.orphans.in_vain(&known, references, key, parked) {
                    let objects = parked.reason.parents().iter().map(|p| p.parts().1);
                    for object in objects {
                        if !self.wanted.contains(object) {
                            self.wanted.insert(object.to_owned());
                        }
                    }
                } else if !self.ended.contains_key(key) {
                    in_vain.push((key.clone(), parked.entity.clone()));
                }
            }
        }
        for (key, entity) in in_vain {
            self.ended.insert(key.clone(), Instant::now());
            shared.lanes.release(&entity, key, Duration::ZERO);
        }
    }

    /// Notes for each lane that waits whether its parents have moved.
    fn note_movement<L: Loader>(
        &mut self,
        shared: &Arc<Shared<L>>,
        transform: &GroupOffsets,
        load: &GroupOffsets,
    ) -> Result<()> {
        for lane in shared.lanes.names() {
            if shared.upstream.is_free(&lane) {
                continue;
            }
            let before = self.before(shared, &lane);
            let mut sum = 0;
            for Parent { object, entity } in &before {
                let Some(way) = shared.upstream.ways.get(object) else {
                    continue;
                };
                let checkpoint = shared.upstream.lock().checkpoints.get(object).cloned();
                sum += checkpoint.map_or(0, |c| c.extracted as i64 + 1);
                let canonical = shared.topics.canonical(entity);
                for (group, topic) in [(transform, &way.raw), (load, &canonical)] {
                    let partitions = 0..shared.topics.partitions();
                    let places: Vec<Place> = partitions.map(|p| Place::new(topic, p)).collect();
                    sum += group.committed(places.iter())?.values().sum::<i64>();
                }
            }
            let moved = self
                .moved
                .entry(lane)
                .or_insert_with(|| (sum, Instant::now()));
            if moved.0 != sum {
                *moved = (sum, Instant::now());
            }
        }
        Ok(())
    }

    /// What a lane waits for, and what the lanes of that wait for.
    fn before<L: Loader>(&self, shared: &Arc<Shared<L>>, lane: &str) -> BTreeSet<Parent> {
        let mut found = BTreeSet::new();
        let mut open = vec![lane.to_owned()];
        while let Some(lane) = open.pop() {
            for parent in shared.references.parents(&lane) {
                if !self.loaded.contains(parent) && found.insert(parent.clone()) {
                    open.push(parent.entity.clone());
                }
            }
        }
        found
    }

    /// Lets go the lanes that need not wait any more, and says why the others do.
    fn order<L: Loader>(&mut self, shared: &Arc<Shared<L>>) {
        let own = shared.status.report();
        let says = self
            .given
            .says(shared.lanes.has_partitions(), Instant::now());
        for lane in shared.lanes.names() {
            if shared.upstream.is_free(&lane) {
                // Whoever let it go may have done so after it was said to wait.
                shared.lanes.hold_back(&lane, false);
                shared.status.lane_waits(&lane, None);
                continue;
            }
            let missing: Vec<&Parent> = shared
                .references
                .parents(&lane)
                .filter(|parent| !self.loaded.contains(*parent))
                .collect();
            let mut parents = missing.iter().copied();
            let blocked = parents.find(|parent| shared.upstream.is_blocked(parent, &own));
            let still = self
                .moved
                .get(&lane)
                .is_some_and(|(_, since)| since.elapsed() >= shared.patience);
            if let Some(first) = missing.first()
                && blocked.is_none()
                && !still
            {
                if says {
                    let why = self.why(shared, first);
                    shared.status.lane_waits(&lane, Some(why));
                }
                continue;
            }
            if let Some(parent) = blocked.or(missing.first().copied()) {
                let object = &parent.object;
                let why = match blocked {
                    Some(_) => "is blocked",
                    None => "stands still",
                };
                tracing::warn!(
                    lane,
                    object,
                    why,
                    "the lane waits no longer for its parents"
                );
            }
            shared.upstream.free(&lane);
            shared.lanes.hold_back(&lane, false);
            shared.status.lane_waits(&lane, None);
        }
    }

    fn why<L: Loader>(&self, shared: &Arc<Shared<L>>, parent: &Parent) -> String {
        let step = |parent: &Parent| match self.rounds.get(&parent.object) {
            None => Step::Read,
            Some(round) if round.raw.is_some() => Step::Transformed,
            Some(_) if shared.upstream.is_free(&parent.entity) => Step::Loaded,
            Some(_) => {
                let mut before = shared.references.parents(&parent.entity);
                let before = before.find(|parent| !self.loaded.contains(*parent));
                before.map_or(Step::Loaded, |before| Step::Waits(before.clone()))
            }
        };
        let (object, standing) = (&parent.object, standing(parent, &step));
        format!("waits for the first copy of {object}, which comes first: it {standing}")
    }
}

/// What is done with the first copy of what a lane waits for.
enum Step {
    Read,
    Transformed,
    Loaded,
    /// Its own lane waits for that.
    Waits(Parent),
}

/// The same for a person. No lane waits for one that waits for it, so this ends.
fn standing(parent: &Parent, step: &impl Fn(&Parent) -> Step) -> String {
    match step(parent) {
        Step::Read => "is being read from the source".to_owned(),
        Step::Transformed => "is being transformed".to_owned(),
        Step::Loaded => "is being loaded".to_owned(),
        Step::Waits(before) => {
            let standing = standing(&before, step);
            format!(
                "waits itself for that of {}, which {standing}",
                before.object
            )
        }
    }
}

impl Leg {
    /// Goes on as far as possible. `true` when everything is in our tables.
    fn go_on<L: Loader>(&mut self, shared: &Arc<Shared<L>>, load: &GroupOffsets) -> Result<bool> {
        if self.hop == Hop::Load {
            if !through(shared, load, &self.ends)? {
                return Ok(false);
            }
            let tables = [
                shared.topics.idempotency(),
                shared.topics.parked(),
                shared.topics.deadletter(),
            ];
            self.ends = load.ends(tables.iter())?;
            self.hop = Hop::Tables;
        }
        Ok(shared.has_told(&self.ends))
    }
}

/// Whether a group has committed up to these ends.
fn through<L: Loader>(
    shared: &Arc<Shared<L>>,
    group: &GroupOffsets,
    ends: &BTreeMap<Place, i64>,
) -> Result<bool> {
    let committed = group.committed(ends.keys())?;
    Ok(ends.iter().all(|(place, end)| {
        // A partition that holds only the record which `init` writes.
        let nothing = i64::from(shared.is_stamped(&place.topic));
        committed.get(place).copied().unwrap_or(nothing) >= *end
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_itself_is_said_to_wait_and_for_what() {
        let parent = |object: &str| Parent {
            object: object.to_owned(),
            entity: object.to_lowercase(),
        };
        let step = |asked: &Parent| match asked.object.as_str() {
            "Case" => Step::Waits(parent("Contact")),
            "Contact" => Step::Waits(parent("Account")),
            "Account" => Step::Loaded,
            "Lead" => Step::Transformed,
            _ => Step::Read,
        };
        let told = |object: &str| standing(&parent(object), &step);
        assert_eq!(
            told("Case"),
            "waits itself for that of Contact, which waits itself for that of Account, which is \
             being loaded"
        );
        assert_eq!(told("Account"), "is being loaded");
        assert_eq!(told("Lead"), "is being transformed");
        assert_eq!(told("User"), "is being read from the source");
    }

    #[test]
    fn who_has_just_been_given_partitions_does_not_say_yet_that_it_waits() {
        let began = Instant::now();
        let mut given = Given::default();
        let mut says =
            |has, tenths: u64| given.says(has, began + Duration::from_millis(100 * tenths));
        // Before the first assignment a lane has nothing that could wait.
        assert!(!says(false, 0) && !says(false, 80));
        assert!(!says(true, 81) && !says(true, 100));
        assert!(says(true, 101) && says(true, 500));
        // Another assignment starts anew.
        assert!(!says(false, 501) && !says(true, 502) && says(true, 522));
    }
}
