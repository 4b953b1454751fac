//! Nothing is skipped silently: each thing that can happen to a topic or a table
//! behind Drover's back stops one lane with its code, nothing else, and once it
//! is mended the lane goes on and nothing is missing.

use std::time::Duration;

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use drover_tests::oracle::connect;
use rdkafka::producer::Producer;
use serde_json::{Value, json};

/// How long anything may take; nothing here waits for it to pass.
const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;

/// What a lane of a living process of that stage reports, where it is not well.
fn lane(migration: &Migration, stage: &str, lane: &str) -> Option<Value> {
    let status = migration.status();
    status["processes"]
        .as_array()?
        .iter()
        .find(|p| p["stage"] == stage && p["alive"] == true)
        .map(|process| process["lanes"][lane].clone())
        .filter(|lane| !lane.is_null())
}

/// Waits until that lane is in that phase with that code, and no other lane of
/// the process is in it.
async fn stands(
    migration: &mut Migration,
    stage: &str,
    name: &str,
    phase: &str,
    code: &str,
) -> String {
    let what = format!("{stage} {name} {phase} {code}");
    let error = migration
        .until(LIMIT, &what, async |migration| {
            let lane = lane(migration, stage, name)?;
            let error = lane["error"].as_str()?.to_owned();
            (lane["phase"] == phase && error.starts_with(&format!("{code}: "))).then_some(error)
        })
        .await;
    let status = migration.status();
    let processes = status["processes"].as_array().expect("processes");
    let others = processes
        .iter()
        .filter(|p| p["alive"] == true)
        .flat_map(|p| {
            let lanes = p["lanes"].as_object().expect("lanes").iter();
            lanes
                .filter(|(_, lane)| lane["phase"] == "blocked")
                .map(|(name, _)| name.clone())
        });
    let others: Vec<String> = others.filter(|other| other != name).collect();
    assert_eq!(others, Vec::<String>::new(), "{status}");
    error
}

/// Edits a record of that object and returns its id.
async fn edit(migration: &Migration, object: &str, fields: Value) -> String {
    let records = migration.sandbox.records(object).await;
    let live = records
        .iter()
        .find(|(_, record)| record["IsDeleted"] != true);
    let id = live.expect("a live record").0.clone();
    let edit = json!({"object": object, "id": id, "fields": fields});
    migration.sandbox.edit(edit).await;
    id
}

/// An edit of another object, made now, arrives.
async fn others_flow(
    migration: &mut Migration,
    object: &str,
    table: &str,
    field: &str,
    column: &str,
) {
    let text = format!("flows {:08x}", rand::random::<u32>());
    let id = edit(migration, object, json!({field: text})).await;
    let sql = format!(
        "select 1 from \"{}\".\"{table}\" where drover_id = $1 and \"{column}\" = $2",
        migration.schema
    );
    let client = connect(&migration.services().postgres).await;
    migration
        .until(LIMIT, &format!("{object} {id} = {text}"), async |_| {
            client
                .query_opt(&sql, &[&id, &text])
                .await
                .expect("a row or none")
        })
        .await;
}

/// Runs SQL in the target, as a person does who knows nothing of Drover.
async fn by_hand(migration: &Migration, sql: &str) {
    let client = connect(&migration.services().postgres).await;
    let sql = sql.replace("$S", &format!("\"{}\"", migration.schema));
    client
        .batch_execute(&sql)
        .await
        .expect("PostgreSQL does it");
}

fn restart(migration: &mut Migration, stage: &str) {
    let instance = format!("{stage}-1");
    let mut process = migration.stages.remove(&instance).expect("it runs");
    process.terminate();
    migration.start(stage, &instance, &[]);
}

/// What somebody removes from a topic before the loader has read it. Nobody
/// else notices: the commit of a later offset would hide it for ever, as
/// apache/kafka #22248 (MirrorMaker 2) shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mm2_22248_records_removed_before_they_were_read_stop_their_lane() {
    let mut migration = Migration::new("cut", &["--seed", "21", "--records", "120"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    let mut loader = migration.stages.remove("loader-1").expect("it runs");
    loader.terminate();
    let ends = |bus: &Bus| {
        (0..PARTITIONS)
            .map(|p| bus.ends("canonical.company", p).1)
            .sum::<i64>()
    };
    let before = ends(&bus);
    edit(&migration, "Account", json!({"Description": "never read"})).await;
    migration
        .until(LIMIT, "the transformed edit", async |_| {
            (ends(&bus) > before).then_some(())
        })
        .await;
    bus.cut("canonical.company", PARTITIONS).await;

    migration.start("loader", "loader-1", &[]);
    let error = stands(
        &mut migration,
        "loader",
        "company",
        "blocked",
        "RECORDS_LOST",
    )
    .await;
    assert!(error.contains("removed before they were read"), "{error}");
    assert!(error.contains("canonical.company["), "{error}");
    others_flow(&mut migration, "Lead", "lead", "Company", "company_name").await;

    // Mended: the transformers write everything again, from the raw topic.
    migration.stop_all();
    bus.commit(
        "transform",
        "raw.salesforce.account",
        &[0; PARTITIONS as usize],
    )
    .await;
    let starts: Vec<i64> = (0..PARTITIONS)
        .map(|p| bus.ends("canonical.company", p).0)
        .collect();
    bus.commit("load.postgres", "canonical.company", &starts)
        .await;
    for stage in ["extractor", "transformer", "loader"] {
        migration.start(stage, &format!("{stage}-1"), &[]);
    }
    migration.until_equal(LIMIT).await;
    migration.stop_all();
}

/// A topic that is deleted and made anew while its reader runs: the offsets that
/// the reader holds mean nothing in it (apache/kafka #22248, supabase/etl #935).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etl_935_a_topic_made_anew_under_running_stages_stops_its_lanes() {
    let mut migration = Migration::new("anew", &["--seed", "22", "--records", "120"]);
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    for (topic, stage, lane) in [
        ("canonical.lead", "loader", "lead"),
        ("raw.salesforce.lead", "transformer", "Lead"),
    ] {
        bus.delete(topic).await;
        bus.make(topic, PARTITIONS, "compact").await;
        let code = migration
            .until(LIMIT, topic, async |migration| {
                let lane = crate::lane(migration, stage, lane)?;
                let error = lane["error"].as_str()?.to_owned();
                (lane["phase"] == "blocked").then_some(error)
            })
            .await;
        // Whichever was seen first: that it was gone, or that it is another one.
        assert!(
            code.starts_with("TOPIC_RECREATED: ") || code.starts_with("TOPIC_MISSING: "),
            "{code}"
        );
        others_flow(
            &mut migration,
            "Account",
            "company",
            "Description",
            "description",
        )
        .await;
    }

    // A restart does not forget it: now there is no doubt what happened.
    restart(&mut migration, "loader");
    stands_recreated(&mut migration, "loader", "lead").await;
    restart(&mut migration, "transformer");
    stands_recreated(&mut migration, "transformer", "Lead").await;
    migration.stop_all();
}

