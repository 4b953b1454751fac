//! A deterministic simulation of the loader's protocol with the real
//! [`judge`](drover_pipeline::idempotency::judge): two or three workers, leases,
//! rebalances at any point, processes paused and killed, answers lost, requests
//! that take effect late.
//!
//! It models the steps of `pipeline/src/load` one by one, between which anything
//! may happen, and Kafka as far as the protocol leans on it: transactions whose
//! markers are written one by one, the last stable offset and the high
//! watermark, the group's generation, offsets inside transactions.
//!
//! A history is a list of choices made from a seed. One that fails is made
//! shorter and printed; `SIM_SEED=<seed>` (with `SIM_KIND=ordered|find|none` and
//! `SIM_OFF=<rule>`) plays one again: `cargo test -p drover-pipeline --test
//! simulation one_history -- --nocapture`.
//!
//! Read [`rules`] first: what each rule is for is shown by the history that
//! goes wrong without it.

mod check;
mod history;
mod rules;
mod worker;
mod world;

use std::time::Instant;

use history::{History, make, play, print, shrink};
use rules::{Rule, Rules};
use world::{Event, Kind};

/// How many histories hold with all rules on.
const HISTORIES: u64 = 10_000;
/// Another number here, by `SIM_HISTORIES`, searches longer.
fn histories() -> u64 {
    std::env::var("SIM_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(HISTORIES)
}
/// How many histories are searched for one that fails without a rule.
const SEARCHED: u64 = 60_000;

/// The shortest form of a history that fails, and its text.
fn report(history: History, seed: u64, title: &str) -> (History, String) {
    let Some(violation) = play(&history, false).violation else {
        let text = format!("{title}: seed {seed} does not fail when it is played again");
        return (history, text);
    };
    let shortest = shrink(history, &violation);
    let title = format!("{title} (seed {seed}): {}", violation.what);
    let text = print(&shortest, &title);
    (shortest, text)
}

#[test]
fn nothing_is_lost_or_doubled() {
    let from = Instant::now();
    let mut counts = [0; Event::ALL.len()];
    for seed in 0..histories() {
        let (history, world) = make(seed, Rules::ON, None);
        if world.violation.is_some() {
            panic!("{}", report(history, seed, "all rules hold").1);
        }
        for (sum, count) in counts.iter_mut().zip(world.counts) {
            *sum += count;
        }
    }
    let rate = histories() as f64 / from.elapsed().as_secs_f64();
    println!(
        "{} histories, {rate:.0} a second; what happened in them:",
        histories()
    );
    for ((_, name), count) in Event::ALL.iter().zip(counts) {
        println!("  {count:>9}  {name}");
    }
    for ((_, name), count) in Event::ALL.iter().zip(counts) {
        assert!(count >= 100, "hardly ever happened: {name}");
    }
}

/// Seeds beyond those of each run, whose histories have shown what was wrong: a
/// refusal after a recovery put back an entry that the target had gone past, and
/// a commit that was remembered late brought a dead letter back.
#[test]
fn histories_that_failed_once_hold() {
    for seed in [277_871, 474_339] {
        let (history, world) = make(seed, Rules::ON, None);
        if world.violation.is_some() {
            panic!("{}", report(history, seed, "all rules hold").1);
        }
    }
}

#[test]
fn each_rule_is_missed() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL {
        let found = (0..SEARCHED).find_map(|seed| {
            let (history, world) = make(seed, Rules::without(rule), None);
            world.violation.map(|_| (seed, history))
        });
        match found {
            Some((seed, history)) => {
                let (mut shortest, text) = report(history, seed, &format!("without {rule:?}"));
                println!("{text}");
                // It is this rule that the history is about.
                shortest.setting.rules = Rules::ON;
                let violation = play(&shortest, false).violation;
                assert_eq!(violation, None, "fails with {rule:?} too");
            }
            None => unnoticed.push(rule),
        }
    }
    assert!(
        unnoticed.is_empty(),
        "nothing goes wrong without {unnoticed:?}"
    );
}

/// Plays one history: that of `SIM_SEED`, without the rule `SIM_OFF`, of the kind
/// `SIM_KIND`. A seed that has failed must fail again, so it makes the same
/// history each time; and with all rules it holds.
#[test]
fn one_history() {
    let seed = std::env::var("SIM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let wanted = std::env::var("SIM_OFF").unwrap_or_default();
    let off = Rule::ALL
        .into_iter()
        .find(|rule| format!("{rule:?}") == wanted);
    let rules = off.map_or(Rules::ON, Rules::without);
    let wanted = std::env::var("SIM_KIND").unwrap_or_default();
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| format!("{kind:?}").to_lowercase() == wanted);
    let (history, world) = make(seed, rules, kind);
    let (again, _) = make(seed, rules, kind);
    let told = print(&history, &format!("seed {seed}"));
    assert_eq!(told, print(&again, &format!("seed {seed}")));
    match (world.violation, off) {
        (Some(_), None) => panic!("{}", report(history, seed, "all rules hold").1),
        (Some(_), Some(rule)) => {
            println!("{}", report(history, seed, &format!("without {rule:?}")).1);
        }
        (None, _) => println!("{told}"),
    }
}
