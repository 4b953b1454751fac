//! Reads the pages that the Salesforce extractor reads, by the same queries,
//! and throws them away: how fast the source answers at most.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bench::Result;
use crate::usage::Usage;

/// The source, and what is read of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pages {
    /// Its URL.
    pub url: String,
    /// Whom it lets in.
    pub client_id: String,
    /// A stand-in's secret is none.
    pub client_secret: String,
    /// The plan's objects: name and fields.
    pub objects: Vec<Value>,
}

/// What was read.
#[derive(Debug, Serialize, Deserialize)]
pub struct Read {
    /// Records of all objects.
    pub records: u64,
    /// From the first page's end to the last's.
    pub seconds: f64,
    /// CPU seconds.
    pub cpu: f64,
    /// Peak memory in bytes.
    pub peak: u64,
}

/// Records of a page, as the extractor asks for them.
const PAGE: usize = 2_000;

impl Pages {
    /// Reads all objects at once, as the extractor's lanes do, and prints a
    /// [`Read`].
    pub fn run(self) -> Result<()> {
        let read = tokio::runtime::Runtime::new()?.block_on(self.read())?;
        println!("{}", serde_json::to_string(&read)?);
        Ok(())
    }

    async fn read(self) -> Result<Read> {
        let http = reqwest::Client::new();
        let token: Value = http
            .post(format!("{}/services/oauth2/token", self.url))
            .form(&[
                ("grant_type", "client_credentials"),
                ("client_id", self.client_id.as_str()),
                ("client_secret", self.client_secret.as_str()),
            ])
            .send()
            .await?
            .json()
            .await?;
        let token = token["access_token"].as_str().ok_or("no token")?.to_owned();
        let began = Instant::now();
        let mut lanes = JoinSet::new();
        for object in self.objects {
            let (http, token, url) = (http.clone(), token.clone(), self.url.clone());
            lanes.spawn(async move { all(&http, &url, &token, &object).await });
        }
        let mut records = 0;
        while let Some(lane) = lanes.join_next().await {
            records += lane?.map_err(|text: String| text)?;
        }
        let usage = Usage::of(std::process::id()).ok_or("no /proc")?;
        Ok(Read {
            records,
            seconds: began.elapsed().as_secs_f64(),
            cpu: usage.cpu,
            peak: usage.peak,
        })
    }
}

/// Every record of an object, page by page.
async fn all(
    http: &reqwest::Client,
    url: &str,
    token: &str,
    object: &Value,
) -> Result<u64, String> {
    let name = object["name"].as_str().unwrap_or_default();
    let fields: Vec<&str> = object["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|field| {
            !matches!(
                field["type"].as_str(),
                Some("address" | "location" | "base64")
            )
        })
        .filter_map(|field| field["name"].as_str())
        .collect();
    let fields = fields.join(",");
    // The last record's attributes end with its id.
    let mark = format!("/sobjects/{name}/");
    let mut bound = String::new();
    let mut records = 0;
    loop {
        let soql = format!("SELECT {fields} FROM {name}{bound} ORDER BY Id LIMIT {PAGE}");
        let answer = http
            .get(format!("{url}/services/data/v59.0/query"))
            .query(&[("q", &soql)])
            .bearer_auth(token)
            .send()
            .await
            .map_err(|e| e.to_string())?;
        let status = answer.status();
        let page = answer.text().await.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(format!("{name}: {status}"));
        }
        let count = page.matches(&mark).count();
        records += count as u64;
        let Some(at) = page.rfind(&mark).filter(|_| count > 0) else {
            return Ok(records);
        };
        let id = page.get(at + mark.len()..at + mark.len() + 18);
        bound = format!(" WHERE Id > '{}'", id.ok_or("a cut page")?);
        if count < PAGE && page.contains("\"done\":true") {
            return Ok(records);
        }
    }
}
