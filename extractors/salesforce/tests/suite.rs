//! The suite of every extractor, against `drover-sandbox`; and what only
//! Salesforce has.

mod sandbox;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_pipeline::extract::{Extractor, SourceField};
use drover_pipeline::testing::extractor::{Reader, Setup, Source, object};
use drover_pipeline::{Class, Code};
use sandbox::Sandbox;
use serde_json::{Map, Value, json};

mod by_rest {
    use super::sandbox::Sandbox;

    drover_pipeline::extractor_suite!(Sandbox);
}

mod by_bulk {
    use super::sandbox::BulkSandbox;

    drover_pipeline::extractor_suite!(BulkSandbox);
}

async fn small() -> Sandbox {
    Sandbox::start(Setup {
        records: 10,
        late: false,
    })
    .await
}

/// What is left out of a body: only what repeats other fields.
#[tokio::test]
async fn only_compound_fields_are_left_out() {
    let sandbox = small().await;
    let extractor = sandbox.extractor();
    for name in Sandbox::OBJECTS {
        let mut reader = Reader::new(object(&extractor, name).await);
        reader.catch_up(&extractor).await;
        let truth = sandbox.truth(name).await;
        let (id, record) = truth
            .iter()
            .find(|(_, record)| record.is_some())
            .expect("a record");
        let body = reader.known[id].1.as_deref().expect("a body");
        let body: Map<String, Value> = serde_json::from_str(body).expect("JSON");
        for field in record.as_ref().expect("alive").keys() {
            // Addresses of mail are texts; the bytes of a file are another call.
            let compound = field.ends_with("Address") && *name != "EmailMessage";
            let left_out = compound || field == "VersionData";
            assert_eq!(body.contains_key(field), !left_out, "{name}.{field}");
        }
        let described = reader
            .object()
            .fields
            .iter()
            .map(|field| field.name.as_str());
        let order: Vec<&str> = described
            .filter(|field| body.contains_key(*field))
            .collect();
        assert!(
            body.keys().eq(order),
            "{name}: in the order of the describe"
        );
    }
}

/// A field or an object that the source does not know asks for a person, and
/// the message names it.
#[tokio::test]
async fn what_the_source_does_not_know_is_named() {
    let sandbox = small().await;
    let extractor = sandbox.extractor();
    let mut contact = object(&extractor, "Contact").await;
    contact.fields.push(SourceField {
        name: "Nope__c".to_owned(),
        kind: "string".to_owned(),
        references: Vec::new(),
        ..SourceField::default()
    });
    let error = extractor
        .fetch(&contact, None)
        .await
        .expect_err("an unknown field");
    assert_eq!(
        (error.code, error.class()),
        (Code::UnknownField, Class::Operator)
    );
    assert!(
        error.message.contains("`Nope__c`") && error.message.contains("Contact"),
        "{error}"
    );
    assert!(!error.to_string().contains("SELECT"), "{error}");

    contact.fields.pop();
    contact.name = "Nothing__c".to_owned();
    let error = extractor
        .fetch(&contact, None)
        .await
        .expect_err("an unknown object");
    assert_eq!(
        (error.code, error.class()),
        (Code::UnknownObject, Class::Operator)
    );
    assert!(error.message.contains("`Nothing__c`"), "{error}");
}

/// Nothing of a token or a secret is in what an error says.
#[tokio::test]
async fn errors_hold_no_secret() {
    let sandbox = small().await;
    let error = sandbox
        .intruder()
        .check()
        .await
        .expect_err("a wrong secret");
    assert!(!format!("{error} {error:?}").contains("guessed"), "{error}");
    assert_eq!(error.source_code.as_deref(), Some("invalid_client"));
    let nowhere = sandbox.client(json!({"instanceUrl": "http://127.0.0.1:1"}));
    let error = nowhere.check().await.expect_err("no server");
    assert_eq!(error.code, Code::Connection);
}

/// Where the recorded data is, if it is here.
fn recorded() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let path = tree.join("../shared/records/salesforce/nango.jsonl");
    path.exists().then_some(path)
}

/// The records of every recorded query, by object and id, without what is not a
/// field of theirs.
fn records_of(path: &Path) -> BTreeMap<String, BTreeMap<String, Map<String, Value>>> {
    let mut objects: BTreeMap<String, BTreeMap<String, Map<String, Value>>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).expect("the records").lines() {
        let exchange: Value = serde_json::from_str(line).expect("JSON");
        for record in exchange["body"]["records"].as_array().into_iter().flatten() {
            let kind = record["attributes"]["type"].as_str().unwrap_or_default();
            let Some(id) = record["Id"].as_str() else {
                continue;
            };
            if !["Account", "Contact", "Opportunity", "Case"].contains(&kind) {
                continue;
            }
            let known = objects
                .entry(kind.to_owned())
                .or_default()
                .entry(id.to_owned())
                .or_default();
            for (name, value) in record.as_object().expect("a record") {
                if name != "attributes" && !value.is_object() {
                    known.insert(name.clone(), value.clone());
                }
            }
        }
    }
    objects
}

/// Real records come out with the values that they were recorded with.
#[tokio::test]
async fn recorded_records_come_out_as_they_are() {
    let Some(path) = recorded() else {
        println!("skipped: ../shared/records/salesforce is not here");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let objects = records_of(&path);
    for (name, records) in &objects {
        let lines: Vec<String> = records
            .values()
            .map(|record| json!(record).to_string())
            .collect();
        std::fs::write(
            folder.path().join(format!("{name}.jsonl")),
            lines.join("\n"),
        )
        .expect("written");
    }
    let data = folder.path().to_str().expect("a path");
    let sandbox = Sandbox::run(&["--data", data], Duration::ZERO);
    let extractor = sandbox.client(json!({"pageSize": 200}));
    for (name, least) in [
        ("Account", 2_000),
        ("Contact", 200),
        ("Opportunity", 30),
        ("Case", 25),
    ] {
        let records = &objects[name];
        assert!(
            records.len() >= least,
            "{name}: only {} recorded",
            records.len()
        );
        let mut reader = Reader::new(object(&extractor, name).await);
        reader.catch_up(&extractor).await;
        assert_eq!(reader.known.len(), records.len(), "{name}");
        for (id, record) in records {
            let id = drover_extractor_salesforce::id::normalise(id).expect("an id");
            let body = reader.known[&id].1.as_deref().expect("a body");
            let body: Map<String, Value> = serde_json::from_str(body).expect("JSON");
            for (field, value) in record {
                // The recorder printed `15000.0` as `15000`.
                let same = match (body.get(field).and_then(Value::as_f64), value.as_f64()) {
                    (Some(found), Some(expected)) => found == expected,
                    _ => body.get(field) == Some(value),
                };
                assert!(same, "{name} {id} {field}");
            }
        }
    }
}
