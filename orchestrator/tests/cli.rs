//! The command line without a broker: configurations, connectors, exit codes.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};

use common::{Bench, signal, soon};
use serde_json::json;

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

#[test]
fn every_problem_of_a_configuration_is_told_at_once() {
    let bench = Bench::new();
    let file = bench.write(
        "m.yaml",
        "id: m\ntenant: t\nsourceType: fakee\nsourceConfig:\n  instanceUrl: ${NOT_SET}\ntargetType: store\ntargetConfig:\n  url: 5\nkafka:\n  brokers: 127.0.0.1:1\n",
    );
    let file = file.file_name().unwrap().to_str().unwrap();
    let expected = [
        "CONFIG_INVALID: tenantId: is missing (m.yaml:1); say whose data it is",
        "CONFIG_INVALID: tenant: is no known field (m.yaml:2); write `tenantId`, or remove it",
        "CONFIG_INVALID: sourceConfig.instanceUrl: the environment variable NOT_SET is not set (m.yaml:5); set NOT_SET, or use `${file:PATH}`",
        "CONFIG_INVALID: targetConfig.url: must be a text, not a number (m.yaml:8); put it in quotes",
        "CONFIG_INVALID: sourceType: no extractor `fakee` is installed (m.yaml:3); write `fake`; installed: fake",
    ];
    for verb in ["init", "run"] {
        let ended = bench.drover(&[verb, "-c", file]);
        ended.code(2);
        assert_eq!(ended.err.lines().collect::<Vec<_>>(), expected, "{verb}");
    }
    let ended = bench.drover(&["-c", file, "check", "--format", "json"]);
    ended.code(2);
    assert_eq!(
        ended.json()["problems"].as_array().unwrap().len(),
        expected.len()
    );
    assert_eq!(ended.json()["ok"], false);
}

#[test]
fn what_cannot_be_read_is_told() {
    let bench = Bench::new();
    for (arguments, told) in [
        (
            &["status"][..],
            "CONFIG_INVALID: no configuration is named; add `-c FILE`\n",
        ),
        (
            &["status", "-c", "nope.json"],
            "CONFIG_INVALID: can't be read: no such file or directory (nope.json); name the migration's configuration by `-c FILE`\n",
        ),
        (
            &["check", "-c", "drover-extractor-fake"],
            "CONFIG_INVALID: holds a text, not a group of fields (drover-extractor-fake:2); start",
        ),
    ] {
        let ended = bench.drover(arguments);
        ended.code(2);
        assert!(ended.err.starts_with(told), "{ended:?}");
    }
    assert_eq!(bench.drover(&["frobnicate"]).code, Some(2));
    assert_eq!(bench.drover(&["--help"]).code, Some(0));
}

#[test]
fn a_connector_is_looked_for_and_asked() {
    let bench = Bench::new();
    bench.config("m", NOWHERE, json!({"targetType": "nope"}));
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(2);
    assert_eq!(
        ended.err,
        "CONFIG_INVALID: targetType: no loader `nope` is installed (m.json:5); installed: store; drover-loader-nope would stand beside drover\n"
    );
    // Its own spec lies.
    bench.config("m", NOWHERE, json!({}));
    bench.write("drover-loader-store.spec", "{\"stage\":\"loader\"}");
    let ended = bench.drover(&["init", "-c", "m.json"]);
    ended.code(3);
    assert!(ended.err.starts_with("REFUSED: "), "{ended:?}");
    assert!(
        ended
            .err
            .contains("drover-loader-store does not answer as a connector does"),
        "{ended:?}"
    );
    // In a dry run nobody asks for the target.
    bench.config("m", NOWHERE, json!({"dryRun": true, "targetConfig": {}}));
    bench.write(
        "drover-extractor-fake.fail",
        "3\nUNAUTHORIZED: wrong secret (at login); renew\n",
    );
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(3);
    let rows: Vec<Vec<&str>> = ended
        .out
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    for row in [
        ["configuration", "ok", "m.json"],
        ["source", "fake", "failed"],
        ["target", "skipped", "a"],
        ["mappings", "skipped", "only"],
        ["kafka", "127.0.0.1:1", "failed"],
    ] {
        assert!(rows.contains(&row.to_vec()), "no {row:?} in {}", ended.out);
    }
    // The table has the reason in short, and the whole stands once, below it.
    assert!(
        ended
            .out
            .contains("failed   UNAUTHORIZED: wrong secret (at login)\n"),
        "{}",
        ended.out
    );
    assert!(ended.err.contains("Connection refused"), "{}", ended.err);
    assert!(
        ended
            .err
            .starts_with("UNAUTHORIZED: wrong secret (at login); renew\nBROKER_UNREACHABLE: "),
        "{ended:?}"
    );
}

