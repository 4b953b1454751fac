//! The join itself: takes what the topics hold, in a fixed order of tables, and
//! keeps 40 bytes a key: a hash, the newest canonical order, and [`Marks`].
//!
//! The tables come in this order, because each is compared with those before it
//! as it is read: canonical; then parked, redo and dead letters, which are few
//! and kept with their orders; then idempotency; then raw. Within a table the
//! newest record of a key counts, so a log that is not compacted yet is read as
//! it is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::known::{Aside, Known, rank};
use super::{Canonical, Entry, Fault, Letter, Marks, Parked, Raw, Row, Standing, State};
use crate::record::{AbsentReason, CanonicalKey, Millis, Order, RawKey};
use crate::topics::partition_of;

/// What stands for a key's text: XXH3-128. Two of a billion keys share one with
/// a chance of 1 : 10^21.
pub type Hash = [u64; 2];

/// The hash of a key.
pub fn hash_of(key: &str) -> Hash {
    let hash = xxhash_rust::xxh3::xxh3_128(key.as_bytes());
    [(hash >> 64) as u64, hash as u64]
}

/// Dead letters under a raw key.
#[derive(Debug, Default, Clone)]
struct RawLetters {
    key: String,
    extractor: bool,
    transformer: Option<(Millis, Option<i64>)>,
    met: bool,
}

/// What makes a fault the same fault when it is met again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Which one.
    pub fault: Fault,
    version: Millis,
    rank: u64,
    /// The order of what is parked or dead: a record whose links come one after
    /// the other is applied again and again, at the same canonical order.
    beside: Option<Order>,
}

/// What a look came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By object and slot.
    pub rows: Vec<Row>,
    /// The keys that look wrong, with the place of their row.
    pub suspects: HashMap<Hash, (Evidence, u16)>,
    /// Where the keys that were asked for are.
    pub standings: HashMap<Hash, (Standing, u16)>,
    /// Their text.
    pub texts: HashMap<Hash, String>,
}

/// The tables, joined.
#[derive(Debug)]
pub struct Ledger {
    /// By object, the slots that the mapping declares.
    declared: HashMap<String, Arc<[String]>>,
    /// By object, slots with their rows: the declared ones, and others that were met.
    slots: HashMap<String, Vec<(String, u16)>>,
    rows: Vec<Row>,
    untaken: Vec<bool>,
    /// Only keys of these partitions, of that many.
    share: (Range<i32>, i32),
    /// Only these keys.
    only: Option<HashMap<Hash, Evidence>>,
    /// Whether each key's text and place are kept.
    named: bool,
    known: HashMap<Hash, Known>,
    aside: HashMap<Hash, Aside>,
    letters: HashMap<Hash, RawLetters>,
    texts: HashMap<Hash, String>,
}

/// How many keys' texts are kept.
const NAMED: usize = 10_000;

impl Ledger {
    /// An empty one. `slots` are the declared ones, object by object, and whether
    /// the target takes their entity; `share` is the range of partitions of
    /// canonical keys that it covers, and how many there are; `only` limits it to
    /// keys that looked wrong before.
    pub fn new(
        slots: &BTreeMap<String, BTreeMap<String, bool>>,
        share: (Range<i32>, i32),
        only: Option<HashMap<Hash, Evidence>>,
    ) -> Self {
        let declared = slots
            .iter()
            .map(|(object, slots)| (object.clone(), slots.keys().cloned().collect()));
        let mut ledger = Ledger {
            declared: declared.collect(),
            slots: HashMap::new(),
            rows: Vec::new(),
            untaken: Vec::new(),
            share,
            named: only.is_some(),
            only,
            known: HashMap::new(),
            aside: HashMap::new(),
            letters: HashMap::new(),
            texts: HashMap::new(),
        };
        for (object, slots) in slots {
            for (slot, taken) in slots {
                ledger.row(object, slot, !taken);
            }
        }
        ledger
    }

