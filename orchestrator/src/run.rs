//! `drover run`: all stages of one migration on this machine.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_pipeline::clock::now;
use drover_pipeline::control::Plan;
use drover_pipeline::process::ECHO;
use drover_pipeline::record::Millis;

use drover_pipeline::status::{Phase, Report, SILENCE};
use drover_pipeline::{Class, Code, Error};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

mod progress;
mod shortfall;
mod supervise;
mod synced;

use crate::cli::{Format, Run, Until, blocking, print, print_json, tell, warn};
use crate::connectors::{Connector, Connectors};
use crate::failure::{Failure, Failures, Result};
use crate::init::{Settled, describe, settle};
use crate::migration::{Bus, Migration};
use crate::patience::{Patience, STILL};
use crate::table::wrap;
use crate::view::{Model, Reader, Watch};
use crate::{balance, dryrun, status};
use progress::{Screen, TICK};
use shortfall::{shortfall, waiting};
use supervise::{LONGEST_BACK_OFF, Stage, Stop, keep};

pub(crate) async fn run(file: &Path, format: Format, options: Run) -> Result<ExitCode> {
    let migration = Migration::load(file, &Connectors::of_process()).await?;
    warn(&migration.warnings());
    let dir = folder(file, &migration.bus.config.id, options.dir.as_deref());
    let _lock = lock(&dir)?;
    let stop = Stop::default();
    let killed = on_signals(&stop)?;
    // A run that was told to stop has done what it was for, unless something is
    // waited for.
    let stopped = || match options.until {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(*killed.borrow()),
    };
    let Some(settled) = settle_patiently(&migration, &stop).await? else {
        return Ok(stopped());
    };
    match settled.known {
        true => tell(format_args!(
            "{} was initialised before; it goes on where it stands",
            migration.bus.config.id
        )),
        false => tell(describe(&migration, &settled).trim_end()),
    }
    tell(format_args!("logs: {}", dir.join("logs").display()));
    let stages = stages(&migration, &options, &dir);
    let bus = Arc::new(Bus {
        config: migration.bus.config.clone(),
        topics: migration.bus.topics.clone(),
        client: migration.bus.client.clone(),
    });
    let ended = attend(&bus, &settled, stages, &options, &stop).await?;
    if stop.now.is_cancelled() {
        return Ok(ExitCode::from(*killed.borrow()));
    }
    if ended == Ended::Synced {
        let taken = taken(&settled, &bus);
        return report(&bus, settled.plan, taken, format).await;
    }
    Ok(stopped())
}

/// The entities that the target takes, for the balance.
fn taken(settled: &Settled, bus: &Bus) -> Option<Vec<String>> {
    let entities = settled.plan.entities.iter();
    let taken = entities.filter(|e| !bus.config.dry_run && !settled.untaken.contains(e));
    Some(taken.cloned().collect())
}

/// Prints what the first whole copy has come to. What is missing in the target
/// makes it a failure, and so does a record that is in no place, or in two.
async fn report(
    bus: &Arc<Bus>,
    plan: Plan,
    taken: Option<Vec<String>>,
    format: Format,
) -> Result<ExitCode> {
    // Taken first, so that the view shows its result.
    let balance = balance::take(bus, plan.clone(), taken).await?;
    let counted = Arc::clone(bus);
    let (view, waiting, dry) = blocking(move || {
        let dry = match counted.config.dry_run {
            true => Some(dryrun::count(&counted, &plan)?),
            false => None,
        };
        let view = crate::view::read(&counted)?;
        Ok::<_, Error>((view, waiting(&counted, &plan.mapping)?, dry))
    })
    .await?;
    let red = (!balance.balanced).then(|| balance::red(&balance));
    let failures: Vec<Failure> = red.into_iter().chain(shortfall(&view, waiting)).collect();
    // A script that reads this alone must not take for done what is not.
    let heading = match failures.is_empty() {
        true => "synced",
        false => "incomplete",
    };
    let filtered = balance::filtered(&balance, &bus.config.mappings);
    match (format, &dry) {
        (Format::Json, dry) => {
            let mut json = match dry {
                Some(dry) => dry.beside(&view),
                None => serde_json::to_value(&view).unwrap_or_default(),
            };
            json["filtered"] = serde_json::to_value(&filtered).unwrap_or_default();
            print_json(&json);
        }
        (Format::Table, None) => {
            let note = waiting.note().map(|note| wrap(&note, ""));
            print(&format!(
                "{heading}\n{}{}{}\n{}",
                status::objects(&view),
                balance::let_go(&filtered),
                note.unwrap_or_default(),
                balance::headline(&balance)
            ));
        }
        (Format::Table, Some(dry)) => {
            let what = "dry run: no target; what would be written";
            print(&format!("{heading}\n{what}\n{}", dry.render(&view)));
        }
    }
    match failures.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failures(failures)),
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    Synced,
    Stopped,
}

