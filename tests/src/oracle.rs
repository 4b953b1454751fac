//! What must lie in the target, said without Drover's mapper: which object lies
//! in which table, and which of its fields in which column, written by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio_postgres::NoTls;

use crate::sandbox::Sandbox;

/// Where an object's records lie: table, plain fields by column, and links by
/// column with the table and the field of the source.
pub struct Expectation {
    /// The object's API name.
    pub object: &'static str,
    /// The table.
    pub table: &'static str,
    /// Column → source field.
    pub fields: &'static [(&'static str, &'static str)],
    /// Column → (table it points to, source field).
    pub links: &'static [(&'static str, &'static str, &'static str)],
    /// The links without which a record is not loaded.
    pub required: &'static [&'static str],
}

/// The Salesforce objects.
pub const SALESFORCE: &[Expectation] = &[
    Expectation {
        object: "Account",
        table: "company",
        fields: &[
            ("name", "Name"),
            ("phone_number", "Phone"),
            ("website", "Website"),
            ("industry", "Industry"),
            ("billing_city", "BillingCity"),
            ("annual_revenue", "AnnualRevenue"),
            ("employees", "NumberOfEmployees"),
            ("description", "Description"),
        ],
        links: &[("parent_id", "company", "ParentId")],
        required: &[],
    },
    Expectation {
        object: "Contact",
        table: "contact",
        fields: &[
            ("first_name", "FirstName"),
            ("last_name", "LastName"),
            ("email", "Email"),
            ("phone_number", "Phone"),
            ("title", "Title"),
            ("birth_date", "Birthdate"),
            ("bio", "Description"),
        ],
        links: &[
            ("company_id", "company", "AccountId"),
            ("manager_id", "contact", "ReportsToId"),
        ],
        required: &["AccountId"],
    },
    Expectation {
        object: "Lead",
        table: "lead",
        fields: &[
            ("last_name", "LastName"),
            ("company_name", "Company"),
            ("email", "Email"),
            ("status", "Status"),
        ],
        links: &[],
        required: &[],
    },
    Expectation {
        object: "Opportunity",
        table: "deal",
        fields: &[
            ("name", "Name"),
            ("stage", "StageName"),
            ("amount", "Amount"),
            ("close_date", "CloseDate"),
        ],
        links: &[("company_id", "company", "AccountId")],
        required: &["AccountId"],
    },
    Expectation {
        object: "Case",
        table: "ticket",
        fields: &[
            ("subject", "Subject"),
            ("status", "Status"),
            ("priority", "Priority"),
            ("description", "Description"),
        ],
        links: &[
            ("contact_id", "contact", "ContactId"),
            ("company_id", "company", "AccountId"),
        ],
        required: &["AccountId", "ContactId"],
    },
    Expectation {
        object: "Invoice__c",
        table: "record",
        fields: &[("name", "Name")],
        links: &[],
        required: &[],
    },
];

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

