//! Bad input of every kind, on real parts: each gets a clear error with its
//! code and place, and nothing is lost by it.

use std::process::Output;
use std::time::Duration;

use drover_pipeline::envelope::{Envelope, JSON};
use drover_pipeline::record::{Fingerprint, Op, Phase};
use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use drover_tests::sandbox::Sandbox;
use drover_tests::services::{own, script};
use serde_json::{Value, json};

/// How long anything may take; nothing here waits for it to pass.
const LIMIT: Duration = Duration::from_secs(120);

/// Objects enough to see a lane beside another, and few enough that a broker of
/// half a gigabyte comes back quickly.
const FEW: [&str; 6] = [
    "Account",
    "Contact",
    "Lead",
    "Opportunity",
    "Case",
    "Invoice__c",
];

/// Its exit code and what it said of errors.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// Starts a stage and waits for its end; returns its exit code and last words.
fn run_to_end(
    migration: &mut Migration,
    stage: &str,
    environment: &[(&str, &str)],
) -> (Option<i32>, String) {
    let instance = format!("{stage}-to-its-end");
    migration.start(stage, &instance, environment);
    let mut process = migration.stages.remove(&instance).expect("it was started");
    let code = process.wait(LIMIT).code();
    (code, process.log_tail())
}

/// What `drover status` says of the process of that stage.
fn process(migration: &Migration, stage: &str) -> Value {
    let status = migration.status();
    let processes = status["processes"].as_array().expect("processes");
    processes
        .iter()
        .find(|p| p["name"].as_str().is_some_and(|n| n.contains(stage)) && p["alive"] == true)
        .cloned()
        .unwrap_or_default()
}

/// The live dead letters by cause: stage, object, code, place and count.
fn dead_letters(migration: &Migration) -> Vec<(String, String, String, String, u64)> {
    let text = migration.drover_ok(&["deadletter", "list", "--format", "json"]);
    let causes: Value = serde_json::from_str(&text).expect("JSON");
    let mut letters: Vec<_> = causes
        .as_array()
        .expect("a list")
        .iter()
        .map(|cause| {
            let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
            (
                text("stage"),
                text("object"),
                text("code"),
                text("place"),
                cause["count"].as_u64().unwrap_or_default(),
            )
        })
        .collect();
    letters.sort();
    letters
}