/// Where a run keeps its logs.
fn folder(file: &Path, id: &str, asked: Option<&Path>) -> PathBuf {
    match asked {
        Some(dir) => dir.to_owned(),
        None => file
            .parent()
            .unwrap_or(Path::new(""))
            .join(".drover")
            .join(id),
    }
}

/// Two runs of one migration would give their children the same names, and
/// these would throw each other out for ever.
fn lock(dir: &Path) -> Result<File> {
    let refuse = |e: std::io::Error| {
        let message = format!("{} can't be written: {e}", dir.display());
        Failure::new(Code::Refused, message, "choose another folder by --dir")
    };
    std::fs::create_dir_all(dir.join("logs")).map_err(refuse)?;
    let lock = File::create(dir.join("lock")).map_err(refuse)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another `drover run` is at work in {}", dir.display());
            Err(Failure::new(Code::Refused, message, "end it first").into())
        }
        Err(TryLockError::Error(error)) => Err(refuse(error).into()),
    }
}

/// The first signal ends gently, the second one at once. The channel holds the
/// exit code of the last one.
fn on_signals(stop: &Stop) -> Result<tokio::sync::watch::Receiver<u8>> {
    let refuse = |e: std::io::Error| Error::new(Code::Invariant, format!("no signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(refuse)?;
    let mut int = signal(SignalKind::interrupt()).map_err(refuse)?;
    let (code, killed) = tokio::sync::watch::channel(0);
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = term.recv() => 15_u8,
                _ = int.recv() => 2,
            }
        };
        code.send_replace(128 + next().await);
        tell("ending: the stages finish what is under way; once more ends them at once");
        stop.gently.cancel();
        let echoes = async { while next().await > 0 {} };
        let _ = tokio::time::timeout(ECHO, echoes).await;
        let signal = next().await;
        code.send_replace(128 + signal);
        stop.now.cancel();
        // Something may hang in a dead broker. Children that are left see the
        // end of their standard input.
        tokio::time::sleep(Duration::from_secs(2)).await;
        std::process::exit((128 + signal).into());
    });
    Ok(killed)
}

/// Initialises; a broker or a source that is away for a while is waited for.
async fn settle_patiently(migration: &Migration, stop: &Stop) -> Result<Option<Settled>> {
    let mut wait = Duration::from_secs(1);
    let mut patience = Patience::default();
    loop {
        let client = migration.bus.client.clone();
        // Asked first, and briefly: nobody should look at a silent screen.
        let away = blocking(move || client.reach(Duration::from_secs(2))).await;
        let failures = tokio::select! {
            settled = settle_unless(away.err(), migration) => match settled {
                Ok(settled) => {
                    if let Some(lasted) = patience.over(Instant::now()) {
                        tell(format_args!("all answer again, after {lasted}"));
                    }
                    return Ok(Some(settled));
                }
                Err(failures) => failures,
            },
            () = stop.gently.cancelled() => return Ok(None),
        };
        if !failures.passes() {
            return Err(failures);
        }
        if let Some(line) = patience.still(&failures.while_running(), Instant::now()) {
            tell(line);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.gently.cancelled() => return Ok(None),
        }
        wait = (2 * wait).min(Duration::from_secs(10));
    }
}

async fn settle_unless(away: Option<Failures>, migration: &Migration) -> Result<Settled> {
    match away {
        Some(failures) => Err(failures),
        None => settle(migration).await,
    }
}

