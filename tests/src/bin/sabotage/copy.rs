//! A copy of the tree in which rules can be harmed, with a build of its own that
//! takes the dependencies that are built already.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::rules::{Place, Rule};

/// A harmed process may well hang where a sound one goes on: red too, after so
/// many seconds.
const PATIENCE: &str = "300";

/// How long a build may take, in seconds.
const BUILD: &str = "1200";

/// Whose dependencies are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Those of `make test`.
    Release,
    /// Those of a plain `cargo build`.
    Dev,
}

/// How tests ended.
pub(crate) enum Outcome {
    /// All of them passed.
    Green,
    /// These failed.
    Red(String),
    /// They were not run; why.
    Broken(String),
}

/// The copy.
pub(crate) struct Copy {
    tree: PathBuf,
    target: PathBuf,
    profile: Profile,
    /// The packages of the workspace.
    members: Vec<String>,
}

impl Copy {
    /// Makes it, or brings the one of an earlier run up to date.
    pub(crate) fn make(profile: Profile) -> Result<Self, String> {
        let root = env::current_dir().map_err(|e| e.to_string())?;
        let built = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        let place = built.join("sabotage");
        let (tree, target) = (place.join("tree"), place.join("target"));
        fs::create_dir_all(&tree).map_err(|e| format!("{}: {e}", tree.display()))?;
        let files = shell("git ls-files -z --cached --others --exclude-standard")?;
        let files: Vec<&str> = files.split('\0').filter(|file| !file.is_empty()).collect();
        for file in &files {
            bring(&root.join(file), &tree.join(file))?;
        }
        forget(&tree, &tree, &files)?;
        // What the tests read beside the tree.
        if let Ok(shared) = root.join("../shared").canonicalize() {
            let _ = std::os::unix::fs::symlink(shared, place.join("shared"));
        }
        let folder = match profile {
            Profile::Release => "release",
            Profile::Dev => "debug",
        };
        let (to, from) = (target.join(folder), built.join(folder));
        if !to.exists() && from.join("deps").exists() {
            fs::create_dir_all(&to).map_err(|e| e.to_string())?;
            let (from, to) = (from.display(), to.display());
            // Links where cargo writes new files and never into old ones.
            shell(&format!("cp -al '{from}/build' '{from}/deps' '{to}'"))?;
            shell(&format!("cp -a '{from}/.fingerprint' '{to}'"))?;
        }
        let manifests = files.iter().filter(|file| file.ends_with("Cargo.toml"));
        let members = manifests
            .filter_map(|file| {
                let text = fs::read_to_string(root.join(file)).ok()?;
                let name = text.split_once("[package]\nname = \"")?.1;
                Some(name.split_once('"')?.0.to_owned())
            })
            .collect();
        Ok(Copy {
            tree,
            target,
            profile,
            members,
        })
    }

    /// Takes a rule away.
    pub(crate) fn harm(&self, rule: &Rule) -> Result<Harmed, String> {
        let path = self.tree.join(rule.file);
        let whole = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", rule.file))?;
        let found = whole.matches(rule.find).count();
        if found != 1 {
            return Err(format!(
                "{}: its text stands {found} times in {}, not once; bring the rule up to date",
                rule.name, rule.file
            ));
        }
        write(&path, &whole.replacen(rule.find, rule.replace, 1))?;
        Ok(Harmed { path, whole })
    }

    /// Runs some tests of one target.
    pub(crate) fn test(&self, place: Place, names: &[&str]) -> Result<Outcome, String> {
        if place.binaries {
            let (built, said) = self.cargo(BUILD, &["build", "--workspace", "--bins"])?;
            if !built {
                return Ok(Outcome::Broken(last(&said)));
            }
        }
        let mut arguments = vec!["test"];
        match place.is_alone() || place.binaries {
            // So the dependencies have the features that the whole workspace
            // gives them, and none is built again.
            true => arguments.push("--workspace"),
            false => arguments.extend(["-p", place.package]),
        }
        match place.target {
            "lib" => arguments.push("--lib"),
            target => arguments.extend(["--test", target]),
        }
        let (built, said) = self.cargo(BUILD, &[&arguments[..], &["--no-run"]].concat())?;
        if !built {
            return Ok(Outcome::Broken(last(&said)));
        }
        arguments.extend(["--", "--exact"]);
        arguments.extend(names);
        let (passed, said) = self.cargo(PATIENCE, &arguments)?;
        let ended = |how: &str| -> Vec<&str> {
            let is = |name: &&&str| said.contains(&format!("test {name} ... {how}"));
            names.iter().filter(is).copied().collect()
        };
        let (ok, failed) = (ended("ok"), ended("FAILED"));
        Ok(match (passed, ok.len() == names.len(), failed.is_empty()) {
            (true, true, true) => Outcome::Green,
            (false, _, false) => Outcome::Red(format!("{}\n{}", failed.join(", "), last(&said))),
            // A test that ends its own process, or hangs, is red as well, once
            // it has begun.
            (false, false, true) if said.contains("\nrunning ") => {
                Outcome::Red(format!("{}\n{}", names.join(", "), last(&said)))
            }
            _ => Outcome::Broken(last(&said)),
        })
    }

    /// Whether it succeeded, and what it printed.
    fn cargo(&self, seconds: &str, arguments: &[&str]) -> Result<(bool, String), String> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "10", seconds, "cargo"]);
        if self.profile == Profile::Release {
            // What is harmed is built fast; its dependencies are there already.
            for member in &self.members {
                for how in ["opt-level=0", "debug=false"] {
                    command.args([
                        "--config",
                        &format!("profile.release.package.{member}.{how}"),
                    ]);
                }
            }
        }
        command.arg(arguments[0]);
        if self.profile == Profile::Release {
            command.arg("--release");
        }
        let output = command
            .args(&arguments[1..])
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("timeout, cargo: {e}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Ok((output.status.success(), text))
    }
}

fn last(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A file that is not as it should be.
pub(crate) struct Harmed {
    path: PathBuf,
    whole: String,
}

impl Harmed {
    /// Puts the rule back.
    pub(crate) fn mend(self) -> Result<(), String> {
        write(&self.path, &self.whole)
    }
}

/// Copies a file where it differs, so that only that is built again.
fn bring(from: &Path, to: &Path) -> Result<(), String> {
    // Listed, but gone.
    let Ok(wanted) = fs::read(from) else {
        return Ok(());
    };
    if fs::read(to).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    let said = |e: std::io::Error| format!("{}: {e}", to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(said)?;
    }
    // With its mode; dated now, or cargo would not see that it is another.
    fs::copy(from, to).map_err(said)?;
    fs::write(to, wanted).map_err(said)
}

/// Removes what an earlier run brought and the tree has no more.
fn forget(tree: &Path, folder: &Path, files: &[&str]) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(said)? {
        let path = entry.map_err(said)?.path();
        let name = path.strip_prefix(tree).unwrap_or(&path);
        if path.is_dir() {
            forget(tree, &path, files)?;
        } else if !files.iter().any(|file| Path::new(file) == name) {
            fs::remove_file(&path).map_err(said)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// What a command prints.
fn shell(command: &str) -> Result<String, String> {
    let done = Command::new("sh").args(["-c", command]).output();
    match done {
        Ok(done) if done.status.success() => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        Ok(done) => Err(format!(
            "{command}: {}",
            String::from_utf8_lossy(&done.stderr)
        )),
        Err(error) => Err(format!("{command}: {error}")),
    }
}
