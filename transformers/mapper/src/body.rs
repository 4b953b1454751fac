//! A record's body, read in one pass into places of the object's plan. Values
//! stay where they lie; nothing is decoded that nobody asks for.

use std::borrow::Cow;
use std::fmt;

use drover_pipeline::{Code, Error};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::is_empty;
use crate::plan::ObjectPlan;

/// The top level of a body, by the object's plan.
pub struct Body<'a> {
    /// The raw JSON of the plan's fields, by their place.
    known: Vec<Option<&'a str>>,
    /// Fields that the plan doesn't know, sorted by name.
    pub foreign: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Body<'a> {
    /// Reads a body. Of a name that comes twice the last one counts, as
    /// everywhere in JSON.
    pub fn read(plan: &ObjectPlan, bytes: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::new(
                Code::InvalidUtf8,
                format!(
                    "the body is not UTF-8 at byte {} of {}",
                    error.valid_up_to(),
                    bytes.len()
                ),
            )
            .at(plan.name.as_str())
        })?;
        let mut reader = serde_json::Deserializer::from_str(text);
        Fields { plan }
            .deserialize(&mut reader)
            .and_then(|body| reader.end().map(|()| body))
            .map_err(|error| {
                // serde_json's own text may quote the value.
                let what = match error.classify() {
                    serde_json::error::Category::Eof => "JSON that is cut off",
                    serde_json::error::Category::Data => "JSON, but no object",
                    _ => "no JSON",
                };
                Error::new(
                    Code::InvalidBody,
                    format!(
                        "the body of {} bytes is {what} (line {}, column {})",
                        bytes.len(),
                        error.line(),
                        error.column()
                    ),
                )
                .at(plan.name.as_str())
            })
    }

    /// The raw JSON of a field that is filled.
    pub fn filled(&self, field: usize) -> Option<&'a str> {
        self.known
            .get(field)
            .copied()
            .flatten()
            .filter(|raw| !is_empty(raw))
    }

    /// Every filled field of the plan, by its place.
    pub fn all_filled(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let known = self.known.iter().enumerate();
        known.filter_map(|(at, raw)| raw.filter(|raw| !is_empty(raw)).map(|raw| (at, raw)))
    }
}

/// Reads the object of a plan.
struct Fields<'p> {
    plan: &'p ObjectPlan,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Body<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Body<'de>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut known = vec![None; self.plan.fields.len()];
        let mut foreign = Vec::new();
        let mut last = self.plan.fields.len();
        while let Some(name) = map.next_key_seed(Name {
            plan: self.plan,
            last,
        })? {
            let raw = map.next_value::<&'de RawValue>()?.get();
            match name {
                Key::Known(place) => {
                    last = place;
                    match known.get_mut(place) {
                        Some(field) => *field = Some(raw),
                        None => return Err(A::Error::custom("a place outside the plan")),
                    }
                }
                Key::Foreign(name) => foreign.push((name, raw)),
            }
        }
        if !foreign.is_empty() {
            foreign.reverse();
            foreign.sort_by(|a: &(Cow<'_, str>, &str), b| a.0.cmp(&b.0));
            foreign.dedup_by(|later, first| later.0 == first.0);
            foreign.retain(|(_, raw)| !is_empty(raw));
        }
        Ok(Body { known, foreign })
    }
}

enum Key<'a> {
    Known(usize),
    Foreign(Cow<'a, str>),
}

/// Reads a name and looks it up at once, so that a known one is never copied.
struct Name<'p> {
    plan: &'p ObjectPlan,
    last: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Key<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Key<'de>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
        Ok(match self.plan.place_behind(self.last, name) {
            Some(place) => Key::Known(place),
            None => Key::Foreign(Cow::Borrowed(name)),
        })
    }

    fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
        Ok(match self.plan.place_behind(self.last, name) {
            Some(place) => Key::Known(place),
            None => Key::Foreign(Cow::Owned(name.to_owned())),
        })
    }
}
