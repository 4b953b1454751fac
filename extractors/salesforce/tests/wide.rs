//! Records with more fields than one query can name.

mod model;

use drover_extractor_salesforce::Salesforce;
use drover_pipeline::extract::{Extractor, Object, SourceField};
use drover_pipeline::testing::extractor::{Reader, Source, Write, object};
use model::{Model, State};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};

/// More than the 2,000 fields that a record is said to have.
const FIELDS: usize = 2_100;

async fn wide(extractor: &Salesforce) -> Object {
    let mut account = object(extractor, "Account").await;
    for number in 0..FIELDS {
        account.fields.push(SourceField {
            name: format!("Wide_field_number_{number}__c"),
            kind: "string".to_owned(),
            ..SourceField::default()
        });
    }
    account
}

/// The fields that the truth knows of; panics where the others are not of the
/// same version.
fn narrow(body: &str) -> String {
    let mut body: Map<String, Value> = serde_json::from_str(body).expect("JSON");
    let name = body["Name"].as_str().expect("a name").to_owned();
    let version = name.rsplit('\n').next().expect("its end");
    let mut count = 0;
    body.retain(|field, value| {
        let wide = field.starts_with("Wide");
        if wide {
            count += 1;
            assert_eq!(*value, format!("{version} {field}"), "of another version");
        }
        !wide
    });
    assert_eq!(count, FIELDS);
    Value::Object(body).to_string()
}

/// While records are edited, deleted and made between any two queries, each body
/// is of one version, and at last all are as in the source; by Bulk, where one
/// query holds all names, they are the same bytes.
#[tokio::test]
async fn a_wide_record_is_of_one_version() {
    let mut state = State::new(9, 30);
    state.short = true;
    let mut chaos = StdRng::seed_from_u64(4);
    state.chaos = Some(Box::new(move |state| {
        state.now += 1_000;
        let rows = &state.tables["Account"].rows;
        let id = rows.keys().nth(chaos.random_range(0..rows.len()));
        let id = id.cloned().expect("a row");
        match chaos.random_range(0..8) {
            0 => state.write("Account", Write::Create),
            1 => state.write("Account", Write::Delete(&id)),
            2 => state.write("Account", Write::Undelete(&id)),
            _ => state.write("Account", Write::Edit(&id)),
        };
    }));
    let mut model = Model::run(state, 6, 600_000).await;
    let extractor = model.extractor();
    let account = wide(&extractor).await;
    let mut reader = Reader::<Salesforce>::new(account.clone());
    for _ in 0..40 {
        reader.step(&extractor).await.expect("a page");
        for change in &reader.page {
            change.body.as_deref().map(narrow);
        }
    }
    assert!(reader.complete);
    model.state().chaos = None;
    model.settle().await;
    reader.catch_up(&extractor).await;
    reader.catch_up(&extractor).await;

    let ids: Vec<&str> = reader.known.keys().map(String::as_str).collect();
    let got = extractor.get(&account, &ids).await.expect("by id");
    for (id, change) in ids.iter().zip(got) {
        let change = change.map(|change| change.body);
        assert_eq!(change.flatten(), reader.known[*id].1, "{id} by id");
    }
    model.threshold = 0;
    let mut by_bulk = Reader::<Salesforce>::new(account);
    by_bulk.catch_up(&model.extractor()).await;
    for (id, (_, body)) in reader.known.iter().filter(|(_, known)| known.1.is_some()) {
        assert_eq!(
            Some(body),
            by_bulk.known.get(id).map(|known| &known.1),
            "{id} by Bulk"
        );
    }
    for known in reader.known.values_mut() {
        known.1 = known.1.as_deref().map(narrow);
    }
    reader.compare(&model.truth("Account").await, "in the end");
}
