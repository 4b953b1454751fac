//! The sample data of five public apps, 1,748 records of thirteen objects, eight
//! of them custom, the whole way into PostgreSQL. Nothing here knows the mapper:
//! each field's totals are taken from the data itself.
//!
//! The data is not part of this tree: without it the test says so and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use drover_tests::services::root;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

/// The files, and whose references each knows: a file of another name for the
/// same records has references of its own.
const FILES: &[(&str, &str)] = &[
    ("apex-recipes/data/Accounts.json", "apex"),
    ("apex-recipes/data/Campaigns.json", "apex"),
    ("apex-recipes/data/Contacts.json", "apex"),
    ("apex-recipes/data/Junction Demo 1.json", "apex"),
    ("apex-recipes/data/Junction Demo 2.json", "apex"),
    ("apex-recipes/data/Junction.json", "apex"),
    ("apex-recipes/data/Opportunities.json", "apex"),
    ("coral-cloud/data/data-Contact.json", "coral"),
    ("coral-cloud/data/data-Experience__c.json", "coral"),
    ("coral-cloud/data/data-Guest_Review__c.json", "coral"),
    ("coral-cloud/data/data-Case.json", "coral"),
    ("coral-cloud/data/data-Contact-large.json", "coral-large"),
    (
        "coral-cloud/data/data-Experience__c-large.json",
        "coral-large",
    ),
    ("dreamhouse-lwc/data/brokers-data.json", "dreamhouse"),
    ("dreamhouse-lwc/data/contacts-data.json", "dreamhouse"),
    ("dreamhouse-lwc/data/properties-data.json", "dreamhouse"),
    ("ebikes-lwc/data/Accounts.json", "ebikes"),
    ("ebikes-lwc/data/Product_Family__cs.json", "ebikes"),
    ("ebikes-lwc/data/Product__cs.json", "ebikes"),
    ("lwc-recipes/data/Accounts.json", "lwc"),
    ("lwc-recipes/data/Contacts.json", "lwc"),
    ("lwc-recipes/data/Opportunities.json", "lwc"),
];

/// Records of each object, counted by hand in the files.
const COUNTS: &[(&str, usize)] = &[
    ("Account", 63),
    ("Broker__c", 8),
    ("Campaign", 15),
    ("Case", 2),
    ("Contact", 1309),
    ("Experience__c", 89),
    ("Guest_Review__c", 10),
    ("Junction_Demo_1__c", 50),
    ("Junction_Demo_2__c", 50),
    ("Junction__c", 50),
    ("Opportunity", 70),
    ("Product_Family__c", 4),
    ("Product__c", 16),
    ("Property__c", 12),
];

/// An object, its table, and where its fields go.
type Columns = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Where the standard fields go; a column that ends with `_id` leads to a row of
/// the table beside it. Every other field has to stand in `custom`.
const COLUMNS: &[Columns] = &[
    (
        "Account",
        "company",
        &[
            ("Name", "name"),
            ("Phone", "phone_number"),
            ("Fax", "fax"),
            ("Website", "website"),
            ("Type", "type"),
            ("Industry", "industry"),
            ("NumberOfEmployees", "employees"),
            ("AnnualRevenue", "annual_revenue"),
            ("Description", "description"),
            ("BillingStreet", "billing_street"),
            ("BillingCity", "billing_city"),
            ("BillingState", "billing_state"),
            ("BillingPostalCode", "billing_postal_code"),
            ("BillingCountry", "billing_country"),
            ("ShippingStreet", "shipping_street"),
            ("ShippingCity", "shipping_city"),
            ("ShippingState", "shipping_state"),
            ("ShippingPostalCode", "shipping_postal_code"),
        ],
    ),
    (
        "Contact",
        "contact",
        &[
            ("LastName", "last_name"),
            ("FirstName", "first_name"),
            ("Email", "email"),
            ("Title", "title"),
            ("Phone", "phone_number"),
            ("MobilePhone", "mobile_number"),
            ("MailingStreet", "mailing_street"),
            ("MailingCity", "mailing_city"),
            ("MailingState", "mailing_state"),
            ("MailingPostalCode", "mailing_postal_code"),
            ("MailingCountry", "mailing_country"),
            ("LeadSource", "lead_source"),
            ("Birthdate", "birth_date"),
            ("AccountId", "company_id"),
        ],
    ),
    (
        "Campaign",
        "campaign",
        &[
            ("Name", "name"),
            ("BudgetedCost", "budget"),
            ("ActualCost", "cost"),
        ],
    ),
    (
        "Opportunity",
        "deal",
        &[
            ("Name", "name"),
            ("Amount", "amount"),
            ("CloseDate", "close_date"),
            ("Description", "description"),
            ("StageName", "stage"),
            ("AccountId", "company_id"),
        ],
    ),
    (
        "Case",
        "ticket",
        &[
            ("Subject", "subject"),
            ("Description", "description"),
            ("Status", "status"),
            ("Priority", "priority"),
            ("Origin", "channel"),
            ("Type", "type"),
            ("Reason", "reason"),
            ("ContactId", "contact_id"),
        ],
    ),
];

