//! What `drover` says when something is wrong: always
//! `CODE: what happened (place); what to do`.

use std::fmt;

use drover_pipeline::config::Problem;
use drover_pipeline::{Class, Code, Error};

use crate::table::fit;

/// Characters of a reason in a table.
const SHORT: usize = 90;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its code.
    pub code: Code,
    /// What happened, where, and what to do, without the code.
    pub text: String,
}

/// A result that may have several things wrong.
pub type Result<T, E = Failures> = std::result::Result<T, E>;

/// All that is wrong, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures(pub Vec<Failure>);

impl Failure {
    /// A failure whose advice is its own, not its code's.
    pub fn new(code: Code, message: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Failure {
            code,
            text: format!("{message}; {advice}"),
        }
    }

    /// Reads back a line that one of Drover's processes has printed.
    pub fn parse(line: &str) -> Option<Self> {
        let (code, text) = line.trim_end().split_once(": ")?;
        let code = Code::ALL.iter().find(|known| known.as_str() == code)?;
        Some(Failure {
            code: *code,
            text: text.to_owned(),
        })
    }

    /// Whether it heals by itself, so that a command that goes on running waits.
    pub fn passes(&self) -> bool {
        matches!(self.code.class(), Class::Transient | Class::Throttled)
    }
}

impl Failures {
    /// The exit code: bad configuration comes before the environment.
    pub fn exit(&self) -> u8 {
        let codes = || self.0.iter().map(|failure| failure.code.exit());
        [1, 2]
            .into_iter()
            .find(|code| codes().any(|c| c == *code))
            .unwrap_or(3)
    }

    /// What is wrong, in short, for a table: the first of it, without what to do,
    /// and how much more there is.
    pub fn brief(&self) -> String {
        let Some(first) = self.0.first() else {
            return String::new();
        };
        let what = first.text.split("; ").next().unwrap_or_default();
        let what = format!("{}: {}", first.code, fit(what, SHORT));
        match self.0.len() {
            1 => what,
            all => format!("{what} (and {} more)", all - 1),
        }
    }

    /// As a command tells it that goes on running.
    pub fn while_running(&self) -> String {
        let lines = self.0.iter().map(|failure| match failure.code.meanwhile() {
            Some(meanwhile) => format!("{failure}; {meanwhile}"),
            None => failure.to_string(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether all of it heals by itself.
    pub fn passes(&self) -> bool {
        self.0.iter().all(Failure::passes)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{failure}")?;
        }
        Ok(())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let prefix = format!("{}: ", error.code);
        Failure {
            code: error.code,
            text: text.strip_prefix(&prefix).unwrap_or(&text).to_owned(),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure {
            code: Code::ConfigInvalid,
            text: problem.to_string(),
        }
    }
}

impl<F: Into<Failure>> From<F> for Failures {
    fn from(failure: F) -> Self {
        Failures(vec![failure.into()])
    }
}

impl From<Vec<Problem>> for Failures {
    fn from(problems: Vec<Problem>) -> Self {
        Failures(problems.into_iter().map(Failure::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_it_was_printed() {
        let failure = Failure::from(Error::new(Code::Unauthorized, "bad token").at("login"));
        let line = failure.to_string();
        assert_eq!(
            line,
            "UNAUTHORIZED: bad token (at login); renew the credentials, then run this again"
        );
        assert_eq!(Failure::parse(&line), Some(failure));
        assert_eq!(Failure::parse("2026-01-01 INFO: x"), None);
    }

    #[test]
    fn a_table_says_in_short_what_is_wrong() {
        let one = Failure::from(Error::new(Code::Unauthorized, "bad token").at("login"));
        let brief = |all: &[&Failure]| Failures(all.iter().copied().cloned().collect()).brief();
        assert_eq!(brief(&[&one]), "UNAUTHORIZED: bad token (at login)");
        let long = Failure::new(Code::Refused, "long ".repeat(30), "mend it");
        let told = brief(&[&long, &one]);
        assert!(told.starts_with("REFUSED: long long ") && told.ends_with("… (and 1 more)"));
        assert!(told.chars().count() < 130, "{told}");
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        let of = |codes: &[Code]| {
            Failures(codes.iter().map(|c| Failure::new(*c, "", "")).collect()).exit()
        };
        assert_eq!(of(&[Code::BrokerUnreachable, Code::ConfigInvalid]), 2);
        assert_eq!(of(&[Code::BrokerUnreachable]), 3);
        assert_eq!(of(&[Code::ConfigInvalid, Code::Invariant]), 1);
    }
}
