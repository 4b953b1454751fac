//! What users of other systems complain of, one test each, named after the
//! project and the thread; `docs/complaints.md` is the list.

use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;

use super::*;

impl Rig {
    /// Has a loader's letter tried again, as `drover deadletter retry` does.
    fn retry(&self, letter: &DeadLetter) {
        let bytes = letter.envelope().expect("its record");
        let mut envelope = Envelope::decode(&bytes).expect("an envelope");
        envelope.order = letter.order;
        self.try_again(&letter.key, &envelope.encode());
    }

    fn redos(&self) -> usize {
        let redos = read_to_end(&self.client(), &self.topics.redo());
        redos.expect("the table").len()
    }

    /// How often a key was sent to the target.
    fn sent(&self, key: &str) -> usize {
        let sent = self.target.sent.lock().expect("lock");
        sent.iter().filter(|sent| *sent == key).count()
    }

    fn name_of(&self, key: &str) -> Option<String> {
        self.rows().get(key).map(|row| row.name.clone())
    }
}

fn ordered() -> Target {
    Target {
        ordered: true,
        ..Target::default()
    }
}

fn contact(name: &str, parent: &str) -> Option<String> {
    Some(serde_json::json!({"name": name, "parent": parent}).to_string())
}

/// All rows were rejected, the run was a "success", the next one skipped them,
/// and nobody was told why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multiwoven_923_rejected_rows_are_not_forgotten() {
    // The mock broker tells no commits: a second run would read all of it again,
    // and refuse it again at a newer order than the letters' that are retried.
    let Some(mut rig) = Rig::real(ordered()) else {
        return;
    };
    for n in 0..10 {
        rig.source
            .add("company", &n.to_string(), 1, name("refuse me"));
    }
    rig.run();
    rig.until("all are refused", |rig| rig.dead().len() == 10)
        .await;
    rig.stop().await;
    rig.run();
    rig.source.add("company", "good", 1, name("good"));
    rig.until("the next run", |rig| rig.rows().len() == 1).await;
    let dead = rig.dead();
    assert_eq!(dead.len(), 10, "a further run forgets none");
    for letter in dead.values() {
        let why = (letter.code.as_str(), letter.message.as_str());
        assert_eq!(why, ("TARGET_REFUSED", "refused"), "each says why");
    }
    rig.target.lenient.store(true, Ordering::SeqCst);
    dead.values().for_each(|letter| rig.retry(letter));
    rig.until("all are loaded", |rig| {
        rig.rows().len() == 11 && rig.letters().is_empty() && rig.redos() == 0
    })
    .await;
    rig.end().await;
}

/// Years of asking for bad records to be set aside one by one (also 19892, 32825,
/// 34887), and a fallback that is never reached (redpanda connect 1210).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn airbyte_2352_a_bad_record_is_set_aside_and_the_others_are_loaded() {
    let mut rig = Rig::new(Target::default());
    for n in 0..20 {
        let body = match n {
            7 => Some("no JSON".to_owned()),
            _ => name(&format!("company {n}")),
        };
        rig.source.add("company", &n.to_string(), 1, body);
    }
    rig.run();
    rig.until("all but one", |rig| {
        rig.rows().len() == 19 && rig.letters() == ["transformer/fake/company/7"]
    })
    .await;
    rig.end().await;
}

/// One bad record of a batch fails all of it (also 815).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_connect_jdbc_814_one_bad_record_rejects_only_itself() {
    let mut rig = Rig::new(ordered());
    for n in 0..5 {
        let name = name(if n == 2 { "refuse me" } else { "fine" });
        rig.source.add("company", &n.to_string(), 1, name);
    }
    rig.run();
    rig.until("four rows and a letter", |rig| {
        rig.rows().len() == 4 && rig.letters() == ["loader/fake/company/2#main"]
    })
    .await;
    rig.end().await;
}

