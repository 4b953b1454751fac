//! The idempotency table in memory.

use std::collections::HashMap;
use std::time::Instant;

use drover_pipeline::idempotency::{Entry, FirstTouch, PackedTable, State, Table};
use drover_pipeline::record::{CanonicalKey, Fingerprint, Order};

use super::Scenario;
use crate::bench::{Bench, Result};
use crate::canonical::{START, id};
use crate::figure::{Aim, Figure, Runs};
use crate::usage::Usage;

pub const SCENARIO: Scenario = Scenario {
    name: "table",
    about: "memory and look-up of the idempotency table",
    records: 1_000_000,
    run,
};

/// How many keys the loader looks up at once (`pipeline/src/load/judge.rs`).
const AT_ONCE: usize = 64;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut beyond = Vec::new();
    let mut resident = Vec::new();
    let mut lookup = Vec::new();
    let mut single = Vec::new();
    let mut put = Vec::new();
    let mut plain = Vec::new();
    for round in 0..bench.runs {
        let mut table = PackedTable::default();
        let before = Usage::of(std::process::id()).map_or(0, |usage| usage.resident);
        let since = Instant::now();
        let mut texts = 0;
        for n in 0..bench.records {
            let (key, entry) = (key(n)?, entry(n));
            texts += key.as_str().len() + entry.target_id.as_ref().map_or(0, String::len);
            table.put(&key, &entry);
        }
        put.push(since.elapsed().as_nanos() as f64 / bench.records as f64);
        let after = Usage::of(std::process::id()).map_or(0, |usage| usage.resident);
        let each = |bytes: usize| bytes as f64 / bench.records as f64;
        beyond.push(each(table.memory() - texts));
        // Later rounds get memory that the first one has given back.
        if round == 0 {
            resident.push(each((after - before) as usize - texts));
        }
        // In an order that has nothing to do with the table's, every key once.
        let keys: Vec<CanonicalKey> = (0..bench.records.min(200_000))
            .map(|n| key(n.wrapping_mul(7_368_787) % bench.records))
            .collect::<Result<_>>()?;
        lookup.push(looked_up(&keys, |keys| {
            let found = table.get_all(keys);
            found.iter().filter(|entry| entry.is_some()).count()
        })?);
        single.push(looked_up(&keys, one_by_one(|key| table.get(key)))?);
        drop(table);
        let mut map = HashMap::new();
        for n in 0..bench.records {
            map.insert(key(n)?, entry(n));
        }
        plain.push(looked_up(&keys, one_by_one(|key| map.get(key).cloned()))?);
        eprintln!(
            "  round {round}: {:.1} bytes, {:.0} ns, one by one {:.0} ns; std's map {:.0} ns",
            beyond[round], lookup[round], single[round], plain[round]
        );
    }
    let name = SCENARIO.name;
    Ok(vec![
        Figure::new(name, "bytes an entry", Runs(beyond))
            .aim(Aim::AtMost(60.0))
            .note("beyond the text of key and id, by the capacity of what it allocated"),
        Figure::new(name, "the same, by resident size", Runs(resident)),
        Figure::new(name, "look-up, ns", Runs(lookup))
            .aim(Aim::AtMost(250.0))
            .note(format!("as the loader asks: {AT_ONCE} keys at once")),
        Figure::new(name, "look-up of one key, ns", Runs(single))
            .beside(Runs(plain))
            .note("bare: std's HashMap of the same keys and entries, its value cloned too"),
        Figure::new(name, "put, ns, with its key made", Runs(put)),
    ])
}

/// Nanoseconds a look-up; `found` says how many of some keys are there, which
/// must be all of them.
fn looked_up(keys: &[CanonicalKey], found: impl Fn(&[&CanonicalKey]) -> usize) -> Result<f64> {
    let keys: Vec<&CanonicalKey> = keys.iter().collect();
    let since = Instant::now();
    let found: usize = keys.chunks(AT_ONCE).map(found).sum();
    let took = since.elapsed().as_nanos() as f64 / keys.len() as f64;
    if found != keys.len() {
        return Err(format!("{found} of {} keys were found", keys.len()).into());
    }
    Ok(took)
}

fn one_by_one(get: impl Fn(&CanonicalKey) -> Option<Entry>) -> impl Fn(&[&CanonicalKey]) -> usize {
    move |keys| keys.iter().filter(|key| get(key).is_some()).count()
}

/// The key of the n-th contact.
pub fn key(n: u64) -> Result<CanonicalKey> {
    let text = format!("salesforce/Contact/{}#contact", id(n));
    CanonicalKey::parse(&text).ok_or_else(|| "no key".into())
}

/// The entry of the n-th contact, applied.
pub fn entry(n: u64) -> Entry {
    Entry {
        order: Order {
            version: START + n as i64,
            mapping: 1,
            incarnation: 1,
            offset: n as i64,
            reapply: 0,
        },
        fingerprint: Fingerprint((u128::from(n) * 0x9E37_79B9_7F4A_7C15_F39C).to_be_bytes()),
        state: State::Applied,
        target_id: Some(n.to_string()),
        first_touch: Some(FirstTouch::Created),
        unknown: serde_json::Map::new(),
    }
}
