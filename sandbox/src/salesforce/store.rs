//! The org's data: what is true, and what queries can see of it yet.
//!
//! A transaction of the real API stamps its rows when it writes them and
//! shows them when it commits; until then readers see the old version. So a
//! write here has a stamp and a later moment of visibility. The tables hold
//! what is visible; writes that are not wait in a queue, and `newest` knows
//! the truth of the rows they concern.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;

use super::id::Id;
use super::moment::{self, Millis};
use super::record::Record;
use super::schema::Schema;

/// How often an object's records were written since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Records made.
    pub creates: u64,
    /// Records changed; undeletes count here.
    pub edits: u64,
    /// Records deleted.
    pub deletes: u64,
}

/// The records of one object.
#[derive(Debug, Default)]
pub struct Table {
    /// What queries see.
    rows: BTreeMap<Id, Record>,
    /// The same rows by their stamp.
    by_modstamp: BTreeSet<(Millis, Id)>,
    /// Every deletion that readers can know of, by its time.
    deletions: BTreeSet<(Millis, Id)>,
    /// Rows with writes that are not visible yet.
    newest: HashMap<Id, Newest>,
    /// Ids of every record ever made, to choose from at random.
    ids: Vec<Id>,
    /// Records not in the bin, in truth.
    live: u64,
    /// Records in the bin, in truth.
    binned: u64,
    /// The number of the next record's id.
    next_number: u64,
    /// The next number of an autonumber field.
    next_name: u64,
    /// Writes since the start.
    pub writes: Writes,
}

#[derive(Debug)]
struct Newest {
    /// The truth; nothing if the record is gone for good.
    record: Option<Record>,
    /// The write that made it.
    write: u64,
    /// The last write that readers see.
    shown: u64,
    /// Writes that wait.
    waiting: u32,
}

/// A write that is not visible yet.
#[derive(Debug)]
struct Waiting {
    at: Millis,
    write: u64,
    object: usize,
    id: Id,
    record: Option<Record>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.write) == (other.at, other.write)
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.write).cmp(&(other.at, other.write))
    }
}

/// All tables.
#[derive(Debug)]
pub struct Store {
    /// The objects and fields.
    pub schema: Schema,
    tables: Vec<Table>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    write: u64,
    /// What to put back if the transaction fails.
    undo: Option<Undo>,
}

/// The records that a transaction changed, as they were, and the counts.
#[derive(Debug)]
struct Undo {
    records: Vec<(usize, Id, Option<Record>)>,
    writes: Vec<Writes>,
}

impl Store {
    /// A store without records.
    pub fn new(schema: Schema) -> Store {
        let tables = schema.objects.iter().map(|_| Table::new()).collect();
        Store {
            schema,
            tables,
            waiting: BinaryHeap::new(),
            write: 0,
            undo: None,
        }
    }

    /// Adds an object that only data knows and gives its number.
    pub fn extend(&mut self, name: &str, prefix: Option<&str>) -> usize {
        let number = self.schema.extend(name, prefix);
        self.tables.push(Table::new());
        number
    }

    /// The table of an object.
    pub fn table(&self, object: usize) -> &Table {
        &self.tables[object]
    }

    /// The table of an object, to count writes and give ids.
    pub fn table_mut(&mut self, object: usize) -> &mut Table {
        &mut self.tables[object]
    }

    /// Whether a write has become visible that the tables do not show yet.
    pub fn is_due(&self, now: Millis) -> bool {
        self.waiting.peek().is_some_and(|next| next.0.at <= now)
    }

    /// Shows the writes that have become visible.
    pub fn advance(&mut self, now: Millis) {
        while self.is_due(now) {
            let Some(Reverse(next)) = self.waiting.pop() else {
                return;
            };
            let table = &mut self.tables[next.object];
            let mut show = true;
            if let Some(newest) = table.newest.get_mut(&next.id) {
                newest.waiting -= 1;
                // A later write may have become visible before this one.
                show = next.write > newest.shown;
                newest.shown = newest.shown.max(next.write);
                if newest.waiting == 0 {
                    table.newest.remove(&next.id);
                }
            }
            if show {
                table.show(next.id, next.record);
            }
        }
    }

    /// The truth about a record, visible or not.
    pub fn truth(&self, object: usize, id: Id) -> Option<&Record> {
        let table = &self.tables[object];
        match table.newest.get(&id) {
            Some(newest) => newest.record.as_ref(),
            None => table.rows.get(&id),
        }
    }

    /// Begins a transaction: writes that are visible at once can be undone.
    pub fn begin(&mut self) {
        let writes = self.tables.iter().map(|table| table.writes).collect();
        self.undo = Some(Undo {
            records: Vec::new(),
            writes,
        });
    }