/// One stream that fails holds all the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn airbyte_35002_the_others_go_on_beside_a_blocked_one() {
    let mut rig = Rig::new(ordered());
    *rig.target.trouble.lock().expect("lock") = Some(Code::Forbidden);
    rig.source.add("company", "1", 1, name("company"));
    rig.source.add("contact", "1", 1, name("contact"));
    rig.run();
    rig.until("the contact", |rig| {
        rig.name_of("fake/contact/1#main").as_deref() == Some("contact")
    })
    .await;
    assert_eq!(rig.rows().len(), 1);
    assert!(
        rig.letters().is_empty(),
        "a right that lacks skips no record"
    );
    rig.end().await;
}

/// Transport is to be retried and data to be set aside; one switch for both is
/// wrong either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongo_kafka_157_transport_is_retried_and_data_is_set_aside() {
    let mut rig = Rig::new(ordered());
    *rig.target.trouble.lock().expect("lock") = Some(Code::ServerError);
    rig.source.add("company", "1", 1, name("fine"));
    rig.source.add("company", "2", 1, name("refuse me"));
    rig.source.add("contact", "1", 1, name("contact"));
    rig.run();
    rig.until("the contact", |rig| rig.rows().len() == 1).await;
    assert!(
        rig.letters().is_empty(),
        "a fault of the server is nobody's"
    );
    *rig.target.trouble.lock().expect("lock") = None;
    rig.until("the server is back", |rig| {
        rig.rows().len() == 2 && rig.letters() == ["loader/fake/company/2#main"]
    })
    .await;
    rig.end().await;
}

/// Replaying what failed reorders the versions of one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redpanda_connect_4387_a_retry_keeps_the_order_of_its_key() {
    let mut rig = Rig::new(Target::default());
    rig.source.add("company", "1", 1, name("refuse me"));
    rig.run();
    rig.until("the letter", |rig| rig.dead().len() == 1).await;
    let letter = rig.dead().into_values().next().expect("a letter");
    rig.source.add("company", "1", 2, name("newer"));
    rig.until("the newer version", |rig| rig.rows().len() == 1)
        .await;
    rig.target.lenient.store(true, Ordering::SeqCst);
    rig.retry(&letter);
    rig.until("the retry is judged", |rig| rig.redos() == 0)
        .await;
    assert_eq!(rig.name_of("fake/company/1#main").as_deref(), Some("newer"));
    assert_eq!(
        rig.sent("fake/company/1#main"),
        2,
        "the old one was not sent"
    );
    rig.end().await;
}

/// A retry of what failed sends everything again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drt_278_only_what_failed_is_retried() {
    let mut rig = Rig::new(ordered());
    for n in 0..8 {
        let name = name(if n == 3 { "refuse me" } else { "fine" });
        rig.source.add("company", &n.to_string(), 1, name);
    }
    rig.run();
    rig.until("the letter", |rig| {
        rig.dead().len() == 1 && rig.rows().len() == 7
    })
    .await;
    rig.target.lenient.store(true, Ordering::SeqCst);
    rig.dead().values().for_each(|letter| rig.retry(letter));
    rig.until("the retry", |rig| {
        rig.rows().len() == 8 && rig.letters().is_empty()
    })
    .await;
    for n in 0..8 {
        let times = rig.sent(&format!("fake/company/{n}#main"));
        assert_eq!(times, if n == 3 { 2 } else { 1 }, "{n}");
    }
    rig.end().await;
}

/// Records that are skipped because they exist are not found by those that
/// refer to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sfdmu_655_a_parent_that_was_not_written_again_is_found() {
    let mut rig = Rig::new(Target::default());
    rig.source.add("company", "1", 1, name("parent"));
    rig.run();
    rig.until("the parent", |rig| rig.rows().len() == 1).await;
    rig.stop().await;
    rig.run();
    rig.source.add("company", "1", 1, name("parent"));
    rig.source.add("contact", "1", 1, contact("child", "1"));
    rig.until("the child", |rig| rig.rows().len() == 2).await;
    let parent = rig.entries()["fake/company/1#main"].target_id.clone();
    let child = &rig.rows()["fake/contact/1#main"];
    assert_eq!(child.links.get("companyId"), parent.as_ref());
    assert_eq!(
        rig.sent("fake/company/1#main"),
        1,
        "and it was not sent again"
    );
    rig.end().await;
}

