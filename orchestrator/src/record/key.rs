//! Which record a person means.

use drover_pipeline::Code;
use drover_pipeline::config::nearest;
use drover_pipeline::control::Plan;
use drover_pipeline::record::RawKey;

use super::life::Life;
use crate::failure::{Failure, Result};

/// A record that may be meant, and the one slot that is, where one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) key: RawKey,
    pub(super) slot: Option<String>,
}

/// Every planned record that `source/object/id`, `Object/id` or a bare id can
/// mean, each of them with `#slot` or without.
pub(super) fn candidates(plan: &Plan, source: &str, text: &str) -> Vec<Asked> {
    let mut asked = Vec::new();
    for object in &plan.objects {
        let mapping = plan.mapping.of(object);
        let declared = |slot: &str| mapping.is_some_and(|m| m.slots.contains_key(slot));
        // An id may hold a `#` itself: only a declared slot is one.
        let (text, slot) = match text.rsplit_once('#') {
            Some((text, slot)) if declared(slot) => (text, Some(slot.to_owned())),
            _ => (text, None),
        };
        let full = text.strip_prefix(source).and_then(|t| t.strip_prefix('/'));
        let of_object = |text: &str| {
            let id = text.strip_prefix(object.name.as_str())?.strip_prefix('/')?;
            Some(id.to_owned())
        };
        let ids = [
            full.and_then(of_object),
            of_object(text),
            (!text.contains('/')).then(|| text.to_owned()),
        ];
        for id in ids.into_iter().flatten() {
            if let Ok(key) = RawKey::new(source, &object.name, &id) {
                let slot = slot.clone();
                asked.push(Asked { key, slot });
            }
        }
    }
    asked.dedup();
    asked
}

/// Those of the candidates whose object's ids begin as this one does; all of them
/// where nothing is known of that.
pub(super) fn likely(plan: &Plan, asked: Vec<Asked>) -> Vec<Asked> {
    let fits = |asked: &Asked| {
        let (_, name, id) = asked.key.parts();
        let mut objects = plan.objects.iter().filter(|object| object.name == name);
        objects.any(|object| object.id_prefix.as_ref().is_some_and(|p| id.starts_with(p)))
    };
    match asked.iter().any(fits) {
        true => asked.into_iter().filter(fits).collect(),
        false => asked,
    }
}

/// What is wrong with a key whose object nobody migrates.
pub(super) fn unknown_object(plan: &Plan, source: &str, text: &str) -> Failure {
    let names = || plan.objects.iter().map(|object| object.name.as_str());
    let (prefix, rest) = match text.split_once('/') {
        Some((first, rest)) if first == source => (format!("{source}/"), rest),
        // Of another source, or one that is misspelt: what follows may be an object.
        Some((_, rest))
            if rest
                .split('/')
                .next()
                .is_some_and(|o| names().any(|n| n == o)) =>
        {
            let message = format!("`{text}`: this migration reads {source}");
            return Failure::new(
                Code::UnknownRecord,
                message,
                format!("write `{source}/{rest}`"),
            );
        }
        _ => (String::new(), text),
    };
    let (object, id) = rest.split_once('/').unwrap_or((rest, "ID"));
    let message = format!("`{text}`: this migration has no object `{object}`");
    let advice = match nearest(object, names()) {
        Some(near) => format!("write `{prefix}{near}/{id}`"),
        None => format!("its objects are {}", names().collect::<Vec<_>>().join(", ")),
    };
    Failure::new(Code::UnknownRecord, message, advice)
}

/// The one record that any topic knows.
pub(super) fn only_one(lives: Vec<Life>, text: &str) -> Result<Life> {
    let mut known: Vec<Life> = lives.into_iter().filter(|life| !life.is_empty()).collect();
    match known.len() {
        1 => Ok(known.remove(0)),
        0 => {
            let message = format!("no topic knows a record `{text}`");
            let advice = "write it as source/object/id; `drover balance` and \
                          `drover deadletter list` name keys";
            Err(Failure::new(Code::UnknownRecord, message, advice).into())
        }
        several => {
            let keys: Vec<&str> = known.iter().map(|life| life.key.as_str()).collect();
            let message = format!("`{text}` means {several} records");
            let advice = format!("write one of {}", keys.join(", "));
            Err(Failure::new(Code::UnknownRecord, message, advice).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Plan {
        let slots = json!({"contact": {"entity": "contact", "fields": {}}});
        serde_json::from_value(json!({
            "generation": 1,
            "mapping": {"objects": {"Contact": {"slots": slots}, "Lead": {"slots": slots}}},
            "objects": [
                {"name": "Contact", "fields": [], "idPrefix": "003"},
                {"name": "Lead", "fields": [], "idPrefix": "00Q"},
            ],
            "entities": ["contact"],
            "incarnations": {},
        }))
        .expect("a plan")
    }

    fn asked(text: &str) -> Vec<(String, Option<String>)> {
        candidates(&plan(), "salesforce", text)
            .into_iter()
            .map(|asked| (asked.key.as_str().to_owned(), asked.slot))
            .collect()
    }

    #[test]
    fn a_key_is_understood_in_every_form() {
        let one = |key: &str, slot: Option<&str>| (key.to_owned(), slot.map(str::to_owned));
        let contact = "salesforce/Contact/1";
        for text in [contact, "Contact/1"] {
            assert_eq!(asked(text), [one(contact, None)], "{text}");
            let with_slot = format!("{text}#contact");
            assert_eq!(asked(&with_slot), [one(contact, Some("contact"))]);
        }
        let lead = "salesforce/Lead/1";
        assert_eq!(asked("1"), [one(contact, None), one(lead, None)]);
        // No declared slot: part of the id.
        assert_eq!(asked("Lead/1#x"), [one("salesforce/Lead/1#x", None)]);
        assert_eq!(asked("Lead/a/b"), [one("salesforce/Lead/a/b", None)]);
        assert_eq!(asked("Account/1"), []);
        assert_eq!(asked("Lead/"), []);
    }

    #[test]
    fn an_id_is_looked_for_where_its_beginning_leads() {
        let keys = |text: &str| -> Vec<String> {
            let found = likely(&plan(), candidates(&plan(), "salesforce", text));
            found
                .iter()
                .map(|asked| asked.key.as_str().to_owned())
                .collect()
        };
        assert_eq!(keys("003A"), ["salesforce/Contact/003A"]);
        assert_eq!(
            keys("xyz"),
            ["salesforce/Contact/xyz", "salesforce/Lead/xyz"]
        );
        assert_eq!(
            keys("Lead/003A"),
            ["salesforce/Lead/003A"],
            "as it is named"
        );
    }

    #[test]
    fn a_misspelt_object_is_told_with_the_nearest_one() {
        let told = |text: &str| unknown_object(&plan(), "salesforce", text).to_string();
        for (text, expected) in [
            (
                "Contct/1",
                "`Contct/1`: this migration has no object `Contct`; write `Contact/1`",
            ),
            (
                "salesforce/Contct/1#contact",
                "`salesforce/Contct/1#contact`: this migration has no object `Contct`; write \
                 `salesforce/Contact/1#contact`",
            ),
            (
                "hubspot/Lead/1",
                "`hubspot/Lead/1`: this migration reads salesforce; write `salesforce/Lead/1`",
            ),
            (
                "Zebra/1",
                "`Zebra/1`: this migration has no object `Zebra`; its objects are Contact, Lead",
            ),
        ] {
            assert_eq!(told(text), format!("UNKNOWN_RECORD: {expected}"));
        }
    }
}
