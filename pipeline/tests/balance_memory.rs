//! What a balance of a million keys holds in memory, in a process of its own.

use std::collections::BTreeMap;

use drover_pipeline::balance::{Canonical, Entry, Ledger, Raw, State};
use drover_pipeline::record::Order;

const KEYS: i64 = 1_000_000;

/// The most memory that this process has ever had, in bytes; `None` where the
/// system does not tell.
fn most() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Balances a million keys; the idempotency table is there, or lost.
fn balance(entries: bool) -> usize {
    let contact = BTreeMap::from([("contact".to_owned(), true)]);
    let slots = BTreeMap::from([("Contact".to_owned(), contact)]);
    let mut ledger = Ledger::new(&slots, (0..12, 12), None);
    let order = |n| Order {
        version: 1_772_323_200_000 + n,
        mapping: 1,
        incarnation: 1,
        offset: n,
        reapply: 0,
    };
    let raw = |n: i64| format!("salesforce/Contact/003Ws{n:010}IAB");
    for n in 0..KEYS {
        let record = Canonical::Record {
            order: order(n),
            absent: false,
        };
        ledger.canonical(&format!("{}#contact", raw(n)), Some(record), false);
    }
    for n in (0..KEYS).filter(|_| entries) {
        let entry = Entry {
            order: order(n),
            state: State::Applied,
        };
        ledger.entry(&format!("{}#contact", raw(n)), Some(entry));
    }
    for n in 0..KEYS {
        let record = Raw {
            version: order(n).version,
            offset: n,
        };
        ledger.raw(&raw(n), Some(record), false);
    }
    let outcome = ledger.finish();
    assert_eq!(outcome.rows[0].live, KEYS as u64);
    outcome.suspects.len()
}

#[test]
fn a_million_keys_take_less_than_200_bytes_each() {
    let Some(before) = most() else {
        println!("this system does not tell a process's memory: not measured");
        return;
    };
    let taken = || most().unwrap_or(before) - before;
    assert_eq!(balance(true), 0);
    let sound = taken();
    println!("sound: {} MB", sound / 1_000_000);
    assert!(sound < 200 * KEYS as u64, "{sound} bytes");
    // At worst each key is wrong and is kept to be looked at again.
    assert_eq!(balance(false) as i64, KEYS);
    let wrong = taken();
    println!("all of them wrong: {} MB", wrong / 1_000_000);
    assert!(wrong < 600 * KEYS as u64, "{wrong} bytes");
}
