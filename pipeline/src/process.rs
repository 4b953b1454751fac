//! The one `main` of a stage binary: `spec | check | discover | read | run`.
//!
//! Exit codes: 0 ok, 1 bug, 2 bad configuration, 3 environment or operator
//! action, 128 + n for a signal that was not handled.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::bodies::Bodies;
use crate::config::{Document, MigrationConfig, Part, Problem, Secret};
use crate::control::{Plan, Watch};
use crate::error::{Class, Code, Error, Result};
use crate::extract::{self, Extractor, Parity};
use crate::http::HttpClient;
use crate::kafka::client::Client;
use crate::load::ask::Question;
use crate::load::{self, Loader};
use crate::quota::{Meter, keep_share};
use crate::retry::{Backoff, passes, patiently};
use crate::spec::{Spec, Stage};
use crate::status::{Phase, Status};
use crate::topics::Topics;
use crate::transform::{self, Mapping, Transformer};

/// How often a transformer looks whether a remap is through.
const REMAPPING: Duration = Duration::from_millis(500);

/// A signal that comes so soon after the first is that one again: `timeout` and
/// shells send it to the process and to its whole group.
pub const ECHO: Duration = Duration::from_millis(250);

#[derive(Parser)]
#[command(version, max_term_width = 80, about = "A stage of a Drover migration")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print what this connector is, as JSON.
    Spec,
    /// Prove address and credentials by one live call.
    Check(File),
    /// Print what the source has, as JSON (extractors only).
    Discover(File),
    /// Print what the target has of the records that standard input names, a
    /// JSON list of {entity, key, targetId} (loaders only).
    Read(File),
    /// Prove that a plan's mapping can be compiled (transformers only).
    #[command(hide = true)]
    Compile(File),
    /// Do the stage's work until SIGTERM.
    Run(Run),
}

