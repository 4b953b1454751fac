//! From a page of an answer to changes.
//!
//! **The body** of a change is the record's JSON without `attributes`, its
//! fields in the order of the describe, each value in its one canonical form
//! (see [`crate::canon`]), nulls included. Nothing in it depends on the call
//! that read it: only live records have a body, and `IsDeleted` is false in all
//! of them.

use std::borrow::Cow;
use std::fmt;

use drover_pipeline::Code;
use drover_pipeline::extract::{BadRecord, Change};
use drover_pipeline::record::{Millis, Op};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::query::Selection;
use crate::{id, time};

/// The answer to a query (`reference/salesforce.md` section 5).
#[derive(Debug, Deserialize)]
pub struct Answered<'a> {
    /// Whether these are the last records of the query.
    pub done: bool,
    /// Where the next ones are.
    #[serde(rename = "nextRecordsUrl", default)]
    pub next: Option<String>,
    /// The records.
    #[serde(borrow)]
    pub records: Vec<&'a RawValue>,
}

/// A record of a page.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its `SystemModstamp`, if it has one.
    pub stamp: Option<Millis>,
    /// The change, or why it is none.
    pub content: Result<Change, BadRecord>,
}

/// The text of an answer, and what stands in it for bytes that are no UTF-8.
///
/// One broken record must not hold up the others of its page, so the page is
/// read with a mark in place of each broken byte, and the records that hold the
/// mark are set apart.
pub struct Text<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    mark: Option<char>,
}

impl<'a> Text<'a> {
    /// Reads an answer's bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Text {
                text: Cow::Borrowed(text),
                mark: None,
            };
        }
        // Noncharacters are for such uses; one that the answer doesn't hold is
        // a safe mark.
        let sound: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
        let mark = ('\u{FDD0}'..='\u{FDEF}')
            .find(|mark| !sound.contains(*mark))
            .unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(mark);
            }
        }
        Text {
            text: Cow::Owned(text),
            mark: Some(mark),
        }
    }

    /// Reads one record. `place` says where it stands, for one without an id.
    pub fn row(
        &self,
        raw: &RawValue,
        selection: &Selection<'_>,
        place: impl Fn() -> String,
    ) -> Row {
        let mut row = read(raw, selection, &place);
        if self.is_broken(raw.get()) {
            let place = row.id.clone().unwrap_or_else(place);
            row.content = Err(bad(place, Code::InvalidUtf8, BROKEN, raw.get()));
        }
        row
    }

    /// Whether a part of the text held bytes that are no UTF-8.
    pub fn is_broken(&self, part: &str) -> bool {
        self.mark.is_some_and(|mark| part.contains(mark))
    }
}

/// What is wrong with a record that [`Text::is_broken`].
pub const BROKEN: &str = "the record holds bytes that are no UTF-8";

/// A record that is none.
pub fn bad(place: String, code: Code, message: &str, body: &str) -> BadRecord {
    BadRecord {
        place,
        code,
        message: message.to_owned(),
        body: body.to_owned(),
    }
}

fn read(raw: &RawValue, selection: &Selection<'_>, place: &impl Fn() -> String) -> Row {
    let mut row = Row {
        id: None,
        stamp: None,
        content: Err(bad(
            String::new(),
            Code::InvalidBody,
            "the record is not a JSON object",
            raw.get(),
        )),
    };
    if let Ok(Fields(fields)) = serde_json::from_str(raw.get()) {
        row.id = text_of(&fields, "Id").and_then(|text| id::normalise(&text));
        row.stamp = text_of(&fields, selection.stamp).and_then(|text| time::parse(&text));
        let deleted = find(&fields, "IsDeleted", 0).is_some_and(|raw| raw.get() == "true");
        row.content = change(&row, selection.deletable && deleted, || {
            body(&fields, selection)
        })
        .map_err(|(code, message)| bad(String::new(), code, &message, raw.get()));
    }
    if let Err(bad) = &mut row.content {
        bad.place = row.id.clone().unwrap_or_else(place);
    }
    row
}

/// The change that a row is, with its id and stamp; else why it is none.
pub fn change(
    row: &Row,
    deleted: bool,
    body: impl FnOnce() -> Result<String, (Code, String)>,
) -> Result<Change, (Code, String)> {
    let id = row
        .id
        .clone()
        .ok_or_else(|| (Code::MissingId, "the record has no Id".to_owned()))?;
    let version = row.stamp.ok_or_else(|| {
        let message = "the record has no time of its change".to_owned();
        (Code::InvalidBody, message)
    })?;
    let (op, body) = if deleted {
        (Op::Delete, None)
    } else {
        (Op::Upsert, Some(body()?))
    };
    Ok(Change {
        id,
        op,
        version,
        body,
    })
}

