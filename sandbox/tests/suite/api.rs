//! Logging in, describing, and writing single records.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DATA, Sandbox, TOKEN, binary, keys};

#[tokio::test]
async fn credentials_log_in() {
    let output = binary()
        .args(["credentials", "--system", "salesforce"])
        .output()
        .unwrap();
    let known: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        keys(&known),
        [
            "client_id",
            "client_secret",
            "username",
            "password",
            "access_token",
            "refresh_token"
        ]
    );
    let text = |name: &str| known[name].as_str().unwrap();

    let sandbox = Sandbox::start(&["--records", "10"]);
    let ask = async |fields: &[(&str, &str)], basic: bool| {
        let mut request = sandbox
            .http
            .post(format!("{}/services/oauth2/token", sandbox.url))
            .form(fields);
        if basic {
            request = request.basic_auth(text("client_id"), Some(text("client_secret")));
        }
        sandbox.send(request).await
    };
    let app = [
        ("client_id", text("client_id")),
        ("client_secret", text("client_secret")),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields: Vec<(&str, &str)> = app.to_vec();
        fields.extend(more.iter().copied());
        fields
    };
    let grant = |name: &'static str| with(&[("grant_type", name)]);

    let reply = ask(&grant("client_credentials"), false).await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    assert_eq!(
        keys(&body),
        [
            "access_token",
            "signature",
            "scope",
            "instance_url",
            "id",
            "token_type",
            "issued_at",
            "api_instance_url"
        ]
    );
    assert_eq!(body["instance_url"], sandbox.url.as_str());
    for (fields, basic) in [
        (vec![("grant_type", "client_credentials")], true),
        (
            with(&[
                ("grant_type", "password"),
                ("username", "admin@drover.sandbox"),
                ("password", "sandbox-password"),
            ]),
            false,
        ),
        (
            with(&[
                ("grant_type", "refresh_token"),
                ("refresh_token", "5Aep861sandboxRefreshToken"),
            ]),
            false,
        ),
    ] {
        let reply = ask(&fields, basic).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let token = reply.json()["access_token"].as_str().unwrap().to_owned();
        let request = sandbox
            .http
            .get(format!("{}{DATA}/limits", sandbox.url))
            .bearer_auth(token);
        assert_eq!(sandbox.send(request).await.status, 200);
    }

    let refused = [
        (
            vec![
                ("grant_type", "client_credentials"),
                ("client_id", "x"),
                ("client_secret", "y"),
            ],
            "invalid_client_id",
            "client identifier invalid",
        ),
        (
            vec![
                ("grant_type", "client_credentials"),
                app[0],
                ("client_secret", "y"),
            ],
            "invalid_client",
            "invalid client credentials",
        ),
        (
            vec![("grant_type", "client_credentials"), app[0]],
            "invalid_client",
            "invalid client credentials",
        ),
        (
            grant("implicit"),
            "unsupported_grant_type",
            "grant type not supported",
        ),
        (
            with(&[
                ("grant_type", "password"),
                ("username", "x"),
                ("password", "y"),
            ]),
            "invalid_grant",
            "authentication failure",
        ),
        (
            with(&[("grant_type", "refresh_token"), ("refresh_token", "x")]),
            "invalid_grant",
            "expired access/refresh token",
        ),
    ];
    for (fields, error, description) in refused {
        let reply = ask(&fields, false).await;
        assert_eq!(reply.status, 400);
        assert_eq!(
            reply.json(),
            json!({"error": error, "error_description": description})
        );
    }
}

