//! The idempotency table in memory, packed.
//!
//! A record of 40 bytes with key and target id behind it lies in a chunk of an
//! arena; an index of 32-bit positions finds it by the key's hash. That is
//! 54 to 56 bytes an entry beyond the text of key and id (`std`'s `HashMap`
//! takes about 250), and a lookup reads two places in memory: a bucket of the
//! index, and the record beside its key.
//!
//! What can't be packed (Pending with what stood before, fields that a newer
//! version of Drover wrote, enormous keys) lies in an ordinary map beside it: a
//! batch's worth of entries at a time.

use std::collections::HashMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::table::Table;
use super::{Entry, FirstTouch, State, TargetId};
use crate::record::{AbsentReason, CanonicalKey, Fingerprint, Order};

/// Records begin at multiples of this, so that 32 bits reach 32 GiB.
const UNIT: usize = 8;
/// How large a chunk of the arena is. Emptied by copying what is alive, so it
/// also bounds how long one change can take.
const CHUNK: usize = 256 << 10;

/// The table in memory.
pub struct PackedTable {
    /// Positions of records, in units, by the hash of their keys.
    index: HashTable<u32>,
    chunks: Vec<Chunk>,
    /// Chunks that hold nothing.
    free: Vec<usize>,
    /// The chunk that is being filled.
    filling: usize,
    /// Chunks that have become full and were not looked at since.
    full: Vec<usize>,
    /// So that nobody can choose ids that all fall into one bucket.
    seed: u64,
    /// (mapping, incarnation) of the records: a handful over a migration's life.
    generations: Vec<(u32, u32)>,
    rare: HashMap<CanonicalKey, Entry>,
    chunk_size: usize,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// How many of its bytes belong to records that are no longer valid.
    dead: usize,
}

/// A record's place.
#[derive(Clone, Copy)]
struct At {
    chunk: usize,
    byte: usize,
}

impl Default for PackedTable {
    fn default() -> Self {
        Self::with_chunks_of(CHUNK)
    }
}

impl PackedTable {
    fn with_chunks_of(chunk_size: usize) -> Self {
        PackedTable {
            index: HashTable::new(),
            chunks: vec![Chunk::default()],
            free: Vec::new(),
            filling: 0,
            full: Vec::new(),
            seed: rand::random(),
            generations: Vec::new(),
            rare: HashMap::new(),
            chunk_size,
        }
    }

    fn at(&self, position: u32) -> At {
        let units = self.chunk_size / UNIT;
        let position = position as usize;
        At {
            chunk: position / units,
            byte: position % units * UNIT,
        }
    }

    fn position(&self, at: At) -> u32 {
        ((at.chunk * self.chunk_size + at.byte) / UNIT) as u32
    }

    fn record(&self, at: At) -> Record<'_> {
        Record(&self.chunks[at.chunk].bytes[at.byte..])
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    fn find(&self, key: &CanonicalKey) -> Option<At> {
        let key = key.as_str().as_bytes();
        let is_it = |position: &u32| self.record(self.at(*position)).key() == key;
        let position = self.index.find(self.hash(key), is_it)?;
        Some(self.at(*position))
    }

    /// The record's head; `None` when the entry must go the rare way.
    fn pack(&mut self, key: &CanonicalKey, entry: &Entry) -> Option<Head> {
        let state = match &entry.state {
            State::Applied => 0,
            State::Deleted { reason } => 1 + *reason as u8,
            State::Pending { .. } => return None,
        };
        let touch = match entry.first_touch {
            None => 0,
            Some(FirstTouch::Created) => 1,
            Some(FirstTouch::Updated) => 2,
        };
        let id = entry.target_id.as_deref();
        let head = Head {
            order: entry.order,
            fingerprint: entry.fingerprint,
            generation: self.generation(entry.order.mapping, entry.order.incarnation)?,
            reapply: u8::try_from(entry.order.reapply).ok()?,
            flags: state | touch << TOUCH | u8::from(id.is_some()) << HAS_ID,
            key: u16::try_from(key.as_str().len()).ok()?,
            id: u16::try_from(id.unwrap_or_default().len()).ok()?,
        };
        let fits = head.size() <= self.chunk_size && entry.unknown.is_empty();
        fits.then_some(head)
    }

    fn generation(&mut self, mapping: u32, incarnation: u32) -> Option<u16> {
        let wanted = (mapping, incarnation);
        let known = self.generations.iter().rposition(|known| *known == wanted);
        if known.is_none() && self.generations.len() <= usize::from(u16::MAX) {
            self.generations.push(wanted);
        }
        let place = known.unwrap_or(self.generations.len() - 1);
        let found = self.generations.get(place) == Some(&wanted);
        found.then_some(place as u16)
    }

