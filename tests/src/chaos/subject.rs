//! One migration that blows fall on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use drover_pipeline::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::blow::Blow;
use super::children::children;
use super::figures::Figures;
use super::{Options, STUCK};
use crate::migration::Migration;

/// Records that are made after each blow.
const PROBES: usize = 4;
/// Processes of one migration that are killed at once, at the most.
const MOST: usize = 3;
/// A process that lives this long is killed again: one that dies sooner is
/// held back by `drover run`, as it should be, and that is not recovery.
const WELL: Duration = Duration::from_secs(11);
/// Longer than a group waits for a member.
const LONG_PAUSE_MS: std::ops::Range<u64> = 9_000..13_000;
/// How far a clock jumps, forth or back: from a minute to some hours.
const JUMP_MS: std::ops::Range<i64> = 60_000..4 * 3_600_000;
/// The first copy must be done within this time.
const FIRST: Duration = Duration::from_secs(180);
/// In the end both sides must be equal within this time.
const EQUAL: Duration = Duration::from_secs(180);
/// The instance that comes and goes beside those of `drover run`.
const EXTRA: &str = "loader-extra";
/// What the source's API does to its callers, and is to be endured.
const FAULTS: [&str; 8] = [
    "rate_limit",
    "server_error",
    "cut_before",
    "cut_after",
    "slow",
    "expired_token",
    "html_page",
    "truncated",
];

/// One migration.
pub struct Subject {
    migration: Migration,
    arguments: Vec<String>,
    /// By instance, its process and since when we know it.
    processes: BTreeMap<String, (Pid, Instant)>,
    number: usize,
    database: Option<tokio_postgres::Client>,
}

impl Subject {
    /// A migration into PostgreSQL that has finished its first copy.
    pub async fn postgres(options: &Options) -> Subject {
        let sandbox = sandbox(options, 1);
        let sandbox: Vec<&str> = sandbox.iter().map(String::as_str).collect();
        Self::begin(Migration::new("chaos", &sandbox), options).await
    }

    /// The same into the append-only target, which loses answers.
    pub async fn appendonly(options: &Options) -> Subject {
        let sandbox = sandbox(options, 2);
        let sandbox: Vec<&str> = sandbox.iter().map(String::as_str).collect();
        let faults = json!({"lose_answers": 0.01, "lose_requests": 0.01, "seed": options.seed});
        let migration = Migration::appendonly("chaos-append", &sandbox, faults).await;
        Self::begin(migration, options).await
    }

    async fn begin(migration: Migration, options: &Options) -> Subject {
        let mut subject = Subject {
            migration,
            arguments: vec![
                "--loaders".to_owned(),
                options.loaders.to_string(),
                "--transformers".to_owned(),
                "2".to_owned(),
            ],
            processes: BTreeMap::new(),
            number: 0,
            database: None,
        };
        let clocks = subject.clocks();
        std::fs::create_dir_all(&clocks).expect("a folder for the clocks");
        let clocks = clocks.to_string_lossy().into_owned();
        subject.migration.set(clock::SHIFTS, Some(&clocks));
        subject.supervise();
        let flows = subject.probe(FIRST).await;
        assert!(flows, "no rows flow at all:\n{}", subject.logs());
        subject
    }

    /// Where processes are told how far off their clocks are.
    fn clocks(&self) -> PathBuf {
        self.migration.dir.join("clocks")
    }

    fn supervise(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.migration.supervise_with(&arguments);
    }

    /// Lets a blow fall, and takes the time until rows flow again.
    pub async fn strike(&mut self, blow: Blow, random: &mut StdRng, figures: &mut Figures) {
        let since = match blow {
            Blow::Kill => self.kill(random, figures).await,
            Blow::KillTwice => self.kill_twice(random, figures).await,
            Blow::Pause => self.pause(random, 200..3_000).await,
            Blow::LongPause => self.pause(random, LONG_PAUSE_MS).await,
            Blow::Clock => self.clock(random, figures),
            Blow::Supervisor => self.kill_supervisor(figures),
            Blow::Loaders => self.loaders(random, figures),
            Blow::Api => self.api(random).await,
            // The services' own; they are not ours to restart.
            Blow::Kafka | Blow::Postgres => Instant::now(),
        };
        self.flows(blow, since, figures).await;
    }

