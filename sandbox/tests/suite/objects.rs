//! The objects beyond the six, and what queries can ask of them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DATA, Sandbox, keys};

#[tokio::test]
async fn every_object_has_records_that_hold_together() {
    let sandbox = Sandbox::start(&["--records", "4000"]);
    let stats = sandbox.stats().await;
    for (name, counts) in stats["objects"].as_object().unwrap() {
        // Chatter is not generated.
        assert_eq!(
            counts["records"].as_u64() > Some(0),
            name != "FeedItem",
            "{name}"
        );
    }
    let persons = sandbox
        .truth("Account")
        .await
        .into_iter()
        .filter(|row| row["IsPersonAccount"] == true);
    let persons: Vec<Value> = persons.collect();
    assert!(persons.len() > 10);
    for person in persons {
        let contact = person["PersonContactId"].as_str().unwrap();
        let contact = sandbox
            .get(&format!("{DATA}/sobjects/Contact/{contact}"))
            .await
            .json();
        assert_eq!(contact["IsPersonAccount"], true);
        for (own, theirs) in [
            ("Id", "AccountId"),
            ("LastName", "LastName"),
            ("FirstName", "FirstName"),
            ("Name", "Name"),
            ("PersonEmail", "Email"),
        ] {
            assert_eq!(person[own], contact[theirs], "{own}");
        }
    }
    let files = sandbox.truth("ContentVersion").await;
    let (latest, older): (Vec<&Value>, Vec<&Value>) =
        files.iter().partition(|row| row["IsLatest"] == true);
    assert_eq!(latest.len(), sandbox.truth("ContentDocument").await.len());
    assert!(!older.is_empty());
    let url = latest[3]["VersionData"].as_str().unwrap();
    let bytes = sandbox.get(&format!("{DATA}{url}")).await;
    assert_eq!(
        bytes.text.len() as u64,
        latest[3]["ContentSize"].as_u64().unwrap()
    );

    // Archived tasks are there, but not in queries.
    let tasks = sandbox.truth("Task").await;
    let archived = tasks
        .iter()
        .filter(|row| row["IsArchived"] == true && row["IsDeleted"] == false)
        .count() as u64;
    assert!(archived > 5, "{archived}");
    let live = stats["objects"]["Task"]["records"].as_u64().unwrap();
    let count = sandbox.query("SELECT COUNT() FROM Task").await["totalSize"]
        .as_u64()
        .unwrap();
    assert_eq!(count, live - archived);
    let all = sandbox
        .ask(
            "queryAll",
            "SELECT COUNT() FROM Task WHERE IsDeleted = false",
        )
        .await
        .json();
    assert_eq!(all["totalSize"], live);

    let described = sandbox
        .get(&format!("{DATA}/sobjects/Case/describe"))
        .await
        .json();
    let types: Vec<&str> = described["recordTypeInfos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["developerName"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["Support", "Billing", "Master"]);
}

#[tokio::test]
async fn links_of_documents_are_read_by_document_or_entity() {
    let sandbox = Sandbox::start(&["--records", "1000"]);
    for soql in [
        "SELECT Id FROM ContentDocumentLink",
        "SELECT COUNT() FROM ContentDocumentLink WHERE ShareType = 'V'",
    ] {
        let reply = sandbox.ask("query", soql).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code()),
            (400, "MALFORMED_QUERY".to_owned())
        );
        assert!(reply.json()[0]["message"].as_str().unwrap().starts_with(
            "Implementation restriction: ContentDocumentLink requires a filter by a single Id on ContentDocumentId or LinkedEntityId using the equals operator"
        ));
    }
    let documents = sandbox.column("SELECT Id FROM ContentDocument", "Id").await;
    let list = format!("'{}'", documents.join("','"));
    let found = sandbox
        .query(&format!(
            "SELECT Id, LinkedEntityId FROM ContentDocumentLink WHERE ContentDocumentId IN ({list})"
        ))
        .await;
    assert_eq!(
        found["totalSize"].as_u64().unwrap() as usize,
        sandbox
            .truth("ContentDocumentLink")
            .await
            .iter()
            .filter(|row| row["IsDeleted"] == false)
            .count()
    );
    let by_query = sandbox.query("SELECT Id FROM ContentDocumentLink WHERE ContentDocumentId IN (SELECT Id FROM ContentDocument)").await;
    assert_eq!(by_query["totalSize"], found["totalSize"]);
}

