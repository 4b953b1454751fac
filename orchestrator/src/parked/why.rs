//! `drover parked why`: from a record to what it waits for, and on to the root.

use std::collections::{BTreeMap, HashMap, HashSet};

use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::{DeadLetter, topic_key};
use drover_pipeline::envelope::Envelope;
use drover_pipeline::extract::Checkpoint;
use drover_pipeline::idempotency::{Entry, State};
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::parking::Parked;
use drover_pipeline::record::{CanonicalKey, Op};
use drover_pipeline::spec::Stage;
use drover_pipeline::topics::partition_of;
use drover_pipeline::{Code, Result};
use serde::Serialize;
use serde_json::Value;

use super::{read, reason_of, reason_text};
use crate::cli::{Format, blocking, print, print_json};
use crate::failure::Failure;
use crate::lookup::{self, latest};
use crate::migration::Bus;
use crate::offsets::Group;
use crate::table::wrap;

/// A record in the chain, and those that it waits for.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    key: String,
    /// Where it is: `parked`, `in-target`, `dead`, `absent`, `deleted-in-source`,
    /// `in-flight`, `never-seen`, `circle`.
    state: &'static str,
    /// The same for a person, with the reason.
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<Link>,
}

impl Link {
    fn end(key: &CanonicalKey, state: &'static str, text: impl Into<String>) -> Self {
        Link {
            key: key.to_string(),
            state,
            text: text.into(),
            code: None,
            waits_for: Vec::new(),
        }
    }
}

pub(super) async fn run(bus: Bus, key: String, format: Format) -> crate::failure::Result<()> {
    let (found, stands) = {
        let key = key.clone();
        blocking(move || chains(&bus, &key)).await?
    };
    if found.is_empty() {
        return Err(idle(&key, stands).into());
    }
    match format {
        Format::Json => print_json(&found),
        Format::Table => print(&found.iter().map(|link| render(link, 0)).collect::<String>()),
    }
    Ok(())
}

/// What is said of a key that does not wait: where it is instead.
fn idle(key: &str, stands: Option<String>) -> Failure {
    let advice = stands.map_or_else(
        || "`drover parked list` shows what does".to_owned(),
        |stands| format!("it is {stands}"),
    );
    Failure::new(
        Code::UnknownRecord,
        format!("`{key}` does not wait"),
        advice,
    )
}

/// What waits under that key, with what it waits for; where nothing does, where the
/// record is.
fn chains(bus: &Bus, key: &str) -> Result<(Vec<Link>, Option<String>)> {
    let look = Look::open(bus)?;
    let keys: Vec<CanonicalKey> = look
        .parked
        .keys()
        .filter(|found| lookup::names(found, key))
        .filter_map(|found| CanonicalKey::parse(found))
        .collect();
    if keys.is_empty() {
        return Ok((Vec::new(), look.stands(key)?));
    }
    let links = keys
        .iter()
        .map(|key| look.follow(key, &mut Vec::new(), &mut HashSet::new()));
    Ok((links.collect::<Result<_>>()?, None))
}

/// That a record is dead, and where that is told.
fn dead(letter: &DeadLetter) -> String {
    let (code, message, key) = (&letter.code, &letter.message, &letter.key);
    let stage = letter.stage.as_str();
    format!("dead ({stage}): {code}: {message}; `drover deadletter show '{key}'`")
}

/// What the chain is followed in. The small tables are read whole; of the large
/// topics only the partition of the key in question.
struct Look<'b> {
    bus: &'b Bus,
    plan: Plan,
    parked: BTreeMap<String, Parked>,
    letters: HashMap<String, DeadLetter>,
    checkpoints: HashMap<String, Checkpoint>,
}

impl<'b> Look<'b> {
    fn open(bus: &'b Bus) -> Result<Self> {
        // First: of a migration that was not initialised every topic is missing.
        let plan = Plan::read(&bus.client, &bus.topics)?;
        let mut letters = HashMap::new();
        for (key, value) in read_to_end(&bus.client, &bus.topics.deadletter())? {
            if let Ok(letter) = serde_json::from_slice(&value) {
                letters.insert(String::from_utf8_lossy(&key).into_owned(), letter);
            }
        }
        let mut checkpoints = HashMap::new();
        for (key, value) in read_to_end(&bus.client, &bus.topics.checkpoint())? {
            let key = String::from_utf8_lossy(&key).into_owned();
            let object = key
                .split_once('/')
                .map_or(key.as_str(), |(_, object)| object);
            if let Ok(checkpoint) = serde_json::from_slice(&value) {
                checkpoints.insert(object.to_owned(), checkpoint);
            }
        }
        Ok(Look {
            plan,
            parked: read(bus)?,
            letters,
            checkpoints,
            bus,
        })
    }

