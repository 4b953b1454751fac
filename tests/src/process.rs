//! Drover's own binaries as child processes, with their output in files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A binary of the workspace: beside the test's own executable.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("our own path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace` with the same profile first",
        path.display()
    );
    path
}

/// A running process. Killed when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The first line it printed, as JSON.
    pub first: serde_json::Value,
}

impl Process {
    /// Starts a binary and reads its first line of JSON. Its standard error
    /// goes to `<dir>/<name>.log`, appended.
    pub fn start(
        dir: &Path,
        name: &str,
        binary_name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        let mut process = Self::spawn(
            dir,
            name,
            binary_name,
            arguments,
            environment,
            Stdio::piped(),
        );
        let mut line = String::new();
        let mut stdout = BufReader::new(process.child.stdout.take().expect("its output"));
        stdout.read_line(&mut line).expect("its first line");
        // What it prints later is read and thrown away, so that it never blocks.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        process.first = serde_json::from_str(&line).unwrap_or(serde_json::Value::Null);
        process
    }

    /// The same for a program that has nothing to say at its start.
    pub fn start_quiet(
        dir: &Path,
        name: &str,
        binary_name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        Self::spawn(
            dir,
            name,
            binary_name,
            arguments,
            environment,
            Stdio::null(),
        )
    }

    fn spawn(
        dir: &Path,
        name: &str,
        binary_name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdout: Stdio,
    ) -> Process {
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let child = Command::new(binary(binary_name))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        Process {
            name: name.to_owned(),
            child,
            log,
            first: serde_json::Value::Null,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself; then there is nobody to tell.
        let _ = kill(self.pid(), signal);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {limit:?}:\n{}",
                self.name,
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it was ended by SIGKILL.
    pub fn wait_killed(&mut self, limit: Duration) {
        let status = self.wait(limit);
        assert_eq!(
            status.signal(),
            Some(9),
            "{} ended with {status} instead of SIGKILL:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// Ends it with SIGTERM and expects exit code 0.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait(Duration::from_secs(30));
        assert_eq!(
            status.code(),
            Some(0),
            "{}:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// The end of its log, for a failure's message.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
