//! One migration under test: its configuration, its stages and its state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::oracle::{Differences, Truth, compare, compare_appendonly};
use crate::process::{Process, binary};
use crate::sandbox::Sandbox;
use crate::services::{Services, services};

/// A migration from the Salesforce stand-in, in its own topics and schema.
pub struct Migration {
    /// Its id, different in every test.
    pub id: String,
    /// Where its files lie.
    pub dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its schema in PostgreSQL.
    pub schema: String,
    /// Its source.
    pub sandbox: Sandbox,
    /// Its running stages, by instance.
    pub stages: BTreeMap<String, Process>,
    services: &'static Services,
    environment: Vec<(String, String)>,
    target: String,
    /// The append-only target, where that is the target.
    appendonly: Option<Process>,
    objects: OnceLock<Vec<String>>,
    files: tempfile::TempDir,
}

impl Migration {
    /// A migration into PostgreSQL; `sandbox` as on the stand-in's command line.
    pub fn new(name: &str, sandbox: &[&str]) -> Migration {
        Self::with(name, sandbox, "postgres", json!({}), json!({}))
    }

    /// A migration into that target; `more` is added to the configuration.
    pub fn with(
        name: &str,
        sandbox: &[&str],
        target: &str,
        target_config: Value,
        more: Value,
    ) -> Migration {
        Self::on(services(), name, sandbox, target, target_config, more)
    }

    /// The same on services of the test's own, which it may restart.
    pub fn on(
        services: &'static Services,
        name: &str,
        sandbox: &[&str],
        target: &str,
        target_config: Value,
        more: Value,
    ) -> Migration {
        let folder = tempfile::Builder::new()
            .prefix(&format!("drover-{name}."))
            .tempdir()
            .expect("a temporary directory");
        let dir = folder.path().to_path_buf();
        // Five polls a second take more calls than an org's day has.
        let arguments = [&["--daily-calls", "1000000000"], sandbox].concat();
        let sandbox = Sandbox::start(&dir, "salesforce", &arguments);
        let credentials = Sandbox::credentials("salesforce");
        let id = format!("{name}-{:08x}", rand::random::<u32>());
        let schema = id.replace('-', "_");
        let mut document = json!({
            "id": id,
            "tenantId": "tenant-under-test",
            "sourceType": "salesforce",
            "sourceConfig": {
                "instanceUrl": sandbox.url,
                "clientId": credentials["client_id"],
            },
            "targetType": target,
            "targetConfig": target_config,
            "dryRun": false,
            "mappings": {},
            "pollIntervalMs": 200,
            "kafka": {"partitions": 3},
        });
        if target == "postgres" {
            document["targetConfig"]["schema"] = json!(schema);
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            document[field] = value.clone();
        }
        let config = dir.join("migration.json");
        std::fs::write(&config, document.to_string()).expect("the configuration");
        let secret = credentials["client_secret"].as_str().expect("a secret");
        let environment = vec![
            ("KAFKA_BROKERS".to_owned(), services.brokers.clone()),
            (
                "DROVER_SALESFORCE_CLIENT_SECRET".to_owned(),
                secret.to_owned(),
            ),
            ("DROVER_POSTGRES_URL".to_owned(), services.postgres.clone()),
            // What waits for a parent that the source does not show is found
            // waiting, however slow this machine is.
            ("DROVER_ORPHAN_GRACE_MS".to_owned(), i64::MAX.to_string()),
        ];
        Migration {
            id,
            dir,
            config,
            schema,
            sandbox,
            stages: BTreeMap::new(),
            services,
            environment,
            target: target.to_owned(),
            appendonly: None,
            objects: OnceLock::new(),
            files: folder,
        }
    }