    fn unpack(&self, record: &Record<'_>) -> Entry {
        let flags = record.flags();
        let (mapping, incarnation) = self
            .generations
            .get(usize::from(record.short(GENERATION)))
            .copied()
            .unwrap_or_default();
        Entry {
            order: Order {
                version: record.long(0),
                mapping,
                incarnation,
                offset: record.long(8),
                reapply: record.0[REAPPLY].into(),
            },
            fingerprint: Fingerprint(record.0[16..32].try_into().unwrap_or_default()),
            state: match flags & STATE {
                0 => State::Applied,
                1 => deleted(AbsentReason::Deleted),
                2 => deleted(AbsentReason::Filtered),
                _ => deleted(AbsentReason::SlotEmpty),
            },
            target_id: record.id(),
            first_touch: match flags >> TOUCH & 3 {
                0 => None,
                1 => Some(FirstTouch::Created),
                _ => Some(FirstTouch::Updated),
            },
            unknown: serde_json::Map::new(),
        }
    }

    /// Puts a record at the end of the arena.
    fn append(&mut self, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
        if self.chunks[self.filling].bytes.len() + size > self.chunk_size {
            self.full.push(self.filling);
            self.filling = self.free.pop().unwrap_or_else(|| {
                self.chunks.push(Chunk::default());
                self.chunks.len() - 1
            });
            self.chunks[self.filling]
                .bytes
                .reserve_exact(self.chunk_size);
        }
        let bytes = &mut self.chunks[self.filling].bytes;
        let at = At {
            chunk: self.filling,
            byte: bytes.len(),
        };
        write(bytes);
        bytes.resize(at.byte + size, 0);
        self.position(at)
    }

    /// A record is no longer valid. When a quarter of its chunk is not, the rest
    /// moves to the end of the arena and the chunk is free.
    fn bury(&mut self, at: At) {
        let size = self.record(at).size();
        let chunk = &mut self.chunks[at.chunk];
        chunk.bytes[at.byte + FLAGS] |= DEAD;
        chunk.dead += size;
        self.tidy(at.chunk);
        self.tidy_full();
    }

    /// Looks at what has become full: it may have been sparse before. Not while
    /// anybody holds a place in it.
    fn tidy_full(&mut self) {
        while let Some(chunk) = self.full.pop() {
            self.tidy(chunk);
        }
    }

    /// Empties a chunk of which a quarter is dead, unless it is being filled.
    fn tidy(&mut self, chunk: usize) {
        if self.chunks[chunk].dead * 4 > self.chunk_size && chunk != self.filling {
            self.empty(chunk);
        }
    }

    fn empty(&mut self, chunk: usize) {
        let from = std::mem::take(&mut self.chunks[chunk]).bytes;
        let mut byte = 0;
        while byte < from.len() {
            let record = Record(&from[byte..]);
            let size = record.size();
            if record.flags() & DEAD == 0 {
                let old = self.position(At { chunk, byte });
                let new = self.append(size, |bytes| bytes.extend_from_slice(&record.0[..size]));
                let hash = self.hash(record.key());
                if let Some(position) = self.index.find_mut(hash, |position| *position == old) {
                    *position = new;
                }
            }
            byte += size;
        }
        self.free.push(chunk);
    }

    /// Makes room in the index. Filled anew from the arena, front to back, which
    /// reads memory in order; the index's own growth would jump about in it.
    fn make_room(&mut self) {
        if self.index.len() < self.index.capacity() {
            return;
        }
        let mut larger = HashTable::with_capacity((self.index.len() + 8) * 5 / 4);
        for (chunk, held) in self.chunks.iter().enumerate() {
            let mut byte = 0;
            while byte < held.bytes.len() {
                let record = Record(&held.bytes[byte..]);
                if record.flags() & DEAD == 0 {
                    larger.insert_unique(
                        self.hash(record.key()),
                        self.position(At { chunk, byte }),
                        |position| self.hash(self.record(self.at(*position)).key()),
                    );
                }
                byte += record.size();
            }
        }
        self.index = larger;
    }

    /// Forgets the packed record of a key.
    fn unindex(&mut self, key: &CanonicalKey) {
        let Some(at) = self.find(key) else {
            return;
        };
        let hash = self.hash(key.as_str().as_bytes());
        let position = self.position(at);
        if let Ok(found) = self.index.find_entry(hash, |known| *known == position) {
            found.remove();
        }
        self.bury(at);
    }
}

impl Table for PackedTable {
    fn get(&self, key: &CanonicalKey) -> Option<Entry> {
        match self.find(key) {
            Some(at) => Some(self.unpack(&self.record(at))),
            None if self.rare.is_empty() => None,
            None => self.rare.get(key).cloned(),
        }
    }

