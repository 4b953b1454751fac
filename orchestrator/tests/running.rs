//! `run`, `status` and `deadletter` on a real Kafka, with programs that stand in
//! for the stages.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::time::Duration;

use common::bus::{
    commit, contact, filtered, produce, produce_bytes, produce_committed, raw as put_raw, seen,
};
use common::{Bench, Ended, fresh_id, is_alive, kafka, signal, soon};
use drover_pipeline::record::{AbsentReason, Op};
use drover_schemas::{Custom, Datum};
use serde_json::{Value, json};

#[test]
fn an_edit_lags_by_one_though_its_transaction_ends_with_a_marker() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let now = drover_pipeline::status::now();
    let checkpoint = json!({
        "cursor": 1, "phase": "DELTA", "snapshotComplete": true, "extracted": 99, "asOf": now,
        "at": now,
    });
    let topic = format!("{prefix}.checkpoint");
    produce(&kafka.brokers, &topic, 0, "fake/Contact", &checkpoint);
    let lag = || {
        let ended = bench.drover(&["status", "-c", "m.json", "--format", "json"]);
        ended.code(0);
        let lag = &ended.json()["objects"][0]["lag"];
        let of = |hop: &str| lag[hop]["records"].as_u64().unwrap();
        (
            lag["records"].as_u64().unwrap(),
            of("transform"),
            of("load"),
        )
    };
    assert_eq!(lag(), (0, 0, 0));
    let raw = format!("{prefix}.raw.fake.contact");
    produce_committed(&kafka.brokers, &raw, 0, "fake/Contact/1");
    assert_eq!(lag(), (1, 1, 0));
    produce_committed(&kafka.brokers, &raw, 0, "fake/Contact/2");
    produce_committed(&kafka.brokers, &raw, 1, "fake/Contact/3");
    assert_eq!(lag(), (3, 3, 0));
    // The transformer is through with the first of each partition, and their markers lie
    // before the group.
    commit(&kafka.brokers, &format!("{prefix}.transform"), &raw, 2);
    let canonical = format!("{prefix}.canonical.contact");
    produce_committed(&kafka.brokers, &canonical, 0, "fake/Contact/1#contact");
    assert_eq!(lag(), (2, 1, 1));
    // Where many wait, offsets are counted, and nobody reads them all.
    for number in 0..12 {
        let key = format!("fake/Contact/{number}#contact");
        produce_committed(&kafka.brokers, &canonical, 1, &key);
    }
    assert_eq!(lag(), (26, 1, 25));
}

