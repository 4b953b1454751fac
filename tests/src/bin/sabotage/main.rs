//! Switches off one rule of Drover at a time and demands that a named test
//! turns red. A rule that nobody misses fails the command: either it is not
//! needed, or its test cannot fail.
//!
//! A rule is switched off by changing the source text in a copy of the tree, so
//! that the product itself has no switch. The text to change must be found
//! exactly once, or the rule's entry is out of date, which fails too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Instant, UNIX_EPOCH};
use std::{env, fs};

mod rules;

use rules::{RULES, Rule, Test};

const USAGE: &str = "usage: drover-sabotage [--list] [--dev] [--sample N [--seed S]] [RULE]...

  --dev       builds without optimisation: faster where such a build is at hand
  --list      the rules, and the tests that must notice
  --sample N  N rules, chosen by the seed (default: the day), of those that
              need no build of the programs
Run in the root of the tree. Tests find Kafka and PostgreSQL as `tests/run` sets
them up: `tests/run sabotage`.";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("sabotage: {message}");
            ExitCode::from(3)
        }
    }
}

fn run() -> Result<bool, String> {
    let Some((chosen, profile)) = chosen()? else {
        return Ok(true);
    };
    let copy = Copy::make(profile)?;
    println!("{} rules; the tests are run unharmed first", chosen.len());
    let tests: BTreeSet<Test> = chosen.iter().map(|rule| rule.test).collect();
    for test in tests {
        match copy.test(test)? {
            Outcome::Green => {}
            Outcome::Red => return Err(format!("{} is red without any sabotage", test.name)),
            Outcome::Broken(why) => return Err(format!("{} does not run: {why}", test.name)),
        }
    }
    println!("{:<34} {:<36} {:>7}", "RULE", "NOTICED BY", "SECONDS");
    let mut missed = Vec::new();
    for rule in &chosen {
        let began = Instant::now();
        let harmed = copy.harm(rule)?;
        let outcome = copy.test(rule.test)?;
        harmed.mend()?;
        let result = match outcome {
            Outcome::Red => rule.test.name,
            Outcome::Green => "NOBODY",
            Outcome::Broken(ref why) => {
                eprintln!("{}: {why}", rule.name);
                "does not build: no evidence"
            }
        };
        if !matches!(outcome, Outcome::Red) {
            missed.push(rule.name);
        }
        let seconds = began.elapsed().as_secs();
        println!("{:<34} {:<36} {seconds:>7}", rule.name, short(result));
    }
    let noticed = chosen.len() - missed.len();
    println!("{noticed} of {} rules were missed by a test", chosen.len());
    for name in &missed {
        println!("NOT NOTICED: {name}");
    }
    Ok(missed.is_empty())
}

/// The last part of a test's path, in the width of the table.
fn short(name: &str) -> String {
    let name = name.rsplit("::").next().unwrap_or(name);
    name.chars().take(36).collect()
}

/// The rules that the command line asks for; `None` when it only lists.
fn chosen() -> Result<Option<(Vec<&'static Rule>, Profile)>, String> {
    let mut arguments = env::args().skip(1);
    let (mut names, mut sample, mut seed) = (Vec::new(), None, None);
    let mut profile = RELEASE;
    let number = |text: Option<String>| -> Result<u64, String> {
        let text = text.ok_or(USAGE)?;
        text.parse().map_err(|_| format!("`{text}` is no number"))
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => {
                for rule in RULES {
                    println!("{}\n    {}\n    {}", rule.name, rule.what, rule.test.name);
                }
                return Ok(None);
            }
            "--dev" => profile = DEV,
            "--sample" => sample = Some(number(arguments.next())?),
            "--seed" => seed = Some(number(arguments.next())?),
            name if name.starts_with('-') => return Err(USAGE.to_owned()),
            name => names.push(name.to_owned()),
        }
    }
    for name in &names {
        if !RULES.iter().any(|rule| rule.name == name) {
            return Err(format!("no rule `{name}`; --list shows them"));
        }
    }
    let mut rules: Vec<&Rule> = RULES
        .iter()
        .filter(|rule| names.is_empty() || names.iter().any(|name| name == rule.name))
        .collect();
    if let Some(sample) = sample {
        rules.retain(|rule| !rule.test.binaries);
        // Another one each day, so that all of them have their turn.
        let day = || {
            UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_secs() / 86_400)
        };
        let first = usize::try_from(seed.unwrap_or_else(day)).unwrap_or(0) % rules.len();
        rules.rotate_left(first);
        rules.truncate(usize::try_from(sample).unwrap_or(1).max(1));
    }
    Ok(Some((rules, profile)))
}

