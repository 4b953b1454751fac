//! `drover-demo`: the visible part of `make demo`. Kafka and PostgreSQL run
//! already (`deploy/demo`); this starts the stand-in and `drover run`, kills a
//! loader, and compares source and target.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use drover_tests::oracle::{Differences, SALESFORCE, Truth, compare, connect};
use drover_tests::process::binary;
use drover_tests::sandbox::Sandbox;
use serde_json::Value;

const SCHEMA: &str = "demo";

/// `drover run`: ended with its stages when the demo ends, however it ends.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let runner = nix::unistd::Pid::from_raw(self.0.id() as i32);
            let _ = nix::sys::signal::kill(runner, nix::sys::signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}

struct Demo {
    config: PathBuf,
    postgres: String,
    records: u64,
    /// What the stand-in's API asks for; goes to children by the environment.
    secret: String,
}

impl Demo {
    fn drover(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("drover"));
        command
            .args(arguments)
            .arg("-c")
            .arg(&self.config)
            .env("DROVER_SALESFORCE_CLIENT_SECRET", &self.secret);
        command
    }

    /// Runs a verb before the reader's eyes.
    fn show(&self, arguments: &[&str]) -> Result<(), String> {
        println!("\n== drover {}", arguments.join(" "));
        let status = self
            .drover(arguments)
            .status()
            .map_err(|e| format!("drover does not start: {e}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!(
                "drover {} ended with {status}",
                arguments.join(" ")
            ))
        }
    }

    fn status(&self) -> Option<Value> {
        let output = self.drover(&["status", "--format", "json"]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// How many parked records are not in the target, as Drover counts them.
    fn outside(&self) -> Option<u64> {
        let mut list = self.drover(&["parked", "list", "--format", "json"]);
        let reasons: Value = serde_json::from_slice(&list.output().ok()?.stdout).ok()?;
        // What is parked for a link is in the target without it.
        let loaded = |reason: &Value| ["link", "dropped"].iter().any(|r| reason == r);
        let outside = reasons.as_array()?.iter().filter(|r| !loaded(&r["reason"]));
        Some(outside.filter_map(|r| r["count"].as_u64()).sum())
    }

    /// The running process of an instance: its pid.
    fn pid(&self, instance: &str) -> Option<i64> {
        let status = self.status()?;
        status["processes"]
            .as_array()?
            .iter()
            .find(|p| p["instance"] == instance && p["alive"] == true && p["phase"] == "running")
            .and_then(|p| p["pid"].as_i64())
    }

    /// Whether a process of that instance, another than `not`, has written
    /// rows: its own counter says so, after the commit.
    async fn loads(&self, instance: &str, not: i64) -> Option<()> {
        let status = self.status()?;
        let process = status["processes"].as_array()?.iter().find(|p| {
            p["instance"] == instance && p["pid"].as_i64().is_some_and(|pid| pid != not)
        })?;
        let url = format!("http://{}/metrics", process["http"].as_str()?);
        let metrics = reqwest::get(url).await.ok()?.text().await.ok()?;
        let applied = |line: &str| {
            line.starts_with("drover_records_total{") && line.contains("outcome=\"applied\"")
        };
        let mut counts = metrics.lines().filter(|line| applied(line));
        counts.any(|line| !line.ends_with(" 0")).then_some(())
    }

    async fn rows(&self) -> u64 {
        let client = connect(&self.postgres).await;
        let mut rows = 0;
        let tables: BTreeSet<&str> = SALESFORCE.iter().map(|e| e.table).collect();
        for table in tables {
            let sql = format!("select count(*) from \"{SCHEMA}\".\"{table}\"");
            if let Ok(row) = client.query_one(&sql, &[]).await {
                rows += row.get::<_, i64>(0) as u64;
            }
        }
        rows
    }

    /// Waits for a moment of the migration, while `drover run` goes on.
    async fn until<T>(
        &self,
        runner: &mut Child,
        what: &str,
        moment: impl AsyncFn() -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            if let Some(reached) = moment().await {
                return Ok(reached);
            }
            if let Ok(Some(status)) = runner.try_wait() {
                return Err(format!("drover run ended with {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("not within 300 s: {what}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The source's records beside the target's rows.
    async fn compare(&self, sandbox: &Sandbox) -> Result<Differences, String> {
        let status = self.status().ok_or("no status")?;
        let names = status["objects"].as_array().into_iter().flatten();
        let objects: Vec<String> = names
            .filter_map(|object| object["object"].as_str())
            .map(str::to_owned)
            .collect();
        let truth = Truth::of(sandbox, &objects).await;
        Ok(compare(&truth, &self.postgres, SCHEMA).await)
    }
}

/// A count, added up over all objects.
fn sum(status: &Value, count: &str) -> u64 {
    let objects = status["objects"].as_array().into_iter().flatten();
    objects.filter_map(|o| o.pointer(count)?.as_u64()).sum()
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A demo that is broken off ends its processes, and waits for them.
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = demo() => ended,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A binary's path from here, where it lies below.
fn short(name: &str) -> String {
    let binary = binary(name);
    let here = std::env::current_dir().unwrap_or_default();
    let short = binary.strip_prefix(&here).unwrap_or(&binary);
    short.display().to_string()
}

fn setting(name: &str, default: u64) -> Result<u64, String> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is not a whole number")),
        Err(_) => Ok(default),
    }
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set; run `make demo`"))
}

async fn demo() -> Result<(), String> {
    let dir = PathBuf::from(variable("DEMO_DIR")?);
    let postgres = variable("DROVER_POSTGRES_URL")?;
    let brokers = variable("KAFKA_BROKERS")?;
    let records = setting("RECORDS", 20_000)?;
    let changes = setting("CHANGES", 20)?;
    let keep = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty());

    let sandbox = Sandbox::start(
        &dir,
        "salesforce",
        &[
            "--seed",
            "1",
            "--records",
            &records.to_string(),
            "--live-changes",
            &changes.to_string(),
            // Looking at every object twice a second takes more calls than an
            // org's day has.
            "--daily-calls",
            "1000000000",
        ],
    );
    println!("Kafka       {brokers}");
    println!("PostgreSQL  {postgres}");
    println!(
        "Salesforce  {} ({records} records, {changes} edits a second)",
        sandbox.url
    );

    let credentials = Sandbox::credentials("salesforce");
    let text = |name: &str| credentials[name].as_str().unwrap_or_default().to_owned();
    let config = dir.join("migration.yaml");
    let document = format!(
        "id: demo\ntenantId: demo\nsourceType: salesforce\nsourceConfig:\n  instanceUrl: {}\n  \
         clientId: {}\ntargetType: postgres\n\
         targetConfig:\n  url: {postgres}\n  schema: {SCHEMA}\nkafka:\n  brokers: {brokers}\ndryRun: false\nmappings:\n  Phone: phoneNumber\n  \
         Contact: {{ Description: bio }}\npollIntervalMs: 500\n",
        sandbox.url,
        text("client_id")
    );
    std::fs::write(&config, document).map_err(|e| format!("{}: {e}", config.display()))?;
    let demo = Demo {
        config,
        postgres,
        records,
        secret: text("client_secret"),
    };
    run(&demo, sandbox, &dir, keep).await
}

async fn run(
    demo: &Demo,
    mut sandbox: Sandbox,
    dir: &std::path::Path,
    keep: bool,
) -> Result<(), String> {
    demo.show(&["check"])?;
    demo.show(&["init"])?;
    println!("\n== drover run --loaders 2; one of them will be killed with kill -9");
    let run_dir = dir.join("run");
    let mut runner = Runner(
        demo.drover(&["run", "--loaders", "2", "--dir", &run_dir.to_string_lossy()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("drover run does not start: {e}"))?,
    );

    let wanted = demo.records / 5;
    let (rows, pid) = demo
        .until(
            &mut runner.0,
            "rows in PostgreSQL, and loader-1",
            async || {
                let rows = demo.rows().await;
                (rows >= wanted).then_some((rows, demo.pid("loader-1")?))
            },
        )
        .await?;
    println!("\n== kill -9 of loader-1 (process {pid}); {rows} rows are in PostgreSQL");
    let victim = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(victim, nix::sys::signal::SIGKILL)
        .map_err(|e| format!("kill -9 {pid}: {e}"))?;
    let killed = Instant::now();
    demo.until(&mut runner.0, "loader-1 loading again", async || {
        demo.loads("loader-1", pid).await
    })
    .await?;
    let recovery = killed.elapsed().as_secs_f64();
    println!("== loader-1 loads again, {recovery:.1} s after its death\n");

    demo.until(
        &mut runner.0,
        "everything read once, and in PostgreSQL",
        async || {
            let status = demo.status()?;
            let objects = status["objects"].as_array()?;
            // People go on editing, so a few are always on their way.
            (objects.iter().all(|o| o["snapshotComplete"] == true)
                && sum(&status, "/lag/records") < 100)
                .then_some(())
        },
    )
    .await?;
    println!("\n== people stop editing; the target must come to be what the source is");
    sandbox.freeze().await;
    let deadline = Instant::now() + Duration::from_secs(180);
    let (equal, status) = loop {
        let differences = demo.compare(&sandbox).await?;
        let status = demo.status().ok_or("no status")?;
        let kept = (demo.outside().ok_or("no parked list")? + sum(&status, "/dead")) as usize;
        let missing = differences.missing().or_else(|| {
            (kept != differences.waiting).then(|| {
                format!(
                    "drover says that {kept} wait or are dead; of the source's records {} can't be loaded",
                    differences.waiting
                )
            })
        });
        match missing {
            None if differences.compared > 0 => break (differences, status),
            None => return Err("nothing was compared".into()),
            Some(missing) if Instant::now() > deadline => return Err(missing),
            Some(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    };
    demo.show(&["status"])?;
    demo.show(&["balance"])?;
    println!();
    println!(
        "source == target  {} live records of {} objects compared in chosen fields,\n                  links and custom fields: 0 differ",
        equal.compared,
        status["objects"].as_array().map_or(0, Vec::len)
    );
    println!(
        "kept out          {} whose parent the source does not have, each with its reason",
        equal.waiting
    );
    println!(
        "killed loader     loading again after {recovery:.1} s; nothing lost, nothing doubled"
    );
    println!();
    println!("Where to look next: README.md, ARCHITECTURE.md, `drover --help`");
    if keep {
        println!();
        println!(
            "Left running: drover run (process {}), sandbox (process {})",
            runner.0.id(),
            sandbox.process().pid()
        );
        println!(
            "  {} status \\\n    -c {}",
            short("drover"),
            demo.config.display()
        );
        println!(
            "  psql {} \\\n    -c 'select * from {SCHEMA}.contact limit 5'",
            demo.postgres
        );
        println!(
            "  (with DROVER_SALESFORCE_CLIENT_SECRET from\n    `{} credentials --system salesforce`)",
            short("drover-sandbox")
        );
        std::mem::forget(sandbox);
        std::mem::forget(runner);
        return Ok(());
    }
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(runner.0.id() as i32),
        nix::sys::signal::SIGTERM,
    );
    let status = runner.0.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("drover run ended with {status}"));
    }
    Ok(())
}