    /// A look-up waits for memory twice, and what the processor fetches ahead
    /// does not reach beyond one entry's making. So all buckets are read first,
    /// then all records, and entries are made of what is near by then.
    fn get_all(&self, keys: &[&CanonicalKey]) -> Vec<Option<Entry>> {
        let hash = |key: &CanonicalKey| self.hash(key.as_str().as_bytes());
        let likely = |key: &&CanonicalKey| self.index.iter_hash(hash(key)).next().copied();
        let likely: Vec<Option<u32>> = keys.iter().map(likely).collect();
        let found = keys.iter().zip(likely).map(|(key, likely)| {
            let at = self.at(likely?);
            let is_it = self.record(at).key() == key.as_str().as_bytes();
            is_it.then_some(at)
        });
        let found: Vec<Option<At>> = found.collect();
        let entry = |(key, at): (&&CanonicalKey, Option<At>)| match at {
            Some(at) => Some(self.unpack(&self.record(at))),
            // Not there, rare, or behind another key of the same tag.
            None => self.get(key),
        };
        keys.iter().zip(found).map(entry).collect()
    }

    fn target_id(&self, key: &CanonicalKey) -> Option<TargetId> {
        match self.find(key) {
            Some(at) => self.record(at).id(),
            None => self.rare.get(key)?.target_id.clone(),
        }
    }

    fn put(&mut self, key: &CanonicalKey, entry: &Entry) {
        let Some(head) = self.pack(key, entry) else {
            self.unindex(key);
            self.rare.insert(key.clone(), entry.clone());
            return;
        };
        if !self.rare.is_empty() {
            self.rare.remove(key);
        }
        let id = entry.target_id.as_deref().unwrap_or_default();
        let write = |bytes: &mut Vec<u8>| {
            head.write(bytes);
            bytes.extend_from_slice(key.as_str().as_bytes());
            bytes.extend_from_slice(id.as_bytes());
        };
        let Some(at) = self.find(key) else {
            self.make_room();
            let new = self.append(head.size(), write);
            let hash = self.hash(key.as_str().as_bytes());
            // There is room, so no other key is hashed.
            self.index.insert_unique(hash, new, |_| 0);
            self.tidy_full();
            return;
        };
        if self.record(at).size() == head.size() {
            let mut bytes = Vec::with_capacity(head.size());
            write(&mut bytes);
            self.chunks[at.chunk].bytes[at.byte..at.byte + bytes.len()].copy_from_slice(&bytes);
        } else {
            let old = self.position(at);
            let new = self.append(head.size(), write);
            let hash = self.hash(key.as_str().as_bytes());
            if let Some(position) = self.index.find_mut(hash, |position| *position == old) {
                *position = new;
            }
            self.bury(at);
        }
    }

    fn remove(&mut self, key: &CanonicalKey) {
        self.unindex(key);
        self.rare.remove(key);
    }

    fn len(&self) -> usize {
        self.index.len() + self.rare.len()
    }

    fn memory(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|c| c.bytes.capacity()).sum();
        let rare = self.rare.capacity() * size_of::<(CanonicalKey, Entry)>();
        self.index.allocation_size() + chunks + rare
    }
}

fn deleted(reason: AbsentReason) -> State {
    State::Deleted { reason }
}

// A record: version 8, offset 8, fingerprint 16, generation 2, reapply 1, flags 1,
// length of the key 2, length of the id 2, key, id, padding to UNIT.
const GENERATION: usize = 32;
const REAPPLY: usize = 34;
const FLAGS: usize = 35;
const KEY_LENGTH: usize = 36;
const ID_LENGTH: usize = 38;
const HEAD: usize = 40;

// The flags: state in two bits, first touch in two.
const STATE: u8 = 3;
const TOUCH: u8 = 2;
const HAS_ID: u8 = 4;
const DEAD: u8 = 1 << 7;

/// What stands before a record's texts.
struct Head {
    order: Order,
    fingerprint: Fingerprint,
    generation: u16,
    reapply: u8,
    flags: u8,
    key: u16,
    id: u16,
}

impl Head {
    fn size(&self) -> usize {
        size(self.key, self.id)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.order.version.to_le_bytes());
        out.extend_from_slice(&self.order.offset.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.0);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&[self.reapply, self.flags]);
        out.extend_from_slice(&self.key.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
    }
}

fn size(key: u16, id: u16) -> usize {
    (HEAD + usize::from(key) + usize::from(id)).next_multiple_of(UNIT)
}

