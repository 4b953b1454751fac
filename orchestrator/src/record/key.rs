//! Which record a person means.

use drover_pipeline::Code;
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

/// The one record that any topic knows.
pub(super) fn only_one(lives: Vec<Life>, text: &str) -> Result<Life> {
    let mut known: Vec<Life> = lives.into_iter().filter(|life| !life.is_empty()).collect();
    match known.len() {
        1 => Ok(known.remove(0)),
        0 => {
            let message = format!("no topic knows a record `{text}`");
            let advice = "write it as source/object/id; `drover balance` and \
                          `drover deadletter list` name keys";
            Err(Failure::new(Code::ConfigInvalid, message, advice).into())
        }
        several => {
            let keys: Vec<&str> = known.iter().map(|life| life.key.as_str()).collect();
            let message = format!("`{text}` means {several} records");
            let advice = format!("write one of {}", keys.join(", "));
            Err(Failure::new(Code::ConfigInvalid, message, advice).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(text: &str) -> Vec<(String, Option<String>)> {
        let slots = json!({"contact": {"entity": "contact", "fields": {}}});
        let plan: Plan = serde_json::from_value(json!({
            "generation": 1,
            "mapping": {"objects": {"Contact": {"slots": slots}, "Lead": {"slots": slots}}},
            "objects": [{"name": "Contact", "fields": []}, {"name": "Lead", "fields": []}],
            "entities": ["contact"],
            "incarnations": {},
        }))
        .expect("a plan");
        candidates(&plan, "salesforce", text)
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
}