#[derive(Parser)]
struct File {
    /// The migration's configuration, JSON or YAML.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Parser)]
struct Run {
    #[command(flatten)]
    file: File,
    /// This process's name. A restart under the same name goes on at once;
    /// without one, a fresh name is made up.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Where health and metrics are served; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Ends when standard input ends, as if by SIGTERM: a child of `drover run`
    /// does not outlive it.
    #[arg(long, hide = true)]
    supervised: bool,
    /// How logs are written to standard error.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What a stage's runner needs besides its connector.
#[derive(Clone)]
pub struct Context {
    /// The migration.
    pub config: MigrationConfig,
    /// Its topics.
    pub topics: Topics,
    /// Its bus.
    pub client: Client,
    /// What `init` settled.
    pub plan: Plan,
    /// What this process says of itself.
    pub status: Arc<Status>,
    /// What it may ask of the account that it works with.
    pub meter: Arc<Meter>,
    /// Where bodies lie that the bus does not take, if anywhere.
    pub bodies: Option<Arc<Bodies>>,
    /// This process's name in its group.
    pub instance: String,
    /// A random id per start: the owner of what it has Pending.
    pub owner: String,
    /// How long something may stand still before it counts as stuck.
    pub patience: Duration,
    /// Cancelled by SIGTERM, SIGINT, or the supervisor's end.
    pub stop: CancellationToken,
}

/// Why a process ends without success.
enum End {
    Problems(Vec<Problem>),
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Failed(error)
    }
}

impl End {
    fn exit(self) -> ExitCode {
        match self {
            End::Problems(problems) => {
                for problem in &problems {
                    eprintln!("{}: {problem}", Code::ConfigInvalid);
                }
                ExitCode::from(Code::ConfigInvalid.exit())
            }
            End::Failed(error) => {
                eprintln!("{error}");
                ExitCode::from(error.code.exit())
            }
        }
    }
}

/// `main` of an extractor.
pub fn extractor<E: Extractor>() -> ExitCode {
    let verb = Arguments::parse().verb;
    block_on(async move {
        match verb {
            Verb::Spec => {
                let mapping =
                    Mapping::parse("mapping.yaml", E::mapping()).map_err(End::Problems)?;
                let parity = E::parity().map(|text| Parity::parse("parity.yaml", text));
                let parity = parity.transpose().map_err(End::Problems)?;
                print_spec::<E::Config>(
                    Stage::Extractor,
                    E::NAME,
                    (Some(mapping), parity),
                    Vec::new(),
                )
            }
            Verb::Check(file) => {
                let (connector, ..) = load_extractor::<E>(&file)?;
                let checked = connector.check().await;
                Ok(checked.map_err(blaming::<E::Config>(&file, "sourceConfig"))?)
            }
            Verb::Discover(file) => {
                // What is wrong elsewhere in the document is not about the source.
                let loaded = read_extractor::<E>(&file)?.only("sourceConfig");
                let (connector, config, meter) = build_extractor::<E>(loaded)?;
                let found = connector.discover(&config.objects).await;
                let mut found = found.map_err(blaming::<E::Config>(&file, "sourceConfig"))?;
                found.quota = meter.usage();
                print_json(&found)
            }
            Verb::Read(_) => Err(not_here("read", Stage::Extractor)),
            Verb::Compile(_) => Err(not_here("compile", Stage::Extractor)),
            Verb::Run(run) => {
                let (connector, config, meter) = load_extractor::<E>(&run.file)?;
                let blame = blaming::<E::Config>(&run.file, "sourceConfig");
                let work = async |context| extract::run(connector, context).await.map_err(blame);
                stage(Stage::Extractor, E::NAME, run, (config, meter), work).await
            }
        }
    })
}

/// `main` of a transformer.
pub fn transformer<T: Transformer>() -> ExitCode {
    let verb = Arguments::parse().verb;
    block_on(async move {
        match verb {
            Verb::Spec => print_json(&Spec {
                stage: Stage::Transformer,
                name: T::NAME.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                config_schema: serde_json::json!({}),
                mapping: None,
                parity: None,
                entities: Vec::new(),
            }),
            Verb::Check(file) => load_plain(&file).map(drop),
            Verb::Discover(_) => Err(not_here("discover", Stage::Transformer)),
            Verb::Read(_) => Err(not_here("read", Stage::Transformer)),
            Verb::Compile(plan) => {
                let read = std::fs::read(&plan.config)
                    .map_err(|e| e.to_string())
                    .and_then(|b| serde_json::from_slice::<Plan>(&b).map_err(|e| e.to_string()));
                let plan = read.map_err(|e| Error::new(Code::NewerSchema, e))?;
                let compiled = T::new(&plan.mapping, &plan.objects);
                compiled.map(drop).map_err(End::Problems)
            }
            Verb::Run(run) => {
                let config = load_plain(&run.file)?;
                let quota = Arc::default();
                stage(
                    Stage::Transformer,
                    T::NAME,
                    run,
                    (config, quota),
                    |context| async { transform::run::<T>(context).await },
                )
                .await
            }
        }
    })
}

/// `main` of a loader.
pub fn loader<L: Loader>() -> ExitCode {
    let verb = Arguments::parse().verb;
    block_on(async move {
        match verb {
            Verb::Spec => print_spec::<L::Config>(Stage::Loader, L::NAME, (None, None), L::takes()),
            Verb::Check(file) => {
                let (connector, ..) = load_loader::<L>(&file)?;
                let checked = connector.check().await;
                Ok(checked.map_err(blaming::<L::Config>(&file, "targetConfig"))?)
            }
            Verb::Discover(_) => Err(not_here("discover", Stage::Loader)),
            Verb::Read(file) => {
                let (connector, ..) = load_loader::<L>(&file)?;
                let questions: Vec<Question> = serde_json::from_reader(std::io::stdin().lock())
                    .map_err(|e| {
                        let message = format!("standard input is no list of questions: {e}");
                        Error::new(Code::ConfigInvalid, message)
                    })?;
                print_json(&load::ask::answer(&connector, &questions).await?)
            }
            Verb::Compile(_) => Err(not_here("compile", Stage::Loader)),
            Verb::Run(run) => {
                let (connector, config, meter) = load_loader::<L>(&run.file)?;
                let blame = blaming::<L::Config>(&run.file, "targetConfig");
                let work = async |context| load::run(connector, context).await.map_err(blame);
                stage(Stage::Loader, L::NAME, run, (config, meter), work).await
            }
        }
    })
}

fn block_on(work: impl Future<Output = Result<(), End>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: no runtime: {error}", Code::Invariant);
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(work);
    // A call that hangs in a dead broker must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => end.exit(),
    }
}

fn not_here(verb: &str, stage: Stage) -> End {
    End::Problems(vec![Problem::at(
        verb,
        format!("a {} has no `{verb}`", stage.as_str()),
        match verb {
            "read" => "ask a loader",
            "compile" => "ask a transformer",
            _ => "ask an extractor",
        },
    )])
}

