//! In what a record's canonical form, its entry and the target's row differ.

use drover_pipeline::idempotency::State;
use drover_pipeline::record::{Op, Order};
use serde_json::Value as Json;

use super::life::{SlotLife, Target, Version};
use super::show::time;

/// One line a difference. Fields are compared where the row has a column of the
/// same name, whatever its case and underscores; `bodies` shows their values.
pub(super) fn differences(slot: &SlotLife, bodies: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let newest = slot
        .canonical
        .iter()
        .filter(|version| version.op.is_some())
        .max_by_key(|version| (version.version, version.mapping, version.offset));
    if let (Some(newest), Some(entry)) = (newest, &slot.entry) {
        let newer = (newest.version, newest.mapping.unwrap_or(0), newest.offset);
        let known = (
            Some(entry.order.version),
            entry.order.mapping,
            entry.order.offset,
        );
        let same_version = newest.version == Some(entry.order.version);
        if newer > known && !same_version {
            lines.push(format!(
                "the entry knows version {}, the canonical record is of version {}",
                time(entry.order.version),
                time(newest.version.unwrap_or_default())
            ));
        } else if newer > known && newest.fingerprint != Some(entry.fingerprint) {
            // The same content once more is no difference: only where it lies.
            let what = match newest.mapping == Some(entry.order.mapping) {
                true => "by the same mapping".to_owned(),
                false => format!(
                    "by mapping generation {}, not {}",
                    newest.mapping.unwrap_or_default(),
                    entry.order.mapping
                ),
            };
            let judged = match newest.committed {
                true => "",
                false => "; the loader has not come to it",
            };
            lines.push(format!(
                "the canonical record at offset {} has another content than the entry's at \
                 offset {}: the same version of the source, {what}{judged}",
                newest.offset, entry.order.offset
            ));
        }
    }
    let Some(Target::Answer(answer)) = &slot.target else {
        return lines;
    };
    let entry = slot.entry.as_ref();
    let applied = entry.is_some_and(|entry| entry.state == State::Applied);
    let known = entry.and_then(|entry| entry.target_id.as_ref());
    match (known, &answer.id) {
        (Some(known), Some(found)) if known != found => lines.push(format!(
            "the entry names the target's record {known}, the target has {found} under the key"
        )),
        (_, None) if applied && answer.row.is_none() => {
            lines.push("the entry says applied, the target has no record".to_owned());
        }
        (None, Some(found)) => lines.push(format!(
            "the target has the record {found}, the entry names none"
        )),
        _ => {}
    }
    // What has not changed is not written again, after a remap or a second look:
    // the row is then of an earlier order and the same version, and its fields
    // tell whether it is right.
    if let (Some(entry), Some(order)) = (entry.filter(|_| applied), answer.order)
        && plain(order) != plain(entry.order)
        && (order.version != entry.order.version || answer.row.is_none())
    {
        lines.push(format!(
            "the target's record is of version {} (offset {}), the entry of {} (offset {})",
            time(order.version),
            order.offset,
            time(entry.order.version),
            entry.order.offset
        ));
    }
    if let (Some(newest), Some(Json::Object(row))) = (newest, &answer.row) {
        lines.extend(fields(newest, row, bodies));
    }
    lines
}

/// An order as the target keeps it: links that came later count as `reapply`.
fn plain(order: Order) -> Order {
    Order {
        reapply: 0,
        ..order
    }
}

fn fields(newest: &Version, row: &serde_json::Map<String, Json>, bodies: bool) -> Vec<String> {
    let (Some(Op::Upsert), Some(Json::Object(body))) = (newest.op, &newest.body) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (column, there) in row {
        let field = body.iter().find(|(name, _)| folded(name) == folded(column));
        let Some((name, here)) = field else {
            continue;
        };
        // A reference holds a key here and an id there.
        let is_key = here
            .as_str()
            .is_some_and(|text| drover_pipeline::record::CanonicalKey::parse(text).is_some());
        let same = match is_key {
            true => !there.is_null(),
            false => same(here, there),
        };
        if same {
            continue;
        }
        lines.push(match (bodies, is_key, there.is_null()) {
            (true, ..) => format!("{name}: {here} here, {there} in the target"),
            (false, true, _) => format!("{name}: the link is not in the target"),
            (false, false, true) => format!("{name}: empty in the target"),
            (false, false, false) => format!("{name}: another value in the target"),
        });
    }
    lines
}

