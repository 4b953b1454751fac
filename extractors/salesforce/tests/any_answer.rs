//! Whatever the source answers, a call ends with an answer that keeps the
//! contract or with an error: never a panic. Every kind of answer that a whole
//! run asks for (token, describe, query, log of deletes, limits, jobs and their
//! files) is recorded, and given back broken in all ways that come to mind.
//! A failure prints its seed; `SEED=n` replays it, `ANSWERS=n` tries more.

mod model;

use std::sync::{Arc, Mutex};

use drover_extractor_salesforce::{Config, Cursor, Salesforce};
use drover_pipeline::extract::{Extractor, Object, Page};
use drover_pipeline::http::{Answer, HttpClient, Server};
use drover_pipeline::record::Op;
use drover_pipeline::testing::extractor::{Reader, Write, object, through_json};
use drover_pipeline::{Class, Code, Error, Result};
use model::State;
use model::http::InProcess;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::header::HeaderValue;
use serde_json::json;

/// Most answers to one call; then the connection breaks, so that a list of pages
/// without an end has one.
const MOST: usize = 100;

/// Answers by their paths.
type Recorded = Vec<(String, Answer)>;

/// A sound server whose answers are kept.
struct Recorder {
    server: Box<dyn Server>,
    seen: Mutex<Recorded>,
}

impl Server for Recorder {
    fn answer(&self, request: reqwest::Request) -> Result<Answer> {
        let path = request.url().path().to_owned();
        let answer = self.server.answer(request)?;
        let mut seen = self.seen.lock().expect("the record");
        seen.push((path, answer.clone()));
        Ok(answer)
    }
}

/// A server that gives one of the recorded answers, seldom as it was.
struct Broken {
    recorded: Arc<Recorded>,
    rng: Mutex<StdRng>,
    left: Mutex<usize>,
}

impl Server for Broken {
    fn answer(&self, request: reqwest::Request) -> Result<Answer> {
        let mut left = self.left.lock().expect("a number");
        let lost = Error::new(Code::AnswerLost, "the connection was cut");
        *left = left.checked_sub(1).ok_or(lost)?;
        let mut rng = self.rng.lock().expect("a generator");
        let path = request.url().path();
        let fitting = self.recorded.iter().filter(|(of, _)| of == path);
        let fitting: Vec<&Answer> = fitting.map(|(_, answer)| answer).collect();
        let mut answer = match rng.random_bool(0.9) && !fitting.is_empty() {
            true => fitting[rng.random_range(0..fitting.len())].clone(),
            false => self.recorded[rng.random_range(0..self.recorded.len())]
                .1
                .clone(),
        };
        if rng.random_bool(0.05) {
            let all = [
                100, 204, 301, 400, 401, 403, 404, 414, 420, 429, 500, 503, 999,
            ];
            answer.status = all[rng.random_range(0..all.len())];
        }
        if rng.random_bool(0.1) {
            let names: Vec<_> = answer.headers.keys().cloned().collect();
            let name = names[rng.random_range(0..names.len())].clone();
            let values = ["", "null", "-1", "99999999999999999999", "text/html", "0"];
            let value = HeaderValue::from_static(values[rng.random_range(0..values.len())]);
            answer.headers.remove(&name);
            if rng.random_bool(0.7) {
                answer.headers.insert(name, value);
            }
        }
        // Behind a token that is none there is nothing to see.
        let sound = if path.ends_with("/token") { 0.95 } else { 0.3 };
        while !rng.random_bool(sound) {
            spoil(&mut answer.body, &mut rng);
        }
        Ok(answer)
    }
}

/// Breaks some bytes of a body.
fn spoil(body: &mut Vec<u8>, rng: &mut StdRng) {
    const WORDS: [&str; 16] = [
        "null",
        "{}",
        "[]",
        "\"\"",
        "-1",
        "1e999",
        "99999999999999999999",
        "true",
        "\"",
        ",",
        "}",
        "\r\n",
        "é",
        "\u{feff}",
        "2026-99-99T99:99:99.999+0000",
        "\"records\":[{}],",
    ];
    let at = rng.random_range(0..=body.len());
    let end = rng.random_range(at..=body.len().min(at + 40));
    match rng.random_range(0..7) {
        0 => body.truncate(at),
        1 => drop(body.drain(at..end)),
        2 => {
            let part = body[at..end].to_vec();
            body.splice(at..at, part);
        }
        3 => body.splice(at..at, [rng.random::<u8>()]).for_each(drop),
        4 => drop(body.splice(at..at, [b'['].repeat(rng.random_range(1..3_000)))),
        // A whole value of JSON or CSV becomes another one.
        _ => {
            let word = WORDS[rng.random_range(0..WORDS.len())].bytes();
            let sign = |byte: &u8| b",:[]{}\n".contains(byte);
            let from = body[..at].iter().rposition(sign).map_or(0, |from| from + 1);
            let to = body[at..]
                .iter()
                .position(sign)
                .map_or(body.len(), |to| at + to);
            drop(body.splice(from..to, word));
        }
    }
}

