//! The counts behind a view, kept up to date record by record.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use drover_pipeline::Result;
use drover_pipeline::balance::BALANCE;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::extract::Checkpoint;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::compacted::scan;
use drover_pipeline::record::{CanonicalKey, Millis};
use drover_pipeline::spec::Stage;
use drover_pipeline::status::Report;
use drover_pipeline::topics::Topics;
use drover_pipeline::waiver::{Failure, Waivers};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ObjectView;

/// Which state topic a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Reports of processes.
    Status,
    /// Where the extractor stands.
    Checkpoint,
    /// What the target has.
    Idempotency,
    /// What waits.
    Parked,
    /// What could not go on.
    DeadLetter,
    /// What the orchestrator and its operators have decided, and what the last
    /// balance came to.
    Control,
}

/// Where a key is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Loaded,
    Absent,
    Pending,
    Parked,
    Dead,
}

/// A migration's counts. Of each key it holds a hash and a state only: ten
/// million records must fit beside everything else.
#[derive(Default)]
pub struct Model {
    hasher: RandomState,
    objects: Vec<String>,
    states: HashMap<(Table, u64), (u32, State)>,
    counts: HashMap<(u32, State), u64>,
    checkpoints: BTreeMap<String, Checkpoint>,
    reports: BTreeMap<String, Report>,
    balance: Option<Verdict>,
    /// Dead letters without their records; few, as a lane stops that has many.
    failures: HashMap<String, Failure>,
    waivers: Waivers,
}

/// What a view shows of the last balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// Whether every record was in exactly one place.
    pub balanced: bool,
    /// When that was, by our clock.
    pub at: Millis,
    /// The generation of the mapping then; 0 where it was not said.
    #[serde(default)]
    pub generation: u32,
}

impl Model {
    /// A model of how far the source was read, and of what the processes report,
    /// without the records.
    pub fn of_extractors(client: &Client, topics: &Topics) -> Result<Self> {
        let mut model = Model::default();
        let tables = [
            (topics.status(), Table::Status),
            (topics.checkpoint(), Table::Checkpoint),
        ];
        for (topic, table) in tables {
            scan(client, &topic, |_, _, key, value| {
                model.apply(table, key, value)
            })?;
        }
        Ok(model)
    }

    /// Takes in a record; the newest of a key counts, `None` takes it away.
    /// What can't be read is passed over: it is not the view's to judge.
    pub fn apply(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let Ok(name) = std::str::from_utf8(key) else {
            return;
        };
        match (table, value) {
            (Table::Status, Some(value)) => {
                if let Ok(report) = serde_json::from_slice::<Report>(value) {
                    self.reports.insert(name.to_owned(), report);
                }
            }
            (Table::Status, None) => {
                self.reports.remove(name);
            }
            (Table::Checkpoint, value) => {
                // `source/object`
                let object = name.split_once('/').map_or(name, |(_, object)| object);
                let checkpoint = value.and_then(|value| serde_json::from_slice(value).ok());
                match checkpoint {
                    Some(checkpoint) => self.checkpoints.insert(object.to_owned(), checkpoint),
                    None => self.checkpoints.remove(object),
                };
            }
            (Table::Control, value) if name == BALANCE => {
                self.balance = value.and_then(|value| serde_json::from_slice(value).ok());
            }
            (Table::Control, value) => self.waivers.note(key, value),
            (table, Some(value)) => {
                if table == Table::DeadLetter
                    && let Ok(letter) = serde_json::from_slice::<DeadLetter>(value)
                {
                    self.failures.insert(name.to_owned(), Failure::of(&letter));
                }
                let state = match table {
                    // In the target, and nobody waits for it.
                    Table::Parked if is_dropped_link(value) => None,
                    Table::Parked => Some((object_of(name), State::Parked)),
                    Table::DeadLetter => dead(value).map(|object| (object, State::Dead)),
                    _ => known(value).map(|state| (object_of(name), state)),
                };
                match state {
                    Some((object, state)) => self.set(table, key, Some((&object, state))),
                    None if table == Table::Parked => self.set(table, key, None),
                    None => {}
                }
            }
            (table, None) => {
                if table == Table::DeadLetter {
                    self.failures.remove(name);
                }
                self.set(table, key, None);
            }
        }
    }