/// The configuration for a process that needs one connector's part of it, judged
/// against that connector's schema. The other part's secrets are not asked for.
struct Loaded {
    config: MigrationConfig,
    document: Document,
    /// What is wrong with it so far.
    wrong: Vec<Problem>,
}

impl Loaded {
    /// `connector` is where a document names the connector, and ours: asked
    /// first, since another one's part is not ours to judge.
    fn read(
        file: &File,
        connector: Option<(&str, &str)>,
        source: Part<'_>,
        target: Part<'_>,
    ) -> Result<Self, End> {
        let document = Document::read(&file.config).map_err(End::Problems)?;
        if let Some((path, ours)) = connector {
            let named = match path {
                "targetType" => Some(document.target_type()),
                _ => document.text(path),
            };
            if let Some(named) = named.filter(|named| *named != ours) {
                return Err(End::Problems(vec![document.problem(
                    path,
                    format!("this migration is for `{named}`, this process is `{ours}`"),
                    "start the other connector's process",
                )]));
            }
        }
        let (config, wrong) = document.as_far_as_it_goes(&document.environment(), source, target);
        Ok(Loaded {
            config,
            document,
            wrong,
        })
    }

    /// Passes over what is wrong outside a part of the document.
    fn only(mut self, path: &str) -> Self {
        self.wrong.retain(|problem| is_in(problem, path));
        self
    }

    /// The connector that `make` builds of its part of the document, and the meter
    /// of its calls. What it finds
    /// wrong is told together with what is wrong elsewhere, where its own part
    /// could be read.
    fn build<C: DeserializeOwned, T>(
        self,
        path: &str,
        part: fn(&MigrationConfig) -> &Secret,
        make: impl FnOnce(C, HttpClient) -> Result<T, Vec<Problem>>,
    ) -> Result<(T, MigrationConfig, Arc<Meter>), End> {
        let mut wrong = self.wrong;
        if wrong.iter().any(|problem| is_in(problem, path)) {
            return Err(End::Problems(wrong));
        }
        let document = part(&self.config).expose().clone();
        let http = HttpClient::new()?;
        let meter = Arc::clone(http.meter());
        let made = match serde_json::from_value(serde_json::Value::Object(document)) {
            Ok(parsed) => make(parsed, http),
            Err(error) => Err(vec![Problem::at(
                path,
                error.to_string(),
                "see the connector's `spec` for its fields",
            )]),
        };
        match made {
            Ok(made) if wrong.is_empty() => Ok((made, self.config, meter)),
            Ok(_) => Err(End::Problems(wrong)),
            Err(more) => {
                wrong.extend(more.into_iter().map(|p| self.document.placed(p)));
                wrong.sort_by_key(|problem| problem.line);
                Err(End::Problems(wrong))
            }
        }
    }

    /// The configuration alone.
    fn plain(self) -> Result<MigrationConfig, End> {
        match self.wrong.is_empty() {
            true => Ok(self.config),
            false => Err(End::Problems(self.wrong)),
        }
    }
}

/// Whether a problem is one of that part of the document.
fn is_in(problem: &Problem, path: &str) -> bool {
    let below = problem.path.strip_prefix(path);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn load_extractor<E: Extractor>(file: &File) -> Result<(E, MigrationConfig, Arc<Meter>), End> {
    build_extractor(read_extractor::<E>(file)?)
}

fn read_extractor<E: Extractor>(file: &File) -> Result<Loaded, End> {
    let schema = schemars::schema_for!(E::Config).to_value();
    let named = Some(("sourceType", E::NAME));
    Loaded::read(file, named, Part::Against(&schema), Part::Skip)
}

fn build_extractor<E: Extractor>(loaded: Loaded) -> Result<(E, MigrationConfig, Arc<Meter>), End> {
    loaded.build("sourceConfig", |config| &config.source_config, E::new)
}

fn load_loader<L: Loader>(file: &File) -> Result<(L, MigrationConfig, Arc<Meter>), End> {
    // A dry run needs no target, so its part may be missing.
    let plain = Loaded::read(file, None, Part::Skip, Part::Skip)?;
    if plain.config.dry_run {
        let id = plain.plain()?.id;
        return Err(End::Failed(Error::new(
            Code::DryRun,
            format!("migration {id} is a dry run: no loader runs"),
        )));
    }
    let schema = schemars::schema_for!(L::Config).to_value();
    let named = Some(("targetType", L::NAME));
    let loaded = Loaded::read(file, named, Part::Skip, Part::Against(&schema))?;
    loaded.build("targetConfig", |config| &config.target_config, L::new)
}

/// Adds to an error by which credentials are refused which these are, and where they
/// come from: the other side names none of our fields.
fn blaming<C: schemars::JsonSchema>(
    file: &File,
    path: &str,
) -> impl FnOnce(Error) -> Error + use<C> {
    let schema = schemars::schema_for!(C).to_value();
    let document = Document::read(&file.config).ok();
    let told =
        document.map(|document| document.credentials(path, &schema, &document.environment()));
    let told = told.unwrap_or_default().join(", ");
    move |mut error| {
        if error.code == Code::Unauthorized && !told.is_empty() {
            error.message = format!("{} (credentials: {told})", error.message);
        }
        error
    }
}

fn load_plain(file: &File) -> Result<MigrationConfig, End> {
    Loaded::read(file, None, Part::Skip, Part::Skip)?.plain()
}

fn print_spec<C: schemars::JsonSchema>(
    stage: Stage,
    name: &str,
    (mapping, parity): (Option<Mapping>, Option<Parity>),
    entities: Vec<String>,
) -> Result<(), End> {
    print_json(&Spec {
        stage,
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_schema: schemars::schema_for!(C).to_value(),
        mapping,
        parity,
        entities,
    })
}

fn print_json(value: &impl serde::Serialize) -> Result<(), End> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::new(Code::Invariant, format!("printing: {e}")))?;
    // A reader that has gone (`spec | head`) is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

