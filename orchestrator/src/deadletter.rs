//! `drover deadletter`: what could not go on, why, and what a person does about
//! it: have it tried again, or leave it with a reason.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use drover_pipeline::Code;
use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::waiver::{Failure as Waived, Waiver, Waivers};

mod filter;
mod list;
mod retry;
mod show;
mod waive;

use crate::cli::{Format, blocking, tell};
use crate::failure::{Failure, Result};
use crate::migration::Bus;
use filter::{Filter, is_of};

#[derive(Subcommand)]
pub(crate) enum Deadletter {
    /// Group them by cause, with counts and an example.
    List {
        #[command(flatten)]
        filter: Filter,
        /// One line a letter.
        #[arg(long)]
        all: bool,
    },
    /// Everything about a record's letters, and what to do.
    Show {
        /// The record's key: source/object/id, with or without #slot.
        key: String,
        /// Show the record's values too.
        #[arg(long)]
        bodies: bool,
    },
    /// Have them tried again, in their own order.
    #[command(alias = "release")]
    Retry(Retry),
    /// Leave them as they are, with a reason.
    // The one that is made of the options is wider than a terminal.
    #[command(override_usage = "drover deadletter waive [OPTIONS] --reason <TEXT> [KEY]...")]
    Waive(Waive),
    /// Take a waiver back.
    Unwaive(Choice),
}

/// Which letters a verb changes: never all of them by accident.
#[derive(Args)]
pub(crate) struct Choice {
    /// The records' keys, with or without #slot; the same as --key.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them; without it, at least one filter must be given.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    choice: Choice,
    /// Only show what would be tried again.
    #[arg(long)]
    dry_run: bool,
    /// How many seconds to wait for the outcomes; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

#[derive(Args)]
pub(crate) struct Waive {
    #[command(flatten)]
    choice: Choice,
    /// Why, for those who ask later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who decides it; without it, $USER.
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

/// A letter, and what a person has decided about it.
#[derive(Debug, Clone)]
struct Letter {
    letter: DeadLetter,
    waiver: Option<Waiver>,
}

pub(crate) async fn run(verb: Deadletter, file: &Path, format: Format) -> Result<ExitCode> {
    let bus = Bus::load(file)?;
    match verb {
        Deadletter::List { filter, all } => {
            let letters = read(bus, filter).await?;
            list::print_list(&letters, all, format);
        }
        Deadletter::Show { key, bodies } => {
            let letters = read(bus, Filter::default()).await?;
            show::print_letters(&letters, &key, bodies, file, format)?;
        }
        Deadletter::Retry(options) => return retry::run(bus, options, format).await,
        Deadletter::Waive(options) => waive::waive(bus, options, format).await?,
        Deadletter::Unwaive(choice) => waive::unwaive(bus, choice, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Choice {
    /// The filter, if it was meant.
    fn filter(mut self) -> Result<Filter> {
        self.filter.key.append(&mut self.keys);
        if self.filter.is_empty() && !self.all {
            let told = "no dead letter is named";
            let advice = "give a KEY (`drover deadletter list --all` shows them), or choose \
                          by --code, --object or another filter, or say --all";
            return Err(Failure::new(Code::ConfigInvalid, told, advice).into());
        }
        Ok(self.filter)
    }
}

/// The live letters that a verb is to change. A key that names none is no success.
async fn meant(bus: Bus, choice: Choice) -> Result<Vec<Letter>> {
    let filter = choice.filter()?;
    let keys = filter.key.clone();
    let letters = read(bus, filter).await?;
    let named = |key: &&String| letters.iter().any(|with| is_of(&with.letter, key));
    match keys.iter().find(|key| !named(key)) {
        None => Ok(letters),
        Some(key) => {
            let told = format!("no dead letter is of `{key}`; nothing was changed");
            let advice = "`drover deadletter list --all` names the keys";
            Err(Failure::new(Code::UnknownRecord, told, advice).into())
        }
    }
}

/// The live letters that the filter takes, by key.
async fn read(bus: Bus, filter: Filter) -> Result<Vec<Letter>> {
    let matcher = filter.matcher(drover_pipeline::status::now())?;
    blocking(move || {
        // Of a migration that was not initialised this says so, and not which of its
        // topics is missing.
        Plan::read(&bus.client, &bus.topics)?;
        let waivers = Waivers::read(&bus.client, &bus.topics)?;
        let mut letters = Vec::new();
        for (key, value) in read_to_end(&bus.client, &bus.topics.deadletter())? {
            match serde_json::from_slice::<DeadLetter>(&value) {
                Ok(letter) if matcher.takes(&letter) => letters.push(Letter {
                    waiver: waivers.of(&Waived::of(&letter)).cloned(),
                    letter,
                }),
                Ok(_) => {}
                // One that can't be read is one more that could not go on.
                Err(_) => tell(format_args!(
                    "{}: {} is not readable; {}",
                    Code::ForeignBytes,
                    String::from_utf8_lossy(&key),
                    Code::ForeignBytes.advice()
                )),
            }
        }
        letters.sort_by(|a, b| {
            (&a.letter.key, a.letter.stage.as_str()).cmp(&(&b.letter.key, b.letter.stage.as_str()))
        });
        Ok::<_, drover_pipeline::Error>(letters)
    })
    .await
}

/// What a code's table says a person should do.
fn advice(code: &str) -> &'static str {
    Code::ALL
        .iter()
        .find(|known| known.as_str() == code)
        .map_or("", |code| code.advice())
}

/// `1 dead letter`, `2 dead letters`.
fn count(number: usize) -> String {
    match number {
        1 => "1 dead letter".to_owned(),
        _ => format!("{number} dead letters"),
    }
}

#[cfg(test)]
mod tests {
    use drover_pipeline::Error;
    use drover_pipeline::deadletter::{Author, Origin};
    use drover_pipeline::kafka::Place;
    use drover_pipeline::record::Millis;
    use drover_pipeline::spec::Stage;

    use super::*;

    pub(super) fn letter(id: u32, code: Code, at: Millis) -> DeadLetter {
        let error = Error::new(code, format!("message {id}")).at("Contact.Email -> contact.email");
        let origin = Origin {
            place: Place::new("t", 0),
            offset: 1,
        };
        let key = format!("salesforce/Contact/{id}");
        let author = Author {
            stage: Stage::Transformer,
            connector: "mapper".into(),
            instance: "transformer-1".into(),
        };
        let body = br#"{"Email":"ann at example"}"#;
        DeadLetter::new(&author, &key, &error, &origin, 1, None, at, body)
    }

    pub(super) fn waived(letter: DeadLetter) -> Letter {
        let waiver = Waiver::of(&letter, "agreed with sales", "ann", 1_800_000_000_000);
        Letter {
            waiver: Some(waiver),
            letter,
        }
    }

    pub(super) fn open(letter: DeadLetter) -> Letter {
        Letter {
            letter,
            waiver: None,
        }
    }
}
