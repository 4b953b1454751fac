//! Starts the binary and talks to it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;

pub const TOKEN: &str = "00DDv0000000001MAA!sandboxAccessToken";
pub const DATA: &str = "/services/data/v67.0";

/// The binary, ready to be given arguments.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_drover-sandbox"))
}

/// A running sandbox; it ends with this.
pub struct Sandbox {
    child: Child,
    pub url: String,
    pub http: reqwest::Client,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The code of the error array.
    pub fn code(&self) -> String {
        self.json()[0]["errorCode"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Sandbox {
    /// Starts `serve --system salesforce` with more arguments.
    pub fn start(arguments: &[&str]) -> Sandbox {
        let mut child = binary()
            .args(["serve", "--system", "salesforce", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ready line: {line:?}"));
        assert_eq!(ready["system"], "salesforce");
        Sandbox {
            child,
            url: ready["url"].as_str().unwrap().to_owned(),
            http: reqwest::Client::new(),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(TOKEN)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Reply {
            status,
            headers,
            text: answer.text().await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::PATCH, path).json(body))
            .await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Asks a query, seeing deleted records if `path` is `queryAll`.
    pub async fn ask(&self, path: &str, soql: &str) -> Reply {
        self.send(
            self.request(Method::GET, &format!("{DATA}/{path}"))
                .query(&[("q", soql)]),
        )
        .await
    }

    /// The first page of a query that succeeds.
    pub async fn query(&self, soql: &str) -> Value {
        let reply = self.ask("query", soql).await;
        assert_eq!(reply.status, 200, "{soql}: {}", reply.text);
        reply.json()
    }

    /// All records of a query, page by page; the number of pages.
    pub async fn all(&self, soql: &str) -> (Vec<Value>, usize) {
        let mut page = self.query(soql).await;
        let mut records = Vec::new();
        let mut pages = 1;
        loop {
            records.append(page["records"].as_array_mut().unwrap());
            let Some(next) = page["nextRecordsUrl"].as_str() else {
                assert_eq!(page["done"], true);
                return (records, pages);
            };
            assert_eq!(page["done"], false);
            page = self.get(next).await.json();
            pages += 1;
        }
    }

    /// The values of one field in a query's records.
    pub async fn column(&self, soql: &str, field: &str) -> Vec<String> {
        let (records, _) = self.all(soql).await;
        records
            .iter()
            .map(|record| record[field].as_str().unwrap_or("null").to_owned())
            .collect()
    }

    /// The truth about an object.
    pub async fn truth(&self, object: &str) -> Vec<Value> {
        let reply = self.get(&format!("/_sandbox/records/{object}")).await;
        assert_eq!(reply.status, 200);
        reply
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub async fn stats(&self) -> Value {
        self.get("/_sandbox/stats").await.json()
    }

    pub async fn edit(&self, request: Value) -> String {
        let reply = self.post("/_sandbox/edit", &request).await;
        assert_eq!(reply.status, 200, "{request}: {}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn fault(&self, fault: Value) {
        let reply = self.post("/_sandbox/faults", &fault).await;
        assert_eq!(reply.status, 200, "{fault}: {}", reply.text);
    }

    /// Ends it as a supervisor does, and gives its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so, asking again and again.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut so: F) -> Duration {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// The keys of an object, in their order.
pub fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}
