//! The text of queries. Every page is found by key, never by a locator or an
//! offset: `ORDER BY` with a bound on the same columns.

use drover_pipeline::extract::Object;
use drover_pipeline::record::Millis;
use drover_pipeline::{Code, Error, Result};

use crate::canon::Kind;
use crate::time::print;

/// A request's line may hold about 16 KB (`reference/salesforce.md` section 1,
/// 414); what stands before the query and the encoding need the rest.
const LONGEST: usize = 14_000;

/// What the names of the fields of one query may take of that.
const FIELDS: usize = 10_000;

/// The fields that say when a record changed, the best one first
/// (`reference/salesforce.md` section 6): not every object has the first.
const STAMPS: [&str; 4] = [
    "SystemModstamp",
    "LastModifiedDate",
    "CreatedDate",
    "LoginTime",
];

/// The mark of an object without a log of deletes (`replicateable` in the
/// describe): what of it is in the recycle bin comes with its records.
pub const NO_LOG: &str = "noDeleteLog";

/// The most records by id in one query (`reference/salesforce.md` section 3).
const MOST_IDS: usize = 200;

/// The most ids in a question that has small answers.
const MOST_SHOWN: usize = 400;

/// How an object is reached that the source shows by others alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Through {
    /// The object whose records have to be named.
    pub parent: &'static str,
    /// The field that names one of them.
    field: &'static str,
}

/// The objects that are shown by others alone.
const THROUGH: [(&str, Through); 1] = [(
    "ContentDocumentLink",
    Through {
        parent: "ContentDocument",
        field: "ContentDocumentId",
    },
)];

impl Through {
    /// A page of parents in the order of ids, `deleted` ones too.
    pub fn documents(self, after: Option<&str>, limit: u32, deleted: bool) -> String {
        let behind = after.map_or_else(String::new, |id| format!("Id > '{id}'"));
        let live = if deleted { "" } else { "IsDeleted = false" };
        let bound = where_all(&[live, &behind]);
        let parent = self.parent;
        format!("SELECT Id,SystemModstamp FROM {parent}{bound} ORDER BY Id LIMIT {limit}")
    }

    /// A page of the parents stamped in a window, in the order of stamp and id.
    pub fn changed(
        self,
        (since, until): (Millis, Millis),
        after: Option<(Millis, &str)>,
        limit: u32,
    ) -> String {
        let parents = (self.parent, STAMPS[0]);
        page_by_stamp("Id,SystemModstamp", parents, (since, until), after, limit)
    }
}

