//! Runs a plan: which records, in which order.
//!
//! Ids and stamps are indexed. A query by key (`Id > 'x' ORDER BY Id`) or by
//! time (`SystemModstamp >= a ORDER BY SystemModstamp, Id`) walks the index
//! and stops at its limit; other orders sort what they found.
//!
//! Rows that the order leaves equal come in no useful order, as from the real
//! API: recorded pages ordered by a stamp alone show equal stamps with their
//! ids mixed. Who wants them by id must say so.

use std::cmp::Ordering;

use super::filter::Test;
use super::id::Id;
use super::moment::Millis;
use super::plan::{Plan, Sort};
use super::record::Record;
use super::schema::Source;
use super::soql::Operator;
use super::store::{Store, Table};
use super::value::Value;

/// Up to so many rows of a span of time are rather sorted than found by a
/// walk over all ids.
const FEW: usize = 20_000;

/// The ids of the records a plan reads; `deleted` takes those in the bin too.
pub fn ids(store: &Store, plan: &Plan, deleted: bool) -> Vec<Id> {
    if plan.test.as_ref().is_some_and(Test::has_query) {
        let mut plan = plan.clone();
        plan.test = plan.test.map(|test| test.resolved(store, deleted));
        return ids(store, &plan, deleted);
    }
    let table = store.table(plan.object);
    let bounds = Bounds::of(store, plan);
    let skip = plan.offset as usize;
    let most = plan.limit.map_or(usize::MAX, |limit| limit as usize);
    let archive = store.schema.objects[plan.object]
        .number("IsArchived")
        .filter(|_| {
            // Documents and products say so too, and are shown all the same.
            matches!(
                store.schema.objects[plan.object].name.as_str(),
                "Task" | "Event"
            )
        });
    let archived =
        |record: &Record| archive.is_some_and(|field| record.json(field) == Some("true"));
    let fits = |record: &&Record| {
        (deleted || (!record.deleted && !archived(record)))
            && plan
                .test
                .as_ref()
                .is_none_or(|test| test.holds(store, record))
    };
    let walk = bounds.walk(table);
    match natural(store, plan) {
        Natural::Any => walk
            .records(table, false)
            .filter(fits)
            .skip(skip)
            .take(most)
            .map(|r| r.id)
            .collect(),
        Natural::Id(descending) if matches!(walk, Walk::Ids(..)) => walk
            .records(table, descending)
            .filter(fits)
            .skip(skip)
            .take(most)
            .map(|r| r.id)
            .collect(),
        Natural::Stamp { descending, by_id } if !matches!(walk, Walk::Listed(_)) => {
            let walk = Walk::Stamps(bounds.from, bounds.to);
            let fitting = walk.records(table, descending).filter(fits);
            if by_id {
                fitting.skip(skip).take(most).map(|r| r.id).collect()
            } else {
                shuffled(
                    fitting.map(|r| (r.modstamp, r.id)),
                    skip.saturating_add(most),
                )
                .into_iter()
                .skip(skip)
                .collect()
            }
        }
        _ => {
            let mut found: Vec<(Vec<Value<'_>>, Id)> = walk
                .records(table, false)
                .filter(fits)
                .map(|record| {
                    (
                        plan.order
                            .iter()
                            .map(|sort| sort.by.value(store, record))
                            .collect(),
                        record.id,
                    )
                })
                .collect();
            found.sort_unstable_by(|a, b| {
                by_keys(&plan.order, &a.0, &b.0).then(scattered(a.1).cmp(&scattered(b.1)))
            });
            found
                .into_iter()
                .skip(skip)
                .take(most)
                .map(|found| found.1)
                .collect()
        }
    }
}

/// The first rows of a walk by stamps; rows with the same stamp are mixed.
fn shuffled(rows: impl Iterator<Item = (Millis, Id)>, most: usize) -> Vec<Id> {
    let mut ids = Vec::new();
    let mut stamp = None;
    let mut begun = 0;
    for (at, id) in rows {
        if stamp != Some(at) {
            ids[begun..].sort_unstable_by_key(|id| scattered(*id));
            if ids.len() >= most {
                break;
            }
            begun = ids.len();
            stamp = Some(at);
        }
        ids.push(id);
    }
    ids[begun..].sort_unstable_by_key(|id| scattered(*id));
    ids.truncate(most);
    ids
}

/// A number that says nothing of the id's place.
fn scattered(id: Id) -> u64 {
    id.chars18()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
}

fn by_keys(order: &[Sort], a: &[Value<'_>], b: &[Value<'_>]) -> Ordering {
    for ((sort, a), b) in order.iter().zip(a).zip(b) {
        let null_first = match (a, b) {
            (Value::Null, Value::Null) => continue,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            _ => match a.compare(b) {
                Ordering::Equal => continue,
                found if sort.descending => return found.reverse(),
                found => return found,
            },
        };
        return if sort.nulls_last {
            null_first.reverse()
        } else {
            null_first
        };
    }
    Ordering::Equal
}

/// The order a plan asks for, if an index has it.
enum Natural {
    /// None in particular.
    Any,
    /// By id; the flag says largest first.
    Id(bool),
    /// By stamp, and by id among equal ones if asked for.
    Stamp { descending: bool, by_id: bool },
    /// Another one.
    Other,
}

fn natural(store: &Store, plan: &Plan) -> Natural {
    let sources: Vec<Option<Source>> = plan
        .order
        .iter()
        .map(|sort| {
            Some(store.schema.objects[plan.object].fields[usize::from(sort.by.own()?)].source)
        })
        .collect();
    let descending = plan.order.first().is_some_and(|sort| sort.descending);
    let same = plan.order.iter().all(|sort| sort.descending == descending);
    match sources.as_slice() {
        [] => Natural::Any,
        [Some(Source::Id), ..] => Natural::Id(descending),
        [Some(Source::Modstamp)] => Natural::Stamp {
            descending,
            by_id: false,
        },
        [Some(Source::Modstamp), Some(Source::Id), ..] if same => Natural::Stamp {
            descending,
            by_id: true,
        },
        _ => Natural::Other,
    }
}

/// What the conditions that must hold say of id and stamp. Both ends are
/// part of the bounds; the conditions are checked again on each record.
struct Bounds {
    least: Id,
    most: Id,
    listed: Option<Vec<Id>>,
    from: Millis,
    to: Millis,
}

impl Bounds {
    fn of(store: &Store, plan: &Plan) -> Bounds {
        let mut bounds = Bounds {
            least: Id::MIN,
            most: Id::MAX,
            listed: None,
            from: Millis::MIN,
            to: Millis::MAX,
        };
        let conjuncts = plan.test.as_ref().map(Test::conjuncts).unwrap_or_default();
        let source = |field: Option<u16>| {
            field.map(|field| store.schema.objects[plan.object].fields[usize::from(field)].source)
        };
        for test in conjuncts {
            match test {
                Test::Compare(reach, operator, value) => match (source(reach.own()), value) {
                    (Some(Source::Id), Value::Id(id)) => match operator {
                        Operator::Equal => bounds.list(vec![*id]),
                        Operator::Less | Operator::AtMost => bounds.most = bounds.most.min(*id),
                        Operator::Greater | Operator::AtLeast => {
                            bounds.least = bounds.least.max(*id)
                        }
                        _ => {}
                    },
                    (Some(Source::Modstamp), Value::Moment(at)) => match operator {
                        Operator::Equal => {
                            bounds.from = bounds.from.max(*at);
                            bounds.to = bounds.to.min(*at);
                        }
                        Operator::Less | Operator::AtMost => bounds.to = bounds.to.min(*at),
                        Operator::Greater | Operator::AtLeast => bounds.from = bounds.from.max(*at),
                        _ => {}
                    },
                    _ => {}
                },
                Test::In(reach, false, values) if source(reach.own()) == Some(Source::Id) => {
                    let ids = values
                        .iter()
                        .filter_map(|value| match value {
                            Value::Id(id) => Some(*id),
                            _ => None,
                        })
                        .collect();
                    bounds.list(ids);
                }
                _ => {}
            }
        }
        bounds
    }

    fn list(&mut self, mut ids: Vec<Id>) {
        ids.sort_unstable();
        ids.dedup();
        match &mut self.listed {
            Some(listed) => listed.retain(|id| ids.binary_search(id).is_ok()),
            None => self.listed = Some(ids),
        }
    }

    /// The shortest walk over the records within the bounds.
    fn walk(&self, table: &Table) -> Walk {
        if let Some(listed) = &self.listed {
            return Walk::Listed(listed.clone());
        }
        let timed = self.from != Millis::MIN || self.to != Millis::MAX;
        if timed
            && Walk::stamps(table, self.from, self.to)
                .take(FEW + 1)
                .count()
                <= FEW
        {
            return Walk::Stamps(self.from, self.to);
        }
        Walk::Ids(self.least, self.most)
    }
}

/// A walk over records.
enum Walk {
    /// These, in the order of ids.
    Listed(Vec<Id>),
    /// Between two ids.
    Ids(Id, Id),
    /// Between two stamps.
    Stamps(Millis, Millis),
}

impl Walk {
    fn stamps(
        table: &Table,
        from: Millis,
        to: Millis,
    ) -> impl DoubleEndedIterator<Item = &(Millis, Id)> {
        let empty = from > to;
        let range = if empty {
            (0, Id::MIN)..=(0, Id::MIN)
        } else {
            (from, Id::MIN)..=(to, Id::MAX)
        };
        table.by_modstamp().range(range).filter(move |_| !empty)
    }

    fn records<'a>(
        &'a self,
        table: &'a Table,
        descending: bool,
    ) -> Box<dyn Iterator<Item = &'a Record> + 'a> {
        match self {
            Walk::Listed(ids) => Box::new(ids.iter().filter_map(|id| table.row(*id))),
            Walk::Ids(least, most) if least > most => Box::new(std::iter::empty()),
            Walk::Ids(least, most) => {
                let range = table.rows().range(*least..=*most).map(|(_, record)| record);
                if descending {
                    Box::new(range.rev())
                } else {
                    Box::new(range)
                }
            }
            Walk::Stamps(from, to) => {
                let range = Walk::stamps(table, *from, *to).filter_map(|(_, id)| table.row(*id));
                if descending {
                    Box::new(range.rev())
                } else {
                    Box::new(range)
                }
            }
        }
    }
}