    /// A record of a canonical topic; `None` is a tombstone.
    pub fn canonical(&mut self, key: &str, record: Option<Canonical>, in_flight: bool) {
        let Some(known) = self.known(key) else {
            return;
        };
        match record {
            None => {
                let marks = Marks::CANONICAL | Marks::CANONICAL_ABSENT | Marks::CANONICAL_IN_FLIGHT;
                known.marks.set(marks | Marks::FOREIGN, false);
                (known.version, known.rank) = (Millis::MIN, 0);
            }
            Some(Canonical::Foreign) => {
                known.marks.set(Marks::FOREIGN, true);
                if !known.marks.has(Marks::CANONICAL) {
                    known.marks.set(Marks::CANONICAL_IN_FLIGHT, in_flight);
                }
            }
            Some(Canonical::Record { order, absent }) => {
                // A source that lags behind repeats an older version.
                if known.marks.has(Marks::CANONICAL) && known.compare(&order).is_lt() {
                    return;
                }
                (known.version, known.rank) = (order.version, rank(&order));
                known.marks.set(Marks::CANONICAL, true);
                known.marks.set(Marks::CANONICAL_ABSENT, absent);
                known.marks.set(Marks::CANONICAL_IN_FLIGHT, in_flight);
            }
        }
    }

    /// A record of the parked topic.
    pub fn parked(&mut self, key: &str, parked: Option<Parked>) {
        self.aside(key, |aside| aside.parked = parked);
    }

    /// A record of the redo topic, with its order where it names one.
    pub fn redo(&mut self, key: &str, redo: Option<Option<Order>>) {
        self.aside(key, |aside| aside.redo = redo);
    }

    /// A dead letter of a record's key: `stage` says whose, `None` takes it back.
    pub fn letter(&mut self, stage: crate::spec::Stage, key: &str, letter: Option<Letter>) {
        use crate::spec::Stage;
        match (stage, letter) {
            (Stage::Loader, Some(Letter::Loader { version, order })) => {
                self.aside(key, |aside| aside.letter = Some((version, order)));
            }
            (Stage::Loader, _) => self.aside(key, |aside| aside.letter = None),
            (stage, letter) => {
                let letters = self.letters.entry(hash_of(key)).or_default();
                if letters.key.is_empty() {
                    letters.key = key.to_owned();
                }
                match (stage, letter) {
                    (Stage::Extractor, letter) => letters.extractor = letter.is_some(),
                    (_, Some(Letter::Transformer { version, offset })) => {
                        letters.transformer = Some((version, offset));
                    }
                    _ => letters.transformer = None,
                }
            }
        }
    }

    /// A record of the idempotency topic.
    pub fn entry(&mut self, key: &str, entry: Option<Entry>) {
        let aside = self.aside.get(&hash_of(key)).cloned().unwrap_or_default();
        let Some(known) = self.known(key) else {
            return;
        };
        let all = Marks::ENTRY
            | Marks::PENDING
            | Marks::DELETED
            | Marks::FILTERED
            | Marks::SLOT_EMPTY
            | Marks::ENTRY_REACHES
            | Marks::ENTRY_SAME
            | Marks::PARKED_PASSED
            | Marks::LETTER_PASSED
            | Marks::UNREADABLE;
        known.marks.set(all, false);
        known.marks.set(Marks::REDO, aside.redo.is_some());
        let Some(Entry { order, state }) = entry else {
            return;
        };
        let compared = known.compare(&order);
        let mut set = |marks, on| known.marks.set(marks, on);
        set(Marks::ENTRY, true);
        set(Marks::PENDING, state == State::Pending);
        set(Marks::UNREADABLE, state == State::Unreadable);
        if let State::Deleted(reason) = state {
            set(Marks::DELETED, true);
            set(Marks::FILTERED, reason == AbsentReason::Filtered);
            set(Marks::SLOT_EMPTY, reason == AbsentReason::SlotEmpty);
        }
        set(Marks::ENTRY_REACHES, compared.is_ge());
        set(Marks::ENTRY_SAME, compared.is_eq());
        if let Some(parked) = aside.parked.and_then(Parked::order) {
            set(Marks::PARKED_PASSED, order >= parked);
        }
        if let Some((_, Some(dead))) = aside.letter {
            set(Marks::LETTER_PASSED, order > dead);
        }
        if let Some(Some(redo)) = aside.redo {
            set(Marks::REDO, state == State::Pending || order < redo);
        }
    }