    /// Takes the time until rows flow.
    pub async fn flows(&mut self, blow: Blow, since: Instant, figures: &mut Figures) {
        if self.probe(STUCK).await {
            figures.flowed(blow, since.elapsed());
        } else {
            figures.stuck(blow, &self.logs());
        }
    }

    /// Kills up to three processes at once that have lived for a while.
    async fn kill(&mut self, random: &mut StdRng, figures: &mut Figures) -> Instant {
        let began = Instant::now();
        let mut well: Vec<Pid> = loop {
            self.look();
            let old = self.processes.values();
            let old = old.filter(|(_, since)| since.elapsed() >= WELL);
            let well: Vec<Pid> = old.map(|(pid, _)| *pid).collect();
            if !well.is_empty() || began.elapsed() > STUCK {
                break well;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        well.shuffle(random);
        let number = random.random_range(1..=MOST).min(well.len());
        for pid in &well[..number] {
            figures.kills += usize::from(kill(*pid, Signal::SIGKILL).is_ok());
        }
        Instant::now()
    }

    /// Kills one, and again what is started in its place.
    async fn kill_twice(&mut self, random: &mut StdRng, figures: &mut Figures) -> Instant {
        self.look();
        let names: Vec<String> = self.processes.keys().cloned().collect();
        let Some(name) = names.choose(random) else {
            return Instant::now();
        };
        let wait = Duration::from_millis(random.random_range(0..600));
        let before = self.processes.get(name).map(|(pid, _)| *pid);
        if let Some(pid) = before {
            figures.kills += usize::from(kill(pid, Signal::SIGKILL).is_ok());
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.look();
            let now = self.processes.get(name).map(|(pid, _)| *pid);
            if now.is_some() && now != before {
                break;
            }
        }
        tokio::time::sleep(wait).await;
        if let Some((pid, _)) = self.processes.get(name) {
            figures.kills += usize::from(kill(*pid, Signal::SIGKILL).is_ok());
        }
        Instant::now()
    }

    /// Stops one for a while; the time counts from when it goes on.
    async fn pause(&mut self, random: &mut StdRng, ms: std::ops::Range<u64>) -> Instant {
        self.look();
        let pids: Vec<Pid> = self.processes.values().map(|(pid, _)| *pid).collect();
        let ms = random.random_range(ms);
        if let Some(pid) = pids.choose(random) {
            let _ = kill(*pid, Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let _ = kill(*pid, Signal::SIGCONT);
        }
        Instant::now()
    }

    /// Lets the clocks of up to three processes jump, which then stay wrong, and
    /// kills some of these, so that they start with such a clock.
    fn clock(&mut self, random: &mut StdRng, figures: &mut Figures) -> Instant {
        self.look();
        let mut names: Vec<String> = self.processes.keys().cloned().collect();
        names.extend(["drover", EXTRA].map(str::to_owned));
        names.shuffle(random);
        for name in &names[..random.random_range(1..=MOST)] {
            let off = random.random_range(JUMP_MS) * if random.random_bool(0.5) { 1 } else { -1 };
            // Renamed, so that no half of it is read.
            let (file, whole) = (self.clocks().join(name), self.clocks().join("new"));
            std::fs::write(&whole, off.to_string()).expect("a clock");
            std::fs::rename(&whole, &file).expect("a clock");
            if let Some((pid, _)) = self.processes.get(name)
                && random.random_bool(0.5)
            {
                figures.kills += usize::from(kill(*pid, Signal::SIGKILL).is_ok());
            }
        }
        Instant::now()
    }

    fn kill_supervisor(&mut self, figures: &mut Figures) -> Instant {
        let drover = self.migration.stage("drover");
        drover.signal(Signal::SIGKILL);
        drover.wait_killed(Duration::from_secs(10));
        figures.kills += 1;
        let since = Instant::now();
        self.processes.clear();
        self.supervise();
        since
    }

    /// One more loader, or one fewer, gently or not.
    fn loaders(&mut self, random: &mut StdRng, figures: &mut Figures) -> Instant {
        let gently = random.random_bool(0.5);
        let Some(mut extra) = self.migration.stages.remove(EXTRA) else {
            self.migration.start("loader", EXTRA, &[]);
            return Instant::now();
        };
        if extra.ended().is_none() {
            match gently {
                true => extra.terminate(),
                false => {
                    extra.signal(Signal::SIGKILL);
                    extra.wait_killed(Duration::from_secs(10));
                    figures.kills += 1;
                }
            }
        }
        Instant::now()
    }

    async fn api(&mut self, random: &mut StdRng) -> Instant {
        let kind = FAULTS.choose(random).copied().unwrap_or(FAULTS[0]);
        let times = random.random_range(1..=5);
        let mut fault = json!({"kind": kind, "times": times});
        if kind == "rate_limit" {
            fault["retry_after_s"] = json!(1);
        }
        self.migration.sandbox.fault(fault).await;
        Instant::now()
    }

    /// Notes the processes that there are now.
    fn look(&mut self) {
        let drover = self.migration.stage("drover").pid();
        let found = children(drover);
        self.processes
            .retain(|name, (pid, _)| found.get(name) == Some(pid));
        for (name, pid) in found {
            self.processes.entry(name).or_insert((pid, Instant::now()));
        }
    }

    /// Makes a few records in the source, and waits until they are in the target.
    async fn probe(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut open = Vec::new();
        for _ in 0..PROBES {
            self.number += 1;
            let name = format!("probe {}", self.number);
            let edit = json!({"object": "Account", "create": {"Name": name}});
            let made = self.migration.sandbox.edit(edit).await;
            open.push(made["id"].as_str().expect("an id").to_owned());
        }
        let mut looked = Instant::now();
        while Instant::now() < deadline {
            self.look();
            self.serve();
            let arrived = self.arrived(&open).await;
            open.retain(|id| !arrived.contains(id));
            if open.is_empty() {
                return true;
            }
            // Somebody in the source may have deleted it meanwhile.
            if looked.elapsed() > Duration::from_secs(5) {
                looked = Instant::now();
                let records = self.migration.sandbox.records("Account").await;
                open.retain(|id| records.get(id).is_some_and(|r| r["IsDeleted"] != true));
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        false
    }

    /// Starts `drover run` again where it has ended by itself, as a service manager
    /// does, and says so.
    fn serve(&mut self) {
        if let Some(how) = self.migration.stage("drover").ended() {
            println!("drover run ended by itself ({how:?}); it is started again");
            self.processes.clear();
            self.supervise();
        }
    }

    /// Which of these are in the target.
    async fn arrived(&mut self, ids: &[String]) -> Vec<String> {
        if let Some(url) = self.migration.appendonly_url() {
            let mut arrived = Vec::new();
            for id in ids {
                let key = format!("salesforce/Account/{id}#company");
                let query = [("entity", "company"), ("key", key.as_str())];
                let request = reqwest::Client::new().get(format!("{url}/search"));
                let Ok(answer) = request.query(&query).send().await else {
                    continue;
                };
                let found: Value = answer.json().await.unwrap_or_default();
                if found["results"].as_array().is_some_and(|r| !r.is_empty()) {
                    arrived.push(id.clone());
                }
            }
            return arrived;
        }
        if self
            .database
            .as_ref()
            .is_none_or(tokio_postgres::Client::is_closed)
        {
            self.database = self.connect().await;
        }
        let Some(database) = &self.database else {
            return Vec::new();
        };
        let sql = format!(
            "select drover_id from \"{}\".company where drover_id = any($1)",
            self.migration.schema
        );
        // The table may not be there yet, nor the server.
        match database.query(&sql, &[&ids]).await {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(_) => Vec::new(),
        }
    }

    async fn connect(&self) -> Option<tokio_postgres::Client> {
        let url = &self.migration.services().postgres;
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Some(client)
    }

    /// Lets everything come to rest, and compares source and target.
    pub async fn end(&mut self, figures: &mut Figures) {
        self.migration.sandbox.freeze().await;
        let deadline = Instant::now() + EQUAL;
        let differences = loop {
            let differences = self.migration.differences().await;
            if differences.missing().is_none() || Instant::now() >= deadline {
                break differences;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        figures.compared += differences.compared;
        figures.waiting += differences.waiting;
        figures.lost += differences.lost;
        figures.doubled += differences.doubled;
        figures.differing += differences.count - differences.lost - differences.doubled;
        let before = figures.troubles.len();
        if let Some(missing) = differences.missing() {
            figures
                .troubles
                .push(format!("{}: {missing}", self.migration.id));
        }
        figures.troubles.extend(self.dead_letters());
        figures.troubles.extend(self.stop().await);
        figures.troubles.extend(self.bugs());
        if figures.troubles.len() > before || figures.is_stuck() {
            let dir = self.migration.keep().display().to_string();
            let id = &self.migration.id;
            figures
                .troubles
                .push(format!("{id}: its logs are in {dir}"));
        }
    }

    /// Ends everything gently, as far as it does.
    async fn stop(&mut self) -> Option<String> {
        let mut stages = std::mem::take(&mut self.migration.stages);
        for process in stages.values() {
            process.signal(Signal::SIGTERM);
        }
        let deadline = Instant::now() + STUCK;
        for (name, process) in &mut stages {
            let status = loop {
                match process.ended() {
                    Some(status) => break status,
                    None if Instant::now() >= deadline => {
                        return Some(format!("{name} does not end:\n{}", process.log_tail()));
                    }
                    None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            if !status.success() {
                let tail = process.log_tail();
                return Some(format!("{name} ended with {status}:\n{tail}"));
            }
        }
        None
    }

    /// Dead letters that no missing parent explains: none of the blows may make
    /// one.
    fn dead_letters(&self) -> Option<String> {
        let text = self
            .migration
            .drover_ok(&["deadletter", "list", "--format", "json"]);
        let listed: Value = serde_json::from_str(&text).unwrap_or_default();
        let causes = listed.as_array().or_else(|| listed["causes"].as_array());
        let unexplained = causes.into_iter().flatten().any(|cause| {
            let code = cause["code"].as_str().unwrap_or_default();
            !matches!(code, "PARENT_NEVER_COMES" | "REFERENCE_CYCLE")
        });
        unexplained.then(|| format!("{}: dead letters: {text}", self.migration.id))
    }

    /// What processes said of broken invariants.
    fn bugs(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.migration.dir.join("drover.log"));
        let log = log.unwrap_or_default();
        let bugs: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("(exit code 1)") || line.contains("panicked"))
            .collect();
        (!bugs.is_empty()).then(|| format!("{}: {}", self.migration.id, bugs.join("\n")))
    }

    fn logs(&self) -> String {
        format!("{}\n{}", self.migration.id, self.migration.logs())
    }
}

/// The stand-in's command line; `number` makes its data different.
fn sandbox(options: &Options, number: u64) -> Vec<String> {
    // Its data follow from a seed of their own: the run's seed is 64 bits wide.
    let seed = StdRng::seed_from_u64(options.seed ^ number).random_range(1..1_000_000_u32);
    [
        ("--seed", seed.to_string()),
        ("--records", options.records.to_string()),
        ("--live-changes", options.changes.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}