#[test]
fn check_resolves_objects_and_mappings_as_init_will() {
    let bench = Bench::new();
    let wrong = json!({
        "objects": ["Contact", "Contcat", "Lead"],
        "mappings": {
            "Phone": "birthDate",
            "Fone": "phoneNumber",
            "Contact": {"Name": "companyId", "Phone": "phonenumber"},
        },
    });
    bench.config("m", NOWHERE, wrong.clone());
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    let text = bench.read("m.json");
    let line = |name: &str| 1 + text.lines().position(|line| line.contains(name)).unwrap();
    let told: Vec<&str> = ended
        .err
        .lines()
        .filter(|line| line.starts_with("CONFIG_INVALID: "))
        .collect();
    for (path, what, name, advice) in [
        (
            "objects[1]",
            "the source has no `Contcat`",
            "\"Contcat\"",
            "write `Contact`",
        ),
        (
            "mappings.Fone",
            "no object of this migration shows a field `Fone`",
            "\"Fone\"",
            "",
        ),
        (
            "mappings.Contact.Name",
            "Contact.Name is declared as string, which promises no such form, and \
             contact.companyId is a reference",
            "\"companyId\"",
            "map a field that the source declares as a reference",
        ),
        (
            "mappings.Contact.Phone",
            "contact has no field `phonenumber`",
            "\"phonenumber\"",
            "did you mean `phoneNumber`?",
        ),
        (
            "mappings.Phone",
            "Lead.Phone is declared as phone, and contact.birthDate is a date",
            "\"birthDate\"",
            "map it to another field",
        ),
    ] {
        let start = format!(
            "CONFIG_INVALID: {path}: {what} (m.json:{}); {advice}",
            line(name)
        );
        assert!(
            told.iter().any(|told| told.starts_with(&start)),
            "no {start:?} in {}",
            ended.err
        );
    }
    assert_eq!(bench.calls("drover-extractor-fake discover"), 1);

    // Without the source, what the connector's own rules tell; and a broken
    // configuration elsewhere hides none of it.
    bench.write(
        "drover-extractor-fake.fail",
        "3\nCONNECTION: nobody there; check\n",
    );
    let wrong = json!({"mappings": {"Name": "birthDate", "Phone": "phonenumber"}, "objets": []});
    bench.config("m", NOWHERE, wrong);
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    for told in [
        "CONFIG_INVALID: objets: is no known field (m.json:",
        "CONFIG_INVALID: mappings.Name: Lead.Name is declared as text, which promises no such form",
        "CONFIG_INVALID: mappings.Phone: no entity of this migration has a field `phonenumber` (m.json:",
    ] {
        assert!(ended.err.contains(told), "no {told:?} in {}", ended.err);
    }
}