/// Compares the stand-in's truth with the records of the append-only target,
/// and counts keys that were created more than once, by the target's own log.
pub async fn compare_appendonly(sandbox: &Sandbox, target: &str) -> Differences {
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
    let mut truth: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    for expected in SALESFORCE {
        truth.insert(expected.object, sandbox.records(expected.object).await);
    }
    for expected in SALESFORCE {
        let prefix = format!("salesforce/{}/", expected.object);
        let rows: Vec<(String, Row)> = records
            .iter()
            .filter(|record| {
                record["key"]
                    .as_str()
                    .is_some_and(|key| key.starts_with(&prefix))
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
                    deleted: record["deleted"] == true,
                };
                (source_id(record["key"].as_str().unwrap_or_default()), row)
            })
            .collect();
        compare_object(expected, &truth, &rows, &mut differences);
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
pub async fn compare(sandbox: &Sandbox, postgres: &str, schema: &str) -> Differences {
    let client = connect(postgres).await;
    let mut differences = Differences::default();
    let mut truth: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    for expected in SALESFORCE {
        let records = sandbox.records(expected.object).await;
        truth.insert(expected.object, records);
    }
    for expected in SALESFORCE {
        let rows = rows(&client, schema, expected).await;
        compare_object(expected, &truth, &rows, &mut differences);
    }
    differences
}

/// A row: its columns as text, its links as the source's ids.
struct Row {
    columns: BTreeMap<String, Option<String>>,
    deleted: bool,
}

async fn rows(
    client: &tokio_postgres::Client,
    schema: &str,
    expected: &Expectation,
) -> Vec<(String, Row)> {
    let mut columns: Vec<String> = expected
        .fields
        .iter()
        .map(|(column, _)| format!("t.\"{column}\"::text as \"{column}\""))
        .collect();
    let mut joins = String::new();
    for (n, (column, table, _)) in expected.links.iter().enumerate() {
        columns.push(format!("l{n}.drover_id as \"{column}\""));
        joins.push_str(&format!(
            " left join \"{schema}\".\"{table}\" l{n} on l{n}.id = t.\"{column}\""
        ));
    }
    let sql = format!(
        "select t.drover_id, (t.drover_deleted_at is not null) as deleted, {} \
         from \"{schema}\".\"{}\" t {joins} \
         where t.drover_source = 'salesforce' and t.drover_object = $1",
        columns.join(", "),
        expected.table
    );
    let names: Vec<&str> = expected
        .fields
        .iter()
        .map(|(column, _)| *column)
        .chain(expected.links.iter().map(|(column, _, _)| *column))
        .collect();
    let rows = match client.query(&sql, &[&expected.object]).await {
        Ok(rows) => rows,
        // The loader has not made the table yet.
        Err(error) if error.code().is_some_and(|c| c.code() == "42P01") => Vec::new(),
        Err(error) => panic!("{sql}: {error}"),
    };
    rows.iter()
        .map(|row| {
            let id: String = row.get("drover_id");
            let columns = names
                .iter()
                .map(|name| ((*name).to_owned(), row.get::<_, Option<String>>(name)))
                .collect();
            let deleted = row.get("deleted");
            (id, Row { columns, deleted })
        })
        .collect()
}

fn compare_object(
    expected: &Expectation,
    truth: &BTreeMap<&str, BTreeMap<String, Value>>,
    rows: &[(String, Row)],
    differences: &mut Differences,
) {
    let object = expected.object;
    let records = &truth[object];
    let mut seen = BTreeSet::new();
    for (id, row) in rows {
        if !seen.insert(id.clone()) {
            differences.doubled += 1;
            differences.add(format!("{object} {id} is there twice"));
        }
        let live = records
            .get(id)
            .is_some_and(|record| record["IsDeleted"] != true);
        if !live && !row.deleted {
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
        for (column, table, field) in expected.links {
            let want = text(&record[*field]);
            let have = row.columns[*column].clone();
            let arrives = want.as_ref().is_none_or(|id| loads(table, id, truth, 0));
            if arrives && want != have {
                differences.add(format!("{object} {id}.{field}: link {want:?} is {have:?}"));
            }
        }
    }
    for (id, record) in records {
        if record["IsDeleted"] == true || seen.contains(id) {
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

/// Whether a record waits for a required parent that never was live while we
/// looked, or whose own parent is so.
fn waits(
    expected: &Expectation,
    record: &Value,
    truth: &BTreeMap<&str, BTreeMap<String, Value>>,
    depth: usize,
) -> bool {
    expected.links.iter().any(|(_, table, field)| {
        expected.required.contains(field)
            && text(&record[*field]).is_some_and(|id| !loads(table, &id, truth, depth + 1))
    })
}

/// Whether a record of that table's object comes into the target: it is known
/// to the source, and waits for nothing that does not come. A deleted record
/// may or may not have come before it was deleted.
fn loads(
    table: &str,
    id: &str,
    truth: &BTreeMap<&str, BTreeMap<String, Value>>,
    depth: usize,
) -> bool {
    let Some(expected) = SALESFORCE.iter().find(|e| e.table == table) else {
        return false;
    };
    let Some(record) = truth[expected.object].get(id) else {
        return false;
    };
    record["IsDeleted"] != true && depth < 10 && !waits(expected, record, truth, depth)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
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
