//! Dead letters and parked records, as an operator meets them: listed, looked
//! at, waived, tried again and released, on real parts; each outcome is asserted
//! by what lies in the target.

use std::time::Duration;

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use rdkafka::message::{Headers, Message};
use serde_json::{Value, json};

/// How long anything may take; nothing here waits for it to pass.
const LIMIT: Duration = Duration::from_secs(60);

/// `drover …` with JSON: its exit code and what it printed.
fn ask(migration: &Migration, arguments: &[&str]) -> (i32, Value) {
    let mut all = arguments.to_vec();
    all.extend(["--format", "json"]);
    let output = migration.drover(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?}: {error}: {text}{said}")
    });
    (output.status.code().unwrap_or(-1), value)
}

fn letters(migration: &Migration, filter: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["deadletter", "list", "--all"];
    arguments.extend(filter);
    let (code, letters) = ask(migration, &arguments);
    assert_eq!(code, 0);
    letters.as_array().expect("a list").clone()
}

/// The letters as soon as there are that many of them.
async fn letters_come(migration: &mut Migration, filter: &[&str], number: usize) -> Vec<Value> {
    let what = format!("{number} letters of {filter:?}");
    migration
        .until(LIMIT, &what, async |migration| {
            let letters = letters(migration, filter);
            (letters.len() == number).then_some(letters)
        })
        .await
}

/// The outcomes of a retry or a release, by key.
fn outcomes(answer: &Value) -> Vec<(String, String)> {
    let mut outcomes: Vec<_> = answer["records"]
        .as_array()
        .expect("records")
        .iter()
        .map(|record| {
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            (text("key"), text("outcome"))
        })
        .collect();
    outcomes.sort();
    outcomes
}

/// Of a row of the target, one column as text; empty for null.
async fn column(migration: &Migration, table: &str, id: &str, column: &str) -> Option<String> {
    let client = connect(&migration.services().postgres).await;
    let sql = format!(
        "select coalesce(\"{column}\"::text, '') from \"{}\".\"{table}\" where drover_id = $1",
        migration.schema
    );
    let row = client.query_opt(&sql, &[&id]).await.expect("an answer");
    row.map(|row| row.get(0))
}

async fn sql(migration: &Migration, statement: &str) {
    let client = connect(&migration.services().postgres).await;
    let statement = statement.replace("SCHEMA", &format!("\"{}\"", migration.schema));
    client.batch_execute(&statement).await.expect(&statement);
}

async fn create(migration: &Migration, object: &str, fields: Value) -> String {
    let created = migration
        .sandbox
        .edit(json!({"object": object, "create": fields}))
        .await;
    created["id"].as_str().expect("its id").to_owned()
}

async fn edit(migration: &Migration, object: &str, id: &str, fields: Value) {
    migration
        .sandbox
        .edit(json!({"object": object, "id": id, "fields": fields}))
        .await;
}