#[test]
fn what_is_wrong_in_one_place_hides_nothing_that_is_wrong_in_another() {
    let bench = Bench::new();
    // Beside an unknown field, what only the connector can tell of its part.
    let objets = "CONFIG_INVALID: objets: is no known field (m.json:";
    let address = "CONFIG_INVALID: sourceConfig.instanceUrl: is no address (m.json:9); mend it";
    bench.config("m", NOWHERE, json!({"objets": []}));
    let told = bench.drover(&["check", "-c", "m.json"]).err;
    let own = told.lines().find(|line| line.starts_with(objets)).unwrap();
    bench.write(
        "drover-extractor-fake.fail",
        &format!("2\n{own}\n{address}\n"),
    );
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    let lines = |what: &str| ended.err.lines().filter(|l| l.starts_with(what)).count();
    assert_eq!((lines(objets), lines(address)), (1, 1), "{}", ended.err);
    std::fs::remove_file(bench.path("drover-extractor-fake.fail")).unwrap();

    // Beside a field that the source does not show, what only the transformer can
    // tell of another mapping.
    let mappings = json!({"Contact": {"Fone": "phoneNumber", "$where": {"Name": {"below": "x"}}}});
    bench.config(
        "m",
        NOWHERE,
        json!({"objects": ["Contact"], "mappings": mappings}),
    );
    let slot = "CONFIG_INVALID: objects.Contact.slots.contact";
    bench.write(
        "drover-transformer-mapper.fail",
        &format!("2\n{slot}.where.Name: is no number; mend it\n{slot}.fields: follows; mend\n"),
    );
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    for told in [
        "CONFIG_INVALID: mappings.Contact.Fone: Contact shows no field `Fone`",
        "CONFIG_INVALID: mappings.Contact.$where.Name: is no number",
    ] {
        assert!(ended.err.contains(told), "no {told:?} in {}", ended.err);
    }
    assert!(!ended.err.contains("follows"), "{}", ended.err);
}

/// A name that only the source can judge, and a value that only the transformer can,
/// are told in the same round as a wrong structure.
#[test]
fn a_wrong_structure_hides_no_wrong_name() {
    let bench = Bench::new();
    let mappings = json!({
        "Contakt": {"Phone": {"to": "phoneNumber", "as": "phon"}},
        "Contact": {"$were": {"Name": {"atLeat": 3}}, "Name": ["title", "bio"]},
    });
    let more = json!({"objets": [], "objects": ["Contact", "Acount"], "mappings": mappings});
    bench.config("m", NOWHERE, more);
    let where_ = "objects.Contact.slots.contact.fields.name.default";
    bench.write(
        "drover-transformer-mapper.fail",
        &format!("2\nCONFIG_INVALID: {where_}: follows; mend it\n"),
    );
    let ended = bench.drover(&["check", "-c", "m.json"]);
    ended.code(2);
    for told in [
        "objets: is no known field",
        "mappings.Contakt.Phone.as: `phon` is no form",
        "mappings.Contakt: `Contakt` is no object of this migration",
        "mappings.Contact.$were: is no setting of a mapping",
        "mappings.Contact.$were.Name.atLeat: is no condition",
        "mappings.Contact.Name: must be the name of one canonical field, not a list",
        "objects[1]: the source has no `Acount`",
    ] {
        let told = format!("CONFIG_INVALID: {told}");
        let lines = ended.err.lines().filter(|line| line.starts_with(&told));
        assert_eq!(lines.count(), 1, "{told} in {}", ended.err);
    }
    assert!(!ended.err.contains("follows"), "{}", ended.err);
    assert_eq!(bench.calls("drover-extractor-fake discover"), 1);
}