fn folded(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

/// Whether two values say the same, whatever type the target gives them.
fn same(here: &Json, there: &Json) -> bool {
    if here == there {
        return true;
    }
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (here, there) = (text(here), text(there));
    let moment =
        |text: &str| chrono::DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis());
    here == there
        || matches!((moment(&here), moment(&there)), (Ok(one), Ok(other)) if one == other)
        || matches!((decimal(&here), decimal(&there)), (Some(one), Some(other)) if one == other)
}

/// A plain decimal without the zeros that say nothing.
fn decimal(text: &str) -> Option<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !plain {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some(format!("{whole}.{}", fraction.trim_end_matches('0')))
}

#[cfg(test)]
mod tests {
    use drover_pipeline::idempotency::Entry;
    use drover_pipeline::load::ask::Answer;
    use drover_pipeline::record::Fingerprint;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_compared_by_what_they_say() {
        for (here, there) in [
            (json!("12.50"), json!(12.5)),
            (json!("12"), json!("12.00")),
            (
                json!("2026-01-02T03:04:05.000Z"),
                json!("2026-01-02T04:04:05+01:00"),
            ),
            (json!(true), json!(true)),
            (json!("x"), json!("x")),
        ] {
            assert!(same(&here, &there), "{here} {there}");
        }
        for (here, there) in [
            (json!("12.50"), json!(12.05)),
            (json!("x"), json!("y")),
            (json!("x"), json!(null)),
            (
                json!("2026-01-02T03:04:05.000Z"),
                json!("2026-01-02T03:04:05+01:00"),
            ),
        ] {
            assert!(!same(&here, &there), "{here} {there}");
        }
    }

    #[test]
    fn the_same_version_at_another_offset_differs_only_by_its_content() {
        let told = |offset, mapping, fingerprint: u8, version| {
            let mut slot = SlotLife {
                entry: Some(Entry {
                    order: Order {
                        version: 5,
                        mapping: 1,
                        offset: 24,
                        ..Order::default()
                    },
                    fingerprint: Fingerprint([1; 16]),
                    state: State::Applied,
                    target_id: None,
                    first_touch: None,
                    unknown: serde_json::Map::new(),
                }),
                ..SlotLife::default()
            };
            slot.canonical.push(Version {
                topic: "t".into(),
                partition: 0,
                offset,
                at: None,
                committed: false,
                op: Some(Op::Upsert),
                reason: None,
                version: Some(version),
                phase: None,
                extracted_at: None,
                mapping: Some(mapping),
                fingerprint: Some(Fingerprint([fingerprint; 16])),
                bytes: 1,
                body: None,
                stored: None,
            });
            differences(&slot, false)
        };
        // Read again, or mapped anew to the same: it is no difference.
        assert_eq!(told(25, 1, 1, 5), [""; 0]);
        assert_eq!(told(25, 2, 1, 5), [""; 0]);
        assert_eq!(
            told(25, 2, 9, 5),
            [
                "the canonical record at offset 25 has another content than the entry's at \
              offset 24: the same version of the source, by mapping generation 2, not 1; \
              the loader has not come to it"
            ]
        );
        let newer = told(25, 1, 9, 6);
        assert!(newer[0].starts_with("the entry knows version 1970-01-01T00:00:00.005Z, the "));
    }

    #[test]
    fn a_row_of_an_earlier_order_differs_only_where_it_says_something_else() {
        let order = |version, offset| Order {
            version,
            offset,
            ..Order::default()
        };
        let told = |there: Order, row: Option<Json>| {
            let slot = SlotLife {
                entry: Some(Entry {
                    order: order(5, 24),
                    fingerprint: Fingerprint::default(),
                    state: State::Applied,
                    target_id: Some("7".into()),
                    first_touch: None,
                    unknown: serde_json::Map::new(),
                }),
                target: Some(Target::Answer(Answer {
                    id: Some("7".into()),
                    order: Some(there),
                    row,
                })),
                ..SlotLife::default()
            };
            differences(&slot, false)
        };
        // A remap that changed nothing of it has noted its order only.
        assert_eq!(told(order(5, 1), Some(json!({"name": "x"}))), [""; 0]);
        assert_eq!(told(order(5, 1), None).len(), 1, "nobody can tell");
        assert_eq!(told(order(4, 1), Some(json!({"name": "x"}))).len(), 1);
    }
}