fn stages(migration: &Migration, options: &Run, dir: &Path) -> Vec<Stage> {
    let several = |connector: &Connector, count: u32| -> Vec<Stage> {
        (1..=count)
            .map(|number| {
                let instance = format!("{}-{number}", connector.stage.as_str());
                Stage {
                    log: dir.join("logs").join(format!("{instance}.log")),
                    connector: connector.clone(),
                    instance,
                    config: migration.file.clone(),
                }
            })
            .collect()
    };
    let mut stages = several(&migration.source.connector, 1);
    stages.extend(several(&migration.transformer, options.transformers));
    if let Some(target) = &migration.target {
        stages.extend(several(&target.connector, options.loaders));
    }
    stages
}

/// Keeps the stages running until something ends the run; then ends them.
async fn attend(
    bus: &Arc<Bus>,
    settled: &Settled,
    stages: Vec<Stage>,
    options: &Run,
    stop: &Stop,
) -> Result<Ended> {
    // Before the first child: what a process said before proves nothing of now.
    let began = now();
    let mut screen = Screen::new(&settled.plan, bus.config.dry_run);
    let (news, mut told) = unbounded_channel();
    let mut children = JoinSet::new();
    for stage in stages {
        children.spawn(keep(stage, stop.clone(), news.clone()));
    }
    drop(news);
    let (tell_trouble, mut troubles) = unbounded_channel();
    let watch = watch(bus, settled, stop, tell_trouble);
    tokio::pin!(watch);
    let mut following: Option<Arc<Watch>> = None;
    let mut waiting = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    // When the broker was last known to be away, and what was said of that.
    let mut away: Option<Millis> = None;
    let mut patience = Patience::default();
    let mut held = Held::default();
    let mut result = Ok(Ended::Stopped);
    loop {
        tokio::select! {
            watch = &mut watch, if following.is_none() => match watch {
                // Told to stop; it must not be polled again.
                Ok(None) => break,
                Ok(Some(watch)) => {
                    let watch = Arc::new(watch);
                    following = Some(Arc::clone(&watch));
                    if options.until == Some(Until::Synced) {
                        let (bus, plan) = (Arc::clone(bus), settled.plan.clone());
                        let entities: Vec<String> = plan
                            .entities
                            .iter()
                            .filter(|entity| !settled.untaken.contains(entity))
                            .cloned()
                            .collect();
                        let gently = stop.gently.clone();
                        waiting.spawn_blocking(move || {
                            synced::wait(&bus, &plan, &entities, &watch, began, &gently)
                        });
                    }
                }
                Err(failures) => {
                    result = Err(failures);
                    break;
                }
            },
            Some(synced) = waiting.join_next() => match synced {
                Ok(Ok(true)) => {
                    result = Ok(Ended::Synced);
                    break;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    result = Err(error.into());
                    break;
                }
                Err(error) => {
                    result = Err(panicked(&error));
                    break;
                }
            },
            Some(child) = children.join_next() => match child {
                Ok(Ok(())) => {}
                Ok(Err(failures)) => {
                    result = Err(failures);
                    break;
                }
                Err(error) => {
                    result = Err(panicked(&error));
                    break;
                }
            },
            Some(news) = told.recv() => screen.tell(&news),
            Some(error) = troubles.recv() => {
                away = Some(now());
                let error: Error = error;
                if let Some(line) = patience.still(&error.while_running(), Instant::now()) {
                    screen.away(&line);
                }
            }
            _ = tick.tick() => {
                if let Some(watch) = &following {
                    let is_current = watch.is_current();
                    watch.look(|model| screen.update(model, is_current));
                    if options.until.is_some()
                        && let Some(failure) = watch.look(|model| held.look(model, &settled.plan, Instant::now()))
                    {
                        result = Err(failure.into());
                        break;
                    }
                    if let Some(error) = watch.trouble() {
                        if error.class() == Class::Transient {
                            away = Some(now());
                            if let Some(line) = patience.still(&error.while_running(), Instant::now()) {
                                screen.away(&line);
                            }
                        }
                    } else if let Some(last) = away
                        && watch.look(|model| model.reports().any(|report| report.at > last))
                    {
                        // A report made since then has come through.
                        away = None;
                        if let Some(lasted) = patience.over(Instant::now()) {
                            let line = "Kafka answers again; the stages go on";
                            screen.say(&format!("{line} (it was away for {lasted})"));
                        }
                    }
                }
            }
            () = stop.gently.cancelled() => break,
        }
    }
    screen.end();
    stop.gently.cancel();
    while let Some(child) = children.join_next().await {
        // The first failure is the one that ended the run.
        if let (Ok(Err(failures)), Ok(_)) = (child, &result) {
            result = Err(failures);
        }
    }
    result
}

