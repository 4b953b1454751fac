use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::record::{Millis, Order};
use crate::spec::Stage;

const RAW: &str = "salesforce/Contact/1";
const KEY: &str = "salesforce/Contact/1#contact";

fn order(version: Millis, offset: i64) -> Order {
    Order {
        version,
        mapping: 1,
        incarnation: 1,
        offset,
        reapply: 0,
    }
}

fn ledger(only: Option<HashMap<Hash, Evidence>>) -> Ledger {
    let slots = BTreeMap::from([(
        "Contact".to_owned(),
        BTreeMap::from([("contact".to_owned(), true)]),
    )]);
    Ledger::new(&slots, (0..3, 3), only)
}

/// What the tables say of one key, before it is joined.
#[derive(Debug, Clone, Default)]
struct Tables {
    raw: Vec<(Option<Raw>, bool)>,
    canonical: Vec<(Option<Canonical>, bool)>,
    parked: Vec<Option<Parked>>,
    redo: Vec<Option<Option<Order>>>,
    letters: Vec<(Stage, Option<Letter>)>,
    entries: Vec<Option<Entry>>,
}

impl Tables {
    fn join(&self) -> Outcome {
        let mut ledger = ledger(None);
        for (canonical, in_flight) in &self.canonical {
            ledger.canonical(KEY, *canonical, *in_flight);
        }
        for parked in &self.parked {
            ledger.parked(KEY, *parked);
        }
        for redo in &self.redo {
            ledger.redo(KEY, *redo);
        }
        for (stage, letter) in &self.letters {
            let key = if *stage == Stage::Loader { KEY } else { RAW };
            ledger.letter(*stage, key, letter.clone());
        }
        for entry in &self.entries {
            ledger.entry(KEY, *entry);
        }
        for (raw, in_flight) in &self.raw {
            ledger.raw(RAW, *raw, *in_flight);
        }
        ledger.finish()
    }

    /// Where the key is, or `None` when no table has anything of it.
    fn standing(&self) -> Option<Standing> {
        let outcome = self.join();
        assert_eq!(outcome.rows.len(), 1);
        let row = &outcome.rows[0];
        let mut seen = Vec::new();
        for (count, standing) in [
            (row.applied - row.linking - row.unlinked, Standing::Applied),
            (row.linking, Standing::Linking),
            (row.unlinked, Standing::Unlinked),
            (row.absent.deleted, Standing::Absent(AbsentReason::Deleted)),
            (
                row.absent.filtered,
                Standing::Absent(AbsentReason::Filtered),
            ),
            (
                row.absent.slot_empty,
                Standing::Absent(AbsentReason::SlotEmpty),
            ),
            (row.absent.untaken, Standing::Untaken),
            (row.parked, Standing::Parked),
            (row.dead, Standing::Dead),
            (row.in_flight, Standing::InFlight),
        ] {
            assert!(count <= 1);
            seen.extend((count == 1).then_some(standing));
        }
        let suspects = outcome.suspects.values();
        seen.extend(suspects.map(|(evidence, _)| Standing::Red(evidence.fault)));
        assert!(seen.len() <= 1, "in one place at the most: {seen:?}");
        seen.first().copied()
    }
}

fn raw(version: Millis, offset: i64) -> Vec<(Option<Raw>, bool)> {
    vec![(Some(Raw { version, offset }), false)]
}

fn canonical(version: Millis, offset: i64, absent: bool) -> Vec<(Option<Canonical>, bool)> {
    let order = order(version, offset);
    vec![(Some(Canonical::Record { order, absent }), false)]
}

fn entry(version: Millis, offset: i64, state: State) -> Vec<Option<Entry>> {
    let order = order(version, offset);
    vec![Some(Entry { order, state })]
}

fn applied() -> Tables {
    Tables {
        raw: raw(5, 50),
        canonical: canonical(5, 7, false),
        entries: entry(5, 7, State::Applied),
        ..Tables::default()
    }
}

fn parked(order: Order, link: bool) -> Vec<Option<Parked>> {
    vec![Some(Parked::Waits { order, link })]
}