/// What is read of an object.
#[derive(Debug)]
pub struct Selection<'a> {
    /// The object's name.
    pub object: &'a str,
    /// The fields of a record's body, in the order of the describe.
    pub fields: Vec<&'a str>,
    /// What the values of those fields are.
    pub kinds: Vec<Kind>,
    /// The field that says when a record changed.
    pub stamp: &'static str,
    /// Whether the object has a recycle bin.
    pub deletable: bool,
    /// Whether its old records are put away, out of the sight of `query`
    /// (`reference/salesforce.md` section 6): done tasks and past events.
    pub archives: bool,
    /// Whether the source keeps a log of its deletes.
    pub has_log: bool,
    /// Whether some of its values are computed: they change without a stamp.
    computed: bool,
    /// How it is reached, where it can't be read as a whole.
    pub through: Option<Through>,
    /// The fields of the queries that together read a record, by their places:
    /// more than one where the names of all would make a query too long. Each
    /// has the id, the stamp and whether the record is deleted.
    pub parts: Vec<Vec<usize>>,
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
        let stamp = STAMPS.iter().copied().find(|stamp| fields.contains(stamp));
        let (true, Some(stamp)) = (fields.contains(&"Id"), stamp) else {
            return Err(Error::new(
                Code::UnknownField,
                format!("{name} shows no Id, or no time of its changes: it can't be followed"),
            ));
        };
        Ok(Selection {
            object: name,
            deletable: fields.contains(&"IsDeleted"),
            archives: fields.contains(&"IsDeleted") && fields.contains(&"IsArchived"),
            has_log: !object.marks.iter().any(|mark| mark == NO_LOG),
            computed: object.fields.iter().any(|field| field.computed),
            through: THROUGH.iter().find(|row| row.0 == name).map(|row| row.1),
            parts: parts(&fields, stamp),
            stamp,
            fields,
            kinds,
        })
    }

    /// The same with some of its fields alone.
    pub fn part(&self, places: &[usize]) -> Selection<'a> {
        Selection {
            fields: places.iter().map(|at| self.fields[*at]).collect(),
            kinds: places.iter().map(|at| self.kinds[*at]).collect(),
            parts: vec![(0..places.len()).collect()],
            ..*self
        }
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
        let fields = self.fields.join(",");
        page_by_stamp(
            &fields,
            (self.object, self.stamp),
            (since, until),
            after,
            limit,
        )
    }

    /// Whether it can change without a stamp that a query finds.
    pub fn changes_unseen(&self) -> bool {
        self.computed || self.through.is_some()
    }

    /// The queries that together read the records of some parents.
    pub fn of_parents(&self, through: Through, ids: &[String], deleted: bool) -> Vec<String> {
        let live = if deleted || !self.deletable {
            ""
        } else {
            " AND IsDeleted = false"
        };
        let soqls = self.chunks(&self.fields.join(","), through.field, ids, MOST_IDS);
        soqls.into_iter().map(|soql| soql + live).collect()
    }

    /// Every live record, in any order. The stamp comes last, so that a file
    /// that is cut inside its last row can't end in what looks like a value.
    pub fn whole(&self) -> String {
        let fields = self.fields.iter().filter(|name| **name != self.stamp);
        let fields: Vec<&str> = fields.copied().chain([self.stamp]).collect();
        let bound = where_all(&[self.live()]);
        format!("SELECT {} FROM {}{bound}", fields.join(","), self.object)
    }

    /// How many live records there are that were stamped before a moment.
    pub fn count(&self, before: Option<Millis>) -> String {
        let before = before.map_or_else(String::new, |before| {
            format!("{} < {}", self.stamp, print(before))
        });
        let bound = where_all(&[self.live(), &before]);
        format!("SELECT COUNT() FROM {}{bound}", self.object)
    }

    /// The queries that together read these ids.
    pub fn by_ids(&self, ids: &[String]) -> Vec<String> {
        self.chunks(&self.fields.join(","), "Id", ids, MOST_IDS)
    }

    /// The queries that together tell which of these ids are shown, and how.
    pub fn shown(&self, ids: &[String]) -> Vec<String> {
        let fields = if self.deletable {
            format!("Id,IsDeleted,{}", self.stamp)
        } else {
            format!("Id,{}", self.stamp)
        };
        self.chunks(&fields, "Id", ids, MOST_SHOWN)
    }

    fn chunks(&self, fields: &str, by: &str, ids: &[String], most: usize) -> Vec<String> {
        // An id takes 18 characters, its quotes and comma 3 each when encoded.
        let names = fields.len() + 2 * fields.matches(',').count();
        let room = LONGEST.saturating_sub(names) / 27;
        ids.chunks(room.clamp(1, most))
            .map(|ids| {
                let object = self.object;
                let ids = ids.join("','");
                format!("SELECT {fields} FROM {object} WHERE {by} IN ('{ids}')")
            })
            .collect()
    }
}

fn page_by_stamp(
    fields: &str,
    (object, stamp): (&str, &str),
    (since, until): (Millis, Millis),
    after: Option<(Millis, &str)>,
    limit: u32,
) -> String {
    let from = match after {
        None => format!("{stamp} >= {}", print(since)),
        Some((at, id)) => {
            let at = print(at);
            format!("({stamp} > {at} OR ({stamp} = {at} AND Id > '{id}'))")
        }
    };
    let until = print(until);
    format!(
        "SELECT {fields} FROM {object} WHERE {from} AND {stamp} < {until} ORDER BY \
         {stamp}, Id LIMIT {limit}"
    )
}

/// Spreads fields over queries of a length that a request may have.
fn parts(fields: &[&str], stamp: &str) -> Vec<Vec<usize>> {
    // A comma takes three characters when it is encoded.
    let length = |at: &usize| fields[*at].len() + 3;
    let every = |at: &usize| matches!(fields[*at], "Id" | "IsDeleted") || fields[*at] == stamp;
    let (keys, others): (Vec<usize>, Vec<usize>) = (0..fields.len()).partition(every);
    let start: usize = keys.iter().map(length).sum();
    let mut parts = vec![keys.clone()];
    let mut size = start;
    for at in others {
        if size + length(&at) > FIELDS {
            parts.push(keys.clone());
            size = start;
        }
        size += length(&at);
        // There is always one.
        if let Some(part) = parts.last_mut() {
            part.push(at);
        }
    }
    for part in &mut parts {
        part.sort_unstable();
    }
    parts
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
        let selection = Selection::of(&wide).expect("a selection");
        assert_eq!(selection.parts.len(), 2);
        let mut places: Vec<usize> = selection.parts.concat();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 702, "every field");
        for part in &selection.parts {
            let part = selection.part(part);
            assert!(part.fields.contains(&"Id") && part.fields.contains(&"SystemModstamp"));
            for soql in part.by_ids(&ids) {
                let encoded = soql.len() + 2 * soql.matches([',', '\'', ' ', '(', ')']).count();
                assert!(encoded <= 15_000, "{encoded}");
            }
        }
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