    /// Ends a transaction; what it wrote stays.
    pub fn commit(&mut self) {
        self.undo = None;
    }

    /// Ends a transaction; what it wrote is undone.
    pub fn roll_back(&mut self, now: Millis) {
        let Some(undo) = self.undo.take() else { return };
        for (object, id, record) in undo.records.into_iter().rev() {
            self.put(object, id, record, now, now);
        }
        for (table, writes) in self.tables.iter_mut().zip(undo.writes) {
            table.writes = writes;
        }
    }

    /// Writes a record, or removes it for good, to be seen from `visible`
    /// on. `now` decides whether that is at once.
    pub fn put(
        &mut self,
        object: usize,
        id: Id,
        record: Option<Record>,
        visible: Millis,
        now: Millis,
    ) {
        if self.undo.is_some() {
            let old = self.truth(object, id).cloned();
            self.undo
                .iter_mut()
                .for_each(|undo| undo.records.push((object, id, old.clone())));
        }
        let before = self.truth(object, id).map(|record| record.deleted);
        let after = record.as_ref().map(|record| record.deleted);
        self.write += 1;
        let write = self.write;
        let table = &mut self.tables[object];
        match before {
            Some(true) => table.binned -= 1,
            Some(false) => table.live -= 1,
            None => {}
        }
        match after {
            Some(true) => table.binned += 1,
            Some(false) => table.live += 1,
            None => {}
        }
        if before.is_none() && after.is_some() {
            table.ids.push(id);
        }
        if visible <= now {
            if let Some(newest) = table.newest.get_mut(&id) {
                newest.record = record.clone();
                newest.write = write;
                newest.shown = write;
            }
            table.show(id, record);
            return;
        }
        let newest = table.newest.entry(id).or_insert(Newest {
            record: None,
            write,
            shown: 0,
            waiting: 0,
        });
        newest.record = record.clone();
        newest.write = write;
        newest.waiting += 1;
        self.waiting.push(Reverse(Waiting {
            at: visible,
            write,
            object,
            id,
            record,
        }));
    }

    /// The truth of a table, in the order of ids.
    pub fn truths(&self, object: usize) -> impl Iterator<Item = &Record> {
        self.truths_after(object, Id::MIN)
    }

    /// The truth of a table behind an id, in the order of ids.
    pub fn truths_after(&self, object: usize, after: Id) -> impl Iterator<Item = &Record> {
        let table = &self.tables[object];
        let mut unseen: Vec<&Record> = table
            .newest
            .iter()
            .filter(|(id, _)| **id > after && !table.rows.contains_key(*id))
            .filter_map(|(_, newest)| newest.record.as_ref())
            .collect();
        unseen.sort_by_key(|record| record.id);
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let seen =
            table
                .rows
                .range(range)
                .filter_map(|(_, record)| match table.newest.get(&record.id) {
                    Some(newest) => newest.record.as_ref(),
                    None => Some(record),
                });
        merge(seen, unseen.into_iter())
    }
}

fn merge<'a>(
    left: impl Iterator<Item = &'a Record>,
    right: impl Iterator<Item = &'a Record>,
) -> impl Iterator<Item = &'a Record> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b.id < a.id => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    })
}

impl Table {
    fn new() -> Table {
        Table {
            next_number: 1,
            next_name: 1,
            ..Table::default()
        }
    }

    fn show(&mut self, id: Id, record: Option<Record>) {
        let old = match record {
            Some(record) => {
                self.by_modstamp.insert((record.modstamp, id));
                if record.deleted {
                    self.deletions.insert((record.modstamp, id));
                }
                let modstamp = record.modstamp;
                let old = self.rows.insert(id, record);
                old.filter(|old| old.modstamp != modstamp)
            }
            None => {
                self.deletions.insert((moment::second(moment::now()), id));
                self.rows.remove(&id)
            }
        };
        if let Some(old) = old {
            self.by_modstamp.remove(&(old.modstamp, id));
        }
    }

    /// A record as queries see it.
    pub fn row(&self, id: Id) -> Option<&Record> {
        self.rows.get(&id)
    }

    /// The visible rows in the order of ids.
    pub fn rows(&self) -> &BTreeMap<Id, Record> {
        &self.rows
    }

    /// Stamps and ids of the visible rows, in their order.
    pub fn by_modstamp(&self) -> &BTreeSet<(Millis, Id)> {
        &self.by_modstamp
    }

    /// Times and ids of the deletions that are visible.
    pub fn deletions(&self) -> &BTreeSet<(Millis, Id)> {
        &self.deletions
    }