fn loader_letter(order: Order) -> Vec<(Stage, Option<Letter>)> {
    let version = order.version;
    let order = Some(order);
    vec![(Stage::Loader, Some(Letter::Loader { version, order }))]
}

fn mapper_letter(version: Millis, offset: i64) -> Vec<(Stage, Option<Letter>)> {
    let offset = Some(offset);
    vec![(
        Stage::Transformer,
        Some(Letter::Transformer { version, offset }),
    )]
}

#[test]
fn every_place_and_every_way_to_be_in_none() {
    use Fault::*;
    use Standing::*;
    let again = |version, offset, reapply| Order {
        reapply,
        ..order(version, offset)
    };
    let none = Tables::default;
    let table: Vec<(&str, Tables, Option<Standing>)> = vec![
        ("nothing at all", none(), None),
        ("applied", applied(), Some(Applied)),
        (
            "applied at a newer order",
            Tables {
                entries: entry(6, 9, State::Applied),
                ..applied()
            },
            Some(Applied),
        ),
        (
            "absent",
            Tables {
                canonical: canonical(5, 7, true),
                entries: entry(5, 7, State::Deleted(AbsentReason::SlotEmpty)),
                ..applied()
            },
            Some(Absent(AbsentReason::SlotEmpty)),
        ),
        (
            "filled by the mapping, absent by the entry of the same order",
            Tables {
                entries: entry(5, 7, State::Deleted(AbsentReason::Deleted)),
                ..applied()
            },
            Some(Red(Contradiction)),
        ),
        (
            "waits for its parent",
            Tables {
                parked: parked(order(5, 7), false),
                entries: vec![],
                ..applied()
            },
            Some(Parked),
        ),
        (
            "an older version is applied, the newer one waits",
            Tables {
                parked: parked(order(5, 7), false),
                entries: entry(4, 3, State::Applied),
                ..applied()
            },
            Some(Parked),
        ),
        (
            "what waits is older than what came",
            Tables {
                parked: parked(order(4, 3), false),
                entries: vec![],
                ..applied()
            },
            Some(Red(NotApplied)),
        ),
        (
            "applied without its optional link",
            Tables {
                parked: parked(again(5, 7, 1), true),
                ..applied()
            },
            Some(Linking),
        ),
        (
            "applied without a link that never comes",
            Tables {
                parked: vec![Some(super::Parked::Dropped {
                    order: again(5, 7, 1),
                })],
                ..applied()
            },
            Some(Unlinked),
        ),
        (
            "a link never comes, and the record is not in the target",
            Tables {
                parked: vec![Some(super::Parked::Dropped {
                    order: again(5, 7, 1),
                })],
                entries: vec![],
                ..applied()
            },
            Some(Red(NotApplied)),
        ),
        (
            "waits for a link, but is not in the target",
            Tables {
                parked: parked(again(5, 7, 1), true),
                entries: vec![],
                ..applied()
            },
            Some(Red(NotApplied)),
        ),
        (
            "applied again with its link",
            Tables {
                parked: parked(again(5, 7, 1), true),
                entries: vec![Some(Entry {
                    order: again(5, 7, 1),
                    state: State::Pending,
                })],
                ..applied()
            },
            Some(Parked),
        ),
        (
            "parked although applied",
            Tables {
                parked: parked(order(5, 7), false),
                ..applied()
            },
            Some(Red(ParkedLeft)),
        ),
        (
            "refused by the target",
            Tables {
                letters: loader_letter(order(5, 7)),
                entries: vec![],
                ..applied()
            },
            Some(Dead),
        ),
        (
            "refused, but recovery found a record of ours: its id is kept at the same order",
            Tables {
                letters: loader_letter(order(5, 7)),
                ..applied()
            },
            Some(Dead),
        ),
        (
            "an older version was refused, a newer one is applied",
            Tables {
                letters: loader_letter(order(4, 3)),
                ..applied()
            },
            Some(Red(LetterLeft)),
        ),
        (
            "dead, and asked to be tried again",
            Tables {
                letters: loader_letter(order(5, 7)),
                redo: vec![Some(Some(order(5, 7)))],
                entries: vec![],
                ..applied()
            },
            Some(Dead),
        ),
        (
            "applied, and asked to be applied again",
            Tables {
                redo: vec![Some(Some(again(5, 7, 1)))],
                ..applied()
            },
            Some(InFlight),
        ),
        (
            "applied again, as asked",
            Tables {
                redo: vec![Some(Some(again(5, 7, 1)))],
                entries: vec![Some(Entry {
                    order: again(5, 7, 1),
                    state: State::Applied,
                })],
                ..applied()
            },
            Some(Applied),
        ),
        (
            "tried again and dead again: the redo was taken back",
            Tables {
                letters: loader_letter(order(5, 7)),
                redo: vec![Some(Some(order(5, 7))), None],
                entries: vec![],
                ..applied()
            },
            Some(Dead),
        ),
        (
            "could not be mapped",
            Tables {
                raw: raw(5, 50),
                letters: mapper_letter(5, 50),
                ..none()
            },
            Some(Dead),
        ),
        (
            "an older version is applied, the newest could not be mapped",
            Tables {
                raw: raw(6, 60),
                letters: mapper_letter(6, 60),
                ..applied()
            },
            Some(Dead),
        ),
        (
            "could not be mapped, and then could",
            Tables {
                letters: mapper_letter(4, 40),
                ..applied()
            },
            Some(Red(LetterLeft)),
        ),
        (
            "a dead letter of a raw record that is gone",
            Tables {
                letters: mapper_letter(4, 40),
                ..none()
            },
            Some(Red(NoRaw)),
        ),
        (
            "could not even be read",
            Tables {
                letters: vec![(Stage::Extractor, Some(Letter::Extractor))],
                ..none()
            },
            Some(Dead),
        ),
        (
            "an older version is applied, the newest could not be read",
            Tables {
                letters: vec![(Stage::Extractor, Some(Letter::Extractor))],
                ..applied()
            },
            Some(Dead),
        ),
        (
            "the extractor's letter was taken back",
            Tables {
                letters: vec![
                    (Stage::Extractor, Some(Letter::Extractor)),
                    (Stage::Extractor, None),
                ],
                ..applied()
            },
            Some(Applied),
        ),
        (
            "not yet mapped",
            Tables {
                raw: vec![(
                    Some(Raw {
                        version: 5,
                        offset: 50,
                    }),
                    true,
                )],
                ..none()
            },
            Some(InFlight),
        ),
        (
            "a newer version is not yet mapped",
            Tables {
                raw: [
                    raw(5, 50),
                    vec![(
                        Some(Raw {
                            version: 6,
                            offset: 60,
                        }),
                        true,
                    )],
                ]
                .concat(),
                ..applied()
            },
            Some(InFlight),
        ),
        (
            "not yet loaded",
            Tables {
                canonical: vec![(
                    Some(Canonical::Record {
                        order: order(5, 7),
                        absent: false,
                    }),
                    true,
                )],
                entries: vec![],
                ..applied()
            },
            Some(InFlight),
        ),
        (
            "being loaded",
            Tables {
                canonical: vec![(
                    Some(Canonical::Record {
                        order: order(5, 7),
                        absent: false,
                    }),
                    true,
                )],
                entries: entry(5, 7, State::Pending),
                ..applied()
            },
            Some(InFlight),
        ),
        (
            "Pending for ever",
            Tables {
                entries: entry(5, 7, State::Pending),
                ..applied()
            },
            Some(Red(PendingLeft)),
        ),
        (
            "Pending, and parked until the lease has run out",
            Tables {
                entries: entry(5, 7, State::Pending),
                parked: parked(order(5, 7), false),
                ..applied()
            },
            Some(Parked),
        ),
        (
            "its raw record is gone",
            Tables {
                raw: vec![],
                ..applied()
            },
            Some(Red(NoRaw)),
        ),
        (
            "its raw record was tombstoned",
            Tables {
                raw: [raw(5, 50), vec![(None, false)]].concat(),
                ..applied()
            },
            Some(Red(NoRaw)),
        ),
        (
            "its canonical record is gone",
            Tables {
                canonical: vec![],
                ..applied()
            },
            Some(Red(NotTransformed)),
        ),
        (
            "its canonical record was tombstoned",
            Tables {
                canonical: [canonical(5, 7, false), vec![(None, false)]].concat(),
                ..applied()
            },
            Some(Red(NotTransformed)),
        ),
        (
            "the canonical record is older than the raw one",
            Tables {
                raw: raw(6, 60),
                ..applied()
            },
            Some(Red(NotTransformed)),
        ),
        (
            "its entry is gone",
            Tables {
                entries: [entry(5, 7, State::Applied), vec![None]].concat(),
                ..applied()
            },
            Some(Red(NotApplied)),
        ),
        (
            "an older version is applied",
            Tables {
                entries: entry(4, 3, State::Applied),
                ..applied()
            },
            Some(Red(NotApplied)),
        ),
        (
            "a source that lags behind repeats an older version",
            Tables {
                raw: [raw(5, 50), raw(4, 60)].concat(),
                canonical: [canonical(5, 7, false), canonical(4, 8, false)].concat(),
                ..applied()
            },
            Some(Applied),
        ),
        (
            "and compaction takes the newer one away in one topic only",
            Tables {
                raw: raw(4, 60),
                canonical: [canonical(5, 7, false), canonical(4, 8, false)].concat(),
                ..applied()
            },
            Some(Applied),
        ),
        (
            "or in the other",
            Tables {
                raw: [raw(5, 50), raw(4, 60)].concat(),
                canonical: canonical(4, 8, false),
                ..applied()
            },
            Some(Applied),
        ),
        (
            "something else wrote an entry",
            Tables {
                entries: entry(5, 7, State::Applied),
                ..none()
            },
            Some(Red(NoRaw)),
        ),
        (
            "something else parked a record",
            Tables {
                parked: parked(order(5, 7), false),
                ..none()
            },
            Some(Red(NoRaw)),
        ),
        (
            "foreign bytes were buried",
            Tables {
                canonical: vec![(Some(Canonical::Foreign), false)],
                letters: vec![(
                    Stage::Loader,
                    Some(Letter::Loader {
                        version: 0,
                        order: None,
                    }),
                )],
                ..none()
            },
            Some(Dead),
        ),
        (
            "foreign bytes were passed over",
            Tables {
                canonical: vec![(Some(Canonical::Foreign), false)],
                ..none()
            },
            Some(Red(NoRaw)),
        ),
        (
            "an entry that can't be read",
            Tables {
                entries: entry(5, 7, State::Unreadable),
                ..applied()
            },
            Some(Red(Unreadable)),
        ),
        (
            "and was mended since",
            Tables {
                entries: [entry(5, 7, State::Unreadable), entry(5, 7, State::Applied)].concat(),
                ..applied()
            },
            Some(Applied),
        ),
    ];
    for (what, tables, expected) in table {
        assert_eq!(tables.standing(), expected, "{what}: {tables:?}");
    }
}