/// One column of a row of the target, as text; `None` when there is no such row.
async fn column(migration: &Migration, table: &str, id: &str, column: &str) -> Option<String> {
    let client = connect(&migration.services().postgres).await;
    let sql = format!(
        "select coalesce(\"{column}\"::text, '') from \"{}\".\"{table}\" where drover_id = $1",
        migration.schema
    );
    match client.query_opt(&sql, &[&id]).await {
        Ok(row) => row.map(|row| row.get(0)),
        // The loader has not made the table yet.
        Err(error) if error.code().is_some_and(|code| code.code() == "42P01") => None,
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_refused_at_its_place() {
    let mut migration = Migration::new("config", &["--seed", "3", "--records", "20"]);
    let file = migration.dir.join("m.yaml");
    let client = &Sandbox::credentials("salesforce")["client_id"];
    let good = format!(
        "id: {}\ntenantId: t\nsourceType: salesforce\nsourceConfig:\n  instanceUrl: {}\n  \
         clientId: {}\ntargetType: postgres\ntargetConfig:\n  schema: {}\nmappings:\n  \
         Phone: phoneNumber\n  Contact:\n    Fax: mobileNumber\nkafka:\n  partitions: 3\n",
        migration.id,
        migration.sandbox.url,
        client.as_str().expect("an id"),
        migration.schema,
    );
    migration.config = file.clone();
    let refused = |migration: &Migration, text: &str, path: &str, what: &str, line: u32| {
        std::fs::write(&file, text).expect("the file is written");
        let (code, said) = said(&migration.drover(&["init"]));
        assert_eq!(code, Some(2), "{said}");
        let place = format!("{} ({}:{line});", what, file.display());
        let expected = format!("CONFIG_INVALID: {path}{}", place);
        assert!(said.contains(&expected), "not {expected:?} but {said}");
        said
    };
    for (from, to, path, what, line, advice) in [
        (
            "sourceType: salesforce",
            "sourceType: salesforc",
            "sourceType: ",
            "no extractor `salesforc` is installed",
            3,
            "write `salesforce`",
        ),
        (
            "Phone: phoneNumber",
            "Phone: phoneNumbr",
            "mappings.Phone: ",
            "no entity of this migration has a field `phoneNumbr`",
            11,
            "did you mean `phoneNumber`?",
        ),
        (
            "Phone: phoneNumber",
            "Phon: phoneNumber",
            "mappings.Phon: ",
            "no object of this migration shows a field `Phon`",
            11,
            "did you mean `Phone`?",
        ),
        (
            "Fax: mobileNumber",
            "Fax: phoneNumber",
            "mappings.Phone: ",
            "`mappings.Contact.Fax` and `mappings.Phone` both fill `phoneNumber`",
            11,
            "keep one of them",
        ),
        (
            "  instanceUrl:",
            "  instanceURL:",
            "sourceConfig.instanceURL: ",
            "is no known field",
            5,
            "write `instanceUrl`",
        ),
        (
            "clientId:",
            "clientSecret: ${NOT_THERE}\n  clientId:",
            "sourceConfig.clientSecret: ",
            "the environment variable NOT_THERE is not set",
            6,
            "set NOT_THERE",
        ),
        (
            "tenantId: t",
            "tenantId: [t",
            "",
            "bad YAML in column 11: illegal placement of ':' indicator",
            3,
            "mend the syntax",
        ),
        (
            "  schema:",
            "  schema: x\n  schema:",
            "targetConfig.schema: ",
            "stands twice, in line 9 and line 10",
            10,
            "keep one of them",
        ),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let told = refused(&migration, &text, path, what, line);
        assert!(told.contains(advice), "{told}");
        assert_eq!(told.lines().count(), 1 + usize::from(line == 5), "{told}");
    }
    // Several at once, in the order of the lines.
    let text = good
        .replace("tenantId: t", "tenant: t")
        .replace("partitions: 3", "partitions: three");
    let told = refused(
        &migration,
        &text,
        "kafka.partitions: ",
        "must be a whole number, not a text",
        15,
    );
    assert_eq!(told.lines().count(), 3, "{told}");

    // A stage that is started by hand says the same.
    std::fs::write(&file, good.replace("clientId:", "clientID:")).expect("the file is written");
    let (code, told) = run_to_end(&mut migration, "extractor", &[]);
    let expected = format!(
        "CONFIG_INVALID: sourceConfig.clientID: is no known field ({}:6); write `clientId`",
        file.display()
    );
    assert_eq!((code, told.contains(&expected)), (Some(2), true), "{told}");
    std::fs::write(
        &file,
        good.replace("sourceType: salesforce", "sourceType: x"),
    )
    .expect("the file is written");
    let (code, told) = run_to_end(&mut migration, "extractor", &[]);
    let expected = format!(
        "CONFIG_INVALID: sourceType: this migration is for `x`, this process is `salesforce` ({}:3);",
        file.display()
    );
    assert_eq!((code, told.contains(&expected)), (Some(2), true), "{told}");

    // Nothing of all this has reached the bus: the good file is the first.
    std::fs::write(&file, &good).expect("the file is written");
    for stage in ["extractor", "transformer", "loader"] {
        let (code, told) = run_to_end(&mut migration, stage, &[]);
        let expected = format!(
            "NOT_INITIALISED: the migration was not initialised: the topic drover.{}.control is not \
             there; run `drover init -c FILE`",
            migration.id
        );
        assert_eq!((code, told.contains(&expected)), (Some(3), true), "{told}");
    }
    migration.set("DROVER_SALESFORCE_CLIENT_SECRET", None);
    let (code, told) = said(&migration.drover(&["check"]));
    let expected = format!(
        "CONFIG_INVALID: sourceConfig.clientSecret: is missing ({}:4); add it, or set \
         DROVER_SALESFORCE_CLIENT_SECRET\n",
        file.display()
    );
    assert_eq!((code, told), (Some(2), expected));

    // In a dry run no loader runs, by hand neither; nor is its secret asked for.
    migration.set("DROVER_POSTGRES_URL", None);
    std::fs::write(&file, good.replace("kafka:", "dryRun: true\nkafka:"))
        .expect("the file is written");
    let (code, told) = run_to_end(&mut migration, "loader", &[]);
    assert_eq!(code, Some(2), "{told}");
    let expected = format!(
        "DRY_RUN: migration {} is a dry run: no loader runs; set dryRun to false",
        migration.id
    );
    assert!(told.contains(&expected), "{told}");

    migration.config = migration.dir.join("nowhere.json");
    let (code, told) = said(&migration.drover(&["check"]));
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.starts_with("CONFIG_INVALID: can't be read: no such file or directory ("),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_secrets_and_lost_tables_stop_what_they_must() {
    let mut migration = Migration::new("stop", &["--seed", "5", "--records", "200"]);
    let bus = migration.bus();
    let secret = "DROVER_SALESFORCE_CLIENT_SECRET";
    let good = Sandbox::credentials("salesforce")["client_secret"].clone();
    migration.drover_ok(&["init"]);

    // A wrong secret: `check` says so, and the extractor, whose lanes are all
    // blocked by it, ends without a record skipped or a position taken.
    migration.set(secret, Some("not-the-secret"));
    let (code, told) = said(&migration.drover(&["check"]));
    assert_eq!(code, Some(3), "{told}");
    assert!(
        told.contains("UNAUTHORIZED: Salesforce gives no token: "),
        "{told}"
    );
    assert!(told.contains("renew the credentials"), "{told}");
    assert!(!told.contains("not-the-secret"), "{told}");
    let (code, told) = run_to_end(&mut migration, "extractor", &[]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("UNAUTHORIZED: "), "{told}");
    assert_eq!(bus.table("checkpoint").len(), 0);
    // With the right one it begins as if nothing had been.
    migration.set(secret, good.as_str());
    migration.start("extractor", "extractor-1", &[]);
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    let equal = migration.until_equal(LIMIT).await;

    // The idempotency table: missing, made anew, or shorter than it was when the
    // offsets were committed. Without it everything would be created again, so no
    // loader starts. The offsets are at the end, so that a loader that did
    // start would have nothing to write.
    migration.stop_all();
    let refused = |migration: &mut Migration, code: &str| {
        let (exit, told) = run_to_end(migration, "loader", &[]);
        assert_eq!(exit, Some(3), "{code}: {told}");
        let place = format!("{code}: ");
        assert!(told.contains(&place), "{code}: {told}");
        assert!(told.contains(&bus.name("idempotency.postgres")), "{told}");
    };
    bus.delete("idempotency.postgres").await;
    refused(&mut migration, "TOPIC_MISSING");
    let (code, told) = said(&migration.drover(&["init"]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.starts_with("IDEMPOTENCY_LOST: "), "{told}");
    bus.make("idempotency.postgres", 3, "compact").await;
    refused(&mut migration, "TOPIC_RECREATED");
    for partition in 0..3 {
        let stamp = br#"{"incarnation":1}"#;
        bus.produce_into(
            "idempotency.postgres",
            partition,
            b"__drover/incarnation",
            stamp,
        )
        .await;
    }
    refused(&mut migration, "IDEMPOTENCY_LOST");
    // A raw topic that was made anew is noticed by its reader as well.
    bus.delete("raw.salesforce.lead").await;
    let (code, told) = run_to_end(&mut migration, "transformer", &[]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("TOPIC_MISSING: "), "{told}");
    bus.make("raw.salesforce.lead", 3, "compact").await;
    // It stops that lane, and the writer of the topic does not begin.
    migration.start("transformer", "transformer-1", &[]);
    blocked(&mut migration, "transformer", "TOPIC_RECREATED", "lead").await;
    migration.stop_all();
    let (code, told) = run_to_end(&mut migration, "extractor", &[]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("TOPIC_RECREATED: "), "{told}");
    let after = migration.until_equal(LIMIT).await;
    assert_eq!(equal.compared, after.compared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_source_lose_nothing() {
    let mut migration = Migration::with(
        "faults",
        &["--seed", "9", "--records", "800", "--live-changes", "10"],
        "postgres",
        json!({}),
        json!({"objects": FEW}),
    );
    let kinds = [
        "rate_limit",
        "server_error",
        "cut_before",
        "cut_after",
        "expired_token",
        "html_page",
        "not_json",
        "truncated",
    ];
    // Each of them in the copy, from a request on that the others leave alone,
    // and again and again while it is kept in step.
    let mut faults: Vec<Value> = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        faults.push(json!({"kind": kind, "path": "/services/data", "at": n + 2, "times": 1, "retry_after_s": 1}));
        faults.push(json!({"kind": kind, "path": "/services/data", "share": 0.04, "times": 4, "at": 20, "retry_after_s": 1}));
    }
    // The token endpoint is no exception.
    for kind in ["server_error", "html_page", "cut_after", "not_json"] {
        faults.push(json!({"kind": kind, "path": "/services/oauth2", "times": 1}));
    }
    migration.drover_ok(&["init"]);
    migration.sandbox.fault(json!(faults)).await;
    migration.start("extractor", "extractor-1", &[]);
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    migration
        .until(LIMIT, "every fault has fired", async |migration| {
            let faults = migration.sandbox.faults().await;
            let faults = faults.as_array()?;
            faults
                .iter()
                .all(|fault| fault["fired"] == fault["times"])
                .then_some(())
        })
        .await;
    // The day's calls are used up: it waits, and says so, until there are more.
    migration.sandbox.quota(1000, 1000).await;
    migration
        .until(LIMIT, "the quota is used up", async |migration| {
            let extractor = process(migration, "extractor");
            let error = extractor["lastError"].as_str()?;
            (extractor["phase"] == "throttled" && error.starts_with("QUOTA_EXHAUSTED: "))
                .then_some(())
        })
        .await;
    migration.sandbox.quota(0, 1_000_000_000).await;
    // It looks again after a quarter of an hour (`quota::WAIT`, tested there with a
    // clock of its own); a new process looks at once.
    migration.stage("extractor-1").terminate();
    migration.start("extractor", "extractor-1", &[]);
    migration.sandbox.freeze().await;
    let equal = migration.until_equal(LIMIT).await;
    println!("{} records compared", equal.compared);
    // None but those whose parent people have deleted.
    migration.orphans();
    migration
        .until(LIMIT, "all is well again", async |migration| {
            (process(migration, "extractor")["phase"] == "running").then_some(())
        })
        .await;
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_harm_only_themselves() {
    let mut migration = Migration::new("records", &["--seed", "13", "--records", "300"]);
    let bus = migration.bus();
    migration.start_all(1);
    let before = migration.until_equal(LIMIT).await;
    let parked: Vec<String> = bus.table("parked.postgres").into_keys().collect();
    let source = &migration.sandbox;
    let contacts = live(&migration, "Contact").await;
    let accounts = live(&migration, "Account").await;
    let deals = live(&migration, "Opportunity").await;
    let cases = live(&migration, "Case").await;
    let nowhere = "001000000000nowAAA";
    // Object, record, bad fields, good fields again, and its dead letter.
    let long = "x".repeat(300);
    let nul = "before\u{0}after";
    type Bad<'b> = (
        &'b str,
        &'b str,
        Value,
        Value,
        Option<(&'b str, &'b str, &'b str)>,
    );
    let bad: Vec<Bad<'_>> = vec![
        (
            "Contact",
            &contacts[0],
            json!({"Email": "nobody at nowhere"}),
            json!({"Email": "nobody@example.com"}),
            Some(("transformer", "BAD_EMAIL", "Contact.Email -> contact.email")),
        ),
        (
            "Contact",
            &contacts[1],
            json!({"LastName": long}),
            json!({"LastName": "Short"}),
            Some((
                "transformer",
                "TOO_LONG",
                "Contact.LastName -> contact.lastName",
            )),
        ),
        (
            "Account",
            &accounts[0],
            json!({"NumberOfEmployees": "many"}),
            json!({"NumberOfEmployees": 7}),
            Some((
                "transformer",
                "WRONG_TYPE",
                "Account.NumberOfEmployees -> company.employees",
            )),
        ),
        (
            "Account",
            &accounts[1],
            json!({"Name": null}),
            json!({"Name": "Named again"}),
            Some((
                "transformer",
                "REQUIRED_MISSING",
                "Account.Name -> company.name",
            )),
        ),
        (
            "Opportunity",
            &deals[0],
            json!({"AccountId": "no id at all"}),
            json!({"AccountId": accounts[2]}),
            Some((
                "transformer",
                "BAD_REFERENCE",
                "Opportunity.AccountId -> deal.companyId",
            )),
        ),
        (
            "Opportunity",
            &deals[1],
            json!({"CloseDate": "31.12.2026"}),
            json!({"CloseDate": "2026-12-31"}),
            Some((
                "transformer",
                "WRONG_TYPE",
                "Opportunity.CloseDate -> deal.closeDate",
            )),
        ),
        // A text that PostgreSQL can't hold: its own error.
        (
            "Case",
            &cases[0],
            json!({"Subject": nul}),
            json!({"Subject": "before after"}),
            Some(("loader", "TARGET_REFUSED", "ticket")),
        ),
        // Points to nowhere: waits, and says for what.
        (
            "Opportunity",
            &deals[2],
            json!({"AccountId": nowhere, "Name": "Waits"}),
            json!({"AccountId": accounts[2], "Name": "Arrived"}),
            None,
        ),
    ];
    for (object, id, fields, _, _) in &bad {
        source
            .edit(json!({"object": object, "id": id, "fields": fields}))
            .await;
    }
    let created = source
        .edit(json!({"object": "Contact", "create": {"LastName": "Orphan", "AccountId": nowhere}}))
        .await;
    let orphan = created["id"].as_str().expect("its id").to_owned();
    // Behind them all comes a good one of each object.
    for (object, id, field) in [
        ("Contact", &contacts[2], "LastName"),
        ("Account", &accounts[3], "Name"),
        ("Opportunity", &deals[3], "Name"),
        ("Case", &cases[1], "Subject"),
    ] {
        source
            .edit(json!({"object": object, "id": id, "fields": {field: "Came after"}}))
            .await;
    }
    let mut expected: Vec<_> = bad
        .iter()
        .filter_map(|(object, _, _, _, letter)| {
            let (stage, code, place) = (*letter)?;
            let text = str::to_owned;
            Some((text(stage), text(object), text(code), text(place), 1))
        })
        .collect();
    expected.sort();
    migration
        .until(
            LIMIT,
            "every bad record has its dead letter",
            async |migration| (dead_letters(migration) == expected).then_some(()),
        )
        .await;
    for (table, id, name) in [
        ("contact", &contacts[2], "last_name"),
        ("company", &accounts[3], "name"),
        ("deal", &deals[3], "name"),
        ("ticket", &cases[1], "subject"),
    ] {
        migration
            .until(LIMIT, "what came after is there", async |migration| {
                (column(migration, table, id, name).await? == "Came after").then_some(())
            })
            .await;
    }
    let parent = format!("salesforce/Account/{nowhere}#company");
    for key in [
        format!("salesforce/Opportunity/{}#deal", deals[2]),
        format!("salesforce/Contact/{orphan}#contact"),
    ] {
        migration
            .until(LIMIT, "what points to nowhere waits", async |_| {
                let parked = bus.table("parked.postgres").remove(&key)?;
                assert_eq!(
                    parked["reason"],
                    json!({"kind": "parent", "parent": parent}),
                    "{key}"
                );
                Some(())
            })
            .await;
    }
    assert_eq!(
        column(&migration, "contact", &orphan, "last_name").await,
        None
    );
    // The rows of the bad records stand as they stood before.
    let name = column(&migration, "contact", &contacts[1], "last_name").await;
    assert!(name.is_some_and(|name| name.len() < 300));
    let waiting = column(&migration, "deal", &deals[2], "name").await;
    assert_ne!(waiting.as_deref(), Some("Waits"));
    let status = migration.status();
    for (object, dead, parked) in [
        ("Contact", 2, 1),
        ("Account", 2, 0),
        ("Opportunity", 2, 1),
        ("Case", 1, 0),
        ("Lead", 0, 0),
    ] {
        let objects = status["objects"].as_array().expect("objects");
        let row = objects.iter().find(|row| row["object"] == object);
        let row = row.expect("the object");
        assert_eq!(
            (&row["dead"], &row["parked"]),
            (&json!(dead), &json!(parked)),
            "{row}"
        );
    }

    // A restart keeps them, and mended versions clear them.
    for (stage, instance) in [("transformer", "transformer-1"), ("loader", "loader-1")] {
        migration.stage(instance).terminate();
        migration.start(stage, instance, &[]);
    }
    for (object, id, _, fields, _) in &bad {
        migration
            .sandbox
            .edit(json!({"object": object, "id": id, "fields": fields}))
            .await;
    }
    migration
        .sandbox
        .edit(json!({"object": "Contact", "id": orphan, "fields": {"AccountId": accounts[2]}}))
        .await;
    let equal = migration.until_equal(LIMIT).await;
    assert_eq!(equal.waiting, before.waiting);
    migration
        .until(LIMIT, "no dead letter is left", async |migration| {
            dead_letters(migration).is_empty().then_some(())
        })
        .await;
    assert_eq!(
        migration.drover_ok(&["deadletter", "list"]),
        "no dead letters\n"
    );
    // Those that waited for a link at first may have got it meanwhile.
    migration
        .until(LIMIT, "nobody else waits", async |_| {
            let now: Vec<String> = bus.table("parked.postgres").into_keys().collect();
            now.iter().all(|key| parked.contains(key)).then_some(())
        })
        .await;
    migration.stop_all();
}

/// The ids of an object's live records that have a live parent where they need
/// one, in their order.
async fn live(migration: &Migration, object: &str) -> Vec<String> {
    let records = migration.sandbox.records(object).await;
    let table = match object {
        "Account" => "company",
        "Contact" => "contact",
        "Opportunity" => "deal",
        _ => "ticket",
    };
    let mut ids = Vec::new();
    for (id, record) in records {
        let there = column(migration, table, &id, "id").await.is_some();
        if record["IsDeleted"] != true && there && ids.len() < 4 {
            ids.push(id);
        }
    }
    assert_eq!(ids.len(), 4, "{object}");
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_bytes_are_buried_and_newer_schemas_stop_their_lane() {
    let mut migration = Migration::new("foreign", &["--seed", "11", "--records", "300"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    let contacts = live(&migration, "Contact").await;
    let accounts = live(&migration, "Account").await;

    // Not ours at all, in a raw and in a canonical topic, and a body that is
    // no text or no record.
    let id = contacts[0].clone();
    let key = format!("salesforce/Contact/{id}");
    let raw = |body: &'static [u8]| {
        let envelope = Envelope {
            migration: &migration.id,
            source: "salesforce",
            object: "Contact",
            id: &id,
            slot: "",
            op: Op::Upsert,
            reason: None,
            version: 4_000_000_000_000,
            phase: Phase::Delta,
            extracted_at: 0,
            mapping: 0,
            fingerprint: Fingerprint::default(),
            body_schema: JSON,
            order: None,
            body: Some(body),
            stored: None,
        };
        envelope.encode()
    };
    let (no_text, no_record) = (raw(b"{\"LastName\":\"\xff\"}"), raw(b"[1, 2]"));
    for topic in ["raw.salesforce.contact", "canonical.contact"] {
        let text: &[u8] = b"{\"hello\": 1}";
        bus.produce(topic, b"not/a/record", Some(text)).await;
        bus.produce(topic, b"\xff\xfe", Some(b"\xc3")).await;
        bus.produce(topic, b"gone/wrong/1", None).await;
        // An envelope of ours under another key, and half of one.
        bus.produce(topic, b"salesforce/Contact/other", Some(&no_record))
            .await;
        bus.produce(topic, b"salesforce/Contact/half", Some(&no_record[..40]))
            .await;
    }
    let (partition, _) = bus
        .produce("raw.salesforce.contact", key.as_bytes(), Some(&no_text))
        .await;
    let mut letters = Vec::new();
    migration
        .until(LIMIT, "all of it is buried", async |migration| {
            letters = dead_letters(migration);
            (letters.iter().map(|letter| letter.4).sum::<u64>() == 11).then_some(())
        })
        .await;
    let by = |stage: &str, code: &str| -> u64 {
        let of = letters.iter().filter(|l| l.0 == stage && l.2 == code);
        of.map(|letter| letter.4).sum()
    };
    assert_eq!(by("transformer", "FOREIGN_BYTES"), 5, "{letters:?}");
    assert_eq!(by("transformer", "INVALID_UTF8"), 1, "{letters:?}");
    assert_eq!(by("loader", "FOREIGN_BYTES"), 5, "{letters:?}");
    // Where it lies is in the letter.
    let letter = bus.table("deadletter");
    let letter = &letter[&format!("transformer/{key}")];
    assert_eq!(letter["topic"], bus.name("raw.salesforce.contact"));
    assert_eq!(letter["partition"], partition);
    // The lanes go on.
    edit(
        &migration,
        "Contact",
        &contacts[1],
        json!({"LastName": "Goes on"}),
    )
    .await;
    migration.until_equal(LIMIT).await;

    // A newer Drover's values stop their lane alone; nothing behind them is
    // passed over, not by a restart either.
    let newer = b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08 and more";
    let leads = migration.sandbox.records("Lead").await;
    let lead = leads.iter().find(|(_, lead)| lead["IsDeleted"] != true);
    let lead = lead.expect("a lead").0.clone();
    let lead_key = format!("salesforce/Lead/{lead}");
    let (partition, offset) = bus
        .produce("raw.salesforce.lead", lead_key.as_bytes(), Some(newer))
        .await;
    let poisoned = format!(
        "(at {}[{partition}]@{offset})",
        bus.name("raw.salesforce.lead")
    );
    blocked(&mut migration, "transformer", "NEWER_SCHEMA", &poisoned).await;
    edit(&migration, "Lead", &lead, json!({"Company": "Behind it"})).await;
    edit(
        &migration,
        "Contact",
        &contacts[1],
        json!({"LastName": "Goes on again"}),
    )
    .await;
    arrives(
        &mut migration,
        "contact",
        &contacts[1],
        "last_name",
        "Goes on again",
    )
    .await;
    migration.stage("transformer-1").terminate();
    migration.start("transformer", "transformer-1", &[]);
    edit(
        &migration,
        "Contact",
        &contacts[1],
        json!({"LastName": "And again"}),
    )
    .await;
    arrives(
        &mut migration,
        "contact",
        &contacts[1],
        "last_name",
        "And again",
    )
    .await;
    blocked(&mut migration, "transformer", "NEWER_SCHEMA", &poisoned).await;
    let at = bus.committed("transform", "raw.salesforce.lead", partition);
    assert!(at <= offset, "{at} is behind {offset}");
    let company = column(&migration, "lead", &lead, "company_name").await;
    assert_ne!(company.as_deref(), Some("Behind it"));

    // The same in front of the loader.
    let account_key = format!("salesforce/Account/{}#company", accounts[0]);
    let (partition, offset) = bus
        .produce("canonical.company", account_key.as_bytes(), Some(newer))
        .await;
    let poisoned = format!(
        "(at {}[{partition}]@{offset})",
        bus.name("canonical.company")
    );
    blocked(&mut migration, "loader", "NEWER_SCHEMA", &poisoned).await;
    // The other lanes' ends are reached again and again meanwhile.
    for name in ["One", "Two", "Three"] {
        edit(
            &migration,
            "Contact",
            &contacts[1],
            json!({"LastName": name}),
        )
        .await;
        arrives(&mut migration, "contact", &contacts[1], "last_name", name).await;
    }
    let at = bus.committed("load.postgres", "canonical.company", partition);
    assert!(at <= offset, "{at} is behind {offset}");
    migration.stage("loader-1").terminate();
    migration.start("loader", "loader-1", &[]);
    edit(
        &migration,
        "Account",
        &accounts[0],
        json!({"Name": "Behind it"}),
    )
    .await;
    edit(
        &migration,
        "Contact",
        &contacts[1],
        json!({"LastName": "Four"}),
    )
    .await;
    arrives(&mut migration, "contact", &contacts[1], "last_name", "Four").await;
    blocked(&mut migration, "loader", "NEWER_SCHEMA", &poisoned).await;
    let name = column(&migration, "company", &accounts[0], "name").await;
    assert_ne!(name.as_deref(), Some("Behind it"));
    let at = bus.committed("load.postgres", "canonical.company", partition);
    assert!(at <= offset, "{at} is behind {offset}");
    // It is up, and not ready.
    let http = process(&migration, "loader")["http"].clone();
    let url = format!("http://{}", http.as_str().expect("its address"));
    let ready = reqwest::get(format!("{url}/readyz"))
        .await
        .expect("an answer");
    assert_eq!(ready.status(), 503);
    let text = ready.text().await.expect("a text");
    assert!(text.contains("NEWER_SCHEMA: "), "{text}");
    let healthy = reqwest::get(format!("{url}/healthz"))
        .await
        .expect("an answer");
    assert_eq!(healthy.status(), 200);
    migration.stop_all();
}

async fn edit(migration: &Migration, object: &str, id: &str, fields: Value) {
    let edit = json!({"object": object, "id": id, "fields": fields});
    migration.sandbox.edit(edit).await;
}

async fn arrives(migration: &mut Migration, table: &str, id: &str, name: &str, value: &str) {
    migration
        .until(
            LIMIT,
            &format!("{table} {id} has the {name} {value}"),
            async |migration| (column(migration, table, id, name).await? == value).then_some(()),
        )
        .await;
}

/// Waits until the stage reports that a lane is blocked by that code there.
async fn blocked(migration: &mut Migration, stage: &str, code: &str, place: &str) {
    migration
        .until(
            LIMIT,
            &format!("a lane of the {stage} is blocked {place}"),
            async |migration| {
                let process = process(migration, stage);
                let error = process["lastError"].as_str()?;
                (process["phase"] == "blocked"
                    && error.starts_with(&format!("{code}: "))
                    && error.contains(place))
                .then_some(())
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_and_a_database_may_go_and_come() {
    let services = own();
    let mut migration = Migration::on(
        services,
        "around",
        &["--seed", "17", "--records", "1500", "--live-changes", "10"],
        "postgres",
        json!({}),
        json!({"objects": FEW}),
    );
    migration.drover_ok(&["init"]);
    // Down at the start: they say so, and wait.
    script("kafka", "stop", &services.kafka_dir, &["--kill"]);
    let (code, told) = said(&migration.drover(&["check"]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("BROKER_UNREACHABLE: "), "{told}");
    for (stage, instance) in [
        ("extractor", "extractor-1"),
        ("transformer", "transformer-1"),
        ("loader", "loader-1"),
    ] {
        migration.start(stage, instance, &[]);
    }
    migration
        .until(
            LIMIT,
            "each says that the broker is away",
            async |migration| {
                let said = |p: &drover_tests::process::Process| {
                    p.log_tail().contains("BROKER_UNREACHABLE: ")
                };
                migration.stages.values().all(said).then_some(())
            },
        )
        .await;
    script("kafka", "start", &services.kafka_dir, &["--port", "0"]);
    arrives_anew(&mut migration).await;

    // Killed in the middle, with nobody who would start the stages again: each
    // goes on by itself (`until` asserts that it lives).
    for round in ["kafka", "postgres", "kafka"] {
        killed_and_back(&mut migration, round).await;
    }
    migration.stop_all();

    // The same while `drover run` looks after the stages.
    migration.supervise(2);
    arrives_anew(&mut migration).await;
    killed_and_back(&mut migration, "kafka").await;
    migration.sandbox.freeze().await;
    let equal = migration.until_equal(LIMIT).await;
    println!("{} records compared", equal.compared);
    // None but those whose parent people have deleted.
    migration.orphans();
    migration.stop_all();
}

/// Kills a service in the midst of its work, starts it again, and waits until
/// something new has come through.
async fn killed_and_back(migration: &mut Migration, service: &str) {
    let services = migration.services();
    let dir = match service {
        "kafka" => &services.kafka_dir,
        _ => &services.postgres_dir,
    };
    script(service, "restart", dir, &["--kill"]);
    arrives_anew(migration).await;
}

/// Makes an account in the source and waits for it in the target.
async fn arrives_anew(migration: &mut Migration) {
    let account = json!({"object": "Account", "create": {"Name": "Made meanwhile"}});
    let made = migration.sandbox.edit(account).await;
    let id = made["id"].as_str().expect("its id").to_owned();
    migration
        .until(LIMIT, "a new account is in the target", async |migration| {
            column(migration, "company", &id, "name").await.map(drop)
        })
        .await;
}