    /// `path` is what led here: what stands in it already closes a circle.
    /// `told` is what was followed before, in another branch.
    fn follow(
        &self,
        key: &CanonicalKey,
        path: &mut Vec<CanonicalKey>,
        told: &mut HashSet<CanonicalKey>,
    ) -> Result<Link> {
        if let Some(from) = path.iter().position(|before| before == key) {
            let circle: Vec<String> = path[from..].iter().map(ToString::to_string).collect();
            let text = format!(
                "a circle: {} requires {key} in the end; none of them can be first",
                circle.join(", which requires ")
            );
            return Ok(Link::end(key, "circle", text));
        }
        let Some(parked) = self.parked.get(key.as_str()).filter(|_| {
            // The root of the question is told whatever it has in the target.
            path.is_empty() || !self.is_in_target(key).unwrap_or(false)
        }) else {
            return self.standing(key);
        };
        let mut link = Link::end(key, "parked", format!("waits {}", waits(parked)));
        if !told.insert(key.clone()) {
            return Ok(link);
        }
        path.push(key.clone());
        for parent in parked.reason.parents() {
            link.waits_for.push(self.follow(parent, path, told)?);
        }
        path.pop();
        Ok(link)
    }

    /// Where a record is that does not wait, by its key with its slot or without.
    fn stands(&self, key: &str) -> Result<Option<String>> {
        if let Some(letter) = self
            .letters
            .values()
            .find(|letter| lookup::names(&letter.key, key))
        {
            return Ok(Some(dead(letter)));
        }
        let Some(key) = CanonicalKey::parse(key) else {
            return Ok(None);
        };
        Ok(Some(self.standing(&key)?.text))
    }

    fn entry(&self, key: &CanonicalKey) -> Result<Option<Entry>> {
        let topic = self.bus.topics.idempotency();
        Ok(self
            .newest(&topic, key.as_str())?
            .and_then(|(_, value)| serde_json::from_slice(&value).ok()))
    }

    fn is_in_target(&self, key: &CanonicalKey) -> Result<bool> {
        Ok(self
            .entry(key)?
            .is_some_and(|entry| entry.target_id.is_some()))
    }

    fn newest(&self, topic: &str, key: &str) -> Result<Option<(i64, Vec<u8>)>> {
        let partitions = self.bus.topics.partitions();
        let mut found = latest(&self.bus.client, topic, partitions, &[key])?;
        Ok(found
            .pop()
            .flatten()
            .and_then(|found| Some((found.offset, found.value?))))
    }