#[test]
fn what_the_target_does_not_take_stays_in_kafka() {
    let slots = BTreeMap::from([(
        "Contact".to_owned(),
        BTreeMap::from([("contact".to_owned(), false)]),
    )]);
    let mut ledger = Ledger::new(&slots, (0..1, 1), None);
    let order = order(5, 7);
    let absent = false;
    ledger.canonical(KEY, Some(Canonical::Record { order, absent }), true);
    ledger.raw(
        RAW,
        Some(Raw {
            version: 5,
            offset: 1,
        }),
        false,
    );
    let row = &ledger.finish().rows[0];
    assert_eq!((row.live, row.absent.untaken, row.red), (1, 1, 0));
}

#[test]
fn a_key_of_no_object_is_named_in_a_row_of_its_own() {
    let mut ledger = ledger(None);
    let alien = "salesforce/Contact/9#ghost";
    let state = State::Applied;
    let order = order(1, 1);
    ledger.entry(alien, Some(Entry { order, state }));
    ledger.entry("no key at all", Some(Entry { order, state }));
    ledger.raw(
        RAW,
        Some(Raw {
            version: 5,
            offset: 1,
        }),
        true,
    );
    let outcome = ledger.finish();
    let rows: Vec<_> = outcome
        .rows
        .iter()
        .map(|row| (row.object.as_str(), row.slot.as_str(), row.live, row.red))
        .collect();
    // The slot that only the alien key names asks nothing of raw records.
    assert_eq!(
        rows,
        [
            ("Contact", "contact", 1, 0),
            ("Contact", "ghost", 0, 1),
            ("", "", 0, 1)
        ]
    );
    assert!(outcome.suspects.contains_key(&hash_of(alien)));
}

