//! The bare programs: the least that does a stage's work on Kafka or PostgreSQL,
//! without any of Drover. Each runs as a process of its own, so that its CPU
//! and memory can be told from the harness's.

pub mod copy;
pub mod merge;
pub mod pages;

use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::bench::Result;

/// A bare program with what it needs to know.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bare {
    /// Copies a topic.
    Copy(copy::Copy),
    /// Merges rows into PostgreSQL.
    Merge(merge::Merge),
    /// Reads the source's pages.
    Pages(pages::Pages),
}

impl Bare {
    /// Reads what [`Bare::start`] wrote.
    pub fn parse(json: &str) -> Result<Bare> {
        Ok(serde_json::from_str(json)?)
    }

    /// Starts it as a process.
    pub fn start(&self) -> Result<Child> {
        Ok(Command::new(std::env::current_exe()?)
            .arg("--bare")
            .arg(serde_json::to_string(self)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?)
    }

    /// Runs it as a process to its end, and returns what it printed.
    pub fn output(&self) -> Result<Vec<u8>> {
        let output = Command::new(std::env::current_exe()?)
            .arg("--bare")
            .arg(serde_json::to_string(self)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("a bare program ended with {}", output.status).into()),
        }
    }

    /// Runs it in this process, to its end.
    pub fn run(self) -> Result<()> {
        match self {
            Bare::Copy(copy) => copy.run(),
            Bare::Merge(merge) => merge.run(),
            Bare::Pages(pages) => pages.run(),
        }
    }
}