/// Since when a lane has waited for a person: nobody may be there to see it, and
/// the copy can't end without it.
#[derive(Default)]
struct Held(Option<HeldSince>);

struct HeldSince {
    /// Whose lane it is.
    instance: String,
    began: Instant,
    moved: Instant,
    loaded: u64,
}

impl Held {
    /// Why the run is to end: a lane is blocked, and the others stand still too,
    /// or only follow changes.
    fn look(&mut self, model: &Model, plan: &Plan, now: Instant) -> Option<Failure> {
        let Some((instance, failure)) = blocked(model) else {
            let held = self.0.as_ref();
            if !held.is_some_and(|held| has_just_started(model, &held.instance)) {
                self.0 = None;
            }
            return None;
        };
        let objects = model.reports().flat_map(|report| report.objects.values());
        let loaded = objects
            .map(|object| object.extracted + object.applied)
            .sum();
        let since = self.0.get_or_insert(HeldSince {
            instance,
            began: now,
            moved: now,
            loaded,
        });
        if since.loaded != loaded {
            (since.loaded, since.moved) = (loaded, now);
        }
        let copied = plan.objects.iter().all(|object| {
            let checkpoint = model.checkpoint(&object.name);
            checkpoint.is_some_and(|checkpoint| checkpoint.snapshot_complete)
        });
        let over = now - since.moved > STILL || copied && now - since.began > 10 * STILL;
        over.then_some(failure)
    }
}

/// A lane that goes on only when a person has acted, and whose it is: as a process
/// tells it that lives, or that has ended by it and is about to be started again.
fn blocked(model: &Model) -> Option<(String, Failure)> {
    let patience = SILENCE + LONGEST_BACK_OFF;
    let counts = |report: &&Report| now() - report.at <= patience.as_millis() as Millis;
    let (report, lane, why) = model.reports().filter(counts).find_map(|report| {
        let mut lanes = report.lanes.iter();
        let (name, lane) = lanes.find(|(_, lane)| lane.phase == Phase::Blocked)?;
        Some((report, name, lane.error.as_deref().unwrap_or_default()))
    })?;
    let others = report.lanes.iter();
    let others = others.filter(|(name, other)| other.phase == Phase::Blocked && *name != lane);
    let others: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
    let also = match others.is_empty() {
        true => String::new(),
        false => format!(" (so do {})", others.join(", ")),
    };
    let message = format!(
        "lane {lane} of {} waits for a person{also}, so the copy can't end: {why}",
        report.instance
    );
    let advice = "act, and run again: it goes on where it stands";
    let failure = Failure::new(Code::Incomplete, message, advice);
    Some((report.instance.clone(), failure))
}

/// Whether a process has not worked long enough to meet again what the one before
/// it has ended by.
fn has_just_started(model: &Model, instance: &str) -> bool {
    let mut reports = model.reports();
    let report = reports.find(|report| report.instance == instance);
    report.is_some_and(|report| report.at - report.started_at < SILENCE.as_millis() as Millis)
}

fn panicked(error: &tokio::task::JoinError) -> Failures {
    Error::new(Code::Invariant, format!("a task panicked: {error}")).into()
}