#[test]
fn a_secret_in_the_file_itself_is_a_warning() {
    let bench = Bench::new();
    let spec = bench.read("drover-extractor-fake.spec");
    let plain = r#""clientSecret":{"type":"string"}"#;
    assert!(spec.contains(plain), "{spec}");
    let marked = r#""clientSecret":{"type":"string","secret":true}"#;
    bench.write("drover-extractor-fake.spec", &spec.replace(plain, marked));
    bench.config("m", NOWHERE, json!({}));
    let told = "warning: sourceConfig.clientSecret: the secret stands in the file itself (m.json:";
    let advice = "remove it and set DROVER_FAKE_CLIENT_SECRET, or write `${ENV}` or `${file:PATH}`";
    let ended = bench.drover(&["check", "-c", "m.json"]);
    let line = ended.err.lines().find(|line| line.starts_with(told));
    assert!(line.unwrap().ends_with(advice), "{}", ended.err);
    ended.fits();
    // On standard error alone, and by no verb that starts nothing.
    let what = "stands in the file itself";
    assert!(!ended.out.contains(what), "{}", ended.out);
    let ended = bench.drover(&["status", "-c", "m.json"]);
    ended.code(3);
    assert!(!ended.err.contains(what), "{}", ended.err);
    let ended = bench.drover(&["check", "-c", "m.json", "--format", "json"]);
    let row = ended.json()["checks"][0].clone();
    assert_eq!(
        (&row["ok"], &row["warn"]),
        (&json!(true), &json!(true)),
        "{row}"
    );
    ended.fits();
    // It is taken, and the run begins.
    let mut run = bench.command(&["run", "-c", "m.json"]).spawn().unwrap();
    let mut err = BufReader::new(run.stderr.take().unwrap()).lines();
    let line = err.next().unwrap().unwrap();
    assert!(line.starts_with(told) && line.ends_with(advice), "{line}");
    let line = err.next().unwrap().unwrap();
    assert!(line.starts_with("BROKER_UNREACHABLE: "), "{line}");
    signal(&run, "TERM");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    // Kept elsewhere, nobody is warned.
    let config = bench.read("m.json").replace("\"TOPSECRET\"", "\"${HUSH}\"");
    bench.write("m.json", &config);
    let mut command = bench.command(&["check", "-c", "m.json"]);
    let ended = command.env("HUSH", "TOPSECRET").output().unwrap();
    let ended = common::Ended::of(&ended);
    assert!(!ended.fits().err.contains("warning:"), "{}", ended.err);
}

#[test]
fn a_value_that_the_source_does_not_list_is_a_warning() {
    let bench = Bench::new();
    let mappings = json!({"Contact": {"$where": {"Phone": ["home", "offce"]}}});
    bench.config(
        "m",
        NOWHERE,
        json!({"objects": ["Contact"], "mappings": mappings}),
    );
    let discovery = bench.read("drover-extractor-fake.discovery");
    let listed = r#"{"name":"Phone","type":"phone","values":["home","office"]}"#;
    let discovery = discovery.replace(r#"{"name":"Phone","type":"phone"}"#, listed);
    assert!(discovery.contains("office"), "{discovery}");
    bench.write("drover-extractor-fake.discovery", &discovery);
    let ended = bench.drover(&["check", "-c", "m.json", "--format", "json"]);
    let checks = ended.json()["checks"].clone();
    let mut rows = checks.as_array().unwrap().iter();
    let row = rows.find(|row| row["check"] == "mappings").unwrap();
    assert_eq!(
        (&row["ok"], &row["warn"]),
        (&json!(true), &json!(true)),
        "{row}"
    );
    let warning = row["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("mappings.Contact.$where.Phone: the source lists no value `offce`")
            && warning.ends_with("did you mean `office`?"),
        "{warning}"
    );
    assert_eq!(row["warnings"].as_array().unwrap().len(), 1);
}

/// The calls that a page for authors shows are those that the templates have, and
/// these compile.
#[test]
fn the_page_for_connectors_shows_the_calls_as_they_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let page = read("CONNECTORS.md");
    let mut blocks = page.split("```rust\n").skip(1);
    for (path, of) in [
        ("extractors/dummy/src/lib.rs", "impl Extractor for Dummy {"),
        ("loaders/dummy/src/lib.rs", "impl Loader for Dummy {"),
    ] {
        let block = blocks.next().unwrap().split("```").next().unwrap();
        let shown: Vec<&str> = block
            .lines()
            .map(|line| line.trim_end_matches(';'))
            .collect();
        let code = read(path);
        let calls = code
            .split_once(of)
            .unwrap()
            .1
            .split("\n}\n")
            .next()
            .unwrap();
        let calls = calls.lines().filter_map(|line| {
            let line = line.strip_prefix("    ")?.strip_suffix(" {")?;
            let is_call = line.starts_with("fn ") || line.starts_with("async fn ");
            // What a template does not use begins with `_`.
            is_call.then(|| line.replace("(_", "(").replace(", _", ", "))
        });
        assert_eq!(shown, calls.collect::<Vec<_>>(), "{path}");
    }
    assert!(blocks.next().is_none());
}