/// Tables that links lead to.
const LINKS: &[(&str, &str)] = &[("company_id", "company"), ("contact_id", "contact")];

/// Standard fields whose values are numbers, though some files quote them.
const NUMBERS: &[&str] = &[
    "NumberOfEmployees",
    "AnnualRevenue",
    "BudgetedCost",
    "ActualCost",
    "Amount",
];

type Records = BTreeMap<String, Vec<Map<String, Value>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_and_field_of_sample_apps_arrives() {
    let Some(records) = samples() else { return };
    let counted: Vec<(&str, usize)> = records.iter().map(|(k, v)| (k.as_str(), v.len())).collect();
    assert_eq!(counted, COUNTS);
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (object, records) in &records {
        let lines: String = records.iter().map(|r| format!("{}\n", json!(r))).collect();
        fs::write(folder.path().join(format!("{object}.jsonl")), lines).expect("written");
    }
    let names: Vec<&String> = records.keys().collect();
    let data = folder.path().to_str().expect("a path in UTF-8");
    let mut migration = Migration::with(
        "samples",
        &["--data", data],
        "postgres",
        json!({}),
        json!({"objects": names}),
    );
    migration.start_all(1);
    let all: usize = COUNTS.iter().map(|(_, count)| count).sum();
    let deadline = Instant::now() + Duration::from_secs(90);
    while migration.loaded() < all {
        migration.assert_alive();
        let late = Instant::now() > deadline;
        assert!(!late, "{}\n{}", migration.status(), migration.logs());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let client = connect(&migration.services().postgres).await;
    let mut wrong = Vec::new();
    for (object, records) in &records {
        let fields: BTreeSet<&String> = records.iter().flat_map(Map::keys).collect();
        for field in fields.into_iter().filter(|field| *field != "Id") {
            let values: Vec<&Value> = records.iter().filter_map(|r| filled(r, field)).collect();
            let want = expected(&values, object, field);
            let have = totals(&client, &migration.schema, object, field, &values).await;
            if want != have {
                wrong.push(format!("{object}.{field}: {want} is {have}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // What the extractor says of the org's calls has come through as well.
    let quotas = &migration.status()["quotas"];
    assert_eq!(quotas[0]["limit"], 1_000_000_000, "{quotas}");
    assert_eq!(quotas[0]["reserve"], 100_000_000, "{quotas}");
    assert!(quotas[0]["forecast"]["copy"]["least"].is_u64(), "{quotas}");
    migration.assert_none_left_out();
    migration.stop_all();
}

/// The records by object, with ids of their own and with the API's names.
fn samples() -> Option<Records> {
    let folder = root().join("../shared/records/salesforce/sample-apps");
    if !folder.is_dir() {
        println!("skipped: no data at {}", folder.display());
        return None;
    }
    // Plans say in which order a tool loads the others, and hold no records.
    let found = files(&folder).filter(|path| path.ends_with(".json") && !path.contains("-plan"));
    let known: BTreeSet<String> = FILES.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found.collect::<BTreeSet<_>>(), known);
    let mut records = Records::new();
    // What a reference leads to, by whose it is.
    let mut ids: BTreeMap<(&str, String), String> = BTreeMap::new();
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (file, owner) in FILES {
        for record in read(&folder.join(file)) {
            let kind = record["attributes"]["type"]
                .as_str()
                .expect("a type")
                .to_owned();
            let of_kind = records.entry(kind.clone()).or_default();
            // Ids of no other object, so that each finds its own.
            let id = format!("{}-{kind}-{}", owner, of_kind.len());
            if let Some(reference) = record["attributes"]["referenceId"].as_str() {
                let before = ids.insert((*owner, format!("@{reference}")), id.clone());
                assert_eq!(before, None, "{file} {reference}");
            }
            let mut named: Map<String, Value> =
                [("Id".to_owned(), json!(id))].into_iter().collect();
            for (field, value) in record
                .into_iter()
                .filter(|(field, _)| field != "attributes")
            {
                named.insert(api_name(&kind, &field), value);
            }
            owners.entry(kind).or_default().push(owner);
            of_kind.push(named);
        }
    }
    for (kind, records) in &mut records {
        for (record, owner) in records.iter_mut().zip(&owners[kind]) {
            for (field, value) in record.iter_mut() {
                let Some(text) = value.as_str() else { continue };
                if let Some(id) = ids.get(&(*owner, text.to_owned())) {
                    *value = json!(id);
                } else if field == "CloseDate" {
                    // An org that takes such a moment for a date keeps the day.
                    *value = json!(text[..10]);
                } else if NUMBERS.contains(&field.as_str()) {
                    *value = serde_json::from_str(text).expect("a number");
                }
            }
        }
    }
    Some(records)
}

/// The files of all apps, below their folder.
fn files(folder: &Path) -> impl Iterator<Item = String> {
    let entries = |path: &Path| {
        fs::read_dir(path)
            .expect("a folder")
            .map(|e| e.expect("readable").path())
    };
    let apps: Vec<_> = entries(folder)
        .filter(|app| app.join("data").is_dir())
        .collect();
    let files: Vec<_> = apps
        .iter()
        .flat_map(|app| entries(&app.join("data")))
        .collect();
    let folder = folder.to_owned();
    files.into_iter().map(move |file| {
        let below = file.strip_prefix(&folder).expect("below it");
        below.to_str().expect("UTF-8").to_owned()
    })
}

fn read(path: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut file: Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(file["records"].take()).expect("records")
}

/// The name as the API writes it: the files' case is as it comes.
fn api_name(object: &str, field: &str) -> String {
    let known = COLUMNS.iter().filter(|(name, ..)| *name == object);
    let mut names = known.flat_map(|(_, _, columns)| columns.iter().map(|column| column.0));
    let name = names.find(|name| name.eq_ignore_ascii_case(field));
    name.unwrap_or(field).to_owned()
}

fn filled<'r>(record: &'r Map<String, Value>, field: &str) -> Option<&'r Value> {
    let value = record.get(field)?;
    (!value.is_null() && value.as_str() != Some("")).then_some(value)
}

/// How many values a field has and what they add up to, by the files: numbers
/// their sum, texts their characters, links how many different ones.
fn expected(values: &[&Value], object: &str, field: &str) -> String {
    let sum = if values.iter().all(|value| value.is_number()) {
        let sum: f64 = values.iter().filter_map(|value| value.as_f64()).sum();
        format!("{sum:.4}")
    } else if leads_on(values, object, field) {
        let distinct: BTreeSet<&str> = values.iter().filter_map(|value| value.as_str()).collect();
        distinct.len().to_string()
    } else {
        let texts = values.iter().filter_map(|value| value.as_str());
        texts
            .map(|text| text.chars().count())
            .sum::<usize>()
            .to_string()
    };
    format!("{} filled, {sum}", values.len())
}

fn column(object: &str, field: &str) -> Option<&'static str> {
    let (_, _, columns) = COLUMNS.iter().find(|(name, ..)| *name == object)?;
    let found = columns.iter().find(|(name, _)| *name == field)?;
    Some(found.1)
}

/// Whether a field holds ids of these files, in a column that is a link or as
/// they stand in `custom`.
fn leads_on(values: &[&Value], object: &str, field: &str) -> bool {
    let of_ours = |value: &&Value| {
        let text = value.as_str().unwrap_or_default();
        COUNTS
            .iter()
            .any(|(name, _)| text.contains(&format!("-{name}-")))
    };
    let link = column(object, field).is_some_and(|column| column.ends_with("_id"));
    link || values.iter().all(of_ours)
}

/// The same, by SQL.
async fn totals(
    client: &Client,
    schema: &str,
    object: &str,
    field: &str,
    values: &[&Value],
) -> String {
    let table = COLUMNS.iter().find(|(name, ..)| *name == object);
    let table = table.map_or("record", |(_, table, _)| table);
    let value = match column(object, field) {
        Some(column) => format!("t.\"{column}\""),
        None if field == "Name" => "t.name".to_owned(),
        None => format!("t.custom->>'{field}'"),
    };
    let link = column(object, field)
        .and_then(|column| LINKS.iter().find(|(link, _)| *link == column))
        .map(|(_, table)| table);
    let (sum, join) = if values.iter().all(|value| value.is_number()) {
        let sum = format!("to_char(coalesce(sum(({value})::numeric), 0), 'FM999999999990.0000')");
        (sum, String::new())
    } else if let Some(to) = link {
        // Counted behind the link, so that it must lead somewhere.
        let join = format!("left join \"{schema}\".\"{to}\" p on p.id = {value}");
        ("count(distinct p.drover_id)::text".to_owned(), join)
    } else if leads_on(values, object, field) {
        (format!("count(distinct {value})::text"), String::new())
    } else {
        let sum = format!("coalesce(sum(char_length(({value})::text)), 0)::text");
        (sum, String::new())
    };
    let sql = format!(
        "select count({value})::text || ' filled, ' || {sum} from \"{schema}\".\"{table}\" t \
         {join} where t.drover_object = $1 and t.drover_deleted_at is null"
    );
    match client.query_one(&sql, &[&object]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}
