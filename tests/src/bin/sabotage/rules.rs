//! The rules, each with the change that switches it off and the test that must
//! notice. Invariants are numbered as in ARCHITECTURE.md.

use std::fmt;

mod loader;
mod proof;
mod source;
mod stages;

/// A target of cargo's that holds tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The package it is in.
    pub(crate) package: &'static str,
    /// Its name; `lib` for the library's own tests.
    pub(crate) target: &'static str,
    /// Whether its tests start the programs, which are built for it then.
    pub(crate) binaries: bool,
    /// Whether its tests pass for want of a Kafka where none is.
    pub(crate) broker: bool,
}

impl Place {
    /// Whether no other package has a target of this name.
    pub(crate) fn is_alone(self) -> bool {
        !["lib", "suite", "recorded"].contains(&self.target)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.target)
    }
}

/// A test by its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    /// Where it is.
    pub(crate) place: Place,
    /// Its whole name there.
    pub(crate) name: &'static str,
}

/// A rule of Drover.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its name, for the command line.
    pub(crate) name: &'static str,
    /// The invariant that it belongs to.
    pub(crate) invariant: u8,
    /// What it is for.
    pub(crate) what: &'static str,
    /// The file in which it stands.
    pub(crate) file: &'static str,
    /// The text that makes it, found once in the file.
    pub(crate) find: &'static str,
    /// What stands there without the rule.
    pub(crate) replace: &'static str,
    /// Who must notice.
    pub(crate) test: Test,
}

/// Every rule that can be switched off, those of one target together.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    [stages::RULES, loader::RULES, source::RULES, proof::RULES]
        .into_iter()
        .flatten()
}

const fn place(package: &'static str, target: &'static str) -> Place {
    Place {
        package,
        target,
        binaries: false,
        broker: false,
    }
}

const fn programs(target: &'static str) -> Place {
    Place {
        package: "drover-tests",
        target,
        binaries: true,
        broker: true,
    }
}

const fn by(place: Place, name: &'static str) -> Test {
    Test { place, name }
}

const PIPELINE: Place = place("drover-pipeline", "lib");
const STAGES: Place = place("drover-pipeline", "stages");
/// Those of them that need a real one.
const BROKER: Place = Place {
    broker: true,
    ..STAGES
};
const SALESFORCE: Place = place("drover-extractor-salesforce", "lib");
const HISTORIES: Place = place("drover-extractor-salesforce", "histories");
const EDGES: Place = place("drover-extractor-salesforce", "edges");
const SLOTS: Place = place("drover-transformer-mapper", "slots");
const POSTGRES: Place = place("drover-loader-postgres", "suite");
const FENCING: Place = place("drover-tests", "fencing");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The sources of Rust in a folder.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn each_rules_text_stands_once_in_its_file() {
        let mut wrong = Vec::new();
        for rule in all() {
            let text = std::fs::read_to_string(root().join(rule.file)).expect(rule.file);
            let count = text.matches(rule.find).count();
            if count != 1 || rule.find == rule.replace {
                wrong.push(format!("{}: {count} times in {}", rule.name, rule.file));
            }
        }
        assert!(wrong.is_empty(), "bring up to date: {wrong:#?}");
    }

    #[test]
    fn each_rules_test_is_there() {
        let packages = [
            ("drover-pipeline", "pipeline"),
            ("drover-extractor-salesforce", "extractors/salesforce"),
            ("drover-transformer-mapper", "transformers/mapper"),
            ("drover-loader-postgres", "loaders/postgres"),
            ("drover-tests", "tests"),
        ];
        for rule in all() {
            let Place {
                package, target, ..
            } = rule.test.place;
            let (_, folder) = packages
                .into_iter()
                .find(|(name, _)| *name == package)
                .expect(package);
            let folder = root().join(folder).join(match target {
                "lib" => "src",
                _ => "tests",
            });
            let name = rule.test.name.rsplit("::").next().expect("a name");
            // A suite's tests are made by its macro, from checks of that name.
            let (plain, made) = (format!("fn {name}("), format!("pub async fn {name}<"));
            let suites = root().join("pipeline/src/testing");
            let is_there = [folder, suites]
                .iter()
                .flat_map(|f| sources(f))
                .any(|path| {
                    let text = std::fs::read_to_string(path).expect("a source");
                    text.contains(&plain) || text.contains(&made)
                });
            assert!(is_there, "{}: no test {name} in {package}", rule.name);
        }
    }

    #[test]
    fn names_differ_and_every_invariant_has_a_rule() {
        let names: BTreeSet<_> = all().map(|rule| rule.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.iter().all(|name| name.len() <= 35), "{names:?}");
        let held: BTreeSet<u8> = all().map(|rule| rule.invariant).collect();
        assert_eq!(held, (1..=11).collect());
    }

    #[test]
    fn a_target_that_is_said_to_be_alone_is() {
        for place in all().map(|rule| rule.test.place).filter(|p| p.is_alone()) {
            let file = format!("{}.rs", place.target);
            let everywhere = ["", "extractors", "transformers", "loaders"];
            let packages = everywhere.iter().flat_map(|folder| {
                let folder = std::fs::read_dir(root().join(folder)).expect("a folder");
                folder.map(|entry| entry.expect("an entry").path().join("tests"))
            });
            let holders = packages.filter(|tests| tests.join(&file).is_file());
            assert_eq!(holders.count(), 1, "{file}");
        }
    }
}
