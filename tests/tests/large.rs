//! Records of more than the bus takes: they go by the object store, arrive
//! complete, and wait where their bodies are missing. Without a store they are
//! dead letters, as everything that can't go on.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::path::Path;
use std::time::Duration;

use drover_pipeline::envelope::Envelope;
use drover_tests::bucket::Bucket;
use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use nix::sys::signal::Signal;
use rdkafka::message::Message;
use serde_json::{Value, json};

/// How long anything may take; nothing here waits for it to pass.
const LIMIT: Duration = Duration::from_secs(60);
/// Long text areas of one record, and the most that one holds.
const FIELDS: usize = 80;
const LONGEST: usize = 131_072;

/// Of which object the large records are.
#[derive(Clone, Copy)]
struct Large {
    object: &'static str,
    entity: &'static str,
    /// The field of its name.
    name: &'static str,
}

const ACCOUNT: Large = Large {
    object: "Account",
    entity: "company",
    name: "Name",
};
const CONTACT: Large = Large {
    object: "Contact",
    entity: "contact",
    name: "LastName",
};

/// Account and Contact alone, one of them with fields for ten megabytes; every
/// first copy goes by Bulk.
async fn migration(name: &str, large: Large) -> Migration {
    let more = json!({"objects": ["Account", "Contact"]});
    let sandbox = ["--seed", "9", "--records", "60"];
    let migration = Migration::with(name, &sandbox, "postgres", json!({}), more);
    configure(&migration, |document| {
        document["sourceConfig"]["bulkThreshold"] = json!(1);
    });
    let url = format!("{}/_sandbox/describe", migration.sandbox.url);
    let http = reqwest::Client::new();
    for n in 0..FIELDS {
        let field = json!({"name": long(n), "type": "textarea", "length": LONGEST});
        let add = json!({"object": large.object, "add": field});
        let answer = http.post(&url).json(&add).send().await;
        assert!(answer.expect("the sandbox answers").status().is_success());
    }
    migration
}

fn configure(migration: &Migration, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read(&migration.config).expect("the configuration");
    let mut document = serde_json::from_slice(&text).expect("JSON");
    change(&mut document);
    std::fs::write(&migration.config, document.to_string()).expect("written");
}

fn long(n: usize) -> String {
    format!("Long_{n:02}__c")
}

/// Ten megabytes of a record, with all that a CSV has to quote.
fn fields(large: Large, seed: &str) -> Value {
    let mut fields = json!({large.name: format!("Large {seed}")});
    for n in 0..FIELDS {
        let mut text = format!("{seed} {n}: \"ä\", \n");
        let mut line = 0;
        while text.len() < LONGEST - 60 {
            text.push_str(&format!("{line:x} {seed} of a letter; "));
            line += 1;
        }
        fields[long(n)] = json!(text);
    }
    fields
}

/// Length and MD5 of those texts in their order, as PostgreSQL reckons them.
async fn sum(migration: &Migration, fields: &Value) -> (i64, String) {
    let text = |n| fields[long(n)].as_str().expect("a text").to_owned();
    let whole: String = (0..FIELDS).map(text).collect();
    assert!(whole.len() > 10_000_000);
    let client = connect(&migration.services().postgres).await;
    let sql = "select length($1::text)::bigint, md5($1::text)";
    let row = client.query_one(sql, &[&whole]).await.expect("a sum");
    (row.get(0), row.get(1))
}

/// The same of what the target has; `None`: no such row.
async fn loaded(migration: &Migration, large: Large, id: &str) -> Option<(i64, String)> {
    let client = connect(&migration.services().postgres).await;
    let sql = format!(
        "select sum(length(value))::bigint, md5(string_agg(value, '' order by key)) \
         from \"{}\".{}, jsonb_each_text(custom) \
         where drover_id = $1 and key like 'Long\\_%'",
        migration.schema, large.entity
    );
    // Its table is made by the loader.
    let row = client.query_one(&sql, &[&id]).await.ok()?;
    Some((row.get::<_, Option<i64>>(0)?, row.get(1)))
}