/// Follows the migration's state, as soon as the broker lets us; tells why it does
/// not. `None` when told to stop before.
async fn watch(
    bus: &Arc<Bus>,
    settled: &Settled,
    stop: &Stop,
    trouble: UnboundedSender<Error>,
) -> Result<Option<Watch>> {
    while !stop.gently.is_cancelled() {
        let (bus, plan) = (Arc::clone(bus), settled.plan.clone());
        let opened = tokio::task::spawn_blocking(move || Reader::open(&bus, plan)?.watch()).await;
        match opened.map_err(|error| panicked(&error))? {
            Ok(watch) => return Ok(Some(watch)),
            Err(error) if error.class() == Class::Transient => {
                let _ = trouble.send(error);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::Object;
    use drover_pipeline::spec;
    use drover_pipeline::status::{Counts, Lane, Status};

    use super::*;
    use crate::view::Table;

    fn model(phase: Phase, applied: u64, copied: bool) -> Model {
        let status = Status::new(spec::Stage::Loader, "x", "loader-1", "").expect("a status");
        let mut report = status.report();
        report.started_at -= 60_000;
        let lane = Lane {
            phase,
            error: Some("EMPTIED_BY_MAPPING: too many".to_owned()),
            until: None,
            waits_for: None,
            seen: None,
        };
        report.lanes.insert("deal".to_owned(), lane);
        let counts = Counts {
            applied,
            ..Counts::default()
        };
        report.objects.insert("Opportunity".to_owned(), counts);
        let mut model = Model::default();
        let json = serde_json::to_vec(&report).expect("serialises");
        model.apply(Table::Status, b"loader-1", Some(&json));
        let checkpoint = serde_json::json!({
            "cursor": null, "phase": "DELTA", "snapshotComplete": copied, "extracted": 1,
            "asOf": 1, "at": 1,
        });
        let json = checkpoint.to_string().into_bytes();
        model.apply(Table::Checkpoint, b"x/Opportunity", Some(&json));
        model
    }

    #[test]
    fn a_run_ends_when_a_lane_waits_for_a_person_and_the_rest_is_done() {
        let plan = Plan {
            objects: vec![Object {
                name: "Opportunity".to_owned(),
                ..Object::default()
            }],
            ..Plan::default()
        };
        let mut held = Held::default();
        let began = Instant::now();
        let look = |held: &mut Held, model: &Model, seconds: u64| {
            held.look(model, &plan, began + Duration::from_secs(seconds))
        };
        let blocked = |applied, copied| model(Phase::Blocked, applied, copied);
        assert!(look(&mut held, &blocked(1, false), 0).is_none());
        // The others still load.
        assert!(look(&mut held, &blocked(2, false), 29).is_none());
        assert!(look(&mut held, &blocked(3, false), 58).is_none());
        assert!(look(&mut held, &blocked(3, false), 88).is_none());
        let failure = look(&mut held, &blocked(3, false), 89).expect("it ends");
        let told = "INCOMPLETE: lane deal of loader-1 waits for a person, so the copy can't end: \
                    EMPTIED_BY_MAPPING: too many; act, ";
        assert!(failure.to_string().starts_with(told), "{failure}");
        let mut two = blocked(3, false);
        let mut report = two.reports().next().cloned().expect("a report");
        let lane = report.lanes["deal"].clone();
        report.lanes.insert("task".to_owned(), lane);
        let json = serde_json::to_vec(&report).expect("serialises");
        two.apply(Table::Status, b"loader-1", Some(&json));
        let failure = look(&mut held, &two, 89).expect("it ends");
        let told = "lane deal of loader-1 waits for a person (so do task), so";
        assert!(failure.to_string().contains(told), "{failure}");
        // Somebody has acted.
        assert!(look(&mut held, &model(Phase::Running, 3, false), 90).is_none());
        assert!(look(&mut held, &blocked(3, false), 91).is_none());
        // All is copied, and people go on editing.
        for second in 92..=391 {
            assert!(
                look(&mut held, &blocked(second, true), second).is_none(),
                "{second}"
            );
        }
        assert!(look(&mut held, &blocked(392, true), 392).is_some());
    }

    /// An extractor that can't log in ends when all its lanes are blocked, and is
    /// started again and again: between two starts no living process is blocked.
    #[test]
    fn a_run_ends_although_who_waits_for_a_person_is_started_again() {
        let plan = Plan::default();
        let mut held = Held::default();
        let began = Instant::now();
        let look = |held: &mut Held, model: &Model, seconds: u64| {
            held.look(model, &plan, began + Duration::from_secs(seconds))
        };
        let tell = |started: bool| {
            let mut model = model(Phase::Blocked, 1, true);
            let mut report = model.reports().next().cloned().expect("a report");
            match started {
                true => {
                    report.started_at = report.at;
                    report.lanes.clear();
                }
                false => report.phase = Phase::Stopped,
            }
            let json = serde_json::to_vec(&report).expect("serialises");
            model.apply(Table::Status, b"loader-1", Some(&json));
            model
        };
        for second in 0..30 {
            assert!(look(&mut held, &tell(second % 4 == 0), second).is_none());
        }
        assert!(
            look(&mut held, &tell(true), 31).is_none(),
            "it may work now"
        );
        let failure = look(&mut held, &tell(false), 32).expect("it ends");
        assert!(
            failure
                .to_string()
                .starts_with("INCOMPLETE: lane deal of loader-1")
        );
    }
}
