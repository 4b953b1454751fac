//! One record's life as text.

use chrono::DateTime;
use drover_pipeline::idempotency::{Entry, State};
use drover_pipeline::parking::Reason;
use drover_pipeline::record::Millis;
use serde_json::Value as Json;

use super::life::{Dead, Life, SlotLife, Target, Version};
use crate::table::{Column, table, wrap};

/// A time, to the millisecond, in UTC.
pub(super) fn time(at: Millis) -> String {
    DateTime::from_timestamp_millis(at).map_or_else(
        || at.to_string(),
        |time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// A day, from days since 1970.
pub(super) fn date(days: i32) -> String {
    DateTime::from_timestamp(i64::from(days) * 86_400, 0).map_or_else(
        || days.to_string(),
        |time| time.format("%Y-%m-%d").to_string(),
    )
}

pub(super) fn render(life: &Life) -> String {
    let mut text = format!("{}\n", life.key);
    match life.raw.first() {
        None => text.push_str("\nraw: no version in the log\n"),
        Some(first) => {
            text.push_str(&format!("\nraw, {}[{}]\n", first.topic, first.partition));
            text.push_str(&versions(&life.raw));
        }
    }
    for letter in &life.letters {
        text.push_str(&dead(letter));
    }
    for slot in &life.slots {
        text.push_str(&slot_life(slot));
    }
    text.push_str(&newest("raw", &life.raw));
    for slot in &life.slots {
        text.push_str(&newest(
            &format!("canonical {}", slot.entity),
            &slot.canonical,
        ));
        if let Some(Target::Answer(answer)) = &slot.target {
            text.push_str(&body("target", answer.row.as_ref()));
        }
    }
    text
}

fn slot_life(slot: &SlotLife) -> String {
    let mut text = format!("\n{}\n", slot.key);
    let mut line = |name: &str, what: String| {
        let indented = wrap(&what, "             ");
        text.push_str(&format!("  {name:<11}{}", indented.trim_start()));
        if what.is_empty() {
            text.push('\n');
        }
    };
    line("place", slot.place.clone());
    if let Some(wrong) = &slot.wrong {
        line("", wrong.clone());
    }
    line(
        "entry",
        slot.entry
            .as_ref()
            .map_or_else(none, |e| entry(e, slot.entry_at)),
    );
    if let Some(parked) = &slot.parked {
        let waits = match &parked.reason {
            Reason::Parent { parent } => format!("for {parent}"),
            Reason::Link { parents } => {
                let keys: Vec<&str> = parents.iter().map(|key| key.as_str()).collect();
                format!("applied, for the links to {}", keys.join(", "))
            }
            Reason::Dropped { parents } => {
                let keys: Vec<&str> = parents.iter().map(|key| key.as_str()).collect();
                format!(
                    "applied, without links that never come: {}",
                    keys.join(", ")
                )
            }
            Reason::Lease => "for what became of an earlier request".to_owned(),
        };
        line("parked", format!("{waits}, since {}", time(parked.since)));
    }
    if let Some(at) = slot.redo_at {
        line("redo", format!("asked to be applied again at {}", time(at)));
    }
    line(
        "target",
        match &slot.target {
            None => "not asked".to_owned(),
            Some(Target::Silent { error }) => error.clone(),
            Some(Target::Answer(answer)) => match (&answer.id, answer.order) {
                (Some(id), Some(order)) => {
                    format!(
                        "{id}, version {}, offset {}",
                        time(order.version),
                        order.offset
                    )
                }
                (Some(id), None) => id.clone(),
                (None, _) if answer.row.is_some() => "only under the entry's id".to_owned(),
                (None, _) => none(),
            },
        },
    );
    for difference in &slot.differences {
        line("differs", difference.clone());
    }
    if let Some(letter) = &slot.letter {
        text.push_str(&dead(letter));
    }
    if let Some(first) = slot.canonical.first() {
        text.push_str(&format!(
            "  canonical, {}[{}]\n",
            first.topic, first.partition
        ));
        text.push_str(&versions(&slot.canonical));
    }
    text
}

fn none() -> String {
    "none".to_owned()
}

fn entry(entry: &Entry, at: Option<Millis>) -> String {
    let state = match &entry.state {
        State::Applied => "applied".to_owned(),
        State::Deleted { reason } => format!("absent ({})", reason.as_str()),
        State::Pending { since, .. } => format!("pending since {}", time(*since)),
    };
    let id = entry
        .target_id
        .as_ref()
        .map_or_else(String::new, |id| format!(", target id {id}"));
    let order = entry.order;
    let written = at.map_or_else(String::new, |at| format!(", written {}", time(at)));
    format!(
        "{state}, version {}, offset {}{id}{written}",
        time(order.version),
        order.offset
    )
}

fn dead(letter: &Dead) -> String {
    let place = letter
        .place
        .as_ref()
        .map_or_else(String::new, |place| format!(" at {place}"));
    let what = format!(
        "dead since {} in the {}: {}{place}: {}",
        time(letter.at),
        letter.stage,
        letter.code,
        letter.message
    );
    wrap(&what, "  ")
}

fn versions(versions: &[Version]) -> String {
    let columns = [
        Column::Number("  OFFSET"),
        Column::Text("WRITTEN"),
        Column::Text("VERSION"),
        Column::Text("WHAT"),
        Column::Number("BYTES"),
    ];
    let rows: Vec<Vec<String>> = versions
        .iter()
        .map(|version| {
            let what = match (version.op, version.reason) {
                (Some(_), Some(reason)) => reason.as_str().to_owned(),
                (Some(op), None) => format!("{op:?}").to_lowercase(),
                (None, _) if version.bytes == 0 => "tombstone".to_owned(),
                (None, _) => "foreign".to_owned(),
            };
            let moving = if version.committed { "" } else { ", moving" };
            vec![
                version.offset.to_string(),
                version.at.map_or_else(String::new, time),
                version.version.map_or_else(String::new, time),
                format!("{what}{moving}"),
                version.bytes.to_string(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

/// The newest body, or where it is.
fn newest(title: &str, versions: &[Version]) -> String {
    let has = |version: &&Version| version.body.is_some() || version.stored.is_some();
    match versions.iter().rev().find(has) {
        None => String::new(),
        Some(version) => match &version.stored {
            Some(stored) => format!("\n{title}\n{}", wrap(stored, "    ")),
            None => body(title, version.body.as_ref()),
        },
    }
}

/// A body, a field a line; masked values are told once.
fn body(title: &str, body: Option<&Json>) -> String {
    let Some(Json::Object(fields)) = body else {
        return String::new();
    };
    let masked = fields.values().all(|v| v.is_null() || !said(v));
    let mut text = format!("\n{title}\n");
    if masked {
        let names: Vec<&str> = fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name.as_str())
            .collect();
        let names = format!("{} (--bodies shows their values)", names.join(", "));
        text.push_str(&wrap(&names, "    "));
        return text;
    }
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let value = match value {
            Json::String(value) => value.clone(),
            other => other.to_string(),
        };
        text.push_str(&wrap(&format!("{name}: {value}"), "    "));
    }
    text
}

/// Whether anything of a value can be read.
fn said(value: &Json) -> bool {
    match value {
        Json::Object(fields) => fields.values().any(said),
        Json::Array(values) => values.iter().any(said),
        Json::Null => false,
        Json::String(text) => text != super::life::MASK,
        _ => true,
    }
}