async fn until_loaded(migration: &mut Migration, large: Large, id: &str, fields: &Value) {
    let wanted = sum(migration, fields).await;
    migration
        .until(LIMIT, "ten megabytes in the target", async |migration| {
            (loaded(migration, large, id).await? == wanted).then_some(())
        })
        .await;
}

async fn write(migration: &Migration, object: &str, id: Option<&str>, fields: &Value) -> String {
    let edit = match id {
        None => json!({"object": object, "create": fields}),
        Some(id) => json!({"object": object, "id": id, "fields": fields}),
    };
    let done = migration.sandbox.edit(edit).await;
    let id = id.or(done["id"].as_str()).expect("its id");
    id.to_owned()
}

/// The names of the bodies in the store.
fn bodies(store: &Path, migration: &Migration) -> BTreeSet<String> {
    let files = std::fs::read_dir(store.join(&migration.id)).expect("its folder");
    let name = |file: std::io::Result<DirEntry>| file.expect("a file").file_name();
    files
        .map(|file| name(file).to_string_lossy().into_owned())
        .collect()
}

/// The names of the bodies that a topic's records of the key stand for.
fn named(migration: &Migration, topic: &str, key: &str) -> BTreeSet<String> {
    let records = migration.bus().read(topic);
    let its = records.iter().filter(|r| r.key() == Some(key.as_bytes()));
    its.filter_map(|record| {
        let value = record.payload()?;
        assert!(value.len() < 1_000, "{topic} has {} bytes", value.len());
        let envelope = Envelope::decode(value).expect("an envelope");
        Some(envelope.stored?.name())
    })
    .collect()
}

fn letters(migration: &Migration) -> Vec<Value> {
    let text = migration.drover_ok(&["deadletter", "list", "--all", "--format", "json"]);
    serde_json::from_str(&text).expect("JSON")
}

async fn letter_comes(migration: &mut Migration, code: &str) -> Value {
    migration
        .until(LIMIT, code, async |migration| {
            let letters = letters(migration);
            letters.into_iter().find(|letter| letter["code"] == code)
        })
        .await
}

