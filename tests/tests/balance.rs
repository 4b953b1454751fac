//! The balance on real parts: it holds at the end of a migration and while one
//! moves, and with any one record taken out of any topic it names the key.

use std::time::{Duration, Instant};

use base64::Engine;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::topics::partition_of;
use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use rdkafka::message::Message;
use serde_json::{Value, json};

/// `drover balance --format json` and its exit code.
fn balance(migration: &Migration) -> (Option<i32>, Value) {
    let output = migration.drover(&["balance", "--format", "json"]);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), document)
}

/// The red keys with their faults.
fn red(document: &Value) -> Vec<(String, String)> {
    let text = |red: &Value, name: &str| red[name].as_str().unwrap_or_default().to_owned();
    document["red"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|red| (text(red, "key"), text(red, "fault")))
        .collect()
}

fn sum(document: &Value, column: &str) -> u64 {
    let rows = document["rows"].as_array().expect("rows");
    rows.iter().filter_map(|row| row[column].as_u64()).sum()
}

/// The newest value of each key of a topic of envelopes.
fn live(bus: &Bus, topic: &str) -> Vec<(String, Vec<u8>)> {
    let mut table = std::collections::BTreeMap::new();
    for record in bus.read(topic) {
        let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
        if !key.starts_with("__drover/") {
            table.insert(key, record.payload().map(<[u8]>::to_vec));
        }
    }
    let live = table.into_iter();
    live.filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// Takes records out and puts them back, each time with a balance.
struct Thief {
    migration: Migration,
    bus: Bus,
}

impl Thief {
    /// Takes a key out of a topic: the balance must be red with exactly that key.
    async fn takes(&self, topic: &str, key: &str, partition: i32, named: &[&str], fault: &str) {
        let before = self
            .bus
            .read(topic)
            .into_iter()
            .filter(|record| record.key() == Some(key.as_bytes()))
            .filter_map(|record| record.payload().map(<[u8]>::to_vec))
            .next_back()
            .unwrap_or_else(|| panic!("{topic} has no {key}"));
        self.bus.tombstone(topic, partition, key.as_bytes()).await;
        let (code, document) = balance(&self.migration);
        let expected: Vec<(String, String)> = named
            .iter()
            .map(|key| ((*key).to_owned(), fault.to_owned()))
            .collect();
        assert_eq!(
            red(&document),
            expected,
            "{topic} without {key}: {document}"
        );
        assert_eq!((code, &document["balanced"]), (Some(3), &json!(false)));
        let status = self.migration.status();
        assert_eq!(status["balanced"], false, "{status}");
        assert_eq!(status["balancedAt"], document["at"], "{status}");
        self.bus
            .produce_into(topic, partition, key.as_bytes(), &before)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_taken_out_of_any_topic_is_named() {
    let mut migration = Migration::new("balance", &["--seed", "31", "--records", "300"]);
    let bus = Bus::new(&migration.services().brokers, &migration.id);
    migration.start_all(1);
    migration.until_equal(Duration::from_secs(90)).await;
    let (orphan, unmapped, refused) = spoil(&mut migration, &bus).await;
    migration.stop_all();
    let thief = Thief { migration, bus };
    let (migration, bus) = (&thief.migration, &thief.bus);

    // It balances, and the counts are those of the topics themselves.
    assert_eq!(migration.status()["balanced"], json!(null));
    let (code, document) = balance(migration);
    assert_eq!(migration.status()["balanced"], true);
    println!("{}", migration.drover_ok(&["balance"]));
    assert_eq!((code, &document["balanced"]), (Some(0), &json!(true)));
    assert_eq!(red(&document), []);
    let entries = bus.table("idempotency.postgres");
    let applied = entries
        .values()
        .filter(|entry| entry["state"] == "applied")
        .count() as u64;
    // Of two of them the target has an older version: the newest is dead.
    assert_eq!(sum(&document, "applied"), applied - 2);
    assert_eq!((sum(&document, "dead"), sum(&document, "parked")), (2, 1));
    let places = ["applied", "parked", "dead", "inFlight", "red"];
    let absent: u64 = document["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .flat_map(|row| row["absent"].as_object().expect("reasons").values())
        .filter_map(Value::as_u64)
        .sum();
    let all: u64 = places.iter().map(|place| sum(&document, place)).sum();
    assert_eq!(sum(&document, "live"), all + absent);

    lives(migration, &orphan, &unmapped, &refused);
    inventory(migration, &document);

    // An applied Contact, out of each topic that carries it.
    let (key, _) = entries
        .iter()
        .find(|(key, entry)| {
            let spoiled = key.starts_with(&unmapped);
            key.contains("/Contact/") && entry["state"] == "applied" && !spoiled
        })
        .expect("an applied contact");
    let raw = key.split('#').next().expect("its raw key").to_owned();
    let partition = |key: &str| partition_of(key.as_bytes(), 3);
    thief
        .takes(
            "idempotency.postgres",
            key,
            partition(key),
            &[key],
            "not-applied",
        )
        .await;
    thief
        .takes(
            "canonical.contact",
            key,
            partition(key),
            &[key],
            "not-transformed",
        )
        .await;
    thief
        .takes(
            "raw.salesforce.contact",
            &raw,
            partition(&raw),
            &[key],
            "no-raw",
        )
        .await;

    // What is parked for a parent, and what is dead: for the mapper, and for
    // the target, which keeps its older version.
    thief
        .takes(
            "parked.postgres",
            &orphan,
            partition(&orphan),
            &[&orphan],
            "not-applied",
        )
        .await;
    let letter = format!("transformer/{unmapped}");
    let slots = named_slots(&document, &unmapped);
    let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
    thief
        .takes(
            "deadletter",
            &letter,
            partition(&unmapped),
            &slots,
            "not-transformed",
        )
        .await;
    let letter = format!("loader/{refused}");
    thief
        .takes(
            "deadletter",
            &letter,
            partition(&refused),
            &[&refused],
            "not-applied",
        )
        .await;

    // Everything is back in its place.
    let (code, document) = balance(migration);
    assert_eq!((code, red(&document)), (Some(0), vec![]), "{document}");

    // Two of everything: an entry of nobody's, a canonical record of nobody's,
    // and a record that is parked although it is applied.
    let entry = entries[key].to_string();
    let ghost = "salesforce/Contact/003GHOST#contact";
    bus.produce(
        "idempotency.postgres",
        ghost.as_bytes(),
        Some(entry.as_bytes()),
    )
    .await;
    let (key, _) = entries
        .iter()
        .find(|(other, entry)| {
            let touched = *other == key || other.starts_with(&unmapped);
            other.contains("/Contact/") && entry["state"] == "applied" && !touched
        })
        .expect("another applied contact");
    let (_, value) = live(bus, "canonical.contact")
        .into_iter()
        .find(|(other, _)| other == key)
        .expect("its canonical record");
    let spectre = "salesforce/Contact/003SPECTRE#contact";
    bus.produce("canonical.contact", spectre.as_bytes(), Some(&value))
        .await;
    let version = Envelope::decode(&value).expect("an envelope").version;
    let mut order = entries[key]["order"].clone();
    order["version"] = json!(version);
    let value = base64::engine::general_purpose::STANDARD.encode(&value);
    let parked = json!({
        "reason": {"kind": "lease"}, "entity": "contact", "order": order,
        "since": 1, "value": value,
    });
    bus.produce(
        "parked.postgres",
        key.as_bytes(),
        Some(parked.to_string().as_bytes()),
    )
    .await;
    let (code, document) = balance(migration);
    let mut expected = vec![
        (ghost.to_owned(), "no-raw".to_owned()),
        (spectre.to_owned(), "no-raw".to_owned()),
        (key.clone(), "parked-left".to_owned()),
    ];
    expected.sort();
    assert_eq!((code, red(&document)), (Some(3), expected), "{document}");
    let output = migration.drover(&["balance"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for named in [ghost, spectre, key] {
        assert!(said.contains(named), "{said}");
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("UNBALANCED: 3 records"), "{told}");

    // A run that does not balance is not green.
    let output = migration.drover(&["run", "--until", "synced"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("UNBALANCED: "), "{told}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.starts_with("incomplete\nOBJECT"), "{shown}");
}

/// Makes a Contact wait for a parent that never comes, one that can't be mapped,
/// and a Case that the target refuses; returns their keys.
async fn spoil(migration: &mut Migration, bus: &Bus) -> (String, String, String) {
    let source = &migration.sandbox;
    let parent = "001000000000nowAAA";
    let created = source
        .edit(json!({"object": "Contact", "create": {"LastName": "Orphan", "AccountId": parent}}))
        .await;
    let entries = bus.table("idempotency.postgres");
    let applied = |object: &str| {
        let of = format!("/{object}/");
        let found = entries
            .iter()
            .find(|(key, entry)| key.contains(&of) && entry["state"] == "applied");
        found.expect("one that is applied").0.clone()
    };
    let id = |key: &str| {
        let raw = key.split('#').next().unwrap_or_default();
        raw.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let (contact, case) = (applied("Contact"), applied("Case"));
    for (object, key, fields) in [
        ("Contact", &contact, json!({"Email": "nobody at nowhere"})),
        ("Case", &case, json!({"Subject": "before\u{0}after"})),
    ] {
        let edit = json!({"object": object, "id": id(key), "fields": fields});
        source.edit(edit).await;
    }
    let orphan = created["id"].as_str().expect("its id");
    let orphan = format!("salesforce/Contact/{orphan}#contact");
    let unmapped = format!("salesforce/Contact/{}", id(&contact));
    let letters = [format!("transformer/{unmapped}"), format!("loader/{case}")];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let dead = bus.table("deadletter");
        let parked = bus.table("parked.postgres");
        if letters.iter().all(|key| dead.contains_key(key)) && parked.contains_key(&orphan) {
            return (orphan, unmapped, case);
        }
        migration.assert_alive();
        assert!(Instant::now() < deadline, "{}", migration.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `drover record` shows the whole of a record's life, and no value of it unless
/// asked for.
fn lives(migration: &Migration, orphan: &str, unmapped: &str, refused: &str) {
    let life = |arguments: &[&str]| -> Value {
        let arguments = [&["record", "--format", "json"], arguments].concat();
        serde_json::from_str(&migration.drover_ok(&arguments)).expect("JSON")
    };
    // Refused by the target: both versions, the older one's entry and row.
    let found = life(&[refused, "--bodies"]);
    let slot = &found["slots"][0];
    assert_eq!(
        (&slot["key"], &slot["place"]),
        (&json!(refused), &json!("dead"))
    );
    let versions = |list: &Value| -> Vec<i64> {
        let list = list.as_array().expect("versions");
        list.iter().filter_map(|v| v["version"].as_i64()).collect()
    };
    let (raw, canonical) = (versions(&found["raw"]), versions(&slot["canonical"]));
    assert_eq!((raw.len(), &raw), (2, &canonical), "{found}");
    assert_eq!(slot["entry"]["order"]["version"], raw[0]);
    assert_eq!(slot["letter"]["code"], "TARGET_REFUSED", "{slot}");
    assert_eq!(slot["letter"]["version"], raw[1]);
    assert_eq!(slot["target"]["id"], slot["entry"]["targetId"], "{slot}");
    assert_eq!(slot["target"]["order"]["version"], raw[0], "{slot}");
    let before = slot["canonical"][0]["body"]["subject"]
        .as_str()
        .expect("a subject");
    assert_eq!(slot["target"]["row"]["subject"], before, "{slot}");
    let differences = slot["differences"].to_string();
    assert!(differences.contains("subject: "), "{differences}");
    assert!(
        differences.contains("the entry knows version"),
        "{differences}"
    );

    // Masked, nothing of the record is shown, in neither form.
    for arguments in [
        &["record", refused][..],
        &["record", refused, "--format", "json"],
    ] {
        let text = migration.drover_ok(arguments);
        assert!(!text.contains(before), "{text}");
        assert!(text.contains("subject"), "{text}");
        if !arguments.contains(&"json") {
            println!("{text}");
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
        }
    }
    // By a bare id, and by a part of the key; what can't be mapped, what waits.
    let id = unmapped.rsplit('/').next().expect("an id");
    for text in [id, &format!("Contact/{id}"), unmapped] {
        let found = life(&[text]);
        assert_eq!(found["key"], unmapped, "{text}");
        assert_eq!(found["letters"][0]["code"], "BAD_EMAIL", "{found}");
        assert_eq!(found["slots"][0]["place"], "dead", "{found}");
    }
    let slot = &life(&[orphan])["slots"][0];
    assert_eq!(slot["place"], "parked", "{slot}");
    assert_eq!(slot["parked"]["reason"]["kind"], "parent", "{slot}");
    assert_eq!(slot["target"]["id"], Value::Null, "{slot}");
    let output = migration.drover(&["record", "Contact/nobody"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("no topic knows a record `Contact/nobody`"),
        "{told}"
    );
}

/// `drover topics` counts what the balance counts.
fn inventory(migration: &Migration, balance: &Value) {
    let text = migration.drover_ok(&["topics", "--live", "--format", "json"]);
    let topics: Value = serde_json::from_str(&text).expect("JSON");
    let topics = topics.as_array().expect("a list");
    let named = |end: &str| {
        let topic = topics.iter().find(|topic| {
            let name = topic["topic"].as_str().unwrap_or_default();
            name.ends_with(end)
        });
        topic.unwrap_or_else(|| panic!("no {end}: {text}"))
    };
    let contacts = balance["rows"].as_array().expect("rows").iter();
    let contacts = contacts.clone().find(|row| row["object"] == "Contact");
    let raw = named("raw.salesforce.contact");
    assert_eq!(raw["live"], contacts.expect("a row")["live"]);
    assert!(raw["offsets"].as_u64() > raw["live"].as_u64(), "{raw}");
    assert!(raw["oldest"].as_i64() < raw["newest"].as_i64(), "{raw}");
    assert_eq!(named(".deadletter")["live"], 2);
    for topic in topics {
        assert!(topic["writer"] != "" && topic["readers"] != "", "{topic}");
    }
    let text = migration.drover_ok(&["topics"]);
    println!("{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

/// The canonical keys of a raw key: one for each slot that the balance shows.
fn named_slots(document: &Value, raw: &str) -> Vec<String> {
    let object = raw.split('/').nth(1).expect("an object");
    let rows = document["rows"].as_array().expect("rows");
    rows.iter()
        .filter(|row| row["object"] == object)
        .map(|row| format!("{raw}#{}", row["slot"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_pipeline_gives_no_false_fault() {
    let sandbox = ["--seed", "32", "--records", "1500", "--live-changes", "60"];
    let mut migration = Migration::new("moving", &sandbox);
    migration.start_all(2);
    let (mut moving, mut looks) = (0, 0);
    let mut applied = 0;
    while applied < 1400 || looks < 8 {
        let (code, document) = balance(&migration);
        migration.assert_alive();
        assert_eq!((code, red(&document)), (Some(0), vec![]), "{document}");
        moving += sum(&document, "inFlight");
        looks += 1;
        applied = sum(&document, "applied");
    }
    println!("{looks} balances, {moving} records in flight");
    assert!(moving > 0, "nothing moved while it was balanced");
    migration.sandbox.freeze().await;
    migration.until_equal(Duration::from_secs(90)).await;
    migration.stop_all();
    let (code, document) = balance(&migration);
    assert_eq!((code, red(&document)), (Some(0), vec![]), "{document}");
}