async fn stands_recreated(migration: &mut Migration, stage: &str, name: &str) {
    migration
        .until(LIMIT, name, async |migration| {
            let lane = lane(migration, stage, name)?;
            let error = lane["error"].as_str()?;
            error.starts_with("TOPIC_RECREATED: ").then_some(())
        })
        .await;
}

/// A producer that is not ours leaves a transaction open in a topic that the
/// loader reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_transaction_that_hangs_is_named() {
    let mut migration = Migration::new("hang", &["--seed", "23", "--records", "100"]);
    migration.set("DROVER_PATIENCE_MS", Some("3000"));
    let bus = migration.bus();
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    let id = format!("{}-foreign", migration.id);
    let producer = bus.hang("canonical.company", 1, &id).await;
    let stuck = "STABLE_OFFSET_STUCK";
    let error = stands(&mut migration, "loader", "company", "degraded", stuck).await;
    for part in [
        "canonical.company[1]",
        "the key a-foreign-key, was not written by Drover",
        "transform.transformer-1 (alive)",
        "describe-producers",
    ] {
        assert!(error.contains(part), "no {part:?}: {error}");
    }
    others_flow(&mut migration, "Lead", "lead", "Company", "company_name").await;
    edit(
        &migration,
        "Account",
        json!({"Description": "behind it, perhaps"}),
    )
    .await;
    producer
        .abort_transaction(Duration::from_secs(20))
        .expect("it is aborted");
    migration
        .until(LIMIT, "the lane is well", async |migration| {
            lane(migration, "loader", "company").is_none().then_some(())
        })
        .await;
    migration.until_equal(LIMIT).await;
    let topic = bus.name("canonical.company");
    migration
        .until(
            LIMIT,
            "the distance to the log's start",
            async |migration| {
                let status = migration.status();
                let mut processes = status["processes"].as_array()?.iter();
                let loader = processes.find(|p| p["stage"] == "loader")?;
                let edge = &loader["edges"][&topic];
                (edge["records"].as_u64()? > 0 && edge["seconds"].is_u64()).then_some(())
            },
        )
        .await;
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_altered_by_hand_stops_its_lane() {
    let mut migration = Migration::new("altered", &["--seed", "24", "--records", "120"]);
    migration.start_all(1);
    migration.until_equal(LIMIT).await;
    by_hand(&migration, "alter table $S.company drop column fax").await;
    edit(
        &migration,
        "Account",
        json!({"Description": "after the column went"}),
    )
    .await;
    let altered = "TARGET_ALTERED";
    stands(&mut migration, "loader", "company", "blocked", altered).await;
    others_flow(&mut migration, "Lead", "lead", "Company", "company_name").await;
    // Started again it must not make an empty column of that name and go on as
    // if nothing had been lost.
    restart(&mut migration, "loader");
    let error = stands(&mut migration, "loader", "company", "blocked", altered).await;
    assert!(error.contains("company.fax"), "{error}");
    others_flow(&mut migration, "Lead", "lead", "Company", "company_name").await;
    // A person restores the column, here an empty one.
    by_hand(&migration, "alter table $S.company add column fax text").await;
    restart(&mut migration, "loader");
    migration.until_equal(LIMIT).await;

    // A column of another type takes values, and rounds them without a word.
    by_hand(
        &migration,
        "alter table $S.deal alter column amount type integer",
    )
    .await;
    edit(&migration, "Opportunity", json!({"Amount": 12.75})).await;
    let error = stands(&mut migration, "loader", "deal", "blocked", altered).await;
    assert!(error.contains("deal.amount"), "{error}");
    by_hand(
        &migration,
        "alter table $S.deal alter column amount type numeric",
    )
    .await;
    restart(&mut migration, "loader");
    migration
        .until(LIMIT, "the amount", async |migration| {
            let client = connect(&migration.services().postgres).await;
            let sql = format!(
                "select 1 from \"{}\".deal where amount = 12.75",
                migration.schema
            );
            client.query_opt(&sql, &[]).await.expect("a row or none")
        })
        .await;
    migration.stop_all();
}
