//! Finds the programs of the stages, beside `drover` or on PATH, as cargo finds
//! its subcommands, and asks them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use drover_pipeline::Code;
use drover_pipeline::config::{Document, Problem, nearest};
use drover_pipeline::control::Plan;
use drover_pipeline::extract::Discovery;
use drover_pipeline::load::ask::{Answer, Question};
use drover_pipeline::spec::{Spec, Stage};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::failure::{Failure, Failures, Result};

/// The one transformer there is.
pub const TRANSFORMER: &str = "mapper";

/// The connector that new ones are copied from: built with the others, and
/// nothing that a person would migrate from or to.
pub const TEMPLATE: &str = "dummy";

/// Where programs are looked for, in order.
#[derive(Debug, Clone)]
pub struct Connectors {
    folders: Vec<PathBuf>,
}

/// The program of a stage.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Which stage it is.
    pub stage: Stage,
    /// Its name, as in `sourceType`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

impl Connectors {
    /// Those beside this program, then those on PATH.
    pub fn of_process() -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        Connectors {
            folders: beside
                .into_iter()
                .chain(std::env::split_paths(&path))
                .collect(),
        }
    }

    /// The program of that name, if it is installed.
    pub fn find(&self, stage: Stage, name: &str) -> Option<Connector> {
        let program = program(stage, name);
        let path = self.folders.iter().map(|folder| folder.join(&program));
        path.into_iter()
            .find(|path| is_program(path))
            .map(|path| Connector {
                stage,
                name: name.to_owned(),
                path,
            })
    }

    /// The names of all that are installed for a stage, without the template.
    pub fn list(&self, stage: Stage) -> BTreeSet<String> {
        let prefix = program(stage, "");
        let entries = self
            .folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok());
        entries
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                // Cargo leaves `drover-loader-x.d` beside the program.
                let name = name
                    .strip_prefix(&prefix)
                    .filter(|name| !name.contains('.'))?;
                (name != TEMPLATE && is_program(&entry.path())).then(|| name.to_owned())
            })
            .collect()
    }

    /// The connector that the document names at `field`, or why there is none.
    pub fn named(
        &self,
        document: &Document,
        field: &str,
        stage: Stage,
        name: &str,
    ) -> Result<Connector, Problem> {
        if let Some(found) = self.find(stage, name) {
            return Ok(found);
        }
        let known = self.list(stage);
        let all = || known.iter().map(String::as_str);
        let program = program(stage, name);
        let advice = match (nearest(name, all()), known.is_empty()) {
            (_, true) => format!("put the program {program} beside drover or on PATH"),
            (Some(near), _) => format!("write `{near}`; installed: {}", list(all())),
            (None, _) => format!(
                "installed: {}; {program} would stand beside drover",
                list(all())
            ),
        };
        Err(document.problem(
            field,
            format!("no {} `{name}` is installed", stage.as_str()),
            advice,
        ))
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The name of a stage's program.
pub fn program(stage: Stage, name: &str) -> String {
    format!("drover-{}-{name}", stage.as_str())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

impl Connector {
    /// The name of the program.
    pub fn program(&self) -> String {
        program(self.stage, &self.name)
    }

    /// What the connector says of itself.
    pub async fn spec(&self) -> Result<Spec, Failure> {
        let printed = self.ask("spec", None, None, Duration::from_secs(10)).await;
        let printed = printed.map_err(|failures| self.broken(&failures.to_string()))?;
        let spec: Spec =
            serde_json::from_slice(&printed).map_err(|error| self.broken(&error.to_string()))?;
        if spec.stage != self.stage || spec.name != self.name {
            let other = program(spec.stage, &spec.name);
            return Err(self.broken(&format!("it says that it is {other}")));
        }
        Ok(spec)
    }

    /// One cheap live call with the configuration's credentials.
    pub async fn check(&self, config: &Path) -> Result<()> {
        self.ask("check", Some(config), None, Duration::from_secs(120))
            .await?;
        Ok(())
    }

    /// What the source has.
    pub async fn discover(&self, config: &Path) -> Result<Discovery> {
        let printed = self
            .ask("discover", Some(config), None, Duration::from_secs(600))
            .await?;
        serde_json::from_slice(&printed).map_err(|error| self.broken(&error.to_string()).into())
    }

    /// What the target has of some records; one answer a question.
    pub async fn read(&self, config: &Path, questions: &[Question]) -> Result<Vec<Answer>> {
        let input = serde_json::to_vec(questions).unwrap_or_default();
        let printed = self
            .ask("read", Some(config), Some(input), Duration::from_secs(60))
            .await?;
        serde_json::from_slice(&printed).map_err(|error| self.broken(&error.to_string()).into())
    }

    /// Has a transformer compile a plan's mapping. Its failures are every problem
    /// of the mapping.
    pub async fn compile(&self, plan: &Plan) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new().map_err(|e| self.broken(&e.to_string()))?;
        serde_json::to_writer(&mut file, plan).map_err(|e| self.broken(&e.to_string()))?;
        self.ask("compile", Some(file.path()), None, Duration::from_secs(60))
            .await?;
        Ok(())
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(
            Code::Refused,
            format!(
                "{} does not answer as a connector does: {why}",
                self.path.display()
            ),
            format!(
                "install it again; it must fit drover {}",
                env!("CARGO_PKG_VERSION")
            ),
        )
    }

    /// Runs the program to its end and returns what it printed. Its failures
    /// are the lines of its standard error that have Drover's form.
    async fn ask(
        &self,
        verb: &str,
        config: Option<&Path>,
        input: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.path);
        command.arg(verb);
        if let Some(config) = config {
            command.arg("-c").arg(config);
        }
        let stdin = match input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        command.stdin(stdin).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let answered = async {
            let mut child = command.spawn()?;
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                // A program that ends without reading says why itself.
                let _ = stdin.write_all(&input).await;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(limit, answered).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(self.broken(&error.to_string()).into()),
            Err(_) => {
                let limit = limit.as_secs();
                return Err(self.broken(&format!("no answer for {limit} s")).into());
            }
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failures(&output))
    }

    fn failures(&self, output: &Output) -> Failures {
        let text = String::from_utf8_lossy(&output.stderr);
        let told: Vec<Failure> = text.lines().filter_map(Failure::parse).collect();
        if !told.is_empty() {
            return Failures(told);
        }
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        self.broken(&format!(
            "{}: {}",
            output.status,
            last.unwrap_or("no message")
        ))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn the_template_is_found_and_not_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["dummy", "ledger"] {
            let path = folder.path().join(program(Stage::Loader, name));
            write(&path, "").expect("a file");
            set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
        }
        let connectors = Connectors {
            folders: vec![folder.path().to_owned()],
        };
        let listed: Vec<String> = connectors.list(Stage::Loader).into_iter().collect();
        assert_eq!(listed, ["ledger"]);
        assert!(connectors.find(Stage::Loader, TEMPLATE).is_some());
    }
}
