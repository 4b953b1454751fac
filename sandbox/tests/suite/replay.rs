//! Every recorded exchange, asked again as it was: the same status and the
//! same shape, or a reason why not. A line without one fails the test.
//!
//! Values, pages and error texts are compared in `recorded.rs`; here it is
//! about every line. The recordings are not part of this tree: without them
//! the test says so and passes.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Sandbox, TOKEN};
use crate::recorded::{data, lines, records};

/// Whether two answers have the same keys in the same order. Null stands for
/// any value, and lists are compared by their first items.
fn same_shape(ours: &Value, theirs: &Value, depth: usize) -> bool {
    match (ours, theirs) {
        _ if depth == 0 => true,
        (Value::Object(a), Value::Object(b)) => {
            a.keys().eq(b.keys())
                && a.values()
                    .zip(b.values())
                    .all(|(a, b)| same_shape(a, b, depth - 1))
        }
        (Value::Array(a), Value::Array(b)) => match (a.first(), b.first()) {
            (Some(a), Some(b)) => same_shape(a, b, depth - 1),
            _ => true,
        },
        (Value::Object(_) | Value::Array(_), other)
        | (other, Value::Object(_) | Value::Array(_)) => other.is_null(),
        _ => true,
    }
}

/// Why a line can't be answered alike; nothing if it must be.
fn reason(exchange: &Value, ours: &Value) -> Option<&'static str> {
    let path = exchange["path"].as_str().unwrap_or_default();
    let asked = exchange["req"].to_string();
    let soql = exchange["query"]["q"].as_str().unwrap_or_default();
    let said = ours.to_string();
    let has = |part: &str| path.contains(part);
    let foreign = [
        "INVALID_CROSS_REFERENCE_KEY",
        "MALFORMED_ID",
        "FIELD_INTEGRITY_EXCEPTION",
    ];
    if exchange["status"].is_null() || path.is_empty() {
        Some("only an answer was recorded; its text is compared elsewhere")
    } else if !path.trim_start_matches('/').starts_with("services/") {
        Some("another host")
    } else if has("/tooling/") {
        Some("the tooling API is not served")
    } else if has("/quickActions") || has("/connect/") {
        Some("quick actions and Chatter are not served")
    } else if has("/query/0r8") {
        Some("a locator of that org; its pages are compared elsewhere")
    } else if has("/job/750") {
        Some("a job of that org; its exchanges are tested as a whole elsewhere")
    } else if has("00D0xORGID") || asked.contains("0xACCOUNTID") {
        Some("an id that was blanked")
    } else if exchange["status"] == 500 {
        Some("an outage, put in by hand")
    } else if exchange["req"]
        .as_str()
        .is_some_and(|text| text.starts_with('{'))
    {
        Some("a request that was cut by hand")
    } else if has("/async/") && exchange["status"] == 200 {
        Some("a status put in by hand: the others of its kind say 201")
    } else if foreign.iter().any(|code| said.contains(code))
        || said.contains("NOT_FOUND")
        || said.contains("ENTITY_IS_DELETED")
    {
        Some("it names records by ids of that org")
    } else if said.contains("DUPLICATE") || has("/sobjects/Contact/Email/") {
        Some("that org held other records")
    } else if soql.contains("TYPEOF") || asked.contains("SELECT Name FROM Account") {
        Some("the shape depends on the records of that org")
    } else if has("/sobjects/User/Id/") || path.ends_with("/Account/001dM00003jU9GxQAK") {
        Some("that org's objects have other fields")
    } else if asked.contains("/describe") || path.ends_with("/describe") {
        Some("another org's describe of the same object; each is served elsewhere")
    } else {
        None
    }
}

