//! What must hold: at each commit, and when everything is quiet. What the
//! target must not do is checked where it does it (`world.rs`).

use drover_pipeline::idempotency::State;
use drover_pipeline::record::Order;

use crate::worker::{Reason, Row};
use crate::world::{Canonical, Fate, KEYS, Key, Logged, TABLES, Value, World};
use drover_pipeline::idempotency::Entry;

impl World {
    /// The newest version of a key below an offset, by what the source says.
    fn newest_before(&self, key: Key, next: usize) -> Option<(Order, usize)> {
        let log = &self.canonical[KEYS[key].entity][self.partition(key)];
        log[..next]
            .iter()
            .enumerate()
            .filter_map(|(offset, item)| match item {
                Canonical::Record {
                    key: other,
                    version,
                    mapping,
                    ..
                } if *other == key => Some((*version, *mapping, offset)),
                _ => None,
            })
            .max()
            .map(|(version, mapping, offset)| (self.order_of(version, mapping, offset), offset))
    }

    /// Nothing is committed as consumed that is neither applied, parked, dead,
    /// stale nor unchanged.
    pub fn check_consumed(&mut self, entity: usize, partition: usize) {
        let next = self.group.decided[entity][partition];
        let end = self.canonical[entity][partition].len();
        for (key, spec) in KEYS.iter().enumerate() {
            if spec.entity != entity || self.partition(key) != partition {
                continue;
            }
            let Some((order, _)) = self.newest_before(key, next) else {
                continue;
            };
            let entry = self.truth.entries[key].as_ref();
            let settled = |entry: &Entry| match &entry.state {
                // What is sent is newer, and will be read again.
                State::Pending { .. } => {
                    entry.order > order
                        && self
                            .newest_before(key, end)
                            .is_some_and(|(newest, _)| newest > order)
                }
                State::Applied | State::Deleted { .. } => entry.order >= order,
            };
            let accounted = entry.is_some_and(settled)
                || self.truth.parked[key]
                    .as_ref()
                    .is_some_and(|parked| parked.order >= order)
                || self.truth.dead[key].is_some_and(|dead| dead.order >= order);
            if !accounted {
                let detail = format!(
                    "{} v{} at {partition}@{}, committed up to {next}",
                    spec.name, order.version, order.offset
                );
                self.broken("a consumed record is nowhere", detail);
            }
        }
    }

    /// The tables as a reader from the start sees them.
    fn tables(&self) -> Vec<Row> {
        let mut tables = vec![Row::default(); KEYS.len()];
        for table in 0..TABLES {
            for item in self.logs[table].iter().flat_map(|log| &log.items) {
                let Logged::Record { by, key, value } = item else {
                    continue;
                };
                if self.transactions[*by].fate == Fate::Committed {
                    match Value::clone(value) {
                        Value::Entry(entry) => tables[*key].entry = entry,
                        Value::Parked(parked) => tables[*key].parked = parked,
                        Value::Letter(letter) => tables[*key].letter = letter,
                        Value::Redo(redo) => tables[*key].redo = redo,
                    }
                }
            }
        }
        tables
    }

    /// What must hold when nothing moves any more.
    pub fn check_quiet(&mut self) {
        for entity in 0..2 {
            for partition in 0..self.setting.partitions {
                let end = self.canonical[entity][partition].len();
                let next = self.group.decided[entity][partition];
                let left = self.canonical[entity][partition][next.min(end)..]
                    .iter()
                    .any(|item| matches!(item, Canonical::Record { .. }));
                if left {
                    let detail = format!("entity {entity}, {partition}@{next} of {end}");
                    self.broken("records are left unread", detail);
                }
            }
        }
        let tables = self.tables();
        for place in 0..self.workers.len() {
            if let Some(name) = self.workers[place].differs(&tables) {
                let detail = format!("{name} in worker {place}");
                self.broken("memory is not what the tables say", detail);
            }
        }
        for key in 0..KEYS.len() {
            self.check_key(key, &tables);
        }
    }

    fn check_key(&mut self, key: Key, tables: &[Row]) {
        let name = KEYS[key].name;
        let (entry, parked) = (tables[key].entry.as_ref(), tables[key].parked.as_ref());
        let has_id = |key: Key| {
            let entry = tables[key].entry.as_ref();
            entry.is_some_and(|entry| entry.target_id.is_some())
        };
        if tables[key].redo.is_some() {
            self.broken("a redo record is left", name.to_owned());
        }
        if let Some(parent) = tables[key].letter.and_then(|letter| letter.waits_for)
            && has_id(parent)
        {
            let detail = format!("{name}, whose parent is {}", KEYS[parent].name);
            self.broken("an orphan was not healed", detail);
        }
        if let Some(parked) = parked {
            match parked.reason {
                Reason::Lease => {
                    self.broken("a record waits for a lease for ever", name.to_owned());
                }
                Reason::Parent(parent) | Reason::Link(parent) | Reason::Dropped(parent)
                    if has_id(parent) =>
                {
                    let detail = format!("{name} waits for {}", KEYS[parent].name);
                    self.broken("a parked record was not woken", detail);
                }
                // Everything is covered now, so a parent can only be waited for
                // that is dead for a reason of its own.
                Reason::Parent(parent) | Reason::Link(parent)
                    if tables[parent]
                        .letter
                        .is_none_or(|letter| letter.waits_for.is_some()) =>
                {
                    let detail = format!("{name} waits for {}", KEYS[parent].name);
                    self.broken("a record waits in vain for ever", detail);
                }
                Reason::Parent(_) | Reason::Link(_) | Reason::Dropped(_) => {}
            }
        }
        let log = &self.canonical[KEYS[key].entity][self.partition(key)];
        let Some((newest, offset)) = self.newest_before(key, log.len()) else {
            return;
        };
        let Canonical::Record { content, .. } = log[offset] else {
            return;
        };
        let waits = parked.is_some_and(|parked| {
            matches!(parked.reason, Reason::Parent(_)) && parked.order == newest
        });
        if waits || self.truth.dead[key].is_some_and(|dead| dead.order >= newest) {
            return;
        }
        if entry.is_none_or(|entry| {
            matches!(entry.state, State::Pending { .. })
                || Order {
                    reapply: 0,
                    ..entry.order
                } != newest
        }) {
            let detail = format!("{name}: {entry:?}, newest is {newest:?}");
            self.broken("the table does not end at the newest version", detail);
            return;
        }
        let row = self.rows.iter().find(|row| row.key == key);
        let right = match row {
            None => content.absent,
            Some(row) => row.content == content || row.content.absent && content.absent,
        };
        if !right {
            let detail = format!("{name}: newest is {newest:?}, the target has {row:?}");
            self.broken("the target does not have the newest version", detail);
            return;
        }
        let unlinked = row.is_some_and(|row| !row.linked && !row.content.absent);
        if let Some((parent, _)) = KEYS[key].parent
            && unlinked
            && has_id(parent)
        {
            self.broken("a link that is possible was not made", name.to_owned());
        }
    }
}