#[tokio::test]
async fn nothing_without_a_token() {
    let sandbox = Sandbox::start(&["--records", "10"]);
    for token in [None, Some("wrong"), Some("")] {
        let mut request = sandbox.http.get(format!("{}{DATA}/sobjects", sandbox.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let reply = sandbox.send(request).await;
        assert_eq!(reply.status, 401);
        assert_eq!(
            reply.header("content-type"),
            "application/json;charset=UTF-8"
        );
        assert_eq!(
            reply.text,
            r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#
        );
    }
    let reply = sandbox
        .send(sandbox.http.get(format!("{}/services/data", sandbox.url)))
        .await;
    assert_eq!(reply.status, 200);
    let newest = reply.json().as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        newest,
        json!({"label": "Summer '26", "url": "/services/data/v67.0", "version": "67.0"})
    );
    // The other scheme that old clients use.
    let request = sandbox
        .http
        .get(format!("{}{DATA}/", sandbox.url))
        .header("authorization", format!("OAuth {TOKEN}"));
    assert_eq!(sandbox.send(request).await.status, 200);
}

#[tokio::test]
async fn every_call_is_counted() {
    let sandbox = Sandbox::start(&["--records", "10"]);
    for expected in 1..=3 {
        let reply = sandbox.get(&format!("{DATA}/sobjects")).await;
        assert_eq!(
            reply.header("sforce-limit-info"),
            format!("api-usage={expected}/100000")
        );
    }
    let reply = sandbox.get(&format!("{DATA}/nonsense")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (404, "NOT_FOUND")
    );
    assert_eq!(reply.header("sforce-limit-info"), "api-usage=4/100000");
    let limits = sandbox.get(&format!("{DATA}/limits/")).await.json();
    assert_eq!(
        limits["DailyApiRequests"],
        json!({"Max": 100_000, "Remaining": 99_995})
    );

    let reply = sandbox.post("/_sandbox/quota", &json!({"max": 6})).await;
    assert_eq!(reply.json(), json!({"used": 5, "max": 6}));
    assert_eq!(sandbox.get(&format!("{DATA}/limits")).await.status, 200);
    let reply = sandbox.get(&format!("{DATA}/limits")).await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.text,
        r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#
    );
    assert_eq!(reply.header("sforce-limit-info"), "api-usage=6/6");

    let stats = sandbox.stats().await;
    let limits: Vec<(u64, u64)> = stats["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["path"] == format!("{DATA}/limits"))
        .map(|entry| {
            (
                entry["status"].as_u64().unwrap(),
                entry["count"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        limits,
        [(200, 2), (403, 1)],
        "the trailing slash is the same path"
    );
}

#[tokio::test]
async fn objects_are_described() {
    let sandbox = Sandbox::start(&["--records", "10"]);
    let global = sandbox.get("/services/data/v55.0/sobjects/").await.json();
    assert_eq!(
        (&global["encoding"], &global["maxBatchSize"]),
        (&json!("UTF-8"), &json!(200))
    );
    let names: Vec<&str> = global["sobjects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    for name in [
        "Account",
        "Contact",
        "Lead",
        "Opportunity",
        "Case",
        "User",
        "Invoice__c",
    ] {
        assert!(names.contains(&name), "{name}");
        let reply = sandbox
            .get(&format!("{DATA}/sobjects/{name}/describe"))
            .await;
        let described = reply.json();
        assert_eq!(described["name"], name);
        for field in described["fields"].as_array().unwrap() {
            assert_eq!(field.as_object().unwrap().len(), 57, "{field}");
        }
    }
    let invoice = sandbox
        .get(&format!("{DATA}/sobjects/invoice__C/describe/"))
        .await
        .json();
    let field = |name: &str| {
        invoice["fields"]
            .as_array()
            .unwrap()
            .iter()
            .find(|field| field["name"] == name)
            .unwrap()
            .clone()
    };
    for (name, kind) in [
        ("Name", "string"),
        ("Account__c", "reference"),
        ("Amount__c", "currency"),
        ("Due_Date__c", "date"),
        ("Sent_At__c", "datetime"),
        ("Paid__c", "boolean"),
        ("Status__c", "picklist"),
        ("Notes__c", "textarea"),
        ("Quantity__c", "double"),
    ] {
        assert_eq!(field(name)["type"], kind, "{name}");
    }
    assert_eq!(field("Name")["autoNumber"], true);
    assert_eq!(field("Account__c")["referenceTo"], json!(["Account"]));
    assert_eq!(field("Account__c")["relationshipName"], "Account__r");
    assert_eq!(field("Notes__c")["filterable"], false);
    for path in [
        "sobjects/Nope/describe",
        "sobjects/Nope",
        "sobjects/Nope/001Dv0000000001IAA",
    ] {
        let reply = sandbox.get(&format!("{DATA}/{path}")).await;
        assert_eq!(reply.status, 404);
        assert_eq!(
            reply.text,
            r#"[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]"#
        );
    }
    for version in ["v20.0", "v99.0", "67.0", "v67"] {
        assert_eq!(
            sandbox
                .get(&format!("/services/data/{version}/sobjects"))
                .await
                .status,
            404,
            "{version}"
        );
    }
    let reply = sandbox.delete(&format!("{DATA}/sobjects")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (405, "METHOD_NOT_ALLOWED")
    );
}

#[tokio::test]
async fn records_are_written_and_read() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let accounts = format!("{DATA}/sobjects/Account");
    let made = sandbox
        .post(
            &format!("{accounts}/"),
            &json!({"Name": "Ünï \"Co\"", "AnnualRevenue": 12}),
        )
        .await;
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.json(),
        json!({"id": id, "success": true, "errors": []})
    );
    assert_eq!(made.header("location"), format!("{accounts}/{id}"));

    let path = format!("{accounts}/{id}");
    let record = sandbox.get(&path).await.json();
    assert_eq!(
        record["attributes"],
        json!({"type": "Account", "url": path})
    );
    assert_eq!(
        (&record["Name"], &record["AnnualRevenue"]),
        (&json!("Ünï \"Co\""), &json!(12.0))
    );
    assert_eq!(record["IsDeleted"], false);
    let narrow = sandbox
        .get(&format!("{path}?fields=name,%20Phone"))
        .await
        .json();
    assert_eq!(keys(&narrow), ["attributes", "Name", "Phone"]);
    assert_eq!(
        sandbox.get(&format!("{path}?fields=Nope")).await.code(),
        "INVALID_FIELD"
    );
    assert_eq!(
        sandbox
            .get(&format!("{accounts}/{}", &id[..15]))
            .await
            .json()["Id"],
        id,
        "15 characters"
    );

    let reply = sandbox
        .patch(&path, &json!({"Phone": "1", "Name": "New"}))
        .await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""));
    assert_eq!(sandbox.get(&path).await.json()["Phone"], "1");

    let contact = sandbox
        .post(
            &format!("{DATA}/sobjects/Contact"),
            &json!({"LastName": "Ng", "FirstName": "Ö", "AccountId": id}),
        )
        .await
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let found = sandbox
        .query(&format!(
            "SELECT Name, Account.Name FROM Contact WHERE AccountId = '{id}'"
        ))
        .await;
    assert_eq!(
        (
            &found["records"][0]["Name"],
            &found["records"][0]["Account"]["Name"]
        ),
        (&json!("Ö Ng"), &json!("New"))
    );

    let case = sandbox
        .post(
            &format!("{DATA}/sobjects/Case"),
            &json!({"Subject": "s", "AccountId": id}),
        )
        .await;
    let case = case.json()["id"].as_str().unwrap().to_owned();
    let reply = sandbox.delete(&path).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (400, "DELETE_FAILED"),
        "it has a case"
    );
    assert_eq!(
        sandbox
            .delete(&format!("{DATA}/sobjects/Case/{case}"))
            .await
            .status,
        204
    );
    assert_eq!(sandbox.delete(&path).await.status, 204);
    let gone = sandbox.delete(&path).await;
    assert_eq!(gone.status, 404);
    assert_eq!(
        gone.text,
        r#"[{"message":"entity is deleted","errorCode":"ENTITY_IS_DELETED","fields":[]}]"#
    );
    assert_eq!(sandbox.get(&path).await.status, 404);
    assert_eq!(
        sandbox.query("SELECT COUNT() FROM Contact").await["totalSize"],
        0,
        "contacts go along"
    );
    let all = sandbox
        .ask("queryAll", "SELECT Id, IsDeleted FROM Contact")
        .await
        .json();
    assert_eq!(
        (&all["records"][0]["Id"], &all["records"][0]["IsDeleted"]),
        (&json!(contact), &json!(true))
    );

    let stats = sandbox.stats().await;
    assert_eq!(
        stats["objects"]["Account"],
        json!({"records": 0, "deleted": 1, "creates": 1, "edits": 1, "deletes": 1})
    );
}