#[test]
fn status_and_dead_letters_are_read_from_kafka_alone() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact", "Lead"]}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    bench.drover(&["status", "-c", "m.json"]).code(0);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let put = |topic: &str, key: &str, value: Value| {
        produce(&kafka.brokers, &format!("{prefix}.{topic}"), 0, key, &value);
    };
    let now = drover_pipeline::status::now();
    put(
        "checkpoint",
        "fake/Contact",
        json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": true, "extracted": 9, "asOf": now - 3000, "at": now}),
    );
    let entry = |state: Value| json!({"order": {"version": 1, "mapping": 1, "incarnation": 1, "offset": 1}, "fingerprint": "00000000000000000000000000000001", "state": state});
    put(
        "idempotency.store",
        "fake/Contact/1#contact",
        entry(json!("applied")),
    );
    put(
        "idempotency.store",
        "fake/Contact/2#contact",
        entry(json!("applied")),
    );
    put(
        "idempotency.store",
        "fake/Contact/3#contact",
        entry(json!({"deleted": {"reason": "deleted"}})),
    );
    put(
        "parked.store",
        "fake/Contact/4#contact",
        json!({"reason": {"kind": "lease"}}),
    );
    let letter = |key: &str| json!({"stage": "transformer", "key": key, "object": "Contact", "code": "TOO_LONG", "message": "300 characters, at most 255", "place": "Contact.Name", "topic": "t", "partition": 0, "offset": 1, "version": 1, "at": now, "value": ""});
    put(
        "deadletter",
        "transformer/fake/Contact/5",
        letter("fake/Contact/5"),
    );
    put(
        "deadletter",
        "transformer/fake/Contact/6",
        letter("fake/Contact/6"),
    );
    put(
        "status",
        "loader-1",
        json!({"stage": "loader", "name": "store", "instance": "loader-1", "pid": 7, "http": "127.0.0.1:9", "startedAt": now, "at": now, "phase": "running", "lastError": "THROTTLED: wait", "objects": {"Contact": {"unchanged": 4, "stale": 2}}, "lanes": {}}),
    );
    put(
        "status",
        "loader-2",
        json!({"stage": "loader", "name": "store", "instance": "loader-2", "pid": 8, "http": "127.0.0.1:9", "startedAt": now, "at": now - 11_000, "phase": "running", "lastError": null, "objects": {}, "lanes": {}}),
    );
    // Two raw records of which one is read; nothing read of the canonical one.
    put("raw.fake.contact", "fake/Contact/1", json!(1));
    put("raw.fake.contact", "fake/Contact/2", json!(2));
    commit(
        &kafka.brokers,
        &format!("{prefix}.transform"),
        &format!("{prefix}.raw.fake.contact"),
        2,
    );
    put("canonical.contact", "fake/Contact/1#contact", json!(1));

    let ended = bench.drover(&["status", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    let view = ended.json();
    assert_eq!(view["migration"], id.as_str());
    assert_eq!(view["phase"], "loading");
    assert_eq!(view["balanced"], Value::Null);
    let contact = &view["objects"][0];
    for (name, value) in [
        ("extracted", 9),
        ("loaded", 2),
        ("absent", 1),
        ("unchanged", 4),
        ("stale", 2),
        ("parked", 1),
        ("dead", 2),
    ] {
        assert_eq!(contact[name], value, "{name} in {contact}");
    }
    assert_eq!(contact["object"], "Contact");
    assert_eq!(contact["lag"]["transform"]["records"], 1, "{contact}");
    assert_eq!(contact["lag"]["load"]["records"], 1, "{contact}");
    assert_eq!(contact["lag"]["records"], 2, "{contact}");
    assert!(
        contact["lag"]["load"]["seconds"].as_u64().unwrap() < 60,
        "{contact}"
    );
    assert!(
        (3..60).contains(&contact["lag"]["seconds"].as_u64().unwrap()),
        "{contact}"
    );
    let lead = &view["objects"][1];
    assert_eq!(
        (&lead["extracted"], &lead["lag"]["transform"]["records"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(view["processes"][0]["name"], "drover-loader-store");
    assert_eq!(view["processes"][0]["alive"], true);
    assert_eq!(view["processes"][0]["lastError"], "THROTTLED: wait");
    assert_eq!(view["processes"][1]["alive"], false);
    bench.drover(&["status", "-c", "m.json"]).code(0);

    let ended = bench.drover(&["deadletter", "list", "-c", "m.json"]);
    ended.code(0);
    assert!(
        ended
            .out
            .contains("2  Contact: TOO_LONG at Contact.Name (transformer)"),
        "{}",
        ended.out
    );
    let ended = bench.drover(&["deadletter", "list", "-c", "m.json", "--format", "json"]);
    ended.code(0);
    assert_eq!(ended.json()[0]["count"], 2);
    assert!(
        ended.json()[0]["example"]["key"]
            .as_str()
            .unwrap()
            .starts_with("fake/Contact/")
    );
}

#[test]
fn run_supervises_until_a_signal_ends_it() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    let mut run = bench
        .command(&["run", "-c", "m.json", "--loaders", "2", "--dir", "here"])
        .spawn()
        .unwrap();
    let pids = |instance: &str| -> Vec<String> {
        bench
            .read(&format!("{instance}.pids"))
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let instances = ["extractor-1", "transformer-1", "loader-1", "loader-2"];
    soon("all stages run", || {
        instances.iter().all(|instance| pids(instance).len() == 1)
    });
    let second = bench.drover(&["run", "-c", "m.json", "--dir", "here"]);
    second.code(3);
    assert!(
        second
            .err
            .starts_with("REFUSED: another `drover run` is at work in here; end it"),
        "{second:?}"
    );

    // The first restart comes at once.
    let killed = pids("loader-2")[0].clone();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &killed])
            .status()
            .unwrap()
            .success()
    );
    soon("the loader is started again", || {
        pids("loader-2").len() == 2
    });
    // As `timeout` does: to the process, and to its group.
    signal(&run, "INT");
    signal(&run, "TERM");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let ended = Ended::of(&run.wait_with_output().unwrap());
    ended.code(0);
    assert!(
        ended
            .err
            .contains("loader-2: ended (signal 9); starts again now"),
        "{ended:?}"
    );
    assert!(ended.err.contains("logs: here/logs"), "{ended:?}");
    for instance in instances {
        assert!(
            pids(instance).iter().all(|pid| !is_alive(pid)),
            "{instance}"
        );
        let log = bench.read(&format!("here/logs/{instance}.log"));
        assert!(
            log.contains("a line of the log") && log.contains("told to stop"),
            "{log}"
        );
    }
}

#[test]
fn a_bad_configuration_of_a_stage_ends_the_run_and_a_crash_does_not() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    bench.write("extractor-1.fail", "3\nCONNECTION: nobody there; check\n");
    let mut run = bench.command(&["run", "-c", "m.json"]).spawn().unwrap();
    soon("the extractor is started again", || {
        bench.read("extractor-1.pids").lines().count() == 2
    });
    bench.write(
        "loader-1.fail",
        "2\nCONFIG_INVALID: targetConfig.url: is no address; mend it\n",
    );
    let pid = bench.read("loader-1.pids").trim().to_owned();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let ended = Ended::of(&run.wait_with_output().unwrap());
    ended.code(2);
    assert!(ended.err.contains("extractor-1: ended (exit code 3); starts again now\nextractor-1: CONNECTION: nobody there; check\n"), "{ended:?}");
    assert!(
        ended
            .err
            .ends_with("CONFIG_INVALID: targetConfig.url: is no address; mend it\n"),
        "{ended:?}"
    );
    let log = format!(".drover/{id}/logs/loader-1.log");
    assert!(bench.read(&log).contains("is no address"));
}

