//! The stages of a migration as child processes of this one: started, started
//! again when they fail, and ended.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use drover_pipeline::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::connectors::Connector;
use crate::failure::{Failure, Failures, Result};

/// How long a child may take to finish what is under way.
const GRACE: Duration = Duration::from_secs(30);

/// A child that ran this long is well: its next failure is its first again. One
/// that can't work ends sooner, and one that is killed now and then, for its
/// memory say, is not to be waited for.
const WELL: Duration = Duration::from_secs(10);

/// The longest wait before a child that fails again and again is started anew.
pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// How much of a log is read for the message a child ended with.
const TAIL: u64 = 64 << 10;

/// A stage that is to be kept running.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// Its program.
    pub(crate) connector: Connector,
    /// Its name, the same after every start: its group membership goes on.
    pub(crate) instance: String,
    /// The migration's configuration.
    pub(crate) config: PathBuf,
    /// Where its standard error goes.
    pub(crate) log: PathBuf,
}

/// What became of a child, for a person.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// It runs.
    Started {
        instance: String,
        pid: u32,
        http: String,
    },
    /// It has ended although nobody asked, and starts again after a while.
    Failed {
        instance: String,
        how: String,
        why: Option<Failure>,
        again_in: Duration,
    },
}

/// How the children are ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// They finish what is under way.
    pub(crate) gently: CancellationToken,
    /// They end at once.
    pub(crate) now: CancellationToken,
}

/// The first line that a stage prints.
#[derive(Deserialize)]
struct Ready {
    pid: u32,
    http: String,
}

/// Keeps a stage running until it is told to stop. The error is a bad
/// configuration, which no further start mends.
pub(crate) async fn keep(stage: Stage, stop: Stop, news: UnboundedSender<News>) -> Result<()> {
    let mut failures = 0;
    while !stop.gently.is_cancelled() {
        let started = Instant::now();
        let from = std::fs::metadata(&stage.log).map_or(0, |facts| facts.len());
        let mut child = spawn(&stage)?;
        let status = attend(&mut child, &stage, &stop, &news).await;
        if stop.gently.is_cancelled() {
            return Ok(());
        }
        let told = told(&stage.log, from);
        if status.code() == Some(2) {
            return Err(if told.is_empty() {
                let message = format!("{} refuses to start", stage.instance);
                let advice = format!("see {}", stage.log.display());
                Failure::new(Code::ConfigInvalid, message, advice).into()
            } else {
                Failures(told)
            });
        }
        if started.elapsed() > WELL {
            failures = 0;
        }
        let again_in = back_off(failures);
        failures += 1;
        let _ = news.send(News::Failed {
            instance: stage.instance.clone(),
            how: describe(status),
            why: told.into_iter().next_back(),
            again_in,
        });
        tokio::select! {
            () = tokio::time::sleep(again_in) => {}
            () = stop.gently.cancelled() => {}
        }
    }
    Ok(())
}

/// At once the first time, then 1, 2, 4 .. 30 s.
fn back_off(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(5)).min(LONGEST_BACK_OFF),
    }
}

fn spawn(stage: &Stage) -> Result<Child> {
    let refuse = |what: String| Failure::new(Code::Refused, what, "mend that, then start again");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&stage.log)
        .map_err(|e| refuse(format!("{} can't be written: {e}", stage.log.display())))?;
    let child = Command::new(&stage.connector.path)
        .arg("run")
        .arg("-c")
        .arg(&stage.config)
        .args(["--instance", &stage.instance, "--supervised"])
        // Its end tells the child that we are gone, however we went.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Straight to the file: a pipe would break when we are gone.
        .stderr(log)
        // Ctrl-C is for us; the children are told by SIGTERM, once.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            refuse(format!(
                "{} can't be started: {e}",
                stage.connector.path.display()
            ))
        })?;
    Ok(child)
}

/// Waits for a child's end, and brings it about when told to stop.
async fn attend(
    child: &mut Child,
    stage: &Stage,
    stop: &Stop,
    news: &UnboundedSender<News>,
) -> ExitStatus {
    let _stdin = child.stdin.take();
    if let Some(stdout) = child.stdout.take() {
        let (news, instance) = (news.clone(), stage.instance.clone());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            // What comes after the first line is read, so that no pipe fills.
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(Ready { pid, http }) = serde_json::from_str(&line) {
                    let instance = instance.clone();
                    let _ = news.send(News::Started {
                        instance,
                        pid,
                        http,
                    });
                }
            }
        });
    }
    tokio::select! {
        status = child.wait() => return lost(status),
        () = stop.gently.cancelled() => {}
    }
    terminate(child);
    tokio::select! {
        status = child.wait() => return lost(status),
        () = tokio::time::sleep(GRACE) => {}
        () = stop.now.cancelled() => {}
    }
    let _ = child.start_kill();
    lost(child.wait().await)
}

/// A child whose end can't be asked for has ended as far as we can know.
fn lost(status: std::io::Result<ExitStatus>) -> ExitStatus {
    status.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8))
}

fn terminate(child: &Child) {
    // A child that was waited for has no id any more, so no other process is hit.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        // A stage ends so by itself when the migration's mapping has changed.
        (Some(0), _) => "exit code 0, as after a remap or a signal".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The failures that a child has told since its start.
fn told(log: &Path, from: u64) -> Vec<Failure> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read()
        .unwrap_or_default()
        .lines()
        .filter_map(Failure::parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once() {
        let waits: Vec<u64> = (0..9).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
