//! What a dry run has found: of each object and entity how much would be loaded,
//! what would not and why, and which filled fields nothing maps. Counted from
//! the topics themselves, not from what the processes say.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use drover_pipeline::Result;
use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::kafka::compacted::{read_to_end, scan};
use drover_pipeline::record::Op;
use drover_schemas::Datum;
use serde::Serialize;

use crate::migration::Bus;
use crate::table::{Column, folded, number, table, wrap};
use crate::view::View;

/// An object in an entity.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) object: String,
    /// Empty for records that did not become any.
    pub(crate) entity: String,
    /// Records that would be written to the target.
    pub(crate) would_load: u64,
    /// Records that rightly give nothing here, by the reason.
    pub(crate) absent: BTreeMap<String, u64>,
    /// By filled source field without a mapping, the records it would fill
    /// `custom` with.
    pub(crate) custom: BTreeMap<String, u64>,
}

/// What a dry run has found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// By object and code, the records that could not be mapped.
    pub(crate) rejected: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What the newest version of a key is.
struct Newest {
    object: u32,
    /// The reason why it is absent; `None` when it would be loaded.
    absent: Option<String>,
    custom: Vec<u32>,
}

/// Names as small numbers: ten million keys must fit beside them.
#[derive(Default)]
struct Names(Vec<String>, HashMap<String, u32>);

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(known) = self.1.get(name) {
            return *known;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(name.to_owned());
        self.1.insert(name.to_owned(), number);
        number
    }
}

/// Why a record is absent that a filter lets go, the migration's or the connector's.
const FILTERED: &str = "filtered";

/// Counts what lies in the topics.
pub(crate) fn count(bus: &Bus, plan: &Plan) -> Result<Report> {
    let mut report = Report::default();
    for entity in &plan.entities {
        report.rows.extend(count_entity(bus, entity)?.into_values());
    }
    for value in read_to_end(&bus.client, &bus.topics.deadletter())?.into_values() {
        if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&value) {
            let codes = report.rejected.entry(letter.object).or_default();
            *codes.entry(letter.code).or_default() += 1;
        }
    }
    report
        .rows
        .sort_by(|a, b| (&a.object, &a.entity).cmp(&(&b.object, &b.entity)));
    Ok(report)
}

fn count_entity(bus: &Bus, name: &str) -> Result<BTreeMap<u32, Row>> {
    let entity = drover_schemas::entity(name);
    let hasher = RandomState::new();
    let bodies = bus.bodies()?;
    let (mut objects, mut fields) = (Names::default(), Names::default());
    let mut newest: HashMap<u64, Newest> = HashMap::new();
    scan(
        &bus.client,
        &bus.topics.canonical(name),
        |_, _, key, value| {
            let hash = hasher.hash_one(key);
            // What can't be read is the loader's to refuse.
            let Some(Ok(envelope)) = value.map(Envelope::decode) else {
                newest.remove(&hash);
                return;
            };
            let read = envelope.stored.as_ref();
            let read = read.and_then(|stored| bodies.as_ref()?.get_now(stored).ok());
            let datum = match (envelope.body.or(read.as_deref()), entity) {
                (Some(body), Some(entity)) => Datum::decode(entity, body).ok(),
                _ => None,
            };
            let custom = datum.map_or_else(Vec::new, |datum| {
                let names = datum.custom.iter();
                names.map(|field| fields.number(&field.name)).collect()
            });
            let absent = (envelope.op == Op::Absent).then(|| {
                let reason = serde_json::to_value(envelope.reason).unwrap_or_default();
                reason.as_str().unwrap_or("deleted").to_owned()
            });
            let object = objects.number(envelope.object);
            newest.insert(
                hash,
                Newest {
                    object,
                    absent,
                    custom,
                },
            );
        },
    )?;
    let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
    for key in newest.into_values() {
        let row = rows.entry(key.object).or_insert_with(|| Row {
            object: objects.0[key.object as usize].clone(),
            entity: name.to_owned(),
            ..Row::default()
        });
        match key.absent {
            Some(reason) => *row.absent.entry(reason).or_default() += 1,
            None => row.would_load += 1,
        }
        for field in key.custom {
            let field = fields.0[field as usize].clone();
            *row.custom.entry(field).or_default() += 1;
        }
    }
    Ok(rows)
}

impl Report {
    /// As tables and lists of 80 columns.
    pub(crate) fn render(&self, view: &View) -> String {
        let extracted = view.objects.iter().map(|o| (o.object.clone(), o.extracted));
        self.tables(&extracted.collect())
    }

    /// The view as JSON, with this in it.
    pub(crate) fn beside(&self, view: &View) -> serde_json::Value {
        let mut json = serde_json::to_value(view).unwrap_or_default();
        json["dryRunReport"] = serde_json::to_value(self).unwrap_or_default();
        json
    }

