//! Reads the topics for a balance, so that a pipeline that goes on moving gives
//! no false fault.
//!
//! **The moment.** Everything is read up to ends that are taken before, in this
//! order: (1) what the groups have committed; (2) the ends of the tables that
//! stages write behind their input: idempotency, parked, redo, dead letters;
//! (3) of the canonical topics; (4) of the raw topics. So
//! - what a group had committed at (1) has left its trace before the ends of
//!   (2) and (3): offsets and output are one transaction, and its records are
//!   in the log, below the high watermark, before it commits. Reading goes on
//!   until that watermark is readable, past transactions that were open;
//! - what (2) shows came from a canonical record below (3), and that from a raw
//!   record below (4): nothing seen downstream lacks its origin upstream;
//! - whatever is not committed at (1) is in flight, however far it has come.
//!
//! **What is left.** One transaction moves a key from one table to another (from
//! parked to idempotency, from dead to applied), and the two ends are not taken
//! at the same instant: the key may be seen in both or in neither. Compaction
//! may also remove a record below an end in favour of one behind it. So a key
//! that looks wrong is looked at again, at a new moment whose ends are all taken
//! after the first reading was over; it is called red only when two looks in a
//! row find the same fault at the same orders. What a transaction had
//! half shown is whole by then. A key that has moved on meanwhile is looked at
//! once more, and counts as in flight if it moves at every look.
//!
//! **Memory.** Only hashes and marks are kept; where there are more keys than
//! [`SHARE`], the topics are read in several turns, each for some partitions of
//! the canonical keys (a raw key's partition says nothing about its slots', so
//! the raw topics are read whole each time).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use drover_pipeline::Result;
use drover_pipeline::balance::{Balance, Evidence, Hash, Ledger, Outcome, Red, Row, Standing};
use drover_pipeline::control::Plan;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::{Scanned, ranges, scan_ranges};
use drover_pipeline::status::now;

use super::facts;
use crate::migration::Bus;
use crate::offsets::{Group, NOTHING};

/// How many keys one turn may hold: some 500 MB.
const SHARE: i64 = 5_000_000;

/// How often a key may be looked at.
const LOOKS: u32 = 5;

/// How many red keys the result names.
const NAMED: usize = 1_000;

/// By object, its slots, and whether the target takes the slot's entity.
pub(crate) type Slots = BTreeMap<String, BTreeMap<String, bool>>;

type Ranges = BTreeMap<Place, (i64, i64)>;

