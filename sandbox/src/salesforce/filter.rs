//! Conditions with their fields found, and what they say of a record.

use std::borrow::Cow;
use std::collections::HashSet;

use super::errors::ApiError;
use super::id::Id;
use super::moment;
use super::plan::Plan;
use super::reach::{Reach, Scope};
use super::record::Record;
use super::schema::{Field, Type};
use super::soql::{Filter, Literal, Operator, Path, Selected, malformed};
use super::store::Store;
use super::value::Value;

/// A condition whose fields are known.
#[derive(Clone, Debug)]
pub enum Test {
    /// All of them.
    All(Vec<Test>),
    /// Any of them.
    Any(Vec<Test>),
    /// Not this.
    Not(Box<Test>),
    /// A comparison with one value.
    Compare(Reach, Operator, Value<'static>),
    /// Within a span, from inclusive, to exclusive, as the operator sees it.
    Span(Reach, Operator, Value<'static>, Value<'static>),
    /// Among values.
    In(Reach, bool, Vec<Value<'static>>),
    /// A pattern of LIKE.
    Like(Reach, Vec<Piece>),
    /// Among what another query finds in this column.
    InQuery(Reach, bool, Box<Plan>, Reach),
    /// Among these ids, or these texts in lower case.
    Among(Reach, bool, HashSet<Id>, HashSet<String>),
    /// Any of these sets among the chosen values.
    Includes(Reach, bool, Vec<Vec<String>>),
}

/// A piece of a LIKE pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Any characters.
    Any,
    /// One character.
    One,
    /// This one, lower case.
    Exactly(char),
}

impl Test {
    /// Finds the fields of a condition and checks its values against them.
    pub fn compile(scope: &Scope<'_>, filter: &Filter) -> Result<Test, ApiError> {
        let all = |filters: &[Filter]| {
            filters
                .iter()
                .map(|filter| Test::compile(scope, filter))
                .collect::<Result<Vec<Test>, ApiError>>()
        };
        Ok(match filter {
            Filter::And(filters) => Test::All(all(filters)?),
            Filter::Or(filters) => Test::Any(all(filters)?),
            Filter::Not(filter) => Test::Not(Box::new(Test::compile(scope, filter)?)),
            Filter::Compare(path, operator, literal) => {
                let (reach, field) = filterable(scope, path)?;
                let text = field.kind.is_text();
                let refuse = |what: &str| {
                    Err(ApiError::bad(
                        "INVALID_QUERY_FILTER_OPERATOR",
                        scope.located(path.at, what),
                    ))
                };
                match (operator, field.kind) {
                    (Operator::Like, Type::Id | Type::Reference) => {
                        return refuse("invalid operator on id field");
                    }
                    (Operator::Like, kind) if !text => {
                        return refuse(&format!("invalid operator on {} field", kind.name()));
                    }
                    (Operator::Equal | Operator::Unequal | Operator::Like, _) => {}
                    (_, Type::Boolean) => return refuse("invalid operator on boolean field"),
                    _ => {}
                }
                if *operator == Operator::Like {
                    let Literal::Text(_, written) = literal else {
                        return Err(wrong_type(scope, path, &field));
                    };
                    return Ok(Test::Like(reach, pattern(written)));
                }
                if let Literal::Span(from, to) = literal {
                    if !matches!(field.kind, Type::Date | Type::Datetime) {
                        return Err(wrong_type(scope, path, &field));
                    }
                    return Ok(Test::Span(
                        reach,
                        *operator,
                        Value::Moment(*from),
                        Value::Moment(*to),
                    ));
                }
                let value = value(scope, path, &field, literal)?;
                Test::Compare(reach, *operator, value)
            }
            Filter::In(path, negated, literals) => {
                let (reach, field) = filterable(scope, path)?;
                let values = literals
                    .iter()
                    .map(|literal| value(scope, path, &field, literal))
                    .collect::<Result<_, _>>()?;
                Test::In(reach, *negated, values)
            }
            Filter::InQuery(path, negated, query) => {
                let (reach, _) = filterable(scope, path)?;
                let plan = Plan::compile(scope.schema, query, scope.text)?;
                let inner = Scope {
                    schema: scope.schema,
                    object: plan.object,
                    alias: query.alias.as_deref(),
                    text: scope.text,
                };
                let [Selected::Field(column, _)] = query.select.as_slice() else {
                    return Err(malformed(
                        "the inner select of a semi join must have one field",
                    ));
                };
                let column = inner.reach(column)?;
                Test::InQuery(reach, *negated, Box::new(plan), column)
            }
            Filter::Includes(path, negated, literals) => {
                let (reach, field) = filterable(scope, path)?;
                if field.kind != Type::Multipicklist {
                    return Err(ApiError::bad(
                        "INVALID_QUERY_FILTER_OPERATOR",
                        scope.located(
                            path.at,
                            "includes or excludes operator only valid on multipicklist field",
                        ),
                    ));
                }
                let sets = literals
                    .iter()
                    .map(|literal| match literal {
                        Literal::Text(text, _) => {
                            Ok(text.split(';').map(str::to_lowercase).collect())
                        }
                        _ => Err(wrong_type(scope, path, &field)),
                    })
                    .collect::<Result<_, _>>()?;
                Test::Includes(reach, *negated, sets)
            }
        })
    }

