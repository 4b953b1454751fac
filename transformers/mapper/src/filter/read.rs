//! Reads a condition: what it says, whether a value of the declared type can ever
//! meet it, and everything that is wrong with it at once.

use drover_pipeline::config::nearest;
use drover_pipeline::transform::{Shape, shape};
use serde_json::{Map, Value};

use super::{Accepted, Asked, Bound, Condition, Test, Wrong};
use crate::convert::{date, datetime, exact};
use crate::json::Json;

/// What a condition may say beside plain values.
const WORDS: [&str; 3] = ["not", "atLeast", "below"];
const FORMS: &str = "write a value, a list of values, `{ not: … }` or `{ atLeast: …, below: … }`";
const PLAIN: &str = "write a text, a number, true, false or null, or a list of them";
const RANGE: &str =
    "write a number, a date (2026-01-31) or a time with its zone (2026-01-31T09:00:00Z)";

impl Condition {
    /// Compiles what the mapping says of a field. Fails with all that is wrong: a
    /// word that is none, and values that the field can't be compared with.
    pub fn new(asked: Asked<'_>, wanted: &Value) -> Result<Self, Vec<Wrong>> {
        let mut reader = Reader {
            asked,
            shape: asked.declared.map_or(Shape::Unknown, shape),
            wrong: Vec::new(),
        };
        let test = match wanted {
            Value::Object(says) => reader.words(says),
            value => Test::Is(reader.values("", value)),
        };
        match reader.wrong.is_empty() {
            true => Ok(Condition {
                field: asked.place,
                test,
            }),
            false => Err(reader.wrong),
        }
    }
}

struct Reader<'a> {
    asked: Asked<'a>,
    shape: Shape,
    wrong: Vec<Wrong>,
}