#[tokio::test]
async fn bad_writes_are_refused() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let table = [
        (
            "Contact",
            json!({"FirstName": "x"}),
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [LastName]",
        ),
        (
            "Account",
            json!({"AccountNumer": "x"}),
            "INVALID_FIELD",
            "No such column 'AccountNumer' on sobject of type Account",
        ),
        (
            "Account",
            json!({"Name": "x", "MasterRecordId": "001Dv0000000001IAA"}),
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "Unable to create/update fields: MasterRecordId. Please check the security settings of this field and verify \
             that it is read/write for your profile or permission set.",
        ),
        (
            "Contact",
            json!({"LastName": "x", "AccountId": "001Dv0000000001IAA"}),
            "INVALID_CROSS_REFERENCE_KEY",
            "invalid cross reference id",
        ),
        (
            "Contact",
            json!({"LastName": "x", "Email": "nope"}),
            "INVALID_EMAIL_ADDRESS",
            "Email: invalid email address: nope",
        ),
    ];
    for (object, fields, code, message) in table {
        let reply = sandbox
            .post(&format!("{DATA}/sobjects/{object}"), &fields)
            .await;
        assert_eq!(reply.status, 400, "{fields}");
        assert_eq!(
            (reply.code().as_str(), &reply.json()[0]["message"]),
            (code, &json!(message))
        );
    }
    let request = sandbox
        .request(Method::POST, &format!("{DATA}/sobjects/Account"))
        .body("{\"Name\": ");
    assert_eq!(sandbox.send(request).await.code(), "JSON_PARSER_ERROR");
    assert_eq!(
        sandbox.query("SELECT COUNT() FROM Contact").await["totalSize"],
        0
    );
}