#[test]
fn a_second_look_sees_only_what_looked_wrong_and_names_it() {
    let mut first = ledger(None);
    first.raw(
        RAW,
        Some(Raw {
            version: 5,
            offset: 1,
        }),
        false,
    );
    let suspects = first.finish().suspects;
    let only: HashMap<Hash, Evidence> = suspects
        .iter()
        .map(|(hash, (evidence, _))| (*hash, *evidence))
        .collect();
    let mut second = ledger(Some(only));
    second.raw(
        "salesforce/Contact/2",
        Some(Raw {
            version: 5,
            offset: 2,
        }),
        false,
    );
    second.raw(
        RAW,
        Some(Raw {
            version: 5,
            offset: 1,
        }),
        false,
    );
    let outcome = second.finish();
    assert_eq!(outcome.rows[0].live, 1);
    assert_eq!(outcome.texts.values().collect::<Vec<_>>(), [KEY]);
    assert_eq!(outcome.suspects, suspects, "the same evidence once more");
}

/// A record whose links come one after the other is applied once for each, at
/// the same canonical order. Two looks may each meet one of these transactions
/// half shown: that is not twice the same fault.
#[test]
fn a_record_that_is_parked_anew_between_two_looks_has_moved() {
    let look = |reapply| {
        let mut ledger = ledger(None);
        let order = Order {
            reapply,
            ..order(5, 1)
        };
        let canonical = Canonical::Record {
            order: Order {
                reapply: 0,
                ..order
            },
            absent: false,
        };
        ledger.canonical(KEY, Some(canonical), false);
        ledger.parked(KEY, Some(Parked::Waits { order, link: true }));
        let state = State::Applied;
        ledger.entry(KEY, Some(Entry { order, state }));
        let raw = Raw {
            version: 5,
            offset: 1,
        };
        ledger.raw(RAW, Some(raw), false);
        let suspects = ledger.finish().suspects;
        let (evidence, _) = suspects[&hash_of(KEY)];
        assert_eq!(evidence.fault, Fault::ParkedLeft);
        evidence
    };
    assert_eq!(look(1), look(1));
    assert_ne!(look(1), look(2));
}