/// Nothing is left to be tried again.
async fn nothing_asked(migration: &mut Migration, topic: &str) {
    let bus = migration.bus();
    let values = |bus: &Bus| {
        let mut live = std::collections::BTreeSet::new();
        for record in bus.read(topic) {
            let key = record.key().unwrap_or_default().to_vec();
            match record.payload() {
                Some(_) if !key.starts_with(b"__drover/") => live.insert(key),
                _ => live.remove(&key),
            };
        }
        live.len()
    };
    migration
        .until(LIMIT, "every retry has its outcome", async |_| {
            (values(&bus) == 0).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_is_shown_waived_and_tried_again() {
    let mut migration = Migration::new("refused", &["--seed", "21", "--records", "120"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    sql(
        &migration,
        "alter table SCHEMA.lead add constraint no_refused check (last_name not like 'Refused%') not valid",
    )
    .await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let fields = json!({"LastName": format!("Refused Secretname {n}"), "Company": "Lead Co"});
        ids.push(create(&migration, "Lead", fields).await);
    }
    let key = |n: usize| format!("salesforce/Lead/{}#lead", ids[n]);
    let name = async |migration: &Migration, n: usize| {
        column(migration, "lead", &ids[n], "last_name").await
    };
    letters_come(&mut migration, &["--object", "Lead"], 3).await;

    // Listed by cause, and filtered.
    let (_, causes) = ask(&migration, &["deadletter", "list"]);
    assert_eq!(causes.as_array().map(Vec::len), Some(1), "{causes}");
    let cause = &causes[0];
    assert_eq!(
        (
            &cause["code"],
            &cause["stage"],
            &cause["object"],
            &cause["count"]
        ),
        (
            &json!("TARGET_REFUSED"),
            &json!("loader"),
            &json!("Lead"),
            &json!(3)
        ),
        "{causes}"
    );
    assert_eq!(cause["sourceCode"], "23514");
    assert_eq!(cause["place"], "lead, constraint no_refused");
    assert_eq!(
        letters(&migration, &["--field", "no_refused", "--since", "1h"]).len(),
        3
    );
    assert!(letters(&migration, &["--code", "TOO_LONG"]).is_empty());
    assert!(letters(&migration, &["--until", "1h"]).is_empty());

    // Shown whole; its values only when they are asked for.
    let raw_key = format!("salesforce/Lead/{}", ids[0]);
    let (_, shown) = ask(&migration, &["deadletter", "show", &raw_key]);
    assert!(!shown.to_string().contains("Secretname"), "{shown}");
    let fields = &shown[0]["body"]["fields"];
    assert_eq!(fields["lastName"], "(text, 20 characters)", "{shown}");
    let (_, bodies) = ask(&migration, &["deadletter", "show", &key(0), "--bodies"]);
    assert_eq!(
        bodies[0]["body"]["fields"]["lastName"],
        "Refused Secretname 0"
    );
    let text = migration.drover_ok(&["deadletter", "show", &raw_key]);
    assert!(text.contains("drover explain TARGET_REFUSED"), "{text}");
    // A path is as long as it is.
    let file = migration.config.to_string_lossy().into_owned();
    let fits = |line: &str| line.contains(&file) || line.chars().count() <= 80;
    assert!(text.lines().all(fits), "{text}");
    // Its origin is where the canonical record lies.
    let origin = &shown[0]["origin"];
    assert_eq!(origin["topic"], bus.name("canonical.lead"));
    let records = bus.read("canonical.lead");
    let lies = records.iter().find(|record| {
        json!(record.partition()) == origin["partition"]
            && json!(record.offset()) == origin["offset"]
    });
    assert_eq!(lies.and_then(|r| r.key()), Some(key(0).as_bytes()));

    // As tools of Kafka Connect read it, and without the record.
    let topic_key = format!("loader/{}", key(0));
    let records = bus.read("deadletter");
    let record = records
        .iter()
        .rfind(|r| r.key() == Some(topic_key.as_bytes()));
    let headers = record.and_then(|r| r.headers()).expect("headers");
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|h| {
            (
                h.key.to_owned(),
                String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned(),
            )
        })
        .collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in [
        "topic",
        "partition",
        "offset",
        "connector.name",
        "task.id",
        "stage",
        "class.name",
        "exception.class.name",
        "exception.message",
    ] {
        assert!(
            names.contains(&format!("__connect.errors.{wanted}").as_str()),
            "{names:?}"
        );
    }
    for wanted in ["code", "class", "stage", "attempt", "first-seen", "origin"] {
        assert!(
            names.contains(&format!("drover.errors.{wanted}").as_str()),
            "{names:?}"
        );
    }
    assert!(
        headers
            .iter()
            .all(|(_, value)| !value.contains("Secretname")),
        "{headers:?}"
    );

    // What would be tried again, and nothing else happens.
    let asked = bus.read("redo.postgres").len();
    let (code, dry) = ask(
        &migration,
        &["deadletter", "retry", "--key", &key(0), "--dry-run"],
    );
    assert_eq!(
        (code, dry["records"].as_array().map(Vec::len)),
        (0, Some(1)),
        "{dry}"
    );
    assert_eq!(bus.read("redo.postgres").len(), asked);
    let refused = migration.drover(&["deadletter", "retry"]);
    assert_eq!(
        refused.status.code(),
        Some(2),
        "a retry of everything by accident"
    );

    // Tried again without a change: the same letter, counted on, and no loop.
    let (code, again) = ask(
        &migration,
        &["deadletter", "retry", "--key", &key(0), "--wait", "30"],
    );
    assert_eq!(code, 3, "{again}");
    assert_eq!(outcomes(&again), [(key(0), "dead".to_owned())]);
    assert_eq!(again["records"][0]["attempt"], 2);
    nothing_asked(&mut migration, "redo.postgres").await;
    let attempts: Vec<Value> = letters(&migration, &[])
        .iter()
        .map(|l| l["attempt"].clone())
        .collect();
    assert_eq!(
        attempts.iter().filter(|a| **a == json!(2)).count(),
        1,
        "{attempts:?}"
    );
    assert_eq!(attempts.len(), 3);

    // Waived: that failure, and no new one of the same record.
    migration.drover_ok(&[
        "deadletter",
        "waive",
        "--key",
        &key(1),
        "--reason",
        "agreed with sales",
        "--actor",
        "ann",
    ]);
    let (_, causes) = ask(&migration, &["deadletter", "list"]);
    let waived = &causes[1]["waived"];
    assert_eq!(
        *waived,
        json!({"actor": "ann", "reason": "agreed with sales"}),
        "{causes}"
    );
    assert_eq!(
        (&causes[0]["count"], &causes[1]["count"]),
        (&json!(2), &json!(1))
    );
    let status = migration.status();
    let objects = status["objects"].as_array().expect("objects");
    let lead = objects
        .iter()
        .find(|o| o["object"] == "Lead")
        .expect("Lead");
    assert_eq!(
        (&lead["dead"], &lead["waived"]),
        (&json!(3), &json!(1)),
        "{lead}"
    );
    edit(
        &migration,
        "Lead",
        &ids[1],
        json!({"LastName": "Refused once more"}),
    )
    .await;
    migration
        .until(LIMIT, "the new failure is not waived", async |migration| {
            let letters = letters(migration, &["--key", &key(1)]);
            (letters[0]["waived"].is_null() && letters[0]["attempt"] == 1).then_some(())
        })
        .await;
    migration.drover_ok(&[
        "deadletter",
        "waive",
        "--key",
        &key(1),
        "--reason",
        "still agreed",
        "--actor",
        "ann",
    ]);
    migration.drover_ok(&["deadletter", "unwaive", "--key", &key(1)]);
    assert!(letters(&migration, &["--key", &key(1)])[0]["waived"].is_null());

    // The first one's old version, as somebody could write it again later.
    let old = bus
        .table("deadletter")
        .remove(&topic_key)
        .expect("the letter");

    // The cause is mended: two who try at once do not double anything.
    sql(
        &migration,
        "alter table SCHEMA.lead drop constraint no_refused",
    )
    .await;
    let twice: Vec<(i32, Value)> = std::thread::scope(|scope| {
        let retry = || {
            ask(
                &migration,
                &[
                    "deadletter",
                    "retry",
                    "--code",
                    "TARGET_REFUSED",
                    "--wait",
                    "30",
                ],
            )
        };
        let both = [scope.spawn(retry), scope.spawn(retry)];
        both.map(|one| one.join().expect("it ends")).into()
    });
    for (code, answer) in &twice {
        let through = outcomes(answer)
            .iter()
            .all(|(_, outcome)| outcome == "in-target");
        assert!(*code == 0 && through, "{answer}");
    }
    assert_eq!(
        outcomes(&twice[0].1).len().max(outcomes(&twice[1].1).len()),
        3
    );
    assert_eq!(
        name(&migration, 0).await.as_deref(),
        Some("Refused Secretname 0")
    );
    assert_eq!(
        name(&migration, 1).await.as_deref(),
        Some("Refused once more")
    );
    assert_eq!(
        name(&migration, 2).await.as_deref(),
        Some("Refused Secretname 2")
    );
    assert!(letters(&migration, &[]).is_empty());
    nothing_asked(&mut migration, "redo.postgres").await;

    // An older version that is tried again never overwrites a newer one.
    edit(&migration, "Lead", &ids[0], json!({"LastName": "Newer"})).await;
    migration
        .until(LIMIT, "the newer version", async |migration| {
            (name(migration, 0).await.as_deref() == Some("Newer")).then_some(())
        })
        .await;
    let letter: drover_pipeline::deadletter::DeadLetter =
        serde_json::from_value(old).expect("a letter");
    let bytes = letter.envelope().expect("its record");
    let mut envelope = drover_pipeline::envelope::Envelope::decode(&bytes).expect("an envelope");
    envelope.order = letter.order;
    bus.produce("redo.postgres", key(0).as_bytes(), Some(&envelope.encode()))
        .await;
    nothing_asked(&mut migration, "redo.postgres").await;
    assert_eq!(name(&migration, 0).await.as_deref(), Some("Newer"));
    migration.until_equal(LIMIT).await;
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_dies_in_a_retry_loses_nothing() {
    let mut migration = Migration::new("redokill", &["--seed", "22", "--records", "100"]);
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    sql(
        &migration,
        "alter table SCHEMA.lead add constraint no_refused check (last_name not like 'Refused%') not valid",
    )
    .await;
    let mut ids = Vec::new();
    for n in 0..4 {
        let fields = json!({"LastName": format!("Refused {n}"), "Company": "Lead Co"});
        ids.push(create(&migration, "Lead", fields).await);
    }
    letters_come(&mut migration, &["--object", "Lead"], 4).await;
    migration.stage("loader-1").terminate();
    migration.stages.remove("loader-1");
    sql(
        &migration,
        "alter table SCHEMA.lead drop constraint no_refused",
    )
    .await;
    // Nobody takes it: never a false success.
    let (code, answer) = ask(&migration, &["deadletter", "retry", "--all", "--wait", "1"]);
    assert_eq!(code, 3, "{answer}");
    assert!(
        outcomes(&answer)
            .iter()
            .all(|(_, outcome)| outcome == "unknown"),
        "{answer}"
    );
    for step in [
        "taken",
        "applied",
        "outcome-produced",
        "offsets-sent",
        "outcome-committed",
    ] {
        migration.start("loader", "loader-1", &[("DROVER_KILL_AT", step)]);
        migration.stage("loader-1").wait_killed(LIMIT);
    }
    migration.start("loader", "loader-1", &[]);
    letters_come(&mut migration, &[], 0).await;
    for (n, id) in ids.iter().enumerate() {
        let name = column(&migration, "lead", id, "last_name").await;
        assert_eq!(name, Some(format!("Refused {n}")));
    }
    nothing_asked(&mut migration, "redo.postgres").await;
    migration.until_equal(LIMIT).await;
    migration.stop_all();
}

/// More bad records than a lane takes stop it; with the mapping mended, as a new
/// generation, the letters are tried again and all of them come through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_a_stopped_lane_go_through_a_mended_mapping() {
    let mut migration = Migration::new("mended", &["--seed", "23", "--records", "120"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    let mut ids = Vec::new();
    for n in 0..55 {
        let fields = json!({"LastName": format!("Bad {n}"), "Company": "C", "Email": format!("nobody{n} at nowhere")});
        ids.push(create(&migration, "Lead", fields).await);
    }
    let stopped = async |migration: &Migration| {
        let status = migration.status();
        let processes = status["processes"].as_array()?.clone();
        processes
            .iter()
            .any(|p| {
                let error = p["lastError"].as_str().unwrap_or_default();
                error.starts_with("TOO_MANY_DEAD_LETTERS")
            })
            .then_some(())
    };
    migration.until(LIMIT, "the lane is stopped", stopped).await;
    let bad = ["--code", "BAD_EMAIL", "--field", "Email"];
    // What came behind the limit was not read any more.
    let number = letters(&migration, &bad).len();
    assert!((51..=55).contains(&number), "{number}");

    // Without a change: all of them fail again, once, and are the same letters.
    let (code, again) = ask(
        &migration,
        &["deadletter", "retry", "--code", "BAD_EMAIL", "--wait", "30"],
    );
    assert_eq!(code, 3);
    let outcomes_of = outcomes(&again);
    assert_eq!(outcomes_of.len(), number);
    assert!(
        outcomes_of.iter().all(|(_, outcome)| outcome == "dead"),
        "{again}"
    );
    let listed = letters(&migration, &bad);
    let quoted = |letter: &Value| letter["message"].to_string().contains("nobody");
    assert!(!listed.iter().any(quoted), "{listed:?}");
    assert!(
        listed.iter().all(|letter| letter["attempt"] == 2),
        "{listed:?}"
    );
    nothing_asked(&mut migration, "redo.transform").await;

    // The next generation of the mapping leaves the address where it is. Stages
    // of the old one would end by themselves.
    migration.stage("transformer-1").terminate();
    migration.stage("loader-1").terminate();
    let mut plan = bus.table("control").remove("plan").expect("the plan");
    plan["generation"] = json!(2);
    let fields = plan["mapping"]["objects"]["Lead"]["slots"]["lead"]["fields"].as_object_mut();
    assert!(fields.expect("fields").remove("email").is_some());
    bus.produce("control", b"plan", Some(plan.to_string().as_bytes()))
        .await;
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    let (code, answer) = ask(
        &migration,
        &["deadletter", "retry", "--code", "BAD_EMAIL", "--wait", "30"],
    );
    assert_eq!(code, 0, "{answer}");
    assert!(
        outcomes(&answer)
            .iter()
            .all(|(_, outcome)| outcome == "transformed"),
        "{answer}"
    );
    assert!(letters(&migration, &bad).is_empty());
    for (n, id) in ids.iter().enumerate() {
        migration
            .until(LIMIT, "it is in the target", async |migration| {
                let name = column(migration, "lead", id, "last_name").await?;
                (name == format!("Bad {n}")).then_some(())
            })
            .await;
    }

    // A retry of a version that has gone through since is dropped: `canonical`
    // is not taken back to it.
    let canonical = |bus: &Bus, id: &str| {
        let key = format!("salesforce/Lead/{id}#lead");
        let records = bus.read("canonical.lead");
        records
            .iter()
            .filter(|r| r.key() == Some(key.as_bytes()))
            .count()
    };
    let before = canonical(&bus, &ids[0]);
    let key = format!("salesforce/Lead/{}", ids[0]);
    let records = bus.read("raw.salesforce.lead");
    let raw = records.iter().find(|r| r.key() == Some(key.as_bytes()));
    let raw = raw
        .and_then(|r| r.payload())
        .expect("the raw record")
        .to_vec();
    bus.produce("redo.transform", key.as_bytes(), Some(&raw))
        .await;
    nothing_asked(&mut migration, "redo.transform").await;
    assert_eq!(canonical(&bus, &ids[0]), before);
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_followed_to_its_root_and_released() {
    let mut migration = Migration::new("waits", &["--seed", "24", "--records", "100"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    sql(
        &migration,
        "alter table SCHEMA.company add constraint no_refused check (name not like 'Refused%') not valid",
    )
    .await;
    // A company that the target refuses, three contacts of it, a case of one.
    let company = create(&migration, "Account", json!({"Name": "Refused Inc"})).await;
    let parent = format!("salesforce/Account/{company}#company");
    let mut contacts = Vec::new();
    for n in 0..3 {
        let fields = json!({"LastName": format!("Waits {n}"), "AccountId": company});
        contacts.push(create(&migration, "Contact", fields).await);
    }
    let key = |n: usize| format!("salesforce/Contact/{}#contact", contacts[n]);
    let fields = json!({"Subject": "Grandchild", "AccountId": company, "ContactId": contacts[0]});
    let case = create(&migration, "Case", fields).await;
    let mut family: Vec<String> = (0..3).map(key).collect();
    family.push(format!("salesforce/Case/{case}#ticket"));
    // Others may wait for a moment too, for a link.
    let waiting = || {
        let parked = bus.table("parked.postgres");
        family
            .iter()
            .filter(|key| parked.contains_key(*key))
            .count()
    };
    migration
        .until(LIMIT, "the family waits", async |_| {
            (waiting() == 4).then_some(())
        })
        .await;
    letters_come(&mut migration, &["--object", "Account"], 1).await;

    let (_, groups) = ask(&migration, &["parked", "list"]);
    let group = groups
        .as_array()
        .expect("groups")
        .iter()
        .find(|g| g["reason"] == "parent");
    let group = group.expect("a group");
    let wanted = group["wanted"].as_array().expect("the wanted");
    let most = wanted
        .iter()
        .find(|w| w["parent"] == parent)
        .expect("our parent");
    assert!(most["count"].as_u64() >= Some(3), "{groups}");
    let counts: Vec<u64> = wanted.iter().filter_map(|w| w["count"].as_u64()).collect();
    assert!(
        counts.is_sorted_by(|a, b| a >= b),
        "the most wanted first: {groups}"
    );

    let (_, chain) = ask(
        &migration,
        &["parked", "why", &format!("salesforce/Case/{case}")],
    );
    let mut link = &chain[0];
    assert_eq!(link["state"], "parked", "{chain}");
    while let Some(next) = link["waitsFor"].get(0) {
        link = next;
    }
    let root = (&link["key"], &link["state"], &link["code"]);
    assert_eq!(
        root,
        (&json!(parent), &json!("dead"), &json!("TARGET_REFUSED")),
        "{chain}"
    );
    let text = migration.drover_ok(&["parked", "why", &key(0)]);
    assert!(text.contains("dead (loader): TARGET_REFUSED: "), "{text}");
    assert_eq!(
        migration
            .drover(&["parked", "why", "salesforce/Account/none"])
            .status
            .code(),
        Some(2)
    );

    // Released while its parent is missing: judged, and it waits again.
    let (code, again) = ask(&migration, &["parked", "release", &key(0), "--wait", "30"]);
    assert_eq!(code, 3, "{again}");
    assert_eq!(outcomes(&again), [(key(0), "parked".to_owned())]);
    assert_eq!(again["records"][0]["reason"]["parent"], parent);
    nothing_asked(&mut migration, "redo.postgres").await;
    assert_eq!(
        column(&migration, "contact", &contacts[0], "last_name").await,
        None
    );

    // Without its link it is in the target, and the link is empty.
    let (code, bare) = ask(
        &migration,
        &[
            "parked",
            "release",
            &key(1),
            "--without-link",
            "--wait",
            "30",
        ],
    );
    assert_eq!(
        (code, outcomes(&bare)),
        (0, vec![(key(1), "in-target".to_owned())]),
        "{bare}"
    );
    let value = async |migration: &Migration, n: usize, name: &str| {
        column(migration, "contact", &contacts[n], name).await
    };
    assert_eq!(
        value(&migration, 1, "last_name").await.as_deref(),
        Some("Waits 1")
    );
    assert_eq!(
        value(&migration, 1, "company_id").await.as_deref(),
        Some("")
    );

    // The parent is mended: the others follow by themselves, with their links.
    sql(
        &migration,
        "alter table SCHEMA.company drop constraint no_refused",
    )
    .await;
    let (code, answer) = ask(
        &migration,
        &["deadletter", "retry", "--key", &parent, "--wait", "30"],
    );
    assert_eq!(
        (code, outcomes(&answer)),
        (0, vec![(parent.clone(), "in-target".to_owned())])
    );
    migration
        .until(LIMIT, "the family is there", async |migration| {
            let subject = column(migration, "ticket", &case, "subject").await?;
            (subject == "Grandchild" && waiting() == 0).then_some(())
        })
        .await;
    let id = column(&migration, "company", &company, "id").await;
    for contact in 0..3 {
        assert_eq!(value(&migration, contact, "company_id").await, id);
    }
    migration.stop_all();

    // A circle, and a parent that nobody has ever seen, by what the topics say.
    let mut parked = Vec::new();
    for (key, parent) in [
        ("salesforce/Case/c1#ticket", "salesforce/Contact/c2#contact"),
        ("salesforce/Contact/c2#contact", "salesforce/Case/c1#ticket"),
        (
            "salesforce/Case/c3#ticket",
            "salesforce/Contact/nobody#contact",
        ),
        ("salesforce/Case/c4#ticket", "salesforce/FeedItem/t#record"),
    ] {
        let value = json!({
            "reason": {"kind": "parent", "parent": parent},
            "entity": "ticket",
            "order": {"version": 1, "mapping": 1, "incarnation": 1, "offset": 1},
            "since": 1,
            "value": "",
        });
        parked.push((key, value));
    }
    for (key, value) in &parked {
        bus.produce(
            "parked.postgres",
            key.as_bytes(),
            Some(value.to_string().as_bytes()),
        )
        .await;
    }
    let root = |key: &str| {
        let (_, chain) = ask(&migration, &["parked", "why", key]);
        let mut link = chain[0].clone();
        while let Some(next) = link["waitsFor"].get(0).cloned() {
            link = next;
        }
        (
            link["state"].clone(),
            link["text"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (state, text) = root("salesforce/Case/c1");
    assert_eq!(state, "circle", "{text}");
    assert!(text.contains("salesforce/Contact/c2#contact"), "{text}");
    let (state, text) = root("salesforce/Case/c3");
    assert_eq!(state, "never-seen", "{text}");
    assert!(text.contains("the source shows no such record"), "{text}");
    let (_, text) = root("salesforce/Case/c4");
    assert!(
        text.contains("FeedItem is not among this migration's objects"),
        "{text}"
    );
}