    fn set(&mut self, table: Table, key: &[u8], state: Option<(&str, State)>) {
        let hash = (table, self.hasher.hash_one(key));
        let state = state.map(|(object, state)| (self.number(object), state));
        let before = match state {
            Some(state) => self.states.insert(hash, state),
            None => self.states.remove(&hash),
        };
        if let Some(before) = before
            && let Some(count) = self.counts.get_mut(&before)
        {
            *count -= 1;
        }
        if let Some(state) = state {
            *self.counts.entry(state).or_default() += 1;
        }
    }

    fn number(&mut self, object: &str) -> u32 {
        let found = self.objects.iter().position(|known| known == object);
        let at = found.unwrap_or_else(|| {
            self.objects.push(object.to_owned());
            self.objects.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// What is known of an object; its lag is not.
    pub fn object(&self, object: &str) -> ObjectView {
        let number = self.objects.iter().position(|known| known == object);
        let number = number.and_then(|at| u32::try_from(at).ok());
        let count = |state| {
            let count = number.and_then(|number| self.counts.get(&(number, state)));
            count.copied().unwrap_or(0)
        };
        let counted = |which: fn(&drover_pipeline::status::Counts) -> u64| {
            let counts = self
                .reports
                .values()
                .filter_map(|report| report.objects.get(object));
            counts.map(which).sum()
        };
        let checkpoint = self.checkpoint(object);
        ObjectView {
            object: object.to_owned(),
            snapshot_complete: checkpoint.is_some_and(|c| c.snapshot_complete),
            extracted: checkpoint.map_or(0, |c| c.extracted),
            mapped: counted(|counts| counts.transformed),
            loaded: count(State::Loaded),
            absent: count(State::Absent),
            unchanged: counted(|counts| counts.unchanged),
            stale: counted(|counts| counts.stale),
            parked: count(State::Parked),
            dead: count(State::Dead),
            waived: self.waived(object),
            ..ObjectView::default()
        }
    }

    /// How many of an object's live dead letters are of canonical records of which
    /// the target has an older version. `slots` are those of the object's mapping.
    pub fn outlived<'s>(&self, object: &str, slots: impl Iterator<Item = &'s str> + Clone) -> u64 {
        let is_loaded = |key: &str| {
            let hash = (Table::Idempotency, self.hasher.hash_one(key.as_bytes()));
            let state = self.states.get(&hash);
            state.is_some_and(|(_, state)| *state == State::Loaded)
        };
        let outlived = self.failures.values().filter(|failure| {
            // A loader's letter names a slot, one of the stages before it a record.
            let (key, mut slots) = (&failure.key, slots.clone());
            key.split('/').nth(1) == Some(object)
                && (is_loaded(key) || slots.any(|slot| is_loaded(&format!("{key}#{slot}"))))
        });
        outlived.count() as u64
    }

    /// How many of an object's live dead letters are waived.
    fn waived(&self, object: &str) -> u64 {
        let waived = self.failures.values().filter(|failure| {
            failure.key.split('/').nth(1) == Some(object) && self.waivers.of(failure).is_some()
        });
        waived.count() as u64
    }

    /// Where the extractor stands in an object.
    pub fn checkpoint(&self, object: &str) -> Option<&Checkpoint> {
        self.checkpoints.get(object)
    }

    /// What the last balance came to.
    pub fn balance(&self) -> Option<Verdict> {
        self.balance
    }

    /// When the extractor last had read all that was new in an object.
    pub fn seen(&self, object: &str) -> Option<Millis> {
        let extractors = self
            .reports
            .values()
            .filter(|report| report.stage == Stage::Extractor);
        extractors
            .flat_map(|report| {
                let now = report.lanes.get(object).and_then(|lane| lane.seen);
                [now, report.seen.get(object).copied()]
            })
            .max()?
    }

    /// Whether anything was read from the source.
    pub fn has_started(&self) -> bool {
        !self.checkpoints.is_empty()
    }

    /// What the processes report.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.values()
    }
}

/// The object of a canonical key.
fn object_of(key: &str) -> String {
    let parsed = CanonicalKey::parse(key);
    parsed.map_or_else(String::new, |key| key.parts().1.to_owned())
}

fn dead(value: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Letter {
        object: String,
    }
    serde_json::from_slice::<Letter>(value)
        .ok()
        .map(|letter| letter.object)
}

/// Whether a parked record is kept only because of a link that never comes.
fn is_dropped_link(value: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Parked {
        reason: Reason,
    }
    #[derive(Deserialize)]
    struct Reason {
        kind: String,
    }
    serde_json::from_slice::<Parked>(value).is_ok_and(|parked| parked.reason.kind == "dropped")
}

/// The state of an idempotency entry, without the rest of it.
fn known(value: &[u8]) -> Option<State> {
    #[derive(Deserialize)]
    struct Entry {
        state: Name,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Pending { before: Option<Box<Entry>> },
        Applied,
        Deleted(IgnoredAny),
    }
    let entry: Entry = serde_json::from_slice(value).ok()?;
    Some(match entry.state {
        Name::Applied => State::Loaded,
        Name::Deleted(_) => State::Absent,
        // An update is under way: the target has the record.
        Name::Pending {
            before: Some(before),
        } if matches!(before.state, Name::Applied) => State::Loaded,
        Name::Pending { .. } => State::Pending,
    })
}

#[cfg(test)]
mod tests {
    use drover_pipeline::idempotency::{self, Entry};
    use drover_pipeline::record::{AbsentReason, Fingerprint, Order};
    use proptest::prelude::*;