#[test]
fn run_until_synced_waits_for_the_last_stage() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    bench.drover(&["init", "-c", "m.json"]).code(0);
    let prefix = format!("drover.{}", drover_pipeline::topics::segment(&id));
    let (raw, canonical) = (
        format!("{prefix}.raw.fake.contact"),
        format!("{prefix}.canonical.contact"),
    );
    for partition in 0..4 {
        put_raw(&kafka.brokers, &prefix, partition, "1");
        filtered(&kafka.brokers, &prefix, partition, "1");
    }
    let mut run = bench
        .command(&[
            "run", "-c", "m.json", "--until", "synced", "--format", "json",
        ])
        .spawn()
        .unwrap();
    let mut waits = |what: &str| {
        std::thread::sleep(Duration::from_secs(2));
        assert!(run.try_wait().unwrap().is_none(), "{what}");
    };
    waits("nothing is extracted");
    let checkpoint = |complete: bool| json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": complete, "extracted": 4, "asOf": 1, "at": 1});
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint(false),
    );
    commit(
        &kafka.brokers,
        &format!("{prefix}.load.store"),
        &canonical,
        2,
    );
    waits("the snapshot is not complete");
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint(true),
    );
    waits("the transformer has read nothing");
    // It makes one more of what it reads.
    filtered(&kafka.brokers, &prefix, 3, "1");
    let entry = json!({
        "order": {"version": 1, "mapping": 1, "incarnation": 1, "offset": 2},
        "fingerprint": "00000000000000000000000000000000",
        "state": {"deleted": {"reason": "filtered"}},
    });
    let topic = format!("{prefix}.idempotency.store");
    produce(&kafka.brokers, &topic, 0, "fake/Contact/1#contact", &entry);
    commit(&kafka.brokers, &format!("{prefix}.transform"), &raw, 2);
    waits("the loader has not read the last one");
    commit(
        &kafka.brokers,
        &format!("{prefix}.load.store"),
        &canonical,
        3,
    );
    waits("no extractor has read the source since it began");
    seen(&kafka.brokers, &prefix, "Contact");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    let mut out = String::new();
    run.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let ended = Ended::of(&run.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let view: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&view["phase"], &view["objects"][0]["extracted"]),
        (&json!("paused"), &json!(4)),
        "no process runs any more"
    );
    // Nothing is missing, and nothing was loaded either: it is said why.
    assert_eq!(
        view["filtered"],
        json!([{"name": "Contact", "filtered": 1, "read": 1}])
    );
    assert!(
        ended.err.contains("copied 1 of 1 object: 4 read, 0 loaded"),
        "{ended:?}"
    );

    // The same with a dead letter and two that wait: nothing green that is short.
    let letter = json!({"stage": "loader", "key": "fake/Contact/5#contact", "object": "Contact", "code": "TOO_LONG", "message": "x", "topic": "t", "partition": 0, "offset": 1, "version": 1, "at": 1, "value": ""});
    produce(
        &kafka.brokers,
        &format!("{prefix}.deadletter"),
        0,
        "loader/fake/Contact/5#contact",
        &letter,
    );
    for (id, reason) in [
        // Its parent may be mended, so it is not known to wait in vain.
        (
            6,
            json!({"kind": "parent", "parent": "fake/Contact/5#contact"}),
        ),
        (
            7,
            json!({"kind": "link", "parents": ["fake/Account/9#company"]}),
        ),
    ] {
        let parked = json!({"reason": reason, "entity": "contact", "order": {"version": 1, "mapping": 1, "incarnation": 1, "offset": 1}, "since": 1, "value": ""});
        let key = format!("fake/Contact/{id}#contact");
        produce(
            &kafka.brokers,
            &format!("{prefix}.parked.store"),
            0,
            &key,
            &parked,
        );
    }
    let ended = bench.drover(&["run", "-c", "m.json", "--until", "synced"]);
    ended.code(3);
    assert!(ended.out.starts_with("incomplete\nOBJECT"), "{ended:?}");
    // Nobody has read these three from the source.
    assert!(
        ended.err.contains("\nUNBALANCED: 3 records are in no place, or in two; the first is fake/Contact/5#contact; "),
        "{ended:?}"
    );
    assert!(
        ended.err.ends_with(
            "INCOMPLETE: not everything is in the target as it should be: 1 dead (Contact 1); \
             1 parked, waiting for a record they require; \
             1 loaded without a link to a record that is not there; \
             `drover deadletter list` says why they are dead, \
             and `drover parked list` says what the parked ones wait for: \
             they go on by themselves when it comes, \
             and by `drover parked release` when it never does\n"
        ),
        "{ended:?}"
    );
}