/// Takes a balance. `progress` is told what is being read, and how far it is.
pub(super) fn take(
    bus: &Bus,
    plan: &Plan,
    slots: &Slots,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Balance> {
    let (at, began) = (now(), Instant::now());
    let look = Look { bus, plan, slots };
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let mut red = Vec::new();
    let mut looks = 0;
    for share in look.shares()? {
        let first = look.read(&share, None, progress)?;
        let mut turns = 1;
        let mut open: HashMap<Hash, Evidence> = HashMap::new();
        for (hash, (evidence, _)) in &first.suspects {
            open.insert(*hash, *evidence);
        }
        for row in &first.rows {
            let mut row = row.clone();
            // Those are counted again, where a later look finds them.
            row.red = 0;
            add(&mut rows, &row);
        }
        while !open.is_empty() && turns < LOOKS {
            let again = look.read(&share, Some(open.clone()), progress)?;
            turns += 1;
            open = settle(&mut rows, &mut red, &again, &open);
        }
        // What has moved at every look moves.
        if !open.is_empty() {
            let moving = look.read(&share, Some(open), progress)?;
            for (_, row) in moving.standings.values() {
                count(&mut rows, &moving, *row, Standing::InFlight);
            }
            turns += 1;
        }
        looks = looks.max(turns);
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    // Rows of foreign keys that turned out to be nothing.
    rows.retain(|row| slots.contains_key(&row.object) || *row != empty(row));
    let reds: u64 = rows.iter().map(|row| row.red).sum();
    red.sort_by(|one: &Red, other: &Red| one.key.cmp(&other.key));
    red.truncate(NAMED);
    Ok(Balance {
        balanced: reds == 0,
        at,
        generation: plan.generation,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        looks,
        rows,
        red,
    })
}

/// Counts the keys whose place is sure now; returns those that have moved.
fn settle(
    rows: &mut BTreeMap<(String, String), Row>,
    red: &mut Vec<Red>,
    again: &Outcome,
    before: &HashMap<Hash, Evidence>,
) -> HashMap<Hash, Evidence> {
    let mut moved = HashMap::new();
    for (hash, (standing, row)) in &again.standings {
        match again.suspects.get(hash) {
            None => count(rows, again, *row, *standing),
            Some((evidence, _)) if before.get(hash) == Some(evidence) => {
                count(rows, again, *row, *standing);
                if let Some(key) = again.texts.get(hash) {
                    let (fault, why, advice) = evidence.fault.facts();
                    red.push(Red {
                        key: key.clone(),
                        fault: fault.to_owned(),
                        why: why.to_owned(),
                        advice: advice.to_owned(),
                    });
                }
            }
            Some((evidence, _)) => {
                moved.insert(*hash, *evidence);
            }
        }
    }
    moved
}

fn count(
    rows: &mut BTreeMap<(String, String), Row>,
    outcome: &Outcome,
    row: u16,
    standing: Standing,
) {
    let Some(name) = outcome.rows.get(usize::from(row)) else {
        return;
    };
    let mut row = empty(name);
    row.count(standing);
    add(rows, &row);
}

fn empty(row: &Row) -> Row {
    Row {
        object: row.object.clone(),
        slot: row.slot.clone(),
        ..Row::default()
    }
}

fn add(rows: &mut BTreeMap<(String, String), Row>, row: &Row) {
    rows.entry((row.object.clone(), row.slot.clone()))
        .or_insert_with(|| empty(row))
        .add(row);
}

/// What every look needs.
struct Look<'l> {
    bus: &'l Bus,
    plan: &'l Plan,
    slots: &'l Slots,
}

/// A moment: how far each topic is read, and what was committed before.
struct Moment {
    committed: HashMap<Place, i64>,
    tables: [Ranges; 4],
    canonical: Ranges,
    raw: Ranges,
}

impl Look<'_> {
    /// The partitions of canonical keys, in turns that memory can hold.
    fn shares(&self) -> Result<Vec<Range<i32>>> {
        let partitions = self.bus.topics.partitions();
        // Offsets count versions and markers as well: more turns than needed
        // do no harm.
        let mut most = 0;
        for topic in self.raw_topics() {
            most += ranges(&self.bus.client, &topic)?
                .values()
                .map(|(low, high)| high - low)
                .sum::<i64>();
        }
        let turns = (most / SHARE + 1).clamp(1, i64::from(partitions).max(1)) as i32;
        let each = (partitions + turns - 1) / turns;
        Ok((0..partitions)
            .step_by(each.max(1) as usize)
            .map(|from| from..(from + each).min(partitions))
            .collect())
    }

    fn raw_topics(&self) -> Vec<String> {
        let mut topics: Vec<String> = self
            .plan
            .objects
            .iter()
            .map(|object| self.bus.topics.raw(&object.name, object.custom))
            .collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Takes the ends in the order that the module's text explains.
    fn moment(&self, share: &Range<i32>) -> Result<Moment> {
        let (topics, client) = (&self.bus.topics, &self.bus.client);
        let raws = self.raw_topics();
        let canonicals: Vec<String> = self
            .plan
            .entities
            .iter()
            .map(|entity| topics.canonical(entity))
            .collect();
        let places = |names: &[String]| -> Vec<Place> {
            let each = |name: &String| {
                let name = name.clone();
                (0..topics.partitions()).map(move |partition| Place::new(&name, partition))
            };
            names.iter().flat_map(each).collect()
        };
        let transform = Group::open(client, &topics.transform_group())?;
        let mut committed = transform.committed(places(&raws).iter())?;
        if !self.bus.config.dry_run {
            let load = Group::open(client, &topics.load_group())?;
            committed.extend(load.committed(places(&canonicals).iter())?);
        }
        let of_share = |mut all: Ranges| {
            all.retain(|place, _| share.contains(&place.partition));
            all
        };
        let tables = [
            of_share(ranges(client, &topics.parked())?),
            of_share(ranges(client, &topics.redo())?),
            // Letters of earlier stages lie in the raw key's partition.
            ranges(client, &topics.deadletter())?,
            of_share(ranges(client, &topics.idempotency())?),
        ];
        let all = |names: &[String]| -> Result<Ranges> {
            let mut all = Ranges::new();
            for name in names {
                all.extend(ranges(client, name)?);
            }
            Ok(all)
        };
        Ok(Moment {
            committed,
            tables,
            canonical: of_share(all(&canonicals)?),
            raw: all(&raws)?,
        })
    }

    /// One look: all tables, joined.
    fn read(
        &self,
        share: &Range<i32>,
        only: Option<HashMap<Hash, Evidence>>,
        progress: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<Outcome> {
        let moment = self.moment(share)?;
        let partitions = self.bus.topics.partitions();
        let mut ledger = Ledger::new(self.slots, (share.clone(), partitions), only);
        let committed = &moment.committed;
        let in_flight = |record: &Scanned<'_>, last: &mut (Place, i64)| {
            if last.0.partition != record.partition || last.0.topic != record.topic {
                let place = Place::new(record.topic, record.partition);
                let next = committed.get(&place).copied().unwrap_or(NOTHING);
                *last = (place, next);
            }
            record.offset >= last.1
        };
        let nowhere = || (Place::new("", -1), 0);
        let client = &self.bus.client;
        let mut read = |what: &str,
                        ranges: &Ranges,
                        each: &mut dyn FnMut(&str, &Scanned<'_>) -> Result<()>|
         -> Result<()> {
            let all: i64 = ranges.values().map(|(low, high)| high - low).sum();
            let all = u64::try_from(all).unwrap_or(0);
            let mut done = 0;
            scan_ranges(client, ranges, |record| {
                done += 1;
                if done % 10_000 == 0 {
                    progress(what, done, all);
                }
                each(&String::from_utf8_lossy(record.key), record)
            })
        };

        let mut last = nowhere();
        read("canonical", &moment.canonical, &mut |key, record| {
            let incarnation = self.plan.incarnations.get(record.topic).copied();
            let canonical = facts::canonical(record, incarnation.unwrap_or(1))?;
            ledger.canonical(key, canonical, in_flight(record, &mut last));
            Ok(())
        })?;
        let [parked, redo, letters, idempotency] = &moment.tables;
        read("parked", parked, &mut |key, record| {
            ledger.parked(key, record.value.map(facts::parked));
            Ok(())
        })?;
        read("redo", redo, &mut |key, record| {
            ledger.redo(key, record.value.map(facts::redo));
            Ok(())
        })?;
        read("dead letters", letters, &mut |key, record| {
            if let Some((stage, key)) = facts::letter_of(key) {
                let letter = record.value.map(|value| facts::letter(stage, value));
                ledger.letter(stage, key, letter);
            }
            Ok(())
        })?;
        read("idempotency", idempotency, &mut |key, record| {
            ledger.entry(key, record.value.map(facts::entry));
            Ok(())
        })?;
        let mut last = nowhere();
        read("raw", &moment.raw, &mut |key, record| {
            ledger.raw(key, facts::raw(record)?, in_flight(record, &mut last));
            Ok(())
        })?;
        Ok(ledger.finish())
    }
}
