//! The stand-in of the source, as its control endpoint shows it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::process::Process;

/// A running `drover-sandbox`.
pub struct Sandbox {
    process: Process,
    /// Its URL.
    pub url: String,
    http: reqwest::Client,
}

impl Sandbox {
    /// Starts it for one system; `arguments` as on its command line.
    pub fn start(dir: &Path, system: &str, arguments: &[&str]) -> Sandbox {
        let mut all = vec!["serve", "--system", system, "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let process = Process::start(dir, "sandbox", "drover-sandbox", &all, &[]);
        let url = process.first["url"]
            .as_str()
            .unwrap_or_else(|| panic!("the sandbox did not start:\n{}", process.log_tail()))
            .to_owned();
        Sandbox {
            process,
            url,
            http: reqwest::Client::new(),
        }
    }

    /// What the real API would need, by name.
    pub fn credentials(system: &str) -> Value {
        let output = std::process::Command::new(crate::process::binary("drover-sandbox"))
            .args(["credentials", "--system", system])
            .output()
            .expect("it runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The truth about an object: every record by id, deleted ones included.
    pub async fn records(&self, object: &str) -> BTreeMap<String, Value> {
        let text = self
            .http
            .get(format!("{}/_sandbox/records/{object}", self.url))
            .send()
            .await
            .expect("the sandbox answers")
            .text()
            .await
            .expect("its records");
        text.lines()
            .map(|line| {
                let record: Value = serde_json::from_str(line).expect("a record");
                (record["Id"].as_str().expect("an id").to_owned(), record)
            })
            .collect()
    }

    /// Changes a record: the body as the control endpoint takes it.
    pub async fn edit(&self, edit: Value) -> Value {
        self.post("edit", edit).await
    }

    /// Plants a fault.
    pub async fn fault(&self, fault: Value) {
        self.post("faults", fault).await;
    }

    /// The faults, and how often each has fired.
    pub async fn faults(&self) -> Value {
        self.get("faults").await
    }

    /// Says how many of the API's daily calls there are, and are used.
    pub async fn quota(&self, used: u64, max: u64) {
        let quota = serde_json::json!({"used": used, "max": max});
        self.post("quota", quota).await;
    }

    /// How many of the API's daily calls are used, and how many there are.
    pub async fn used(&self) -> (u64, u64) {
        let quota = self.post("quota", serde_json::json!({})).await;
        let number = |name: &str| quota[name].as_u64().expect("a number");
        (number("used"), number("max"))
    }

    /// Makes the source read-only.
    pub async fn freeze(&self) {
        self.post("freeze", serde_json::json!({})).await;
    }

    /// The sandbox's own statistics.
    pub async fn stats(&self) -> Value {
        self.get("stats").await
    }

    async fn get(&self, verb: &str) -> Value {
        self.http
            .get(format!("{}/_sandbox/{verb}", self.url))
            .send()
            .await
            .expect("the sandbox answers")
            .json()
            .await
            .expect("JSON")
    }

    async fn post(&self, verb: &str, body: Value) -> Value {
        let answer = self
            .http
            .post(format!("{}/_sandbox/{verb}", self.url))
            .json(&body)
            .send()
            .await
            .expect("the sandbox answers");
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert!(status.is_success(), "{verb} {body}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