/// A record, and what lies behind it.
struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    fn short(&self, byte: usize) -> u16 {
        u16::from_le_bytes([self.0[byte], self.0[byte + 1]])
    }

    fn long(&self, byte: usize) -> i64 {
        i64::from_le_bytes(self.0[byte..byte + 8].try_into().unwrap_or_default())
    }

    fn flags(&self) -> u8 {
        self.0[FLAGS]
    }

    fn size(&self) -> usize {
        size(self.short(KEY_LENGTH), self.short(ID_LENGTH))
    }

    fn key(&self) -> &'a [u8] {
        &self.0[HEAD..HEAD + usize::from(self.short(KEY_LENGTH))]
    }

    fn id(&self) -> Option<TargetId> {
        if self.flags() >> HAS_ID & 1 == 0 {
            return None;
        }
        let from = HEAD + usize::from(self.short(KEY_LENGTH));
        let id = &self.0[from..from + usize::from(self.short(ID_LENGTH))];
        Some(String::from_utf8_lossy(id).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let applied = any::<(i64, u8, i64, [u8; 16], u8)>();
        let id = prop::option::of("[a-z0-9é]{0,30}");
        (applied, id, 0u32..600, 0u8..6, 0u8..3, 0u8..20).prop_map(
            |(
                (version, mapping, offset, print, incarnation),
                target_id,
                reapply,
                state,
                touch,
                odd,
            )| {
                let mut entry = Entry {
                    order: Order {
                        version,
                        mapping: mapping.into(),
                        incarnation: u32::from(incarnation) << 20,
                        offset,
                        reapply: reapply / 2,
                    },
                    fingerprint: Fingerprint(print),
                    state: match state {
                        0 | 1 => State::Applied,
                        2 => deleted(AbsentReason::Deleted),
                        3 => deleted(AbsentReason::Filtered),
                        _ => deleted(AbsentReason::SlotEmpty),
                    },
                    target_id,
                    first_touch: [None, Some(FirstTouch::Created), Some(FirstTouch::Updated)]
                        [usize::from(touch)],
                    unknown: serde_json::Map::new(),
                };
                match odd {
                    0 => entry
                        .unknown
                        .insert("later".into(), 7.into())
                        .map_or((), drop),
                    1 | 2 => {
                        entry.state = State::Pending {
                            owner: "me".into(),
                            since: offset,
                            before: Some(Box::new(entry.clone())),
                        }
                    }
                    _ => {}
                }
                entry
            },
        )
    }

    fn key(n: u16) -> CanonicalKey {
        // Some keys are longer than a whole chunk.
        let id = "x".repeat(if n.is_multiple_of(50) {
            2000
        } else {
            usize::from(n % 7)
        });
        CanonicalKey::parse(&format!("s/o/{n}{id}#main")).expect("a key")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The table is a map, whatever is put, overwritten and removed, with
        /// chunks so small that they are emptied all the time.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u16..200, prop::option::weighted(0.8, any_entry())), 1..1500)) {
            let mut table = PackedTable::with_chunks_of(1024);
            let mut model: HashMap<u16, Entry> = HashMap::new();
            for (n, entry) in steps {
                match entry {
                    Some(entry) => {
                        table.put(&key(n), &entry);
                        model.insert(n, entry);
                    }
                    None => {
                        table.remove(&key(n));
                        model.remove(&n);
                    }
                }
                prop_assert_eq!(table.get(&key(n)), model.get(&n).cloned());
                prop_assert_eq!(table.len(), model.len());
            }
            let keys: Vec<CanonicalKey> = (0..200).map(key).collect();
            let all = table.get_all(&keys.iter().collect::<Vec<_>>());
            for n in 0..200 {
                prop_assert_eq!(&all[usize::from(n)], &model.get(&n).cloned());
                prop_assert_eq!(table.get(&key(n)), model.get(&n).cloned());
                let id = model.get(&n).and_then(|entry| entry.target_id.clone());
                prop_assert_eq!(table.target_id(&key(n)), id);
            }
            // What is dead is given back: at most a quarter of each chunk but
            // the one that is being filled.
            for (n, chunk) in table.chunks.iter().enumerate() {
                prop_assert!(n == table.filling || chunk.dead * 4 <= table.chunk_size);
            }
        }
    }

    #[test]
    fn an_entry_takes_no_more_than_60_bytes_beyond_its_texts() {
        let mut table = PackedTable::default();
        let mut texts = 0;
        // Just behind a growth of the index, where it is emptiest.
        for n in 0..114_689_i64 {
            let key = CanonicalKey::parse(&format!("salesforce/Contact/003{n:015}#contact"))
                .expect("a key");
            let id = n.to_string();
            texts += key.as_str().len() + id.len();
            let entry = Entry {
                order: Order {
                    version: n,
                    offset: n,
                    ..Order::default()
                },
                fingerprint: Fingerprint([n as u8; 16]),
                state: State::Applied,
                target_id: Some(id),
                first_touch: Some(FirstTouch::Created),
                unknown: serde_json::Map::new(),
            };
            table.put(&key, &entry);
            table.put(&key, &entry);
        }
        let beyond = (table.memory() - texts) as f64 / table.len() as f64;
        assert!(beyond <= 60.0, "{beyond}");
    }
}
