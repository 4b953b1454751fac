//! Bulk API 2.0: query and ingest jobs.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DATA, Reply, Sandbox, keys};

/// The lines of a file, quotes and all taken care of.
fn table(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .from_reader(text.as_bytes())
        .records()
        .map(|line| line.unwrap().iter().map(str::to_owned).collect())
        .collect()
}

async fn made(sandbox: &Sandbox, query: &str) -> String {
    let request = json!({"operation": "query", "query": query});
    let reply = sandbox.post(&format!("{DATA}/jobs/query"), &request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// Looks at a job until it has ended.
async fn ended(sandbox: &Sandbox, kind: &str, id: &str) -> Value {
    for _ in 0..10 {
        let job = sandbox
            .get(&format!("{DATA}/jobs/{kind}/{id}"))
            .await
            .json();
        if ["JobComplete", "Failed", "Aborted"].contains(&job["state"].as_str().unwrap()) {
            return job;
        }
    }
    panic!("job {id} does not end");
}

async fn result(sandbox: &Sandbox, id: &str, query: &str) -> Reply {
    sandbox
        .get(&format!("{DATA}/jobs/query/{id}/results{query}"))
        .await
}

#[tokio::test]
async fn a_query_job_waits_works_and_is_done() {
    let sandbox = Sandbox::start(&["--records", "400"]);
    let request = json!({"operation": "query", "query": "SELECT Id, Name FROM Account"});
    let reply = sandbox.post(&format!("{DATA}/jobs/query"), &request).await;
    let job = reply.json();
    assert_eq!(
        keys(&job),
        [
            "id",
            "operation",
            "object",
            "createdById",
            "createdDate",
            "systemModstamp",
            "state",
            "concurrencyMode",
            "contentType",
            "apiVersion",
            "lineEnding",
            "columnDelimiter"
        ]
    );
    assert_eq!(job["object"], "Account");
    assert_eq!(job["apiVersion"], json!(67.0));
    let id = job["id"].as_str().unwrap();
    assert!(id.starts_with("750") && id.len() == 18);
    let early = result(&sandbox, id, "").await;
    assert_eq!(
        (early.status.as_u16(), early.code()),
        (412, "JOB_NOT_COMPLETE".to_owned())
    );
    let mut states = Vec::new();
    for _ in 0..4 {
        let job = sandbox.get(&format!("{DATA}/jobs/query/{id}")).await.json();
        states.push(job["state"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        states,
        ["UploadComplete", "InProgress", "JobComplete", "JobComplete"]
    );
    let job = ended(&sandbox, "query", id).await;
    assert_eq!(job["jobType"], "V2Query");
    assert_eq!(job["isPkChunkingSupported"], true);
    let live = sandbox.query("SELECT COUNT() FROM Account").await["totalSize"].clone();
    assert_eq!(job["numberRecordsProcessed"], live);
    let list = sandbox
        .get(&format!("{DATA}/jobs/query?jobType=V2Query"))
        .await
        .json();
    assert_eq!(list["records"][0]["id"], id);
    assert_eq!(list["done"], true);
    let limits = sandbox.get(&format!("{DATA}/limits")).await.json();
    assert_eq!(limits["DailyBulkV2QueryJobs"]["Remaining"], 9_999);

    let other = sandbox
        .get(&format!("/services/data/v60.0/jobs/query/{id}/results"))
        .await;
    assert_eq!(other.status, 409);
    assert_eq!(
        sandbox
            .delete(&format!("{DATA}/jobs/query/{id}"))
            .await
            .status,
        204
    );
    assert_eq!(
        sandbox.get(&format!("{DATA}/jobs/query/{id}")).await.status,
        404
    );
    let bad = sandbox.get(&format!("{DATA}/jobs/query/nonsense")).await;
    assert_eq!(
        (bad.status.as_u16(), bad.code()),
        (400, "INVALIDJOB".to_owned())
    );
}

/// The same rows by both ways, cell by cell.
#[tokio::test]
async fn bulk_says_what_rest_says_in_its_own_way() {
    let sandbox = Sandbox::start(&["--records", "3000"]);
    let fields = [
        "Id",
        "FirstName",
        "Owner.Email",
        "Account.Owner.Name",
        "Birthdate",
        "CreatedDate",
        "IsDeleted",
        "Description",
        "MailingStreet",
        "Account.AnnualRevenue",
        "Languages__c",
        "Account.NumberOfEmployees",
        "AccountId",
    ];
    let query = format!("SELECT {} FROM Contact", fields.join(", "));
    let mut rest = BTreeMap::new();
    let mut page = sandbox.query(&query).await;
    loop {
        for row in page["records"].as_array().unwrap() {
            rest.insert(row["Id"].as_str().unwrap().to_owned(), row.clone());
        }
        let Some(next) = page["nextRecordsUrl"].as_str() else {
            break;
        };
        page = sandbox.get(next).await.json();
    }
    let id = made(&sandbox, &query).await;
    ended(&sandbox, "query", &id).await;
    let reply = result(&sandbox, &id, "").await;
    assert_eq!(reply.header("content-type"), "text/csv");
    assert_eq!(reply.header("sforce-locator"), "null");
    assert!(
        reply
            .text
            .starts_with("\"Id\",\"FirstName\",\"Owner.Email\",\"Account.Owner.Name\",")
    );
    let lines = table(&reply.text, b',');
    assert_eq!(lines[0], fields);
    assert_eq!(lines.len() - 1, rest.len());
    assert_eq!(
        reply.header("sforce-numberofrecords"),
        rest.len().to_string()
    );
    assert!(reply.text.contains("\"\","), "nulls are empty");
    for line in &lines[1..] {
        let row = &rest[&line[0]];
        for (name, cell) in fields.iter().zip(line) {
            let value = name.split('.').fold(row, |value, part| &value[part]);
            let expected = match value {
                Value::Null => String::new(),
                Value::String(text) => match text.strip_suffix("+0000") {
                    Some(moment) => format!("{moment}Z"),
                    None => text.clone(),
                },
                Value::Number(number) if number.is_f64() => {
                    // A double in Java's way.
                    assert_eq!(cell.parse::<f64>().unwrap(), number.as_f64().unwrap());
                    assert!(cell.contains('.'), "{cell}");
                    continue;
                }
                other => other.to_string(),
            };
            assert_eq!(*cell, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn results_are_read_in_pages_that_never_change() {
    let sandbox = Sandbox::start(&["--records", "3000"]);
    let id = made(&sandbox, "SELECT Id, LastName FROM Contact").await;
    let job = ended(&sandbox, "query", &id).await;
    let count = job["numberRecordsProcessed"].as_u64().unwrap();
    let mut locator = String::new();
    let mut all = Vec::new();
    let mut pages = Vec::new();
    loop {
        let query = format!("?maxRecords=200{locator}");
        let reply = result(&sandbox, &id, &query).await;
        let lines = table(&reply.text, b',');
        assert_eq!(lines[0], ["Id", "LastName"]);
        assert_eq!(
            reply.header("sforce-numberofrecords"),
            (lines.len() - 1).to_string()
        );
        all.extend(lines[1..].to_vec());
        pages.push((query, reply.text.clone()));
        if reply.header("sforce-locator") == "null" {
            break;
        }
        locator = format!("&locator={}", reply.header("sforce-locator"));
    }
    assert_eq!(all.len() as u64, count);
    assert!(pages.len() > 2);
    let different: std::collections::BTreeSet<_> = all.iter().map(|row| &row[0]).collect();
    assert_eq!(different.len() as u64, count);
    // Edits and deletions do not reach what is done.
    sandbox
        .edit(json!({"object": "Contact", "id": all[0][0], "fields": {"LastName": "Edited"}}))
        .await;
    sandbox
        .edit(json!({"object": "Contact", "id": all[600][0], "delete": true}))
        .await;
    for (query, text) in &pages {
        assert_eq!(result(&sandbox, &id, query).await.text, *text);
    }
    let list = sandbox
        .get(&format!("{DATA}/jobs/query/{id}/resultPages"))
        .await
        .json();
    assert_eq!(list["done"], true);
    let url = list["resultPages"][0]["resultUrl"].as_str().unwrap();
    assert_eq!(
        table(&sandbox.get(url).await.text, b',').len() as u64,
        count + 1
    );

    sandbox.delete("/_sandbox/cursors").await;
    let expired = result(&sandbox, &id, &pages[1].0).await;
    assert_eq!(
        (expired.status.as_u16(), expired.code()),
        (400, "INVALID_QUERY_LOCATOR".to_owned())
    );
    assert_eq!(result(&sandbox, &id, &pages[0].0).await.status, 200);
}

#[tokio::test]
async fn files_look_as_the_job_says_and_keep_every_character() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let text = "a \"q\", l1\r\nl2\n| ; \t ^ ` ü 👍";
    let account = sandbox
        .edit(json!({"object": "Account", "create": {"Name": text}}))
        .await;
    for (name, delimiter) in [
        ("COMMA", b','),
        ("PIPE", b'|'),
        ("TAB", b'\t'),
        ("CARET", b'^'),
        ("SEMICOLON", b';'),
        ("BACKQUOTE", b'`'),
    ] {
        let request = json!({"operation": "query", "query": "SELECT Id, Name, Website FROM Account",
            "columnDelimiter": name, "lineEnding": "CRLF", "contentType": "CSV"});
        let job = sandbox
            .post(&format!("{DATA}/jobs/query"), &request)
            .await
            .json();
        let id = job["id"].as_str().unwrap();
        assert_eq!(
            (&job["columnDelimiter"], &job["lineEnding"]),
            (&json!(name), &json!("CRLF"))
        );
        ended(&sandbox, "query", id).await;
        let reply = result(&sandbox, id, "").await;
        assert!(reply.text.ends_with("\"\"\r\n"), "{:?}", reply.text);
        assert_eq!(
            table(&reply.text, delimiter)[1],
            [account.as_str(), text, ""]
        );
    }
    let request =
        json!({"operation": "query", "query": "SELECT Id FROM Account", "columnDelimiter": "DOT"});
    assert_eq!(
        sandbox
            .post(&format!("{DATA}/jobs/query"), &request)
            .await
            .code(),
        "INVALIDJOB"
    );
}

#[tokio::test]
async fn what_bulk_refuses() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let refused = async |query: &str| {
        let request = json!({"operation": "query", "query": query});
        let reply = sandbox.post(&format!("{DATA}/jobs/query"), &request).await;
        assert_eq!(reply.status, 400, "{query}");
        let body = reply.json();
        (
            body[0]["errorCode"].as_str().unwrap().to_owned(),
            body[0]["message"].as_str().unwrap().to_owned(),
        )
    };
    let (code, message) = refused("SELECT Id, BillingAddress FROM Account").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "API_ERROR",
            "Selecting compound data not supported in Bulk Query"
        )
    );
    for query in [
        "SELECT Id, (SELECT Id FROM Contacts) FROM Account",
        "SELECT COUNT() FROM Account",
        "SELECT Type, COUNT(Id) FROM Account GROUP BY Type",
        "SELECT Id FROM Account OFFSET 10",
    ] {
        assert_eq!(refused(query).await.0, "API_ERROR", "{query}");
    }
    assert_eq!(refused("SELECT Nope FROM Account").await.0, "INVALID_FIELD");
    assert_eq!(refused("SELECT Id FROM Nope").await.0, "INVALID_TYPE");
    assert_eq!(refused("SELEC Id FROM Account").await.0, "MALFORMED_QUERY");
}

#[tokio::test]
async fn jobs_fail_and_are_aborted() {
    let sandbox = Sandbox::start(&["--records", "300"]);
    sandbox
        .fault(json!({"kind": "job_failed", "method": "POST", "contains": "FROM Contact"}))
        .await;
    sandbox
        .fault(json!({"kind": "job_aborted", "method": "POST", "contains": "FROM Lead"}))
        .await;
    let (well, failed, aborted) = (
        made(&sandbox, "SELECT Id FROM Account").await,
        made(&sandbox, "SELECT Id FROM Contact").await,
        made(&sandbox, "SELECT Id FROM Lead").await,
    );
    assert_eq!(
        ended(&sandbox, "query", &well).await["state"],
        "JobComplete"
    );
    let job = ended(&sandbox, "query", &failed).await;
    assert_eq!(job["state"], "Failed");
    assert!(
        job["errorMessage"]
            .as_str()
            .unwrap()
            .contains("QUERY_TIMEOUT")
    );
    assert_eq!(ended(&sandbox, "query", &aborted).await["state"], "Aborted");
    assert_ne!(result(&sandbox, &failed, "").await.status, 200);
    // A job at work, by a look at it.
    let id = made(&sandbox, "SELECT Id FROM Account").await;
    sandbox
        .fault(json!({"kind": "job_failed", "path": format!("{DATA}/jobs/query/{id}")}))
        .await;
    assert_eq!(ended(&sandbox, "query", &id).await["state"], "Failed");

    let id = made(&sandbox, "SELECT Id FROM Account").await;
    let path = format!("{DATA}/jobs/query/{id}");
    let early = sandbox.delete(&path).await;
    assert_eq!(
        (early.status.as_u16(), early.code()),
        (400, "API_ERROR".to_owned())
    );
    let done = sandbox.patch(&path, &json!({"state": "Aborted"})).await;
    assert_eq!(done.json()["state"], "Aborted");
    assert_eq!(ended(&sandbox, "query", &id).await["state"], "Aborted");
    assert_eq!(
        sandbox
            .patch(&path, &json!({"state": "Aborted"}))
            .await
            .status,
        400
    );
    assert_eq!(sandbox.delete(&path).await.status, 204);
}

#[tokio::test]
async fn query_all_sees_the_bin() {
    let sandbox = Sandbox::start(&["--records", "2000"]);
    let stats = sandbox.stats().await;
    let counts = &stats["objects"]["Contact"];
    let sum = counts["records"].as_u64().unwrap() + counts["deleted"].as_u64().unwrap();
    let request = json!({"operation": "queryAll", "query": "SELECT Id FROM Contact"});
    let job = sandbox
        .post(&format!("{DATA}/jobs/query"), &request)
        .await
        .json();
    let job = ended(&sandbox, "query", job["id"].as_str().unwrap()).await;
    assert_eq!(job["numberRecordsProcessed"].as_u64().unwrap(), sum);
}

/// Runs an ingest job to its end: the job, what went well, what did not.
async fn ingested(
    sandbox: &Sandbox,
    job: Value,
    data: &str,
) -> (Value, Vec<Vec<String>>, Vec<Vec<String>>) {
    let made = sandbox.post(&format!("{DATA}/jobs/ingest"), &job).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = made.json();
    assert_eq!(made["state"], "Open");
    let id = made["id"].as_str().unwrap();
    let url = format!("/{}", made["contentUrl"].as_str().unwrap());
    let upload = sandbox
        .request(Method::PUT, &url)
        .header("content-type", "text/csv")
        .body(data.to_owned());
    assert_eq!(sandbox.send(upload).await.status, 201);
    let closed = sandbox
        .patch(
            &format!("{DATA}/jobs/ingest/{id}"),
            &json!({"state": "UploadComplete"}),
        )
        .await;
    assert_eq!(closed.json()["state"], "UploadComplete");
    let job = ended(sandbox, "ingest", id).await;
    let mut files = Vec::new();
    for what in ["successfulResults", "failedResults"] {
        let reply = sandbox
            .get(&format!("{DATA}/jobs/ingest/{id}/{what}"))
            .await;
        files.push(table(&reply.text, b','));
    }
    let failed = files.pop().unwrap();
    (job, files.pop().unwrap(), failed)
}

#[tokio::test]
async fn files_are_written_row_by_row() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let (job, done, failed) = ingested(
        &sandbox,
        json!({"object": "Account", "operation": "insert"}),
        "Name,AnnualRevenue,Website\n\"Acme, \"\"Ltd\"\"\",1000.5,#N/A\n,5,\nBad,many,\n",
    )
    .await;
    assert_eq!(job["state"], "JobComplete");
    assert_eq!(
        (&job["numberRecordsProcessed"], &job["numberRecordsFailed"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(
        done[0],
        ["sf__Id", "sf__Created", "Name", "AnnualRevenue", "Website"]
    );
    assert_eq!(done[1][1..4], ["true", "Acme, \"Ltd\"", "1000.5"]);
    assert_eq!(
        failed[1][1],
        "REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --"
    );
    assert_eq!(
        failed[2][1],
        "INVALID_TYPE_ON_FIELD_IN_RECORD:Annual Revenue: value not of required type: many:AnnualRevenue --"
    );
    let account = done[1][0].clone();

    let (_, done, failed) = ingested(
        &sandbox,
        json!({"object": "Account", "operation": "update"}),
        &format!("Id,Name,AnnualRevenue,Phone\n{account},,#N/A,1\n001xx000003DHP0AAO,x,,\n"),
    )
    .await;
    assert_eq!(done[1][..2], [account.as_str(), "false"]);
    assert_eq!(
        failed[1][1],
        "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--"
    );
    let row = sandbox
        .get(&format!("{DATA}/sobjects/Account/{account}"))
        .await
        .json();
    assert_eq!(
        (&row["Name"], &row["AnnualRevenue"], &row["Phone"]),
        (&json!("Acme, \"Ltd\""), &Value::Null, &json!("1"))
    );

    let upsert =
        json!({"object": "User", "operation": "upsert", "externalIdFieldName": "Username"});
    let users = "Username,LastName,Alias,Email,TimeZoneSidKey,LocaleSidKey,EmailEncodingKey,ProfileId,LanguageLocaleKey\n\
                 a@x.example,A,a,a@x.example,Europe/Berlin,en_US,UTF-8,00eDv0000000001,en_US\n";
    let (job, done, _) = ingested(&sandbox, upsert.clone(), users).await;
    assert_eq!(job["externalIdFieldName"], "Username");
    assert_eq!(
        done.get(1).map(|row| row[1].as_str()),
        None,
        "the profile is not there"
    );
    let profile = sandbox
        .edit(json!({"object": "Profile", "create": {"Name": "P"}}))
        .await;
    let users = users.replace("00eDv0000000001", &profile);
    let (_, done, failed) = ingested(&sandbox, upsert.clone(), &users).await;
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(done[1][1], "true");
    let (_, done, _) = ingested(&sandbox, upsert, &users).await;
    assert_eq!(done[1][1], "false");

    let (_, done, _) = ingested(
        &sandbox,
        json!({"object": "Contact", "operation": "insert"}),
        "LastName,Owner.Username\nSmith,A@X.example\n",
    )
    .await;
    let contact = sandbox
        .get(&format!("{DATA}/sobjects/Contact/{}", done[1][0]))
        .await
        .json();
    assert!(contact["OwnerId"].as_str().unwrap().starts_with("005"));

    let (job, done, _) = ingested(
        &sandbox,
        json!({"object": "Account", "operation": "delete"}),
        &format!("Id\n{account}\n"),
    )
    .await;
    assert_eq!(
        (job["numberRecordsFailed"].as_u64(), done.len()),
        (Some(0), 2)
    );
    assert_eq!(
        sandbox
            .get(&format!("{DATA}/sobjects/Account/{account}"))
            .await
            .code(),
        "ENTITY_IS_DELETED"
    );

    let (job, _, _) = ingested(
        &sandbox,
        json!({"object": "Account", "operation": "insert"}),
        "Name,Nope\nx,y\n",
    )
    .await;
    assert_eq!(job["state"], "Failed");
    assert_eq!(
        job["errorMessage"],
        "InvalidBatch : Field name not found : Nope"
    );
    let rest = sandbox
        .get(&format!(
            "{DATA}/jobs/ingest/{}/unprocessedrecords",
            job["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(table(&rest.text, b','), [["Name", "Nope"], ["x", "y"]]);
    let bad = json!({"object": "Nope", "operation": "insert"});
    assert_eq!(
        sandbox
            .post(&format!("{DATA}/jobs/ingest"), &bad)
            .await
            .code(),
        "INVALIDJOB"
    );
}
