//! `drift`: what is done when the source describes itself otherwise.

use std::time::Duration;

use super::document::{Field, Value, join};
use super::validate::{Check, field};
use crate::extract::drift::{Drift, Policy, Rules};

const KINDS: [&str; 3] = ["added", "removed", "retyped"];

/// Reads the group; its fields that are no setting are names of objects.
pub(super) fn drift(given: Option<&Field>, check: &mut Check<'_>) -> Drift {
    let mut drift = Drift::default();
    let Some(given) = given else { return drift };
    if !matches!(given.node.value, Value::Map(_)) {
        check.wrong_type(given, "drift", "a group of fields");
        return drift;
    }
    let every = field(&given.node, "everyMinutes");
    if let Some(minutes) = check.whole(every, "drift.everyMinutes", (1, 10_080)) {
        drift.every = Duration::from_secs(minutes.unsigned_abs() * 60);
    }
    drift.rules = rules(given, "drift", check);
    for object in given.node.fields() {
        let name = object.name.as_str();
        if name == "everyMinutes" || KINDS.contains(&name) {
            continue;
        }
        let path = join("drift", name);
        if !matches!(object.node.value, Value::Map(_)) {
            let known = ["everyMinutes", "added", "removed", "retyped"];
            check.unknown(object, "drift", &known);
            continue;
        }
        for inner in object.node.fields() {
            if !KINDS.contains(&inner.name.as_str()) {
                check.unknown(inner, &path, &KINDS);
            }
        }
        let rules = rules(object, &path, check);
        drift.objects.insert(name.to_owned(), rules);
    }
    drift
}

fn rules(given: &Field, path: &str, check: &mut Check<'_>) -> Rules {
    let mut read = |kind: &str| -> Option<Policy> {
        let field = field(&given.node, kind)?;
        let path = join(path, kind);
        let text = check.text(Some(field), &path)?;
        let known = Policy::ALL.iter().find(|(name, _)| *name == text);
        if known.is_none() {
            let advice = "use ignore, stop, park or apply";
            check.problem(field.line, path, "is no such choice", advice);
        }
        known.map(|(_, policy)| *policy)
    };
    Rules {
        added: read("added"),
        removed: read("removed"),
        retyped: read("retyped"),
    }
}
