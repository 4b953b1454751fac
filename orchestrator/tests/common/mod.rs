//! A folder with the real `drover` and programs that stand in for the stages.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod bus;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::json;

/// A stage that does what files beside it say: `<program>.fail` holds what a
/// call prints and its exit code, `<instance>.fail` the same for one run.
const STAGE: &str = r#"#!/bin/sh
here=$(dirname "$0"); name=$(basename "$0")
fail() { sed 1d "$1" >&2; exit "$(head -n 1 "$1")"; }
verb=$1; shift
echo "$name $verb" >>"$here/calls"
case $verb in
spec) cat "$here/$name.spec" ;;
discover) [ ! -f "$here/$name.fail" ] || fail "$here/$name.fail"; cat "$here/$name.discovery" ;;
check | compile) [ ! -f "$here/$name.fail" ] || fail "$here/$name.fail" ;;
run)
    while [ $# -gt 0 ]; do case $1 in --instance) instance=$2; shift 2 ;; *) shift ;; esac; done
    echo "{\"instance\":\"$instance\",\"pid\":$$,\"http\":\"127.0.0.1:1\"}"
    echo "a line of the log" >&2
    echo $$ >>"$here/$instance.pids"
    [ ! -f "$here/$instance.fail" ] || { mv "$here/$instance.fail" "$here/$instance.failed"; fail "$here/$instance.failed"; }
    trap 'echo "told to stop" >&2; exit 0' TERM
    while :; do sleep 0.05; done ;;
esac
"#;

pub struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    /// An extractor `fake`, a loader `store` and the transformer.
    pub fn new() -> Self {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
        };
        let drover = env!("CARGO_BIN_EXE_drover");
        let link = bench.path("drover");
        fs::hard_link(drover, &link)
            .or_else(|_| fs::copy(drover, &link).map(drop))
            .unwrap();
        let slot = |entity: &str| json!({"slots": {entity: {"entity": entity, "fields": {"name": "Name"}}}});
        let fields =
            json!([{"name": "Name", "type": "string"}, {"name": "Phone", "type": "phone"}]);
        bench.stage("extractor", "fake", json!({
            "configSchema": {
                "type": "object",
                "properties": {"instanceUrl": {"type": "string"}, "clientSecret": {"type": "string"}},
                "required": ["instanceUrl", "clientSecret"],
                "additionalProperties": false,
            },
            "mapping": {
                "objects": {"Account": slot("company"), "Contact": slot("contact"), "Lead": {
                    "slots": {"contact": {"entity": "contact", "fields": {"name": "Name"}},
                              "company": {"entity": "company", "fields": {"name": "Name"}}}}},
                "customObjects": slot("record"),
            },
        }));
        bench.stage("loader", "store", json!({
            "configSchema": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
            "entities": ["company", "contact", "record"],
        }));
        bench.stage("transformer", "mapper", json!({"configSchema": {}}));
        bench.write(
            "drover-extractor-fake.discovery",
            &json!({"objects": [
                {"name": "Account", "fields": fields, "count": 2},
                {"name": "Contact", "fields": fields, "count": 3},
                {"name": "Lead", "fields": fields},
                {"name": "Task", "fields": fields},
                {"name": "Invoice__c", "custom": true, "fields": fields},
            ]})
            .to_string(),
        );
        bench
    }

    fn stage(&self, stage: &str, name: &str, mut spec: serde_json::Value) {
        spec["stage"] = stage.into();
        spec["name"] = name.into();
        spec["version"] = "0.1.0".into();
        let program = format!("drover-{stage}-{name}");
        self.write(&format!("{program}.spec"), &spec.to_string());
        self.write(&program, STAGE);
        let path = self.path(&program);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A valid configuration on these brokers, with more at the top level.
    pub fn config(&self, id: &str, brokers: &str, more: serde_json::Value) -> PathBuf {
        let mut config = json!({
            "id": id, "tenantId": "tenant-1", "sourceType": "fake", "targetType": "store",
            "sourceConfig": {"instanceUrl": "https://x.example", "clientSecret": "TOPSECRET"},
            "targetConfig": {"url": "store://TOPSECRET@here"},
            "kafka": {"brokers": brokers},
        });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        self.write("m.json", &serde_json::to_string_pretty(&config).unwrap())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("drover"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("KAFKA_BROKERS")
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn drover(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }

    /// The number of times a program was asked.
    pub fn calls(&self, call: &str) -> usize {
        self.read("calls")
            .lines()
            .filter(|line| *line == call)
            .count()
    }
}

#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(output: &Output) -> Self {
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Every line of the table, none too long, none with a secret.
    #[track_caller]
    pub fn fits(&self) -> &Self {
        let is_json = self.out.starts_with(['{', '[']);
        for line in self.out.lines().filter(|_| !is_json) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!self.out.contains('\u{1b}'), "colour: {}", self.out);
        assert!(
            !self.out.contains("TOPSECRET") && !self.err.contains("TOPSECRET"),
            "{self:?}"
        );
        self
    }

    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.fits()
    }
}

/// Waits for something that is about to happen.
#[track_caller]
pub fn soon(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happens() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

pub fn is_alive(pid: &str) -> bool {
    // A process that has ended and waits to be reaped is dead enough.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// An id that no other test uses.
pub fn fresh_id() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!("T.{}-{}", std::process::id(), now.as_nanos())
}

/// A broker that stops when the last test that uses it is done.
pub struct Kafka {
    pub brokers: String,
    started: Option<tempfile::TempDir>,
}

static SHARED: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());

/// The broker of `KAFKA_BROKERS`, else one of our own; `None`, said aloud, where
/// there is no Java to run one.
pub fn kafka() -> Option<Arc<Kafka>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kafka) = shared.upgrade() {
        return Some(kafka);
    }
    let kafka = match std::env::var("KAFKA_BROKERS") {
        Ok(brokers) => Kafka {
            brokers,
            started: None,
        },
        Err(_) => {
            if Command::new("java").arg("-version").output().is_err() {
                eprintln!(
                    "SKIPPED: no java here to run Apache Kafka, and KAFKA_BROKERS is not set"
                );
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            let output = local("start", dir.path());
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Kafka {
                brokers: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
                started: Some(dir),
            }
        }
    };
    let kafka = Arc::new(kafka);
    *shared = Arc::downgrade(&kafka);
    Some(kafka)
}

fn local(verb: &str, dir: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/local");
    let mut command = Command::new(script);
    if verb == "start" {
        command
            .args([verb, "--port", "0", "--dir"])
            .arg(dir)
            .output()
            .unwrap()
    } else {
        command.args([verb, "--dir"]).arg(dir).output().unwrap()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(dir) = &self.started {
            local("stop", dir.path());
        }
    }
}
