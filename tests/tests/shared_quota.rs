//! An account that is the limit: an extractor reads from it, and three loaders
//! write to it, each sharing what is left after the reserve by what the others
//! say in the topic `status`. The source's own count is what is judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_pipeline::Code;
use drover_pipeline::config::KafkaConfig;
use drover_pipeline::http::HttpClient;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::quota::{Meter, Terms, keep_share};
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Status};
use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use drover_tests::sandbox::Sandbox;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: u64 = 600;
const RESERVE: u64 = LIMIT / 10;

/// A loader of the same migration that writes to the account it is read from:
/// all that is Drover's in it is what each process runs to share the account.
struct Loader {
    meter: Arc<Meter>,
    work: JoinHandle<()>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_reserve_leaves_is_used_by_all_together() {
    let mut migration = Migration::new("shared", &["--records", "8000", "--seed", "3"]);
    let credentials = Sandbox::credentials("salesforce");
    let document = std::fs::read_to_string(&migration.config).expect("the configuration");
    let mut document: Value = serde_json::from_str(&document).expect("JSON");
    document["objects"] = json!(["Account", "Contact"]);
    document["sourceConfig"]["pageSize"] = json!(2);
    std::fs::write(&migration.config, document.to_string()).expect("written");
    migration.drover_ok(&["init"]);
    migration.sandbox.quota(0, LIMIT).await;

    let stop = CancellationToken::new();
    let account = migration
        .sandbox
        .url
        .trim_start_matches("http://")
        .to_owned();
    let loaders: Vec<Loader> = (1..=3)
        .map(|n| loader(&migration, n, &account, &credentials, &stop))
        .collect();
    migration.start("extractor", "extractor-1", &[]);

    let deadline = Instant::now() + Duration::from_secs(60);
    let quota = loop {
        let status = migration.status();
        let quota = &status["quotas"][0];
        let extractor = process(&status, "extractor-1");
        let waits = |loader: &Loader| loader.meter.usage().is_some_and(|u| u.until.is_some());
        if extractor["phase"] == "throttled"
            && quota["calls"].as_object().map_or(0, |calls| calls.len()) == 4
            && loaders.iter().all(waits)
        {
            break quota.clone();
        }
        migration.assert_alive();
        assert!(
            Instant::now() < deadline,
            "{status:#}\n{}",
            migration.logs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let (used, _) = migration.sandbox.used().await;
    let free = LIMIT - RESERVE;
    assert!(used * 100 >= free * 95, "{used} of {free}: {quota:#}");
    // Each of the four may have had one request under way.
    assert!(used <= free + 4, "{used} of {free}: {quota:#}");
    // A report may be one call behind what the source has counted.
    let (by_loaders, by_extractor) = loop {
        let by_loaders: u64 = loaders
            .iter()
            .filter_map(|loader| loader.meter.usage())
            .map(|usage| usage.calls)
            .sum();
        let status = migration.status();
        let by_extractor = status["quotas"][0]["calls"]["extractor-1"].as_u64();
        let by_extractor = by_extractor.expect("its calls");
        let (used, _) = migration.sandbox.used().await;
        if used == by_loaders + by_extractor {
            break (by_loaders, by_extractor);
        }
        let told = by_loaders + by_extractor;
        let waits = Instant::now() < deadline;
        assert!(
            waits,
            "the source counts {used}, they say {told}: {quota:#}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(by_loaders > 0 && by_extractor > 0, "{quota:#}");
    let status = migration.status();
    let error = process(&status, "extractor-1")["lastError"].clone();
    let error = error.as_str().expect("it says why");
    assert!(error.starts_with("QUOTA_EXHAUSTED: "), "{error}");
    assert!(error.contains("4 processes of"), "{error}");
    stop.cancel();
    for loader in loaders {
        loader.work.await.expect("no panic");
    }
    migration.stop_all();
}

fn process(status: &Value, instance: &str) -> Value {
    let processes = status["processes"].as_array().into_iter().flatten();
    let mut found = processes.filter(|process| process["instance"] == instance);
    found.next().cloned().unwrap_or_default()
}

fn loader(
    migration: &Migration,
    n: u32,
    account: &str,
    credentials: &Value,
    stop: &CancellationToken,
) -> Loader {
    let http = HttpClient::new().expect("a client");
    let meter = Arc::clone(http.meter());
    meter.terms(Terms {
        account: account.to_owned(),
        reserve_percent: 10,
        records_per_call: 1,
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
        ("client_id", text(credentials, "client_id")),
        ("client_secret", text(credentials, "client_secret")),
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
            let request = http.request(Method::GET, &format!("{url}/services/data/v67.0/limits"));
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

fn text(document: &Value, name: &str) -> String {
    document[name].as_str().expect("a text").to_owned()
}
