//! The text of queries. Every page is found by key, never by a locator or an
//! offset: `ORDER BY` with a bound on the same columns.

use std::fmt::Write;

use drover_pipeline::extract::Object;
use drover_pipeline::record::Millis;
use drover_pipeline::{Code, Error, Result};

use crate::time::print;

/// A request's line may hold about 16 KB (`reference/salesforce.md` section 1,
/// 414); what stands before the query and the encoding need the rest.
const LONGEST: usize = 12_000;

/// The most records by id in one query (`reference/salesforce.md` section 3).
const MOST_IDS: usize = 200;

/// The most ids in a question that has small answers.
const MOST_SHOWN: usize = 400;

/// What is read of an object.
#[derive(Debug)]
pub struct Selection<'a> {
    /// The object's name.
    pub object: &'a str,
    /// The fields of a record's body, in the order of the describe.
    pub fields: Vec<&'a str>,
    /// Whether the object has a recycle bin.
    pub deletable: bool,
}

impl<'a> Selection<'a> {
    /// Every field but those that repeat others (addresses, locations) and
    /// those whose bytes are read by another call (`base64`).
    pub fn of(object: &'a Object) -> Result<Self> {
        let name = identifier(&object.name)?;
        let mut fields = Vec::with_capacity(object.fields.len());
        for field in &object.fields {
            if !matches!(field.kind.as_str(), "address" | "location" | "base64") {
                fields.push(identifier(&field.name)?);
            }
        }
        for needed in ["Id", "SystemModstamp"] {
            if !fields.contains(&needed) {
                return Err(Error::new(
                    Code::UnknownField,
                    format!("{name} shows no {needed}, so it can't be followed"),
                ));
            }
        }
        Ok(Selection {
            object: name,
            deletable: fields.contains(&"IsDeleted"),
            fields,
        })
    }

    /// A page of live records in the order of ids.
    pub fn by_id(&self, after: Option<&str>, limit: u32) -> String {
        page_by_id(&self.fields.join(","), self.object, after, limit)
    }

    /// A page of the records stamped in a window, in the order of stamp and id.
    /// The key holds both, so that equal stamps may lie on two pages.
    pub fn by_stamp(
        &self,
        since: Millis,
        until: Millis,
        after: Option<(Millis, &str)>,
        limit: u32,
    ) -> String {
        let mut soql = format!(
            "SELECT {} FROM {} WHERE ",
            self.fields.join(","),
            self.object
        );
        let text = match after {
            None => format!("SystemModstamp >= {}", print(since)),
            Some((at, id)) => {
                let at = print(at);
                format!("(SystemModstamp > {at} OR (SystemModstamp = {at} AND Id > '{id}'))")
            }
        };
        // Writing to a String can't fail.
        let _ = write!(
            soql,
            "{text} AND SystemModstamp < {} ORDER BY SystemModstamp, Id LIMIT {limit}",
            print(until)
        );
        soql
    }

    /// The queries that together read these ids.
    pub fn by_ids(&self, ids: &[String]) -> Vec<String> {
        self.chunks(&self.fields.join(","), ids, MOST_IDS)
    }

    /// The queries that together tell which of these ids are shown, and how.
    pub fn shown(&self, ids: &[String]) -> Vec<String> {
        let fields = if self.deletable {
            "Id,IsDeleted,SystemModstamp"
        } else {
            "Id,SystemModstamp"
        };
        self.chunks(fields, ids, MOST_SHOWN)
    }

    fn chunks(&self, fields: &str, ids: &[String], most: usize) -> Vec<String> {
        // An id takes 18 characters, its quotes and comma 3 each when encoded.
        let room = LONGEST.saturating_sub(fields.len()) / 27;
        ids.chunks(room.clamp(1, most))
            .map(|ids| {
                let object = self.object;
                let ids = ids.join("','");
                format!("SELECT {fields} FROM {object} WHERE Id IN ('{ids}')")
            })
            .collect()
    }
}

