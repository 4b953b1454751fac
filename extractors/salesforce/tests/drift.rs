//! The org changes its fields while it is read, against `drover-sandbox`.

mod sandbox;

use drover_pipeline::Code;
use drover_pipeline::extract::drift::{Rules, settle};
use drover_pipeline::extract::{Extractor, Reached};
use drover_pipeline::testing::extractor::{Reader, Setup, Source, Write, object};
use reqwest::Method;
use sandbox::Sandbox;
use serde_json::{Value, json};

async fn staged(sandbox: &Sandbox, what: Value) {
    let done = sandbox.control(Method::POST, "describe", Some(what)).await;
    done.expect("staged");
}

/// A field is added after the first copy: all records are read again with it,
/// and a record that was deleted meanwhile is not passed over.
#[tokio::test]
async fn airbyte_77627_a_new_field_comes_with_every_record_and_no_delete_is_lost() {
    let (records, late) = (30, false);
    let sandbox = Sandbox::start(Setup { records, late }).await;
    let extractor = sandbox.extractor();
    let mut reader = Reader::new(object(&extractor, "Contact").await);
    reader.catch_up(&extractor).await;
    let gone = reader.known.keys().next().cloned().expect("a record");
    sandbox.write("Contact", Write::Delete(&gone)).await;
    let field =
        json!({"name": "Shoe_Size__c", "type": "string", "length": 40, "label": "Shoe size"});
    staged(&sandbox, json!({"object": "Contact", "add": field})).await;
    let now = object(&extractor, "Contact").await;
    let settled = settle(reader.object(), Some(&now), Rules::default(), |_| true);
    let added: Vec<&str> = settled.added.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(added, ["Shoe_Size__c"]);
    let mut known = reader.object().clone();
    settled.apply(&mut known);
    let cursor = extractor.again(reader.cursor.as_ref().expect("a cursor"));
    sandbox.settle().await;
    let mut again = Reader::new(known);
    again.cursor = cursor;
    let mut deleted = false;
    loop {
        let reached = again.step(&extractor).await.expect("a page");
        deleted |= again.page.iter().any(|c| c.id == gone && c.body.is_none());
        if matches!(reached, Reached::Now { .. }) {
            break;
        }
    }
    assert!(deleted, "the delete was passed over");
    let live = again.known.values().filter_map(|(_, body)| body.as_deref());
    let (with, all) = live.fold((0, 0), |(with, all), body| {
        (
            with + usize::from(body.contains("\"Shoe_Size__c\":")),
            all + 1,
        )
    });
    assert_eq!((with, all >= 29), (all, true));
}

/// What is hidden from the user is gone from the describe, and refused by name.
#[tokio::test]
async fn what_is_hidden_is_told() {
    let (records, late) = (10, false);
    let sandbox = Sandbox::start(Setup { records, late }).await;
    let extractor = sandbox.extractor();
    let known = object(&extractor, "Contact").await;
    let hide = |hidden: bool| json!({"object": "Contact", "field": "Email", "hidden": hidden});
    staged(&sandbox, hide(true)).await;
    let error = extractor.fetch(&known, None).await.expect_err("hidden");
    assert_eq!(error.code, Code::UnknownField);
    let now = object(&extractor, "Contact").await;
    let settled = settle(&known, Some(&now), Rules::default(), |field| {
        field == "Email"
    });
    let (_, error) = settled.halt.expect("a mapped field is gone");
    assert_eq!(error.place.as_deref(), Some("Contact.Email"));
    staged(&sandbox, hide(false)).await;
    let kind = json!({"object": "Contact", "field": "Birthdate", "type": "string"});
    staged(&sandbox, kind).await;
    let now = object(&extractor, "Contact").await;
    let settled = settle(&known, Some(&now), Rules::default(), |_| false);
    assert_eq!(settled.remarks.len(), 1, "{:?}", settled.remarks);
    assert!(settled.remarks[0].contains("`date` and is `string`"));

    staged(&sandbox, json!({"object": "Contact", "hidden": true})).await;
    let error = extractor.fetch(&known, None).await.expect_err("hidden");
    assert_eq!(error.code, Code::UnknownObject);
    let found = extractor.discover(&[]).await.expect("a description");
    assert!(found.objects.iter().all(|object| object.name != "Contact"));
    let settled = settle(&known, None, Rules::default(), |_| true);
    assert_eq!(
        settled.halt.expect("hidden").1.place.as_deref(),
        Some("Contact")
    );
}