    /// Whether a record meets the condition.
    pub fn holds(&self, store: &Store, record: &Record) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|test| test.holds(store, record)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(store, record)),
            Test::Not(test) => !test.holds(store, record),
            Test::Compare(reach, operator, value) => {
                compared(&reach.value(store, record), *operator, value)
            }
            Test::Span(reach, operator, from, to) => {
                let found = reach.value(store, record);
                let within = compared(&found, Operator::AtLeast, from)
                    && compared(&found, Operator::Less, to);
                match operator {
                    Operator::Equal => within,
                    Operator::Unequal => !within,
                    Operator::Less => compared(&found, Operator::Less, from),
                    Operator::AtMost => compared(&found, Operator::Less, to),
                    Operator::Greater => compared(&found, Operator::AtLeast, to),
                    Operator::AtLeast => compared(&found, Operator::AtLeast, from),
                    Operator::Like => false,
                }
            }
            Test::In(reach, negated, values) => {
                let found = reach.value(store, record);
                values.iter().any(|value| found.same(value)) != *negated
            }
            // It has been answered before; see `resolved`.
            Test::InQuery(..) => false,
            Test::Among(reach, negated, ids, texts) => {
                let among = match reach.value(store, record) {
                    Value::Id(id) => ids.contains(&id),
                    Value::Text(text) => texts.contains(&text.to_lowercase()),
                    _ => false,
                };
                among != *negated
            }
            Test::Like(reach, pattern) => match reach.value(store, record) {
                Value::Text(text) => {
                    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
                    matches_pattern(pattern, &text)
                }
                _ => false,
            },
            Test::Includes(reach, negated, sets) => {
                let found = match reach.value(store, record) {
                    Value::Text(text) => text.split(';').map(str::to_lowercase).collect(),
                    _ => Vec::new(),
                };
                sets.iter()
                    .any(|set| set.iter().all(|value| found.contains(value)))
                    != *negated
            }
        }
    }

    /// Whether an inner query has to be answered first.
    pub fn has_query(&self) -> bool {
        match self {
            Test::All(tests) | Test::Any(tests) => tests.iter().any(Test::has_query),
            Test::Not(test) => test.has_query(),
            Test::InQuery(..) => true,
            _ => false,
        }
    }

    /// The same condition with its inner queries answered.
    pub fn resolved(&self, store: &Store, deleted: bool) -> Test {
        let all = |tests: &[Test]| {
            tests
                .iter()
                .map(|test| test.resolved(store, deleted))
                .collect()
        };
        match self {
            Test::All(tests) => Test::All(all(tests)),
            Test::Any(tests) => Test::Any(all(tests)),
            Test::Not(test) => Test::Not(Box::new(test.resolved(store, deleted))),
            Test::InQuery(reach, negated, plan, column) => {
                let (mut ids, mut texts) = (HashSet::new(), HashSet::new());
                let table = store.table(plan.object);
                for id in super::run::ids(store, plan, deleted) {
                    match table.row(id).map(|record| column.value(store, record)) {
                        Some(Value::Id(id)) => {
                            ids.insert(id);
                        }
                        Some(Value::Text(text)) => {
                            texts.insert(text.to_lowercase());
                        }
                        _ => {}
                    }
                }
                Test::Among(reach.clone(), *negated, ids, texts)
            }
            other => other.clone(),
        }
    }

    /// The conditions of which every one must hold.
    pub fn conjuncts(&self) -> Vec<&Test> {
        match self {
            Test::All(tests) => tests.iter().flat_map(Test::conjuncts).collect(),
            test => vec![test],
        }
    }
}

/// A comparison as SOQL sees it: `!=` holds for null, orders do not.
fn compared(found: &Value<'_>, operator: Operator, value: &Value<'_>) -> bool {
    if *found == Value::Null || *value == Value::Null {
        let both = *found == Value::Null && *value == Value::Null;
        return match operator {
            Operator::Equal => both,
            Operator::Unequal => !both,
            _ => false,
        };
    }
    let order = found.compare(value);
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::AtLeast => order.is_ge(),
        Operator::Like => false,
    }
}

fn filterable(scope: &Scope<'_>, path: &Path) -> Result<(Reach, Field), ApiError> {
    let reach = scope.reach(path)?;
    let field = reach.field(scope.schema);
    if !field.is_filterable() || field.kind == Type::Address {
        return Err(ApiError::bad(
            "INVALID_FIELD",
            scope.located(
                path.at,
                &format!("field '{}' can not be filtered in a query call", field.name),
            ),
        ));
    }
    Ok((reach, field))
}