#[test]
fn shares_by_partition_add_up() {
    let slots = BTreeMap::from([(
        "Contact".to_owned(),
        BTreeMap::from([("contact".to_owned(), true), ("company".to_owned(), true)]),
    )]);
    let mut live = 0;
    for partition in 0..5 {
        let mut ledger = Ledger::new(&slots, (partition..partition + 1, 5), None);
        for id in 0..100 {
            let key = format!("salesforce/Contact/{id}");
            ledger.raw(
                &key,
                Some(Raw {
                    version: 5,
                    offset: id,
                }),
                true,
            );
        }
        let rows = ledger.finish().rows;
        assert!(rows.iter().all(|row| row.live < 100));
        live += rows.iter().map(|row| row.live).sum::<u64>();
    }
    assert_eq!(live, 200);
}

proptest! {
    /// A history of the real stages, read at any moment between two commits:
    /// never red. With any one thing of it taken away: red, or that thing was
    /// the newest word on nothing.
    #[test]
    fn a_history_of_the_stages_balances_at_every_moment(
        steps in prop::collection::vec((0..6u8, 0..4u8), 1..40),
    ) {
        let mut tables = Tables::default();
        let (mut raws, mut canonicals): (Vec<Raw>, Vec<Order>) = (vec![], vec![]);
        let (mut mapped, mut loaded) = (0, 0);
        let (mut waiting, mut dead): (Option<Order>, Option<Order>) = (None, None);
        let mut best = Order::default();
        for (step, how) in steps {
            match step {
                // The extractor reads a version, sometimes an older one again.
                0 | 1 => {
                    let version = match how {
                        0 => raws.last().map_or(1, |raw| (raw.version - 1).max(1)),
                        _ => raws.iter().map(|raw| raw.version).max().unwrap_or(0) + 1,
                    };
                    raws.push(Raw { version, offset: raws.len() as i64 });
                }
                // The transformer maps one, or buries it: the same version always alike.
                2 | 3 if mapped < raws.len() => {
                    let raw = raws[mapped];
                    mapped += 1;
                    let (version, offset) = (raw.version, Some(raw.offset));
                    if version % 4 == 3 {
                        let letter = Letter::Transformer { version, offset };
                        tables.letters.push((Stage::Transformer, Some(letter)));
                    } else {
                        let dead = tables.letters.iter().rev().find(|(s, _)| *s == Stage::Transformer);
                        if let Some((_, Some(Letter::Transformer { version: dead, .. }))) = dead
                            && *dead <= version
                        {
                            tables.letters.push((Stage::Transformer, None));
                        }
                        canonicals.push(order(version, canonicals.len() as i64));
                    }
                }
                // The loader does one: applies, parks, or buries it; or what was
                // parked goes on.
                4 | 5 => {
                    let (order, how) = match step {
                        4 if loaded < canonicals.len() => {
                            loaded += 1;
                            (canonicals[loaded - 1], how)
                        }
                        5 => match waiting {
                            Some(order) => (order, 3),
                            None => continue,
                        },
                        _ => continue,
                    };
                    if order < best || waiting.is_some_and(|waiting| waiting > order) {
                        // Stale; the marks below move all the same.
                    } else if how == 0 {
                        waiting = Some(order);
                        tables.parked.push(Some(Parked::Waits { order, link: false }));
                    } else {
                        let version = order.version;
                        if how > 1 {
                            best = order;
                            let state = State::Applied;
                            tables.entries.push(Some(Entry { order, state }));
                        }
                        if dead.is_none_or(|dead: Order| dead.version <= version) {
                            dead = (how == 1).then_some(order);
                            let order = Some(order);
                            let letter = (how == 1).then_some(Letter::Loader { version, order });
                            tables.letters.push((Stage::Loader, letter));
                        }
                        waiting = None;
                        tables.parked.push(None);
                    }
                }
                _ => {}
            }
            tables.raw = raws
                .iter()
                .enumerate()
                .map(|(at, raw)| (Some(*raw), at >= mapped))
                .collect();
            tables.canonical = canonicals
                .iter()
                .enumerate()
                .map(|(at, order)| {
                    (Some(Canonical::Record { order: *order, absent: false }), at >= loaded)
                })
                .collect();
            let standing = tables.standing();
            prop_assert!(!matches!(standing, Some(Standing::Red(_))), "{standing:?}: {tables:?}");
            prop_assert_eq!(standing.is_some(), !raws.is_empty());

            let without = |change: fn(&mut Tables)| {
                let mut tables = tables.clone();
                change(&mut tables);
                tables.standing()
            };
            match standing {
                Some(Standing::Applied) => {
                    let gone = without(|tables| tables.entries.clear());
                    prop_assert_eq!(gone, Some(Standing::Red(Fault::NotApplied)));
                    let gone = without(|tables| tables.canonical.clear());
                    prop_assert_eq!(gone, Some(Standing::Red(Fault::NotTransformed)));
                    let gone = without(|tables| tables.raw.clear());
                    prop_assert_eq!(gone, Some(Standing::Red(Fault::NoRaw)));
                }
                Some(Standing::Parked) => {
                    // An older dead letter of the same record may stand behind it.
                    let gone = without(|tables| tables.parked.clear());
                    prop_assert!(gone == Some(Standing::Red(Fault::NotApplied)), "{gone:?}");
                }
                Some(Standing::Dead) => {
                    let gone = without(|tables| tables.letters.clear());
                    // Where a source that lags behind repeated an older version
                    // last, that one alone asks for a place.
                    let newest = raws[..mapped].iter().map(|raw| raw.version).max();
                    let last = raws[mapped - 1].version;
                    let repeated = newest > Some(last) || best.version >= last;
                    prop_assert!(repeated || matches!(gone, Some(Standing::Red(_))), "{gone:?}");
                }
                _ => {}
            }
        }
    }
}