async fn sql(migration: &Migration, statement: &str) {
    let client = connect(&migration.services().postgres).await;
    let statement = statement.replace("SCHEMA", &format!("\"{}\"", migration.schema));
    client.batch_execute(&statement).await.expect(&statement);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_arrive_by_a_folder_and_wait_for_it() {
    let store = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", store.path().display());
    arrive_and_wait(migration("large", ACCOUNT).await, &url, store.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_arrive_by_a_bucket_and_wait_for_it() {
    let root = tempfile::tempdir().expect("a folder");
    let bucket = Bucket::serve(root.path()).await;
    let mut migration = migration("bucket", ACCOUNT).await;
    for (name, value) in bucket.environment() {
        migration.set(name, Some(value));
    }
    arrive_and_wait(migration, &bucket.url(), &bucket.folder()).await;
}

/// `store` is where what the URL names lies on this machine.
async fn arrive_and_wait(mut migration: Migration, url: &str, store: &Path) {
    configure(&migration, |document| {
        document["objectStore"] = json!({"url": url});
    });
    let checked = migration.drover_ok(&["check"]);
    assert!(checked.contains("object store"), "{checked}");

    // By Bulk, and by a loader that is killed when the target has it.
    let first = fields(ACCOUNT, "first");
    let id = write(&migration, "Account", None, &first).await;
    let (raw, key) = (
        format!("salesforce/Account/{id}"),
        format!("salesforce/Account/{id}#company"),
    );
    migration.drover_ok(&["init"]);
    migration.start("loader", "loader-1", &[("DROVER_KILL_AT", "applied:1")]);
    migration.start("extractor", "extractor-1", &[]);
    migration.start("transformer", "transformer-1", &[]);
    migration.stage("loader-1").wait_killed(LIMIT);
    migration.start("loader", "loader-1", &[]);
    until_loaded(&mut migration, ACCOUNT, &id, &first).await;
    let requests = migration.sandbox.stats().await["requests"].to_string();
    assert!(requests.contains("/jobs/query/"), "{requests}");
    // By Bulk and, when the delta sync looks back, by REST: the same bytes. The
    // store may have a file more, which is just being written once again.
    let read = named(&migration, "raw.salesforce.account", &raw);
    let before = named(&migration, "canonical.company", &key);
    assert_eq!((read.len(), before.len()), (1, 1), "{read:?}");
    let kept = bodies(store, &migration);
    assert!(kept.is_superset(&(&read | &before)), "{kept:?}");

    // Edited: by REST. The body goes before the loader has come.
    migration.stages.remove("loader-1").expect("it").terminate();
    let second = fields(ACCOUNT, "second");
    write(&migration, "Account", Some(&id), &second).await;
    let canonical = async |migration: &Migration| {
        let named = named(migration, "canonical.company", &key);
        (named.len() == 2).then_some(())
    };
    let what = "the second version in canonical";
    migration.until(LIMIT, what, canonical).await;
    let after = named(&migration, "canonical.company", &key);
    let body = after.difference(&before).next().expect("another body");
    let body = store.join(&migration.id).join(body);
    let hidden = store.join("hidden");
    std::fs::rename(&body, &hidden).expect("moved away");
    migration.start("loader", "loader-1", &[]);
    let told = migration
        .until(LIMIT, "the lane stops", async |migration| {
            let status = migration.status();
            let processes = status["processes"].as_array()?;
            let mut alive = processes.iter().filter(|p| p["alive"] == true);
            let loader = alive.find(|p| p["stage"] == "loader")?;
            let lane = &loader["lanes"]["company"];
            (lane["phase"] == "blocked").then(|| lane["error"].to_string())
        })
        .await;
    assert!(told.contains("BODY_LOST") && told.contains(&key), "{told}");
    let old = sum(&migration, &first).await;
    assert_eq!(
        loaded(&migration, ACCOUNT, &id).await,
        Some(old),
        "nothing is lost"
    );
    std::fs::rename(&hidden, &body).expect("put back");
    migration.stages.remove("loader-1").expect("it").terminate();
    migration.start("loader", "loader-1", &[]);
    until_loaded(&mut migration, ACCOUNT, &id, &second).await;

    // Refused by the target: its letter tells of the body, and can be tried again.
    sql(
        &migration,
        "alter table SCHEMA.company add constraint no_third \
         check (custom->>'Long_00__c' not like 'third%') not valid",
    )
    .await;
    let third = fields(ACCOUNT, "third");
    write(&migration, "Account", Some(&id), &third).await;
    letter_comes(&mut migration, "TARGET_REFUSED").await;
    for verb in [
        &["deadletter", "show", &key, "--bodies"][..],
        &["record", &raw],
    ] {
        let text = migration.drover_ok(verb);
        assert!(text.contains("bytes in the object store"), "{text}");
        assert!(!text.contains("third 0:"), "{verb:?} shows the body");
    }
    sql(
        &migration,
        "alter table SCHEMA.company drop constraint no_third",
    )
    .await;
    migration.drover_ok(&["deadletter", "retry", "--key", &key]);
    until_loaded(&mut migration, ACCOUNT, &id, &third).await;
    assert!(letters(&migration).iter().all(|l| l["key"] != key.as_str()));
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_wait_for_a_parent_outlive_kills_and_are_mapped_anew() {
    let mut migration = migration("child", CONTACT).await;
    let store = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", store.path().display());
    configure(&migration, |document| {
        document["objectStore"] = json!({"url": url});
    });
    migration.start_all(1);
    migration.until_equal(LIMIT).await;

    // Its parent is refused, so it waits; a loader that comes anew knows of it.
    let refuse = "alter table SCHEMA.company add constraint no_parent \
                  check (name <> 'Refused Inc') not valid";
    sql(&migration, refuse).await;
    let parent = write(&migration, "Account", None, &json!({"Name": "Refused Inc"})).await;
    let mut first = fields(CONTACT, "first");
    first["AccountId"] = json!(parent);
    first["Title"] = json!("Keeper of letters");
    let id = write(&migration, "Contact", None, &first).await;
    let key = format!("salesforce/Contact/{id}#contact");
    migration
        .until(LIMIT, "it waits", async |migration| {
            let parked = migration.bus().table("parked.postgres");
            parked.contains_key(&key).then_some(())
        })
        .await;
    killed(&mut migration, "loader");
    sql(
        &migration,
        "alter table SCHEMA.company drop constraint no_parent",
    )
    .await;
    let parent = format!("salesforce/Account/{parent}#company");
    migration.drover_ok(&["deadletter", "retry", "--key", &parent]);
    until_loaded(&mut migration, CONTACT, &id, &first).await;

    // Killed as soon as the store has a body, before or while Kafka gets the
    // record that names it.
    let mut last = Value::Null;
    for (seed, stage) in [("second", "extractor"), ("third", "transformer")] {
        let before = bodies(store.path(), &migration);
        let stored = async |migration: &Migration, more: usize| {
            let now = bodies(store.path(), migration);
            // A name with a `#` is one that is being written.
            let new = now.difference(&before).filter(|name| !name.contains('#'));
            (new.count() >= more).then_some(())
        };
        let more = if stage == "extractor" { 1 } else { 2 };
        last = fields(CONTACT, seed);
        write(&migration, "Contact", Some(&id), &last).await;
        migration
            .until(LIMIT, "a body in the store", async |migration| {
                stored(migration, more).await
            })
            .await;
        killed(&mut migration, stage);
        until_loaded(&mut migration, CONTACT, &id, &last).await;
    }

    // Mapped anew from Kafka and the store; the source is not asked.
    migration
        .stages
        .remove("extractor-1")
        .expect("it")
        .terminate();
    let asked = migration.sandbox.stats().await["requests"].clone();
    configure(&migration, |document| {
        document["mappings"] = json!({"Contact": {"Title": "bio"}});
    });
    migration.drover_ok(&["remap"]);
    for stage in ["transformer", "loader"] {
        let name = format!("{stage}-1");
        migration.stages.remove(&name).expect("it").wait(LIMIT);
        migration.start(stage, &name, &[]);
    }
    let bio = format!(
        "select bio from \"{}\".contact where drover_id = $1",
        migration.schema
    );
    migration
        .until(LIMIT, "the new mapping's row", async |migration| {
            let client = connect(&migration.services().postgres).await;
            let row = client.query_one(&bio, &[&id]).await.ok()?;
            (row.get::<_, Option<&str>>(0)? == "Keeper of letters").then_some(())
        })
        .await;
    until_loaded(&mut migration, CONTACT, &id, &last).await;
    assert_eq!(migration.sandbox.stats().await["requests"], asked);
    assert!(letters(&migration).is_empty());
    migration.stop_all();
}

/// Kills a stage and starts it again.
fn killed(migration: &mut Migration, stage: &str) {
    let name = format!("{stage}-1");
    let mut process = migration.stages.remove(&name).expect("it runs");
    process.signal(Signal::SIGKILL);
    process.wait_killed(LIMIT);
    migration.start(stage, &name, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_ten_megabytes_are_a_dead_letter_until_there_is_one() {
    let mut migration = migration("nostore", ACCOUNT).await;
    let first = fields(ACCOUNT, "first");
    let id = write(&migration, "Account", None, &first).await;
    migration.start_all(1);
    let letter = letter_comes(&mut migration, "TOO_LARGE").await;
    assert_eq!(
        letter["key"],
        format!("salesforce/Account/{id}"),
        "{letter}"
    );
    assert_eq!(letter["stage"], "extractor", "{letter}");
    migration
        .until(LIMIT, "the others arrive", async |migration| {
            (migration.loaded() > 20).then_some(())
        })
        .await;
    assert_eq!(loaded(&migration, ACCOUNT, &id).await, None);

    migration.stop_all();
    let store = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", store.path().display());
    configure(&migration, |document| {
        document["objectStore"] = json!({"url": url});
    });
    migration.start("extractor", "extractor-1", &[]);
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    let second = fields(ACCOUNT, "second");
    write(&migration, "Account", Some(&id), &second).await;
    until_loaded(&mut migration, ACCOUNT, &id, &second).await;
    let left = letters(&migration);
    assert!(left.iter().all(|l| l["code"] != "TOO_LARGE"), "{left:?}");
    migration.stop_all();
}