    /// Where a record is that does not wait.
    fn standing(&self, key: &CanonicalKey) -> Result<Link> {
        let (_, object, _, slot) = key.parts();
        let raw = key.as_str().rsplit_once('#').map_or("", |(raw, _)| raw);
        if let Some(entry) = self.entry(key)? {
            if entry.target_id.is_some() && !matches!(entry.state, State::Deleted { .. }) {
                let text = "in the target: what waits for it goes on with its owner's next batch";
                return Ok(Link::end(key, "in-target", text));
            }
            match entry.state {
                State::Deleted { reason } => {
                    let reason = serde_json::to_value(reason).unwrap_or_default();
                    let text = match reason.as_str().unwrap_or_default() {
                        "deleted" => "deleted in the source, so the target has none".to_owned(),
                        "filtered" => "left out by the mapping's filter".to_owned(),
                        other => format!("the target rightly has none: {other}"),
                    };
                    return Ok(Link::end(key, "absent", text));
                }
                State::Pending { .. } => {
                    let text = "in flight: a loader is sending it, or asks what became of it";
                    return Ok(Link::end(key, "in-flight", text));
                }
                State::Applied => {}
            }
        }
        for (stage, its) in [
            (Stage::Loader, key.as_str()),
            (Stage::Transformer, raw),
            (Stage::Extractor, raw),
        ] {
            if let Some(letter) = self.letters.get(&topic_key(stage, its)) {
                return Ok(Link {
                    code: Some(letter.code.clone()),
                    ..Link::end(key, "dead", dead(letter))
                });
            }
        }
        let Some(object) = self.plan.objects.iter().find(|known| known.name == object) else {
            let text = format!("never seen: {object} is not among this migration's objects");
            return Ok(Link::end(key, "never-seen", text));
        };
        let entity = self
            .plan
            .mapping
            .of(object)
            .and_then(|rules| rules.slots.get(slot))
            .map(|slot| &slot.entity);
        if let Some(entity) = entity {
            let topic = self.bus.topics.canonical(entity);
            if let Some((offset, _)) = self.newest(&topic, key.as_str())? {
                let group = self.bus.topics.load_group();
                let text = match self.is_behind(&group, &topic, key.as_str(), offset)? {
                    true => "in flight: transformed, and not loaded yet",
                    false => "transformed, and passed by the loader: this target takes none of it",
                };
                return Ok(Link::end(key, "in-flight", text));
            }
        }
        let topic = self.bus.topics.raw(&object.name, object.custom);
        if let Some((_, value)) = self.newest(&topic, raw)? {
            let deleted = Envelope::decode(&value).is_ok_and(|e| e.op == Op::Delete);
            return Ok(match deleted {
                true => Link::end(key, "deleted-in-source", "deleted in the source"),
                false => Link::end(
                    key,
                    "in-flight",
                    "in flight: extracted, and not transformed yet",
                ),
            });
        }
        let name = &object.name;
        let complete = self
            .checkpoints
            .get(name)
            .is_some_and(|checkpoint| checkpoint.snapshot_complete);
        let text = match complete {
            false => format!("not extracted yet: the first copy of {name} is not complete"),
            true => format!(
                "never seen, although {name} is copied whole: the source shows no such record \
                 to the migration's user"
            ),
        };
        Ok(Link::end(key, "never-seen", text))
    }

    /// Whether the group has not come as far as that offset yet.
    fn is_behind(&self, group: &str, topic: &str, key: &str, offset: i64) -> Result<bool> {
        let partition = partition_of(key.as_bytes(), self.bus.topics.partitions());
        let place = Place::new(topic, partition);
        let committed = Group::open(&self.bus.client, group)?.committed(std::iter::once(&place))?;
        Ok(committed.get(&place).is_none_or(|at| *at <= offset))
    }
}

fn waits(parked: &Parked) -> String {
    let reason: Value = reason_of(parked);
    reason_text(&reason)
}

fn render(link: &Link, depth: usize) -> String {
    // A chain is seldom deep; a deep one is not pushed off the screen.
    let indent = " ".repeat(2 * depth.min(16));
    let mut text = format!("{indent}{}\n", link.key);
    text.push_str(&wrap(&link.text, &format!("{indent}  ")));
    for parent in &link.waits_for {
        text.push_str(&render(parent, depth + 1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_record_is_told_as_dead() {
        let key = "s/Case/1#ticket";
        let letter = drover_pipeline::testing::letter(key, Code::TooLong, 1, b"x");
        assert_eq!(
            idle(key, Some(dead(&letter))).to_string(),
            "UNKNOWN_RECORD: `s/Case/1#ticket` does not wait; it is dead (loader): TOO_LONG: no; \
             `drover deadletter show 's/Case/1#ticket'`"
        );
        assert!(
            idle("x", None)
                .to_string()
                .ends_with("`drover parked list` shows what does")
        );
    }

    #[test]
    fn a_chain_reads_from_the_record_to_its_root() {
        let key = |text: &str| CanonicalKey::parse(text).expect("a key");
        let mut child = Link::end(
            &key("s/Case/1#ticket"),
            "parked",
            "waits for s/Contact/2#contact",
        );
        let mut middle = Link::end(
            &key("s/Contact/2#contact"),
            "parked",
            "waits for s/Account/3#company",
        );
        middle.waits_for.push(Link::end(
            &key("s/Account/3#company"),
            "dead",
            "dead (loader): TOO_LONG: no",
        ));
        child.waits_for.push(middle);
        assert_eq!(
            render(&child, 0),
            "s/Case/1#ticket\n  waits for s/Contact/2#contact\n  s/Contact/2#contact\n    \
             waits for s/Account/3#company\n    s/Account/3#company\n      dead (loader): \
             TOO_LONG: no\n"
        );
    }
}
