//! What must lie in the target, said without Drover's mapper: which object lies
//! in which table, and which of its fields in which column, written by hand.
//! Custom fields (`…__c`) must lie in `custom`, each under its API name.

mod salesforce;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

pub use salesforce::SALESFORCE;

use crate::sandbox::Sandbox;

/// Where an object's records lie: table, plain fields by column, and links by
/// column with the table that they point into and the fields of the source.
pub struct Expectation {
    /// The object's API name.
    pub object: &'static str,
    /// The table.
    pub table: &'static str,
    /// Which of the object's records lie there.
    pub only: fn(&Value) -> bool,
    /// Column → source field.
    pub fields: &'static [(&'static str, &'static str)],
    /// Column → (table it points into, or `*` where the column beside it says
    /// so, and the fields of the source, the first of which that is set counts).
    pub links: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// The columns without whose links a record is not loaded.
    pub required: &'static [&'static str],
}

impl Expectation {
    const fn of(object: &'static str, table: &'static str) -> Expectation {
        Expectation {
            object,
            table,
            only: |_| true,
            fields: &[],
            links: &[],
            required: &[],
        }
    }
}

/// Custom fields that follow another record: they change without a sign of it,
/// and are read again only now and then.
const FORMULAS: &[&str] = &["Account_Industry__c", "Customer__c"];

/// Objects whose deletes show only when all is read again, hours later: the
/// source has neither a stamp nor a log for them (docs/sources/salesforce.md).
const SEEN_LATE: &[&str] = &["ContentDocumentLink"];

/// What differs between source and target.
#[derive(Debug, Default)]
pub struct Differences {
    /// One line each, at most 20 of them.
    pub lines: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// Records compared.
    pub compared: usize,
    /// Records that wait for a parent which the source does not have.
    pub waiting: usize,
    /// Of the differences, records that are not in the target.
    pub lost: usize,
    /// Of the differences, records that are there more than once.
    pub doubled: usize,
}

impl Differences {
    fn add(&mut self, line: String) {
        self.count += 1;
        if self.lines.len() < 20 {
            self.lines.push(line);
        }
    }

    /// `None` when there is none.
    pub fn missing(&self) -> Option<String> {
        (self.count > 0).then(|| format!("{} differences: {:#?}", self.count, self.lines))
    }
}

/// The source's live and deleted records by object and id.
pub struct Truth(BTreeMap<&'static str, BTreeMap<String, Value>>);

impl Truth {
    /// Asks the stand-in for the records of these objects, all of which the
    /// oracle must know.
    pub async fn of(sandbox: &Sandbox, objects: &[String]) -> Truth {
        let mut truth = BTreeMap::new();
        for object in objects {
            let known = SALESFORCE
                .iter()
                .find(|expected| expected.object == object)
                .unwrap_or_else(|| panic!("nothing is written down about {object}"));
            truth.insert(known.object, sandbox.records(object).await);
        }
        Truth(truth)
    }

    /// What is expected of these objects' records.
    fn expectations(&self) -> impl Iterator<Item = &'static Expectation> {
        SALESFORCE
            .iter()
            .filter(|expected| self.0.contains_key(expected.object))
    }

    /// The record with that id: where it lies, and what it is.
    fn find(&self, id: &str) -> Option<(&'static Expectation, &Value)> {
        self.expectations().find_map(|expected| {
            let record = self.0[expected.object].get(id)?;
            (expected.only)(record).then_some((expected, record))
        })
    }
}