async fn stage<F, W>(
    stage: Stage,
    name: &str,
    run: Run,
    (config, meter): (MigrationConfig, Arc<Meter>),
    work: W,
) -> Result<(), End>
where
    F: Future<Output = Result<()>>,
    W: FnOnce(Context) -> F,
{
    start_logs(run.log);
    let owner = format!("{:016x}", rand::random::<u64>());
    let instance = run
        .instance
        .unwrap_or_else(|| format!("{}-{}", stage.as_str(), &owner[..8]));
    crate::clock::jump_as_told(&instance);
    let listener = tokio::net::TcpListener::bind(run.http)
        .await
        .map_err(|e| Error::new(Code::ConfigInvalid, format!("--http {}: {e}", run.http)))?;
    let http = listener
        .local_addr()
        .map_or_else(|_| run.http.to_string(), |address| address.to_string());
    let status = Status::within(&config.id, stage, name, &instance, &http)?;
    let stop = CancellationToken::new();
    let abandoned = watch_signals(stop.clone(), run.supervised)?;
    print_json(&serde_json::json!({
        "instance": instance,
        "pid": std::process::id(),
        "http": http,
    }))?;
    let topics = Topics::of(&config);
    let client = Client::new(&config.kafka, &instance);
    let bodies = config.object_store.as_ref();
    let bodies = bodies.map(|location| Bodies::open(location, &config.id));
    let bodies = bodies.transpose()?.map(Arc::new);
    // Health and status outlive the work by a moment, to report how it ended.
    let reporting = CancellationToken::new();
    let served = tokio::spawn(Arc::clone(&status).serve(listener, reporting.clone()));
    let published = tokio::spawn(Arc::clone(&status).publish(
        client.clone(),
        topics.status(),
        reporting.clone(),
    ));

    // Of a process that works on and on, nothing goes past its share.
    meter.guard();
    let shared = tokio::spawn(keep_share(
        Arc::clone(&meter),
        Arc::clone(&status),
        client.clone(),
        topics.status(),
        stop.clone(),
    ));

    let result = async {
        let Some(plan) = read_plan(stage, &client, &topics, &status, &stop).await? else {
            return Ok(());
        };
        // An extractor maps nothing: a new mapping is nothing to it.
        let _watch = match stage {
            Stage::Extractor => None,
            Stage::Transformer | Stage::Loader => {
                let (client, topics) = (client.clone(), topics.clone());
                let (plan, stop) = (plan.clone(), stop.clone());
                let go_on = stop.clone();
                let started = tokio::task::spawn_blocking(move || {
                    let go_on = |_| !go_on.is_cancelled();
                    patiently(go_on, || Watch::start(&client, &topics, &plan, &stop))
                });
                let started = started.await;
                Some(
                    started
                        .map_err(|e| Error::new(Code::Invariant, format!("the watch: {e}")))??,
                )
            }
        };
        let context = Context {
            config,
            topics,
            client,
            plan,
            status: Arc::clone(&status),
            meter,
            bodies,
            instance,
            owner,
            patience: crate::retry::patience(),
            stop: stop.clone(),
        };
        work(context).await
    }
    .await;
    // Told to stop while it waited for the bus.
    let result = match result {
        Err(error) if stop.is_cancelled() && passes(&error) => Ok(()),
        other => other,
    };
    if let Err(error) = &result {
        status.ended_by(error);
    } else if abandoned.load(Ordering::SeqCst) {
        status.abandoned();
    }
    status.phase(Phase::Stopped);
    shared.abort();
    reporting.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(8), published).await;
    served.abort();
    Ok(result?)
}

