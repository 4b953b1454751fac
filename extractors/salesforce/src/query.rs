//! The text of queries. Every page is found by key, never by a locator or an
//! offset: `ORDER BY` with a bound on the same columns.

use std::fmt::Write;

use drover_pipeline::extract::Object;
use drover_pipeline::record::Millis;
use drover_pipeline::{Code, Error, Result};

use crate::canon::Kind;
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
    /// What the values of those fields are.
    pub kinds: Vec<Kind>,
    /// Whether the object has a recycle bin.
    pub deletable: bool,
    /// Whether its old records are put away, out of the sight of `query`
    /// (`reference/salesforce.md` section 6): done tasks and past events.
    pub archives: bool,
}

impl<'a> Selection<'a> {
    /// Every field but those that repeat others (addresses, locations) and
    /// those whose bytes are read by another call (`base64`).
    pub fn of(object: &'a Object) -> Result<Self> {
        let name = identifier(&object.name)?;
        let mut fields = Vec::with_capacity(object.fields.len());
        let mut kinds = Vec::with_capacity(object.fields.len());
        for field in &object.fields {
            if !matches!(field.kind.as_str(), "address" | "location" | "base64") {
                fields.push(identifier(&field.name)?);
                kinds.push(Kind::of(&field.kind));
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
            archives: fields.contains(&"IsDeleted") && fields.contains(&"IsArchived"),
            fields,
            kinds,
        })
    }

    /// The operation that shows every live record: `queryAll` shows deleted
    /// ones too, but only there are those that are put away.
    pub fn operation(&self) -> &'static str {
        if self.archives { "queryAll" } else { "query" }
    }

    fn live(&self) -> &'static str {
        if self.archives {
            "IsDeleted = false"
        } else {
            ""
        }
    }

    /// A page of live records in the order of ids.
    pub fn by_id(&self, after: Option<&str>, limit: u32) -> String {
        self.page_by_id(&self.fields.join(","), after, limit)
    }

    /// A page of the ids of live records, in their order.
    pub fn ids(&self, after: Option<&str>, limit: u32) -> String {
        self.page_by_id("Id", after, limit)
    }

    fn page_by_id(&self, fields: &str, after: Option<&str>, limit: u32) -> String {
        let behind = after.map_or_else(String::new, |id| format!("Id > '{id}'"));
        let bound = where_all(&[self.live(), &behind]);
        let object = self.object;
        format!("SELECT {fields} FROM {object}{bound} ORDER BY Id LIMIT {limit}")
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

    /// Every live record, in any order. The stamp comes last, so that a file
    /// that is cut inside its last row can't end in what looks like a value.
    pub fn whole(&self) -> String {
        let fields = self.fields.iter().filter(|name| **name != "SystemModstamp");
        let fields: Vec<&str> = fields.copied().chain(["SystemModstamp"]).collect();
        let bound = where_all(&[self.live()]);
        format!("SELECT {} FROM {}{bound}", fields.join(","), self.object)
    }

    /// How many live records there are that were stamped before a moment.
    pub fn count(&self, before: Option<Millis>) -> String {
        let before = before.map_or_else(String::new, |before| {
            format!("SystemModstamp < {}", print(before))
        });
        let bound = where_all(&[self.live(), &before]);
        format!("SELECT COUNT() FROM {}{bound}", self.object)
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

/// A `WHERE` of all conditions that say something.
fn where_all(conditions: &[&str]) -> String {
    let said: Vec<&str> = conditions
        .iter()
        .copied()
        .filter(|text| !text.is_empty())
        .collect();
    if said.is_empty() {
        return String::new();
    }
    format!(" WHERE {}", said.join(" AND "))
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
        assert_eq!(
            selection.whole(),
            "SELECT Id,IsDeleted,MailingCity,SystemModstamp FROM Contact"
        );
        assert_eq!(
            selection.count(Some(0)),
            "SELECT COUNT() FROM Contact WHERE SystemModstamp < 1970-01-01T00:00:00Z"
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
    fn archived_records_are_read_too() {
        let task = object(&[
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("IsArchived", "boolean"),
            ("SystemModstamp", "datetime"),
        ]);
        let selection = Selection::of(&task).expect("a selection");
        assert_eq!(selection.operation(), "queryAll");
        assert_eq!(
            selection.ids(Some("00TA"), 5),
            "SELECT Id FROM Contact WHERE IsDeleted = false AND Id > '00TA' ORDER BY Id LIMIT 5"
        );
        assert!(
            selection
                .whole()
                .ends_with("FROM Contact WHERE IsDeleted = false")
        );
        assert_eq!(
            selection.count(None),
            "SELECT COUNT() FROM Contact WHERE IsDeleted = false"
        );
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