    use super::*;

    fn entry(state: idempotency::State) -> Entry {
        Entry {
            order: Order::default(),
            fingerprint: Fingerprint::default(),
            state,
            target_id: None,
            first_touch: None,
            unknown: serde_json::Map::new(),
        }
    }

    fn json(value: &impl serde::Serialize) -> Vec<u8> {
        serde_json::to_vec(value).expect("serialises")
    }

    #[test]
    fn counts_follow_the_newest_record_of_each_key() {
        let mut model = Model::default();
        let entry_of = |model: &mut Model, id: &str, state: idempotency::State| {
            let key = format!("salesforce/Contact/{id}#contact");
            model.apply(
                Table::Idempotency,
                key.as_bytes(),
                Some(&json(&entry(state))),
            );
        };
        let pending = |before: Option<Entry>| idempotency::State::Pending {
            owner: "me".into(),
            since: 1,
            before: before.map(Box::new),
        };
        entry_of(&mut model, "1", pending(None));
        entry_of(&mut model, "2", idempotency::State::Applied);
        entry_of(
            &mut model,
            "2",
            pending(Some(entry(idempotency::State::Applied))),
        );
        let reason = AbsentReason::Deleted;
        entry_of(&mut model, "3", idempotency::State::Deleted { reason });
        let seen = model.object("Contact");
        assert_eq!((seen.loaded, seen.absent), (1, 1));
        entry_of(&mut model, "1", idempotency::State::Applied);
        assert_eq!(model.object("Contact").loaded, 2);

        let key = b"salesforce/Contact/9#contact";
        model.apply(Table::Parked, key, Some(b"{}"));
        model.apply(Table::Parked, key, Some(b"{}"));
        assert_eq!(model.object("Contact").parked, 1);
        let dropped: &[u8] = br#"{"reason":{"kind":"dropped","parents":[]}}"#;
        model.apply(Table::Parked, key, Some(dropped));
        assert_eq!(model.object("Contact").parked, 0);
        model.apply(Table::Parked, key, None);
        model.apply(Table::Parked, key, None);
        assert_eq!(model.object("Contact").parked, 0);

        let letter = br#"{"object":"Lead","code":"TOO_LONG"}"#;
        model.apply(
            Table::DeadLetter,
            b"transformer/salesforce/Lead/1",
            Some(letter),
        );
        assert_eq!(model.object("Lead").dead, 1);
        model.apply(Table::DeadLetter, b"\xff", Some(b"not JSON"));
        model.apply(Table::Idempotency, b"no key", Some(b"[]"));
        assert_eq!(
            model.object("Task"),
            ObjectView {
                object: "Task".into(),
                ..ObjectView::default()
            }
        );
    }