/// Reads the plan, waiting for a broker that is not there yet. `None` when the
/// process is told to stop meanwhile.
async fn read_plan(
    stage: Stage,
    client: &Client,
    topics: &Topics,
    status: &Status,
    stop: &CancellationToken,
) -> Result<Option<Plan>> {
    let mut backoff = Backoff::default();
    loop {
        let read = {
            let (client, topics) = (client.clone(), topics.clone());
            tokio::task::spawn_blocking(move || Plan::read(&client, &topics))
                .await
                .map_err(|e| Error::new(Code::Invariant, format!("reading the plan: {e}")))?
        };
        match read {
            // The offsets of its group are still those of the mapping before.
            Ok(plan) if plan.remapping && stage == Stage::Transformer => {
                tracing::info!(generation = plan.generation, "waiting for `drover remap`");
                tokio::select! {
                    () = tokio::time::sleep(REMAPPING) => {}
                    () = stop.cancelled() => return Ok(None),
                }
            }
            Ok(plan) => return Ok(Some(plan)),
            Err(error) if error.class() == Class::Transient => {
                let wait = backoff.after(&error);
                status.note_wait(&error, wait);
                tracing::warn!(%error, ?wait, "waiting for the bus");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return Ok(None),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn start_logs(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DROVER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,rdkafka=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber (in a test process) is refused; the first one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Cancels `stop` at SIGTERM or SIGINT, and at the end of standard input when
/// supervised. A second signal ends the process at once; so do 30 s. What it
/// gives tells whether standard input came to its end before any signal: who
/// supervises has gone, and nobody starts this process again.
///
/// The handlers stand when this returns: whoever reads the first line that the
/// process prints may send a signal at once.
fn watch_signals(stop: CancellationToken, supervised: bool) -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let handler = |kind| {
        signal(kind).map_err(|e| Error::new(Code::Invariant, format!("no signal handler: {e}")))
    };
    let mut term = handler(SignalKind::terminate())?;
    let mut int = handler(SignalKind::interrupt())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut wait = async || {
                tokio::select! {
                    _ = term.recv() => 15,
                    _ = int.recv() => 2,
                }
            };
            tokio::select! {
                signal = wait() => tracing::info!(signal, "finishing what is under way"),
                () = stop.cancelled() => {}
            }
            stop.cancel();
            let echoes = async { while wait().await > 0 {} };
            let _ = tokio::time::timeout(ECHO, echoes).await;
            let code = tokio::select! {
                signal = wait() => 128 + signal,
                () = tokio::time::sleep(Duration::from_secs(30)) => 3,
            };
            std::process::exit(code);
        }
    });
    let abandoned = Arc::new(AtomicBool::new(false));
    if supervised {
        let abandoned = Arc::clone(&abandoned);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            abandoned.store(!stop.is_cancelled(), Ordering::SeqCst);
            stop.cancel();
        });
    }
    Ok(abandoned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `drover check` asks the source beside whatever else is wrong.
    #[test]
    fn discovering_passes_over_what_is_wrong_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let schema = serde_json::json!({
            "properties": {"address": {"type": "string"}}, "required": ["address"],
        });
        let wrong = |source: &str| -> Vec<String> {
            let config = folder.path().join("m.yaml");
            let text = format!("sourceType: x\nobjets: []\nsourceConfig: {source}\n");
            std::fs::write(&config, text).expect("a file");
            let part = Part::Against(&schema);
            let loaded = Loaded::read(&File { config }, None, part, Part::Skip);
            let Ok(loaded) = loaded else {
                panic!("the file is read");
            };
            assert!(loaded.wrong.iter().any(|problem| problem.path == "objets"));
            let own = loaded.only("sourceConfig").wrong;
            own.into_iter().map(|problem| problem.path).collect()
        };
        assert!(wrong("{ address: here }").is_empty());
        assert_eq!(wrong("{ address: 5 }"), ["sourceConfig.address"]);
        assert_eq!(wrong("[]"), ["sourceConfig"]);
    }
}
