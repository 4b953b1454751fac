//! Kills: a loader dies by SIGKILL at every step of the runner's own list of
//! steps, and as often again at random moments from outside, while people edit
//! the source and loaders come and go. In the end the target is what the source
//! is, nothing was created twice, and a fresh edit still flows.
//!
//! The seed is printed; `DROVER_TEST_SEED` replays its random choices.

use std::time::Duration;

use drover_pipeline::load::Step;
use drover_tests::migration::Migration;
use drover_tests::oracle::{Differences, Expectation, SALESFORCE};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const OBJECTS: [&str; 4] = ["Account", "Contact", "Opportunity", "Case"];

fn seed() -> u64 {
    let seed = std::env::var("DROVER_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("DROVER_TEST_SEED={seed}");
    seed
}

/// A step's name as `DROVER_KILL_AT` takes it.
fn name_of(step: Step) -> String {
    serde_json::to_value(step)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("a name")
}

/// A few random edits, and a new child with a new parent.
async fn edits(migration: &Migration, random: &mut StdRng, number: usize) {
    for _ in 0..number {
        let object = OBJECTS[random.random_range(0..OBJECTS.len())];
        let records = migration.sandbox.records(object).await;
        let live: Vec<&String> = records
            .iter()
            .filter(|(_, record)| record["IsDeleted"] != true)
            .map(|(id, _)| id)
            .collect();
        let id = live[random.random_range(0..live.len())];
        let text = format!("edit {}", random.random::<u32>());
        migration
            .sandbox
            .edit(json!({"object": object, "id": id, "fields": {"Description": text}}))
            .await;
    }
    let name = format!("parent {}", random.random::<u32>());
    let parent = migration
        .sandbox
        .edit(json!({"object": "Account", "create": {"Name": name}}))
        .await;
    let child = json!({"LastName": format!("child of {name}"), "AccountId": parent["id"]});
    migration
        .sandbox
        .edit(json!({"object": "Contact", "create": child}))
        .await;
}

/// An edit made now arrives.
async fn still_flows(migration: &mut Migration) {
    let records = migration.sandbox.records("Account").await;
    let (id, _) = records
        .iter()
        .find(|(_, record)| record["IsDeleted"] != true)
        .expect("a live record");
    migration
        .sandbox
        .edit(json!({"object": "Account", "id": id, "fields": {"Website": "https://still.flows"}}))
        .await;
    migration.until_equal(Duration::from_secs(60)).await;
}

/// No kill makes a dead letter: the only ones are those of records whose parent
/// the source does not have, which the oracle counts for the objects it knows.
fn assert_no_dead_letters(migration: &Migration, equal: &Differences) {
    let orphans = migration.orphans();
    let status = migration.status();
    let objects = status["objects"].as_array().expect("objects");
    let dead = |known: bool| {
        let counted = |object: &&Value| {
            let listed = |e: &Expectation| object["object"] == e.object;
            !known || SALESFORCE.iter().any(listed)
        };
        let counts = objects.iter().filter(counted);
        counts.filter_map(|o| o["dead"].as_u64()).sum::<u64>() as usize
    };
    assert_eq!(dead(false), orphans, "{status}");
    assert!(dead(true) <= equal.waiting, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_of_postgres_dies_at_every_step() {
    let migration = Migration::new("steps", &["--seed", "3", "--records", "400"]);
    // PostgreSQL refuses older versions itself, so it needs no Pending.
    let steps = Step::ALL
        .into_iter()
        .filter(|step| !matches!(step, Step::PendingProduced | Step::PendingCommitted));
    die_at(migration, steps, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_of_the_append_only_target_dies_at_every_step() {
    let faults = json!({"lose_answers": 0.02, "lose_requests": 0.01, "seed": 1});
    let sandbox = ["--seed", "3", "--records", "250"];
    let migration = Migration::appendonly("append", &sandbox, faults).await;
    die_at(migration, Step::ALL, 1).await;
}

/// Kills the loader at each of the steps, the first and further times that it
/// is reached, while the source is edited.
async fn die_at(mut migration: Migration, steps: impl IntoIterator<Item = Step>, times: usize) {
    let mut random = StdRng::seed_from_u64(seed());
    migration.start_all(0);
    for step in steps {
        for count in 1..=times {
            if count > 1 && matches!(step, Step::Assigned | Step::Restored) {
                continue;
            }
            let at = format!("{}:{count}", name_of(step));
            migration.start("loader", "loader-1", &[("DROVER_KILL_AT", &at)]);
            edits(&migration, &mut random, 3).await;
            if count > 1 {
                edits(&migration, &mut random, 3).await;
            }
            migration
                .stage("loader-1")
                .wait_killed(Duration::from_secs(60));
            println!("killed at {at}");
        }
    }
    migration.start("loader", "loader-1", &[]);
    let equal = migration.until_equal(Duration::from_secs(90)).await;
    println!("{} records compared", equal.compared);
    migration.assert_faults_hit().await;
    assert_no_dead_letters(&migration, &equal);
    still_flows(&mut migration).await;
    migration.stop_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaders_of_postgres_come_go_and_die_at_random_moments() {
    let sandbox = ["--seed", "5", "--records", "1500", "--live-changes", "15"];
    die_at_random(Migration::new("random", &sandbox), 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaders_of_the_append_only_target_come_go_and_die_at_random_moments() {
    let faults = json!({"lose_answers": 0.02, "lose_requests": 0.01, "seed": 2});
    let sandbox = ["--seed", "6", "--records", "400", "--live-changes", "4"];
    let migration = Migration::appendonly("appendrandom", &sandbox, faults).await;
    die_at_random(migration, 12).await;
}

/// Kills stages from outside while loaders come and go: one, three, then two.
async fn die_at_random(mut migration: Migration, rounds: usize) {
    let mut random = StdRng::seed_from_u64(seed());
    migration.start_all(1);
    let mut kills = 0;
    for round in 0..rounds {
        let wanted = [1, 3, 2][round * 3 / rounds];
        for n in 1..=3 {
            let instance = format!("loader-{n}");
            let there = migration.stages.contains_key(&instance);
            if n <= wanted && !there {
                migration.start("loader", &instance, &[]);
            } else if n > wanted && there {
                let mut process = migration.stages.remove(&instance).expect("it is there");
                process.terminate();
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(100..2500))).await;
        // Any stage may die, the loaders most often.
        let instance = match random.random_range(0..6) {
            0 => "extractor-1".to_owned(),
            1 => "transformer-1".to_owned(),
            _ => format!("loader-{}", random.random_range(1..=wanted)),
        };
        let stage = instance.split('-').next().expect("a stage").to_owned();
        migration.stage(&instance).signal(Signal::SIGKILL);
        migration
            .stage(&instance)
            .wait_killed(Duration::from_secs(10));
        migration.start(&stage, &instance, &[]);
        kills += 1;
        println!("round {round}: killed {instance}");
    }
    migration.sandbox.freeze().await;
    let equal = migration.until_equal(Duration::from_secs(120)).await;
    println!(
        "{kills} kills, {} records compared, {} wait",
        equal.compared, equal.waiting
    );
    assert_no_dead_letters(&migration, &equal);
    migration.assert_faults_hit().await;
    migration.stop_all();
}

/// A loader is paused in its work for longer than the group's session, another
/// one takes over, and the first wakes up with what it had in hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_loader_wakes_up_and_its_old_batch_is_refused() {
    let mut random = StdRng::seed_from_u64(seed());
    let faults = json!({"lose_answers": 0.02, "slow_ms": 20, "seed": 3});
    let sandbox = ["--seed", "9", "--records", "300"];
    let mut migration = Migration::appendonly("zombie", &sandbox, faults).await;
    migration.start_all(2);
    for round in 0..2 {
        edits(&migration, &mut random, 5).await;
        // In the first round the snapshot itself is under way.
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2500))).await;
        migration.stage("loader-1").signal(Signal::SIGSTOP);
        edits(&migration, &mut random, 5).await;
        // The other loader gets the partitions and finishes everything.
        let equal = migration.until_equal(Duration::from_secs(90)).await;
        println!(
            "round {round}: {} records compared while one was paused",
            equal.compared
        );
        edits(&migration, &mut random, 5).await;
        migration.stage("loader-1").signal(Signal::SIGCONT);
        // It may join again, or end because it was fenced; both are right.
        let deadline = std::time::Instant::now() + Duration::from_secs(12);
        while std::time::Instant::now() < deadline {
            if let Some(status) = migration.stage("loader-1").ended() {
                assert_eq!(status.code(), Some(3), "{}", migration.logs());
                println!("round {round}: the paused one ended with {status}");
                migration.start("loader", "loader-1", &[]);
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        migration.until_equal(Duration::from_secs(90)).await;
    }
    let equal = migration.until_equal(Duration::from_secs(90)).await;
    assert_no_dead_letters(&migration, &equal);
    still_flows(&mut migration).await;
    migration.stop_all();
}
