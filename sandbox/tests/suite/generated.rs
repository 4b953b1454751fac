//! Generated orgs and the command line.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Sandbox, binary};

#[tokio::test]
async fn a_seed_gives_the_same_org() {
    let (one, same, other) = (
        Sandbox::start(&["--records", "800", "--seed", "5"]),
        Sandbox::start(&["--records", "800", "--seed", "5"]),
        Sandbox::start(&["--records", "800", "--seed", "6"]),
    );
    for object in [
        "Account",
        "Contact",
        "Lead",
        "Opportunity",
        "Case",
        "Invoice__c",
        "User",
    ] {
        let (first, second) = (one.truth(object).await, same.truth(object).await);
        assert!(!first.is_empty());
        assert_eq!(first, second, "{object}");
        assert_ne!(first, other.truth(object).await, "{object}");
    }
}

#[tokio::test]
async fn an_org_has_as_many_records_as_asked_for() {
    for (arguments, expected) in [
        (&["--records", "1234"][..], 1_234),
        (&[][..], 1_000),
        (&["--records", "3"][..], 3),
    ] {
        let sandbox = Sandbox::start(arguments);
        let stats = sandbox.stats().await;
        let sum: u64 = stats["objects"]
            .as_object()
            .unwrap()
            .values()
            .map(|counts| counts["records"].as_u64().unwrap())
            .sum();
        assert_eq!(sum, expected);
    }
}

#[tokio::test]
async fn generated_records_hold_together() {
    let sandbox = Sandbox::start(&["--records", "3000"]);
    let started = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S").to_string();
    let old = (chrono::Utc::now() - chrono::Duration::minutes(5))
        .format("%Y-%m-%dT%H:%M:%S")
        .to_string();
    for object in [
        "Account",
        "Contact",
        "Lead",
        "Opportunity",
        "Case",
        "Invoice__c",
    ] {
        for row in sandbox.truth(object).await {
            let id = row["Id"].as_str().unwrap();
            assert_eq!(id.len(), 18);
            assert!(
                row["SystemModstamp"].as_str().unwrap() < old.as_str(),
                "{row} at {started}"
            );
            assert!(row["CreatedDate"].as_str() <= row["SystemModstamp"].as_str());
            assert!(!row["OwnerId"].is_null());
        }
    }
    for row in sandbox.truth("Opportunity").await {
        assert_eq!(row["IsWon"] == true, row["StageName"] == "Closed Won");
        assert!(row["Name"].as_str().unwrap().chars().count() <= 120);
    }
    for row in sandbox.truth("Contact").await {
        let parts: Vec<&str> = ["FirstName", "LastName"]
            .iter()
            .filter_map(|name| row[name].as_str())
            .collect();
        assert_eq!(row["Name"], parts.join(" "));
        if let Some(email) = row["Email"].as_str() {
            assert!(
                email.is_ascii() && email.len() <= 80 && email.contains('@'),
                "{email}"
            );
        }
    }
    let converted = sandbox
        .query("SELECT COUNT() FROM Lead WHERE IsConverted = true AND ConvertedAccountId != null")
        .await;
    assert!(converted["totalSize"].as_u64().unwrap() > 10);
    let queued = sandbox.column("SELECT OwnerId FROM Case", "OwnerId").await;
    assert!(
        queued.iter().any(|owner| owner.starts_with("00G"))
            && queued.iter().any(|owner| owner.starts_with("005"))
    );
    // The user who calls is one of the org's users.
    let me = sandbox
        .query("SELECT Id, IsActive FROM User WHERE Username = 'admin@drover.sandbox'")
        .await;
    assert_eq!(me["totalSize"], 1);
}

#[test]
fn several_systems_in_one_process() {
    let mut child = binary()
        .args(["serve", "--system", "salesforce", "--listen", "127.0.0.1:0"])
        .args([
            "--system",
            "salesforce",
            "--listen",
            "127.0.0.1:0",
            "--records",
            "5",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let urls: Vec<String> = (0..2)
        .map(|_| {
            serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["url"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(urls[0], urls[1]);
    assert!(urls.iter().all(|url| url.starts_with("http://127.0.0.1:")));
}

#[test]
fn it_ends_cleanly() {
    let mut sandbox = Sandbox::start(&["--records", "5", "--live-changes", "10"]);
    assert_eq!(sandbox.terminate(), Some(0));
}

#[test]
fn bad_arguments_say_what_to_do() {
    let table: [(&[&str], &str); 5] = [
        (
            &["serve", "--system", "nope", "--listen", "127.0.0.1:0"],
            "there is no stand-in of `nope`",
        ),
        (&["serve", "--system", "salesforce"], "--listen"),
        (
            &[
                "serve",
                "--system",
                "salesforce",
                "--listen",
                "127.0.0.1:0",
                "--listen",
                "127.0.0.1:0",
            ],
            "each system needs its own address",
        ),
        (
            &[
                "serve",
                "--system",
                "salesforce",
                "--listen",
                "127.0.0.1:0",
                "--data",
                "/nonexistent",
            ],
            "/nonexistent",
        ),
        (
            &[
                "serve",
                "--system",
                "salesforce",
                "--listen",
                "127.0.0.1:0",
                "--live-changes=-1",
            ],
            "must not be negative",
        ),
    ];
    for (arguments, message) in table {
        let mut child = binary()
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2), "{arguments:?}");
        let mut text = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
}