#[tokio::test]
async fn formulas_change_without_a_stamp() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let account = sandbox
        .edit(json!({"object": "Account", "create": {"Name": "a", "Industry": "Energy"}}))
        .await;
    let invoice = sandbox
        .edit(json!({"object": "Invoice__c", "create": {"Account__c": account}}))
        .await;
    let soql = format!(
        "SELECT Account_Industry__c, SystemModstamp FROM Invoice__c WHERE Id = '{invoice}'"
    );
    let before = sandbox.query(&soql).await["records"][0].clone();
    assert_eq!(before["Account_Industry__c"], "Energy");
    sandbox.edit(json!({"object": "Account", "id": account, "fields": {"Industry": "Banking"}, "at": "2030-01-01T00:00:00Z"})).await;
    let after = sandbox.query(&soql).await["records"][0].clone();
    assert_eq!(after["Account_Industry__c"], "Banking");
    assert_eq!(after["SystemModstamp"], before["SystemModstamp"]);
    assert_eq!(
        sandbox.truth("Invoice__c").await[0]["Account_Industry__c"],
        "Banking"
    );
    assert_eq!(
        sandbox
            .query("SELECT COUNT() FROM Invoice__c WHERE Account_Industry__c = 'Banking'")
            .await["totalSize"],
        1
    );
    let field = sandbox
        .get(&format!("{DATA}/sobjects/Invoice__c/describe"))
        .await
        .json()["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "Account_Industry__c")
        .unwrap()
        .clone();
    assert_eq!(
        (&field["calculated"], &field["createable"]),
        (&json!(true), &json!(false))
    );
}

#[tokio::test]
async fn typeof_having_and_inner_queries() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let edit = async |object: &str, fields: Value| {
        sandbox
            .edit(json!({"object": object, "create": fields}))
            .await
    };
    let account = edit("Account", json!({"Name": "A", "Phone": "1"})).await;
    let contact = edit(
        "Contact",
        json!({"LastName": "C", "Email": "c@x.example", "AccountId": account}),
    )
    .await;
    let lead = edit("Lead", json!({"LastName": "L", "Company": "Co"})).await;
    edit("Event", json!({"Subject": "1", "WhoId": contact, "WhatId": account, "StartDateTime": "2026-03-29T01:30:00Z", "DurationInMinutes": 60})).await;
    edit("Event", json!({"Subject": "2", "WhoId": lead, "StartDateTime": "2026-03-30T00:00:00Z", "DurationInMinutes": 15})).await;
    let page = sandbox
        .query(
            "SELECT Id, TYPEOF Who WHEN Contact THEN LastName, Email WHEN Lead THEN LastName, Company ELSE Id END, \
             TYPEOF What WHEN Opportunity THEN Amount ELSE Id END, EndDateTime, AccountId FROM Event ORDER BY Subject",
        )
        .await;
    let rows = page["records"].as_array().unwrap();
    assert_eq!(
        keys(&rows[0]),
        [
            "attributes",
            "Id",
            "Who",
            "What",
            "EndDateTime",
            "AccountId"
        ]
    );
    assert_eq!(rows[0]["Who"]["attributes"]["type"], "Contact");
    assert_eq!(keys(&rows[0]["Who"]), ["attributes", "LastName", "Email"]);
    assert_eq!(
        (&rows[0]["What"]["Id"], &rows[0]["AccountId"]),
        (&json!(account), &json!(account))
    );
    assert_eq!(rows[0]["EndDateTime"], "2026-03-29T02:30:00.000+0000");
    assert_eq!(
        (&rows[1]["Who"]["Company"], &rows[1]["What"]),
        (&json!("Co"), &Value::Null)
    );
    assert_eq!(
        sandbox
            .query("SELECT Id FROM Event WHERE Who.Type = 'Lead'")
            .await["totalSize"],
        1
    );

    for name in ["x", "x", "y"] {
        edit("Account", json!({"Name": "n", "Site": name})).await;
    }
    let groups = sandbox.query("SELECT Site, COUNT(Id) c FROM Account WHERE Site != null GROUP BY Site HAVING COUNT(Id) > 1").await;
    assert_eq!(
        (
            &groups["totalSize"],
            &groups["records"][0]["Site"],
            &groups["records"][0]["c"]
        ),
        (&json!(1), &json!("x"), &json!(2))
    );
    let inner = |not: &str| {
        format!(
            "SELECT COUNT() FROM Account WHERE Id {not} IN (SELECT AccountId FROM Contact WHERE Email LIKE '%example')"
        )
    };
    assert_eq!(sandbox.query(&inner("")).await["totalSize"], 1);
    assert_eq!(sandbox.query(&inner("NOT")).await["totalSize"], 3);
}

