//! A changed mapping, from what was read before: no call to the source, only
//! rows whose content changed are written, and what a filter takes away is asked
//! for first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// The transaction that wrote each row last, by table and record.
type Written = BTreeMap<(String, String), String>;

const TABLES: [&str; 6] = ["company", "contact", "lead", "deal", "ticket", "record"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remap_writes_what_changed_and_asks_the_source_nothing() {
    let mut migration = Migration::new("remap", &["--records", "600", "--seed", "7"]);
    migration.start_all(1);
    migration.until_equal(Duration::from_secs(60)).await;
    let mut extractor = migration.stages.remove("extractor-1").expect("it runs");
    extractor.terminate();
    let client = connect(&migration.services().postgres).await;
    let schema = migration.schema.clone();
    let before = quiet(&client, &schema).await;
    let asked = migration.sandbox.stats().await;
    let contacts = migration.sandbox.records("Contact").await;
    let has = |id: &str, field: &str| contacts.get(id).is_some_and(|c| !c[field].is_null());

    // Title goes where Department was, which goes to `custom`.
    configure(&migration, json!({"Contact": {"Title": "department"}}));
    let told = migration.drover_ok(&["remap"]);
    assert!(
        told.contains("generation 2") && told.contains("Contact"),
        "{told}"
    );
    for stage in ["transformer-1", "loader-1"] {
        ended_well(&mut migration, stage).await;
    }
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    let due: BTreeSet<String> = before
        .keys()
        .filter(|(table, id)| table == "contact" && (has(id, "Title") || has(id, "Department")))
        .map(|(_, id)| id.clone())
        .collect();
    let all = before
        .keys()
        .filter(|(table, _)| table == "contact")
        .count();
    assert!(!due.is_empty() && due.len() < all, "{} of {all}", due.len());
    until(&mut migration, "the rows are mapped anew", async |_| {
        let now = written(&client, &schema).await;
        let changed = |id: &&String| {
            let key = ("contact".to_owned(), (*id).clone());
            now[&key] != before[&key]
        };
        due.iter().filter(changed).count() == due.len()
    })
    .await;
    let after = quiet(&client, &schema).await;
    let changed: BTreeSet<String> = after
        .iter()
        .filter(|(key, at)| before.get(*key) != Some(at))
        .map(|((table, id), _)| {
            assert_eq!(table, "contact", "{id} was written");
            id.clone()
        })
        .collect();
    assert_eq!(changed, due);
    let sql = format!("select drover_id, department, title from \"{schema}\".contact");
    for row in client.query(&sql, &[]).await.expect("rows") {
        let (id, department): (String, Option<String>) = (row.get(0), row.get(1));
        assert_eq!(
            department.as_deref(),
            contacts[&id]["Title"].as_str(),
            "{id}"
        );
        assert_eq!(row.get::<_, Option<String>>(2), None, "{id}");
    }

    // A filter that takes away far more than a hundredth, which is taken back when
    // the lane asks, and then meant.
    let kept = json!({"Contact": {"Title": "department"}});
    let filter = json!({"Contact": {"Title": "department", "$where": {"Title": {"not": null}}}});
    for meant in [false, true] {
        remapped(&mut migration, &filter).await;
        until(&mut migration, "the lane asks", async |migration| {
            migration
                .status()
                .to_string()
                .contains("EMPTIED_BY_MAPPING")
        })
        .await;
        assert_eq!(deleted(&client, &schema).await, BTreeSet::new());
        if meant {
            break;
        }
        remapped(&mut migration, &kept).await;
        until(
            &mut migration,
            "nothing is asked any more",
            async |migration| {
                let status = migration.status();
                let mut objects = status["objects"].as_array().into_iter().flatten();
                objects.any(|o| o["object"] == "Contact" && o["lag"]["records"] == 0)
                    && !status.to_string().contains("EMPTIED_BY_MAPPING")
            },
        )
        .await;
        assert_eq!(deleted(&client, &schema).await, BTreeSet::new());
    }
    let told = migration.drover_ok(&["remap", "--accept-absent"]);
    assert!(told.contains("accepted"), "{told}");
    ended_well(&mut migration, "loader-1").await;
    migration.start("loader", "loader-1", &[]);
    let without: BTreeSet<String> = before
        .keys()
        .filter(|(table, id)| table == "contact" && !has(id, "Title"))
        .map(|(_, id)| id.clone())
        .collect();
    until(
        &mut migration,
        "what the filter takes is gone",
        async |_| deleted(&client, &schema).await == without,
    )
    .await;
    let told = migration.drover_ok(&["remap"]);
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!(migration.sandbox.stats().await, asked);
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_target_lost_is_loaded_again_by_name() {
    let mut migration = Migration::new("reload", &["--records", "300", "--seed", "7"]);
    migration.start_all(1);
    migration.until_equal(Duration::from_secs(60)).await;
    let client = connect(&migration.services().postgres).await;
    let schema = migration.schema.clone();
    let before = quiet(&client, &schema).await;
    let loader = migration.stages.get_mut("loader-1").expect("it runs");
    loader.terminate();
    let lost = format!(
        "alter table \"{schema}\".lead drop rating; \
         alter table \"{schema}\".lead add rating text"
    );
    client.batch_execute(&lost).await.expect("altered");

    let told = migration.drover(&["remap", "--reload", "leads"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.contains("no entity `leads`") && told.contains("write `lead`"),
        "{told}"
    );
    let told = migration.drover_ok(&["remap", "--reload", "lead"]);
    assert!(told.contains("all of lead again"), "{told}");
    ended_well(&mut migration, "transformer-1").await;
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
    let gone = deleted_in(&client, &schema, "lead").await;
    let is_due = |(table, id): &(String, String)| table == "lead" && !gone.contains(id);
    until(&mut migration, "all leads are written again", async |_| {
        let now = written(&client, &schema).await;
        let mut due = before.iter().filter(|(key, _)| is_due(key));
        due.all(|(key, at)| now[key] != *at)
    })
    .await;
    for (key, at) in quiet(&client, &schema).await {
        assert!(key.0 == "lead" || before[&key] == at, "{key:?} was written");
    }
    let leads = migration.sandbox.records("Lead").await;
    let sql = format!("select drover_id, rating from \"{schema}\".lead");
    let mut rated = 0;
    for row in client.query(&sql, &[]).await.expect("rows") {
        let (id, rating): (String, Option<String>) = (row.get(0), row.get(1));
        if !gone.contains(&id) {
            assert_eq!(rating.as_deref(), leads[&id]["Rating"].as_str(), "{id}");
            rated += usize::from(rating.is_some());
        }
    }
    assert!(rated > 0);
    let told = migration.drover_ok(&["remap"]);
    assert!(told.contains("nothing was changed"), "{told}");
    migration.stop_all();
}

/// Maps anew by these mappings, and starts again what has ended for it.
async fn remapped(migration: &mut Migration, mappings: &Value) {
    configure(migration, mappings.clone());
    migration.drover_ok(&["remap"]);
    for stage in ["transformer-1", "loader-1"] {
        ended_well(migration, stage).await;
    }
    migration.start("transformer", "transformer-1", &[]);
    migration.start("loader", "loader-1", &[]);
}

fn configure(migration: &Migration, mappings: Value) {
    let text = std::fs::read_to_string(&migration.config).expect("the configuration");
    let mut document: Value = serde_json::from_str(&text).expect("JSON");
    document["mappings"] = mappings;
    std::fs::write(&migration.config, document.to_string()).expect("written");
}

/// The stage has seen the new plan and ended by itself, as if told to.
async fn ended_well(migration: &mut Migration, stage: &str) {
    until(migration, &format!("{stage} ends"), async |migration| {
        migration.stage(stage).ended().is_some()
    })
    .await;
    let mut process = migration.stages.remove(stage).expect("it was started");
    let status = process.ended().expect("it has ended");
    assert!(
        status.success(),
        "{stage}: {status}\n{}",
        process.log_tail()
    );
}

async fn until(
    migration: &mut Migration,
    what: &str,
    mut holds: impl AsyncFnMut(&mut Migration) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds(migration).await {
        assert!(
            Instant::now() < deadline,
            "{what}: not yet\n{}",
            migration.logs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What is written, once two looks a second apart see the same.
async fn quiet(client: &Client, schema: &str) -> Written {
    let mut last = written(client, schema).await;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = written(client, schema).await;
        if now == last {
            return now;
        }
        last = now;
    }
}

async fn written(client: &Client, schema: &str) -> Written {
    let mut all = Written::new();
    for table in TABLES {
        let sql = format!("select drover_id, xmin::text from \"{schema}\".\"{table}\"");
        for row in client.query(&sql, &[]).await.expect("rows") {
            all.insert((table.to_owned(), row.get(0)), row.get(1));
        }
    }
    all
}

async fn deleted(client: &Client, schema: &str) -> BTreeSet<String> {
    deleted_in(client, schema, "contact").await
}

async fn deleted_in(client: &Client, schema: &str, table: &str) -> BTreeSet<String> {
    let sql =
        format!("select drover_id from \"{schema}\".{table} where drover_deleted_at is not null");
    let rows = client.query(&sql, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}
