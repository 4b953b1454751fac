//! A PostgreSQL for the tests: the one of `DROVER_TEST_POSTGRES`, or one that is
//! started here and ends with this process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A server that was started for this process.
pub struct Server {
    dir: PathBuf,
    /// Where it listens.
    pub url: String,
    // Waits for the end of its stdin, which comes with the end of this process,
    // however it ends; then stops the server and removes its data.
    guard: Child,
}

/// The server that all tests share; `None` when PostgreSQL is not installed.
pub fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<String>> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            if let Ok(url) = std::env::var("DROVER_TEST_POSTGRES") {
                return Some(url);
            }
            let server = Server::start()?;
            let url = server.url.clone();
            // Its guard ends it; nothing in this process may before.
            std::mem::forget(server);
            Some(url)
        })
        .as_deref()
}

impl Server {
    /// A server of one's own; `None`, and a word on stderr, when PostgreSQL is
    /// not installed.
    pub fn start() -> Option<Self> {
        if !installed() {
            eprintln!(
                "SKIPPED: no PostgreSQL server is installed (looked in /usr/lib/postgresql and \
                 asked pg_config), and DROVER_TEST_POSTGRES names none"
            );
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("drover-pg.")
            .tempdir()
            .expect("a directory")
            .keep();
        let script =
            "cat >/dev/null; \"$0\" stop --kill --dir \"$1\" >/dev/null 2>&1; rm -rf \"$1\"";
        let guard = Command::new("setsid")
            .args(["sh", "-c", script])
            .arg(local())
            .arg(&dir)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the guard starts");
        let url = run(&dir, &["start", "--port", "0", "--unsafe-fast"]);
        Some(Server { dir, url, guard })
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends it as a crash would and starts it again on the same port.
    pub fn crash(&self) {
        run(&self.dir, &["restart", "--kill"]);
    }

    /// Ends it.
    pub fn stop(&self) {
        run(&self.dir, &["stop"]);
    }

    /// Starts it again on the same port.
    pub fn again(&self) {
        run(&self.dir, &["start"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.guard.stdin.take() {
            let _ = stdin.flush();
        }
        let _ = self.guard.wait();
    }
}

fn local() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/postgres/local")
}

fn run(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(local())
        .args(args)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("deploy/postgres/local runs");
    assert!(
        output.status.success(),
        "deploy/postgres/local {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn installed() -> bool {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .any(|version| version.path().join("bin/postgres").exists());
    let elsewhere = || {
        let asked = Command::new("pg_config").arg("--bindir").output();
        asked.is_ok_and(|output| {
            let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Path::new(&dir).join("postgres").exists()
        })
    };
    debian || elsewhere()
}