#[tokio::test]
async fn trees_and_graphs_are_all_or_nothing() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let tree = |last: Value| {
        json!({"records": [{"attributes": {"type": "Account", "referenceId": "a"}, "Name": "A",
            "Contacts": {"records": [{"attributes": {"type": "Contact", "referenceId": "c"}, "LastName": last}]}}]})
    };
    let path = format!("{DATA}/composite/tree/Account");
    let bad = sandbox.post(&path, &tree(Value::Null)).await;
    assert_eq!(
        (bad.status.as_u16(), &bad.json()["hasErrors"]),
        (400, &json!(true))
    );
    assert_eq!(bad.json()["results"][0]["referenceId"], "c");
    assert_eq!(
        bad.json()["results"][0]["errors"][0]["statusCode"],
        "REQUIRED_FIELD_MISSING"
    );
    assert_eq!(
        sandbox.query("SELECT COUNT() FROM Account").await["totalSize"],
        0
    );
    let good = sandbox.post(&path, &tree(json!("C"))).await;
    assert_eq!(good.status, 201);
    assert_eq!(
        sandbox
            .query("SELECT COUNT() FROM Contact WHERE Account.Name = 'A'")
            .await["totalSize"],
        1
    );

    let graph = |name: Value| {
        json!({"graphs": [{"graphId": "g", "compositeRequest": [
            {"method": "POST", "url": format!("{DATA}/sobjects/Account"), "referenceId": "a", "body": {"Name": "G"}},
            {"method": "POST", "url": format!("{DATA}/sobjects/Contact"), "referenceId": "c", "body": {"LastName": name, "AccountId": "@{a.id}"}},
        ]}]})
    };
    let path = format!("{DATA}/composite/graph");
    let bad = sandbox.post(&path, &graph(Value::Null)).await.json();
    let graphed = &bad["graphs"][0];
    assert_eq!(graphed["isSuccessful"], false);
    assert_eq!(
        graphed["graphResponse"]["compositeResponse"][0]["body"][0]["errorCode"],
        "PROCESSING_HALTED"
    );
    assert_eq!(
        sandbox
            .query("SELECT COUNT() FROM Account WHERE Name = 'G'")
            .await["totalSize"],
        0
    );
    let good = sandbox.post(&path, &graph(json!("C"))).await.json();
    assert_eq!(good["graphs"][0]["isSuccessful"], true);
    assert_eq!(
        sandbox
            .query("SELECT COUNT() FROM Contact WHERE Account.Name = 'G'")
            .await["totalSize"],
        1
    );
}

#[tokio::test]
async fn merges_leave_a_track() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let edit = async |object: &str, fields: Value| {
        sandbox
            .edit(json!({"object": object, "create": fields}))
            .await
    };
    let (one, two) = (
        edit("Account", json!({"Name": "1"})).await,
        edit("Account", json!({"Name": "2"})).await,
    );
    let contact = edit("Contact", json!({"LastName": "C", "AccountId": two})).await;
    sandbox
        .edit(json!({"object": "Account", "id": one, "merge": [two]}))
        .await;
    let page = sandbox
        .ask(
            "queryAll",
            "SELECT Id, IsDeleted, MasterRecordId FROM Account WHERE MasterRecordId != null",
        )
        .await
        .json();
    assert_eq!(
        (
            &page["records"][0]["Id"],
            &page["records"][0]["MasterRecordId"],
            &page["records"][0]["IsDeleted"]
        ),
        (&json!(two), &json!(one), &json!(true))
    );
    let contact = sandbox
        .get(&format!("{DATA}/sobjects/Contact/{contact}"))
        .await
        .json();
    assert_eq!(contact["AccountId"], json!(one));
}

#[tokio::test]
async fn files_of_clients_come_back_as_they_were() {
    use base64::Engine;
    let sandbox = Sandbox::start(&["--records", "0"]);
    let account = sandbox
        .edit(json!({"object": "Account", "create": {"Name": "a"}}))
        .await;
    let bytes: Vec<u8> = (0..=255).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let made = sandbox
        .post(
            &format!("{DATA}/sobjects/Attachment"),
            &json!({"ParentId": account, "Name": "x.bin", "Body": text}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let row = sandbox.query("SELECT Body FROM Attachment").await["records"][0].clone();
    assert_eq!(row["Body"], format!("{DATA}/sobjects/Attachment/{id}/Body"));
    let request = sandbox.request(Method::GET, row["Body"].as_str().unwrap());
    let answer = request.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(answer.as_ref(), bytes);
}
