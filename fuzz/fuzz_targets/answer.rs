//! Answers of the source, whatever they hold: a page that keeps the contract,
//! or an error. The input is the answers of one call, one behind the other, each
//! with a status in front; the first one is the token's.
#![no_main]

use std::sync::{Arc, LazyLock, Mutex};

use drover_extractor_salesforce::{Config, Cursor, Salesforce};
use drover_pipeline::extract::{Extractor, Object, SourceField};
use drover_pipeline::http::{Answer, HttpClient, Server};
use drover_pipeline::{Code, Error, Result};
use libfuzzer_sys::fuzz_target;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

/// What stands between two answers.
const BORDER: u8 = 0;

/// To make a client takes a while.
static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().expect("a client"));

struct Answers(Mutex<Vec<Vec<u8>>>);

impl Server for Answers {
    fn answer(&self, request: reqwest::Request) -> Result<Answer> {
        let mut left = self.0.lock().expect("the answers");
        let lost = || Error::new(Code::AnswerLost, "no more answers");
        let text = left.pop().ok_or_else(lost)?;
        let (status, body) = text.split_first().ok_or_else(lost)?;
        let mut headers = HeaderMap::new();
        let is_file = request.url().path().ends_with("/results");
        let kind = if is_file {
            "text/csv"
        } else {
            "application/json"
        };
        headers.insert("content-type", HeaderValue::from_static(kind));
        let date = HeaderValue::from_static("Tue, 31 Mar 2026 09:15:12 GMT");
        headers.insert("date", date);
        headers.insert("sforce-numberofrecords", u16::from(*status).into());
        let status = match status {
            b'4' => 400,
            b'5' => 500,
            _ => 200,
        };
        Ok(Answer {
            status,
            headers,
            body: body.to_vec(),
        })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((call, answers)) = bytes.split_first() else {
        return;
    };
    let mut answers: Vec<Vec<u8>> = answers
        .split(|byte| *byte == BORDER)
        .map(<[u8]>::to_vec)
        .collect();
    answers.reverse();
    // Nothing is found behind a refused token.
    answers.push(
        br#"2{"access_token":"t","instance_url":"http://127.0.0.1:1","token_type":"Bearer"}"#
            .to_vec(),
    );
    let http = HTTP.answered_by(Arc::new(Answers(Mutex::new(answers))));
    let config = json!({
        "instanceUrl": "http://127.0.0.1:1", "clientId": "id", "clientSecret": "hush", "pageSize": 4,
    });
    let config: Config = serde_json::from_value(config).expect("a config");
    let extractor = Salesforce::new(config, http).expect("an extractor");
    let fields = [
        ("Id", "id"),
        ("IsDeleted", "boolean"),
        ("SystemModstamp", "datetime"),
        ("Name", "string"),
    ];
    let field = |(name, kind): (&str, &str)| SourceField {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..SourceField::default()
    };
    let account = Object {
        name: "Account".to_owned(),
        fields: fields.map(field).to_vec(),
        ..Object::default()
    };
    let from = json!({"since": 1_774_948_000_000_i64, "deletesSince": 1_774_948_000_000_i64});
    let cursor =
        |cursor: serde_json::Value| -> Cursor { serde_json::from_value(cursor).expect("a cursor") };
    let call = async {
        match call % 8 {
            0 => drop(extractor.check().await),
            1 => drop(extractor.discover(&[]).await),
            2 => drop(extractor.get(&account, &["001000000000001AAA"]).await),
            3 => drop(extractor.ids(&account, None).await),
            4 => drop(extractor.fetch(&account, None).await),
            5 => {
                let job = json!({"phase": "bulk", "id": "750000000000001AAA", "attempt": 1, "from": from, "read": 0});
                drop(extractor.fetch(&account, Some(&cursor(job))).await);
            }
            6 => {
                let counted = json!({"phase": "counted", "from": from, "read": 3});
                drop(extractor.fetch(&account, Some(&cursor(counted))).await);
            }
            _ => {
                let delta = json!({"phase": "delta", "from": from});
                drop(extractor.fetch(&account, Some(&cursor(delta))).await);
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(call);
});