/// Compares the stand-in's truth with the records of the append-only target,
/// and counts keys that were created more than once, by the target's own log.
pub async fn compare_appendonly(truth: &Truth, target: &str) -> Differences {
    let lines = |path: &str| {
        let url = format!("{target}{path}");
        async move {
            let text = reqwest::get(url).await.expect("the target answers");
            let text = text.text().await.expect("its lines");
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
                .collect::<Vec<Value>>()
        }
    };
    let mut differences = Differences::default();
    let mut created = BTreeSet::new();
    for create in lines("/_control/creates").await {
        let key = create["key"].as_str().unwrap_or_default().to_owned();
        if !created.insert(key.clone()) {
            differences.doubled += 1;
            differences.add(format!("{key} was created twice"));
        }
    }
    let records = lines("/_control/records").await;
    let source_id = |key: &str| {
        let (raw, _) = key.rsplit_once('#').unwrap_or((key, ""));
        raw.splitn(3, '/').nth(2).unwrap_or_default().to_owned()
    };
    let by_id: BTreeMap<String, String> = records
        .iter()
        .map(|record| {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            (text("id"), source_id(&text("key")))
        })
        .collect();
    for expected in truth.expectations() {
        let prefix = format!("salesforce/{}/", expected.object);
        let slot = format!("#{}", expected.table);
        let rows: Vec<(String, Row)> = records
            .iter()
            .filter(|record| {
                record["key"]
                    .as_str()
                    .is_some_and(|key| key.starts_with(&prefix) && key.ends_with(&slot))
            })
            .map(|record| {
                let fields = &record["fields"];
                let plain = expected.fields.iter().map(|(column, _)| {
                    let value = match &fields[camel(column)] {
                        // The source's own text keeps its digits in both.
                        Value::Null => None,
                        Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    };
                    ((*column).to_owned(), value)
                });
                let links = expected.links.iter().map(|(column, _, _)| {
                    let id = fields[camel(column)].as_str();
                    let linked = id.and_then(|id| by_id.get(id).cloned());
                    ((*column).to_owned(), linked)
                });
                let row = Row {
                    columns: plain.chain(links).collect(),
                    custom: None,
                    deleted: record["deleted"] == true,
                };
                (source_id(record["key"].as_str().unwrap_or_default()), row)
            })
            .collect();
        compare_object(expected, truth, &rows, &mut differences);
    }
    differences
}

/// `phone_number` → `phoneNumber`.
fn camel(column: &str) -> String {
    let mut name = String::new();
    for part in column.split('_') {
        match part.chars().next() {
            Some(first) if !name.is_empty() => {
                name.push(first.to_ascii_uppercase());
                name.push_str(&part[first.len_utf8()..]);
            }
            _ => name.push_str(part),
        }
    }
    name
}

/// A connection to the target.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("PostgreSQL answers");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// Compares the stand-in's truth with the rows of PostgreSQL: every live record
/// is there once with its fields and links, and nothing else is.
pub async fn compare(truth: &Truth, postgres: &str, schema: &str) -> Differences {
    let client = connect(postgres).await;
    let mut differences = Differences::default();
    let tables: BTreeSet<&str> = truth.expectations().map(|e| e.table).collect();
    let mut ids = BTreeMap::new();
    for table in tables {
        let sql = format!("select id, drover_id from \"{schema}\".\"{table}\"");
        for row in select(&client, &sql, &[]).await {
            ids.insert((table.to_owned(), row.get::<_, i64>(0)), row.get(1));
        }
    }
    for expected in truth.expectations() {
        let rows = rows(&client, schema, expected, &ids).await;
        compare_object(expected, truth, &rows, &mut differences);
    }
    differences
}

/// A row: its columns as text, its links as the source's ids.
struct Row {
    columns: BTreeMap<String, Option<String>>,
    /// Its custom fields, where the target keeps them apart.
    custom: Option<Value>,
    deleted: bool,
}