    /// A record of a raw topic.
    pub fn raw(&mut self, key: &str, raw: Option<Raw>, in_flight: bool) {
        let letters = self.letters.get_mut(&hash_of(key)).map(|letters| {
            letters.met |= raw.is_some();
            letters.clone()
        });
        self.each_slot(key, |known| {
            let all = Marks::RAW
                | Marks::RAW_IN_FLIGHT
                | Marks::RAW_DEAD
                | Marks::UNTRANSFORMED
                | Marks::RAW_LETTER_LEFT;
            match raw {
                None => known.marks.set(all, false),
                Some(_) if in_flight => {
                    known.marks.set(all, false);
                    known.marks.set(Marks::RAW | Marks::RAW_IN_FLIGHT, true);
                }
                Some(raw) => {
                    known.marks.set(all, false);
                    known.marks.set(Marks::RAW, true);
                    let through = known.marks.has(Marks::CANONICAL) && known.version >= raw.version;
                    let letter = letters.as_ref().and_then(|letters| letters.transformer);
                    let dead = letter.is_some_and(|(version, offset)| match offset {
                        Some(offset) if offset >= raw.offset => true,
                        Some(_) => version > raw.version,
                        None => version >= raw.version,
                    });
                    known.marks.set(Marks::RAW_DEAD, dead);
                    known.marks.set(Marks::UNTRANSFORMED, !through);
                    let left = letter.is_some() && !dead;
                    known.marks.set(Marks::RAW_LETTER_LEFT, left);
                }
            }
            if raw.is_some() && letters.as_ref().is_some_and(|letters| letters.extractor) {
                known.marks.set(Marks::RAW_DEAD, true);
            }
        });
    }

    /// One that covers all partitions and every key, and knows their texts.
    pub fn of_all(slots: &BTreeMap<String, BTreeMap<String, bool>>, partitions: i32) -> Self {
        let mut ledger = Ledger::new(slots, (0..partitions, partitions), None);
        ledger.named = true;
        ledger
    }

    /// Where every key of a ledger [`Ledger::of_all`] is, by its text.
    pub fn places(self) -> HashMap<String, Standing> {
        let outcome = self.finish();
        let place = |(hash, key): (&Hash, &String)| {
            let (standing, _) = outcome.standings.get(hash)?;
            Some((key.clone(), *standing))
        };
        outcome.texts.iter().filter_map(place).collect()
    }

    /// Where every key is. Called when all tables were read.
    pub fn finish(mut self) -> Outcome {
        for letters in std::mem::take(&mut self.letters).into_values() {
            if letters.met || (!letters.extractor && letters.transformer.is_none()) {
                continue;
            }
            self.each_slot(&letters.key, |known| {
                let mark = match letters.extractor {
                    true => Marks::RAW_DEAD,
                    false => Marks::RAW_LETTER_ALONE,
                };
                known.marks.set(mark, true);
            });
        }
        let asides = std::mem::take(&mut self.aside);
        for (hash, aside) in &asides {
            if let Some(known) = self.known.get_mut(hash) {
                known.join(aside);
            }
        }
        let mut outcome = Outcome {
            texts: self.texts,
            rows: self.rows,
            ..Outcome::default()
        };
        for (hash, known) in self.known {
            // Nothing is left but tombstones.
            if !known.marks.is_something() {
                continue;
            }
            let mut marks = known.marks;
            let row = usize::from(known.row);
            marks.set(Marks::UNTAKEN, self.untaken[row]);
            let standing = marks.standing();
            outcome.rows[row].live += u64::from(marks.has(Marks::RAW));
            outcome.rows[row].count(standing);
            if let Standing::Red(fault) = standing {
                let (version, rank) = (known.version, known.rank);
                let evidence = Evidence {
                    fault,
                    version,
                    rank,
                    beside: asides.get(&hash).and_then(Aside::order),
                };
                outcome.suspects.insert(hash, (evidence, known.row));
            }
            if self.named {
                outcome.standings.insert(hash, (standing, known.row));
            }
        }
        outcome
    }