/// Tens of thousands of updates that change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sfdmu_419_equal_content_is_not_sent_again() {
    const MARKS: u32 = 16;
    let mut rig = Rig::new(ordered());
    for round in 0..3 {
        for n in 0..10 {
            rig.source
                .add("company", &n.to_string(), 1, name(&format!("company {n}")));
        }
        // Enough of them that each partition ends with one.
        for mark in 0..MARKS {
            let body = name(&format!("round {round}"));
            rig.source
                .add("company", &format!("mark {mark}"), round, body);
        }
    }
    rig.run();
    rig.until("the last round", |rig| {
        let last = |mark| rig.name_of(&format!("fake/company/mark {mark}#main"));
        (0..MARKS).all(|mark| last(mark).as_deref() == Some("round 2"))
    })
    .await;
    rig.stop().await;
    for n in 0..10 {
        assert_eq!(rig.sent(&format!("fake/company/{n}#main")), 1, "{n}");
    }
}

/// Missing parents come as an error with an empty report, or with the wrong key
/// (also 25, 243, 534, 575, 630, 929).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sfdmu_9_every_orphan_is_told_with_the_key_that_was_looked_for() {
    let mut rig = Rig::new(ordered());
    for n in 0..12 {
        let child = contact("child", &format!("nobody {n}"));
        rig.source.add("contact", &n.to_string(), 1, child);
    }
    rig.run();
    let told = |rig: &Rig| -> BTreeMap<String, String> {
        let parked = rig.parked().into_iter().flat_map(|(key, parked)| {
            let parents = parked.reason.parents().to_vec();
            parents
                .into_iter()
                .map(move |p| (key.clone(), p.to_string()))
        });
        parked.collect()
    };
    let expected: BTreeMap<String, String> = (0..12)
        .map(|n| {
            (
                format!("fake/contact/{n}#main"),
                format!("fake/company/nobody {n}#main"),
            )
        })
        .collect();
    rig.until("each orphan is told", |rig| told(rig) == expected)
        .await;
    assert!(rig.rows().is_empty());
    rig.end().await;
}

/// Foreign keys are not supported (also PR 253).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ghostferry_3_a_child_that_comes_first_waits_and_is_linked() {
    let mut rig = Rig::new(Target::default());
    rig.source.add("contact", "1", 1, contact("child", "1"));
    rig.run();
    rig.until("the child waits", |rig| rig.parked().len() == 1)
        .await;
    rig.source.add("company", "1", 1, name("parent"));
    rig.until("both", |rig| {
        rig.rows().len() == 2 && rig.parked().is_empty()
    })
    .await;
    let parent = rig.entries()["fake/company/1#main"].target_id.clone();
    let child = &rig.rows()["fake/contact/1#main"];
    assert_eq!(child.links.get("companyId"), parent.as_ref());
    rig.end().await;
}

/// Each sink has a dead-letter queue of its own, and each another one (also
/// llofberg/kafka-connect-rest PR 34, qdrant-kafka 6): here no connector has one.
#[test]
fn clickhouse_kafka_connect_639_no_connector_has_dead_letters_of_its_own() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut open: Vec<std::path::PathBuf> = ["extractors", "transformers", "loaders"]
        .map(|d| root.join(d))
        .into();
    let mut read = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ext| ext == "rs")
            && path.components().any(|part| part.as_os_str() == "src")
        {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            for word in ["deadletter", "DeadLetter"] {
                assert!(!text.contains(word), "{} writes letters", path.display());
            }
            read += 1;
        }
    }
    assert!(read > 20, "the connectors' sources are there");
}