/// `drover run 2>&1 | head`: the migration goes on without its reader.
#[test]
fn a_reader_that_leaves_ends_nothing() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(&id, &kafka.brokers, json!({"objects": ["Contact"]}));
    let mut run = bench
        .command(&["run", "-c", "m.json", "--dir", "here"])
        .spawn()
        .unwrap();
    drop(run.stderr.take());
    let starts = || bench.read("loader-1.pids").lines().count();
    soon("the loader runs", || starts() == 1);
    let first = bench.read("loader-1.pids");
    std::process::Command::new("kill")
        .args(["-9", first.trim()])
        .status()
        .unwrap();
    soon("it is started again", || starts() == 2);
    signal(&run, "TERM");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn a_dry_run_starts_no_loader() {
    let Some(kafka) = kafka() else { return };
    let (bench, id) = (Bench::new(), fresh_id());
    bench.config(
        &id,
        &kafka.brokers,
        json!({"objects": ["Contact"], "dryRun": true, "targetConfig": {}}),
    );
    bench.drover(&["init", "-c", "m.json"]).code(0);
    let prefix = format!("drover-dryrun.{}", drover_pipeline::topics::segment(&id));
    let checkpoint = json!({"cursor": 1, "phase": "DELTA", "snapshotComplete": true, "extracted": 4, "asOf": 1, "at": 1});
    produce(
        &kafka.brokers,
        &format!("{prefix}.checkpoint"),
        0,
        "fake/Contact",
        &checkpoint,
    );
    let (raw, canonical) = (
        format!("{prefix}.raw.fake.contact"),
        format!("{prefix}.canonical.contact"),
    );
    let mut datum = Datum::empty(drover_schemas::entity("contact").unwrap());
    datum.custom.push(Custom {
        name: "Level__c".into(),
        kind: "string".into(),
        json: "\"gold\"".into(),
    });
    let mut body = Vec::new();
    datum.encode(&mut body);
    let put = |id: u32, reason: Option<AbsentReason>| {
        let id = id.to_string();
        let op = reason.map_or(Op::Upsert, |_| Op::Absent);
        let body = reason.is_none().then_some(body.as_slice());
        let value = contact(&id, "contact", op, body);
        let key = format!("fake/Contact/{id}#contact");
        produce_bytes(&kafka.brokers, &canonical, 0, &key, &value);
    };
    for id in ["1", "2", "3"] {
        put_raw(&kafka.brokers, &prefix, 0, id);
    }
    put(1, None);
    put(2, None);
    put(3, None);
    put(3, Some(AbsentReason::Filtered));
    commit(&kafka.brokers, &format!("{prefix}.transform"), &raw, 4);
    seen(&kafka.brokers, &prefix, "Contact");
    let report = "synced\n\
        dry run: no target; what would be written\n\
        OBJECT   ENTITY   EXTRACTED  WOULD LOAD  ABSENT  REJECTED\n\
        Contact  contact          4           2       1         0\n\
        References are not followed: what lacks a parent is counted as loaded.\n\
        \n\
        absent, by reason (filtered: by `$where`, or by the connector's own mapping)\n  \
        Contact to contact: filtered 1\n\
        \n\
        filled fields without a mapping, which go to `custom`\n  \
        Contact to contact: Level__c 2\n";
    let ended = bench.drover(&["run", "-c", "m.json", "--until", "synced"]);
    ended.code(0);
    assert_eq!(ended.out, report);
    let ended = bench.drover(&["status", "-c", "m.json"]);
    ended.code(0);
    let (_, tables) = report.split_once("written\n").unwrap();
    assert!(
        ended.out.contains(": fake, dry run: no target, "),
        "{ended:?}"
    );
    let last = format!("\nwhat would be written\n{tables}");
    assert!(ended.out.ends_with(&last), "{ended:?}");
    put_raw(&kafka.brokers, &prefix, 0, "4");
    commit(&kafka.brokers, &format!("{prefix}.transform"), &raw, 5);
    let letter = json!({"stage": "transformer", "key": "fake/Contact/4", "object": "Contact", "code": "TOO_LONG", "message": "x", "topic": "t", "partition": 0, "offset": 1, "version": 1, "at": 1, "value": ""});
    let topic = format!("{prefix}.deadletter");
    produce(
        &kafka.brokers,
        &topic,
        0,
        "transformer/fake/Contact/4",
        &letter,
    );
    let ended = bench.drover(&[
        "run", "-c", "m.json", "--until", "synced", "--format", "json",
    ]);
    ended.code(3);
    let json = ended.json();
    assert_eq!(json["dryRunReport"]["rejected"]["Contact"]["TOO_LONG"], 1);
    assert_eq!(json["dryRunReport"]["rows"][0]["wouldLoad"], 2);
    assert!(
        ended
            .err
            .contains("INCOMPLETE: not everything would be loaded: 1 dead (Contact 1); "),
        "{ended:?}"
    );
    assert_eq!(bench.calls("drover-transformer-mapper run"), 2);
    assert_eq!(bench.calls("drover-loader-store run"), 0);
}
