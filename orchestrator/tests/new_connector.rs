//! "Adding a connector is adding a folder": in a copy of the source tree
//! `drover new-extractor` and `drover new-loader` make a folder each, both pass
//! the suite of their kind at once, and nothing else has changed.
//!
//! The copy's build starts from links to what is built already, so that only the
//! two new crates are compiled. Cargo names what it builds by the place in the
//! workspace, not by the place of the workspace, and files keep their times.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The two that are made.
const NEW: [&str; 2] = ["drover-extractor-hubtest", "drover-loader-hubtest"];

/// The source tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn shell(folder: &Path, script: &str) -> String {
    let output = ran(Command::new("sh").args(["-ec", script]).current_dir(folder));
    String::from_utf8(output.stdout).unwrap()
}

struct Copy {
    _place: tempfile::TempDir,
    tree: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Copy {
    fn make() -> Self {
        // Where this test was built, so that files can be linked.
        let built = Path::new(env!("CARGO_BIN_EXE_drover")).parent().unwrap();
        let profile = built.file_name().unwrap().to_str().unwrap().to_owned();
        let place = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
        let (tree, target) = (place.path().join("tree"), place.path().join("target"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(target.join(&profile)).unwrap();
        let (to, from) = (target.join(&profile), built.display());
        shell(
            root(),
            &format!(
                "git ls-files -z --cached --others --exclude-standard \
                 | xargs -0 cp -a --parents -t '{}'",
                tree.display()
            ),
        );
        // Links where cargo writes new files, copies where it writes into old ones.
        shell(
            &to,
            &format!("cp -al '{from}/build' '{from}/deps' . && cp -a '{from}/.fingerprint' ."),
        );
        shell(
            &tree,
            "git init -q && git add -A && \
             git -c user.name=n -c user.email=e commit -q -m 'The tree as it is'",
        );
        Copy {
            _place: place,
            tree,
            target,
            profile,
        }
    }

    fn drover(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        let output = ran(command.args(arguments).current_dir(&self.tree));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Builds the suites of the whole workspace, so that the dependencies have the
    /// features that they were built with, and gives the programs of one package
    /// each. `fresh` names the packages that were not built anew.
    fn suites(&self, fresh: &mut Vec<String>) -> Vec<(String, PathBuf)> {
        let profile = match self.profile.as_str() {
            "debug" => "dev",
            other => other,
        };
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--offline", "--profile", profile, "--no-run"]);
        command.args([
            "--workspace",
            "--exclude",
            "drover-tests",
            "--test",
            "suite",
        ]);
        command.arg("--message-format=json");
        for program in NEW {
            // The suites wait for the stand-ins more than they compute.
            let setting = format!("profile.{profile}.package.{program}.opt-level=0");
            command.args(["--config", &setting]);
        }
        // What cargo tells a test of its own package is no news for this build.
        for (name, _) in std::env::vars() {
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        command.env("CARGO_TARGET_DIR", &self.target);
        let output = ran(command.current_dir(&self.tree));
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut programs = Vec::new();
        for line in lines.lines() {
            let said: Value = serde_json::from_str(line).unwrap();
            if said["reason"] != "compiler-artifact" {
                continue;
            }
            let folder = Path::new(said["manifest_path"].as_str().unwrap());
            let folder = folder.parent().unwrap().strip_prefix(&self.tree);
            let Ok(folder) = folder.map(|folder| folder.display().to_string()) else {
                continue;
            };
            if said["fresh"] == true {
                fresh.push(folder.clone());
            }
            if let Some(program) = said["executable"].as_str()
                && said["target"]["name"] == "suite"
            {
                programs.push((folder, program.into()));
            }
        }
        programs
    }
}

#[test]
fn a_new_connector_is_one_folder_and_passes_its_suite() {
    if !root().join(".git").exists() {
        println!("skipped: the source tree is no clone");
        return;
    }
    let copy = Copy::make();
    let said = copy.drover(&["new-extractor", "hubtest"]);
    let next = "cargo test --release -p drover-extractor-hubtest\n";
    assert!(said.contains(next), "{said}");
    copy.drover(&["new-loader", "hubtest"]);

    let mut fresh = Vec::new();
    let programs = copy.suites(&mut fresh);
    for (folder, least) in [("extractors/hubtest", 19), ("loaders/hubtest", 20)] {
        let (_, program) = programs.iter().find(|(of, _)| of == folder).unwrap();
        let output = ran(Command::new(program).current_dir(copy.tree.join(folder)));
        let said = String::from_utf8(output.stdout).unwrap();
        let passed = said.split_once("test result: ok. ").unwrap().1;
        let passed: u32 = passed.split(' ').next().unwrap().parse().unwrap();
        assert!(passed >= least, "{folder}: {said}");
        assert!(!fresh.iter().any(|built| built == folder));
    }
    assert!(fresh.iter().any(|built| built == "pipeline"), "{fresh:?}");
    assert_eq!(
        shell(&copy.tree, "git status --porcelain"),
        " M Cargo.lock\n?? extractors/hubtest/\n?? loaders/hubtest/\n"
    );
    // Their names are nowhere else: cargo's list of packages is all that knows.
    let lock = "git diff --stat -- Cargo.lock && git diff -U0 -- Cargo.lock";
    let added = shell(&copy.tree, lock);
    assert!(
        !added
            .lines()
            .any(|line| line.starts_with("-") && !line.starts_with("---")),
        "{added}"
    );
}