fn client(http: HttpClient, bulk: bool) -> Salesforce {
    let config = json!({
        "instanceUrl": "http://127.0.0.1:1", "clientId": "id", "clientSecret": "hush",
        "pageSize": 4, "lookbackMs": 600_000, "bulkPageSize": 4,
        "bulkThreshold": if bulk { 0 } else { u64::MAX },
    });
    let config: Config = serde_json::from_value(config).expect("a config");
    Salesforce::new(config, http).expect("an extractor")
}

/// A whole run by both ways of copying: its answers, where it stood, and its
/// object.
async fn record(http: &HttpClient) -> (Recorded, Vec<Option<Cursor>>, Object) {
    let (mut recorded, mut cursors, mut found) = (Vec::new(), vec![None], None);
    for bulk in [false, true] {
        let state = Arc::new(Mutex::new(State::new(3, 10)));
        state.lock().expect("the state").origin = "http://127.0.0.1:1".to_owned();
        let served = Arc::clone(&state);
        let handle = move |asked| served.lock().expect("the state").handle(&asked);
        let recorder = Arc::new(Recorder {
            server: Box::new(InProcess(handle)),
            seen: Mutex::default(),
        });
        let extractor = client(http.answered_by(recorder.clone()), bulk);
        extractor.check().await.expect("a check");
        let account = object(&extractor, "Account").await;
        let mut reader = Reader::<Salesforce>::new(account.clone());
        let mut ids: Vec<String> = Vec::new();
        for round in 0..40 {
            reader.step(&extractor).await.expect("a page");
            cursors.push(reader.cursor.clone());
            ids = reader.known.keys().cloned().collect();
            if let Some(id) = ids.get(round % 10) {
                let mut state = state.lock().expect("the state");
                let what = [
                    Write::Edit(id),
                    Write::Delete(id),
                    Write::Purge(id),
                    Write::Create,
                ];
                state.write("Account", what[round % 4]);
                state.settle();
            }
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        extractor.get(&account, &ids).await.expect("records");
        extractor.ids(&account, None).await.expect("ids");
        recorded.append(&mut recorder.seen.lock().expect("the record"));
        found = Some(account);
    }
    (recorded, cursors, found.expect("an object"))
}

/// What holds for every page that is no error.
fn judge(page: &Page<Cursor>) {
    through_json::<Salesforce>(&page.next);
    for change in &page.changes {
        assert!(!change.id.is_empty());
        assert_eq!(change.op == Op::Upsert, change.body.is_some());
        let body = change.body.as_deref().unwrap_or("{}");
        let fields: Result<serde_json::Map<_, _>, _> = serde_json::from_str(body);
        assert!(fields.is_ok(), "a body that is no object: {body}");
    }
}

#[test]
fn any_answer_is_read_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let http = HttpClient::new().expect("a client");
    let (recorded, cursors, account) = runtime.block_on(record(&http));
    for kind in [
        "/token",
        "/describe",
        "/query",
        "/queryAll",
        "/deleted/",
        "/results",
        "/limits",
        "/jobs/query",
        "/sobjects",
    ] {
        let any = recorded.iter().any(|(path, _)| path.ends_with(kind));
        assert!(any, "no answer to {kind} was recorded");
    }
    let recorded = Arc::new(recorded);
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ANSWERS").unwrap_or(3_000),
    };
    // Read and refused; both must happen often, or nothing is proved.
    let mut ends = [0_u64; 2];
    for seed in seeds.clone() {
        let mut rng = StdRng::seed_from_u64(seed);
        let server = Broken {
            recorded: Arc::clone(&recorded),
            rng: Mutex::new(StdRng::seed_from_u64(seed + 1)),
            left: Mutex::new(MOST),
        };
        let extractor = client(http.answered_by(Arc::new(server)), rng.random_bool(0.5));
        let call = async {
            let id = "001000000000001AAA";
            match rng.random_range(0..10) {
                0 => extractor.check().await,
                1 => extractor.discover(&["Account".to_owned()]).await.map(drop),
                2 => extractor.get(&account, &[id, "no id"]).await.map(drop),
                3 => extractor.ids(&account, Some(id)).await.map(drop),
                _ => {
                    let from = cursors[rng.random_range(0..cursors.len())].as_ref();
                    let page = extractor.fetch(&account, from).await;
                    page.map(|page| judge(&page))
                }
            }
        };
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(call)));
        let Ok(ended) = ended else {
            panic!("SEED={seed}");
        };
        if let Err(error) = &ended {
            let text = error.to_string();
            assert!(error.class() != Class::Bug, "SEED={seed}: {text}");
            assert!(
                !text.contains("hush") && !text.contains("token 0"),
                "SEED={seed}: {text}"
            );
        }
        ends[usize::from(ended.is_err())] += 1;
    }
    println!("{} read, {} refused", ends[0], ends[1]);
    let few = seeds.end - seeds.start < 1_000;
    assert!(few || ends.iter().all(|some| *some > 100), "{ends:?}");
}
