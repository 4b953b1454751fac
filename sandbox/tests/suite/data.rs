//! Records from files.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{DATA, Sandbox, binary, keys};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[tokio::test]
async fn values_are_kept_as_they_stand() {
    let folder = folder(&[
        (
            "Account.jsonl",
            "{\"attributes\":{\"type\":\"Account\"},\"Id\":\"001dM00003jU9Gx\",\"Name\":\"A\\r\\nb\",\"AnnualRevenue\":139000000,\
             \"SystemModstamp\":\"2020-10-22T21:03:23.000+0000\",\"Score__c\":1.5,\"Since__c\":\"2020-01-02\",\"Vip__c\":true}\n\
             {\"Id\":\"001dM00003jU9GyQAK\",\"Name\":\"B\",\"IsDeleted\":true,\"Score__c\":null}\n",
        ),
        (
            "Widget__c.json",
            "[{\"Id\":\"a9Z000000000001AAA\",\"Name\":\"w\",\"Account__c\":\"001dM00003jU9GxQAK\",\"At__c\":\"2020-01-02T03:04:05Z\"}]",
        ),
        (
            "Contact.json",
            "{\"totalSize\":1,\"done\":true,\"records\":[{\"attributes\":{\"type\":\"Contact\"},\"Id\":\"003dM00001vWOXJQA4\",\
             \"FirstName\":\"Rose\",\"LastName\":\"G\",\"AccountId\":\"001dM00003jU9GxQAK\",\
             \"Owner\":{\"attributes\":{\"type\":\"User\",\"url\":\"/services/data/v59.0/sobjects/User/005dM00000aYf0qQAC\"},\"Name\":\"EPIC\"},\
             \"OwnerId\":\"005dM00000aYf0qQAC\"}]}",
        ),
    ]);
    let sandbox = Sandbox::start(&["--data", folder.path().to_str().unwrap()]);
    let row = sandbox
        .query("SELECT Id, Name, AnnualRevenue, SystemModstamp, CreatedDate, Score__c, Since__c, Vip__c FROM Account")
        .await["records"][0]
        .clone();
    assert_eq!(row["Id"], "001dM00003jU9GxQAK");
    assert_eq!(
        (&row["Name"], &row["AnnualRevenue"]),
        (&json!("A\r\nb"), &json!(139_000_000.0))
    );
    for name in ["SystemModstamp", "CreatedDate"] {
        assert_eq!(row[name], "2020-10-22T21:03:23.000+0000");
    }
    assert_eq!(
        (&row["Score__c"], &row["Since__c"], &row["Vip__c"]),
        (&json!(1.5), &json!("2020-01-02"), &json!(true))
    );
    let described = sandbox
        .get(&format!("{DATA}/sobjects/Account/describe"))
        .await
        .json();
    let kind = |name: &str| {
        let fields = described["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap()["type"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        [kind("Score__c"), kind("Since__c"), kind("Vip__c")],
        ["double", "date", "boolean"]
    );

    let widget = sandbox
        .query("SELECT Name, Account__c, At__c FROM Widget__c WHERE At__c < 2020-01-02T03:04:06Z")
        .await;
    assert_eq!(
        widget["records"][0]["At__c"],
        "2020-01-02T03:04:05.000+0000"
    );
    let contact = sandbox
        .query("SELECT Name, Account.Name, Owner.Name FROM Contact")
        .await["records"][0]
        .clone();
    assert_eq!(
        (&contact["Name"], &contact["Account"]["Name"]),
        (&json!("Rose G"), &json!("A\r\nb"))
    );
    assert_eq!(
        contact["Owner"]["Name"], "EPIC",
        "a parent that came along is a record"
    );
    assert_eq!(
        sandbox.query("SELECT COUNT() FROM Lead").await["totalSize"],
        0,
        "nothing is generated"
    );
    let stats = sandbox.stats().await;
    assert_eq!(
        (
            &stats["objects"]["Account"]["records"],
            &stats["objects"]["Account"]["deleted"]
        ),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn generated_records_may_stand_beside() {
    let folder = folder(&[(
        "Account.jsonl",
        "{\"Id\":\"001dM00003jU9GxQAK\",\"Name\":\"Only\"}\n",
    )]);
    let sandbox = Sandbox::start(&[
        "--data",
        folder.path().to_str().unwrap(),
        "--records",
        "400",
    ]);
    assert_eq!(
        sandbox.column("SELECT Name FROM Account", "Name").await,
        ["Only"]
    );
    assert!(
        sandbox.query("SELECT COUNT() FROM Contact").await["totalSize"]
            .as_u64()
            .unwrap()
            > 100
    );
    let made = sandbox
        .post(&format!("{DATA}/sobjects/Account"), &json!({"Name": "x"}))
        .await
        .json();
    assert_ne!(made["id"], "001dM00003jU9GxQAK");
}

#[tokio::test]
async fn local_ids_become_real_ones() {
    let folder = folder(&[
        ("Account.jsonl", "{\"Id\":\"acc-1\",\"Name\":\"A\"}\n"),
        (
            "Contact.jsonl",
            "{\"Id\":\"con-1\",\"LastName\":\"L\",\"AccountId\":\"acc-1\"}\n{\"LastName\":\"M\"}\n",
        ),
    ]);
    let sandbox = Sandbox::start(&["--data", folder.path().to_str().unwrap()]);
    let rows = sandbox
        .query("SELECT Id, LastName, AccountId, Account.Name FROM Contact ORDER BY LastName")
        .await;
    assert_eq!(rows["records"][0]["Account"]["Name"], "A");
    let ids: Vec<&str> = rows["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["Id"].as_str().unwrap())
        .collect();
    assert!(ids.iter().all(|id| id.len() == 18 && id.starts_with("003")) && ids[0] != ids[1]);
}

#[test]
fn bad_files_are_named() {
    for (text, message) in [
        ("{\"Name\": \n", "Account.jsonl: record 1"),
        (
            "{\"Name\": \"x\"}\n[1]\n",
            "Account.jsonl: record 2: is not a JSON object",
        ),
        (
            "{\"Id\": \"001dM00003jU9GxQAK\"}\n{\"Id\": \"001dM00003jU9Gx\"}\n",
            "a second record with the id",
        ),
    ] {
        let folder = folder(&[("Account.jsonl", text)]);
        let output = binary()
            .args([
                "serve",
                "--system",
                "salesforce",
                "--listen",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn truth_has_every_field() {
    let sandbox = Sandbox::start(&["--records", "50"]);
    let described = sandbox
        .get(&format!("{DATA}/sobjects/Contact/describe"))
        .await
        .json();
    let names: Vec<&str> = described["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["name"].as_str().unwrap())
        .collect();
    let truth: Vec<Value> = sandbox.truth("contact").await;
    assert_eq!(keys(&truth[0]), names);
}