/// The rows; none while the loader has not made the table yet.
async fn select(
    client: &tokio_postgres::Client,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Vec<tokio_postgres::Row> {
    match client.query(sql, values).await {
        Ok(rows) => rows,
        Err(error) if error.code().is_some_and(|c| c.code() == "42P01") => Vec::new(),
        Err(error) => panic!("{sql}: {error}"),
    }
}

async fn rows(
    client: &tokio_postgres::Client,
    schema: &str,
    expected: &Expectation,
    ids: &BTreeMap<(String, i64), String>,
) -> Vec<(String, Row)> {
    let mut columns: Vec<String> = expected
        .fields
        .iter()
        .map(|(column, _)| format!("\"{column}\"::text"))
        .collect();
    for (column, table, _) in expected.links {
        columns.push(format!("\"{column}\""));
        columns.push(match *table {
            "*" => format!("\"{}\"", column.replace("_id", "_type")),
            table => format!("'{table}'::text"),
        });
    }
    let sql = format!(
        "select drover_id, drover_deleted_at is not null, custom::text, {} from \"{schema}\".\"{}\" \
         where drover_source = 'salesforce' and drover_object = $1",
        columns.join(", "),
        expected.table
    );
    let found = select(client, &sql, &[&expected.object]).await;
    found
        .iter()
        .map(|row| {
            let mut columns = BTreeMap::new();
            let mut place = 3;
            for (column, _) in expected.fields {
                columns.insert((*column).to_owned(), row.get::<_, Option<String>>(place));
                place += 1;
            }
            for (column, _, _) in expected.links {
                let id = row.get::<_, Option<i64>>(place);
                let table = row.get::<_, Option<String>>(place + 1);
                // An id that no row has is shown as it is, and differs.
                let linked = id.map(|id| {
                    let table = table.unwrap_or_default();
                    let known = ids.get(&(table.clone(), id));
                    known.cloned().unwrap_or_else(|| format!("{table} {id}"))
                });
                columns.insert((*column).to_owned(), linked);
                place += 2;
            }
            let custom = serde_json::from_str(row.get(2)).expect("JSON");
            let values = Row {
                columns,
                custom: Some(custom),
                deleted: row.get(1),
            };
            (row.get(0), values)
        })
        .collect()
}

fn compare_object(
    expected: &Expectation,
    truth: &Truth,
    rows: &[(String, Row)],
    differences: &mut Differences,
) {
    let object = expected.object;
    let records = &truth.0[object];
    let mut seen = BTreeSet::new();
    for (id, row) in rows {
        if !seen.insert(id.clone()) {
            differences.doubled += 1;
            differences.add(format!("{object} {id} is there twice"));
        }
        let live = records
            .get(id)
            .is_some_and(|record| record["IsDeleted"] != true && (expected.only)(record));
        if !live && !row.deleted && !SEEN_LATE.contains(&object) {
            differences.add(format!(
                "{object} {id} is gone in the source, live in the target"
            ));
        }
        if live && row.deleted {
            differences.add(format!(
                "{object} {id} is live in the source, deleted in the target"
            ));
        }
        let Some(record) = records.get(id).filter(|_| live) else {
            continue;
        };
        differences.compared += 1;
        for (column, field) in expected.fields {
            let want = text(&record[*field]);
            let have = row.columns[*column].clone();
            if !same(want.as_deref(), have.as_deref()) {
                differences.add(format!("{object} {id}.{field}: {want:?} is {have:?}"));
            }
        }
        for (column, table, fields) in expected.links {
            let want = first(record, fields);
            let have = row.columns[*column].clone();
            let arrives = want.as_ref().is_none_or(|id| loads(table, id, truth, 0));
            if arrives && want != have {
                differences.add(format!("{object} {id}.{column}: link {want:?} is {have:?}"));
            }
        }
        let Some(custom) = &row.custom else { continue };
        for (field, value) in record.as_object().into_iter().flatten() {
            let (want, have) = (text(value), text(&custom[field]));
            let is_custom = field.ends_with("__c") && !FORMULAS.contains(&field.as_str());
            if is_custom && !same(want.as_deref(), have.as_deref()) {
                differences.add(format!("{object} {id}.{field}: {want:?} is {have:?}"));
            }
        }
    }
    for (id, record) in records {
        if record["IsDeleted"] == true || !(expected.only)(record) || seen.contains(id) {
            continue;
        }
        if waits(expected, record, truth, 0) {
            differences.waiting += 1;
        } else {
            differences.lost += 1;
            differences.add(format!("{object} {id} is not in the target"));
        }
    }
}

/// The first of these fields that is set.
fn first(record: &Value, fields: &[&str]) -> Option<String> {
    fields.iter().find_map(|field| text(&record[*field]))
}

/// Whether a record waits for a required parent that never was live while we
/// looked, or whose own parent is so.
fn waits(expected: &Expectation, record: &Value, truth: &Truth, depth: usize) -> bool {
    expected.links.iter().any(|(column, table, fields)| {
        expected.required.contains(column)
            && first(record, fields).is_some_and(|id| !loads(table, &id, truth, depth + 1))
    })
}

/// Whether a record comes into that table of the target: it is known to the
/// source, and waits for nothing that does not come. A deleted record may or
/// may not have come before it was deleted.
fn loads(table: &str, id: &str, truth: &Truth, depth: usize) -> bool {
    truth.find(id).is_some_and(|(expected, record)| {
        (table == "*" || table == expected.table)
            && record["IsDeleted"] != true
            && depth < 10
            && !waits(expected, record, truth, depth)
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        // Several values of a picklist: one text in the source, a list in `custom`.
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().filter_map(text).collect();
            Some(texts.join(";"))
        }
        other => Some(other.to_string()),
    }
}

/// Equal as text, or as a number.
fn same(want: Option<&str>, have: Option<&str>) -> bool {
    if want == have {
        return true;
    }
    match (want, have) {
        (Some(want), Some(have)) => {
            let number = |text: &str| text.parse::<f64>().ok();
            number(want).is_some() && number(want) == number(have)
        }
        _ => false,
    }
}