    /// Records that are not deleted, in truth.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Records in the recycle bin, in truth.
    pub fn binned(&self) -> u64 {
        self.binned
    }

    /// Ids of all records ever made.
    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// A number for a new record's id.
    pub fn new_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// The next number of the object's autonumber field.
    pub fn new_name(&mut self) -> u64 {
        let number = self.next_name;
        self.next_name += 1;
        number
    }

    /// Counts on behind a number that data brought.
    pub fn name_taken(&mut self, number: u64) {
        self.next_name = self.next_name.max(number + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::record::Values;

    const ACCOUNT: usize = 0;

    fn record(number: u64, modstamp: Millis, deleted: bool) -> Record {
        let id = Id::numbered("001", number);
        Record {
            id,
            created: 0,
            modified: modstamp,
            modstamp,
            deleted,
            values: Values::new().pack(),
        }
    }

    fn seen(store: &Store) -> Vec<(Millis, u64)> {
        let table = store.table(ACCOUNT);
        assert_eq!(table.rows.len(), table.by_modstamp.len());
        table
            .by_modstamp()
            .iter()
            .map(|(modstamp, id)| {
                assert_eq!(table.row(*id).unwrap().modstamp, *modstamp);
                (
                    *modstamp,
                    (0..9).find(|n| Id::numbered("001", *n) == *id).unwrap(),
                )
            })
            .collect()
    }

    fn put(store: &mut Store, record: Record, visible: Millis, now: Millis) {
        store.put(ACCOUNT, record.id, Some(record), visible, now);
    }

    #[test]
    fn the_old_version_is_seen_until_the_new_one_is() {
        let mut store = Store::new(Schema::standard());
        put(&mut store, record(1, 1_000, false), 1_000, 1_000);
        put(&mut store, record(1, 2_000, true), 5_000, 2_000);
        put(&mut store, record(2, 2_000, false), 4_000, 2_000);
        assert_eq!(seen(&store), [(1_000, 1)]);
        assert!(
            store
                .truth(ACCOUNT, Id::numbered("001", 1))
                .unwrap()
                .deleted
        );
        assert_eq!(
            store
                .truths(ACCOUNT)
                .map(|r| r.modstamp)
                .collect::<Vec<_>>(),
            [2_000, 2_000]
        );
        assert_eq!(
            (store.table(ACCOUNT).live(), store.table(ACCOUNT).binned()),
            (1, 1)
        );

        assert!(!store.is_due(3_999));
        store.advance(4_000);
        assert_eq!(seen(&store), [(1_000, 1), (2_000, 2)]);
        assert!(store.table(ACCOUNT).deletions().is_empty());
        store.advance(5_000);
        assert_eq!(seen(&store), [(2_000, 1), (2_000, 2)]);
        assert_eq!(store.table(ACCOUNT).deletions().len(), 1);
        assert!(store.table(ACCOUNT).newest.is_empty());
    }

    #[test]
    fn an_older_write_that_shows_late_does_not_undo_a_newer_one() {
        let mut store = Store::new(Schema::standard());
        put(&mut store, record(1, 1_000, false), 9_000, 1_000);
        put(&mut store, record(1, 2_000, false), 2_000, 2_000);
        assert_eq!(seen(&store), [(2_000, 1)]);
        store.advance(9_000);
        assert_eq!(seen(&store), [(2_000, 1)]);
        // Both wait, the newer one shows first.
        put(&mut store, record(1, 3_000, false), 20_000, 9_000);
        put(&mut store, record(1, 4_000, false), 15_000, 9_000);
        store.advance(15_000);
        assert_eq!(seen(&store), [(4_000, 1)]);
        store.advance(20_000);
        assert_eq!(seen(&store), [(4_000, 1)]);
        assert!(store.table(ACCOUNT).newest.is_empty());
    }

    #[test]
    fn what_is_gone_for_good_is_gone() {
        let mut store = Store::new(Schema::standard());
        put(&mut store, record(1, 1_000, false), 1_000, 1_000);
        let id = Id::numbered("001", 1);
        store.put(ACCOUNT, id, None, 5_000, 2_000);
        assert_eq!(store.truth(ACCOUNT, id), None);
        assert_eq!(store.truths(ACCOUNT).count(), 0);
        assert_eq!(seen(&store).len(), 1);
        store.advance(5_000);
        assert_eq!(seen(&store).len(), 0);
        assert_eq!(store.table(ACCOUNT).live(), 0);
        assert_eq!(store.table(ACCOUNT).deletions().len(), 1);
    }
}
