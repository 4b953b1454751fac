//! A record as the API shows it, and as Drover keeps it.

use std::collections::BTreeMap;

use drover_pipeline::extract::{BadRecord, Change};
use drover_pipeline::record::{Millis, Op};
use drover_pipeline::{Code, Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fetch::Key;

/// What an answer holds.
#[derive(Debug)]
pub struct Listed {
    /// The records.
    pub changes: Vec<Change>,
    /// What is no record: each becomes a dead letter and stops nobody.
    pub bad: Vec<BadRecord>,
    /// The place of the last record that has one.
    pub last: Option<Key>,
    /// Whether more follow.
    pub more: bool,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
    #[serde(default)]
    more: bool,
}

/// Reads an answer with records.
pub fn read(text: &str, object: &str) -> Result<Listed> {
    // serde's own message may quote the answer, and with it a record.
    let answer: Answer<'_> = serde_json::from_str(text)
        .map_err(|_| Error::new(Code::BadAnswer, "it holds no list of records").at(object))?;
    let mut listed = Listed {
        changes: Vec::with_capacity(answer.records.len()),
        bad: Vec::new(),
        last: None,
        more: answer.more,
    };
    for (at, raw) in answer.records.iter().enumerate() {
        match change(raw) {
            Ok(change) => {
                listed.last = Some(Key {
                    modified: change.version,
                    id: change.id.clone(),
                });
                listed.changes.push(change);
            }
            Err((code, message)) => listed.bad.push(BadRecord {
                place: format!("{object}, record {} of a page", at + 1),
                code,
                message: message.to_owned(),
                body: raw.get().to_owned(),
            }),
        }
    }
    Ok(listed)
}

/// A record as a change. Its body has the fields in the order of their names,
/// so that one version has the same bytes by whatever call it was read; each
/// value stays as the source wrote it, so that numbers keep their digits.
fn change(raw: &RawValue) -> Result<Change, (Code, &'static str)> {
    let no_object = (Code::InvalidBody, "it is no JSON object");
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| no_object)?;
    let text = |raw: &&RawValue| serde_json::from_str::<String>(raw.get()).ok();
    let id = fields.get("id").and_then(text);
    let id = id.filter(|id| !id.is_empty());
    let id = id.ok_or((Code::MissingId, "the record has no id"))?;
    let stamp = fields.get("modified");
    let stamp = stamp.and_then(|raw| serde_json::from_str::<Millis>(raw.get()).ok());
    let version = stamp.ok_or((Code::InvalidBody, "`modified` is no time"))?;
    let deleted = fields.remove("deleted");
    let deleted = deleted.is_some_and(|raw| raw.get() == "true");
    let body = match deleted {
        true => None,
        false => Some(serde_json::to_string(&fields).map_err(|_| no_object)?),
    };
    Ok(Change {
        op: if deleted { Op::Delete } else { Op::Upsert },
        id,
        version,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_fields_their_order() {
        let text = r#"{"records": [{"revenue": 1.10, "modified": 7, "id": "c1", "name": "A"}]}"#;
        let listed = read(text, "Company").expect("an answer");
        let body = listed.changes[0].body.as_deref();
        let expected = r#"{"id":"c1","modified":7,"name":"A","revenue":1.10}"#;
        assert_eq!(body, Some(expected));
    }

    #[test]
    fn what_is_no_record_is_set_aside_and_the_page_goes_on() {
        let text = r#"{"records": [{"id": ""}, 5, {"id": "c1", "modified": "x"},
            {"id": "c2", "modified": 7, "deleted": true}, {"modified": 8}], "more": true}"#;
        let listed = read(text, "Company").expect("an answer");
        let codes: Vec<Code> = listed.bad.iter().map(|bad| bad.code).collect();
        let (id, body) = (Code::MissingId, Code::InvalidBody);
        assert_eq!(codes, [id, body, body, id]);
        assert_eq!(listed.bad[1].place, "Company, record 2 of a page");
        let last = listed.last.map(|key| (key.modified, key.id));
        assert_eq!(last, Some((7, "c2".to_owned())));
        assert_eq!((listed.changes.len(), listed.more), (1, true));
    }
}