/// A page of ids.
pub fn ids(object: &Object, after: Option<&str>, limit: u32) -> Result<String> {
    Ok(page_by_id("Id", identifier(&object.name)?, after, limit))
}

fn page_by_id(fields: &str, object: &str, after: Option<&str>, limit: u32) -> String {
    let bound = after.map_or_else(String::new, |id| format!(" WHERE Id > '{id}'"));
    format!("SELECT {fields} FROM {object}{bound} ORDER BY Id LIMIT {limit}")
}

/// A name that may stand in a query.
pub fn identifier(name: &str) -> Result<&str> {
    let good = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good && name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Ok(name);
    }
    Err(Error::new(
        Code::UnknownObject,
        format!("`{name}` is no name of an object or field"),
    ))
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::SourceField;

    use super::*;

    fn object(fields: &[(&str, &str)]) -> Object {
        Object {
            name: "Contact".to_owned(),
            custom: false,
            fields: fields
                .iter()
                .map(|(name, kind)| SourceField {
                    name: (*name).to_owned(),
                    kind: (*kind).to_owned(),
                    references: Vec::new(),
                    ..SourceField::default()
                })
                .collect(),
            count: None,
            ..Object::default()
        }
    }

    fn contact() -> Object {
        object(&[
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("MailingCity", "string"),
            ("MailingAddress", "address"),
            ("Place__c", "location"),
            ("Body", "base64"),
            ("SystemModstamp", "datetime"),
        ])
    }

    #[test]
    fn pages_are_found_by_key() {
        let contact = contact();
        let selection = Selection::of(&contact).expect("a selection");
        assert_eq!(
            selection.by_id(None, 2_000),
            "SELECT Id,IsDeleted,MailingCity,SystemModstamp FROM Contact ORDER BY Id LIMIT 2000"
        );
        assert_eq!(
            selection.by_id(Some("003A"), 5),
            "SELECT Id,IsDeleted,MailingCity,SystemModstamp FROM Contact WHERE Id > '003A' ORDER BY Id LIMIT 5"
        );
        assert!(selection.by_stamp(0, 1_000, None, 5).ends_with(
            "FROM Contact WHERE SystemModstamp >= 1970-01-01T00:00:00Z AND SystemModstamp < 1970-01-01T00:00:01Z \
             ORDER BY SystemModstamp, Id LIMIT 5"
        ));
        assert!(selection.by_stamp(0, 1_000, Some((500, "003A")), 5).contains(
            "WHERE (SystemModstamp > 1970-01-01T00:00:00.500Z OR (SystemModstamp = 1970-01-01T00:00:00.500Z AND Id > \
             '003A')) AND SystemModstamp < 1970-01-01T00:00:01Z ORDER"
        ));
    }

    #[test]
    fn many_ids_take_many_queries() {
        let contact = contact();
        let selection = Selection::of(&contact).expect("a selection");
        let ids: Vec<String> = (0..450).map(|n| format!("003{n:012}AAA")).collect();
        assert_eq!(selection.by_ids(&ids).len(), 3);
        assert_eq!(
            selection.shown(&ids[..2])[0],
            "SELECT Id,IsDeleted,SystemModstamp FROM Contact WHERE Id IN ('003000000000000AAA','003000000000001AAA')"
        );
        let long: Vec<String> = (0..700).map(|n| format!("AVeryLongName{n}__c")).collect();
        let mut wide: Vec<(&str, &str)> =
            long.iter().map(|name| (name.as_str(), "string")).collect();
        wide.extend([("Id", "id"), ("SystemModstamp", "datetime")]);
        let wide = object(&wide);
        assert_eq!(
            Selection::of(&wide)
                .expect("a selection")
                .by_ids(&ids)
                .len(),
            450
        );
    }

    #[test]
    fn what_can_not_be_followed_is_refused() {
        let code = |object: &Object| Selection::of(object).map(|_| ()).map_err(|e| e.code);
        assert_eq!(code(&object(&[("Id", "id")])), Err(Code::UnknownField));
        assert_eq!(
            code(&object(&[("Id FROM x", "id")])),
            Err(Code::UnknownObject)
        );
    }
}