#[tokio::test]
async fn records_are_found_by_another_key() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let path = format!("{DATA}/sobjects/Contact/Email/test_upsert%40example.com");
    let made = sandbox.patch(&path, &json!({"LastName": "TestUser"})).await;
    assert_eq!(
        (made.status.as_u16(), &made.json()["created"]),
        (201, &json!(true))
    );
    let again = sandbox.patch(&path, &json!({"LastName": "Other"})).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["created"]),
        (200, &json!(false))
    );
    assert_eq!(again.json()["id"], made.json()["id"]);
    assert_eq!(sandbox.get(&path).await.json()["LastName"], "Other");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let by_id = sandbox
        .patch(
            &format!("{DATA}/sobjects/Contact/Id/{id}?updateOnly=true"),
            &json!({"Phone": "1"}),
        )
        .await;
    assert_eq!(
        by_id.json(),
        json!({"id": id, "success": true, "errors": [], "created": false})
    );
    sandbox
        .post(
            &format!("{DATA}/sobjects/Contact"),
            &json!({"LastName": "Twin", "Email": "test_upsert@example.com"}),
        )
        .await;
    let several = sandbox.patch(&path, &json!({"LastName": "Which"})).await;
    assert_eq!(
        (
            several.status.as_u16(),
            several.json().as_array().unwrap().len()
        ),
        (300, 2)
    );
    let reply = sandbox
        .patch(&format!("{DATA}/sobjects/Contact/Phone/1"), &json!({}))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (404, "NOT_FOUND")
    );
}

#[tokio::test]
async fn collections_answer_for_each_record() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let path = format!("{DATA}/composite/sobjects");
    let record = |name: Value| json!({"attributes": {"type": "Account"}, "Name": name});
    let made = sandbox
        .post(
            &path,
            &json!({"allOrNone": false, "records": [record(json!("a")), record(Value::Null)]}),
        )
        .await
        .json();
    assert_eq!(made[0]["success"], true);
    assert_eq!(
        made[1],
        json!({"success": false, "errors": [{
            "statusCode": "REQUIRED_FIELD_MISSING",
            "message": "Required fields are missing: [Name]",
            "fields": ["Name"],
        }]})
    );
    let none = sandbox
        .post(
            &path,
            &json!({"allOrNone": true, "records": [record(json!("b")), record(Value::Null)]}),
        )
        .await;
    assert_eq!(
        none.json()[0]["errors"][0]["statusCode"],
        "ALL_OR_NONE_OPERATION_ROLLED_BACK"
    );
    assert_eq!(
        sandbox.query("SELECT COUNT() FROM Account").await["totalSize"],
        1
    );
    assert_eq!(
        sandbox
            .ask("queryAll", "SELECT COUNT() FROM Account")
            .await
            .json()["totalSize"],
        1
    );

    let id = made[0]["id"].as_str().unwrap();
    let update = json!({"records": [
        {"attributes": {"type": "Account"}, "id": id, "Name": "c"},
        {"attributes": {"type": "Account"}, "id": "001xx000003DHP0AAO", "Name": "d"},
    ]});
    let updated = sandbox.patch(&path, &update).await.json();
    assert_eq!(updated[0], json!({"id": id, "success": true, "errors": []}));
    assert_eq!(
        updated[1]["errors"],
        json!([{"statusCode": "INVALID_CROSS_REFERENCE_KEY", "message": "invalid cross reference id", "fields": []}])
    );
    let read = sandbox
        .post(
            &format!("{path}/Account"),
            &json!({"ids": [id, "001xx000003DHP0AAO"], "fields": ["Name"]}),
        )
        .await;
    assert_eq!(
        (&read.json()[0]["Name"], &read.json()[1]),
        (&json!("c"), &Value::Null)
    );
    let deleted = sandbox
        .delete(&format!("{path}?allOrNone=false&ids={id},{id}"))
        .await
        .json();
    assert_eq!(
        (
            &deleted[0]["success"],
            &deleted[1]["errors"][0]["statusCode"]
        ),
        (&json!(true), &json!("ENTITY_IS_DELETED"))
    );
}