#[test]
fn a_broker_that_is_away_is_told() {
    let bench = Bench::new();
    bench.config("m", NOWHERE, json!({}));
    let verbs = [&["init"][..], &["status"], &["deadletter", "list"]];
    std::thread::scope(|scope| {
        for verb in verbs {
            let bench = &bench;
            scope.spawn(move || {
                let ended = bench.drover(&[verb, &["-c", "m.json"]].concat());
                ended.code(3);
                assert!(ended.err.starts_with("BROKER_UNREACHABLE: "), "{ended:?}");
                // Which one, and why; and nobody says that it is tried again.
                assert!(
                    ended
                        .err
                        .contains("Kafka at 127.0.0.1:1 does not answer (127.0.0.1:1: ")
                        && ended.err.contains("Connection refused"),
                    "{ended:?}"
                );
                assert!(!ended.err.contains("keeps trying"), "{ended:?}");
            });
        }
    });
}

#[test]
fn a_run_waits_for_a_broker_that_is_away() {
    let bench = Bench::new();
    bench.config("m", NOWHERE, json!({}));
    let mut run = bench.command(&["run", "-c", "m.json"]).spawn().unwrap();
    let mut err = BufReader::new(run.stderr.take().unwrap()).lines();
    let line = err.next().unwrap().unwrap();
    assert!(line.starts_with("BROKER_UNREACHABLE: "), "{line}");
    assert!(
        line.contains("Kafka at 127.0.0.1:1 does not answer")
            && line.ends_with("; Drover keeps trying"),
        "{line}"
    );
    signal(&run, "TERM");
    soon("the run ends", || run.try_wait().unwrap().is_some());
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn an_error_is_explained_without_a_configuration() {
    let bench = Bench::new();
    let ended = bench.drover(&["explain", "too_long"]);
    ended.code(0);
    assert!(ended.out.starts_with("# TOO_LONG\n"), "{ended:?}");
    let list = bench.drover(&["explain"]);
    list.code(0);
    assert!(list.out.contains("TARGET_REFUSED"), "{list:?}");
    let one = bench.drover(&["explain", "TOO_LONG", "--format", "json"]);
    assert_eq!(one.json()["class"], "record");
    let ended = bench.drover(&["explain", "NOPE"]);
    ended.code(2);
    assert!(
        ended
            .err
            .starts_with("CONFIG_INVALID: there is no code `NOPE`; ")
    );
}

#[test]
fn letters_are_never_changed_by_accident() {
    let bench = Bench::new();
    bench.config("m", NOWHERE, json!({}));
    let waive = ["deadletter", "waive", "--actor", "ann", "-c", "m.json"];
    for (verb, told) in [
        (
            &["deadletter", "retry", "-c", "m.json"][..],
            "no dead letter is named; give a KEY",
        ),
        (
            &["deadletter", "unwaive", "-c", "m.json"],
            "no dead letter is named; give a KEY",
        ),
        (
            &[&waive[..], &["--all", "--reason", " "]].concat(),
            "--reason is empty",
        ),
        (
            &[&waive[..], &["--reason", "x"]].concat(),
            "no dead letter is named; give a KEY",
        ),
        (
            &["deadletter", "list", "--since", "soon", "-c", "m.json"],
            "`soon` is no moment",
        ),
        (
            &["deadletter", "retry", "--code", "TOOLONG", "-c", "m.json"],
            "there is no code `TOOLONG`",
        ),
        (
            &["deadletter", "release", "-c", "m.json"],
            "no dead letter is named; give a KEY",
        ),
        (
            &["parked", "release", "-c", "m.json"],
            "no parked record is named; give a KEY",
        ),
    ] {
        let ended = bench.drover(verb);
        ended.code(2);
        let expected = format!("CONFIG_INVALID: {told}");
        assert!(ended.err.starts_with(&expected), "{verb:?}: {ended:?}");
    }
    // A reason is no option to leave out.
    assert_eq!(
        bench.drover(&[&waive[..], &["--all"]].concat()).code,
        Some(2)
    );
}
