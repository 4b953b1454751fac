//! Every object that the mapping covers, and the custom ones, by both ways of
//! reading; links of documents, which can't be read as a whole; merges.

mod sandbox;

use std::collections::BTreeMap;
use std::time::Duration;

use drover_extractor_salesforce::Salesforce;
use drover_extractor_salesforce::describe::STANDARD;
use drover_pipeline::extract::{Extractor, Reached};
use drover_pipeline::record::Op;
use drover_pipeline::testing::extractor::{Reader, Source, object};
use sandbox::Sandbox;
use serde_json::{Value, json};

/// Reads an object to its end by one way.
async fn read(sandbox: &Sandbox, name: &str, way: Value) -> Reader<Salesforce> {
    let extractor = sandbox.client(way);
    let mut reader = Reader::new(object(&extractor, name).await);
    reader.catch_up(&extractor).await;
    reader
}

/// REST, Bulk, the changes and the lookup by id give the same bytes of every
/// record of every object, and all records; real ones too, where they are here.
#[tokio::test]
async fn every_object_by_every_way() {
    let sandbox = Sandbox::run(&["--records", "4000", "--seed", "5"], Duration::ZERO);
    sandbox.looks(1).await;
    let rest = json!({"pageSize": 200});
    let bulk = json!({"pageSize": 200, "bulkThreshold": 0, "bulkPageSize": 70});
    let names = STANDARD
        .iter()
        .copied()
        .chain(["Invoice__c", "Invoice_Line__c"]);
    let mut records = 0;
    for name in names {
        let truth = sandbox.truth(name).await;
        let by_rest = read(&sandbox, name, rest.clone()).await;
        by_rest.compare(&truth, "by REST");
        let by_bulk = read(&sandbox, name, bulk.clone()).await;
        by_bulk.compare(&truth, "by Bulk");
        let bodies = |known: &BTreeMap<String, (i64, Option<String>)>| {
            let live = known.iter().filter(|(_, known)| known.1.is_some());
            live.map(|(id, known)| (id.clone(), known.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let (one, two) = (bodies(&by_rest.known), bodies(&by_bulk.known));
        assert!(!one.is_empty(), "{name}: {} records", one.len());
        for (id, known) in &one {
            assert_eq!(Some(known), two.get(id), "{name} {id}");
        }
        assert_eq!(one.len(), two.len(), "{name}");
        records += one.len();
        let extractor = sandbox.client(rest.clone());
        let ids: Vec<&str> = one.keys().map(String::as_str).take(50).collect();
        let got = extractor.get(by_rest.object(), &ids).await.expect("get");
        for (id, change) in ids.iter().zip(got) {
            let change = change.expect("it is there");
            assert_eq!(
                Some(&(change.version, change.body)),
                one.get(*id),
                "{name} {id}"
            );
        }
    }
    assert!(records > 2_500, "{records}");
    let jobs = sandbox.count("/jobs/query").await;
    assert!(jobs > STANDARD.len() as u64, "{jobs} calls about jobs");
}

/// The sandbox refuses links without their documents, as the real one does, and
/// they are read all the same.
#[tokio::test]
async fn links_are_read_by_their_documents() {
    let sandbox = Sandbox::run(&["--records", "3000", "--seed", "6"], Duration::ZERO);
    let extractor = sandbox.client(json!({"pageSize": 10, "rereadIntervalMs": 1_500}));
    let links = object(&extractor, "ContentDocumentLink").await;
    let mut reader = Reader::new(links);
    reader.catch_up(&extractor).await;
    let truth = sandbox.truth("ContentDocumentLink").await;
    let live = |truth: &BTreeMap<String, Option<_>>| truth.values().flatten().count();
    assert!(live(&truth) > 20, "{}", live(&truth));
    reader.compare(&truth, "the first copy");

    // Of a document that changes, and of one that does not.
    let documents = sandbox.truth("ContentDocument").await;
    let live_documents = documents.into_iter().filter(|(_, body)| body.is_some());
    let documents: Vec<String> = live_documents.map(|(id, _)| id).collect();
    let of = |n: usize| json!({"ContentDocumentId": documents[n], "LinkedEntityId": "001000000000001AAA", "ShareType": "V"});
    let edit = |body: Value| sandbox.edit(body);
    let one = edit(json!({"object": "ContentDocumentLink", "create": of(3)})).await;
    edit(json!({"object": "ContentDocument", "id": documents[3], "fields": {"Title": "new"}}))
        .await;
    let other = edit(json!({"object": "ContentDocumentLink", "create": of(4)})).await;
    let gone = truth.iter().find(|(_, body)| body.is_some());
    let gone = gone.expect("a link").0.clone();
    edit(json!({"object": "ContentDocumentLink", "id": gone, "delete": true})).await;
    sandbox.settle().await;
    reader.catch_up(&extractor).await;
    assert!(reader.known.contains_key(&one), "of a changed document");
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    reader.catch_up(&extractor).await;
    reader.catch_up(&extractor).await;
    assert!(reader.known.contains_key(&other), "of the whole reading");
    assert_eq!(reader.known[&gone].1, None, "a link that was removed");
    reader.compare(&sandbox.truth("ContentDocumentLink").await, "read again");

    // What is said to be covered is what was read whole, not the present.
    match reader.step(&extractor).await.expect("a page") {
        Reached::Now { as_of } => {
            let read_at = reader.known.values().map(|known| known.0).max();
            assert!(Some(as_of) >= read_at, "{as_of}");
        }
        Reached::More => {}
        other => panic!("{other:?}"),
    }
    let ids = extractor.ids(reader.object(), None).await.expect("ids");
    assert!(!ids.ids.is_empty() && ids.next.is_some());
}

/// An object that nobody mapped, and that has no stamp of the usual name.
#[tokio::test]
async fn an_object_that_is_named_is_read() {
    let sandbox = Sandbox::run(&["--records", "4000", "--seed", "8"], Duration::ZERO);
    let extractor = sandbox.client(json!({"pageSize": 10}));
    let found = extractor.discover(&["CaseHistory".to_owned()]).await;
    let found = found.expect("objects").objects;
    let object = found.into_iter().find(|it| it.name == "CaseHistory");
    let object = object.expect("it is named");
    assert!(
        object
            .fields
            .iter()
            .all(|field| field.name != "SystemModstamp")
    );
    let mut reader = Reader::new(object);
    reader.catch_up(&extractor).await;
    let truth = sandbox.truth("CaseHistory").await;
    assert!(!truth.is_empty(), "{}", truth.len());
    reader.compare(&truth, "by its CreatedDate");
}

/// The losers of a merge are deleted, their winner and what was theirs changes.
#[tokio::test]
async fn a_merge_deletes_its_losers_and_moves_what_was_theirs() {
    let sandbox = Sandbox::run(&["--records", "2000", "--seed", "7"], Duration::ZERO);
    let extractor = sandbox.client(json!({"pageSize": 200}));
    let mut accounts = Reader::new(object(&extractor, "Account").await);
    let mut contacts = Reader::new(object(&extractor, "Contact").await);
    accounts.catch_up(&extractor).await;
    contacts.catch_up(&extractor).await;
    let account_of = |body: &Option<String>| {
        let body: Value = serde_json::from_str(body.as_deref()?).ok()?;
        (body["AccountId"].as_str()).map(str::to_owned)
    };
    let loser = contacts
        .known
        .values()
        .find_map(|known| account_of(&known.1));
    let loser = loser.expect("a contact of an account");
    let live = accounts.known.iter().filter(|(_, known)| known.1.is_some());
    let winner = live.map(|(id, _)| id.clone()).find(|id| *id != loser);
    let winner = winner.expect("another account");
    sandbox
        .edit(json!({"object": "Account", "id": winner, "merge": [loser]}))
        .await;
    sandbox.settle().await;
    accounts.catch_up(&extractor).await;
    let mut ops: Vec<(&str, Op)> = accounts
        .page
        .iter()
        .map(|c| (c.id.as_str(), c.op))
        .collect();
    ops.retain(|(id, _)| *id == loser || *id == winner);
    ops.sort_by_key(|(id, _)| *id == winner);
    // The log and the recycle bin both tell of it.
    ops.dedup();
    assert_eq!(
        ops,
        [(loser.as_str(), Op::Delete), (winner.as_str(), Op::Upsert)]
    );
    contacts.catch_up(&extractor).await;
    let orphans = contacts
        .known
        .values()
        .filter(|known| account_of(&known.1).as_ref() == Some(&loser));
    assert_eq!(orphans.count(), 0);
    accounts.compare(&sandbox.truth("Account").await, "after a merge");
    contacts.compare(&sandbox.truth("Contact").await, "after a merge");
}