#[tokio::test]
async fn several_calls_in_one() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let batch = json!({"batchRequests": [
        {"method": "GET", "url": "v67.0/sobjects/Account/describe"},
        {"method": "GET", "url": "v67.0/sobjects/Foo"},
    ]});
    let reply = sandbox
        .post(&format!("{DATA}/composite/batch"), &batch)
        .await
        .json();
    assert_eq!(
        (&reply["hasErrors"], &reply["results"][0]["result"]["name"]),
        (&json!(true), &json!("Account"))
    );
    assert_eq!(reply["results"][1]["statusCode"], 404);
    let chain = json!({"compositeRequest": [
        {"method": "POST", "url": format!("{DATA}/sobjects/Account"), "referenceId": "a", "body": {"Name": "x"}},
        {"method": "POST", "url": format!("{DATA}/sobjects/Contact"), "referenceId": "c", "body": {"LastName": "y", "AccountId": "@{a.id}"}},
        {"method": "GET", "url": format!("{DATA}/query/?q=select count() from XYZZY"), "referenceId": "q"},
    ]});
    let reply = sandbox
        .post(&format!("{DATA}/composite"), &chain)
        .await
        .json();
    let parts = reply["compositeResponse"].as_array().unwrap();
    assert_eq!(
        parts
            .iter()
            .map(|part| part["httpStatusCode"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [201, 201, 400]
    );
    assert_eq!(parts[2]["body"][0]["errorCode"], "INVALID_TYPE");
    let found = sandbox.query("SELECT Account.Name FROM Contact").await;
    assert_eq!(found["records"][0]["Account"]["Name"], "x");
}

/// Some clients look for a header in the spelling of the real hosts alone.
#[tokio::test]
async fn headers_are_spelt_as_the_real_hosts_do() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = Sandbox::start(&["--records", "0"]);
    let address = sandbox.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {DATA}/limits HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/json"),
        "{head}"
    );
    assert!(
        head.contains("\r\nSforce-Limit-Info: api-usage=1/100000"),
        "{head}"
    );
}

/// Clients may pack what they send.
#[tokio::test]
async fn a_packed_body_is_read() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let packed = |body: &str| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(body.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let sent = async |body: Vec<u8>| {
        let request = sandbox
            .request(Method::POST, &format!("{DATA}/sobjects/Account"))
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(body);
        sandbox.send(request).await
    };
    let reply = sent(packed(r#"{"Name": "Packed"}"#)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let page = sandbox.query("SELECT Name FROM Account").await;
    assert_eq!(page["records"][0]["Name"], "Packed");
    assert_eq!(sent(b"{}".to_vec()).await.status, 400, "it is not packed");
    let request = sandbox
        .request(Method::GET, &format!("{DATA}/limits"))
        .header("content-encoding", "gzip");
    assert_eq!(sandbox.send(request).await.status, 200, "no body, then");
}

#[tokio::test]
async fn a_frozen_org_takes_no_writes() {
    let sandbox = Sandbox::start(&["--records", "300", "--live-changes", "200"]);
    let writes = async || {
        let stats = sandbox.stats().await;
        stats["objects"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|counts| {
                ["creates", "edits", "deletes"].map(|kind| counts[kind].as_u64().unwrap())
            })
            .sum::<u64>()
    };
    crate::harness::until("changes happen", async || writes().await > 50).await;
    sandbox.post("/_sandbox/freeze", &json!({})).await;
    let frozen = writes().await;
    let reply = sandbox
        .post(&format!("{DATA}/sobjects/Account"), &json!({"Name": "x"}))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (400, "INSUFFICIENT_ACCESS_OR_READONLY")
    );
    for _ in 0..20 {
        assert_eq!(writes().await, frozen);
    }
    sandbox.delete("/_sandbox/freeze").await;
    crate::harness::until("changes happen again", async || writes().await > frozen).await;
    assert_eq!(
        sandbox
            .post(&format!("{DATA}/sobjects/Account"), &json!({"Name": "x"}))
            .await
            .status,
        201
    );
}