/// How the copy is built: cargo's name of the profile, and of its folder.
#[derive(Debug, Clone, Copy)]
struct Profile {
    name: &'static str,
    folder: &'static str,
}

/// As `make test` builds.
const RELEASE: Profile = Profile {
    name: "release",
    folder: "release",
};

const DEV: Profile = Profile {
    name: "dev",
    folder: "debug",
};

enum Outcome {
    Green,
    Red,
    Broken(String),
}

/// A copy of the tree with its own build, which takes the dependencies that are
/// built already.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
    profile: Profile,
}

impl Copy {
    fn make(profile: Profile) -> Result<Self, String> {
        let root = env::current_dir().map_err(|e| e.to_string())?;
        let built = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        let place = built.join("sabotage");
        let copy = Copy {
            tree: place.join("tree"),
            target: place.join("target"),
            profile,
        };
        let _ = fs::remove_dir_all(&copy.tree);
        fs::create_dir_all(&copy.tree).map_err(|e| format!("{}: {e}", copy.tree.display()))?;
        let tree = copy.tree.display();
        shell(&format!(
            "git ls-files -z | xargs -0 cp --parents -t '{tree}'"
        ))?;
        // What the tests read beside the tree.
        if let Ok(shared) = root.join("../shared").canonicalize() {
            let _ = std::os::unix::fs::symlink(shared, place.join("shared"));
        }
        let (to, from) = (copy.target.join(profile.folder), built.join(profile.folder));
        if !to.exists() && from.join("deps").exists() {
            fs::create_dir_all(&to).map_err(|e| e.to_string())?;
            // Links, not copies: cargo writes new files and never into old ones.
            for folder in [".fingerprint", "build", "deps"] {
                let (from, to) = (from.join(folder), to.display());
                shell(&format!("cp -al '{}' '{to}'", from.display()))?;
            }
        }
        Ok(copy)
    }

    fn harm(&self, rule: &Rule) -> Result<Harmed, String> {
        let path = self.tree.join(rule.file);
        let whole = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", rule.file))?;
        let found = whole.matches(rule.find).count();
        if found != 1 {
            return Err(format!(
                "{}: its text stands {found} times in {}, not once; bring the rule up to date",
                rule.name, rule.file
            ));
        }
        let text = whole.replacen(rule.find, rule.replace, 1);
        write(&path, &text)?;
        Ok(Harmed { path, whole })
    }

    fn test(&self, test: Test) -> Result<Outcome, String> {
        if test.binaries {
            let built = self.cargo(&[
                "build",
                "--profile",
                self.profile.name,
                "--workspace",
                "--bins",
            ])?;
            if !built.0 {
                return Ok(Outcome::Broken(built.1));
            }
        }
        let mut arguments = vec!["test", "--profile", self.profile.name, "-p", test.package];
        match test.target {
            "lib" => arguments.push("--lib"),
            target => arguments.extend(["--test", target]),
        }
        let mut build = arguments.clone();
        build.push("--no-run");
        let built = self.cargo(&build)?;
        if !built.0 {
            return Ok(Outcome::Broken(built.1));
        }
        arguments.extend(["--", "--exact", test.name]);
        let (passed, output) = self.cargo(&arguments)?;
        let line = |end: &str| output.contains(&format!("test {} ... {end}", test.name));
        Ok(match (passed, line("ok"), line("FAILED")) {
            (true, true, false) => Outcome::Green,
            (false, false, true) => Outcome::Red,
            // A test that ends its own process is red as well, once it has begun.
            (false, false, false) if output.contains("running 1 test") => Outcome::Red,
            _ => Outcome::Broken(last(&output)),
        })
    }

    /// Whether it succeeded, and what it printed.
    fn cargo(&self, arguments: &[&str]) -> Result<(bool, String), String> {
        let output = Command::new("timeout")
            // A harmed process may well hang where a sound one goes on: red too.
            .args(["600", "cargo"])
            .args(arguments)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
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
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A file that is not as it should be.
struct Harmed {
    path: PathBuf,
    whole: String,
}

impl Harmed {
    fn mend(self) -> Result<(), String> {
        write(&self.path, &self.whole)
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn shell(command: &str) -> Result<(), String> {
    let done = Command::new("sh").args(["-c", command]).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command}: {status}")),
        Err(error) => Err(format!("{command}: {error}")),
    }
}