    fn row(&mut self, object: &str, slot: &str, untaken: bool) -> u16 {
        let slots = self.slots.entry(object.to_owned()).or_default();
        if let Some((_, row)) = slots.iter().find(|(name, _)| name == slot) {
            return *row;
        }
        // More rows than that can only come from foreign keys: they share one.
        let row = u16::try_from(self.rows.len()).unwrap_or(u16::MAX);
        if row < u16::MAX {
            self.rows.push(Row {
                object: object.to_owned(),
                slot: slot.to_owned(),
                ..Row::default()
            });
            self.untaken.push(untaken);
            slots.push((slot.to_owned(), row));
        }
        row.min(u16::MAX - 1)
    }

    /// What is known of a key of ours.
    fn known(&mut self, key: &str) -> Option<&mut Known> {
        let (share, partitions) = &self.share;
        let all = share.len() == *partitions as usize;
        if !all && !share.contains(&partition_of(key.as_bytes(), *partitions)) {
            return None;
        }
        let hash = hash_of(key);
        let wanted = |only: &HashMap<Hash, Evidence>| only.contains_key(&hash);
        if !self.only.as_ref().is_none_or(wanted) {
            return None;
        }
        if self.named && self.texts.len() < NAMED {
            self.texts.entry(hash).or_insert_with(|| key.to_owned());
        }
        if !self.known.contains_key(&hash) {
            let row = self.row_of(key);
            self.known.insert(
                hash,
                Known {
                    version: Millis::MIN,
                    rank: 0,
                    marks: Marks::default(),
                    row,
                },
            );
        }
        self.known.get_mut(&hash)
    }

    fn row_of(&mut self, key: &str) -> u16 {
        let parsed = CanonicalKey::parse(key);
        let (object, slot) = match &parsed {
            Some(key) => (key.parts().1, key.parts().3),
            // A raw key of an object without slots, or a foreign one.
            None => (key.split('/').nth(1).unwrap_or_default(), ""),
        };
        let found = self
            .slots
            .get(object)
            .and_then(|slots| slots.iter().find(|(name, _)| name == slot))
            .map(|(_, row)| *row);
        found.unwrap_or_else(|| self.row(object, slot, false))
    }

    fn aside(&mut self, key: &str, change: impl FnOnce(&mut Aside)) {
        // A key that nothing else knows must be seen as well.
        if self.known(key).is_some() {
            change(self.aside.entry(hash_of(key)).or_default());
        }
    }

    /// Every declared slot of a raw key; the key itself where it has none.
    fn each_slot(&mut self, raw: &str, mut each: impl FnMut(&mut Known)) {
        let key = RawKey::parse(raw);
        let declared = key.and_then(|key| self.declared.get(key.parts().1).cloned());
        let Some(declared) = declared.filter(|slots| !slots.is_empty()) else {
            if let Some(known) = self.known(raw) {
                each(known);
            }
            return;
        };
        for slot in declared.iter() {
            if let Some(known) = self.known(&format!("{raw}#{slot}")) {
                each(known);
            }
        }
    }
}

impl Marks {
    /// Whether any table has something under the key.
    fn is_something(self) -> bool {
        [
            Marks::RAW,
            Marks::RAW_DEAD,
            Marks::RAW_LETTER_ALONE,
            Marks::CANONICAL,
            Marks::FOREIGN,
            Marks::ENTRY,
            Marks::PARKED,
            Marks::LETTER,
            Marks::REDO,
            Marks::UNREADABLE,
        ]
        .into_iter()
        .any(|mark| self.has(mark))
    }
}
