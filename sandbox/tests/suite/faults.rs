//! Faults as clients meet them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{DATA, Sandbox};

async fn org() -> Sandbox {
    Sandbox::start(&["--records", "300"])
}

fn limits() -> String {
    format!("{DATA}/limits")
}

/// Names made so far, whatever the answers said.
async fn names(sandbox: &Sandbox) -> Vec<String> {
    sandbox
        .column("SELECT Name FROM Account WHERE Name LIKE 'fault%'", "Name")
        .await
}

#[tokio::test]
async fn refusals_are_the_vendors_own() {
    let sandbox = org().await;
    sandbox
        .fault(json!({"kind": "rate_limit", "path": limits(), "times": 2, "at": 2}))
        .await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(sandbox.get(&limits()).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 403, 403, 200, 200]);
    assert_eq!(sandbox.get(&format!("{DATA}/sobjects")).await.status, 200);
    let listed = sandbox.get("/_sandbox/faults").await.json();
    assert_eq!(
        listed,
        json!([{"kind": "rate_limit", "path": limits(), "times": 2, "at": 2, "seen": 5, "fired": 2}])
    );

    sandbox.delete("/_sandbox/faults").await;
    sandbox.fault(json!({"kind": "rate_limit"})).await;
    let reply = sandbox.get(&limits()).await;
    assert_eq!(
        reply.text,
        r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#
    );
    assert!(reply.header("sforce-limit-info").starts_with("api-usage="));

    sandbox
        .fault(json!({"kind": "server_error", "retry_after_s": 7}))
        .await;
    let reply = sandbox.get(&limits()).await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.code().as_str(),
            reply.header("retry-after")
        ),
        (503, "SERVER_UNAVAILABLE", "7")
    );

    sandbox.fault(json!({"kind": "html_page"})).await;
    let reply = sandbox.get(&limits()).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-type")),
        (503, "text/html;charset=UTF-8")
    );
    sandbox.fault(json!({"kind": "not_json"})).await;
    let reply = sandbox.get(&limits()).await;
    assert_eq!(reply.status, 200);
    assert!(serde_json::from_str::<Value>(&reply.text).is_err());
    sandbox.fault(json!({"kind": "truncated"})).await;
    let reply = sandbox.get(&limits()).await;
    assert_eq!(reply.header("content-length"), reply.text.len().to_string());
    assert!(reply.text.starts_with('{') && serde_json::from_str::<Value>(&reply.text).is_err());
    assert_eq!(sandbox.get(&limits()).await.status, 200);

    let stats = sandbox.stats().await;
    let refused = stats["requests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["status"] == 403)
        .unwrap();
    assert_eq!(refused["count"], 3);
}

#[tokio::test]
async fn connections_are_cut_before_or_after_the_effect() {
    let sandbox = org().await;
    let path = format!("{DATA}/sobjects/Account");
    let make = async |name: &str| {
        let request = sandbox
            .request(reqwest::Method::POST, &path)
            .json(&json!({"Name": name}));
        match request.send().await {
            Ok(answer) => answer.bytes().await.map(|body| body.len()),
            Err(error) => Err(error),
        }
    };
    sandbox
        .fault(json!({"kind": "cut_before", "path": path, "times": 2}))
        .await;
    assert!(make("fault before").await.is_err());
    assert!(make("fault before").await.is_err());
    assert!(names(&sandbox).await.is_empty(), "it had no effect");
    assert!(make("fault none").await.is_ok());
    assert_eq!(names(&sandbox).await, ["fault none"]);

    sandbox
        .fault(json!({"kind": "cut_after", "path": path}))
        .await;
    let request = sandbox
        .request(reqwest::Method::POST, &path)
        .json(&json!({"Name": "fault after"}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!(answer.bytes().await.is_err(), "the body ends in the middle");
    assert_eq!(names(&sandbox).await.len(), 2, "it had its effect");

    let stats = sandbox.stats().await;
    let count = |status: u16| -> u64 {
        stats["requests"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["status"] == status && entry["method"] == "POST")
            .map(|entry| entry["count"].as_u64().unwrap())
            .sum()
    };
    assert_eq!((count(0), count(201)), (2, 2));
}

#[tokio::test]
async fn a_large_answer_is_cut_in_the_middle() {
    let sandbox = org().await;
    let whole = sandbox
        .get(&format!("{DATA}/sobjects/Account/describe"))
        .await
        .text
        .len();
    sandbox
        .fault(json!({"kind": "cut_after", "contains": "describe"}))
        .await;
    let mut answer = sandbox
        .request(
            reqwest::Method::GET,
            &format!("{DATA}/sobjects/Account/describe"),
        )
        .send()
        .await
        .unwrap();
    let mut got = 0;
    let failed = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => got += chunk.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(failed && got > 0 && got < whole, "{got} of {whole}");
}

#[tokio::test]
async fn a_slow_body_arrives_whole() {
    let sandbox = org().await;
    let fast = sandbox.get(&limits()).await.json();
    sandbox
        .fault(json!({"kind": "slow", "path": limits()}))
        .await;
    let start = Instant::now();
    let slow = sandbox.get(&limits()).await.json();
    assert!(start.elapsed() > Duration::from_secs(1));
    assert_eq!(slow["DataStorageMB"], fast["DataStorageMB"]);
}

#[tokio::test]
async fn an_expired_token_stays_expired() {
    let sandbox = org().await;
    let (known, _) = (
        sandbox
            .http
            .post(format!("{}/services/oauth2/token", sandbox.url))
            .form(&[
                ("grant_type", "client_credentials"),
                ("client_id", "3MVG9sandboxDroverConnectedApp0000000001"),
                ("client_secret", "sandbox-client-secret"),
            ]),
        (),
    );
    let again = known.try_clone().unwrap();
    let token = sandbox.send(known).await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let ask = async |token: &str| {
        sandbox
            .send(
                sandbox
                    .http
                    .get(format!("{}{}", sandbox.url, limits()))
                    .bearer_auth(token),
            )
            .await
    };
    assert_eq!(ask(&token).await.status, 200);
    sandbox
        .fault(json!({"kind": "expired_token", "path": limits()}))
        .await;
    for _ in 0..3 {
        let reply = ask(&token).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "INVALID_SESSION_ID")
        );
    }
    let fresh = sandbox.send(again).await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(fresh, token);
    assert_eq!(ask(&fresh).await.status, 200);
}

#[tokio::test]
async fn bad_faults_and_paths_are_refused() {
    let sandbox = org().await;
    for fault in [
        json!({"kind": "nope"}),
        json!({"path": "/"}),
        json!({"kind": "slow", "at": 0}),
        json!("slow"),
    ] {
        let reply = sandbox.post("/_sandbox/faults", &fault).await;
        assert_eq!(reply.status, 400, "{fault}");
        assert!(reply.json()["error"].is_string());
    }
    assert_eq!(sandbox.get("/_sandbox/nope").await.status, 404);
    assert_eq!(sandbox.get("/_sandbox/records/Nope").await.status, 404);
    assert_eq!(sandbox.get("/_sandbox/faults").await.json(), json!([]));
}

#[tokio::test]
async fn latency_holds_api_answers_only() {
    let sandbox = Sandbox::start(&["--records", "10", "--latency", "5000"]);
    let held = limits();
    let held = sandbox.get(&held);
    tokio::pin!(held);
    tokio::select! {
        biased;
        _ = &mut held => panic!("the answer of the API was not held"),
        _ = sandbox.stats() => {}
    }
    assert_eq!(held.await.status, 200);
}
