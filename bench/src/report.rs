//! The figures as a table, as JSON, and as the newest file of a machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bench::Result;
use crate::figure::{Aim, Figure};
use crate::machine::Machine;

/// Figures with date and machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    date: String,
    machine: Machine,
    figures: Vec<Figure>,
}

impl Report {
    /// Of now and here.
    pub fn new(figures: Vec<Figure>) -> Report {
        Report {
            date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
            machine: Machine::this(),
            figures,
        }
    }

    /// At most 80 columns.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{}, {}\n{:<28}{:>9}{:>9}{:>9}{:>9}{:>6}{:>7}\n",
            self.date,
            self.machine.name(),
            "medians",
            "ours",
            "min",
            "max",
            "bare",
            "ratio",
            "aim"
        );
        let mut scenario = "";
        for figure in &self.figures {
            if scenario != figure.scenario {
                scenario = &figure.scenario;
                let _ = writeln!(out, "{scenario}");
            }
            let bare = figure.bare.as_ref().map(|bare| number(bare.median()));
            let ratio = figure.ratio().map(|ratio| number(ratio.median()));
            let aim = figure.aim.map(|aim| match aim {
                Aim::AtLeast(least) => format!(">={}", number(least)),
                Aim::AtMost(most) => format!("<={}", number(most)),
            });
            let mark = match figure.reached() {
                Some(false) => " -",
                Some(true) => " +",
                None => "",
            };
            let _ = writeln!(
                out,
                " {:<27}{:>9}{:>9}{:>9}{:>9}{:>6}{:>7}{mark}",
                figure.what,
                number(figure.ours.median()),
                number(figure.ours.min()),
                number(figure.ours.max()),
                bare.unwrap_or_default(),
                ratio.unwrap_or_default(),
                aim.unwrap_or_default(),
            );
            for note in &figure.notes {
                for line in wrap(note, 75) {
                    let _ = writeln!(out, "     {line}");
                }
            }
        }
        out
    }

    /// As JSON, with every run.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `<date>-<machine>.json` into the folder in place of the machine's
    /// older file, whose other scenarios are taken over.
    pub fn keep(mut self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let suffix = format!("-{}.json", self.machine.name());
        let mut old: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with(&suffix))
            .collect();
        old.sort();
        if let Some(newest) = old.last() {
            let before: Report = serde_json::from_str(&std::fs::read_to_string(newest)?)?;
            let again =
                |figure: &Figure| self.figures.iter().any(|f| f.scenario == figure.scenario);
            let kept: Vec<Figure> = before.figures.into_iter().filter(|f| !again(f)).collect();
            self.figures.extend(kept);
            self.figures.sort_by(|a, b| a.scenario.cmp(&b.scenario));
        }
        let path = folder.join(format!("{}{suffix}", self.date));
        std::fs::write(&path, self.json()? + "\n")?;
        for path in old.iter().filter(|one| **one != path) {
            std::fs::remove_file(path)?;
        }
        Ok(path)
    }
}

/// Three figures at least, and thousands apart.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    if value.abs() < 100.0 {
        let text = format!("{value:.2}");
        return text.strip_suffix(".00").map_or(text.clone(), str::to_owned);
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Runs;

    fn report(scenario: &str) -> Report {
        let runs = |n: f64| Runs(vec![n, n * 1.1, n * 0.9]);
        Report::new(vec![
            Figure::new(scenario, "records/s", runs(1_234_567.0))
                .beside(runs(2_469_134.0))
                .aim(Aim::AtLeast(0.55))
                .note("word ".repeat(40)),
        ])
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let table = report("a-scenario").table();
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        assert!(table.contains("1,234,567"), "{table}");
        assert!(table.contains("0.50 >=0.55 -"), "{table}");
        assert_eq!(number(12.0), "12");
        assert_eq!(number(-1234.0), "-1,234");
    }

    #[test]
    fn the_newest_file_takes_over_what_was_not_measured_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut old = report("loader");
        old.date = "2000-01-01".to_owned();
        let old = old.keep(folder.path()).expect("kept");
        report("transformer").keep(folder.path()).expect("kept");
        let new = report("transformer").keep(folder.path()).expect("kept");
        assert!(!old.exists());
        let text = std::fs::read_to_string(new).expect("the file");
        let read: Report = serde_json::from_str(&text).expect("a report");
        let names: Vec<&str> = read.figures.iter().map(|f| &*f.scenario).collect();
        assert_eq!(names, ["loader", "transformer"]);
    }
}