/// The value of a literal for a field, if it is of the field's type.
fn value(
    scope: &Scope<'_>,
    path: &Path,
    field: &Field,
    literal: &Literal,
) -> Result<Value<'static>, ApiError> {
    let wrong = || wrong_type(scope, path, field);
    Ok(match (field.kind, literal) {
        (_, Literal::Null) => Value::Null,
        (Type::Id | Type::Reference, Literal::Text(text, _)) if text.is_empty() => Value::Null,
        (Type::Id | Type::Reference, Literal::Text(text, _)) => match Id::parse(text) {
            Some(id) => Value::Id(id),
            None => {
                return Err(ApiError::bad(
                    "INVALID_QUERY_FILTER_OPERATOR",
                    scope.located(path.at, &format!("invalid ID field: {text}")),
                ));
            }
        },
        (kind, Literal::Text(text, _)) if kind.is_text() => {
            if text.is_empty() {
                Value::Null
            } else {
                Value::Text(Cow::Owned(text.clone()))
            }
        }
        (Type::Boolean, Literal::Boolean(value)) => Value::Boolean(*value),
        (Type::Int | Type::Double | Type::Currency | Type::Percent, Literal::Number(number)) => {
            Value::Number(*number)
        }
        (Type::Date, Literal::Date(date)) => Value::Moment(moment::start_of(*date)),
        (Type::Datetime, Literal::Moment(at)) => Value::Moment(*at),
        _ => return Err(wrong()),
    })
}

fn wrong_type(scope: &Scope<'_>, path: &Path, field: &Field) -> ApiError {
    let (kind, quotes) = match field.kind {
        Type::Id | Type::Reference => ("reference", "should"),
        Type::Boolean => ("boolean", "should not"),
        Type::Int => ("int", "should not"),
        Type::Double => ("double", "should not"),
        Type::Currency => ("currency", "should not"),
        Type::Percent => ("percent", "should not"),
        Type::Date => ("date", "should not"),
        Type::Datetime => ("dateTime", "should not"),
        _ => ("string", "should"),
    };
    let message = format!(
        "value of filter criterion for field '{}' must be of type {kind} and {quotes} be enclosed in quotes",
        path.parts.join(".")
    );
    ApiError::bad("INVALID_FIELD", scope.located(path.at, &message))
}

/// The pieces of a pattern as written between the quotes.
fn pattern(written: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => pieces.push(Piece::Any),
            '_' => pieces.push(Piece::One),
            '\\' => {
                let escaped = match chars.next() {
                    Some('n' | 'N') => '\n',
                    Some('r' | 'R') => '\r',
                    Some('t' | 'T') => '\t',
                    Some(other) => other,
                    None => '\\',
                };
                pieces.extend(escaped.to_lowercase().map(Piece::Exactly));
            }
            c => pieces.extend(c.to_lowercase().map(Piece::Exactly)),
        }
    }
    pieces
}

fn matches_pattern(pattern: &[Piece], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go back to: behind the last Any, and where its text began.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        let fits = match pattern.get(p) {
            Some(Piece::Any) => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(Piece::One) => true,
            Some(Piece::Exactly(c)) => *c == text[t],
            None => false,
        };
        if fits {
            p += 1;
            t += 1;
        } else if let Some((after, began)) = back {
            p = after;
            t = began + 1;
            back = Some((after, began + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|piece| *piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let table = [
            ("Acme%", "ACME Corp", true),
            ("%corp", "Acme Corp", true),
            ("%me c%", "Acme Corp", true),
            ("Acme", "Acme Corp", false),
            ("A_me%", "Acme", true),
            ("A_me", "Ame", false),
            ("100\\%", "100%", true),
            ("100\\%", "1000", false),
            ("a\\_b", "axb", false),
            ("%", "", true),
            ("%a%b%c", "xxaxxbxxbxxc", true),
            ("é%", "École", true),
        ];
        for (written, text, expected) in table {
            let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
            assert_eq!(
                matches_pattern(&pattern(written), &text),
                expected,
                "{written} {text:?}"
            );
        }
        let text: Vec<char> = "école".chars().collect();
        assert!(matches_pattern(&pattern("É%"), &text));
    }

    #[test]
    fn nulls_compare_as_in_soql() {
        let null = Value::Null;
        let one = Value::Number(1.0);
        assert!(compared(&null, Operator::Equal, &null));
        assert!(!compared(&null, Operator::Unequal, &null));
        assert!(compared(&null, Operator::Unequal, &one));
        assert!(!compared(&null, Operator::Less, &one));
        assert!(!compared(&one, Operator::Greater, &null));
        assert!(compared(&one, Operator::Unequal, &null));
    }
}