impl Reader<'_> {
    fn words(&mut self, says: &Map<String, Value>) -> Test {
        for word in says.keys().filter(|word| !WORDS.contains(&word.as_str())) {
            let advice = match nearest(word, WORDS) {
                Some(near) => format!("write `{near}`"),
                None => FORMS.to_owned(),
            };
            self.wrong(
                &format!(".{word}"),
                format!("`{word}` is no condition"),
                advice,
            );
        }
        if says.is_empty() {
            self.wrong("", "it holds no condition", FORMS);
        }
        let from = (says.get("atLeast")).map(|value| (self.bound(".atLeast", value), value));
        let until = (says.get("below")).map(|value| (self.bound(".below", value), value));
        if let (Some((Some(from), first)), Some((Some(until), second))) = (&from, &until)
            && from.partial_cmp(until).is_none_or(|order| order.is_ge())
        {
            let advice = match from.partial_cmp(until) {
                Some(_) => "write a larger `below`, or one of the two",
                None => "write two numbers, or two dates or times",
            };
            let what = format!("nothing is at least {first} and below {second}");
            self.wrong("", what, advice);
        }
        let Some(not) = says.get("not") else {
            return Test::Between(
                from.and_then(|(bound, _)| bound),
                until.and_then(|(bound, _)| bound),
            );
        };
        if says.len() > 1 {
            let what = "`not` stands beside another condition";
            self.wrong(".not", what, "keep one of them");
        }
        Test::IsNot(self.values(".not", not))
    }

    fn values(&mut self, below: &str, wanted: &Value) -> Vec<Accepted> {
        match wanted {
            Value::Array(values) if values.is_empty() => {
                self.wrong(below, "it is an empty list, which names no value", PLAIN);
                Vec::new()
            }
            Value::Array(values) => {
                let values = values.iter().enumerate();
                let read =
                    values.filter_map(|(at, one)| self.value(&format!("{below}[{at}]"), one));
                read.collect()
            }
            value => self.value(below, value).into_iter().collect(),
        }
    }

    fn value(&mut self, below: &str, wanted: &Value) -> Option<Accepted> {
        match wanted {
            Value::Null => return Some(Accepted::Empty),
            Value::String(text) if text.is_empty() => return Some(Accepted::Empty),
            Value::Array(_) | Value::Object(_) => {
                self.wrong(below, "the value is nested", PLAIN);
                return None;
            }
            _ => {}
        }
        let read = match wanted {
            Value::Bool(value) => Accepted::Bool(*value),
            Value::String(text) => Accepted::Text(text.clone()),
            number => match exact(&number.to_string()) {
                Some(number) => Accepted::Number(number),
                None => {
                    let what = "the value is a number of more than 28 digits";
                    self.wrong(below, what, "write a shorter one");
                    return None;
                }
            },
        };
        match (self.shape, read) {
            (Shape::Unknown, read)
            | (Shape::Boolean, read @ Accepted::Bool(_))
            | (Shape::Number, read @ Accepted::Number(_))
            | (Shape::Time | Shape::Text | Shape::Id, read @ Accepted::Text(_))
            | (Shape::Id, read @ Accepted::Number(_)) => Some(read),
            (Shape::Date, read @ Accepted::Text(_)) if is_day(wanted) => Some(read),
            (Shape::Datetime, Accepted::Text(text)) => {
                let moment = datetime(&Json::Text(text.into()));
                if moment.is_err() {
                    self.never(below, wanted);
                }
                moment.ok().map(Accepted::Moment)
            }
            _ => {
                self.never(below, wanted);
                None
            }
        }
    }

    fn bound(&mut self, below: &str, wanted: &Value) -> Option<Bound> {
        let text = wanted.to_string();
        let json = Json::of(&text).ok();
        let Some(bound) = json.as_ref().and_then(Bound::of) else {
            if no_such_day(wanted) {
                self.no_day(below, wanted);
                return None;
            }
            let name = self.asked.name;
            let what = format!("`{wanted}` is no number, date or time to compare {name} with");
            self.wrong(below, what, RANGE);
            return None;
        };
        let fits = match bound {
            Bound::Number(_) => matches!(self.shape, Shape::Number | Shape::Id),
            Bound::Time(_) => matches!(self.shape, Shape::Date | Shape::Datetime | Shape::Text),
        };
        if fits || self.shape == Shape::Unknown {
            return Some(bound);
        }
        let declared = self.declared();
        let (what, advice) = match self.shape {
            Shape::Boolean | Shape::Time | Shape::Nested => (
                format!("{declared}, whose values have no order"),
                self.due(wanted),
            ),
            _ => {
                let is = match bound {
                    Bound::Number(_) => "a number",
                    Bound::Time(_) => "a date or time",
                };
                let advice = match self.shape {
                    Shape::Number => "write a number",
                    Shape::Text => "write a date or a time, or name values",
                    Shape::Id => "name ids",
                    _ => "write a date: 2026-01-31",
                };
                (format!("{declared}, and `{wanted}` is {is}"), advice.into())
            }
        };
        self.wrong(below, what, advice);
        None
    }

    /// Tells that no value of the field is ever this one.
    fn never(&mut self, below: &str, wanted: &Value) {
        if matches!(self.shape, Shape::Date | Shape::Datetime) && no_such_day(wanted) {
            return self.no_day(below, wanted);
        }
        let declared = self.declared();
        let what = match (self.shape, wanted) {
            (Shape::Nested, _) => format!("{declared}, which holds no plain value"),
            (Shape::Date | Shape::Datetime, Value::String(_)) => {
                format!("{declared}, and `{wanted}` is no such value")
            }
            (_, Value::Bool(_)) => format!("{declared}, and `{wanted}` is true or false"),
            (_, Value::Number(_)) => format!("{declared}, and `{wanted}` is a number"),
            _ => format!("{declared}, and `{wanted}` is a text"),
        };
        let advice = self.due(wanted);
        self.wrong(below, what, advice);
    }

    fn no_day(&mut self, below: &str, wanted: &Value) {
        let what = format!("`{wanted}` is a day that no calendar has");
        self.wrong(below, what, "write a day that there is");
    }

    fn declared(&self) -> String {
        let declared = self.asked.declared.unwrap_or("unknown");
        format!("{} is declared as {declared}", self.asked.name)
    }

    /// What can be written instead.
    fn due(&self, wanted: &Value) -> String {
        let text = wanted.as_str().unwrap_or_default();
        let plain = match self.shape {
            Shape::Boolean => matches!(text, "true" | "false"),
            Shape::Number => exact(text).is_some(),
            _ => false,
        };
        if plain {
            return format!("write `{text}`, without quotes");
        }
        let due = match self.shape {
            Shape::Boolean => "write true, false or null",
            Shape::Number => "write a number or null",
            Shape::Date => "write a date: 2026-01-31",
            Shape::Datetime => {
                "write a time with its zone (2026-01-31T09:00:00Z), or for whole days \
                 `{ atLeast: 2026-01-31, below: 2026-02-01 }`"
            }
            Shape::Time => "write a time as the source prints it, in quotes",
            Shape::Id => "write an id",
            Shape::Nested => "write null or `{ not: null }`, or ask another field",
            Shape::Text | Shape::Unknown => "put it in quotes",
        };
        due.to_owned()
    }

    fn wrong(&mut self, below: &str, what: impl Into<String>, advice: impl Into<String>) {
        self.wrong.push(Wrong {
            below: below.to_owned(),
            what: what.into(),
            advice: advice.into(),
        });
    }
}

fn is_day(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    date(&Json::Text(text.into())).is_ok()
}

/// Whether a text has the form of a day, alone or before a time, and is none:
/// `2026-02-30`.
fn no_such_day(value: &Value) -> bool {
    let day = value.as_str().and_then(|text| text.get(..10));
    let formed = |day: &&str| {
        day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    };
    let day = day.filter(formed);
    day.is_some_and(|day| date(&Json::Text(day.into())).is_err())
}