fn body(
    fields: &[(Cow<'_, str>, &RawValue)],
    selection: &Selection<'_>,
) -> Result<String, (Code, String)> {
    let size = fields
        .iter()
        .map(|(name, raw)| name.len() + raw.get().len() + 6);
    let mut body = String::with_capacity(size.sum::<usize>() + 2);
    for (at, (name, kind)) in selection.fields.iter().zip(&selection.kinds).enumerate() {
        // The API answers in the order of the query, behind `attributes`.
        let raw = find(fields, name, at + 1).ok_or_else(|| {
            let message = format!("the answer lacks the field {name}, which was asked for");
            (Code::InvalidBody, message)
        })?;
        begin_field(name, at, &mut body);
        kind.push_json(raw.get(), &mut body);
    }
    body.push('}');
    Ok(body)
}

/// The fields of a body that was made here.
pub fn members(body: &str) -> Vec<(String, &RawValue)> {
    let fields: Vec<(Cow<'_, str>, &RawValue)> = match serde_json::from_str(body) {
        Ok(Fields(fields)) => fields,
        Err(_) => Vec::new(),
    };
    fields
        .into_iter()
        .map(|(name, raw)| (name.into_owned(), raw))
        .collect()
}

/// Begins a field of a body; `at` says which one it is.
pub fn begin_field(name: &str, at: usize, body: &mut String) {
    body.push(if at == 0 { '{' } else { ',' });
    // Names of fields are identifiers: nothing in them needs escaping.
    body.push('"');
    body.push_str(name);
    body.push_str("\":");
}

fn find<'a>(
    fields: &[(Cow<'_, str>, &'a RawValue)],
    name: &str,
    likely: usize,
) -> Option<&'a RawValue> {
    if let Some((found, raw)) = fields.get(likely)
        && found == name
    {
        return Some(raw);
    }
    fields
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, raw)| *raw)
}

fn text_of(fields: &[(Cow<'_, str>, &RawValue)], name: &str) -> Option<String> {
    serde_json::from_str(find(fields, name, 1)?.get()).ok()
}

/// The members of a JSON object in their order, values unread.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(64);
                while let Some((Name(name), raw)) = map.next_entry()? {
                    fields.push((name, raw));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A member's name; borrowed unless it holds an escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::{Object, SourceField};

    use super::*;

    fn object() -> Object {
        let fields = [
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("Name", "string"),
            ("Amount", "currency"),
            ("SystemModstamp", "datetime"),
        ];
        Object {
            name: "Opportunity".to_owned(),
            custom: false,
            fields: fields
                .map(|(name, kind)| SourceField {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    references: Vec::new(),
                    ..SourceField::default()
                })
                .to_vec(),
            count: None,
            ..Object::default()
        }
    }

    fn row(json: &str) -> Row {
        let object = object();
        let selection = Selection::of(&object).expect("a selection");
        let text = Text::of(json.as_bytes());
        let raw: &RawValue = serde_json::from_str(&text.text).expect("JSON");
        text.row(raw, &selection, || "record 7".to_owned())
    }

    const GOOD: &str = r#"{"attributes":{"type":"Opportunity"},"Id":"001dM00003kS5tZQAS","IsDeleted":false,"Name":"a \u00e9","Amount":1.2300E2,"SystemModstamp":"2026-03-31T09:15:00.000+0000"}"#;

    #[test]
    fn values_stand_in_their_canonical_form() {
        let change = row(GOOD).content.expect("a change");
        assert_eq!(change.op, Op::Upsert);
        assert_eq!(change.version, 1_774_948_500_000);
        assert_eq!(
            change.body.as_deref(),
            Some(
                r#"{"Id":"001dM00003kS5tZQAS","IsDeleted":false,"Name":"a é","Amount":123.0,"SystemModstamp":"2026-03-31T09:15:00.000+0000"}"#
            )
        );
    }

    #[test]
    fn the_order_of_the_answer_does_not_matter() {
        let other = r#"{"SystemModstamp":"2026-03-31T09:15:00.000+0000","Amount":1.2300E2,"Name":"a \u00e9","Id":"001dM00003kS5tZQAS","IsDeleted":false}"#;
        assert_eq!(row(other).content, row(GOOD).content);
    }

    #[test]
    fn a_deleted_record_has_no_body() {
        let change = row(&GOOD.replace("false", "true"))
            .content
            .expect("a change");
        assert_eq!((change.op, change.body), (Op::Delete, None));
    }

    #[test]
    fn what_is_no_record_is_set_apart() {
        for (json, code, place) in [
            (
                GOOD.replace("\"Id\"", "\"Ix\""),
                Code::MissingId,
                "record 7",
            ),
            (GOOD.replace("001dM", "'; --"), Code::MissingId, "record 7"),
            (
                GOOD.replace("2026-03", "2026-33"),
                Code::InvalidBody,
                "001dM00003kS5tZQAS",
            ),
            (
                GOOD.replace("\"Amount\"", "\"Other\""),
                Code::InvalidBody,
                "001dM00003kS5tZQAS",
            ),
            ("[1]".to_owned(), Code::InvalidBody, "record 7"),
            ("null".to_owned(), Code::InvalidBody, "record 7"),
        ] {
            let bad = row(&json).content.expect_err("no record");
            assert_eq!((bad.code, bad.place.as_str()), (code, place), "{json}");
            assert_eq!(bad.body, json);
        }
    }

    #[test]
    fn broken_bytes_spoil_only_their_record() {
        let object = object();
        let selection = Selection::of(&object).expect("a selection");
        let spoilt = GOOD.replace("a \\u00e9", "\u{FDD0}?");
        let mut page = format!("[{GOOD},{spoilt}]").into_bytes();
        let at = page
            .iter()
            .rposition(|byte| *byte == b'?')
            .expect("the place");
        page[at] = 0xff;
        let text = Text::of(&page);
        let raws: Vec<&RawValue> = serde_json::from_str(&text.text).expect("JSON");
        let rows: Vec<Row> = raws
            .iter()
            .map(|raw| text.row(raw, &selection, String::new))
            .collect();
        assert!(rows[0].content.is_ok());
        assert_eq!(
            rows[1].content.as_ref().map_err(|bad| bad.code),
            Err(Code::InvalidUtf8)
        );
        assert!(rows[1].id.is_some() && rows[1].stamp.is_some());
    }
}