async fn replayed(file: &str, arguments: &[&str], least: usize) {
    let Some(exchanges) = lines(file) else { return };
    let sandbox = Sandbox::start(arguments);
    let mut excused: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (at, exchange) in exchanges.iter().enumerate() {
        let path = exchange["path"].as_str().unwrap_or("/services/data");
        let path = path
            .replace("vxx.0", "v62.0")
            .replace("//services", "/services");
        let method = exchange["method"].as_str().unwrap_or("GET");
        let mut request = sandbox
            .request(Method::from_bytes(method.as_bytes()).unwrap(), &path)
            .header("x-sfdc-session", TOKEN);
        if let Some(query) = exchange["query"]
            .as_object()
            .filter(|query| !query.is_empty())
        {
            let pairs: Vec<(&str, &str)> = query
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
                .collect();
            request = request.query(&pairs);
        }
        match &exchange["req"] {
            Value::Null => {}
            Value::String(text) => {
                let kind = if text.starts_with('<') {
                    "application/xml"
                } else {
                    "text/csv"
                };
                request = request.header("content-type", kind).body(text.clone());
            }
            body => {
                let text = body.to_string().replace("vxx.0", "v62.0");
                request = request
                    .header("content-type", "application/json")
                    .body(text);
            }
        }
        let reply = sandbox.send(request).await;
        let ours: Value = serde_json::from_str(&reply.text).unwrap_or(Value::Null);
        let well =
            exchange["status"] == reply.status.as_u16() && same_shape(&ours, &exchange["body"], 6);
        match (well, reason(exchange, &ours)) {
            (true, _) => {}
            (false, Some(reason)) => excused.entry(reason).or_default().push(at + 1),
            (false, None) => unexplained.push(format!(
                "line {}: {method} {path}: {} instead of {}: {:.300}",
                at + 1,
                reply.status,
                exchange["status"],
                reply.text
            )),
        }
    }
    let count: usize = excused.values().map(Vec::len).sum();
    let passed = exchanges.len() - count - unexplained.len();
    println!("{file}: {passed} of {} alike", exchanges.len());
    for (reason, lines) in &excused {
        println!("  {}: {reason}", lines.len());
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    assert!(passed >= least, "{passed}");
}

fn describes(names: &[&str]) -> Vec<String> {
    let folder = records().unwrap().join("describe");
    let path = |name: &&str| folder.join(format!("{name}.json")).display().to_string();
    names
        .iter()
        .flat_map(|name| ["--describe".to_owned(), path(name)])
        .collect()
}

#[tokio::test]
async fn every_exchange_of_one_client_is_accounted_for() {
    let Some(exchanges) = lines("nango.jsonl") else {
        return;
    };
    let folder = data(&exchanges);
    let mut arguments = describes(&["nango_v59_Global", "nango_v58_Account"]);
    arguments.extend(["--data".to_owned(), folder.path().display().to_string()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    replayed("nango.jsonl", &arguments, 77).await;
}

#[tokio::test]
async fn every_exchange_of_another_client_is_accounted_for() {
    if records().is_none() {
        return;
    }
    let mut arguments = describes(&[
        "cumulusci_Account",
        "cumulusci_Case",
        "cumulusci_Contact",
        "cumulusci_Custom__c",
        "cumulusci_Event",
        "cumulusci_Global",
        "cumulusci_Lead",
        "cumulusci_OpportunityContactRole",
        "cumulusci_Opportunity",
    ]);
    arguments.extend(["--records".to_owned(), "1000".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    replayed("cumulusci.jsonl", &arguments, 120).await;
    replayed("errors.jsonl", &arguments, 3).await;
}

/// Each recorded describe is served as it stands.
#[tokio::test]
async fn describes_are_served_as_recorded() {
    let Some(folder) = records() else { return };
    let mut served = 0;
    for entry in std::fs::read_dir(folder.join("describe")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let theirs = parsed.get("body").unwrap_or(&parsed);
        let sandbox = Sandbox::start(&["--records", "0", "--describe", path.to_str().unwrap()]);
        let place = match theirs["name"].as_str() {
            Some(name) => format!("sobjects/{name}/describe"),
            None => "sobjects".to_owned(),
        };
        let reply = sandbox.get(&format!("/services/data/v62.0/{place}")).await;
        // The version in addresses is the one that was asked for.
        let mut expected = theirs.to_string();
        for version in [
            "vxx.0", "v42.0", "v48.0", "v49.0", "v52.0", "v56.0", "v57.0", "v58.0", "v59.0",
        ] {
            expected = expected.replace(
                &format!("/services/data/{version}/"),
                "/services/data/v62.0/",
            );
        }
        assert!(reply.text == expected, "{}", path.display());
        let since = sandbox
            .request(Method::GET, &format!("/services/data/v62.0/{place}"))
            .header("if-modified-since", reply.header("last-modified"));
        assert_eq!(sandbox.send(since).await.status, 304);
        // What it tells of can be queried.
        if let Some(name) = theirs["name"].as_str() {
            let field = theirs["fields"].as_array().unwrap().last().unwrap()["name"]
                .as_str()
                .unwrap()
                .to_owned();
            sandbox
                .query(&format!("SELECT Id, {field} FROM {name}"))
                .await;
        }
        served += 1;
    }
    assert!(served > 15, "{served}");
}