    proptest! {
        /// Whatever is written, in whatever order and however often: the counts
        /// are those of the tables as they stand.
        #[test]
        fn sfdmu_1100_counts_are_those_of_the_tables(
            steps in prop::collection::vec((0usize..3, 0u32..6, 0usize..4), 0..80)
        ) {
            let mut model = Model::default();
            let mut tables: BTreeMap<(usize, u32), usize> = BTreeMap::new();
            for (table, id, what) in steps {
                let key = format!("salesforce/Contact/{id}#contact");
                let reason = AbsentReason::Deleted;
                let value = match (table, what) {
                    (_, 3) => None,
                    (0, 0) => Some(json(&entry(idempotency::State::Applied))),
                    (0, 1) => Some(json(&entry(idempotency::State::Deleted { reason }))),
                    (0, _) => Some(json(&entry(idempotency::State::Pending {
                        owner: "me".into(),
                        since: 1,
                        before: None,
                    }))),
                    (1, _) => Some(b"{}".to_vec()),
                    _ => Some(br#"{"object":"Contact"}"#.to_vec()),
                };
                let name = [Table::Idempotency, Table::Parked, Table::DeadLetter][table];
                model.apply(name, key.as_bytes(), value.as_deref());
                match value {
                    Some(_) => tables.insert((table, id), what),
                    None => tables.remove(&(table, id)),
                };
            }
            let count = |table: usize, what: Option<usize>| {
                let is = |(key, value): &(&(usize, u32), &usize)| {
                    key.0 == table && what.is_none_or(|what| **value == what)
                };
                tables.iter().filter(is).count() as u64
            };
            let seen = model.object("Contact");
            prop_assert_eq!(seen.loaded, count(0, Some(0)));
            prop_assert_eq!(seen.absent, count(0, Some(1)));
            prop_assert_eq!(seen.parked, count(1, None));
            prop_assert_eq!(seen.dead, count(2, None));
        }
    }

    #[test]
    fn a_dead_record_of_which_the_target_has_an_older_version_counts_in_both_and_is_told() {
        use drover_pipeline::Code;
        use drover_pipeline::testing;

        let mut model = Model::default();
        let applied = json(&entry(idempotency::State::Applied));
        for key in [
            "s/Contact/1#contact",
            "s/Contact/2#contact",
            "s/Contact/4#contact",
        ] {
            model.apply(Table::Idempotency, key.as_bytes(), Some(&applied));
        }
        // The loader's of a slot, the transformer's of a record, and one that the
        // target never had.
        for key in ["s/Contact/1#contact", "s/Contact/2", "s/Contact/3"] {
            let letter = testing::letter(key, Code::TargetRefused, 1, b"x");
            let topic_key = letter.topic_key();
            model.apply(
                Table::DeadLetter,
                topic_key.as_bytes(),
                Some(&letter.to_json()),
            );
        }
        let seen = model.object("Contact");
        assert_eq!((seen.loaded, seen.dead), (3, 3));
        let outlived = |object: &str| model.outlived(object, ["account", "contact"].into_iter());
        assert_eq!((outlived("Contact"), outlived("Lead")), (2, 0));
    }

    #[test]
    fn only_the_very_failure_that_was_waived_counts_as_waived() {
        use drover_pipeline::Code;
        use drover_pipeline::testing;
        use drover_pipeline::waiver::Waiver;

        let key = "s/Contact/1#contact";
        let letter = |version| testing::letter(key, Code::TargetRefused, version, b"x");
        let waiver = Waiver::of(&letter(1), "agreed", "ann", 2);
        let mut model = Model::default();
        let key = waiver.control_key();
        model.apply(Table::Control, key.as_bytes(), Some(&json(&waiver)));
        model.apply(Table::Control, b"plan", Some(b"{}"));
        let counts = |model: &Model| {
            let seen = model.object("Contact");
            (seen.dead, seen.waived)
        };
        let dead = |model: &mut Model, version| {
            let letter = letter(version);
            model.apply(
                Table::DeadLetter,
                letter.topic_key().as_bytes(),
                Some(&letter.to_json()),
            );
        };
        dead(&mut model, 1);
        assert_eq!(counts(&model), (1, 1));
        dead(&mut model, 2);
        assert_eq!(counts(&model), (1, 0), "a new failure");
        dead(&mut model, 1);
        model.apply(Table::Control, key.as_bytes(), None);
        assert_eq!(counts(&model), (1, 0), "taken back");
    }

    #[test]
    fn checkpoints_and_reports_are_kept() {
        let mut model = Model::default();
        let checkpoint = br#"{"cursor":{"a":1},"phase":"SNAPSHOT","snapshotComplete":true,"extracted":7,"asOf":5,"at":6}"#;
        model.apply(Table::Checkpoint, b"salesforce/Contact", Some(checkpoint));
        let report = br#"{"stage":"loader","name":"postgres","instance":"loader-1","pid":1,"http":"127.0.0.1:1","startedAt":1,"at":2,"phase":"running","lastError":null,"objects":{"Contact":{"unchanged":3,"stale":2,"new-one":1}},"lanes":{}}"#;
        model.apply(Table::Status, b"loader-1", Some(report));
        let second = String::from_utf8_lossy(report).replace("loader-1", "loader-2");
        model.apply(Table::Status, b"loader-2", Some(second.as_bytes()));
        let seen = model.object("Contact");
        assert!(seen.snapshot_complete);
        assert_eq!((seen.extracted, seen.unchanged, seen.stale), (7, 6, 4));
        assert_eq!(model.reports().count(), 2);
    }
}