    fn tables(&self, extracted: &BTreeMap<String, u64>) -> String {
        let columns = [
            Column::Text("OBJECT"),
            Column::Text("ENTITY"),
            Column::Number("EXTRACTED"),
            Column::Number("WOULD LOAD"),
            Column::Number("ABSENT"),
            Column::Number("REJECTED"),
        ];
        let mut cells = Vec::new();
        let is_empty = |object: &String, read: u64| {
            let mut rows = self.rows.iter();
            read == 0 && !self.rejected.contains_key(object) && !rows.any(|r| r.object == *object)
        };
        let empty = extracted.iter().filter(|(o, read)| is_empty(o, **read));
        let fold = folded(empty.count(), extracted.len());
        for (object, read) in extracted {
            if fold.is_some() && is_empty(object, *read) {
                continue;
            }
            let rejected = self.rejected.get(object);
            let rejected: u64 = rejected.map_or(0, |codes| codes.values().sum());
            let mut rows = self
                .rows
                .iter()
                .filter(|row| row.object == *object)
                .peekable();
            if rows.peek().is_none() {
                let row = [
                    object.clone(),
                    "-".into(),
                    number(*read),
                    "0".into(),
                    "0".into(),
                ];
                cells.push([row.to_vec(), vec![number(rejected)]].concat());
            }
            for row in rows {
                cells.push(vec![
                    object.clone(),
                    row.entity.clone(),
                    number(*read),
                    number(row.would_load),
                    number(row.absent.values().sum()),
                    number(rejected),
                ]);
            }
        }
        let mut text = table(&columns, &cells) + &fold.unwrap_or_default();
        text.push_str("References are not followed: what lacks a parent is counted as loaded.\n");
        let list = |counts: &BTreeMap<String, u64>| {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
            let listed = counts.iter().map(|(name, count)| format!("{name} {count}"));
            listed.collect::<Vec<_>>().join(", ")
        };
        let mut section = |title: &str, lines: Vec<(String, String)>| {
            if !lines.is_empty() {
                text.push_str(&format!("\n{title}\n"));
            }
            for (name, counts) in lines {
                text.push_str(&wrap(&format!("{name}: {counts}"), "  "));
            }
        };
        let of = |row: &Row| format!("{} to {}", row.object, row.entity);
        let rows = || self.rows.iter();
        section(
            "rejected, by code (see `drover deadletter list`)",
            self.rejected
                .iter()
                .map(|(object, codes)| (object.clone(), list(codes)))
                .collect(),
        );
        section(
            match rows().any(|row| row.absent.contains_key(FILTERED)) {
                true => {
                    "absent, by reason (filtered: by `$where`, or by the connector's own mapping)"
                }
                false => "absent, by reason",
            },
            rows()
                .filter(|row| !row.absent.is_empty())
                .map(|row| (of(row), list(&row.absent)))
                .collect(),
        );
        section(
            "filled fields without a mapping, which go to `custom`",
            rows()
                .filter(|row| !row.custom.is_empty())
                .map(|row| (of(row), list(&row.custom)))
                .collect(),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_filters_let_go_says_whose_filters() {
        let row = Row {
            object: "Contact".into(),
            entity: "contact".into(),
            absent: BTreeMap::from([(FILTERED.into(), 2)]),
            ..Row::default()
        };
        let report = Report {
            rows: vec![row],
            rejected: BTreeMap::new(),
        };
        let text = report.tables(&BTreeMap::from([("Contact".to_owned(), 2)]));
        let due = "\nabsent, by reason (filtered: by `$where`, or by the connector's own mapping)\n  \
                   Contact to contact: filtered 2\n";
        assert!(text.ends_with(due), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        // The word that the topics have.
        let word = serde_json::to_value(drover_pipeline::record::AbsentReason::Filtered);
        assert_eq!(word.expect("a word"), FILTERED);
    }

    #[test]
    fn a_report_says_what_would_load_and_what_not() {
        let report = Report {
            rows: vec![Row {
                object: "Contact".into(),
                entity: "contact".into(),
                would_load: 7,
                absent: BTreeMap::from([("slot-empty".into(), 2), ("deleted".into(), 1)]),
                custom: BTreeMap::from([("Level__c".into(), 3), ("Fax".into(), 5)]),
            }],
            rejected: BTreeMap::from([(
                "Contact".into(),
                BTreeMap::from([("TOO_LONG".into(), 2)]),
            )]),
        };
        let extracted = BTreeMap::from([("Contact".to_owned(), 12), ("Lead".to_owned(), 0)]);
        assert_eq!(
            report.tables(&extracted),
            "OBJECT   ENTITY   EXTRACTED  WOULD LOAD  ABSENT  REJECTED\n\
             Contact  contact         12           7       3         2\n\
             Lead     -                0           0       0         0\n\
             References are not followed: what lacks a parent is counted as loaded.\n\
             \n\
             rejected, by code (see `drover deadletter list`)\n  \
             Contact: TOO_LONG 2\n\
             \n\
             absent, by reason\n  \
             Contact to contact: slot-empty 2, deleted 1\n\
             \n\
             filled fields without a mapping, which go to `custom`\n  \
             Contact to contact: Fax 5, Level__c 3\n"
        );
    }
}
