//! Writes that show late, deletes, and what `/updated` and `/deleted` say.

use serde_json::{Value, json};

use crate::harness::{DATA, Reply, Sandbox, until};

/// `/updated` or `/deleted` between two times.
async fn changed(sandbox: &Sandbox, what: &str, from: &str, to: &str) -> Reply {
    let request = sandbox
        .request(
            reqwest::Method::GET,
            &format!("{DATA}/sobjects/Account/{what}/"),
        )
        .query(&[("start", from), ("end", to)]);
    sandbox.send(request).await
}

fn ago(minutes: i64) -> String {
    (chrono::Utc::now() - chrono::Duration::minutes(minutes))
        .format("%Y-%m-%dT%H:%M:%S+00:00")
        .to_string()
}

#[tokio::test]
async fn an_edit_shows_after_the_delay() {
    let sandbox = Sandbox::start(&["--records", "300", "--visibility-delay", "6000"]);
    let id = sandbox
        .column("SELECT Id FROM Account LIMIT 1", "Id")
        .await
        .remove(0);
    let name = async |path: &str| {
        let reply = sandbox
            .ask(
                path,
                &format!("SELECT Name, IsDeleted FROM Account WHERE Id = '{id}'"),
            )
            .await;
        reply.json()["records"][0].clone()
    };
    let old = name("query").await["Name"].clone();
    sandbox
        .edit(json!({"object": "Account", "id": id, "fields": {"Name": "Late"}}))
        .await;
    assert_eq!(name("query").await["Name"], old);
    let truth = sandbox.truth("Account").await;
    let row = truth.iter().find(|row| row["Id"] == id.as_str()).unwrap();
    assert_eq!(row["Name"], "Late");
    assert_eq!(
        sandbox
            .get(&format!("{DATA}/sobjects/Account/{id}"))
            .await
            .json()["Name"],
        old
    );
    until("the edit shows", async || {
        name("query").await["Name"] == "Late"
    })
    .await;

    sandbox
        .edit(json!({"object": "Account", "id": id, "delete": true}))
        .await;
    assert_eq!(name("queryAll").await["IsDeleted"], false);
    until("the delete shows", async || name("query").await.is_null()).await;
    assert_eq!(name("queryAll").await["IsDeleted"], true);

    let made = sandbox
        .edit(json!({"object": "Account", "create": {"Name": "Made"}}))
        .await;
    let count = format!("SELECT COUNT() FROM Account WHERE Id = '{made}'");
    assert_eq!(sandbox.ask("queryAll", &count).await.json()["totalSize"], 0);
    until("the new one shows", async || {
        sandbox.query(&count).await["totalSize"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_row_may_show_behind_newer_ones() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let stamp = "2026-05-01T10:00:00.000+0000";
    sandbox.edit(json!({"object": "Account", "create": {"Name": "Late"}, "at": stamp, "visible_after_ms": 2_000})).await;
    sandbox
        .edit(
            json!({"object": "Account", "create": {"Name": "Newer"}, "at": "2026-05-01T10:00:01Z"}),
        )
        .await;
    let soql = "SELECT Name, SystemModstamp FROM Account ORDER BY SystemModstamp";
    assert_eq!(sandbox.column(soql, "Name").await, ["Newer"]);
    until("the late one shows", async || {
        sandbox.column(soql, "Name").await == ["Late", "Newer"]
    })
    .await;
    assert_eq!(sandbox.column(soql, "SystemModstamp").await[0], stamp);
}

#[tokio::test]
async fn what_clients_write_shows_at_once() {
    let sandbox = Sandbox::start(&["--records", "0", "--visibility-delay", "3600000"]);
    let made = sandbox
        .post(&format!("{DATA}/sobjects/Account"), &json!({"Name": "x"}))
        .await
        .json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(sandbox.column("SELECT Id FROM Account", "Id").await, [id]);
    sandbox
        .edit(json!({"object": "Account", "id": id, "fields": {"Phone": "1"}}))
        .await;
    sandbox
        .patch(
            &format!("{DATA}/sobjects/Account/{id}"),
            &json!({"Name": "y"}),
        )
        .await;
    let row = sandbox.query("SELECT Name, Phone FROM Account").await["records"][0].clone();
    assert_eq!(
        (&row["Name"], &row["Phone"]),
        (&json!("y"), &json!("1")),
        "it builds on the truth"
    );
}

#[tokio::test]
async fn deletes_and_undeletes() {
    let sandbox = Sandbox::start(&["--records", "0"]);
    let make = async |name: &str| {
        sandbox
            .edit(json!({"object": "Account", "create": {"Name": name}}))
            .await
    };
    let (kept, binned, gone) = (make("kept").await, make("binned").await, make("gone").await);
    sandbox
        .edit(
            json!({"object": "Account", "id": kept, "delete": true, "at": "2026-05-01T10:00:00Z"}),
        )
        .await;
    sandbox
        .edit(json!({"object": "Account", "id": kept, "undelete": true}))
        .await;
    sandbox
        .edit(json!({"object": "Account", "id": binned, "delete": true}))
        .await;
    sandbox
        .edit(json!({"object": "Account", "id": gone, "hard_delete": true}))
        .await;
    assert_eq!(
        sandbox.column("SELECT Id FROM Account", "Id").await,
        [kept.as_str()]
    );
    let all = sandbox
        .ask("queryAll", "SELECT Id, IsDeleted FROM Account ORDER BY Id")
        .await
        .json();
    let rows: Vec<(&str, bool)> = all["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["Id"].as_str().unwrap(),
                row["IsDeleted"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(rows, [(kept.as_str(), false), (binned.as_str(), true)]);
    let truth = sandbox.truth("Account").await;
    assert_eq!(
        truth
            .iter()
            .map(|row| row["IsDeleted"] == true)
            .collect::<Vec<_>>(),
        [false, true]
    );

    let reply = changed(&sandbox, "deleted", &ago(30), &ago(-5)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    let mut ids: Vec<&str> = body["deletedRecords"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [binned.as_str(), gone.as_str()]);
    let ids = changed(&sandbox, "updated", &ago(30), &ago(-5))
        .await
        .json()["ids"]
        .clone();
    assert_eq!(ids, json!([kept]));

    let conflicts = sandbox
        .post(
            "/_sandbox/edit",
            &json!({"object": "Account", "id": kept, "undelete": true}),
        )
        .await;
    assert_eq!(conflicts.status, 400);
    for request in [
        json!({"object": "Nope", "create": {}}),
        json!({"object": "Account", "id": kept}),
        json!({"object": "Account", "id": "x", "delete": true}),
        json!({"object": "Account", "create": {"Nope": 1}}),
        json!({"object": "Account", "id": kept, "delete": true, "att": "x"}),
        json!([]),
    ] {
        let reply = sandbox.post("/_sandbox/edit", &request).await;
        assert_eq!(reply.status, 400, "{request}");
        assert!(reply.json()["error"].is_string());
    }
}

#[tokio::test]
async fn spans_are_covered_up_to_the_delay() {
    let sandbox = Sandbox::start(&["--records", "0", "--visibility-delay", "600000"]);
    for what in ["updated", "deleted"] {
        let body = changed(&sandbox, what, &ago(60), &ago(-2)).await.json();
        let covered = body["latestDateCovered"].as_str().unwrap().to_owned();
        let limit = |minutes: i64| {
            let at = chrono::Utc::now() - chrono::Duration::minutes(minutes);
            at.format("%Y-%m-%dT%H:%M:00.000+0000").to_string()
        };
        assert!(
            covered == limit(10) || covered == limit(11),
            "{what}: {covered}"
        );
        let body = changed(&sandbox, what, &ago(60), &ago(30)).await.json();
        assert!(body["latestDateCovered"].as_str().unwrap() <= limit(30).as_str());
    }
    for (from, to, message) in [
        (
            ago(60 * 24 * 40),
            ago(0),
            "startDate cannot be more than 30 days ago",
        ),
        (ago(10), ago(20), "startDate must be before endDate"),
        (
            ago(10),
            ago(10),
            "endDate must be at least one minute greater than the startDate",
        ),
    ] {
        let reply = changed(&sandbox, "updated", &from, &to).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (400, "INVALID_REPLICATION_DATE")
        );
        assert_eq!(reply.json()[0]["message"], message);
    }
}

#[tokio::test]
async fn live_changes_keep_the_counts_true() {
    let sandbox = Sandbox::start(&[
        "--records",
        "500",
        "--live-changes",
        "500",
        "--visibility-delay",
        "50",
    ]);
    let writes = |stats: &Value| -> u64 {
        stats["objects"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|counts| {
                ["creates", "edits", "deletes"].map(|kind| counts[kind].as_u64().unwrap())
            })
            .sum()
    };
    until("changes happen", async || {
        writes(&sandbox.stats().await) > 400
    })
    .await;
    sandbox.post("/_sandbox/freeze", &json!({})).await;
    let stats = sandbox.stats().await;
    for (object, counts) in stats["objects"].as_object().unwrap() {
        let truth = sandbox.truth(object).await;
        let live = truth.iter().filter(|row| row["IsDeleted"] != true).count() as u64;
        assert_eq!(counts["records"], live, "{object}");
        assert_eq!(counts["deleted"], truth.len() as u64 - live, "{object}");
        // Once everything shows, queries say what is true. Some objects have
        // no stamp, or are not to be read as a whole.
        if ["CaseHistory", "ContentDocumentLink"].contains(&object.as_str()) {
            continue;
        }
        let fields = if object == "User" {
            "Id, SystemModstamp, Title"
        } else {
            "Id, SystemModstamp"
        };
        let soql = format!("SELECT {fields} FROM {object} ORDER BY Id");
        until("everything shows", async || {
            let page = sandbox.ask("queryAll", &soql).await.json();
            let shown: Vec<(&Value, &Value)> = page["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (&row["Id"], &row["SystemModstamp"]))
                .collect();
            shown
                == truth
                    .iter()
                    .map(|row| (&row["Id"], &row["SystemModstamp"]))
                    .collect::<Vec<_>>()
        })
        .await;
    }
    let total = |kind: &str| {
        stats["objects"]
            .as_object()
            .unwrap()
            .values()
            .map(|counts| counts[kind].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(total("creates") > 50 && total("edits") > 100 && total("deletes") > 10);
}
