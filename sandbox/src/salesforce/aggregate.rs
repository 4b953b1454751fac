//! Lines of grouped queries: `SELECT StageName, COUNT(Id) FROM Opportunity
//! GROUP BY StageName`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::id::Id;
use super::moment;
use super::plan::{GroupSort, GroupTests, Plan, Summary};
use super::reach::Reach;
use super::record::{Record, double, quote};
use super::schema::{Schema, Type};
use super::soql::{Function, Operator};
use super::store::Store;
use super::value::Value;

/// The values a group has in common, in an order.
struct Group<'a>(Vec<Value<'a>>);

impl PartialEq for Group<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Group<'_> {}
impl PartialOrd for Group<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Group<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| a.compare(b))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// What a group is ordered by.
enum Rank<'a> {
    Key(&'a Value<'a>),
    /// What a function printed.
    Call(String),
}

impl Rank<'_> {
    fn is_null(&self) -> bool {
        match self {
            Rank::Key(value) => **value == Value::Null,
            Rank::Call(printed) => printed == "null",
        }
    }

    fn compare(&self, other: &Rank<'_>) -> Ordering {
        match (self, other) {
            (Rank::Key(a), Rank::Key(b)) => a.compare(b),
            (Rank::Call(a), Rank::Call(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a.total_cmp(&b),
                _ => a.cmp(b),
            },
            // One key of the order ranks all groups in the same way.
            _ => Ordering::Equal,
        }
    }
}

fn by_ranks(order: &[GroupSort], a: &[Rank<'_>], b: &[Rank<'_>]) -> Ordering {
    let one = |((sort, a), b): ((&GroupSort, &Rank<'_>), &Rank<'_>)| {
        let nulls = b.is_null().cmp(&a.is_null());
        match (a.is_null() || b.is_null(), sort.nulls_last, sort.descending) {
            (true, false, _) => nulls,
            (true, true, _) => nulls.reverse(),
            (false, _, false) => a.compare(b),
            (false, _, true) => b.compare(a),
        }
    };
    let found = order.iter().zip(a).zip(b).map(one).find(|o| o.is_ne());
    found.unwrap_or(Ordering::Equal)
}

/// The lines, each a JSON object, of the records with these ids.
pub fn lines(
    store: &Store,
    plan: &Plan,
    keys: &[Reach],
    columns: &[(String, Summary)],
    ((any, having), order): (&GroupTests, &[GroupSort]),
    ids: &[Id],
) -> Vec<String> {
    let table = store.table(plan.object);
    let mut groups: BTreeMap<Group<'_>, Vec<&Record>> = BTreeMap::new();
    if keys.is_empty() {
        // Without keys there is one line, also of no rows.
        groups.insert(Group(Vec::new()), Vec::new());
    }
    for record in ids.iter().filter_map(|id| table.row(*id)) {
        let key = Group(keys.iter().map(|key| key.value(store, record)).collect());
        groups.entry(key).or_default().push(record);
    }
    let wanted = |records: &[&Record]| {
        let holds = |(function, reach, operator, number): &(Function, Reach, Operator, f64)| {
            let found = call(store, *function, reach, records).parse::<f64>();
            found.is_ok_and(|found| match operator {
                Operator::Equal => found == *number,
                Operator::Unequal => found != *number,
                Operator::Less => found < *number,
                Operator::AtMost => found <= *number,
                Operator::Greater => found > *number,
                Operator::AtLeast => found >= *number,
                Operator::Like => false,
            })
        };
        having.is_empty()
            || if *any {
                having.iter().any(holds)
            } else {
                having.iter().all(holds)
            }
    };
    let mut chosen: Vec<_> = groups
        .iter()
        .filter(|(_, records)| wanted(records))
        .map(|(group, records)| {
            let rank = |sort: &GroupSort| match &sort.by {
                Summary::Key(at) => Rank::Key(&group.0[*at]),
                Summary::Call(function, reach) => {
                    Rank::Call(call(store, *function, reach, records))
                }
            };
            let ranks: Vec<Rank<'_>> = order.iter().map(rank).collect();
            (ranks, group, records)
        })
        .collect();
    chosen.sort_by(|a, b| by_ranks(order, &a.0, &b.0));
    chosen
        .into_iter()
        .map(|(_, group, records)| {
            let mut line = r#"{"attributes":{"type":"AggregateResult"}"#.to_owned();
            for (name, summary) in columns {
                let json = match summary {
                    Summary::Key(at) => json(&group.0[*at], kind(&store.schema, &keys[*at])),
                    Summary::Call(function, reach) => call(store, *function, reach, records),
                };
                line.push_str(&format!(",{}:{json}", quote(name)));
            }
            line.push('}');
            line
        })
        .collect()
}

fn kind(schema: &Schema, reach: &Reach) -> Type {
    reach.field(schema).kind
}

fn call(store: &Store, function: Function, reach: &Reach, records: &[&Record]) -> String {
    let mut values: Vec<Value<'_>> = records
        .iter()
        .map(|record| reach.value(store, record))
        .filter(|value| *value != Value::Null)
        .collect();
    let kind = kind(&store.schema, reach);
    let numbers = || {
        values.iter().filter_map(|value| {
            if let Value::Number(n) = value {
                Some(*n)
            } else {
                None
            }
        })
    };
    match function {
        Function::Count => values.len().to_string(),
        Function::CountDistinct => {
            values.sort_unstable_by(Value::compare);
            values.dedup_by(|a, b| a.same(b));
            values.len().to_string()
        }
        Function::Sum | Function::Avg if values.is_empty() => "null".to_owned(),
        Function::Sum if kind == Type::Int => (numbers().sum::<f64>() as i64).to_string(),
        Function::Sum => double(numbers().sum()),
        Function::Avg => double(numbers().sum::<f64>() / values.len() as f64),
        Function::Min => json(
            values
                .iter()
                .min_by(|a, b| a.compare(b))
                .unwrap_or(&Value::Null),
            kind,
        ),
        Function::Max => json(
            values
                .iter()
                .max_by(|a, b| a.compare(b))
                .unwrap_or(&Value::Null),
            kind,
        ),
    }
}

fn json(value: &Value<'_>, kind: Type) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Number(number) if kind == Type::Int => (*number as i64).to_string(),
        Value::Number(number) => double(*number),
        Value::Moment(at) if kind == Type::Date => quote(&moment::print_date(*at)),
        Value::Moment(at) => quote(&moment::print(*at)),
        Value::Id(id) => quote(&id.to_string()),
        Value::Text(text) => quote(text),
    }
}
