//! `drover-sandbox` as a source for the suite: the binary beside this test.

#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use drover_extractor_salesforce::Salesforce;
use drover_pipeline::extract::Extractor;
use drover_pipeline::http::HttpClient;
use drover_pipeline::testing::extractor::{Fault, Setup, Source, Write};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// A running sandbox; it ends with this value.
pub struct Sandbox {
    pub url: String,
    child: Child,
    http: HttpClient,
    credentials: Value,
    delay: Duration,
    written: Mutex<(Instant, u64)>,
}

/// The binary, built if it is not there.
fn binary() -> PathBuf {
    static BUILD: Once = Once::new();
    let me = std::env::current_exe().expect("this test's path");
    let profile = me
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps");
    let path = profile.join("drover-sandbox");
    BUILD.call_once(|| {
        if !path.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-p", "drover-sandbox", "--target-dir"]);
            build.arg(profile.parent().expect("the target directory"));
            if profile.ends_with("release") {
                build.arg("--release");
            }
            assert!(
                build.status().expect("cargo runs").success(),
                "no drover-sandbox"
            );
        }
    });
    path
}

impl Sandbox {
    pub fn run(arguments: &[&str], delay: Duration) -> Sandbox {
        let mut child = Command::new(binary())
            .args(["serve", "--system", "salesforce", "--listen", "127.0.0.1:0"])
            .args(["--visibility-delay", &delay.as_millis().to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("drover-sandbox starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("its line");
        let said: Value = serde_json::from_str(&line).expect("a line of JSON");
        let printed = Command::new(binary())
            .args(["credentials", "--system", "salesforce"])
            .output()
            .expect("credentials");
        Sandbox {
            url: said["url"].as_str().expect("a url").to_owned(),
            child,
            http: HttpClient::new().expect("a client"),
            credentials: serde_json::from_slice(&printed.stdout).expect("credentials"),
            delay,
            written: Mutex::new((Instant::now(), 0)),
        }
    }

    /// What a client needs to log in, by its name.
    pub fn credential(&self, name: &str) -> &str {
        self.credentials[name].as_str().expect("a credential")
    }

    pub fn client(&self, change: Value) -> Salesforce {
        self.client_by(change, self.http.clone())
    }

    /// A client with an account of its calls of its own.
    pub fn metered(&self, change: Value) -> (Salesforce, HttpClient) {
        let http = HttpClient::new().expect("a client");
        (self.client_by(change, http.clone()), http)
    }

    fn client_by(&self, change: Value, http: HttpClient) -> Salesforce {
        let mut config = json!({
            "instanceUrl": self.url,
            "clientId": self.credentials["client_id"],
            "clientSecret": self.credentials["client_secret"],
            "pageSize": Self::PAGE,
            "lookbackMs": 60_000,
        });
        for (name, value) in change.as_object().expect("an object") {
            config[name] = value.clone();
        }
        let config = serde_json::from_value(config).expect("a config");
        Salesforce::new(config, http).expect("an extractor")
    }

    pub async fn control(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<String, String> {
        let mut request = self
            .http
            .request(method, &format!("{}/_sandbox/{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = self.http.send(request).await.expect("the sandbox answers");
        let text = String::from_utf8(answer.body).expect("UTF-8");
        if answer.status == 200 {
            Ok(text)
        } else {
            Err(text)
        }
    }

    /// A job is done at the n-th look at it.
    pub async fn looks(&self, looks: u32) {
        let body = Some(json!({"looks": looks}));
        let set = self.control(Method::POST, "jobs", body).await;
        set.expect("the number of looks");
    }

    /// Writes by the sandbox's own hand and gives the record's id.
    pub async fn edit(&self, body: Value) -> String {
        self.number();
        let said = self.control(Method::POST, "edit", Some(body)).await;
        let said: Value = serde_json::from_str(&said.expect("an edit")).expect("JSON");
        said["id"].as_str().expect("an id").to_owned()
    }

    /// Requests whose path has this in it.
    pub async fn count(&self, part: &str) -> u64 {
        let stats = self.control(Method::GET, "stats", None).await;
        let stats: Value = serde_json::from_str(&stats.expect("stats")).expect("JSON");
        let of = |entry: &&Value| entry.to_string().contains(part);
        let counts = stats["requests"].as_array().expect("a list").iter();
        counts
            .filter(of)
            .filter_map(|entry| entry["count"].as_u64())
            .sum()
    }

    /// Tokens that were asked for since the start.
    pub async fn tokens(&self) -> u64 {
        let stats = self
            .control(Method::GET, "stats", None)
            .await
            .expect("stats");
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let counts = stats["requests"].as_array().expect("a list");
        let of_tokens = |entry: &&Value| {
            entry["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/oauth2/token"))
        };
        let tokens = counts.iter().filter(of_tokens);
        tokens.filter_map(|entry| entry["count"].as_u64()).sum()
    }

    fn number(&self) -> u64 {
        let mut written = self.written.lock().expect("not poisoned");
        *written = (Instant::now(), written.1 + 1);
        written.1
    }
}

/// A text of an object that may be long.
fn field_of(object: &str) -> &'static str {
    match object {
        "Invoice__c" => "Notes__c",
        "EmailMessage" => "TextBody",
        "CaseComment" => "CommentBody",
        "OpportunityContactRole" => "Role",
        _ => "Description",
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Source for Sandbox {
    type Extractor = Salesforce;
    const OBJECTS: &'static [&'static str] = &[
        "Account",
        "Contact",
        "Lead",
        "Opportunity",
        "Case",
        "Task",
        "Event",
        "EmailMessage",
        "CaseComment",
        "Campaign",
        "Product2",
        "OpportunityContactRole",
        "ContentVersion",
        "Invoice__c",
    ];
    const PAGE: usize = 12;
    const IDLE: u64 = 2;

    async fn start(setup: Setup) -> Self {
        let records = (setup.records * 10).to_string();
        let delay = Duration::from_millis(if setup.late { 3_000 } else { 0 });
        let sandbox = Sandbox::run(&["--records", &records, "--seed", "11"], delay);
        // Of an object that is rare in its data we make some more, long ago.
        for object in Self::OBJECTS {
            for number in sandbox.truth(object).await.len()..setup.records {
                let body = json!({
                    "object": object,
                    "create": {field_of(object): format!("more {number}")},
                    "at": "2026-01-02T03:04:05Z",
                    "visible_after_ms": 0,
                });
                let made = sandbox.control(Method::POST, "edit", Some(body)).await;
                made.expect("a record more");
            }
        }
        sandbox
    }

    fn extractor(&self) -> Salesforce {
        self.client(json!({}))
    }

    fn intruder(&self) -> Salesforce {
        self.client(json!({"clientSecret": "guessed"}))
    }

    async fn write(&self, object: &str, what: Write<'_>) -> Option<String> {
        let number = self.number();
        let text = format!("text {number} ü 🦀\r\n");
        let field = field_of(object);
        // Of what is not replicated nobody learns that it is gone for good.
        if object == "ContentVersion" && matches!(what, Write::Purge(_)) {
            return None;
        }
        let mut body = match what {
            Write::Create => json!({"create": {field: text}}),
            Write::Edit(id) => json!({"id": id, "fields": {field: text}}),
            Write::Delete(id) => json!({"id": id, "delete": true}),
            Write::Undelete(id) => json!({"id": id, "undelete": true}),
            Write::Purge(id) => json!({"id": id, "hard_delete": true}),
        };
        body["object"] = json!(object);
        let said = self.control(Method::POST, "edit", Some(body)).await.ok()?;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        Some(said["id"].as_str().expect("an id").to_owned())
    }

    /// The sandbox's clock is this machine's: what was written is visible after
    /// its delay, and past when the second is over.
    async fn settle(&self) {
        let written = self.written.lock().expect("not poisoned").0;
        let until = written + self.delay + Duration::from_millis(1_050);
        tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
    }

    async fn fault(&self, fault: Fault, at: u64, times: u64) {
        self.control(Method::DELETE, "faults", None)
            .await
            .expect("cleared");
        let kind = match fault {
            Fault::RateLimit => "rate_limit",
            Fault::ServerError => "server_error",
            Fault::CutBefore => "cut_before",
            Fault::CutAfter => "cut_after",
            Fault::Slow => "slow",
            Fault::ExpiredToken => "expired_token",
            Fault::HtmlPage => "html_page",
            Fault::NotJson => "not_json",
            Fault::Truncated => "truncated",
        };
        if times > 0 {
            let body = json!({"kind": kind, "path": "/services", "at": at, "times": times});
            self.control(Method::POST, "faults", Some(body))
                .await
                .expect("set");
        }
    }

    async fn requests(&self) -> u64 {
        let stats = self
            .control(Method::GET, "stats", None)
            .await
            .expect("stats");
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let counts = stats["requests"].as_array().expect("a list");
        counts
            .iter()
            .filter_map(|entry| entry["count"].as_u64())
            .sum()
    }

    async fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        let lines = self
            .control(Method::GET, &format!("records/{object}"), None)
            .await
            .expect("records");
        let mut truth = BTreeMap::new();
        for line in lines.lines() {
            let record: Map<String, Value> = serde_json::from_str(line).expect("a record");
            let id = record["Id"].as_str().expect("an id").to_owned();
            // Not every object has a recycle bin.
            let live = record.get("IsDeleted") != Some(&Value::Bool(true));
            truth.insert(id, live.then_some(record));
        }
        truth
    }
}

/// The same, whose first copies are made by Bulk jobs.
pub struct BulkSandbox(pub Sandbox);

impl Source for BulkSandbox {
    type Extractor = Salesforce;
    const OBJECTS: &'static [&'static str] = Sandbox::OBJECTS;
    const PAGE: usize = Sandbox::PAGE;
    const IDLE: u64 = Sandbox::IDLE;

    async fn start(setup: Setup) -> Self {
        let sandbox = Sandbox::start(setup).await;
        sandbox.looks(2).await;
        BulkSandbox(sandbox)
    }

    fn extractor(&self) -> Salesforce {
        let bulk = json!({"bulkThreshold": 0, "bulkPageSize": Self::PAGE});
        self.0.client(bulk)
    }

    fn intruder(&self) -> Salesforce {
        self.0.intruder()
    }

    async fn write(&self, object: &str, what: Write<'_>) -> Option<String> {
        self.0.write(object, what).await
    }

    async fn settle(&self) {
        self.0.settle().await;
    }

    async fn fault(&self, fault: Fault, at: u64, times: u64) {
        self.0.fault(fault, at, times).await;
    }

    async fn requests(&self) -> u64 {
        self.0.requests().await
    }

    async fn truth(&self, object: &str) -> BTreeMap<String, Option<Map<String, Value>>> {
        self.0.truth(object).await
    }
}
