//! A recorded data set of a fund-raising org, 17,283 records of thirteen objects
//! that refer to each other, the whole way into PostgreSQL. Nothing here knows
//! the mapper: each field's totals are taken from the recording itself.
//!
//! The recording is not part of this tree: without it the test says so and
//! passes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use drover_tests::services::root;
use serde_json::{Value, json};
use tokio_postgres::Client;

use Kind::{Flag, Link, Number, Text};
use Place::{Column, Custom};

/// An object: its name in the recording and in the API, its table, how many
/// records it has, and where each field of the recording goes.
struct Object {
    name: &'static str,
    table: &'static str,
    count: usize,
    fields: &'static [(&'static str, &'static str, Kind, Place)],
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Number,
    Flag,
    /// The recording's number of another record.
    Link(&'static str),
}

#[derive(Clone, Copy)]
enum Place {
    Column(&'static str),
    Custom,
}

const OBJECTS: &[Object] = &[
    Object {
        name: "Account",
        table: "company",
        count: 1223,
        fields: &[
            ("Name", "Name", Text, Column("name")),
            (
                "BillingCountry",
                "BillingCountry",
                Text,
                Column("billing_country"),
            ),
            (
                "BillingStreet",
                "BillingStreet",
                Text,
                Column("billing_street"),
            ),
            (
                "BillingState",
                "BillingState",
                Text,
                Column("billing_state"),
            ),
            ("BillingCity", "BillingCity", Text, Column("billing_city")),
            (
                "BillingPostalCode",
                "BillingPostalCode",
                Text,
                Column("billing_postal_code"),
            ),
            (
                "npe01__SYSTEM_AccountType__c",
                "npe01__SYSTEM_AccountType__c",
                Text,
                Custom,
            ),
            // Record types are not recorded, so their ids stay ids.
            ("RecordTypeId", "RecordTypeId", Text, Custom),
        ],
    },
    Object {
        name: "Contact",
        table: "contact",
        count: 1024,
        fields: &[
            ("Salutation", "Salutation", Text, Column("salutation")),
            ("FirstName", "FirstName", Text, Column("first_name")),
            ("LastName", "LastName", Text, Column("last_name")),
            ("Title", "Title", Text, Column("title")),
            ("Phone", "Phone", Text, Column("phone_number")),
            ("Email", "Email", Text, Column("email")),
            (
                "account_id",
                "AccountId",
                Link("company"),
                Column("company_id"),
            ),
            (
                "primary_affiliation__c",
                "primary_affiliation__c",
                Text,
                Custom,
            ),
        ],
    },
    Object {
        name: "Campaign",
        table: "campaign",
        count: 13,
        fields: &[("name", "Name", Text, Column("name"))],
    },
    Object {
        name: "CampaignMember",
        table: "association",
        count: 1699,
        fields: &[
            ("status", "Status", Text, Column("status")),
            (
                "campaign_id",
                "CampaignId",
                Link("campaign"),
                Column("from_id"),
            ),
            ("contact_id", "ContactId", Link("contact"), Column("to_id")),
        ],
    },
    Object {
        name: "Opportunity",
        table: "deal",
        count: 1517,
        fields: &[
            ("name", "Name", Text, Column("name")),
            ("amount", "Amount", Number, Column("amount")),
            ("stage_name", "StageName", Text, Column("stage")),
            ("close_date", "CloseDate", Text, Column("close_date")),
            (
                "account_id",
                "AccountId",
                Link("company"),
                Column("company_id"),
            ),
            (
                "campaign_id",
                "CampaignId",
                Link("campaign"),
                Column("campaign_id"),
            ),
            (
                "dont_create_payments",
                "Dont_Create_Payments__c",
                Flag,
                Custom,
            ),
            ("primary_contact__c", "primary_contact__c", Text, Custom),
            (
                "npe03__recurring_donation__c",
                "npe03__recurring_donation__c",
                Text,
                Custom,
            ),
        ],
    },
    Object {
        name: "OpportunityContactRole",
        table: "association",
        count: 3499,
        fields: &[
            ("Role", "Role", Text, Column("role")),
            ("IsPrimary", "IsPrimary", Flag, Column("primary")),
            (
                "opportunity_id",
                "OpportunityId",
                Link("deal"),
                Column("from_id"),
            ),
            ("contact_id", "ContactId", Link("contact"), Column("to_id")),
        ],
    },
];

/// The custom objects: each is a record, with all of its fields in `custom`.
const CUSTOM: &[(&str, usize)] = &[
    ("Address__c", 1424),
    ("Allocation__c", 1030),
    ("General_Accounting_Unit__c", 1000),
    ("Partial_Soft_Credit__c", 1100),
    ("npe01__OppPayment__c", 2443),
    ("npe03__Recurring_Donation__c", 3),
    ("npe4__Relationship__c", 1308),
];

type Records = BTreeMap<String, Vec<serde_json::Map<String, Value>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_and_field_of_a_recorded_org_arrives() {
    let Some(recorded) = recording() else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut names: Vec<&str> = Vec::new();
    for object in OBJECTS {
        assert_eq!(recorded[object.name].len(), object.count, "{}", object.name);
        let lines: String = recorded[object.name]
            .iter()
            .map(|record| format!("{}\n", as_record(object, record)))
            .collect();
        names.push(object.name);
        fs::write(folder.path().join(format!("{}.jsonl", object.name)), lines).expect("written");
    }
    for (name, count) in CUSTOM {
        assert_eq!(recorded[*name].len(), *count, "{name}");
        let lines: String = recorded[*name]
            .iter()
            .map(|record| format!("{}\n", as_custom(record)))
            .collect();
        names.push(name);
        fs::write(folder.path().join(format!("{name}.jsonl")), lines).expect("written");
    }
    let data = folder.path().to_str().expect("a path in UTF-8");
    let mut migration = Migration::with(
        "npsp",
        &["--data", data],
        "postgres",
        json!({}),
        json!({"objects": names}),
    );
    migration.start_all(1);
    let client = connect(&migration.services().postgres).await;
    let schema = migration.schema.clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    let all = OBJECTS.iter().map(|object| object.count).sum::<usize>()
        + CUSTOM.iter().map(|(_, count)| count).sum::<usize>();
    while migration.loaded() < all {
        migration.assert_alive();
        assert!(
            Instant::now() < deadline,
            "{}\n{}",
            migration.status(),
            migration.logs()
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut wrong = Vec::new();
    for object in OBJECTS {
        let records = &recorded[object.name];
        for (from, field, kind, place) in object.fields {
            let value = match place {
                Column(column) => format!("t.\"{column}\""),
                Custom => format!("t.custom->>'{field}'"),
            };
            let have = totals(&client, &schema, object, &value, *kind).await;
            let want = expected(
                records.iter().filter_map(|record| filled(&record[*from])),
                *kind,
            );
            if want != have {
                wrong.push(format!("{}.{field}: {want} is {have}", object.name));
            }
        }
        for record in records {
            for name in record.keys().filter(|name| *name != "id") {
                let known = object.fields.iter().any(|(from, ..)| from == name);
                assert!(known, "{}.{name} is not accounted for", object.name);
            }
        }
    }
    for (name, count) in CUSTOM {
        let object = Object {
            name,
            table: "record",
            count: *count,
            fields: &[],
        };
        let fields: std::collections::BTreeSet<&String> = recorded[*name]
            .iter()
            .flat_map(|record| record.keys())
            .collect();
        for field in fields.into_iter().filter(|field| *field != "id") {
            let values = recorded[*name]
                .iter()
                .filter_map(|record| filled(&record[field]));
            let want = expected(values, Text);
            let value = match field.as_str() {
                "name" | "Name" => "t.name".to_owned(),
                _ => format!("t.custom->>'{field}'"),
            };
            let have = totals(&client, &schema, &object, &value, Text).await;
            if want != have {
                wrong.push(format!("{name}.{field}: {want} is {have}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    migration.assert_none_left_out();
    migration.stop_all();
}

fn recording() -> Option<Records> {
    let file = root().join("../shared/records/salesforce/npsp-1k/test_data.jsonl");
    let Ok(text) = fs::read_to_string(&file) else {
        println!("skipped: no recording at {}", file.display());
        return None;
    };
    let mut tables = Records::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        let table = row["table"].as_str().expect("a table").to_owned();
        let data = row["data"].as_object().expect("data").clone();
        tables.entry(table).or_default().push(data);
    }
    // 17,285 rows, of which two say what record types are called.
    assert_eq!(tables.values().map(Vec::len).sum::<usize>(), 17_285);
    Some(tables)
}

/// The record as the stand-in loads it, with the API's names and kinds.
fn as_record(object: &Object, record: &serde_json::Map<String, Value>) -> Value {
    let mut out = json!({"Id": record["id"].to_string()});
    for (from, field, kind, _) in object.fields {
        let Some(text) = filled(&record[*from]) else {
            continue;
        };
        out[*field] = match kind {
            Text | Link(_) => json!(text),
            Number => serde_json::from_str(&text).expect("a number"),
            Flag => json!(text == "true"),
        };
    }
    out
}

fn as_custom(record: &serde_json::Map<String, Value>) -> Value {
    let mut out = json!({"Id": record["id"].to_string()});
    for (field, value) in record.iter().filter(|(field, _)| *field != "id") {
        if let Some(text) = filled(value) {
            let field = if field == "name" { "Name" } else { field };
            out[field] = json!(text);
        }
    }
    out
}

fn filled(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// What the values of a field add up to, by the recording.
fn expected(values: impl Iterator<Item = String>, kind: Kind) -> String {
    let values: Vec<String> = values.collect();
    let sum = match kind {
        Text => values
            .iter()
            .map(|text| text.chars().count())
            .sum::<usize>()
            .to_string(),
        Number => {
            let sum: f64 = values
                .iter()
                .map(|text| text.parse::<f64>().expect("a number"))
                .sum();
            format!("{sum:.2}")
        }
        Flag => values
            .iter()
            .filter(|text| *text == "true")
            .count()
            .to_string(),
        Link(_) => {
            let distinct: std::collections::BTreeSet<&String> = values.iter().collect();
            distinct.len().to_string()
        }
    };
    format!("{} filled, {sum}", values.len())
}

/// The same, by SQL.
async fn totals(client: &Client, schema: &str, object: &Object, value: &str, kind: Kind) -> String {
    let (sum, join) = match kind {
        Text => (
            format!("coalesce(sum(char_length(({value})::text)), 0)::text"),
            String::new(),
        ),
        Number => (
            format!("to_char(coalesce(sum({value}), 0), 'FM999999990.00')"),
            String::new(),
        ),
        Flag => (
            format!("(count(*) filter (where ({value})::text = 'true'))::text"),
            String::new(),
        ),
        // Counted behind the link, so that it must lead somewhere.
        Link(table) => (
            "count(distinct p.drover_id)::text".to_owned(),
            format!("left join \"{schema}\".\"{table}\" p on p.id = {value}"),
        ),
    };
    let sql = format!(
        "select count({value})::text || ' filled, ' || {sum} from \"{schema}\".\"{}\" t {join} \
         where t.drover_object = $1 and t.drover_deleted_at is null",
        object.table
    );
    match client.query_one(&sql, &[&object.name]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}