    /// A migration into the append-only target: no unique key, a search index
    /// that lags, and answers that are lost as `faults` say.
    pub async fn appendonly(name: &str, sandbox: &[&str], faults: Value) -> Migration {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let server = Process::start(
            folder.path(),
            "target",
            "drover-appendonly-server",
            &["--index-delay-ms", "300", "--max-processing-ms", "200"],
            &[],
        );
        let url = server.first["url"].as_str().expect("its URL").to_owned();
        let answer = reqwest::Client::new()
            .post(format!("{url}/_control/faults"))
            .json(&faults)
            .send()
            .await
            .expect("the target answers");
        assert!(answer.status().is_success(), "{answer:?}");
        let config = json!({"url": url, "leaseMs": 1000, "indexDelayMs": 400});
        let mut migration = Self::with(name, sandbox, "appendonly", config, json!({}));
        migration.appendonly = Some(server);
        migration
    }

    /// The services it runs on.
    pub fn services(&self) -> &'static Services {
        self.services
    }

    /// Sets a variable of the environment of what is run from now on, or takes
    /// it away.
    pub fn set(&mut self, variable: &str, value: Option<&str>) {
        self.environment.retain(|(name, _)| name != variable);
        if let Some(value) = value {
            self.environment
                .push((variable.to_owned(), value.to_owned()));
        }
    }

    /// Runs `drover VERB -c FILE …` to its end.
    pub fn drover(&self, arguments: &[&str]) -> Output {
        Command::new(binary("drover"))
            .args(arguments)
            .arg("-c")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .current_dir(&self.dir)
            .output()
            .expect("drover runs")
    }

    /// Runs `drover` and expects success; returns what it printed.
    pub fn drover_ok(&self, arguments: &[&str]) -> String {
        let output = self.drover(arguments);
        assert!(
            output.status.success(),
            "drover {arguments:?} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `drover status --format json`.
    pub fn status(&self) -> Value {
        let text = self.drover_ok(&["status", "--format", "json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Dead letters of records whose required parent never comes; fails when
    /// there are others.
    pub fn orphans(&self) -> usize {
        let text = self.drover_ok(&["deadletter", "list", "--format", "json"]);
        let listed: Value = serde_json::from_str(&text).expect("JSON");
        let causes = listed.as_array().expect("causes");
        let others = |cause: &&Value| cause["code"] != "PARENT_NEVER_COMES";
        assert_eq!(causes.iter().filter(others).count(), 0, "{text}");
        let counts = causes.iter().filter_map(|cause| cause["count"].as_u64());
        counts.sum::<u64>() as usize
    }

    /// The objects that are migrated, which are settled once.
    pub fn objects(&self) -> &[String] {
        self.objects.get_or_init(|| {
            let status = self.status();
            let objects = status["objects"].as_array().expect("objects");
            let names = objects.iter().filter_map(|o| o["object"].as_str());
            names.map(str::to_owned).collect()
        })
    }

    /// Starts a stage by hand.
    pub fn start(&mut self, stage: &str, instance: &str, environment: &[(&str, &str)]) {
        let binary_name = match stage {
            "extractor" => "drover-extractor-salesforce".to_owned(),
            "transformer" => "drover-transformer-mapper".to_owned(),
            _ => format!("drover-loader-{}", self.target),
        };
        let config = self.config.to_string_lossy().into_owned();
        let mut all: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        all.extend(environment);
        let process = Process::start(
            &self.dir,
            instance,
            &binary_name,
            &["run", "-c", &config, "--instance", instance],
            &all,
        );
        self.stages.insert(instance.to_owned(), process);
    }

    /// Starts `drover run`, which looks after the stages itself.
    pub fn supervise(&mut self, loaders: usize) {
        self.supervise_with(&["--loaders", &loaders.to_string()]);
    }

    /// The same with other arguments.
    pub fn supervise_with(&mut self, arguments: &[&str]) {
        let config = self.config.to_string_lossy().into_owned();
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let mut all = vec!["run", "-c", &config];
        all.extend(arguments);
        let process = Process::start_quiet(&self.dir, "drover", "drover", &all, &environment);
        self.stages.insert("drover".to_owned(), process);
    }

    /// `drover init`, then one extractor, one transformer and that many loaders.
    pub fn start_all(&mut self, loaders: usize) {
        self.drover_ok(&["init"]);
        self.start("extractor", "extractor-1", &[]);
        self.start("transformer", "transformer-1", &[]);
        for n in 1..=loaders {
            self.start("loader", &format!("loader-{n}"), &[]);
        }
    }

    /// A running stage.
    pub fn stage(&mut self, instance: &str) -> &mut Process {
        self.stages
            .get_mut(instance)
            .unwrap_or_else(|| panic!("no stage {instance}"))
    }

    /// Ends every stage with SIGTERM.
    pub fn stop_all(&mut self) {
        for (_, mut process) in std::mem::take(&mut self.stages) {
            process.terminate();
        }
    }

    /// Fails when a stage has ended by itself.
    pub fn assert_alive(&mut self) {
        for (instance, process) in &mut self.stages {
            if let Some(status) = process.ended() {
                panic!("{instance} ended with {status}:\n{}", process.log_tail());
            }
        }
    }

    /// Waits until `ask` has an answer. Meanwhile every stage must stay alive.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut ask: impl AsyncFnMut(&Migration) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = ask(self).await {
                return answer;
            }
            self.assert_alive();
            assert!(
                Instant::now() < deadline,
                "not within {limit:?}: {what}\n{}\n{}",
                String::from_utf8_lossy(&self.drover(&["status"]).stdout),
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its topics.
    pub fn bus(&self) -> Bus {
        Bus::new(&self.services.brokers, &self.id)
    }

    /// How many records are in the target, as Drover counts them.
    pub fn loaded(&self) -> usize {
        let status = self.status();
        let objects = status["objects"].as_array().expect("objects");
        let loaded = objects.iter().filter_map(|o| o["loaded"].as_u64());
        loaded.sum::<u64>() as usize
    }

    /// That no record waits, and none is dead.
    pub fn assert_none_left_out(&self) {
        for object in self.status()["objects"].as_array().expect("objects") {
            let left_out = (object["parked"].as_u64(), object["dead"].as_u64());
            assert_eq!(left_out, (Some(0), Some(0)), "{object}");
        }
    }

    /// Waits until the target is what the source is, and says how many records
    /// were compared and how many wait for a parent that the source lacks.
    pub async fn until_equal(&mut self, limit: Duration) -> Differences {
        let deadline = Instant::now() + limit;
        loop {
            let differences = self.differences().await;
            let Some(missing) = differences.missing() else {
                assert!(differences.compared > 0, "nothing was compared");
                return differences;
            };
            self.assert_alive();
            assert!(
                Instant::now() < deadline,
                "not equal within {limit:?}: {missing}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What differs between source and target just now.
    pub async fn differences(&self) -> Differences {
        let truth = Truth::of(&self.sandbox, self.objects()).await;
        match self.appendonly_url() {
            Some(url) => compare_appendonly(&truth, url).await,
            None => compare(&truth, &self.services.postgres, &self.schema).await,
        }
    }

    /// Where the append-only target is, where that is the target.
    pub fn appendonly_url(&self) -> Option<&str> {
        self.appendonly.as_ref()?.first["url"].as_str()
    }

    /// Lets its files lie when it is dropped, and says where.
    pub fn keep(&mut self) -> &Path {
        self.files.disable_cleanup(true);
        &self.dir
    }

    /// Proves that the append-only target did lose answers, where it is the target.
    pub async fn assert_faults_hit(&self) {
        let Some(url) = self.appendonly_url() else {
            return;
        };
        let answer = reqwest::get(format!("{url}/_control/stats"))
            .await
            .expect("the target answers");
        let stats: Value = answer.json().await.expect("JSON");
        println!("the target: {stats}");
        assert!(stats["answersLost"].as_u64() > Some(0), "{stats}");
    }

    /// Everything the stages said, for a look at it after a failure.
    pub fn logs(&self) -> String {
        self.stages
            .iter()
            .map(|(name, p)| format!("--- {name}\n{}\n", p.log_tail()))
            .collect()
    }
}
