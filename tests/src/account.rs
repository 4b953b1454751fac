//! A process that shares the source's account with an extractor.

use std::sync::Arc;
use std::time::Duration;

use drover_pipeline::Code;
use drover_pipeline::config::KafkaConfig;
use drover_pipeline::http::HttpClient;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::quota::{Meter, Terms, keep_share};
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Status};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::migration::Migration;
use crate::sandbox::Sandbox;

/// A loader of a migration that writes to the account it is read from: all that
/// is Drover's in it is what each process runs to share the account.
pub struct Loader {
    /// What it counts, and is allowed.
    pub meter: Arc<Meter>,
    work: JoinHandle<()>,
}

impl Loader {
    /// The n-th of them, which makes calls until `stop`; a tenth of the account's
    /// calls are left to others.
    pub fn start(migration: &Migration, n: u32, stop: &CancellationToken) -> Loader {
        let account = migration.sandbox.url.trim_start_matches("http://");
        let credentials = Sandbox::credentials("salesforce");
        let http = HttpClient::new().expect("a client");
        let meter = Arc::clone(http.meter());
        meter.terms(Terms {
            account: account.to_owned(),
            reserve_percent: 10,
            records_per_call: 1,
            large: None,
            calls_per_poll: 0,
        });
        meter.guard();
        let brokers = &migration.services().brokers;
        let bus = KafkaConfig {
            brokers: brokers.clone(),
            partitions: 3,
            replication: None,
            client: [].into(),
        };
        let client = Client::new(&bus, "loader");
        let topic = Bus::new(brokers, &migration.id).name("status");
        let instance = format!("loader-{n}");
        let status = Status::new(Stage::Loader, "salesforce", &instance, "none").expect("a status");
        status.phase(Phase::Running);
        let login = [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", text(&credentials, "client_id")),
            ("client_secret", text(&credentials, "client_secret")),
        ];
        let url = migration.sandbox.url.clone();
        let (shared, stop) = (Arc::clone(&meter), stop.clone());
        let work = tokio::spawn(async move {
            let (ended, reports) = (stop.clone(), stop.clone());
            let published =
                tokio::spawn(Arc::clone(&status).publish(client.clone(), topic.clone(), reports));
            let kept = tokio::spawn(keep_share(shared.clone(), status, client, topic, ended));
            let request = http.request(Method::POST, &format!("{url}/services/oauth2/token"));
            let answer = http.send(request.form(&login)).await.expect("a token");
            let token: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let token = text(&token, "access_token");
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while !stop.is_cancelled() {
                pace.tick().await;
                let pass = match shared.pass() {
                    Ok(pass) => pass,
                    Err(error) => {
                        assert_eq!(error.code, Code::QuotaExhausted, "{error}");
                        continue;
                    }
                };
                let request =
                    http.request(Method::GET, &format!("{url}/services/data/v67.0/limits"));
                let answer = http
                    .send(request.bearer_auth(&token))
                    .await
                    .expect("limits");
                let told = answer.header("sforce-limit-info").expect("what is left");
                let (used, limit) = told
                    .trim_start_matches("api-usage=")
                    .split_once('/')
                    .expect("two");
                let number = |text: &str| text.parse::<u64>().expect("a number");
                shared.told(number(limit), number(limit) - number(used));
                drop(pass);
            }
            published.await.expect("no panic");
            kept.await.expect("no panic");
        });
        Loader { meter, work }
    }

    /// Waits for its end, which `stop` brings.
    pub async fn ended(self) {
        self.work.await.expect("no panic");
    }
}

fn text(document: &Value, name: &str) -> String {
    document[name].as_str().expect("a text").to_owned()
}
